"""What labkit asks of a real API server: namespaces, apply, causes of waiting, rights, a server that is gone."""

from __future__ import annotations

import json
import re
import secrets
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from labkit._wait import wait_until
from labkit.errors import (
    ClusterGone,
    ClusterRefused,
    FieldConflict,
    InvalidValue,
    NamespaceStuck,
    NotOurs,
    RightsMissing,
    UnknownName,
    WillNotStart,
)
from labkit.stack.cluster import LAB_ID, MANAGED_BY, Cluster
from labkit.stack.cluster_apply import apply
from labkit.stack.cluster_wait import wait_ready
from labkit.stack.progress import Event
from labkit.stack.rights import Right, missing_rights, require_rights, rights_of
from tests.kind import cluster as kubectl
from tests.kind.lab_objects import (
    LAB,
    NEVER_READY,
    PATIENCE_S,
    Relay,
    configmap,
    inside,
    kubeconfig,
    namespace_of_a_lab,
    workload,
)
from tests.kind.rig.engine import Engine
from tests.kind.rig.node_image import TOOLS_IMAGE

pytestmark = [pytest.mark.kind, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def kube(rig: Engine, request: pytest.FixtureRequest) -> Iterator[kubectl.Cluster]:
    """The cluster that RIG_CLUSTER names, or that of two nodes; this process is in its network meanwhile."""
    with inside(rig, request) as up:
        yield up


@pytest.fixture(scope="module")
def cluster(kube: kubectl.Cluster) -> Cluster:
    """The same, as labkit speaks to it."""
    return Cluster(None, f"kind-{kube.name}")


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    """A lab's namespace of the test's own."""
    with namespace_of_a_lab(cluster, "one") as name:
        yield name


class TestNamespaces:
    """A lab's namespace, and those that are not."""

    def test_it_is_restricted_and_made_once(self, cluster: Cluster, namespace: str) -> None:
        """A second `up` finds it and puts its labels right."""
        cluster.api.call(
            "PATCH",
            f"/api/v1/namespaces/{namespace}",
            body={"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "privileged"}}},
            content_type="application/merge-patch+json",
        )

        assert cluster.create_namespace(namespace, LAB, {"class": "blue"}) is False
        labels = cluster.namespace_labels(namespace) or {}
        assert labels["pod-security.kubernetes.io/enforce"] == labels["pod-security.kubernetes.io/warn"] == "restricted"
        assert (labels[MANAGED_BY], labels[LAB_ID], labels["class"]) == ("labkit", LAB, "blue")
        assert [one.lab_id for one in cluster.labs() if one.name == namespace] == [LAB]

    def test_one_that_labkit_did_not_make_is_left_alone(self, cluster: Cluster, kube: kubectl.Cluster) -> None:
        """It is neither taken over nor deleted, nor listed."""
        with kube.namespace(f"e-foreign-{secrets.token_hex(2)}") as name:
            before = cluster.get(f"/api/v1/namespaces/{name}")
            with pytest.raises(NotOurs, match="labkit did not make it"):
                cluster.create_namespace(name, LAB)
            with pytest.raises(NotOurs, match="labkit did not make it"):
                cluster.delete_namespace(name, LAB)

            assert name not in [one.name for one in cluster.labs()]
            assert cluster.get(f"/api/v1/namespaces/{name}") == before

    def test_another_labs_is_left_alone(self, cluster: Cluster, namespace: str) -> None:
        """Two labs on one cluster do not meet; the other is named."""
        for call in (cluster.create_namespace, cluster.delete_namespace):
            with pytest.raises(NotOurs, match=f"another lab, {LAB}; this one is fff"):
                call(namespace, "fff")

        assert not (cluster.get(f"/api/v1/namespaces/{namespace}"))["metadata"].get("deletionTimestamp")

    def test_delete_waits_and_may_be_repeated(self, cluster: Cluster) -> None:
        """After it there is nothing; deleting nothing is no error."""
        with namespace_of_a_lab(cluster, "gone") as name:
            apply(cluster, [workload("web", "sleep 600")], name)

            assert cluster.delete_namespace(name, LAB) is True
            assert cluster.namespace_labels(name) is None
            assert cluster.delete_namespace(name, LAB) is False

    def test_one_that_is_stuck_says_what_holds_it(self, cluster: Cluster, kube: kubectl.Cluster) -> None:
        """The object with the finalizer is named; when that is gone the namespace goes, and can be made again."""
        with namespace_of_a_lab(cluster, "stuck") as name:
            held = configmap("held")
            held["metadata"]["finalizers"] = ["example.com/never"]
            apply(cluster, [held], name)
            with pytest.raises(NamespaceStuck, match=r"ConfigMap held has the finalizers example\.com/never") as caught:
                cluster.delete_namespace(name, LAB, timeout_s=8)
            with pytest.raises(NamespaceStuck, match="held"):
                cluster.create_namespace(name, LAB)
            assert any("finalizers remaining" in line for line in caught.value.blockers)

            advice = re.search(r"`kubectl (.*?)` for each", str(caught.value))
            assert advice is not None
            words = advice[1].replace("KIND", "configmap").replace("NAME", "held").replace("'", "").split()
            kube.kubectl(*words)
            assert cluster.delete_namespace(name, LAB) is True
            assert cluster.create_namespace(name, LAB) is True


class TestApply:
    """Server-side apply."""

    def test_twice_is_no_change(self, cluster: Cluster, namespace: str) -> None:
        """The second time every object keeps its version; what was to come first came first."""
        objects = [workload("web", "sleep 600"), configmap("settings", a="1")]
        first = apply(cluster, objects, namespace)
        wait_ready(cluster, namespace, timeout_s=PATIENCE_S)
        before = [cluster.get(f"/apis/apps/v1/namespaces/{namespace}/deployments/web")["metadata"]["generation"]]
        second = apply(cluster, objects, namespace)

        assert [one["kind"] for one in first] == ["ConfigMap", "Deployment"]
        assert first[0]["metadata"]["resourceVersion"] == second[0]["metadata"]["resourceVersion"]
        assert [second[1]["metadata"]["generation"]] == before
        assert len(cluster.pods(namespace, "app=web")) == 1

    def test_a_dry_run_checks_and_changes_nothing(self, cluster: Cluster, namespace: str) -> None:
        """It gives what would be, and refuses what would be refused."""
        (would_be,) = apply(cluster, [configmap("settings", a="1")], namespace, dry_run=True)
        broken = workload("web", "true")
        broken["spec"]["replicas"] = -1

        assert would_be["data"] == {"a": "1"}
        assert cluster.get(f"/api/v1/namespaces/{namespace}/configmaps/settings") is None
        with pytest.raises(ClusterRefused, match=r"Deployment web \(HTTP 422\).*greater than or equal to 0"):
            apply(cluster, [broken], namespace, dry_run=True)

    def test_a_field_that_another_manager_owns_is_a_conflict(
        self, cluster: Cluster, kube: kubectl.Cluster, namespace: str
    ) -> None:
        """Manager and field are named, the other's value stays; once it is undone the apply passes."""
        settings = configmap("settings", a="1", b="2")
        apply(cluster, [settings], namespace)
        text = json.dumps(configmap("settings", b="theirs"))
        arguments = ("-n", namespace, "apply", "--server-side", "--field-manager=colleague", "--force-conflicts")
        kube.kubectl(*arguments, "-f", "-", input_text=text)
        with pytest.raises(FieldConflict, match=r"\.data\.b belongs to colleague") as caught:
            apply(cluster, [settings], namespace)
        data = cluster.get(f"/api/v1/namespaces/{namespace}/configmaps/settings")["data"]

        assert caught.value.owners == {".data.b": "colleague"}
        assert data == {"a": "1", "b": "theirs"}
        kube.kubectl(*arguments, "-f", "-", input_text=json.dumps(configmap("settings")))
        assert apply(cluster, [settings], namespace)[0]["data"] == {"a": "1", "b": "2"}

    def test_what_labkit_changed_in_place_is_no_conflict(self, cluster: Cluster, namespace: str) -> None:
        """The next apply puts it back."""
        apply(cluster, [configmap("settings", a="1", b="2")], namespace)
        cluster.patch_configmap(namespace, "settings", {"a": "changed"})
        changed = cluster.get(f"/api/v1/namespaces/{namespace}/configmaps/settings")["data"]

        assert changed == {"a": "changed", "b": "2"}
        assert apply(cluster, [configmap("settings", a="1", b="2")], namespace)[0]["data"] == {"a": "1", "b": "2"}

    def test_quota_and_pod_security_refuse_in_their_words(self, cluster: Cluster, namespace: str) -> None:
        """The object is named, and what to do."""
        quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "tiny"},
                 "spec": {"hard": {"count/configmaps": "1"}}}  # fmt: skip
        apply(cluster, [quota], namespace)

        def is_counted() -> bool:
            found = cluster.get(f"/api/v1/namespaces/{namespace}/resourcequotas/tiny")
            # Every namespace has one of its own, which comes a moment after it.
            return found.get("status", {}).get("used") == {"count/configmaps": "1"}

        wait_until(is_counted, "the quota is counted", timeout_s=PATIENCE_S)
        with pytest.raises(ClusterRefused, match=r"ConfigMap settings.*exceeded quota: tiny.*larger quota"):
            apply(cluster, [configmap("settings")], namespace)
        rooted = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "rooted"},
                  "spec": {"containers": [{"name": "a", "image": TOOLS_IMAGE}]}}  # fmt: skip
        with pytest.raises(ClusterRefused, match=r"Pod rooted.*violates PodSecurity.*securityContext has to say"):
            apply(cluster, [rooted], namespace)

    def test_a_warning_of_the_server_is_told(self, cluster: Cluster, namespace: str) -> None:
        """A Deployment whose pods will be refused is accepted; the warning says so at once."""
        told: list[Event] = []
        rooted = workload("rooted", "true")
        del rooted["spec"]["template"]["spec"]["containers"][0]["securityContext"]
        apply(cluster, [rooted], namespace, told.append)

        notes = [event for event in told if event.kind == "note"]
        assert [event.what for event in notes] == ["Deployment rooted"]
        assert "would violate PodSecurity" in notes[0].detail

    def test_what_does_not_belong_into_a_lab_is_refused_before_anything_is_made(
        self, cluster: Cluster, namespace: str
    ) -> None:
        """Kinds that the cluster lacks, objects of the whole cluster, objects of other namespaces."""
        good, elsewhere = configmap("settings"), configmap("elsewhere")
        elsewhere["metadata"]["namespace"] = "default"
        role = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "x"}}
        monitor = {"apiVersion": "monitoring.coreos.com/v1", "kind": "ServiceMonitor", "metadata": {"name": "x"}}
        for bad, error in ((monitor, UnknownName), (role, InvalidValue), (elsewhere, InvalidValue)):
            with pytest.raises(error):
                apply(cluster, [good, bad], namespace)

        assert cluster.get(f"/api/v1/namespaces/{namespace}/configmaps/settings") is None


class TestReady:
    """When waiting ends well."""

    def test_a_correction_is_waited_for_and_not_the_mistake(self, cluster: Cluster, namespace: str) -> None:
        """The pods of the earlier version fail no wait; a StatefulSet's is deleted, for it would stay for ever."""
        both = ("Deployment", "StatefulSet")
        broken = [workload(f"w-{kind.lower()}", "true", kind=kind, image="A B") for kind in both]
        apply(cluster, broken, namespace)
        with pytest.raises(WillNotStart):
            wait_ready(cluster, namespace, timeout_s=PATIENCE_S)
        apply(cluster, [workload(f"w-{kind.lower()}", "sleep 600", kind=kind) for kind in both], namespace)
        told: list[Event] = []
        wait_ready(cluster, namespace, told.append, timeout_s=PATIENCE_S)

        assert told[-1].detail == "2 pods ready"
        pods = cluster.pods(namespace)
        assert {pod["spec"]["containers"][0]["image"] for pod in pods} == {TOOLS_IMAGE}

    def test_a_rollout_is_over_when_the_last_old_pod_is_gone(self, cluster: Cluster, namespace: str) -> None:
        """Ready pods of an earlier version do not count."""
        apply(cluster, [workload("web", "sleep 600")], namespace)
        wait_ready(cluster, namespace, timeout_s=PATIENCE_S, wanted=["web"])
        apply(cluster, [workload("web", "sleep 601")], namespace)
        wait_ready(cluster, namespace, timeout_s=PATIENCE_S, wanted=["web"])
        left = [pod for pod in cluster.pods(namespace) if not pod["metadata"].get("deletionTimestamp")]

        assert [pod["spec"]["containers"][0]["command"][-1] for pod in left] == ["sleep 601"]

    def test_pods_speak_and_can_be_changed(self, cluster: Cluster, namespace: str) -> None:
        """Logs of now and of before, annotations, deletion."""
        command = (
            "if [ -e /tmp/again/x ]; then echo two; echo three; sleep 600; fi; echo one; touch /tmp/again/x; exit 1"
        )
        mounts = [{"name": "v", "mountPath": "/tmp/again"}]
        apply(
            cluster,
            [workload("web", command, pod={"volumes": [{"name": "v", "emptyDir": {}}]}, volumeMounts=mounts)],
            namespace,
        )
        wait_until(lambda: "three" in _log(cluster, namespace, "web"), "the second run speaks", timeout_s=PATIENCE_S)
        (pod,) = cluster.pods(namespace, "app=web")
        name = pod["metadata"]["name"]

        assert cluster.pod_log(namespace, name, "web") == "two\nthree\n"
        assert cluster.pod_log(namespace, name, tail=1) == "three\n"
        assert cluster.pod_log(namespace, name, previous=True) == "one\n"
        assert cluster.pod_log(namespace, "nobody") == ""
        cluster.annotate_pod(namespace, name, "labkit/touched", "1")
        assert cluster.pods(namespace, "app=web")[0]["metadata"]["annotations"]["labkit/touched"] == "1"
        assert cluster.delete_pod(namespace, name, grace_s=0) is True
        assert cluster.delete_pod(namespace, "nobody") is False
        wait_until(
            lambda: {one["metadata"]["name"] for one in cluster.pods(namespace)} - {name},
            "another pod",
            timeout_s=PATIENCE_S,
        )


def _log(cluster: Cluster, namespace: str, app: str) -> str:
    return "".join(cluster.pod_log(namespace, pod["metadata"]["name"]) for pod in cluster.pods(namespace, f"app={app}"))


class TestRights:
    """Access reviews, in both directions."""

    @pytest.fixture
    def clerk(self, kube: kubectl.Cluster, cluster: Cluster, tmp_path: Path) -> Iterator[Cluster]:
        """The cluster as a service account sees it that may do nothing."""
        with kube.namespace(f"e-clerk-{secrets.token_hex(2)}") as name:
            kube.kubectl("-n", name, "create", "serviceaccount", "clerk")
            token = kube.kubectl("-n", name, "create", "token", "clerk").strip()
            yield Cluster(kubeconfig(tmp_path, user={"token": token}), cluster.context)

    def test_what_is_missing_is_named_and_the_role_grants_it(self, clerk: Cluster, kube: kubectl.Cluster) -> None:
        """All at once; with the role from the message, and no more, a lab can be made and taken away."""
        name = f"e-rights-{secrets.token_hex(2)}"
        role = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "reader"},
                "rules": [{"apiGroups": [""], "resources": ["endpoints"], "verbs": ["watch"]}]}  # fmt: skip
        objects = [workload("web", "sleep 600"), configmap("settings"), role]
        with pytest.raises(RightsMissing) as caught:
            require_rights(clerk, objects, name)
        for line in (
            "create, delete, get, list, patch namespaces in the cluster",
            f"create, get, list, patch deployments.apps in namespace {name}",
            f"create, get pods/portforward in namespace {name}",
            f"watch endpoints in namespace {name}",
        ):
            assert line in caught.value.missing
        with pytest.raises(ClusterRefused, match="forbidden"):
            clerk.create_namespace(name, LAB)
        manifest = caught.value.how.partition("\n")[2]
        kube.kubectl("apply", "-f", "-", input_text=manifest)
        try:
            wait_until(
                lambda: not missing_rights(clerk, rights_of(clerk, objects, name)), "the rights", timeout_s=PATIENCE_S
            )
            require_rights(clerk, objects, name)
            clerk.create_namespace(name, LAB)
            apply(clerk, objects, name)
            wait_ready(clerk, name, timeout_s=PATIENCE_S)
            assert clerk.delete_namespace(name, LAB) is True
            assert missing_rights(clerk, [Right("", "secrets", "list", name)]) == [Right("", "secrets", "list", name)]
        finally:
            kube.kubectl("delete", "-f", "-", input_text=manifest)
            kube.kubectl("delete", "namespace", name, "--ignore-not-found", "--wait=false")

    def test_who_may_do_everything_lacks_nothing(self, cluster: Cluster) -> None:
        """As on a kind cluster of one's own."""
        require_rights(cluster, [workload("web", "true")], "e-anything")


class TestGone:
    """An API server that stops answering."""

    def test_in_the_middle_of_a_wait(self, cluster: Cluster, namespace: str, tmp_path: Path) -> None:
        """Which server, since when, what to do; not before it was silent for the time of grace."""
        with Relay(cluster.server) as relay:
            far = Cluster(kubeconfig(tmp_path, server=relay.server), cluster.context, grace_s=3)
            apply(far, [workload("probe", "sleep 600", **NEVER_READY)], namespace)
            threading.Timer(3, relay.cut).start()
            start = time.monotonic()
            with pytest.raises(ClusterGone, match=r"last answer at \d\d:\d\d:\d\d UTC.*docker start") as caught:
                wait_ready(far, namespace, timeout_s=60)

        assert relay.server in str(caught.value)
        assert caught.value.since is not None
        assert 5 < time.monotonic() - start < 20

    def test_one_that_comes_back_is_waited_for(self, cluster: Cluster, namespace: str, tmp_path: Path) -> None:
        """A restart of the API server fails no wait."""
        with Relay(cluster.server) as relay:
            far = Cluster(kubeconfig(tmp_path, server=relay.server), cluster.context, grace_s=20)
            ready = {"readinessProbe": {"exec": {"command": ["sh", "-c", "true"]}, "initialDelaySeconds": 8}}
            apply(far, [workload("late", "sleep 600", **ready)], namespace)
            threading.Timer(1, relay.cut).start()
            threading.Timer(4, relay.mend).start()
            wait_ready(far, namespace, timeout_s=PATIENCE_S)

            assert relay.cuts == 1
            assert relay.refused > 0
