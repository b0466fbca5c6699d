"""
What the panels of a dashboard say: each series over the range, its present reading, its state and since when.

    collected = collect(load("operations"), prometheus, start, end)
    readings(collected)         one row per series, for people and for checks
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import pandas as pd

from labkit._time import as_utc, utc_now
from labkit.errors import NoData
from labkit.observe.panels import (
    Panel,
    Style,
    Target,
    expand,
    format_value,
    interval_s,
    parse_panels,
    state_of,
    variables_of,
)

if TYPE_CHECKING:
    from labkit.observe.prometheus import Prometheus

__all__ = ["Collected", "PanelData", "Series", "collect", "readings", "worst"]

# Samples of the lab are 5 s apart; those of its seeded past are a minute apart.
_LIVE_SCRAPE_S, _PAST_GRID_S = 5, 60
_LIVE_FOR = timedelta(hours=1)
_STATES = ("ok", "unknown", "warning", "critical")
_COLUMNS = ("panel", "series", "value", "reading", "state", "since")


@dataclass(frozen=True, slots=True)
class Series:
    """One line of a panel: its name, its values over the range, how they are written and judged."""

    name: str
    values: pd.Series[float]
    style: Style

    @property
    def last(self) -> float:
        """The value at the end of the range; nan when there is none: then the reading is unknown."""
        return float(self.values.iloc[-1])

    @property
    def state(self) -> str:
        """ok, warning, critical or unknown."""
        return state_of(self.last, self.style.steps)

    @property
    def reading(self) -> str:
        """The last value with its unit."""
        return format_value(self.last, self.style.unit)

    @property
    def since(self) -> datetime | None:
        """When the present run of not being ok began; None when it is ok; the first instant if it always was."""
        if self.state == "ok":
            return None
        fine = [state_of(float(value), self.style.steps) == "ok" for value in self.values]
        after = len(fine) - fine[::-1].index(True) if True in fine else 0
        return pd.Timestamp(self.values.index[after]).to_pydatetime()


@dataclass(frozen=True, slots=True)
class PanelData:
    """A panel and its series in the order of its queries."""

    panel: Panel
    series: tuple[Series, ...]


@dataclass(frozen=True, slots=True)
class Collected:
    """A dashboard's title and everything that its panels show between two instants, UTC."""

    title: str
    start: datetime
    end: datetime
    panels: tuple[PanelData, ...]

    def panel(self, title: str) -> PanelData:
        """The panel with that title; KeyError when there is none."""
        return {one.panel.title: one for one in self.panels}[title]


def collect(
    dashboard: Mapping[str, Any],
    prometheus: Prometheus,
    start: datetime,
    end: datetime,
    *,
    variables: Mapping[str, str] | None = None,
    scrape_s: float | None = None,
    points: int = 500,
) -> Collected:
    """
    Ask every query of every panel.

    Args:
        dashboard: Grafana's JSON.
        prometheus: whom to ask.
        start: first instant, timezone-aware.
        end: last instant, timezone-aware; the present reading is that of this instant.
        variables: values for the dashboard's variables; the others keep their current ones.
        scrape_s: the distance of samples, for `$__rate_interval`; None: 5 s, or 60 s when *start* is more than an
            hour ago, since the seeded past has a sample a minute.
        points: how many instants at most, before rounding.

    Returns:
        What there is to show.  A query without data gives no series; its panel says so.

    Raises:
        UnknownName, ConfigInvalid: a variable that the dashboard does not have, a panel that is incomplete.
        QueryRejected, RequestFailed: as of `Prometheus.query_range`.
    """
    start, end = as_utc(start), as_utc(end)
    known = variables_of(dashboard) | dict(variables or {})
    if scrape_s is None:
        scrape_s = _LIVE_SCRAPE_S if utc_now() - start <= _LIVE_FOR else _PAST_GRID_S
    span_s = (end - start).total_seconds()
    step_s = interval_s(span_s, points=points, least_s=scrape_s)
    # The last instant of the grid is the end itself: that is where the present reading is.
    grid = (end - timedelta(seconds=step_s * max(1, math.floor(span_s / step_s))), end, step_s)

    def ask(target: Target) -> pd.DataFrame | None:
        promql = expand(target.expr, known, interval=step_s, scrape_s=scrape_s)
        try:
            return prometheus.query_range(promql, *grid)
        except NoData:
            return None

    panels = [
        PanelData(panel, tuple(one for target in panel.targets for one in _series_of(panel, target, ask(target))))
        for panel in parse_panels(dashboard)
    ]
    return Collected(str(dashboard.get("title", "")), start, end, tuple(panels))


def _series_of(panel: Panel, target: Target, frame: pd.DataFrame | None) -> list[Series]:
    if frame is None:
        return []
    found = []
    for place, column in enumerate(frame.columns):
        labels = {**frame.attrs["labels"], **dict(zip(frame.columns.names, column, strict=True))}
        name = _named(target.legend, labels)
        found.append(Series(name, frame.iloc[:, place], panel.style_of(name)))
    return found


def _named(legend: str, labels: Mapping[Any, Any]) -> str:
    """The legend with `{{label}}` filled in; without a legend, the labels."""
    if not legend:
        return " ".join(str(value) for key, value in labels.items() if key != "series")
    for name, value in labels.items():
        legend = legend.replace("{{" + str(name) + "}}", str(value))
    return legend.strip()


def worst(states: Sequence[str]) -> str:
    """
    The worst of some states; `unknown` when there is none.

    >>> worst(["ok", "critical", "warning"]), worst([])
    ('critical', 'unknown')
    """
    return max(states, key=_STATES.index) if states else "unknown"


def readings(collected: Collected) -> pd.DataFrame:
    """
    The present reading of every series.

    Returns:
        Columns `panel, series, value` (the raw number, nan without data), `reading` (with its unit), `state`
        (ok, warning, critical, unknown), `since` (when it stopped being ok; NaT when it is).  A panel without any
        series has one row of its own, with an empty `series`.
    """
    rows: list[tuple[Any, ...]] = []
    for one in collected.panels:
        title = one.panel.title
        rows += [(title, s.name, s.last, s.reading, s.state, s.since) for s in one.series]
        if not one.series:
            rows.append((title, "", math.nan, "no data", "unknown", None))
    frame = pd.DataFrame(rows, columns=list(_COLUMNS))
    frame["since"] = pd.to_datetime(frame["since"], utc=True)
    return frame
