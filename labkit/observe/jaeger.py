"""
Ask Jaeger for traces, get frames.

    traces = JaegerTraces("http://127.0.0.1:16686")
    traces.search("gateway", min_duration_s=0.5)
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import pandas as pd

from labkit._http import get_json, request
from labkit._time import utc_now
from labkit.errors import NoData
from labkit.observe._store_client import interval, nanoseconds, nearest, to_time, with_fields
from labkit.observe.stores import SPAN_COLUMNS, TRACE_COLUMNS, check_limit, wait_for_traces

__all__ = ["JaegerTraces"]

_HOW = "Is Jaeger running (see `labkit status`)? It refuses a limit that is not below its memory.max_traces."
# What Jaeger adds to the attributes of a span; columns of their own say the same.
_ADDED = frozenset({"error", "span.kind", "otel.scope.name", "otel.scope.version", "otel.status_code"})
_LOOK_AT = 1500
_WHY_NEVER = "Jaeger keeps traces in memory: a restart, or enough newer ones, and they are gone. Take a newer trace."


class JaegerTraces:
    """
    Jaeger as a `TraceStore`; the meaning of each method is told there.

    Args:
        url: of its query API, as in `http://127.0.0.1:16686`.
        timeout_s: limit for each answer, in seconds.
    """

    def __init__(self, url: str, *, timeout_s: float = 30) -> None:
        self.url, self._timeout_s = url.rstrip("/"), timeout_s

    def __repr__(self) -> str:
        return f"JaegerTraces({self.url!r})"

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
        given: dict[str, Any] = {"operation": operation, "start": _micro(first), "end": _micro(last) - 1}
        # Whether a span failed is not a tag in Jaeger's memory, so it cannot be asked for: these are picked out here.
        given["limit"] = limit if error is None else max(limit, _LOOK_AT)
        if min_duration_s > 0:
            given["minDuration"] = f"{round(min_duration_s * 1e6)}us"
        traces: dict[str, pd.DataFrame] = {}
        for name in [service] if service else self.services():
            for found in self._get("traces", service=name, **given):
                traces[found["traceID"]] = _spans(found)
        wanted = (service, operation, min_duration_s, error)
        rows = [_summary(spans) for spans in traces.values() if _has(spans, *wanted)]
        if not rows:
            asked = {"service": service, "operation": operation, "min_duration_s": min_duration_s, "error": error}
            text = " ".join(f'{name}="{value}"' for name, value in asked.items() if value) or "any trace"
            raise NoData(text, start=first, end=last, nearest=self._nearest(service, operation), what="trace")
        frame = pd.DataFrame(rows, columns=list(TRACE_COLUMNS)).sort_values("start", ascending=False)
        return frame.head(limit).reset_index(drop=True)

    def trace(self, trace_id: str) -> pd.DataFrame:
        """Every span of one trace, by start: see `TraceStore.trace`."""
        url = f"{self.url}/api/traces/{trace_id.lower()}"
        answer = request("GET", url, timeout_s=self._timeout_s, how=_HOW, ok=(404,))
        if answer.status_code == 404:
            now = utc_now()
            advice = "Spans arrive a few seconds after their request; Jaeger forgets the oldest traces."
            raise NoData(f'trace_id="{trace_id}"', start=now, end=now, nearest=advice, what="span")
        frame = _spans(answer.json()["data"][0])
        return with_fields(frame[[*SPAN_COLUMNS, "kind"]].copy(), frame["attributes"].tolist())

    def services(self) -> list[str]:
        """The services that have spans, sorted."""
        return sorted(self._get("services"))

    def dependencies(self, *, start: datetime | None = None, end: datetime | None = None) -> pd.DataFrame:
        """Who calls whom: see `TraceStore.dependencies`."""
        first, last = interval(start, end)
        end_ms = nanoseconds(last) // 10**6
        rows = self._get("dependencies", endTs=end_ms, lookback=end_ms - nanoseconds(first) // 10**6)
        # Jaeger also counts spans of a service below spans of the same one; these are no calls.
        calls = [(row["parent"], row["child"], row["callCount"]) for row in rows if row["parent"] != row["child"]]
        return pd.DataFrame(calls, columns=["parent", "child", "calls"])

    def wait_for(self, trace_ids: Sequence[str], *, timeout_s: float = 30) -> None:
        """Wait until each of these traces is here, whole: see `TraceStore.wait_for`."""
        wait_for_traces(self.trace, trace_ids, timeout_s=timeout_s, how=_WHY_NEVER)

    def _get(self, path: str, **params: Any) -> list[Any]:
        url, given = f"{self.url}/api/{path}", {name: value for name, value in params.items() if value is not None}
        return get_json(url, timeout_s=self._timeout_s, params=given, how=_HOW)["data"] or []

    def _nearest(self, service: str | None, operation: str | None) -> str:
        known = self.services()
        if service and (advice := nearest("service", service, known)):
            return advice
        operations = {
            o["name"] for name in ([service] if service else known) for o in self._get("operations", service=name)
        }
        if operation and (advice := nearest("operation", operation, sorted(operations))):
            return advice
        return "Each part of it has spans, the combination has none then." if operations else "There are no spans."


def _micro(instant: datetime) -> int:
    return nanoseconds(instant) // 1000


def _spans(trace: Mapping[str, Any]) -> pd.DataFrame:
    """The spans of one trace, by start; `attributes` as JSON objects."""
    services = {key: process["serviceName"] for key, process in trace["processes"].items()}
    rows = []
    for span in trace["spans"]:
        tags = {tag["key"]: tag["value"] for tag in span["tags"]}
        parents = [r["spanID"] for r in span["references"] if r["refType"] == "CHILD_OF"]
        rows.append(
            {
                "trace_id": span["traceID"],
                "span_id": span["spanID"],
                "parent_id": parents[0] if parents else "",
                "service": services[span["processID"]],
                "operation": span["operationName"],
                "start": span["startTime"] * 1000,
                "duration_s": span["duration"] / 1e6,
                "error": tags.get("error") in (True, "true"),
                "kind": tags.get("span.kind", "internal"),
                "attributes": json.dumps({key: value for key, value in tags.items() if key not in _ADDED}),
            }
        )
    frame = pd.DataFrame(rows).sort_values("start", kind="stable").reset_index(drop=True)
    frame["start"] = to_time(frame["start"].tolist())
    return frame


def _has(
    spans: pd.DataFrame, service: str | None, operation: str | None, min_duration_s: float, error: bool | None
) -> bool:
    """Whether one span matches everything."""
    matches = spans["duration_s"] >= min_duration_s
    for name, value in (("service", service), ("operation", operation), ("error", error)):
        if value is not None:
            matches &= spans[name] == value
    return bool(matches.any())


def _summary(spans: pd.DataFrame) -> tuple[Any, ...]:
    """One row of `TRACE_COLUMNS`."""
    roots = spans[spans["parent_id"] == ""]
    root = (roots if len(roots) else spans).iloc[0]
    ends = spans["start"] + pd.to_timedelta(spans["duration_s"], unit="s")
    length_s = (ends.max() - spans["start"].min()).total_seconds()
    failed = bool(spans["error"].any())
    return root["trace_id"], root["service"], root["operation"], root["start"], length_s, len(spans), failed
