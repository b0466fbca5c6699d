"""
What a run directory says about its lab: `lab.json` while there is one, `ended.json` after it.

Only the standard library and psutil: the guard imports this and must stay small.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil

__all__ = ["ClusterRef", "ProcessId", "State", "kill_all", "lab_age_s", "lab_processes", "renew_lease", "resume_all"]

_SCHEMA = 1
_TAG = "LABKIT_LAB_ID"


@dataclass(frozen=True, slots=True)
class ProcessId:
    """A process, by id and start time (seconds since 1970), since ids are used again."""

    pid: int
    started: float

    @classmethod
    def of(cls, pid: int) -> ProcessId | None:
        """The process with this id, or None if there is none."""
        try:
            return cls(pid, psutil.Process(pid).create_time())
        except psutil.NoSuchProcess:
            return None

    def alive(self) -> bool:
        """Whether this very process still runs; a zombie does not."""
        try:
            process = psutil.Process(self.pid)
            return abs(process.create_time() - self.started) < 1 and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False


@dataclass(frozen=True, slots=True)
class ClusterRef:
    """
    Where on Kubernetes a lab is: `kind` names the kind cluster that labkit made for labs, or is empty.

    `kubeconfig` is a path, or empty for the user's own configuration.
    """

    kind: str
    kubeconfig: str
    context: str
    namespace: str


@dataclass(frozen=True, slots=True)
class State:
    """
    One lab: who it is, what it is made of, and who it belongs to.

    `upstreams` is where toxiproxy reaches each instance, as `host:port`; `cluster` is None for processes here.
    `owner` is the process whose death ends the lab, after `owner_grace_s` seconds; None for a lab that
    lives until `labkit down` or until nobody used it for `ttl_s` seconds.  `phase` is `starting` or `up`.
    """

    lab_id: str
    run_dir: str
    profile: str
    seed: int
    port_offset: int
    created: float
    ttl_s: float
    owner_grace_s: float
    phase: str
    owner: ProcessId | None
    supervisor: ProcessId | None
    ports: dict[str, dict[str, int]]
    link_ports: dict[str, int]
    programs: dict[str, dict[str, str]]
    missing: dict[str, str] = field(default_factory=dict)
    opensearch_nodes: int = 1
    lab: str = "local"
    overlay: str = "small"
    upstreams: dict[str, str] = field(default_factory=dict)
    cluster: ClusterRef | None = None
    schema: int = _SCHEMA

    @property
    def choices(self) -> dict[str, Any]:
        """The settings that hold as long as the lab lives, whatever those of whoever joins it say."""
        names = ("lab", "seed", "profile", "port_offset", "opensearch_nodes", *(("overlay",) if self.cluster else ()))
        return {name: getattr(self, name) for name in names}

    def save(self) -> None:
        """Write `lab.json`, whole or not at all."""
        path = Path(self.run_dir) / "lab.json"
        part = path.with_name(f".lab.json.{os.getpid()}")
        part.write_text(json.dumps(asdict(self), indent=1), encoding="utf-8")
        part.replace(path)

    def changed(self, **changes: Any) -> State:
        """A copy with *changes*, saved."""
        changed = replace(self, **changes)
        changed.save()
        return changed

    @classmethod
    def load(cls, run_dir: Path) -> State | None:
        """The lab of this run directory, or None if there is none (or one of another labkit's making)."""
        try:
            data = json.loads((run_dir / "lab.json").read_text(encoding="utf-8"))
        except (FileNotFoundError, json.JSONDecodeError):
            return None
        if data.get("schema") != _SCHEMA:
            return None
        for key in ("owner", "supervisor"):
            data[key] = ProcessId(**data[key]) if data[key] else None
        data["cluster"] = ClusterRef(**data["cluster"]) if data.get("cluster") else None
        return cls(**data)

    def alive(self) -> bool:
        """Whether the lab's supervisor still runs."""
        return self.supervisor is not None and self.supervisor.alive()

    def end(self, reason: str) -> None:
        """Replace `lab.json` by `ended.json`, so that the next visitor learns what happened."""
        run_dir = Path(self.run_dir)
        note = {"lab_id": self.lab_id, "ended": time.time(), "reason": reason}
        (run_dir / "ended.json").write_text(json.dumps(note, indent=1), encoding="utf-8")
        (run_dir / "lab.json").unlink(missing_ok=True)


def lab_processes(lab_id: str) -> list[psutil.Process]:
    """
    Every process of a lab, orphans included, except the present one.

    Each inherits a variable with the lab's id; this finds children of children, and a process that took over
    a dead one's number does not have it.
    """
    found = []
    for process in psutil.process_iter():
        try:
            if (
                process.pid != os.getpid()
                and process.environ().get(_TAG) == lab_id
                and process.status() != psutil.STATUS_ZOMBIE
            ):
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue
    return found


def kill_all(processes: Iterable[psutil.Process], *, grace_s: float) -> list[psutil.Process]:
    """
    Ask each process to end, and kill those that have not after *grace_s* seconds.

    Returns:
        Those that are still there after that; an empty list is the rule.
    """
    processes, waiting = list(processes), []
    resume_all(processes)
    for process in processes:
        try:
            process.terminate()
            waiting.append(process)
        except psutil.NoSuchProcess:
            continue
    _, alive = psutil.wait_procs(waiting, timeout=grace_s)
    for process in alive:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    _, alive = psutil.wait_procs(alive, timeout=grace_s)
    return alive


def resume_all(processes: Iterable[psutil.Process]) -> None:
    """Let every process continue that was stopped with SIGSTOP: until then it cannot react to anything."""
    for process in processes:
        try:
            if process.status() == psutil.STATUS_STOPPED:
                process.resume()
        except psutil.NoSuchProcess:
            continue


def renew_lease(run_dir: Path) -> None:
    """Note that the lab is in use now."""
    (run_dir / "lease").touch()


def lab_age_s(run_dir: Path, state: State) -> float:
    """Seconds since the lab was last used, or made if nobody used it yet."""
    try:
        last_used = (run_dir / "lease").stat().st_mtime
    except FileNotFoundError:
        last_used = state.created
    return time.time() - max(last_used, state.created)
