"""How the commands of `labkit slo` look on a terminal, and what they print as JSON."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from labkit._time import format_duration

if TYPE_CHECKING:
    import pandas as pd

    from labkit.slo.backtest import BackTest
    from labkit.slo.report import Report

__all__ = ["backtest_dict", "show_backtests", "show_report"]

_COLOURS = {"healthy": "green", "at_risk": "yellow", "violated": "red", "unknown": "magenta"}


def show_report(report: Report) -> None:
    """A table of the verdicts, and below it why, for all that are not healthy."""
    from labkit.slo.report_page import WORDS, summary  # noqa: PLC0415

    table = Table(
        title=f"Service levels at {report.at:%Y-%m-%d %H:%M} UTC",
        title_justify="left",
        box=None,
        pad_edge=False,
        collapse_padding=True,
    )
    for name in ("objective", "status"):
        table.add_column(name, no_wrap=True)
    for name in ("promised", "achieved", "left", "burn 1 h", "ends"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in report:
        table.add_row(row.slo.name, Text(WORDS[row.status], style=_COLOURS[row.status]), *summary(row))
    console = Console()
    console.print(table)
    # What several objectives share, such as a server that does not answer, is said once.
    said: dict[str, list[str]] = {}
    for row in report:
        texts = [*(row.reasons if row.status != "healthy" else ()), *row.notes]
        # Reasons have the first line of a problem; the query and the advice are below it.
        texts += [problem.text for problem in row.problems if "\n" in problem.text]
        for text in texts:
            said.setdefault(text, []).append(row.slo.name)
    for text, names in said.items():
        console.print(Text(f"{', '.join(names)}: {text}"), soft_wrap=True)


def show_backtests(found: Iterable[BackTest], title: str) -> None:
    """A row per policy: how often it pages, how right it is, how fast, at what cost; `?` is unknown."""
    tests = list(found)
    table = _table(title)
    table.add_column("policy", no_wrap=True)
    names = ("pages", "a week", "tickets", "precision", "recall", "detected", "reset", "spent")
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    for test in tests:
        row = test.summary().iloc[0]
        table.add_row(
            test.policy.name,
            f"{row['pages']:.0f}",
            f"{row['per_week']:.2f}",
            f"{row['tickets']:.0f}",
            *(_percent(row[name]) for name in ("precision", "recall")),
            *(_length(row[name]) for name in ("detection_s", "reset_s")),
            _percent(row["budget_spent"]),
        )
    console = Console()
    console.print(table)
    for test in tests:
        if test.blind:
            blind = ", ".join(test.blind)
            step = format_duration(test.step_s)
            text = f"{test.policy.name}: {blind} cannot fire, because steps of {step} are too long for its windows."
            console.print(Text(text), soft_wrap=True)


def backtest_dict(test: BackTest) -> dict[str, Any]:
    """One policy as JSON holds it: its summary, every page, every incident; None for what is unknown."""
    summary = {str(name): _plain(value) for name, value in test.summary().iloc[0].items()}
    return {
        "policy": test.policy.name,
        **summary,
        "blind": list(test.blind),
        "page_list": _records(test.pages),
        "incidents": None if test.incidents is None else _records(test.incidents),
    }


def _table(title: str) -> Table:
    return Table(title=title, title_justify="left", box=None, pad_edge=False, collapse_padding=True)


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(name): _plain(value) for name, value in row.items()} for row in table.to_dict("records")]


def _plain(value: Any) -> Any:
    if hasattr(value, "isoformat"):
        return value.isoformat() if value == value else None  # noqa: PLR0124  (NaT is not equal to itself)
    if hasattr(value, "item"):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _percent(share: float) -> str:
    if math.isnan(share):
        return "?"
    if 0 < share < 0.001:
        return "<0.1 %"
    return f"{share * 100:.1f} %" if 0 < share < 0.1 else f"{share * 100:.0f} %"


def _length(seconds: float) -> str:
    """In one unit, for narrow columns."""
    if math.isnan(seconds):
        return "?"
    if seconds < 7200:
        return f"{seconds / 60:.3g} min"
    return f"{seconds / 3600:.3g} h" if seconds < 2 * 86_400 else f"{seconds / 86_400:.3g} d"
