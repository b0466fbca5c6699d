"""Numbers opened: exact values, and approximations with the errors that they really have."""

from __future__ import annotations

import json
import math
from datetime import datetime, timedelta
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest

from labkit.errors import InvalidValue, UnknownName
from labkit.shop.history import History
from labkit.slo import approximations, explain, explanation
from labkit.slo.approximations import average_of_ratios, counters, increase, sampled_rule
from labkit.slo.backtest_ratio import error_ratio
from labkit.slo.counts import frame
from labkit.slo.explain import explain as opened
from labkit.slo.model import Budgeting, Calendar, Rolling, Slo
from labkit.slo.tracking import remaining, time_to_exhaustion
from tests.slo.drawn import START, slo

NAN = float("nan")


@pytest.mark.parametrize("module", [approximations, explain, explanation])
def test_all_is_sorted_and_true(module: object) -> None:
    """`__all__` names what the module has."""
    names = module.__all__  # type: ignore[attr-defined]
    assert sorted(names) == names
    assert all(hasattr(module, name) for name in names)


@pytest.fixture
def outage(month: History) -> datetime:
    """The end of the five minutes in which every page was down."""
    found = next(one for one in month.labels()["incidents"] if one["id"] == "outage-database")
    return datetime.fromisoformat(found["end"])


def test_a_burn_rate_is_opened_down_to_its_counts(month_counts: pd.DataFrame, month_slo: Slo, outage: datetime) -> None:
    """Value, counts, window and formula are exact and agree with one another."""
    found = opened("burn_rate", counts=month_counts, slo=month_slo, window_s=3600, at=outage)
    hour = month_counts[(month_counts.index > outage - timedelta(hours=1)) & (month_counts.index <= outage)].sum()

    assert dict(found.counts) == {"good": hour["good"], "bad": hour["total"] - hour["good"], "total": hour["total"]}
    assert found.value == Fraction(int(hour["total"] - hour["good"]) * 1000, int(hour["total"]))
    assert (found.end - found.start, found.coverage) == (timedelta(hours=1), 1)
    assert found.formula == "burn = (bad / total) / (1 - objective)"
    assert found.worked == "(3,120 / 28,230) / (1 - 0.999) = 110.521"
    assert "110.521 times as fast" in found.meaning


def test_each_quantity_is_the_one_that_its_function_gives(month_counts: pd.DataFrame, month_slo: Slo) -> None:
    """Achieved, spent, remaining and the end of the budget, for a rolling month and a calendar month."""
    for promise in (month_slo, slo("0.999", Calendar("month"))):
        row = remaining(month_counts, promise).iloc[-1]
        values = {
            name: opened(name, counts=month_counts, slo=promise).value for name in ("achieved", "budget", "remaining")
        }  # type: ignore[arg-type]
        assert values["achieved"] == pytest.approx(row["good"] / row["total"], abs=1e-12)
        assert values["budget"] == pytest.approx(row["spent"], abs=1e-9)
        assert values["remaining"] == pytest.approx(row["remaining"], abs=1e-9)
        end = opened("exhaustion", counts=month_counts, slo=promise)
        assert end.value == time_to_exhaustion(month_counts, promise).in_s
        assert end.meaning.startswith("never: ")


def test_approximations_have_the_errors_that_they_say(
    month_counts: pd.DataFrame, month_slo: Slo, outage: datetime
) -> None:
    """Each error is value minus exact, in the unit of the number; three of them computed here a second way."""
    found = opened("burn_rate", counts=month_counts, slo=month_slo, window_s=3600, at=outage, shown=110.5)
    named = {one.name: one for one in found.approximations}
    inside = month_counts[(month_counts.index > outage - timedelta(hours=1)) & (month_counts.index <= outage)]
    ratios = 1 - inside["good"] / inside["total"]

    assert named["average of ratios"].value == pytest.approx(1000 * ratios.mean())
    prometheus = error_ratio(month_counts, 3600, fresh=False)[outage]
    assert named["the ratio of the two"].value == pytest.approx(1000 * prometheus)
    bad = named["increase() of bad events"]
    assert bad.value == pytest.approx(3120 * 3600 / 3540)
    assert bad.error == pytest.approx(3120 * 60 / 3540)
    assert bad.relative_error == pytest.approx(60 / 3540)
    assert named["the value that was shown"].error == pytest.approx(110.5 - 3_120_000 / 28_230)
    assert named["average of a recorded ratio"].relative_error == pytest.approx(-0.2028, abs=1e-3)
    for one in found.approximations:
        assert one.value is not None
        assert one.exact is not None
        assert one.error == pytest.approx(one.value - float(one.exact), abs=1e-9)


def test_nothing_is_off_where_samples_lie_on_both_ends(month_counts: pd.DataFrame, month_slo: Slo) -> None:
    """With the closed ranges of Prometheus 2 and an evaluation on the grid, increase() is exact and says so."""
    found = opened("burn_rate", counts=month_counts, slo=month_slo, window_s=3600, closed="closed")
    assert [one.error for one in found.approximations[:3]] == pytest.approx([0, 0, 0], abs=1e-9)
    assert "stretched by 1 to the ends" in found.approximations[0].why


def test_approximations_know_how_much_of_the_month_has_passed(month_counts: pd.DataFrame) -> None:
    """Three days into a calendar month an exact ratio gives the exact number, not that of a whole month."""
    for name in ("budget", "remaining"):
        found = opened(name, counts=month_counts, slo=slo("0.999", Calendar("month")), closed="closed")  # type: ignore[arg-type]
        assert found.worked.endswith(f"* 3 d 11 h / 31 d = {float(found.value or 0):.6g}")
        assert found.approximations[2].error == pytest.approx(0, abs=1e-9)


def test_what_cannot_be_computed_is_not_made_up(month_counts: pd.DataFrame) -> None:
    """No events: the value and all that is made of it are unknown; slices are not what increase() counts."""
    nothing = opened("burn_rate", counts=frame([0, 0], [0, 0], end=START, step_s=60), slo=slo("0.9", Rolling(120)))
    assert (nothing.value, nothing.approximations) == (None, ())
    assert "unknown: there were no events" in nothing.text
    assert "neither healthy nor broken" in nothing.text
    slices = slo("0.999", Rolling(86_400), Budgeting("timeslices", 300, Fraction(99, 100)))
    found = opened("budget", counts=month_counts, slo=slices)
    assert (found.unit, found.approximations) == ("slices of 5 min", ())
    assert found.counts["total"] <= 288
    hourly = opened("budget", counts=frame([9] * 5, [10] * 5, end=START, step_s=3600), slo=slo("0.5", Rolling(18_000)))
    recorded = hourly.approximations[-1]
    assert (recorded.name, recorded.value, recorded.error) == ("average of a recorded ratio", None, None)
    assert "take counts in steps of 2 min 30 s or less" in recorded.why


def test_a_window_that_was_counted_in_part_says_so() -> None:
    """The note has the time that is missing."""
    found = opened(
        "budget", counts=frame([9, NAN, 9], [10, NAN, 10], end=START, step_s=60), slo=slo("0.5", Rolling(240))
    )
    assert found.coverage == Fraction(1, 2)
    assert "2 min of the window were not counted" in found.text


def test_text_dict_and_page_tell_the_same(month_counts: pd.DataFrame, month_slo: Slo, outage: datetime) -> None:
    """The dict is JSON and has the numbers; text and page show each name, value and reason; markup is escaped."""
    promise = Slo("a <b> & c", "gateway", Fraction(999, 1000), month_slo.window, month_slo.sli)
    found = opened("remaining", counts=month_counts, slo=promise, at=outage, source="the gateway's counters")
    told = json.loads(json.dumps(found.to_dict(), allow_nan=False))

    assert found.value is not None
    assert told["value"] == float(found.value)
    assert told["window"]["end"] == outage.isoformat()
    assert [one["name"] for one in told["approximations"]] == [one.name for one in found.approximations]
    page = found._repr_html_()
    assert "a &lt;b&gt; &amp; c" in page
    assert "<b> & c" not in page.replace("<b>remaining", "")
    for text in (found.formula, found.worked, found.source, *(one.name for one in found.approximations)):
        assert text in found.text
    assert str(found) == found.text
    assert page.count("<table>") == page.count("</table>") == 2


def test_unknown_quantities_name_the_nearest(month_counts: pd.DataFrame, month_slo: Slo) -> None:
    """A typing error is told the word."""
    with pytest.raises(UnknownName, match="did you mean 'burn_rate'"):
        opened("burnrate", counts=month_counts, slo=month_slo)  # type: ignore[arg-type]


def test_increase_taken_apart() -> None:
    """
    Four samples a minute apart, evaluated 20 s after the last over three minutes.

    The window begins 20 s after the first sample, so three are in it, 120 s apart: stretched by 40 s and 20 s.
    """
    found = increase([0, 60, 120, 180], [100, 110, 130, 160], at_s=200, window_s=180)
    assert found is not None
    assert (found.samples, found.span_s, found.before_s, found.after_s) == (3, 120, 40, 20)
    assert found.grown == 50
    assert found.value == pytest.approx(75)


def test_increase_knows_resets_gaps_and_zero() -> None:
    """A restart adds what came after it; a series that ends early is stretched by half a step; none goes below 0."""
    reset = increase([0, 60, 120], [100, 5, 15], at_s=120, window_s=120, closed="closed")
    assert reset is not None
    assert reset.value == 15
    ended = increase([0, 60, 120], [100, 110, 120], at_s=600, window_s=600, closed="closed")
    assert ended is not None
    assert (ended.before_s, ended.after_s) == (0, 30)
    near, far = (increase([0, 60], [0, 10], at_s=at, window_s=at, closed="closed") for at in (125, 126))
    assert near is not None
    assert far is not None
    assert (near.after_s, far.after_s) == (65, 30)  # a distance of 66 s is 1.1 times that of the samples
    young = increase([60, 120], [1, 21], at_s=120, window_s=110)
    assert young is not None
    assert young.before_s == pytest.approx(3)
    assert young.value == pytest.approx(21)
    assert increase([0, 60], [1, NAN], at_s=60, window_s=60, closed="closed") is None


def test_one_window_is_what_whole_histories_give() -> None:
    """The parts of one window and the vectorised history are one computation, also while counters are young."""
    rng = np.random.default_rng(3)
    total = rng.integers(1, 40, 60)
    made = frame((total - rng.binomial(total, 0.2)).tolist(), total.tolist(), end=START, step_s=60)
    for closed in ("closed", "left_open"):
        for fresh in (True, False):
            ratios = error_ratio(made, 600, closed=closed, fresh=fresh)  # type: ignore[arg-type]
            times, bad, all_ = counters(made, fresh=fresh)
            for at, ratio in ratios.items():
                parts = [
                    increase(times, samples, at_s=at.timestamp(), window_s=600, closed=closed)  # type: ignore[attr-defined,arg-type]
                    for samples in (bad, all_)
                ]
                if parts[0] is None or parts[1] is None:
                    assert math.isnan(ratio)
                else:
                    assert parts[0].value / parts[1].value == pytest.approx(ratio, rel=1e-9)


def test_an_average_of_ratios_weighs_minutes() -> None:
    """A quiet bad minute counts as much as a busy good one; without events there is no average."""
    made = frame([0, 1000, 0], [10, 1000, 0], end=START, step_s=60)
    assert average_of_ratios(made) == 0.5
    assert math.isnan(average_of_ratios(frame([0], [0], end=START, step_s=60)))


def test_a_sampled_rule_reaches_back_before_its_window() -> None:
    """Five bad minutes before the window are in the first five samples of a ratio over five minutes."""
    made = frame([0] * 5 + [10] * 10, [10] * 15, end=START + timedelta(minutes=15), step_s=60)
    found = sampled_rule(made, rule_s=300, every_s=60, start=START + timedelta(minutes=5), closed="closed")
    assert found == pytest.approx(sum((4, 3, 2, 1, 0)) / 5 / 10)
    assert sampled_rule(made, rule_s=300, every_s=300, start=START + timedelta(minutes=10), closed="closed") == 0


@pytest.mark.parametrize("every_s", [0, 90])
def test_a_rule_is_sampled_on_the_grid(every_s: int) -> None:
    """Between the steps nothing was counted."""
    with pytest.raises(InvalidValue, match="every_s must be a multiple of the counts' step, which is 60 s"):
        sampled_rule(frame([1, 1], [1, 1], end=START, step_s=60), rule_s=300, every_s=every_s)


def test_a_window_has_a_length() -> None:
    """An increase over nothing is refused."""
    with pytest.raises(InvalidValue, match="window_s must be a length of time above 0"):
        increase([0, 60], [0, 1], at_s=60, window_s=0)
