"""Each cause of waiting, produced on a real cluster: what is told meanwhile, and how the wait ends."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

import pytest

from labkit._wait import wait_until
from labkit.errors import NotReady, WillNotStart
from labkit.stack.cluster import Cluster
from labkit.stack.cluster_apply import apply
from labkit.stack.cluster_wait import wait_ready
from labkit.stack.progress import Event
from tests.kind.lab_objects import NEVER_READY, PATIENCE_S, SAFE, Object, hurried, inside, namespace_of_a_lab, workload
from tests.kind.rig.engine import Engine
from tests.kind.rig.node_image import TOOLS_IMAGE

pytestmark = [pytest.mark.kind, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def cluster(rig: Engine, request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """The cluster, as labkit speaks to it."""
    with inside(rig, request) as up:
        yield Cluster(None, f"kind-{up.name}")


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    """A lab's namespace of the test's own."""
    with namespace_of_a_lab(cluster, "one") as name:
        yield name


NOT_ALIVE = {
    "livenessProbe": {
        "exec": {"command": ["sh", "-c", "echo hangs; exit 1"]},
        "periodSeconds": 1,
        "failureThreshold": 1,
    }
}
LATE = {"readinessProbe": {"exec": {"command": ["true"]}, "initialDelaySeconds": 60}}
HUNGRY = {"resources": {"requests": {"memory": "20Mi"}, "limits": {"memory": "20Mi"}}}
EAT = "sleep 1; dd if=/dev/zero of=/dev/null bs=200M count=1; exit 1"


def _claim(name: str, kind: str) -> Object:
    spec = {"accessModes": ["ReadWriteOnce"], "storageClassName": kind, "resources": {"requests": {"storage": "1Mi"}}}
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name}, "spec": spec}


def _mounting(claim: str) -> Object:
    return {"volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": claim}}]}


# Each workload, and what is said of it when waiting ends.
CAUSES: dict[str, tuple[Object, str]] = {
    "image-here": (workload("image-here", "true", image="localhost/nothing:1"), "nothing:1 is not on the node"),
    "image-there": (
        workload("image-there", "true", image="docker.io/library/redis:7.4.2"),
        "redis:7.4.2 cannot be pulled: the node does not reach the registry",
    ),
    "image-never": (
        workload("image-never", "true", image="localhost/nothing:1", imagePullPolicy="Never"),
        "its pod forbids to pull it",
    ),
    "image-name": (workload("image-name", "true", image="A B"), "'A B' is not the name of an image"),
    "cpu": (
        workload("cpu", "true", resources={"requests": {"cpu": "100"}}),
        r"no node has enough cpu free: it asks for 100 CPUs, and the largest node has \d+ CPU",
    ),
    "claim": (
        workload("claim", "true", pod=_mounting("slow")),
        r"its volume claim slow \(storage class none-such\) is not bound: .*none-such.* not found",
    ),
    "no-claim": (workload("no-claim", "true", pod=_mounting("missing")), "its volume claim missing does not exist"),
    "no-node": (
        workload("no-node", "true", pod={"nodeSelector": {"disk": "gold"}}),
        "no node takes it: .*didn't match Pod's node affinity/selector",
    ),
    "oom": (workload("oom", EAT, **HUNGRY, **LATE), "more memory than its limit of 20Mi, [1-9] restart"),
    "crash": (workload("crash", "echo first; echo no recipe; exit 3"), "ended with exit code 3, [4-9] restarts"),
    "no-program": (
        workload("no-program", "", command=["/nothing"]),
        "cannot be started: .*/nothing.*no such file",
    ),
    "probe": (workload("probe", "sleep 600", **NEVER_READY), "its readiness probe fails: the database is away"),
    "alive": (workload("alive", "sleep 600", **NOT_ALIVE), "restarted because its liveness probe failed: hangs"),
    "settings": (
        workload("settings", "true", envFrom=[{"configMapRef": {"name": "nope"}}]),
        'container settings cannot be started: configmap "nope" not found',
    ),
    "mount": (
        workload("mount", "true", pod={"volumes": [{"name": "v", "configMap": {"name": "nope"}}]},
                 volumeMounts=[{"name": "v", "mountPath": "/v"}]),
        'a volume cannot be mounted: .*configmap "nope" not found',
    ),
    "first": (
        workload(
            "first", "true", pod={"initContainers": [{"name": "prepare", "image": TOOLS_IMAGE, "securityContext": SAFE,
                                                      "command": ["sh", "-c", "echo no schema; exit 4"]}]},
        ),
        "init container prepare ended with exit code 4",
    ),
}  # fmt: skip
# These wait for what may still come.
PATIENT = {"probe", "no-node", "alive"}
LAST_LINES = {"crash": "first\nno recipe", "first": "no schema"}


@pytest.fixture(scope="module")
def waiting(cluster: Cluster) -> Iterator[str]:
    """A namespace in which none of the workloads becomes ready."""
    with namespace_of_a_lab(cluster, "causes") as name:
        apply(cluster, [_claim("slow", "none-such"), *(one for one, _ in CAUSES.values())], name)
        yield name


class TestCauses:
    """Each cause of waiting, produced for real; all pods start at once, and each test looks at its own."""

    @pytest.mark.parametrize("name", CAUSES)
    def test_the_cause_is_told_while_waiting_and_in_the_error(self, cluster: Cluster, waiting: str, name: str) -> None:
        """What cannot heal ends the wait early; the rest ends at the limit; both carry the last lines of the log."""
        told: list[Event] = []
        expected = NotReady if name in PATIENT else WillNotStart
        # The minutes that hopeless things are given are shortened; those of others are their own.
        clock, timeout_s = (time.monotonic, 20) if name in PATIENT else (hurried, 5_000)
        with pytest.raises(expected) as caught:
            wait_ready(cluster, waiting, told.append, timeout_s, [name], clock=clock)
        said = str(caught.value)
        notes = [event.detail for event in told if event.kind == "note"]

        assert re.search(CAUSES[name][1], said), said
        assert any(re.search(CAUSES[name][1], note) for note in notes), notes
        assert len(notes) == len(set(notes))
        assert LAST_LINES.get(name, "") in said

    def test_quota_is_a_cause_when_there_is_no_pod(self, cluster: Cluster, namespace: str) -> None:
        """A Deployment says nothing itself; its ReplicaSet's event does."""
        hard = {"pods": "0"}
        quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "tiny"}, "spec": {"hard": hard}}
        apply(
            cluster, [quota, workload("web", "sleep 600"), workload("db", "sleep 600", kind="StatefulSet")], namespace
        )
        for name in ("web", "db"):
            with pytest.raises(WillNotStart, match=f"{name} will not.*over the quota.*exceeded quota: tiny.*pods=1"):
                wait_ready(cluster, namespace, timeout_s=10_000, wanted=[name], clock=hurried)

    def test_pod_security_is_a_cause_when_there_is_no_pod(self, cluster: Cluster, namespace: str) -> None:
        """It will not heal, so nobody waits."""
        rooted = workload("rooted", "true")
        del rooted["spec"]["template"]["spec"]["containers"][0]["securityContext"]
        apply(cluster, [rooted], namespace)

        with pytest.raises(WillNotStart, match="its pod is not allowed: violates PodSecurity"):
            wait_ready(cluster, namespace, timeout_s=PATIENCE_S)

    @pytest.mark.parametrize("kind", ["Deployment", "StatefulSet"])
    def test_what_was_refused_before_a_correction_is_past(self, cluster: Cluster, namespace: str, kind: str) -> None:
        """Its events are still there, and fail nobody."""
        rooted = workload("web", "sleep 600", kind=kind)
        del rooted["spec"]["template"]["spec"]["containers"][0]["securityContext"]
        apply(cluster, [rooted], namespace)
        with pytest.raises(WillNotStart, match="not allowed"):
            wait_ready(cluster, namespace, timeout_s=PATIENCE_S)
        apply(cluster, [workload("web", "sleep 600", kind=kind)], namespace)
        wait_ready(cluster, namespace, timeout_s=PATIENCE_S)

        assert any("violates PodSecurity" in event["message"] for event in cluster.events(namespace))

    def test_ready_for_a_moment_between_two_ends_is_not_ready(self, cluster: Cluster, namespace: str) -> None:
        """A container without a probe is ready as long as it runs; one that ended must stay up for some seconds."""
        apply(cluster, [workload("web", "sleep 3; exit 1")], namespace)

        def restarts() -> int:
            statuses = [one for pod in cluster.pods(namespace) for one in pod["status"].get("containerStatuses", [])]
            return sum(one["restartCount"] for one in statuses)

        wait_until(restarts, "a first restart", timeout_s=PATIENCE_S)
        with pytest.raises(NotReady, match=r"ended with exit code 1|it ended, and has not been up again"):
            wait_ready(cluster, namespace, timeout_s=40)

    def test_a_workload_that_does_not_exist_is_named(self, cluster: Cluster, namespace: str) -> None:
        """An empty namespace is not ready for what was wanted."""
        with pytest.raises(NotReady, match="web does not exist"):
            wait_ready(cluster, namespace, timeout_s=1, wanted=["web"])
