"""
`Lab`: what a notebook holds.  It joins the rooms: the stack that runs, the shop in it, the clients that ask it.

    lab = labkit.up()          start the lab, or join the one that is up
    lab = labkit.connect()     join the lab that is up
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import asdict
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from labkit._time import utc_now
from labkit._wait import wait_until
from labkit.errors import NotRunning
from labkit.lab_past import PastLabels
from labkit.lab_start import hooks, how_it_ended, same_lab, settings_of, shop_admin, wait_for_targets
from labkit.settings import Settings, load_settings
from labkit.shop.client import ShopAdmin
from labkit.shop.history import load_labels
from labkit.shop.links import apply_links
from labkit.stack.doctor import Report, examine
from labkit.stack.progress import Event, Progress, printer, silent, step
from labkit.stack.runtimes import runtime_of
from labkit.stack.state import ProcessId, State, renew_lease

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from labkit.lab_slo import SloRoom
    from labkit.observe.alertmanager import Alertmanager
    from labkit.observe.cardinality import Census
    from labkit.observe.coverage import Coverage
    from labkit.observe.prometheus import Prometheus
    from labkit.observe.stores import LogStore, TraceStore
    from labkit.observe.webhook import Received

__all__ = ["Lab", "PastLabels", "connect", "doctor", "stop_owned_by", "up"]

_PROCESSES_READY_S, _PODS_READY_S = 25, 90


def up(
    lab: str | Lab | None = None,
    *,
    profile: str | None = None,
    seed: int | None = None,
    run_dir: Path | None = None,
    port_offset: int | None = None,
    owner: int | None = -1,
    progress: Progress | None = None,
) -> Lab:
    """
    Start the lab, or join the one that runs in the same run directory.

    Args:
        lab: where it runs: `"local"`, `"kind"` or the name of a kubectl context; as the settings say if empty.  A
            `Lab` is given back as it is, so that a cell may run twice.
        profile: which components: `"core"`.
        seed: of the thirty days of history.
        run_dir: where the lab keeps its files; two labs need two.
        port_offset: added to every port.
        owner: id of the process whose death ends the lab; the present process by default, None for a lab
            that lives until `labkit down` or until its time to live passes unused.
        progress: hears of each step; lines on standard output by default.

    Returns:
        The lab.  As a context manager it stops on leaving the block if this call started it.

    Raises:
        SetupError: something is missing, a port is taken, the disk is full, a file is wrong.
        ComponentDied, NotReady: a component did not come up; everything was stopped again.
        ConfigInvalid: a lab with another seed or profile runs in this run directory.
    """
    if isinstance(lab, Lab):
        renew_lease(lab.run_dir)
        return lab
    given = {"lab": lab or None, "profile": profile, "seed": seed, "run_dir": run_dir, "port_offset": port_offset}
    settings = load_settings(given)
    show = progress or printer()
    runtime = runtime_of(settings)
    state, started = runtime.up(owner=os.getpid() if owner == -1 else owner, hooks=hooks(runtime, show), progress=show)
    same_lab(state, settings)
    found = Lab(settings_of(state, settings), state, started=started)
    _announce(found, show)
    return found


def doctor(profile: str | None = None, *, lab: str | Lab | None = None) -> Report:
    """
    What is here, what is missing and how to get it; nothing is started or fetched.

    Args:
        profile: which components are meant; the one of the settings if None.
        lab: where it would run, as for `up`; a `Lab` means where it does.

    Returns:
        The report: shows itself as text or as a table, `fit` is the verdict.
    """
    where = lab.settings.lab if isinstance(lab, Lab) else lab or None
    return examine(load_settings({"lab": where, "profile": profile}))


def connect(*, run_dir: Path | None = None) -> Lab:
    """
    Join the lab that runs; after a kernel restart this takes it over from the dead kernel.

    Raises:
        NotRunning: there is none; says when and why the last one ended.
    """
    settings = load_settings({"run_dir": run_dir})
    state = runtime_of(settings).state()
    if state is None or state.phase != "up":
        seen = "it is still starting" if state else how_it_ended(settings.run_dir)
        raise NotRunning(
            f"Joining the lab in {settings.run_dir}", seen=seen, how="Run `labkit up`, or `lab = labkit.up()`."
        )
    orphan = state.owner is not None and not state.owner.alive()
    if orphan:
        state = state.changed(owner=ProcessId.of(os.getpid()))
    renew_lease(settings.run_dir)
    return Lab(settings_of(state, settings), state, started=orphan)


def stop_owned_by(pid: int) -> list[str]:
    """
    Stop the lab that process *pid* started, if that process is dead and the lab still runs.

    Returns:
        What was stopped, in words; empty if there was nothing to stop.
    """
    runtime = runtime_of(load_settings())
    state = State.load(runtime.run_dir)
    if state is None or state.owner is None or state.owner.pid != pid or state.owner.alive():
        return []
    stopped = runtime.down(reason=f"its owner, process {pid}, ended without stopping it", progress=silent)
    return [f"the lab in {runtime.run_dir}"] if stopped else []


class Lab:
    """A lab that is up.  `started` tells whether this process started it (and so may stop it)."""

    def __init__(self, settings: Settings, state: State, *, started: bool) -> None:
        self.settings = settings
        self.run_dir = settings.run_dir
        self.seed = state.seed
        self.profile = state.profile
        self.owned = started
        self._state = state
        self._runtime = runtime_of(settings)

    @property
    def prometheus(self) -> Prometheus:
        """Metrics: `query`, `value`, `query_range`, `targets`, `rules`, `alerts`."""
        self._use()
        return self._prometheus

    @property
    def logs(self) -> LogStore:
        """What the services wrote: `search`, `aggregate`, `errors_per_minute`, `services`."""
        self._use()
        return self._logs

    @property
    def traces(self) -> TraceStore:
        """What requests went through: `search`, `trace`, `wait_for`, `services`, `dependencies`."""
        self._use()
        return self._traces

    @property
    def alertmanager(self) -> Alertmanager:
        """Alerts as they are routed: `alerts`, `silences`, `silence`, `expire`."""
        from labkit.observe.alertmanager import Alertmanager  # noqa: PLC0415

        self._use()
        return Alertmanager(self.url("alertmanager"))

    @property
    def pages(self) -> Received:
        """What Alertmanager sent to whoever is on call: `frame`, `last_number`."""
        from labkit.observe.webhook import Received  # noqa: PLC0415

        self._use()
        return Received(self.url("webhook"), (self.run_dir / "secrets" / "webhook_token").read_text(encoding="utf-8"))

    def dashboard(self, name: str, *, minutes: float = 15) -> Figure:
        """
        Draw a dashboard from the same JSON that Grafana reads.

        Args:
            name: a name of `labkit.observe.dashboards.names()`, such as `"operations"`.
            minutes: how far back it looks, up to now.

        Raises:
            UnknownName: there is no such dashboard; lists those there are.
        """
        from labkit.observe import dashboards, drawing  # noqa: PLC0415

        end = self.now()
        return drawing.draw(dashboards.load(name), self.prometheus, end - timedelta(minutes=minutes), end)

    def cardinality(self) -> Census:
        """How many series each metric has, which labels make them, and what they cost."""
        from labkit.observe.cardinality import take_census  # noqa: PLC0415

        return take_census(self.prometheus)

    def coverage(self) -> Coverage:
        """Every service of the shop by metrics, logs, traces, dashboard and alert: a score, and what is missing."""
        from labkit.observe import coverage, dashboards  # noqa: PLC0415
        from labkit.shop.config import SERVICES  # noqa: PLC0415

        boards = [dashboards.load(name) for name in dashboards.names()]
        return coverage.measure(SERVICES, self.prometheus, dashboards=boards, logs=self.logs, traces=self.traces)

    @property
    def shop(self) -> ShopAdmin:
        """The shop's admin side: flags, faults, deploys."""
        self._use()
        return self._shop

    @property
    def slo(self) -> SloRoom:
        """Objectives: `load` puts their rules in force, `report`, `counts`, `unload`."""
        self._use()
        return self._slo

    @property
    def history(self) -> PastLabels:
        """What happened in the thirty days before this lab first started."""
        self._use()
        return PastLabels(load_labels(self.run_dir / "data" / f"seed-{self.seed}" / "history.json"))

    def now(self) -> datetime:
        """The present instant of the lab, in UTC."""
        return utc_now()

    def url(self, name: str) -> str:
        """
        The address of a component's first port.

        Raises:
            LookupError: the lab has no such component; lists those it has.
        """
        ports = self._state.ports.get(name)
        if not ports:
            known = ", ".join(n for n, p in self._state.ports.items() if p)
            raise LookupError(f"no component {name!r} with a port in this lab; there are: {known}")
        return f"http://127.0.0.1:{next(iter(ports.values()))}"

    def has(self, name: str) -> bool:
        """Whether this lab has the component *name*; optional ones may be missing on this machine."""
        return name in self._state.ports

    def status(self) -> pd.DataFrame:
        """
        What is running: one row per process.

        Returns:
            Index `name`; columns `title, state, ready, port, pid, memory_mb` (resident, MB), `uptime_s`
            (seconds), `version`, `note`.  Empty if the lab was stopped.
        """
        import pandas as pd  # noqa: PLC0415  (the command line needs no frames to start a lab)

        self._use()
        rows = [asdict(row) for row in self._runtime.status()]
        frame = pd.DataFrame(rows, columns=list(rows[0]) if rows else ["name"]).set_index("name")
        integers = {name: "Int64" for name in ("port", "pid") if name in frame}
        return frame.astype(integers)

    def alive(self) -> bool:
        """Whether the lab still runs."""
        return self._runtime.state() is not None

    def restart(self, name: str) -> None:
        """Restart one instance, as a pod is restarted, and wait until it is ready."""
        self._use()
        self._runtime.restart(name)

    def reset(self, progress: Progress | None = None) -> None:
        """
        Return to the healthy baseline: no faults, default flags, empty queues, no silences, all running and scraped.

        Raises:
            NotReady: something is not healthy in time; names it.
        """
        self._use()
        with step(progress or printer(), "reset the lab to its healthy baseline"):
            self._runtime.revive(self._state)
            self._apply_links()
            # A fault may be why something is not ready: first take away those of every replica that answers.
            with suppress(NotRunning):
                self._shop.reset()
            self._wait_until_ready()
            wait_until(self._shop.reset, "all is in reach, and reset", timeout_s=10, tolerate=(NotRunning,))
            self._wait_until_ready()
            wait_for_targets(self.url("prometheus"))
            if self.has("alertmanager"):
                self.alertmanager.expire_all()
                if not self.slo.loaded:
                    self.slo.end_alerts()

    def down(self, progress: Progress | None = None) -> bool:
        """Stop the lab, whoever started it; returns whether there was one.  Twice is fine."""
        return self._runtime.down(progress=progress or printer())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.owned:
            self.down()

    def __repr__(self) -> str:
        return f"<Lab {self.profile} in {self.run_dir}, seed {self.seed}, {'up' if self.alive() else 'stopped'}>"

    def _use(self) -> None:
        if not self.alive():
            seen = how_it_ended(self.run_dir)
            raise NotRunning("Using this lab", seen=seen, how="Start it again: `lab = labkit.up()`.")
        renew_lease(self.run_dir)

    @cached_property
    def _prometheus(self) -> Prometheus:
        from labkit.observe.prometheus import Prometheus  # noqa: PLC0415  (pandas takes half a second)

        return Prometheus(self.url("prometheus"))

    @cached_property
    def _logs(self) -> LogStore:
        if self.has("opensearch"):
            from labkit.observe.opensearch import OpenSearchLogs  # noqa: PLC0415

            return OpenSearchLogs(self.url("opensearch"))
        from labkit.observe.logs import EmbeddedLogs  # noqa: PLC0415

        return EmbeddedLogs(self._embedded_store("logs", "opensearch"))

    @cached_property
    def _traces(self) -> TraceStore:
        if self.has("jaeger"):
            from labkit.observe.jaeger import JaegerTraces  # noqa: PLC0415

            return JaegerTraces(self.url("jaeger"))
        from labkit.observe.traces import EmbeddedTraces  # noqa: PLC0415

        return EmbeddedTraces(self._embedded_store("traces", "jaeger"))

    def _embedded_store(self, what: str, instead: str) -> str:
        """Its address; a lab that should have *instead* in its place, and has not, says why."""
        if not self.has("store"):
            why = self._state.missing.get(instead, f"{instead} is not part of it").rstrip(":")
            how = f"`labkit doctor` says how to get {instead}; profile core does without."
            raise NotRunning(f"Asking for {what}", seen=f"this lab has no store of {what}: {why}", how=how)
        return self.url("store")

    @cached_property
    def _slo(self) -> SloRoom:
        from labkit.lab_slo import SloRoom  # noqa: PLC0415

        alertmanager = self.url("alertmanager") if self.has("alertmanager") else None
        return SloRoom(self._runtime.prometheus_config(self.url("prometheus")), self.seed, self.now, alertmanager)

    @cached_property
    def _shop(self) -> ShopAdmin:
        return shop_admin(self.run_dir, self._state.ports)

    def _apply_links(self) -> None:
        if self._state.link_ports:
            apply_links(
                self.url("toxiproxy"),
                self._state.upstreams,
                listen_host="0.0.0.0" if self._state.cluster else "127.0.0.1",  # noqa: S104  (inside a pod)
                listen_offset=0 if self._state.cluster else self._state.port_offset,
            )

    def _wait_until_ready(self) -> None:
        wait_until(
            lambda: [row.name for row in self._runtime.status() if not row.ready and row.state != "MISSING"],
            "every component is ready",
            timeout_s=_PODS_READY_S if self._state.cluster else _PROCESSES_READY_S,
            every_s=0.3,
            ready=lambda waiting: not waiting,
            how="`labkit logs NAME` shows what it says; `labkit down && labkit up` starts afresh.",
        )


def _announce(lab: Lab, show: Progress) -> None:
    what = "the lab is up" if lab.owned else "joined the lab that is up"
    show(Event("done", what, detail=f"{lab.url('prometheus')}; stop it with lab.down() or `labkit down`"))
