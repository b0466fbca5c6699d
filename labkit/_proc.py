"""Run programs: an argv list, a time-out, a checked return code, the tail of what they said."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from labkit.errors import CommandFailed, ToolMissing

__all__ = ["given_up", "run", "stop_running", "stopping_on_error", "tail"]

_TAIL_LINES = 12
_running: set[subprocess.Popen[str]] = set()
_stopping = threading.Event()


def run(
    argv: Sequence[str | Path],
    *,
    timeout_s: float,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    input_text: str | None = None,
    how: str = "",
) -> str:
    """
    Run a program to its end and return what it wrote to standard output.

    Args:
        argv: program and arguments; no shell is involved.
        timeout_s: limit in seconds, after which the program is killed.
        cwd: working directory.
        env: the whole environment; the present one if None.
        input_text: given to standard input.
        how: what to do when it fails; ends the error message.

    Raises:
        CommandFailed: exit code other than 0, or the limit passed; carries the last lines.
        ToolMissing: there is no such program.
    """
    args = [str(part) for part in argv]
    start = time.monotonic()
    pipe = subprocess.PIPE
    try:
        process = subprocess.Popen(
            args,
            stdin=pipe if input_text is not None else subprocess.DEVNULL,
            stdout=pipe,
            stderr=pipe,
            text=True,
            errors="replace",
            cwd=cwd,
            env=env,
        )
    except FileNotFoundError as error:
        raise ToolMissing(
            args[0], wanted_version="(any)", tried=["PATH: not found"], how=how or "Run `labkit doctor`."
        ) from error
    _running.add(process)
    try:
        stdout, stderr = process.communicate(input_text, timeout=timeout_s)
    except subprocess.TimeoutExpired as error:
        process.kill()
        stdout, stderr = process.communicate()
        raise CommandFailed(
            args, returncode=None, took_s=timeout_s, stderr_tail=tail(stderr or stdout), how=how
        ) from error
    except BaseException:
        process.kill()
        process.wait()
        raise
    finally:
        _running.discard(process)
    if process.returncode != 0:
        took_s = time.monotonic() - start
        raise CommandFailed(
            args, returncode=process.returncode, took_s=took_s, stderr_tail=tail(stderr.strip() or stdout), how=how
        )
    return stdout


@contextmanager
def stopping_on_error() -> Iterator[None]:
    """
    While the block works in several threads: an error or Ctrl-C in it ends what those threads wait for.

    Programs that `run` started are terminated, and `given_up` is true until the next such block, so that loops in
    threads can end too.  Only the main thread hears Ctrl-C; without this it would wait for the others.
    """
    _stopping.clear()
    try:
        yield
    except BaseException:
        _stopping.set()
        stop_running()
        raise


def given_up() -> bool:
    """Whether work in threads should end now; see `stopping_on_error`."""
    return _stopping.is_set()


def stop_running() -> None:
    """End every program that `run` is waiting for in any thread; their callers get a `CommandFailed`."""
    for process in list(_running):
        process.terminate()


def tail(text: str, lines: int = _TAIL_LINES) -> str:
    """The last *lines* lines of *text* that are not blank."""
    return "\n".join([line for line in text.splitlines() if line.strip()][-lines:])
