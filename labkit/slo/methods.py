"""
Three ways to count bad: by events, by slices of time that are good or bad as a whole, by the slices' mean ratio.

Each turns a frame of counts into a frame of *units* of the same shape, and everything after that (budgets, burn rates,
tracking) is the same arithmetic:

    occurrences         a unit is an event                      every event weighs the same
    timeslices          a unit is a slice; good or bad          every slice weighs the same, however few its events
    ratio-timeslices    a unit is a slice; its share of good    every slice weighs the same, and half bad is half

The names are those of OpenSLO (https://github.com/OpenSLO/OpenSLO).  They agree where every slice has the same number
of events and each is either all good or all bad; docs/slo-formulas.md says why, a test holds it.
"""

from __future__ import annotations

from datetime import datetime
from fractions import Fraction
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import pandas as pd

from labkit._time import as_utc
from labkit.errors import InvalidValue
from labkit.slo.arithmetic import Budget, as_objective, budget
from labkit.slo.counts import checked, exact, step_s, times_ns, total_of
from labkit.slo.model import Budgeting, Method, Slo

__all__ = ["budget_of", "slices", "three_ways", "units"]

_NS = 1_000_000_000
_Good = npt.NDArray[Any]


def slices(counts: pd.DataFrame, slice_s: int) -> pd.DataFrame:
    """
    The same events in longer steps, on the grid of whole slices since 1970 UTC.

    Args:
        counts: events per step.
        slice_s: length of a slice, in seconds; a multiple of the counts' step.

    Returns:
        A frame of counts with `step_s` = *slice_s*.  A slice of which any step is unknown is nan: its other steps do
        not speak for it.  Slices that reach beyond the edges of the data are left out; if there are no others, what is
        left is nan.

    Raises:
        InvalidValue: the slice is no multiple of the step, or the counts cannot be.
    """
    found = checked(counts)
    step = step_s(found)
    if slice_s <= 0 or slice_s % step:
        raise InvalidValue("slice_s", expected=f"a multiple of the counts' step, which is {step} s", got=slice_s)
    if slice_s == step:
        return found
    ends = -(-times_ns(found) // (slice_s * _NS)) * (slice_s * _NS)
    grouped = found[["good", "total"]].groupby(ends)
    merged = grouped.sum().astype(float).where(grouped.count() == slice_s // step)
    merged.index = pd.DatetimeIndex(merged.index, tz="UTC", name="time")
    inside = (merged.index <= found.index[-1]) & (merged.index >= found.index[0] + pd.Timedelta(seconds=slice_s - step))
    if inside.any():
        merged = merged[inside]
    result = merged.astype(np.int64) if _whole(found) and not merged.isna().any(axis=None) else merged
    result.attrs = {**found.attrs, "step_s": slice_s}
    return result


def _whole(counts: pd.DataFrame) -> bool:
    return all(pd.api.types.is_integer_dtype(counts[name].dtype) for name in ("good", "total"))


def units(counts: pd.DataFrame, budgeting: Budgeting) -> pd.DataFrame:
    """
    What the budget counts, per step or slice, as a frame of counts.

    Args:
        counts: events per step.
        budgeting: the method; for the slices also their length, and for timeslices the fraction of good events from
            which on a slice is good.

    Returns:
        Columns `good` and `total` in units.  Slices without events are no unit, neither good nor bad: no traffic is
        unknown.  Slices that are not known as a whole are nan.

    Raises:
        InvalidValue: timeslices without a target in (0, 1], a slice that the step does not divide, or counts that
            cannot be.
    """
    if budgeting.method == "occurrences":
        return checked(counts)
    sliced = slices(counts, budgeting.slice_s)
    good, total = (sliced[name].to_numpy() for name in ("good", "total"))
    busy = np.asarray(total > 0)
    if budgeting.method == "timeslices":
        weight = _reaches(good, total, _target(budgeting)).astype(float)
    else:
        with np.errstate(invalid="ignore", divide="ignore"):
            weight = good / total
    unknown = np.isnan(total.astype(float))
    made = pd.DataFrame(
        {
            "good": np.where(unknown, np.nan, np.where(busy, weight, 0.0)),
            "total": np.where(unknown, np.nan, busy.astype(float)),
        },
        index=sliced.index,
    )
    made.attrs = dict(sliced.attrs)
    return made


def _target(budgeting: Budgeting) -> Fraction:
    target = budgeting.slice_target
    if target is None or not 0 < target <= 1:
        expected = "the fraction of good events from which on a slice is good, above 0 and at most 1"
        raise InvalidValue("slice_target", expected=expected, got=target)
    return Fraction(target)


def _reaches(good: _Good, total: _Good, target: Fraction) -> npt.NDArray[np.bool_]:
    """Whether good / total >= target, decided on whole numbers: 0.999 of 1000 is exactly 999."""
    close = np.asarray(np.abs(good - float(target) * total) <= 1e-6 * total + 1e-6)
    reached = np.asarray(good >= float(target) * total)
    # Floats decide what is far from the border, fractions the rest.
    for at in np.flatnonzero(close):
        reached[at] = exact(float(good[at])) >= target * exact(float(total[at]))
    return reached


def budget_of(counts: pd.DataFrame, slo: Slo, start: datetime, end: datetime) -> Budget:
    """
    The budget of the units of *slo* in (start, end], exactly.

    Args:
        counts: events per step.
        slo: gives the objective and the method.
        start: aware instant; slices that reach beyond it are left out.
        end: aware instant.

    Returns:
        A `Budget` in events or slices; without any, its ratios are None.

    Raises:
        InvalidValue: as for `units`, or *end* is not after *start*.
    """
    found = checked(counts)
    first, last = as_utc(start), as_utc(end)
    if not last > first:
        raise InvalidValue("end", expected=f"after start, which is {first.isoformat()}", got=last.isoformat())
    return _budget(found[(found.index > first) & (found.index <= last)], slo.budgeting, slo.objective)


def _budget(counts: pd.DataFrame, budgeting: Budgeting, objective: Fraction | float) -> Budget:
    if counts.empty:
        return budget(0, 0, objective)
    if budgeting.method != "ratio-timeslices":
        found = units(counts, budgeting)
        total = total_of(found["total"])
        return budget(total - total_of(found["good"]), total, objective)
    sliced = slices(counts, budgeting.slice_s)
    busy = sliced[sliced["total"] > 0]
    # Ratios with one denominator are added first: thousands of different ones would make numbers of many kilobytes.
    bad = (busy["total"] - busy["good"]).groupby(busy["total"]).sum()
    shares = (exact(number) / exact(total) for total, number in zip(bad.index, bad, strict=True))
    return budget(sum(shares, Fraction(0)), len(busy), objective)


def three_ways(
    counts: pd.DataFrame,
    objective: Fraction | float,
    *,
    slice_s: int = 60,
    slice_target: Fraction | float | None = None,
) -> pd.DataFrame:
    """
    The same counts under the three methods, side by side.

    Args:
        counts: events per step.
        objective: fraction of good units that is promised, in (0, 1).
        slice_s: length of a slice, in seconds.
        slice_target: fraction of good events from which on a slice is good; the objective if None.

    Returns:
        One row per method: `bad`, `total` (units), `achieved`, `spent` (budgets) as floats; nan without units.

    Raises:
        InvalidValue: as for `units`.
    """
    promised = as_objective(objective)
    target = promised if slice_target is None else Fraction(str(slice_target))
    found = checked(counts)
    rows = {}
    for method in get_args(Method):
        exactly = _budget(found, Budgeting(method, slice_s, target), promised)
        achieved, spent = exactly.achieved, exactly.spent
        rows[method] = {
            "bad": float(exactly.bad),
            "total": float(exactly.total),
            "achieved": np.nan if achieved is None else float(achieved),
            "spent": np.nan if spent is None else float(spent),
        }
    return pd.DataFrame.from_dict(rows, orient="index")
