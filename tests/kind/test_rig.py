"""The rig is a real cluster: what later tests take for granted is proven here."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import requests

from labkit._proc import run
from labkit._wait import wait_until
from labkit.errors import CommandFailed
from tests.kind.cluster import PATIENCE_S, Cluster, cluster
from tests.kind.manifests import WEB, pod
from tests.kind.rig.engine import Engine
from tests.kind.rig.golang import KUBERNETES_VERSION
from tests.kind.rig.leftovers import groups, mounts_below, processes_of, read_sysctls
from tests.kind.rig.node_image import TOOLS_IMAGE
from tests.kind.rig.parts import BASE_IMAGE, Parts

pytestmark = [pytest.mark.kind, pytest.mark.timeout(1800)]


@pytest.fixture
def web(two_nodes: Cluster, namespace: str) -> Cluster:
    """The cluster, when both pods of `WEB` serve, and a pod `client` is there to ask them from."""
    two_nodes.apply(WEB + "---" + pod("client", "sleep 3600"), namespace)
    two_nodes.wait("deployment/web", "condition=Available", namespace)
    two_nodes.wait("pod/client", "condition=Ready", namespace)
    return two_nodes


def asked(up: Cluster, namespace: str, address: str, who: str = "client") -> str:
    """What an address answers to a pod."""
    return up.kubectl("-n", namespace, "exec", who, "--", "curl", "-sS", "-m", "5", address)


def web_pods(up: Cluster, namespace: str) -> list[dict[str, Any]]:
    """The pods of `WEB`."""
    found: list[dict[str, Any]] = up.get("pods", "-n", namespace, "-l", "app=web")["items"]
    return found


class TestNetwork:
    """Pods, services and names."""

    def test_both_nodes_are_ready(self, two_nodes: Cluster) -> None:
        """The cluster has two nodes of the version that was compiled, both ready."""
        nodes = two_nodes.get("nodes")["items"]
        conditions = [{c["type"]: c["status"] for c in node["status"]["conditions"]} for node in nodes]

        assert [node["status"]["nodeInfo"]["kubeletVersion"] for node in nodes] == [f"v{KUBERNETES_VERSION}"] * 2
        assert [condition["Ready"] for condition in conditions] == ["True", "True"]

    def test_a_service_reaches_both_of_its_endpoints(self, web: Cluster, namespace: str) -> None:
        """By its name, and one endpoint after the other: a node can be Ready with a proxy that knows only one."""
        pods = {item["metadata"]["name"]: item["spec"]["nodeName"] for item in web_pods(web, namespace)}
        seen: Counter[str] = Counter()

        def ask() -> bool:
            seen[asked(web, namespace, "http://web/name").strip()] += 1
            return seen.keys() == pods.keys()

        # A name or rule that has not arrived everywhere yet is no failure; one that never does is.
        wait_until(ask, "an answer of each pod", timeout_s=PATIENCE_S, tolerate=(CommandFailed,))

        assert len(set(pods.values())) == 2

    def test_pods_on_two_nodes_reach_each_other(self, web: Cluster, namespace: str) -> None:
        """By address, with no Service between them."""
        client = web.get("pod", "client", "-n", namespace)
        others = [item for item in web_pods(web, namespace) if item["spec"]["nodeName"] != client["spec"]["nodeName"]]
        (other,) = others
        answer = asked(web, namespace, f"http://{other['status']['podIP']}:8080/name")

        assert answer.strip() == other["metadata"]["name"]

    def test_names_are_known_and_unknown_names_are_not(self, web: Cluster, namespace: str) -> None:
        """DNS gives the address of a Service, and says so when there is none."""
        address = web.get("service", "web", "-n", namespace)["spec"]["clusterIP"]

        def look_up(name: str) -> str:
            command = f"nslookup {name}.{namespace}.svc.cluster.local || true"
            return web.kubectl("-n", namespace, "exec", "client", "--", "sh", "-c", command)

        wait_until(lambda: look_up("web"), "the name", timeout_s=PATIENCE_S, ready=lambda said: address in said)

        assert "NXDOMAIN" in look_up("nothing")

    def test_a_node_that_was_restarted_serves_again(self, web: Cluster, namespace: str) -> None:
        """Its pod starts anew and is reached from the other node, as after a restart of the machine."""
        pods = {item["spec"]["nodeName"]: item["metadata"]["name"] for item in web_pods(web, namespace)}
        worker = f"{web.name}-worker"
        far = pods.pop(worker)
        (near,) = pods.values()
        web.engine.run("docker", "restart", worker, timeout_s=120)

        def answer() -> str:
            if web.pod(far, namespace).get("restartCount", 0) == 0:
                return "not started anew yet"
            address = web.get("pod", far, "-n", namespace)["status"].get("podIP", "no address")
            return asked(web, namespace, f"http://{address}:8080/name", near).strip()

        wait_until(
            answer,
            "the answer of the pod on the node that restarted",
            timeout_s=PATIENCE_S,
            ready=lambda said: said == far,
            tolerate=(CommandFailed,),
        )
        web.wait(f"node/{worker}", "condition=Ready", namespace)


class TestPods:
    """What becomes of a pod."""

    def test_probes_decide(self, two_nodes: Cluster, namespace: str) -> None:
        """A pod that is not ready is no endpoint; one that is not alive is started again."""
        ready = "      readinessProbe: {exec: {command: [cat, /tmp/ready]}, periodSeconds: 1}"
        alive = "      livenessProbe: {exec: {command: [cat, /tmp/alive]}, periodSeconds: 1, failureThreshold: 1}"
        spec = "{selector: {app: late}, ports: [{port: 80}]}"
        service = f"{{apiVersion: v1, kind: Service, metadata: {{name: late}}, spec: {spec}}}"
        again = pod("dead", "sleep 3600", more=alive).replace("restartPolicy: Never", "restartPolicy: Always")
        two_nodes.apply(f"{pod('late', 'sleep 3600', more=ready)}\n---\n{again}\n---\n{service}", namespace)

        def endpoints() -> list[bool]:
            slices = two_nodes.get("endpointslices", "-n", namespace, "-l", "kubernetes.io/service-name=late")["items"]
            return [end["conditions"]["ready"] for one in slices for end in one.get("endpoints") or []]

        wait_until(endpoints, "an endpoint", timeout_s=PATIENCE_S, ready=lambda seen: seen == [False])
        two_nodes.wait("pod/late", "jsonpath={.status.phase}=Running", namespace)
        two_nodes.kubectl("-n", namespace, "exec", "late", "--", "touch", "/tmp/ready")
        wait_until(endpoints, "a ready endpoint", timeout_s=PATIENCE_S, ready=lambda seen: seen == [True])
        wait_until(
            lambda: two_nodes.pod("dead", namespace).get("restartCount", 0),
            "a restart of the pod that is not alive",
            timeout_s=PATIENCE_S,
        )

    def test_what_a_pod_says_is_there(self, two_nodes: Cluster, namespace: str) -> None:
        """`logs` gives its lines, `exec` the exit code of what ran in it."""
        two_nodes.apply(pod("speaker", "echo one; echo two; sleep 3600"), namespace)
        two_nodes.wait("pod/speaker", "condition=Ready", namespace)

        assert two_nodes.kubectl("-n", namespace, "logs", "speaker").split() == ["one", "two"]
        with pytest.raises(CommandFailed, match="exit code 3"):
            two_nodes.kubectl("-n", namespace, "exec", "speaker", "--", "sh", "-c", "exit 3")

    def test_a_pod_that_takes_too_much_is_killed(self, two_nodes: Cluster, namespace: str) -> None:
        """Beyond its limit of memory it is OOMKilled, with exit code 137."""
        limit = "      resources: {limits: {memory: 32Mi}}"
        two_nodes.apply(pod("eater", "dd if=/dev/zero of=/dev/null bs=200M count=1", more=limit), namespace)
        two_nodes.wait("pod/eater", "jsonpath={.status.phase}=Failed", namespace)
        state = two_nodes.pod("eater", namespace)["state"]["terminated"]

        assert (state["reason"], state["exitCode"]) == ("OOMKilled", 137)

    def test_an_image_that_cannot_be_pulled_is_named(self, two_nodes: Cluster, namespace: str) -> None:
        """The pod waits, and its state says for what."""
        two_nodes.apply(pod("stuck", "true", image="localhost/nothing:1"), namespace)
        seen: list[str] = []

        def reason() -> str:
            seen.append(two_nodes.pod("stuck", namespace).get("state", {}).get("waiting", {}).get("reason", ""))
            return seen[-1]

        wait_until(
            reason, "ErrImagePull", timeout_s=PATIENCE_S, ready=lambda now: now in ("ErrImagePull", "ImagePullBackOff")
        )

    def test_a_pod_needs_neither_root_nor_a_writable_root(self, two_nodes: Cluster, namespace: str) -> None:
        """User, read-only file system, seccomp and dropped capabilities are what the pod really gets."""
        more = (
            "      securityContext: {runAsUser: 1000, runAsNonRoot: true, readOnlyRootFilesystem: true,"
            " allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}, seccompProfile: {type: RuntimeDefault}}"
        )
        command = (
            "id -u; touch /tmp/x 2>/dev/null || echo refused; "
            "grep -E ^Seccomp: /proc/self/status; grep CapEff /proc/self/status"
        )
        two_nodes.apply(pod("modest", command, more=more), namespace)
        two_nodes.wait("pod/modest", "jsonpath={.status.phase}=Succeeded", namespace)
        lines = two_nodes.kubectl("-n", namespace, "logs", "modest").splitlines()

        assert lines[0] == "1000"
        assert "refused" in lines
        assert "Seccomp:\t2" in lines
        assert "CapEff:\t0000000000000000" in lines


class TestVolumes:
    """Claims of the default class."""

    CLAIM = """
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
"""

    def test_a_claim_gets_a_volume_that_outlives_its_pod(self, two_nodes: Cluster, namespace: str) -> None:
        """What a pod without root wrote is read by the next, and volume and folder go with the claim."""
        more = "      securityContext: {runAsUser: 1000}\n      volumeMounts: [{name: data, mountPath: /data}]"
        pod_more = (
            "  securityContext: {fsGroup: 1000}\n  volumes: [{name: data, persistentVolumeClaim: {claimName: data}}]"
        )
        writer = pod("writer", "echo kept > /data/file", more=more, pod_more=pod_more)
        reader = pod("reader", "cat /data/file", more=more, pod_more=pod_more)
        two_nodes.apply(f"{self.CLAIM}---{writer}", namespace)
        two_nodes.wait("pod/writer", "jsonpath={.status.phase}=Succeeded", namespace)
        two_nodes.apply(reader, namespace)
        two_nodes.wait("pod/reader", "jsonpath={.status.phase}=Succeeded", namespace)
        said = two_nodes.kubectl("-n", namespace, "logs", "reader")
        volume = two_nodes.get("pvc", "data", "-n", namespace)["spec"]["volumeName"]
        two_nodes.kubectl("-n", namespace, "delete", "pod/writer", "pod/reader", "pvc/data")

        assert said == "kept\n"
        wait_until(
            lambda: volume not in two_nodes.kubectl("get", "pv", "-o", "name"), "no volume", timeout_s=PATIENCE_S
        )


class TestReach:
    """The ways into the cluster from outside."""

    @contextmanager
    def forwarded(self, up: Cluster, namespace: str, target: str) -> Iterator[str]:
        """The address at which a port of *target* is to be had on this machine."""
        env = {**os.environ, **up.engine.environment}
        argv = [*up.engine.enter, "kubectl", "-n", namespace, "port-forward", target, ":80"]
        with subprocess.Popen(argv, env=env, stdout=subprocess.PIPE, text=True) as process:
            try:
                assert process.stdout is not None
                _, _, address, *_ = process.stdout.readline().split()  # Forwarding from 127.0.0.1:40123 -> 8080
                yield f"http://{address}"
            finally:
                process.terminate()

    def test_a_port_is_forwarded_to_this_process(self, web: Cluster, namespace: str) -> None:
        """Inside the engine's network a client in Python reaches a Service through `port-forward`."""
        with web.engine.entered(), self.forwarded(web, namespace, "service/web") as address:
            answer = requests.get(f"{address}/name", timeout=30)

        assert answer.status_code == 200
        assert answer.text.startswith("web-")

    def test_an_image_is_loaded_from_a_file(self, two_nodes: Cluster, namespace: str, parts: Parts) -> None:
        """`kind load image-archive` brings the base image to the nodes, and its Python runs."""
        load = ["kind", "load", "image-archive", parts.base_archive, "--name", two_nodes.name]
        two_nodes.engine.run(*load, timeout_s=600)
        two_nodes.apply(pod("python", 'python -c "print(6 * 7)"; python -m pip --version', image=BASE_IMAGE), namespace)
        two_nodes.wait("pod/python", "jsonpath={.status.phase}=Succeeded", namespace)
        lines = two_nodes.kubectl("-n", namespace, "logs", "python").splitlines()

        assert lines[0] == "42"
        assert lines[1].startswith("pip ")

    def test_the_logs_of_nodes_are_exported(self, two_nodes: Cluster, tmp_path: Path) -> None:
        """Of every node: the kubelet's log, and the list of its images."""
        two_nodes.engine.run("kind", "export", "logs", str(tmp_path), "--name", two_nodes.name, timeout_s=PATIENCE_S)

        for node in ("control-plane", "worker"):
            folder = tmp_path / f"{two_nodes.name}-{node}"
            assert (folder / "kubelet.log").stat().st_size > 0
            assert TOOLS_IMAGE.partition(":")[0] in (folder / "images.log").read_text()

    def test_a_dockerfile_builds_on_the_base_image(self, rig: Engine, parts: Parts, tmp_path: Path) -> None:
        """`ARG BASE` names it, steps that run in it work, and the result runs."""
        rig.run("docker", "load", "--input", parts.base_archive, timeout_s=600)
        steps = ["ARG BASE", "FROM $BASE", "RUN python -m venv --without-pip /app", "USER 1000"]
        steps += ['CMD ["/app/bin/python", "-c", "print(1)"]']
        (tmp_path / "Dockerfile").write_text("\n".join(steps))
        build = ["docker", "build", "--quiet", "--build-arg", f"BASE={BASE_IMAGE}", "--tag", "shop:test", str(tmp_path)]
        rig.run(*build, timeout_s=600)

        assert rig.run("docker", "run", "--rm", "--network", "none", "shop:test", timeout_s=120).strip() == "1"


class TestEnd:
    """What is left."""

    def test_a_deleted_cluster_leaves_nothing(self, rig: Engine) -> None:
        """No container, volume or mount more than before it was created; no process or control group of its own."""

        def seen() -> tuple[set[str], set[str], set[Path]]:
            containers = rig.run("docker", "ps", "--all", "--quiet", "--no-trunc", timeout_s=60).split()
            volumes = rig.run("docker", "volume", "ls", "--quiet", timeout_s=60).split()
            return set(containers), set(volumes), set(mounts_below(rig.home))

        before = seen()
        with cluster(rig, "rig-short"):
            during = seen()
            (container,) = during[0] - before[0]
            assert self.named(container, rig)
        wait_until(seen, f"what was before: {before}", timeout_s=PATIENCE_S, ready=lambda now: now == before)

        assert all(len(more) > len(less) for more, less in zip(during, before, strict=True))
        assert self.named(container, rig) == []

    def named(self, container: str, rig: Engine) -> list[object]:
        """The processes that a container is named to (its shim), and its control groups."""
        shims = [process for process in processes_of(rig.netns, rig.group) if container in process.cmdline()]
        return [*shims, *(group for group in groups(rig.group) if container in group.parts)]

    def test_an_engine_that_was_killed_is_taken_down(self, parts: Parts) -> None:
        """Though its daemon is gone, its containers end, its network and folder go, the kernel's settings are back."""
        settings = read_sysctls()
        with tempfile.TemporaryDirectory(prefix="rig-") as short:  # pytest's own are too long for sockets
            engine = Engine(Path(short) / "engine")
            engine.up(replace(parts, node_archive=parts.base_archive))
            engine.run("docker", "run", "--detach", "--privileged", BASE_IMAGE, "sleep", "3600", timeout_s=120)
            running = processes_of(engine.netns, engine.group)
            run(["kill", "-KILL", (engine.home / "docker.pid").read_text().strip()], timeout_s=20)
            engine.down()

        assert len(running) >= 4  # dockerd, its containerd, a shim, the container
        assert not any(process.is_running() for process in running)
        assert not engine.home.exists()
        assert mounts_below(engine.home) == []
        assert groups(engine.group) == []
        assert read_sysctls() == settings

    def test_it_says_how_to_start_it(self, tmp_path: Path) -> None:
        """`env` without an engine ends with 1 and names the command."""
        env = {**os.environ, "RIG_HOME": str(tmp_path / "none")}
        argv = [sys.executable, "-m", "tests.kind.rig", "env"]
        done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=120, check=False)

        assert done.returncode == 1
        assert "python -m tests.kind.rig up" in done.stderr
