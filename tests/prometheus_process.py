"""A real Prometheus as a process of the tests: started empty, reloaded, killed, started again on the same data."""

from __future__ import annotations

import signal
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path

from labkit import _http
from labkit._wait import wait_until
from labkit.observe.prometheus import Prometheus
from labkit.shop.history import History

NO_JOBS = "global: {scrape_interval: 5s, evaluation_interval: 5s}\n"


def free_port() -> int:
    """A TCP port of loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class PrometheusProcess:
    """One server with its own folder and port; `start` returns when it is ready."""

    def __init__(self, program: Path, folder: Path, *, retention: str = "40d", receiver: bool = True) -> None:
        self.folder, self.port = folder, free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._argv = [
            str(program),
            f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--storage.tsdb.retention.time={retention}",
            f"--web.listen-address=127.0.0.1:{self.port}",
            "--web.enable-lifecycle",
            *(["--web.enable-remote-write-receiver"] if receiver else []),
        ]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, config: str = NO_JOBS) -> PrometheusProcess:
        """Start on the data that the folder holds."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "prometheus.yml").write_text(config)
        log = (self.folder / "log").open("ab")
        with log:
            self._process = subprocess.Popen(self._argv, stderr=log, stdout=log)
        wait_until(lambda: _http.is_up(f"{self.url}/-/ready"), "Prometheus ready", timeout_s=30)
        return self

    def reload(self, config: str) -> None:
        """Put another configuration in force."""
        (self.folder / "prometheus.yml").write_text(config)
        _http.request("POST", f"{self.url}/-/reload")

    def end(self, how: signal.Signals = signal.SIGTERM) -> None:
        """Stop it with a signal and wait until it is gone; twice is fine."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(timeout=30)
            self._process = None


@dataclass(frozen=True)
class Observed:
    """The server, a client of it, and the past that it holds."""

    server: PrometheusProcess
    client: Prometheus
    past: History
    dead_port: int
