"""
The lab as supervised processes on this machine: one run directory, one supervisor, one guard.

`up` is safe at any moment: it joins a lab that runs, clears away what a killed one left, and takes down what
it started if it cannot finish.
"""

from __future__ import annotations

import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import psutil
from filelock import FileLock, Timeout

from labkit._http import is_up
from labkit._proc import stop_running, tail
from labkit._wait import wait_until
from labkit.errors import ComponentDied, LabkitError, NotReady
from labkit.settings import Settings
from labkit.stack.acquire import acquire_all
from labkit.stack.catalogue import Component, profile_components
from labkit.stack.download import check_space
from labkit.stack.guard import end_lab
from labkit.stack.plan import Instance, Layout
from labkit.stack.ports import check_ports
from labkit.stack.prepare import prepare
from labkit.stack.progress import Event, Progress, silent, step
from labkit.stack.state import ProcessId, State, kill_all, lab_processes, renew_lease
from labkit.stack.supervisor import ProcessInfo, Supervisor

__all__ = ["ComponentStatus", "Hooks", "LocalRuntime"]

_LOCK_TIMEOUT_S = 120
_POLL_S = 0.1
_RUN_DIR_MB = 300
_DEAD = {"BACKOFF", "EXITED", "FATAL", "UNKNOWN"}


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
    """One row of `status`: memory in MB (resident), uptime in seconds; None where it does not run."""

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


class _CancelledError(Exception):
    """A thread of the start was told to give up."""

    def __init__(self) -> None:
        super().__init__("given up, because another step failed")


class LocalRuntime:
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
            running = self.state()
            if running is not None:
                renew_lease(self.run_dir)
                orphan = running.owner is not None and not running.owner.alive()
                return (running.changed(owner=ProcessId.of(owner) if owner else None) if orphan else running), False
            self._clear(progress)
            return self._start(owner, hooks, progress), True

    def down(self, reason: str = "it was told to stop", progress: Progress = silent) -> bool:
        """Stop the lab; returns whether there was one.  Nothing happens, and nothing is wrong, if there was none."""
        with self._locked(progress):
            state = State.load(self.run_dir)
            if state is None:
                return False
            with step(progress, "stop the lab"):
                left = end_lab(state, reason)
            if left:
                raise NotReady(
                    "every process of the lab has ended",
                    waited_s=15,
                    last_seen=", ".join(left),
                    how="End them by hand.",
                )
            return True

    def status(self) -> list[ComponentStatus]:
        """A row per instance of the lab, and one per component that is missing; empty if no lab runs."""
        state = self.state()
        if state is None:
            return []
        layout = self.layout(state)
        seen = self.supervisor.processes()
        with ThreadPoolExecutor(max_workers=8) as pool:
            rows = list(pool.map(lambda i: self._row(i, seen.get(i.name), layout), layout.instances.values()))
        catalogue = profile_components(state.profile, self.catalogue)
        missing = [
            ComponentStatus(name, catalogue[name].title, "MISSING", False, None, None, None, None, "", why)
            for name, why in state.missing.items()
        ]
        return rows + missing

    def layout(self, state: State) -> Layout:
        """The layout of a lab that runs."""
        components = profile_components(state.profile, self.catalogue)
        programs, _ = acquire_all([c for name, c in components.items() if name not in state.missing], self.settings)
        # The lab may have been started with another offset or seed than this process has in its settings.
        return Layout(components, programs, replace(self.settings, **state.choices))

    def restart(self, name: str) -> None:
        """Stop and start one instance, and wait until it is ready again."""
        state = self.state()
        layout = self.layout(state) if state else None
        if layout is None or name not in layout.instances:
            raise LookupError(
                f"no instance {name!r} in this lab; there are: {', '.join(layout.instances if layout else ())}"
            )
        self.supervisor.stop_process(name)
        self.supervisor.start_process(name)
        self._wait_ready(layout.instances[name], threading.Event())

    def log_path(self, name: str) -> Path:
        """The log file of one instance."""
        return self.run_dir / "log" / f"{name}.log"

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
        if state is None:
            return
        with step(progress, "clear away what an earlier lab left running"):
            end_lab(state, "found dead by the next start")

    def _start(self, owner: int | None, hooks: Hooks, progress: Progress) -> State:
        settings = self.settings
        components = profile_components(settings.profile, self.catalogue)
        check_space("The lab", self.run_dir, _RUN_DIR_MB)
        programs, missing = acquire_all(components.values(), settings, progress)
        for name, error in missing.items():
            if components[name].required:
                raise error
            progress(
                Event(
                    "note",
                    f"without {components[name].title}: {components[name].without}",
                    detail=str(error).splitlines()[-1],
                )
            )
        self.run_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        layout = Layout(components, programs, settings)
        check_ports(layout.all_ports(), offset=settings.port_offset)
        layout.write_files()
        state = self._first_state(layout, missing, owner)
        state.save()
        try:
            state = state.changed(supervisor=ProcessId.of(self.supervisor.start(layout, state.lab_id)))
            _Startup(self, layout, hooks, progress).run()
            renew_lease(self.run_dir)
            return state.changed(phase="up", owner=ProcessId.of(owner) if owner else None)
        except BaseException as error:
            # Also on Ctrl-C: whatever was started must not outlive a start that failed.
            progress(Event("note", "the start did not succeed; stopping what was started"))
            end_lab(State.load(self.run_dir) or state, f"its start failed: {type(error).__name__}")
            kill_all(lab_processes(state.lab_id), grace_s=3)
            raise

    def _first_state(self, layout: Layout, missing: Mapping[str, LabkitError], owner: int | None) -> State:
        (self.run_dir / "ended.json").unlink(missing_ok=True)
        starter = ProcessId.of(psutil.Process().pid)
        return State(
            lab_id=uuid.uuid4().hex,
            run_dir=str(self.run_dir),
            profile=self.settings.profile,
            seed=self.settings.seed,
            port_offset=self.settings.port_offset,
            opensearch_nodes=self.settings.opensearch_nodes,
            created=time.time(),
            ttl_s=self.settings.ttl_s,
            owner_grace_s=self.settings.owner_grace_s,
            phase="starting",
            owner=starter if owner is None else ProcessId.of(owner),
            supervisor=None,
            ports={name: dict(layout.ports[name]) for name in layout.instances},
            link_ports=layout.link_ports if "toxiproxy" in layout.components else {},
            programs={
                n: {"path": str(p.path), "version": p.version, "source": p.source} for n, p in layout.programs.items()
            },
            missing={name: str(error).splitlines()[0] for name, error in missing.items()},
        )

    def _row(self, instance: Instance, info: ProcessInfo | None, layout: Layout) -> ComponentStatus:
        program = layout.programs.get(instance.component.name)
        pid = info.pid if info else None
        return ComponentStatus(
            name=instance.name,
            title=instance.component.title,
            state=info.state if info else "UNKNOWN",
            ready=info is not None and _is_ready(instance, info, timeout_s=1.0),
            port=next(iter(instance.ports.values()), None),
            pid=pid,
            memory_mb=_memory_mb(pid),
            uptime_s=info.uptime_s if info and pid else None,
            version=program.version if program else "",
        )

    def _wait_ready(self, instance: Instance, cancel: threading.Event) -> None:
        def probe() -> bool:
            info = self.supervisor.processes().get(instance.name)
            if info is None or info.state in _DEAD:
                why = f"{info.state}: {info.why}" if info else "its supervisor is gone"
                raise ComponentDied(
                    instance.name,
                    state=why,
                    log_path=self.log_path(instance.name),
                    log_tail=self._log_tail(instance.name),
                )
            return _is_ready(instance, info, timeout_s=1.0)

        def pause(seconds: float) -> None:
            if cancel.wait(seconds):
                raise _CancelledError

        ready = instance.component.ready
        what = f"{instance.name} is ready ({instance.ready.url or ready.tcp or 'running'})"
        try:
            wait_until(probe, what, timeout_s=ready.within_s, every_s=_POLL_S, sleep=pause)
        except NotReady as error:
            last = self._log_tail(instance.name)
            how = f"Its last lines:\n{last}" if last else "It wrote nothing to its log."
            raise NotReady(what, waited_s=ready.within_s, last_seen=error.last_seen, how=how) from error

    def _log_tail(self, name: str) -> str:
        path = self.log_path(name)
        return tail(path.read_text(encoding="utf-8", errors="replace")[-8000:]) if path.exists() else ""


class _Startup:
    """One start: every instance in a thread, each after what it needs."""

    def __init__(self, runtime: LocalRuntime, layout: Layout, hooks: Hooks, progress: Progress) -> None:
        self.runtime, self.layout, self.hooks, self.progress = runtime, layout, hooks, progress
        self.cancel = threading.Event()
        self.futures: dict[str, Future[None]] = {}

    def run(self) -> None:
        """Start everything, or raise the first failure after every thread has given up."""
        instances = self.layout.instances.values()
        with ThreadPoolExecutor(max_workers=len(self.layout.instances)) as pool:
            try:
                self.futures = {i.name: Future() for i in instances}
                tasks = [pool.submit(self._one, i) for i in instances]
                wait(tasks, return_when=FIRST_EXCEPTION)
            finally:
                if not all(future.done() and future.exception() is None for future in self.futures.values()):
                    self.cancel.set()
                    stop_running()
        self._raise_first(tasks)
        if self.hooks.finish:
            self.hooks.finish(self.layout)

    def _raise_first(self, tasks: list[Future[None]]) -> None:
        errors = [error for task in tasks if (error := task.exception()) is not None]
        real = [error for error in errors if not isinstance(error, _CancelledError)]
        if errors:
            raise (real or errors)[0]

    def _one(self, instance: Instance) -> None:
        mine = self.futures[instance.name]
        try:
            self._wait_for_needs(instance.component)
            with step(self.progress, f"start {instance.name}") as now:
                prepare(self.layout, instance)
                self.runtime.supervisor.start_process(instance.name)
                self.runtime._wait_ready(instance, self.cancel)  # noqa: SLF001  (one class in two parts)
                now.detail = instance.ready.url or ""
            hook = self.hooks.after.get(instance.name)
            if hook:
                hook(self.layout)
        except BaseException as error:
            mine.set_exception(error)
            raise
        mine.set_result(None)

    def _wait_for_needs(self, component: Component) -> None:
        for need in component.needs:
            needed = self.layout.components.get(need)
            for name in needed.instances if needed else ():
                while not self.futures[name].done():
                    if self.cancel.wait(0.02):
                        raise _CancelledError
                if self.futures[name].exception() is not None:
                    raise _CancelledError


def _is_ready(instance: Instance, info: ProcessInfo, *, timeout_s: float) -> bool:
    if info.state not in ("RUNNING", "STARTING"):
        return False
    ready = instance.ready
    if ready.url is not None:
        return is_up(ready.url, timeout_s=timeout_s)
    if ready.tcp is not None:
        return _accepts(instance.ports[ready.tcp], timeout_s)
    return info.state == "RUNNING" and info.uptime_s >= (ready.running_s or 0)


def _accepts(port: int, timeout_s: float) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=timeout_s):
            return True
    except OSError:
        return False


def _memory_mb(pid: int | None) -> float | None:
    if pid is None:
        return None
    try:
        process = psutil.Process(pid)
        return sum(p.memory_info().rss for p in (process, *process.children(recursive=True))) / 1e6
    except psutil.NoSuchProcess:
        return None
