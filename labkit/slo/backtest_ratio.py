"""
The share of bad events over a window at every instant, to the bit as Prometheus computes it from counters.

Counts per step become the two counters that would have been scraped at the ends of the steps, and `increase()` is
applied to them as Prometheus does it: which samples a window holds, how their difference is extrapolated to the ends of
the window, and where a counter's zero stops that.  Derivation: docs/slo-backtest.md.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd

from labkit.errors import InvalidValue
from labkit.slo.counts import checked, step_s

__all__ = ["Divided", "Range", "Ratios", "error_ratio", "range_semantics"]

Range = Literal["closed", "left_open"]
Divided = Literal["bad", "good"]
Floats = np.ndarray[Any, np.dtype[np.float64]]
Ints = np.ndarray[Any, np.dtype[np.int64]]

_VERSION = re.compile(r"v?(\d+)\.(\d+)(?:\.\d+)?(?:[-+].*)?")


def range_semantics(version: str) -> Range:
    """
    Which samples a range selector holds in this version of Prometheus.

    Up to 2.x `[5m]` holds the samples in [t - 5m, t], since 3.0 those in (t - 5m, t]: on a grid of one minute six, now
    five.

    Args:
        version: as the server says it: `2.42.0`, `v3.5.0`, `3.0.0-beta.1`.

    Raises:
        InvalidValue: it is not a version.

    >>> range_semantics("2.42.0+ds"), range_semantics("3.5.0")
    ('closed', 'left_open')
    """
    found = _VERSION.fullmatch(version.strip())
    if found is None:
        raise InvalidValue("version", expected="a version of Prometheus, such as 2.42.0 or 3.5.0", got=version)
    return "closed" if int(found[1]) < 3 else "left_open"


def error_ratio(
    counts: pd.DataFrame,
    window_s: int,
    *,
    closed: Range = "left_open",
    divided: Divided = "bad",
    fresh: bool = True,
) -> pd.Series:
    """
    The share of bad events in the last *window_s* seconds at the end of every step, as Prometheus would record it.

    Args:
        counts: as `counts.checked` takes it; a step that is nan has no sample at its end, and adds nothing.
        window_s: length of the window, in seconds.
        closed: which samples the window holds: see `range_semantics`.
        divided: what the rule divides by the total: `bad / total`, or `1 - good / total`, which rounds differently.
        fresh: whether the counters were 0 at the start of *counts*, as in a test or after a restart.  Prometheus does
            not extrapolate below a counter's zero, which matters until the window has left it behind.

    Returns:
        Fractions on the index of *counts*, float64; nan where Prometheus would have no result (fewer than two samples
        in the window) or NaN (no events).

    Raises:
        InvalidValue: *counts* is not such a frame, or another value is not allowed.

    >>> minutes = pd.date_range("2026-03-01 00:01", periods=4, freq="min", tz="UTC", name="time")
    >>> counts = pd.DataFrame({"good": [100, 90, 100, 100], "total": 100}, index=minutes)
    >>> error_ratio(counts, 120, closed="closed").tolist()
    [0.0, 0.05, 0.05, 0.0]
    """
    ratios = Ratios(counts, closed=closed, divided=divided, fresh=fresh)
    return pd.Series(ratios.over(window_s, 0, len(counts)), index=counts.index, name="error_ratio")


@dataclass(frozen=True, slots=True)
class _Samples:
    """Which samples the windows at some instants hold, and how far these are from the ends of their windows."""

    first: Ints
    last: Ints
    number: Ints
    to_start_s: Floats
    to_end_s: Floats
    span_s: Floats


class Ratios:
    """
    Ratios over any window of one frame of counts, for any stretch of its rows: what `error_ratio` gives, in parts.

    Args:
        counts, closed, divided, fresh: as in `error_ratio`.
    """

    def __init__(self, counts: pd.DataFrame, *, closed: Range, divided: Divided = "bad", fresh: bool = True) -> None:
        for name, value, allowed in (("closed", closed, Range), ("divided", divided, Divided)):
            if value not in get_args(allowed):
                raise InvalidValue(name, expected=f"one of {', '.join(get_args(allowed))}", got=value)
        counts = checked(counts)
        self.step_s = step_s(counts)
        self.closed, self.divided, self.fresh = closed, divided, fresh
        good, total = (counts[name].to_numpy(dtype=float) for name in ("good", "total"))
        seen = ~np.isnan(total)
        # Sample 0 is the reading before the first step: a step's count is the difference of two readings.
        self.part = _counter(total - good if divided == "bad" else good, seen)
        self.total = _counter(total, seen)
        self._plain: dict[int, int] = {}
        self._gaps = None if seen.all() else _Gaps.of(np.concatenate([[True], seen]))

    def steps(self, window_s: int) -> int:
        """
        The number of steps between the first and the last sample of a full window without gaps; below 1 it is blind.

        Raises:
            InvalidValue: *window_s* is not above 0.
        """
        if not window_s > 0:
            raise InvalidValue("window_s", expected="a length of time above 0, in seconds", got=window_s)
        return int(window_s // self.step_s if self.closed == "closed" else (window_s - 1) // self.step_s)

    def over(self, window_s: int, start: int, stop: int) -> Floats:
        """The ratios at the rows from *start* up to before *stop*; nan where there is none."""
        steps = self.steps(window_s)
        # Until here a window is not full, or the zero of a counter may lie in reach: sample by sample.
        plain = stop if steps < 1 or self._gaps else min(max(self._plain_from(window_s, steps), start), stop)
        ratio = np.empty(stop - start)
        if plain > start:
            ratio[: plain - start] = self._by_sample(window_s, steps, np.arange(start + 1, plain + 1))
        if plain < stop:
            last, first = slice(plain + 1, stop + 1), slice(plain + 1 - steps, stop + 1 - steps)
            factor = window_s / (steps * self.step_s)
            ratio[plain - start :] = self._divide(
                (self.part[last] - self.part[first]) * factor, (self.total[last] - self.total[first]) * factor
            )
        return ratio

    def _divide(self, part: Floats, total: Floats) -> Floats:
        with np.errstate(invalid="ignore", divide="ignore"):
            share: Floats = part / total
        return share if self.divided == "bad" else 1 - share

    def _plain_from(self, window_s: int, steps: int) -> int:
        """The first row from which windows are full and no counter's zero is in reach of the extrapolation."""
        if window_s not in self._plain:
            self._plain[window_s] = self._find_plain(window_s, steps)
        return self._plain[window_s]

    def _find_plain(self, window_s: int, steps: int) -> int:
        reach_s = window_s - steps * self.step_s
        if not self.fresh or reach_s == 0:
            return steps - 1
        behind = steps
        for counter in (self.part, self.total):
            most = float(np.max(counter[steps:] - counter[:-steps], initial=0))
            # Zero is in reach while counter[first] / increase < reach / (steps * step); counters only grow.
            beyond = int(np.searchsorted(counter, reach_s * most / (steps * self.step_s), side="right"))
            behind = max(behind, beyond + steps)
        return behind

    def _by_sample(self, window_s: int, steps: int, at: Ints) -> Floats:
        samples = self._samples(window_s, steps, at)
        enough = samples.number >= 2
        ratio = self._divide(self._increase(self.part, samples), self._increase(self.total, samples))
        return np.where(enough, ratio, np.nan)

    def _samples(self, window_s: int, steps: int, at: Ints) -> _Samples:
        oldest = np.maximum(at - steps, 0)
        if self._gaps is None:
            first, last, number = oldest, at, at - oldest + 1
        else:
            first, last, number = self._gaps.within(oldest, at)
        to_start_s = (window_s - (at - first) * self.step_s).astype(float)
        to_end_s = ((at - last) * self.step_s).astype(float)
        return _Samples(first, last, number, to_start_s, to_end_s, ((last - first) * self.step_s).astype(float))

    def _increase(self, counter: Floats, samples: _Samples) -> Floats:
        """`increase()` of Prometheus 2.42 (closed) or 3.x (left-open), operation by operation."""
        begin = counter[samples.first]
        increase: Floats = counter[samples.last] - begin
        start_s, end_s, span_s = samples.to_start_s, samples.to_end_s, samples.span_s
        with np.errstate(invalid="ignore", divide="ignore"):
            mean_s = span_s / (samples.number - 1)
            near_s = mean_s * 1.1
            zero_s = np.where(increase > 0, span_s * (begin / increase), np.inf) if self.fresh else np.inf
            if self.closed == "closed":
                start_s = np.minimum(start_s, zero_s)
                start_s = np.where(start_s < near_s, start_s, mean_s / 2)
            else:
                start_s = np.where(start_s < near_s, start_s, mean_s / 2)
                start_s = np.minimum(start_s, zero_s)
            end_s = np.where(end_s < near_s, end_s, mean_s / 2)
            return increase * ((span_s + start_s + end_s) / span_s)


@dataclass(frozen=True, slots=True)
class _Gaps:
    """Which samples are there, prepared so that the first and the last of a stretch are looked up, not searched."""

    following: Ints
    preceding: Ints
    counted: Ints

    @classmethod
    def of(cls, seen: np.ndarray[Any, np.dtype[np.bool_]]) -> _Gaps:
        at = np.arange(len(seen))
        following = np.minimum.accumulate(np.where(seen, at, len(seen) - 1)[::-1])[::-1]
        return cls(following, np.maximum.accumulate(np.where(seen, at, 0)), np.cumsum(seen))

    def within(self, oldest: Ints, newest: Ints) -> tuple[Ints, Ints, Ints]:
        """The first and the last sample from *oldest* to *newest* and how many there are; the same twice if none."""
        first, last = self.following[oldest], self.preceding[newest]
        number = np.where(first <= last, self.counted[last] - self.counted[first] + 1, 0)
        return np.where(number > 0, first, newest), np.where(number > 0, last, newest), number


def _counter(counts: Floats, seen: np.ndarray[Any, np.dtype[np.bool_]]) -> Floats:
    return np.concatenate([[0.0], np.cumsum(np.where(seen, counts, 0.0))])
