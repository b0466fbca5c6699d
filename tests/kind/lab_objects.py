"""Small workloads as a lab applies them, the cluster as labkit speaks to it, and a line to it that can be cut."""

from __future__ import annotations

import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import pytest
import yaml

from labkit.stack.cluster import Cluster
from tests.kind import cluster as kubectl
from tests.kind.rig.engine import Engine
from tests.kind.rig.node_image import TOOLS_IMAGE

__all__ = [
    "LAB",
    "NEVER_READY",
    "PATIENCE_S",
    "SAFE",
    "Object",
    "Relay",
    "configmap",
    "hurried",
    "inside",
    "kubeconfig",
    "namespace_of_a_lab",
    "workload",
]

Object = dict[str, Any]
PATIENCE_S = 120
LAB = "e0e0e0"
NEVER_READY = {
    "readinessProbe": {"exec": {"command": ["sh", "-c", "echo the database is away; exit 1"]}, "periodSeconds": 1}
}
SAFE = {
    "runAsNonRoot": True,
    "runAsUser": 10001,
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}


def workload(
    name: str, command: str, /, *, kind: str = "Deployment", pod: Object | None = None, **more: object
) -> Object:
    """A Deployment or StatefulSet of one pod that may run where Pod Security is `restricted`."""
    container = {"name": name, "image": TOOLS_IMAGE, "command": ["sh", "-c", command], "securityContext": SAFE, **more}
    template = {
        "metadata": {"labels": {"app": name}},
        "spec": {"terminationGracePeriodSeconds": 0, "containers": [container], **(pod or {})},
    }
    spec: Object = {"replicas": 1, "selector": {"matchLabels": {"app": name}}, "template": template}
    if kind == "StatefulSet":
        spec["serviceName"] = name
    return {"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name}, "spec": spec}


def configmap(name: str, **data: str) -> Object:
    """A ConfigMap."""
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def hurried() -> float:
    """A clock that runs twenty times as fast, for limits that are minutes."""
    return time.monotonic() * 20


@contextmanager
def inside(rig: Engine, request: pytest.FixtureRequest) -> Iterator[kubectl.Cluster]:
    """The cluster that RIG_CLUSTER names, or that of two nodes; this process is in its network meanwhile."""
    name = os.environ.get("RIG_CLUSTER")
    up = kubectl.Cluster(rig, name) if name else request.getfixturevalue("two_nodes")
    with rig.entered():
        yield up


@contextmanager
def namespace_of_a_lab(cluster: Cluster, title: str) -> Iterator[str]:
    """A lab's namespace while the block runs."""
    name = f"e-{title}-{secrets.token_hex(2)}"
    cluster.create_namespace(name, LAB)
    try:
        yield name
    finally:
        cluster.delete_namespace(name, LAB, timeout_s=0)


class Relay:
    """A TCP relay to an API server, which can be cut: then it drops what is open and takes nothing new."""

    def __init__(self, server: str) -> None:
        address = urlsplit(server)
        self._target = (str(address.hostname), int(address.port or 443))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.server = f"https://127.0.0.1:{self._listener.getsockname()[1]}"
        self._open: list[socket.socket] = []
        self._is_cut = False
        self.cuts = self.refused = 0

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.cut()
        # A thread that waits in accept keeps a closed socket open; shutdown wakes it.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def cut(self) -> None:
        """Drop all connections; new ones are closed at once."""
        self._is_cut, self.cuts = True, self.cuts + 1
        for one in self._open:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        self._open.clear()

    def mend(self) -> None:
        """Take connections again."""
        self._is_cut = False

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            if self._is_cut:
                self.refused += 1
                near.close()
                continue
            far = socket.create_connection(self._target, timeout=10)
            far.settimeout(None)
            self._open += [near, far]
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=_copy, args=(source, sink), daemon=True).start()


def _copy(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    with suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


def kubeconfig(folder: Path, *, server: str = "", user: Mapping[str, str] | None = None) -> Path:
    """A copy of the kubeconfig in force, with another server or user."""
    content = yaml.safe_load(Path(os.environ["KUBECONFIG"]).read_text(encoding="utf-8"))
    for one in content["clusters"] if server else ():
        one["cluster"]["server"] = server
    for one in content["users"] if user else ():
        one["user"] = dict(user or {})
    path = folder / "kubeconfig"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path
