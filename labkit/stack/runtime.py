"""
What every runtime has in common: a run directory with one lab, one supervisor and one guard on this machine.

Where the components run differs: as processes (`local`) or on a cluster (`kubernetes`).  `up` is safe at any moment:
it joins a lab that runs, clears away what a killed one left, and takes down what it started if it cannot finish.
"""

from __future__ import annotations

import signal
import threading
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from filelock import FileLock, Timeout

from labkit.errors import NotReady
from labkit.settings import Settings
from labkit.stack.guard import end_lab, end_leftover
from labkit.stack.plan import Layout
from labkit.stack.progress import Event, Progress, silent, step
from labkit.stack.prometheus_config import PrometheusConfig
from labkit.stack.state import ClusterRef, ProcessId, State, kill_all, lab_processes, renew_lease
from labkit.stack.supervisor import Supervisor

__all__ = ["ComponentStatus", "Hooks", "Runtime"]

_LOCK_TIMEOUT_S = 120


@dataclass(frozen=True, slots=True)
class Hooks:
    """
    What the caller adds to a start; each gets the layout and may raise.

    after: called when the instance of that name is ready, before anything that needs it starts.
    finish: called when everything is ready.
    """

    after: Mapping[str, Callable[[Layout], None]] = field(default_factory=dict)
    finish: Callable[[Layout], None] | None = None


@dataclass(frozen=True, slots=True)
class ComponentStatus:
    """One row of `status`: memory in MB (resident), uptime in seconds; None where it is not known."""

    name: str
    title: str
    state: str
    ready: bool
    port: int | None
    pid: int | None
    memory_mb: float | None
    uptime_s: float | None
    version: str
    note: str = ""


class Runtime(ABC):
    """
    The lab of one run directory.

    Args:
        settings: where it is, on which ports, with which profile.
        catalogue: folder of the components; that of the installation if None.
    """

    def __init__(self, settings: Settings, *, catalogue: Path | None = None) -> None:
        self.settings = settings
        self.catalogue = catalogue
        self.run_dir = settings.run_dir
        self.supervisor = Supervisor(settings.run_dir)

    def state(self) -> State | None:
        """The lab that runs here, or None."""
        state = State.load(self.run_dir)
        return state if state is not None and state.alive() else None

    def up(self, *, owner: int | None, hooks: Hooks, progress: Progress = silent) -> tuple[State, bool]:
        """
        Start the lab, or join the one that runs.

        Args:
            owner: id of the process whose death ends the lab; None for a lab that outlives its starter.
            hooks: what else belongs to a start.
            progress: hears of each step.

        Returns:
            The lab's state, and whether this call started it.

        Raises:
            SetupError: something is missing, a port is taken, the disk is full, a file is wrong.
            ComponentDied, NotReady: a component did not come up; everything was stopped again.
        """
        with self._locked(progress):
            running = self._joinable(progress)
            if running is not None:
                renew_lease(self.run_dir)
                self._rejoin(running, progress)
                orphan = running.owner is not None and not running.owner.alive()
                return (running.changed(owner=ProcessId.of(owner) if owner else None) if orphan else running), False
            self._clear(progress)
            return self._start(owner, hooks, progress), True

    def down(self, reason: str = "it was told to stop", progress: Progress = silent) -> bool:
        """Stop the lab; returns whether there was one.  Nothing happens, and nothing is wrong, if there was none."""
        with self._locked(progress):
            state = State.load(self.run_dir)
            if state is None:
                found = end_leftover(self.run_dir)
                if found:
                    progress(Event("done", "remove what an earlier lab had left on its cluster"))
                return found
            began = time.monotonic()
            with step(progress, "stop the lab"):
                left = end_lab(state, reason)
            if left:
                raise NotReady(
                    "nothing of the lab is left",
                    waited_s=time.monotonic() - began,
                    last_seen=", ".join(left).removesuffix("."),
                    how="What is left on a cluster is tried again by the next `labkit down`; a process has to be ended "
                    "by hand.",
                )
            return True

    @abstractmethod
    def status(self) -> list[ComponentStatus]:
        """A row per instance of the lab, and one per component that is missing; empty if no lab runs."""

    @abstractmethod
    def layout(self, state: State) -> Layout:
        """The layout of a lab that runs."""

    @abstractmethod
    def restart(self, name: str) -> None:
        """Stop and start one instance, and wait until it is ready again."""

    @abstractmethod
    def revive(self, state: State) -> None:
        """Let run again what was stopped or suspended."""

    @abstractmethod
    def log_lines(self, name: str, lines: int) -> list[str]:
        """The last *lines* lines that an instance wrote; raises LookupError, naming those there are, for another."""

    @abstractmethod
    def follow_log(self, name: str) -> Iterator[str]:
        """What an instance adds to its log from now on, without end."""

    @abstractmethod
    def prometheus_config(self, url: str) -> PrometheusConfig:
        """What the lab's Prometheus, at *url*, reads."""

    @abstractmethod
    def _launch(self, state: State, layout: Layout, hooks: Hooks, progress: Progress) -> State:
        """Bring everything up; the supervisor's process and the state's changes are saved on the way."""

    @abstractmethod
    def _plan(self, progress: Progress) -> tuple[Layout, Mapping[str, str]]:
        """What will run, checked before anything starts; and why each of the missing components is missing."""

    @abstractmethod
    def _rejoin(self, running: State, progress: Progress) -> None:
        """See to it that what a lab needs is there, when somebody joins it."""

    def _cluster_ref(self) -> ClusterRef | None:
        return None

    def _lost(self, _running: State, _progress: Progress) -> str:
        """Why a lab whose supervisor runs is no lab any more; empty if it is one."""
        return ""

    def _joinable(self, progress: Progress) -> State | None:
        """The lab that runs, if it can be joined; called with the lock, so nobody is starting one."""
        state = self.state()
        if state is None:
            return None
        # Whoever was starting it is dead, or would hold the lock.
        lost = self._lost(state, progress) if state.phase == "up" else "its start was cut off"
        if not lost:
            return state
        progress(Event("note", "the lab that was up cannot be joined", detail=lost))
        return None

    @contextmanager
    def _locked(self, progress: Progress) -> Iterator[None]:
        """One start or stop at a time in a run directory."""
        self.run_dir.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(f"{self.run_dir}.lock")
        try:
            lock.acquire(timeout=0.2)
        except Timeout:
            progress(Event("note", "another start or stop of this lab is under way; waiting for it"))
            try:
                lock.acquire(timeout=_LOCK_TIMEOUT_S)
            except Timeout as error:
                how = f"If no labkit runs, delete {lock.lock_file}."
                raise NotReady(
                    "the run directory is free", waited_s=_LOCK_TIMEOUT_S, last_seen="locked", how=how
                ) from error
        try:
            yield
        finally:
            lock.release()

    def _clear(self, progress: Progress) -> None:
        """Stop what a lab left behind that was killed with its supervisor and guard."""
        state = State.load(self.run_dir)
        if state is not None:
            with step(progress, "clear away what an earlier lab left running"):
                end_lab(state, "found dead by the next start")
        end_leftover(self.run_dir)

    def _start(self, owner: int | None, hooks: Hooks, progress: Progress) -> State:
        layout, missing = self._plan(progress)
        self.run_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        layout.write_files()
        state = self._first_state(layout, missing, owner)
        state.save()
        try:
            state = self._launch(state, layout, hooks, progress)
            renew_lease(self.run_dir)
            return state.changed(phase="up", owner=ProcessId.of(owner) if owner else None)
        except BaseException as error:
            # Also on Ctrl-C: whatever was started must not outlive a start that failed.
            progress(Event("note", "the start did not succeed; stopping what was started"))
            with _undisturbed():
                left = end_lab(State.load(self.run_dir) or state, f"its start failed: {type(error).__name__}")
                kill_all(lab_processes(state.lab_id), grace_s=3)
            for what in left:
                progress(Event("note", "`labkit down` has to try again to remove", detail=what))
                error.add_note(f"left behind: {what}")
            raise

    def _first_state(self, layout: Layout, missing: Mapping[str, str], owner: int | None) -> State:
        (self.run_dir / "ended.json").unlink(missing_ok=True)
        starter = ProcessId.of(psutil.Process().pid)
        settings = self.settings
        return State(
            lab_id=uuid.uuid4().hex,
            run_dir=str(self.run_dir),
            lab=settings.lab,
            profile=settings.profile,
            seed=settings.seed,
            port_offset=settings.port_offset,
            opensearch_nodes=settings.opensearch_nodes,
            overlay=settings.overlay,
            created=time.time(),
            ttl_s=settings.ttl_s,
            owner_grace_s=settings.owner_grace_s,
            phase="starting",
            owner=starter if owner is None else ProcessId.of(owner),
            supervisor=None,
            ports={name: dict(layout.ports[name]) for name in layout.instances},
            link_ports=layout.link_ports if "toxiproxy" in layout.components else {},
            upstreams=layout.upstreams(),
            programs={
                n: {"path": str(p.path), "version": p.version, "source": p.source} for n, p in layout.programs.items()
            },
            missing=dict(missing),
            cluster=self._cluster_ref(),
        )


@contextmanager
def _undisturbed() -> Iterator[None]:
    """While the block runs Ctrl-C is not heard, here and by the programs that it starts: half taken down is worse."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before or signal.SIG_DFL)
