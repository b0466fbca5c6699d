"""
Why a pod is not ready, in words: from what the API says of a pod, its volume claims and its events.

All functions here are pure; `labkit.stack.cluster_wait` asks the cluster and waits.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from labkit.stack.causes_image import image_cause
from labkit.stack.causes_pending import pending_cause

__all__ = ["Cause", "why_no_pod", "why_not_ready"]

Json = Mapping[str, Any]
Kind = Literal["image", "pending", "crash", "probe", "init", "config", "volume", "evicted", "refused", "starting"]

# Four restarts have taken a minute and a half: what heals by itself (a database that came later) has healed.
HOPELESS_RESTARTS = 4
_IMAGE_S = 30.0
_CONFIG_S = 15.0
_VOLUME_S = 60.0
_REFUSED_S = 30.0
_CRASH_AGAIN_S = 60.0
# An event outlives its cause: for so long it may be of a version that was corrected since.
_STALE_S = 5.0
_IMAGE_REASONS = ("ErrImagePull", "ImagePullBackOff", "ImageInspectError", "RegistryUnavailable")
_NEVER = ("ErrImageNeverPull", "InvalidImageName")
_CONFIG_REASONS = ("CreateContainerConfigError", "CreateContainerError", "RunContainerError", "StartError")


@dataclass(frozen=True, slots=True)
class Cause:
    """
    Why a pod is not ready.

    `hopeless_after_s` is how many seconds it may last before waiting makes no sense; None when time may heal it.
    `container` is the one whose log tells more, "" when none does.
    """

    kind: Kind
    text: str
    how: str = ""
    hopeless_after_s: float | None = None
    container: str = ""

    def __str__(self) -> str:
        return self.text


def why_not_ready(
    pod: Json,
    events: Iterable[Json] = (),
    *,
    claims: Sequence[Json] = (),
    nodes: Sequence[Json] = (),
    restarts_before: int = 0,
) -> Cause | None:
    """
    Why a pod is not ready; None when it is.

    Args:
        pod: as the API gives it.
        events: of its namespace; those of other objects are passed over.
        claims: the PersistentVolumeClaims of its namespace.
        nodes: of the cluster; empty when they may not be read, then a pending pod is told without their sizes.
        restarts_before: restarts that do not count, since they were before anybody waited.
    """
    if _is_ready(pod):
        return None
    own = _of(pod, events)
    status = pod.get("status") or {}
    never_ran = status.get("phase") == "Failed" and not status.get("containerStatuses")
    if never_ran or status.get("reason") == "Evicted":
        return _failed(status)
    if not (pod.get("spec") or {}).get("nodeName"):
        return _unscheduled(pod, list(events), claims, nodes)
    found = (_container_cause(pod, one, own, init=init, restarts_before=restarts_before)
             for init, one in _containers(pod))  # fmt: skip
    return next((cause for cause in found if cause is not None), None) or _creating(pod, own)


def why_no_pod(workload: Json, events: Iterable[Json], owners: Iterable[str] = ()) -> Cause | None:
    """
    Why a Deployment or StatefulSet could not even make a pod: quota, pod security, a webhook; None when it could.

    Args:
        workload: the Deployment or StatefulSet.
        events: of its namespace.
        owners: uids of its ReplicaSets, which speak for a Deployment.
    """
    uids = {workload["metadata"]["uid"], *owners}
    failed = [one for one in events if one.get("reason") == "FailedCreate" and _uid(one) in uids]
    if not failed:
        return None
    said = str(max(failed, key=_when).get("message", ""))
    said = said.partition("forbidden: ")[2] or said
    if "exceeded quota" in said:
        how = "Ask whoever runs the cluster for a larger quota, or use a smaller profile."
        return Cause("refused", f"its pod is over the quota of the namespace: {said}", how, _REFUSED_S)
    if "violates PodSecurity" in said:
        return Cause("refused", f"its pod is not allowed: {said}", "", _STALE_S)
    return Cause("refused", f"its pod cannot be made: {said}", "", _REFUSED_S)


def _is_ready(pod: Json) -> bool:
    if pod["metadata"].get("deletionTimestamp"):
        return False
    conditions = (pod.get("status") or {}).get("conditions") or []
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


def _failed(status: Json) -> Cause:
    reason, said = status.get("reason", "Failed"), str(status.get("message", "")).strip().rstrip(".")
    if reason == "Evicted":
        how = "The node ran short: free memory or disk there, or use a smaller profile. A new pod is made by itself."
        return Cause("evicted", f"evicted from its node: {said}", how)
    return Cause("evicted", f"the node refused it ({reason}): {said}")


def _containers(pod: Json) -> list[tuple[bool, Json]]:
    """The states of the containers in the order in which they start, and whether each is an init container."""
    status = pod.get("status") or {}
    inits = [(True, one) for one in status.get("initContainerStatuses") or []]
    return inits + [(False, one) for one in status.get("containerStatuses") or []]


def _container_cause(pod: Json, status: Json, own: Sequence[Json], *, init: bool, restarts_before: int) -> Cause | None:
    state = status.get("state") or {}
    who = f"init container {status['name']}" if init else f"container {status['name']}"
    waiting = state.get("waiting") or {}
    reason, said = str(waiting.get("reason", "")), str(waiting.get("message", ""))
    if reason in _NEVER or reason in _IMAGE_REASONS:
        events = [str(one.get("message", "")) for one in own if one.get("reason") == "Failed"]
        text, how = image_cause(str(status.get("image", "")), reason, said, events)
        return Cause("image", text, how, 0 if reason in _NEVER else _IMAGE_S)
    if reason in _CONFIG_REASONS:
        return Cause("config", f"{who} cannot be started: {said.strip() or reason}", "", _CONFIG_S)
    ended = state.get("terminated") or (status.get("lastState") or {}).get("terminated")
    # One that runs now and ended before anybody waited is told by what it does now.
    is_news = "running" not in state or int(status.get("restartCount", 0)) > restarts_before
    if ended and is_news and not (init and ended.get("exitCode") == 0) and not status.get("ready"):
        return _crash(pod, status, ended, own, who, init=init, restarts_before=restarts_before)
    if "running" in state and not init and not status.get("ready"):
        return _probe(status, own, who)
    if "running" in state and init and not status.get("ready"):
        return Cause("starting", f"{who} is at work", container=str(status["name"]))
    return None


def _crash(
    pod: Json, status: Json, ended: Json, own: Sequence[Json], who: str, *, init: bool, restarts_before: int
) -> Cause:
    restarts, code, name = int(status.get("restartCount", 0)), ended.get("exitCode"), str(status["name"])
    if ended.get("message") and ended.get("reason") in {"StartError", "ContainerCannotRun"}:
        # The same as while it waits for the next attempt, in the same words.
        return Cause("config", f"{who} cannot be started: {str(ended['message']).strip()}", "", _CONFIG_S)
    times = f", {restarts} restarts" if restarts > 1 else ", 1 restart" if restarts else ""
    how = ""
    if ended.get("reason") == "OOMKilled":
        limit = _memory_limit(pod, name)
        text = f"{who} was killed for taking more memory than its limit{f' of {limit}' if limit else ''}{times}"
        how = "Raise the limit in its manifest, or find out what it holds."
    elif said := _liveness(own, name):
        text = f"{who} was restarted because {said}{times}"
    else:
        text = f"{who} ended with exit code {code}{_signal(code)}{times}"
    limit_s: float | None = None
    if restarts >= HOPELESS_RESTARTS and "running" not in status["state"]:
        limit_s = 0 if restarts - restarts_before >= HOPELESS_RESTARTS else _CRASH_AGAIN_S
    if (pod.get("spec") or {}).get("restartPolicy") == "Never":
        limit_s = 0
    return Cause("init" if init else "crash", text, how, limit_s, name)


def _probe(status: Json, own: Sequence[Json], who: str) -> Cause:
    name = str(status["name"])
    unhealthy = [one for one in own if one.get("reason") == "Unhealthy" and _field_of(one) in ("", name)]
    if not unhealthy:
        waits = "it has not passed its startup probe yet" if status.get("started") is False else "is not ready yet"
        return Cause("starting", f"{who} runs; {waits}" if waits.startswith("it") else f"{who} runs, but {waits}",
                     container=name)  # fmt: skip
    said = " ".join(str(max(unhealthy, key=_when).get("message", "")).split())
    probe, _, answer = said.partition(" probe failed: ")
    if not answer:
        return Cause("probe", f"{who} runs, but a probe fails: {said}", container=name)
    return Cause("probe", f"{who} runs, but its {probe.lower()} probe fails: {answer}", container=name)


def _unscheduled(pod: Json, events: Sequence[Json], claims: Sequence[Json], nodes: Sequence[Json]) -> Cause:
    if not any(one["type"] == "PodScheduled" for one in (pod.get("status") or {}).get("conditions") or []):
        return Cause("starting", "waits for the scheduler")
    text, how, limit_s = pending_cause(pod, events, claims, nodes)
    return Cause("pending", text, how, limit_s)


def _creating(pod: Json, own: Sequence[Json]) -> Cause:
    warnings = [one for one in own if one.get("type") == "Warning"]
    if not warnings:
        return Cause("starting", "its containers are being created")
    last = max(warnings, key=_when)
    said = " ".join(str(last.get("message", "")).split())
    if last.get("reason") in {"FailedMount", "FailedAttachVolume"}:
        return Cause("volume", f"a volume cannot be mounted: {said}", "", _VOLUME_S)
    for image in {str(one["image"]) for one in pod["spec"]["containers"]}:
        if last.get("reason") == "Failed" and image in said and "pull" in said:
            # Told by the event some seconds before the container's state tells it.
            text, how = image_cause(image, "ErrImagePull", said)
            return Cause("image", text, how, _IMAGE_S)
    return Cause("starting", f"its containers are being created: {said}")


def _liveness(own: Sequence[Json], container: str) -> str:
    """What the liveness or startup probe said when it had the container killed; "" if it did not."""
    killed = [one for one in own if one.get("reason") == "Killing" and "probe" in str(one.get("message", ""))]
    if not any(_field_of(one) in ("", container) for one in killed):
        return ""
    said = [
        str(one.get("message", ""))
        for one in sorted(own, key=_when)
        if one.get("reason") == "Unhealthy" and not str(one.get("message", "")).startswith("Readiness")
    ]
    probe, _, answer = (" ".join(said[-1].split()) if said else "").partition(" probe failed: ")
    return f"its {probe.lower()} probe failed: {answer}" if answer else "its liveness probe failed"


def _signal(code: object) -> str:
    return {137: " (killed)", 139: " (segmentation fault)", 143: " (asked to end)", 127: " (no such program)",
            126: " (not executable)"}.get(code if isinstance(code, int) else 0, "")  # fmt: skip


def _memory_limit(pod: Json, container: str) -> str:
    spec = pod.get("spec") or {}
    for one in [*(spec.get("initContainers") or []), *(spec.get("containers") or [])]:
        if one["name"] == container:
            return str(((one.get("resources") or {}).get("limits") or {}).get("memory", ""))
    return ""


def _of(pod: Json, events: Iterable[Json]) -> list[Json]:
    return [one for one in events if _uid(one) == pod["metadata"].get("uid")]


def _uid(event: Json) -> str:
    return str((event.get("involvedObject") or {}).get("uid", ""))


def _field_of(event: Json) -> str:
    """The container that an event speaks of; "" if it does not say."""
    field = str((event.get("involvedObject") or {}).get("fieldPath", ""))
    return field.partition("{")[2].rstrip("}")


def _when(event: Json) -> str:
    series = event.get("series") or {}
    times = (series.get("lastObservedTime"), event.get("lastTimestamp"), event.get("eventTime"))
    # Times of one format sort as texts; microseconds make no difference to who is last by a second.
    return str(next((one for one in times if one), (event.get("metadata") or {}).get("creationTimestamp", "")))
