"""`labkit` in a process of its own, on a cluster of another name, so that it can be interrupted, killed and watched."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from labkit._proc import run
from labkit._wait import wait_until
from labkit.stack.state import State, lab_processes

__all__ = ["Command", "containers_of", "left_of", "what_is_told"]

# The name of the cluster is no setting: a lab of a test must not meet that of another one.
# A shell that starts something in the background lets it ignore Ctrl-C, and all that it starts.
_MAIN = (
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); import labkit.stack.kubernetes as k; "
    "k.KIND_CLUSTER = {name!r}; from labkit.cli import main; main()"
)
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


class Command:
    """
    One `labkit` command that runs beside the test, in a session of its own.

    Args:
        arguments: after `labkit`.
        environment: all of its variables.
        cluster: the name of the kind cluster that `--on kind` means.
        heard: called with each line that it writes.
    """

    def __init__(
        self,
        *arguments: str,
        environment: Mapping[str, str],
        cluster: str = "labkit",
        heard: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.lines: list[str] = []
        self._heard = heard
        self._process = subprocess.Popen(
            [sys.executable, "-c", _MAIN.format(name=cluster), *arguments], env=dict(environment),
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            start_new_session=True,
        )  # fmt: skip
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def said(self) -> str:
        """All that it wrote so far."""
        return "\n".join(self.lines)

    def wait_for(self, words: str, timeout_s: float = 180) -> None:
        """Until a line has these words."""
        wait_until(
            lambda: words in self.said or self._process.poll() is not None, f"{words!r} is said", timeout_s=timeout_s
        )
        assert words in self.said, self.said

    @property
    def is_running(self) -> bool:
        """Whether it has not ended yet."""
        return self._process.poll() is None

    def interrupt(self) -> None:
        """Ctrl-C, heard by it and not by the programs that it runs."""
        self._process.send_signal(signal.SIGINT)

    def kill(self) -> None:
        """As `kill -9`."""
        self._process.kill()

    def end(self, timeout_s: float = 240) -> int:
        """Its exit code; it is killed when it does not end."""
        try:
            code = self._process.wait(timeout_s)
        finally:
            if self._process.poll() is None:
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()
        self._reader.join(10)
        return code

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as out:
            for line in out:
                self.lines.append(_COLOUR.sub("", line.rstrip("\n")))
                self._heard(self.lines[-1])


def containers_of(cluster: str) -> list[str]:
    """The nodes of a kind cluster, running or not."""
    argv = ["docker", "ps", "--all", "--quiet", "--filter", f"label=io.x-k8s.kind.cluster={cluster}"]
    return run(argv, timeout_s=60).split()


def left_of(run_dir: Path, lab_id: str) -> list[str]:
    """What a lab left on this machine, in words; an empty list is the rule."""
    left = [f"process {process.pid} {process.name()}" for process in lab_processes(lab_id)]
    left += [name for name in ("lab.json", "leftover.json") if (run_dir / name).exists()]
    return left


def what_is_told(run_dir: Path) -> State:
    """The lab of a run directory as soon as there is one."""
    return wait_until(lambda: State.load(run_dir), "lab.json", timeout_s=60)  # type: ignore[return-value]
