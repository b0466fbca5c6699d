"""Every overlay with every profile: built by kustomize, and accepted by a real API server under Pod Security."""

from __future__ import annotations

import copy
import itertools
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from labkit import settings
from labkit.errors import CommandFailed
from labkit.settings import load_settings
from labkit.stack.cluster_layout import ClusterLayout
from labkit.stack.manifests import build, overlays, requests_of, static_requests, write_kustomization
from tests.kind.cluster import Cluster
from tests.kind.rig.engine import Engine
from tests.kind.rig.stack_images import STACK_IMAGES

pytestmark = [pytest.mark.kind, pytest.mark.timeout(1800)]

LAB_ID = "3f2a1c"
Objects = list[dict[str, Any]]
BOTH = [(overlay, profile) for overlay in overlays() for profile in settings.PROFILES]


@pytest.fixture
def kubectl(rig: Engine) -> Path:
    """The rig's kubectl."""
    found = shutil.which("kubectl", path=rig.environment.get("PATH", os.defpath))
    assert found
    return Path(found)


@pytest.fixture
def restricted(two_nodes: Cluster, namespace: str) -> str:
    """A namespace in which no pod may do more than Pod Security `restricted` allows."""
    for mode in ("enforce", "warn"):
        label = f"pod-security.kubernetes.io/{mode}=restricted"
        two_nodes.kubectl("label", "namespace", namespace, label)
    return namespace


def built(folder: Path, kubectl: Path, overlay: str, profile: str, namespace: str, **more: str) -> Objects:
    """The objects of a lab, with the texts that it would have."""
    layout = ClusterLayout(
        load_settings({"run_dir": folder / "run", "profile": profile}, environ={}, file=folder / "none")
    )
    layout.write_files()
    write_kustomization(
        folder / "k8s", overlay=overlay, profile=profile, namespace=namespace, lab_id=LAB_ID,
        configmaps=layout.config_maps(), secrets=layout.secret_maps(), shop_image="labkit-shop:test", **more,
    )  # fmt: skip
    return build(folder / "k8s", kubectl)


def named(objects: Objects, kind: str, name: str) -> dict[str, Any]:
    """The object of a kind whose name is *name*, with or without a digest."""
    (found,) = [
        each
        for each in objects
        if each["kind"] == kind and (each["metadata"]["name"] == name or each["metadata"]["name"][:-11] == name)
    ]
    return found


def images_of(objects: Objects) -> set[str]:
    """Every image that a pod would have."""
    pods = [each["spec"]["template"]["spec"] for each in objects if each["kind"] in ("Deployment", "StatefulSet")]
    return {one["image"] for pod in pods for one in (*pod["containers"], *pod.get("initContainers", []))}


def apply_dry(cluster: Cluster, namespace: str, objects: Objects) -> str:
    """What the API server says of *objects*, which it checks as if it kept them."""
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
    argv = ["-n", namespace, "apply", "--server-side", "--field-manager", "labkit", "--dry-run=server"]
    return cluster.kubectl(*argv, "--warnings-as-errors", "-f", "-", input_text=text)


class TestBuild:
    """What kustomize makes."""

    @pytest.mark.parametrize(("overlay", "profile"), BOTH)
    def test_everything_is_of_this_lab(self, tmp_path: Path, kubectl: Path, overlay: str, profile: str) -> None:
        """Each object and each pod template has the lab's labels, each object its namespace; none is a namespace."""
        objects = built(tmp_path, kubectl, overlay, profile, "labkit-of-mine")
        prefix = "app.kubernetes.io"
        wanted = {"labkit/lab-id": LAB_ID, f"{prefix}/part-of": "labkit", f"{prefix}/managed-by": "labkit"}

        for each in objects:
            assert each["metadata"]["namespace"] == "labkit-of-mine"
            assert each["metadata"]["labels"].items() >= wanted.items()
            assert {f"{prefix}/name", f"{prefix}/component"} <= each["metadata"]["labels"].keys()
            if "template" in each.get("spec", {}):
                assert each["spec"]["template"]["metadata"]["labels"].items() >= wanted.items()
                assert "labkit/lab-id" not in each["spec"]["selector"]["matchLabels"]
        assert "Namespace" not in {each["kind"] for each in objects}
        subjects = [one for each in objects if each["kind"] == "RoleBinding" for one in each["subjects"]]
        assert {one["namespace"] for one in subjects} == {"labkit-of-mine"}

    @pytest.mark.parametrize(("overlay", "profile"), BOTH)
    def test_requests_are_the_same_without_kubectl(
        self, tmp_path: Path, kubectl: Path, overlay: str, profile: str
    ) -> None:
        """What `doctor` says of the memory is what kustomize's objects ask for."""
        assert requests_of(built(tmp_path, kubectl, overlay, profile, "x")) == static_requests(overlay, profile)

    def test_what_others_refer_to_comes_first(self, tmp_path: Path, kubectl: Path) -> None:
        """Accounts, texts and Services before pods; databases and links before the shop."""
        objects = built(tmp_path, kubectl, "small", "core", "x")
        kinds = [each["kind"] for each in objects]
        names = [each["metadata"]["name"] for each in objects if each["kind"] == "StatefulSet"]

        assert kinds.index("StatefulSet") > max(
            kinds.index(kind) for kind in ("ConfigMap", "Secret", "Service", "Role")
        )
        assert kinds.index("ResourceQuota") < kinds.index("StatefulSet")
        assert names.index("mariadb") < names.index("catalog")

    def test_other_text_gives_other_pods(self, tmp_path: Path, kubectl: Path) -> None:
        """Pods that read a text at their start are replaced when it changes; what is reloaded keeps its name."""
        objects = built(tmp_path, kubectl, "small", "core", "x")
        environment = named(objects, "ConfigMap", "env-catalog")["metadata"]["name"]
        (container,) = named(objects, "StatefulSet", "catalog")["spec"]["template"]["spec"]["containers"]

        assert environment != "env-catalog"
        assert container["envFrom"] == [{"configMapRef": {"name": environment}}]
        for name in ("prometheus-config", "alertmanager-config"):
            assert named(objects, "ConfigMap", name)["metadata"]["name"] == name
        assert named(objects, "Secret", "lab-secrets")["metadata"]["name"] == "lab-secrets"

    def test_ci_has_the_images_that_are_built(self, tmp_path: Path, kubectl: Path) -> None:
        """Each by the name and version under which the rig builds it, in both profiles."""
        used = {
            image
            for profile in settings.PROFILES
            for image in images_of(built(tmp_path / profile, kubectl, "ci", profile, "x"))
        }

        assert used == {"labkit-shop:test", *STACK_IMAGES.values()}

    def test_a_mirror_is_asked_for_every_public_image(self, tmp_path: Path, kubectl: Path) -> None:
        """Init containers too."""
        objects = built(tmp_path, kubectl, "small", "jaeger-opensearch", "x", image_registry="mirror:5000")

        assert {image for image in images_of(objects) if not image.startswith("mirror:5000/")} == {"labkit-shop:test"}


class TestServer:
    """What the API server says."""

    @pytest.mark.parametrize("choice", BOTH, ids="-".join)
    def test_every_object_is_accepted(
        self, two_nodes: Cluster, restricted: str, tmp_path: Path, kubectl: Path, choice: tuple[str, str]
    ) -> None:
        """Server-side, without a warning: Pod Security warns of a workload whose pods it would refuse."""
        objects = built(tmp_path, kubectl, *choice, restricted)
        said = apply_dry(two_nodes, restricted, objects).splitlines()

        assert len([line for line in said if "serverside-applied" in line]) == len(objects)

    def test_pod_security_refuses_every_weakness(
        self, two_nodes: Cluster, restricted: str, tmp_path: Path, kubectl: Path
    ) -> None:
        """The pod of the catalog is accepted; with one line less it is not, and the line is named."""
        objects = built(tmp_path, kubectl, "small", "core", restricted)
        template = named(objects, "StatefulSet", "catalog")["spec"]["template"]
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "catalog"}, "spec": template["spec"]}
        pod["spec"].pop("topologySpreadConstraints")

        assert "serverside-applied" in apply_dry(two_nodes, restricted, [pod])
        for said, broken in weakened(pod):
            with pytest.raises(CommandFailed, match=said):
                apply_dry(two_nodes, restricted, [broken])

    def test_the_namespace_is_bounded(self, two_nodes: Cluster, restricted: str, tmp_path: Path, kubectl: Path) -> None:
        """Once quota and limits are there: a pod that says nothing gets what is usual, one too large is refused."""
        objects = built(tmp_path, kubectl, "small", "core", restricted)
        bounds = [each for each in objects if each["kind"] in ("ResourceQuota", "LimitRange")]
        with applied(two_nodes, restricted, bounds):
            template = named(objects, "Deployment", "load")["spec"]["template"]
            pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "load"}, "spec": template["spec"]}
            pod["spec"]["containers"][0]["resources"] = {}
            text = json.dumps(pod)
            argv = ["-n", restricted, "create", "--dry-run=server", "-o", "json", "-f", "-"]
            got = json.loads(two_nodes.kubectl(*argv, input_text=text))["spec"]["containers"][0]["resources"]
            pod["spec"]["containers"][0]["resources"] = {"limits": {"memory": "3Gi"}}

            assert got == {"requests": {"cpu": "25m", "memory": "64Mi"}, "limits": {"memory": "128Mi"}}
            with pytest.raises(CommandFailed, match="maximum memory usage per Container is 2Gi"):
                two_nodes.kubectl(*argv, input_text=json.dumps(pod))


class TestRights:
    """What the accounts of a lab may do, asked of the API server in both directions."""

    RIGHTS = frozenset(
        {
            ("prometheus", "get", "pods"),
            ("prometheus", "watch", "pods"),
            ("shipper", "get", "pods"),
            ("shipper", "watch", "pods"),
            ("shipper", "get", "pods/log"),
            ("kube-state-metrics", "watch", "pods"),
            ("kube-state-metrics", "watch", "deployments.apps"),
            ("kube-state-metrics", "watch", "poddisruptionbudgets.policy"),
        }
    )
    ACCOUNTS = ("prometheus", "shipper", "kube-state-metrics", "default")
    VERBS = ("get", "watch", "create", "delete")
    RESOURCES = ("pods", "pods/log", "pods/exec", "secrets", "configmaps", "deployments.apps",
                 "poddisruptionbudgets.policy")  # fmt: skip

    @pytest.fixture
    def rights(self, two_nodes: Cluster, restricted: str, tmp_path: Path, kubectl: Path) -> Iterator[str]:
        """The namespace, with accounts and Roles in it."""
        objects = built(tmp_path, kubectl, "small", "core", restricted)
        kinds = ("ServiceAccount", "Role", "RoleBinding")
        with applied(two_nodes, restricted, [each for each in objects if each["kind"] in kinds]):
            yield restricted

    def allowed(self, cluster: Cluster, namespace: str, where: str) -> set[tuple[str, str, str]]:
        """What accounts of *namespace* may do in *where*: account, verb, resource."""
        asked = list(itertools.product(self.ACCOUNTS, self.VERBS, self.RESOURCES))
        reviews = [review(f"system:serviceaccount:{namespace}:{who}", where, verb, what) for who, verb, what in asked]
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": reviews})
        each = "jsonpath={.status.allowed}{'\\n'}"
        answers = cluster.kubectl("create", "-o", each, "-f", "-", input_text=text).split()
        return {one for one, answer in zip(asked, answers, strict=True) if answer == "true"}

    def test_each_account_may_do_its_work_and_no_more(self, two_nodes: Cluster, rights: str) -> None:
        """In its own namespace: neither change anything nor look at what it does not need."""
        assert self.allowed(two_nodes, rights, rights) == self.RIGHTS

    def test_another_namespace_is_none_of_their_business(self, two_nodes: Cluster, rights: str) -> None:
        """Not even to look."""
        assert self.allowed(two_nodes, rights, "kube-system") == set()


def review(user: str, where: str, verb: str, resource: str) -> dict[str, Any]:
    """The question whether *user* may do something in namespace *where*; *resource* as in `pods/log`, `pods.apps`."""
    name, _, group = resource.partition(".")
    kind, _, sub = name.partition("/")
    what = {"namespace": where, "verb": verb, "group": group, "resource": kind, "subresource": sub}
    return {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {"user": user, "resourceAttributes": what},
    }


def weakened(pod: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Copies of *pod* that allow one thing more, and what Pod Security says of it."""
    broken = copy.deepcopy(pod)
    broken["spec"]["securityContext"]["runAsNonRoot"] = False
    yield "runAsNonRoot != true", broken
    broken = copy.deepcopy(pod)
    broken["spec"]["securityContext"].pop("seccompProfile")
    yield "seccompProfile", broken
    broken = copy.deepcopy(pod)
    broken["spec"]["containers"][0]["securityContext"].pop("capabilities")
    yield "unrestricted capabilities", broken
    broken = copy.deepcopy(pod)
    broken["spec"]["initContainers"][0]["securityContext"]["allowPrivilegeEscalation"] = True
    yield "allowPrivilegeEscalation != false", broken
    broken = copy.deepcopy(pod)
    broken["spec"]["hostNetwork"] = True
    yield "host namespaces", broken
    broken = copy.deepcopy(pod)
    broken["spec"]["volumes"].append({"name": "root", "hostPath": {"path": "/"}})
    yield "hostPath", broken


@contextmanager
def applied(cluster: Cluster, namespace: str, objects: Objects) -> Iterator[None]:
    """*objects* are there while the block runs."""
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
    cluster.kubectl("-n", namespace, "apply", "--server-side", "-f", "-", input_text=text)
    try:
        yield
    finally:
        cluster.kubectl("-n", namespace, "delete", "-f", "-", input_text=text)
