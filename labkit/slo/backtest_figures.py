"""Figures of back-tests: what each policy would have done over the same history, one band below the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from labkit import style
from labkit.errors import InvalidValue
from labkit.slo.model import Severity

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from labkit.slo.backtest import BackTest

__all__ = ["policy_bands"]

_COLOURS: dict[Severity, str] = {"page": "vermillion", "ticket": "blue"}
# Where in a policy's band of height 1 each severity lies, and how high it is.
_LANES: dict[Severity, tuple[float, float]] = {"page": (0.08, 0.4), "ticket": (-0.38, 0.34)}


def policy_bands(tests: Sequence[BackTest], ax: Axes | None = None, *, title: str = "") -> Axes:
    """
    Draw when each policy paged and opened tickets, over the incidents that really were.

    Args:
        tests: of one history, in the order from top to bottom; the incidents are those of the first.
        ax: where to draw; new axes, 10 inches wide and as high as the policies need, if None.
        title: the finding, in words; left out if empty.

    Returns:
        The axes: a band per policy, pages above and tickets below its middle, each notification as long as it lasted
        (one too short to see keeps a hairline); incidents as bands over the full height, grey where nobody should have
        been called; at the right what the policy is worth.

    Raises:
        InvalidValue: there are no tests, or they are not of one stretch of time.
    """
    if not tests or len({(one.start, one.end) for one in tests}) != 1:
        raise InvalidValue("tests", expected="back-tests of one history, one or more", got=f"{len(tests)} of several")
    ax = style.new_axes(10, 1.5 + 0.48 * len(tests)) if ax is None else ax
    if tests[0].incidents is not None:
        _incidents(ax, tests[0].incidents)
    for row, one in enumerate(reversed(tests)):
        for severity in _COLOURS:
            _lane(ax, row, one.notifications(severity), severity)
        ax.annotate(
            _worth(one), (1, row), xycoords=ax.get_yaxis_transform(), xytext=(6, 0), textcoords="offset points",
            va="center", fontsize=8.5, annotation_clip=False, linespacing=1.25,
        )  # fmt: skip
        if row:
            ax.axhline(row - 0.5, color="#E4E4E4", linewidth=0.8, zorder=0.4)
    ax.set_yticks(range(len(tests)), [one.policy.name for one in reversed(tests)])
    ax.tick_params(axis="y", length=0)
    ax.grid(visible=False)
    ax.set_ylim(-0.5, len(tests) - 0.5)
    ax.set_xlim(tests[0].start, tests[0].end)  # type: ignore[arg-type]
    style.utc_axis(ax)
    ax.set_ylabel("policy")
    _legend(ax, tests)
    if title:
        ax.set_title(title)
    return ax


def _lane(ax: Axes, row: int, notified: pd.DataFrame, severity: Severity) -> None:
    from matplotlib.dates import date2num  # noqa: PLC0415

    bottom, height = _LANES[severity]
    colour = style.COLOURS[_COLOURS[severity]]
    starts, ends = (date2num(notified[name].dt.tz_convert("UTC")) for name in ("start", "end"))  # type: ignore[no-untyped-call]
    spans = list(zip(starts, ends - starts, strict=True))
    ax.broken_barh(spans, (row + bottom, height), facecolor=colour, linewidth=0, zorder=3)
    ax.vlines(starts, row + bottom, row + bottom + height, color=colour, linewidth=1, zorder=3)


def _incidents(ax: Axes, incidents: pd.DataFrame) -> None:
    for one in incidents.to_dict("records"):
        style.shade(ax, one["start"], one["end"], colour="grey" if one["response"] == "none" else "orange")


def _worth(one: BackTest) -> str:
    """Two short lines: how often it called, and how much of that was right and seen."""
    row = one.summary().iloc[0]
    called = f"{_number(row['pages'], 'page')}, {_number(row['tickets'], 'ticket')}"
    if one.blind:
        return f"{called}\ncannot fire: a window holds one sample"
    if one.incidents is None:
        return called
    right = "no page" if pd.isna(row["precision"]) else f"{row['precision']:.0%} of pages right"
    due = one.incidents[one.incidents["response"] == "page"]
    return f"{called}\n{right}, {due['answered'].sum():.0f} of {len(due)} found"


def _number(count: float, what: str) -> str:
    return f"{count:.0f} {what}" if count == 1 else f"{count:,.0f} {what}s"


def _legend(ax: Axes, tests: Sequence[BackTest]) -> None:
    from matplotlib.patches import Patch  # noqa: PLC0415

    shown: list[Any] = [Patch(color=style.COLOURS[_COLOURS[s]], label=f"{s}s") for s in ("page", "ticket")]
    known = tests[0].incidents
    if known is not None and len(known):
        shown.append(Patch(color=style.COLOURS["orange"], alpha=0.5, label="incidents"))
        if (known["response"] == "none").any():
            shown.append(Patch(color=style.COLOURS["grey"], alpha=0.5, label="no call needed"))
    # The padding is in units of the font, so that it clears the axis' own texts at any height of the figure.
    ax.legend(
        handles=shown, loc="upper right", bbox_to_anchor=(1, 0), borderaxespad=4.4, ncols=4, frameon=False,
        fontsize=8.5, handlelength=1.2,
    )  # fmt: skip
