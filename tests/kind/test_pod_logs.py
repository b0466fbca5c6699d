"""What pods write is in the files line by line, once: through restarts, cut connections and a collector that dies."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from labkit._wait import wait_until
from tests.kind.cluster import Cluster
from tests.kind.rig.node_image import TOOLS_IMAGE
from tests.prometheus_process import free_port

pytestmark = [pytest.mark.kind, pytest.mark.timeout(900)]

LINES = 3000
ACCOUNT = """
apiVersion: v1
kind: ServiceAccount
metadata: {name: shipper}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: shipper}
rules:
  - {apiGroups: [""], resources: [pods], verbs: [get, list, watch]}
  - {apiGroups: [""], resources: [pods/log], verbs: [get]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: shipper}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: shipper}
subjects: [{kind: ServiceAccount, name: shipper}]
"""
# Each run of the container has a name of its own; the last line has no end.
WRITES = f"""
r=$(cat /proc/sys/kernel/random/uuid); i=0
while [ $i -lt {LINES} ]; do i=$((i+1)); echo "$r $i"; [ $((i % 40)) = 0 ] && sleep 0.1; done
echo -n "$r END"; exit 1
"""
# Forwards connections to the API server until it is killed, which cuts them all.
GATE = """
import asyncio, sys
async def copy(read, write):
    try:
        while data := await read.read(65536):
            write.write(data)
            await write.drain()
    except OSError:
        pass
    write.close()
async def serve(read, write):
    there, back = await asyncio.open_connection("127.0.0.1", int(sys.argv[2]))
    await asyncio.gather(copy(read, back), copy(there, write))
async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", int(sys.argv[1]))
    await server.serve_forever()
asyncio.run(main())
"""


def writer(kind: str, name: str) -> str:
    """A pod that writes and ends, again and again; as a deployment with a name by chance, or as it is called."""
    meta = {"labels": {"app.kubernetes.io/name": name.partition("-")[0], "app.kubernetes.io/part-of": "labkit"}}
    container = {"name": name, "image": TOOLS_IMAGE, "command": ["sh", "-c", WRITES]}
    spec = {"terminationGracePeriodSeconds": 0, "containers": [container]}
    if kind == "Pod":
        return json.dumps({"apiVersion": "v1", "kind": "Pod", "metadata": {**meta, "name": name}, "spec": spec})
    selector = {"matchLabels": {"app.kubernetes.io/name": name}}
    template = {"selector": selector, "template": {"metadata": meta, "spec": spec}}
    return json.dumps({"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name}, "spec": template})


class Collected:
    """The collector as a process outside the cluster, whose way to the API server can be cut."""

    def __init__(self, up: Cluster, namespace: str, folder: Path) -> None:
        self.up, self.namespace, self.folder = up, namespace, folder
        view = json.loads(up.kubectl("config", "view", "--raw", "--minify", "-o", "json"))["clusters"][0]["cluster"]
        self.server_port, self.port = int(view["server"].rpartition(":")[2]), free_port()
        (folder / "ca").write_bytes(base64.b64decode(view["certificate-authority-data"]))
        (folder / "token").write_text(up.kubectl("-n", namespace, "create", "token", "shipper"))
        self.running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, *argv: str) -> None:
        """Start a process in the cluster's network."""
        self.running[name] = subprocess.Popen([*self.up.engine.enter, sys.executable, *argv])

    def kill(self, name: str) -> None:
        """Kill a process; twice is fine."""
        self.running[name].kill()
        self.running[name].wait(timeout=20)

    def open(self) -> None:
        """Let connections through."""
        self.start("gate", "-c", GATE, str(self.port), str(self.server_port))

    def collect(self) -> None:
        """Start the collector; a small file is full soon, so that it is rotated in the test."""
        self.start(
            "collector",
            *("-m", "labkit.observe.pod_logs", "--into", str(self.folder / "logs"), "--namespace", self.namespace),
            *("--api", f"https://127.0.0.1:{self.port}", "--token-file", str(self.folder / "token")),
            *("--ca-file", str(self.folder / "ca"), "--most-bytes", "250000"),
        )

    def lines(self) -> list[tuple[str, str]]:
        """Service and text of every line, of each file in its order."""
        paths = sorted(
            (self.folder / "logs").glob("*.log*"), key=lambda p: (p.name.removesuffix(".1"), p.suffix != ".1")
        )
        return [(p.name.split(".log")[0], text) for p in paths for text in p.read_text().splitlines()]

    def runs(self) -> dict[str, list[str]]:
        """What each run of a container wrote, in the order of the files."""
        found: dict[str, list[str]] = defaultdict(list)
        for service, text in self.lines():
            run, _, said = text.partition(" ")
            found[f"{service} {run}"].append(said)
        return found


@contextmanager
def collected(up: Cluster, namespace: str, folder: Path) -> Iterator[Collected]:
    """A collector that runs, ended after the block."""
    up.apply(ACCOUNT, namespace)
    one = Collected(up, namespace, folder)
    try:
        one.open()
        one.collect()
        yield one
    finally:
        for name in one.running:
            one.kill(name)


def test_every_line_is_there_once(two_nodes: Cluster, namespace: str, tmp_path: Path) -> None:
    """Containers and a pod restart, the connection is cut again and again, the collector is killed in between."""
    with collected(two_nodes, namespace, tmp_path) as logs:
        two_nodes.apply(writer("Deployment", "gateway"), namespace)
        two_nodes.apply(writer("Pod", "catalog-1"), namespace)
        wait_until(lambda: len(logs.runs()) >= 2, "both are followed", timeout_s=120)
        for turn in range(8):
            time.sleep(1.5)
            logs.kill("gate")
            if turn == 3:
                logs.kill("collector")
            if turn == 5:
                two_nodes.kubectl("-n", namespace, "delete", "pod", "catalog-1", "--wait=true")
                two_nodes.apply(writer("Pod", "catalog-1"), namespace)
            time.sleep(0.5)
            logs.open()
            if turn == 3:
                logs.collect()

        def status() -> tuple[int, bool]:
            pods = two_nodes.get("pods", "-n", namespace, "-l", "app.kubernetes.io/name=gateway")["items"]
            one = pods[0]["status"]["containerStatuses"][0]
            return one["restartCount"], "running" not in one["state"]

        def three_runs() -> bool:
            restarts, resting = status()
            return restarts >= 2 and resting

        wait_until(three_runs, "three runs of the gateway", timeout_s=180, every_s=0.5)
        restarts, _ = status()
        time.sleep(3)
        runs = logs.runs()
        logs.running["collector"].terminate()
        began = time.monotonic()
        assert logs.running["collector"].wait(timeout=20) == 0
        assert time.monotonic() - began < 1.5

    whole = [*map(str, range(1, LINES + 1)), "END"]
    gateway = {run: said for run, said in runs.items() if run.startswith("gateway ")}
    assert {len(said) for said in gateway.values()} == {LINES + 1}
    assert len(gateway) == restarts + 1
    assert all(said == whole for said in gateway.values())
    assert {run.split()[0] for run in runs} == {"gateway", "catalog"}
    assert all(said == whole[: len(said)] for said in runs.values())
    assert any((tmp_path / "logs").glob("*.log.1"))
