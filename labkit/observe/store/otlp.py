"""From OTLP requests to columns of the tables; refuses what is not OTLP and says why."""

from __future__ import annotations

import base64
import binascii
import json
import time
from collections.abc import Iterable
from typing import Any

from google.protobuf.json_format import ParseDict, ParseError
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

__all__ = ["LOG_FIELDS", "LONGEST", "SPAN_FIELDS", "Columns", "Malformed", "log_columns", "parse", "span_columns"]

Columns = dict[str, list[Any]]

LOG_FIELDS = ("time_ns", "service", "level", "message", "trace_id", "span_id", "fields", "source", "position")
SPAN_FIELDS = (
    "trace_id",
    "span_id",
    "parent_id",
    "service",
    "operation",
    "kind",
    "start_ns",
    "duration_ns",
    "error",
    "attributes",
)

# Characters of one message and of one attribute; what is longer is cut and says so.
LONGEST = 16_384
_KINDS = ("internal", "internal", "server", "client", "producer", "consumer")
_IDS = frozenset({"traceId", "spanId", "parentSpanId"})


class Malformed(ValueError):
    """The request is not OTLP; the text says what is wrong."""


def parse(body: bytes, content_type: str, request: type[Any]) -> Any:
    """
    The message of a request.

    Raises:
        Malformed: another content type than protobuf or JSON, or a body that is not what it claims to be.
    """
    if content_type == "application/x-protobuf":
        message = request()
        try:
            message.ParseFromString(body)
        except DecodeError as error:
            raise Malformed(f"the body ({len(body):,} bytes) is no {request.__name__} in protobuf: {error}") from error
        return message
    if content_type == "application/json":
        try:
            return ParseDict(_with_base64_ids(json.loads(body.decode())), request(), ignore_unknown_fields=True)
        except UnicodeDecodeError as error:
            raise Malformed(f"the body is not UTF-8: {error}") from error
        except json.JSONDecodeError as error:
            raise Malformed(f"the body is not JSON: {error}") from error
        except (ParseError, ValueError, RecursionError, TypeError) as error:
            raise Malformed(f"the body is JSON, but no {request.__name__}: {error}") from error
    raise Malformed(f"content type {content_type!r} is not OTLP; use application/x-protobuf or application/json")


def _with_base64_ids(value: Any) -> Any:
    """OTLP writes ids as hex digits in JSON, where protobuf's own JSON has base64."""
    if isinstance(value, list):
        return [_with_base64_ids(one) for one in value]
    if not isinstance(value, dict):
        return value
    return {
        key: base64.b64encode(binascii.unhexlify(one)).decode()
        if key in _IDS and isinstance(one, str)
        else _with_base64_ids(one)
        for key, one in value.items()
    }


def _value(any_value: Any) -> Any:
    kind = any_value.WhichOneof("value")
    if kind == "array_value":
        return [_value(one) for one in any_value.array_value.values]
    if kind == "kvlist_value":
        return _attributes(any_value.kvlist_value.values)
    if kind == "bytes_value":
        return any_value.bytes_value.hex()
    if kind == "string_value":
        return _cut(any_value.string_value)
    return getattr(any_value, kind) if kind else None


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}… [cut: {len(text):,} characters]"


def _attributes(pairs: Iterable[Any]) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in pairs}


def _service(resource: Any) -> str:
    return next((str(_value(p.value)) for p in resource.attributes if p.key == "service.name"), "") or "unknown"


def _id(raw: bytes, length: int, what: str) -> str:
    if len(raw) != length:
        raise Malformed(f"a {what} must have {length} bytes, this one has {len(raw)}")
    return raw.hex()


def span_columns(message: ExportTraceServiceRequest) -> Columns:
    """
    The columns `SPAN_FIELDS` of every span of *message*.

    Raises:
        Malformed: an id of another length; nothing of the request counts then.
    """
    rows: list[tuple[Any, ...]] = []
    for group in message.resource_spans:
        service = _service(group.resource)
        for scope in group.scope_spans:
            rows += [_span_row(span, service) for span in scope.spans]
    return _columns(SPAN_FIELDS, rows)


def _span_row(span: Span, service: str) -> tuple[Any, ...]:
    attributes = _attributes(span.attributes)
    if span.status.message:
        attributes["status.message"] = _cut(span.status.message)
    for event in span.events:
        attributes |= {
            key: value for key, value in _attributes(event.attributes).items() if key.startswith("exception.")
        }
    return (
        _id(span.trace_id, 16, "trace id"),
        _id(span.span_id, 8, "span id"),
        span.parent_span_id.hex(),
        service,
        span.name,
        _KINDS[span.kind] if span.kind < len(_KINDS) else "internal",
        _instant(span.start_time_unix_nano),
        # A clock that was set back between start and end must not make a span shorter than nothing.
        max(0, span.end_time_unix_nano - span.start_time_unix_nano) if span.end_time_unix_nano < _BIGINT else 0,
        span.status.code == Status.STATUS_CODE_ERROR,
        json.dumps(attributes, ensure_ascii=False),
    )


_BIGINT = 2**63


def _instant(nanoseconds: int) -> int:
    """An instant as the tables hold it; now for one that is absent or beyond the year 2262."""
    return nanoseconds if 0 < nanoseconds < _BIGINT else time.time_ns()


def log_columns(message: ExportLogsServiceRequest) -> Columns:
    """
    The columns `LOG_FIELDS` of every line of *message*; lines without a time get the present one.

    Raises:
        Malformed: an id of another length, or a `log.position` that is no number.
    """
    rows: list[tuple[Any, ...]] = []
    for group in message.resource_logs:
        service = _service(group.resource)
        for scope in group.scope_logs:
            rows += [_log_row(record, service) for record in scope.log_records]
    return _columns(LOG_FIELDS, rows)


def _log_row(record: Any, service: str) -> tuple[Any, ...]:
    fields = _attributes(record.attributes)
    source, position = str(fields.pop("log.source", "")), fields.pop("log.position", 0)
    if not isinstance(position, int) or not 0 <= position < _BIGINT:
        raise Malformed(f"log.position must be a whole number from 0, got {position!r}")
    body = _value(record.body)
    return (
        _instant(record.time_unix_nano or record.observed_time_unix_nano),
        service,
        (record.severity_text or "info").lower(),
        body if isinstance(body, str) else json.dumps(body, ensure_ascii=False),
        _id(record.trace_id, 16, "trace id") if record.trace_id else "",
        _id(record.span_id, 8, "span id") if record.span_id else "",
        json.dumps(fields, ensure_ascii=False),
        source,
        position,
    )


def _columns(names: tuple[str, ...], rows: list[tuple[Any, ...]]) -> Columns:
    return dict(zip(names, map(list, zip(*rows, strict=True)), strict=True)) if rows else {}
