"""Budgets over time: consistent with the burn, with the methods and with brute force; gaps and edges said."""

from __future__ import annotations

from datetime import datetime, timedelta
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit.errors import InvalidValue
from labkit.shop.history import History
from labkit.slo import tracking
from labkit.slo.arithmetic import budget, burn_rate, exhaustion
from labkit.slo.counts import frame, sums
from labkit.slo.methods import budget_of
from labkit.slo.model import Budgeting, Calendar, Rolling, Slo
from labkit.slo.tracking import burn_down, burn_rates, remaining, spent_per_incident, time_to_exhaustion
from tests.slo.drawn import START, facts, frames, objectives, slo

NAN = float("nan")
MONTH_S = 30 * 86_400


def steps(bad: list[float], total: list[float], step_s: int = 3600) -> pd.DataFrame:
    """A frame from midnight on."""
    good = [all_ - one for all_, one in zip(total, bad, strict=True)]
    return frame(good, total, end=START + timedelta(seconds=step_s * len(bad)), step_s=step_s)


def test_all_is_sorted_and_true() -> None:
    """`__all__` names what the module has."""
    assert sorted(tracking.__all__) == tracking.__all__
    assert all(hasattr(tracking, name) for name in tracking.__all__)


@facts
@given(frames(gaps=True), objectives, st.integers(1, 50))
def test_remaining_is_consistent_with_burn(made: pd.DataFrame, objective: Fraction, minutes: int) -> None:
    """At each instant, what a rolling window has spent is its burn rate, computed exactly from its counts."""
    tracked = remaining(made, slo(objective, Rolling(60 * minutes)))
    for at, row in tracked.iterrows():
        found = sums(made, at - timedelta(minutes=minutes), at)  # type: ignore[operator,arg-type]
        burn = burn_rate(found.bad, found.total, objective)
        assert row["coverage"] == pytest.approx(float(found.coverage))
        if burn is None:
            assert np.isnan(row[["burn", "spent", "remaining"]].to_numpy(dtype=float)).all()
        else:
            assert row["burn"] == pytest.approx(float(burn))
            assert row["spent"] == pytest.approx(float(burn))
            assert row["remaining"] == pytest.approx(1 - float(burn), abs=1e-9)


def test_a_calendar_day_starts_with_a_whole_budget() -> None:
    """Each step spends its part of the day's budget; at midnight a new one begins, and yesterday's last step is old."""
    made = steps([1, *[0] * 22, 1, 2, 0], [100] * 26)
    tracked = remaining(made, slo("0.99", Calendar("day")))
    spent = (1 / 24, 2 / 24, 2 / 24, 2 / 24)
    assert tracked["spent"].iloc[[0, 23, 24, 25]].tolist() == pytest.approx(spent)
    assert tracked["burn"].iloc[[0, 23, 24, 25]].tolist() == pytest.approx([1, 2 / 24, 2, 1])
    assert (tracked["coverage"] == 1).all()


def test_days_have_the_length_that_their_clocks_give_them() -> None:
    """Where the clocks go forward a day has 23 hours, so an hour is a 23rd of its budget."""
    end = datetime.fromisoformat("2026-03-29T22:00:00+00:00")
    made = frame([99] * 23, [100] * 23, end=end, step_s=3600)
    spent = remaining(made, slo("0.99", Calendar("day", "Europe/Berlin")))["spent"]
    assert spent.tolist() == pytest.approx([(hour + 1) / 23 for hour in range(23)])


def test_the_month_ends_with_what_its_counts_say(month_counts: pd.DataFrame, month_slo: Slo) -> None:
    """21.7 % are left, as the exact budget says; at the first instants hardly anything of the window was counted."""
    tracked = remaining(month_counts, month_slo)
    exactly = budget_of(month_counts, month_slo, month_counts.index[-1] - timedelta(days=30), month_counts.index[-1])
    assert exactly.remaining is not None
    assert tracked["remaining"].iloc[-1] == pytest.approx(float(exactly.remaining), abs=1e-12)
    assert round(float(exactly.remaining), 4) == 0.2175
    assert tracked["coverage"].iloc[0] == pytest.approx(1 / 43_200)
    assert tracked["coverage"].iloc[-1] == 1
    assert tracked["coverage"].is_monotonic_increasing


def test_gaps_are_unknown_and_not_zero() -> None:
    """An hour that nobody counted neither spends nor earns; the window says that it is missing."""
    tracked = remaining(steps([1, NAN, NAN, 0], [100, NAN, NAN, 100]), slo("0.99", Rolling(7200)))
    assert tracked["coverage"].tolist() == [0.5, 0.5, 0, 0.5]
    assert tracked["remaining"].isna().tolist() == [False, False, True, False]
    assert tracked["burn"].iloc[1] == tracked["burn"].iloc[0] == pytest.approx(1)


@facts
@given(frames(), objectives, st.integers(1, 50))
def test_the_burn_down_ends_where_remaining_does(made: pd.DataFrame, objective: Fraction, minutes: int) -> None:
    """It begins with a whole budget, never rises, and its last row is what remains at that instant."""
    for window in (Rolling(60 * minutes), Calendar("day")):
        promise = slo(objective, window)
        down, left = burn_down(made, promise)["remaining"], remaining(made, promise)["remaining"].iloc[-1]
        if np.isnan(left):
            assert down.isna().all()
        else:
            assert down.iloc[0] == 1
            assert down.is_monotonic_decreasing
            assert down.iloc[-1] == pytest.approx(left, abs=1e-9)


def test_the_burn_down_has_gaps_where_nobody_counted() -> None:
    """What is spent before and after them is known; the coverage says how much is not."""
    down = burn_down(steps([1, NAN, 1], [100, NAN, 100]), slo("0.9", Rolling(3 * 3600)))
    assert down["remaining"].isna().tolist() == [False, False, True, False]
    assert down["coverage"].tolist() == pytest.approx([1, 1, 1 / 2, 2 / 3])
    assert down["spent"].iloc[-1] == pytest.approx(0.1)


@pytest.mark.parametrize("method", ["timeslices", "ratio-timeslices"])
def test_slices_are_tracked_in_their_units(month_counts: pd.DataFrame, method: str) -> None:
    """The last row has the budget that the method gives the same window."""
    promise = slo("0.999", Rolling(7 * 86_400), Budgeting(method, 300, Fraction(99, 100)))  # type: ignore[arg-type]
    tracked = remaining(month_counts, promise)
    at = tracked.index[-1]
    exactly = budget_of(month_counts, promise, at - timedelta(days=7), at)
    assert tracked["spent"].iloc[-1] == pytest.approx(float(exactly.spent or 0))
    assert tracked["total"].iloc[-1] == exactly.total


@facts
@given(frames(gaps=True), objectives, st.integers(1, 50))
def test_burn_rates_of_any_window(made: pd.DataFrame, objective: Fraction, minutes: int) -> None:
    """Each value is the burn of the events in its window."""
    rates = burn_rates(made, objective, [60 * minutes])[60 * minutes]
    for at, rate in rates.items():
        found = sums(made, at - timedelta(minutes=minutes), at)  # type: ignore[operator]
        burn = burn_rate(found.bad, found.total, objective)
        assert np.isnan(rate) if burn is None else rate == pytest.approx(float(burn))


def test_windows_are_no_shorter_than_a_step() -> None:
    """A minute of hours is not known."""
    made = steps([1], [10])
    for call in (lambda: burn_rates(made, 0.9, [60]), lambda: remaining(made, slo("0.9", Rolling(60)))):
        with pytest.raises(InvalidValue, match="window must be at least one step of the counts, 3600 s, got 60"):
            call()


def _incidents(*spans: tuple[int, int]) -> pd.DataFrame:
    """Incidents by their minutes since midnight."""
    at = [[START + timedelta(minutes=minute) for minute in span] for span in spans]
    return pd.DataFrame(at, columns=["start", "end"]).assign(id=range(len(spans)))


@facts
@given(frames(gaps=True), objectives, st.lists(st.tuples(st.integers(0, 45), st.integers(0, 20)), max_size=5))
def test_budgets_add_up_over_incidents(made: pd.DataFrame, objective: Fraction, spans: list[tuple[int, int]]) -> None:
    """Whatever overlaps or reaches beyond the data: all incidents and the rest spent what the stretch spent."""
    table = spent_per_incident(made, _incidents(*((start, start + more) for start, more in spans)), objective)
    whole = sums(made, START, made.index[-1])
    assert table["bad"].sum() == whole.bad
    assert table["total"].sum() == whole.total
    spent = budget(whole.bad, whole.total, objective).spent
    assert len(table) == len(spans) + 1
    if spent is None:
        assert table["spent"].isna().all()
    else:
        assert table["spent"].sum() == pytest.approx(float(spent))


def test_an_overlap_belongs_to_who_came_first() -> None:
    """Counted once, whatever the order of the table."""
    made = steps([10] * 4, [100] * 4, step_s=60)
    for order in (slice(None), slice(None, None, -1)):
        table = spent_per_incident(made, _incidents((0, 2), (1, 3)).iloc[order], 0.9)
        assert table["bad"].to_dict() == {0: 20, 1: 10, "outside": 10}


def test_a_step_that_an_incident_touches_is_its_own() -> None:
    """From a second before midnight plus one minute to a second after it: two minutes are touched."""
    made = steps([1, 2, 4], [10] * 3, step_s=60)
    at = START + timedelta(minutes=1)
    touched = pd.DataFrame({"start": [at - timedelta(seconds=1)], "end": [at + timedelta(seconds=1)]})
    assert spent_per_incident(made, touched, 0.9)["bad"].tolist() == [3, 4]


def test_the_incidents_of_the_month_cost_what_the_past_says(month: History, month_counts: pd.DataFrame) -> None:
    """Each within a tenth of a percent of the budget of the share that it was made with; the rest is 18 %."""
    labels = pd.DataFrame(month.labels()["incidents"]).set_index("id")
    table = spent_per_incident(month_counts, labels, 0.999)
    available = labels.index[labels["kind"] == "availability"]
    np.testing.assert_allclose(table.loc[available, "spent"], labels.loc[available, "budget_share"], atol=1e-3)
    assert table.loc["outside", "spent"] == pytest.approx(0.1785, abs=1e-4)


def test_incidents_end_after_they_start_and_have_a_time_zone() -> None:
    """Anything else is refused."""
    made = steps([1], [10])
    with pytest.raises(InvalidValue, match="incidents must be an end at or after the start"):
        spent_per_incident(made, _incidents((5, 3)), 0.9)
    naive = pd.DataFrame({"start": [datetime(2026, 3, 1)], "end": [datetime(2026, 3, 2)]})  # noqa: DTZ001
    with pytest.raises(ValueError, match="has no time zone"):
        spent_per_incident(made, naive, 0.9)


def _first_crossing(bad: list[int], total: list[int], objective: Fraction, window: int, recent: int) -> int | None:
    """Brute force: append steps like the last ones and look at each window."""
    bad_now, total_now = (Fraction(sum(values[-recent:]), recent) for values in (bad, total))
    all_bad, all_total = list(map(Fraction, bad)), list(map(Fraction, total))
    for step in range(1, window + 1):
        all_bad.append(bad_now)
        all_total.append(total_now)
        if sum(all_bad[-window:]) >= (1 - objective) * sum(all_total[-window:]):
            return step
    return None


@facts
@given(st.lists(st.integers(0, 30), min_size=24, max_size=24), objectives, st.integers(1, 6))
def test_the_end_of_a_rolling_budget_is_where_brute_force_finds_it(
    bad: list[int], objective: Fraction, recent: int
) -> None:
    """Within the step that it names, with what rolls off; never and exhausted are the same answers too."""
    total = [500 + 10 * hour for hour in range(24)]
    found = time_to_exhaustion(steps(list(bad), list(total)), slo(objective, Rolling(86_400)), recent_s=3600 * recent)
    if sum(bad) >= (1 - objective) * sum(total):
        assert found.answer == "exhausted"
        return
    crossing = _first_crossing(bad, total, objective, 24, recent)
    assert (found.answer == "never") == (crossing is None)
    if crossing is not None:
        assert found.in_s is not None
        assert crossing - 1 < found.in_s / 3600 <= crossing


def test_what_rolls_off_can_save_a_budget() -> None:
    """
    91 % are spent, most of it a month ago, and the burn is 0.5: it never ends.

    The formula that forgets what leaves the window says that it lasts six more days.
    """
    bad = [0.0] * 720
    bad[0:10] = [640] * 10
    bad[-24:] = [5] * 24
    made = steps(bad, [1000] * 720)
    promise = slo("0.99", Rolling(MONTH_S))
    left = 1 - Fraction(6520, 7200)
    assert remaining(made, promise)["remaining"].iloc[-1] == pytest.approx(float(left))

    found = time_to_exhaustion(made, promise)
    assert str(found) == "never"
    assert "at burn 0.5" in found.why
    assert str(exhaustion(left, Fraction(1, 2), MONTH_S)) == "in 5 d 16 h"


def test_a_budget_that_is_just_used_up_is_used_up() -> None:
    """After an hour as many are bad as may be, although the bad hour that leaves next would make room again."""
    found = time_to_exhaustion(steps([0, 14, 8], [100, 100, 100]), slo("0.9", Rolling(3 * 3600)))
    assert found.in_s == 3600


def test_what_was_not_counted_is_like_the_rest() -> None:
    """Twelve hours are known of a day: 3.75 events an hour are left on average, and 10 more are lost each hour."""
    made = steps([5] * 11 + [20], [1000] * 12)
    found = time_to_exhaustion(made, slo("0.99", Rolling(86_400)))
    assert found.in_s == Fraction(90) / (Fraction(15, 4) + 10) * 3600

    gap = steps([5, 5, *[NAN] * 12, *[5] * 9, 20], [1000, 1000, *[NAN] * 12, *[1000] * 10])
    after_two_hours = (90 - 2 * 15) / (Fraction(15, 4) + 10)
    assert time_to_exhaustion(gap, slo("0.99", Rolling(86_400))).in_s == (2 + after_two_hours) * 3600


def test_the_pace_is_that_of_what_was_counted() -> None:
    """Of the last two hours one is known: its 20 bad events are the pace of an hour, not of two."""
    made = steps([*[0] * 22, NAN, 20], [*[1000] * 22, NAN, 1000])
    found = time_to_exhaustion(made, slo("0.99", Rolling(86_400)), recent_s=7200)
    assert found.in_s == (210 + Fraction(210, 23)) / 20 * 3600


def test_a_burn_above_one_always_ends() -> None:
    """At twice the pace a clean month lasts half of one."""
    made = steps([0] * 719 + [20], [1000] * 720)
    found = time_to_exhaustion(made, slo("0.99", Rolling(MONTH_S)))
    # 7,180 of 7,200 events are left, and each hour spends 20 of them.
    assert found.in_s == Fraction(7180, 20) * 3600
    assert str(found) == "in 14 d 23 h"


def test_no_events_have_no_end() -> None:
    """Neither a window nor a last hour without events tells anything."""
    made = steps([0, 0], [0, 0])
    assert str(time_to_exhaustion(made, slo("0.99", Rolling(7200)))) == "unknown"
    assert str(time_to_exhaustion(steps([1, NAN], [100, NAN]), slo("0.9", Rolling(7200)))) == "unknown"


def test_the_calendar_renews_the_budget() -> None:
    """With a burn of 1.5 in its second half the day ends before the budget; with 3 it does not."""
    promise = slo("0.99", Calendar("day"))
    slow, fast = (steps([0] * 12 + [pace] * 6, [1000] * 18) for pace in (15, 30))
    assert str(time_to_exhaustion(slow, promise)) == "never"
    assert "the period ends in 6 h" in time_to_exhaustion(slow, promise).why
    # 240 may fail in the day of 24,000; 180 did, and 30 more do each hour.
    assert time_to_exhaustion(fast, promise).in_s == 2 * 3600


def test_an_instant_inside_the_counts(month: History, month_counts: pd.DataFrame, month_slo: Slo) -> None:
    """In the middle of the outage the pace is that of the last hour before it."""
    incident = next(one for one in month.labels()["incidents"] if one["id"] == "retry-storm")
    start = datetime.fromisoformat(incident["start"])
    calm = time_to_exhaustion(month_counts, month_slo, at=start)
    stormy = time_to_exhaustion(month_counts, month_slo, at=start + timedelta(minutes=10))
    assert str(calm) == "never"
    assert stormy.answer == "in"
    assert stormy.in_s is not None
    assert 0 < stormy.in_s < 86_400
