"""Run programs: an argv list, a time-out, a checked return code, the tail of what they said."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from labkit.errors import CommandFailed, ToolMissing

__all__ = ["run", "tail"]

_TAIL_LINES = 12


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
    try:
        done = subprocess.run(
            args,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            cwd=cwd,
            env=env,
            input=input_text,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        said = (error.stderr or error.stdout or b"") if error else b""
        text = said.decode(errors="replace") if isinstance(said, bytes) else said
        raise CommandFailed(args, returncode=None, took_s=timeout_s, stderr_tail=tail(text), how=how) from error
    except FileNotFoundError as error:
        raise ToolMissing(
            args[0], wanted_version="(any)", tried=["PATH: not found"], how=how or "Run `labkit doctor`."
        ) from error
    if done.returncode != 0:
        said_text = done.stderr.strip() or done.stdout
        raise CommandFailed(
            args, returncode=done.returncode, took_s=time.monotonic() - start, stderr_tail=tail(said_text), how=how
        )
    return done.stdout


def tail(text: str, lines: int = _TAIL_LINES) -> str:
    """The last *lines* lines of *text* that are not blank."""
    return "\n".join([line for line in text.splitlines() if line.strip()][-lines:])
