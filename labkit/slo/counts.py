"""
Frames of counts: what they must be, how they come out of raw counters, and exact sums over any stretch of them.

A frame of counts has the index `time` (UTC, a complete grid, the *end* of each step), the columns `good` and `total`
(events per step) and `attrs["step_s"]`.  A step that nobody counted is nan in both columns: a gap is unknown, not zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from labkit._time import as_utc
from labkit.errors import InvalidValue

__all__ = ["Sums", "checked", "exact", "frame", "from_counters", "increases", "step_s", "sums", "times_ns", "total_of"]

_Floats = npt.NDArray[np.float64]
_NS = 1_000_000_000

# Whole numbers up to here are exact in float64, and so are their sums.
_EXACT_UP_TO = 2**53


@dataclass(frozen=True, slots=True)
class Sums:
    """
    Events of a stretch of time, and how much of it was counted.

    Attributes:
        good, total: events in the steps that were counted.
        known_s: seconds of the stretch that were counted.
        length_s: seconds of the stretch.
    """

    good: Fraction
    total: Fraction
    known_s: Fraction
    length_s: Fraction

    @property
    def bad(self) -> Fraction:
        """Events that broke the indicator."""
        return self.total - self.good

    @property
    def coverage(self) -> Fraction:
        """The fraction of the stretch that was counted: below 1 there are gaps, or the data does not reach so far."""
        return self.known_s / self.length_s


def exact(value: float) -> Fraction:
    """A sum of counts as a fraction: whole as it is, otherwise the decimal that it is written as."""
    return Fraction(int(value)) if float(value).is_integer() else Fraction(repr(float(value)))


def frame(good: Sequence[float], total: Sequence[float], *, end: datetime, step_s: int) -> pd.DataFrame:
    """
    A frame of counts from two sequences; nan in both marks a step that nobody counted.

    Args:
        good: good events per step, in order of time.
        total: all events per step.
        end: end of the last step.
        step_s: length of a step, in seconds.

    Raises:
        InvalidValue: the sequences differ in length or are empty, or the counts cannot be (see `checked`).

    >>> from datetime import UTC
    >>> frame([9, 10], [10, 10], end=datetime(2026, 3, 1, tzinfo=UTC), step_s=60)["good"].tolist()
    [9, 10]
    """
    if len(good) != len(total) or not len(good):
        raise InvalidValue(
            "good and total", expected="two sequences of one length, 1 or more", got=(len(good), len(total))
        )
    index = pd.date_range(end=as_utc(end), periods=len(good), freq=f"{step_s}s", unit="ns", name="time")
    made = pd.DataFrame({"good": list(good), "total": list(total)}, index=index)
    made.attrs["step_s"] = step_s
    return checked(made)


def step_s(counts: pd.DataFrame) -> int:
    """The length of a step of *counts*, in whole seconds, as its `attrs` say."""
    return int(counts.attrs["step_s"])


def times_ns(counts: pd.DataFrame) -> npt.NDArray[np.int64]:
    """The ends of the steps in nanoseconds since 1970 UTC, whatever unit the index has."""
    return np.asarray(pd.DatetimeIndex(counts.index).as_unit("ns").asi8)


def checked(counts: pd.DataFrame) -> pd.DataFrame:
    """
    The same frame, once everything that the arithmetic relies on was found to hold.

    Args:
        counts: index of aware times, every `attrs["step_s"]` seconds; columns `good` and `total`, further ones are
            ignored.  `step_s` is taken from the distance of the first two times when `attrs` lack it.

    Returns:
        The frame with its index in UTC and `attrs["step_s"]`; the argument is not changed.

    Raises:
        InvalidValue: columns are missing, times are naive, out of order or not on a grid, a count is negative or
            infinite, good exceeds total, only one of the two is known, or there is no step at all.
    """
    missing = {"good", "total"} - set(counts.columns)
    if missing:
        expected = "a frame with the columns good and total, in events per step"
        raise InvalidValue("counts", expected=expected, got=list(counts.columns))
    if counts.empty:
        raise InvalidValue(
            "counts", expected="at least one step (no steps is no data, which is not zero events)", got="an empty frame"
        )
    step = _step(counts)
    _check_numbers(counts)
    found = counts.tz_convert("UTC") if str(counts.index.tz) != "UTC" else counts.copy(deep=False)  # type: ignore[attr-defined]
    found.attrs = {**counts.attrs, "step_s": step}
    return found


def _step(counts: pd.DataFrame) -> int:
    index = counts.index
    if not isinstance(index, pd.DatetimeIndex) or index.tz is None:
        raise InvalidValue(
            "counts.index",
            expected='times with a time zone, the end of each step (`counts.tz_localize("UTC")` if they are UTC)',
            got=f"{type(index).__name__} from {index[0]!s}",
        )
    steps = np.diff(times_ns(counts))
    given = counts.attrs.get("step_s", steps[0] / _NS if len(steps) else None)
    if given is None or not given > 0 or float(given) != int(given):
        raise InvalidValue('counts.attrs["step_s"]', expected="whole seconds above 0", got=given)
    off = np.flatnonzero(steps != int(given) * _NS)
    if len(off):
        at = off[0]
        raise InvalidValue(
            "counts.index",
            expected=f"every {int(given)} s, ascending, complete "
            f'(`counts.asfreq("{int(given)}s")` makes the missing steps unknown)',
            got=f"{index[at + 1]!s} after {index[at]!s}",
        )
    return int(given)


def _check_numbers(counts: pd.DataFrame) -> None:
    good, total = (counts[name].to_numpy(dtype=float) for name in ("good", "total"))
    for broken, expected in (
        (np.isnan(good) != np.isnan(total), "both known or both nan in a step"),
        (np.isinf(good) | np.isinf(total), "finite"),
        ((good < 0) | (total < 0), "0 or more (a counter that fell was reset: make counts by counts.from_counters)"),
        (good > total, "good at most total (do both count the same events?)"),
    ):
        if broken.any():
            at = int(np.flatnonzero(broken)[0])
            seen = f"good {good[at]:g}, total {total[at]:g} at {counts.index[at]!s}"
            raise InvalidValue("counts", expected=f"{expected} in every step", got=seen)


def sums(counts: pd.DataFrame, start: datetime, end: datetime) -> Sums:
    """
    Exact sums of the steps that end after *start* and not after *end*, as `increase` over (start, end] means them.

    Args:
        counts: as `checked` returns it.
        start: aware instant; a step that straddles it belongs to the stretch, since its end lies inside.
        end: aware instant.

    Returns:
        `Sums`; its `coverage` is below 1 where steps are unknown or the data does not reach.

    Raises:
        InvalidValue: *end* is not after *start*.
    """
    first, last = as_utc(start), as_utc(end)
    length = Fraction(int((last - first) / pd.Timedelta(microseconds=1)), 1_000_000)
    if length <= 0:
        raise InvalidValue("end", expected=f"after start, which is {first.isoformat()}", got=last.isoformat())
    inside = counts[(counts.index > first) & (counts.index <= last)]
    known = inside["total"].notna()
    covered = min(Fraction(int(known.sum()) * step_s(counts)), length)
    return Sums(total_of(inside["good"]), total_of(inside["total"]), covered, length)


def total_of(column: pd.Series[Any]) -> Fraction:
    """The sum of a column of counts, exactly; unknown steps are left out, and none at all is 0."""
    values = column.dropna().to_numpy()
    if np.issubdtype(values.dtype, np.integer):
        return Fraction(int(values.sum(dtype=object)) if len(values) else 0)
    # Whole numbers add up exactly in float64; those of increase() are not whole, and their decimals are added.
    if (values == np.floor(values)).all() and float(values.sum()) < _EXACT_UP_TO:
        return Fraction(int(values.sum()))
    return sum((exact(value) for value in values), Fraction(0))


def increases(values: Sequence[float] | _Floats) -> _Floats:
    """
    What a raw counter grew by from each sample to the next, resets taken into account.

    Args:
        values: samples of one counter, in order of time; nan where there is none.

    Returns:
        One element per sample.  A fall means that the process began anew at 0, so the new value is the growth: what
        was counted between the last sample and the restart is lost, and can only be too little.  nan for the first
        sample and where the sample or the one before is missing: a gap is unknown.

    Raises:
        InvalidValue: a sample is negative or infinite, which no counter can be.

    >>> increases([5, 8, 2, float("nan"), 9]).tolist()
    [nan, 3.0, 2.0, nan, nan]
    """
    samples = np.asarray(values, dtype=float)
    impossible = samples[(samples < 0) | np.isinf(samples)]
    if len(impossible):
        raise InvalidValue("a sample of a counter", expected="finite and 0 or more", got=float(impossible[0]))
    before = np.concatenate([[np.nan], samples[:-1]])
    grown = samples - before
    return np.where(grown < 0, samples, grown)


def from_counters(good: pd.DataFrame, total: pd.DataFrame) -> pd.DataFrame:
    """
    Counts per step out of raw counters, one column per series, each with its own resets.

    Args:
        good: samples of the counters of good events, on a complete grid of UTC times.
        total: samples of the counters of all events, on the same grid.

    Returns:
        A frame of counts, one row fewer than samples.  A step is nan when any series of either lacks a sample at its
        start or end: the sum of the others would be too small.  A series that appears later counts from its first
        sample.

    Raises:
        InvalidValue: the grids differ, there are fewer than two samples, or the counts cannot be (see `checked`).
    """
    if not good.index.equals(total.index) or len(good) < 2:
        raise InvalidValue(
            "good and total", expected="samples on one grid of times, 2 or more", got=(len(good), len(total))
        )
    made = pd.DataFrame({"good": _growth(good), "total": _growth(total)}, index=good.index).iloc[1:]
    unknown = made.isna().any(axis=1)
    made[unknown] = np.nan
    made.index.name = "time"
    return checked(made)


def _growth(samples: pd.DataFrame) -> Any:
    columns = [_from_first_sample(samples.iloc[:, at].to_numpy(dtype=float)) for at in range(samples.shape[1])]
    return np.sum(columns, axis=0)


def _from_first_sample(values: _Floats) -> _Floats:
    there = np.flatnonzero(~np.isnan(values))
    grown = increases(values)
    # Before its first sample a series did not exist: it adds nothing, and is no gap of the others.
    grown[: there[0] + 1 if len(there) else len(values)] = 0
    return grown
