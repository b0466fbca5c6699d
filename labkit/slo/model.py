"""
The words of this room as types: windows, indicators, objectives, alert policies.

Pure data.  Objectives and shares are exact fractions, so that a decision never hangs on the last bit of a float;
lengths are whole seconds.  How specifications are read is in `spec`, what is computed from them in `arithmetic`, what
Prometheus is told in `rules`.

Every indicator says itself in PromQL: `good_query(window)` and `total_query(window)` count events (or slices of time)
in the window that ends now, `error_ratio(window)` is the share of bad ones.  All three give no value when there is
nothing to count from, and the ratio is NaN when the total is 0: unknown, never healthy.  *window* is a PromQL duration
such as `1h`, or the placeholder itself.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from typing import Literal

from labkit._time import parse_duration
from labkit.errors import InvalidValue

__all__ = [
    "WINDOW",
    "Budgeting",
    "BurnAlert",
    "Calendar",
    "CalendarUnit",
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

WINDOW = "$window"
"""Stands in the queries of an event SLI where the length of time goes."""

Severity = Literal["page", "ticket"]
CalendarUnit = Literal["day", "week", "month", "quarter", "year"]
Method = Literal["occurrences", "timeslices", "ratio-timeslices"]


@dataclass(frozen=True, slots=True)
class Rolling:
    """The last *seconds* seconds, at any instant."""

    seconds: int


@dataclass(frozen=True, slots=True)
class Calendar:
    """The calendar period that an instant falls in; it starts at midnight in *timezone* (an IANA name)."""

    unit: CalendarUnit
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
    name: str = ""
    description: str = ""

    def total_query(self, window: str) -> str:
        """
        PromQL for the number of events in *window*.

        >>> EventSli("sum(increase(jobs_total[$window]))", good="sum(increase(done_total[$window]))").total_query("1h")
        'sum(increase(jobs_total[1h]))'
        """
        return _filled(self.total, window)

    def good_query(self, window: str) -> str:
        """
        PromQL for the number of good events in *window*; 0 where there is a total and no series of good ones.

        A counter with a status label has no series before the first event of its kind, nor after every replica that
        had such events is gone: without the zero, a service of which all requests fail would have no error ratio.
        """
        if self.good is not None:
            return self._counted(self.good, window)
        return f"({self.total_query(window)}) - {self._counted(self._bad(), window)}"

    def error_ratio(self, window: str) -> str:
        """
        PromQL for the share of bad events in *window*, from 0 to 1.

        >>> print(EventSli("sum(increase(a[$window]))", bad="sum(increase(b[$window]))").error_ratio("5m"))
        ((sum(increase(b[5m]))) or 0 * (sum(increase(a[5m])))) / (sum(increase(a[5m])))
        """
        total = self.total_query(window)
        if self.good is not None:
            return f"1 - {self._counted(self.good, window)} / ({total})"
        return f"{self._counted(self._bad(), window)} / ({total})"

    def _bad(self) -> str:
        if self.bad is None:
            raise InvalidValue("an event SLI", expected="one that has good or bad", got=self)
        return self.bad

    def _counted(self, part: str, window: str) -> str:
        # `0 * total` and not `vector(0)`: it has the total's labels, and it is nothing where the total is nothing.
        return f"(({_filled(part, window)}) or 0 * ({self.total_query(window)}))"


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
    name: str = ""
    description: str = ""

    def total_query(self, window: str) -> str:
        """
        PromQL for the number of requests in *window*.

        >>> LatencySli("wait_seconds", 0.25, 'job="shop"').total_query("1h")
        'sum(increase(wait_seconds_count{job="shop"}[1h]))'
        """
        return self._sum("count", self.selector, window)

    def good_query(self, window: str) -> str:
        """
        PromQL for the number of requests in *window* that took at most the bound; nothing if that is no bucket.

        Whole numbers are looked for as `1` and as `1.0`: clients write one or the other, Prometheus 3 always `1.0`.

        >>> LatencySli("wait_seconds", 0.25).good_query("1h")
        'sum(increase(wait_seconds_bucket{le="0.25"}[1h]))'
        >>> LatencySli("wait_seconds", 1).good_query("1h")
        'sum(increase(wait_seconds_bucket{le=~"1([.]0)?"}[1h]))'
        """
        bound = f'le=~"{self.bound_s:.0f}([.]0)?"' if self.bound_s == int(self.bound_s) else f'le="{self.bound_s!r}"'
        return self._sum("bucket", f"{self.selector}, {bound}" if self.selector else bound, window)

    def error_ratio(self, window: str) -> str:
        """PromQL for the share of requests in *window* that took longer than the bound, from 0 to 1."""
        return f"1 - {self.good_query(window)} / {self.total_query(window)}"

    def _sum(self, suffix: str, selector: str, window: str) -> str:
        matchers = f"{{{selector}}}" if selector else ""
        return f"sum(increase({self.histogram}_{suffix}{matchers}[{_checked(window)}]))"


class _OfSlices:
    """An indicator that asks of each slice of time whether its query's value is good enough."""

    __slots__ = ()
    query: str
    slice_s: int

    def total_query(self, window: str) -> str:
        """PromQL for the number of slices in *window* that have a value; NaN is none."""
        return self._slices("count", "", window)

    def good_query(self, window: str) -> str:
        """PromQL for the number of slices in *window* that are good."""
        return self._slices("sum", f" {self._good()}", window)

    def error_ratio(self, window: str) -> str:
        """PromQL for the share of bad slices among those in *window* that have a value, from 0 to 1."""
        return f"1 - {self.good_query(window)} / {self.total_query(window)}"

    def _good(self) -> str:
        """The comparison that gives 1 for a good value and 0 for a bad one."""
        raise NotImplementedError

    def _slices(self, how: Literal["sum", "count"], comparison: str, window: str) -> str:
        # `>= -Inf` lets every number pass and drops NaN, so that no value is neither good nor bad.
        value = f"({self.query}) >= -Inf"
        value = f"({value}){comparison}" if comparison else value
        return f"{how}_over_time(({value})[{_checked(window)}:{self.slice_s}s])"


@dataclass(frozen=True, slots=True)
class ThroughputSli(_OfSlices):
    """
    The share of slices of *slice_s* seconds in which *query* is at least *minimum_per_s*.

    *query* is PromQL without placeholder, in events per second.
    """

    query: str
    minimum_per_s: float
    slice_s: int = 60
    name: str = ""
    description: str = ""

    def _good(self) -> str:
        return f">= bool {self.minimum_per_s!r}"


@dataclass(frozen=True, slots=True)
class FreshnessSli(_OfSlices):
    """
    The share of slices of *slice_s* seconds in which *query* is at most *maximum_s*.

    *query* is PromQL without placeholder: the age of the data, in seconds.
    """

    query: str
    maximum_s: float
    slice_s: int = 60
    name: str = ""
    description: str = ""

    def _good(self) -> str:
        return f"<= bool {self.maximum_s!r}"


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


def _checked(window: str) -> str:
    if window != WINDOW:
        parse_duration(window)
    return window


def _filled(query: str, window: str) -> str:
    return query.replace(WINDOW, _checked(window))
