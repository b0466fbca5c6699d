"""The burn-down of an objective as a small SVG of our own: a page of fifty of them is made at once and stays small."""

from __future__ import annotations

import html
import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

import pandas as pd

from labkit.slo.verdict import SloReport, percent
from labkit.style import COLOURS

__all__ = ["burn_down_chart"]

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 860, 190, 62, 30, 12, 30
_TICKS_S = (60, 300, 900, 3600, 3 * 3600, 6 * 3600, 12 * 3600, 86_400, 2 * 86_400, 5 * 86_400, 10 * 86_400, 30 * 86_400)


@dataclass(frozen=True, slots=True)
class _Scale:
    """Where instants and shares of the budget lie in the picture."""

    start: datetime
    end: datetime
    lowest: float

    def x(self, instant: datetime) -> float:
        return _LEFT + (instant - self.start) / (self.end - self.start) * (_WIDTH - _LEFT - _RIGHT)

    def y(self, share: float) -> float:
        return _TOP + (1 - share) / (1 - self.lowest) * (_HEIGHT - _TOP - _BOTTOM)


def burn_down_chart(row: SloReport) -> str:
    """
    The budget that is left over the window as SVG, with the even pace beside it; "" when the counts are unknown.

    The axis of time reaches to the end of the window, which lies ahead in a calendar period.
    """
    if row.burn_down is None or row.remaining is None:
        return ""
    left = row.burn_down["remaining"]
    scale = _Scale(row.start, row.end, min(0.0, math.floor(float(left.min()) * 2) / 2))
    alt = f"Budget of {row.slo.name}: {percent(row.remaining)} left at {row.at:%Y-%m-%d %H:%M} UTC"
    pace = _line(scale, (row.start, 1), (row.end, 0), 'stroke="#777" stroke-dasharray="5 4"')
    parts = [*_grid(scale), *_times(scale), pace]
    parts += [
        f'<polyline fill="none" stroke="{COLOURS["blue"]}" stroke-width="1.8" points="{points}"/>'
        for points in _stretches(scale, left)
    ]
    return (
        f'<figure><svg viewBox="0 0 {_WIDTH} {_HEIGHT}" width="100%" role="img" aria-label="{html.escape(alt)}" '
        f'font-family="system-ui, sans-serif" font-size="12" fill="#444">{"".join(parts)}</svg>'
        f"<figcaption>Share of the error budget that is left, by time (UTC); dashed: spending it evenly.</figcaption>"
        f"</figure>"
    )


def _grid(scale: _Scale) -> Iterator[str]:
    # At most five lines, however far the budget is overspent.
    every = max(0.5, math.ceil((1 - scale.lowest) / 4 * 2) / 2)
    levels = {0.0, 1.0, *(1 - every * number for number in range(int((1 - scale.lowest) / every) + 1))}
    for level in sorted(level for level in levels if level >= scale.lowest):
        look = f'stroke="{COLOURS["vermillion"]}"' if level == 0 else 'stroke="#e4e4e4"'
        yield _line(scale, (scale.start, level), (scale.end, level), look)
        yield f'<text x="{_LEFT - 8}" y="{scale.y(level) + 4:.1f}" text-anchor="end">{level * 100:.0f} %</text>'
    yield f'<text x="{_LEFT + 4}" y="{scale.y(0) - 4:.1f}" fill="{COLOURS["vermillion"]}">budget used up</text>'


def _line(scale: _Scale, first: tuple[datetime, float], last: tuple[datetime, float], look: str) -> str:
    (x1, y1), (x2, y2) = ((scale.x(instant), scale.y(share)) for instant, share in (first, last))
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" {look}/>'


def _times(scale: _Scale) -> Iterator[str]:
    length_s = (scale.end - scale.start).total_seconds()
    every_s = next((step for step in _TICKS_S if length_s / step <= 8), 91 * 86_400)
    form = "%d %b" if every_s >= 86_400 else "%H:%M"
    at = pd.Timestamp(scale.start).ceil(f"{min(every_s, 86_400)}s").to_pydatetime()
    while at <= scale.end:
        x = scale.x(at)
        yield f'<line x1="{x:.1f}" y1="{_HEIGHT - _BOTTOM}" x2="{x:.1f}" y2="{_HEIGHT - _BOTTOM + 5}" stroke="#999"/>'
        yield f'<text x="{x:.1f}" y="{_HEIGHT - 9}" text-anchor="middle">{at:{form}}</text>'
        at += timedelta(seconds=every_s)


def _stretches(scale: _Scale, left: pd.Series[float]) -> Iterator[str]:
    """The points of each stretch without a gap, as steps: a count is known at the end of its step."""
    points: list[str] = []
    before: float | None = None
    for instant, share in left.items():
        if math.isnan(share):
            if len(points) > 1:
                yield " ".join(points)
            points, before = [], None
            continue
        x = scale.x(pd.Timestamp(str(instant)).to_pydatetime())
        points += [f"{x:.1f},{scale.y(level):.1f}" for level in ((share,) if before is None else (before, share))]
        before = share
    if len(points) > 1:
        yield " ".join(points)
