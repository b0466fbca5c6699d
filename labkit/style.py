"""
How plots look: one style, UTC time axes, colours that colour-blind readers can tell apart, labels on the lines.

    style.use()                                     once, in the set-up cell of a notebook
    ax = style.new_axes()
    style.threshold(ax, 0.001, "99.9 % objective")

Colours are those of Okabe and Ito (2008).  Functions take and return Axes; nothing else is kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "COLOURS",
    "RC",
    "context",
    "label_ends",
    "name_band",
    "new_axes",
    "shade",
    "threshold",
    "use",
    "utc_axis",
]

COLOURS: Mapping[str, str] = {
    "blue": "#0072B2",
    "vermillion": "#D55E00",
    "green": "#009E73",
    "orange": "#E69F00",
    "sky": "#56B4E9",
    "purple": "#CC79A7",
    "yellow": "#F0E442",
    "ink": "#222222",
    "grey": "#777777",
}

# Lines cycle through these; yellow is too light for a line on white.
_CYCLE = ("blue", "vermillion", "green", "orange", "purple", "sky", "ink")

RC: Mapping[str, Any] = {
    "figure.figsize": (8, 3.2),
    "figure.dpi": 110,
    "figure.constrained_layout.use": True,
    "savefig.dpi": 110,
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 8,
    "axes.labelcolor": "#444444",
    "axes.edgecolor": "#999999",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": "#E4E4E4",
    "grid.linewidth": 0.8,
    "xtick.color": "#444444",
    "ytick.color": "#444444",
    "lines.linewidth": 1.6,
    "lines.solid_capstyle": "round",
}


def use() -> None:
    """Set the style for all plots that follow, in this process."""
    import matplotlib as mpl  # noqa: PLC0415  (only those who plot pay for it)

    mpl.rcParams.update(_settings())


@contextmanager
def context() -> Iterator[None]:
    """The style for the plots of one block; whatever was set before is back afterwards."""
    import matplotlib as mpl  # noqa: PLC0415

    with mpl.rc_context(_settings()):
        try:
            yield
        finally:
            # The first figure of a kernel loads its backend, which turns interactive mode on: without it a
            # notebook shows no figure, so it must outlive the block.
            interactive = mpl.is_interactive()
    mpl.interactive(interactive)


def _settings() -> Any:
    from cycler import cycler  # noqa: PLC0415

    return {**RC, "axes.prop_cycle": cycler(color=[COLOURS[name] for name in _CYCLE])}


def new_axes(width_in: float = 8, height_in: float = 3.2) -> Axes:
    """New axes in this style on a figure of their own; sizes in inches."""
    import matplotlib.pyplot as plt  # noqa: PLC0415

    with context():
        figure = plt.figure(figsize=(width_in, height_in), layout="constrained")
        return figure.subplots()


def utc_axis(ax: Axes) -> Axes:
    """Ticks at round instants of UTC, the date written once, and the axis named."""
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter  # noqa: PLC0415

    locator = AutoDateLocator(tz=UTC, minticks=4, maxticks=9)  # type: ignore[no-untyped-call]
    ax.xaxis.set_major_locator(locator)
    ax.xaxis.set_major_formatter(ConciseDateFormatter(locator, tz=UTC))  # type: ignore[no-untyped-call]
    ax.set_xlabel("time (UTC)")
    return ax


def threshold(ax: Axes, y: float, text: str, *, colour: str = "ink", above: bool = True, right: bool = False) -> Axes:
    """A dashed line across the axes at *y*, with its name on it at one end."""
    ink = COLOURS[colour]
    ax.axhline(y, color=ink, linestyle=(0, (4, 3)), linewidth=1.2, zorder=1.5)
    ax.annotate(
        text,
        (0.995 if right else 0.005, y),
        xycoords=ax.get_yaxis_transform(),
        xytext=(0, 3 if above else -3),
        textcoords="offset points",
        ha="right" if right else "left",
        va="bottom" if above else "top",
        fontsize=8.5,
        color=ink,
        zorder=4,
        bbox={"boxstyle": "round,pad=0.1", "facecolor": "white", "edgecolor": "none", "alpha": 0.75},
    )
    return ax


def shade(ax: Axes, start: datetime, end: datetime, *, colour: str = "orange") -> Axes:
    """An interval as a band over the full height; one too short to see keeps a hairline."""
    ax.axvspan(start, end, facecolor=COLOURS[colour], alpha=0.22, linewidth=0, zorder=0.5)  # type: ignore[arg-type]
    ax.axvline(start, color=COLOURS[colour], alpha=0.7, linewidth=1, zorder=0.6)  # type: ignore[arg-type]
    return ax


def name_band(ax: Axes, text: str, at: datetime, height: float, *, share: bool = False, beside: float = 4) -> Axes:
    """
    Write *text* aslant above the instant *at*, so that neighbours do not run into one another.

    Args:
        ax: where.
        text: what the band is.
        at: where it begins.
        height: on the vertical axis; as a fraction of its length with *share*.
        share: how *height* is meant.
        beside: distance to the right of the instant, in points.
    """
    ax.annotate(
        text,
        (at, height),
        xycoords=("data", "axes fraction") if share else "data",
        xytext=(beside, 2 if share else 0),
        textcoords="offset points",
        rotation=38,
        rotation_mode="anchor",
        ha="left",
        va="bottom",
        fontsize=8,
        color=COLOURS["ink"],
        annotation_clip=True if share else None,
    )
    return ax


def label_ends(ax: Axes, texts: Sequence[str], *, gap_points: float = 11) -> Axes:
    """
    Name each line of *ax* beside its last point, in the colour of the line, moved apart where they would overlap.

    Lines without a single finite value get no name.  Replaces a legend for up to about eight lines.
    """
    import numpy as np  # noqa: PLC0415

    ends: list[tuple[float, Any, str]] = []
    for line, text in zip(ax.get_lines(), texts, strict=False):
        values = np.asarray(line.get_ydata(), dtype=float)
        finite = values[np.isfinite(values)]
        if len(finite):
            ends.append((float(finite[-1]), line, text))
    ax.figure.canvas.draw()
    points_per_pixel = 72 / ax.figure.dpi
    lowest = -np.inf
    for y, line, text in sorted(ends, key=lambda end: end[0]):
        wanted = float(ax.transData.transform((0, y))[1]) * points_per_pixel
        placed = max(wanted, lowest + gap_points)
        lowest = placed
        ax.annotate(
            text,
            (1, y),
            xycoords=ax.get_yaxis_transform(),
            xytext=(5, placed - wanted),
            textcoords="offset points",
            va="center",
            fontsize=9,
            color=line.get_color(),
            annotation_clip=False,
        )
    return ax
