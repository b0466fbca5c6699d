"""Instants and durations: always UTC, always with a unit."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

__all__ = ["as_utc", "format_duration", "parse_duration", "utc_now"]

# The units of Prometheus durations, in seconds (https://prometheus.io/docs/prometheus/latest/querying/basics/).
_UNITS_S = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800, "y": 31_536_000}
_DURATION = re.compile(r"(?:(\d+)y)?(?:(\d+)w)?(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m(?!s))?(?:(\d+)s)?(?:(\d+)ms)?")


def utc_now() -> datetime:
    """The present instant, timezone-aware."""
    return datetime.now(UTC)


def as_utc(instant: datetime) -> datetime:
    """
    The same instant in UTC.

    Raises:
        ValueError: *instant* has no time zone; guessing one would move the data.

    >>> as_utc(datetime.fromisoformat("2026-03-01T01:00:00+01:00")).isoformat()
    '2026-03-01T00:00:00+00:00'
    """
    if instant.tzinfo is None:
        raise ValueError(
            f"{instant.isoformat()} has no time zone; write it as UTC, for example {instant.isoformat()}+00:00"
        )
    return instant.astimezone(UTC)


def parse_duration(text: str) -> float:
    """
    Seconds in a duration written as Prometheus writes it: `90s`, `5m`, `1h30m`, `30d`.

    Raises:
        ValueError: *text* is not such a duration, or is zero; the message lists the units.

    >>> parse_duration("1h30m")
    5400.0
    """
    found = _DURATION.fullmatch(text.strip())
    if not found or not any(found.groups()):
        raise ValueError(
            f"{text!r} is not a duration; write a number and a unit, as in 90s, 5m, 1h30m, 30d (units: ms s m h d w y)"
        )
    order = ("y", "w", "d", "h", "m", "s", "ms")
    seconds = sum(int(number) * _UNITS_S[unit] for unit, number in zip(order, found.groups(), strict=True) if number)
    if seconds <= 0:
        raise ValueError(f"{text!r} is no time at all; a duration must be longer than zero")
    return float(seconds)


def format_duration(seconds: float | timedelta) -> str:
    """
    A duration for people, with at most two units.

    >>> format_duration(5400), format_duration(0.25), format_duration(42)
    ('1 h 30 min', '250 ms', '42 s')
    """
    value = seconds.total_seconds() if isinstance(seconds, timedelta) else float(seconds)
    if value < 1:
        return f"{value * 1000:.0f} ms"
    if value < 60:
        return f"{value:.3g} s"
    for size, name, next_size, next_name in ((86_400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        # Rounded first: 86,399 s are a day, not 24 h.
        rounded = round(value / next_size) * next_size
        if rounded >= size:
            whole, rest = divmod(rounded, size)
            return f"{whole:.0f} {name}" + (f" {rest / next_size:.0f} {next_name}" if rest else "")
    raise AssertionError("unreachable")
