"""Bring objects to a cluster by server-side apply, in an order that makes sense, under labkit's own name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from labkit.errors import ClusterRefused, FieldConflict, InvalidValue, UnknownName
from labkit.stack.cluster import MANAGER, Cluster
from labkit.stack.cluster_api import APPLY
from labkit.stack.progress import Event, Progress, silent, step

__all__ = ["apply", "in_order", "resource_of"]

# What others refer to comes first; what makes pods comes last, when all that the pods need is there.
_FIRST = (
    "ResourceQuota", "LimitRange", "NetworkPolicy", "ServiceAccount", "Role", "RoleBinding", "Secret", "ConfigMap",
    "PersistentVolumeClaim", "Service", "PodDisruptionBudget",
)  # fmt: skip
_LAST = ("Pod", "StatefulSet", "DaemonSet", "Deployment", "Job", "CronJob", "HorizontalPodAutoscaler")
_OTHER = len(_FIRST)

_CONFLICT = re.compile(r'conflict with "(?P<owner>[^"]+)"')
# Of other programs' hands, this alone is ours: what `Cluster` changed in place while the lab ran.
_OURS = {MANAGER}
_IMMUTABLE = ("field is immutable", "updates to statefulset spec", "Forbidden: updates to")


def in_order(objects: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """
    Objects in the order in which they are applied; those of one rank by kind and name.

    >>> [one["kind"] for one in in_order([{"kind": "Deployment"}, {"kind": "Ingress"}, {"kind": "ConfigMap"}])]
    ['ConfigMap', 'Ingress', 'Deployment']
    """

    def rank(one: Mapping[str, Any]) -> tuple[int, str, str]:
        kind = str(one.get("kind", ""))
        position = _FIRST.index(kind) if kind in _FIRST else _OTHER
        position += 1 + _LAST.index(kind) if kind in _LAST else 0
        return position, kind, str(one.get("metadata", {}).get("name", ""))

    return sorted(objects, key=rank)


def apply(
    cluster: Cluster,
    objects: Sequence[Mapping[str, Any]],
    namespace: str,
    progress: Progress = silent,
    *,
    dry_run: bool = False,
    take_back: bool = False,
) -> list[dict[str, Any]]:
    """
    Make the objects of a namespace what they are to be; fields that nobody here names stay as they are.

    Args:
        cluster: where.
        objects: of any kinds that live in namespaces, in any order.
        namespace: theirs; an object may name it too, but no other.
        progress: told of the work, and of each warning that the server gives.
        dry_run: the server checks everything (schema, admission, quota) and changes nothing.
        take_back: a field that somebody else has changed since, as with `kubectl set`, is ours again.

    Returns:
        The objects as the server has them now (or would have them), in the order of application.

    Raises:
        ClusterRefused: the server refused an object, which is named, in its own words; those before it stay applied.
        FieldConflict: another program owns a field of an object; fields and owners are named.
        InvalidValue: an object belongs to another namespace, or to none.
        UnknownName: the cluster has no such kind.
        ClusterGone: the API server does not answer.
    """
    known: dict[str, dict[str, dict[str, Any]]] = {}
    # All of them first: a mistake in the last must not leave a lab that is half there.
    paths = [(one, _path(cluster, one, namespace, known)) for one in in_order(objects)]
    what = f"{'check' if dry_run else 'apply'} {len(paths)} objects in {namespace}"
    with step(progress, what):
        return [_apply_one(cluster, one, path, progress, dry_run=dry_run, force=take_back) for one, path in paths]


def _apply_one(
    cluster: Cluster, one: Mapping[str, Any], path: str, progress: Progress, *, dry_run: bool, force: bool
) -> dict[str, Any]:
    name = f"{one['kind']} {one['metadata']['name']}"
    query = {"fieldManager": MANAGER, "force": str(force).lower(), **({"dryRun": "All"} if dry_run else {})}

    def warn(text: str) -> None:
        progress(Event("note", name, detail=text))

    def send() -> Any:
        return cluster.api.call("PATCH", path, what=name, query=query, body=one, content_type=APPLY, warn=warn)

    try:
        answer: dict[str, Any] = cluster.api.patiently(send)
    except ClusterRefused as error:
        owners = _owners(error)
        if error.status == 409 and owners and set(owners.values()) <= _OURS:
            query["force"] = "true"
            answer = cluster.api.patiently(send)
        elif error.status == 409 and owners:
            others = {field: owner for field, owner in owners.items() if owner not in _OURS}
            raise FieldConflict(name, owners=others, said=error.said) from error
        else:
            raise _explained(error) from error
    return answer


def _owners(error: ClusterRefused) -> dict[str, str]:
    causes = (error.answer.get("details") or {}).get("causes") or []
    found = {str(one.get("field", "")): _CONFLICT.search(str(one.get("message", ""))) for one in causes}
    return {field: match["owner"] for field, match in found.items() if match}


def _explained(error: ClusterRefused) -> ClusterRefused:
    """The same refusal with what to do, where the server's words do not say it."""
    how = error.how
    if any(sign in error.said for sign in _IMMUTABLE):
        how = "This cannot be changed in place: run `labkit down`, then `labkit up`."
    elif "exceeded quota" in error.said:
        how = "Ask whoever runs the cluster for a larger quota, or use a smaller profile."
    elif "violates PodSecurity" in error.said:
        how = (
            "The namespace allows `restricted` pods only; the object's securityContext has to say what the words name."
        )
    elif "being terminated" in error.said:
        how = "The namespace is going away; wait until it is gone, then run the command again."
    return ClusterRefused(error.what, status=error.status, said=error.said, answer=error.answer, how=how)


def resource_of(
    cluster: Cluster, one: Mapping[str, Any], known: dict[str, dict[str, dict[str, Any]]]
) -> dict[str, Any]:
    """
    What the cluster calls an object's kind: `name` (plural), `namespaced`, `verbs`.

    Args:
        cluster: where.
        one: the object.
        known: what was asked already, by apiVersion and kind; filled here.

    Raises:
        InvalidValue: it is no object.
        UnknownName: the cluster has no such kind.
    """
    version, kind, meta = str(one.get("apiVersion", "")), str(one.get("kind", "")), one.get("metadata") or {}
    if not (version and kind and meta.get("name")):
        raise InvalidValue("an object", expected="one with apiVersion, kind and metadata.name", got=dict(one))
    if version not in known:
        found = cluster.get(_base(version)) or {}
        known[version] = {r["kind"]: r for r in found.get("resources") or [] if "/" not in r["name"]}
    resource = known[version].get(kind)
    if resource is None:
        how = f"Kubernetes {cluster.version()} on {cluster.context} may be too old or lack an extension."
        raise UnknownName(f"kind of {version} on this cluster", kind, known=list(known[version]), how=how)
    return resource


def _path(cluster: Cluster, one: Mapping[str, Any], namespace: str, known: dict[str, dict[str, dict[str, Any]]]) -> str:
    resource, meta = resource_of(cluster, one, known), one["metadata"]
    name = f"{one['kind']} {meta['name']}"
    if not resource["namespaced"]:
        raise InvalidValue(
            name, expected="an object that lives in a namespace, as a lab does", got="one of the cluster"
        )
    if meta.get("namespace") not in (None, namespace):
        raise InvalidValue(f"the namespace of {name}", expected=repr(namespace), got=meta["namespace"])
    return f"{_base(one['apiVersion'])}/namespaces/{namespace}/{resource['name']}/{meta['name']}"


def _base(version: str) -> str:
    return f"/apis/{version}" if "/" in version else f"/api/{version}"
