"""The batch contract on tiny notebooks, each named after one behaviour, with real kernels."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import nbformat
import psutil
import pytest
from filelock import FileLock

from labkit._wait import wait_until
from labkit.course.results import RunOutcome, RunResult
from labkit.course.runner import Event, RunOptions, run_notebooks
from labkit.errors import ConfigInvalid, NotRunning

pytestmark = [
    # Of the tools that execute notebooks, not of ours: pyzmq and jupyter_client still create event loops the old way.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
PARAMETERS = ("seed = 7", "parameters")
CHECK = """
from labkit.course.exercise import Exercise, correct, not_yet
q1 = Exercise("99-1", "twice", lambda b, a: correct() if a == 4 else not_yet(f"You have {a}."), ("a", "b")).bind(None)
q1.check(ANSWER)
"""


class Run:
    """Runs notebooks into a folder with short limits and keeps what was reported."""

    def __init__(self, out_dir: Path) -> None:
        self.out_dir, self.events, self.torn_down = out_dir, [], []

    def __call__(self, *paths: Path, parameters: Any = None, **options: Any) -> RunResult:
        """Run *paths*; *options* are those of `RunOptions`."""
        given = {"deadline_s": 60, "grace_s": 3, "teardown": self._teardown, "progress": self.events.append}
        return run_notebooks(paths, parameters, out_dir=self.out_dir, options=RunOptions(**{**given, **options}))

    def _teardown(self, pid: int) -> Sequence[str]:
        self.torn_down.append(pid)
        return ["the lab"]

    def outputs(self, name: str) -> str:
        """All that the executed notebook shows, as text."""
        notebook = nbformat.read(self.out_dir / f"{name}.ipynb", as_version=4)
        return "".join(str(cell.get("outputs", "")) for cell in notebook.cells)

    def journal(self) -> list[dict[str, Any]]:
        """The journal's lines."""
        return [json.loads(line) for line in (self.out_dir / "journal.jsonl").read_text().splitlines()]


def junit(run: Run) -> ET.Element:
    """The root of junit.xml, which our own runner wrote."""
    return ET.parse(run.out_dir / "junit.xml").getroot()  # noqa: S314


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A runner into a folder whose name would confuse a template."""
    return Run(tmp_path / "out {x}")


def test_a_notebook_that_passes(run: Run, write_notebook: Callable[..., Path]) -> None:
    """Exit code 0; parameters arrive, figures describe themselves, checks are collected, the kernel is strict."""
    path = write_notebook(
        "passes",
        "# First",
        PARAMETERS,
        "import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.title('Up')\nplt.xlabel('t (s)');",
        "import os\nprint('seed', seed, os.environ['LABKIT_STRICT'])",
        CHECK.replace("ANSWER", "4"),
    )

    result = run(path, parameters={"seed": "3"})
    notebook = result.notebooks[0]

    assert (result.exit_code, notebook.cells_executed, notebook.cells_total) == (0, 4, 4)
    assert "seed 3 1" in run.outputs("passes")
    assert [(c.exercise, c.outcome) for c in notebook.checks] == [("99-1", "correct")]
    assert [(f.cell, f.title, f.missing) for f in notebook.figures] == [(2, "Up", ["y label"])]
    assert "'alt': 'Chart: Up. Values against t (s).'" in run.outputs("passes")
    assert [str(e).partition(" (")[0] for e in run.events] == [
        " • passes: 4 code cells",
        " ✓ passes: First",
        " ✓ passes: passed; 1 of 1 checks correct, 1 figures",
    ]
    kinds = [line["event"] for line in run.journal()]
    assert (kinds[0], kinds[-1], kinds.count("cell_start")) == ("run_start", "run_end", 5)


def test_a_wrong_answer_fails_the_run_and_the_next_notebook_still_runs(
    run: Run, write_notebook: Callable[..., Path]
) -> None:
    """Exit code 1 with the verdict in result.json and junit.xml; later checks are not reached; the next one passes."""
    wrong = write_notebook("wrong", CHECK.replace("ANSWER", "5"), "ex.q2.check(...)")
    fine = write_notebook("fine", "1")

    result = run(wrong, fine)

    assert (result.exit_code, [n.outcome.value for n in result.notebooks]) == (1, ["failed", "passed"])
    data = json.loads((run.out_dir / "result.json").read_text())
    assert [(c["exercise"], c["outcome"], c["message"]) for c in data["notebooks"][0]["checks"]] == [
        ("99-1", "not_yet", "You have 5."),
        ("q2", "not_reached", "the notebook ended before this check"),
    ]
    suites = junit(run)
    assert [(s.get("name"), s.get("failures"), s.get("skipped")) for s in suites] == [
        ("wrong", "2", "1"),
        ("fine", "0", "0"),
    ]


def test_without_strict_a_wrong_answer_is_only_recorded(run: Run, write_notebook: Callable[..., Path]) -> None:
    """A class may run its notebooks to the end and read the verdicts afterwards."""
    result = run(write_notebook("lenient", CHECK.replace("ANSWER", "..."), "print('end')"), strict=False)

    assert (result.exit_code, result.notebooks[0].checks[0].outcome) == (0, "not_attempted")


def test_a_cell_that_fails_in_colour(run: Run, write_notebook: Callable[..., Path]) -> None:
    """Exit code 1; the error has its cell and section; characters that XML cannot hold do not break junit.xml."""
    path = write_notebook("fails", "# Part", PARAMETERS, "raise ValueError('\\x1b[31mred & <\\x00>')")

    error = run(path).notebooks[0].error

    assert error is not None
    assert (error.name, error.cell, error.section) == ("ValueError", 2, "Part")
    case = junit(run).find(".//failure")
    assert case is not None
    assert "red & <" in str(case.get("message"))


def test_a_set_up_cell_that_fails_ends_the_run(run: Run, write_notebook: Callable[..., Path]) -> None:
    """Exit code 3: without a lab the other notebooks would only fail too."""
    broken = write_notebook("broken", ("raise OSError('no lab')", "setup"))

    result = run(broken, write_notebook("never", "1"))

    assert (result.exit_code, [n.outcome.value for n in result.notebooks]) == (3, ["setup_failed", "not_run"])


def test_what_surrounds_a_run_and_cannot_start_is_a_failed_set_up(
    run: Run, write_notebook: Callable[..., Path]
) -> None:
    """The lab that serves all notebooks did not come up: exit code 3, and result.json says why."""

    def no_lab() -> Any:
        raise NotRunning("Starting the lab", seen="no memory", how="Free some.")

    result = run(write_notebook("unborn", "1"), surround=no_lab)

    assert (result.exit_code, result.notebooks[0].error.name) == (3, "NotRunning")
    assert "no memory" in (run.out_dir / "result.json").read_text()


def test_a_kernel_killed_from_outside_is_noticed_and_cleaned_up_after(
    run: Run, write_notebook: Callable[..., Path]
) -> None:
    """A kill -9 in the middle of a cell: exit code 5 in seconds, children stopped, teardown told, nothing left."""
    path = write_notebook(
        "killed",
        "import os, subprocess, time\n"
        "child = subprocess.Popen(['sleep', '300'])\n"
        "print('child', child.pid, flush=True)\n"
        "subprocess.Popen(['sh', '-c', f'sleep 0.7; kill -9 {os.getpid()}'])\n"
        "while True:\n    time.sleep(0.05)",
    )
    start = time.monotonic()

    result = run(path)
    child = int(run.outputs("killed").partition("child ")[2].partition("\\n")[0])

    assert (result.exit_code, result.notebooks[0].outcome) == (5, RunOutcome.KERNEL_DIED)
    assert time.monotonic() - start < 20
    assert not psutil.pid_exists(child)
    assert any("sleep" in name for name in result.notebooks[0].stopped)
    assert "the lab" in result.notebooks[0].stopped
    assert not psutil.pid_exists(run.torn_down[0])


def test_an_infinite_loop_meets_the_deadline_and_may_clean_up(
    run: Run, write_notebook: Callable[..., Path], tmp_path: Path
) -> None:
    """Exit code 4; the cell was interrupted, so its finally block ran; output that never ends was cut."""
    path = write_notebook(
        "endless",
        "from pathlib import Path\n"
        "try:\n    while True:\n        print('x' * 1000)\n"
        f"finally:\n    Path({str(tmp_path)!r}, 'undone').write_text('yes')",
    )

    result = run(path, deadline_s=3, output_limit_bytes=100_000)

    assert (result.exit_code, (tmp_path / "undone").read_text()) == (4, "yes")
    assert (run.out_dir / "endless.ipynb").stat().st_size < 200_000
    assert "output cut here: a cell may write 0.1 MB" in run.outputs("endless")
    assert "output_cut" in [line["event"] for line in run.journal()]


_SCRIPT = """
import signal, sys
from pathlib import Path
from labkit.course.runner import RunOptions, run_notebooks
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in jobs that a shell put in the background
options = RunOptions(grace_s=3, progress=lambda event: print(event, flush=True), teardown=lambda pid: ["lab"])
sys.exit(run_notebooks([Path(sys.argv[1])], {}, out_dir=Path(sys.argv[2]), options=options).exit_code)
"""


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_stops_its_kernel_and_leaves_its_results(
    sent: signal.Signals, run: Run, write_notebook: Callable[..., Path], tmp_path: Path
) -> None:
    """Ctrl-C and SIGTERM: exit code 130, no kernel left, the executed notebook and result.json written."""
    begun = tmp_path / "begun"
    path = write_notebook(
        "interrupted",
        f"import os, time\nfrom pathlib import Path\nPath({str(begun)!r}).write_text(str(os.getpid()))\n"
        "while True:\n    time.sleep(0.05)",
    )
    process = subprocess.Popen(
        [sys.executable, "-c", _SCRIPT, str(path), str(run.out_dir)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        kernel = int(wait_until(lambda: begun.exists() and begun.read_text(), "the cell runs", timeout_s=30))
        process.send_signal(sent)
        said, _ = process.communicate(timeout=30)
    finally:
        process.kill()

    assert process.returncode == 130, said
    assert not psutil.pid_exists(kernel)
    data = json.loads((run.out_dir / "result.json").read_text())
    assert (data["exit_code"], data["notebooks"][0]["outcome"]) == (130, "interrupted")
    assert data["notebooks"][0]["stopped"] == ["lab"]
    assert "✗ interrupted: interrupted at code cell 1" in said


@pytest.mark.parametrize(
    ("parameters", "message"),
    [({"sede": "1"}, "did you mean 'seed'"), ({"seed": "x"}, "expected a whole number")],
)
def test_a_bad_parameter_starts_nothing(
    parameters: dict[str, str], message: str, run: Run, write_notebook: Callable[..., Path]
) -> None:
    """It is an error of usage, raised before the folder is made."""
    with pytest.raises(ConfigInvalid, match=message):
        run(write_notebook("typed", PARAMETERS), parameters=parameters)
    assert not run.out_dir.exists()


def test_two_notebooks_of_one_name_are_refused(run: Run, write_notebook: Callable[..., Path]) -> None:
    """Their results would overwrite each other."""
    path = write_notebook("same", "1")
    with pytest.raises(ConfigInvalid, match="two notebooks are called same"):
        run(path, path)


def test_two_runs_do_not_share_a_folder(run: Run, write_notebook: Callable[..., Path]) -> None:
    """The second is refused while the first writes."""
    run.out_dir.mkdir(parents=True)
    with FileLock(run.out_dir / ".lock"), pytest.raises(ConfigInvalid, match="another run is writing to"):
        run(write_notebook("second", "1"))


def test_live_runs_queue_and_say_who_has_the_machine(
    run: Run, write_notebook: Callable[..., Path], tmp_path: Path
) -> None:
    """A notebook that declares a lab waits for the machine; after its limit it says who held it."""
    lock = tmp_path / "lock"
    (tmp_path / "lock.json").write_text(json.dumps({"pid": 41, "what": "05_load", "since": "2026-01-01T00:00:00"}))
    path = write_notebook("live", ('lab = "local"', "parameters"))

    with FileLock(lock):
        result = run(path, lock_path=lock, queue_s=0.3)

    held = "process 41 runs 05_load since 2026-01-01T00:00:00"
    assert (result.exit_code, result.notebooks[0].error.name) == (3, "NotReady")
    assert held in result.notebooks[0].error.message
    assert str(run.events[0]).startswith(f" • live: waiting for the machine: {held}; waited ")


def test_an_event_reads_as_a_line() -> None:
    """Mark, notebook, what, and how long it took."""
    assert str(Event("✓", "00", "Start", 65.0)) == " ✓ 00: Start (1 min 5 s)"


def test_the_kernel_inherits_the_environment(
    run: Run, write_notebook: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Settings in the environment reach the notebook; those of the options win."""
    monkeypatch.setenv("COLOUR", "red")
    run(write_notebook("env", "import os\nprint(os.environ['COLOUR'])"), env={"COLOUR": "blue"})

    assert ("blue" in run.outputs("env"), os.environ["COLOUR"]) == (True, "red")
