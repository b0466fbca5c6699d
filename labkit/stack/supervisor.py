"""supervisord: its configuration, and the few calls that the lab makes to it over its Unix socket."""

from __future__ import annotations

import configparser
import http.client
import io
import os
import shlex
import sys
import xmlrpc.client
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from supervisor.xmlrpc import SupervisorTransport

from labkit._proc import run
from labkit._wait import wait_until
from labkit.errors import NotReady
from labkit.stack.download import write_atomically
from labkit.stack.plan import Instance, Layout, socket_dir

__all__ = ["ProcessInfo", "Supervisor", "memory_mb"]

_START_TIMEOUT_S = 20
_STOP_WAIT_S = 5
_GROUP = "lab"
_UNREACHABLE = (OSError, http.client.HTTPException, xmlrpc.client.ProtocolError)
# What children see of the environment: enough to run, nothing that would make two labs differ.
_PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "USER", "LABKIT_CACHE_DIR", "OPENBLAS_CORETYPE")


@dataclass(frozen=True, slots=True)
class ProcessInfo:
    """What supervisord says of one process; `state` is its word: RUNNING, STARTING, BACKOFF, STOPPED, EXITED, FATAL."""

    name: str
    state: str
    pid: int | None
    uptime_s: float
    why: str


class Supervisor:
    """The supervisord of one lab."""

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir
        self.socket = socket_dir(run_dir) / "supervisor.sock"
        self.pid_file = run_dir / "supervisord.pid"
        self.log_path = run_dir / "log" / "supervisord.log"

    def start(self, layout: Layout, lab_id: str, *, whole_environment: bool = False) -> int:
        """
        Start supervisord with every instance of *layout* known and none running; returns its process id.

        Args:
            layout: of the lab.
            lab_id: by which its processes are known.
            whole_environment: children see all of this process's variables but labkit's own settings: programs that
                log in to a cluster need those of their cloud.

        Raises:
            CommandFailed: it ended at once; carries what it said.
            NotReady: it did not answer on its socket in time.
        """
        self.socket.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        config = self.run_dir / "supervisord.conf"
        write_atomically(config, self._configuration(layout), mode=0o600)
        passed_on = {n: v for n, v in os.environ.items() if n in _PASSED_ON or (whole_environment and _foreign(n))}
        environment = passed_on | {"LABKIT_LAB_ID": lab_id}
        # It puts itself into the background, in a session of its own: Ctrl-C in a terminal must reach labkit
        # alone, which then stops things in order.
        argv = [sys.executable, "-m", "labkit.stack.supervisord", "-c", str(config)]
        run(argv, timeout_s=_START_TIMEOUT_S, cwd=self.run_dir, env=environment)
        wait_until(self.alive, "supervisord answers on its socket", timeout_s=_START_TIMEOUT_S, every_s=0.02)
        return int(self._call("getPID"))

    def alive(self) -> bool:
        """Whether supervisord answers."""
        try:
            self._call("getState")
        except xmlrpc.client.Fault:
            # While it shuts down it answers every question with a fault.
            return True
        except _UNREACHABLE:
            return False
        return True

    def start_process(self, name: str) -> None:
        """Ask for a process to be started; one that runs already is left alone."""
        self._tolerant("startProcess", f"{_GROUP}:{name}", False, already="ALREADY_STARTED")

    def stop_process(self, name: str) -> None:
        """Stop one process and wait until it is gone; one that is stopped already is left alone."""
        self._tolerant("stopProcess", f"{_GROUP}:{name}", True, already="NOT_RUNNING")

    def processes(self) -> dict[str, ProcessInfo]:
        """Every process that supervisord knows, by name; empty when supervisord is not there."""
        try:
            found: list[dict[str, Any]] = self._call("getAllProcessInfo")
        except (*_UNREACHABLE, xmlrpc.client.Fault):
            return {}
        return {
            info["name"]: ProcessInfo(
                info["name"],
                info["statename"],
                info["pid"] or None,
                max(0.0, info["now"] - info["start"]) if info["pid"] else 0.0,
                info["spawnerr"] or info["description"],
            )
            for info in found
        }

    def shutdown(self, *, timeout_s: float) -> None:
        """
        Ask supervisord to stop everything and end, and wait until it does not answer any more.

        Gives up after *timeout_s* seconds; nothing happens if it is gone.
        """
        try:
            self._call("shutdown")
            # Left alone it looks around once a second; each question makes it look at once.
            wait_until(lambda: not self.alive(), "supervisord has ended", timeout_s=timeout_s, every_s=0.03)
        except (*_UNREACHABLE, xmlrpc.client.Fault, NotReady):
            return

    def _call(self, method: str, *args: Any) -> Any:
        # A connection for each call: they are rare, and threads and forked kernels may then share this object.
        transport = SupervisorTransport(None, None, f"unix://{self.socket}")
        with xmlrpc.client.ServerProxy("http://127.0.0.1", transport=transport) as proxy:
            return getattr(proxy.supervisor, method)(*args)

    def _tolerant(self, method: str, *args: Any, already: str) -> None:
        try:
            self._call(method, *args)
        except xmlrpc.client.Fault as fault:
            if not fault.faultString.startswith(already):
                raise

    def _configuration(self, layout: Layout) -> str:
        parser = configparser.RawConfigParser()
        parser["unix_http_server"] = {"file": str(self.socket), "chmod": "0700"}
        parser["supervisord"] = {
            "nodaemon": "false",
            "pidfile": str(self.pid_file),
            "logfile": str(self.log_path),
            "logfile_maxbytes": "2MB",
            "logfile_backups": "1",
            "loglevel": "info",
            "minfds": "1024",
            "silent": "true",
        }
        parser["rpcinterface:supervisor"] = {
            "supervisor.rpcinterface_factory": "supervisor.rpcinterface:make_main_rpcinterface"
        }
        # One group: supervisord stops groups one after the other, a second each, but the members of one all at once.
        parser[f"group:{_GROUP}"] = {"programs": ",".join(layout.instances)}
        for instance in layout.instances.values():
            parser[f"program:{instance.name}"] = self._program(layout, instance)
        text = io.StringIO()
        parser.write(text)
        return text.getvalue()

    def _program(self, layout: Layout, instance: Instance) -> Mapping[str, str]:
        environment = ",".join(f'{key}="{_escape(value)}"' for key, value in instance.env.items())
        guard = instance.name == "guard"
        return {
            "command": _escape(shlex.join(instance.argv)),
            "directory": str(instance.cwd or layout.data(instance.name)),
            "environment": environment,
            "autostart": "true" if guard else "false",
            "autorestart": "true",
            "startsecs": "0" if guard else "1",
            "startretries": "20",
            "stopwaitsecs": str(_STOP_WAIT_S),
            "stopasgroup": "true",
            "killasgroup": "true",
            "redirect_stderr": "true",
            "stdout_logfile": str(layout.log / f"{instance.name}.log"),
            "stdout_logfile_maxbytes": "5MB",
            "stdout_logfile_backups": "1",
        }


def _foreign(name: str) -> bool:
    return not name.startswith("LABKIT_")


def _escape(text: str) -> str:
    return text.replace("%", "%%")


def memory_mb(pid: int | None) -> float | None:
    """Resident memory of a process and its children, in MB; None if it is not there."""
    if pid is None:
        return None
    try:
        process = psutil.Process(pid)
        return sum(p.memory_info().rss for p in (process, *process.children(recursive=True))) / 1e6
    except psutil.NoSuchProcess:
        return None
