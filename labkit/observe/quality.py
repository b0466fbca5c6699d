"""
How good an alert is: pages per week, precision, recall and duplicates, against incidents that are known.

`firing` asks Prometheus what a rule would have done in the past; `measures` sets the rule of the brief beside what each
correction makes of it.  The arithmetic (`hold`, `intervals`, `grouped`, `score`) is the kernel's.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import pandas as pd

from labkit._firing import Quality, grouped, hold, intervals, score
from labkit._time import as_utc
from labkit.errors import NoData

if TYPE_CHECKING:
    from labkit.observe.prometheus import Prometheus

__all__ = ["Quality", "firing", "grouped", "hold", "intervals", "measures", "score"]

_CHUNK = 10_000  # instants per question; Prometheus gives at most 11,000
_REQUESTS = 'http_requests_total{job="shop",service="gateway"}'
_ERRORS = 'http_requests_total{job="shop",service="gateway",status=~"5.."}'
_AS_IN_THE_BRIEF = f"rate({_ERRORS}[5m]) / rate({_REQUESTS}[5m]) > 0.05"
_CORRECTED = f"sum by (service) (rate({_ERRORS}[5m])) / sum by (service) (rate({_REQUESTS}[5m])) > 0.05"


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
