"""Intervals against published values and against sums of fractions; how many events a question needs."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit.errors import InvalidValue, UnknownName
from labkit.slo import confidence
from labkit.slo.arithmetic import burn_rate
from labkit.slo.confidence import (
    Interval,
    events_needed,
    events_to_confirm,
    events_to_tell_apart,
    interval,
    verdict,
)
from tests.slo.drawn import events, facts, objectives


def test_all_is_sorted_and_true() -> None:
    """`__all__` names what the module has."""
    assert sorted(confidence.__all__) == confidence.__all__
    assert all(hasattr(confidence, name) for name in confidence.__all__)


# Newcombe, "Two-sided confidence intervals for the single proportion", Statistics in Medicine 17 (1998), table I:
# methods 3 (Wilson) and 5 (Clopper-Pearson), 95 %.
PUBLISHED = [
    (81, 263, (0.2553, 0.3662), (0.2527, 0.3676)),
    (15, 148, (0.0624, 0.1605), (0.0578, 0.1617)),
    (0, 20, (0.0000, 0.1611), (0.0000, 0.1684)),
    (1, 29, (0.0061, 0.1718), (0.0009, 0.1776)),
]


@pytest.mark.parametrize(("bad", "total", "wilson", "exact"), PUBLISHED)
def test_intervals_are_those_of_the_literature(
    bad: int, total: int, wilson: tuple[float, float], exact: tuple[float, float]
) -> None:
    """Both methods, to all published digits."""
    first, second = interval(bad, total), interval(bad, total, method="clopper-pearson")
    assert (round(first.low, 4), round(first.high, 4)) == wilson
    assert (round(second.low, 4), round(second.high, 4)) == exact


def test_a_small_share_of_many_events() -> None:
    """5 of 100,000 at 95 % one-sided: 0.0001051275, as R's package GenBinomApps documents."""
    assert round(interval(5, 100_000, 0.9, method="clopper-pearson").high, 10) == 0.0001051275


def _at_most(bad: int, total: int, share: Fraction) -> Fraction:
    """The probability of at most so many bad events, as an exact sum."""
    return sum(
        (math.comb(total, one) * share**one * (1 - share) ** (total - one) for one in range(bad + 1)), Fraction(0)
    )


@facts
@given(events(1, 60), st.floats(0.5, 0.999))
def test_the_exact_interval_solves_its_definition(counted: tuple[int, int], level: float) -> None:
    """At the upper end so few bad events have just the probability that was left over, at the lower so many."""
    bad, total = counted
    found = interval(bad, total, level, method="clopper-pearson")
    doubt = (1 - level) / 2
    if bad < total:
        assert float(_at_most(bad, total, Fraction(found.high))) == pytest.approx(doubt, rel=1e-9)
    else:
        assert found.high == 1
    if bad:
        assert float(1 - _at_most(bad - 1, total, Fraction(found.low))) == pytest.approx(doubt, rel=1e-9)
    else:
        assert found.low == 0


@facts
@given(events(1, 10**7), st.floats(0.5, 0.99))
def test_intervals_hold_the_share_and_grow_with_confidence(counted: tuple[int, int], level: float) -> None:
    """In [0, 1], around what was seen, wider for more confidence; mirrored when good and bad change places."""
    bad, total = counted
    for method in ("wilson", "clopper-pearson"):
        found, wider = interval(bad, total, level, method=method), interval(bad, total, 0.995, method=method)
        mirrored = interval(total - bad, total, level, method=method)
        assert 0 <= wider.low <= found.low <= bad / total + 1e-12
        assert bad / total - 1e-12 <= found.high <= wider.high <= 1
        assert (1 - mirrored.high, 1 - mirrored.low) == pytest.approx((found.low, found.high), abs=1e-9)


def test_no_events_exclude_nothing() -> None:
    """From 0 to 1: nothing is known."""
    assert interval(0, 0) == interval(0, 0, method="clopper-pearson") == Interval(0.0, 1.0, 0.95)


def test_the_ends_are_exact() -> None:
    """Without a bad event the lower end is 0, without a good one the upper end is 1, not a float beside them."""
    assert interval(0, 7).low == 0
    assert interval(7, 7).high == 1


@facts
@given(objectives, st.fractions(Fraction(1, 10), 100), st.integers(1, 20))
def test_with_so_many_events_the_bad_ones_do_not_page(objective: Fraction, factor: Fraction, bad: int) -> None:
    """Their burn is at most the factor; with one event fewer it is above."""
    needed = events_needed(objective, factor, bad=bad)
    burn = burn_rate(bad, needed, objective)
    assert burn is not None
    assert burn <= factor
    if needed > bad:
        more = burn_rate(bad, needed - 1, objective)
        assert more is not None
        assert more > factor


@pytest.mark.parametrize(("objective", "events"), [(0.99, 299), (0.999, 2995), (0.9999, 29_956)])
def test_the_rule_of_three(objective: float, events: int) -> None:
    """About 3 / (1 - objective) good events in a row confirm the objective at 95 %; one fewer does not."""
    assert events_to_confirm(objective) == events
    promised = Fraction(str(objective))
    assert promised**events <= Fraction(5, 100) < promised ** (events - 1)
    assert verdict(0, events, objective, 0.9) == "kept"
    assert verdict(0, events - 1, objective, 0.9) == "undecided"


def test_events_that_tell_apart_do_so_as_often_as_asked() -> None:
    """The exact binomial test of that size finds 85 % instead of 90 % with about the power that was asked for."""
    needed = events_to_tell_apart(0.9, 0.85, confidence=0.95, power=0.8)
    share = Fraction(1, 10)
    within = next(bad for bad in range(needed) if float(_at_most(bad, needed, share)) >= 0.95)
    noticed = 1 - float(_at_most(within, needed, share * 3 / 2))
    assert 0.75 < noticed < 0.85


def test_what_a_count_says_has_three_answers() -> None:
    """Kept and broken beyond chance, or too few events; no events decide nothing."""
    answers = [verdict(bad, total, 0.99) for bad, total in ((0, 0), (0, 10), (3, 1000), (30, 1000), (9, 1000))]
    assert answers == ["undecided", "undecided", "kept", "broken", "undecided"]


@pytest.mark.parametrize("level", [0, 1, 95, math.nan])
def test_confidence_is_a_fraction(level: float) -> None:
    """95 is refused and told apart from 0.95."""
    with pytest.raises(InvalidValue, match=r"confidence must be a fraction strictly between 0 and 1, such as 0\.95"):
        interval(1, 10, level)


def test_nonsense_is_refused() -> None:
    """An unknown method names the nearest; equal shares cannot be told apart; a factor of 0 always pages."""
    with pytest.raises(UnknownName, match="did you mean 'wilson'"):
        interval(1, 10, method="wilsn")  # type: ignore[arg-type]
    with pytest.raises(InvalidValue, match="actual must be another fraction than the objective"):
        events_to_tell_apart(0.99, 0.99)
    with pytest.raises(InvalidValue, match="a burn rate above 0, and 1 or more events"):
        events_needed(0.99, 0)
    with pytest.raises(InvalidValue, match="bad must be at most total"):
        interval(11, 10)
