"""
What is here, what is missing and how to get it, before anything starts.

The doctor fetches nothing and starts nothing: it looks at PATH and the cache, asks the machine for its limits,
and adds up what would have to be fetched.
"""

from __future__ import annotations

import html
import os
import platform
import resource
import shutil
import socket
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import psutil

from labkit.settings import Settings, files_root
from labkit.stack.acquire import Installed, find, remedy, usable_sources
from labkit.stack.catalogue import Component, Entry, GoSource, ReleaseSource, Source, profile_components
from labkit.stack.golang import find_go
from labkit.stack.plan import ports_of
from labkit.stack.ports import listener_of, port_is_free
from labkit.stack.state import State

__all__ = [
    "Finding",
    "Report",
    "choose_source",
    "disk_finding",
    "examine",
    "exercise_files",
    "exercise_findings",
    "megabytes_of",
    "ports_finding",
    "program_finding",
]

Verdict = Literal["ok", "fetch", "warning", "missing"]

# Assumptions of the prediction, stated in the report: a slow home connection, and what was measured on two cores.
_MEGABYTES_PER_S = 5.0
_START_S = 15.0
_GO_WHEEL_MB = 75.0
_APT_LISTS_MB = 10.0
_RUN_DIR_MB = 300.0
_OPEN_FILES = 4096
_CONNECT_TIMEOUT_S = 1.5


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report: the thing, a verdict, what was seen, and what to do (empty if nothing)."""

    what: str
    verdict: Verdict
    seen: str
    advice: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """
    What `labkit doctor` found.

    `fetch_mb` megabytes would be fetched; `minutes` is the prediction for the first `labkit up`, start included.
    """

    profile: str
    machine: str
    components: tuple[Finding, ...]
    limits: tuple[Finding, ...]
    exercises: tuple[Finding, ...]
    fetch_mb: float
    minutes: float

    @property
    def fit(self) -> bool:
        """Whether the lab can come up here: nothing required is missing and no limit is below its need."""
        return not any(f.verdict == "missing" for f in (*self.components, *self.limits))

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON-able data."""
        return {**asdict(self), "fit": self.fit}

    @property
    def summary(self) -> str:
        """The answer in one sentence."""
        if not self.fit:
            return f"This machine cannot run profile {self.profile} yet: see the lines marked ✗."
        if self.fetch_mb:
            return (
                f"This machine is fit for profile {self.profile}. About {self.fetch_mb:.0f} MB would be fetched; "
                f"`labkit up` would take about {self.minutes:.1f} min the first time (at {_MEGABYTES_PER_S:g} MB/s)."
            )
        took = f"`labkit up` takes about {self.minutes * 60:.0f} s"
        return f"This machine is fit for profile {self.profile}. Everything is here: {took}."

    def text(self) -> str:
        """The report for a terminal."""
        sections = [("Components", self.components), ("Limits", self.limits), ("Exercises", self.exercises)]
        lines = [f"{self.machine}, profile {self.profile}"]
        for title, findings in sections:
            lines += ["", title]
            width = max(len(f.what) for f in findings)
            for finding in findings:
                lines.append(f" {_SIGNS[finding.verdict]} {finding.what:<{width}}  {finding.seen}")
                if finding.advice:
                    lines.append(f"   {'':<{width}}  → {finding.advice}")
        return "\n".join([*lines, "", self.summary])

    def __str__(self) -> str:
        return self.text()

    def __repr__(self) -> str:
        return self.text()

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{_SIGNS[f.verdict]}</td><th scope='row' style='text-align:left'>{html.escape(f.what)}</th>"
            f"<td style='text-align:left'>{html.escape(f.seen)}"
            + (f"<br><em>{html.escape(f.advice)}</em>" if f.advice else "")
            + "</td></tr>"
            for f in (*self.components, *self.limits, *self.exercises)
        )
        return f"<p><strong>{html.escape(self.summary)}</strong></p><table>{rows}</table>"


_SIGNS: dict[Verdict, str] = {"ok": "✓", "fetch": "↓", "warning": "!", "missing": "✗"}


def examine(settings: Settings) -> Report:
    """Look at this machine, or the cluster, for the lab of *settings*; nothing is fetched, started or changed."""
    if settings.lab != "local":
        from labkit.stack.doctor_cluster import cluster_report  # noqa: PLC0415  (its client takes half a second)

        return cluster_report(settings)
    components = profile_components(settings.profile)
    with_program = [c for c in components.values() if c.program is not None]
    here = {c.name: find(c, settings) for c in with_program}
    chosen = {c.name: choose_source(c, settings) for c in with_program if here[c.name] is None}
    rows = [program_finding(c, here[c.name], chosen.get(c.name)) for c in with_program]
    fetch_mb = megabytes_of([s for s in chosen.values() if s is not None], settings)
    return Report(
        profile=settings.profile,
        machine=f"{platform.system()} {platform.machine()}, Python {platform.python_version()}, {os.cpu_count()} cores",
        components=tuple(rows),
        limits=tuple(_limits(components, settings, fetch_mb)),
        exercises=tuple(exercise_findings(components, {n for n, s in chosen.items() if s is None})),
        fetch_mb=fetch_mb,
        minutes=(fetch_mb / _MEGABYTES_PER_S + _compile_s(chosen.values()) + _START_S) / 60,
    )


def program_finding(component: Entry, program: Installed | None, source: Source | None) -> Finding:
    """A line about a program: where it is, or where it would come from."""
    if program is not None:
        return Finding(component.title, "ok", f"{program.version}, {_where(program.source, program.path)}")
    return _absent(component, source)


def exercise_files() -> list[Path]:
    """The notebooks of this installation, in order; each name begins with the number of its exercise."""
    return sorted((files_root() / "notebooks").glob("[0-9][0-9]_*.ipynb"))


def _where(source: str, path: Path) -> str:
    return f"on PATH ({path})" if source == "PATH" else f"in the cache (from {source})"


def _absent(component: Entry, source: Source | None) -> Finding:
    if source is None:
        # A tool of labkit's own is never optional: it is asked for only where it is needed.
        optional = isinstance(component, Component) and not component.required
        verdict: Verdict = "warning" if optional else "missing"
        without = f"; without it: {component.without}" if isinstance(component, Component) and component.without else ""
        return Finding(component.title, verdict, f"not here, and no source can bring it{without}", remedy(component))
    way = {"release": "from its release page", "apt": "from the system's packages", "go": "compiled with Go"}[
        source.kind
    ]
    return Finding(component.title, "fetch", f"will be fetched {way}, {source.megabytes:.0f} MB")


def choose_source(component: Entry, settings: Settings) -> Source | None:
    """The source that would be used: the first usable one whose site answers."""
    for source in usable_sources(component):
        if isinstance(source, ReleaseSource) and not (settings.mirror or _reachable(source.url)):
            continue
        return source
    return None


_answers: dict[str, bool] = {}


def _reachable(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    if host not in _answers:
        try:
            with socket.create_connection((host, 443), timeout=_CONNECT_TIMEOUT_S):
                _answers[host] = True
        except OSError:
            _answers[host] = False
    return _answers[host]


def megabytes_of(sources: list[Source], settings: Settings) -> float:
    """What fetching from *sources* costs, in MB, with what their tools need."""
    total = sum(source.megabytes for source in sources)
    if any(isinstance(s, GoSource) for s in sources) and find_go(settings.cache_dir) is None:
        total += _GO_WHEEL_MB
    if any(s.kind == "apt" for s in sources):
        total += _APT_LISTS_MB
    return total


def _compile_s(sources: Any) -> float:
    return sum(s.cpu_s for s in sources if isinstance(s, GoSource)) / (os.cpu_count() or 1)


def _limits(components: dict[str, Component], settings: Settings, fetch_mb: float) -> list[Finding]:
    need_mb = sum(c.memory_mb * c.replicas for c in components.values())
    free_mb = psutil.virtual_memory().available / 1e6
    found = [
        _limit("Memory", free_mb, need_mb, "MB free", "Close programs, or run the lab on another machine."),
        disk_finding("Disk for components", settings.cache_dir, fetch_mb * 3, "LABKIT_CACHE_DIR"),
        disk_finding("Disk for the lab", settings.run_dir, _RUN_DIR_MB, "LABKIT_RUN_DIR"),
        _limit(
            "Open files",
            resource.getrlimit(resource.RLIMIT_NOFILE)[1],
            _OPEN_FILES,
            "allowed",
            f"Run `ulimit -n {_OPEN_FILES}`.",
        ),
        ports_finding(components, settings),
    ]
    return [*found, _platform(), _cluster()]


def _limit(what: str, seen: float, need: float, unit: str, advice: str) -> Finding:
    # RLIM_INFINITY is -1: no limit at all.
    enough = seen >= need or seen == resource.RLIM_INFINITY
    shown = "unlimited" if seen == resource.RLIM_INFINITY else f"{seen:,.0f} {unit}"
    return Finding(what, "ok" if enough else "missing", f"{shown}, {need:,.0f} needed", "" if enough else advice)


def disk_finding(what: str, path: Path, need_mb: float, variable: str) -> Finding:
    """Whether the disk of *path* has room; *variable* is the setting that names another."""
    existing = next(p for p in (path, *path.parents) if p.exists())
    free_mb = shutil.disk_usage(existing).free / 1e6
    return _limit(what, free_mb, need_mb, "MB free", f"Free some space, or set {variable} to a folder on another disk.")


def ports_finding(components: dict[str, Component], settings: Settings) -> Finding:
    """Whether the ports of *components* are free on this machine, and who has the first that is not."""
    state = State.load(settings.run_dir)
    if state is not None and state.alive():
        return Finding("Ports", "ok", "used by the lab that is up")
    wanted = {
        p: n
        for c in components.values()
        for n, roles in ports_of(c, settings.port_offset).items()
        for p in roles.values()
    }
    taken = [port for port in sorted(wanted) if not port_is_free(port)]
    if not taken:
        return Finding("Ports", "ok", f"{min(wanted)} to {max(wanted)}: the {len(wanted)} that are needed are free")
    pid, process = listener_of(taken[0])
    owner = f"`{process}` (process {pid})" if pid else "another process"
    others = f" and {len(taken) - 1} more" if len(taken) > 1 else ""
    advice = f"Use `labkit up --port-offset {settings.port_offset + 1000}` or end what listens there."
    return Finding("Ports", "missing", f"{taken[0]} ({wanted[taken[0]]}) is used by {owner}{others}", advice)


def _platform() -> Finding:
    if sys.platform == "darwin":
        return Finding("System", "ok", "macOS: components come from release pages and Homebrew")
    if "microsoft" in platform.release().lower():
        return Finding(
            "System", "ok", "WSL2: as Linux; keep the checkout on the Linux side of the disk, not below /mnt"
        )
    return Finding("System", "ok", f"{platform.system()} {platform.release()}")


def _cluster() -> Finding:
    """Whether a Kubernetes cluster is within reach; the local lab does not need one."""
    import kubernetes  # noqa: PLC0415  (half a second; only the doctor asks)
    from kubernetes.config import ConfigException  # noqa: PLC0415
    from urllib3.exceptions import HTTPError  # noqa: PLC0415

    what = "Kubernetes"
    try:
        _, active = kubernetes.config.list_kube_config_contexts()
        client = kubernetes.config.new_client_from_config(context=active["name"])
        client.configuration.retries = False
        version = kubernetes.client.VersionApi(client).get_code(_request_timeout=_CONNECT_TIMEOUT_S)
    except ConfigException:
        return Finding(what, "ok", "no cluster is configured; the local lab needs none")
    except (HTTPError, kubernetes.client.ApiException, OSError) as error:
        reason = f"HTTP {error.status}" if isinstance(error, kubernetes.client.ApiException) else "no answer"
        return Finding(what, "ok", f"context {active['name']}: {reason}; the local lab needs none")
    return Finding(what, "ok", f"context {active['name']}: {version.git_version}")


def exercise_findings(components: dict[str, Component], missing: set[str]) -> list[Finding]:
    """A line per notebook: whether it works when the components in *missing* are missing."""
    required = sorted(components[name].title for name in missing if components[name].required)
    rows = []
    for path in exercise_files():
        number, _, title = path.stem.replace("_", " ").partition(" ")
        lacking = [components[n].title for n in sorted(missing) if number in components[n].exercises]
        if required:
            rows.append(Finding(f"{number} {title}", "missing", f"not without {', '.join(required)}"))
        elif lacking:
            rows.append(Finding(f"{number} {title}", "warning", f"in part: without {', '.join(lacking)}"))
        else:
            rows.append(Finding(f"{number} {title}", "ok", "works here"))
    return rows
