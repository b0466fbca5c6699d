"""The back-test with left-open ranges against Prometheus 3 and its promtool, compiled once from their module."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from labkit._proc import run
from labkit.observe.prometheus import Prometheus
from labkit.shop.history import History, build_history
from labkit.slo.backtest import backtest, error_ratio, range_semantics
from labkit.slo.backtest_ratio import Divided
from labkit.slo.model import BurnAlert, Policy
from labkit.slo.policies import POLICIES
from tests.full.prometheus3 import PINNED
from tests.prometheus_process import PrometheusProcess
from tests.slo.backtest_proof import (
    OBJECTIVE,
    at_now,
    expectations,
    from_epoch,
    live_pages,
    promtool,
    random_counts,
    ratio,
    some_days,
    with_gaps,
    write,
    write_counters,
    write_ratios,
)

pytestmark = [pytest.mark.full, pytest.mark.live, pytest.mark.timeout(1800)]

ALL = Policy("all", tuple(dict.fromkeys(chain.from_iterable(one.alerts for one in POLICIES.values()))))


@pytest.fixture(scope="module")
def past() -> History:
    """The month of seed 7."""
    return build_history(seed=7, end=datetime(2026, 3, 4, 11, 17, 23, tzinfo=UTC))


@pytest.fixture(scope="module")
def counts(past: History) -> pd.DataFrame:
    """That month, moved to the present."""
    return at_now(some_days(past, days=30))


@pytest.fixture(scope="module")
def server(
    program3: Callable[[str], Path], counts: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[PrometheusProcess]:
    """A Prometheus 3 that holds the counters of that month."""
    started = PrometheusProcess(program3("prometheus"), tmp_path_factory.mktemp("prometheus3")).start()
    write_counters(started.url, counts)
    yield started
    started.end(signal.SIGKILL)


def test_the_release_says_that_its_ranges_are_left_open(program3: Callable[[str], Path]) -> None:
    """Chosen from what the program says of itself."""
    said = run([program3("promtool"), "--version"], timeout_s=20)

    assert range_semantics(PINNED) == "left_open"
    assert "promtool, version" in said


def test_a_week_of_the_four_windows(past: History, program3: Callable[[str], Path], tmp_path: Path) -> None:
    """Seven days at 60 s: promtool finds the same at each instant."""
    counts = from_epoch(some_days(past))
    found = backtest(counts, OBJECTIVE, POLICIES["four-window"], closed="left_open")

    assert len(found.pages) > 20
    right, said = promtool(program3("promtool"), write(tmp_path, counts, found.policy, expectations(found)))
    assert right, said


def test_closed_ranges_are_refused(past: History, program3: Callable[[str], Path], tmp_path: Path) -> None:
    """What Prometheus 2 would have done on the same day is not what this one does."""
    counts = from_epoch(some_days(past, first_day=3.7, days=0.5))
    found = backtest(counts, OBJECTIVE, POLICIES["four-window"], closed="closed")

    right, _ = promtool(program3("promtool"), write(tmp_path, counts, found.policy, expectations(found)))

    assert not right


@pytest.mark.parametrize(("divided", "fresh"), [("bad", True), ("good", True), ("bad", False)])
def test_every_design_through_gaps(
    divided: Divided, fresh: bool, past: History, program3: Callable[[str], Path], tmp_path: Path
) -> None:
    """Missing scrapes, windows that are not full, `for`, counters at and far from zero: the same instants."""
    counts = with_gaps(from_epoch(some_days(past, first_day=3.3, days=1)))
    patient = tuple(BurnAlert(a.budget_share, a.long_s, a.short_s, 180) for a in POLICIES["workbook"].alerts)
    policy = Policy("all", (*ALL.alerts, *patient))
    found = backtest(counts, OBJECTIVE, policy, closed="left_open", divided=divided, fresh=fresh)

    assert found.pages["alert"].nunique() >= 6
    unit = write(tmp_path, counts, policy, expectations(found), divided=divided, base=0 if fresh else 1e9)
    right, said = promtool(program3("promtool"), unit)
    assert right, said


@pytest.mark.parametrize(("window_s", "divided"), [(90, "bad"), (200, "good"), (600, "bad"), (600, "good")])
def test_every_branch_of_the_extrapolation(
    window_s: int, divided: Divided, program3: Callable[[str], Path], tmp_path: Path
) -> None:
    """Few events, many gaps, counters near zero: each ratio is the same float, and none where there is none."""
    rng = np.random.default_rng(window_s)
    unit = write_ratios(tmp_path, [random_counts(rng) for _ in range(100)], window_s, "left_open", divided)

    right, said = promtool(program3("promtool"), unit)

    assert right, said


def test_a_month_of_every_design_live(server: PrometheusProcess, counts: pd.DataFrame) -> None:
    """Every firing interval of every design begins and ends at the same minute as the server's answers."""
    assert range_semantics(Prometheus(server.url).version()) == "left_open"
    found = backtest(counts, OBJECTIVE, ALL, closed="left_open")

    assert found.blind == ("page 1m for 1h",)
    assert len(found.pages) > 200
    pd.testing.assert_frame_equal(
        live_pages(server.url, counts, ALL), found.pages[["start", "end", "alert"]], check_dtype=False
    )


def test_ratios_are_the_same_floats(server: PrometheusProcess, counts: pd.DataFrame) -> None:
    """Not near: equal, to the last bit."""
    client = Prometheus(server.url)
    part = counts.iloc[:10_000]
    said = client.query_range(ratio(3600), part.index[0].to_pydatetime(), part.index[-1].to_pydatetime(), 60)

    ours = error_ratio(counts, 3600, closed="left_open").iloc[:10_000]

    np.testing.assert_array_equal(said.iloc[:, 0].reindex(ours.index).to_numpy(), ours.to_numpy())
    client.close()
