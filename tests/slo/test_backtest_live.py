"""Firing intervals of the back-test are those of a live Prometheus that holds the same counters."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from labkit.observe.prometheus import Prometheus
from labkit.shop.history import build_history
from labkit.slo.backtest import backtest, error_ratio, range_semantics
from labkit.slo.model import Policy
from labkit.slo.policies import POLICIES
from tests.prometheus_process import PrometheusProcess
from tests.slo.backtest_proof import OBJECTIVE, at_now, live_pages, ratio, some_days, write_counters

pytestmark = pytest.mark.live

# Every alert of every design.
POLICY = Policy("all", tuple(dict.fromkeys(chain.from_iterable(one.alerts for one in POLICIES.values()))))


@pytest.fixture(scope="module")
def counts() -> pd.DataFrame:
    """The month of seed 7, moved to the present."""
    return at_now(some_days(build_history(seed=7, end=datetime(2026, 3, 4, 11, 17, 23, tzinfo=UTC)), days=30))


@pytest.fixture(scope="module")
def server(
    program: Callable[[str], Path], counts: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[PrometheusProcess]:
    """A Prometheus that holds the counters of that month and nothing else."""
    started = PrometheusProcess(program("prometheus"), tmp_path_factory.mktemp("prometheus")).start()
    write_counters(started.url, counts)
    yield started
    started.end(signal.SIGKILL)


def test_a_month_of_every_design(server: PrometheusProcess, counts: pd.DataFrame) -> None:
    """Every page and every ticket begins and ends at the same minute, under the range semantics of this server."""
    closed = range_semantics(Prometheus(server.url).version())
    found = backtest(counts, OBJECTIVE, POLICY, closed=closed)

    assert found.pages["alert"].nunique() == len(POLICY.alerts) - len(found.blind)
    assert len(found.pages) > 200
    pd.testing.assert_frame_equal(
        live_pages(server.url, counts, POLICY), found.pages[["start", "end", "alert"]], check_dtype=False
    )


@pytest.mark.parametrize("window_s", [300, 270, 3600])
def test_ratios_are_the_same_floats(window_s: int, server: PrometheusProcess, counts: pd.DataFrame) -> None:
    """Not near: equal, to the last bit, also for a window that no step divides."""
    client = Prometheus(server.url)
    part = counts.iloc[:10_000]
    said = client.query_range(ratio(window_s), part.index[0].to_pydatetime(), part.index[-1].to_pydatetime(), 60)

    ours = error_ratio(counts, window_s, closed=range_semantics(client.version())).iloc[:10_000]

    assert ours.notna().sum() > 9_990
    np.testing.assert_array_equal(said.iloc[:, 0].to_numpy(), ours.to_numpy())
    client.close()
