"""
Traces of one replica: a span for every request, call, statement and job, carried on by W3C `traceparent`.

A span below another is made only where there is one: probes and the polling of the worker make no traces.
Statements are recorded with their placeholders, never with values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import INVALID_SPAN, Span, SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from labkit.shop.config import Config

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

    from labkit.shop.metrics import Telemetry
    from labkit.shop.spans import SpanQueue

__all__ = ["TEXT_LIMIT", "Tracing", "exemplar", "fail", "trace_headers"]

TEXT_LIMIT: Final = 300
_W3C: Final = TraceContextTextMapPropagator()
_Attributes = Mapping[str, str | int] | Mapping[str, str]


class Tracing:
    """
    Makes the spans of one replica; makes none until `connect`.

    >>> with Tracing().server("GET", "/products", {}, {}) as span:
    ...     (span.is_recording(), exemplar(), trace_headers())
    (False, None, {})
    """

    def __init__(self) -> None:
        self._on: Callable[[], bool] = lambda: False
        self._tracer: trace.Tracer | None = None
        self._queue: SpanQueue | None = None

    def connect(self, config: Config, telemetry: Telemetry, *, on: Callable[[], bool]) -> None:
        """
        Send spans to `SHOP_OTLP_URL` from now on; nothing happens when it is empty.

        Args:
            config: where to, which share of traces, and who this replica is.
            telemetry: gets `shop_spans_total` and `shop_spans_waiting`.
            on: asked at each span whether to make it.
        """
        if not config.otlp_url:
            return
        from labkit.shop.spans import SpanQueue, otlp_exporter  # noqa: PLC0415  (the SDK; only here is it needed)

        outcomes = telemetry.counter("shop_spans_total", "Spans by what became of them.", "outcome")
        for outcome in ("sent", "queue_full", "not_taken"):
            outcomes.labels(outcome)
        queue = SpanQueue(otlp_exporter(config.otlp_url), outcomes)
        telemetry.gauge("shop_spans_waiting", "Spans that wait for the trace store.").set_function(lambda: len(queue))
        self._config, self._queue, self._on = config, queue, on
        self.version_changed(telemetry.version)

    def version_changed(self, version: str) -> None:
        """Spans from now on say that *version* made them."""
        if self._queue is not None:
            self._tracer = _provider(self._config, version, self._queue).get_tracer("labkit.shop")

    def close(self) -> None:
        """Send what is left, for a second at most."""
        if self._queue is not None:
            self._queue.shutdown()

    def server(
        self, method: str, route: str, headers: Mapping[str, str], attributes: _Attributes
    ) -> AbstractContextManager[Span]:
        """The span of a request that arrived with *headers*; *route* is the template, never the path."""
        given = {"http.request.method": method, "http.route": route, **attributes}
        return self._span(f"{method} {route}", SpanKind.SERVER, given, _W3C.extract(headers))

    def job(self, queue: str, headers: Mapping[str, str]) -> AbstractContextManager[Span]:
        """The span of a job, in the trace of whoever queued it with *headers*."""
        given = {
            "messaging.system": "redis",
            "messaging.destination.name": queue,
            "messaging.operation.type": "process",
        }
        return self._span(f"process {queue}", SpanKind.CONSUMER, given, _W3C.extract(headers))

    def below(
        self, name: str, attributes: _Attributes, kind: SpanKind = SpanKind.CLIENT
    ) -> AbstractContextManager[Span]:
        """A span of something that is done for the present request or job; none when there is neither."""
        if not trace.get_current_span().get_span_context().is_valid:
            return nullcontext(INVALID_SPAN)
        return self._span(name, kind, attributes, None)

    def statement(self, name: str, sql: str) -> AbstractContextManager[Span]:
        """The span of a statement to MariaDB."""
        operation = sql.split(None, 1)[0].upper() if sql else name
        attributes = {"db.system": "mariadb", "db.operation": operation, "db.statement": sql[:TEXT_LIMIT]}
        return self.below(f"mariadb {name}", attributes)

    def command(self, name: str) -> AbstractContextManager[Span]:
        """The span of an exchange with Redis."""
        return self.below(f"redis {name}", {"db.system": "redis", "db.operation": name})

    def _span(
        self, name: str, kind: SpanKind, attributes: _Attributes, parent: Context | None
    ) -> AbstractContextManager[Span]:
        if self._tracer is None or not self._on():
            return nullcontext(INVALID_SPAN)
        return _current(self._tracer, name, kind, attributes, parent)


@contextmanager
def _current(
    tracer: trace.Tracer, name: str, kind: SpanKind, attributes: _Attributes, parent: Context | None
) -> Iterator[Span]:
    with tracer.start_as_current_span(
        name, parent, kind, dict(attributes), record_exception=False, set_status_on_exception=False
    ) as span:
        try:
            yield span
        except Exception as error:
            if getattr(error, "status", 500) >= 500:  # a request that was refused for its own fault is no error
                fail(span, str(error) or type(error).__name__, kind=type(error).__name__)
            raise


def fail(span: Span, reason: str, *, kind: str = "") -> None:
    """Mark *span* as an error, with a bounded *reason*."""
    span.set_status(StatusCode.ERROR, reason[:TEXT_LIMIT])
    if kind:
        span.set_attribute("error.type", kind)


def trace_headers() -> dict[str, str]:
    """What a call or a job carries so that the other side continues this trace; empty outside one."""
    headers: dict[str, str] = {}
    _W3C.inject(headers)
    return headers


def exemplar() -> dict[str, str] | None:
    """The labels that tie an observation to the present trace; None unless the trace is kept."""
    context = trace.get_current_span().get_span_context()
    if not (context.is_valid and context.trace_flags.sampled):
        return None
    return {"trace_id": trace.format_trace_id(context.trace_id)}


def _provider(config: Config, version: str, queue: SpanQueue) -> TracerProvider:
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.sampling import ParentBasedTraceIdRatio  # noqa: PLC0415

    identity: dict[str, Any] = {
        "service.name": config.service,
        "service.instance.id": config.instance,
        "service.version": version,
    }
    # Given whole: to detect a resource, the SDK would read the metadata of every installed package.
    provider = TracerProvider(ParentBasedTraceIdRatio(config.trace_share), Resource(identity), shutdown_on_exit=False)
    provider.add_span_processor(queue)
    return provider
