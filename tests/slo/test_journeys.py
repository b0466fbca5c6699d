"""Journeys through several dependencies: the product, the bounds that hold without it, and what was measured."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labkit.errors import ConfigInvalid, InvalidValue, UnknownName
from labkit.slo.counts import frame
from labkit.slo.journeys import Journey, as_journeys, bounds, journey_reports, needed, series
from labkit.slo.model import EventSli, Rolling, Slo
from labkit.slo.report import Report, report
from labkit.slo.source import CountsSource
from tests.slo.conftest import END

SLO = Slo("a", "gateway", Fraction(99, 100), Rolling(86_400), EventSli("total[$window]", good="good"))
RATIOS = st.lists(st.fractions(0, 1, max_denominator=10_000), min_size=1, max_size=6)


def kept(**good: int | None) -> Report:
    """A report on objectives that kept so many of a thousand."""
    slos = [replace(SLO, name=name) for name in good]
    frames = {name: frame([n], [1000], end=END, step_s=86_400) for name, n in good.items() if n is not None}
    return report(slos, CountsSource(frames), END)


@given(RATIOS)
@settings(max_examples=100, deadline=None)
def test_the_product_lies_within_the_bounds(ratios: list[Fraction]) -> None:
    """Independence is one of the ways in which failures can go together."""
    low, high = bounds(ratios)

    assert 0 <= low <= series(ratios) <= high <= 1


@given(st.integers(1, 4), st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_bounds_hold_for_any_events(steps: int, seed: int) -> None:
    """Of a hundred journeys whose steps fail in any pattern, those that worked lie within the bounds."""
    works = np.random.default_rng(seed).random((steps, 100)) < np.random.default_rng(seed + 1).random((steps, 1))
    low, high = bounds([Fraction(int(one.sum()), 100) for one in works])

    assert low <= Fraction(int(works.all(axis=0).sum()), 100) <= high


def test_bounds_are_reached() -> None:
    """Failures that avoid one another add up; failures that coincide cost once."""
    assert bounds([Fraction(9, 10), Fraction(8, 10)]) == (Fraction(7, 10), Fraction(8, 10))
    assert bounds([0.5, 0.4]) == (0, Fraction(4, 10))


@given(st.integers(1, 9), st.fractions(Fraction(1, 100), Fraction(9999, 10_000), max_denominator=10_000))
@settings(max_examples=60, deadline=None)
def test_what_is_needed_is_enough_in_the_worst_case(steps: int, objective: Fraction) -> None:
    """Steps that keep what is needed keep the journey's objective exactly, if no two failures coincide."""
    assert bounds([needed(objective, steps)] * steps)[0] == objective


def test_ratios_that_are_none_are_refused() -> None:
    """No step, percentages, nan and negative shares have no product."""
    for wrong in ([], [99.9], [float("nan")], [-0.1]):
        with pytest.raises(InvalidValue, match="fractions from 0 to 1"):
            series(wrong)
    with pytest.raises(InvalidValue, match="1 or more, got 0"):
        needed(0.99, 0)


def test_a_journey_that_is_measured_tells_how_failures_go_together() -> None:
    """Above the product they coincide, below it they avoid one another, outside the bounds something is missing."""
    journey = Journey("buy", ("a", "b"), "whole")

    def finding(whole: int) -> str:
        return journey_reports([journey], kept(a=900, b=800, whole=whole))[0].finding

    assert "their failures coincide (72 %)" in finding(800)
    assert "as if its steps failed independently" in finding(720)
    assert "avoid one another" in finding(710)
    assert "a step is missing from the journey" in finding(650)


def test_a_journey_without_counts_has_bounds_and_an_assumption() -> None:
    """The product is said with its assumption; a step that is called twice counts twice."""
    (found,) = journey_reports([Journey("buy", ("a", "b", "b"))], kept(a=900, b=800))

    assert (found.product, found.low, found.high) == (Fraction(576, 1000), Fraction(1, 2), Fraction(8, 10))
    assert found.promised == Fraction(97, 100)
    assert "if its steps fail independently, and between 50 % and 80 % whatever they do" in found.finding
    assert found.to_dict()["measured"] is None


def test_an_unknown_step_leaves_the_upper_bound() -> None:
    """Of the product nothing is known, and yet the journey worked at most as often as its weakest known step."""
    (found,) = journey_reports([Journey("buy", ("a", "b"))], kept(a=900, b=None))

    assert (found.product, found.low, found.high) == (None, 0, Fraction(9, 10))
    assert found.finding.startswith("b is unknown")


def test_windows_must_be_alike() -> None:
    """A week and a day do not multiply."""
    other = replace(SLO, name="b", window=Rolling(7 * 86_400))
    mixed = report([SLO, other], CountsSource({}), END)
    with pytest.raises(InvalidValue, match="all the same"):
        journey_reports([Journey("buy", ("a", "b"))], mixed)


def test_mistakes_in_journeys_are_named() -> None:
    """No steps, a misspelt key, and an objective that there is not, with the nearest right name."""
    with pytest.raises(ConfigInvalid, match=r"`steps`: .*at least 1 item"):
        as_journeys([{"name": "buy", "steps": []}], ["a"])
    with pytest.raises(ConfigInvalid, match="`step`: "):
        as_journeys([{"name": "buy", "steps": ["a"], "step": ["a"]}], ["a"])
    with pytest.raises(UnknownName, match="did you mean 'alpha'"):
        as_journeys([{"name": "buy", "steps": ["alfa"]}], ["alpha"])
    assert as_journeys([], []) == []
