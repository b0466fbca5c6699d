"""
Where the window of an objective lies at an instant, and how long it is.

Calendar windows start at midnight in their time zone: a day is 23 or 25 hours long when the clocks change, and a month
is as long as it is.  Weeks start on Monday (ISO 8601).
"""

from __future__ import annotations

import difflib
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import get_args
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from labkit._time import as_utc, parse_duration
from labkit.errors import InvalidValue
from labkit.slo.model import Calendar, CalendarUnit, Rolling, Window

__all__ = ["bounds", "describe", "parse_calendar", "parse_rolling", "period_s"]

_LONGEST_S = 10 * 366 * 86_400
_ROLLING = "a length of time with its unit, such as 30d, 4w or 12h"


def parse_rolling(value: object) -> Rolling:
    """
    A rolling window from a duration such as `30d` or `4w`.

    A year is refused: it has 365 or 366 days, and nobody knows which is meant.

    Raises:
        InvalidValue: no unit, no time at all, parts of a second, years, more than ten years, or not a duration.

    >>> parse_rolling("30d")
    Rolling(seconds=2592000)
    """
    if isinstance(value, int | float | Decimal) and not isinstance(value, bool):
        raise _rolling(value, f"{value} has no unit; did you mean {value}d?" if value > 0 else f"{value} is no time")
    if not isinstance(value, str):
        raise _rolling(value, "")
    text = value.strip()
    if text.isdigit() and int(text):
        raise _rolling(value, f"{text} has no unit; did you mean {text}d?")
    if text in get_args(CalendarUnit):
        raise _rolling(value, f"for the calendar's {text} write {{calendar: {text}}}")
    try:
        seconds = parse_duration(text)
    except ValueError as error:
        raise _rolling(value, str(error)) from error
    if "y" in text:
        raise _rolling(value, "a year has 365 or 366 days: write 365d, or {calendar: year} for the calendar's")
    if seconds != int(seconds) or seconds > _LONGEST_S:
        raise _rolling(value, "whole seconds, at most ten years")
    return Rolling(int(seconds))


def parse_calendar(unit: str, timezone: str = "UTC") -> Calendar:
    """
    A calendar window, its time zone looked up.

    Raises:
        InvalidValue: no such unit or time zone; the nearest known name is in the message.

    >>> parse_calendar("month", "Europe/Berlin")
    Calendar(unit='month', timezone='Europe/Berlin')
    """
    for known in get_args(CalendarUnit):
        if known == unit:
            _zone(timezone)
            return Calendar(known, timezone)
    raise InvalidValue("calendar window", expected=f"one of {', '.join(get_args(CalendarUnit))}", got=unit)


def bounds(window: Window, at: datetime) -> tuple[datetime, datetime]:
    """
    Start and end of the window at the instant *at*, in UTC.

    A rolling window ends at *at*.  A calendar window is the whole period that *at* falls in, so its end mostly lies
    ahead; an instant between two periods belongs to the later one.

    Args:
        window: which window.
        at: an instant with a time zone.

    Raises:
        ValueError: *at* has no time zone.
        InvalidValue: the calendar's time zone is unknown.

    >>> at = datetime.fromisoformat("2026-03-29T12:00:00+00:00")
    >>> [edge.isoformat() for edge in bounds(Calendar("day", "Europe/Berlin"), at)]
    ['2026-03-28T23:00:00+00:00', '2026-03-29T22:00:00+00:00']
    """
    instant = as_utc(at)
    if isinstance(window, Rolling):
        return instant - timedelta(seconds=window.seconds), instant
    zone = _zone(window.timezone)
    first, after = _period(window.unit, instant.astimezone(zone).date())
    return _midnight(first, zone), _midnight(after, zone)


def period_s(window: Window, at: datetime) -> int:
    """
    Length of the window at the instant *at*, in seconds.

    >>> period_s(Calendar("month"), datetime.fromisoformat("2026-02-10T00:00:00+00:00")) / 86_400
    28.0
    """
    start, end = bounds(window, at)
    return int((end - start).total_seconds())


def describe(window: Window) -> str:
    """
    A window for people.

    >>> describe(Rolling(2_592_000)), describe(Calendar("month", "Europe/Berlin"))
    ('the last 30 days', 'the calendar month, Europe/Berlin')
    """
    if isinstance(window, Calendar):
        return f"the calendar {window.unit}, {window.timezone}"
    for size, name in ((86_400, "day"), (3600, "hour"), (60, "minute"), (1, "second")):
        if window.seconds % size == 0:
            count = window.seconds // size
            return f"the last {count} {name}s" if count != 1 else f"the last {name}"
    raise AssertionError("unreachable")


def _period(unit: CalendarUnit, day: date) -> tuple[date, date]:
    """First day of the period that holds *day*, and first day of the next."""
    match unit:
        case "day":
            return day, day + timedelta(days=1)
        case "week":
            monday = day - timedelta(days=day.weekday())
            return monday, monday + timedelta(days=7)
        case "month":
            return day.replace(day=1), _month_after(day.year, day.month)
        case "quarter":
            first = (day.month - 1) // 3 * 3 + 1
            return date(day.year, first, 1), _month_after(day.year, first + 2)
        case "year":
            return date(day.year, 1, 1), date(day.year + 1, 1, 1)


def _month_after(year: int, month: int) -> date:
    return date(year + month // 12, month % 12 + 1, 1)


def _midnight(day: date, zone: ZoneInfo) -> datetime:
    # Where the clocks change at midnight, fold 0 is the first instant of the day, whether 00:00 is skipped or repeated.
    return datetime(day.year, day.month, day.day, tzinfo=zone).astimezone(UTC)


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:  # unknown, a path upwards, a folder of zones
        close = difflib.get_close_matches(name, available_timezones(), n=1)
        hint = f" (did you mean {close[0]}?)" if close else ""
        raise InvalidValue("timezone", expected=f"an IANA name such as UTC or Europe/Berlin{hint}", got=name) from error


def _rolling(value: object, why: str) -> InvalidValue:
    return InvalidValue("window", expected=_ROLLING + (f" ({why})" if why else ""), got=value)
