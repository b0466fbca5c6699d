"""
A world for the checks of notebook 01: a real Prometheus with the seeded month and ten minutes of a live shop.

What it knows beside metrics, the state of processes, alerts, lines and traces, is kept in frames that a test changes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd

from labkit._time import utc_now
from labkit.errors import NoData
from labkit.observe.prometheus import Prometheus
from labkit.shop._remote_write import compress, encode, label_bytes, push
from labkit.shop.history import History, build_history, write_history
from tests.prometheus_process import PrometheusProcess

FAILED, FINE, UNKNOWN, ON_ITS_WAY = "f" * 32, "a" * 32, "0" * 32, "e" * 32
SLOW, SLOW_ELSEWHERE = "b" * 32, "c" * 32
_LIVE_S, _STEP_S = 600, 5
_SHOP = {"job": "shop"}
GATEWAY = {**_SHOP, "service": "gateway", "instance": "gateway"}


class Month:
    """The server, its past, and the instant at which the live ten minutes end."""

    def __init__(self, url: str, past: History, end: datetime) -> None:
        self.prometheus, self.past, self.end = Prometheus(url), past, end


@contextmanager
def month(program: Path, folder: Path) -> Iterator[Month]:
    """A Prometheus with thirty days, then a live shop for ten minutes, and an accident in their last minute."""
    server = PrometheusProcess(program, folder).start()
    try:
        end = utc_now().replace(microsecond=0)
        past = build_history(seed=7, end=end - timedelta(seconds=_LIVE_S))
        write_history(server.url, past)
        _write_live(server.url, end)
        yield Month(server.url, past, end)
    finally:
        server.end()


def _write_live(url: str, end: datetime) -> None:
    """Ten requests a second at the gateway, seven at the catalogue, and a minute of statistics by customer."""
    rates = {
        ("gateway", "gateway", "GET", "/products"): 8.75,
        ("gateway", "gateway", "POST", "/checkout/{user}"): 1.25,
        ("catalog", "catalog-1", "GET", "/products"): 3.5,
        ("catalog", "catalog-2", "GET", "/products"): 3.5,
    }
    seconds = np.arange(_STEP_S, _LIVE_S + 1, _STEP_S)
    series = [
        {"service": s, "instance": i, "method": m, "endpoint": e, "status": "200", "__name__": "http_requests_total"}
        for s, i, m, e in rates
    ]
    values = [50_000 + rate * seconds for rate in rates.values()]
    for user in range(20):
        name = {"__name__": "shop_customer_request_seconds_bucket", "user": f"visitor-{user}"}
        for bound in ("0.1", "0.5", "+Inf"):
            series.append({**GATEWAY, **name, "endpoint": "/checkout/{user}", "le": bound})
            values.append(np.where(seconds > _LIVE_S - 60, 3.0, np.nan))
    labels = [label_bytes({**_SHOP, **one}) for one in series]
    times_ms = round(end.timestamp() * 1000) - (_LIVE_S - seconds) * 1000
    push(url, compress(encode(labels, times_ms, np.array(values))), how="")


def spans(*rows: tuple[str, str, str, str, float, bool]) -> pd.DataFrame:
    """Spans from (id, parent, service, operation, seconds, error)."""
    return pd.DataFrame(rows, columns=["span_id", "parent_id", "service", "operation", "duration_s", "error"])


TRACES = {
    FAILED: spans(
        ("1", "", "gateway", "POST /checkout/{user}", 0.009, True),
        ("2", "1", "gateway", "GET cart", 0.003, False),
        ("3", "2", "cart", "GET /cart/{user}", 0.002, False),
        ("4", "1", "gateway", "POST payments", 0.002, True),
        ("5", "4", "payments", "POST /charges", 0.001, True),
    ),
    FINE: spans(
        ("1", "", "gateway", "POST /checkout/{user}", 0.030, False),
        ("2", "1", "gateway", "GET catalog", 0.003, False),
        ("3", "2", "catalog", "GET /prices", 0.002, False),
    ),
    SLOW: spans(
        ("1", "", "gateway", "POST /checkout/{user}", 0.640, False),
        ("2", "1", "gateway", "GET catalog", 0.605, False),
        ("3", "2", "catalog", "GET /prices", 0.602, False),
        ("4", "1", "payments", "POST /charges", 0.010, False),
    ),
    SLOW_ELSEWHERE: spans(
        ("1", "", "gateway", "POST /checkout/{user}", 0.910, False),
        ("2", "1", "payments", "POST /charges", 0.900, False),
    ),
}


class _Metrics:
    """The real server for every query; alerts and targets are those of the world."""

    def __init__(self, real: Prometheus, world: World) -> None:
        self._real, self._world = real, world

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def alerts(self) -> pd.DataFrame:
        """The world's alerts."""
        names = ["name", "severity", "state", "active_since", "labels"]
        found = pd.DataFrame(self._world.firing, columns=names)
        return found.astype({"active_since": "datetime64[ns, UTC]"})

    def targets(self) -> pd.DataFrame:
        """One per replica; those that were stopped are down."""
        status = self._world.status()
        services = status.index.str.removesuffix("-1").str.removesuffix("-2")
        health = np.where(status["ready"], "up", "down")
        return pd.DataFrame({"instance": status.index, "service": services, "health": health})


class World:
    """A lab as the checks of notebook 01 see it."""

    seed = 7

    def __init__(self, month: Month) -> None:
        self.at = month.end - timedelta(minutes=2)
        self.firing: list[tuple[str, str, str, datetime, Mapping[str, str]]] = []
        self.silenced: list[str] = []
        self.broken: dict[str, list[dict[str, Any]]] = {"catalog-1": [], "catalog-2": [], "payments-1": []}
        self.lines = {FAILED: "error", ON_ITS_WAY: "error", FINE: "info"}
        self.month, self.prometheus = month, _Metrics(month.prometheus, self)
        labels = month.past.labels()
        incidents = pd.DataFrame(labels["incidents"])
        for name in ("start", "end"):
            incidents[name] = pd.to_datetime(incidents[name], utc=True)
        self.history = SimpleNamespace(incidents=incidents, labels=labels)
        self.alertmanager = SimpleNamespace(silences=lambda: pd.DataFrame({"id": self.silenced}))
        self.logs = SimpleNamespace(search=self._search)
        self.traces = SimpleNamespace(trace=self._trace)
        self.shop = SimpleNamespace(faults=lambda: self.broken)
        names = ["alertmanager", "gateway", "catalog-1", "catalog-2", "payments-1"]
        self._status = pd.DataFrame({"state": "RUNNING", "ready": True}, index=pd.Index(names, name="name"))

    def now(self) -> datetime:
        """The instant that the world is at; a test moves it."""
        return self.at

    def status(self) -> pd.DataFrame:
        """One row per process."""
        return self._status.copy()

    def stop(self, name: str) -> None:
        """What a learner does who "fixes" by stopping."""
        self._status.loc[name] = ["STOPPED", False]

    def deploy_statistics(self) -> None:
        """The accident of the last minute has happened and goes on."""
        self.at = self.month.end

    def undo_statistics(self) -> None:
        """It was undone: its series have no sample any more, longer ago than Prometheus looks back."""
        self.at = self.month.end + timedelta(minutes=6)

    def slow_down(self, instance: str, endpoint: str) -> None:
        """The second call."""
        self.broken[instance] = [{"name": "latency", "ms": 600, "endpoint": endpoint}]

    def _search(self, trace_id: str, start: datetime) -> pd.DataFrame:
        if trace_id not in self.lines:
            raise NoData(trace_id, start=start, end=start, what="log line")
        return pd.DataFrame({"level": [self.lines[trace_id]]})

    def _trace(self, trace_id: str) -> pd.DataFrame:
        if trace_id not in TRACES:
            raise NoData(trace_id, start=self.at, end=self.at, what="span")
        return TRACES[trace_id]
