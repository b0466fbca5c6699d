"""The monthly review: where users' patience ends, and what follows for the objective."""

from __future__ import annotations

from datetime import UTC, datetime
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labkit.errors import InvalidValue, UnknownName
from labkit.slo.arithmetic import budget
from labkit.slo.counts import frame
from labkit.slo.model import EventSli, Rolling, Slo
from labkit.slo.review import Month, by_month, review, tolerance, with_users

SLO = Slo("shop", "gateway", Fraction(999, 1000), Rolling(30 * 86_400), EventSli("total[$window]", good="good"))
MILLION = 1_000_000


def month(bad: int, content: float | None, name: str = "2026-05", total: int = MILLION) -> Month:
    """A month with so many bad requests of a million, and the share of users who were content."""
    share = None if content is None else Fraction(str(content))
    return Month(name, budget(bad, total, SLO.objective), share)


@pytest.mark.parametrize(
    ("months", "action", "says"),
    [
        ([month(500, 0.95), month(2000, 0.6)], "improve", "It was broken in 2026-05"),
        ([month(500, 0.95), month(900, 0.92)], "keep", "no month shows what they would not put up with"),
        ([month(500, 0.95), month(1000, 0.5)], "tighten", "Users were not content in a month that kept 99.9 %"),
        ([month(3000, 0.95), month(500, 0.97)], "loosen", "Users put up with 99.7 %"),
        ([month(500, 0.5), month(900, 0.95)], "remeasure", "they feel something else"),
        ([month(500, None)], "collect", "Nobody asked the users"),
        ([month(0, 0.9, total=0)], "collect", "No month has events"),
        ([month(2000, 0.5)], "improve", "no month shows that it is enough"),
    ],
)
def test_what_follows(months: list[Month], action: str, says: str) -> None:
    """Kept or not, content or not: each case has its recommendation, and names what it rests on."""
    found = review(SLO, months)

    assert found.recommendation == action
    assert any(says in reason for reason in found.reasons)
    assert found.text.startswith("shop, promised 99.9%: " + action)


def test_a_suggestion_lies_where_users_were_content() -> None:
    """Above every month that they disliked, at or below the worst that they liked, with two digits of error."""
    stricter = review(SLO, [month(123, 0.95), month(456, 0.95), month(1000, 0.5)])
    looser = review(SLO, [month(2345, 0.95), month(5000, 0.3)])

    assert (stricter.suggested, looser.suggested) == (Fraction(99_954, 100_000), Fraction(9976, 10_000))


@given(st.integers(1, 900), st.integers(1, 900))
@settings(max_examples=80, deadline=None)
def test_a_suggestion_never_allows_what_users_disliked(liked: int, more: int) -> None:
    """However close the two months are, the suggestion is above the bad one and not above the good one."""
    found = review(SLO, [month(liked, 0.95), month(liked + more, 0.2)])
    low, high = found.tolerance.low, found.tolerance.high

    assert low is not None
    assert high is not None
    assert found.suggested is None or low < found.suggested <= high


def test_tolerance_that_is_known_from_elsewhere() -> None:
    """Users who put up with half a percent need no more than 99.5 %."""
    found = review(SLO, [month(500, None)], tolerated=0.005)

    assert (found.recommendation, found.suggested) == ("loosen", Fraction(995, 1000))
    with pytest.raises(InvalidValue, match="strictly between 0 and 1"):
        review(SLO, [month(500, None)], tolerated=99.5)


def test_what_else_a_reviewer_should_know() -> None:
    """Dependencies that promise less, a budget that nobody uses, too few events, months that are not whole."""
    found = review(SLO, [month(10, 0.95)], depends_on=Fraction(998, 1000))
    few = review(SLO, [Month("2026-05", budget(0, 100, SLO.objective), Fraction(1), whole=False)])

    assert "Its dependencies promise 99.8 % together in the worst case: less than it does." in found.reasons
    assert "At most 1 % of the budget was used: there is room for releases and experiments." in found.reasons
    assert any("too few events to tell luck from skill" in reason for reason in few.reasons)
    assert "Of 2026-05 only a part was counted." in few.reasons


def test_months_of_counts_add_up_to_the_counts() -> None:
    """Every event belongs to one month; those at the edges are not whole; midnight is that of the time zone."""
    days = frame(list(range(60)), [100] * 60, end=datetime(2026, 3, 10, tzinfo=UTC), step_s=86_400)
    found = by_month(days, SLO)

    assert [(one.name, one.whole) for one in found] == [("2026-01", False), ("2026-02", True), ("2026-03", False)]
    assert sum(one.budget.total for one in found) == 6000
    assert sum(one.budget.bad for one in found) == 6000 - sum(range(60))
    hours = frame([1] * 48, [1] * 48, end=datetime(2026, 3, 2, tzinfo=UTC), step_s=3600)
    assert [int(one.budget.total) for one in by_month(hours, SLO, "Europe/Berlin")] == [23, 25]


def test_users_are_entered_by_month() -> None:
    """Months that are left out stay unknown; a month that there is not, and a percentage, are refused."""
    months = [month(1, None, "2026-05"), month(2, None, "2026-06")]
    found = with_users(months, {"2026-06": 0.97})

    assert [one.content for one in found] == [None, Fraction(97, 100)]
    with pytest.raises(UnknownName, match="Known: 2026-05, 2026-06"):
        with_users(months, {"2026-07": 0.97})
    with pytest.raises(InvalidValue, match="a fraction from 0 to 1, got 97"):
        with_users(months, {"2026-06": 97})


def test_what_counts_as_content_is_the_readers_choice() -> None:
    """At a stricter bound the same month is one that users disliked."""
    months = [month(500, 0.92)]

    assert tolerance(months).high == Fraction(9995, 10_000)
    assert tolerance(months, content_at_least=Fraction(95, 100)).low == Fraction(9995, 10_000)


def test_a_review_is_a_table_and_json() -> None:
    """Unknown numbers are nan in the table and null in JSON."""
    found = review(SLO, [month(500, None), month(0, 0.5, "2026-06", total=0)])
    table = found.frame()

    assert table.loc["2026-05", "spent"] == 0.5
    assert np.isnan(table.loc["2026-06", "achieved"])
    assert found.to_dict()["months"][1]["achieved"] is None
