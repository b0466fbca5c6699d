"""
Ask OpenSearch for log lines, get frames.

    logs = OpenSearchLogs("http://127.0.0.1:9200")
    logs.errors_per_minute()
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import pandas as pd

from labkit._http import get_json, request
from labkit.errors import NoData, RequestFailed
from labkit.observe._store_client import interval, nanoseconds, nearest, to_time, with_fields
from labkit.observe.ingest import INDEX, reason_of
from labkit.observe.stores import LOG_COLUMNS, check_limit, check_steps

__all__ = ["OpenSearchLogs"]

_HOW = "Is OpenSearch running? See `labkit status` and `labkit logs opensearch`."
_NO_INDEX = f"OpenSearch has no index {INDEX}: nothing was logged yet, or it was deleted. See `labkit logs shipper`."
_MOST_TERMS = 200
# Answers that say in JSON what is wrong.
_EXPLAINED = (400, 404, 429, 500, 503)


class OpenSearchLogs:
    """
    OpenSearch as a `LogStore`; the meaning of each method is told there.

    Args:
        url: as in `http://127.0.0.1:9200`.
        timeout_s: limit for each answer, in seconds.
    """

    def __init__(self, url: str, *, timeout_s: float = 30) -> None:
        self.url, self._timeout_s = url.rstrip("/"), timeout_s

    def __repr__(self) -> str:
        return f"OpenSearchLogs({self.url!r})"

    def health(self) -> str:
        """`green`: every copy of every shard is there; `yellow`: copies are missing; `red`: so are some lines."""
        return str(get_json(f"{self.url}/_cluster/health", timeout_s=self._timeout_s, how=_HOW)["status"])

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
        given = {"text": text, "service": service, "level": level, "trace_id": trace_id}
        order = [{"time_ns": "desc"}, {"position": "desc"}]
        found = self._ask({"size": limit, "sort": order, "query": _query(given, first, last)})
        if not found or not found["hits"]["hits"]:
            raise self._nothing(given, first, last, found)
        rows = [hit["_source"] for hit in reversed(found["hits"]["hits"])]
        frame = pd.DataFrame({name: [row[name] for row in rows] for name in LOG_COLUMNS[1:]})
        frame.insert(0, "time", to_time([row["time_ns"] for row in rows]))
        return with_fields(frame, [json.dumps(row["fields"]) for row in rows])

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
        given = {"text": text, "service": service, "level": level}
        steps = {"histogram": {"field": "time_ns", "interval": step, "min_doc_count": 1}}
        inner: dict[str, Any] = {"steps": steps}
        for name in reversed(by):
            inner = {name: {"terms": {"field": name, "size": _MOST_TERMS}, "aggs": inner}}
        found = self._ask({"size": 0, "query": _query(given, first, last), "aggs": inner})
        counts = _counts(found["aggregations"], by) if found else {}
        if not counts:
            raise self._nothing(given, first, last, found)
        grid = pd.RangeIndex(nanoseconds(first) // step * step, nanoseconds(last), step)
        table = pd.DataFrame(counts).reindex(grid).fillna(0.0).astype("float64").sort_index(axis=1)
        table.columns.names = list(by)
        table.index = to_time([int(at) for at in grid]).rename("time")
        return table

    def errors_per_minute(self, *, start: datetime | None = None, end: datetime | None = None) -> pd.DataFrame:
        """Lines of level `error` per minute and service: see `LogStore.errors_per_minute`."""
        return self.aggregate(("service",), step_s=60, level="error", start=start, end=end)

    def services(self) -> list[str]:
        """The services that have lines, sorted."""
        return self._values("service", {})

    def _ask(self, body: dict[str, Any]) -> dict[str, Any] | None:
        """What OpenSearch answers; None when it has no index of lines."""
        # A shard that is not there is an error: what the others have is not the answer.
        url = f"{self.url}/{INDEX}/_search?allow_partial_search_results=false"
        answer = request("POST", url, json=body, timeout_s=self._timeout_s, how=_HOW, ok=_EXPLAINED)
        found: dict[str, Any] = answer.json()
        if answer.status_code < 400:
            return found
        if found["error"]["type"] == "index_not_found_exception":
            return None
        raise RequestFailed("POST", url, status=answer.status_code, reason=reason_of(found), how=_HOW)

    def _values(self, name: str, match: dict[str, str | None]) -> list[str]:
        query = {"bool": {"filter": [{"term": {key: value}} for key, value in match.items() if value]}}
        terms = {"values": {"terms": {"field": name, "size": _MOST_TERMS}}}
        found = self._ask({"size": 0, "query": query, "aggs": terms})
        return sorted(bucket["key"] for bucket in found["aggregations"]["values"]["buckets"]) if found else []

    def _nothing(
        self, given: dict[str, str | None], first: datetime, last: datetime, found: dict[str, Any] | None
    ) -> NoData:
        asked = " ".join(f'{name}="{value}"' for name, value in given.items() if value) or "any line"
        advice = self._nearest(given) if found else _NO_INDEX
        return NoData(asked, start=first, end=last, nearest=advice, what="log line")

    def _nearest(self, given: dict[str, str | None]) -> str:
        service, level, there = given.get("service"), given.get("level"), self.services()
        if service and (advice := nearest("service", service, there)):
            return advice
        if level and (advice := nearest("level", level, self._values("level", {"service": service}))):
            return advice
        if not there:
            return "OpenSearch has no lines at all."
        return "Each part of it may have lines, the combination has none then."


def _query(given: dict[str, str | None], first: datetime, last: datetime) -> dict[str, Any]:
    filters: list[dict[str, Any]] = [{"range": {"time_ns": {"gte": nanoseconds(first), "lt": nanoseconds(last)}}}]
    filters += [{"term": {name: given[name]}} for name in ("service", "level", "trace_id") if given.get(name)]
    if text := given.get("text"):
        plain = "".join(f"\\{c}" if c in "\\*?" else c for c in text)
        filters.append({"wildcard": {"message": {"value": f"*{plain}*", "case_insensitive": True}}})
    return {"bool": {"filter": filters}}


def _counts(found: dict[str, Any], by: Sequence[str], key: tuple[str, ...] = ()) -> dict[Any, pd.Series[float]]:
    """Counts by combination of *by*, each by the start of its step."""
    if len(key) == len(by):
        steps = {int(bucket["key"]): float(bucket["doc_count"]) for bucket in found["steps"]["buckets"]}
        return {key if len(by) > 1 else key[0]: pd.Series(steps)}
    counts: dict[Any, pd.Series[float]] = {}
    for bucket in found[by[len(key)]]["buckets"]:
        counts |= _counts(bucket, by, (*key, bucket["key"]))
    return counts
