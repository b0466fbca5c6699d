"""Which pods are an instance of the lab, and the rows of `status` that come of them."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from labkit.stack.causes import why_not_ready
from labkit.stack.cluster_layout import ClusterLayout
from labkit.stack.runtime import ComponentStatus

__all__ = ["NAME", "component_rows", "is_ready", "pods_of"]

NAME = "app.kubernetes.io/name"
_CLUSTER_METRICS = ("kube-state-metrics", "kube-state-metrics")

Pod = Mapping[str, Any]


def pods_of(layout: ClusterLayout, name: str, pods: Iterable[Pod]) -> list[Pod]:
    """The pods of the instance *name*, those that are going last; a replica's pod has its name."""
    component = layout.instances[name].component
    mine = [pod for pod in pods if pod["metadata"].get("labels", {}).get(NAME) == component.name]
    if component.replicas > 1:
        mine = [pod for pod in mine if pod["metadata"]["name"] == name]
    return sorted(mine, key=lambda pod: (bool(pod["metadata"].get("deletionTimestamp")), not is_ready(pod)))


def is_ready(pod: Pod) -> bool:
    """Whether a pod is ready and not on its way out."""
    conditions = {c["type"]: c["status"] for c in pod.get("status", {}).get("conditions") or []}
    return conditions.get("Ready") == "True" and not pod["metadata"].get("deletionTimestamp")


def component_rows(layout: ClusterLayout, pods: Sequence[Pod], events: Sequence[Pod] = ()) -> list[ComponentStatus]:
    """A row per instance, in the order of the catalogue, and one for what only a cluster has; uptime in seconds."""
    rows = []
    for name, instance in layout.instances.items():
        ports = layout.ports[name]
        mine = pods_of(layout, name, pods)
        rows.append(_row(name, instance.component.title, next(iter(ports.values()), None), mine, events))
    name, title = _CLUSTER_METRICS
    mine = [pod for pod in pods if pod["metadata"].get("labels", {}).get(NAME) == name]
    return [*rows, _row(name, title, None, mine, events)]


def _row(name: str, title: str, port: int | None, pods: Sequence[Pod], events: Sequence[Pod]) -> ComponentStatus:
    if not pods:
        return ComponentStatus(name, title, "NO POD", False, port, None, None, None, "", "it has no pod")
    pod = pods[0]
    ready = is_ready(pod)
    # A rollout that does not get on leaves the old pod in service: the new one has the reason.
    causes = [why_not_ready(one, events) for one in pods if not one["metadata"].get("deletionTimestamp")]
    status = pod.get("status", {})
    image = str(pod["spec"]["containers"][-1].get("image", ""))
    return ComponentStatus(
        name=name,
        title=title,
        state="GOING" if pod["metadata"].get("deletionTimestamp") else str(status.get("phase", "Unknown")).upper(),
        ready=ready,
        port=port,
        pid=None,
        memory_mb=None,
        uptime_s=_since(status.get("startTime")),
        version=image.rpartition(":")[2],
        note="; ".join(str(cause) for cause in causes if cause),
    )


def _since(text: str | None) -> float | None:
    return time.time() - datetime.fromisoformat(text).timestamp() if text else None
