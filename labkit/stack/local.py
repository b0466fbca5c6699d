"""The lab as supervised processes on this machine."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path

from labkit._http import is_up
from labkit._proc import stop_running, tail
from labkit._wait import wait_until
from labkit.errors import ComponentDied, NotReady
from labkit.stack.acquire import acquire_all
from labkit.stack.catalogue import Component, profile_components
from labkit.stack.download import check_space
from labkit.stack.plan import Instance, Layout
from labkit.stack.ports import check_ports
from labkit.stack.prepare import prepare
from labkit.stack.progress import Event, Progress, step
from labkit.stack.prometheus_config import PrometheusConfig
from labkit.stack.runtime import ComponentStatus, Hooks, Runtime
from labkit.stack.state import ProcessId, State, lab_processes, resume_all
from labkit.stack.supervisor import ProcessInfo, memory_mb

__all__ = ["LocalRuntime"]

_POLL_S = 0.1
_RUN_DIR_MB = 300
_DEAD = {"BACKOFF", "EXITED", "FATAL", "UNKNOWN"}


class _CancelledError(Exception):
    """A thread of the start was told to give up."""

    def __init__(self) -> None:
        super().__init__("given up, because another step failed")


class LocalRuntime(Runtime):
    """The lab of one run directory, as processes."""

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

    def revive(self, state: State) -> None:
        """Let run again what was stopped or suspended."""
        resume_all(lab_processes(state.lab_id))
        for name, info in self.supervisor.processes().items():
            if info.state not in ("RUNNING", "STARTING"):
                self.supervisor.start_process(name)

    def log_lines(self, name: str, lines: int) -> list[str]:
        """The last *lines* lines that an instance wrote."""
        path = self._known_log(name)
        return path.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:]

    def follow_log(self, name: str) -> Iterator[str]:
        """What an instance adds to its log from now on, without end."""
        with self._known_log(name).open(encoding="utf-8", errors="replace") as file:
            file.seek(0, os.SEEK_END)
            while True:
                yield wait_until(file.read, "more lines", timeout_s=float("inf"), every_s=0.3)

    def prometheus_config(self, url: str) -> PrometheusConfig:
        """What the lab's Prometheus, at *url*, reads."""
        return PrometheusConfig(url, self.run_dir)

    def _known_log(self, name: str) -> Path:
        path = self.log_path(name)
        if not path.exists():
            known = sorted(p.stem for p in path.parent.glob("*.log")) if path.parent.exists() else []
            raise LookupError(f"there are logs of: {', '.join(known)}" if known else "no lab has run there yet")
        return path

    def _plan(self, progress: Progress) -> tuple[Layout, Mapping[str, str]]:
        settings = self.settings
        components = profile_components(settings.profile, self.catalogue)
        check_space("The lab", self.run_dir, _RUN_DIR_MB)
        programs, missing = acquire_all(components.values(), settings, progress)
        for name, error in missing.items():
            if components[name].required:
                raise error
            what = f"without {components[name].title}: {components[name].without}"
            progress(Event("note", what, detail=str(error).splitlines()[-1]))
        layout = Layout(components, programs, settings)
        check_ports(layout.all_ports(), offset=settings.port_offset)
        return layout, {name: str(error).splitlines()[0] for name, error in missing.items()}

    def _rejoin(self, running: State, progress: Progress) -> None:
        """Nothing: supervisord sees to its processes."""

    def _launch(self, state: State, layout: Layout, hooks: Hooks, progress: Progress) -> State:
        state = state.changed(supervisor=ProcessId.of(self.supervisor.start(layout, state.lab_id)))
        _Startup(self, layout, hooks, progress).run()
        return state

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
            memory_mb=memory_mb(pid),
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
