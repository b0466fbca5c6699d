"""Objectives and shares: one exact fraction for every spelling, and no guess where there are two."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit.errors import InvalidValue
from labkit.slo.objective import format_decimal, format_percentage, parse_objective, parse_share

NINES = st.integers(1, 10**9 - 1).map(lambda n: Fraction(n, 10**9))


@pytest.mark.parametrize("value", [99.9, "99.9", "99.9%", "99.9 %", "99.9 percent", 0.999, "0.999", Decimal("0.999")])
def test_three_nines_are_three_nines_however_they_are_written(value: object) -> None:
    """No spelling is off by the last bit of a float."""
    assert parse_objective(value) == Fraction(999, 1000)


@pytest.mark.parametrize(
    ("value", "objective"),
    [
        (0.5, Fraction(1, 2)),
        (50, Fraction(1, 2)),
        ("0.5%", Fraction(1, 200)),
        (95, Fraction(19, 20)),
    ],
)
def test_the_border_between_fraction_and_percentage_is_documented(value: object, objective: Fraction) -> None:
    """Below 1 a number is a fraction, from 50 on a percentage; a percent sign decides anyhow."""
    assert parse_objective(value) == objective


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (0, "0 promises nothing"),
        (1, "100 % leaves no budget, nothing may ever fail; if 1 % is meant, write 1%"),
        (100, "100 % leaves no budget"),
        ("100%", "100% leaves no budget"),
        (5, "write 5% if that is meant"),
        (1.5, "write 1.5% if that is meant"),
        (999, "did you mean 99.9%?"),
        (500, "a bound such as 500 ms is no objective"),
        ("99,9", "write 99.9 with a point"),
        (float("nan"), "got nan"),
        (float("inf"), "got inf"),
        (-0.5, "got -0.5"),
        ("three nines", "got 'three nines'"),
        (True, "got True"),
        (None, "got None"),
        ("1e-999999999", "strictly between 0 and 1"),
    ],
)
def test_what_could_mean_two_things_or_nothing_is_refused_with_the_fix(value: object, said: str) -> None:
    """The message says what is allowed, what was given and what to write."""
    with pytest.raises(InvalidValue) as caught:
        parse_objective(value)

    assert said in str(caught.value)
    assert "objective must be a fraction strictly between 0 and 1, such as 0.999, or a percentage" in str(caught.value)


@given(NINES)
def test_writing_and_reading_an_objective_changes_nothing(objective: Fraction) -> None:
    """As a percentage and as a decimal, every digit comes back."""
    assert parse_objective(format_percentage(objective)) == objective
    assert parse_objective(Decimal(format_decimal(objective))) == objective


@given(st.fractions(min_value=-1000, max_value=1000))
def test_a_decimal_is_exact_or_refused(number: Fraction) -> None:
    """1/3 has no end; nothing is rounded in silence."""
    try:
        assert Fraction(format_decimal(number)) == number
    except InvalidValue:
        assert Fraction(str(round(float(number), 12))) != number


@pytest.mark.parametrize(("value", "share"), [("2%", Fraction(1, 50)), (0.02, Fraction(1, 50)), ("100%", Fraction(1))])
def test_a_share_of_the_budget_may_be_all_of_it(value: object, share: Fraction) -> None:
    """With the percent sign."""
    assert parse_share(value) == share


@pytest.mark.parametrize(
    ("value", "said"), [(2, "write 2% if that is meant"), (1, "write 1%"), ("0%", "0%"), ("101%", "101%")]
)
def test_a_share_above_one_needs_its_percent_sign(value: object, said: str) -> None:
    """2 is two per cent for one reader and twice the budget for another."""
    with pytest.raises(InvalidValue, match="above 0 and at most 100%") as caught:
        parse_share(value)

    assert said in str(caught.value)
