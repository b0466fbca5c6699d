"""
Names, buckets and labels of the shop's metrics.

The `version` of a service is a label of `shop_build_info` only.  On every series it would start new
counters at each deploy, and `rate` loses what happens before a counter's first scrape.  To split by version:

    sum by (service, version) (
      rate(http_requests_total[1m]) * on (service, instance) group_left (version) shop_build_info
    )

`service` and `instance` come from the scrape job.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, disable_created_metrics
from prometheus_client.exposition import choose_encoder

from labkit.shop.tracing import Tracing

__all__ = ["DURATION_BUCKETS_S", "Telemetry"]

# Few, and where objectives are: every bound is a series per endpoint and replica.
DURATION_BUCKETS_S: tuple[float, ...] = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)

_METHODS = frozenset({"GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH"})


class Telemetry:
    """
    The metrics of one replica, in a registry of its own.

    Metrics of one concern (database, queues, clients) are made by the part that has that concern,
    through `counter`, `gauge` and `histogram`, so a service exposes only what it does.

    >>> telemetry = Telemetry("1.0.0")
    >>> telemetry.request_done("GET", "/products", 200, 0.004)
    >>> b'http_requests_total{endpoint="/products",method="GET",status="200"} 1.0' in telemetry.exposition("")[0]
    True
    """

    def __init__(self, version: str) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        self.tracing = Tracing()
        ProcessCollector(registry=self.registry)
        self._requests = self.counter(
            "http_requests_total", "Requests that were answered.", "method", "endpoint", "status"
        )
        self._durations = self.histogram(
            "http_request_duration_seconds", "Time from request to answer.", "method", "endpoint"
        )
        self.in_flight = self.gauge("http_requests_in_flight", "Requests that are being served.")
        self.loop_lag = self.gauge(
            "event_loop_lag_seconds", "How late the event loop ran its last timer: the queue for the processor."
        )
        self._build = self.gauge("shop_build_info", "The version that is deployed; always 1.", "version")
        self._version = version
        self._build.labels(version).set(1)

    def counter(self, name: str, doc: str, *labels: str) -> Counter:
        """A new counter; its name ends in _total."""
        return Counter(name, doc, labels, registry=self.registry)

    def gauge(self, name: str, doc: str, *labels: str) -> Gauge:
        """A new gauge."""
        return Gauge(name, doc, labels, registry=self.registry)

    def histogram(self, name: str, doc: str, *labels: str) -> Histogram:
        """A new histogram of seconds with the buckets that all durations share."""
        return Histogram(name, doc, labels, buckets=DURATION_BUCKETS_S, registry=self.registry)

    @property
    def version(self) -> str:
        """The version that is reported now."""
        return self._version

    @version.setter
    def version(self, version: str) -> None:
        self._build.remove(self._version)
        self._build.labels(version).set(1)
        self._version = version
        self.tracing.version_changed(version)

    def request_done(
        self, method: str, endpoint: str, status: int, duration_s: float, exemplar: dict[str, str] | None = None
    ) -> None:
        """
        Count one answer.

        Args:
            method: of HTTP; one that is not of RFC 9110 counts as OTHER, so that clients cannot make series.
            endpoint: the route template, never the path.
            status: of the answer.
            duration_s: from request to answer.
            exemplar: labels that tie this observation to its trace.
        """
        method = method if method in _METHODS else "OTHER"
        self._requests.labels(method, endpoint, str(status)).inc()
        self._durations.labels(method, endpoint).observe(duration_s, exemplar)

    def exposition(self, accept: str) -> tuple[bytes, str]:
        """The page for a scraper that sent this Accept header (OpenMetrics if it may), and its content type."""
        encode, content_type = choose_encoder(accept)
        return encode(self.registry), content_type
