"""
Pyrra's alerts as a policy, to be compared with the workbook's.

Pyrra (https://github.com/pyrra-dev/pyrra, `slo/rules.go`) keeps the factors 14, 7, 2 and 1 whatever the period, and
stretches the windows with it; they are what they are named after, 1 h, 6 h, 1 d and 4 d, for a period of 28 days.
"""

from __future__ import annotations

from labkit.errors import InvalidValue
from labkit.slo.model import BurnAlert, Policy, Severity
from labkit.slo.policies import budget_share

__all__ = ["pyrra"]

_MINUTE_S, _HOUR_S, _DAY_S = 60, 3600, 86_400
_REFERENCE_S = 28 * _DAY_S

# Factor, long window, short window, `for`, severity, at 28 days.
_ALERTS: tuple[tuple[int, int, int, int, Severity], ...] = (
    (14, _HOUR_S, 5 * _MINUTE_S, 2 * _MINUTE_S, "page"),
    (7, 6 * _HOUR_S, 30 * _MINUTE_S, 15 * _MINUTE_S, "page"),
    (2, _DAY_S, 2 * _HOUR_S, _HOUR_S, "ticket"),
    (1, 4 * _DAY_S, 6 * _HOUR_S, 3 * _HOUR_S, "ticket"),
)


def pyrra(period_s: int = _REFERENCE_S) -> Policy:
    """
    Pyrra's four alerts for an objective over *period_s* seconds; windows are rounded to whole minutes, as there.

    The shares of the budget follow from the factors: for 28 days 1/48, 1/16, 1/14 and 1/7.

    Raises:
        InvalidValue: *period_s* is shorter than four days: the shortest window would be no minute long.

    >>> [str(alert.budget_share) for alert in pyrra().alerts]
    ['1/48', '1/16', '1/14', '1/7']
    >>> [alert.long_s // 60 for alert in pyrra(30 * 86_400).alerts]
    [64, 386, 1543, 6171]
    """
    if period_s < 4 * _DAY_S:
        raise InvalidValue("period_s", expected=f"at least {4 * _DAY_S}, four days", got=period_s)

    def stretched(length_s: int) -> int:
        # Half a minute and more is a minute, as Go rounds durations; Python's `round` would take halves to even.
        return (length_s * period_s // _REFERENCE_S + _MINUTE_S // 2) // _MINUTE_S * _MINUTE_S

    alerts = tuple(
        BurnAlert(
            budget_share(factor, stretched(long_s), period_s), stretched(long_s), stretched(short_s), stretched(for_s),
            severity,
        )
        for factor, long_s, short_s, for_s, severity in _ALERTS
    )  # fmt: skip
    return Policy("pyrra", alerts, "Pyrra's windows and factors", "Pyrra, slo/rules.go")
