"""What the tests of objectives share: a seeded month, and a Prometheus that holds it."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path

import matplotlib as mpl
import pandas as pd
import pytest

from labkit.observe.prometheus import Prometheus
from labkit.shop.history import History, build_history, write_history
from labkit.slo.backtest import range_semantics
from labkit.slo.model import EventSli, Rolling, Slo
from tests.prometheus_process import PrometheusProcess

mpl.use("agg")

END = datetime(2026, 3, 4, 11, 17, tzinfo=UTC)


@pytest.fixture(scope="session")
def month() -> History:
    """Thirty seeded days with nine incidents."""
    return build_history(seed=7, end=END)


@pytest.fixture(scope="session")
def month_counts(month: History) -> pd.DataFrame:
    """Good and total requests of each minute of the month; not to be changed."""
    return month.request_counts()


@pytest.fixture(scope="session")
def month_slo() -> Slo:
    """99.9 % of the requests over 30 days."""
    return Slo("shop", "gateway", Fraction(999, 1000), Rolling(30 * 86_400), EventSli("total[$window]", good="good"))


@pytest.fixture
def _closed_figures() -> Iterator[None]:
    """Close what the test drew."""
    yield
    from matplotlib import pyplot as plt

    plt.close("all")


@pytest.fixture(scope="session")
def served(
    program: Callable[[str], Path], month: History, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[PrometheusProcess]:
    """A Prometheus that holds the counters of the month and nothing else; not to be written to."""
    server = PrometheusProcess(program("prometheus"), tmp_path_factory.mktemp("served")).start()
    write_history(server.url, month)
    yield server
    server.end(signal.SIGKILL)


@pytest.fixture(scope="session")
def apart(served: PrometheusProcess) -> float:
    """
    How far counts may be from the exact ones: not at all where ranges are closed.

    Since Prometheus 3 a range has one sample less, and an hour of minutes loses one of its sixty increases.
    """
    with Prometheus(served.url) as client:
        return 0 if range_semantics(client.version()) == "closed" else 0.05
