"""The figure of policies side by side shows what the back-tests found, and refuses what cannot be compared."""

from __future__ import annotations

from datetime import timedelta

import pandas as pd
import pytest
from matplotlib import pyplot as plt
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.dates import num2date

from labkit.errors import InvalidValue
from labkit.shop.history import History
from labkit.slo.backtest import BackTest, backtest
from labkit.slo.backtest_figures import policy_bands
from labkit.slo.policies import POLICIES

pytestmark = pytest.mark.usefixtures("_closed_figures")


@pytest.fixture(scope="module")
def tests(month: History, month_counts: pd.DataFrame) -> list[BackTest]:
    """Two policies over the seeded month, with what happened in it."""
    incidents = [incident for incident in month.incidents if incident.kind == "availability"]
    chosen = (POLICIES[name] for name in ("workbook", "for-duration"))
    return [backtest(month_counts, 0.999, policy, incidents=incidents) for policy in chosen]


def test_every_notification_is_drawn_where_it_was(tests: list[BackTest]) -> None:
    """As many bars as pages and tickets, and a hairline at the start of each, so that none is too short to see."""
    ax = policy_bands(tests, title="The finding")
    bars = [c for c in ax.collections if isinstance(c, PolyCollection)]
    hairlines = [c for c in ax.collections if isinstance(c, LineCollection)]
    starts = [num2date(line[0][0]) for lines in hairlines for line in lines.get_segments()]
    wanted = [
        start.to_pydatetime()
        for one in reversed(tests)
        for s in ("page", "ticket")
        for start in one.notifications(s)["start"]
    ]

    assert sum(len(c.get_paths()) for c in bars) == len(wanted) == len(starts) > 10
    assert all(abs(drawn - start) < timedelta(seconds=1) for drawn, start in zip(starts, wanted, strict=True))
    assert ax.get_title(loc="left") + ax.get_title() == "The finding"


def test_policies_are_named_and_valued(tests: list[BackTest]) -> None:
    """From top to bottom in the order given, axes named with their unit, at the right what the policy is worth."""
    ax = policy_bands(tests)

    assert [label.get_text() for label in ax.get_yticklabels()] == ["for-duration", "workbook"]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("time (UTC)", "policy")
    row = tests[0].summary().iloc[0]
    said = " ".join(text.get_text() for text in ax.texts)
    assert f"{row['pages']:.0f} pages, {row['tickets']:.0f} tickets\n100% of pages right, 6 of 6 found" in said
    assert "0 pages, 0 tickets\ncannot fire: a window holds one sample" in said


def test_incidents_are_shaded_once_each(tests: list[BackTest]) -> None:
    """Eight, of which one needed nobody and is named so in the legend; without labels nothing is shaded."""
    labelled = policy_bands(tests)
    bare = policy_bands([backtest_without(one) for one in tests])

    assert tests[0].incidents is not None
    assert len(labelled.patches) == len(tests[0].incidents) == 8
    legends = [[text.get_text() for text in ax.get_legend().get_texts()] for ax in (labelled, bare)]  # type: ignore[union-attr]
    assert legends == [["pages", "tickets", "incidents", "no call needed"], ["pages", "tickets"]]
    assert len(bare.patches) == 0


def backtest_without(one: BackTest) -> BackTest:
    """The same test as if nobody had said what happened."""
    return BackTest(**{name: getattr(one, name) for name in BackTest.__slots__} | {"incidents": None})


def test_it_draws_where_it_is_told(tests: list[BackTest]) -> None:
    """Axes that are given are used and returned."""
    ax = plt.figure().subplots()

    assert policy_bands(tests, ax) is ax


def test_what_cannot_be_compared_is_refused(tests: list[BackTest], month_counts: pd.DataFrame) -> None:
    """No tests, or tests of different stretches of time."""
    other = backtest(month_counts.iloc[:1000], 0.999, POLICIES["workbook"])

    for wrong in ([], [tests[0], other]):
        with pytest.raises(InvalidValue, match="back-tests of one history"):
            policy_bands(wrong)
