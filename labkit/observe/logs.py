"""
Ask the embedded store for log lines, get frames.

    logs = EmbeddedLogs("http://127.0.0.1:4318")
    logs.search("timeout", service="orders")
    logs.errors_per_minute()
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import pandas as pd

from labkit.errors import NoData
from labkit.observe._store_client import ask, interval, nanoseconds, nearest, to_time, with_fields
from labkit.observe.stores import LOG_COLUMNS, check_limit, check_steps

__all__ = ["EmbeddedLogs"]


class EmbeddedLogs:
    """
    The embedded store as a `LogStore`; the meaning of each method is told there.

    Args:
        url: as in `http://127.0.0.1:4318`.
        timeout_s: limit for each answer, in seconds.
    """

    def __init__(self, url: str, *, timeout_s: float = 30) -> None:
        self.url, self._timeout_s = url.rstrip("/"), timeout_s

    def __repr__(self) -> str:
        return f"EmbeddedLogs({self.url!r})"

    def search(
        self,
        text: str = "",
        *,
        service: str | None = None,
        level: str | None = None,
        trace_id: str | None = None,
        start: datetime | None = None,
        end: datetime | None = None,
        limit: int = 100,
    ) -> pd.DataFrame:
        """The newest *limit* matching lines, oldest first: see `LogStore.search`."""
        check_limit(limit)
        first, last = interval(start, end)
        given = {"service": service, "level": level, "trace_id": trace_id, "text": text}
        span = {"start_ns": nanoseconds(first), "end_ns": nanoseconds(last)}
        found = ask(self.url, "logs", self._timeout_s, limit=limit, **span, **given)
        if not found["time_ns"]:
            raise self._nothing(given, first, last)
        frame = pd.DataFrame({"time": to_time(found["time_ns"]), **{name: found[name] for name in LOG_COLUMNS[1:]}})
        return with_fields(frame, found["fields"])

    def aggregate(
        self,
        by: Sequence[str] = ("service",),
        *,
        step_s: float = 60,
        text: str = "",
        service: str | None = None,
        level: str | None = None,
        start: datetime | None = None,
        end: datetime | None = None,
    ) -> pd.DataFrame:
        """How many lines there were in each step: see `LogStore.aggregate`."""
        first, last = interval(start, end)
        step = check_steps(by, step_s, first, last)
        given = {"service": service, "level": level, "text": text}
        span = {"start_ns": nanoseconds(first), "end_ns": nanoseconds(last)}
        found = ask(self.url, "log-counts", self._timeout_s, by=",".join(by), step_ns=step, **span, **given)
        if not found["step_ns"]:
            raise self._nothing(given, first, last)
        rows = pd.DataFrame(found)
        table = rows.pivot_table(index="step_ns", columns=list(by), values="lines", aggfunc="sum")
        grid = pd.RangeIndex(span["start_ns"] // step * step, span["end_ns"], step)
        table = table.reindex(grid).fillna(0.0).astype("float64")
        table.index = to_time([int(at) for at in grid]).rename("time")
        return table

    def errors_per_minute(self, *, start: datetime | None = None, end: datetime | None = None) -> pd.DataFrame:
        """Lines of level `error` per minute and service: see `LogStore.errors_per_minute`."""
        return self.aggregate(("service",), step_s=60, level="error", start=start, end=end)

    def services(self) -> list[str]:
        """The services that have lines, sorted."""
        return sorted(set(ask(self.url, "log-services", self._timeout_s)["service"]))

    def _nothing(self, given: dict[str, str | None], first: datetime, last: datetime) -> NoData:
        asked = " ".join(f'{name}="{value}"' for name, value in given.items() if value) or "any line"
        return NoData(asked, start=first, end=last, nearest=self._nearest(given, first, last), what="log line")

    def _nearest(self, given: dict[str, str | None], first: datetime, last: datetime) -> str:
        known = ask(self.url, "log-services", self._timeout_s)
        service, level = given.get("service"), given.get("level")
        if service and (advice := nearest("service", service, sorted(set(known["service"])))):
            return advice
        of_service = [row for row, name in enumerate(known["service"]) if name == (service or name)]
        if level and (advice := nearest("level", level, sorted({known["level"][row] for row in of_service}))):
            return advice
        if not of_service:
            return "The store has no lines at all."
        newest = datetime.fromtimestamp(max(known["last_ns"][row] for row in of_service) / 1e9, UTC)
        if not first <= newest < last:
            return f"The newest line is of {newest:%Y-%m-%d %H:%M:%S} UTC."
        return "Each part of it has lines, the combination has none then."
