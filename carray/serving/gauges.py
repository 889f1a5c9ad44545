"""What Prometheus reads of a server, whoever keeps it: this process, or Ray for all replicas."""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Callable, Sequence
from typing import Protocol

from prometheus_client import CollectorRegistry, Gauge, Histogram, generate_latest
from prometheus_client import Counter as Counts

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
BATCHES = (1, 2, 4, 8, 16, 32, 64)
RECENT = 1000  # answers whose classes are held against training
LEAST_RECENT = 100  # fewer differ from training by chance alone


Meter = Callable[..., None]  # takes a value, then one value of each label


class Meters(Protocol):
    """Makes what is measured, and may give all of it as text."""

    def counter(self, name: str, what: str, *labels: str) -> Meter:
        """Return what adds up."""

    def histogram(self, name: str, what: str, buckets: Sequence[float]) -> Meter:
        """Return what counts values by bucket."""

    def gauge(self, name: str, what: str, *labels: str) -> Meter:
        """Return what keeps the last value."""

    def text(self) -> bytes:
        """Return everything in Prometheus' format."""


class PrometheusMeters:
    """A registry of its own, in this process."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()

    def counter(self, name: str, what: str, *labels: str) -> Meter:
        """Return what adds up; its name ends in `_total`."""
        made = Counts(name, what, labels, registry=self._registry)
        return lambda value, *values: made.labels(*values).inc(value)

    def histogram(self, name: str, what: str, buckets: Sequence[float]) -> Meter:
        """Return what counts values by bucket."""
        return Histogram(name, what, buckets=buckets, registry=self._registry).observe

    def gauge(self, name: str, what: str, *labels: str) -> Meter:
        """Return what keeps the last value."""
        made = Gauge(name, what, labels, registry=self._registry)
        return lambda value, *values: made.labels(*values).set(value)

    def text(self) -> bytes:
        """Return everything in Prometheus' format."""
        return generate_latest(self._registry)


class Gauges:
    """Counters and histograms of one server, kept by `meters`."""

    def __init__(self, meters: Meters | None = None) -> None:
        self._meters = meters = meters or PrometheusMeters()
        self._requests = meters.counter(
            "carray_requests", "Requests to predict, by HTTP status.", "status"
        )
        self._seconds = meters.histogram(
            "carray_request_seconds", "From request to answer.", SECONDS
        )
        self._batch = meters.histogram("carray_batch_images", "Images answered together.", BATCHES)
        self._batch_seconds = meters.histogram(
            "carray_batch_seconds", "A batch's time in the model.", SECONDS
        )
        self._classes = meters.counter(
            "carray_answers", "Images by likeliest class.", "model", "class_name"
        )
        self._unknown = meters.counter("carray_unknown", "Images like nothing trained on.", "model")
        self._waiting = meters.gauge("carray_waiting_images", "Images in the queue.", "model")
        self._drift = meters.gauge(
            "carray_class_drift",
            f"How far the classes of the last {RECENT} answers are from training's: the share of "
            "answers that would have to be others, 0 to 1. After a calibration, from "
            f"{LEAST_RECENT} answers on.",
            "model",
        )
        self._recent: dict[str, deque[str]] = defaultdict(lambda: deque(maxlen=RECENT))

    def requested(self, status: int, seconds: float) -> None:
        """Count a request."""
        self._requests(1, status)
        self._seconds(seconds)

    def batched(self, images: int, seconds: float) -> None:
        """Count a batch."""
        self._batch(images)
        self._batch_seconds(seconds)

    def answered(self, model: str, class_name: str, is_unknown: bool) -> None:
        """Count an image by its answer."""
        self._classes(1, model, class_name)
        self._unknown(int(is_unknown), model)
        self._recent[model].append(class_name)

    def waits(self, model: str, images: int) -> None:
        """Say how many images wait."""
        self._waiting(images, model)

    def drifts(self, model: str, classes: Sequence[str], train_counts: Sequence[int]) -> None:
        """Hold the classes of recent answers against the training images of each class.

        Half the sum of differences of shares, the total variation distance.
        """
        recent, total = Counter(self._recent[model]), sum(train_counts)
        answers = recent.total()
        if answers < LEAST_RECENT or not total:
            return
        trained = dict(zip(classes, train_counts, strict=True))
        names = trained.keys() | recent.keys()
        apart = (abs(recent[name] / answers - trained.get(name, 0) / total) for name in names)
        self._drift(sum(apart) / 2, model)

    def text(self) -> bytes:
        """Return everything in Prometheus' format.

        Raises:
            Refused: 404, it is read elsewhere.
        """
        return self._meters.text()
