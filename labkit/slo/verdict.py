"""
One objective judged: from what a source measured to a verdict with its reasons and all numbers between.

Decisions are made on exact fractions; the floats of `to_dict` are for reading.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from fractions import Fraction
from typing import Any, Literal

import pandas as pd

from labkit._time import format_duration
from labkit.errors import LabkitError
from labkit.slo import windows
from labkit.slo.arithmetic import Budget, Exhaustion, budget
from labkit.slo.model import Budgeting, Policy, Severity, Slo
from labkit.slo.policies import alert_names
from labkit.slo.source import Counted, Measured, Problem
from labkit.slo.tracking import burn_down, closing, time_to_exhaustion

__all__ = ["PACE_S", "STATUS_MEANING", "AlertState", "SloReport", "Status", "judged", "percent"]

Status = Literal["healthy", "at_risk", "violated", "unknown"]

STATUS_MEANING: Mapping[Status, str] = {
    "healthy": "the promise is kept, a tenth of the budget or more is left, and nothing is using it up",
    "at_risk": "the promise is kept, but little budget is left, an alert's condition holds, or it ends within a day",
    "violated": "more than the whole error budget of the window is spent: the promise is broken",
    "unknown": "the source failed, had no data or no events: neither kept nor broken, and never a yes",
}

PACE_S = 3600
"""Exhaustion goes by the pace of so many last seconds."""

_SOON_S = 86_400


@dataclass(frozen=True, slots=True)
class AlertState:
    """
    An alert of the policy at the instant of the report.

    Attributes:
        name: severity and windows.
        severity: "page" or "ticket".
        factor: burn rate above which it fires.
        long_s, short_s: its windows, in seconds.
        long_burn, short_burn: burn rates over them; None when unknown.
        holds: whether the condition holds now, whatever its `for`; None when the long window is unknown.
    """

    name: str
    severity: Severity
    factor: Fraction
    long_s: int
    short_s: int | None
    long_burn: Fraction | None
    short_burn: Fraction | None
    holds: bool | None


@dataclass(frozen=True, slots=True)
class SloReport:
    """
    One objective at one instant: the verdict, its reasons, and all numbers behind it.

    Attributes:
        slo: the objective.
        status: see `STATUS_MEANING`.
        reasons: why, a sentence each.
        start, at, end: begin of the window, the instant, end of the window (ahead, in a calendar period), UTC.
        budget: counts, what they allow and what was achieved so far; None when unknown.
        spent: budgets of the whole window that are spent; in a calendar period the part that has passed has its share.
        burns: burn rates by window in seconds; None when unknown.
        alerts: those of its policy.
        exhaustion: when the budget is used up at the pace of the last hour.
        burn_down: how the budget of the window was spent, as `tracking.burn_down` gives it; None when unknown.
        covered: fraction of the window that has data; None when unknown.
        problems: why something is unknown.
        notes: what a reader should know.
        requests: HTTP requests that it took.
    """

    slo: Slo
    status: Status
    reasons: tuple[str, ...]
    start: datetime
    at: datetime
    end: datetime
    budget: Budget | None
    spent: Fraction | None
    burns: Mapping[int, Fraction | None]
    alerts: tuple[AlertState, ...]
    exhaustion: Exhaustion
    burn_down: pd.DataFrame | None
    covered: Fraction | None
    problems: tuple[Problem, ...]
    notes: tuple[str, ...]
    requests: int

    @property
    def remaining(self) -> Fraction | None:
        """The share of the budget that is left, at most 1; negative when overspent; None when unknown."""
        return None if self.spent is None else 1 - self.spent

    @property
    def achieved(self) -> Fraction | None:
        """The fraction of good events so far; None when unknown."""
        return self.budget.achieved if self.budget else None

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it: floats, ISO 8601 times, seconds; None for what is unknown."""
        counts = self.budget
        return {
            "name": self.slo.name,
            "service": self.slo.service,
            "owner": self.slo.owner,
            "description": self.slo.description,
            "status": self.status,
            "reasons": list(self.reasons),
            "objective": float(self.slo.objective),
            "window": windows.describe(self.slo.window),
            "method": self.slo.budgeting.method,
            "start": self.start.isoformat(),
            "at": self.at.isoformat(),
            "end": self.end.isoformat(),
            "good": _float(counts.total - counts.bad if counts else None),
            "bad": _float(counts.bad if counts else None),
            "total": _float(counts.total if counts else None),
            "achieved": _float(self.achieved),
            "allowed": _float(counts.allowed if counts else None),
            "spent": _float(self.spent),
            "remaining": _float(self.remaining),
            "covered": _float(self.covered),
            "burns": [{"window_s": window, "burn": _float(burn)} for window, burn in self.burns.items()],
            "alerts": [_alert_dict(alert) for alert in self.alerts],
            "exhaustion": {
                "answer": self.exhaustion.answer,
                "in_s": _float(self.exhaustion.in_s),
                "why": self.exhaustion.why,
            },
            "problems": [{"kind": problem.kind, "text": problem.text} for problem in self.problems],
            "notes": list(self.notes),
            "requests": self.requests,
        }


def judged(measured: Measured, policy: Policy, low: Fraction) -> SloReport:
    """
    The verdict on what was measured.

    Args:
        measured: counts of the objective's window and of those of the policy.
        policy: its alerts are part of the verdict.
        low: at risk when less than this share of the budget is left.
    """
    slo, counts = measured.slo, _budget(measured.slo, measured.whole)
    end = closing(slo.window, measured.at)[1]
    period_s = Fraction(round((end - measured.start).total_seconds()))
    burns = {length: _burn(slo, one) for length, one in measured.burns.items()}
    alerts = _alert_states(policy, burns, int(period_s))
    spent = None
    if counts is not None and counts.spent is not None:
        spent = counts.spent * Fraction(measured.whole.window_s) / period_s
    ends = _exhaustion(measured)
    status, reasons = _verdict(spent, alerts, ends, measured.problems, low)
    notes = list(measured.notes)
    if measured.covered is not None and measured.covered < 1:
        length = format_duration(measured.whole.window_s)
        notes.append(f"Only {percent(measured.covered)} of {length} has data; the numbers are of that part.")
    return SloReport(
        slo=slo,
        status=status,
        reasons=reasons,
        start=measured.start,
        at=measured.at,
        end=end,
        budget=counts,
        spent=spent,
        burns=burns,
        alerts=alerts,
        exhaustion=ends,
        burn_down=_burn_down(measured, counts),
        covered=measured.covered,
        problems=measured.problems,
        notes=tuple(notes),
        requests=measured.requests,
    )


def _budget(slo: Slo, counted: Counted) -> Budget | None:
    known = counted.bad is not None and counted.total is not None
    return budget(counted.bad or 0, counted.total or 0, slo.objective) if known else None


def _burn(slo: Slo, counted: Counted) -> Fraction | None:
    found = _budget(slo, counted)
    return found.spent if found else None


def _alert_states(policy: Policy, burns: Mapping[int, Fraction | None], period_s: int) -> tuple[AlertState, ...]:
    found = []
    for name, alert in zip(alert_names(policy), policy.alerts, strict=True):
        factor, long_burn = alert.factor(period_s), burns.get(alert.long_s)
        short_burn = burns.get(alert.short_s) if alert.short_s is not None else None
        # Without events in the short window nothing is being spent any more: an alert ends there, as its rule does.
        stopped = alert.short_s is not None and (short_burn is None or short_burn <= factor)
        holds = None if long_burn is None else long_burn > factor and not stopped
        found.append(
            AlertState(name, alert.severity, factor, alert.long_s, alert.short_s, long_burn, short_burn, holds)
        )
    return tuple(found)


def _track(measured: Measured) -> tuple[pd.DataFrame, Slo] | None:
    """The steps of the window, and the objective as it is for them: they are units of the budget already."""
    track, slo = measured.track, measured.slo
    if track is None or not len(track):
        return None
    if slo.budgeting.method == "occurrences":
        # Events are whole, and extrapolated ones only seem exact: their fractions would take most of a report's time.
        track = track.round()
    return track, replace(slo, budgeting=Budgeting())


def _exhaustion(measured: Measured) -> Exhaustion:
    found = _track(measured)
    if found is None:
        return Exhaustion("unknown", None, "there are no counts to judge the pace by")
    track, slo = found
    try:
        # A pace needs one whole step.
        return time_to_exhaustion(track, slo, recent_s=max(PACE_S, track.attrs["step_s"]), at=measured.at)
    except LabkitError as error:
        return Exhaustion("unknown", None, str(error))


def _verdict(
    spent: Fraction | None,
    alerts: Sequence[AlertState],
    ends: Exhaustion,
    problems: Sequence[Problem],
    low: Fraction,
) -> tuple[Status, tuple[str, ...]]:
    if spent is None:
        return "unknown", tuple(problem.text.split("\n")[0] for problem in problems)
    left = 1 - spent
    if left < 0:
        return "violated", (f"{percent(spent)} of the budget is spent: the promise of the window is broken.",)
    reasons = [f"{percent(left)} of the budget is left, less than {percent(low)}."] if left < low else []
    reasons += [_says(alert) for alert in alerts if alert.holds]
    if ends.answer == "in" and ends.in_s is not None and ends.in_s < _SOON_S:
        reasons.append(f"The budget ends {ends} at the pace of the last hour.")
    if problems:
        # What is known would do, but not all is known: that is no clean bill.
        texts = tuple(problem.text.split("\n")[0] for problem in problems)
        return ("at_risk" if reasons else "unknown"), (*reasons, *texts)
    return ("at_risk", tuple(reasons)) if reasons else ("healthy", (f"{percent(left)} of the budget is left.",))


def _says(alert: AlertState) -> str:
    # It holds, so the burn of the long window is known.
    burn = float(alert.long_burn or 0)
    return f"The condition of {alert.name} holds: burn {burn:.3g}, above {float(alert.factor):.3g}."


def _burn_down(measured: Measured, counts: Budget | None) -> pd.DataFrame | None:
    found = _track(measured)
    return None if found is None or counts is None or not counts.total else burn_down(*found, at=measured.at)


def _float(value: Fraction | float | None) -> float | None:
    return None if value is None else float(value)


def _alert_dict(alert: AlertState) -> dict[str, Any]:
    return {
        "name": alert.name,
        "severity": alert.severity,
        "factor": float(alert.factor),
        "long_s": alert.long_s,
        "short_s": alert.short_s,
        "long_burn": _float(alert.long_burn),
        "short_burn": _float(alert.short_burn),
        "holds": alert.holds,
    }


def percent(share: Fraction) -> str:
    """
    A share for people, with two decimals, and with more where fewer would round it to a whole percentage.

    >>> percent(Fraction(99_996, 1_000_000)), percent(Fraction(1, 2)), percent(Fraction(2, 3))
    ('9.9996 %', '50 %', '66.67 %')
    """
    exact = share * 100
    for places in range(2, 16):
        rounded = round(exact, places)
        if rounded == exact or rounded.denominator != 1:
            break
    return f"{float(rounded):.{places}f}".rstrip("0").rstrip(".") + " %"
