"""One kind cluster on the rig, as tests speak to it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from labkit._wait import wait_until
from tests.kind.rig.engine import Engine

__all__ = ["Cluster", "cluster"]

# What anything on the cluster may take on a machine whose two cores are shared.
PATIENCE_S = 180
_CREATE_TIMEOUT_S = 600

_CONFIGURATION = """
kind: Cluster
apiVersion: kind.x-k8s.io/v1alpha4
networking: {apiServerAddress: 127.0.0.1}
nodes:
"""


@dataclass(frozen=True, slots=True)
class Cluster:
    """A running cluster: its engine and its name."""

    engine: Engine
    name: str

    def kubectl(self, *arguments: str, input_text: str | None = None, timeout_s: float = PATIENCE_S) -> str:
        """What kubectl wrote; an error with its last lines when it failed."""
        argv = ["kubectl", "--context", f"kind-{self.name}", *arguments]
        return self.engine.run(*argv, timeout_s=timeout_s, input_text=input_text)

    def apply(self, manifest: str, namespace: str) -> None:
        """Apply objects in a namespace."""
        self.kubectl("-n", namespace, "apply", "-f", "-", input_text=manifest)

    def get(self, *arguments: str) -> Any:
        """An object, or a list of them as `items`, as `kubectl get` gives it."""
        return json.loads(self.kubectl("get", *arguments, "-o", "json"))

    def pod(self, name: str, namespace: str) -> Any:
        """The status of a pod's only container; empty before there is one."""
        statuses = self.get("pod", name, "-n", namespace)["status"].get("containerStatuses", [])
        return statuses[0] if statuses else {}

    def wait(self, what: str, condition: str, namespace: str) -> None:
        """Until a condition of *what* is true, as `kubectl wait` names both."""
        self.kubectl("-n", namespace, "wait", what, f"--for={condition}", f"--timeout={PATIENCE_S}s",
                     timeout_s=PATIENCE_S + 30)  # fmt: skip

    @contextmanager
    def namespace(self, name: str) -> Iterator[str]:
        """A namespace of its own, which is deleted after the block; nobody waits for that."""
        self.kubectl("create", "namespace", name)

        def has_account() -> bool:
            return bool(self.get("serviceaccounts", "-n", name)["items"])

        # A pod that is created before it is refused.
        wait_until(has_account, "the namespace's service account", timeout_s=PATIENCE_S)
        try:
            yield name
        finally:
            self.kubectl("delete", "namespace", name, "--wait=false")


@contextmanager
def cluster(engine: Engine, name: str, *, workers: int = 0) -> Iterator[Cluster]:
    """A cluster with one control plane and *workers* further nodes, while the block runs."""
    configuration = _CONFIGURATION + "".join(f"  - role: {role}\n" for role in ["control-plane", *["worker"] * workers])
    delete = ["kind", "delete", "cluster", "--name", name]
    create = ["kind", "create", "cluster", "--name", name, "--image", engine.environment["RIG_NODE_IMAGE"]]
    # A run that was killed leaves its cluster on an engine that stays up.
    engine.run(*delete, timeout_s=PATIENCE_S)
    try:
        engine.run(*create, "--config", "-", "--wait", "300s", timeout_s=_CREATE_TIMEOUT_S, input_text=configuration)
        up = Cluster(engine, name)
        # kind waits for the control plane alone.
        up.kubectl(
            "wait", "nodes", "--all", "--for=condition=Ready", f"--timeout={PATIENCE_S}s", timeout_s=PATIENCE_S + 30
        )
        up.wait("deployment/coredns", "condition=Available", "kube-system")
        yield up
    finally:
        engine.run(*delete, timeout_s=PATIENCE_S)
