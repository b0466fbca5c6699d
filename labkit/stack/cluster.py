"""A cluster as a lab uses it: its namespaces, its pods and what they say."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from labkit.errors import ClusterRefused, NamespaceStuck, NotOurs
from labkit.stack.cluster_api import GRACE_S, MERGE, Api

__all__ = ["LAB_ID", "MANAGED_BY", "MANAGER", "Cluster", "LabNamespace", "stuck_because"]

MANAGED_BY = "app.kubernetes.io/managed-by"
LAB_ID = "labkit/lab-id"
MANAGER = "labkit"

# Warned of as well as enforced: a Deployment is accepted whatever its pods are, and only the warning says so at once.
_POD_SECURITY = {
    f"pod-security.kubernetes.io/{mode}": level
    for mode, level in (("enforce", "restricted"), ("warn", "restricted"), ("enforce-version", "latest"))
}
_EVERY_S = 0.5


@dataclass(frozen=True, slots=True)
class LabNamespace:
    """A namespace that labkit made: whose lab it is, since when (RFC 3339, UTC), and whether it is going."""

    name: str
    lab_id: str
    created: str
    terminating: bool


class Cluster:
    """
    One cluster, by a context of a kubeconfig.

    Every method asks the API server with limits and raises `ClusterGone` when it does not answer, `ClusterRefused`
    with its words when it says no.  What may be done twice is asked again while the server is restarting.

    Args:
        kubeconfig: the file to read; KUBECONFIG or ~/.kube/config if None.
        context: a context in it.
        grace_s: how long the server may be silent in the middle of something, in seconds.

    Raises:
        ConfigInvalid: there is no such file or context, or it cannot be used.
    """

    def __init__(self, kubeconfig: Path | None, context: str, *, grace_s: float = GRACE_S) -> None:
        self.api = Api(kubeconfig, context, grace_s=grace_s)

    @property
    def context(self) -> str:
        """The name of the context."""
        return self.api.context

    @property
    def server(self) -> str:
        """The address of the API server."""
        return self.api.server

    def version(self) -> str:
        """The version of Kubernetes, as `v1.34.4`; asked once, without patience."""
        return str(self.api.call("GET", "/version", what="to tell its version")["gitVersion"])

    def get(self, path: str, query: Mapping[str, str] | None = None, what: str = "") -> Any:
        """An object or list by its path; None when there is no such object."""
        try:
            return self.api.patiently(lambda: self.api.call("GET", path, query=query, what=what or f"to read {path}"))
        except ClusterRefused as error:
            if error.status == 404:
                return None
            raise

    def items(self, path: str, query: Mapping[str, str] | None = None) -> list[dict[str, Any]]:
        """The objects of a list; empty when there are none."""
        found = self.get(path, query)
        return list((found or {}).get("items") or [])

    # Namespaces

    def namespace_labels(self, name: str) -> dict[str, str] | None:
        """The labels of a namespace; None when there is none of this name."""
        found = self.get(f"/api/v1/namespaces/{name}")
        return None if found is None else dict(found["metadata"].get("labels") or {})

    def labs(self) -> list[LabNamespace]:
        """The namespaces that labkit made on this cluster, by name."""
        found = self.items("/api/v1/namespaces", {"labelSelector": f"{MANAGED_BY}={MANAGER}"})
        return sorted((_lab_namespace(one) for one in found), key=lambda one: one.name)

    def create_namespace(self, name: str, lab_id: str, labels: Mapping[str, str] | None = None) -> bool:
        """
        A namespace of this lab, with Pod Security `restricted`.

        Returns:
            True when it was made, False when this lab had it already; then its labels are put right.

        Raises:
            NotOurs: there is one of this name that labkit did not make, or that is another lab's.
            NamespaceStuck: this lab's own is still going away.
        """
        wanted = {**(labels or {}), **_POD_SECURITY, MANAGED_BY: MANAGER, LAB_ID: lab_id}
        body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": wanted}}
        try:
            self.api.call("POST", "/api/v1/namespaces", body=body, what=f"to create namespace {name}",
                          query={"fieldManager": MANAGER})  # fmt: skip
        except ClusterRefused as error:
            if error.status != 409:
                raise
        else:
            return True
        found = self._ours(name, lab_id)
        if found is not None and found["metadata"].get("deletionTimestamp"):
            raise NamespaceStuck(name, waited_s=0, blockers=stuck_because(self, found), how=_how_stuck(self, name))
        self.api.call("PATCH", f"/api/v1/namespaces/{name}", body={"metadata": {"labels": wanted}},
                      content_type=MERGE, what=f"to label namespace {name}")  # fmt: skip
        return False

    def delete_namespace(
        self,
        name: str,
        lab_id: str,
        timeout_s: float = 120,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> bool:
        """
        Delete this lab's namespace with all that is in it, and wait until it is gone.

        Args:
            name: of the namespace.
            lab_id: the lab it must belong to.
            timeout_s: limit for all of it, in seconds; 0 does not wait.
            clock: monotonic seconds; replaced in tests.
            sleep: pauses; replaced in tests.

        Returns:
            True when it was deleted, False when there was none.

        Raises:
            NotOurs: labkit did not make it, or it is another lab's; it was not touched.
            NamespaceStuck: it does not go; names what holds it.
        """
        found = self._ours(name, lab_id)
        if found is None:
            return False
        # The uid makes sure that what is deleted is what was looked at.
        body = {"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": {"uid": found["metadata"]["uid"]}}
        self._delete(f"/api/v1/namespaces/{name}", f"to delete namespace {name}", body)
        uid, start = found["metadata"]["uid"], clock()
        while timeout_s > 0:
            found = self.get(f"/api/v1/namespaces/{name}")
            if found is None or found["metadata"]["uid"] != uid:
                break
            if clock() - start >= timeout_s:
                blockers = stuck_because(self, found)
                raise NamespaceStuck(name, waited_s=timeout_s, blockers=blockers, how=_how_stuck(self, name))
            sleep(_EVERY_S)
        return True

    def _ours(self, name: str, lab_id: str) -> dict[str, Any] | None:
        found: dict[str, Any] | None = self.get(f"/api/v1/namespaces/{name}")
        if found is None:
            return None
        labels = found["metadata"].get("labels") or {}
        what = f"Namespace {name} on {self.context}"
        if labels.get(MANAGED_BY) != MANAGER:
            seen = f"labkit did not make it (it has no label {MANAGED_BY}={MANAGER})"
            raise NotOurs(what, seen=seen, how="Choose another name for the lab's namespace.")
        if labels.get(LAB_ID) != lab_id:
            other = labels.get(LAB_ID) or "unknown"
            how = "End that lab with `labkit down` where it was started, or choose another name."
            raise NotOurs(what, seen=f"it is that of another lab, {other}; this one is {lab_id}", how=how)
        return found

    # Pods and what belongs to them

    def pods(self, namespace: str, selector: str = "") -> list[dict[str, Any]]:
        """The pods of a namespace, as the API gives them; *selector* is one of labels: `a=b,c=d`."""
        query = {"labelSelector": selector} if selector else None
        return self.items(f"/api/v1/namespaces/{namespace}/pods", query)

    def events(self, namespace: str) -> list[dict[str, Any]]:
        """The events of a namespace that the cluster still remembers, in no particular order."""
        return self.items(f"/api/v1/namespaces/{namespace}/events")

    def pod_log(
        self,
        namespace: str,
        pod: str,
        container: str = "",
        *,
        tail: int | None = None,
        since_s: float | None = None,
        previous: bool = False,
    ) -> str:
        """
        What a container wrote; empty when it has written nothing, or has not run.

        Args:
            namespace: of the pod.
            pod: its name.
            container: which one; may be empty when there is one only.
            tail: the last lines only.
            since_s: the last seconds only, at least 1.
            previous: of the run before the last restart.
        """
        query = {
            **({"container": container} if container else {}),
            **({"tailLines": str(tail)} if tail is not None else {}),
            **({"sinceSeconds": str(max(1, round(since_s)))} if since_s is not None else {}),
            **({"previous": "true"} if previous else {}),
        }
        path, what = f"/api/v1/namespaces/{namespace}/pods/{pod}/log", f"to show the log of {pod}"
        try:
            said = self.api.patiently(lambda: self.api.text("GET", path, query=query, what=what))
            # kubelet says so with success when it deleted the log in the same moment.
            return "" if said.startswith("unable to retrieve container logs for") else said
        except ClusterRefused as error:
            # 400: a container that has not started, or has no earlier run; 404: the pod went.
            if error.status in (400, 404):
                return ""
            raise

    def delete_pod(self, namespace: str, pod: str, grace_s: int | None = None) -> bool:
        """Delete a pod, with *grace_s* seconds to end (its own if None, 0 kills it); False if there is none."""
        options: dict[str, Any] = {"kind": "DeleteOptions", "apiVersion": "v1"}
        if grace_s is not None:
            options["gracePeriodSeconds"] = grace_s
        return self._delete(f"/api/v1/namespaces/{namespace}/pods/{pod}", f"to delete pod {pod}", options)

    def patch_configmap(self, namespace: str, name: str, data: Mapping[str, str | None]) -> None:
        """Set keys of a ConfigMap, None removes one; other keys stay.  A later `apply` sets them back."""
        self._merge(f"/api/v1/namespaces/{namespace}/configmaps/{name}", {"data": dict(data)}, f"ConfigMap {name}")

    def annotate_pod(self, namespace: str, pod: str, key: str, value: str | None) -> None:
        """
        Set an annotation of a pod, None removes it.

        kubelet looks at a pod that was changed, so what is mounted from ConfigMaps arrives at once.
        """
        body = {"metadata": {"annotations": {key: value}}}
        self._merge(f"/api/v1/namespaces/{namespace}/pods/{pod}", body, f"pod {pod}")

    def _merge(self, path: str, body: object, what: str) -> None:
        query = {"fieldManager": MANAGER}
        self.api.patiently(
            lambda: self.api.call("PATCH", path, body=body, query=query, content_type=MERGE, what=f"to change {what}")
        )

    def _delete(self, path: str, what: str, body: object) -> bool:
        try:
            self.api.patiently(lambda: self.api.call("DELETE", path, body=body, what=what))
        except ClusterRefused as error:
            # 409 of a namespace: it is going already.
            if error.status in (404, 409):
                return error.status == 409
            raise
        return True


def stuck_because(cluster: Cluster, namespace: Mapping[str, Any]) -> list[str]:
    """
    What holds a namespace that is going away: what its conditions say, and which objects have finalizers.

    Args:
        cluster: where it is.
        namespace: the Namespace object.

    Returns:
        One line per reason; empty when nothing is known.
    """
    conditions = namespace.get("status", {}).get("conditions") or []
    said = [f"{one['type']}: {one.get('message', '')}" for one in conditions if one.get("status") == "True"]
    return [*said, *_held(cluster, namespace["metadata"]["name"])]


def _held(cluster: Cluster, namespace: str) -> list[str]:
    """The objects of a namespace that have finalizers, of every kind that can be listed."""
    lines = []
    for base, resource in _listable(cluster):
        try:
            found = cluster.items(f"{base}/namespaces/{quote(namespace)}/{resource['name']}")
        except ClusterRefused:
            continue
        for one in found:
            meta = one["metadata"]
            if meta.get("finalizers"):
                lines.append(f"{resource['kind']} {meta['name']} has the finalizers {', '.join(meta['finalizers'])}")
    return sorted(set(lines))


def _listable(cluster: Cluster) -> list[tuple[str, dict[str, Any]]]:
    groups = [one["preferredVersion"]["groupVersion"] for one in cluster.get("/apis")["groups"]]
    bases = ["/api/v1", *(f"/apis/{version}" for version in groups)]
    found = []
    for base in bases:
        try:
            resources = (cluster.get(base) or {}).get("resources") or []
        except ClusterRefused:
            # An API that is served by a pod which is gone: often the very reason.
            continue
        found += [(base, one) for one in resources if one["namespaced"] and "list" in one["verbs"]]
    return found


def _how_stuck(cluster: Cluster, name: str) -> str:
    patch = 'patch KIND NAME --type merge -p \'{"metadata":{"finalizers":null}}\''
    return (
        "Whoever set a finalizer has to remove it: usually a controller that is not running. If it will not come "
        f"back, `{cluster.api.kubectl} -n {name} {patch}` for each object; the namespace then goes by itself. "
        "Run the command again after that."
    )


def _lab_namespace(found: Mapping[str, Any]) -> LabNamespace:
    meta = found["metadata"]
    labels = meta.get("labels") or {}
    going = bool(meta.get("deletionTimestamp"))
    return LabNamespace(meta["name"], labels.get(LAB_ID, ""), meta["creationTimestamp"], going)
