"""Every notebook on the live lab: solved, untouched to its end, twice in a kernel, by nbval, on the other profile."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from labkit.course import Outcome, _nb, exercises, wait_until
from labkit.course.editions import Edition, edition_path
from labkit.course.ex01_calls import second_call
from labkit.course.report import write_report
from labkit.course.results import RunResult
from labkit.course.runner import RunOptions, run_notebooks
from labkit.lab import stop_owned_by
from labkit.stack.progress import silent
from tests.full.prometheus3 import PINNED, compiled

if TYPE_CHECKING:
    from labkit.lab import Lab

# A whole notebook, twice, on a machine that others use too; one cell of 02 waits six minutes for an alert to stop.
_DEADLINE_S = 1800
pytestmark = [
    pytest.mark.live,
    pytest.mark.timeout(_DEADLINE_S + 120),
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


def env_beside(lab: Lab, folder: Path) -> dict[str, str]:
    """What makes a kernel start a lab of its own beside *lab*."""
    offset = lab.settings.port_offset + 40
    return env_of(lab) | {"LABKIT_RUN_DIR": str(folder / "own"), "LABKIT_PORT_OFFSET": str(offset)}


def processes_below(folder: Path) -> list[str]:
    """Command lines of processes that mention *folder*."""
    found = [" ".join(process.info["cmdline"] or []) for process in psutil.process_iter(["cmdline"])]
    return [line for line in found if str(folder) in line]


def run(path: Path, lab: Lab, out_dir: Path, parameters: dict[str, Any] | None = None, **options: Any) -> RunResult:
    """Execute *path* on *lab*."""
    limits = {"deadline_s": _DEADLINE_S, "lock_path": out_dir.parent / "lock", "env": env_of(lab)}
    given = {"seed": lab.seed, **(parameters or {})}
    return run_notebooks([path], given, out_dir=out_dir, options=RunOptions(**{**limits, **options}))


def in_one_kernel(source: Path, first: Edition, folder: Path, parameters: dict[str, Any] | None = None) -> Path:
    """The edition *first* with the cells of the solved edition after it, as a reader runs them who starts over."""
    begun, again = (_nb.read(edition_path(source, edition)) for edition in (first, Edition.SOLVED))
    for cell in again.cells:
        cell["id"] += "-2"
        if "parameters" in _nb.tags(cell):
            # The runner injects after the one cell of that tag; the second says it itself.
            cell["metadata"]["tags"] = []
            cell["source"] += "".join(f"\n{name} = {value!r}" for name, value in (parameters or {}).items())
    path = folder / f"{source.stem}.ipynb"
    path.write_text(_nb.dumps([*begun.cells, *again.cells], begun.metadata))
    return path


def assert_solved(result: RunResult, lab: Lab, checks: int) -> None:
    """Every check is correct, every figure is labelled and in the report, and the lab of others stays up."""
    notebook = result.notebooks[0]

    assert (result.exit_code, notebook.error) == (0, None)
    assert [check.outcome for check in notebook.checks] == ["correct"] * checks
    assert [(note.title, note.missing) for note in notebook.figures if note.missing] == []
    assert len(notebook.figures) >= 2, [note.title for note in notebook.figures]
    assert write_report(result).read_text().count("<figure>") == len(notebook.figures)
    assert lab.alive()


def test_the_solved_edition_passes_strictly(further: Path, lab: Lab, tmp_path: Path) -> None:
    """What a batch runs: the solved edition in strict mode."""
    path = edition_path(further, Edition.SOLVED)

    assert_solved(run(path, lab, tmp_path / "out"), lab, path.read_text().count('"check"'))


def test_it_runs_twice_in_one_kernel(sample: Path, lab: Lab, tmp_path: Path) -> None:
    """Whoever runs all cells and then all cells again gets the same."""
    path = in_one_kernel(sample, Edition.SOLVED, tmp_path)

    assert_solved(run(path, lab, tmp_path / "out"), lab, path.read_text().count('"check"'))


def test_the_learner_edition_runs_to_its_end_untouched(sample: Path, lab: Lab, tmp_path: Path) -> None:
    """With stubs as they are no cell fails, every check says not attempted; nothing is left of the lab it started."""
    path = edition_path(sample, Edition.LEARNER)
    lenient = run(path, lab, tmp_path / "owned", strict=False, env=env_beside(lab, tmp_path))

    assert (lenient.notebooks[0].error, lenient.exit_code, lenient.notebooks[0].stopped) == (None, 0, [])
    assert {check.outcome for check in lenient.notebooks[0].checks} == {"not_attempted"}
    assert processes_below(tmp_path / "own") == []


def test_a_stub_that_is_left_ends_a_strict_run(sample: Path, lab: Lab, tmp_path: Path) -> None:
    """The first check that is not correct is an error of its notebook."""
    strict = run(edition_path(sample, Edition.LEARNER), lab, tmp_path / "out")

    assert (strict.exit_code, strict.notebooks[0].error.name) == (1, "ExerciseFailed")


@pytest.mark.full
def test_untouched_and_then_solved_on_what_users_download(source: Path, lab: Lab, tmp_path: Path) -> None:
    """In one kernel, with Jaeger, OpenSearch and Prometheus 3: nothing attempted, then all correct; nothing is left."""
    profile = {"profile": "jaeger-opensearch"}
    path = in_one_kernel(source, Edition.LEARNER, tmp_path, profile)
    notebook = _nb.read(path)
    begun = next(n for n, cell in enumerate(notebook.cells) if "setup" in _nb.tags(cell))
    notebook.cells.insert(begun + 1, _nb.new_code(f'assert lab.prometheus.version() == "{PINNED}"'))
    path.write_text(_nb.dumps(notebook.cells, notebook.metadata))
    (newer := tmp_path / "bin").mkdir()
    (newer / "prometheus").symlink_to(compiled("prometheus"))
    env = env_beside(lab, tmp_path) | {"PATH": f"{newer}:{os.environ['PATH']}"}

    result = run(path, lab, tmp_path / "out", profile, strict=False, env=env)
    checks, half = result.notebooks[0].checks, path.read_text().count('"check"') // 2

    assert (result.notebooks[0].error, result.exit_code) == (None, 0)
    assert [check.outcome for check in checks] == ["not_attempted"] * half + ["correct"] * half
    assert processes_below(tmp_path / "own") == []


KILLED = """
import os, signal
import labkit
lab = labkit.up(lab, profile=profile, seed=seed)
(lab.run_dir / "pids").write_text(" ".join(map(str, lab.status()["pid"].dropna())))
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_lab_is_stopped_when_the_kernel_that_started_it_is_killed(lab: Lab, tmp_path: Path, monkeypatch: Any) -> None:
    """A kill -9 of the kernel: exit code 5, the run says that it stopped the lab, and no process of it is left."""
    for name, value in (env := env_beside(lab, tmp_path)).items():
        monkeypatch.setenv(name, value)
    declaration = 'lab = "local"\nprofile = "core"\nseed = 7'
    cells = [_nb.new_code(declaration, {"tags": ["parameters"]}), _nb.new_code(KILLED)]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    path = tmp_path / "killed.ipynb"
    path.write_text(_nb.dumps(cells, {"kernelspec": kernel}))

    result = run(path, lab, tmp_path / "out", env=env, teardown=stop_owned_by)
    stopped = result.notebooks[0].stopped

    assert (result.exit_code, [f"the lab in {tmp_path / 'own'}"]) == (5, stopped)
    pids = [int(pid) for pid in (tmp_path / "own" / "pids").read_text().split()]
    assert len(pids) > 10
    assert [pid for pid in pids if psutil.pid_exists(pid)] == []
    assert processes_below(tmp_path / "own") == []


def test_it_passes_nbval(sample: Path, lab: Lab, tmp_path: Path) -> None:
    """The solved edition runs in nbval cell by cell; outputs are stripped, so it looks for errors (`--nbval-lax`)."""
    command = [sys.executable, "-m", "pytest", "--nbval-lax", "-q", "-p", "no:randomly", "-p", "no:cacheprovider"]
    # The kernel's cwd is the notebook's; what nbval and pyzmq warn about is not ours.
    command += ["--rootdir", str(tmp_path), "-o", "addopts=", "-W", "ignore", "--nbval-cell-timeout", "600"]
    copy = tmp_path / f"{sample.stem}.ipynb"
    copy.write_bytes(edition_path(sample, Edition.SOLVED).read_bytes())
    done = subprocess.run(
        [*command, str(copy)],
        env={**os.environ, **env_of(lab), "LABKIT_STRICT": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=_DEADLINE_S,
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


def test_the_second_call_of_01_is_judged_by_the_state_of_the_shop(lab: Lab) -> None:
    """An exemplar of a slow checkout is evidence; the cause is what is in force, and after a reset there is none."""
    ex = exercises("01", lab)
    checkout = 'http_request_duration_seconds_bucket{service="gateway",endpoint="/checkout/{user}"}'
    try:
        called = second_call(lab)
        (replica, faults), *others = [(name, found) for name, found in lab.shop.faults().items() if found]
        found = wait_until(
            lambda: lab.prometheus.exemplars(checkout, called, lab.now()).query("value > 0.5"),
            "an exemplar of a slow checkout",
            timeout_s=60,
            ready=len,
        )
        evidence = str(found["trace_id"].iloc[-1])
        lab.traces.wait_for([evidence], timeout_s=60)
        spans = lab.traces.trace(evidence)
        operation = spans.loc[spans["operation"].str.endswith(faults[0]["endpoint"]), "operation"].iloc[0]
        right, wrong = (ex.q7.judge((name, operation, evidence)) for name in (replica, "orders"))
        waiting = ex.q7.judge((replica, "POST /checkout/{user}", evidence))
    finally:
        lab.reset(progress=silent)

    assert (others, right.outcome) == ([], Outcome.CORRECT)
    assert "`orders` is not the replica" in wrong.because
    assert "nearly all of it waiting" in waiting.because
    assert "Begin the call again" in ex.q7.judge((replica, operation, evidence)).because
