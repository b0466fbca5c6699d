"""
The arithmetic of error budgets: what an objective allows, what was spent, how fast, and for how long it lasts.

    budget(bad=144, total=10_000, objective=0.999).spent     14.4 budgets
    burn_rate(bad=144, total=10_000, objective=0.999)        14.4 times the allowed pace
    allowed_s(0.999, period_s=30 * 86_400)                   43.2 minutes of full outage

Exact: counts and objectives become fractions before anything is computed, and nothing is rounded; `float(...)` is for
the eye.  No events give None, which cannot be compared with a threshold by accident.  Frames of counts are in
`tracking`; every formula is derived in docs/slo-formulas.md.
"""

from __future__ import annotations

import math
import numbers
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from labkit._time import format_duration
from labkit.errors import InvalidValue

__all__ = [
    "Budget",
    "Count",
    "Exhaustion",
    "allowed_events",
    "allowed_s",
    "as_count",
    "as_objective",
    "budget",
    "burn_rate",
    "exhaustion",
    "outage_to_cross_s",
    "share_spent",
]

# Events are whole numbers; what increase() returns is not, so any real number that is finite is a count.
Count = int | float | Fraction


@dataclass(frozen=True, slots=True)
class Budget:
    """
    What an objective allows of some events, and what was spent.

    Attributes:
        bad, total: events of one window, exact.
        objective: fraction of good events that was promised.
    """

    bad: Fraction
    total: Fraction
    objective: Fraction

    @property
    def allowed(self) -> Fraction:
        """Events that may be bad: (1 - objective) * total.  The promise is kept up to and including this many."""
        return (1 - self.objective) * self.total

    @property
    def left(self) -> Fraction:
        """Events that may still be bad; negative once more was spent than there was."""
        return self.allowed - self.bad

    @property
    def achieved(self) -> Fraction | None:
        """The fraction of good events; None without events."""
        return 1 - self.bad / self.total if self.total else None

    @property
    def spent(self) -> Fraction | None:
        """Spent budgets: 1 is all of it, more than 1 is overspent; None without events."""
        return self.bad / self.allowed if self.total else None

    @property
    def remaining(self) -> Fraction | None:
        """The share of the budget that is left, at most 1; negative when overspent; None without events."""
        return None if self.spent is None else 1 - self.spent

    @property
    def kept(self) -> bool | None:
        """Whether the promise was kept; None without events: no traffic is unknown, not healthy."""
        return self.left >= 0 if self.total else None


@dataclass(frozen=True, slots=True)
class Exhaustion:
    """
    When the budget will be used up, if things go on as they are.

    Attributes:
        answer: "in" (after `in_s` seconds), "exhausted" (it is already), "never" (this pace does not use it up) or
            "unknown" (no events to judge by).
        in_s: seconds from now; 0 when exhausted already, None for never and unknown.
        why: one sentence with the numbers behind the answer.
    """

    answer: Literal["in", "exhausted", "never", "unknown"]
    in_s: Fraction | None
    why: str

    def __str__(self) -> str:
        return f"in {format_duration(float(self.in_s or 0))}" if self.answer == "in" else self.answer


def as_objective(objective: Fraction | float) -> Fraction:
    """
    An objective as an exact fraction; a float means the decimal that it is written as.

    Raises:
        InvalidValue: not strictly between 0 and 1.  0 promises nothing, 1 leaves no budget to divide by.

    >>> as_objective(0.999)
    Fraction(999, 1000)
    """
    exact = _exact(objective)
    if exact is None or not 0 < exact < 1:
        percent = f", so {objective} % is {float(exact) / 100:.6g}" if exact is not None and 1 < exact < 100 else ""
        raise InvalidValue("objective", expected=f"a fraction strictly between 0 and 1{percent}", got=objective)
    return exact


def as_count(name: str, count: Count) -> Fraction:
    """
    A number of events as an exact fraction; a float means the decimal that it is written as.

    Args:
        name: what is counted, for the message.
        count: 0 or more; whole, unless it comes out of Prometheus' `increase`.

    Raises:
        InvalidValue: negative, nan, infinite or no number.  An unknown count is not 0: leave it out.
    """
    exact = _exact(count)
    if exact is None or exact < 0:
        raise InvalidValue(
            f"{name} (a count of events)",
            expected="a finite number from 0 up (a counter that fell was reset: see slo.counts.from_counters)",
            got=count,
        )
    return exact


def budget(bad: Count, total: Count, objective: Fraction | float) -> Budget:
    """
    The error budget of *total* events of which *bad* were bad.

    Args:
        bad: events that broke the indicator in the window (a count, not a rate).
        total: all valid events of the same window (a count).
        objective: target fraction of good events, in (0, 1).

    Returns:
        A `Budget`; without events its ratios are None.

    Raises:
        InvalidValue: the objective is not strictly between 0 and 1, a count is negative, or *bad* exceeds *total*.

    >>> month = budget(bad=432, total=1_000_000, objective=0.999)
    >>> int(month.allowed), float(month.spent), month.kept
    (1000, 0.432, True)
    """
    exact_bad, exact_total = as_count("bad", bad), as_count("total", total)
    if exact_bad > exact_total:
        raise InvalidValue(
            "bad", expected=f"at most total, which is {total} (do both count the same events and window?)", got=bad
        )
    return Budget(exact_bad, exact_total, as_objective(objective))


def burn_rate(bad: Count, total: Count, objective: Fraction | float) -> Fraction | None:
    """
    How many times faster than allowed the error budget is being spent.

    A rate of 1 spends exactly the whole budget by the end of the period; 14.4 spends 2 % of a 30-day budget in one
    hour.  It is at most 1 / (1 - objective).

    Args:
        bad: events that broke the indicator in the window (a count, not a rate).
        total: all valid events of the same window (a count).
        objective: target fraction of good events, in (0, 1).

    Returns:
        An exact ratio, 0 or more; None when *total* is 0: no traffic is unknown, not healthy.

    Raises:
        InvalidValue: as for `budget`.

    >>> burn_rate(bad=144, total=10_000, objective=0.999)
    Fraction(72, 5)
    >>> print(burn_rate(bad=0, total=0, objective=0.999))
    None
    """
    return budget(bad, total, objective).spent


def allowed_s(objective: Fraction | float, period_s: Count) -> Fraction:
    """
    Seconds of full outage that an objective allows in a period of even traffic.

    >>> float(allowed_s(0.999, period_s=30 * 86_400)) / 60
    43.2
    """
    return (1 - as_objective(objective)) * _length("period_s", period_s)


def allowed_events(objective: Fraction | float, total: Count) -> int:
    """
    Whole events that may be bad among *total* before the promise is broken.

    >>> allowed_events(0.999, total=1_234_567), allowed_events(0.999, total=999)
    (1234, 0)
    """
    return math.floor(budget(0, total, objective).allowed)


def share_spent(burn: Count, window_s: Count, period_s: Count) -> Fraction:
    """
    The share of the period's budget that a burn rate spends within a window, with even traffic.

    Args:
        burn: burn rate over the window, 0 or more.
        window_s: length of the window, in seconds.
        period_s: length of the objective's period, in seconds.

    >>> share_spent(14.4, window_s=3600, period_s=30 * 86_400)
    Fraction(1, 50)
    """
    return as_count("burn", burn) * _length("window_s", window_s) / _length("period_s", period_s)


def outage_to_cross_s(
    objective: Fraction | float, factor: Count, window_s: Count, *, error_ratio: Count = 1
) -> Fraction | None:
    """
    Seconds of an outage after which the burn rate over a clean window reaches a factor, with even traffic.

    Args:
        objective: target fraction of good events.
        factor: the burn rate to be reached.
        window_s: length of the window, in seconds.
        error_ratio: fraction of events that fail during the outage, in (0, 1].

    Returns:
        Seconds, at most *window_s*; None when even a window full of this outage stays below the factor.

    Raises:
        InvalidValue: *error_ratio* is outside (0, 1], or another value is out of its range.

    >>> float(outage_to_cross_s(0.999, 14.4, window_s=3600))
    51.84
    >>> print(outage_to_cross_s(0.9, 14.4, window_s=3600))
    None
    """
    ratio = as_count("error_ratio", error_ratio)
    if not 0 < ratio <= 1:
        raise InvalidValue("error_ratio", expected="a fraction above 0 and at most 1", got=error_ratio)
    length = _length("window_s", window_s)
    needed = as_count("factor", factor) * (1 - as_objective(objective)) * length / ratio
    return needed if needed <= length else None


def exhaustion(
    remaining: Count | None, burn: Count | None, period_s: Count, *, renews_in_s: Count | None = None
) -> Exhaustion:
    """
    When a budget from which nothing rolls off is used up at the current burn rate.

    This is the answer for a calendar period.  In a rolling window old bad events also leave, which needs the counts:
    see `tracking.time_to_exhaustion`.

    Args:
        remaining: share of the period's budget that is left now; None when unknown.
        burn: current burn rate; None when unknown.
        period_s: length of the objective's period, in seconds.
        renews_in_s: seconds until the period ends and a new budget begins, if it does.

    Returns:
        An `Exhaustion`; "never" when nothing is burning or the period ends first.

    >>> print(exhaustion(1, 14.4, 30 * 86_400))
    in 2 d 2 h
    >>> print(exhaustion(Fraction(1, 2), 0, 30 * 86_400))
    never
    """
    if remaining is None or burn is None:
        return Exhaustion("unknown", None, "there were no events, so what is left or how fast it goes is unknown")
    left, pace, length = Fraction(remaining), as_count("burn", burn), _length("period_s", period_s)
    if left <= 0:
        return Exhaustion("exhausted", Fraction(0), f"{float(-left):.1%} more than the whole budget is spent")
    if not pace:
        return Exhaustion("never", None, "nothing is being spent")
    in_s = left * length / pace
    shown = format_duration(float(in_s))
    if renews_in_s is not None and in_s > as_count("renews_in_s", renews_in_s):
        renewal = format_duration(float(renews_in_s))
        return Exhaustion("never", None, f"{shown} at burn {float(pace):.3g}, and the period ends in {renewal}")
    return Exhaustion("in", in_s, f"{float(left):.1%} of the budget at burn {float(pace):.3g} lasts {shown}")


def _exact(value: object) -> Fraction | None:
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not math.isfinite(value):
        return None
    if isinstance(value, numbers.Integral):
        return Fraction(int(value))  # an integer of numpy would overflow inside the fraction
    # 0.999 is 999/1000 to whoever wrote it, not the binary fraction next to it.
    return Fraction(value) if isinstance(value, numbers.Rational) else Fraction(repr(float(value)))


def _length(name: str, seconds: Count) -> Fraction:
    length = _exact(seconds)
    if length is None or length <= 0:
        raise InvalidValue(name, expected="a length of time above 0, in seconds", got=seconds)
    return length
