"""
A report as a page that holds everything and fetches nothing, as a table for notebooks, and as a figure.

Charts of the page are small SVGs of our own, so that a page of fifty objectives is small and made at once.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence
from datetime import datetime
from fractions import Fraction
from typing import TYPE_CHECKING

from labkit import style
from labkit._page import page
from labkit._time import format_duration
from labkit.slo import windows
from labkit.slo._burn_down_chart import burn_down_chart
from labkit.slo.figures import burn_down
from labkit.slo.objective import format_percentage
from labkit.slo.report import Report
from labkit.slo.verdict import STATUS_MEANING, AlertState, SloReport, Status, percent

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["WORDS", "overview", "report_figure", "report_page", "summary"]

WORDS: dict[Status, str] = {
    "violated": "violated",
    "at_risk": "at risk",
    "unknown": "unknown",
    "healthy": "healthy",
}
"""The verdicts for people, the gravest first."""

_LOOK: dict[Status, str] = {"healthy": "good", "at_risk": "warn", "violated": "bad", "unknown": "neutral"}
_HEAD = ("objective", "status", "promised", "achieved", "budget left", "burn, last hour", "budget ends")


def report_page(report: Report) -> str:
    """The whole report as one HTML page: overview, a section per objective, what the words mean."""
    rows = _by_gravity(report)
    sections = "\n".join(_section(row) for row in rows)
    body = f"{_header(report)}\n<section><h2>Overview</h2>{overview(report)}</section>\n{sections}\n{_meaning()}"
    return page(f"Service levels at {_time(report.at)}", body)


def overview(report: Report) -> str:
    """One row per objective, the gravest first; also what a notebook shows of a report."""
    if not len(report):
        return "<p>No objective was given, so nothing was measured.</p>"
    head = "".join(f'<th scope="col">{name}</th>' for name in _HEAD)
    body = "".join(
        f'<tr><th scope="row"><a href="#{html.escape(row.slo.name)}">{html.escape(row.slo.name)}</a></th>'
        f"<td>{_badge(row.status)}</td>{_numbers(summary(row))}</tr>"
        for row in _by_gravity(report)
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def report_figure(report: Report) -> Figure:
    """
    The burn-down of each objective whose counts are known, one below the other, with one axis of time.

    Returns:
        The figure; with nothing known it says so.
    """
    import matplotlib.pyplot as plt  # noqa: PLC0415  (only those who plot pay for it)

    known = [(row, row.burn_down) for row in report if row.burn_down is not None]
    with style.context():
        figure, all_axes = plt.subplots(
            max(1, len(known)), 1, figsize=(10, 2.8 * max(1, len(known))), squeeze=False, layout="constrained"
        )
        if not known:
            all_axes[0, 0].set_axis_off()
            all_axes[0, 0].text(0, 0.5, "Of no objective there are counts to draw.")
        for (row, tracked), axes in zip(known, all_axes[:, 0], strict=True):
            burn_down(tracked, ax=axes, title=f"{row.slo.name}: {_finding(row)}")
            axes.set_xlim(row.start, row.end)
    return figure


def _by_gravity(report: Report) -> list[SloReport]:
    order = list(WORDS)
    return sorted(report, key=lambda row: order.index(row.status))


def _header(report: Report) -> str:
    counted = {status: sum(row.status == status for row in report) for status in WORDS}
    verdicts = " ".join(
        f'<span class="badge {_LOOK[status]}">{number} {WORDS[status]}</span>'
        for status, number in counted.items()
        if number
    )
    source = f" Source: {html.escape(report.source)}." if report.source else ""
    count = f"{len(report)} objective{'s' * (len(report) != 1)}"
    return (
        f"<header><h1>Service levels at {_time(report.at)}</h1><p>{count}: {verdicts or 'none'}.{source}</p></header>"
    )


def _section(row: SloReport) -> str:
    slo = row.slo
    pairs = (("service", slo.service), ("owner", slo.owner), ("policy", slo.policy))
    about = " · ".join(f"{name} {html.escape(text)}" for name, text in pairs if text)
    # A reason that is a problem stands in its box below, with the query and the advice.
    boxed = {problem.text.split("\n")[0] for problem in row.problems}
    reasons = "".join(f"<li>{html.escape(reason)}</li>" for reason in row.reasons if reason not in boxed)
    problems = "".join(f'<div class="error"><pre>{html.escape(problem.text)}</pre></div>' for problem in row.problems)
    notes = "".join(f"<p>{html.escape(note)}</p>" for note in row.notes)
    parts = [
        f'<section id="{html.escape(slo.name)}"><h2>{html.escape(slo.name)} {_badge(row.status)}</h2>',
        f"<p>{html.escape(slo.description)}</p>" if slo.description else "",
        f"<p>{about}</p>" if about else "",
        f"<ul>{reasons}</ul>" if reasons else "",
        problems,
        burn_down_chart(row),
        _facts(row),
        _alerts(row.alerts),
        notes,
        f"<p>Runbook: {_link(slo.runbook)}</p>" if slo.runbook else "",
        "</section>",
    ]
    return "\n".join(part for part in parts if part)


def summary(row: SloReport) -> list[str]:
    """Promised, achieved, left, burn of the last hour and end of the budget, as text."""
    return [
        format_percentage(row.slo.objective).replace("%", " %"),
        _achieved(row),
        _left(row),
        _burn(row.burns.get(3600)),
        str(row.exhaustion),
    ]


def _facts(row: SloReport) -> str:
    counts = row.budget
    pairs = [("window", f"{windows.describe(row.slo.window)}: {_time(row.start)} to {_time(row.end)}")]
    if counts is not None:
        unit = "events" if row.slo.budgeting.method == "occurrences" else f"slices of {row.slo.budgeting.slice_s} s"
        pairs += [
            (unit, f"{_count(counts.total)}, of which {_count(counts.bad)} bad"),
            ("promised", f"at most {_count(counts.allowed)} of them bad"),
            ("achieved", _achieved(row)),
            ("budget spent", percent(row.spent) if row.spent is not None else "unknown"),
        ]
    burns = ", ".join(f"{_burn(burn)} over {format_duration(window)}" for window, burn in row.burns.items())
    if all(burn is None for burn in row.burns.values()):
        burns = "unknown"
    pairs += [("burn rate", burns), ("budget ends", f"{row.exhaustion}: {row.exhaustion.why}")]
    cells = "".join(f'<tr><th scope="row">{name}</th><td>{html.escape(text)}</td></tr>' for name, text in pairs)
    return f"<h3>Numbers</h3><table><tbody>{cells}</tbody></table>"


def _alerts(alerts: Sequence[AlertState]) -> str:
    if not alerts:
        return ""
    names = ("alert", "condition holds", "fires above", "burn, long window", "burn, short window")
    head = "".join(f'<th scope="col">{name}</th>' for name in names)
    rows = "".join(
        f'<tr><th scope="row">{html.escape(alert.name)}</th><td>{_holds(alert)}</td>'
        + _numbers([f"{float(alert.factor):.4g}", _burn(alert.long_burn), _short_burn(alert)])
        + "</tr>"
        for alert in alerts
    )
    return f"<h3>Alerts</h3><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"


def _holds(alert: AlertState) -> str:
    word, look = {True: ("yes", "bad"), False: ("no", "good"), None: ("unknown", "neutral")}[alert.holds]
    return f'<span class="badge {look}">{word}</span>'


def _short_burn(alert: AlertState) -> str:
    return "none" if alert.short_s is None else _burn(alert.short_burn)


def _numbers(texts: Iterable[str]) -> str:
    return "".join(f'<td class="number">{html.escape(text)}</td>' for text in texts)


def _badge(status: Status) -> str:
    return f'<span class="badge {_LOOK[status]}">{WORDS[status]}</span>'


def _link(address: str) -> str:
    text = html.escape(address)
    # A path leads nowhere from wherever the page is read.
    return f'<a href="{text}">{text}</a>' if address.startswith(("https://", "http://")) else f"<code>{text}</code>"


def _left(row: SloReport) -> str:
    return "unknown" if row.remaining is None else percent(row.remaining).replace("-", "\N{MINUS SIGN}")


def _finding(row: SloReport) -> str:
    if row.remaining is not None and row.remaining < 0:
        return f"{percent(-row.remaining)} more than the budget is spent"
    return f"{_left(row)} of the budget is left"


def _achieved(row: SloReport) -> str:
    if row.achieved is None:
        return "unknown"
    # As many decimals as the promise has and two more, cut and not rounded: 99.8999 % is not 99.9 %.
    written = format_percentage(row.slo.objective).rstrip("%")
    places = len(written.partition(".")[2]) + 2
    scaled = math.floor(row.achieved * 100 * 10**places)
    return f"{scaled / 10**places:.{places}f} %"


def _burn(burn: Fraction | None) -> str:
    return "unknown" if burn is None else f"{float(burn):.3g}"


def _count(number: Fraction) -> str:
    return f"{float(number):,.0f}" if number >= 100 or number.denominator == 1 else f"{float(number):.4g}"


def _time(instant: datetime) -> str:
    return f"{instant:%Y-%m-%d %H:%M} UTC"


def _meaning() -> str:
    rows = "".join(f"<tr><td>{_badge(status)}</td><td>{STATUS_MEANING[status]}</td></tr>" for status in WORDS)
    return f"<section><h2>What the words mean</h2><table><tbody>{rows}</tbody></table></section>"
