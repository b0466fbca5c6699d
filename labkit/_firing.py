"""
When an alert fires, and how good that was: firing intervals, pages as groups, precision, recall and duplicates.

Frames and arrays only: no network, no clock.  `observe` asks it of rules in a live Prometheus, `slo` of policies
over counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np
import pandas as pd

from labkit.errors import InvalidValue

__all__ = ["Quality", "grouped", "hold", "intervals", "score"]

_WEEK_S = 7 * 86_400


@dataclass(frozen=True, slots=True)
class Quality:
    """
    What a rule did in a span of time.

    pages: firing intervals.  per_week: pages per seven days.  precision: share of pages that overlap an incident, nan
    without pages.  recall: share of incidents with a page, nan without incidents.  duplicates: pages beyond the first
    of each incident.
    """

    pages: int
    per_week: float
    precision: float
    recall: float
    duplicates: int


def hold(active: np.ndarray[Any, np.dtype[np.bool_]], for_s: float, step_s: float) -> Any:
    """
    Where an alert with `for` fires, given where its condition holds, both on one grid of *step_s* seconds.

    It fires from the first instant at which the condition has held, without a gap, for at least *for_s* seconds.

    >>> hold(np.array([True, True, True, False, True]), 60, 60).tolist()
    [False, True, True, False, False]
    """
    if not step_s > 0 or for_s < 0:
        raise InvalidValue("step_s and for_s", expected="a step above 0 and a length from 0 up", got=(step_s, for_s))
    at = np.arange(len(active))
    last_off = np.maximum.accumulate(np.where(active, -1, at)) if len(active) else at
    return active & ((at - last_off - 1) * step_s >= for_s)


def intervals(active: pd.Series, step_s: float) -> pd.DataFrame:
    """
    The intervals in which *active* is true.

    Args:
        active: bool, on a complete grid of UTC times, *step_s* seconds apart.
        step_s: of the grid; an interval ends one step after its last true instant.

    Returns:
        `start, end`, ascending, never touching.  Empty when nothing is true.
    """
    values = np.concatenate([[False], active.to_numpy(dtype=bool), [False]]).astype(np.int8)
    edges = np.diff(values)
    starts, lasts = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1) - 1
    times = pd.DatetimeIndex(active.index)
    return pd.DataFrame({"start": times[starts], "end": times[lasts] + pd.Timedelta(seconds=step_s)})


def grouped(pages: pd.DataFrame, within_s: float = 0) -> pd.DataFrame:
    """
    Pages as one group: those that overlap, or begin at most *within_s* seconds after the end of another, are one.

    Args:
        pages: `start, end`, in any order.
        within_s: largest gap inside a group, in seconds.

    Returns:
        `start, end`, ascending.
    """
    if pages.empty:
        return pages[["start", "end"]]
    ordered = pages.sort_values("start", ignore_index=True)
    until = ordered["end"].cummax().shift()
    new = ~(ordered["start"] <= until + pd.Timedelta(seconds=within_s))
    return ordered.groupby(new.cumsum()).agg(start=("start", "min"), end=("end", "max")).reset_index(drop=True)


def score(pages: pd.DataFrame, incidents: pd.DataFrame, span: timedelta) -> Quality:
    """
    Compare pages with incidents.

    Args:
        pages: `start, end`; when the rule fired.
        incidents: `start, end`; what really happened.
        span: length of the time in which both were looked for.

    Raises:
        InvalidValue: *span* is not positive.
    """
    if span <= timedelta(0):
        raise InvalidValue("span", expected="a length of time above 0", got=span)
    starts, ends = (pages[name].to_numpy()[:, None] for name in ("start", "end"))
    hits = (starts < incidents["end"].to_numpy()[None, :]) & (incidents["start"].to_numpy()[None, :] < ends)
    per_incident = hits.sum(axis=0)
    return Quality(
        pages=len(pages),
        per_week=len(pages) * _WEEK_S / span.total_seconds(),
        precision=float(hits.any(axis=1).mean()) if len(pages) else float("nan"),
        recall=float((per_incident > 0).mean()) if len(incidents) else float("nan"),
        duplicates=int(np.maximum(per_incident - 1, 0).sum()),
    )
