"""
The monthly review of an objective: what was promised, what was kept, what users put up with, and what follows.

    months = by_month(counts, slo)
    months = with_users(months, {"2026-05": 0.97, "2026-06": 0.71})  share of users who were content
    review(slo, months).recommendation            keep, tighten, loosen, improve, remeasure or collect

An objective is right when users are content just above it and not below.  Where the line lies is read from months in
which they were content and months in which they were not; the recommendation names the months that it rests on.
After the decision matrix of the Google SRE workbook, chapter 2, "Implementing SLOs".
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from fractions import Fraction
from typing import Any, Literal

import pandas as pd

from labkit.errors import InvalidValue, UnknownName
from labkit.slo import windows
from labkit.slo.arithmetic import Budget, as_objective
from labkit.slo.confidence import events_to_confirm
from labkit.slo.confidence import verdict as beyond_chance
from labkit.slo.counts import checked
from labkit.slo.methods import budget_of
from labkit.slo.model import Calendar, Slo
from labkit.slo.objective import format_percentage
from labkit.slo.verdict import percent

__all__ = ["Action", "Month", "Review", "Tolerance", "by_month", "review", "tolerance", "with_users"]

Action = Literal["keep", "tighten", "loosen", "improve", "remeasure", "collect"]

_CONTENT = Fraction(9, 10)
# A budget of which less than this is used month after month is a promise that says little.
_IDLE = Fraction(1, 10)


@dataclass(frozen=True, slots=True)
class Month:
    """
    One calendar month of an objective.

    Attributes:
        name: as in "2026-05".
        budget: its counts, exact.
        content: fraction of users who were content, from a survey, complaints or what they bought; None if unknown.
        whole: whether the counts cover all of it.
    """

    name: str
    budget: Budget
    content: Fraction | None = None
    whole: bool = True


@dataclass(frozen=True, slots=True)
class Tolerance:
    """
    Where users' patience ends, as far as months show it.

    Attributes:
        low: the best month in which users were not content; more is needed.  None when there was no such month.
        high: the worst month in which they were content; so much is enough.  None when there was no such month.
        clashes: months in which users were content although less was kept than in a month in which they were not.
    """

    low: Fraction | None
    high: Fraction | None
    clashes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Review:
    """
    The outcome of a review.

    Attributes:
        slo: the objective.
        months: what it rests on.
        tolerance: where users' patience ends.
        recommendation: what to do.
        suggested: the objective to write down; None unless it is to change.
        reasons: why, a sentence each.
    """

    slo: Slo
    months: tuple[Month, ...]
    tolerance: Tolerance
    recommendation: Action
    suggested: Fraction | None
    reasons: tuple[str, ...]

    def frame(self) -> pd.DataFrame:
        """One row per month: `total, bad, achieved, spent, kept, content` (nan or None when unknown)."""
        rows = [
            {
                "month": month.name,
                "total": float(month.budget.total),
                "bad": float(month.budget.bad),
                "achieved": _nan(month.budget.achieved),
                "spent": _nan(month.budget.spent),
                "kept": month.budget.kept,
                "content": _nan(month.content),
            }
            for month in self.months
        ]
        columns = ["month", "total", "bad", "achieved", "spent", "kept", "content"]
        return pd.DataFrame(rows, columns=columns).set_index("month")

    @property
    def text(self) -> str:
        """The review for a terminal."""
        objective = format_percentage(self.slo.objective)
        change = f" to {_shown(self.suggested)}" if self.suggested is not None else ""
        lines = [f"{self.slo.name}, promised {objective}: {self.recommendation}{change}."]
        return "\n".join([*lines, *(f"  - {reason}" for reason in self.reasons)])

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it: floats, None for unknown."""
        return {
            "slo": self.slo.name,
            "objective": float(self.slo.objective),
            "recommendation": self.recommendation,
            "suggested": _float(self.suggested),
            "reasons": list(self.reasons),
            "tolerance": {
                "low": _float(self.tolerance.low),
                "high": _float(self.tolerance.high),
                "clashes": list(self.tolerance.clashes),
            },
            "months": [
                {
                    "name": month.name,
                    "total": float(month.budget.total),
                    "bad": float(month.budget.bad),
                    "achieved": _float(month.budget.achieved),
                    "spent": _float(month.budget.spent),
                    "content": _float(month.content),
                    "whole": month.whole,
                }
                for month in self.months
            ],
        }

    def __str__(self) -> str:
        return self.text


def by_month(counts: pd.DataFrame, slo: Slo, timezone: str = "UTC") -> list[Month]:
    """
    The budget of every calendar month that *counts* touch.

    Args:
        counts: events per step.
        slo: objective and budgeting method; its own window does not matter here.
        timezone: whose midnights part the months, an IANA name.

    Returns:
        Months in the order of time; `whole` is False where the counts do not cover all of it.

    Raises:
        InvalidValue: the counts cannot be, or the time zone is unknown.
    """
    found = checked(counts)
    step = pd.Timedelta(seconds=found.attrs["step_s"])
    first, last = found.index[0] - step, found.index[-1]
    months, at = [], first.to_pydatetime()
    while at < last:
        start, end = windows.bounds(Calendar("month", timezone), at)
        inside = found[(found.index > pd.Timestamp(start)) & (found.index <= pd.Timestamp(end))]
        known = not inside["total"].isna().any()
        whole = bool(first <= start and last >= end and known)
        months.append(Month(_name(start, end), budget_of(found, slo, start, end), whole=whole))
        at = end
    return months


def with_users(months: Sequence[Month], content: Mapping[str, Fraction | float]) -> list[Month]:
    """
    The same months with the share of users who were content.

    Args:
        months: of the objective.
        content: fractions in [0, 1] by the month's name; months that are left out stay unknown.

    Raises:
        UnknownName: there is no such month.
        InvalidValue: a share is outside [0, 1].
    """
    names = [month.name for month in months]
    for name, share in content.items():
        if name not in names:
            raise UnknownName("month of this review", name, known=names)
        if not 0 <= share <= 1:
            raise InvalidValue(f"content users in {name}", expected="a fraction from 0 to 1", got=share)
    exact = {name: Fraction(str(share)) for name, share in content.items()}
    return [replace(month, content=exact.get(month.name, month.content)) for month in months]


def tolerance(months: Sequence[Month], *, content_at_least: Fraction = _CONTENT) -> Tolerance:
    """
    Where users' patience ends: between the best month they did not like and the worst one they did.

    Args:
        months: those without events or without a word of the users are left out.
        content_at_least: a month is fine when this fraction of users is content.

    Returns:
        A `Tolerance`.  With clashes what is measured is not what users feel.
    """
    told = [(month, month.budget.achieved, month.content) for month in months]
    fine = [
        (one, kept)
        for one, kept, content in told
        if kept is not None and content is not None and content >= content_at_least
    ]
    poor = [
        kept for _, kept, content in told if kept is not None and content is not None and content < content_at_least
    ]
    low, high = max(poor, default=None), min((kept for _, kept in fine), default=None)
    clashes = tuple(one.name for one, kept in fine if low is not None and kept <= low)
    return Tolerance(low, high, clashes)


def review(
    slo: Slo,
    months: Sequence[Month],
    *,
    tolerated: Fraction | float | None = None,
    depends_on: Fraction | float | None = None,
    content_at_least: Fraction = _CONTENT,
) -> Review:
    """
    Compare what was promised, what was kept, and what users put up with.

    Args:
        slo: the objective.
        months: what was kept, the more the better.
        tolerated: fraction of bad events that users are known to put up with, if it is known from elsewhere; otherwise
            it is read from the months.
        depends_on: fraction of good events that the dependencies promise together (`journeys.bounds`), if known.
        content_at_least: a month is fine when this fraction of users is content.

    Returns:
        A `Review`.  Without events, or without a word of the users, the recommendation is "collect".

    Raises:
        InvalidValue: *tolerated* or *depends_on* is not strictly between 0 and 1.
    """
    found = tolerance(months, content_at_least=content_at_least)
    if tolerated is not None:
        enough = 1 - as_objective(tolerated)
        found = Tolerance(None, enough)
    known = [month for month in months if month.budget.total]
    action, suggested, reasons = _recommend(slo.objective, known, found)
    if depends_on is not None and as_objective(depends_on) < slo.objective:
        promised = percent(as_objective(depends_on))
        reasons.append(f"Its dependencies promise {promised} together in the worst case: less than it does.")
    reasons += _remarks(slo.objective, months, known)
    return Review(slo, tuple(months), found, action, suggested, tuple(reasons))


def _recommend(
    objective: Fraction, known: Sequence[Month], users: Tolerance
) -> tuple[Action, Fraction | None, list[str]]:
    if not known:
        return "collect", None, ["No month has events: nothing is known of what was kept."]
    if users.low is None and users.high is None:
        return (
            "collect",
            None,
            ["Nobody asked the users: ask them, or count complaints, and enter the share per month."],
        )
    if users.clashes:
        months = ", ".join(users.clashes)
        why = f"Users were content in {months} and not in a month that kept as much or more: they feel something else."
        return "remeasure", None, [why]
    return _compare(objective, known, users)


def _compare(
    objective: Fraction, known: Sequence[Month], users: Tolerance
) -> tuple[Action, Fraction | None, list[str]]:
    if users.low is not None and users.low >= objective:
        why = f"Users were not content in a month that kept {_shown(users.low)}, which the promise allows."
        return "tighten", _between(users), [why]
    if users.high is not None and users.high < objective:
        why = f"Users put up with {_shown(users.high)}; keeping more than that costs work that nobody asked for."
        return "loosen", _between(users), [why]
    if users.low is None:
        suits = "Users were content, and no month shows what they would not put up with."
    elif users.high is None:
        suits = "The promise lies above every month in which users were not content; no month shows that it is enough."
    else:
        suits = "The promise lies where users' patience ends."
    broken = [month.name for month in known if month.budget.kept is False]
    if broken:
        return "improve", None, [suits, f"It was broken in {', '.join(broken)}: work on reliability comes first."]
    return "keep", None, [suits, f"It was kept in every month with events ({len(known)})."]


def _remarks(objective: Fraction, months: Sequence[Month], known: Sequence[Month]) -> list[str]:
    found = []
    spent = [month.budget.spent for month in known if month.budget.spent is not None]
    if spent and max(spent) < _IDLE:
        most = percent(max(spent))
        found.append(f"At most {most} of the budget was used: there is room for releases and experiments.")
    undecided = [
        month.name for month in known if beyond_chance(month.budget.bad, month.budget.total, objective) == "undecided"
    ]
    if undecided:
        need = events_to_confirm(objective)
        found.append(
            f"In {', '.join(undecided)} there are too few events to tell luck from skill; {need:,} without a bad one "
            f"would do."
        )
    parts = [month.name for month in months if not month.whole]
    if parts:
        found.append(f"Of {', '.join(parts)} only a part was counted.")
    return found


def _between(users: Tolerance) -> Fraction | None:
    """A short number at which users were content, above every month in which they were not; None when none is known."""
    if users.high is None or users.high >= 1:
        return None
    # Two digits of the allowed share, rounded towards more allowed: 99.8731 % becomes 99.87 %.
    allowed = 1 - users.high
    digits = 1 - math.floor(math.log10(allowed))
    scale = Fraction(10) ** digits
    rounded = 1 - Fraction(math.ceil(allowed * scale)) / scale
    return rounded if users.low is None or rounded > users.low else users.high


def _name(start: datetime, end: datetime) -> str:
    # The middle of the month lies in it whatever the time zone.
    return f"{start + (end - start) / 2:%Y-%m}"


def _shown(ratio: Fraction) -> str:
    return f"{float(ratio) * 100:.6g} %"


def _float(value: Fraction | None) -> float | None:
    return None if value is None else float(value)


def _nan(value: Fraction | None) -> float:
    return math.nan if value is None else float(value)
