"""One notebook of a batch run: execute, classify the end, collect checks and figures, stop what is left."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import papermill
import psutil
from jupyter_client.kernelspec import NoSuchKernel
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from nbformat import NotebookNode
from papermill.exceptions import PapermillExecutionError

from labkit import errors
from labkit._proc import tail
from labkit._time import format_duration, utc_now
from labkit.course import _nb
from labkit.course.engine import Watch, register_engine
from labkit.course.exercise import CHECK_MIME
from labkit.course.journal import Journal
from labkit.course.results import CellError, CheckResult, FigureNote, NotebookResult, RunOutcome
from labkit.course.runner import Event, RunOptions, kernel_env

__all__ = ["run_one"]

_KERNEL_DIED = "the kernel ended in the middle of a cell (killed, or out of memory)"
_CHECK_CALL = re.compile(r"\b(q\d+)\.check\(")
_SETUP_ERRORS = frozenset(
    {cls.__name__ for cls in vars(errors).values() if isinstance(cls, type) and issubclass(cls, errors.SetupError)}
    | {"NotRunning", "ComponentDied"}
)


def run_one(path: Path, result: NotebookResult, out_dir: Path, journal: Journal, options: RunOptions) -> None:
    """
    Execute the notebook at *path* into *out_dir* and fill in *result*.

    Raises:
        KeyboardInterrupt: the run was interrupted; *result* is filled in and everything started was stopped.
    """
    run = _NotebookRun(path, result, out_dir, journal, options)
    try:
        run.execute()
    finally:
        run.finish()


class _NotebookRun:
    def __init__(
        self, path: Path, result: NotebookResult, out_dir: Path, journal: Journal, options: RunOptions
    ) -> None:
        self.path, self.result, self.journal, self.options = path, result, journal, options
        self.source = _nb.read(path)
        self.target = out_dir / f"{path.stem}.ipynb"
        self.sections = _sections(self.source.cells)
        self.kernel_pid: int | None = None
        self.start = self.section_start = time.monotonic()
        self.section = ""
        self.watch = Watch(
            deadline_s=options.deadline_s,
            grace_s=options.grace_s,
            output_limit_bytes=options.output_limit_bytes,
            env=kernel_env(options),
            socket_dir=Path(tempfile.mkdtemp(prefix="labkit-")),
            on_kernel=self._kernel_started,
            on_cell=self._cell,
        )

    def execute(self) -> None:
        """Run all cells; the outcome and error of the result are set on every way out."""
        result = self.result
        result.executed, result.started = self.target.name, utc_now().isoformat(timespec="seconds")
        result.cells_total = sum(cell.cell_type == "code" for cell in self.source.cells)
        self.journal.write("notebook_start", notebook=result.name, parameters=result.parameters)
        self._say("•", f"{result.cells_total} code cells")
        result.outcome = RunOutcome.INTERRUPTED
        try:
            self._papermill()
            result.outcome = RunOutcome.PASSED
        except PapermillExecutionError as error:
            result.outcome = self._failure(error)
        except CellTimeoutError:
            limit = format_duration(self.options.deadline_s)
            self._end(RunOutcome.DEADLINE, "DeadlinePassed", f"not finished {limit} after its kernel was ready")
        except DeadKernelError:
            self._end(
                RunOutcome.KERNEL_DIED,
                "KernelDied",
                _KERNEL_DIED + self._last_words(),
            )
        except (RuntimeError, NoSuchKernel) as error:
            self._end(RunOutcome.SETUP_FAILED, type(error).__name__, f"the kernel could not be started: {error}")
        except KeyboardInterrupt:
            self._end(RunOutcome.INTERRUPTED, "Interrupted", "interrupted by Ctrl-C or SIGTERM")
            raise

    def finish(self) -> None:
        """Stop what is left, then collect what the executed notebook says."""
        result = self.result
        if self.kernel_pid is not None:
            result.stopped = [*_stop_session(self.kernel_pid), *self.options.teardown(self.kernel_pid)]
            self.journal.write("teardown", notebook=result.name, stopped=result.stopped)
        shutil.rmtree(self.watch.socket_dir, ignore_errors=True)
        self._collect()
        result.duration_s = round(time.monotonic() - self.start, 3)
        if result.error is not None:
            self.journal.write("error", notebook=result.name, name=result.error.name, message=result.error.message)
        self.journal.write("notebook_end", notebook=result.name, outcome=result.outcome.value)
        self._say("✓" if result.outcome is RunOutcome.PASSED else "✗", _summary(result), result.duration_s)

    def _last_words(self) -> str:
        log = self.watch.socket_dir / "kernel.log"
        words = tail(log.read_text(encoding="utf-8", errors="replace")) if log.is_file() else ""
        return f"; it said:\n{words}" if words else ""

    def _papermill(self) -> None:
        papermill.execute_notebook(
            _literal(self.path),
            _literal(self.target),
            parameters=self.result.parameters,
            engine_name=register_engine(),
            kernel_name="python3",
            language="python",
            progress_bar=False,
            watch=self.watch,
        )

    def _kernel_started(self, pid: int) -> None:
        self.kernel_pid = pid
        self.journal.write("kernel_start", notebook=self.result.name, pid=pid, deadline_s=self.options.deadline_s)

    def _cell(self, what: str, index: int) -> None:
        section = self._section_at(index)
        if what == "start" and section != self.section:
            self._close_section()
            self.section, self.section_start = section, time.monotonic()
        self.journal.write(f"cell_{what}", notebook=self.result.name, cell=index, section=section)

    def _close_section(self, mark: str = "✓") -> None:
        if self.section:
            self._say(mark, self.section, time.monotonic() - self.section_start)

    def _section_at(self, index: int) -> str:
        return self.sections[self._original(index)] if self.sections else ""

    def _original(self, index: int) -> int:
        """The index in the source of the cell at *index* of the executed notebook, which has an injected one more."""
        cells = self.source.cells
        parameters_at = next((i for i, cell in enumerate(cells) if "parameters" in _nb.tags(cell)), len(cells))
        return index - 1 if index > parameters_at else index

    def _failure(self, error: PapermillExecutionError) -> RunOutcome:
        index = error.cell_index
        setup = "setup" in _nb.tags(self.source.cells[self._original(index)]) or error.ename in _SETUP_ERRORS
        outcome = RunOutcome.SETUP_FAILED if setup else RunOutcome.FAILED
        self._end(outcome, error.ename, str(error.evalue), index)
        return outcome

    def _end(self, outcome: RunOutcome, name: str, message: str, index: int | None = None) -> None:
        index = self.watch.running if index is None else index
        code_number = 0 if index is None else self._code_number(index)
        section = "" if index is None else self._section_at(index)
        self.result.outcome = outcome
        self.result.error = CellError(name, message, code_number, section)

    def _code_number(self, index: int) -> int:
        before = self.source.cells[: self._original(index) + 1]
        return sum(cell.cell_type == "code" for cell in before)

    def _collect(self) -> None:
        result = self.result
        self._close_section("✓" if result.outcome is RunOutcome.PASSED else "✗")
        self.section = ""
        if not self.target.is_file():
            return
        executed = _nb.read(self.target)
        result.cells_executed = sum(
            cell.cell_type == "code" and cell.execution_count is not None for cell in _own_cells(executed)
        )
        result.figures = [
            FigureNote(self._code_number(note.cell), note.title, note.alt, note.missing) for note in self.watch.figures
        ]
        result.checks = _checks(executed)
        for check in result.checks:
            self.journal.write("check", notebook=result.name, exercise=check.exercise, outcome=check.outcome)
        for index in self.watch.cut_cells:
            self.journal.write("output_cut", notebook=result.name, cell=index)

    def _say(self, mark: str, text: str, took_s: float | None = None) -> None:
        self.options.progress(Event(mark, self.result.name, text, took_s))


def _literal(path: Path) -> str:
    """A path as papermill must get it: it formats paths as templates, in which doubled braces mean themselves."""
    return str(path).replace("{", "{{").replace("}", "}}")


def _summary(result: NotebookResult) -> str:
    if result.error is not None:
        at = f" at code cell {result.error.cell}" if result.error.cell else ""
        first_line = result.error.message.strip().split("\n", 1)[0]
        return f"{result.outcome.value.replace('_', ' ')}{at}: {result.error.name}: {first_line}"
    correct = sum(check.outcome == "correct" for check in result.checks)
    return f"passed; {correct} of {len(result.checks)} checks correct, {len(result.figures)} figures"


def _own_cells(executed: NotebookNode) -> list[NotebookNode]:
    """The cells of the notebook itself, without those that papermill adds."""
    added = {"injected-parameters", "papermill-error-cell-tag"}
    return [cell for cell in executed.cells if not added & set(_nb.tags(cell))]


def _sections(cells: Sequence[NotebookNode]) -> list[str]:
    """For each cell, the heading that it stands under."""
    current, found = "", []
    for cell in cells:
        if cell.cell_type == "markdown":
            heading = re.search(r"^#{1,2} +(.+)$", cell.source, flags=re.MULTILINE)
            current = heading.group(1).strip() if heading else current
        found.append(current)
    return found


def _checks(executed: NotebookNode) -> list[CheckResult]:
    """Every verdict shown, in order; a check cell that showed none was not reached."""
    found: list[CheckResult] = []
    for cell in executed.cells:
        shown = [output.data[CHECK_MIME] for output in cell.get("outputs", []) if CHECK_MIME in output.get("data", {})]
        found += [CheckResult(**_fields(data)) for data in shown]
        call = _CHECK_CALL.search(cell.source) if cell.cell_type == "code" else None
        if call and not shown:
            found.append(CheckResult(call.group(1), "", "not_reached", "the notebook ended before this check"))
    return found


def _fields(data: dict[str, Any]) -> dict[str, Any]:
    return {name: data[name] for name in ("exercise", "title", "outcome", "message")}


def _stop_session(kernel_pid: int) -> list[str]:
    """Stop every process that the kernel started within its session, and name them; a daemon has its own session."""
    left = [process for process in psutil.process_iter(["name"]) if _session(process.pid) == kernel_pid]
    for process in left:
        process.terminate()
    _, stubborn = psutil.wait_procs(left, timeout=3)
    for process in stubborn:
        process.kill()
    return [f"{process.info['name']} (process {process.pid})" for process in left]


def _session(pid: int) -> int:
    try:
        return os.getsid(pid)
    except (ProcessLookupError, PermissionError):
        return -1
