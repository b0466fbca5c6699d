"""Every notebook on the live lab: solved by the runner and by nbval, untouched to its end, twice in a kernel."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from labkit.course import Outcome, _nb, exercises
from labkit.course.editions import Edition, edition_path
from labkit.course.report import write_report
from labkit.course.results import RunResult
from labkit.course.runner import RunOptions, run_notebooks
from labkit.stack.progress import silent

if TYPE_CHECKING:
    from labkit.lab import Lab

pytestmark = [
    pytest.mark.live,
    # Of the tools that execute notebooks: pyzmq, jupyter_client and nbconvert, not ours.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def env_of(lab: Lab) -> dict[str, str]:
    """What makes a kernel join *lab*."""
    return {
        "LABKIT_RUN_DIR": str(lab.run_dir),
        "LABKIT_PORT_OFFSET": str(lab.settings.port_offset),
        "LABKIT_CACHE_DIR": str(lab.settings.cache_dir),
    }


def run(path: Path, lab: Lab, out_dir: Path, **options: Any) -> RunResult:
    """Execute *path* on *lab*."""
    limits = {"deadline_s": 240, "lock_path": out_dir / "lock", "env": env_of(lab)}
    return run_notebooks([path], {"seed": lab.seed}, out_dir=out_dir, options=RunOptions(**{**limits, **options}))


def test_the_solved_edition_passes_strictly(source: Path, lab: Lab, tmp_path: Path) -> None:
    """Every check is correct, every figure is labelled, the report holds each, and the lab of others stays up."""
    result = run(edition_path(source, Edition.SOLVED), lab, tmp_path)
    notebook = result.notebooks[0]

    assert (result.exit_code, notebook.error) == (0, None)
    assert {check.outcome for check in notebook.checks} == {"correct"}
    assert [(note.title, note.missing) for note in notebook.figures if note.missing] == []
    assert len(notebook.figures) >= 1
    assert write_report(result).read_text().count("<figure>") == len(notebook.figures)
    assert lab.alive()


def test_the_learner_edition_runs_to_its_end_untouched(source: Path, lab: Lab, tmp_path: Path) -> None:
    """With stubs as they are, no cell fails and every check says not attempted; strictly, the first one ends it."""
    path = edition_path(source, Edition.LEARNER)
    lenient, strict = run(path, lab, tmp_path / "a", strict=False), run(path, lab, tmp_path / "b")

    assert lenient.exit_code == 0
    assert {check.outcome for check in lenient.notebooks[0].checks} == {"not_attempted"}
    assert (strict.exit_code, strict.notebooks[0].error.name) == (1, "ExerciseFailed")


def test_it_runs_twice_in_one_kernel(source: Path, lab: Lab, tmp_path: Path) -> None:
    """All cells, then all cells again, as a reader does who starts over."""
    solved = _nb.read(edition_path(source, Edition.SOLVED))
    again = [cell.copy() | {"id": f"{cell['id']}-2"} for cell in solved.cells]
    for cell in again:
        # papermill injects after the first cell of that tag; the second keeps its own values.
        cell["metadata"] = {"tags": [tag for tag in _nb.tags(solved.cells[again.index(cell)]) if tag != "parameters"]}
    path = tmp_path / "twice.ipynb"
    path.write_text(_nb.dumps([*solved.cells, *map(type(solved.cells[0]), again)], solved.metadata))

    assert run(path, lab, tmp_path / "out").notebooks[0].error is None


def test_it_passes_nbval(source: Path, lab: Lab, tmp_path: Path) -> None:
    """The solved edition runs in nbval cell by cell; outputs are stripped, so it looks for errors (`--nbval-lax`)."""
    command = [sys.executable, "-m", "pytest", "--nbval-lax", "-q", "-p", "no:randomly", "-p", "no:cacheprovider"]
    # The kernel's cwd is the notebook's; what nbval and pyzmq warn about is not ours.
    command += ["--rootdir", str(tmp_path), "-o", "addopts=", "-W", "ignore", "--nbval-cell-timeout", "120"]
    copy = tmp_path / f"{source.stem}.ipynb"
    copy.write_bytes(edition_path(source, Edition.SOLVED).read_bytes())
    done = subprocess.run(
        [*command, str(copy)],
        env={**os.environ, **env_of(lab), "LABKIT_STRICT": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )

    assert done.returncode == 0, done.stdout[-3000:]


def test_checks_of_00_hold_on_the_live_lab(lab: Lab) -> None:
    """What the stand-in proves without processes holds on real ones: right, wrong, and a replica stopped as a fix."""
    ex = exercises("00", lab)

    assert ex.q2.judge("slow-burn-connections").outcome is Outcome.CORRECT
    assert "failed most requests a minute" in ex.q2.judge("outage-database").because
    assert ex.q3.judge([]).outcome is Outcome.CORRECT
    assert "You named `catalog-1`" in ex.q3.judge(["catalog-1"]).because


def test_a_control_notices_a_replica_that_was_stopped_as_a_fix(lab: Lab) -> None:
    """The lab's own state tells destruction, and after a reset the same answer is correct."""
    ex = exercises("00", lab)
    lab._runtime.supervisor.stop_process("catalog-2")
    try:
        verdict = ex.q3.judge([])
    finally:
        lab.reset(progress=silent)

    assert (verdict.outcome, "`catalog-2`" in verdict.because) == (Outcome.NOT_YET, True)
