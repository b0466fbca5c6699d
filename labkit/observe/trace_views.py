"""
Look at one trace: as a tree of text, as a waterfall; and at who calls whom.

All of them take the frames of any `TraceStore`.  Clocks of services differ: a span that begins before its parent by
more than a millisecond is shown where its own clock puts it, and the view says so.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from labkit import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["clock_skew", "service_map", "tree", "waterfall"]

_SKEW_S = 0.001
_NAME_LENGTH = 44


def _in_order(spans: pd.DataFrame) -> Iterator[tuple[int, dict[str, Any]]]:
    """Each span once, with its depth, parents before children; spans whose parent is not here are roots."""
    rows: list[dict[str, Any]] = spans.sort_values("start").to_dict("records")  # type: ignore[assignment]
    ids = {row["span_id"] for row in rows}
    children: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        children.setdefault(row["parent_id"] if row["parent_id"] in ids else "", []).append(row)
    seen: set[str] = set()
    # Spans in a circle have no root; each is shown as one.
    waiting = [(0, row) for row in [*children.get("", []), *rows][::-1]]
    while waiting:
        depth, row = waiting.pop()
        if row["span_id"] not in seen:
            seen.add(row["span_id"])
            yield depth, row
            waiting += [(depth + 1, child) for child in children.get(row["span_id"], [])[::-1]]


def clock_skew(spans: pd.DataFrame) -> pd.DataFrame:
    """
    Spans that begin more than a millisecond before their parent, which only clocks that differ can do.

    Args:
        spans: as from `TraceStore.trace`.

    Returns:
        `span_id, service, parent_service, ahead_s`; empty when the clocks agree.
    """
    parents = spans[["span_id", "service", "start"]].rename(
        columns={"span_id": "parent_id", "service": "parent_service", "start": "parent_start"}
    )
    both = spans.merge(parents, on="parent_id")
    both["ahead_s"] = (both["parent_start"] - both["start"]).dt.total_seconds()
    ahead = both[both["ahead_s"] > _SKEW_S]
    return ahead[["span_id", "service", "parent_service", "ahead_s"]].reset_index(drop=True)


def _skew_note(spans: pd.DataFrame) -> str:
    skewed = clock_skew(spans)
    if skewed.empty:
        return ""
    worst = skewed.iloc[int(skewed["ahead_s"].to_numpy().argmax())]
    return (
        f"Clocks differ: a span of {worst['service']} begins {worst['ahead_s'] * 1000:.3g} ms before its parent in "
        f"{worst['parent_service']}; positions between services are not exact."
    )


def tree(spans: pd.DataFrame) -> str:
    """
    One trace as text, a line per span: service, operation, milliseconds from the start, duration, whether it failed.

    Args:
        spans: as from `TraceStore.trace`, at least one row.

    Raises:
        ValueError: there is no span.
    """
    if spans.empty:
        raise ValueError("there is no span to show")
    first, ids = spans["start"].min(), set(spans["span_id"])
    lines = []
    for depth, row in _in_order(spans):
        name = f"{'  ' * depth}{row['service']} {row['operation']}"
        begins_ms = (row["start"] - first).total_seconds() * 1000
        marks = "  ERROR" if row["error"] else ""
        marks += "  (its parent is not here)" if row["parent_id"] and row["parent_id"] not in ids else ""
        lines.append(f"{name:<{_NAME_LENGTH}} +{begins_ms:8.1f} ms {row['duration_s'] * 1000:8.1f} ms{marks}")
    note = _skew_note(spans)
    return "\n".join([*lines, note] if note else lines)


def waterfall(spans: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """
    Draw one trace: a bar per span from its start to its end, in milliseconds since the trace began.

    Args:
        spans: as from `TraceStore.trace`, at least one row.
        ax: where to draw; new axes as high as the trace is long if None.

    Returns:
        The axes: colours by service, failed spans hatched, parents above their children; a note below the axis
        when clocks differ.

    Raises:
        ValueError: there is no span.
    """
    if spans.empty:
        raise ValueError("there is no span to draw")
    ax = style.new_axes(10, max(1.6, 0.8 + 0.3 * len(spans))) if ax is None else ax
    first = spans["start"].min()
    palette = [colour for name, colour in style.COLOURS.items() if name not in {"yellow", "ink", "grey"}]
    services = list(dict.fromkeys(spans.sort_values("start")["service"]))
    names = []
    for row, (depth, span) in enumerate(_in_order(spans)):
        begins_ms, took_ms = (span["start"] - first).total_seconds() * 1000, span["duration_s"] * 1000
        colour = palette[services.index(span["service"]) % len(palette)]
        hatch = "////" if span["error"] else None
        ax.barh(row, took_ms, left=begins_ms, height=0.6, color=colour, hatch=hatch, edgecolor="white", linewidth=0)
        ax.text(begins_ms + took_ms, row, f" {took_ms:.1f} ms{' failed' if span['error'] else ''}", va="center", size=8)
        names.append(f"{'   ' * depth}{span['service']} {span['operation']}")
    ax.set_yticks(range(len(names)), names, size=8)
    ax.invert_yaxis()
    ax.grid(visible=False, axis="y")
    ax.margins(x=0.12)
    note = _skew_note(spans)
    ax.set_xlabel("milliseconds since the trace began" + (f"\n{note}" if note else ""))
    return ax


def service_map(calls: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """
    Draw who calls whom: services in columns by their distance from the edge, arrows with the number of calls.

    Args:
        calls: `parent, child, calls`, as from `TraceStore.dependencies`, at least one row.
        ax: where to draw; new 9 by 4 inch axes if None.

    Raises:
        ValueError: nobody calls anybody.
    """
    if calls.empty:
        raise ValueError("there are no calls between services to draw")
    ax = style.new_axes(9, 4) if ax is None else ax
    places = _places(calls)
    for row in calls.itertuples():
        (x0, y0), (x1, y1) = places[str(row.parent)], places[str(row.child)]
        arrow = {"arrowstyle": "->", "color": style.COLOURS["grey"], "shrinkA": 28, "shrinkB": 28}
        ax.annotate("", (x1, y1), (x0, y0), arrowprops=arrow)
        ax.text(x0 + 0.45 * (x1 - x0), y0 + 0.45 * (y1 - y0), f"{row.calls:,}", size=8, ha="center", va="bottom")
    for name, (x, y) in places.items():
        box = {"boxstyle": "round", "fc": "white", "ec": style.COLOURS["blue"]}
        ax.text(x, y, name, ha="center", va="center", bbox=box)
    x, y = np.array(list(places.values())).T
    ax.set(xlim=(x.min() - 0.5, x.max() + 0.5), ylim=(y.min() - 0.7, y.max() + 0.7))
    ax.set_axis_off()
    return ax


def _places(calls: pd.DataFrame) -> dict[str, tuple[float, float]]:
    names = list(dict.fromkeys([*calls["parent"], *calls["child"]]))
    depth = dict.fromkeys(names, 0)
    # As many rounds as there are services: enough for any chain, and an end for any circle.
    for _ in names:
        for row in calls.itertuples():
            depth[str(row.child)] = min(max(depth[str(row.child)], depth[str(row.parent)] + 1), len(names))
    columns: dict[int, list[str]] = {}
    for name in names:
        columns.setdefault(depth[name], []).append(name)
    return {
        name: (float(x), (len(column) - 1) / 2 - row)
        for x, (_, column) in enumerate(sorted(columns.items()))
        for row, name in enumerate(column)
    }
