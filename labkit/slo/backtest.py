"""
What an alert policy would have done over a history of counts, instant by instant as Prometheus would have done it.

    found = backtest(counts, 0.999, POLICIES["workbook"], incidents=incidents)
    found.pages                    every firing interval of every alert
    found.incidents                each incident: who noticed it, after how long, at what cost, until when
    found.summary()                one row; `compare` sets the rows of many policies one below the other
    sensitivity(counts, …)         the same policy with less traffic, or another objective

Every instant is the end of a step, where the rules are evaluated on the counters that were just scraped.  Firing
intervals are those of `promtool test rules` and of a live server, which tests hold.  Semantics: docs/slo-backtest.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from fractions import Fraction
from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt
import pandas as pd

from labkit._firing import grouped, hold, intervals, score
from labkit.errors import InvalidValue
from labkit.slo.arithmetic import as_objective
from labkit.slo.backtest_incidents import Spending, answered, incident_frame, visible
from labkit.slo.backtest_ratio import Divided, Range, Ratios, error_ratio, range_semantics
from labkit.slo.counts import checked
from labkit.slo.model import BurnAlert, Policy, Severity
from labkit.slo.policies import alert_names, threshold

__all__ = ["BackTest", "Range", "backtest", "compare", "error_ratio", "range_semantics", "sensitivity"]

_MONTH_S = 30 * 86_400
# Rows that are worked on at a time: their arrays stay in the processor's cache, and a year needs no more memory than
# a day.
_BLOCK = 32_768


class _Settings(TypedDict):
    closed: Range
    divided: Divided
    fresh: bool


@dataclass(frozen=True, slots=True)
class BackTest:
    """
    What one policy did over one history.

    Attributes:
        policy, objective, period_s, closed: what was tested, and under which range semantics.
        start, end: of the history, UTC; *step_s* seconds between evaluations.
        pages: `start, end, alert, severity`, one row per firing interval of an alert, in order of time; the names are
            those of `policies.alert_names`.  An interval that reaches *end* may have gone on.
        incidents: None when none were given; else one row each, with the columns of `backtest_incidents.answered`.
        blind: names of alerts of which a window never holds two samples, so that they cannot fire at all.
    """

    policy: Policy
    objective: Fraction
    period_s: int
    closed: Range
    step_s: int
    start: datetime
    end: datetime
    pages: pd.DataFrame
    incidents: pd.DataFrame | None
    blind: tuple[str, ...]

    def notifications(self, severity: Severity = "page") -> pd.DataFrame:
        """What a person gets: `start, end`, the alerts of one severity that overlap or touch taken as one."""
        return grouped(self.pages[self.pages["severity"] == severity])

    def summary(self) -> pd.DataFrame:
        """
        The whole test in one row.

        Returns:
            Index `policy`.  Columns:
            pages, per_week, tickets: notifications, and pages per seven days.
            precision: share of the pages that overlap an incident that deserved one; nan without pages or incidents.
            recall: share of those incidents with a page; nan without any.
            noticed: share of all incidents that deserved a page or a ticket and got one.
            duplicates: pages beyond the first of each incident.
            detection_s, reset_s, budget_spent: medians over the incidents with a page; from the start of the incident
            to its page, from its end to the end of the page, and the share of the period's budget that was gone when
            the page came.
            detection_max_s, reset_max_s, budget_spent_max: the worst of each.
        """
        row: dict[str, float] = {"pages": len(pages := self.notifications("page"))}
        row |= {"per_week": len(pages) / ((self.end - self.start) / timedelta(weeks=1))}
        row |= {"tickets": len(self.notifications("ticket")), **self._quality(pages)}
        return pd.DataFrame(row, index=pd.Index([self.policy.name], name="policy"))

    def _quality(self, pages: pd.DataFrame) -> dict[str, float]:
        nan = float("nan")
        if self.incidents is None:
            return dict.fromkeys(_QUALITY, nan)
        deserved = self.incidents[self.incidents["response"] == "page"]
        quality = score(pages, visible(deserved, self.step_s), self.end - self.start)
        due = self.incidents[self.incidents["response"] != "none"]
        found = {
            "precision": quality.precision,
            "recall": quality.recall,
            "noticed": float(due["answered"].mean()) if len(due) else nan,
            "duplicates": float(quality.duplicates),
        }
        for name in ("detection_s", "reset_s", "budget_spent"):
            values = deserved[name].dropna()
            found |= {name: float(values.median()), f"{name.removesuffix('_s')}_max": float(values.max())}
        return {_RENAMED.get(name, name): value for name, value in found.items()}

    def _repr_html_(self) -> str:
        return str(self.summary().T.to_html())


_RENAMED = {"detection_max": "detection_max_s", "reset_max": "reset_max_s"}
_QUALITY = (
    *("precision", "recall", "noticed", "duplicates", "detection_s", "detection_max_s"),
    *("reset_s", "reset_max_s", "budget_spent", "budget_spent_max"),
)


def backtest(
    counts: pd.DataFrame,
    objective: Fraction | float,
    policy: Policy,
    *,
    period_s: int = _MONTH_S,
    closed: Range = "left_open",
    incidents: pd.DataFrame | Sequence[Any] | None = None,
    divided: Divided = "bad",
    fresh: bool = True,
) -> BackTest:
    """
    Evaluate *policy* at the end of every step of *counts*.

    Args:
        counts: as `counts.checked` takes it; a step that is nan has no sample at its end.
        objective: fraction of good events, strictly between 0 and 1.
        policy: any alerts; `policies.lint` says what is wrong with them.
        period_s: length of the objective's window, in seconds.
        closed: which samples a window holds, `range_semantics(version)` of the Prometheus that will run the rules.
        incidents: what really happened: a frame or records with `start`, `end`, and optionally `response` (page, ticket
            or none: what it deserved; page if it is missing).  Give only those that these counts can show.
        divided: as in `error_ratio`.
        fresh: as in `error_ratio`.

    Raises:
        InvalidValue: a value is not allowed; the message names it.

    >>> minutes = pd.date_range("2026-03-01 00:01", periods=180, freq="min", tz="UTC", name="time")
    >>> counts = pd.DataFrame({"good": 1000, "total": 1000}, index=minutes)
    >>> counts.loc["2026-03-01 01:00":"2026-03-01 01:09", "good"] = 500
    >>> page = BurnAlert(Fraction(2, 100), long_s=3600, short_s=300)
    >>> found = backtest(counts, 0.999, Policy("fast", (page,)))
    >>> found.pages["start"][0].isoformat(), found.pages["end"][0].isoformat()
    ('2026-03-01T01:01:00+00:00', '2026-03-01T01:13:00+00:00')
    """
    settings: _Settings = {"closed": closed, "divided": divided, "fresh": fresh}
    return _tests(counts, objective, [policy], period_s=period_s, incidents=incidents, settings=settings)[0]


def compare(
    counts: pd.DataFrame,
    objective: Fraction | float,
    policies: Mapping[str, Policy] | Iterable[Policy],
    *,
    period_s: int = _MONTH_S,
    closed: Range = "left_open",
    incidents: pd.DataFrame | Sequence[Any] | None = None,
    divided: Divided = "bad",
    fresh: bool = True,
) -> pd.DataFrame:
    """
    Policies side by side: the `summary` of each, in the order given; windows that they share are computed once.

    Args:
        counts: as in `backtest`, like everything that follows here.
        objective: fraction of good events.
        policies: each with a name of its own.
        period_s: length of the objective's window, in seconds.
        closed: range semantics.
        incidents: what really happened.
        divided: as in `error_ratio`.
        fresh: as in `error_ratio`.

    Raises:
        InvalidValue: there is no policy, or a value is not allowed.
    """
    settings: _Settings = {"closed": closed, "divided": divided, "fresh": fresh}
    chosen = list(policies.values() if isinstance(policies, Mapping) else policies)
    if not chosen:
        raise InvalidValue("policies", expected="one or more", got=policies)
    found = _tests(counts, objective, chosen, period_s=period_s, incidents=incidents, settings=settings)
    return pd.concat([one.summary() for one in found])


def sensitivity(
    counts: pd.DataFrame,
    objective: Fraction | float,
    policy: Policy,
    *,
    traffic: Sequence[float] = (0.001, 0.01, 0.1, 1.0),
    objectives: Sequence[Fraction | float] = (),
    seed: int = 0,
    **options: Any,
) -> pd.DataFrame:
    """
    The same policy with other amounts of traffic and other objectives: when does it begin to page for chance?

    Less traffic is a random sample of the same events: each is kept with the probability that is asked for, so single
    bad events weigh more while the share of bad ones stays.  More traffic repeats the events; a fraction of a
    repetition is a sample.

    Args:
        counts: whole numbers of events per step, as `counts.checked` takes it.
        objective: used for all amounts of traffic.
        policy: any alerts.
        traffic: multiples of the traffic, above 0.
        objectives: further objectives, with the traffic as it is.
        seed: of the sample.
        options: as in `backtest`.

    Returns:
        Index `traffic`, `objective` (float); columns `events_per_hour` and those of `BackTest.summary`.

    Raises:
        InvalidValue: a multiple is not above 0, *counts* are not whole, or as in `backtest`.
    """
    cases = [(float(one), objective) for one in traffic] + [(1.0, one) for one in objectives]
    rows = []
    for multiple, promised in cases:
        sample = _scaled(counts, multiple, np.random.default_rng([seed, *float(multiple).as_integer_ratio()]))
        row = backtest(sample, promised, policy, **options).summary()
        hours = sample["total"].count() * sample.attrs["step_s"] / 3600
        row.insert(0, "events_per_hour", sample["total"].sum() / hours if hours else float("nan"))
        row.index = pd.MultiIndex.from_tuples([(multiple, float(promised))], names=["traffic", "objective"])
        rows.append(row)
    return pd.concat(rows)


def _scaled(counts: pd.DataFrame, multiple: float, rng: np.random.Generator) -> pd.DataFrame:
    if not 0 < multiple < float("inf"):
        raise InvalidValue("traffic", expected="multiples above 0 (no traffic is unknown, not quiet)", got=multiple)
    counts = checked(counts)
    good, bad = (
        values.to_numpy(dtype=float, copy=True) for values in (counts["good"], counts["total"] - counts["good"])
    )
    known = ~np.isnan(good)
    if (np.modf(np.concatenate([good[known], bad[known]]))[0] != 0).any():
        raise InvalidValue("counts", expected="whole numbers, so that single events can be drawn", got="fractions")
    share, whole = np.modf(multiple)
    for values in (good, bad):
        values[known] = values[known] * whole + rng.binomial(values[known].astype(np.int64), share)
    scaled = pd.DataFrame({"good": good, "total": good + bad}, index=counts.index)
    scaled.attrs = dict(counts.attrs)
    return scaled


def _tests(
    counts: pd.DataFrame,
    objective: Fraction | float,
    policies: Sequence[Policy],
    *,
    period_s: int,
    incidents: pd.DataFrame | Sequence[Any] | None,
    settings: _Settings,
) -> list[BackTest]:
    counts, promised = checked(counts), as_objective(objective)
    ratios = Ratios(counts, **settings)
    thresholds = {alert: threshold(alert, promised, period_s) for policy in policies for alert in policy.alerts}
    firing = _firing(ratios, thresholds, len(counts))
    index, step = pd.DatetimeIndex(counts.index), timedelta(seconds=ratios.step_s)
    found = {alert: intervals(pd.Series(where, index), ratios.step_s) for alert, where in firing.items()}
    start, end = index[0].to_pydatetime() - step, index[-1].to_pydatetime()
    known = None if incidents is None else incident_frame(incidents, start, end)
    spending = None if known is None else Spending.of(counts, promised, period_s)
    tests = []
    for policy in policies:
        named = dict(zip(alert_names(policy), policy.alerts, strict=True))
        pages = _pages({name: (found[alert], alert.severity) for name, alert in named.items()})
        blind = tuple(n for n, a in named.items() if any(ratios.steps(w) < 1 for w in (a.long_s, a.short_s) if w))
        told = None
        if known is not None and spending is not None:
            told = answered(known, pages, spending, end=end, step_s=ratios.step_s)
        tests.append(BackTest(policy, promised, period_s, ratios.closed, ratios.step_s, start, end, pages, told, blind))
    return tests


def _firing(ratios: Ratios, thresholds: Mapping[BurnAlert, float], rows: int) -> dict[BurnAlert, npt.NDArray[np.bool_]]:
    """Where each alert fires; ratios of one block at a time, each window once for all alerts."""
    windows = {window for alert in thresholds for window in (alert.long_s, alert.short_s) if window is not None}
    firing = {alert: np.empty(rows, dtype=bool) for alert in thresholds}
    for start in range(0, rows, _BLOCK):
        stop = min(start + _BLOCK, rows)
        over = {window: ratios.over(window, start, stop) for window in windows}
        for alert, limit in thresholds.items():
            active = over[alert.long_s] > limit
            if alert.short_s is not None:
                active &= over[alert.short_s] > limit
            firing[alert][start:stop] = active
    return {
        alert: hold(active, alert.for_s, ratios.step_s) if alert.for_s else active for alert, active in firing.items()
    }


def _pages(found: Mapping[str, tuple[pd.DataFrame, Severity]]) -> pd.DataFrame:
    parts = [part.assign(alert=name, severity=severity) for name, (part, severity) in found.items()]
    filled = [part for part in parts if not part.empty] or parts[:1]
    if not filled:
        raise InvalidValue("policy", expected="one or more alerts", got="none")
    return pd.concat(filled).sort_values("start", kind="stable", ignore_index=True)
