"""
Several PromQL expressions in one HTTP request: each becomes a part of a union and keeps its name in a label.

A report asks for many counts of one objective; one request for all of them costs Prometheus the same and saves the
round trips.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from labkit import _http
from labkit.errors import QueryError, QueryRejected, RequestFailed

__all__ = ["PART", "Asker", "Series", "union"]

PART = "labkit_part"
"""The label that tells the parts apart."""

_REFUSED = (400, 422)
_POSITION = re.compile(r"(?:^|: )(\d+):(\d+): (?:parse error: )?")
_HOW = "Is Prometheus running there? See `labkit status`, or give its address with --prometheus."


@dataclass(frozen=True, slots=True)
class Series:
    """One series of an answer: its labels without the part's, and its samples as (seconds since 1970, value)."""

    labels: Mapping[str, str]
    samples: Sequence[tuple[float, float]]


@dataclass(slots=True)
class Asker:
    """
    A Prometheus server, and how often it was asked.

    Attributes:
        url: as in `http://127.0.0.1:9090`.
        timeout_s: limit for connecting and for each answer, in seconds.
        requests: HTTP requests so far.
        warnings: what the server remarked about its answers, each once.
    """

    url: str
    timeout_s: float = 30
    requests: int = 0
    warnings: list[str] = field(default_factory=list)

    def instant(self, parts: Mapping[str, str], at: datetime) -> dict[str, list[Series]]:
        """
        Every part evaluated at one instant.

        Returns:
            The series of each part by its name; an empty list where nothing matched.

        Raises:
            QueryRejected: Prometheus refused a part; the message shows that part as its author wrote it.
            RequestFailed: no answer.
        """
        return self._ask("query", parts, {"time": f"{at.timestamp():.3f}"})

    def over(self, parts: Mapping[str, str], start: datetime, end: datetime, step_s: float) -> dict[str, list[Series]]:
        """Every part evaluated every *step_s* seconds, from *start* to *end*, both included; else as `instant`."""
        times = {"start": f"{start.timestamp():.3f}", "end": f"{end.timestamp():.3f}", "step": f"{step_s:g}"}
        return self._ask("query_range", parts, times)

    def label_values(self, label: str, matcher: str) -> list[str]:
        """The values that *label* has on the series that *matcher* selects, sorted; RequestFailed without an answer."""
        found = self._get("GET", f"label/{label}/values", {"match[]": matcher})
        return sorted(found["data"])

    def label_names(self, matcher: str) -> list[str]:
        """The labels that the series selected by *matcher* have, sorted; RequestFailed without an answer."""
        return sorted(self._get("GET", "labels", {"match[]": matcher})["data"])

    def _ask(self, kind: str, parts: Mapping[str, str], times: Mapping[str, str]) -> dict[str, list[Series]]:
        answer = self._get("POST", kind, {**times, "query": union(parts)})
        if answer["status"] == "error":
            raise self._refused(kind, parts, times, answer)
        found: dict[str, list[Series]] = {name: [] for name in parts}
        for entry in answer["data"]["result"]:
            labels = dict(entry["metric"])
            found[labels.pop(PART)].append(Series(labels, _samples(entry)))
        return found

    def _refused(
        self, kind: str, parts: Mapping[str, str], times: Mapping[str, str], answer: Mapping[str, Any]
    ) -> QueryError:
        # A position in the union means nothing to the author of a part, so the parts are asked one by one.
        for query in parts.values():
            alone = self._get("POST", kind, {**times, "query": query})
            if alone["status"] == "error":
                return _rejected(query, str(alone["error"]))
        together = " and ".join(f"`{name}`" for name in dict.fromkeys(part.split(":")[0] for part in parts))
        return QueryError(
            f"Prometheus takes {together} apart and refuses them together: {answer['error']}. Each must be a vector, "
            f"as `sum(increase(requests_total[$window]))` is; a number or `scalar(…)` is none."
        )

    def _get(self, method: str, path: str, data: Mapping[str, str]) -> Any:
        self.requests += 1
        url = f"{self.url.rstrip('/')}/api/v1/{path}"
        body = {"data" if method == "POST" else "params": dict(data)}
        response = _http.request(method, url, timeout_s=self.timeout_s, how=_HOW, ok=_REFUSED, **body)
        try:
            answer = response.json()
            known = answer["status"] in {"success", "error"}
        except (ValueError, TypeError, KeyError):
            known = False
        if not known:
            raise RequestFailed(method, url, status=None, reason="the answer is not one of Prometheus", how=_HOW)
        for warning in answer.get("warnings", []):
            if warning not in self.warnings:
                self.warnings.append(warning)
        return answer


def union(parts: Mapping[str, str]) -> str:
    """
    One expression whose series carry the name of their part; each part starts a line, so that a comment in it ends.

    >>> print(union({"total": "sum(a)", "bad": "sum(b)"}))
    label_replace(
    sum(a)
    , "labkit_part", "total", "", "")
    or label_replace(
    sum(b)
    , "labkit_part", "bad", "", "")
    """
    return "\nor ".join(f'label_replace(\n{query}\n, "{PART}", "{name}", "", "")' for name, query in parts.items())


def _samples(entry: Mapping[str, Any]) -> list[tuple[float, float]]:
    held = entry["values"] if "values" in entry else [entry["value"]] if "value" in entry else []
    if not held:
        raise QueryError(
            f"A count was asked for and the answer is a native histogram ({dict(entry['metric'])}). "
            f"Write `histogram_count(…)` or `histogram_fraction(…)` around it."
        )
    return [(float(when), float(value)) for when, value in held]


def _rejected(query: str, server_message: str) -> QueryRejected:
    found = _POSITION.search(server_message)
    if not found:
        return QueryRejected(query, position=None, server_message=server_message)
    lines = query.split("\n")
    line, column = int(found[1]), int(found[2])
    position = sum(len(text) + 1 for text in lines[: line - 1]) + column
    return QueryRejected(query, position=position, server_message=server_message[found.end() :])
