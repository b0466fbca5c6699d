"""The history of objectives: which one held when, and budgets across a change."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labkit.errors import ConfigInvalid, InvalidValue, UnknownName
from labkit.slo.arithmetic import budget
from labkit.slo.counts import frame, sums
from labkit.slo.model import EventSli, Rolling, Slo
from labkit.slo.objectives_log import Change, ObjectiveLog, load_log, parse_log

FIRST, SECOND = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 3, 1, tzinfo=UTC)
LOG = ObjectiveLog(
    {"shop": [Change(FIRST, Fraction(99, 100), "first guess"), Change(SECOND, Fraction(999, 1000), "users noticed")]}
)
TEXT = """
objectives:
- slo: shop
  changes:
  - {from: 2026-01-01T00:00:00Z, objective: 99%, reason: first guess}
  - {from: "2026-03-01T01:00:00+01:00", objective: 99.9%, reason: users noticed, approved: product}
"""
COUNTS = frame([95] * 10, [100] * 10, end=SECOND + timedelta(days=4), step_s=86_400)


def test_the_objective_in_force() -> None:
    """None before the first, the new one from the very instant of a change, whatever the time zone of the question."""
    assert LOG.at("shop", FIRST - timedelta(microseconds=1)) is None
    assert LOG.at("shop", SECOND - timedelta(microseconds=1)) == Fraction(99, 100)
    assert LOG.at("shop", datetime.fromisoformat("2026-03-01T01:00:00+01:00")) == Fraction(999, 1000)


def test_stretches_leave_no_gap() -> None:
    """They begin where the last one ends, from the start to the end, also before the first objective."""
    found = LOG.segments("shop", FIRST - timedelta(days=1), SECOND + timedelta(days=1))

    assert [one.objective for one in found] == [None, Fraction(99, 100), Fraction(999, 1000)]
    assert [one.end for one in found[:-1]] == [one.start for one in found[1:]] == [FIRST, SECOND]


def test_a_change_does_not_rewrite_the_past() -> None:
    """Six days at 99 % allow six events, four at 99.9 % allow 0.4; fifty were bad."""
    found = LOG.budget("shop", COUNTS, SECOND - timedelta(days=6), SECOND + timedelta(days=4))

    assert (found.bad, found.total, found.allowed) == (50, 1000, Fraction(64, 10))
    assert found.spent == Fraction(50 * 10, 64)


def test_before_the_first_objective_nothing_is_spent() -> None:
    """Events before it are counted apart; without any other, what was spent is unknown."""
    early = ObjectiveLog({"shop": [Change(SECOND + timedelta(days=30), Fraction(9, 10), "later")]})
    found = early.budget("shop", COUNTS, SECOND, SECOND + timedelta(days=4))

    assert (found.without, found.total, found.spent) == (400, 0, None)


@given(st.integers(-5, 3), st.lists(st.integers(0, 100), min_size=10, max_size=10))
@settings(max_examples=50, deadline=None)
def test_a_change_to_the_same_changes_nothing(day: int, good: list[int]) -> None:
    """Splitting a window at a change to the same objective gives the budget of the whole window."""
    counts = frame(good, [100] * 10, end=SECOND + timedelta(days=4), step_s=86_400)
    changes = [Change(FIRST, Fraction(9, 10), "a"), Change(SECOND + timedelta(days=day), Fraction(9, 10), "again")]
    start, end = SECOND - timedelta(days=6), SECOND + timedelta(days=4)
    found = ObjectiveLog({"shop": changes}).budget("shop", counts, start, end)
    whole = sums(counts, start, end)

    assert found.spent == budget(whole.bad, whole.total, Fraction(9, 10)).spent


def test_a_file_reads_as_it_was_meant(tmp_path: Path) -> None:
    """Times with any zone, objectives in percent, reasons and who agreed."""
    path = tmp_path / "objectives.yaml"
    path.write_text(TEXT)
    found = load_log(path)

    assert [found.at("shop", when) for when in (FIRST, SECOND)] == [Fraction(99, 100), Fraction(999, 1000)]
    table = found.frame()
    assert table["approved"].tolist() == ["", "product"]
    assert table["since"].tolist() == [FIRST, SECOND]
    assert parse_log("objectives: []").frame().empty


@pytest.mark.parametrize(
    ("wrong", "right", "says"),
    [
        ("2026-01-01T00:00:00Z", "2026-01-01T00:00:00", "a time with its zone"),
        ("2026-01-01T00:00:00Z", "yesterday", "a time such as 2026-03-01T00:00:00Z"),
        ("2026-01-01T00:00:00Z", "2026-04-01T00:00:00Z", "must be later than the change before it"),
        ("objective: 99%,", "objective: 100%,", "leaves no budget"),
        ("reason: first guess", "reason: ''", "at least 1 character"),
        ("reason: first guess", "because: first guess", "`objectives.0.changes.0.reason` is missing"),
    ],
)
def test_mistakes_have_their_place(wrong: str, right: str, says: str) -> None:
    """Each is named with line and column, the value and what is allowed."""
    with pytest.raises(ConfigInvalid, match=r"line \d, column \d+") as caught:
        parse_log(TEXT.replace(wrong, right))

    assert says in str(caught.value)


def test_histories_that_cannot_be_are_refused() -> None:
    """One SLO twice, changes out of order, an SLO without history, an end before its start."""
    with pytest.raises(ConfigInvalid, match="has a history above"):
        parse_log(TEXT + TEXT.replace("\nobjectives:", ""))
    with pytest.raises(InvalidValue, match="each later than the last"):
        ObjectiveLog({"shop": list(reversed(LOG.changes("shop")))})
    with pytest.raises(UnknownName, match="did you mean 'shop'"):
        LOG.at("shp", FIRST)
    with pytest.raises(InvalidValue, match="after start"):
        LOG.segments("shop", SECOND, FIRST)


def test_a_specification_that_promises_something_else_is_found() -> None:
    """Both numbers are said; objectives that agree, and those without a history, are not."""
    slo = Slo("shop", "gateway", Fraction(995, 1000), Rolling(86_400), EventSli("total[$window]", good="good"))
    (found,) = LOG.differences([slo], SECOND)

    assert found.startswith("shop: the specification promises 99.5%, the log of objectives says 99.9%;")
    agrees = Slo("shop", "gateway", Fraction(999, 1000), Rolling(86_400), slo.sli)
    without = Slo("other", "gateway", Fraction(9, 10), Rolling(86_400), slo.sli)
    assert LOG.differences([agrees, without], SECOND) == []
