"""Budgets and burn rates: what the workbook says, properties that hold for all numbers, and what is refused."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit.errors import InvalidValue
from labkit.slo import arithmetic
from labkit.slo.arithmetic import (
    allowed_events,
    allowed_s,
    budget,
    burn_rate,
    exhaustion,
    outage_to_cross_s,
    share_spent,
)
from tests.slo.drawn import events, facts, objectives

MONTH_S = 30 * 86_400
HOUR_S = 3600


def test_all_is_sorted_and_true() -> None:
    """`__all__` names what the module has."""
    assert sorted(arithmetic.__all__) == arithmetic.__all__
    assert all(hasattr(arithmetic, name) for name in arithmetic.__all__)


@pytest.mark.parametrize(
    ("share", "window_s", "factor"),
    [
        ("2/100", HOUR_S, "14.4"),
        ("5/100", HOUR_S, "36"),
        ("5/100", 6 * HOUR_S, "6"),
        ("10/100", 6 * HOUR_S, "12"),
        ("10/100", 3 * 86_400, "1"),
    ],
)
def test_the_factors_of_the_workbook_spend_their_shares(share: str, window_s: int, factor: str) -> None:
    """
    14.4 for an hour is 2 % of 30 days, 6 for six hours 5 %, 1 for three days 10 %.

    36 and 12 are what 5 % in an hour and 10 % in six hours need, where people write 0.05 and 0.017.
    """
    assert share_spent(Fraction(factor), window_s, MONTH_S) == Fraction(share)


@pytest.mark.parametrize(
    ("window_s", "factor", "minutes"),
    [(HOUR_S, "14.4", "0.864"), (6 * HOUR_S, "6", "2.16"), (86_400, "3", "4.32"), (3 * 86_400, "1", "4.32")],
)
def test_a_full_outage_crosses_the_windows_one_after_the_other(window_s: int, factor: str, minutes: str) -> None:
    """At 99.9 % the hour after 0.864 minutes, six hours after 2.16, a day and three days after 4.32."""
    assert outage_to_cross_s(0.999, Fraction(factor), window_s) == Fraction(minutes) * 60


@pytest.mark.parametrize(
    ("objective", "minutes"), [(0.99, "432"), (0.999, "43.2"), (0.9995, "21.6"), (0.9999, "4.32"), (0.99999, "0.432")]
)
def test_what_an_objective_allows_in_thirty_days(objective: float, minutes: str) -> None:
    """The table that everybody quotes, without a rounding error."""
    assert allowed_s(objective, MONTH_S) == Fraction(minutes) * 60


def test_a_float_means_the_decimal_that_it_is_written_as() -> None:
    """Exactly as many bad events as 0.999 allows keep the promise; floats would say that 1 - 0.999 is a little more."""
    assert 1 - 0.999 != 0.001
    assert budget(1, 1000, 0.999).left == 0
    assert budget(1, 1000, 0.999).kept
    assert budget(2, 1000, 0.999).kept is False


def test_decisions_do_not_round() -> None:
    """A burn of 9.04 is above 9 and 8.96 is below it, although both read 9.0."""
    above, below = burn_rate(904, 100_000, 0.999), burn_rate(896, 100_000, 0.999)
    assert above is not None
    assert below is not None
    assert below < 9 < above
    assert burn_rate(900, 100_000, 0.999) == 9


def test_no_events_are_unknown() -> None:
    """Neither healthy nor broken: None, which no comparison takes for a number."""
    nothing = budget(0, 0, 0.999)
    assert (nothing.achieved, nothing.spent, nothing.remaining, nothing.kept) == (None, None, None, None)
    assert burn_rate(0, 0, 0.999) is None
    with pytest.raises(TypeError):
        assert burn_rate(0, 0, 0.999) > 14.4  # type: ignore[operator]


@facts
@given(events(1), objectives)
def test_burn_is_what_budget_says(counted: tuple[int, int], objective: Fraction) -> None:
    """Spent, remaining, achieved and kept are one fact said four ways."""
    bad, total = counted
    found = budget(bad, total, objective)
    burn = burn_rate(bad, total, objective)

    assert burn == found.spent
    assert found.remaining is not None
    assert found.achieved is not None
    assert burn == (1 - found.achieved) / (1 - objective)
    assert found.kept == (found.remaining >= 0) == (found.achieved >= objective) == (bad <= found.allowed)
    assert 0 <= burn <= 1 / (1 - objective)


@facts
@given(events(1), objectives, st.fractions(Fraction(1, 100), 1))
def test_burn_scales_with_the_objective(counted: tuple[int, int], objective: Fraction, part: Fraction) -> None:
    """A budget of a part of the size burns faster by just that part."""
    tighter = 1 - (1 - objective) * part
    slower, faster = burn_rate(*counted, objective), burn_rate(*counted, tighter) if tighter < 1 else None
    assert slower is not None
    assert faster is not None
    assert slower == faster * part


@facts
@given(st.lists(events(), min_size=1, max_size=8), objectives)
def test_budgets_of_parts_add_up(parts: list[tuple[int, int]], objective: Fraction) -> None:
    """What windows allow, and what is left of it, is what the window made of them allows and has left."""
    each = [budget(bad, total, objective) for bad, total in parts]
    whole = budget(sum(bad for bad, _ in parts), sum(total for _, total in parts), objective)
    assert sum(one.allowed for one in each) == whole.allowed
    assert sum(one.left for one in each) == whole.left


@facts
@given(events(), objectives, st.integers(1, 1000))
def test_the_unit_of_the_counts_does_not_matter(counted: tuple[int, int], objective: Fraction, times: int) -> None:
    """So many times the events have the same burn rate."""
    bad, total = counted
    assert burn_rate(bad, total, objective) == burn_rate(bad * times, total * times, objective)


@facts
@given(objectives, st.integers(0, 10**9))
def test_allowed_events_are_the_last_that_keep_the_promise(objective: Fraction, total: int) -> None:
    """One more breaks it."""
    most = allowed_events(objective, total)
    if total:
        assert budget(most, total, objective).kept
        assert most == total or budget(most + 1, total, objective).kept is False


@facts
@given(objectives, st.fractions(Fraction(1, 10), 100), st.integers(60, MONTH_S), st.fractions(Fraction(1, 100), 1))
def test_an_outage_of_that_length_has_just_that_burn(
    objective: Fraction, factor: Fraction, window_s: int, ratio: Fraction
) -> None:
    """Put back into the burn rate of a clean window, the outage gives the factor; None is for burns out of reach."""
    outage_s = outage_to_cross_s(objective, factor, window_s, error_ratio=ratio)
    if outage_s is None:
        assert ratio / (1 - objective) < factor
    else:
        assert burn_rate(outage_s * ratio, window_s, objective) == factor


@facts
@given(st.fractions(Fraction(1, 100), 1), st.fractions(Fraction(1, 100), 1000), st.integers(60, MONTH_S))
def test_what_is_left_burns_to_nothing_in_that_time(left: Fraction, burn: Fraction, period_s: int) -> None:
    """The time to exhaustion spends exactly what was left: the window belongs into it."""
    found = exhaustion(left, burn, period_s)
    assert found.in_s is not None
    assert share_spent(burn, found.in_s, period_s) == left


@pytest.mark.parametrize(
    ("remaining", "burn", "renews_in_s", "answer", "said"),
    [
        (1, Fraction("14.4"), None, "in 2 d 2 h", "100.0% of the budget at burn 14.4"),
        (Fraction(1, 2), 0, None, "never", "nothing is being spent"),
        (Fraction(1, 2), 1, 14 * 86_400, "never", "the period ends in 14 d"),
        (Fraction(1, 2), 1, 15 * 86_400, "in 15 d", "50.0% of the budget"),
        (0, 1, None, "exhausted", "0.0% more than the whole budget"),
        (Fraction(-1, 4), 0, None, "exhausted", "25.0% more than the whole budget"),
        (None, 1, None, "unknown", "no events"),
        (1, None, None, "unknown", "no events"),
    ],
)
def test_the_end_of_a_budget_has_four_answers(
    remaining: Fraction | None, burn: Fraction | None, renews_in_s: int | None, answer: str, said: str
) -> None:
    """In some time, exhausted, never, unknown; each says why, and only the first two are numbers."""
    found = exhaustion(remaining, burn, MONTH_S, renews_in_s=renews_in_s)
    assert str(found) == answer
    assert said in found.why
    assert (found.in_s is None) == (answer in {"never", "unknown"})


@pytest.mark.parametrize("objective", [0, 1, -0.5, 1.5, 99.9, 100, math.nan, math.inf, "0.999", True, None])
def test_objectives_that_are_none_are_refused(objective: object) -> None:
    """The message says what an objective is and what came."""
    with pytest.raises(InvalidValue, match=r"objective must be a fraction strictly between 0 and 1.*got") as refused:
        budget(1, 10, objective)  # type: ignore[arg-type]
    assert isinstance(refused.value, ValueError)


def test_a_percentage_is_refused_with_its_fraction() -> None:
    """99.9 is told how it is written."""
    with pytest.raises(InvalidValue, match=r"so 99.9 % is 0.999, got 99.9"):
        burn_rate(1, 10, 99.9)


@pytest.mark.parametrize("count", [-1, -0.5, math.nan, math.inf, "7", None, True])
def test_counts_that_cannot_be_are_refused(count: object) -> None:
    """Negative counts, nan and things that are no numbers; the advice names where they come from."""
    with pytest.raises(
        InvalidValue, match=r"bad \(a count of events\) must be a finite number from 0 up.*from_counters"
    ):
        budget(count, 10, 0.999)  # type: ignore[arg-type]


def test_more_bad_events_than_events_are_refused() -> None:
    """The message has both numbers and the usual cause."""
    with pytest.raises(InvalidValue, match=r"bad must be at most total, which is 10 .*same events and window.*got 11"):
        budget(11, 10, 0.999)


@pytest.mark.parametrize("length", [0, -1, math.nan])
def test_lengths_of_time_are_above_zero(length: float) -> None:
    """A period of nothing has no budget."""
    with pytest.raises(InvalidValue, match="period_s must be a length of time above 0, in seconds"):
        allowed_s(0.999, length)


@pytest.mark.parametrize("ratio", [0, 1.5])
def test_an_outage_fails_some_of_its_events_and_at_most_all(ratio: float) -> None:
    """Its error ratio is a fraction."""
    with pytest.raises(InvalidValue, match="error_ratio must be a fraction above 0 and at most 1"):
        outage_to_cross_s(0.999, 1, 60, error_ratio=ratio)


@facts
@given(st.integers(1, 2**62), objectives)
def test_integers_of_numpy_do_not_overflow(total: int, objective: Fraction) -> None:
    """Counts of int64 become integers without an end."""
    assert budget(np.int64(total), np.int64(total), objective).allowed == (1 - objective) * total
