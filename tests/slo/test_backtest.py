"""The back-test by itself: what fires, what is said about incidents, bad input, speed."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import Any, Literal

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labkit.errors import InvalidValue
from labkit.shop.history import History
from labkit.slo import backtest as module
from labkit.slo.backtest import BackTest, backtest, compare, error_ratio, range_semantics, sensitivity
from labkit.slo.backtest_ratio import Range, Ratios
from labkit.slo.model import BurnAlert, Policy
from labkit.slo.policies import POLICIES

NINES = Fraction(999, 1000)
START = datetime(2026, 3, 1, tzinfo=UTC)
# Burn rate above 10 over ten minutes and over two: an error ratio above 1 % at 99.9 %.
QUICK = BurnAlert(Fraction(10 * 600, 30 * 86_400), long_s=600, short_s=120)


def frame(bad: list[float], total: float | list[float] = 1000, step_s: int = 60) -> pd.DataFrame:
    """Counts from the bad events of each step; the first step begins at START."""
    index = pd.date_range(START, periods=len(bad) + 1, freq=f"{step_s}s", name="time")[1:]
    made = pd.DataFrame({"bad": bad, "total": total}, index=index, dtype=float)
    made["good"] = made["total"] - made.pop("bad")
    made.attrs["step_s"] = step_s
    return made


def minute(number: float) -> pd.Timestamp:
    """An instant, in minutes after START."""
    return pd.Timestamp(START + timedelta(minutes=number))


def one(alert: BurnAlert) -> Policy:
    """A policy of one alert."""
    return Policy("mine", (alert,))


def spans(found: BackTest) -> list[tuple[float, float]]:
    """Firing intervals in minutes after START."""
    return [
        ((p.start - START) / timedelta(minutes=1), (p.end - START) / timedelta(minutes=1))
        for p in found.pages.itertuples()
    ]


@given(
    bad=st.lists(st.integers(0, 40), min_size=1, max_size=60),
    windows=st.tuples(st.integers(1, 15), st.integers(1, 5)),
    wait=st.integers(0, 4),
)
@settings(max_examples=80)
def test_it_fires_exactly_where_the_fractions_say(bad: list[int], windows: tuple[int, int], wait: int) -> None:
    """Against sums of integers and fractions, loop by loop: no rounding decides, windows fill up from the start."""
    long_s, short_s = windows[0] * 60, windows[1] * 60
    alert = BurnAlert(Fraction(12 * long_s, 30 * 86_400), long_s, short_s, for_s=wait * 60)

    def burning(row: int, steps: int) -> bool:
        part = bad[max(0, row + 1 - steps) : row + 1]
        return Fraction(sum(part), 1000 * len(part)) > Fraction(12, 1000)

    active = [burning(row, windows[0]) and burning(row, windows[1]) for row in range(len(bad))]
    fires = [all(active[max(0, row - wait) : row + 1]) and row >= wait for row in range(len(bad))]
    found = backtest(frame(list(bad)), NINES, one(alert), closed="closed")

    firing = {m for start, end in spans(found) for m in range(round(start), round(end))}
    assert firing == {row + 1 for row, fire in enumerate(fires) if fire}


@given(seed=st.integers(0, 10**6), cut=st.integers(1, 59), window_s=st.sampled_from([60, 90, 300, 1800]))
@settings(max_examples=40)
def test_a_history_may_be_worked_on_in_parts(seed: int, cut: int, window_s: int) -> None:
    """Ratios of a stretch of rows are those of the whole, through gaps and near the start, for both semantics."""
    rng = np.random.default_rng(seed)
    counts = frame(rng.integers(0, 5, 60).tolist(), 20)
    counts[rng.random(60) < rng.choice([0, 0.2])] = np.nan
    closed: list[Range] = ["closed", "left_open"]
    for semantics in closed:
        ratios = Ratios(counts, closed=semantics)

        parts = np.concatenate([ratios.over(window_s, 0, cut), ratios.over(window_s, cut, 60)])

        np.testing.assert_array_equal(parts, ratios.over(window_s, 0, 60))


@given(
    seed=st.integers(0, 10**6),
    window_s=st.sampled_from([90, 120, 300, 1800]),
    closed=st.sampled_from(["closed", "left_open"]),
    fresh=st.booleans(),
)
@settings(max_examples=60)
def test_the_short_cut_is_what_sample_by_sample_gives(seed: int, window_s: int, closed: Range, fresh: bool) -> None:
    """Where no window is cut off and no zero is in reach one factor serves all rows: the same floats, row by row."""
    rng = np.random.default_rng(seed)
    bad = rng.integers(0, 9, 300) * (rng.random(300) < rng.choice([0.05, 0.5]))
    counts = frame([0.0] * rng.integers(0, 40) + bad.tolist(), 20)
    quick, slow = (Ratios(counts, closed=closed, fresh=fresh) for _ in range(2))
    slow._plain = {window_s: len(counts)}

    np.testing.assert_array_equal(quick.over(window_s, 0, len(counts)), slow.over(window_s, 0, len(counts)))
    assert fresh or quick._plain[window_s] <= 30


def test_blocks_change_nothing(month_counts: pd.DataFrame, monkeypatch: pytest.MonkeyPatch) -> None:
    """A month in blocks of 1,000 rows gives the pages of a month in two."""
    whole = backtest(month_counts, NINES, POLICIES["workbook"])
    monkeypatch.setattr(module, "_BLOCK", 1000)

    pd.testing.assert_frame_equal(backtest(month_counts, NINES, POLICIES["workbook"]).pages, whole.pages)


def test_a_left_open_window_of_one_step_is_blind() -> None:
    """
    With Prometheus 3 and a scrape a minute, one minute holds one sample, of which no rate can be made.

    The workbook's third design never fires there, whatever happens, and the result says so.
    """
    counts = frame([1000] * 300)
    found = {
        closed: backtest(counts, NINES, POLICIES["for-duration"], closed=closed) for closed in ("closed", "left_open")
    }

    assert spans(found["closed"]) == [(61, 301)]
    assert spans(found["left_open"]) == []
    assert (found["closed"].blind, found["left_open"].blind) == ((), ("page 1m for 1h",))


def test_a_left_open_window_holds_one_step_less() -> None:
    """Ten minutes hold the counts of nine, so the alert clears a minute earlier; above the threshold it is alike."""
    counts = frame([0] * 30 + [1000] + [0] * 30)
    long = one(BurnAlert(QUICK.budget_share, 600))

    assert spans(backtest(counts, NINES, long, closed="closed")) == [(31, 41)]
    assert spans(backtest(counts, NINES, long, closed="left_open")) == [(31, 40)]


def test_a_counter_that_was_never_above_zero_weighs_less() -> None:
    """Prometheus does not extrapolate the first bad events ever below zero; of a counter that runs for long it does."""
    counts = frame([0] * 20 + [90] + [0] * 20)
    fresh, long_running = (error_ratio(counts, 300, fresh=fresh).iloc[20] for fresh in (True, False))

    assert long_running == pytest.approx(90 / 4000)
    # The window's total is extrapolated from four minutes to five, the bad events are not.
    assert fresh == pytest.approx(90 / 5000)
    assert error_ratio(counts, 300, closed="closed").iloc[20] == 90 / 5000


@pytest.mark.parametrize("closed", ["closed", "left_open"])
@pytest.mark.parametrize("divided", ["bad", "good"])
def test_traffic_without_errors_is_a_ratio_of_zero(closed: Range, divided: Literal["bad", "good"]) -> None:
    """Not unknown: a counter of bad events that never moved has an increase of 0, in the first windows as later."""
    ratios = error_ratio(frame([0.0] * 30), 300, closed=closed, divided=divided)

    # A left-open window has two samples from the second minute on: the one before the first step is outside then.
    assert ratios.iloc[1:].tolist() == [0.0] * 29


def test_no_traffic_neither_fires_nor_keeps_firing() -> None:
    """Without events the ratio is unknown: the alert ends with the traffic, and a wait begins anew."""
    bad, total = [500] * 10 + [0] * 20 + [500] * 10, [1000] * 10 + [0] * 20 + [1000] * 10
    counts = frame([float(b) for b in bad], [float(t) for t in total])
    short = one(BurnAlert(QUICK.budget_share, 120, for_s=180))

    assert np.isnan(error_ratio(counts, 120, closed="closed").iloc[12:30]).all()
    # Two minutes after the traffic its last events have left the window.
    assert spans(backtest(counts, NINES, short, closed="closed")) == [(4, 12), (34, 41)]


def test_a_missing_scrape_interrupts_a_wait() -> None:
    """A window of one step has no two samples around a gap, so the condition has no result and `for` begins anew."""
    counts = frame([500] * 20)
    counts.iloc[8] = np.nan
    short = one(BurnAlert(QUICK.budget_share, 60, for_s=300))

    assert spans(backtest(counts, NINES, short, closed="closed")) == [(6, 9), (16, 21)]


def told(bad: list[float], incidents: list[Any], alerts: tuple[BurnAlert, ...] = (QUICK,)) -> BackTest:
    """The back-test of a policy with closed ranges."""
    return backtest(frame(bad), NINES, Policy("mine", alerts), closed="closed", incidents=incidents)


def test_an_incident_is_told_by_its_numbers() -> None:
    """By hand: 5 % of 1,000 a minute fail from minute 30 to 40, and the limit is 100 of 10,000."""
    found = told([0] * 30 + [50] * 10 + [0] * 30, [{"start": minute(30), "end": minute(40)}])

    # 150 bad among 10,000 at minute 33; the window of two minutes is clean two minutes after the last.
    assert spans(found) == [(33, 42)]
    (incident,) = found.incidents.to_dict("records")  # type: ignore[union-attr]
    assert incident["answered"]
    assert incident["alert"] == "page 10m/2m"
    assert (incident["detection_s"], incident["reset_s"]) == (180, 120)
    # The month's budget at this traffic is 43,200 events.
    assert incident["budget_spent"] == pytest.approx(150 / 43_200)
    assert incident["budget_cost"] == pytest.approx(500 / 43_200)
    row = found.summary().loc["mine"]
    assert (row["pages"], row["precision"], row["recall"], row["duplicates"]) == (1, 1, 1, 0)
    assert row["per_week"] == pytest.approx(7 * 1440 / 70)
    assert (row["detection_s"], row["detection_max_s"], row["reset_s"], row["budget_spent"]) == (
        *(180, 180, 120),
        pytest.approx(150 / 43_200),
    )


def test_an_incident_that_nobody_saw_has_no_times() -> None:
    """Missing is nan, not zero seconds; recall counts it."""
    found = told([0] * 30 + [5] * 10 + [0] * 30, [{"start": minute(30), "end": minute(40)}])
    (incident,) = found.incidents.to_dict("records")  # type: ignore[union-attr]

    assert not incident["answered"]
    assert np.isnan([incident["detection_s"], incident["reset_s"], incident["budget_spent"]]).all()
    assert incident["budget_cost"] == pytest.approx(50 / 43_200)
    row = found.summary().loc["mine"]
    assert row["recall"] == 0
    assert np.isnan([row["precision"], row["detection_s"], row["reset_s"], row["budget_spent"]]).all()


def test_bad_events_of_the_last_step_still_belong_to_the_incident() -> None:
    """An incident of one minute is seen at its end, when the counters are scraped: that page is right."""
    found = told([0] * 30 + [1000] + [0] * 30, [{"start": minute(30), "end": minute(31)}])

    assert spans(found) == [(31, 33)]
    assert found.summary().loc["mine", ["precision", "recall"]].tolist() == [1, 1]


def test_pages_for_what_deserves_none_are_wrong() -> None:
    """Of two pages one is for an incident that deserved nothing: precision is a half, recall is whole."""
    burst = [0.0] * 30 + [50.0] * 10
    incidents = [
        {"start": minute(30), "end": minute(40), "response": "page"},
        {"start": minute(70), "end": minute(80), "response": "none"},
    ]

    row = told(burst + burst + [0.0] * 30, incidents).summary().loc["mine"]

    assert (row["pages"], row["precision"], row["recall"], row["noticed"]) == (2, 0.5, 1, 1)


def test_a_ticket_is_enough_where_a_ticket_is_due() -> None:
    """A page also does; where a page is due a ticket is not enough."""
    ticket = BurnAlert(QUICK.budget_share, 600, 120, severity="ticket")
    bad = [0.0] * 30 + [50.0] * 10 + [0.0] * 30
    incident = {"start": minute(30), "end": minute(40)}

    def noticed(response: str, alert: BurnAlert) -> tuple[float, float, float]:
        row = told(bad, [{**incident, "response": response}], (alert,)).summary().loc["mine"]
        return row["tickets"], row["noticed"], row["pages"]

    assert noticed("ticket", ticket) == (1, 1, 0)
    assert noticed("ticket", QUICK) == (0, 1, 1)
    assert noticed("page", ticket) == (1, 0, 0)


def test_alerts_of_one_severity_are_one_notification() -> None:
    """Two that overlap wake a person once; the pages of each stay in the table."""
    slow = BurnAlert(QUICK.budget_share, 600)

    found = told([0] * 30 + [50] * 10 + [0] * 30, [], (QUICK, slow))

    assert len(found.pages) == 2
    assert len(found.notifications()) == 1
    assert found.notifications("ticket").empty


def test_flapping_is_counted_as_duplicates() -> None:
    """Three bursts within one incident: one page too many for each beyond the first."""
    burst = [50.0] * 5 + [0.0] * 10

    row = told([0.0] * 30 + burst * 3 + [0.0] * 10, [{"start": minute(30), "end": minute(75)}]).summary().loc["mine"]

    assert (row["pages"], row["duplicates"], row["precision"], row["recall"]) == (3, 2, 1, 1)


def test_what_still_fires_at_the_end_has_no_reset() -> None:
    """The history ends before the alert does: how long it would have gone on is unknown; at the last row not."""
    incident = {"start": minute(30), "end": minute(40)}
    found = told([0] * 30 + [50] * 10, [incident])

    (ended,) = told([0] * 30 + [50] * 10 + [0] * 2, [incident]).incidents["reset_s"]  # type: ignore[index]
    assert ended == 120

    assert np.isnan(found.incidents["reset_s"].iloc[0])  # type: ignore[index]
    assert found.incidents["detection_s"].iloc[0] == 180  # type: ignore[index]


def test_what_fired_before_was_noticed_at_once() -> None:
    """An alert that is still on from before costs no time and no budget: somebody is at it."""
    found = told([0] * 30 + [50] * 20 + [0] * 30, [{"start": minute(40), "end": minute(50)}])
    (incident,) = found.incidents.to_dict("records")  # type: ignore[union-attr]

    assert (incident["detection_s"], incident["budget_spent"]) == (0, 0)


def test_unknown_incidents_are_not_no_incidents() -> None:
    """Without labels precision is unknown; with an empty list every page is wrong."""
    bad = [0.0] * 30 + [50.0] * 10 + [0.0] * 30
    unlabelled = backtest(frame(bad), NINES, one(QUICK), closed="closed").summary().loc["mine"]
    none = told(bad, []).summary().loc["mine"]

    assert unlabelled["pages"] == none["pages"] == 1
    assert np.isnan([unlabelled["precision"], unlabelled["recall"], none["recall"]]).all()
    assert none["precision"] == 0


def test_incidents_come_as_frames_records_and_labels(month: History, month_counts: pd.DataFrame) -> None:
    """Those of the seeded past as objects and as written to JSON, and a frame: the same."""
    objects = [incident for incident in month.incidents if incident.kind == "availability"]
    labels = [label for label in month.labels()["incidents"] if label["kind"] == "availability"]

    rows = [
        backtest(month_counts, NINES, POLICIES["workbook"], incidents=incidents).summary()
        for incidents in (objects, labels, pd.DataFrame(labels))
    ]

    pd.testing.assert_frame_equal(rows[0], rows[1])
    pd.testing.assert_frame_equal(rows[0], rows[2])


def test_incidents_beyond_the_history_do_not_count() -> None:
    """What cannot be seen in the counts is neither missed nor found."""
    outside = [{"start": minute(-60), "end": minute(0)}, {"start": minute(100), "end": minute(110)}]

    assert told([0.0] * 60, outside).incidents.empty  # type: ignore[union-attr]


def test_the_seeded_month_side_by_side(month: History, month_counts: pd.DataFrame) -> None:
    """
    What the workbook says of its designs holds here.

    The first pages all night, the second stays on for more than a day, the third overlooks most, the fourth is quick
    and misses slow burns, the last sees all with pages that are right and ends within half an hour.
    """
    incidents = [incident for incident in month.incidents if incident.kind == "availability"]

    table = compare(month_counts, NINES, POLICIES, closed="closed", incidents=incidents)

    assert list(table.index) == list(POLICIES)
    assert table.loc["threshold", "per_week"] > 20
    assert table.loc["threshold", "precision"] < 0.1
    assert table.loc["long-window", "reset_s"] > 86_400
    assert table.loc["for-duration", "recall"] < 0.5
    assert table.loc["burn-rate", "recall"] < 1
    assert table.loc["workbook", ["precision", "recall"]].tolist() == [1, 1]
    assert table.loc["workbook", "reset_max_s"] <= 1800
    assert table.loc["workbook", "reset_s"] < table.loc["multi-burn-rate", "reset_s"] / 5


def test_the_quiet_end_of_the_month_is_quiet(month: History, month_counts: pd.DataFrame) -> None:
    """Nothing is wrong in the last days: the workbook's policy says nothing, the naive threshold does."""
    quiet = month_counts[month_counts.index > month.end - timedelta(days=2.9)]

    assert backtest(quiet, NINES, POLICIES["workbook"], incidents=[]).pages.empty
    assert len(backtest(quiet, NINES, POLICIES["threshold"], incidents=[]).pages) > 5


def test_comparing_is_testing_each(month_counts: pd.DataFrame) -> None:
    """Windows that policies share are computed once, and give each what it gets alone."""
    alone = pd.concat([backtest(month_counts, NINES, one).summary() for one in POLICIES.values()])

    pd.testing.assert_frame_equal(compare(month_counts, NINES, POLICIES.values()), alone)


def test_as_much_traffic_as_there_is_changes_nothing(month_counts: pd.DataFrame) -> None:
    """Traffic times 1 is the plain back-test; a hundredth has a hundredth of the events; a seed repeats itself."""
    table = sensitivity(month_counts, 0.999, POLICIES["workbook"], traffic=(0.01, 1, 2), objectives=(0.99,), seed=3)
    plain = backtest(month_counts, NINES, POLICIES["workbook"]).summary()

    assert list(table.index) == [(0.01, 0.999), (1.0, 0.999), (2.0, 0.999), (1.0, 0.99)]
    assert table.loc[(1.0, 0.999)].drop("events_per_hour").equals(plain.iloc[0].rename((1.0, 0.999)))
    hourly = table["events_per_hour"]
    assert hourly.loc[(0.01, 0.999)] == pytest.approx(hourly.loc[(1.0, 0.999)] / 100, rel=0.02)
    assert hourly.loc[(2.0, 0.999)] == 2 * hourly.loc[(1.0, 0.999)]
    # A burn rate of 14.4 at two nines is an error ratio of 14.4 %.
    assert table.loc[(1.0, 0.99), "pages"] < table.loc[(1.0, 0.999), "pages"]
    again = sensitivity(month_counts, 0.999, POLICIES["workbook"], traffic=(0.01,), seed=3)
    pd.testing.assert_frame_equal(again, table.iloc[:1])


def test_little_traffic_pages_by_chance(month: History, month_counts: pd.DataFrame) -> None:
    """At 40 requests an hour single failures are a burn of 14.4: precision falls, which is what the table is for."""
    incidents = [incident for incident in month.incidents if incident.kind == "availability"]

    table = sensitivity(month_counts, 0.999, POLICIES["workbook"], traffic=(0.001, 1), incidents=incidents)

    assert table["precision"].iloc[0] < 0.9 <= table["precision"].iloc[1]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: c.assign(good=-1.0), "0 or more"),
        (lambda c: c.assign(good=2000.0), "good at most total"),
        (lambda c: c.drop(columns="good"), "columns good and total"),
        (lambda c: c.tz_localize(None), "time zone"),
        (lambda c: c.iloc[[0, 1, 3]], "every 60 s"),
        (lambda c: c.iloc[:0], "at least one step"),
    ],
)
def test_counts_that_cannot_be_are_refused(change: Any, said: str) -> None:
    """Before anything is computed, with the place and what to do."""
    with pytest.raises(InvalidValue, match=said):
        backtest(change(frame([0.0] * 5)), NINES, one(QUICK))


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda c: backtest(c, 99.9, one(QUICK)), "objective must be a fraction"),
        (lambda c: backtest(c, NINES, Policy("none", ())), "policy must be one or more alerts"),
        (lambda c: backtest(c, NINES, one(QUICK), closed="open"), "closed must be one of closed, left_open"),
        (lambda c: backtest(c, NINES, one(QUICK), divided="total"), "divided must be one of bad, good"),
        (lambda c: backtest(c, NINES, one(QUICK), period_s=0), "period_s must be a length of time above 0"),
        (lambda c: backtest(c, NINES, one(BurnAlert(Fraction(1), 0))), "long_s must be a length of time above 0"),
        (lambda c: backtest(c, NINES, one(BurnAlert(Fraction(1), 60, for_s=-1))), "from 0 up"),
        (lambda c: error_ratio(c, -5), "window_s must be a length of time above 0"),
        (lambda c: compare(c, NINES, []), "policies must be one or more"),
        (lambda c: sensitivity(c, NINES, one(QUICK), traffic=[0]), "multiples above 0"),
        (lambda c: sensitivity(c / 3, NINES, one(QUICK), traffic=[0.5]), "whole numbers"),
        (lambda _: range_semantics("latest"), "a version of Prometheus"),
        (lambda _: told([0.0], [{"start": minute(0)}]), "records with start and end"),
        (lambda _: told([0.0], [{"start": datetime(2026, 3, 1), "end": minute(2)}]), "no time zone"),  # noqa: DTZ001
        (lambda _: told([0.0], [{"start": minute(3), "end": minute(3)}]), "an end after the start"),
        (
            lambda _: told([0.0], [{"start": minute(0), "end": minute(3), "response": "wake"}]),
            "one of page, ticket, none",
        ),
    ],
)
def test_arguments_that_make_no_sense_are_refused(call: Any, said: str) -> None:
    """Each by its name, with what is allowed."""
    with pytest.raises(InvalidValue, match=said):
        call(frame([0.0] * 5))


@pytest.mark.parametrize(
    ("version", "semantics"),
    [
        ("2.42.0+ds", "closed"),
        ("2.55.1", "closed"),
        ("3.0.0-beta.1", "left_open"),
        ("v3.5.0", "left_open"),
        ("10.1", "left_open"),
    ],
)
def test_the_semantics_follow_the_version(version: str, semantics: Range) -> None:
    """Ranges are left-open since 3.0."""
    assert range_semantics(version) == semantics


def test_a_month_of_quarter_minutes_is_quick() -> None:
    """30 days at 15 s and six policies: seconds, with much room for a busy machine; `make bench` has the number."""
    rng = np.random.default_rng(1)
    counts = frame(rng.binomial(150, 0.001, 172_800).tolist(), 150, step_s=15)
    six = {name: POLICIES[name] for name in list(POLICIES)[:6]}
    began = time.process_time()

    table = compare(counts, NINES, six, incidents=[])

    assert len(table) == 6
    assert time.process_time() - began < 10
