"""One live run at a time per machine, and what machine it was."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock, Timeout

from labkit._time import format_duration, utc_now
from labkit._wait import wait_until

__all__ = ["describe_machine", "machine_lock", "versions"]

_SAY_AGAIN_S = 30.0


@contextmanager
def machine_lock(
    path: Path, what: str, *, queue_s: float, say: Callable[[str], None], every_s: float = 0.5
) -> Iterator[float]:
    """
    Hold the lock at *path* for the length of the block; wait for whoever has it.

    A load or latency measured beside another run means nothing, so live runs queue.  The lock is the operating
    system's: it ends with its process, however that dies.

    Args:
        path: the lock file; `<path>.json` beside it says who holds it.
        what: this run in words, shown to those who wait.
        queue_s: longest wait, in seconds.
        say: told who holds the lock when waiting begins, and every 30 s.
        every_s: pause between attempts, in seconds.

    Yields:
        Seconds waited.

    Raises:
        NotReady: still taken after *queue_s*; names the holder.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock, note = FileLock(path), path.with_name(path.name + ".json")
    start, next_word = time.monotonic(), 0.0

    def attempt() -> str:
        nonlocal next_word
        try:
            lock.acquire(timeout=0)
        except Timeout:
            waited_s = time.monotonic() - start
            if waited_s >= next_word:
                next_word = waited_s + _SAY_AGAIN_S
                say(f"waiting for the machine: {_holder(note)}; waited {format_duration(round(waited_s))}")
            return _holder(note)
        return ""

    how = "Wait for it, stop it, or allow a longer queue with --queue."
    wait_until(
        attempt,
        "the machine is free for a live run",
        timeout_s=queue_s,
        every_s=every_s,
        ready=lambda h: not h,
        how=how,
    )
    try:
        note.write_text(
            json.dumps({"pid": os.getpid(), "what": what, "since": utc_now().isoformat(timespec="seconds")})
        )
        yield time.monotonic() - start
    finally:
        note.unlink(missing_ok=True)
        lock.release()


def _holder(note: Path) -> str:
    try:
        told = json.loads(note.read_text())
    except (OSError, json.JSONDecodeError):
        return "another run holds it"
    return f"process {told['pid']} runs {told['what']} since {told['since']}"


def describe_machine() -> dict[str, Any]:
    """System, processor count and memory: what timings depend on; no names of people or hosts."""
    return {
        "system": f"{platform.system()} {platform.release()}",
        "architecture": platform.machine(),
        "cpus": os.cpu_count() or 0,
        "memory_mb": round(psutil.virtual_memory().total / 1e6),
    }


def versions() -> dict[str, str]:
    """Versions of Python, labkit and what executes notebooks."""
    names = ("labkit", "papermill", "nbclient", "ipykernel", "numpy", "pandas", "matplotlib")
    found = {"python": platform.python_version()}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
