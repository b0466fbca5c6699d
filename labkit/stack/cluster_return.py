"""A lab on a cluster that was away for a while: its node was stopped, or somebody deleted it by hand."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from math import inf
from pathlib import Path
from typing import Any

from labkit._wait import wait_until
from labkit.errors import NotReady, NotRunning
from labkit.stack.cluster import LAB_ID, Cluster
from labkit.stack.cluster_status import is_ready
from labkit.stack.cluster_wait import wait_ready
from labkit.stack.kind import KindCluster
from labkit.stack.progress import Progress, step
from labkit.stack.state import ClusterRef

__all__ = ["lost_because", "require_nodes", "wait_for_return"]

# How long after the start of a node a lab that is joined may still be on its way up.
_YOUNG_S = 300
_SETTLE_S = 60
_ANSWER_S = 60


def require_nodes(kind: KindCluster | None, run_dir: Path) -> None:
    """
    Make sure that the nodes of the kind cluster of a lab run; None is a lab on another cluster, of which nobody knows.

    Docker knows at once what an API server that is silent leaves open.

    Raises:
        NotRunning: there are none, or one is stopped or paused.
    """
    if kind is None:
        return
    nodes = kind.nodes()
    seen = "" if nodes else f"its kind cluster {kind.name} is gone"
    how = "`labkit up --on kind` makes all of it anew; `labkit down` clears away what is left here."
    for node in nodes:
        if not node.running:
            seen = f"the node {node.name} of its kind cluster is {node.word}"
            how = "`labkit up --on kind` lets it run again; `labkit down` takes it away."
    if seen:
        raise NotRunning(f"The lab in {run_dir}", seen=seen, how=how)


def lost_because(kind: KindCluster | None, cluster: Cluster, ref: ClusterRef, lab_id: str, progress: Progress) -> str:
    """
    Why a lab is not on its cluster any more, in words; empty when it is there.

    A node of its kind cluster that is stopped is started.

    Raises:
        ClusterGone, NotReady: the API server does not answer.
    """
    if kind is not None:
        if not kind.exists():
            return f"its kind cluster {kind.name} is gone"
        kind.start_nodes(progress)
        # One that has just started answers before it knows who may do what.
        kind.wait_for_answer(_ANSWER_S)
    labels = cluster.namespace_labels(ref.namespace)
    if labels is None or labels.get(LAB_ID) != lab_id:
        return f"its namespace {ref.namespace} is gone from {ref.context}"
    return ""


def wait_for_return(
    kind: KindCluster, cluster: Cluster, namespace: str, progress: Progress, *, timeout_s: float
) -> None:
    """
    Wait until the pods of a lab are ready, if a node was started in the last minutes; returns at once if none was.

    Args:
        kind: the cluster of the lab.
        cluster: the same, as it is asked.
        namespace: of the lab.
        progress: told of what is waited for.
        timeout_s: limit of the wait with causes, which begins a minute later at most, in seconds.

    Raises:
        WillNotStart, NotReady: as `wait_ready`.
    """
    started = kind.started_at()
    if time.time() - started > _YOUNG_S:
        return

    def unsettled() -> list[str]:
        # Until kubelet has looked, the API server tells what was true before: containers that run since then.
        pods = cluster.pods(namespace)
        return [pod["metadata"]["name"] for pod in pods if not is_ready(pod) or _runs_since(pod) < started]

    # The sums over pods are those of before for even longer: whoever adds them up has to be elected first.
    with step(progress, "wait for the pods to start again"), suppress(NotReady):
        wait_until(unsettled, "all pods are ready", timeout_s=_SETTLE_S, every_s=1, ready=lambda names: not names)
    wait_ready(cluster, namespace, progress, timeout_s=timeout_s)


def _runs_since(pod: Mapping[str, Any]) -> float:
    """When the oldest of its containers that are said to run was started, in seconds since 1970; infinite if none."""
    states = [one.get("state", {}) for one in pod.get("status", {}).get("containerStatuses") or []]
    times = [state["running"]["startedAt"] for state in states if "running" in state]
    return min((datetime.fromisoformat(text).timestamp() for text in times), default=inf)
