"""Figures of error budgets: what remains over time, how fast it goes, what three ways of counting make of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from labkit import style
from labkit._time import as_utc, format_duration
from labkit.errors import InvalidValue

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["burn_down", "burn_rate_chart"]

# A line with more points than this is no wider on paper: steps are thinned to their lowest and highest values.
_MOST_POINTS = 4000
_LOWEST_BURN = 0.1


def burn_down(
    tracked: pd.DataFrame,
    incidents: pd.DataFrame | None = None,
    ax: Axes | None = None,
    *,
    title: str = "",
) -> Axes:
    """
    Draw the share of the error budget that is left against time.

    Args:
        tracked: from `tracking.burn_down` or `tracking.remaining`: index `time` (UTC), columns `remaining` and
            `coverage`.
        incidents: aware `start` and `end`, shaded; names from a column `id`, else from the index.  `spent`, as
            `tracking.spent_per_incident` gives it, is written beside the name; a row without times is left out.
        ax: where to draw; new 10 by 4 inch axes if None.
        title: the finding, in words; left out if empty.

    Returns:
        The axes.  Below zero, where the budget is overspent, the area is filled.  Where less than the whole window was
        counted the line is grey; unknown instants are gaps.

    Raises:
        InvalidValue: *tracked* has no rows or lacks a column, or nothing in it is known.
    """
    needs = {"remaining", "coverage"}
    if tracked.empty or not needs <= set(tracked.columns) or tracked["remaining"].isna().all():
        raise InvalidValue(
            "tracked",
            expected="known rows with the columns remaining and coverage, as tracking.burn_down gives them",
            got=f"{len(tracked)} rows of {list(tracked.columns)}",
        )
    ax = style.new_axes(10, 4) if ax is None else ax
    left = _thinned(tracked["remaining"])
    whole = tracked["coverage"].reindex(left.index) >= 1
    ax.plot(left.index, left.to_numpy(), color=style.COLOURS["grey"], linewidth=1.2)
    ax.plot(left.index, left.where(whole).to_numpy(), color=style.COLOURS["blue"])
    over = left.where(left < 0).to_numpy()
    ax.fill_between(left.index, 0, over, color=style.COLOURS["vermillion"], alpha=0.5, linewidth=0)
    lowest = float(left[whole].min()) if whole.any() else float(left.min())
    # The first windows hold hardly any events and may be anything: they do not set the scale.
    ax.set_ylim(min(-0.05, 1.1 * lowest), 1.05)
    ax.margins(x=0)
    style.utc_axis(ax)
    ax.set_ylabel("error budget left, share")
    ax.yaxis.set_major_formatter(_percent)
    style.threshold(ax, 0, "nothing left", right=True, above=False)
    if not whole.all():
        ax.set_xlabel("time (UTC); grey: only part of the window was counted")
    if incidents is not None:
        _shade(ax, incidents)
    return _titled(ax, title, incidents)


def burn_rate_chart(
    rates: pd.DataFrame,
    thresholds: Mapping[str, float] | None = None,
    incidents: pd.DataFrame | None = None,
    ax: Axes | None = None,
    *,
    title: str = "",
) -> Axes:
    """
    Draw burn rates against time on a logarithmic axis, with the factors of alerts as labelled lines.

    Args:
        rates: from `tracking.burn_rates`: index `time` (UTC), one column per window, named by its seconds.
        thresholds: factors by name, as in {"page: 14.4 over 1 h": 14.4}; 1, the allowed pace, is always drawn.
        incidents: as for `burn_down`.
        ax: where to draw; new 10 by 4 inch axes if None.
        title: the finding, in words; left out if empty.

    Returns:
        The axes.  Burns below a tenth of the allowed pace lie on the lower edge; instants without events are gaps.

    Raises:
        InvalidValue: *rates* has no rows or no columns, or nothing in it is known.
    """
    if rates.empty or rates.isna().all(axis=None):
        raise InvalidValue("rates", expected="known burn rates, one column per window", got=f"{rates.shape} values")
    ax = style.new_axes(10, 4) if ax is None else ax
    for window_s in rates.columns:
        line = _thinned(rates[window_s]).clip(lower=_LOWEST_BURN)
        ax.plot(line.index, line.to_numpy(), linewidth=1.2)
    ax.set_yscale("log")
    highest = max(float(np.nanmax(rates.to_numpy())), *(thresholds or {}).values(), 1.0)
    ax.set_ylim(_LOWEST_BURN, 2 * highest)
    ax.margins(x=0)
    style.utc_axis(ax)
    ax.set_ylabel("burn rate, times the allowed pace")
    ax.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    for text, factor in {"1: spends the whole budget exactly": 1.0, **(thresholds or {})}.items():
        style.threshold(ax, factor, text, right=True)
    style.label_ends(ax, [f"over {format_duration(float(window))}" for window in rates.columns])
    if incidents is not None:
        _shade(ax, incidents)
    return _titled(ax, title, incidents)


def _titled(ax: Axes, title: str, incidents: pd.DataFrame | None) -> Axes:
    if title:
        # Above the slanting names of the incidents.
        ax.set_title(title, pad=8 if incidents is None else 84)
    return ax


def _percent(value: float, _: Any) -> str:
    return f"{100 * value:.0f} %"


def _thinned(values: pd.Series[float]) -> pd.Series[float]:
    """Two points for each of the picture's columns: the lowest and the highest, in their order."""
    if len(values) <= _MOST_POINTS:
        return values
    numbers = values.to_numpy(dtype=float)
    kept = {0, len(numbers) - 1}
    for block in np.array_split(np.arange(len(numbers)), _MOST_POINTS // 2):
        known = block[~np.isnan(numbers[block])]
        # A block without a known value stays a gap.
        kept |= {int(known[numbers[known].argmin()]), int(known[numbers[known].argmax()])} if len(known) else {block[0]}
    return values.iloc[sorted(kept)]


def _shade(ax: Axes, incidents: pd.DataFrame) -> None:
    for name, text, start, end in _spans(incidents):
        style.shade(ax, start, end)
        style.name_band(ax, f"{name}{text}", start, 1, share=True, beside=2)


def _spans(incidents: pd.DataFrame) -> Iterable[tuple[str, str, datetime, datetime]]:
    names = incidents["id"] if "id" in incidents.columns else incidents.index
    for number, name in enumerate(names):
        row = incidents.iloc[number]
        if pd.isna(row["start"]) or pd.isna(row["end"]):
            continue
        spent = row.get("spent", np.nan)
        cost = "" if pd.isna(spent) else f": {100 * spent:.0f} %" if spent >= 0.01 else f": {100 * spent:.1g} %"
        start, end = (as_utc(pd.Timestamp(row[side]).to_pydatetime()) for side in ("start", "end"))
        yield str(name).replace("-", " "), cost, start, end
