"""
One HTML page for a run: every figure of every notebook, the verdicts, durations, machine and versions.

Everything is inside the file and nothing is fetched, so it opens anywhere, offline too.  Beside it lies each executed
notebook as a page of its own, in the same style.
"""

from __future__ import annotations

import html
import json
from collections.abc import Iterator
from pathlib import Path

from labkit._page import page
from labkit._time import format_duration
from labkit.course import _nb
from labkit.course.exercise import CHECK_MIME
from labkit.course.results import CheckResult, NotebookResult, RunOutcome, RunResult

__all__ = ["notebook_page", "write_report"]

_WORDS = {
    "correct": "correct",
    "not_yet": "not yet",
    "not_attempted": "not attempted",
    "not_reached": "not reached",
    RunOutcome.PASSED.value: "passed",
    RunOutcome.FAILED.value: "failed",
    RunOutcome.SETUP_FAILED.value: "set-up failed",
    RunOutcome.DEADLINE.value: "deadline passed",
    RunOutcome.KERNEL_DIED.value: "kernel died",
    RunOutcome.INTERRUPTED.value: "interrupted",
    RunOutcome.NOT_RUN.value: "not run",
}
_GOOD, _NEUTRAL = frozenset({"correct", "passed"}), frozenset({"not_attempted", "not_reached", "not_run"})


def write_report(result: RunResult) -> Path:
    """
    Write report.html and one page per executed notebook into the folder of *result*, and return the report's path.

    Works for every outcome: of a notebook that did not finish it shows what there is.
    """
    for notebook in result.notebooks:
        if _executed(result, notebook) is not None:
            target = result.out_dir / f"{notebook.name}.html"
            target.write_text(notebook_page(result.out_dir / notebook.executed, notebook.name), encoding="utf-8")
    sections = "\n".join(_notebook_section(result, notebook) for notebook in result.notebooks)
    body = f"{_header(result)}\n{_overview(result)}\n{sections}\n{_about(result)}"
    path = result.out_dir / "report.html"
    path.write_text(page("labkit: report of a run", body), encoding="utf-8")
    return path


def notebook_page(executed: Path, name: str) -> str:
    """The executed notebook as one page: text, code and outputs, all inside, no scripts."""
    from nbconvert import HTMLExporter  # noqa: PLC0415  (half a second of imports)

    notebook = _nb.read(executed)
    # nbconvert's full templates load scripts from the network; its basic one makes the content only.
    exporter = HTMLExporter(  # type: ignore[no-untyped-call]
        template_name="basic", exclude_input_prompt=True, exclude_output_prompt=True
    )
    content, _ = exporter.from_notebook_node(notebook)
    return page(name, f'<main class="notebook"><p><a href="report.html">← report of the run</a></p>{content}</main>')


def _executed(result: RunResult, notebook: NotebookResult) -> Path | None:
    path = result.out_dir / notebook.executed
    return path if notebook.executed and path.is_file() else None


def _header(result: RunResult) -> str:
    count = len(result.notebooks)
    checks = [check for notebook in result.notebooks for check in notebook.checks]
    correct = sum(check.outcome == "correct" for check in checks)
    figures = sum(len(notebook.figures) for notebook in result.notebooks)
    facts = (
        f"{count} notebook{'s' * (count != 1)}, {figures} figure{'s' * (figures != 1)}, "
        f"{correct} of {len(checks)} checks correct, {format_duration(result.duration_s)}"
    )
    return f"<header><h1>Run of {_date(result.started)} {_badge(result.outcome.value)}</h1><p>{facts}.</p></header>"


def _overview(result: RunResult) -> str:
    rows = "".join(
        f'<tr><th scope="row"><a href="#{_id(n)}">{html.escape(n.name)}</a></th><td>{_badge(n.outcome.value)}</td>'
        f'<td class="number">{_seconds(n.duration_s)}</td><td class="number">{n.cells_executed} of {n.cells_total}</td>'
        f'<td class="number">{sum(c.outcome == "correct" for c in n.checks)} of {len(n.checks)}</td>'
        f"<td>{_parameters(n)}</td></tr>"
        for n in result.notebooks
    )
    head = "".join(
        f'<th scope="col">{name}</th>'
        for name in ("notebook", "outcome", "duration", "code cells", "checks correct", "parameters")
    )
    return f"<section><h2>Notebooks</h2><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></section>"


def _notebook_section(result: RunResult, notebook: NotebookResult) -> str:
    executed = _executed(result, notebook)
    links = _links(notebook) if executed else ""
    parts = [
        f'<section id="{_id(notebook)}"><h2>{html.escape(notebook.name)} {_badge(notebook.outcome.value)}</h2>',
        links,
        _error(notebook),
        _checks(notebook.checks),
        *(_figures(executed) if executed else ()),
        _stopped(notebook),
        "</section>",
    ]
    return "\n".join(part for part in parts if part)


def _error(notebook: NotebookResult) -> str:
    error = notebook.error
    if error is None:
        return ""
    where = f"code cell {error.cell}, “{html.escape(error.section)}”: " if error.cell else ""
    name, message = html.escape(error.name), html.escape(error.message)
    return f'<div class="error"><p>{where}<strong>{name}</strong></p><pre>{message}</pre></div>'


def _links(notebook: NotebookResult) -> str:
    page_name, executed = html.escape(f"{notebook.name}.html"), html.escape(notebook.executed)
    whole, in_jupyter = f'<a href="{page_name}">Read it whole</a>', f'<a href="{executed}">the executed notebook</a>'
    return f"<p>{whole}, or open {in_jupyter} in Jupyter.</p>"


def _checks(checks: list[CheckResult]) -> str:
    if not checks:
        return ""
    rows = "".join(
        f'<tr><th scope="row">{html.escape(check.exercise)}</th><td>{html.escape(check.title)}</td>'
        f"<td>{_badge(check.outcome)}</td><td>{html.escape(check.message)}</td></tr>"
        for check in checks
    )
    head = "".join(f'<th scope="col">{name}</th>' for name in ("exercise", "about", "verdict", "because"))
    return f"<h3>Checks</h3><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"


def _figures(executed: Path) -> Iterator[str]:
    for cell in _nb.read(executed).cells:
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if "image/png" in data and CHECK_MIME not in data:
                alt = html.escape(output.metadata.get("alt", "Figure without a description"))
                png = str(data["image/png"]).replace("\n", "")
                yield f'<figure><img alt="{alt}" src="data:image/png;base64,{png}"></figure>'


def _stopped(notebook: NotebookResult) -> str:
    if not notebook.stopped:
        return ""
    items = "".join(f"<li>{html.escape(name)}</li>" for name in notebook.stopped)
    return f"<p>Still running afterwards, and stopped:</p><ul>{items}</ul>"


def _about(result: RunResult) -> str:
    machine = result.machine
    facts = {
        "machine": f"{machine['system']}, {machine['architecture']}",
        "size": f"{machine['cpus']} CPUs, {machine['memory_mb']:,} MB of memory",
        "waited for the machine": _seconds(result.waited_s),
        "strict": "yes: a check that is not correct ends its notebook" if result.strict else "no",
        **result.versions,
    }
    rows = "".join(f'<tr><th scope="row">{html.escape(k)}</th><td>{html.escape(v)}</td></tr>' for k, v in facts.items())
    return f"<section><h2>Machine and versions</h2><table><tbody>{rows}</tbody></table></section>"


def _badge(outcome: str) -> str:
    kind = "good" if outcome in _GOOD else "neutral" if outcome in _NEUTRAL else "bad"
    return f'<span class="badge {kind}">{_WORDS[outcome]}</span>'


def _parameters(notebook: NotebookResult) -> str:
    return html.escape(", ".join(f"{name}={json.dumps(value)}" for name, value in notebook.parameters.items()))


def _seconds(duration_s: float) -> str:
    return format_duration(duration_s) if duration_s else "0 s"


def _date(started: str) -> str:
    return html.escape(f"{started[:10]} {started[11:16]} UTC")


def _id(notebook: NotebookResult) -> str:
    return f"notebook-{html.escape(notebook.name)}"
