"""What replicas measure, handed to Ray: each node exports it for Prometheus, tagged by replica."""

from __future__ import annotations

from collections.abc import Sequence

from ray.serve import metrics

from carray.serving.gauges import Meter
from carray.serving.limits import Refused

ELSEWHERE = (
    "a replica's own figures aren't the service's: scrape each node's metrics port, as "
    "dashboards/prometheus.yml does; the names begin with ray_carray_"
)


class RayMeters:
    """Serve's metrics; each has the tags `application`, `deployment` and `replica` too."""

    def counter(self, name: str, what: str, *labels: str) -> Meter:
        """Return what adds up, over all replicas in a query's `sum`."""
        made = metrics.Counter(name, what, labels)

        def add(value: float, *values: object) -> None:
            if value > 0:  # Ray takes no 0
                made.inc(value, _tags(labels, values))

        return add

    def histogram(self, name: str, what: str, buckets: Sequence[float]) -> Meter:
        """Return what counts values by bucket."""
        observe: Meter = metrics.Histogram(name, what, list(buckets)).observe
        return observe

    def gauge(self, name: str, what: str, *labels: str) -> Meter:
        """Return what keeps the last value."""
        made = metrics.Gauge(name, what, labels)
        return lambda value, *values: made.set(value, _tags(labels, values))

    def text(self) -> bytes:
        """Refuse: a scrape through the service's address reaches any one of the replicas."""
        raise Refused(404, ELSEWHERE)


def _tags(labels: Sequence[str], values: Sequence[object]) -> dict[str, str]:
    return dict(zip(labels, map(str, values), strict=True))
