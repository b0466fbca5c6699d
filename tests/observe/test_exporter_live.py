"""The exporter in the live lab: real figures, clean names, and MariaDB or Redis gone."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import psutil
import pytest

from labkit._http import request
from labkit._wait import wait_until
from labkit.errors import NoData
from labkit.lab import Lab
from labkit.stack.progress import silent

pytestmark = pytest.mark.live

NAMES = (
    "system_cpu_usage_ratio", "system_memory_usage_ratio", "system_filesystem_usage_ratio",
    "database_connections", "database_connections_active", "database_connections_limit", "database_long_queries",
    "database_slow_queries_total", "database_queries_total", "database_query_duration_seconds_count",
    "cache_hits_total", "cache_misses_total", "cache_memory_bytes", "cache_clients", "queue_jobs",
    "active_users", "orders_processed_total", "revenue_dollars_total",
    "exporter_source_success", "exporter_source_age_seconds", "exporter_source_errors_total",
)  # fmt: skip


def metrics(lab: Lab) -> str:
    """The page."""
    return request("GET", f"{lab.url('exporter')}/metrics", timeout_s=5).text


def test_every_metric_is_in_prometheus(lab: Lab) -> None:
    """Each name of docs/exporter.md has a series, and shares are between 0 and 1."""
    wait_until(
        lambda: set(NAMES) - set(lab.prometheus.query('{job="exporter"}')["__name__"]),
        "every metric has a series (those of MariaDB take a moment after it was gone)",
        timeout_s=90,
        every_s=1,
        ready=lambda missing: not missing,
    )

    assert lab.prometheus.query('{job="exporter",__name__=~".*_ratio"}')["value"].between(0, 1).all()


def test_promtool_finds_nothing_to_correct(lab: Lab, program: Callable[[str], Path]) -> None:
    """`promtool check metrics` accepts the page without a word."""
    checked = subprocess.run(
        [program("promtool"), "check", "metrics"],
        input=metrics(lab),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )

    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


def test_orders_and_revenue_are_counted(lab: Lab) -> None:
    """The live customers' orders appear, are completed, and bring revenue."""
    ask = lab.prometheus

    def revenue() -> float:
        return ask.value("sum(revenue_dollars_total)")

    wait_until(revenue, "revenue", timeout_s=90, every_s=1, tolerate=(NoData,))

    placed, completed = (ask.value(f'sum(orders_processed_total{{status="{s}"}})') for s in ("placed", "completed"))
    assert 0 < completed <= placed


def test_a_scrape_stays_fast_with_mariadb_hung(lab: Lab) -> None:
    """MariaDB stopped in its tracks: half of the scrapes take under 20 ms, its figures vanish, Redis' stay."""
    process = psutil.Process(int(lab.status().loc["mariadb", "pid"]))
    try:
        process.send_signal(signal.SIGSTOP)
        wait_until(
            lambda: "database_connections{" not in metrics(lab), "MariaDB's figures are gone", timeout_s=40, every_s=0.5
        )
        took = []
        for _ in range(20):
            start = time.perf_counter()
            text = metrics(lab)
            took.append(time.perf_counter() - start)
    finally:
        process.send_signal(signal.SIGCONT)
        lab.reset(progress=silent)

    assert median(took) < 0.02
    assert "queue_jobs{" in text
    assert 'exporter_source_success{source="mariadb"} 0.0' in text
    wait_until(lambda: "database_connections{" in metrics(lab), "MariaDB's figures are back", timeout_s=30, every_s=0.5)
