"""What Prometheus reads of a server."""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Gauge, Histogram, generate_latest
from prometheus_client import Counter as Counts

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
BATCHES = (1, 2, 4, 8, 16, 32, 64)
RECENT = 1000  # answers whose classes are held against training
LEAST_RECENT = 100  # fewer differ from training by chance alone


class Gauges:
    """Counters and histograms of one server; a registry of its own."""

    def __init__(self) -> None:
        own = self._registry = CollectorRegistry()
        self._requests = Counts(
            "carray_requests", "Requests to predict, by HTTP status.", ["status"], registry=own
        )
        self._seconds = Histogram(
            "carray_request_seconds", "From request to answer.", buckets=SECONDS, registry=own
        )
        self._batch = Histogram(
            "carray_batch_images", "Images answered together.", buckets=BATCHES, registry=own
        )
        self._batch_seconds = Histogram(
            "carray_batch_seconds", "A batch's time in the model.", buckets=SECONDS, registry=own
        )
        self._classes = Counts(
            "carray_answers", "Images by likeliest class.", ["model", "class_name"], registry=own
        )
        self._unknown = Counts(
            "carray_unknown", "Images like nothing trained on.", ["model"], registry=own
        )
        self._waiting = Gauge(
            "carray_waiting_images", "Images in the queue.", ["model"], registry=own
        )
        self._drift = Gauge(
            "carray_class_drift",
            f"How far the classes of the last {RECENT} answers are from training's: the share of "
            "answers that would have to be others, 0 to 1. After a calibration, from "
            f"{LEAST_RECENT} answers on.",
            ["model"],
            registry=own,
        )
        self._recent: dict[str, deque[str]] = defaultdict(lambda: deque(maxlen=RECENT))

    def requested(self, status: int, seconds: float) -> None:
        """Count a request."""
        self._requests.labels(status).inc()
        self._seconds.observe(seconds)

    def batched(self, images: int, seconds: float) -> None:
        """Count a batch."""
        self._batch.observe(images)
        self._batch_seconds.observe(seconds)

    def answered(self, model: str, class_name: str, is_unknown: bool) -> None:
        """Count an image by its answer."""
        self._classes.labels(model, class_name).inc()
        self._unknown.labels(model).inc(is_unknown)
        self._recent[model].append(class_name)

    def waits(self, model: str, images: int) -> None:
        """Say how many images wait."""
        self._waiting.labels(model).set(images)

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
        self._drift.labels(model).set(sum(apart) / 2)

    def text(self) -> bytes:
        """Return everything in Prometheus' format."""
        return generate_latest(self._registry)
