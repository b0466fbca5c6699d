"""Logs as JSON, one object per line on standard output."""

from __future__ import annotations

import json
import logging
import sys
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

from opentelemetry import trace

from labkit.shop.config import Config

__all__ = ["REQUEST_ID", "log", "set_up_logs"]

# The request being served; set by the server, read by every line and every outgoing call.
REQUEST_ID: ContextVar[str | None] = ContextVar("request_id", default=None)

_logger = logging.getLogger("labkit.shop")


class JsonFormatter(logging.Formatter):
    """Writes time (UTC, ISO 8601, ms), level, service, instance, message, ids and the fields of `log`."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self._constant = {"service": config.service, "instance": config.instance}

    def format(self, record: logging.LogRecord) -> str:
        """The line of *record*, without a line end."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            **self._constant,
            "message": record.getMessage(),
            "request_id": REQUEST_ID.get(),
            **_present_span(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=False)


def _present_span() -> dict[str, str | None]:
    context = trace.get_current_span().get_span_context()
    if not context.is_valid:
        return {"trace_id": None, "span_id": None}
    return {
        "trace_id": trace.format_trace_id(context.trace_id),
        "span_id": trace.format_span_id(context.span_id),
    }


def set_up_logs(config: Config) -> None:
    """Send every log line of this process to standard output as JSON, at the configured level."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonFormatter(config))
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)
    _logger.setLevel(config.log_level)


def log(level: int, message: str, *, error: BaseException | None = None, **fields: Any) -> None:
    """Write one line with *fields* beside the message, and the traceback of *error* if there is one."""
    if _logger.isEnabledFor(level):
        _logger.log(level, "%s", message, exc_info=error, extra={"fields": fields})
