"""
Coverage: which service can be seen by which signal, as a score and as a list of what is missing.

    report = score(["cart", "orders"], {"metrics": {"cart", "orders"}, "logs": {"cart"}})
    report.table        service by signal: True, False, or <NA> where nobody could ask
    report.missing      what to add

The arithmetic works on sets; `measure` asks the backends through small protocols, so any store fits.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol

import pandas as pd

from labkit._time import as_utc
from labkit.errors import InvalidValue, NoData, QueryRejected, RequestFailed
from labkit.observe.panels import expand, parse_panels, variables_of

if TYPE_CHECKING:
    from labkit.observe.prometheus import Prometheus

__all__ = ["SIGNALS", "Coverage", "HasServices", "measure", "score"]

SIGNALS = ("metrics", "logs", "traces", "dashboard", "alert")

# Numbers that Prometheus writes about a scrape say nothing that the service told.
_TOLD = '__name__!~"up|scrape_.+|probe_.+"'
_SCRAPE_S = 5


class HasServices(Protocol):
    """Any store of logs or traces."""

    def services(self) -> Iterable[str]:
        """The services of which it has something."""
        ...


@dataclass(frozen=True, slots=True)
class Coverage:
    """
    What is seen of each service.

    `table`: index `service`, one column per signal, nullable booleans.  `score`: the share of True among what could be
    asked, a fraction in [0, 1], nan when nothing could.  `missing`: rows `service, signal`, what is False.
    `not_asked`: signal → why.
    """

    table: pd.DataFrame
    score: float
    missing: pd.DataFrame
    not_asked: Mapping[str, str]

    def __str__(self) -> str:
        gaps = "; ".join(f"{row.service} has no {row.signal}" for row in self.missing.itertuples())
        asked = [name for name in SIGNALS if name not in self.not_asked]
        unasked = "".join(f" Not asked: {signal} ({why})." for signal, why in self.not_asked.items())
        head = f"{100 * self.score:.0f} % of {len(self.table)} services by {', '.join(asked)}."
        return f"{head} {gaps or 'No gaps'}.{unasked}"


def score(
    services: Iterable[str], seen: Mapping[str, AbstractSet[str]], *, not_asked: Mapping[str, str] | None = None
) -> Coverage:
    """
    The score from sets.

    Args:
        services: all that should be seen, from the plan and not from the backends: what is invisible everywhere
            must still count.
        seen: signal → the services that it has; services beyond *services* are ignored.
        not_asked: signal → why nobody could ask.  A signal that is in neither counts as not asked.

    Raises:
        InvalidValue: a signal is not one of `SIGNALS`, or there is no service.

    >>> score(["a", "b"], {"metrics": {"a", "b"}, "logs": {"a"}}).score
    0.75
    """
    names = sorted(set(services))
    unknown = (set(seen) | set(not_asked or {})) - set(SIGNALS)
    if unknown or not names:
        expected = f"signals among {', '.join(SIGNALS)} and at least one service"
        raise InvalidValue("coverage", expected=expected, got=sorted(unknown) or names)
    reasons = {signal: (not_asked or {}).get(signal, "no source was given") for signal in SIGNALS if signal not in seen}
    columns = {s: [name in seen[s] if s in seen else pd.NA for name in names] for s in SIGNALS}
    table = pd.DataFrame(columns, index=pd.Index(names, name="service"), dtype="boolean")
    gaps = [(name, s) for name in names for s in SIGNALS if s in seen and name not in seen[s]]
    total = len(names) * len(seen)
    share = 1 - len(gaps) / total if total else float("nan")
    return Coverage(table, share, pd.DataFrame(gaps, columns=["service", "signal"]), reasons)


def measure(
    services: Iterable[str],
    prometheus: Prometheus,
    *,
    dashboards: Iterable[Mapping[str, Any]] = (),
    logs: HasServices | None = None,
    traces: HasServices | None = None,
    job: str = "shop",
    at: datetime | None = None,
) -> Coverage:
    """
    Ask the backends and score.

    Args:
        services: all that should be seen.
        prometheus: for metrics, for the alert rules it has loaded, and for what the dashboards show.
        dashboards: Grafana's JSON of each; none: dashboards are not asked.
        logs: the store of logs, or None.
        traces: the store of traces, or None.
        job: the scrape job of the services.
        at: timezone-aware instant; now if None.

    Returns:
        The coverage.  A store that does not answer is "not asked", with its error as the reason: it would be wrong to
        blame the services for it.

    Raises:
        InvalidValue: no services.  RequestFailed: Prometheus does not answer.
    """
    moment = None if at is None else as_utc(at)
    boards, seen, reasons = list(dashboards), {}, {}
    seen["metrics"] = _labelled(prometheus, f'count by (service) ({{job="{job}", {_TOLD}}})', moment)
    seen["alert"] = _alerted(prometheus, moment)
    if boards:
        seen["dashboard"] = set().union(*(_shown(board, prometheus, moment) for board in boards))
    for signal, store in (("logs", logs), ("traces", traces)):
        if store is not None:
            found, why = _of_store(store)
            if why:
                reasons[signal] = why
            else:
                seen[signal] = found
    return score(services, seen, not_asked=reasons)


def _of_store(store: HasServices) -> tuple[set[str], str]:
    try:
        return set(store.services()), ""
    except RequestFailed as error:
        return set(), str(error)


def _labelled(prometheus: Prometheus, promql: str, moment: datetime | None) -> set[str]:
    """The values of `service` in the answer; empty when there is none."""
    try:
        frame = prometheus.query(promql, moment)
    except NoData:
        return set()
    return {str(name) for name in frame["service"] if name} if "service" in frame else set()


def _shown(dashboard: Mapping[str, Any], prometheus: Prometheus, moment: datetime | None) -> set[str]:
    """Services that some panel shows, or that one may choose by the variable `service`."""
    variables = {**variables_of(dashboard), "service": ".+"}
    found: set[str] = set()
    for panel in parse_panels(dashboard):
        for target in panel.targets:
            promql = expand(target.expr, variables, interval=_SCRAPE_S, scrape_s=_SCRAPE_S)
            found |= _services_behind(promql, prometheus, moment)
    return found


def _alerted(prometheus: Prometheus, moment: datetime | None) -> set[str]:
    """Services whose series some alert rule looks at."""
    rules = prometheus.rules()
    found: set[str] = set()
    for promql in rules.loc[rules["kind"] == "alerting", "query"]:
        found |= _services_behind(promql, prometheus, moment)
    return found


# A selector: a name and, perhaps, matchers.  Names of functions are followed by "(", keywords are listed.
_STRING = r'"(?:[^"\\]|\\.)*"|\'(?:[^\'\\]|\\.)*\''
_MATCHERS = rf"\{{(?:[^}}\"\']|{_STRING})*\}}"
_SELECTOR = re.compile(rf"(?<![\w:\"$@])([a-zA-Z_:][\w:]*)\s*({_MATCHERS})?(?!\s*\(|[\w:])")
_NOT_A_NAME = {
    "by", "without", "on", "ignoring", "group_left", "group_right", "offset", "bool", "and", "or", "unless", "inf",
    "nan", "start", "end",
}  # fmt: skip
_GROUPING = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)")


def selectors(promql: str) -> list[str]:
    """
    The series selectors of an expression, without ranges.

    >>> selectors('sum by (service) (rate(a_total{s="x"}[1m])) / on (b) up > 0.5')
    ['a_total{s="x"}', 'up']
    """
    plain = "".join(
        part if part.startswith("{") else _without_strings_and_groupings(part)
        for part in re.split(f"({_MATCHERS})", promql)
    )
    found = [(m[1], m[2] or "") for m in _SELECTOR.finditer(plain)]
    return list(dict.fromkeys(name + matchers for name, matchers in found if name.lower() not in _NOT_A_NAME))


def _without_strings_and_groupings(text: str) -> str:
    """Outside of matchers strings, label lists and ranges name no series."""
    for pattern in (_STRING, _GROUPING.pattern, r"\[[^\]]*\]"):
        text = re.sub(pattern, " ", text)
    return text


def _services_behind(promql: str, prometheus: Prometheus, moment: datetime | None) -> set[str]:
    """The services whose series an expression reads; what is not a selector after all matches nothing."""
    found: set[str] = set()
    for selector in selectors(promql):
        try:
            found |= _labelled(prometheus, f"count by (service) (last_over_time({selector}[5m]))", moment)
        except QueryRejected:
            continue
    return found
