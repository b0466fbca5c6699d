"""
An IPython extension: each figure that a cell leaves open says its title and axes, for alt texts and for tests.

The batch runner loads it into its kernels.  It must be registered before matplotlib's inline backend, which closes
figures as it shows them; loading it at kernel start does that.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["FIGURE_MIME", "describe", "load_ipython_extension"]

FIGURE_MIME = "application/vnd.labkit.figure+json"


def load_ipython_extension(shell: Any) -> None:
    """Called by IPython with its shell."""
    shell.events.register("post_execute", _note_open_figures)


def _note_open_figures() -> None:
    pyplot = sys.modules.get("matplotlib.pyplot")
    if pyplot is None:
        return
    from IPython.display import publish_display_data  # noqa: PLC0415  (only ever inside IPython)

    for number in pyplot.get_fignums():
        publish_display_data({FIGURE_MIME: describe(pyplot.figure(number))})  # type: ignore[no-untyped-call]


def describe(figure: Figure) -> dict[str, Any]:
    """
    Title, alternative text and missing labels of *figure*.

    Returns:
        `title` (empty when there is none), `alt` (one sentence that stands for the picture), `missing`
        (of "title", "x label", "y label"; axes that share one need only one of them labelled).
    """
    drawn = [axes for axes in figure.axes if axes.axison and axes.has_data()]
    title = figure.get_suptitle() or next((text for axes in drawn if (text := _title(axes))), "")
    missing = [] if title else ["title"]
    if any(not _label(axes, "x") for axes in drawn):
        missing.append("x label")
    if any(not _label(axes, "y") for axes in drawn):
        missing.append("y label")
    return {"title": title, "alt": _alt(title, drawn), "missing": missing if drawn else []}


def _title(axes: Axes) -> str:
    return str(axes.get_title() or axes.get_title(loc="left") or axes.get_title(loc="right"))


def _label(axes: Axes, direction: str) -> str:
    """The label along *direction*, its own or that of axes it shares."""
    shared = axes.get_shared_x_axes() if direction == "x" else axes.get_shared_y_axes()
    family = [axes, *shared.get_siblings(axes)]
    return next((text for member in family if (text := getattr(member, f"get_{direction}label")())), "")


def _alt(title: str, drawn: list[Axes]) -> str:
    parts = [f"Chart: {title.replace(chr(10), ' ')}." if title else "Chart without a title."]
    for axes in drawn:
        names = [str(line.get_label()) for line in axes.get_lines() if not str(line.get_label()).startswith("_")]
        shown = f"; lines: {', '.join(names)}" if names else ""
        parts.append(f"{_label(axes, 'y') or 'Values'} against {_label(axes, 'x') or 'position'}{shown}.")
    return " ".join(parts)
