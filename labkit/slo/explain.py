"""
Any number of an error budget opened: the counts, the window, the formula, and what else it could have read.

    explain("burn_rate", counts=counts, slo=slo, window_s=3600)
    explain("remaining", counts=counts, slo=slo, shown=0.2141)      why does the dashboard say 21.41 %?

The value is exact.  Beside it stands what approximations would have made of the same counts, each with its error: what
`increase()` extrapolates, an average of ratios, a recording rule that is sampled.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from fractions import Fraction
from typing import Literal, get_args

import numpy as np
import pandas as pd

from labkit._time import as_utc, format_duration
from labkit.errors import UnknownName
from labkit.slo import approximations as approximate
from labkit.slo.arithmetic import Budget
from labkit.slo.backtest_ratio import Range
from labkit.slo.counts import Sums, checked, step_s, sums
from labkit.slo.explanation import Approximation, Explanation, number
from labkit.slo.methods import budget_of, units
from labkit.slo.model import Calendar, Slo
from labkit.slo.tracking import closing, time_to_exhaustion

__all__ = ["Approximation", "Explanation", "Quantity", "explain"]

Quantity = Literal["achieved", "budget", "burn_rate", "exhaustion", "remaining"]

_WORKBOOK = 'Google SRE workbook, chapter 5, "Alerting on SLOs"'
_RULE_S = 300
_CANCELS = "both are stretched alike, which cancels; what came before the first sample is missing from both"


def explain(
    quantity: Quantity,
    *,
    counts: pd.DataFrame,
    slo: Slo,
    at: datetime | None = None,
    window_s: int | None = None,
    shown: float | None = None,
    late_s: float = 0,
    closed: Range = "left_open",
    source: str = "",
) -> Explanation:
    """
    Open one number of an objective.

    Args:
        quantity: "achieved", "budget" (spent budgets), "burn_rate", "remaining" or "exhaustion".
        counts: events per step, as far back as the window reaches.
        slo: the objective.
        at: the instant; the end of the counts if None.
        window_s: for "achieved" and "burn_rate": a shorter window than the objective's, in seconds.
        shown: the value that somebody saw, a fraction or ratio; it is compared with the exact one.
        late_s: seconds from the last sample to the evaluation, which move the window but not the samples.
        closed: which samples a range of Prometheus holds: "closed" (2.x) or "left_open" (3.x).
        source: where the counts come from, in words.

    Returns:
        An `Explanation`: print it, show it in a notebook, or take its `to_dict()`.  Approximations are computed for
        budgets by occurrences only: slices are no events, so `increase` does not count them.

    Raises:
        UnknownName: there is no such quantity.
        InvalidValue: the counts cannot be, or a length is not above 0.
    """
    if quantity not in get_args(Quantity):
        raise UnknownName("number of an error budget", quantity, known=get_args(Quantity))
    case = _case(checked(counts), slo, quantity, at, window_s)
    found = _FORMULAS[quantity](case)
    return Explanation(
        title=f"{quantity.replace('_', ' ')} of {slo.name}, {_stretch(case)}",
        value=found.value,
        meaning=found.meaning,
        formula=found.formula,
        worked=found.worked,
        counts={"good": case.budget.total - case.budget.bad, "bad": case.budget.bad, "total": case.budget.total},
        unit=_unit(slo),
        start=case.start,
        end=case.end,
        coverage=case.sums.coverage,
        source=source or f"a frame of counts in steps of {format_duration(step_s(counts))}",
        reference=f"{found.reference}; docs/slo-formulas.md",
        approximations=(*_seen(found, shown), *_approximations(case, found, late_s, closed)),
        notes=tuple(_notes(case)),
    )


@dataclass(frozen=True, slots=True)
class _Case:
    """The counts of the window of one question."""

    counts: pd.DataFrame
    slo: Slo
    budget: Budget
    sums: Sums
    start: datetime
    end: datetime
    period_s: Fraction

    def inside(self, before_s: int = 0) -> pd.DataFrame:
        """The counts of the window, and of so many seconds before it."""
        index = self.counts.index
        return self.counts[(index > self.start - timedelta(seconds=before_s)) & (index <= self.end)]

    @property
    def elapsed(self) -> Fraction:
        """The fraction of the period that has passed; 1 in a rolling window."""
        return min(self.sums.length_s / self.period_s, Fraction(1))


@dataclass(frozen=True, slots=True)
class _Found:
    """An answer; `factor` and `offset` turn a share of bad events into it, None where it depends on more than that."""

    value: Fraction | None
    meaning: str
    formula: str
    worked: str
    reference: str = _WORKBOOK
    factor: Fraction | None = None
    offset: Fraction = Fraction(0)


def _case(counts: pd.DataFrame, slo: Slo, quantity: Quantity, at: datetime | None, window_s: int | None) -> _Case:
    end = as_utc(at if at is not None else counts.index[-1].to_pydatetime())
    start, until = closing(slo.window, end)
    period_s = Fraction(int((until - start).total_seconds()))
    if window_s is not None and quantity in {"achieved", "burn_rate"}:
        start = end - timedelta(seconds=window_s)
    found = sums(units(counts, slo.budgeting), start, end)
    return _Case(counts, slo, budget_of(counts, slo, start, end), found, start, end, period_s)


def _achieved(case: _Case) -> _Found:
    value = case.budget.achieved
    good = case.budget.total - case.budget.bad
    return _Found(
        value,
        _unknown(value) or f"{_percent(value)} of the units were good; promised are {_percent(case.slo.objective)}",
        "achieved = good / total",
        f"{number(good)} / {number(case.budget.total)} = {_ratio(value)}",
        'Google SRE book, chapter 4, "Service Level Objectives"',
        factor=Fraction(-1),
        offset=Fraction(1),
    )


def _burn(case: _Case) -> _Found:
    value, objective = case.budget.spent, case.slo.objective
    return _Found(
        value,
        _unknown(value) or f"the budget is being spent {_ratio(value)} times as fast as the promise allows",
        "burn = (bad / total) / (1 - objective)",
        f"({number(case.budget.bad)} / {number(case.budget.total)}) / (1 - {_exactly(objective)}) = {_ratio(value)}",
        factor=1 / (1 - objective),
    )


def _spent(case: _Case) -> _Found:
    burn = _burn(case)
    value = None if burn.value is None else burn.value * case.elapsed
    whole = case.elapsed == 1
    formula = "spent = bad / ((1 - objective) * total)" + ("" if whole else " * elapsed / period")
    worked = f"{number(case.budget.bad)} / ((1 - {_exactly(case.slo.objective)}) * {number(case.budget.total)})"
    passed = (
        "" if whole else f" * {format_duration(float(case.sums.length_s))} / {format_duration(float(case.period_s))}"
    )
    return _Found(
        value,
        _unknown(value) or f"{_percent(value)} of the error budget is spent",
        formula,
        f"{worked}{passed} = {_ratio(value)}",
        factor=case.elapsed / (1 - case.slo.objective),
    )


def _remaining(case: _Case) -> _Found:
    spent = _spent(case)
    value = None if spent.value is None else 1 - spent.value
    over = value is not None and value < 0
    meaning = f"overspent by {_percent(-value)}" if value is not None and over else f"{_percent(value)} is left"
    return _Found(
        value,
        _unknown(value) or f"of the error budget, {meaning}" if not over else f"the error budget is {meaning}",
        f"remaining = 1 - {spent.formula.removeprefix('spent = ')}",
        f"1 - {spent.worked.rsplit(' = ', 1)[0]} = {_ratio(value)}",
        factor=-case.elapsed / (1 - case.slo.objective),
        offset=Fraction(1),
    )


def _exhaustion(case: _Case) -> _Found:
    found = time_to_exhaustion(case.counts, case.slo, at=case.end)
    calendar = isinstance(case.slo.window, Calendar)
    formula = (
        "in = remaining * period / burn; never when the period ends first"
        if calendar
        else "the first t with bad(t) >= (1 - objective) * total(t), while steps like those of the last hour come in "
        "and the oldest ones leave"
    )
    return _Found(found.in_s, f"{found}: {found.why}", formula, found.why)


_FORMULAS = {
    "achieved": _achieved,
    "budget": _spent,
    "burn_rate": _burn,
    "exhaustion": _exhaustion,
    "remaining": _remaining,
}


def _seen(found: _Found, shown: float | None) -> list[Approximation]:
    if shown is None:
        return []
    return [Approximation("the value that was shown", "compare its error with those below", shown, found.value)]


def _approximations(case: _Case, found: _Found, late_s: float, closed: Range) -> list[Approximation]:
    if found.factor is None or case.slo.budgeting.method != "occurrences" or not case.budget.total:
        return []
    factor, offset = float(found.factor), float(found.offset)

    def of_ratio(name: str, why: str, ratio: float | None) -> Approximation:
        unknown = ratio is None or not np.isfinite(ratio)
        return Approximation(name, why, None if unknown else offset + factor * float(ratio or 0), found.value)

    bad, total = _increases(case, late_s, closed)
    ratio = bad.value / total.value if bad and total and total.value else None
    recorded, reason = _recorded(case, closed)
    step = format_duration(step_s(case.counts))
    mean = approximate.average_of_ratios(case.inside())
    return [
        _increase("increase() of all events", total, case.budget.total),
        _increase("increase() of bad events", bad, case.budget.bad),
        of_ratio("the ratio of the two", _CANCELS, ratio),
        of_ratio("average of ratios", f"each step of {step} weighs the same, however few its events", mean),
        of_ratio("average of a recorded ratio", reason, recorded),
    ]


def _recorded(case: _Case, closed: Range) -> tuple[float | None, str]:
    """The mean over the window of a ratio over five minutes recorded at every step, and what is wrong with it."""
    step = step_s(case.counts)
    if 2 * step > _RULE_S:
        finest = format_duration(_RULE_S / 2)
        return None, f"windows of 5 min need two samples: take counts in steps of {finest} or less to see it"
    share = approximate.sampled_rule(
        case.inside(_RULE_S), rule_s=_RULE_S, every_s=step, start=case.start, closed=closed
    )
    return share, f"windows of 5 min every {format_duration(step)} weigh instants, and the first ones reach back"


def _increases(
    case: _Case, late_s: float, closed: Range
) -> tuple[approximate.Increase | None, approximate.Increase | None]:
    times, bad, total = approximate.counters(case.counts)
    at, window = case.end.timestamp() + late_s, float(case.sums.length_s)
    return (
        approximate.increase(times, bad, at_s=at, window_s=window, closed=closed),
        approximate.increase(times, total, at_s=at, window_s=window, closed=closed),
    )


def _increase(name: str, found: approximate.Increase | None, exact: Fraction) -> Approximation:
    if found is None:
        return Approximation(name, "fewer than two samples in the window: no result", None, exact)
    why = (
        f"{found.samples} samples over {format_duration(found.span_s)} show {found.grown:,.0f}, "
        f"stretched by {found.factor:.6g} to the ends of the window"
    )
    return Approximation(name, why, found.value, exact)


def _notes(case: _Case) -> list[str]:
    notes = []
    if case.sums.coverage < 1:
        missing = format_duration(float(case.sums.length_s - case.sums.known_s))
        notes.append(f"{missing} of the window were not counted; they are taken to be like the rest, not to be zero")
    if not case.budget.total:
        notes.append("there were no events: the value is unknown, which is neither healthy nor broken")
    if case.slo.budgeting.method != "occurrences":
        notes.append(f"the budget counts {_unit(case.slo)}, not events; `increase` of a counter does not")
    return notes


def _unit(slo: Slo) -> str:
    return "events" if slo.budgeting.method == "occurrences" else f"slices of {format_duration(slo.budgeting.slice_s)}"


def _stretch(case: _Case) -> str:
    return f"over {format_duration(float(case.sums.length_s))} until {case.end:%Y-%m-%d %H:%M} UTC"


def _unknown(value: Fraction | None) -> str:
    return "unknown: there were no events" if value is None else ""


def _percent(value: Fraction | None) -> str:
    return "unknown" if value is None else f"{float(100 * value):.6g} %"


def _ratio(value: Fraction | None) -> str:
    return "unknown" if value is None else f"{float(value):.6g}"


def _exactly(value: Fraction) -> str:
    return f"{float(value):.12g}"
