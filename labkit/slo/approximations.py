"""
What Prometheus and its recording rules make of counts, beside the counts: three approximations and their size.

    increase(times, samples, at_s=..., window_s=3600)     growth between samples, stretched to the ends of the window
    average_of_ratios(counts)                             every step weighs the same, however few its events
    sampled_rule(counts, rule_s=300, every_s=60)          the average of a recorded ratio over short windows

One window at a time, with its parts, to be read; whole histories to the bit are in `backtest_ratio`.  Derivations:
docs/slo-formulas.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import numpy.typing as npt
import pandas as pd

from labkit._time import as_utc
from labkit.errors import InvalidValue
from labkit.slo.backtest_ratio import Range, error_ratio
from labkit.slo.counts import checked, increases, step_s, times_ns

__all__ = ["Increase", "average_of_ratios", "counters", "increase", "sampled_rule"]

_Floats = npt.NDArray[np.float64]

# A window's end is taken to be reached by the series when it is nearer than this many mean distances of samples.
_NEAR = 1.1


@dataclass(frozen=True, slots=True)
class Increase:
    """
    What `increase()` returns for one counter and window, taken apart.

    Attributes:
        grown: growth from the first to the last sample in the window, with resets.
        samples: how many there are.
        span_s: seconds from the first to the last.
        before_s, after_s: seconds by which the growth is stretched towards the start and the end of the window.
    """

    grown: float
    samples: int
    span_s: float
    before_s: float
    after_s: float

    @property
    def factor(self) -> float:
        """What the growth is multiplied with: 1 when samples lie on both ends of the window."""
        return (self.span_s + self.before_s + self.after_s) / self.span_s

    @property
    def value(self) -> float:
        """What Prometheus returns: growth times factor, mostly no whole number."""
        return self.grown * self.factor


def increase(
    times_s: Sequence[float] | _Floats,
    samples: Sequence[float] | _Floats,
    *,
    at_s: float,
    window_s: float,
    closed: Range = "left_open",
) -> Increase | None:
    """
    The growth of a counter over the window that ends at *at_s*, as `increase()` of Prometheus computes it.

    Args:
        times_s: when the samples were taken, in seconds, ascending.
        samples: values of the counter; nan where there is none.
        at_s: end of the window, on the same clock.
        window_s: length of the window, in seconds.
        closed: which samples the window holds: "closed" those from at - window up to at (Prometheus 2), "left_open"
            those after at - window (Prometheus 3).

    Returns:
        The parts; None with fewer than two samples in the window, where Prometheus has no result.

    Raises:
        InvalidValue: *window_s* is not above 0, or a sample is negative.

    >>> aligned = increase([0, 60, 120], [10, 20, 30], at_s=120, window_s=120, closed="closed")
    >>> aligned.value, increase([0, 60, 120], [10, 20, 30], at_s=120, window_s=120).value
    (20.0, 20.0)
    """
    if not window_s > 0:
        raise InvalidValue("window_s", expected="a length of time above 0, in seconds", got=window_s)
    times, values = np.asarray(times_s, dtype=float), np.asarray(samples, dtype=float)
    start_s = at_s - window_s
    inside = (times >= start_s if closed == "closed" else times > start_s) & (times <= at_s) & ~np.isnan(values)
    times, values = times[inside], values[inside]
    if len(times) < 2:
        return None
    grown, span = float(np.nansum(increases(values))), float(times[-1] - times[0])
    mean = span / (len(times) - 1)
    to_start, to_end = float(times[0]) - start_s, at_s - float(times[-1])
    # A counter was never below 0, so the line through its samples is not continued beyond its zero.
    to_zero = span * float(values[0]) / grown if grown > 0 else np.inf
    # Prometheus 2.42 looks at the zero first, its later versions at the distance: they differ while a series is new.
    early = closed == "closed"
    before = _stretch(min(to_start, to_zero), mean) if early else min(_stretch(to_start, mean), to_zero)
    after = _stretch(to_end, mean)
    return Increase(grown, len(times), span, before, after)


def _stretch(gap_s: float, mean_s: float) -> float:
    """How far beyond its last sample a series is continued: to the end of the window if that is near."""
    return gap_s if gap_s < _NEAR * mean_s else mean_s / 2


def counters(counts: pd.DataFrame, *, fresh: bool = False) -> tuple[_Floats, _Floats, _Floats]:
    """
    The counters that would have been scraped at the ends of the steps.

    Args:
        counts: events per step; a step that is nan has no sample at its end, and adds nothing.
        fresh: whether they were 0 at the start of the counts; otherwise they have counted for long.

    Returns:
        Times in seconds since 1970, samples of the bad events, samples of all events; one more than there are steps.
    """
    found = checked(counts)
    total = found["total"].to_numpy(dtype=float)
    bad = total - found["good"].to_numpy(dtype=float)
    ends = times_ns(found) / 1e9
    times = np.concatenate([[ends[0] - step_s(found)], ends])
    started = 0.0 if fresh else 10.0 * (float(np.nansum(total)) + 1)

    def samples(events: _Floats) -> _Floats:
        running = started + np.cumsum(np.nan_to_num(events))
        return np.concatenate([[started], np.where(np.isnan(events), np.nan, running)])

    return times, samples(bad), samples(total)


def average_of_ratios(counts: pd.DataFrame) -> float:
    """
    The mean over the steps of each step's share of bad events: what `avg_over_time` of a ratio returns.

    A minute at night weighs as much as a minute at noon, which the share of all events does not let it.

    Returns:
        A fraction; nan without events.  Steps without events have no ratio and are left out.

    >>> minutes = pd.date_range("2026-03-01 00:01", periods=2, freq="min", tz="UTC", name="time")
    >>> average_of_ratios(pd.DataFrame({"good": [0, 1000], "total": [10, 1000]}, index=minutes))
    0.5
    """
    found = checked(counts)
    busy = found[found["total"] > 0]
    return float((1 - busy["good"] / busy["total"]).mean())


def sampled_rule(
    counts: pd.DataFrame, *, rule_s: int, every_s: int, start: datetime | None = None, closed: Range = "left_open"
) -> float:
    """
    The mean of a recorded ratio over short windows, sampled at regular instants: `avg_over_time(ratio_5m[30d])`.

    Besides weighing instants instead of events, the first windows reach back before the stretch, and windows that
    overlap count an event more than once, those that do not touch leave events out.

    Args:
        counts: events per step of the stretch, with *rule_s* more before it if that is known.
        rule_s: window of the recorded ratio, in seconds; Prometheus needs two samples in it.
        every_s: seconds between evaluations, the last at the end of the counts; a multiple of the step.
        start: instants up to here are not sampled, they only fill the first windows; all count if None.
        closed: as for `increase`.

    Returns:
        A fraction; nan where no window holds two samples and an event.

    Raises:
        InvalidValue: *every_s* is no multiple of the step.
    """
    step = step_s(checked(counts))
    if every_s <= 0 or every_s % step:
        raise InvalidValue("every_s", expected=f"a multiple of the counts' step, which is {step} s", got=every_s)
    recorded = error_ratio(counts, rule_s, closed=closed, fresh=False)
    if start is not None:
        recorded = recorded[recorded.index > as_utc(start)]
    return float(recorded.iloc[:: -(every_s // step)].mean())
