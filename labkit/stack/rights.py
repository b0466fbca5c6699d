"""What a lab must be allowed to do on a cluster, asked before anything is made."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from labkit.errors import ClusterRefused, RightsMissing
from labkit.stack.cluster import Cluster
from labkit.stack.cluster_apply import resource_of
from labkit.stack.progress import Progress, silent, step

__all__ = ["Right", "missing_rights", "require_rights", "rights_of", "role_for"]

_APPLY_VERBS = ("create", "get", "patch")
# What a lab does beside applying: (group, resource, verbs).  A port-forward is a `get` for a websocket, and was a
# `create` before.
_OF_THE_NAMESPACE: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("", "pods", ("get", "list", "watch", "delete", "patch")),
    ("", "pods/log", ("get",)),
    ("", "pods/portforward", ("get", "create")),
    ("", "configmaps", ("get", "patch")),
    ("", "events", ("list",)),
    ("", "persistentvolumeclaims", ("list",)),
    ("apps", "deployments", ("get", "list", "patch")),
    ("apps", "statefulsets", ("get", "list", "patch")),
    ("apps", "replicasets", ("list",)),
)
_OF_THE_CLUSTER: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("", "namespaces", ("get", "list", "create", "patch", "delete")),
)


@dataclass(frozen=True, slots=True, order=True)
class Right:
    """One verb on one kind of resource; `resource` may have a subresource, `namespace` is "" for the cluster's own."""

    group: str
    resource: str
    verb: str
    namespace: str

    def __str__(self) -> str:
        name, _, sub = self.resource.partition("/")
        full = (f"{name}.{self.group}" if self.group else name) + (f"/{sub}" if sub else "")
        return f"{self.verb} {full} in {f'namespace {self.namespace}' if self.namespace else 'the cluster'}"


def rights_of(cluster: Cluster, objects: Iterable[Mapping[str, Any]], namespace: str) -> list[Right]:
    """
    All that a lab of these objects needs, without repetitions.

    Whoever makes a Role must have what the Role gives; so its rules count too.
    """
    known: dict[str, dict[str, dict[str, Any]]] = {}
    found = {Right(group, name, verb, namespace) for group, name, verbs in _OF_THE_NAMESPACE for verb in verbs}
    found |= {Right(group, name, verb, "") for group, name, verbs in _OF_THE_CLUSTER for verb in verbs}
    for one in objects:
        group = one["apiVersion"].rpartition("/")[0]
        name = resource_of(cluster, one, known)["name"]
        found |= {Right(group, name, verb, namespace) for verb in _APPLY_VERBS}
        if one["kind"] == "Role":
            found |= _handed_on(one, namespace)
    return sorted(found)


def _handed_on(role: Mapping[str, Any], namespace: str) -> set[Right]:
    return {
        Right(group, resource, verb, namespace)
        for rule in role.get("rules") or []
        for group in rule.get("apiGroups") or []
        for resource in rule.get("resources") or []
        for verb in rule.get("verbs") or []
    }


def missing_rights(cluster: Cluster, rights: Sequence[Right]) -> list[Right]:
    """Those that the cluster says this user has not; asked one by one, nothing is tried."""
    if _allowed(cluster, Right("*", "*", "*", "")):
        return []
    return [right for right in rights if not _allowed(cluster, right)]


def require_rights(
    cluster: Cluster, objects: Sequence[Mapping[str, Any]], namespace: str, progress: Progress = silent
) -> None:
    """
    Nothing, when this user may do all that a lab of these objects needs.

    Raises:
        RightsMissing: names all that is missing, with a role that would grant it.
    """
    with step(progress, f"ask for the rights that a lab needs in {namespace}"):
        missing = missing_rights(cluster, rights_of(cluster, objects, namespace))
        if not missing:
            return
        role = role_for(missing, namespace if _exists(cluster, namespace) else "", who=_whoami(cluster))
        how = f"Whoever runs the cluster can grant it with `kubectl apply -f -` and these lines:\n{role}"
        raise RightsMissing(cluster.context, namespace=namespace, missing=_lines(missing), how=how)


def role_for(missing: Sequence[Right], namespace: str, who: str = "") -> str:
    """
    Manifests that grant rights, as YAML.

    Args:
        missing: what they grant.
        namespace: where a Role can be put; "" while it does not exist, then a ClusterRole must do for all of it.
        who: the user (or `system:serviceaccount:NAMESPACE:NAME`) it is bound to.
    """
    inside = [right for right in missing if right.namespace] if namespace else []
    across = [right for right in missing if right not in inside]
    subject = {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": who or "NAME-OF-THE-USER"}
    documents: list[dict[str, Any]] = []
    for kind, rights in (("Role", inside), ("ClusterRole", across)):
        if not rights:
            continue
        meta = {"name": "labkit-user", **({"namespace": namespace} if kind == "Role" else {})}
        head = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind, "metadata": meta}
        reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": "labkit-user"}
        documents.append({**head, "rules": _rules(rights)})
        documents.append({**head, "kind": f"{kind}Binding", "roleRef": reference, "subjects": [subject]})
    return yaml.safe_dump_all(documents, sort_keys=False, default_flow_style=None, width=110)


def _rules(rights: Sequence[Right]) -> list[dict[str, list[str]]]:
    verbs: dict[tuple[str, str], set[str]] = {}
    for right in rights:
        verbs.setdefault((right.group, right.resource), set()).add(right.verb)
    alike: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for (group, resource), allowed in verbs.items():
        alike.setdefault((group, tuple(sorted(allowed))), []).append(resource)
    return [
        {"apiGroups": [group], "resources": sorted(resources), "verbs": list(allowed)}
        for (group, allowed), resources in alike.items()
    ]


def _lines(missing: Sequence[Right]) -> list[str]:
    """One line per resource, with all its verbs."""
    verbs: dict[str, list[str]] = {}
    for right in missing:
        verbs.setdefault(str(right).partition(" ")[2], []).append(right.verb)
    return [f"{', '.join(sorted(listed))} {what}" for what, listed in verbs.items()]


def _allowed(cluster: Cluster, right: Right) -> bool:
    resource, _, sub = right.resource.partition("/")
    asked = {"group": right.group, "resource": resource, "subresource": sub, "verb": right.verb}
    attributes = {**asked, "namespace": right.namespace} if right.namespace else asked
    body = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": attributes},
    }
    path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    answer = cluster.api.patiently(lambda: cluster.api.call("POST", path, body=body, what="to tell our rights"))
    return bool(answer["status"]["allowed"])


def _whoami(cluster: Cluster) -> str:
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
    try:
        answer = cluster.api.call("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", body=body)
    except ClusterRefused:
        # Kubernetes before 1.28 does not say.
        return ""
    return str(answer["status"]["userInfo"].get("username", ""))


def _exists(cluster: Cluster, namespace: str) -> bool:
    try:
        return cluster.namespace_labels(namespace) is not None
    except ClusterRefused:
        return False
