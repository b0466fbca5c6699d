"""
Bench rows of the back-test: beside `promtool test rules` on the same week, and by itself on a fine month and a year.

Each function returns rows `{name, value, unit, rival, rival_value, ratio, goal, met}`.  The rival runs once: it takes
half a minute.  What it runs proves every instant of what it is compared with, so both did the same.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pandas as pd
import psutil

from labkit._proc import run
from labkit.shop.history import build_history
from labkit.slo.backtest import backtest, compare, range_semantics
from labkit.slo.policies import POLICIES
from tests.slo.backtest_proof import OBJECTIVE, expectations, from_epoch, promtool, some_days, write

Row = dict[str, Any]
Program = Callable[[str], Path]

SIX = {name: POLICIES[name] for name in list(POLICIES)[:6]}


def rows(program: Program, folder: Path) -> list[Row]:
    """All rows of this file; *program* finds a component's program by name."""
    return [*beside_promtool(program, folder / "promtool"), a_fine_month(), *a_year_of_services()]


def _row(name: str, value: float, unit: str, *, goal: str, met: bool, **rival: Any) -> Row:
    found = {"name": name, "value": round(value, 5), "unit": unit, "goal": goal, "met": met}
    return {**found, "rival": None, "rival_value": None, "ratio": None, **rival}


def _seconds(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def beside_promtool(program: Program, folder: Path, repeats: int = 15) -> list[Row]:
    """Seven days at 60 s, the four-window policy: the same firing intervals, found by both."""
    said = run([program("promtool"), "--version"], timeout_s=20)
    closed = range_semantics(said.split("version ")[1].split()[0])
    past = build_history(seed=7, end=datetime(2026, 3, 4, 11, 17, 23, tzinfo=UTC))
    counts, policy = from_epoch(some_days(past)), POLICIES["four-window"]
    found = backtest(counts, OBJECTIVE, policy, closed=closed)
    unit = write(folder, counts, policy, expectations(found))
    ours = [_seconds(lambda: backtest(counts, OBJECTIVE, policy, closed=closed)) for _ in range(repeats)]
    began = time.perf_counter()
    right, text = promtool(program("promtool"), unit)
    rival = time.perf_counter() - began
    if not right:
        raise SystemExit(f"promtool finds other firing intervals, so there is nothing to compare:\n{text}")
    value = median(ours)
    ratio = rival / value
    rest = {"rival": "promtool test rules", "rival_value": round(rival, 2), "ratio": round(ratio, 1)}
    name = f"back-test: 7 days at 60 s, four windows, {len(found.pages)} intervals"
    return [_row(name, value, "s", goal=">= 1000", met=ratio >= 1000, **rest)]


def _counts(rows: int, step_s: int, seed: int) -> pd.DataFrame:
    """Traffic with chance errors, and ten outages that every policy has to say something about."""
    rng = np.random.default_rng(seed)
    index = pd.date_range("2026-01-01", periods=rows, freq=f"{step_s}s", tz="UTC", name="time")
    total = rng.poisson(10 * step_s, rows)
    share = np.full(rows, 0.0003)
    for at in rng.integers(0, rows, 10):
        share[at : at + rng.integers(5, 600) * 60 // step_s] = rng.uniform(0.002, 0.9)
    counts = pd.DataFrame({"good": total - rng.binomial(total, share), "total": total}, index=index)
    counts.attrs["step_s"] = step_s
    return counts


def a_fine_month(repeats: int = 3) -> Row:
    """30 days at 15 s, the workbook's six designs side by side, incidents included."""
    counts = _counts(172_800, 15, seed=1)
    value = median(_seconds(lambda: compare(counts, OBJECTIVE, SIX, incidents=[])) for _ in range(repeats))
    return _row("back-test: 30 days at 15 s, six policies", value, "s", goal="< 2", met=value < 2)


def a_year_of_services(services: int = 100) -> list[Row]:
    """A year of minutes for each of 100 services, six policies each; making the counts is not timed."""
    process = psutil.Process()
    spent, pages, before_mb, most_mb = 0.0, 0, 0.0, 0.0
    for seed in range(services):
        counts = _counts(525_600, 60, seed)
        before_mb = before_mb or process.memory_info().rss / 1e6
        # Processor time, which for one thread is what a clock shows on a machine that does nothing else.
        began = time.process_time()
        pages += int(compare(counts, OBJECTIVE, SIX, incidents=[])["pages"].sum())
        spent += time.process_time() - began
        most_mb = max(most_mb, process.memory_info().rss / 1e6 - before_mb)
    name = f"back-test: a year of minutes, {services} services, six policies, {pages:,} pages"
    memory = "back-test: memory beside the counts of one service, in that year"
    return [
        _row(name, spent, "s CPU", goal="< 60", met=spent < 60),
        _row(memory, most_mb, "MB", goal="< 300", met=most_mb < 300),
    ]
