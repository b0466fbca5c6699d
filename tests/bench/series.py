"""
Bench rows of the seeded history and of the frames: each beside a rival, measured in the same run.

Each function returns rows `{name, value, unit, rival, rival_value, ratio, goal, met}`.  Times are
medians of interleaved runs (promtool runs once: it takes minutes).
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pandas as pd
from prometheus_api_client import MetricRangeDataFrame, PrometheusConnect

from labkit import _proc
from labkit._time import utc_now
from labkit.observe import _matrix
from labkit.observe.prometheus import Prometheus
from labkit.shop import _remote_write as remote
from labkit.shop.history import History, build_history, write_history
from labkit.shop.history_write import Samples, bodies
from tests.prometheus_process import PrometheusProcess

Row = dict[str, Any]
Program = Callable[[str], Path]


def rows(program: Program, folder: Path) -> list[Row]:
    """All rows of this file; *program* finds a component's program by name."""
    past = build_history(seed=7, end=utc_now())
    return [
        *history_beside_encoded_bodies(program, folder / "encoded", past),
        *history_beside_promtool(program, folder / "promtool", past),
        *frames_beside_the_library(program, folder / "frames", past),
    ]


def row(name: str, value: float, rival: str, rival_value: float, *, ratio: float, goal: str, met: bool) -> Row:
    """One row; times in seconds."""
    return {
        "name": name,
        "value": round(value, 4),
        "unit": "s",
        "rival": rival,
        "rival_value": round(rival_value, 4),
        "ratio": round(ratio, 2),
        "goal": goal,
        "met": met,
    }


def _seconds(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def _in_fresh_server(program: Program, folder: Path, call: Callable[[str], object]) -> float:
    server = PrometheusProcess(program("prometheus"), folder).start()
    try:
        return _seconds(lambda: call(server.url))
    finally:
        server.end()


def history_beside_encoded_bodies(program: Program, folder: Path, past: History, repeats: int = 5) -> list[Row]:
    """The whole write, check included, beside Prometheus taking bodies that were encoded beforehand."""
    encoded = [body for body, _ in bodies(Samples(past.series, past.times_ms, past.values))]

    def post_all(url: str) -> None:
        for body in encoded:
            remote.push(url, body, how="")

    ours, theirs = [], []
    for turn in range(repeats):
        ours.append(_in_fresh_server(program, folder / f"ours{turn}", lambda url: write_history(url, past)))
        theirs.append(_in_fresh_server(program, folder / f"theirs{turn}", post_all))
    value, rival = median(ours), median(theirs)
    name = f"history: {np.isfinite(past.values).sum():,} samples into Prometheus"
    ratio = value / rival
    return [row(name, value, "bodies encoded beforehand", rival, ratio=ratio, goal="<= 1.3", met=ratio <= 1.3)]


def openmetrics(past: History) -> Iterator[str]:
    """The samples of *past* as OpenMetrics text, series by series."""
    order = sorted(range(len(past.series)), key=lambda i: past.series[i]["__name__"])
    times = [f"{ms / 1000:.3f}" for ms in past.times_ms]
    for index in order:
        labels = past.series[index]
        inside = ",".join(f'{k}="{v}"' for k, v in labels.items() if k != "__name__")
        head = f"{labels['__name__']}{{{inside}}}"
        values = past.values[index]
        yield "".join(f"{head} {v!r} {t}\n" for v, t in zip(values.tolist(), times, strict=True) if not math.isnan(v))
    yield "# EOF\n"


def history_beside_promtool(program: Program, folder: Path, past: History) -> list[Row]:
    """The whole write beside `promtool tsdb create-blocks-from openmetrics` on the same samples as text."""
    folder.mkdir(parents=True, exist_ok=True)
    text = folder / "past.om"
    with text.open("w") as out:
        out.writelines(openmetrics(past))
    argv = [program("promtool"), "tsdb", "create-blocks-from", "openmetrics", text, folder / "blocks"]
    rival = _seconds(lambda: _proc.run(argv, timeout_s=1800))
    value = median(
        _in_fresh_server(program, folder / f"ours{turn}", lambda url: write_history(url, past)) for turn in range(3)
    )
    ratio = rival / value
    return [
        row("history: the same, beside blocks", value, "promtool", rival, ratio=ratio, goal=">= 40", met=ratio >= 40)
    ]


def frames_beside_the_library(program: Program, folder: Path, past: History, repeats: int = 5) -> list[Row]:
    """300,000 samples: from the answer to a frame, and the whole query, beside prometheus_api_client; same values."""
    server = PrometheusProcess(program("prometheus"), folder).start()
    try:
        write_history(server.url, past)
        return list(_compare_frames(server.url, past, repeats))
    finally:
        server.end()


def _compare_frames(url: str, past: History, repeats: int) -> Iterator[Row]:
    query, step_s = "http_request_duration_seconds_bucket or http_requests_total", 60
    end = past.end
    start = end - timedelta(seconds=step_s * (300_000 // 30 - 1))
    client, library = Prometheus(url), PrometheusConnect(url)
    params = {"query": query, "start": start.timestamp(), "end": end.timestamp(), "step": step_s}
    body = client._session.get(f"{url}/api/v1/query_range", params=params).content
    grid = {"start_ms": round(start.timestamp() * 1000), "step_ms": step_s * 1000, "instants": 10_000}

    def decode() -> pd.DataFrame:
        return _matrix.to_frame(_matrix.parse_matrix(body), **grid)

    def library_decode() -> pd.DataFrame:
        return MetricRangeDataFrame(json.loads(body)["data"]["result"])

    def ask() -> pd.DataFrame:
        return client.query_range(query, start, end, step_s)

    def library_ask() -> pd.DataFrame:
        return MetricRangeDataFrame(library.custom_query_range(query, start, end, str(step_s)))

    samples = _same_values(ask(), library_ask())
    pairs = (("answer to frame", decode, library_decode), ("query to frame", ask, library_ask))
    for name, ours, theirs in pairs:
        times = [(_seconds(ours), _seconds(theirs)) for _ in range(repeats)]
        value, rival = (median(column) for column in zip(*times, strict=True))
        ratio = rival / value
        title = f"{name}: {samples:,} samples"
        yield row(title, value, "MetricRangeDataFrame", rival, ratio=ratio, goal=">= 3", met=ratio >= 3)
    client.close()
    library.close()


def _same_values(ours: pd.DataFrame, theirs: pd.DataFrame) -> int:
    """How many samples both hold; raises when a single one differs."""
    labels = [name for name in theirs.columns if name != "value"]
    wide = theirs.fillna(dict.fromkeys(labels, "")).set_index(labels, append=True)["value"].unstack(labels)
    wide.columns = wide.columns.droplevel([n for n in wide.columns.names if n not in ours.columns.names])
    wide = wide.reorder_levels(list(ours.columns.names), axis=1).sort_index(axis=1)
    wide.index = pd.DatetimeIndex(wide.index).as_unit("ns").tz_localize("UTC")
    np.testing.assert_array_equal(wide.to_numpy(), ours.to_numpy())
    assert list(wide.index) == list(ours.index)
    return int(ours.notna().to_numpy().sum())
