"""
Ask the embedded store for traces, get frames.

    traces = EmbeddedTraces("http://127.0.0.1:4318")
    found = traces.search("gateway", min_duration_s=0.5)
    print(tree(traces.trace(found.trace_id[0])))
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import pandas as pd

from labkit._time import utc_now
from labkit.errors import NoData
from labkit.observe._store_client import ask, interval, nanoseconds, nearest, to_time, with_fields
from labkit.observe.stores import SPAN_COLUMNS, TRACE_COLUMNS, check_limit, wait_for_traces

__all__ = ["EmbeddedTraces"]

_WHY_NEVER = "`labkit logs store` says if it refuses spans; the oldest are dropped after a day. Take a newer trace."


class EmbeddedTraces:
    """
    The embedded store as a `TraceStore`; the meaning of each method is told there.

    Args:
        url: as in `http://127.0.0.1:4318`.
        timeout_s: limit for each answer, in seconds.
    """

    def __init__(self, url: str, *, timeout_s: float = 30) -> None:
        self.url, self._timeout_s = url.rstrip("/"), timeout_s

    def __repr__(self) -> str:
        return f"EmbeddedTraces({self.url!r})"

    def search(
        self,
        service: str | None = None,
        operation: str | None = None,
        *,
        min_duration_s: float = 0,
        error: bool | None = None,
        start: datetime | None = None,
        end: datetime | None = None,
        limit: int = 20,
    ) -> pd.DataFrame:
        """The newest *limit* traces with a span that matches: see `TraceStore.search`."""
        check_limit(limit)
        first, last = interval(start, end)
        given: dict[str, Any] = {"service": service, "operation": operation}
        if error is not None:
            given["error"] = str(error).lower()
        if min_duration_s > 0:
            given["min_duration_ns"] = round(min_duration_s * 1e9)
        span = {"start_ns": nanoseconds(first), "end_ns": nanoseconds(last)}
        found = ask(self.url, "traces", self._timeout_s, limit=limit, **span, **given)
        if not found["trace_id"]:
            asked = " ".join(f'{name}="{value}"' for name, value in given.items() if value) or "any trace"
            advice = self._nearest(service, operation)
            raise NoData(asked, start=first, end=last, nearest=advice, what="trace")
        return _seconds(pd.DataFrame(found))[list(TRACE_COLUMNS)]

    def trace(self, trace_id: str) -> pd.DataFrame:
        """Every span of one trace, by start: see `TraceStore.trace`."""
        found = ask(self.url, "trace", self._timeout_s, trace_id=trace_id.lower())
        if not found.get("trace_id"):
            now = utc_now()
            advice = "Spans arrive a few seconds after their request; the oldest are dropped after a day."
            raise NoData(f'trace_id="{trace_id}"', start=now, end=now, nearest=advice, what="span")
        frame = _seconds(pd.DataFrame({name: values for name, values in found.items() if name != "attributes"}))
        return with_fields(frame[[*SPAN_COLUMNS, "kind"]].copy(), found["attributes"])

    def services(self) -> list[str]:
        """The services that have spans, sorted."""
        return sorted(set(ask(self.url, "operations", self._timeout_s)["service"]))

    def dependencies(self, *, start: datetime | None = None, end: datetime | None = None) -> pd.DataFrame:
        """Who calls whom: see `TraceStore.dependencies`."""
        first, last = interval(start, end)
        span = {"start_ns": nanoseconds(first), "end_ns": nanoseconds(last)}
        return pd.DataFrame(ask(self.url, "dependencies", self._timeout_s, **span))

    def wait_for(self, trace_ids: Sequence[str], *, timeout_s: float = 30) -> None:
        """Wait until each of these traces is here, whole: see `TraceStore.wait_for`."""
        wait_for_traces(self.trace, trace_ids, timeout_s=timeout_s, how=_WHY_NEVER)

    def _nearest(self, service: str | None, operation: str | None) -> str:
        known = ask(self.url, "operations", self._timeout_s)
        if service and (advice := nearest("service", service, sorted(set(known["service"])))):
            return advice
        pairs = zip(known["service"], known["operation"], strict=True)
        operations = sorted({name for owner, name in pairs if owner == (service or owner)})
        if operation and (advice := nearest("operation", operation, operations)):
            return advice
        return "Each part of it has spans, the combination has none then." if operations else "There are no spans."


def _seconds(frame: pd.DataFrame) -> pd.DataFrame:
    frame["start"] = to_time(frame.pop("start_ns").tolist())
    frame["duration_s"] = frame.pop("duration_ns") / 1e9
    return frame
