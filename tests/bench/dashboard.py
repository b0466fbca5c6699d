"""Bench row of the dashboard: drawn in the notebook from Grafana's JSON, on a Prometheus with a past."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from statistics import median
from typing import Any

import matplotlib as mpl

from labkit._time import utc_now
from labkit.observe import dashboards, drawing
from labkit.observe.prometheus import Prometheus
from labkit.shop.history import build_history, write_history
from tests.prometheus_process import PrometheusProcess

Row = dict[str, Any]
_GOAL_S = 2.0


def rows(program: Callable[[str], Path], folder: Path, repeats: int = 5) -> list[Row]:
    """The operations dashboard over thirty days, the heaviest range: ask, draw and render as a notebook does."""
    mpl.use("agg")
    server = PrometheusProcess(program("prometheus"), folder / "dashboard").start()
    try:
        past = build_history(seed=7, end=utc_now())
        write_history(server.url, past)
        with Prometheus(server.url) as client:
            times = [_drawn_s(client, past.end) for _ in range(repeats)]
    finally:
        server.end()
    value = median(times)
    return [
        {
            "name": "dashboard: operations drawn over thirty days",
            "value": round(value, 3),
            "unit": "s",
            "rival": None,
            "rival_value": None,
            "ratio": None,
            "goal": f"< {_GOAL_S:g} s",
            "met": value < _GOAL_S,
        }
    ]


def _drawn_s(client: Prometheus, end: Any) -> float:
    from matplotlib import pyplot as plt

    began = time.perf_counter()
    figure = drawing.draw(dashboards.load("operations"), client, end - timedelta(days=30), end)
    figure.savefig(io.BytesIO(), format="png")
    took = time.perf_counter() - began
    plt.close(figure)
    return took
