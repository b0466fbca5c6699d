"""What the doctor says of a lab on a cluster: Docker and kind, or the context; what each overlay asks for."""

from __future__ import annotations

import os
import platform

from labkit.errors import LabkitError
from labkit.settings import OVERLAYS, PROFILES, Settings
from labkit.stack.acquire import find
from labkit.stack.catalogue import load_tools
from labkit.stack.cluster import Cluster
from labkit.stack.cluster_layout import cluster_components
from labkit.stack.contexts import needs_asking, resolve
from labkit.stack.doctor import (
    Finding,
    Report,
    choose_source,
    disk_finding,
    exercise_findings,
    megabytes_of,
    ports_finding,
    program_finding,
)
from labkit.stack.engine import engine_findings
from labkit.stack.manifests import Requests, static_requests

__all__ = ["NODE_MIB", "cluster_report"]

NODE_MIB = 900
"""What a node of kind and its control plane take beside the pods, in MiB; measured."""

# A first start pulls some 600 MB of images; later ones take about a minute.
_IMAGES_MB = 600.0
_START_S = 80.0
_MEGABYTES_PER_S = 5.0


def cluster_report(settings: Settings) -> Report:
    """Look at what the lab of *settings* needs on a cluster; nothing is fetched, started or changed."""
    on_kind = settings.lab == "kind"
    tools = [load_tools()[name] for name in (("kubectl", "kind") if on_kind else ("kubectl",))]
    here = {tool.name: find(tool, settings) for tool in tools}
    chosen = {tool.name: choose_source(tool, settings) for tool in tools if here[tool.name] is None}
    rows = [program_finding(tool, here[tool.name], chosen.get(tool.name)) for tool in tools]
    asked = static_requests(settings.overlay, settings.profile)
    place = engine_findings(asked.memory_mib + NODE_MIB) if on_kind else [_context(settings)]
    components = cluster_components(settings.profile)
    megabytes = megabytes_of([source for source in chosen.values() if source is not None], settings)
    return Report(
        profile=settings.profile,
        machine=f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores; a lab on {settings.lab}",
        components=(*rows, *place),
        limits=(*_overlays(settings), disk_finding("Disk for the lab", settings.run_dir, 100, "LABKIT_RUN_DIR"),
                ports_finding(components, settings)),
        exercises=tuple(exercise_findings(components, set())),
        fetch_mb=megabytes + _IMAGES_MB,
        minutes=((megabytes + _IMAGES_MB) / _MEGABYTES_PER_S + _START_S) / 60,
    )  # fmt: skip


def _context(settings: Settings) -> Finding:
    """The context, whether its server answers, and whether it would be asked about."""
    what = f"Context {settings.lab}"
    try:
        found = resolve(settings.lab)
        version = Cluster(None, found.context).version()
    except LabkitError as error:
        return Finding(what, "missing", str(error))
    reason = needs_asking(found.context, found.cluster, found.server, found.namespace, found.user)
    if reason and settings.trust_context != found.context:
        return Finding(what, "warning", f"Kubernetes {version} at {found.server}", f"`labkit up` will ask: {reason}")
    return Finding(what, "ok", f"Kubernetes {version} at {found.server}")


def _overlays(settings: Settings) -> list[Finding]:
    """What each overlay and profile asks of a cluster; the one in force is marked."""
    rows = []
    for overlay in OVERLAYS:
        for profile in PROFILES:
            asked = static_requests(overlay, profile)
            mine = (overlay, profile) == (settings.overlay, settings.profile)
            rows.append(Finding(f"{overlay}, {profile}" + (" ← this one" if mine else ""), "ok", _said(asked)))
    return rows


def _said(asked: Requests) -> str:
    return (
        f"memory {asked.memory_mib:,.0f} MiB asked for, {asked.limits_memory_mib:,.0f} MiB at most; "
        f"CPU {asked.cpu_m / 1000:.2f} cores; volumes {asked.volumes_mib / 1024:.1f} GiB; {asked.pods} pods"
    )
