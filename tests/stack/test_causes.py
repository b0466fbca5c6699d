"""Why a pod is not ready, from what the API says; what a cluster of tests cannot produce is here in its words."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit.stack.causes import Cause, why_no_pod, why_not_ready
from labkit.stack.causes_image import image_cause
from labkit.stack.causes_pending import bytes_of, cores_of

Object = dict[str, Any]
HUB = "docker.io/library/redis:7.4.2"


def pod(*statuses: Object, node: str = "one", conditions: tuple[Object, ...] = (), **more: Any) -> Object:
    """A pod with these states of containers, which all have a limit of 64Mi."""
    limits = {"limits": {"memory": "64Mi"}, "requests": {"cpu": "500m", "memory": "64Mi"}}
    containers = [{"name": one["name"], "image": one.get("image", HUB), "resources": limits} for one in statuses]
    containers = containers or [{"name": "web", "image": HUB, "resources": limits}]
    return {
        "metadata": {"name": "web-1", "uid": "u1"},
        "spec": {"containers": containers, **({"nodeName": node} if node else {})},
        "status": {"phase": "Pending", "containerStatuses": list(statuses), "conditions": list(conditions), **more},
    }


def container(state: Object, *, name: str = "web", restarts: int = 0, last: Object | None = None) -> Object:
    """The state of a container that is not ready."""
    return {"name": name, "image": HUB, "ready": False, "restartCount": restarts, "state": state,
            "lastState": {"terminated": last} if last else {}}  # fmt: skip


def waiting(reason: str, message: str = "") -> Object:
    """A state of waiting."""
    return {"waiting": {"reason": reason, "message": message}}


def event(reason: str, message: str, *, uid: str = "u1", at: str = "2026-03-01T02:00:00Z", **more: Any) -> Object:
    """An event of a pod."""
    return {"reason": reason, "message": message, "type": "Warning", "lastTimestamp": at,
            "involvedObject": {"uid": uid, **more}}  # fmt: skip


def unscheduled(message: str) -> tuple[Object, ...]:
    """The condition of a pod that no node takes."""
    return ({"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message},)


def cause(found: Cause | None) -> Cause:
    """A cause that there must be."""
    assert found is not None
    return found


class TestImages:
    """What container runtimes say when an image does not come, in the cause's words."""

    @pytest.mark.parametrize(
        ("said", "told", "advice"),
        [
            (
                "unexpected status code https://registry-1.docker.io/v2/library/redis: 429 Too Many Requests",
                "the registry's rate limit is reached (toomanyrequests)",
                "LABKIT_IMAGE_REGISTRY",
            ),
            ("toomanyrequests: You have reached your unauthenticated pull rate limit.", "rate limit is reached", "six"),
            ("failed to resolve reference: docker.io/library/redis:7.4.2: not found", "has no such image", "version"),
            ("manifest unknown: manifest unknown", "has no such image", "kind load docker-image"),
            (
                "dial tcp: lookup registry-1.docker.io on 10.0.0.1:53: no such host",
                "the node does not reach the registry",
                "online",
            ),
            ('Head "https://x/v2/": dial tcp 1.2.3.4:443: i/o timeout', "does not reach the registry", "proxy"),
            (
                "pull access denied, repository does not exist or may require authorization: insufficient_scope",
                "does not give it to strangers, or has none of this name",
                "Check the name",
            ),
            ("tls: failed to verify certificate: x509: certificate signed by unknown authority", "certificate", "TLS"),
            ("write /var/lib/containerd/x: no space left on device", "the node's disk is full", "docker system df"),
            ("no match for platform in manifest: not found", "none for the node's processor", "architecture"),
        ],
    )  # fmt: skip
    def test_the_reason_and_what_helps(self, said: str, told: str, advice: str) -> None:
        """Each in its own words, and the image by its full name."""
        text, how = image_cause(HUB, "ErrImagePull", said)

        assert told in text
        assert HUB in text
        assert advice in how

    def test_while_kubelet_backs_off_the_events_tell(self) -> None:
        """So the text stays the same from one attempt to the next."""
        said = "toomanyrequests: You have reached your pull rate limit"
        now = image_cause(HUB, "ErrImagePull", said)

        assert (
            image_cause(HUB, "ImagePullBackOff", f'Back-off pulling image "{HUB}"', [f"Failed to pull: {said}"]) == now
        )

    def test_an_unknown_reason_is_passed_on(self) -> None:
        """The runtime's own words, and not the news that it will try again."""
        text, _ = image_cause(HUB, "ImagePullBackOff", "Back-off pulling image", ["the moon is full"])

        assert text == f"image {HUB} cannot be pulled: the moon is full"

    @pytest.mark.parametrize("image", ["localhost/shop:1", "labkit-shop:abc", "docker.io/library/labkit-shop:abc"])
    def test_an_image_made_here_is_not_looked_for_elsewhere(self, image: str) -> None:
        """It was not loaded: no registry and no network will help."""
        text, how = image_cause(image, "ErrImagePull", "dial tcp: connection refused")

        assert "is not on the node" in text
        assert (
            how == f"It is made on this machine and has to be loaded: `kind load docker-image {image} --name CLUSTER`."
        )

    @pytest.mark.parametrize(
        ("reason", "limit_s"),
        [("InvalidImageName", 0), ("ErrImageNeverPull", 0), ("ErrImagePull", 30), ("ImagePullBackOff", 30)],
    )
    def test_how_long_it_may_last(self, reason: str, limit_s: float) -> None:
        """A bad name heals never; a pull may succeed at its second attempt."""
        assert cause(why_not_ready(pod(container(waiting(reason))))).hopeless_after_s == limit_s

    def test_the_event_comes_before_the_state(self) -> None:
        """While the container still is said to be created."""
        said = f'Failed to pull image "{HUB}": toomanyrequests'
        found = cause(why_not_ready(pod(container(waiting("ContainerCreating"))), [event("Failed", said)]))

        assert (found.kind, found.hopeless_after_s) == ("image", 30)


class TestPending:
    """A pod without a node."""

    node: ClassVar[Object] = {"status": {"allocatable": {"cpu": "4", "memory": "8145016Ki"}}}

    def why(self, said: str, **more: Any) -> Cause:
        """The cause for what the scheduler says."""
        return cause(why_not_ready(pod(node="", conditions=unscheduled(said)), **more))

    def test_too_little_cpu_that_others_use(self) -> None:
        """With numbers, and with hope: others may end."""
        found = self.why("0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes …", nodes=[self.node])

        assert "it asks for 0.5 CPUs, and the largest node has 4 CPUs, of which other pods hold a part" in found.text
        assert found.hopeless_after_s is None

    def test_too_little_memory_on_every_node(self) -> None:
        """No waiting makes a node larger."""
        small = {"status": {"allocatable": {"cpu": "4", "memory": "32Mi"}}}
        found = self.why("0/1 nodes are available: 1 Insufficient memory.", nodes=[small])

        assert found.text == "no node has enough memory free: it asks for 64 MiB, and the largest node has 32 MiB"
        assert found.hopeless_after_s == 30

    def test_both_and_nodes_that_may_not_be_read(self) -> None:
        """Then its own numbers are all that is known."""
        found = self.why("0/3 nodes are available: 1 Insufficient cpu, 3 Insufficient memory.")

        assert "enough cpu and memory free: it asks for 0.5 CPUs; for 64 MiB" in found.text
        assert found.hopeless_after_s is None

    def test_taints(self) -> None:
        """As the scheduler counts them, without its thoughts on preemption."""
        found = self.why(
            "0/1 nodes are available: 1 node(s) had untolerated taint {node.kubernetes.io/unschedulable: }. "
            "preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling."
        )

        assert "taint {node.kubernetes.io/unschedulable: }" in found.text
        assert "reemption" not in found.text

    def test_the_taint_of_a_control_plane_is_not_the_reason(self) -> None:
        """When there is a node that could, but for something else."""
        found = self.why(
            "0/2 nodes are available: 1 node(s) didn't match Pod's node affinity/selector, 1 node(s) had untolerated "
            "taint {node-role.kubernetes.io/control-plane: }. no new claims to deallocate, preemption: 0/2 nodes …"
        )

        assert found.text.startswith("no node takes it: 0/2 nodes are available: 1 node(s) didn't match")
        assert found.how == ""

    def test_a_claim_without_a_class(self) -> None:
        """A cluster without a default storage class."""
        claim = {"metadata": {"name": "data-1", "uid": "c1"}, "spec": {}, "status": {"phase": "Pending"}}
        waits = pod(node="", conditions=unscheduled("pod has unbound immediate PersistentVolumeClaims."))
        waits["spec"]["volumes"] = [{"name": "v", "persistentVolumeClaim": {"claimName": "data-1"}}]
        no_class = "no persistent volumes available for this claim and no storage class is set"
        found = cause(why_not_ready(waits, [event("FailedBinding", no_class, uid="c1")], claims=[claim]))

        assert found.text == f"its volume claim data-1 is not bound: {no_class}"
        assert "no default storage class" in found.how

    def test_before_the_scheduler_looked(self) -> None:
        """It is no cause to tell anybody of."""
        assert cause(why_not_ready(pod(node=""))).kind == "starting"


class TestContainers:
    """A pod on a node."""

    def test_a_ready_pod_has_no_cause(self) -> None:
        """Whatever its past; one that is going away is not ready."""
        ready = pod(container({"running": {}}, restarts=9), conditions=({"type": "Ready", "status": "True"},))
        assert why_not_ready(ready) is None

        ready["metadata"]["deletionTimestamp"] = "2026-03-01T02:00:00Z"
        assert why_not_ready(ready) is not None

    def test_killed_for_its_memory(self) -> None:
        """With its limit."""
        state = container(waiting("CrashLoopBackOff"), restarts=2, last={"exitCode": 137, "reason": "OOMKilled"})
        found = cause(why_not_ready(pod(state)))

        assert found.text == ("container web was killed for taking more memory than its limit of 64Mi, 2 restarts")
        assert (found.container, found.hopeless_after_s) == ("web", None)

    @pytest.mark.parametrize(
        ("restarts", "before", "limit_s"), [(3, 0, None), (4, 0, 0), (4, 1, 60), (9, 9, 60), (13, 9, 0)]
    )
    def test_restarts_of_before_do_not_count_at_once(self, restarts: int, before: int, limit_s: float | None) -> None:
        """A node that was restarted has restarted all its containers; that is no crash loop."""
        state = container(waiting("CrashLoopBackOff"), restarts=restarts, last={"exitCode": 1, "reason": "Error"})

        assert cause(why_not_ready(pod(state), restarts_before=before)).hopeless_after_s == limit_s

    def test_one_that_runs_is_told_by_what_it_does_now(self) -> None:
        """If it ended before anybody waited, its probe is the news; if it ended since, the end is."""
        state = container({"running": {}}, restarts=1, last={"exitCode": 1, "reason": "Error"})
        said = event("Unhealthy", "Readiness probe failed: HTTP probe failed with statuscode: 503")

        now = cause(why_not_ready(pod(state), [said], restarts_before=1))
        assert now.text == ("container web runs, but its readiness probe fails: HTTP probe failed with statuscode: 503")
        assert "exit code 1, 1 restart" in cause(why_not_ready(pod(state), [said])).text

    def test_the_last_word_of_a_probe_counts(self) -> None:
        """Whichever of its times an event has; events of other pods and containers do not."""
        events = [
            event("Unhealthy", "Readiness probe failed: old", at="2026-03-01T02:00:00Z"),
            {**event("Unhealthy", "Readiness probe failed: new", at=""), "eventTime": "2026-03-01T02:00:09.5Z"},
            event("Unhealthy", "Readiness probe failed: other pod", uid="u2", at="2026-03-01T03:00:00Z"),
            event("Unhealthy", "Readiness probe failed: side", at="2026-03-01T03:00:00Z",
                  fieldPath="spec.containers{side}"),
        ]  # fmt: skip

        assert cause(why_not_ready(pod(container({"running": {}})), events)).text.endswith("probe fails: new")

    def test_evicted(self) -> None:
        """With what the node ran short of."""
        said = "The node was low on resource: ephemeral-storage. Threshold quantity: 1, available: 0. "
        found = cause(why_not_ready(pod(phase="Failed", reason="Evicted", message=said)))

        assert found.text.startswith("evicted from its node: The node was low on resource: ephemeral-storage.")
        assert found.hopeless_after_s is None

    def test_a_sidecar_that_is_ready_is_passed_over(self) -> None:
        """The cause is that of the container which is not."""
        fine = {**container({"running": {}}, name="side"), "ready": True}
        found = cause(why_not_ready(pod(fine, container(waiting("ErrImageNeverPull")))))

        assert found.kind == "image"

    def test_an_init_container_at_work_is_no_failure(self) -> None:
        """One that is done is passed over."""
        done = {**container({"terminated": {"exitCode": 0}}, name="first"), "ready": True}
        working = container({"running": {}}, name="second")
        found = cause(why_not_ready(pod(initContainerStatuses=[done, working])))

        assert found.text == "init container second is at work"


def test_events_of_others_make_no_workload_refused() -> None:
    """Only those of the workload itself and of its ReplicaSets."""
    workload = {"metadata": {"uid": "d1"}}
    refused = event("FailedCreate", 'pods "x" is forbidden: exceeded quota: q, requested: pods=1', uid="r1")

    assert why_no_pod(workload, [refused]) is None
    assert cause(why_no_pod(workload, [refused], ["r1"])).text == (
        "its pod is over the quota of the namespace: exceeded quota: q, requested: pods=1"
    )


@given(st.integers(min_value=0, max_value=2**40))
def test_quantities_of_one_amount_are_one_number(amount: int) -> None:
    """Whatever their suffix."""
    assert bytes_of(f"{amount}Ki") == bytes_of(f"{amount * 1024}") == bytes_of(f"{amount * 1024 * 1000}m")
    assert cores_of(f"{amount}m") == pytest.approx(amount / 1000)


def test_what_is_no_quantity_is_refused() -> None:
    """Not read as something else."""
    with pytest.raises(ValueError, match="is not a quantity"):
        bytes_of("5 GB")
