"""The images of the lab's servers: each runs with the least rights, and is what it is called."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import yaml

from labkit.settings import files_root
from tests.kind.cluster import Cluster
from tests.kind.rig.engine import Engine
from tests.kind.rig.parts import Parts
from tests.kind.rig.stack_images import STACK_IMAGES, stack_archive

_K8S = files_root() / "infra" / "k8s"
_LOAD_TIMEOUT_S = 600
_NAMESPACE = "stack-images"
_USER = 10001
# In a pod.
_EVERY_ADDRESS = "0.0.0.0"  # noqa: S104


@dataclass(frozen=True, slots=True)
class Server:
    """
    How a server is started and asked.

    Args:
        ready: the probe that it answers.
        version: the command that says its version.
        args: of its entrypoint, or of none in an image without.
        writes: the folders that it writes to.
        env: its variables.
        config: the content of `/config/file`, if it reads one.
        reads_pods: whether it asks the API server for them.
    """

    ready: dict[str, Any]
    version: list[str]
    args: list[str] = field(default_factory=list)
    writes: list[str] = field(default_factory=list)
    env: dict[str, str] = field(default_factory=dict)
    config: Any = None
    reads_pods: bool = False


def _answers(port: int, path: str) -> dict[str, Any]:
    return {"httpGet": {"port": port, "path": path}}


def _listens(port: int) -> dict[str, Any]:
    return {"tcpSocket": {"port": port}}


_MARIADB = """
mariadb-install-db --no-defaults --datadir=/data --auth-root-authentication-method=normal --skip-test-db
exec mariadbd --no-defaults --datadir=/data --socket=/tmp/socket --port=13306 --bind-address=0.0.0.0
"""
_JAEGER = {
    "service": {
        "extensions": ["jaeger_storage", "jaeger_query", "healthcheckv2"],
        "pipelines": {"traces": {"receivers": ["otlp"], "exporters": ["jaeger_storage_exporter"]}},
    },
    "extensions": {
        "healthcheckv2": {
            "use_v2": True,
            "http": {"endpoint": "0.0.0.0:13133", "status": {"enabled": True, "path": "/status"}},
        },
        "jaeger_query": {"storage": {"traces": "memory"}},
        "jaeger_storage": {"backends": {"memory": {"memory": {"max_traces": 10}}}},
    },
    "receivers": {"otlp": {"protocols": {"http": {"endpoint": "0.0.0.0:4318"}}}},
    "exporters": {"jaeger_storage_exporter": {"trace_storage": "memory"}},
}
SERVERS = {
    "prometheus": Server(
        _answers(9090, "/-/ready"),
        ["prometheus", "--version"],
        args=["--config.file=/config/file", "--storage.tsdb.path=/data"],
        writes=["/data"],
        config={},
    ),
    "alertmanager": Server(
        _answers(9093, "/-/ready"),
        ["alertmanager", "--version"],
        args=["--config.file=/config/file", "--storage.path=/data", "--cluster.listen-address="],
        writes=["/data"],
        config={"route": {"receiver": "none"}, "receivers": [{"name": "none"}]},
    ),
    "node-exporter": Server(_answers(9100, "/metrics"), ["node_exporter", "--version"]),
    "blackbox-exporter": Server(
        _answers(9115, "/-/healthy"),
        ["blackbox_exporter", "--version"],
        args=["--config.file=/config/file"],
        config={"modules": {"http": {"prober": "http"}}},
    ),
    "kube-state-metrics": Server(
        _answers(8080, "/metrics"),
        ["kube-state-metrics", "version"],
        args=[f"--namespaces={_NAMESPACE}", "--resources=pods"],
        reads_pods=True,
    ),
    "mariadb": Server(
        _listens(13306), ["mariadbd", "--version"], args=["sh", "-euc", _MARIADB], writes=["/data", "/tmp"]
    ),
    "redis": Server(
        _listens(16379),
        ["redis-server", "--version"],
        args=["redis-server", "--bind", _EVERY_ADDRESS, "--port", "16379", "--dir", "/data"],
        writes=["/data"],
    ),
    "toxiproxy": Server(_answers(8474, "/version"), ["toxiproxy-server", "--version"], args=["-host", _EVERY_ADDRESS]),
    "jaeger": Server(_answers(13133, "/status"), ["jaeger", "version"], args=["--config=/config/file"], config=_JAEGER),
    # The settings are those of the public image; the probe wants what a lab's wants.
    "opensearch": Server(
        _answers(9200, "/_cluster/health?wait_for_status=yellow&wait_for_nodes=1&timeout=0s"),
        ["/usr/share/opensearch/labkit-opensearch", "--version"],
        writes=["/usr/share/opensearch/data", "/tmp"],
        env={
            "OPENSEARCH_JAVA_OPTS": "-Xms200m -Xmx200m",
            "discovery.type": "single-node",
            "DISABLE_SECURITY_PLUGIN": "true",
            "DISABLE_INSTALL_DEMO_CONFIG": "true",
        },
    ),
}

_RBAC = "rbac.authorization.k8s.io"
_RIGHT_TO_READ_PODS = [
    {
        "apiVersion": f"{_RBAC}/v1",
        "kind": "Role",
        "metadata": {"name": "reader"},
        "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "watch"]}],
    },
    {
        "apiVersion": f"{_RBAC}/v1",
        "kind": "RoleBinding",
        "metadata": {"name": "reader"},
        "roleRef": {"apiGroup": _RBAC, "kind": "Role", "name": "reader"},
        "subjects": [{"kind": "ServiceAccount", "name": "default", "namespace": _NAMESPACE}],
    },
]


def _pod(name: str, server: Server) -> dict[str, Any]:
    """The pod of a server, with the least rights that a namespace can insist on."""
    folders = {f"folder-{number}": path for number, path in enumerate(server.writes)}
    config = [{"name": "config", "configMap": {"name": "config", "items": [{"key": name, "path": "file"}]}}]
    container = {
        "name": "server",
        "image": STACK_IMAGES[name],
        "imagePullPolicy": "Never",
        "args": server.args,
        "env": [{"name": variable, "value": value} for variable, value in server.env.items()],
        "readinessProbe": {**server.ready, "periodSeconds": 1, "timeoutSeconds": 5},
        "securityContext": {
            "readOnlyRootFilesystem": True,
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [
            *({"name": folder, "mountPath": path} for folder, path in folders.items()),
            *([{"name": "config", "mountPath": "/config"}] if server.config is not None else []),
        ],
    }
    spec = {
        "automountServiceAccountToken": server.reads_pods,
        "terminationGracePeriodSeconds": 0,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": _USER,
            "fsGroup": _USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": [
            *({"name": folder, "emptyDir": {}} for folder in folders),
            *(config if server.config is not None else []),
        ],
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}


def _manifest() -> str:
    """All pods and their files.  JSON is YAML too."""
    files = {name: json.dumps(server.config) for name, server in SERVERS.items() if server.config is not None}
    config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "config"}, "data": files}
    pods = [_pod(name, server) for name, server in SERVERS.items()]
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": [config, *_RIGHT_TO_READ_PODS, *pods]})


@pytest.fixture(scope="module")
def stack(rig: Engine, parts: Parts, request: pytest.FixtureRequest) -> Iterator[tuple[Cluster, str]]:
    """A cluster with all servers, and their namespace; RIG_CLUSTER names one that is there already."""
    there = os.environ.get("RIG_CLUSTER")
    up: Cluster = Cluster(rig, there) if there else request.getfixturevalue("two_nodes")
    rig.run("kind", "load", "image-archive", stack_archive(parts), "--name", up.name, timeout_s=_LOAD_TIMEOUT_S)
    with up.namespace(_NAMESPACE) as namespace:
        up.kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")
        up.apply(_manifest(), namespace)
        yield up, namespace


def test_every_image_is_run() -> None:
    """A new image without a pod here is noticed."""
    assert set(SERVERS) == set(STACK_IMAGES)


def test_the_overlay_names_these_images() -> None:
    """With the overlay `ci` every image of the manifests that is not ours is one that is built here."""
    files = [*(_K8S / "base").rglob("*.yaml"), *(_K8S / "components").rglob("*.yaml")]
    wanted = {
        image for file in files for image in re.findall(r"^ +image: (\S+)$", file.read_text("utf-8"), re.MULTILINE)
    }
    overlay = yaml.safe_load((_K8S / "overlays" / "ci" / "tuning" / "kustomization.yaml").read_text("utf-8"))
    renamed = {rule["name"]: rule for rule in overlay["images"]}
    names = set()
    for image in wanted:
        name, _, tag = image.rpartition(":")
        if name != "labkit-shop":
            rule = renamed.get(name, {})
            names.add(f"{rule.get('newName', name)}:{rule.get('newTag', tag)}")

    assert names == set(STACK_IMAGES.values())


@pytest.mark.kind
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", sorted(SERVERS))
def test_it_runs_with_the_least_rights(stack: tuple[Cluster, str], name: str) -> None:
    """It answers without root, on a root that is only read, and says the version that its image is named after."""
    up, namespace = stack
    up.wait(f"pod/{name}", "condition=Ready", namespace)
    script = 'id -u; grep " / " /proc/mounts; "$@" 2>&1'
    inside = ["sh", "-c", script, "sh", *SERVERS[name].version]
    user, root, *said = up.kubectl("-n", namespace, "exec", name, "--", *inside).splitlines()
    version = STACK_IMAGES[name].rpartition(":")[2].removeprefix("v")

    assert user == str(_USER)
    assert root.split()[3].split(",")[0] == "ro", root
    assert re.search(rf"(?<![\d.]){re.escape(version)}(?!\d)", "\n".join(said)), said
    assert up.pod(name, namespace)["restartCount"] == 0
