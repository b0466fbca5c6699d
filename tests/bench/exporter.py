"""Bench row of the exporter: how long a scrape takes while MariaDB hangs."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from statistics import median
from typing import Any

import psutil

import labkit
from labkit._http import request
from labkit._wait import wait_until
from labkit.stack.progress import silent
from tests.conftest import free_offset

_LIMIT_MS = 20
_SCRAPES = 50


def rows(folder: Path) -> list[dict[str, Any]]:
    """The median of fifty scrapes, MariaDB stopped by SIGSTOP."""
    with labkit.up(run_dir=folder / "run", port_offset=free_offset(), progress=silent) as lab:
        url = f"{lab.url('exporter')}/metrics"
        database = psutil.Process(int(lab.status().loc["mariadb", "pid"]))
        wait_until(lambda: "database_connections{" in request("GET", url).text, "MariaDB is read", timeout_s=30)
        try:
            database.send_signal(signal.SIGSTOP)
            hung = 'exporter_source_success{source="mariadb"} 0.0'
            wait_until(lambda: hung in request("GET", url).text, "the exporter notices", timeout_s=30)
            took_ms = [_scrape_ms(url) for _ in range(_SCRAPES)]
        finally:
            database.send_signal(signal.SIGCONT)
    value = median(took_ms)
    return [
        {
            "name": "scrape of the exporter with MariaDB hung",
            "value": round(value, 2),
            "unit": "ms",
            "rival": None,
            "rival_value": None,
            "ratio": None,
            "goal": f"<= {_LIMIT_MS} ms",
            "met": value <= _LIMIT_MS,
        }
    ]


def _scrape_ms(url: str) -> float:
    start = time.perf_counter()
    request("GET", url)
    return (time.perf_counter() - start) * 1000
