"""Figures of what was measured: a range as lines, thirty days as error share with what happened in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from labkit import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["thirty_days", "timeseries"]

_MOST_LABELS = 8


def timeseries(frame: pd.DataFrame, ax: Axes | None = None, *, unit: str = "", title: str = "") -> Axes:
    """
    Draw a range frame as one line per series, each named at its end.

    Args:
        frame: as from `Prometheus.query_range`; up to eight columns are named beside their lines, more get a legend.
        ax: where to draw; new 8 by 3.2 inch axes if None.
        unit: of the values, for the axis: "requests/s".
        title: the finding, in words; left out if empty.

    Returns:
        The axes.  An instant without data is a gap in the line, never a zero.

    Raises:
        ValueError: the frame has no rows or no columns.
    """
    if frame.empty:
        raise ValueError("the frame is empty: there is nothing to draw; no data is not zero")
    ax = style.new_axes() if ax is None else ax
    names = [_series_name(column) for column in frame.columns]
    for name, column in zip(names, range(frame.shape[1]), strict=True):
        ax.plot(frame.index, frame.iloc[:, column].to_numpy(), label=name)
    ax.margins(x=0)
    style.utc_axis(ax)
    low = float(np.nanmin(frame.to_numpy())) if frame.notna().any(axis=None) else 0.0
    if low >= 0:
        ax.set_ylim(bottom=0)
    ax.set_ylabel(unit)
    if title:
        ax.set_title(title)
    return _name_lines(ax, names)


def _name_lines(ax: Axes, names: Sequence[str]) -> Axes:
    if len(names) == 1 and names[0] == "value":
        return ax
    if len(names) <= _MOST_LABELS:
        return style.label_ends(ax, names)
    ax.legend(fontsize=8, ncols=2, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    return ax


def _series_name(column: Any) -> str:
    parts = column if isinstance(column, tuple) else (column,)
    return " ".join(str(part) for part in parts if str(part)) or "(no label)"


def thirty_days(
    counts: pd.DataFrame,
    incidents: Sequence[Mapping[str, Any]] | None = None,
    ax: Axes | None = None,
    *,
    objective: float = 0.999,
) -> Axes:
    """
    Draw the share of failed requests by the hour, with the objective's pace and the known incidents.

    Args:
        counts: request counts: index `time`, columns `good` and `total`; any step up to an hour.
        incidents: mappings with `id`, `start`, `end`, `kind` and `budget_share` (a fraction), as in
            `History.labels()["incidents"]`; instants as datetimes or ISO texts.
        ax: where to draw; new 10 by 4.2 inch axes if None.
        objective: target fraction of good requests, in (0, 1).

    Returns:
        The axes, with a logarithmic error share and a strip above it for the names of the incidents and what
        each cost of the budget.  The line at `1 - objective` is the pace that spends the whole budget exactly;
        what lies above it is filled.  Hours without requests or without errors are gaps.

    Raises:
        ValueError: *counts* has no rows or lacks a column.
    """
    if counts.empty or not {"good", "total"} <= set(counts.columns):
        raise ValueError(
            f"counts needs rows and the columns good and total, got {counts.shape[0]} rows of {list(counts.columns)}"
        )
    ax = style.new_axes(10, 4.2) if ax is None else ax
    share = _hourly_error_share(counts)
    pace = 1 - objective
    # Each value covers the hour before its label, so it is drawn as a step that ends there.
    ax.step(share.index, share.to_numpy(), where="pre", color=style.COLOURS["blue"], linewidth=1.1)
    over = share.where(share > pace).to_numpy()
    ax.fill_between(share.index, pace, over, step="pre", color=style.COLOURS["vermillion"], alpha=0.75, linewidth=0)
    ax.set_yscale("log")
    ax.set_ylim(min(3e-5, pace / 20), 150 if incidents else 1)
    ax.set_yticks([1e-4, 1e-3, 1e-2, 1e-1, 1], ["0.01 %", "0.1 %", "1 %", "10 %", "100 %"])
    ax.minorticks_off()
    ax.margins(x=0)
    style.utc_axis(ax)
    ax.set_ylabel("failed requests, share by the hour")
    text = f"{100 * objective:.6g} % objective: {100 * pace:.3g} % may fail"
    style.threshold(ax, pace, text, right=True)
    for incident in incidents or ():
        _draw_incident(ax, incident)
    return ax


def _hourly_error_share(counts: pd.DataFrame) -> pd.Series[float]:
    hourly = counts[["good", "total"]].resample("1h", closed="right", label="right").sum()
    bad = (hourly["total"] - hourly["good"]).astype(float)
    return (bad / hourly["total"].where(hourly["total"] > 0)).where(bad > 0)


def _draw_incident(ax: Axes, incident: Mapping[str, Any]) -> None:
    start, end = _instant(incident["start"]), _instant(incident["end"])
    latency = incident["kind"] == "latency"
    style.shade(ax, start, end, colour="purple" if latency else "orange")
    percent = 100 * incident["budget_share"]
    cost = "none fails" if latency else f"{percent:.0f} %" if percent >= 1 else f"{percent:.1g} %"
    middle = start + (end - start) / 2 if end - start > timedelta(hours=12) else start
    style.name_band(ax, f"{incident['id'].replace('-', ' ')}: {cost}", middle, 1.2)


def _instant(value: datetime | str) -> datetime:
    return datetime.fromisoformat(value) if isinstance(value, str) else value
