"""Bench rows of the report: fifty objectives beside the same queries asked one by one, and beside their union alone."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import datetime
from fractions import Fraction
from pathlib import Path
from statistics import median
from typing import Any

from labkit import _http
from labkit._time import utc_now
from labkit.shop.history import build_history, write_history
from labkit.slo import report as slo_report
from labkit.slo._ask import union
from labkit.slo._parts import parts_of
from labkit.slo.model import EventSli, Rolling, Slo
from labkit.slo.source import PrometheusSource, track_step_s
from tests.prometheus_process import PrometheusProcess

Row = dict[str, Any]
Program = Callable[[str], Path]

_DAY_S = 86_400
_WINDOWS_S = (300, 1800, 3600, 6 * 3600, _DAY_S, 3 * _DAY_S)
_ENDPOINTS = ("/products", "/products/{id}", "/cart/{user}", "/checkout/{user}")


def rows(program: Program, folder: Path, repeats: int = 3) -> list[Row]:
    """The report on fifty objectives over thirty days of the seeded past."""
    at = utc_now().replace(second=0, microsecond=0)
    server = PrometheusProcess(program("prometheus"), folder).start()
    try:
        write_history(server.url, build_history(seed=7, end=at))
        slos = list(_slos(50))
        times: dict[str, list[float]] = {"report": [], "raw": [], "single": []}
        requests = 0
        for _ in range(repeats):
            began = time.perf_counter()
            found = slo_report.report(slos, PrometheusSource(server.url), at)
            times["report"].append(time.perf_counter() - began)
            assert set(found.status.values()) <= {"healthy", "at_risk", "violated"}
            requests = max(row.requests for row in found)
            for name, ask in (("raw", _raw), ("single", _single)):
                began = time.perf_counter()
                for slo in slos:
                    ask(server.url, slo, at)
                times[name].append(time.perf_counter() - began)
    finally:
        server.end()
    took = {name: median(values) for name, values in times.items()}
    raw = _row(took["report"], "its raw queries", took["raw"], 1.25)
    single = _row(took["report"], "every query alone", took["single"], 1)
    most: Row = {"name": "HTTP requests per objective", "value": requests, "unit": "", "rival": None}
    return [{**most, "rival_value": None, "ratio": None, "goal": "at most 4", "met": requests <= 4}, raw, single]


def _slos(number: int) -> Iterator[Slo]:
    """Objectives that differ in what they count, so that no answer can be kept for the next."""
    for index in range(number):
        selector = f'job="shop",service="gateway",endpoint="{_ENDPOINTS[index % 4]}",method!="none-{index}"'
        total = f"sum(increase(http_requests_total{{{selector}}}[$window]))"
        bad = f'sum(increase(http_requests_total{{{selector},status=~"5.."}}[$window]))'
        sli = EventSli(total, bad=bad)
        yield Slo(f"slo-{index}", "gateway", Fraction(999, 1000), Rolling(30 * _DAY_S), sli)


def _raw(url: str, slo: Slo, at: datetime) -> None:
    """The three requests of the report, their answers thrown away."""
    instant = {"time": at.timestamp()}
    long = union(parts_of(slo, 30 * _DAY_S))
    short = union({f"{n}:{w}": q for w in _WINDOWS_S for n, q in parts_of(slo, w).items()})
    _http.request("POST", f"{url}/api/v1/query", data={"query": long, **instant})
    _http.request("POST", f"{url}/api/v1/query", data={"query": short, **instant})
    step_s = track_step_s(30 * _DAY_S)
    _http.request(
        "POST", f"{url}/api/v1/query_range", data={"query": union(parts_of(slo, step_s)), **_span(at, step_s)}
    )


def _single(url: str, slo: Slo, at: datetime) -> None:
    """A request for every number, as a script asks that has one function for a query."""
    for window_s in (30 * _DAY_S, *_WINDOWS_S):
        for query in parts_of(slo, window_s).values():
            _http.request("POST", f"{url}/api/v1/query", data={"query": query, "time": at.timestamp()})
    step_s = track_step_s(30 * _DAY_S)
    for query in parts_of(slo, step_s).values():
        _http.request("POST", f"{url}/api/v1/query_range", data={"query": query, **_span(at, step_s)})


def _span(at: datetime, step_s: int) -> dict[str, float]:
    return {"start": at.timestamp() - 30 * _DAY_S + step_s, "end": at.timestamp(), "step": step_s}


def _row(took_s: float, rival: str, rival_s: float, most: float) -> Row:
    ratio = round(took_s / rival_s, 3)
    return {
        "name": "report on 50 objectives",
        "value": round(took_s, 3),
        "unit": "s",
        "rival": rival,
        "rival_value": round(rival_s, 3),
        "ratio": ratio,
        "goal": f"at most {most:g} times",
        "met": ratio <= most,
    }
