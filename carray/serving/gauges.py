"""What Prometheus reads of a server."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
BATCHES = (1, 2, 4, 8, 16, 32, 64)


class Gauges:
    """Counters and histograms of one server; a registry of its own."""

    def __init__(self) -> None:
        own = self._registry = CollectorRegistry()
        self._requests = Counter(
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
        self._classes = Counter(
            "carray_answers", "Images by likeliest class.", ["model", "class_name"], registry=own
        )
        self._unknown = Counter(
            "carray_unknown", "Images like nothing trained on.", ["model"], registry=own
        )
        self._waiting = Gauge(
            "carray_waiting_images", "Images in the queue.", ["model"], registry=own
        )

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

    def waits(self, model: str, images: int) -> None:
        """Say how many images wait."""
        self._waiting.labels(model).set(images)

    def text(self) -> bytes:
        """Return everything in Prometheus' format."""
        return generate_latest(self._registry)
