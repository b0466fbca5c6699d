"""What `labkit slo validate` looks at in one file, and how it says what it found."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from labkit.cli._slo_data import Place, policies_of, specification
from labkit.errors import ConfigInvalid, ConfigProblem

if TYPE_CHECKING:
    from labkit.slo.model import Slo
    from labkit.slo.spec_file import SpecFile

__all__ = ["checked_file", "show_checked"]


def checked_file(path: Path, place: Place | None, history: Path | None) -> dict[str, Any]:
    """What is wrong and what is doubtful in one file, as `--json` prints it."""
    problems: list[ConfigProblem | str] = []
    doubts: list[str] = []
    slos: tuple[Slo, ...] = ()
    try:
        found = specification(path)
        slos, doubts = found.slos, [*found.losses, *_doubts(found)]
        problems += _of_history(history, found)
    except ConfigInvalid as error:
        problems += error.problems
    if place is not None:
        problems += _live(slos, place)
    return {
        "file": str(path),
        "slos": [slo.name for slo in slos],
        "problems": [_problem_dict(problem) for problem in problems],
        "doubts": doubts,
    }


def _of_history(history: Path | None, spec: SpecFile) -> list[str]:
    from labkit._time import utc_now  # noqa: PLC0415
    from labkit.slo.objectives_log import load_log  # noqa: PLC0415

    return [] if history is None else load_log(history).differences(spec.slos, utc_now())


def _doubts(spec: SpecFile) -> list[str]:
    from labkit._time import utc_now  # noqa: PLC0415
    from labkit.slo import windows  # noqa: PLC0415
    from labkit.slo.policies import get, lint  # noqa: PLC0415

    known, now = policies_of(spec), utc_now()
    return [
        f"{slo.name}: {text}"
        for slo in spec.slos
        for text in lint(get(slo.policy, known), slo.objective, windows.period_s(slo.window, now))
    ]


def _live(slos: tuple[Slo, ...], place: Place) -> list[str]:
    from labkit.slo.live_check import live_problems  # noqa: PLC0415

    now = place.now()
    return [problem.text for slo in slos for problem in live_problems(slo, place.source, now)]


def _problem_dict(problem: ConfigProblem | str) -> dict[str, Any]:
    if isinstance(problem, str):
        return {"line": None, "column": None, "message": problem}
    return {"line": problem.line, "column": problem.column, "message": problem.message}


def show_checked(one: dict[str, Any]) -> None:
    """The outcome of one file, as `checked_file` gives it, for people."""
    count, problems = len(one["slos"]), one["problems"]
    if problems:
        wrong = "1 mistake" if len(problems) == 1 else f"{len(problems)} mistakes"
        typer.echo(f" ✗ {one['file']}: {wrong}")
    else:
        typer.echo(f" ✓ {one['file']}: {count} objective{'s' * (count != 1)}")
    for problem in problems:
        where = f"line {problem['line']}, column {problem['column']}: " if problem["line"] else ""
        typer.echo(f"   - {where}{problem['message']}")
    for doubt in one["doubts"]:
        typer.echo(f"   ? {doubt}")
