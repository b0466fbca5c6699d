"""
How good an alert is: pages per week, precision, recall and duplicates, against incidents that are known.

The arithmetic (`hold`, `intervals`, `grouped`, `score`) needs frames only.  `firing` asks Prometheus what a rule
would have done in the past; `measures` sets the rule of the brief beside what each correction makes of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from labkit._time import as_utc
from labkit.errors import InvalidValue, NoData

if TYPE_CHECKING:
    from labkit.observe.prometheus import Prometheus

__all__ = ["Quality", "firing", "grouped", "hold", "intervals", "measures", "score"]

_WEEK_S = 7 * 86_400
_CHUNK = 10_000  # instants per question; Prometheus gives at most 11,000
_REQUESTS = 'http_requests_total{job="shop",service="gateway"}'
_ERRORS = 'http_requests_total{job="shop",service="gateway",status=~"5.."}'
_AS_IN_THE_BRIEF = f"rate({_ERRORS}[5m]) / rate({_REQUESTS}[5m]) > 0.05"
_CORRECTED = f"sum by (service) (rate({_ERRORS}[5m])) / sum by (service) (rate({_REQUESTS}[5m])) > 0.05"


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


def firing(
    prometheus: Prometheus, condition: str, start: datetime, end: datetime, *, step_s: float = 60, for_s: float = 0
) -> pd.DataFrame:
    """
    When a rule with this *condition* would have fired, evaluated every *step_s* seconds.

    Returns:
        `start, end, series`: one row per firing interval of each series of the condition; a frame without rows when
        it never held.

    Raises:
        QueryRejected, RequestFailed: as in `Prometheus.query_range`.
    """
    # Prometheus answers in milliseconds; whole seconds are on both grids.
    start, end = (as_utc(one).replace(microsecond=0) for one in (start, end))
    held = pd.concat(list(_chunks(prometheus, condition, start, end, step_s)) or [pd.DataFrame()])
    grid = pd.date_range(start, end, freq=pd.Timedelta(seconds=step_s))
    found = [pd.DataFrame({"start": grid[:0], "end": grid[:0], "series": pd.Series(dtype=object)})]
    for series, values in held.items():
        active = hold(values.notna().reindex(grid, fill_value=False).to_numpy(), for_s, step_s)
        found.append(intervals(pd.Series(active, grid), step_s).assign(series=str(series)))
    return pd.concat([one for one in found if not one.empty] or found[:1], ignore_index=True)


def _chunks(
    prometheus: Prometheus, condition: str, start: datetime, end: datetime, step_s: float
) -> Iterator[pd.DataFrame]:
    """The samples of the condition; columns are named by all labels, so that parts fit together."""
    while start <= end:
        last = min(end, start + timedelta(seconds=step_s * (_CHUNK - 1)))
        try:
            part = prometheus.query_range(condition, start, last, step_s=step_s)
        except NoData:
            part = pd.DataFrame()
        if not part.empty:
            common = part.attrs["labels"]
            names = [n for n in part.columns.names if n != "series"]
            keys = part.columns.to_frame(index=False)[names].to_dict("records") if names else [{}]
            part.columns = pd.Index(
                [str(sorted({**common, **{k: v for k, v in key.items() if v}}.items())) for key in keys]
            )
            part.attrs = {}
            yield part
        start = last + timedelta(seconds=step_s)


def measures(
    prometheus: Prometheus, incidents: pd.DataFrame, start: datetime, end: datetime, *, for_s: float = 120
) -> pd.DataFrame:
    """
    The error-rate rule of the brief and what each correction makes of it, over one span.

    Args:
        prometheus: holds the past.
        incidents: `start, end`; what really happened.
        start: of the span.
        end: of the span.
        for_s: of the last two rows, in seconds.

    Returns:
        Index `rule`: as in the brief; ratio of sums; with `for`; grouped.  Columns: those of `Quality`.
    """
    brief = firing(prometheus, _AS_IN_THE_BRIEF, start, end)
    corrected = firing(prometheus, _CORRECTED, start, end)
    patient = firing(prometheus, _CORRECTED, start, end, for_s=for_s)
    steps = {
        "as in the brief": brief,
        "ratio of sums": corrected,
        f"and for {for_s:g} s": patient,
        "and grouped within 15 min": grouped(patient, within_s=900),
    }
    incidents = incidents[(incidents["end"] > start) & (incidents["start"] < end)]
    rows = {name: score(pages, incidents, end - start) for name, pages in steps.items()}
    return pd.DataFrame(
        [(q.pages, q.per_week, q.precision, q.recall, q.duplicates) for q in rows.values()],
        columns=["pages", "per_week", "precision", "recall", "duplicates"],
        index=pd.Index(rows, name="rule"),
    )
