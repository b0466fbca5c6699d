"""The embedded store as a process of its own, for tests and benches."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from labkit._http import is_up
from labkit._wait import wait_until
from tests.prometheus_process import free_port


class StoreProcess:
    """Starts, kills and restarts one store over one folder."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder, self.options, self.port = folder, options, free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> StoreProcess:
        """Returns when it is ready."""
        argv = [sys.executable, "-m", "labkit.observe.store", "--data", str(self.folder), "--port", str(self.port)]
        self.process = subprocess.Popen([*argv, *self.options])
        try:
            wait_until(lambda: is_up(f"{self.url}/-/ready"), "the store answers", timeout_s=60)
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self, number: int = signal.SIGTERM) -> None:
        """Ends it; twice is fine."""
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait(timeout=30)
            self.process = None

    @property
    def pid(self) -> int:
        """Of the running process."""
        assert self.process is not None
        return self.process.pid
