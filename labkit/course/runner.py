"""
The batch runner: notebooks in, executed notebooks, result.json, junit.xml and a journal out.

    result = run_notebooks([path], {"seed": "3"}, out_dir=Path("build"), teardown=stop_what_that_kernel_started)
    raise SystemExit(result.exit_code)

docs/batch.md is the contract.  Nothing is printed here: progress goes to a callback.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from labkit._time import format_duration, utc_now
from labkit.course.journal import Journal
from labkit.course.junit import write_junit
from labkit.course.machine import describe_machine, machine_lock, versions
from labkit.course.parameters import declared, resolve
from labkit.course.results import CellError, NotebookResult, RunOutcome, RunResult, write_json
from labkit.errors import ConfigInvalid, LabkitError
from labkit.settings import load_settings

__all__ = ["Event", "RunOptions", "Teardown", "run_notebooks"]

# Given the process id of a kernel that has ended: stops what it started and still runs, and says what that was.
# It must leave alone what others started.
Teardown = Callable[[int], Sequence[str]]


@dataclass(frozen=True, slots=True)
class Event:
    """A line of progress; `mark` is • (begins), ✓ (done) or ✗ (failed)."""

    mark: str
    notebook: str
    text: str
    took_s: float | None = None

    def __str__(self) -> str:
        took = f" ({format_duration(self.took_s)})" if self.took_s is not None else ""
        return f" {self.mark} {self.notebook}: {self.text}{took}"


@dataclass(frozen=True, slots=True)
class RunOptions:
    """
    Everything about a run beside its notebooks and parameters.

    Attributes:
        deadline_s: limit for each notebook, in seconds, from the moment its kernel is ready.
        grace_s: after the deadline or an interrupt, time for cells and exit handlers to clean up, in seconds.
        queue_s: longest wait for the machine, in seconds.
        strict: a check that is not correct ends its notebook.
        output_limit_bytes: what one cell may write.
        lock_path: the machine lock; in the cache folder of labkit if None.
        env: further environment variables for the kernels.
        surround: makes a context manager that is entered once, after parameters were checked and the machine is
            ours, and left at the end, however that comes: a lab for all notebooks.  None if they bring their own.
        teardown: see `Teardown`; called after each notebook, however it ended.
        progress: told every `Event`.
    """

    deadline_s: float = 1800
    grace_s: float = 15
    queue_s: float = 3600
    strict: bool = True
    output_limit_bytes: int = 4_000_000
    lock_path: Path | None = None
    env: Mapping[str, str] | None = None
    surround: Callable[[], AbstractContextManager[object]] | None = None
    teardown: Teardown = lambda kernel_pid: ()  # noqa: ARG005
    progress: Callable[[Event], None] = lambda event: None  # noqa: ARG005


def run_notebooks(
    paths: Sequence[Path],
    parameters: Mapping[str, Any] | None = None,
    *,
    out_dir: Path,
    options: RunOptions | None = None,
) -> RunResult:
    """
    Execute notebooks one after another and leave their results in *out_dir*.

    Args:
        paths: notebooks; each is executed into `out_dir/<name>.ipynb`.
        parameters: values by name, typed or as text; every notebook must declare each of them.
        out_dir: made if missing; earlier results of the same names are replaced.
        options: see `RunOptions`.

    Returns:
        The result, also written to `out_dir/result.json` after every notebook.  A notebook that fails does not
        stop the next; a lab that cannot be had, or an interrupt, does.

    Raises:
        ConfigInvalid: a wrong parameter, two notebooks of one name, or another run writes to *out_dir*;
            nothing was started.
        FileNotFoundError: a notebook does not exist; nothing was started.
    """
    options = options or RunOptions()
    plan = _plan(paths, parameters or {})
    out_dir.mkdir(parents=True, exist_ok=True)
    started = utc_now().isoformat(timespec="seconds")
    result = RunResult(out_dir, started, describe_machine(), versions(), options.strict)
    result.notebooks = [NotebookResult(one.path.stem, RunOutcome.NOT_RUN, "", one.parameters) for one in plan]
    with _only_writer(out_dir), Journal(out_dir / "journal.jsonl") as journal, _sigterm_interrupts():
        journal.write("run_start", machine=result.machine, versions=result.versions, strict=options.strict)
        start = time.monotonic()
        try:
            with ExitStack() as stack:
                _begin(stack, plan, result, journal, options)
                start = time.monotonic()
                _run_all(plan, result, journal, options)
        except KeyboardInterrupt:
            _end_early(result, RunOutcome.INTERRUPTED, "Interrupted", "interrupted by Ctrl-C or SIGTERM")
        except LabkitError as error:
            _end_early(result, RunOutcome.SETUP_FAILED, type(error).__name__, str(error))
        result.duration_s = round(time.monotonic() - start, 3)
        _write(result)
        journal.write("run_end", outcome=result.outcome.value, exit_code=result.exit_code)
    return result


def _begin(
    stack: ExitStack, plan: Sequence[_Planned], result: RunResult, journal: Journal, options: RunOptions
) -> None:
    """Take the machine if any notebook is live, then enter what surrounds them all."""
    if any(planned.live for planned in plan):
        names = ", ".join(planned.path.stem for planned in plan)

        def say(text: str) -> None:
            journal.write("queued", text=text)
            options.progress(Event("•", names, text))

        path = options.lock_path or load_settings().cache_dir / "live-run.lock"
        result.waited_s = round(stack.enter_context(machine_lock(path, names, queue_s=options.queue_s, say=say)), 3)
    if options.surround is not None:
        stack.enter_context(options.surround())


def _run_all(plan: Sequence[_Planned], result: RunResult, journal: Journal, options: RunOptions) -> None:
    from labkit.course.notebook_run import run_one  # noqa: PLC0415  (papermill takes half a second to import)

    for planned, notebook in zip(plan, result.notebooks, strict=True):
        run_one(planned.path, notebook, result.out_dir, journal, options)
        _write(result)
        if notebook.outcome is RunOutcome.SETUP_FAILED:
            return


def _end_early(result: RunResult, outcome: RunOutcome, name: str, message: str) -> None:
    """Give the notebook at which the run ended its outcome, unless that is known already."""
    if all(notebook.outcome is not outcome for notebook in result.notebooks):
        at = next((n for n in result.notebooks if n.outcome is RunOutcome.NOT_RUN), result.notebooks[-1])
        at.outcome, at.error = outcome, CellError(name, message, 0, "")


def _write(result: RunResult) -> None:
    write_json(result)
    write_junit(result)


@dataclass(frozen=True, slots=True)
class _Planned:
    path: Path
    parameters: dict[str, Any]

    @property
    def live(self) -> bool:
        """Whether it uses a lab on this machine: it declares where, and that is not a recording."""
        return bool(self.parameters.get("lab", "recorded") != "recorded")


def _plan(paths: Sequence[Path], given: Mapping[str, Any]) -> list[_Planned]:
    if not paths:
        raise ConfigInvalid(
            "The run", problems=["no notebook is named"], how="Name at least one: labkit run FILE.ipynb"
        )
    twice = [name for name, count in Counter(path.stem for path in paths).items() if count > 1]
    if twice:
        problems = [f"two notebooks are called {name}; their results would be one file" for name in twice]
        raise ConfigInvalid("The run", problems=problems, how="Run them one after another into two folders.")
    return [_Planned(path, resolve(declared(path), given, notebook=path.stem)) for path in paths]


@contextmanager
def _only_writer(out_dir: Path) -> Iterator[None]:
    lock = FileLock(out_dir / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise ConfigInvalid(
            "The run", problems=[f"another run is writing to {out_dir}"], how="Choose another folder with --out."
        ) from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _sigterm_interrupts() -> Iterator[None]:
    """Within the block SIGTERM acts as Ctrl-C does, so that a cancelled job cleans up too."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(signum: int, frame: object) -> None:  # noqa: ARG001
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def kernel_env(options: RunOptions) -> dict[str, str]:
    """The environment of a kernel: ours, strictness, and nothing that draws on a screen."""
    return {
        **os.environ,
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        "LABKIT_STRICT": "1" if options.strict else "0",
        **(options.env or {}),
    }
