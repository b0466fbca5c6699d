"""
Send log lines to OpenSearch and ask it for them, get frames.

    logs = OpenSearchLogs("http://127.0.0.1:9200")
    logs.errors_per_minute()
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import pandas as pd

from labkit._http import get_json, request
from labkit.errors import InvalidValue, NoData, RequestFailed
from labkit.observe._store_client import interval, nanoseconds, nearest, to_time, with_fields
from labkit.observe.shipper import Placed
from labkit.observe.stores import LOG_COLUMNS
from labkit.settings import files_root

__all__ = ["OpenSearchLogs", "OpenSearchSink", "prepare_index"]

_INDEX = "logs-labkit"
_HOW = "Is OpenSearch running (see `labkit status`), and has anything been logged yet?"
_MOST_STEPS = 11_000
_MOST_TERMS = 200


def prepare_index(url: str, *, timeout_s: float = 30) -> None:
    """Tell the OpenSearch at *url* how log lines are stored; infra/opensearch/template.json.  Twice is fine."""
    template = json.loads((files_root() / "infra" / "opensearch" / "template.json").read_text(encoding="utf-8"))
    request("PUT", f"{url.rstrip('/')}/_index_template/labkit-logs", json=template, timeout_s=timeout_s, how=_HOW)


class OpenSearchSink:
    """
    OpenSearch as the shipper's sink: `_bulk`, with ids made of file and position, so that sending twice adds nothing.

    Args:
        url: as in `http://127.0.0.1:9200`.
    """

    def __init__(self, url: str) -> None:
        self._url, self._prepared = url.rstrip("/"), False

    def send(self, lines: Sequence[Placed]) -> None:
        """
        Keep *lines*.

        Raises:
            RequestFailed: OpenSearch does not say that it keeps each of them.
        """
        if not self._prepared:
            prepare_index(self._url)
            self._prepared = True
        body = "".join(
            json.dumps({"index": {"_id": f"{placed.source}:{placed.position}"}}) + "\n" + _document(placed) + "\n"
            for placed in lines
        )
        url, headers = f"{self._url}/{_INDEX}/_bulk", {"Content-Type": "application/x-ndjson"}
        answer = request("POST", url, data=body.encode(), headers=headers, timeout_s=60).json()
        if answer["errors"]:
            bad = [item["index"] for item in answer["items"] if item["index"]["status"] >= 400]
            reason = f"{len(bad)} of {len(lines)} lines were not kept: {json.dumps(bad[0]['error'])[:200]}"
            raise RequestFailed("POST", url, status=bad[0]["status"], reason=reason)


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
        if not 1 <= limit <= 10_000:
            raise InvalidValue("limit", expected="from 1 to 10,000", got=limit)
        first, last = interval(start, end)
        given = {"text": text, "service": service, "level": level, "trace_id": trace_id}
        order = [{"time_ns": "desc"}, {"position": "desc"}]
        hits = self._ask({"size": limit, "sort": order, "query": _query(given, first, last)})["hits"]["hits"]
        if not hits:
            raise self._nothing(given, first, last)
        rows = [hit["_source"] for hit in reversed(hits)]
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
        if not by or not set(by) <= {"service", "level"}:
            raise InvalidValue("by", expected="service, level or both", got=by)
        first, last = interval(start, end)
        if step_s <= 0 or (last - first).total_seconds() / step_s > _MOST_STEPS:
            raise InvalidValue("step_s", expected=f"above 0 and at most {_MOST_STEPS:,} steps", got=step_s)
        step = round(step_s * 1e9)
        given = {"text": text, "service": service, "level": level}
        steps = {"histogram": {"field": "time_ns", "interval": step, "min_doc_count": 1}}
        inner: dict[str, Any] = {"steps": steps}
        for name in reversed(by):
            inner = {name: {"terms": {"field": name, "size": _MOST_TERMS}, "aggs": inner}}
        found = self._ask({"size": 0, "query": _query(given, first, last), "aggs": inner})["aggregations"]
        counts = _counts(found, by)
        if not counts:
            raise self._nothing(given, first, last)
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

    def _ask(self, body: dict[str, Any]) -> dict[str, Any]:
        url = f"{self.url}/{_INDEX}/_search"
        answer: dict[str, Any] = request("POST", url, json=body, timeout_s=self._timeout_s, how=_HOW).json()
        return answer

    def _values(self, name: str, match: dict[str, str | None]) -> list[str]:
        query = {"bool": {"filter": [{"term": {key: value}} for key, value in match.items() if value]}}
        terms = {"values": {"terms": {"field": name, "size": _MOST_TERMS}}}
        found = self._ask({"size": 0, "query": query, "aggs": terms})["aggregations"]["values"]["buckets"]
        return sorted(bucket["key"] for bucket in found)

    def _nothing(self, given: dict[str, str | None], first: datetime, last: datetime) -> NoData:
        asked = " ".join(f'{name}="{value}"' for name, value in given.items() if value) or "any line"
        return NoData(asked, start=first, end=last, nearest=self._nearest(given), what="log line")

    def _nearest(self, given: dict[str, str | None]) -> str:
        service, level = given.get("service"), given.get("level")
        if service and (advice := nearest("service", service, self.services())):
            return advice
        if level and (advice := nearest("level", level, self._values("level", {"service": service}))):
            return advice
        return "Each part of it may have lines, the combination has none then."


def _document(placed: Placed) -> str:
    line = placed.line
    found = {
        "time_ns": line.time_ns or time.time_ns(),
        "service": line.service,
        "level": line.level,
        "message": line.message,
        "trace_id": line.trace_id,
        "span_id": line.span_id,
        "fields": line.fields,
        "position": placed.position,
    }
    return json.dumps(found, ensure_ascii=False, default=str).encode(errors="replace").decode()


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
