"""Rolling and calendar windows: where they lie, whatever the clocks do."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, get_args
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit.errors import InvalidValue
from labkit.slo.model import Calendar, CalendarUnit, Rolling
from labkit.slo.windows import bounds, describe, parse_calendar, parse_rolling, period_s

ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Africa/Cairo", "America/Havana")
INSTANTS = st.integers(631_152_000, 2_114_380_800).map(lambda seconds: datetime.fromtimestamp(seconds, UTC))
CALENDARS = st.builds(Calendar, st.sampled_from(get_args(CalendarUnit)), st.sampled_from(ZONES))


def at(text: str) -> datetime:
    """An instant from ISO text."""
    return datetime.fromisoformat(text)


@pytest.mark.parametrize(
    ("window", "instant", "start", "end"),
    [
        (Calendar("day"), "2026-03-01T10:00Z", "2026-03-01T00:00Z", "2026-03-02T00:00Z"),
        (Calendar("week"), "2026-03-01T10:00Z", "2026-02-23T00:00Z", "2026-03-02T00:00Z"),
        (Calendar("month"), "2024-02-29T23:59Z", "2024-02-01T00:00Z", "2024-03-01T00:00Z"),
        (Calendar("quarter"), "2026-12-31T23:59Z", "2026-10-01T00:00Z", "2027-01-01T00:00Z"),
        (Calendar("year"), "2026-07-01T00:00Z", "2026-01-01T00:00Z", "2027-01-01T00:00Z"),
        (Calendar("month", "Europe/Berlin"), "2026-03-31T22:30Z", "2026-03-31T22:00Z", "2026-04-30T22:00Z"),
        (Calendar("day", "America/Havana"), "2026-11-01T12:00Z", "2026-11-01T04:00Z", "2026-11-02T05:00Z"),
        (Rolling(3600), "2026-03-29T02:30+02:00", "2026-03-28T23:30Z", "2026-03-29T00:30Z"),
    ],
)
def test_a_window_has_the_bounds_of_the_calendar(window: Any, instant: str, start: str, end: str) -> None:
    """Leap days, weeks that begin on Monday, months in other zones, a midnight that happens twice."""
    assert bounds(window, at(instant)) == (at(start), at(end))


@pytest.mark.parametrize(("day", "hours"), [("2026-03-29", 23), ("2026-10-25", 25), ("2026-10-26", 24)])
def test_a_day_is_as_long_as_it_is(day: str, hours: int) -> None:
    """In Berlin the clocks go forward on 29 March 2026 and back on 25 October."""
    noon = at(f"{day}T12:00:00").replace(tzinfo=ZoneInfo("Europe/Berlin"))

    assert period_s(Calendar("day", "Europe/Berlin"), noon) == hours * 3600


def test_where_midnight_is_skipped_the_day_begins_after_the_gap() -> None:
    """In Cairo the clock went from 00:00 to 01:00 on 28 April 2023: the day has 23 hours, from 22:00 UTC."""
    window = Calendar("day", "Africa/Cairo")
    start, end = bounds(window, at("2023-04-28T12:00:00+00:00"))

    assert start == at("2023-04-27T22:00:00+00:00")
    assert end - start == timedelta(hours=23)


@given(window=CALENDARS, instant=INSTANTS)
def test_calendar_windows_leave_no_gap_and_do_not_overlap(window: Calendar, instant: datetime) -> None:
    """Every instant is in its window, the end of one is the start of the next, and the start is in its own."""
    start, end = bounds(window, instant)

    assert start <= instant < end
    assert bounds(window, start) == (start, end)
    assert bounds(window, end)[0] == end
    assert bounds(window, end - timedelta(microseconds=1)) == (start, end)


@given(seconds=st.integers(1, 400 * 86_400), instant=INSTANTS)
def test_a_rolling_window_ends_now_and_is_as_long_as_it_says(seconds: int, instant: datetime) -> None:
    """Rolling windows know no calendar."""
    start, end = bounds(Rolling(seconds), instant)

    assert end == instant
    assert end - start == timedelta(seconds=seconds)
    assert period_s(Rolling(seconds), instant) == seconds


def test_an_instant_without_a_zone_is_refused() -> None:
    """A guess would move the window by hours."""
    with pytest.raises(ValueError, match="has no time zone; write it as UTC"):
        bounds(Calendar("day"), at("2026-01-01T00:00:00"))


@pytest.mark.parametrize(("text", "days"), [("30d", 30), ("4w", 28), ("365d", 365), ("12h", 0.5), (" 7d ", 7)])
def test_a_rolling_window_is_a_duration(text: str, days: float) -> None:
    """Units are those of Prometheus."""
    assert parse_rolling(text) == Rolling(int(days * 86_400))


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("0d", "no time at all"),
        ("30", "30 has no unit; did you mean 30d"),
        (30, "30 has no unit; did you mean 30d"),
        (0, "0 is no time"),
        (-1, "-1 is no time"),
        ("1y", "365 or 366 days: write 365d, or {calendar: year}"),
        ("month", "write {calendar: month}"),
        ("1mo", "not a duration"),
        ("-1d", "not a duration"),
        ("500ms", "whole seconds"),
        ("4000d", "at most ten years"),
        (None, "such as 30d"),
        (True, "such as 30d"),
        (float("nan"), "nan is no time"),
    ],
)
def test_what_is_no_rolling_window_is_refused_with_the_fix(value: object, said: str) -> None:
    """The message has the value and what to write."""
    with pytest.raises(InvalidValue) as caught:
        parse_rolling(value)

    assert said in str(caught.value)
    assert repr(value) in str(caught.value)


@pytest.mark.parametrize("zone", ["Europe/Berln", "", "../../etc/passwd", "Europe", "Mars/Olympus"])
def test_an_unknown_time_zone_is_refused(zone: str) -> None:
    """Also names that are paths or folders."""
    with pytest.raises(InvalidValue, match="timezone must be an IANA name such as UTC"):
        parse_calendar("month", zone)


def test_the_nearest_time_zone_is_named() -> None:
    """A slip of the pen is found."""
    with pytest.raises(InvalidValue, match=r"did you mean Europe/Vienna\?"):
        parse_calendar("month", "Europe/Viena")


def test_an_unknown_unit_is_refused() -> None:
    """The units are listed."""
    with pytest.raises(InvalidValue, match="one of day, week, month, quarter, year, got 'sprint'"):
        parse_calendar("sprint")


def test_windows_are_told_in_words() -> None:
    """In the greatest unit that divides them."""
    windows = (Rolling(86_400), Rolling(90 * 60), Rolling(61), Calendar("quarter", "Asia/Tokyo"))

    assert [describe(window) for window in windows] == [
        "the last day",
        "the last 90 minutes",
        "the last 61 seconds",
        "the calendar quarter, Asia/Tokyo",
    ]
