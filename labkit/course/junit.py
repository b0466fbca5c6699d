"""JUnit XML of a run: a suite per notebook, a case per check, and one for running to the end."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from pathlib import Path

from labkit.course.results import CheckResult, NotebookResult, RunOutcome, RunResult

__all__ = ["write_junit"]

# XML 1.0 has no way to write these, not even escaped; colour codes of tracebacks contain them.
_ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def write_junit(result: RunResult) -> Path:
    """Write junit.xml beside result.json, whole or not at all."""
    root = ET.Element("testsuites", name="labkit", time=f"{result.duration_s:.3f}")
    for notebook in result.notebooks:
        root.append(_suite(notebook))
    path = result.out_dir / "junit.xml"
    partial = path.with_suffix(".xml.partial")
    ET.indent(root)
    ET.ElementTree(root).write(partial, encoding="utf-8", xml_declaration=True)
    partial.replace(path)
    return path


def _suite(notebook: NotebookResult) -> ET.Element:
    cases = [_end_case(notebook), *(_check_case(notebook, check) for check in notebook.checks)]
    counted = {kind: sum(case.find(kind) is not None for case in cases) for kind in ("failure", "error", "skipped")}
    suite = ET.Element(
        "testsuite",
        name=_clean(notebook.name),
        tests=str(len(cases)),
        failures=str(counted["failure"]),
        errors=str(counted["error"]),
        skipped=str(counted["skipped"]),
        time=f"{notebook.duration_s:.3f}",
    )
    suite.extend(cases)
    return suite


def _end_case(notebook: NotebookResult) -> ET.Element:
    case = _case(notebook, "runs to the end", notebook.duration_s)
    if notebook.outcome is RunOutcome.NOT_RUN:
        ET.SubElement(case, "skipped", message="an earlier notebook ended the run")
    elif notebook.outcome is not RunOutcome.PASSED:
        kind = "failure" if notebook.outcome is RunOutcome.FAILED else "error"
        error = notebook.error
        message = f"{error.name}: {error.message}" if error else notebook.outcome.value
        detail = ET.SubElement(case, kind, type=notebook.outcome.value, message=_clean(message.split("\n", 1)[0]))
        detail.text = _clean(f"{message}\nsection: {error.section}\ncode cell: {error.cell}" if error else message)
    return case


def _check_case(notebook: NotebookResult, check: CheckResult) -> ET.Element:
    case = _case(notebook, f"{check.exercise} {check.title}".strip(), 0.0)
    if check.outcome == "not_reached":
        ET.SubElement(case, "skipped", message=_clean(check.message))
    elif check.outcome != "correct":
        ET.SubElement(case, "failure", type=check.outcome, message=_clean(check.message))
    return case


def _case(notebook: NotebookResult, name: str, time_s: float) -> ET.Element:
    return ET.Element("testcase", classname=_clean(f"labkit.{notebook.name}"), name=_clean(name), time=f"{time_s:.3f}")


def _clean(text: str) -> str:
    return _FORBIDDEN.sub("\ufffd", _ANSI.sub("", text))
