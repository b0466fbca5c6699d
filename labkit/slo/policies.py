"""
Alert policies as data: the designs of the SRE workbook, and what is wrong with a policy before it runs.

    POLICIES["workbook"]                     multi-window, multi-burn-rate, for an objective over 30 days
    designs(period_s=28 * 86_400)            the same designs for another period
    lint(policy, objective, period_s)        alerts that never fire, that do not stop, that contradict each other

A policy of one's own is a `Policy` of `BurnAlert`s.  Factors are never written down: they follow from the share of the
budget, the long window and the period, so other windows and periods come out right.  Derivations: docs/slo-backtest.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fractions import Fraction
from types import MappingProxyType

from labkit._time import format_duration
from labkit.errors import InvalidValue, UnknownName
from labkit.slo.arithmetic import as_objective
from labkit.slo.model import BurnAlert, Policy

__all__ = ["POLICIES", "alert_names", "budget_share", "designs", "get", "highest_burn", "lint", "threshold"]

_MINUTE_S, _HOUR_S, _DAY_S = 60, 3600, 86_400
_MONTH_S = 30 * _DAY_S
_WORKBOOK = "Google SRE workbook, chapter 5, Alerting on SLOs"

# The longest short window that the workbook gives an alert that pages: slower than this to stop is worth a warning.
_SLOW_TO_STOP_S = 30 * _MINUTE_S


def _require_lengths(**lengths_s: int) -> None:
    for name, length in lengths_s.items():
        if not length > 0:
            raise InvalidValue(name, expected="a length of time above 0, in seconds", got=length)


def budget_share(factor: Fraction | int, long_s: int, period_s: int = _MONTH_S) -> Fraction:
    """
    The share of the budget that is spent when the burn rate is *factor* for *long_s* seconds: how shares are found.

    The inverse of `BurnAlert.factor`.  Lengths in seconds, above 0.

    Raises:
        InvalidValue: a length is not above 0.

    >>> budget_share(Fraction("14.4"), 3600)
    Fraction(1, 50)
    """
    _require_lengths(long_s=long_s, period_s=period_s)
    return Fraction(factor) * long_s / period_s


def designs(period_s: int = _MONTH_S) -> Mapping[str, Policy]:
    """
    The workbook's six designs by name, and the four-window set that generators of rules use.

    Args:
        period_s: length of the objective's window, in seconds.  The first three designs compare the error ratio with
            1 - objective, a burn rate of 1 whatever the period, so their shares depend on it; the others are defined
            by shares, and their factors depend on it.

    Raises:
        InvalidValue: *period_s* is not above 0.

    >>> list(designs())
    ['threshold', 'long-window', 'for-duration', 'burn-rate', 'multi-burn-rate', 'workbook', 'four-window']
    >>> [float(alert.factor(30 * 86_400)) for alert in designs()["workbook"].alerts]
    [14.4, 6.0, 1.0]
    """
    _require_lengths(period_s=period_s)

    def at_objective(long_s: int, for_s: int = 0) -> BurnAlert:
        return BurnAlert(budget_share(1, long_s, period_s), long_s=long_s, for_s=for_s)

    two, five, ten = Fraction(2, 100), Fraction(5, 100), Fraction(10, 100)
    hour, six_hours, day, three_days = _HOUR_S, 6 * _HOUR_S, _DAY_S, 3 * _DAY_S
    fast = BurnAlert(two, hour, 5 * _MINUTE_S)
    slow = BurnAlert(five, six_hours, 30 * _MINUTE_S)
    ticket = BurnAlert(ten, three_days, six_hours, severity="ticket")
    found = (
        Policy("threshold", (at_objective(10 * _MINUTE_S),), "error ratio above the objective", f"{_WORKBOOK}, 1"),
        Policy("long-window", (at_objective(36 * _HOUR_S),), "the same over 36 hours", f"{_WORKBOOK}, 2"),
        Policy("for-duration", (at_objective(_MINUTE_S, _HOUR_S),), "the same held for an hour", f"{_WORKBOOK}, 3"),
        Policy("burn-rate", (BurnAlert(five, hour),), "5 % of the budget in an hour", f"{_WORKBOOK}, 4"),
        Policy(
            "multi-burn-rate",
            (
                BurnAlert(two, hour),
                BurnAlert(five, six_hours),
                BurnAlert(ten, three_days, severity="ticket"),
            ),
            "2 % in an hour, 5 % in six, 10 % in three days",
            f"{_WORKBOOK}, 5",
        ),
        Policy("workbook", (fast, slow, ticket), "multi-window, multi-burn-rate", f"{_WORKBOOK}, 6"),
        Policy(
            "four-window",
            (fast, slow, BurnAlert(ten, day, 2 * hour, severity="ticket"), ticket),
            "the same with a ticket for 10 % in a day",
            "Sloth's default windows for 30 days",
        ),
    )
    return MappingProxyType({policy.name: policy for policy in found})


POLICIES: Mapping[str, Policy] = designs()


def get(name: str, known: Mapping[str, Policy] = POLICIES) -> Policy:
    """
    The policy with this name.

    Raises:
        UnknownName: there is none; the message lists the known ones and the nearest.

    >>> get("workbook").alerts[0].short_s
    300
    """
    if name not in known:
        raise UnknownName("alert policy", name, known=list(known), how="Or write a `Policy` of your own.")
    return known[name]


def alert_names(policy: Policy) -> tuple[str, ...]:
    """
    A name for each alert of *policy*, in its order: severity and windows, and a number where two would be equal.

    >>> alert_names(POLICIES["workbook"])
    ('page 1h/5m', 'page 6h/30m', 'ticket 3d/6h')
    """
    names: list[str] = []
    for alert in policy.alerts:
        windows = [_short(length) for length in (alert.long_s, alert.short_s) if length is not None]
        name = f"{alert.severity} {'/'.join(windows)}" + (f" for {_short(alert.for_s)}" if alert.for_s else "")
        taken = sum(one == name or one.startswith(f"{name} #") for one in names)
        names.append(f"{name} #{taken + 1}" if taken else name)
    return tuple(names)


def highest_burn(objective: Fraction | float) -> Fraction:
    """
    The burn rate while every event is bad, 1/(1 - objective): no burn rate is above it.

    Raises:
        InvalidValue: *objective* is not strictly between 0 and 1.

    >>> highest_burn(Fraction(999, 1000))
    Fraction(1000, 1)
    """
    return 1 / (1 - as_objective(objective))


def threshold(alert: BurnAlert, objective: Fraction | float, period_s: int = _MONTH_S) -> float:
    """
    The error ratio above which *alert* fires: its factor times 1 - objective, as the nearest float.

    Rules write this number and the back-test compares with it: one float on both sides, so that a ratio that meets it
    exactly is decided alike.

    Raises:
        InvalidValue: *objective* is not strictly between 0 and 1, or a length is not above 0.

    >>> threshold(BurnAlert(Fraction(2, 100), long_s=3600), Fraction(999, 1000))
    0.0144
    """
    _require_lengths(long_s=alert.long_s, period_s=period_s)
    return float(alert.factor(period_s) * (1 - as_objective(objective)))


def lint(policy: Policy, objective: Fraction | float, period_s: int = _MONTH_S) -> list[str]:
    """
    What is wrong with *policy* for this objective, a sentence each with its numbers; an empty list when nothing is.

    Found: alerts that can never fire, that fire while the budget would last, that go on firing long after the cause is
    gone, that overlook short outages; windows in the wrong order or longer than the period; alerts that say the same.

    Args:
        policy: of any alerts; its own numbers may be nonsense.
        objective: fraction of good events, strictly between 0 and 1.
        period_s: length of the objective's window, in seconds.

    Raises:
        InvalidValue: *objective* or *period_s* is out of range.

    >>> lint(POLICIES["workbook"], Fraction("0.999"))
    []
    >>> lint(POLICIES["workbook"], Fraction("0.93"))[0]
    'page 1h/5m: can never fire: it needs a burn rate above 14.4, and at 93 % the highest is 14.286.'
    """
    _require_lengths(period_s=period_s)
    top = highest_burn(objective)
    if not policy.alerts:
        return [f"{policy.name} has no alerts: nothing can fire."]
    named = list(zip(alert_names(policy), policy.alerts, strict=True))
    found = [
        f"{name}: {problem}"
        for name, alert in named
        for problem in _problems(alert, as_objective(objective), top, period_s)
    ]
    for index, (name, alert) in enumerate(named):
        for earlier, other in named[:index]:
            if _implies(alert, other):
                found.append(f"{name}: says nothing new: whenever it fires, {earlier} does.")
            elif _implies(other, alert):
                found.append(f"{earlier}: says nothing new: whenever it fires, {name} does.")
    return found


def _problems(alert: BurnAlert, objective: Fraction, top: Fraction, period_s: int) -> Iterator[str]:
    if alert.long_s <= 0 or (alert.short_s is not None and alert.short_s <= 0) or alert.for_s < 0:
        windows = f"{alert.long_s} s, {alert.short_s} s, {alert.for_s} s"
        yield f"has a length that is not above 0 (long window, short window, for: {windows})."
        return
    factor = alert.factor(period_s)
    if alert.budget_share <= 0:
        yield f"its share of the budget is {_number(alert.budget_share)}, so that a single bad event is enough."
    elif alert.budget_share > 1:
        yield f"{_percent(alert.budget_share)} of the budget may be spent before it fires: more than there is."
    if factor >= top:
        yield (
            f"can never fire: it needs a burn rate above {_number(factor)}, and at {_percent(objective)} "
            f"the highest is {_number(top)}."
        )
    elif 0 < factor < 1:
        yield (
            f"fires at a burn rate of {_number(factor)}, at which the budget lasts longer than its period of "
            f"{_short(period_s)}."
        )
    yield from _windows(alert, period_s)
    if factor < top:
        yield from _timing(alert, factor, top)


def _windows(alert: BurnAlert, period_s: int) -> Iterator[str]:
    if alert.long_s > period_s:
        yield f"its long window of {_short(alert.long_s)} is longer than the period of {_short(period_s)}."
    if alert.short_s is not None and alert.short_s >= alert.long_s:
        yield (
            f"its short window of {_short(alert.short_s)} is not shorter than the long one of {_short(alert.long_s)}, "
            "so that it does not make it stop sooner."
        )


def _timing(alert: BurnAlert, factor: Fraction, top: Fraction) -> Iterator[str]:
    windows = [length for length in (alert.long_s, alert.short_s) if length is not None]
    # After a total outage that filled a window, with even traffic, burn falls in a straight line from the highest to
    # 0: it is above the factor for the share 1 - factor/top of the window.
    lasts_s = min(windows) * (1 - factor / top)
    if lasts_s > _SLOW_TO_STOP_S and (alert.short_s is None or alert.severity == "page"):
        window = "without a short window" if alert.short_s is None else f"its short window is {_short(alert.short_s)}"
        yield f"may go on firing for {format_duration(float(lasts_s))} after the cause is gone: {window}."
    # In a total outage the condition begins when the bad share of the longest window is factor/top of it, and ends
    # when the same share of the shortest is left.
    begins_s = max(windows) * factor / top
    unseen_s = alert.for_s + begins_s - lasts_s
    if alert.for_s and unseen_s > begins_s:
        yield (
            f"overlooks outages shorter than {format_duration(float(unseen_s))}, total ones included: "
            f"it waits for {_short(alert.for_s)}."
        )


def _implies(alert: BurnAlert, other: BurnAlert) -> bool:
    """Whether *other* fires whenever *alert* does, with the same severity and the same windows."""
    same = (alert.severity, alert.long_s) == (other.severity, other.long_s)
    narrower = other.short_s is None or alert.short_s == other.short_s
    # One long window and one period: the greater share is the greater factor.
    return same and narrower and alert.budget_share >= other.budget_share and alert.for_s >= other.for_s


def _short(seconds: int) -> str:
    """A length as Prometheus writes it, in the largest unit that divides it."""
    for size, unit in ((_DAY_S, "d"), (_HOUR_S, "h"), (_MINUTE_S, "m")):
        if seconds and seconds % size == 0:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def _number(value: Fraction) -> str:
    return f"{float(value):.5g}"


def _percent(value: Fraction) -> str:
    return f"{float(value * 100):.6g} %"
