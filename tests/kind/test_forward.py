"""The forwarder on a real API server: pods that are killed, a server that is gone, bytes, rights."""

from __future__ import annotations

import hashlib
import json
import random
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest
import requests

from labkit._wait import wait_until
from labkit.stack.forward import Forwarding, Route, ready_file, write_routes
from tests.kind.cluster import Cluster
from tests.kind.manifests import WEB, pod
from tests.kind.relay import Relay
from tests.kind.rig.engine import Engine

pytestmark = [pytest.mark.kind, pytest.mark.timeout(900)]

_MB = 1_000_000
_SIZE = 8 * _MB
_WEB, _BYTES, _NOBODY = 23080, 23081, 23082

# Serves eight random megabytes and their sum, and says the sum of what is sent to it.
BYTES = pod(
    "bytes",
    'mkdir -p /tmp/www/cgi-bin && cd /tmp/www && echo "#!/bin/sh" > cgi-bin/sum'
    ' && echo "echo Content-Type: text/plain; echo; head -c \\$CONTENT_LENGTH | sha256sum" >> cgi-bin/sum'
    f" && chmod +x cgi-bin/sum && head -c {_SIZE} /dev/urandom > big && sha256sum big > big.sum"
    " && httpd -f -p 8080 -h /tmp/www",
    more="      readinessProbe: {httpGet: {path: /big.sum, port: 8080}, periodSeconds: 1}",
)

# Exactly what a forwarder may.
RIGHTS = """
apiVersion: v1
kind: ServiceAccount
metadata: {name: forwarder}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: nobody}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: forwarder}
rules:
  - {apiGroups: [""], resources: [pods], verbs: [list]}
  - {apiGroups: [""], resources: [pods/portforward], verbs: [get, create]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: forwarder}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: forwarder}
subjects: [{kind: ServiceAccount, name: forwarder}]
"""


@dataclass
class World:
    """A namespace with pods, a relay before the API server, and a forwarder that knows only the relay."""

    cluster: Cluster
    namespace: str
    relay: Relay
    folder: Path
    process: subprocess.Popen[bytes]

    @property
    def log(self) -> list[str]:
        """What the forwarder said."""
        return (self.folder / "log").read_text().splitlines()

    def names(self) -> list[str]:
        """Names of the pods of `WEB` that are not on their way out."""
        pods = self.cluster.get("pods", "-n", self.namespace, "-l", "app=web")["items"]
        return [each["metadata"]["name"] for each in pods if "deletionTimestamp" not in each["metadata"]]

    def kill(self, *names: str) -> None:
        """Take pods away without a warning."""
        self.cluster.kubectl(
            "-n", self.namespace, "delete", "pod", *names, "--force", "--grace-period=0", "--wait=false"
        )

    def configuration(self, user: dict[str, Any] | None = None) -> dict[str, Any]:
        """The cluster's kubeconfig with the relay's address, perhaps with another user."""
        context = f"kind-{self.cluster.name}"
        config: dict[str, Any] = json.loads(
            self.cluster.kubectl("config", "view", "--raw", "--minify", "--context", context, "-o", "json")
        )
        config["clusters"][0]["cluster"]["server"] = f"https://127.0.0.1:{self.relay.port}"
        if user is not None:
            config["users"][0]["user"] = user
        return config


def asked(port: int, path: str = "name") -> str:
    """What a new connection is answered."""
    return requests.get(f"http://127.0.0.1:{port}/{path}", timeout=20).text.strip()


def seconds_to_failure(port: int) -> float:
    """How long a request took to fail."""
    start = time.monotonic()
    with pytest.raises(requests.ConnectionError):
        asked(port)
    return time.monotonic() - start


def read_to_the_end(client: socket.socket) -> None:
    """Read until the other side closes properly."""
    while client.recv(65536):
        pass


@contextmanager
def forwarder(
    folder: Path, config: dict[str, Any], namespace: str, *routes: Route
) -> Iterator[subprocess.Popen[bytes]]:
    """The process, while the block runs; its log is in the folder."""
    folder.mkdir(exist_ok=True)
    (folder / "kubeconfig").write_text(json.dumps(config))
    context = config["contexts"][0]["name"]
    write_routes(
        folder,
        Forwarding(kubeconfig=str(folder / "kubeconfig"), context=context, namespace=namespace, routes=routes),
    )
    argv = [sys.executable, "-m", "labkit.stack.forward", str(folder)]
    with (folder / "log").open("wb") as log, subprocess.Popen(argv, stderr=log) as process:
        try:
            wait_until(lambda: ready_file(folder).exists() or process.poll(), "the forwarder", timeout_s=60)
            assert process.poll() is None, (folder / "log").read_text()
            yield process
        finally:
            process.terminate()
            assert process.wait(20) == 0


@pytest.fixture(scope="module")
def world(rig: Engine, two_nodes: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """All tests here share one forwarder: that it needs no restart is the point."""
    context = f"kind-{two_nodes.name}"
    view = json.loads(two_nodes.kubectl("config", "view", "--minify", "--context", context, "-o", "json"))
    server = view["clusters"][0]["cluster"]["server"]
    with rig.entered(), two_nodes.namespace("forwarder") as namespace:
        two_nodes.apply("---".join([WEB, BYTES, RIGHTS]), namespace)
        two_nodes.wait("deployment/web", "condition=Available", namespace)
        two_nodes.wait("pod/bytes", "condition=Ready", namespace)
        with Relay("127.0.0.1", int(urlsplit(server).port or 443)) as relay:
            up = World(two_nodes, namespace, relay, tmp_path_factory.mktemp("forward"), None)  # type: ignore[arg-type]
            routes = [
                Route(name="web", listen=_WEB, port=8080, selector="app=web"),
                Route(name="bytes", listen=_BYTES, port=8080, pod="bytes"),
                Route(name="nobody", listen=_NOBODY, port=8081, pod="bytes"),
            ]
            with forwarder(up.folder, up.configuration(), namespace, *routes) as up.process:
                yield up


def test_both_pods_answer(world: World) -> None:
    """Connections are spread over the ready pods, as a service would."""
    wait_until(lambda: {asked(_WEB) for _ in range(6)}, "two names", timeout_s=60, ready=lambda seen: len(seen) == 2)
    assert {asked(_WEB) for _ in range(6)} == set(world.names())


def test_a_killed_pod_has_a_successor(world: World) -> None:
    """When all pods are killed at once, new ones answer within seconds of being ready, by the same process."""
    before = world.names()
    world.kill(*before)
    name = wait_until(lambda: asked(_WEB), "an answer", timeout_s=60, tolerate=(requests.ConnectionError,))

    assert name in world.names()
    assert name not in before
    assert world.process.poll() is None


def test_one_of_two_pods_killed_costs_no_request_for_long(world: World) -> None:
    """The other pod answers at once."""
    wait_until(lambda: {asked(_WEB) for _ in range(6)}, "two names", timeout_s=60, ready=lambda seen: len(seen) == 2)
    world.kill(world.names()[0])
    start = time.monotonic()
    wait_until(
        lambda: [asked(_WEB) for _ in range(4)], "four answers", timeout_s=30, tolerate=(requests.ConnectionError,)
    )
    assert time.monotonic() - start < 10


def test_sixteen_downloads_at_once(world: World) -> None:
    """Each of sixteen parallel downloads has the sum that the pod computed."""

    def one(_: int) -> str:
        content = requests.get(f"http://127.0.0.1:{_BYTES}/big", timeout=120).content
        return hashlib.sha256(content).hexdigest()

    wanted = asked(_BYTES, "big.sum").split()[0]
    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(one, range(16))) == [wanted] * 16


def test_uploads(world: World) -> None:
    """Four bodies of five megabytes at once arrive as they were sent."""
    bodies = [random.randbytes(5 * _MB) for _ in range(4)]

    def one(body: bytes) -> str:
        return requests.post(f"http://127.0.0.1:{_BYTES}/cgi-bin/sum", data=body, timeout=120).text.split()[0]

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(one, bodies)) == [hashlib.sha256(body).hexdigest() for body in bodies]


def test_readers_that_do_not_read_cost_little(world: World) -> None:
    """Eight clients that ask for eight megabytes each and read nothing do not make the forwarder grow by them."""
    asked(_BYTES, "big.sum")
    before = psutil.Process(world.process.pid).memory_info().rss
    clients = [socket.create_connection(("127.0.0.1", _BYTES)) for _ in range(8)]
    for client in clients:
        client.sendall(b"GET /big HTTP/1.0\r\n\r\n")
        client.recv(1)
    time.sleep(2)
    grown = psutil.Process(world.process.pid).memory_info().rss - before
    for client in clients:
        client.close()
    assert grown < 30 * _MB


def test_nothing_listens_in_the_pod(world: World) -> None:
    """A port without a listener fails at once; the log says it once, in words."""
    assert max(seconds_to_failure(_NOBODY) for _ in range(3)) < 5
    lines = [line for line in world.log if "nobody (127" in line]
    assert len(lines) == 1
    assert lines[0].endswith("port 8081 of the pod: nothing listens there.")


def test_a_server_that_is_gone_and_back(world: World) -> None:
    """Open and new connections end quickly, and when the API server is back the same process works again."""
    asked(_BYTES, "big.sum")
    said = len(world.log)
    with closing(socket.create_connection(("127.0.0.1", _BYTES), timeout=20)) as held:
        held.sendall(b"GET /big HTTP/1.0\r\n\r\n")
        held.recv(1)
        world.relay.cut()
        with pytest.raises(ConnectionResetError):
            read_to_the_end(held)
    assert max(seconds_to_failure(_BYTES) for _ in range(5)) < 5
    world.relay.open()
    wait_until(lambda: asked(_BYTES, "big.sum"), "an answer", timeout_s=10, tolerate=(requests.ConnectionError,))

    states = [line.partition("kind-")[2].split(": ")[1] for line in world.log[said:] if "API server of" in line]
    assert states == ["no answer", "answers."]


def test_it_listens_on_loopback_only(world: World) -> None:
    """Each listener of the process is one of the routes, on 127.0.0.1."""
    found = psutil.Process(world.process.pid).net_connections("inet")
    listening = {(each.laddr.ip, each.laddr.port) for each in found if each.status == psutil.CONN_LISTEN}
    assert listening == {("127.0.0.1", port) for port in (_WEB, _BYTES, _NOBODY)}


def test_few_rights_are_enough(world: World, tmp_path: Path) -> None:
    """A program's first token is refused by the API server; its second is of an account that may list and forward."""
    token = world.cluster.kubectl("-n", world.namespace, "create", "token", "forwarder").strip()
    runs, program = tmp_path / "runs", tmp_path / "plugin.py"
    credential = {"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential"}
    program.write_text(f"""
import json, pathlib
again = pathlib.Path({str(runs)!r})
token = {token!r} if again.exists() else "not a token"
again.write_text(again.read_text() + "x" if again.exists() else "x")
print(json.dumps({credential!r} | {{"status": {{"token": token}}}}))
""")
    plugin = {"command": sys.executable, "args": [str(program)], "interactiveMode": "Never"}
    config = world.configuration({"exec": {"apiVersion": credential["apiVersion"], **plugin}})
    route = Route(name="bytes", listen=_BYTES + 10, port=8080, selector="app=bytes")
    with forwarder(tmp_path / "run", config, world.namespace, route):
        wait_until(
            lambda: asked(route.listen, "big.sum"), "an answer", timeout_s=20, tolerate=(requests.ConnectionError,)
        )
    assert runs.read_text() == "xx"


def test_no_rights(world: World, tmp_path: Path) -> None:
    """An account that may not forward: connections fail quickly, and the log says what is not allowed."""
    token = world.cluster.kubectl("-n", world.namespace, "create", "token", "nobody").strip()
    route = Route(name="bytes", listen=_BYTES + 11, port=8080, selector="app=bytes")
    with forwarder(tmp_path / "run", world.configuration({"token": token}), world.namespace, route):
        assert max(seconds_to_failure(route.listen) for _ in range(3)) < 5
    lines = [line for line in (tmp_path / "run" / "log").read_text().splitlines() if "API server" in line]
    assert len(lines) == 1
    assert "does not let us list the pods with app=bytes (HTTP 403)" in lines[0]
