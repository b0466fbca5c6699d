"""Firing intervals of the back-test are those of `promtool test rules`, instant by instant."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from fractions import Fraction
from itertools import chain
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from labkit._proc import run
from labkit.shop.history import History, build_history
from labkit.slo.backtest import Range, backtest, range_semantics
from labkit.slo.backtest_ratio import Divided
from labkit.slo.model import BurnAlert, Policy
from labkit.slo.policies import POLICIES, designs
from tests.slo.backtest_proof import (
    OBJECTIVE,
    expectations,
    from_epoch,
    promtool,
    random_counts,
    some_days,
    with_gaps,
    write,
    write_ratios,
)

Program = Callable[[str], Path]

# Every window and `for` of all designs in one file: one run of promtool proves them all.
ALL = Policy("all", tuple(dict.fromkeys(chain.from_iterable(one.alerts for one in designs().values()))))
PATIENT = Policy(
    "patient", tuple(BurnAlert(a.budget_share, a.long_s, a.short_s, 180) for a in POLICIES["workbook"].alerts)
)


@pytest.fixture(scope="module")
def past() -> History:
    """The month of seed 7."""
    return build_history(seed=7, end=datetime(2026, 3, 4, 11, 17, 23, tzinfo=UTC))


@pytest.fixture(scope="module")
def closed(program: Program) -> Range:
    """The range semantics of the promtool that is here, from what it says of itself."""
    said = run([program("promtool"), "--version"], timeout_s=20)
    return range_semantics(said.split("version ")[1].split()[0])


def outage(past: History) -> pd.DataFrame:
    """The day of the outage, from the epoch on."""
    return from_epoch(some_days(past, first_day=3.3, days=1))


@pytest.mark.timeout(900)  # 20 s of one core, minutes on a machine that is shared
def test_a_week_of_the_four_windows(past: History, program: Program, closed: Range, tmp_path: Path) -> None:
    """Seven days at 60 s, fourteen pages and six tickets: promtool finds the same at each of the 40,000 instants."""
    counts = from_epoch(some_days(past))
    found = backtest(counts, OBJECTIVE, POLICIES["four-window"], closed=closed)

    assert set(found.pages["alert"]) == {"page 1h/5m", "page 6h/30m", "ticket 1d/2h", "ticket 3d/6h"}
    assert len(found.pages) > 20
    right, said = promtool(program("promtool"), write(tmp_path, counts, found.policy, expectations(found)))
    assert right, said


@pytest.mark.parametrize("shift_steps", [-1, 1])
def test_promtool_notices_one_minute(
    shift_steps: int, past: History, program: Program, closed: Range, tmp_path: Path
) -> None:
    """The proof can fail: the same intervals a minute earlier or later are refused, each of them."""
    counts = from_epoch(some_days(past, first_day=3.7, days=0.5))
    found = backtest(counts, OBJECTIVE, POLICIES["workbook"], closed=closed)
    tests = expectations(found, shift_steps=shift_steps)

    right, said = promtool(program("promtool"), write(tmp_path, counts, found.policy, tests))

    assert not right
    assert said.count("expr:") == len(found.pages) > 1


@pytest.mark.parametrize("divided", ["bad", "good"])
def test_every_design_through_gaps(
    divided: Divided, past: History, program: Program, closed: Range, tmp_path: Path
) -> None:
    """Missing scrapes, windows that are not full, `for`, and both ways to write the ratio: the same instants."""
    counts = with_gaps(outage(past))
    found = backtest(counts, OBJECTIVE, ALL, closed=closed, divided=divided)

    assert found.pages["alert"].nunique() >= 6
    unit = write(tmp_path, counts, ALL, expectations(found), divided=divided)
    right, said = promtool(program("promtool"), unit)
    assert right, said


def test_counters_that_have_run_for_long(past: History, program: Program, closed: Range, tmp_path: Path) -> None:
    """With counters far above zero and a condition that must hold for three minutes."""
    counts = with_gaps(outage(past))
    found = backtest(counts, OBJECTIVE, PATIENT, closed=closed, fresh=False)

    assert len(found.pages) > 1
    right, said = promtool(program("promtool"), write(tmp_path, counts, PATIENT, expectations(found), base=1e9))
    assert right, said


@pytest.mark.parametrize(("window_s", "divided"), [(200, "good"), (600, "bad")])
def test_every_branch_of_the_extrapolation(
    window_s: int, divided: Divided, program: Program, closed: Range, tmp_path: Path
) -> None:
    """Forty short series of few events and many gaps: each ratio is the same float, and none where there is none."""
    rng = np.random.default_rng(window_s)
    frames = [random_counts(rng) for _ in range(40)]

    right, said = promtool(program("promtool"), write_ratios(tmp_path, frames, window_s, closed, divided))

    assert right, said


def test_promtool_notices_the_last_bit(program: Program, closed: Range, tmp_path: Path) -> None:
    """The proof of ratios can fail: one float further in a single one of them is refused."""
    frames = [random_counts(np.random.default_rng(5))]
    unit = write_ratios(tmp_path, frames, 600, closed, "bad")
    said = yaml.safe_load(unit.read_text())
    tests = said["tests"][0]["promql_expr_test"]
    one = next(test for test in tests if test["exp_samples"] and test["exp_samples"][0]["value"] > 0)
    one["exp_samples"][0]["value"] = float(np.nextafter(one["exp_samples"][0]["value"], 2))
    unit.write_text(yaml.safe_dump(said))

    right, said = promtool(program("promtool"), unit)

    assert not right
    assert said.count("expr:") == 1


def test_a_ratio_that_meets_the_threshold_does_not_fire(program: Program, closed: Range, tmp_path: Path) -> None:
    """144 bad of 10,000 is a burn rate of exactly 14.4 at 99.9 %; one more bad event in the hour fires."""
    index = pd.date_range(end="2026-03-01", periods=100, freq="min", tz="UTC", name="time")
    counts = pd.DataFrame({"good": 10_000 - 144, "total": 10_000}, index=index)
    counts.attrs["step_s"] = 60
    page = Policy("fast", (BurnAlert(Fraction(2, 100), 3600),))
    counts = from_epoch(counts)
    counts.iloc[80, 0] -= 1
    found = backtest(counts, OBJECTIVE, page, closed=closed)

    right, said = promtool(program("promtool"), write(tmp_path, counts, page, expectations(found)))

    assert found.pages["start"].tolist() == [counts.index[80]]
    assert right, said
