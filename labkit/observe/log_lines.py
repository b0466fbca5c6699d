"""What one line of a log file says: JSON of the shop, the two formats of the grok patterns, or plain text."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from labkit.observe.grok import Grok, load_patterns
from labkit.settings import files_root

__all__ = ["FORMATS", "LEVELS", "LONGEST", "LogLine", "cut", "line_reader"]

# The patterns that a line which is not JSON may match, in this order.
FORMATS = ("APPLICATIONLINE", "ACCESSLINE")
# Words for a level that mean one of the others.
LEVELS = {"warn": "warning", "err": "error", "fatal": "critical", "crit": "critical", "notice": "info"}

# Characters of a message; a longer one is cut and says so.
LONGEST = 16_384
_LEVEL = re.compile(r"\b(trace|debug|info|notice|warn|warning|err|error|crit|critical|fatal)\b", re.IGNORECASE)
_LOOK_FOR_LEVEL = 160
_TRACE_ID, _SPAN_ID = re.compile("[0-9a-f]{32}"), re.compile("[0-9a-f]{16}")


@dataclass(frozen=True, slots=True)
class LogLine:
    """
    One line: when (nanoseconds since 1970, 0 if it does not say), who, how bad, what, within which span.

    `raw` tells that nobody looked for the two formats in `message` yet.
    """

    time_ns: int
    service: str
    level: str
    message: str
    trace_id: str = ""
    span_id: str = ""
    fields: dict[str, Any] = field(default_factory=dict)
    raw: bool = False


def line_reader(*, formats: bool = True) -> Callable[[str, str], LogLine]:
    """
    A function of a line and the name of who wrote it; it takes any text and never fails.

    Args:
        formats: look for the two formats; False leaves that to a store which does it by itself.
    """
    patterns = load_patterns(files_root() / "infra" / "logs" / "patterns")
    application, access = (Grok(patterns[name], patterns) for name in FORMATS)

    def read(text: str, writer: str) -> LogLine:
        if text.startswith("{") and (found := _json_object(text)) is not None:
            return _from_json(found, writer, text)
        if not formats:
            return _plain(text, writer, raw=True)
        if fields := application.match(text):
            time_ns = _iso(fields.pop("timestamp"))
            return LogLine(time_ns, writer, _level(fields.pop("level")), cut(fields.pop("message")), fields=fields)
        if fields := access.match(text):
            time_ns, level = _http_date(fields.pop("timestamp")), "error" if fields["response"] >= 500 else "info"
            return LogLine(time_ns, writer, level, cut(text), fields=fields)
        return _plain(text, writer)

    return read


def cut(text: str, length: int | None = None) -> str:
    """*text*, or its beginning with a mark when it (or the line it stands for, of *length* characters) is too long."""
    whole = len(text) if length is None else length
    return text if whole <= LONGEST else f"{text[:LONGEST]}… [cut: {whole:,} characters]"


def _plain(text: str, writer: str, *, raw: bool = False) -> LogLine:
    said = _LEVEL.search(text[:_LOOK_FOR_LEVEL])
    return LogLine(0, writer, _level(said[1]) if said else "info", cut(text), raw=raw)


def _json_object(text: str) -> dict[str, Any] | None:
    try:
        # NaN, Infinity and 1e999 are no numbers of JSON, and a store may refuse them: kept as they are written.
        found = json.loads(text, parse_constant=str, parse_float=_finite)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _finite(text: str) -> float | str:
    value = float(text)
    return value if math.isfinite(value) else text


def _from_json(found: dict[str, Any], writer: str, text: str) -> LogLine:
    trace_id, span_id = (
        str(found.pop(name)) if form.fullmatch(str(found.get(name))) else ""
        for name, form in (("trace_id", _TRACE_ID), ("span_id", _SPAN_ID))
    )
    time_ns, service = _iso(str(found.pop("time", ""))), str(found.pop("service", None) or writer)
    level, message = _level(str(found.pop("level", "info"))), str(found.pop("message", text))
    fields = {name: value for name, value in found.items() if value is not None}
    return LogLine(time_ns, service, level, cut(message), trace_id, span_id, fields)


def _level(word: str) -> str:
    return LEVELS.get(word.lower(), word.lower())


def _iso(text: str) -> int:
    try:
        instant = datetime.fromisoformat(text.replace(",", "."))
    except ValueError:
        return 0
    return _nanoseconds(instant if instant.tzinfo else instant.replace(tzinfo=UTC))


def _http_date(text: str) -> int:
    try:
        return _nanoseconds(datetime.strptime(text, "%d/%b/%Y:%H:%M:%S %z"))
    except ValueError:
        return 0


def _nanoseconds(instant: datetime) -> int:
    return max(0, round(instant.timestamp() * 1_000_000) * 1000)
