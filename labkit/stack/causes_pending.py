"""Why no node takes a pod: what it asks for, what nodes have, which volumes are missing."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["bytes_of", "cores_of", "pending_cause"]

Json = Mapping[str, Any]

_BEYOND_ALL_NODES_S = 30.0
_CLAIM_FAILS_S = 60.0
_SUFFIXES = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}
_QUANTITY = re.compile(r"(?P<number>[0-9.]+(?:e[0-9]+)?)(?P<suffix>[A-Za-z]*)")


def cores_of(quantity: str) -> float:
    """
    Processor cores of a quantity.

    >>> cores_of("250m"), cores_of("2")
    (0.25, 2.0)
    """
    return float(quantity[:-1]) / 1000 if quantity.endswith("m") else float(quantity)


def bytes_of(quantity: str) -> float:
    """
    Bytes of a quantity.

    >>> bytes_of("64Mi"), bytes_of("1G")
    (67108864.0, 1000000000.0)
    """
    match = _QUANTITY.fullmatch(quantity)
    if match is None or match["suffix"] not in {*_SUFFIXES, "m"}:
        raise ValueError(f"{quantity!r} is not a quantity of memory")
    scale = 0.001 if match["suffix"] == "m" else _SUFFIXES[match["suffix"]]
    return float(match["number"]) * scale


def pending_cause(
    pod: Json, events: Sequence[Json], claims: Sequence[Json], nodes: Sequence[Json]
) -> tuple[str, str, float | None]:
    """
    Why a pod has no node, what to do, and after how many seconds waiting is hopeless (None: it may heal).

    Args:
        pod: one that the scheduler found no node for.
        events: of its namespace.
        claims: the PersistentVolumeClaims of its namespace.
        nodes: of the cluster; may be empty.
    """
    said = _scheduler_says(pod)
    own = _own_claims(pod)
    missing = [name for name in own if name not in {one["metadata"]["name"] for one in claims}]
    unbound = [one for one in claims if one["metadata"]["name"] in own and _phase(one) != "Bound"]
    # A volume that comes with its pod is bound after a node was found; only others hold the pod back.
    if "PersistentVolumeClaim" in said or "persistentvolumeclaim" in said or "volume" in said:
        return _volume(said, missing, unbound, events)
    lacks = [what for what in ("cpu", "memory") if f"Insufficient {what}" in said]
    if lacks:
        return _too_small(pod, lacks, nodes)
    if "Too many pods" in said:
        return "the nodes hold as many pods as they may", "End what is not needed there, or add a node.", None
    # A control plane is tainted always: that is the reason only when there is no other.
    if "taint" in said and "didn't" not in said:
        how = "`kubectl describe nodes` names the taints: a node that is cordoned, not ready, or short of disk."
        return f"no node takes it, for their taints: {_nodes_part(said)}", how, None
    return f"no node takes it: {_nodes_part(said)}", "", None


def _scheduler_says(pod: Json) -> str:
    for one in (pod.get("status") or {}).get("conditions") or []:
        if one["type"] == "PodScheduled" and one["status"] == "False":
            return str(one.get("message", ""))
    return ""


def _nodes_part(said: str) -> str:
    """What the scheduler says of nodes, without what it says of preemption, which nobody asked for."""
    return said.partition(" preemption:")[0].partition(" no new claims")[0].strip().rstrip(".")


def _own_claims(pod: Json) -> list[str]:
    volumes = (pod.get("spec") or {}).get("volumes") or []
    return [one["persistentVolumeClaim"]["claimName"] for one in volumes if "persistentVolumeClaim" in one]


def _phase(claim: Json) -> str:
    return str((claim.get("status") or {}).get("phase", ""))


def _volume(
    said: str, missing: Sequence[str], unbound: Sequence[Json], events: Sequence[Json]
) -> tuple[str, str, float | None]:
    if missing:
        return f"its volume claim {missing[0]} does not exist", "", _CLAIM_FAILS_S
    for claim in unbound:
        name, kind = claim["metadata"]["name"], (claim.get("spec") or {}).get("storageClassName")
        uid = claim["metadata"].get("uid")
        failed = [
            one
            for one in events
            if (one.get("involvedObject") or {}).get("uid") == uid
            and one.get("reason") in {"ProvisioningFailed", "FailedBinding"}
        ]
        why = " ".join(str(failed[-1].get("message", "")).split()) if failed else ""
        if not kind:
            how = "The cluster has no default storage class: `kubectl get storageclass` lists what there is."
            return f"its volume claim {name} is not bound: {why or 'it names no storage class'}", how, _CLAIM_FAILS_S
        text = f"its volume claim {name} (storage class {kind}) is not bound" + (f": {why}" if why else "")
        return text, "`kubectl get storageclass` lists what there is.", _CLAIM_FAILS_S if why else None
    return f"no node takes it, for its volumes: {_nodes_part(said)}", "", None


def _too_small(pod: Json, lacks: Sequence[str], nodes: Sequence[Json]) -> tuple[str, str, float | None]:
    parts, beyond = [], False
    for what in lacks:
        asked, most = _asked(pod, what), _largest(nodes, what)
        parts.append(f"{_shown(asked, what)}" + (f", and the largest node has {_shown(most, what)}" if most else ""))
        beyond = beyond or (most is not None and asked > most)
    text = f"no node has enough {' and '.join(lacks)} free: it asks for {'; for '.join(parts)}"
    if beyond:
        return (
            text,
            "Give the cluster a larger node (for Docker: its settings), or use a smaller profile.",
            (_BEYOND_ALL_NODES_S),
        )
    return f"{text}, of which other pods hold a part", "End what else runs there, or use a smaller profile.", None


def _asked(pod: Json, what: str) -> float:
    spec = pod.get("spec") or {}

    def of(container: Json) -> float:
        quantity = ((container.get("resources") or {}).get("requests") or {}).get(what)
        return _parsed(str(quantity), what) if quantity is not None else 0.0

    together = sum(of(one) for one in spec.get("containers") or [])
    return max([together, *(of(one) for one in spec.get("initContainers") or [])])


def _largest(nodes: Sequence[Json], what: str) -> float | None:
    sizes = [((one.get("status") or {}).get("allocatable") or {}).get(what) for one in nodes]
    return max((_parsed(str(one), what) for one in sizes if one is not None), default=None)


def _parsed(quantity: str, what: str) -> float:
    return cores_of(quantity) if what == "cpu" else bytes_of(quantity)


def _shown(value: float, what: str) -> str:
    if what == "cpu":
        return f"{value:g} CPU" + ("" if value == 1 else "s")
    return f"{value / 2**20:,.0f} MiB".replace(",", " ")
