"""Three ways to count bad: an example by hand, where they must agree, and how far they are apart on a real month."""

from __future__ import annotations

from datetime import timedelta
from fractions import Fraction

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit.errors import InvalidValue
from labkit.slo import methods
from labkit.slo.arithmetic import budget
from labkit.slo.counts import frame
from labkit.slo.methods import budget_of, slices, three_ways, units
from labkit.slo.model import Budgeting, Rolling
from tests.slo.drawn import START, facts, frames, objectives, slo

NAN = float("nan")
METHODS = ("occurrences", "timeslices", "ratio-timeslices")


def minutes(good: list[float], total: list[float]) -> pd.DataFrame:
    """A frame of minutes from midnight on."""
    return frame(good, total, end=START + timedelta(minutes=len(good)), step_s=60)


def test_all_is_sorted_and_true() -> None:
    """`__all__` names what the module has."""
    assert sorted(methods.__all__) == methods.__all__
    assert all(hasattr(methods, name) for name in methods.__all__)


def test_ten_minutes_by_hand() -> None:
    """111 of 118 good; four of ten minutes below 95 %; a mean ratio of 0.5 + 6 + 2 * 13/14 + 12/15 of ten."""
    made = minutes([2, 10, 12, 13, 13, 12, 13, 13, 12, 11], [4, 10, 12, 13, 14, 15, 14, 13, 12, 11])
    found = three_ways(made, 0.95)
    mean = (Fraction(1, 2) + 6 + 2 * Fraction(13, 14) + Fraction(12, 15)) / 10
    assert found["achieved"].tolist() == [111 / 118, 0.6, float(mean)]
    assert found["spent"].tolist() == [float(Fraction(7, 118) * 20), 8.0, float((1 - mean) * 20)]


@facts
@given(st.lists(st.booleans(), min_size=1, max_size=60), st.integers(1, 1000), objectives)
def test_they_agree_on_all_or_nothing_at_even_traffic(good: list[bool], traffic: int, objective: Fraction) -> None:
    """Where each slice has the same number of events, all good or all bad, the three spend the same."""
    made = minutes([traffic * one for one in good], [traffic] * len(good))
    spent = [_budget(made, method, objective).spent for method in METHODS]
    assert spent[0] == spent[1] == spent[2] == (1 - Fraction(sum(good), len(good))) / (1 - objective)


@facts
@given(st.lists(st.integers(0, 50), min_size=1, max_size=60), objectives)
def test_even_traffic_makes_the_mean_ratio_the_ratio_of_sums(good: list[int], objective: Fraction) -> None:
    """With the same number of events in each slice, occurrences and ratio-timeslices are one."""
    made = minutes(list(good), [50] * len(good))
    one, other = (_budget(made, method, objective) for method in ("occurrences", "ratio-timeslices"))
    assert one.spent == other.spent


@facts
@given(frames(), objectives)
def test_slices_of_one_step_lose_nothing(made: pd.DataFrame, objective: Fraction) -> None:
    """Occurrences do not care about slices; without a bad event no method has any bad."""
    clean = minutes(made["total"].tolist(), made["total"].tolist())
    assert {_budget(clean, method, objective).bad for method in METHODS} == {0}
    assert _budget(made, "occurrences", objective).bad == int((made["total"] - made["good"]).sum())


@facts
@given(frames(rows=60), st.integers(1, 6), st.integers(0, 60))
def test_longer_slices_hold_the_same_events(made: pd.DataFrame, times: int, cut: int) -> None:
    """The whole slices of a frame have the sums of their steps, and splitting the frame between slices adds up."""
    sliced = slices(made, 60 * times)
    if len(made) >= times:
        whole = len(made) // times * times
        assert sliced["total"].sum() == made["total"].iloc[:whole].sum()
        border = cut // times * times
        if 0 < border < whole:
            parts = [slices(part, 60 * times) for part in (made.iloc[:border], made.iloc[border:whole])]
            pd.testing.assert_frame_equal(pd.concat(parts), sliced, check_freq=False, check_dtype=False)
    else:
        assert sliced["total"].isna().all()


def _budget(made: pd.DataFrame, method: str, objective: Fraction):
    promise = slo(objective, Rolling(86_400), Budgeting(method, 60, objective))  # type: ignore[arg-type]
    return budget_of(made, promise, START, START + timedelta(days=1))


def test_a_slice_is_good_when_it_just_reaches_its_target() -> None:
    """999 of 1000 at 0.999 is good, 998 is not: decided on whole numbers."""
    made = minutes([999, 998, 2997], [1000, 1000, 3000])
    found = units(made, Budgeting("timeslices", 60, Fraction(999, 1000)))
    assert found["good"].tolist() == [1, 0, 1]


def test_a_target_is_not_the_float_beside_it() -> None:
    """3976 of 4375 are exactly 0.9088, although 0.9088 * 4375 is a little more than 3976 in floats."""
    assert 0.9088 * 4375 > 3976
    found = units(minutes([3976, 3975], [4375, 4375]), Budgeting("timeslices", 60, Fraction("0.9088")))
    assert found["good"].tolist() == [1, 0]


def test_slices_without_events_are_no_slices() -> None:
    """Neither good nor bad, so a quiet night does not raise what was achieved."""
    made = minutes([0, 9, 0], [0, 10, 0])
    for method in ("timeslices", "ratio-timeslices"):
        assert units(made, Budgeting(method, 60, Fraction(1, 2)))["total"].sum() == 1  # type: ignore[arg-type]
        assert _budget(minutes([0], [0]), method, Fraction(9, 10)).spent is None


def test_a_slice_with_an_unknown_minute_is_unknown() -> None:
    """Four good minutes do not speak for the fifth."""
    made = minutes([1, 1, NAN, 1, 1, 0, 0, 0, 0, 0], [1, 1, NAN, 1, 1, 1, 1, 1, 1, 1])
    found = units(made, Budgeting("timeslices", 300, Fraction(1, 2)))
    assert found["total"].isna().tolist() == [True, False]
    assert found["good"].iloc[1] == 0


def test_slices_are_whole_minutes_of_the_clock() -> None:
    """What reaches beyond the data is left out, on both sides."""
    made = frame([1] * 14, [1] * 14, end=START + timedelta(minutes=17), step_s=60)
    assert [f"{at:%H:%M}" for at in slices(made, 300).index] == ["00:10", "00:15"]
    assert slices(made, 300)["total"].tolist() == [5, 5]


def test_the_budget_of_the_seeded_month_three_ways(month_counts: pd.DataFrame) -> None:
    """
    20,327 of 25,976,597 requests are 0.78 budgets; the mean ratio of the minutes says 0.75.

    Slices that must reach the objective themselves say 164: one failure in a minute of 600 requests is more than
    0.1 %, so every sixth minute is bad.  A slice target is a decision of its own.
    """
    found = three_ways(month_counts, 0.999)["spent"].round(3).to_dict()
    assert found == {"occurrences": 0.783, "timeslices": 164.259, "ratio-timeslices": 0.754}
    strict, mild = (three_ways(month_counts, 0.999, slice_s=300, slice_target=target) for target in (0.99, 0.95))
    assert strict.loc["timeslices", "bad"] == 38
    assert mild.loc["timeslices", "bad"] == 7


def test_a_stretch_is_the_budget_of_its_events(month_counts: pd.DataFrame) -> None:
    """Exactly what the counts of (start, end] give; a window without data is unknown."""
    promise = slo("0.999", Rolling(86_400))
    start = month_counts.index[100]
    found = budget_of(month_counts, promise, start, start + timedelta(hours=1))
    hour = month_counts.iloc[101:161].sum()
    assert found == budget(int(hour["total"] - hour["good"]), int(hour["total"]), Fraction(999, 1000))
    later = month_counts.index[-1] + timedelta(days=1)
    assert budget_of(month_counts, promise, later, later + timedelta(hours=1)).kept is None


@pytest.mark.parametrize("slice_s", [0, -60, 90])
def test_slices_are_multiples_of_the_step(slice_s: int) -> None:
    """Half a step was not counted apart."""
    with pytest.raises(InvalidValue, match="slice_s must be a multiple of the counts' step, which is 60 s"):
        slices(minutes([1], [1]), slice_s)


@pytest.mark.parametrize("target", [None, Fraction(0), Fraction(11, 10)])
def test_timeslices_need_a_target(target: Fraction | None) -> None:
    """There is no default: it decides more than the objective does."""
    with pytest.raises(InvalidValue, match="slice_target must be the fraction of good events from which on"):
        units(minutes([1], [1]), Budgeting("timeslices", 60, target))
