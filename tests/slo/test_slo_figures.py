"""What the figures of budgets show, asked from the axes; how they look is judged by eye."""

from __future__ import annotations

from datetime import timedelta
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes

from labkit import style
from labkit.errors import InvalidValue
from labkit.shop.history import History
from labkit.slo import figures
from labkit.slo.counts import frame
from labkit.slo.model import Rolling, Slo
from labkit.slo.tracking import burn_down, burn_rates, remaining, spent_per_incident
from tests.slo.drawn import START, slo

pytestmark = pytest.mark.usefixtures("_closed_figures")


def texts(ax: Axes) -> list[str]:
    """All annotations of the axes."""
    return [one.get_text() for one in ax.texts]


def drawn(ax: Axes, line: int) -> np.ndarray:
    """The values of a line."""
    return np.asarray(ax.get_lines()[line].get_ydata(), dtype=float)


def hours(bad: list[float]) -> pd.DataFrame:
    """Hours of a hundred events each, nan where nobody counted."""
    total = [one if np.isnan(one) else 100.0 for one in bad]
    good = [all_ - one for all_, one in zip(total, bad, strict=True)]
    return frame(good, total, end=START + timedelta(hours=len(bad)), step_s=3600)


def test_all_is_sorted_and_true() -> None:
    """`__all__` names what the module has."""
    assert sorted(figures.__all__) == figures.__all__
    assert all(hasattr(figures, name) for name in figures.__all__)


def test_the_month_burns_down_beside_its_incidents(month: History, month_counts: pd.DataFrame, month_slo: Slo) -> None:
    """From 100 % to 21.7 % in steps, each incident named with what it cost; thinning loses neither end nor extremes."""
    labels = pd.DataFrame(month.labels()["incidents"]).set_index("id")
    tracked = burn_down(month_counts, month_slo)
    ax = figures.burn_down(tracked, spent_per_incident(month_counts, labels, 0.999), title="A fifth is left")

    line = drawn(ax, 1)
    assert (line[0], round(line[-1], 4)) == (1, 0.2175)
    assert len(line) < 5000
    assert np.nanmin(line) == tracked["remaining"].min()
    assert "outage database: 12 %" in texts(ax)
    assert "harmless blip: 0.3 %" in texts(ax)
    assert not any("outside" in text for text in texts(ax))
    assert (ax.get_title(loc="left") or ax.get_title()) == "A fifth is left"
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("time (UTC)", "error budget left, share")
    assert ax.get_ylim()[0] < 0
    assert ax.get_ylim()[1] > 1


def test_an_overspent_budget_is_filled_below_zero() -> None:
    """The area lies between nothing left and the line, and the axis reaches down to it."""
    ax = figures.burn_down(burn_down(hours([1, 9, 0]), slo("0.98", Rolling(3 * 3600))))
    assert drawn(ax, 0).tolist() == pytest.approx([1, 1 - 1 / 6, 1 - 10 / 6, 1 - 10 / 6])
    (area,) = ax.collections
    assert area.get_paths()[0].get_extents().y0 == pytest.approx(-2 / 3)
    assert ax.get_ylim()[0] < -2 / 3


def test_partly_counted_windows_are_grey_and_the_axis_says_why() -> None:
    """The blue line has only windows that were counted as a whole; a gap is drawn by nobody."""
    ax = figures.burn_down(remaining(hours([1, 1, float("nan"), float("nan"), 1]), slo("0.9", Rolling(7200))))
    assert np.isnan(drawn(ax, 0)).tolist() == [False, False, False, True, False]
    assert np.isnan(drawn(ax, 1)).tolist() == [True, False, True, True, True]
    assert ax.get_xlabel() == "time (UTC); grey: only part of the window was counted"


def test_burn_rates_lie_under_their_thresholds(month_counts: pd.DataFrame) -> None:
    """A line per window, named beside its end; the allowed pace and each factor labelled; the peak is not cut off."""
    rates = burn_rates(month_counts, 0.999, [3600, 21_600])
    ax = figures.burn_rate_chart(rates, {"page: 14.4 over 1 h": 14.4})

    named = {"1: spends the whole budget exactly", "page: 14.4 over 1 h", "over 6 h", "over 1 h"}
    assert set(texts(ax)) == named
    assert np.nanmax(drawn(ax, 0)) == pytest.approx(rates[3600].max())
    assert np.nanmax(drawn(ax, 1)) == pytest.approx(rates[21_600].max())
    assert [line.get_ydata()[0] for line in ax.get_lines()[2:4]] == [1.0, 14.4]
    assert ax.get_yscale() == "log"
    assert ax.get_ylim()[1] > rates[3600].max()
    assert ax.get_ylabel() == "burn rate, times the allowed pace"


def test_no_burn_lies_on_the_lower_edge() -> None:
    """0 has no place on a logarithmic axis, and is not left out as if it were unknown."""
    ax = figures.burn_rate_chart(burn_rates(hours([0, 0, float("nan")]), 0.9, [3600]))
    assert np.nan_to_num(drawn(ax, 0), nan=-1).tolist() == [0.1, 0.1, -1]


def test_figures_go_where_they_are_told() -> None:
    """Axes that are given are used and come back."""
    ax = style.new_axes(5, 3)
    assert figures.burn_down(burn_down(hours([1, 2]), slo("0.9", Rolling(7200))), ax=ax) is ax
    other = style.new_axes(5, 3)
    assert figures.burn_rate_chart(burn_rates(hours([1, 2]), Fraction(9, 10), [3600]), ax=other) is other


def test_nothing_known_is_not_drawn() -> None:
    """An empty picture would look like a quiet month."""
    nothing = hours([float("nan"), float("nan")])
    with pytest.raises(InvalidValue, match=r"tracked must be known rows.*2 rows of"):
        figures.burn_down(remaining(nothing, slo("0.9", Rolling(7200))))
    with pytest.raises(InvalidValue, match=r"tracked must be known rows.*0 rows of \[\]"):
        figures.burn_down(pd.DataFrame())
    with pytest.raises(InvalidValue, match="rates must be known burn rates, one column per window"):
        figures.burn_rate_chart(burn_rates(nothing, 0.9, [3600]))
