"""
How much a count can say: intervals for a share of bad events, and how many events a question needs.

    interval(bad=2, total=400).high           no more than 1.8 % of all such requests are bad, at 95 %
    events_needed(0.999, factor=14.4)         fewer events than this in a window, and one bad one pages
    events_to_confirm(0.999)                  fewer than this, and even no failure at all proves nothing

An interval is for a stable service seen by chance: an incident is not chance.  Sources: Wilson (1927), Clopper and
Pearson (1934), the incomplete beta function after DLMF 8.17 (https://dlmf.nist.gov/8.17).  See docs/slo-formulas.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from statistics import NormalDist
from typing import Literal

from labkit.errors import InvalidValue, UnknownName
from labkit.slo.arithmetic import Count, as_count, as_objective, budget

__all__ = ["Interval", "events_needed", "events_to_confirm", "events_to_tell_apart", "interval", "verdict"]

IntervalMethod = Literal["wilson", "clopper-pearson"]
_HALVINGS = 200
_TINY = 1e-300
_STILL = 1e-15
_MOST_TERMS = 1_000_000


@dataclass(frozen=True, slots=True)
class Interval:
    """
    The shares of bad events that a count is compatible with, from `low` to `high`, fractions in [0, 1].

    `confidence` is the fraction of such intervals, over many repetitions, that contain the true share.
    """

    low: float
    high: float
    confidence: float


def interval(bad: Count, total: Count, confidence: float = 0.95, *, method: IntervalMethod = "wilson") -> Interval:
    """
    A confidence interval for the share of bad events.

    Args:
        bad: events that broke the indicator (a count).
        total: all events (a count).
        confidence: in (0, 1); two-sided.
        method: "wilson" is close to its confidence on average; "clopper-pearson" never falls below it and is wider.

    Returns:
        An `Interval`; from 0 to 1 when there were no events: nothing is known, and nothing is excluded.

    Raises:
        InvalidValue: a count is negative, *bad* exceeds *total*, or *confidence* is not strictly between 0 and 1.
        UnknownName: there is no such method.

    >>> found = interval(bad=1, total=29)
    >>> round(found.low, 4), round(found.high, 4)
    (0.0061, 0.1718)
    """
    failed, events = _counted(bad, total)
    level = _probability("confidence", confidence)
    if method not in _METHODS:
        raise UnknownName("method for an interval", method, known=list(_METHODS))
    if events == 0:
        return Interval(0.0, 1.0, level)
    low, high = _METHODS[method](failed, events, level)
    # The ends are exact where nothing, or everything, is bad.
    return Interval(0.0 if failed == 0 else max(low, 0.0), 1.0 if failed == events else min(high, 1.0), level)


def verdict(
    bad: Count, total: Count, objective: Fraction | float, confidence: float = 0.95
) -> Literal["kept", "broken", "undecided"]:
    """
    What a count says about the service behind it: kept or broken beyond chance, or too few events to tell.

    The promise itself is about what happened, which is exact (`arithmetic.budget`); this is about whether the service
    would keep it.

    >>> verdict(0, 1_000, 0.999), verdict(0, 5_000, 0.999), verdict(20, 5_000, 0.999)
    ('undecided', 'kept', 'broken')
    """
    found = interval(bad, total, confidence, method="clopper-pearson")
    allowed = float(1 - as_objective(objective))
    return "kept" if found.high <= allowed else "broken" if found.low > allowed else "undecided"


def events_needed(objective: Fraction | float, factor: Count, *, bad: int = 1) -> int:
    """
    How many events a window must hold so that *bad* bad ones do not exceed a burn rate.

    Args:
        objective: fraction of good events that is promised.
        factor: the burn rate above which the alert fires, above 0.
        bad: bad events that shall be tolerated, 1 or more.

    Returns:
        The smallest such number: with one event fewer, these bad ones alone fire the alert.

    Raises:
        InvalidValue: a value is out of its range.

    >>> events_needed(0.999, factor=14.4), events_needed(0.999, factor=1)
    (70, 1000)
    """
    pace = as_count("factor", factor)
    if pace == 0 or bad < 1:
        raise InvalidValue("factor and bad", expected="a burn rate above 0, and 1 or more events", got=(factor, bad))
    # An alert fires when the burn is above its factor, so equal is tolerated; there are at least the bad ones.
    return max(math.ceil(bad / (pace * (1 - as_objective(objective)))), bad)


def events_to_confirm(objective: Fraction | float, confidence: float = 0.95) -> int:
    """
    How many events without a single bad one show that the objective is kept, at this confidence (one-sided).

    If just `1 - objective` of all events were bad, *n* good ones in a row would have the probability objective^n; the
    answer is the first *n* at which that is at most 1 - confidence.  For 95 % it is about 3 / (1 - objective), the rule
    of three.

    Raises:
        InvalidValue: a value is not strictly between 0 and 1.

    >>> events_to_confirm(0.999)
    2995
    """
    promised, doubt = as_objective(objective), 1 - _probability("confidence", confidence)
    return math.ceil(math.log(doubt) / math.log1p(float(promised - 1)))


def events_to_tell_apart(
    objective: Fraction | float, actual: Fraction | float, *, confidence: float = 0.95, power: float = 0.8
) -> int:
    """
    How many events are needed to notice that a service which should reach *objective* really reaches *actual*.

    Args:
        objective: fraction of good events that is promised.
        actual: fraction of good events that the service really has; either side of the objective.
        confidence: 1 minus the probability of noticing a difference that is not there (one-sided).
        power: probability of noticing the difference that is there.

    Returns:
        Events, by the normal approximation; good once some ten bad ones are expected in them.

    Raises:
        InvalidValue: a value is not strictly between 0 and 1, or the two are equal: no number tells equals apart.

    >>> events_to_tell_apart(0.999, 0.998)
    8027
    """
    promised, real = 1 - float(as_objective(objective)), 1 - float(as_objective(actual))
    if promised == real:
        raise InvalidValue("actual", expected="another fraction than the objective", got=actual)
    normal = NormalDist()
    chance = normal.inv_cdf(_probability("confidence", confidence)) * math.sqrt(promised * (1 - promised))
    miss = normal.inv_cdf(_probability("power", power)) * math.sqrt(real * (1 - real))
    return math.ceil(((chance + miss) / (real - promised)) ** 2)


def _counted(bad: Count, total: Count) -> tuple[float, float]:
    checked = budget(bad, total, Fraction(1, 2))
    return float(checked.bad), float(checked.total)


def _probability(name: str, value: float) -> float:
    if not 0 < value < 1:
        raise InvalidValue(name, expected="a fraction strictly between 0 and 1, such as 0.95", got=value)
    return float(value)


def _wilson(bad: float, total: float, confidence: float) -> tuple[float, float]:
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share, weight = bad / total, z * z / total
    centre = (share + weight / 2) / (1 + weight)
    half = z / (1 + weight) * math.sqrt(share * (1 - share) / total + weight / (4 * total))
    return centre - half, centre + half


def _clopper_pearson(bad: float, total: float, confidence: float) -> tuple[float, float]:
    doubt = (1 - confidence) / 2
    # P(X >= bad | p) = I_p(bad, total - bad + 1), and P(X <= bad | p) = 1 - I_p(bad + 1, total - bad).
    low = _solve(lambda p: _beta(p, bad, total - bad + 1) - doubt) if bad > 0 else 0.0
    high = _solve(lambda p: doubt - _beta(1 - p, total - bad, bad + 1)) if bad < total else 1.0
    return low, high


_METHODS: dict[str, Callable[[float, float, float], tuple[float, float]]] = {
    "wilson": _wilson,
    "clopper-pearson": _clopper_pearson,
}


def _solve(rising: Callable[[float], float]) -> float:
    """Where a function that rises over (0, 1) is 0, by halving until neighbours in float64 are reached."""
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if middle in {low, high}:
            break
        low, high = (low, middle) if rising(middle) > 0 else (middle, high)
    return (low + high) / 2


def _beta(x: float, a: float, b: float) -> float:
    """The regularised incomplete beta function I_x(a, b) by its continued fraction, DLMF 8.17.22."""
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):
        return 1 - _beta(1 - x, b, a)  # where the fraction converges fast
    front = math.exp(
        math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x) - math.log(a)
    )
    return front * _continued_fraction(x, a, b)


def _continued_fraction(x: float, a: float, b: float) -> float:
    """1 / (1 + d1 / (1 + d2 / ...)) of 8.17.22, evaluated forwards until it stands still (Lentz 1976)."""
    value, upper, lower = 1.0, 1.0, 0.0
    for term in range(1, _MOST_TERMS):
        m = term // 2
        top = m * (b - m) if term % 2 == 0 else -(a + m) * (a + b + m)
        d = top * x / ((a + term - 1) * (a + term))
        lower = 1 / (1 + d * lower or _TINY)
        upper = 1 + d / upper or _TINY
        value *= upper * lower
        if abs(upper * lower - 1) < _STILL:
            return 1 / value
    raise InvalidValue("total", expected="a number of events for which the exact interval converges", got=a + b - 1)
