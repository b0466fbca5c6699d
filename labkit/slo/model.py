"""
The words of this room as types: windows, indicators, objectives, alert policies.

Pure data.  Objectives and shares are exact fractions, so that a decision never hangs on the last bit of a float;
lengths are whole seconds.  How specifications are read is in `spec`, what is computed from them in `arithmetic`, what
Prometheus is told in `rules`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from typing import Literal

__all__ = [
    "Budgeting",
    "BurnAlert",
    "Calendar",
    "EventSli",
    "FreshnessSli",
    "LatencySli",
    "Method",
    "Policy",
    "Rolling",
    "Severity",
    "Sli",
    "Slo",
    "ThroughputSli",
    "Window",
]

Severity = Literal["page", "ticket"]
Method = Literal["occurrences", "timeslices", "ratio-timeslices"]


@dataclass(frozen=True, slots=True)
class Rolling:
    """The last *seconds* seconds, at any instant."""

    seconds: int


@dataclass(frozen=True, slots=True)
class Calendar:
    """The calendar period that an instant falls in; it starts at midnight in *timezone* (an IANA name)."""

    unit: Literal["day", "week", "month", "quarter", "year"]
    timezone: str = "UTC"


Window = Rolling | Calendar


@dataclass(frozen=True, slots=True)
class EventSli:
    """
    The share of events that are good.

    *total*, and exactly one of *good* and *bad*, are PromQL expressions of one value each that count events and hold
    the placeholder `$window` where the length of time goes: `sum(increase(http_requests_total[$window]))`.
    """

    total: str
    good: str | None = None
    bad: str | None = None


@dataclass(frozen=True, slots=True)
class LatencySli:
    """
    The share of requests that took at most *bound_s* seconds, from a histogram.

    *histogram* is its base name (without `_bucket`), *selector* the matchers inside the braces, without braces.
    *bound_s* must be a bucket's bound.
    """

    histogram: str
    bound_s: float
    selector: str = ""


@dataclass(frozen=True, slots=True)
class ThroughputSli:
    """
    The share of slices of *slice_s* seconds in which *query* is at least *minimum_per_s*.

    *query* is PromQL without placeholder, in events per second.
    """

    query: str
    minimum_per_s: float
    slice_s: int = 60


@dataclass(frozen=True, slots=True)
class FreshnessSli:
    """
    The share of slices of *slice_s* seconds in which *query* is at most *maximum_s*.

    *query* is PromQL without placeholder: the age of the data, in seconds.
    """

    query: str
    maximum_s: float
    slice_s: int = 60


Sli = EventSli | LatencySli | ThroughputSli | FreshnessSli


@dataclass(frozen=True, slots=True)
class Budgeting:
    """
    How bad is counted: by events, by slices of time that are good or bad as a whole, or by the slices' mean ratio.

    *slice_s* and *slice_target* (the fraction of good events that makes a slice good) matter for the slices only.
    """

    method: Method = "occurrences"
    slice_s: int = 60
    slice_target: Fraction | None = None


@dataclass(frozen=True, slots=True)
class Slo:
    """One promise: *objective*, strictly between 0 and 1, is the fraction of good events over *window*."""

    name: str
    service: str
    objective: Fraction
    window: Window
    sli: Sli
    description: str = ""
    budgeting: Budgeting = Budgeting()
    owner: str = ""
    policy: str = "workbook"
    runbook: str = ""
    labels: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class BurnAlert:
    """
    Fire when *budget_share* of the period's budget is spent within *long_s*, and it is still being spent in *short_s*.

    The condition is `burn(long) > factor and burn(short) > factor` with the factor `budget_share * period / long_s`,
    held for *for_s* seconds; without *short_s* the second half falls away.
    """

    budget_share: Fraction
    long_s: int
    short_s: int | None = None
    for_s: int = 0
    severity: Severity = "page"

    def factor(self, period_s: int) -> Fraction:
        """
        The burn rate above which this alert fires, for an objective over *period_s* seconds.

        Source: Google SRE workbook, "Alerting on SLOs": share = burn rate * alerting window / period.

        >>> BurnAlert(Fraction(2, 100), long_s=3600).factor(30 * 86_400)
        Fraction(72, 5)
        """
        return self.budget_share * period_s / self.long_s


@dataclass(frozen=True, slots=True)
class Policy:
    """Alerts that belong together; a severity pages when any of its alerts does."""

    name: str
    alerts: tuple[BurnAlert, ...]
    title: str = ""
    source: str = ""
