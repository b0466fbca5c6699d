"""Wait until the workloads of a lab are ready, and say meanwhile what they wait for."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from labkit._proc import tail
from labkit.errors import ClusterRefused, NotReady, WillNotStart
from labkit.stack.causes import Cause, why_no_pod, why_not_ready
from labkit.stack.cluster import Cluster
from labkit.stack.progress import Event, Progress, silent, step

__all__ = ["wait_ready"]

_EVERY_S = 1.0
# What every pod goes through is told only when it lasts.
_MILD_S = 10.0
_LOG_LINES = 15
_FEW = 3
_STEADY_S = 5.0
# A StatefulSet does not replace a pod of an earlier version that never became ready; nobody else does it.
_OUTDATED_S = 5.0

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Workload:
    """A Deployment or StatefulSet, with its pods of the present version and those of earlier ones."""

    object: Json
    pods: Sequence[Json]
    outdated: Sequence[Json]
    evicted: Sequence[Json]
    replica_sets: Sequence[str]

    @property
    def name(self) -> str:
        return str(self.object["metadata"]["name"])

    @property
    def wanted(self) -> int:
        return int(self.object["spec"].get("replicas", 1))

    @property
    def ready(self) -> bool:
        status, meta = self.object.get("status") or {}, self.object["metadata"]
        return bool(
            status.get("observedGeneration", 0) >= meta.get("generation", 0)
            and status.get("updatedReplicas", 0) >= self.wanted
            and status.get("availableReplicas", 0) >= self.wanted
            and status.get("replicas", 0) <= self.wanted
        )


@dataclass(slots=True)
class _Watch:
    """What was seen so far: since when each cause lasts, what was told, restarts of before."""

    cluster: Cluster
    namespace: str
    progress: Progress
    clock: Callable[[], float]
    since: dict[tuple[str, str], float] = field(default_factory=dict)
    outdated_since: dict[str, float] = field(default_factory=dict)
    told: dict[str, str] = field(default_factory=dict)
    restarts: dict[str, int] | None = None
    steady_since: float | None = None
    nodes: list[Json] | None = None

    def look(self, wanted: Collection[str]) -> tuple[list[_Workload], dict[str, Cause]]:
        """The workloads, and why those that are not ready are not."""
        found = self._workloads(wanted)
        if self.restarts is None:
            self.restarts = {_uid(pod): _restarts(pod) for one in found for pod in one.pods}
        late = [one for one in found if not one.ready]
        if not late:
            return found, {}
        causes: dict[str, Cause] = {}
        events = self.cluster.events(self.namespace)
        for one in late:
            causes |= self._causes(one, events)
        seen = {(name, cause.kind) for name, cause in causes.items()}
        self.since = {key: self.since.get(key, self.clock()) for key in seen}
        return found, causes

    def is_steady(self, found: Sequence[_Workload]) -> bool:
        """
        Whether all are ready, and for some seconds if a container of theirs ever ended.

        Between two ends a container without a readiness probe is ready for a moment.
        """
        if not all(one.ready for one in found):
            self.steady_since = None
            return False
        if self.steady_since is None:
            self.steady_since = self.clock()
        return not _ended_once(found) or self.clock() - self.steady_since >= _STEADY_S

    def tell(self, causes: Mapping[str, Cause]) -> None:
        """Each cause once, and again only when it has changed."""
        for name, cause in causes.items():
            mild = cause.kind == "starting" and self.lasted_s(name, cause) < _MILD_S
            if not mild and self.told.get(name) != cause.text:
                self.told[name] = cause.text
                self.progress(Event("note", name, detail=cause.text))

    def lasted_s(self, name: str, cause: Cause) -> float:
        """Since when a cause of this kind holds a pod up, in seconds."""
        return self.clock() - self.since[name, cause.kind]

    def replace_outdated(self, found: Sequence[_Workload]) -> None:
        """Delete what stands in the way of the present version."""
        for workload in found:
            for pod in workload.outdated:
                name = pod["metadata"]["name"]
                if why_not_ready(pod) is None or pod["metadata"].get("deletionTimestamp"):
                    continue
                start = self.outdated_since.setdefault(_uid(pod), self.clock())
                if self.clock() - start >= _OUTDATED_S:
                    self.progress(Event("note", name, detail="is of an earlier version and not ready: replaced"))
                    self.cluster.delete_pod(self.namespace, name)

    def log_of(self, pod: str, cause: Cause) -> str:
        """The last lines of the container that a cause names, of the run that ended if there is one."""
        if not cause.container:
            return ""
        for previous in (True, False) if cause.kind in {"crash", "init"} else (False,):
            said = self.cluster.pod_log(self.namespace, pod, cause.container, tail=_LOG_LINES, previous=previous)
            if said.strip():
                return tail(said, _LOG_LINES)
        return ""

    def _causes(self, workload: _Workload, events: Sequence[Json]) -> dict[str, Cause]:
        causes: dict[str, Cause] = {}
        for pod in [*workload.pods, *workload.evicted]:
            pending = not pod["spec"].get("nodeName")
            claims = self._claims() if pending else []
            nodes = self._nodes() if pending else []
            before = (self.restarts or {}).get(_uid(pod), 0)
            cause = why_not_ready(pod, events, claims=claims, nodes=nodes, restarts_before=before)
            if cause is not None and not pod["metadata"].get("deletionTimestamp"):
                causes[pod["metadata"]["name"]] = cause
        if len(workload.pods) < workload.wanted:
            none = why_no_pod(workload.object, events, workload.replica_sets)
            causes[workload.name] = none or Cause("starting", "its pods are not made yet")
        return causes

    def _workloads(self, wanted: Collection[str]) -> list[_Workload]:
        base = f"/apis/apps/v1/namespaces/{self.namespace}"
        pods, sets = self.cluster.pods(self.namespace), self.cluster.items(f"{base}/replicasets")
        objects = [*self.cluster.items(f"{base}/deployments"), *self.cluster.items(f"{base}/statefulsets")]
        return [_workload(one, pods, sets) for one in objects if not wanted or one["metadata"]["name"] in wanted]

    def _claims(self) -> list[Json]:
        return self.cluster.items(f"/api/v1/namespaces/{self.namespace}/persistentvolumeclaims")

    def _nodes(self) -> list[Json]:
        """The nodes, asked once; on a cluster of many users they may be nobody's business."""
        if self.nodes is None:
            try:
                self.nodes = self.cluster.items("/api/v1/nodes")
            except ClusterRefused:
                self.nodes = []
        return self.nodes


def wait_ready(
    cluster: Cluster,
    namespace: str,
    progress: Progress = silent,
    timeout_s: float = 300,
    wanted: Collection[str] = (),
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """
    Wait until all pods of the wanted workloads are ready, in their present version and no other.

    While it waits it reports why, each change once.  It does not wait for what cannot heal: an image that nobody
    has, a name that is none, a container that ended four times.  A pod of an earlier version that is not ready and
    that its StatefulSet therefore would keep for ever is deleted.

    Args:
        cluster: where.
        namespace: the lab's.
        progress: told of causes.
        timeout_s: limit in seconds.
        wanted: names of Deployments and StatefulSets; all that there are if empty.
        clock: monotonic seconds; replaced in tests.
        sleep: pauses; replaced in tests.

    Raises:
        WillNotStart: waiting makes no sense; carries the cause and the last lines of the log.
        NotReady: the limit passed; names each pod that is not ready and why.
        ClusterGone: the API server was silent for half a minute.
    """
    watch, start = _Watch(cluster, namespace, progress, clock), clock()
    with step(progress, f"wait for {_named(wanted)}") as now:
        while True:
            found, causes = watch.look(wanted)
            missing = sorted(set(wanted) - {one.name for one in found})
            if watch.is_steady(found) and not missing:
                now.detail = f"{sum(one.wanted for one in found)} pods ready"
                return
            watch.tell(causes)
            watch.replace_outdated(found)
            _give_up_on_the_hopeless(watch, causes)
            if clock() - start >= timeout_s:
                raise _not_ready(watch, timeout_s, found, missing, causes)
            sleep(_EVERY_S)


def _named(wanted: Collection[str]) -> str:
    if not wanted:
        return "all components"
    return ", ".join(sorted(wanted)) if len(wanted) <= _FEW else f"{len(wanted)} components"


def _give_up_on_the_hopeless(watch: _Watch, causes: Mapping[str, Cause]) -> None:
    for name, cause in causes.items():
        limit_s = cause.hopeless_after_s
        if limit_s is not None and watch.lasted_s(name, cause) >= limit_s:
            # No advice to ask the cluster for more: a start that fails takes everything down again.
            raise WillNotStart(name, cause=cause.text, log_tail=watch.log_of(name, cause), how=cause.how)


def _not_ready(
    watch: _Watch, timeout_s: float, found: Sequence[_Workload], missing: Sequence[str], causes: Mapping[str, Cause]
) -> NotReady:
    lines = [f"{name} does not exist" for name in missing]
    lines += [f"{name}: {cause.text}" for name, cause in causes.items()]
    lines += [
        f"{one.name}: an earlier version is not replaced yet"
        for one in found
        if not one.ready and not any(name.startswith(one.name) for name in causes)
    ]
    if not lines:
        lines = [f"{name}: it ended, and has not been up again for {_STEADY_S:g} s" for name in _ended_once(found)]
    logs = [(name, watch.log_of(name, cause)) for name, cause in causes.items()]
    shown = [f"The last lines of {name}:\n{said}\n" for name, said in logs if said][:_FEW]
    hows = [*dict.fromkeys(cause.how for cause in causes.values() if cause.how)]
    seen = "".join(f"\n  - {line}" for line in lines)
    how = "\n" + "".join(shown) + " ".join(hows)
    return NotReady(f"components of {watch.namespace} ready", waited_s=timeout_s, last_seen=seen, how=how)


def _workload(one: Json, pods: Sequence[Json], sets: Sequence[Json]) -> _Workload:
    labels, status = one["spec"]["selector"].get("matchLabels") or {}, one.get("status") or {}
    own = [pod for pod in pods if labels.items() <= (pod["metadata"].get("labels") or {}).items()]
    evicted = [pod for pod in own if (pod.get("status") or {}).get("reason") == "Evicted"]
    own = [pod for pod in own if (pod.get("status") or {}).get("phase") not in {"Failed", "Succeeded"}]
    if "updateRevision" not in status:
        # A Deployment replaces its earlier pods whatever their state, and what was refused to those is past.
        newest, uids = _newest(one, sets)
        now = [pod for pod in own if pod["metadata"]["labels"].get("pod-template-hash") == newest]
        return _Workload(one, now, [], evicted, uids)
    of_now = [pod["metadata"]["labels"].get("controller-revision-hash") == status["updateRevision"] for pod in own]
    now = [pod for pod, yes in zip(own, of_now, strict=True) if yes]
    outdated = [pod for pod, yes in zip(own, of_now, strict=True) if not yes]
    return _Workload(one, now, outdated, evicted, [])


def _newest(deployment: Json, sets: Sequence[Json]) -> tuple[str, list[str]]:
    """Hash and uid of the ReplicaSet that has the Deployment's present revision; "" and none before there is one."""
    key, uid = "deployment.kubernetes.io/revision", deployment["metadata"]["uid"]
    revision = (deployment["metadata"].get("annotations") or {}).get(key)
    for one in sets:
        meta = one["metadata"]
        is_its = any(owner["uid"] == uid for owner in meta.get("ownerReferences") or [])
        if is_its and (meta.get("annotations") or {}).get(key) == revision:
            return str(meta["labels"].get("pod-template-hash", "")), [str(meta["uid"])]
    return "", []


def _uid(pod: Json) -> str:
    return str(pod["metadata"]["uid"])


def _ended_once(found: Sequence[_Workload]) -> list[str]:
    return [pod["metadata"]["name"] for one in found for pod in one.pods if _restarts(pod) > 0]


def _restarts(pod: Json) -> int:
    status = pod.get("status") or {}
    statuses = [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]
    return max((int(one.get("restartCount", 0)) for one in statuses), default=0)
