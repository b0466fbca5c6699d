"""Counts that the tests of objectives share: a seeded month, and strategies that draw counts of any shape."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from fractions import Fraction

import matplotlib as mpl
import pandas as pd
import pytest

from labkit.shop.history import History, build_history
from labkit.slo.model import EventSli, Rolling, Slo

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
