"""
A Grafana dashboard as data: panels, queries with their variables filled in, thresholds, readings.

The JSON is the one that Grafana reads.  `$__interval` and `$__rate_interval` are expanded by Grafana's rules
(https://grafana.com/docs/grafana/latest/datasources/prometheus/template-variables/), so that a notebook and Grafana ask
the same question.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from labkit.errors import ConfigInvalid

__all__ = [
    "Panel",
    "Step",
    "Style",
    "Target",
    "boundaries",
    "expand",
    "format_value",
    "interval_s",
    "parse_panels",
    "rate_interval_s",
    "state_of",
    "variables_of",
]

# Grafana rounds an interval to the second number when it is below the first (both in seconds).
_ROUNDING_S = (
    (0.01, 0.001), (0.015, 0.01), (0.035, 0.02), (0.075, 0.05), (0.15, 0.1), (0.35, 0.2), (0.75, 0.5), (1.5, 1),
    (3.5, 2), (7.5, 5), (12.5, 10), (17.5, 15), (25, 20), (45, 30), (90, 60), (210, 120), (450, 300), (750, 600),
    (1050, 900), (1500, 1200), (2700, 1800), (5400, 3600), (9000, 7200), (16_200, 10_800), (32_400, 21_600),
    (86_400, 43_200), (604_800, 86_400), (1_814_400, 604_800), (3_628_800, 2_592_000),
)  # fmt: skip

_SEVERITY = {"red": "critical", "orange": "warning", "yellow": "warning"}
_RANK = {"ok": 0, "warning": 1, "critical": 2}


@dataclass(frozen=True, slots=True)
class Step:
    """A threshold: from `value` on (None: from the very bottom) the state is `state`: ok, warning or critical."""

    value: float | None
    state: str


@dataclass(frozen=True, slots=True)
class Style:
    """How the values of a series are written and judged."""

    unit: str
    steps: tuple[Step, ...]
    lines: bool


@dataclass(frozen=True, slots=True)
class Target:
    """One query of a panel: its letter, its expression with variables, its legend with `{{label}}`."""

    ref: str
    expr: str
    legend: str


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel; `box` is x, y, width and height on Grafana's grid of 24 columns; `overrides` are by series name."""

    title: str
    kind: str
    description: str
    box: tuple[int, int, int, int]
    style: Style
    overrides: Mapping[str, Style]
    axis: str
    least: float | None
    most: float | None
    soft_most: float | None
    links: tuple[tuple[str, str], ...]
    targets: tuple[Target, ...]

    def style_of(self, series: str) -> Style:
        """The style of the series of that name."""
        return self.overrides.get(series, self.style)


def interval_s(range_s: float, *, points: int = 500, least_s: float) -> float:
    """
    Grafana's `$__interval`: the range over the points, rounded to a round number of seconds, at least *least_s*.

    >>> interval_s(900, least_s=5), interval_s(6 * 3600, least_s=5), interval_s(30 * 86_400, least_s=5)
    (5, 30, 3600)
    """
    raw = range_s / points
    if raw <= least_s:
        return least_s
    rounded = next((to for below, to in _ROUNDING_S if raw < below), 31_536_000)
    return max(rounded, least_s)


def rate_interval_s(interval: float, scrape_s: float) -> float:
    """
    Grafana's `$__rate_interval`, in seconds: `max($__interval + scrape interval, 4 * scrape interval)`.

    Four scrapes, so that a rate has two samples even when one scrape was lost; one scrape more than the step, so
    that no increase between two steps falls out.

    >>> rate_interval_s(5, 5), rate_interval_s(3600, 5)
    (20, 3605)
    """
    return max(interval + scrape_s, 4 * scrape_s)


def expand(expr: str, variables: Mapping[str, str], *, interval: float, scrape_s: float) -> str:
    """
    The PromQL that Grafana would send.

    Args:
        expr: with `$name`, `${name}`, `$__interval` or `$__rate_interval` in it.
        variables: the values of the dashboard's variables.
        interval: `$__interval`, seconds.
        scrape_s: the scrape interval, seconds.

    Raises:
        ConfigInvalid: a variable in *expr* has no value.

    >>> expand('rate(x{s="$s"}[$__rate_interval])', {"s": "cart"}, interval=5, scrape_s=5)
    'rate(x{s="cart"}[20s])'
    """
    known = {
        "__interval": _promql_duration(interval),
        "__rate_interval": _promql_duration(rate_interval_s(interval, scrape_s)),
        **variables,
    }

    def value(found: re.Match[str]) -> str:
        name = found[1] or found[2]
        if name not in known:
            raise ConfigInvalid(
                f"The query `{expr}`",
                problems=[f"the variable ${name} has no value; known: {', '.join(sorted(known))}"],
            )
        return known[name]

    return re.sub(r"\$(?:\{(\w+)(?::\w+)?\}|([A-Za-z_]\w*))", value, expr)


def _promql_duration(seconds: float) -> str:
    return f"{seconds:.0f}s" if float(seconds).is_integer() else f"{seconds * 1000:.0f}ms"


def variables_of(dashboard: Mapping[str, Any]) -> dict[str, str]:
    """The current value of each variable of the dashboard; of a constant, its text."""
    found = {}
    for one in dashboard.get("templating", {}).get("list", ()):
        current = one.get("current", {}).get("value", one.get("query", ""))
        found[one["name"]] = "|".join(current) if isinstance(current, list) else str(current)
    return found


def parse_panels(dashboard: Mapping[str, Any]) -> list[Panel]:
    """
    The panels of a dashboard's JSON, in reading order; rows are left out.

    Raises:
        ConfigInvalid: a panel has no title, no place or no query.
    """
    found = [one for one in dashboard.get("panels", ()) if one.get("type") != "row"]
    problems = [
        f"panel {one.get('title') or one.get('id')!r} lacks `{key}`"
        for one in found
        for key in ("title", "gridPos", "targets")
        if not one.get(key)
    ]
    if problems:
        raise ConfigInvalid(f"The dashboard {dashboard.get('title', '')!r}", problems=problems)
    variables = variables_of(dashboard)
    panels = [_panel(one, variables) for one in found]
    return sorted(panels, key=lambda panel: (panel.box[1], panel.box[0]))


def _panel(one: Mapping[str, Any], variables: Mapping[str, str]) -> Panel:
    defaults = one.get("fieldConfig", {}).get("defaults", {})
    custom = defaults.get("custom", {})
    style, place = _style(defaults), one["gridPos"]
    overrides = {
        each["matcher"]["options"]: _overridden(style, each["properties"])
        for each in one.get("fieldConfig", {}).get("overrides", ())
        if each["matcher"]["id"] == "byName"
    }
    links = [(link["title"], _filled(link.get("url", ""), variables)) for link in one.get("links", ())]
    return Panel(
        title=one["title"],
        kind=one["type"],
        description=one.get("description", ""),
        box=(place["x"], place["y"], place["w"], place["h"]),
        style=style,
        overrides=overrides,
        axis=custom.get("axisLabel", ""),
        least=defaults.get("min"),
        most=defaults.get("max"),
        soft_most=custom.get("axisSoftMax"),
        links=tuple(links),
        targets=tuple(Target(t["refId"], t["expr"], t.get("legendFormat", "")) for t in one["targets"]),
    )


def _filled(text: str, variables: Mapping[str, str]) -> str:
    for name, value in variables.items():
        text = text.replace("${" + name + "}", value)
    return text


def _style(defaults: Mapping[str, Any]) -> Style:
    steps = _parse_steps(defaults.get("thresholds", {}))
    mode = defaults.get("custom", {}).get("thresholdsStyle", {}).get("mode", "off")
    return Style(defaults.get("unit", "short"), steps, mode != "off")


def _overridden(style: Style, properties: Sequence[Mapping[str, Any]]) -> Style:
    given = {one["id"]: one["value"] for one in properties}
    steps = _parse_steps(given["thresholds"]) if "thresholds" in given else style.steps
    drawn = given.get("custom.thresholdsStyle", {}).get("mode", "off") != "off" or style.lines
    return Style(given.get("unit", style.unit), steps, drawn)


def _parse_steps(thresholds: Mapping[str, Any]) -> tuple[Step, ...]:
    return tuple(Step(one["value"], _SEVERITY.get(one["color"], "ok")) for one in thresholds.get("steps", ()))


def state_of(value: float, steps: Sequence[Step]) -> str:
    """
    The state of *value*: ok, warning, critical; `unknown` for nan, since no data is not zero.

    >>> steps = [Step(None, "ok"), Step(0.01, "warning"), Step(0.05, "critical")]
    >>> [state_of(value, steps) for value in (0.0, 0.01, 0.2, float("nan"))]
    ['ok', 'warning', 'critical', 'unknown']
    """
    if math.isnan(value):
        return "unknown"
    reached = [step.state for step in steps if step.value is None or value >= step.value]
    return reached[-1] if reached else "ok"


def boundaries(steps: Sequence[Step]) -> list[tuple[float, str, str]]:
    """
    Where a state begins: (value, the worse state, words), for steps that rise and for steps that fall.

    >>> boundaries([Step(None, "critical"), Step(20, "ok")])
    [(20, 'critical', 'critical below')]
    """
    found = []
    for low, high in itertools.pairwise(steps):
        if high.value is not None and low.state != high.state:
            worse, word = (high.state, "from") if _RANK[high.state] > _RANK[low.state] else (low.state, "below")
            found.append((high.value, worse, f"{worse} {word}"))
    return found


def format_value(value: float, unit: str) -> str:
    """
    A value with its unit, three digits, for people.

    >>> format_value(0.0213, "percentunit"), format_value(0.25, "s"), format_value(4.2, "reqps")
    ('2.13 %', '250 ms', '4.2/s')
    """
    if math.isnan(value):
        return "no data"
    if unit == "percentunit":
        return f"{100 * value:.3g} %" if value < 9.995 else f"{100 * value:.0f} %"
    if unit == "s":
        return f"{1000 * value:.3g} ms" if abs(value) < 0.9995 else f"{value:.3g} s"
    number = f"{value:.3g}" if abs(value) < 999.5 else f"{value:,.0f}"
    return number + ("/s" if unit in {"reqps", "ops"} else "")
