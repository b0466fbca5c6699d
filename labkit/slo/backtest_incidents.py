"""What really happened beside what was paged: for each incident who noticed it, after how long, and at what cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from labkit._firing import grouped
from labkit._time import as_utc
from labkit.errors import InvalidValue
from labkit.slo.counts import step_s as step_of
from labkit.slo.counts import times_ns

__all__ = ["Spending", "answered", "incident_frame", "visible"]

_RESPONSES = ("page", "ticket", "none")


@dataclass(frozen=True, slots=True)
class Spending:
    """Bad events as shares of the period's budget at the mean traffic of the history, summed up over its steps."""

    ends_ns: npt.NDArray[np.int64]
    spent: npt.NDArray[np.float64]

    @classmethod
    def of(cls, counts: pd.DataFrame, objective: Fraction, period_s: int) -> Spending:
        """
        The spending of a history: bad events over (1 - objective) * period * events per second.

        Steps without data add nothing; without a single event every share is nan.
        """
        total, good = (counts[name].to_numpy(dtype=float) for name in ("total", "good"))
        known_s = np.count_nonzero(~np.isnan(total)) * step_of(counts)
        events = float(np.nansum(total)) * period_s / known_s if known_s else 0.0
        budget = events * float(1 - objective) or float("nan")
        return cls(times_ns(counts), np.concatenate([[0.0], np.cumsum(np.nan_to_num(total - good))]) / budget)

    def between(self, start: datetime, end: datetime) -> float:
        """The share of the budget that was spent in the steps that end in (*start*, *end*]."""
        first, last = (
            np.searchsorted(self.ends_ns, pd.Timestamp(one).as_unit("ns").value, "right") for one in (start, end)
        )
        return float(self.spent[last] - self.spent[first])


def incident_frame(incidents: pd.DataFrame | Sequence[Any], start: datetime, end: datetime) -> pd.DataFrame:
    """
    Incidents that overlap the history, in order of time.

    Args:
        incidents: a frame, or records (mappings or dataclasses), with `start`, `end` and optionally `response`; further
            columns are kept.
        start: of the history.
        end: of the history.

    Raises:
        InvalidValue: columns are missing, a time has no zone, an end is not after its start, a response is unknown.
    """
    found = pd.DataFrame(incidents).copy()
    if found.empty:
        empty = pd.Series([], dtype="datetime64[ns, UTC]")
        return pd.DataFrame({"start": empty, "end": empty, "response": pd.Series([], dtype=object)})
    missing = {"start", "end"} - set(found.columns)
    if missing:
        raise InvalidValue(
            "incidents", expected="records with start and end", got=[str(name) for name in found.columns]
        )
    for name in ("start", "end"):
        found[name] = pd.to_datetime([_utc(name, one) for one in found[name]], utc=True).as_unit("ns")
    if "response" not in found:
        found["response"] = "page"
    for _, one in found.iterrows():
        if one["end"] <= one["start"]:
            raise InvalidValue("incidents", expected="an end after the start", got=f"{one['start']} to {one['end']}")
        if one["response"] not in _RESPONSES:
            raise InvalidValue(
                "response of an incident", expected=f"one of {', '.join(_RESPONSES)}", got=one["response"]
            )
    inside = found[(found["end"] > start) & (found["start"] < end)]
    return inside.sort_values("start", kind="stable", ignore_index=True)


def _utc(name: str, instant: Any) -> datetime:
    try:
        return as_utc(pd.Timestamp(instant))
    except ValueError as error:
        raise InvalidValue(
            f"{name} of an incident", expected=f"an instant with a time zone ({error})", got=instant
        ) from error


def visible(incidents: pd.DataFrame, step_s: int) -> pd.DataFrame:
    """
    The incidents as long as rules can see them begin: the step in which one ends is evaluated at the end of that step.

    A page holds from one evaluation to the next, so the bad events of the last step are those of a page that starts at
    the very end.
    """
    return incidents.assign(end=incidents["end"] + pd.Timedelta(seconds=step_s))


def answered(
    incidents: pd.DataFrame, pages: pd.DataFrame, spending: Spending, *, end: datetime, step_s: int
) -> pd.DataFrame:
    """
    *incidents* and what the policy made of each.

    Args:
        incidents: as `incident_frame` gives them.
        pages: `start, end, alert, severity`: firing intervals.
        spending: of the history.
        end: of the history.
        step_s: seconds between evaluations.

    Returns:
        The columns of *incidents*, and (nan where nothing came):
        answered: whether it got the notification that it deserved; a page also does for a ticket.
        alert: the name of the alert that fired first for it; missing without any.
        detection_s: seconds from its start to that notification; 0 when one was firing already.
        reset_s: seconds from its end to the end of the last notification that overlaps it; 0 when that ended before,
        nan when the history ends while it fires.
        budget_spent: share of the period's budget that was spent from its start to the notification.
        budget_cost: the same for the whole incident.
    """
    notified = {
        "page": grouped(pages[pages["severity"] == "page"]),
        "ticket": grouped(pages[["start", "end"]]),
    }
    seen_until = visible(incidents, step_s)["end"]
    rows = [
        _answer(
            incident=one,
            until=until,
            notified=notified.get(one["response"], notified["ticket"]),
            pages=pages,
            spending=spending,
            end=end,
        )
        for (_, one), until in zip(incidents.iterrows(), seen_until, strict=True)
    ]
    names = ["answered", "alert", "detection_s", "reset_s", "budget_spent", "budget_cost"]
    told = pd.DataFrame(rows, columns=names, index=incidents.index)
    return incidents.drop(columns=names, errors="ignore").join(told)


def _answer(
    *,
    incident: pd.Series,
    until: pd.Timestamp,
    notified: pd.DataFrame,
    pages: pd.DataFrame,
    spending: Spending,
    end: datetime,
) -> tuple[bool, str | None, float, float, float, float]:
    start, over, nan = incident["start"], incident["end"], float("nan")
    cost = spending.between(start, over)
    hits = notified[(notified["start"] < until) & (notified["end"] > start)]
    if hits.empty:
        return False, None, nan, nan, nan, cost
    came, went = max(hits["start"].iloc[0], start), hits["end"].max()
    first = pages[(pages["start"] < until) & (pages["end"] > start) & (pages["start"] >= hits["start"].iloc[0])]
    reset_s = max((went - over).total_seconds(), 0.0) if went <= end else nan
    return True, first["alert"].iloc[0], (came - start).total_seconds(), reset_s, spending.between(start, came), cost
