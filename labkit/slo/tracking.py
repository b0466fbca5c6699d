"""
Budgets over time: what remains at each instant, how fast it goes, when it ends, which incident spent what.

    remaining(counts, slo)                         the budget at the end of every step, each with a window of its own
    burn_down(counts, slo)                         one window from its start to now: from 100 % down to what is left
    burn_rates(counts, 0.999, [3600, 21_600])      burn rates over windows that end at every step
    time_to_exhaustion(counts, slo)                with what rolls off the window: "in 2 d 2 h", "never", ...
    spent_per_incident(counts, incidents, 0.999)   adds up to what the whole stretch spent

All sums are running sums of counts.  A gap is unknown: it adds nothing, and `coverage` says how much of a window was
counted.  Formulas: docs/slo-formulas.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from labkit._time import as_utc, format_duration
from labkit.errors import InvalidValue
from labkit.slo.arithmetic import Exhaustion, as_objective, exhaustion
from labkit.slo.counts import checked, exact, step_s, sums, times_ns, total_of
from labkit.slo.methods import units
from labkit.slo.model import Calendar, Rolling, Slo, Window
from labkit.slo.windows import bounds

__all__ = ["burn_down", "burn_rates", "closing", "remaining", "spent_per_incident", "time_to_exhaustion"]

_NS = 1_000_000_000
_Floats = npt.NDArray[np.float64]
_Ints = npt.NDArray[np.int64]


def remaining(counts: pd.DataFrame, slo: Slo) -> pd.DataFrame:
    """
    The error budget of *slo* at the end of every step: what its window had spent and what was left.

    The budget is that of the whole period.  In a rolling window that is the window itself; in a calendar period the
    share of the period that has passed has its share of the traffic, so `spent = burn * elapsed / period`.

    Args:
        counts: events per step; for slices, any step that divides them.
        slo: objective, window and method.

    Returns:
        Index `time` (end of each step or slice).  Columns: `good`, `total` (units in the window so far), `burn` (over
        the window so far), `spent` (budgets), `remaining` (1 - spent; negative when overspent), `coverage` (fraction of
        the window so far that was counted: below 1 at the edge of the data and after gaps, where the rest is taken to
        be like what is known).  nan where the window has no events.  Attributes: `step_s`, `objective`, `slo`.

    Raises:
        InvalidValue: the counts cannot be, or the window is shorter than a step.

    >>> from labkit.slo.counts import frame
    >>> from labkit.slo.model import EventSli
    >>> day = frame([99] * 24, [100] * 24, end=datetime(2026, 3, 2, tzinfo=UTC), step_s=3600)
    >>> slo = Slo("shop", "gateway", Fraction(98, 100), Calendar("day"), EventSli("t", good="g"))
    >>> remaining(day, slo)["remaining"].round(3).tolist()[::12]
    [0.979, 0.729]
    """
    found = units(counts, slo.budgeting)
    ends, step = times_ns(found), step_s(found)
    starts, period_ns = _windows(slo.window, ends, step)
    elapsed = ends - starts
    first = np.searchsorted(ends, starts, side="right")
    good, total, known = (_window_sums(values, first) for values in (*_columns(found), _known(found)))
    with np.errstate(invalid="ignore", divide="ignore"):
        burn = (total - good) / total / float(1 - as_objective(slo.objective))
    spent = burn * (elapsed / period_ns)
    coverage = np.minimum(known * step * _NS / elapsed, 1.0)
    columns = {"good": good, "total": total, "burn": burn, "spent": spent, "remaining": 1 - spent}
    tracked = pd.DataFrame({**columns, "coverage": coverage}, index=found.index)
    tracked.attrs = {"step_s": step, "objective": float(slo.objective), "slo": slo.name}
    return tracked


def _columns(found: pd.DataFrame) -> tuple[_Floats, _Floats]:
    good, total = (np.nan_to_num(found[name].to_numpy(dtype=float)) for name in ("good", "total"))
    return good, total


def _known(found: pd.DataFrame) -> _Floats:
    return np.asarray(found["total"].notna(), dtype=float)


def _window_sums(values: _Floats, first: _Ints) -> _Floats:
    """Sums of values[first[i]] up to values[i]."""
    running = np.concatenate([[0.0], np.cumsum(values)])
    return np.asarray(running[1:] - running[first])


def _windows(window: Window, ends: _Ints, step: int) -> tuple[_Ints, _Ints]:
    """Start of the window and length of its period for each end of a step, in nanoseconds."""
    if isinstance(window, Rolling):
        if window.seconds < step:
            raise InvalidValue("window", expected=f"at least one step of the counts, {step} s", got=window.seconds)
        length = np.full(len(ends), window.seconds * _NS)
        return ends - length, length
    edges = _calendar_edges(window, ends)
    # A step belongs to the period in which it ends; the one that ends at midnight is the last of its day.
    at = np.searchsorted(edges, ends, side="left")
    return edges[at - 1], edges[at] - edges[at - 1]


def _calendar_edges(window: Calendar, ends: _Ints) -> _Ints:
    start, end = bounds(window, datetime.fromtimestamp((ends[0] - 1) // _NS, UTC))
    edges = [start, end]
    while _ns(edges[-1]) < ends[-1]:
        edges.append(bounds(window, edges[-1])[1])
    return np.array([_ns(edge) for edge in edges], dtype=np.int64)


def _ns(instant: datetime) -> int:
    return int(pd.Timestamp(instant).as_unit("ns").value)


def burn_down(counts: pd.DataFrame, slo: Slo, *, at: datetime | None = None) -> pd.DataFrame:
    """
    How the budget of one window was spent, from its start to the instant *at*.

    Args:
        counts: events per step.
        slo: objective, window and method.
        at: the instant; the end of the counts if None.

    Returns:
        Index `time`: the start of the window, then the end of each step.  Columns: `spent` (budgets of the whole
        window by the bad units so far, which only grows), `remaining` (1 - spent), `coverage` (fraction of the time
        since the start that was counted).  Steps that nobody counted are nan, and so is all without a unit.  The last
        row has the `remaining` that the function of that name gives the same instant.

    Raises:
        InvalidValue: the counts cannot be.

    >>> from labkit.slo.counts import frame
    >>> from labkit.slo.model import EventSli
    >>> made = frame([99, 100, 98], [100, 100, 100], end=datetime(2026, 3, 2, 3, tzinfo=UTC), step_s=3600)
    >>> slo = Slo("shop", "gateway", Fraction(9, 10), Rolling(3 * 3600), EventSli("t", good="g"))
    >>> burn_down(made, slo)["remaining"].round(3).tolist()
    [1.0, 0.967, 0.967, 0.9]
    """
    found, now, start, end = _now(counts, slo, at)
    inside = found[(found.index > start) & (found.index <= now)]
    step = step_s(found)
    passed = _seconds(now - start) / _seconds(end - start)
    # The units that the whole window will have, if the rest of a calendar period is like what has passed.
    units_in_all = total_of(inside["total"]) / passed
    allowed = float((1 - as_objective(slo.objective)) * units_in_all) or np.nan
    known = inside["total"].notna()
    spent = ((inside["total"] - inside["good"]).fillna(0).cumsum() / allowed).where(known)
    since_s = (times_ns(inside) - _ns(start)) / _NS
    tracked = pd.DataFrame({"spent": spent, "coverage": np.minimum(known.cumsum() * step / since_s, 1.0)})
    first = pd.DataFrame(
        {"spent": [0.0 * allowed], "coverage": [1.0]}, index=pd.DatetimeIndex([start], name="time").as_unit("ns")
    )
    tracked = pd.concat([first, tracked])
    tracked.insert(1, "remaining", 1 - tracked["spent"])
    tracked.attrs = {"step_s": step, "objective": float(slo.objective), "slo": slo.name}
    return tracked


def _now(counts: pd.DataFrame, slo: Slo, at: datetime | None) -> tuple[pd.DataFrame, datetime, datetime, datetime]:
    """The units, the instant, and the start and end of the window that it closes or lies in."""
    found = units(counts, slo.budgeting)
    now = as_utc(at if at is not None else counts.index[-1].to_pydatetime())
    return (found, now, *closing(slo.window, now))


def closing(window: Window, at: datetime) -> tuple[datetime, datetime]:
    """
    Start and end of the window to which the step that ends at *at* belongs.

    As `windows.bounds`, except at an instant between two calendar periods: it closes the earlier one.

    Raises:
        ValueError: *at* has no time zone.

    >>> [f"{edge:%d %H:%M}" for edge in closing(Calendar("day"), datetime(2026, 3, 2, tzinfo=UTC))]
    ['01 00:00', '02 00:00']
    """
    return bounds(window, at - timedelta(microseconds=1) if isinstance(window, Calendar) else at)


def burn_rates(counts: pd.DataFrame, objective: Fraction | float, windows_s: Sequence[int]) -> pd.DataFrame:
    """
    Burn rates over windows that end at every step.

    Args:
        counts: events per step.
        objective: fraction of good events that is promised, in (0, 1).
        windows_s: lengths of the windows, in seconds; a window takes the steps that end inside it.

    Returns:
        Index as *counts*; one float column per window, named by its seconds.  nan where the window has no events;
        windows that reach before the data, or over gaps, use what is known.

    Raises:
        InvalidValue: a window is shorter than a step, or the counts cannot be.
    """
    found = checked(counts)
    ends, (good, total) = times_ns(found), _columns(found)
    rates: dict[int, _Floats] = {}
    for length in windows_s:
        starts, _ = _windows(Rolling(length), ends, step_s(found))
        first = np.searchsorted(ends, starts, side="right")
        all_events = _window_sums(total, first)
        with np.errstate(invalid="ignore", divide="ignore"):
            ratio = (all_events - _window_sums(good, first)) / all_events
        rates[length] = ratio / float(1 - as_objective(objective))
    return pd.DataFrame(rates, index=found.index).rename_axis(columns="window_s")


def time_to_exhaustion(
    counts: pd.DataFrame, slo: Slo, *, recent_s: int = 3600, at: datetime | None = None
) -> Exhaustion:
    """
    When the budget is used up if the last *recent_s* seconds go on as they are.

    In a rolling window bad events also leave, at the pace at which they came: a budget that is nearly gone may never
    run out, and one with a burn above 1 always does.  In a calendar period nothing leaves, and the period ends.

    Args:
        counts: events per step, as far back as the window reaches; what is missing is taken to be like what is known.
        slo: objective, window and method.
        recent_s: the pace is that of so many last seconds.
        at: the present instant; the end of the counts if None.

    Returns:
        An `Exhaustion`.  Exhausted means that as many units are bad as the budget allows.

    Raises:
        InvalidValue: the counts cannot be, or *at* is before their first step.
    """
    found, now, start, end = _now(counts, slo, at)
    window, recent = sums(found, start, now), sums(found, now - timedelta(seconds=recent_s), now)
    if not window.total or not recent.total:
        return exhaustion(None, None, 1)
    promised = as_objective(slo.objective)
    burn = recent.bad / recent.total / (1 - promised)
    if isinstance(slo.window, Calendar):
        passed, period = (_seconds(now - start), _seconds(end - start))
        spent = window.bad / window.total / (1 - promised) * passed / period
        return exhaustion(1 - spent, burn, period, renews_in_s=_seconds(end - now))
    inside = found[(found.index > start) & (found.index <= now)]
    if window.bad >= (1 - promised) * window.total:
        over = window.bad / window.total / (1 - promised) - 1
        return Exhaustion("exhausted", Fraction(0), f"{float(over):.1%} more than the whole budget is spent")
    leaving = _leaving(inside, round(slo.window.seconds / step_s(inside)), promised)
    # What is left of the budget is (1 - objective) * total - bad, and a step at the recent pace adds this to it.
    gain = ((1 - promised) * recent.total - recent.bad) * step_s(inside) / recent.known_s
    return _walk(leaving, gain * promised.denominator, step_s(inside), float(burn))


def _seconds(length: Any) -> Fraction:
    return Fraction(int(length / pd.Timedelta(microseconds=1)), 1_000_000)


def _leaving(inside: pd.DataFrame, steps: int, promised: Fraction) -> Sequence[int | Fraction]:
    """
    What each step of the window takes from what is left of the budget when it leaves, oldest first.

    In units of 1 / denominator of the objective, so that whole counts stay whole numbers.  Steps that nobody counted,
    in a gap or before the data begins, are taken to be like the mean of the known ones.
    """
    known = inside.dropna()
    good, total = (_whole(known[name]) for name in ("good", "total"))
    share, parts = promised.denominator - promised.numerator, promised.denominator
    takes = [share * all_ - parts * (all_ - fine) for fine, all_ in zip(good, total, strict=True)]
    mean = Fraction(sum(takes)) / len(takes)
    order = iter(takes)
    return [mean] * (steps - len(inside)) + [next(order) if there else mean for there in inside["total"].notna()]


def _whole(column: pd.Series[Any]) -> list[Any]:
    values = column.to_numpy(dtype=float)
    return values.astype(np.int64).tolist() if (values == np.floor(values)).all() else [exact(one) for one in values]


def _walk(leaving: Sequence[int | Fraction], gain: Fraction, step: int, burn: float) -> Exhaustion:
    """Go through the steps in the order in which they leave, until nothing is left of the budget."""
    # Whole numbers again, a hundred times faster than fractions.
    added, scale = gain.numerator, gain.denominator
    left = sum(leaving) * scale
    for number, take in enumerate(leaving):
        change = added - take * scale
        if left + change <= 0:
            in_s = (number + Fraction(left) / -change) * step
            why = f"at burn {burn:.3g}, with what leaves the window until then"
            return Exhaustion("in", in_s, f"{why}, it lasts {format_duration(float(in_s))}")
        left += change
    return Exhaustion("never", None, f"at burn {burn:.3g} a whole window of such traffic keeps the promise")


def spent_per_incident(counts: pd.DataFrame, incidents: pd.DataFrame, objective: Fraction | float) -> pd.DataFrame:
    """
    What each incident spent of the budget of the whole stretch of *counts*.

    A step counts as a whole when any of it lies inside an incident, and for the incident that began first, so what
    incidents and the rest spent adds up to what the stretch spent.

    Args:
        counts: events per step.
        incidents: aware `start` and `end` of each; further columns are kept.
        objective: fraction of good events that is promised, in (0, 1).

    Returns:
        The incidents in their order with `bad`, `total` (events) and `spent` (budgets of the whole stretch), then a
        row for all other steps; its `start` and `end` are NaT.  `spent` is nan without any events.  The frame is
        indexed by the incidents' index, and "outside" for the rest.

    Raises:
        InvalidValue: an incident ends before it starts, has no time zone, or the counts cannot be.

    >>> from labkit.slo.counts import frame
    >>> hour = frame([100, 90, 100], [100, 100, 100], end=datetime(2026, 3, 1, 1, tzinfo=UTC), step_s=1200)
    >>> at = pd.DataFrame({"start": hour.index[:1], "end": hour.index[1:2]}, index=["blip"])
    >>> spent_per_incident(hour, at, 0.9)["spent"].round(3).to_dict()
    {'blip': 0.333, 'outside': 0.0}
    """
    found = checked(counts)
    owner = _owners(found, incidents)
    bad_events = (found["total"] - found["good"]).fillna(0)
    total = found["total"].fillna(0)
    # The rest has the number after the last incident.
    bad = np.bincount(owner, bad_events, minlength=len(incidents) + 1)
    events = np.bincount(owner, total, minlength=len(incidents) + 1)
    allowed = float((1 - as_objective(objective)) * total_of(found["total"]))
    table = incidents.reindex([*incidents.index, "outside"])
    spent = bad / allowed if allowed else np.full(len(bad), np.nan)
    return table.assign(bad=bad, total=events, spent=spent)


def _owners(counts: pd.DataFrame, incidents: pd.DataFrame) -> _Ints:
    """The position of the incident that each step belongs to; one past the last where it belongs to none."""
    ends, step = times_ns(counts), step_s(counts)
    owner = np.full(len(ends), len(incidents), dtype=np.int64)
    starts = [_ns(as_utc(pd.Timestamp(one))) for one in incidents["start"]]
    # The latest first, so that earlier ones overwrite it where they overlap.
    for at in sorted(range(len(starts)), key=starts.__getitem__, reverse=True):
        until = _ns(as_utc(pd.Timestamp(incidents["end"].iloc[at])))
        if until < starts[at]:
            raise InvalidValue("incidents", expected="an end at or after the start", got=incidents.iloc[at].to_dict())
        owner[(ends > starts[at]) & (ends - step * _NS < until)] = at
    return owner
