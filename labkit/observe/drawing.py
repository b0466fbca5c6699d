"""
A Grafana dashboard drawn in the notebook, from the JSON that Grafana reads, and told in words.

    draw(load("operations"), prometheus, start, end)        a figure 1000 pixels wide
    describe(load("operations"), prometheus, start, end)    the same for those who do not see it

Lines are named beside their ends with their present values, so there is no legend; thresholds carry their names;
states are words and signs as well as colours; all times are UTC.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np

from labkit import style
from labkit.observe.panels import boundaries, format_value
from labkit.observe.readings import Collected, PanelData, Series, collect, worst

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from labkit.observe.prometheus import Prometheus

__all__ = ["describe", "describe_collected", "draw", "draw_collected"]

_DPI = 110
_WIDTH_PX, _ROW_PX, _HEAD_PX, _FOOT_PX = 1000, 28, 34, 16
_LEFT_PX, _TOP_PX, _BOTTOM_PX, _GUTTER_PX = 76, 34, 28, 8
_LABEL_PT, _SMALL_PT, _LETTER = 7.5, 7.5, 0.54
_GAP_PX, _LEADER_PX = 13.0, 12
_MOST_LABELS = 8
# Seconds between the ticks of a time axis; the last three are days.
_TICKS_S = (
    1, 2, 5, 10, 15, 30, 60, 120, 180, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200,
    86_400, 7 * 86_400, 28 * 86_400,
)  # fmt: skip

_SIGN = {"ok": "✓", "warning": "▲", "critical": "✗", "unknown": "?"}
_COLOUR = {"ok": "green", "warning": "orange", "critical": "vermillion", "unknown": "grey"}
_LINES = ("blue", "vermillion", "green", "purple", "orange", "sky", "ink", "grey")


def draw(
    dashboard: Mapping[str, Any], prometheus: Prometheus, start: datetime, end: datetime, **options: Any
) -> Figure:
    """
    Draw every panel at its place.

    Args:
        dashboard: Grafana's JSON; panels of the kinds `stat` and `timeseries`.
        prometheus: whom to ask.
        start: first instant, timezone-aware.
        end: last instant, timezone-aware.
        options: as of `labkit.observe.readings.collect`: `variables`, `scrape_s`, `points`.

    Returns:
        A new figure, 1000 pixels wide.  A panel without data says so; a gap in the data is a gap in its line.

    Raises:
        As `collect`.
    """
    return draw_collected(collect(dashboard, prometheus, start, end, **options))


def draw_collected(collected: Collected) -> Figure:
    """The figure of what was collected before; errors of none."""
    import matplotlib.pyplot as plt  # noqa: PLC0415

    rows = max((box[1] + box[3] for box in (one.panel.box for one in collected.panels)), default=0)
    height_px = _HEAD_PX + rows * _ROW_PX + _FOOT_PX
    with style.context():
        figure = plt.figure(figsize=(_WIDTH_PX / _DPI, height_px / _DPI), dpi=_DPI, layout="none")
        span = f"{collected.start:%Y-%m-%d %H:%M} to {collected.end:%Y-%m-%d %H:%M} UTC"
        # The window title of a notebook's figure is its alternative text's beginning, so it is a suptitle.
        figure.suptitle(collected.title, x=0.012, y=1 - 8 / height_px, ha="left", va="top", fontsize=13, weight="bold")
        figure.text(0.988, 1 - 12 / height_px, span, ha="right", va="top", fontsize=9, color=style.COLOURS["grey"])
        first: Axes | None = None
        for one in collected.panels:
            if one.panel.kind == "stat":
                _draw_tiles(figure, one, _place(one, collected, height_px))
            else:
                ax = figure.add_axes(_place(one, collected, height_px), sharex=first)
                first = first or ax
                if one.panel.box[1] + one.panel.box[3] == rows:
                    ax.set_xlabel("time (UTC)", fontsize=_SMALL_PT + 0.5)
                _draw_lines(ax, one, collected)
    return figure


def _place(one: PanelData, collected: Collected, height_px: float) -> tuple[float, float, float, float]:
    """Left, bottom, width, height of the panel's axes as shares of the figure; room for its labels is left beside."""
    x, y, width, height = one.panel.box
    top = _HEAD_PX + y * _ROW_PX + _TOP_PX
    bottom = _HEAD_PX + (y + height) * _ROW_PX - _BOTTOM_PX
    left, right = x / 24 * _WIDTH_PX + _LEFT_PX, (x + width) / 24 * _WIDTH_PX - _GUTTER_PX
    if one.panel.kind == "stat":
        left, bottom = x / 24 * _WIDTH_PX + 12, bottom + _BOTTOM_PX - 6
    else:
        column = [other for other in collected.panels if other.panel.box[0] == x and other.panel.kind != "stat"]
        longest = max((len(_label(series)) for other in column for series in other.series), default=0)
        right -= longest * _LABEL_PT * _LETTER * _DPI / 72 + _LEADER_PX + 6
    return left / _WIDTH_PX, 1 - bottom / height_px, (right - left) / _WIDTH_PX, (bottom - top) / height_px


def _label(series: Series) -> str:
    return f"{series.name}  {series.reading}"


def _head(ax: Axes, one: PanelData) -> None:
    """The title with the panel's state, and where its runbook is."""
    state = worst([series.state for series in one.series])
    judged = len(one.panel.style.steps) > 1 or any(len(s.style.steps) > 1 for s in one.series)
    ax.set_title(one.panel.title, fontsize=10, pad=7)
    if judged or not one.series:
        text = f"{_SIGN[state]} {state}"
        shift = len(one.panel.title) * 10 * 0.62 + 8
        ax.annotate(
            text, (0, 1), xycoords="axes fraction", xytext=(shift, 7.5), textcoords="offset points",
            fontsize=8.5, weight="bold", color=_text_colour(state), annotation_clip=False,
        )  # fmt: skip


def _text_colour(state: str) -> str:
    """Orange is too light for words on white."""
    return style.COLOURS["ink"] if state == "warning" else style.COLOURS[_COLOUR[state]]


def _draw_tiles(figure: Figure, one: PanelData, place: tuple[float, float, float, float]) -> None:
    """One tile per series: its value large, its name, its state as sign, word and colour."""
    from matplotlib.patches import FancyBboxPatch  # noqa: PLC0415

    ax = figure.add_axes(place)
    ax.set_axis_off()
    _head(ax, one)
    count = max(1, len(one.series))
    ax.set_xlim(0, count)
    ax.set_ylim(0, 1)
    for at, series in enumerate(one.series):
        colour = style.COLOURS[_COLOUR[series.state]]
        tile = FancyBboxPatch(
            (at + 0.03, 0.02), 0.94, 0.96, boxstyle="round,pad=0,rounding_size=0.04", mutation_aspect=0.5,
            facecolor=colour, alpha=0.16, edgecolor=colour, linewidth=1.2,
        )  # fmt: skip
        ax.add_patch(tile)
        ax.text(at + 0.5, 0.66, series.reading, ha="center", va="center", fontsize=15, weight="bold")
        ax.text(at + 0.5, 0.25, f"{_SIGN[series.state]} {series.name}", ha="center", va="center", fontsize=8.5)
    if not one.series:
        ax.text(0.5, 0.5, "no data", ha="center", va="center", fontsize=12, color=style.COLOURS["grey"])


def _draw_lines(ax: Axes, one: PanelData, collected: Collected) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator  # noqa: PLC0415

    _head(ax, one)
    for colour, series in zip(_LINES * 5, one.series, strict=False):
        ax.plot(series.values.index, series.values.to_numpy(), color=style.COLOURS[colour], label=series.name, lw=1.4)
    ax.set_xlim(collected.start, collected.end)  # type: ignore[arg-type]
    ax.set_ylim(*_limits(one))
    _time_axis(ax, collected)
    ax.yaxis.set_major_locator(MaxNLocator(5))
    unit = one.panel.style.unit
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: format_value(value, unit)))
    ax.tick_params(labelsize=_SMALL_PT)
    ax.set_ylabel(one.panel.axis, fontsize=_SMALL_PT + 0.5)
    ax.yaxis.set_label_coords(-(_LEFT_PX - 16) / ax.get_window_extent().width, 0.5)
    if not one.series:
        ax.text(0.5, 0.5, "no data", transform=ax.transAxes, ha="center", va="center", color=style.COLOURS["grey"])
    _draw_thresholds(ax, one)
    _name_ends(ax, one.series)


def _limits(one: PanelData) -> tuple[float, float]:
    """The panel's own limits where it has some; else the data with some air; the soft maximum is always in sight."""
    values = np.concatenate([series.values.to_numpy(dtype=float) for series in one.series] or [np.array([])])
    finite = values[np.isfinite(values)]
    top, bottom = (float(finite.max()), float(finite.min())) if len(finite) else (1.0, 0.0)
    high = max(1.12 * top, one.panel.soft_most or 0.0)
    if one.panel.most is not None:
        high = min(high, 1.04 * one.panel.most)
    low = one.panel.least if one.panel.least is not None else bottom
    return low, high if high > low else low + 1


def _time_axis(ax: Axes, collected: Collected) -> None:
    from matplotlib.dates import date2num  # noqa: PLC0415

    step_s, instants = round_instants(collected.start, collected.end)
    days, over_midnight = step_s >= _TICKS_S[-3], collected.end - collected.start > timedelta(days=1)
    text = "%d %b" if days else "%d %b %H h" if over_midnight else "%H:%M" if step_s >= 60 else "%H:%M:%S"
    ax.set_xticks([float(date2num(one)) for one in instants], [f"{one:{text}}" for one in instants])  # type: ignore[no-untyped-call]


def round_instants(start: datetime, end: datetime, most: int = 5) -> tuple[int, list[datetime]]:
    """
    Round instants between two, at most about *most*, and the seconds between them.

    >>> from datetime import UTC
    >>> start = datetime(2026, 3, 1, 8, 1, tzinfo=UTC)
    >>> step_s, instants = round_instants(start, start + timedelta(minutes=8))
    >>> step_s, [f"{one:%H:%M}" for one in instants]
    (120, ['08:02', '08:04', '08:06', '08:08'])
    """
    span_s = (end - start).total_seconds()
    step_s = next((step for step in _TICKS_S if span_s / step <= most), _TICKS_S[-1])
    first = math.ceil(start.timestamp() / step_s)
    last = math.floor(end.timestamp() / step_s)
    return step_s, [datetime.fromtimestamp(at * step_s, UTC) for at in range(first, last + 1)]


def _draw_thresholds(ax: Axes, one: PanelData) -> None:
    """A dashed line where a state begins, for the panel and for series with thresholds of their own."""
    styles = {series.style.steps: series for series in one.series if series.style.lines}
    low, high = ax.get_ylim()
    for steps, series in styles.items():
        whose = f"{series.name}: " if steps != one.panel.style.steps else ""
        for value, state, words in boundaries(steps):
            if low < value < high:
                ax.axhline(value, color=style.COLOURS[_COLOUR[state]], linestyle=(0, (4, 3)), linewidth=1, zorder=1.5)
                ax.annotate(
                    f"{whose}{words} {format_value(value, series.style.unit)}",
                    (0.01, value), xycoords=ax.get_yaxis_transform(), xytext=(0, 2), textcoords="offset points",
                    ha="left", va="bottom", fontsize=6.8, color=style.COLOURS["ink"], zorder=4,
                    bbox={"boxstyle": "round,pad=0.1", "facecolor": "white", "edgecolor": "none", "alpha": 0.75},
                )  # fmt: skip


def _name_ends(ax: Axes, series: Sequence[Series]) -> None:
    """The name and the present value of each line beside its end, moved apart where they would overlap."""
    named = [(one, line) for one, line in zip(series, ax.get_lines(), strict=False) if np.isfinite(one.values).any()]
    named.sort(key=lambda pair: -_end(pair[0]))
    shown, left_out = named[:_MOST_LABELS], named[_MOST_LABELS:]
    box = ax.get_window_extent()
    wanted = [float(ax.transData.transform((0, _end(one)))[1]) for one, _ in shown]
    placed = spread(wanted, _GAP_PX, low=box.y0, high=box.y1)
    for (one, line), at, y in zip(shown, wanted, placed, strict=True):
        _name_end(ax, _label(one), line.get_color(), at=(at - box.y0) / box.height, y=(y - box.y0) / box.height)
    if left_out:
        text = f"and {len(left_out)} more below"
        ax.annotate(
            text, (1, 0), xycoords="axes fraction", xytext=(4, -10), textcoords="offset points",
            fontsize=_LABEL_PT, color=style.COLOURS["grey"], annotation_clip=False,
        )  # fmt: skip


def _name_end(ax: Axes, text: str, colour: Any, *, at: float, y: float) -> None:
    """Words in ink, which anyone can read, and a stroke in the line's colour from its end to them."""
    stroke = _LEADER_PX / ax.get_window_extent().width
    ax.plot([1, 1 + stroke], [at, y], color=colour, lw=1.2, transform=ax.transAxes, clip_on=False, label="_leader")
    ax.annotate(
        text, (1 + stroke, y), xycoords="axes fraction", xytext=(2, 0), textcoords="offset points",
        va="center", fontsize=_LABEL_PT, color=style.COLOURS["ink"], annotation_clip=False,
    )  # fmt: skip


def _end(series: Series) -> float:
    """The last value that there is."""
    values = series.values.to_numpy(dtype=float)
    return float(values[np.isfinite(values)][-1])


def spread(wanted: Sequence[float], gap: float, *, low: float, high: float) -> list[float]:
    """
    Places near those *wanted* (falling), at least *gap* apart, within *low* and *high* where they fit.

    >>> spread([50, 49, 10], 10, low=0, high=100)
    [54.5, 44.5, 10.0]
    """

    def middle(block: Sequence[float]) -> float:
        half = (len(block) - 1) * gap / 2
        return min(max(sum(block) / len(block), low + half), max(high - half, low + half))

    def top(block: Sequence[float]) -> float:
        return middle(block) + (len(block) - 1) * gap / 2

    blocks: list[list[float]] = []
    for one in wanted:
        blocks.append([one])
        # Two blocks that come too near become one, which stands where its members want to be on average.
        while len(blocks) > 1 and top(blocks[-2]) - len(blocks[-2]) * gap < top(blocks[-1]):
            below = blocks.pop()
            blocks[-1] += below
    return [top(block) - at * gap for block in blocks for at in range(len(block))]


def describe(
    dashboard: Mapping[str, Any], prometheus: Prometheus, start: datetime, end: datetime, **options: Any
) -> str:
    """
    The dashboard in words: states, the present reading of each series, since when it is not ok, the runbook.

    Arguments and errors as of `draw`.
    """
    return describe_collected(collect(dashboard, prometheus, start, end, **options))


def describe_collected(collected: Collected) -> str:
    """What was collected before, in words."""
    head = f"{collected.title}, {collected.start:%Y-%m-%d %H:%M:%S} to {collected.end:%Y-%m-%d %H:%M:%S} UTC."
    return "\n".join([head, *(_described(one) for one in collected.panels)])


def _described(one: PanelData) -> str:
    if not one.series:
        return f"{one.panel.title}: no data."
    state = worst([series.state for series in one.series])
    ordered = sorted(one.series, key=lambda s: (s.state != state, not math.isfinite(s.last)))
    said = "; ".join(_said(series, judged=len(series.style.steps) > 1) for series in ordered)
    judged = any(len(series.style.steps) > 1 for series in one.series)
    links = "".join(f" Runbook: {PurePosixPath(url).name}." for _, url in one.panel.links) if state != "ok" else ""
    return f"{one.panel.title}{f' ({state})' if judged else ''}: {said}.{links}"


def _said(series: Series, *, judged: bool) -> str:
    if not judged or series.state == "ok":
        return f"{series.name} {series.reading}"
    since = f" since {series.since:%H:%M:%S}" if series.since else ""
    return f"{series.name} {series.reading}, {series.state}{since}"
