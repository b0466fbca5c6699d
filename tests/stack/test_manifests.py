"""The manifests of the lab: every rule holds for every file, and every rule can fail."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from labkit import settings
from labkit.settings import Settings, files_root, load_settings
from labkit.stack.catalogue import load_catalogue
from labkit.stack.cluster_layout import ClusterLayout
from labkit.stack.manifests import SHOP_IMAGE
from tests.stack.manifest_rules import (
    MINORS,
    RULES,
    Json,
    Objects,
    containers,
    fit_schemas,
    hold_to_catalogue,
    objects_below,
    reach,
    workloads,
)

FOLDER = files_root() / "infra" / "k8s"
SHOP = ("cart", "catalog", "gateway", "orders", "payments", "worker")
CATALOG, MARIADB, PROMETHEUS = (f"base/statefulset-{name}.yaml" for name in ("catalog", "mariadb", "prometheus"))
GATEWAY = "base/deployment-gateway.yaml"
SHIPPER = "base/deployment-shipper.yaml"


@pytest.fixture(scope="module")
def files() -> dict[str, Json]:
    """Every object of every file, as it is there."""
    return objects_below(FOLDER)


@pytest.fixture
def objects(files: dict[str, Json]) -> dict[str, Json]:
    """Every object of every file, as one may break it."""
    return copy.deepcopy(files)


@pytest.fixture(params=settings.PROFILES)
def layout(request: pytest.FixtureRequest, tmp_path: Path) -> ClusterLayout:
    """A lab on a cluster, with its files written."""
    made = ClusterLayout(chosen(tmp_path, request.param))
    made.write_files()
    return made


def chosen(run_dir: Path, profile: str) -> Settings:
    """The settings of a lab, none of them from this machine."""
    return load_settings({"run_dir": run_dir, "profile": profile}, environ={}, file=run_dir / "none")


def complaints(objects: Objects, about: str | None = None) -> list[str]:
    """What all rules say; schemas, which take long, of one file only if it is given."""
    one = objects if about is None else {about: objects[about]}
    return [said for rule in RULES for said in rule(one if rule is fit_schemas else objects)]


def pod(each: Json) -> Json:
    """The pod of a workload."""
    found: Json = each["spec"]["template"]["spec"]
    return found


def main(each: Json) -> Json:
    """The first container of a workload."""
    found: Json = pod(each)["containers"][0]
    return found


class TestFiles:
    """What is below infra/k8s."""

    def test_every_rule_holds_for_every_object(self, objects: dict[str, Json]) -> None:
        """Three versions' schemas, labels, Pod Security, resources, images, probes, references, rights."""
        assert len(objects) >= 60
        assert len(set(MINORS)) == 3
        assert complaints(objects) == []

    def test_two_objects_in_one_file_are_noticed(self, tmp_path: Path) -> None:
        """One object per file."""
        text = (FOLDER / CATALOG).read_text(encoding="utf-8")
        (tmp_path / "statefulset-catalog.yaml").write_text(f"{text}---\n{text}", encoding="utf-8")

        with pytest.raises(AssertionError, match="2 objects in one file"):
            objects_below(tmp_path)

    def test_every_file_is_used(self) -> None:
        """Each is named by the kustomization of its folder: a file that nobody lists would be applied to nothing."""
        for path in FOLDER.rglob("kustomization.yaml"):
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
            named = [*content.get("resources", []), *(patch["path"] for patch in content.get("patches", []))]
            here = {each.name for each in path.parent.glob("*.yaml")} - {"kustomization.yaml"}

            assert {name for name in named if "/" not in name} == here, path

    def test_overlays_only_replace_what_is_there(self, objects: dict[str, Json]) -> None:
        """The one form of patch that can be applied twice, and that `static_requests` knows; each meets an object."""
        for path in FOLDER.rglob("kustomization.yaml"):
            for patch in yaml.safe_load(path.read_text(encoding="utf-8")).get("patches", []):
                operations = yaml.safe_load((path.parent / patch["path"]).read_text(encoding="utf-8"))
                met = [o for o in objects.values() if o["metadata"]["name"] in patch["target"]["name"].split("|")
                       and o["kind"] in patch["target"]["kind"].split("|")]  # fmt: skip

                assert {operation["op"] for operation in operations} == {"replace"}, patch
                assert len(met) == len(patch["target"]["name"].split("|")), patch
                for each in met:
                    for operation in operations:
                        assert at(each, operation["path"]) is not None, (patch, operation)


def at(each: Any, path: str) -> Any:
    """The value at a JSON pointer, which must be there."""
    for part in path.strip("/").split("/"):
        each = each[int(part)] if isinstance(each, list) else each[part]
    return each


def rename_label(each: Json) -> None:
    each["metadata"]["labels"]["app.kubernetes.io/part-of"] = "something"


BREAKS: list[tuple[str, Callable[[Json], object], str]] = [
    (CATALOG, lambda o: o["spec"].update(replica=2), "Kubernetes 1.31: spec: Additional properties are not allowed"),
    (CATALOG, lambda o: o["spec"].update(replicas="2"), "Kubernetes 1.37: spec.replicas: '2' is not of type"),
    (CATALOG, lambda o: o["metadata"].update(name="catalogue"), "call it statefulset-catalogue.yaml"),
    (CATALOG, lambda o: o["metadata"]["labels"].pop("app.kubernetes.io/managed-by"), "no label .*managed-by"),
    (CATALOG, rename_label, "label app.kubernetes.io/part-of is something"),
    (CATALOG, lambda o: o["metadata"]["labels"].update({"app.kubernetes.io/component": "x"}), "neither shop nor stack"),
    (CATALOG, lambda o: o["spec"]["template"]["metadata"]["labels"].pop("app.kubernetes.io/part-of"), "other labels"),
    (CATALOG, lambda o: o["spec"]["selector"]["matchLabels"].update(a="b"), "selects by something else"),
    (GATEWAY, lambda o: pod(o)["securityContext"].pop("runAsNonRoot"), "a user that is not root"),
    (GATEWAY, lambda o: pod(o)["securityContext"].pop("seccompProfile"), "no seccomp profile"),
    (GATEWAY, lambda o: pod(o).pop("enableServiceLinks"), "Services would enter its environment"),
    (GATEWAY, lambda o: pod(o).pop("automountServiceAccountToken"), "a token of the API server that it does not need"),
    (PROMETHEUS, lambda o: pod(o).update(automountServiceAccountToken=False), "a token of the API server is missing"),
    (GATEWAY, lambda o: main(o)["securityContext"].pop("capabilities"), "gateway may gain privileges"),
    (MARIADB, lambda o: pod(o)["initContainers"][0].pop("securityContext"), "install may gain privileges"),
    (GATEWAY, lambda o: main(o)["securityContext"].update(readOnlyRootFilesystem=False), "can be written to"),
    (GATEWAY, lambda o: main(o)["resources"].pop("limits"), "gateway does not say how much it needs"),
    (GATEWAY, lambda o: main(o)["resources"]["requests"].pop("cpu"), "gateway does not say how much it needs"),
    (GATEWAY, lambda o: pod(o)["volumes"][1]["emptyDir"].pop("sizeLimit"), "volume live may fill the node"),
    (GATEWAY, lambda o: pod(o).pop("terminationGracePeriodSeconds"), "no sensible time to end"),
    (MARIADB, lambda o: o["spec"]["volumeClaimTemplates"][0]["spec"].update(storageClassName="x"), "a storage class"),
    (MARIADB, lambda o: main(o).update(image="docker.io/library/mariadb:11"), "is not an exact version"),
    (MARIADB, lambda o: main(o).update(image="mariadb:11.4.5"), "is not a full name of version 11.4.5"),
    (MARIADB, lambda o: main(o).update(image="docker.io/library/mariadb:11.4.6"), "not a full name of version 11.4.5"),
    (GATEWAY, lambda o: main(o).update(image=f"{SHOP_IMAGE}:latest"), "is not an exact version"),
    (PROMETHEUS, lambda o: o["metadata"]["labels"].update({"app.kubernetes.io/version": "3.4.0"}), "have 3.5.0"),
    (GATEWAY, lambda o: main(o).pop("livenessProbe"), "gateway serves and has no livenessProbe"),
    (GATEWAY, lambda o: main(o)["envFrom"][0]["configMapRef"].update(name="env-gatewya"), "nobody makes env-gatewya"),
    (GATEWAY, lambda o: main(o).pop("envFrom"), "does not get env-gateway"),
    (PROMETHEUS, lambda o: pod(o)["volumes"][0]["configMap"].update(name="config"), "nobody makes config"),
    (GATEWAY, lambda o: pod(o)["volumes"][0]["secret"]["items"][0].update(key="x"), "nobody makes lab-secrets/x"),
    (GATEWAY, lambda o: main(o)["volumeMounts"].pop(), "volume tmp is mounted and not there, or there and not mounted"),
    (PROMETHEUS, lambda o: pod(o).update(serviceAccountName="prom"), "there is no account prom"),
    (CATALOG, lambda o: pod(o).pop("initContainers"), "its address ends with it"),
    (CATALOG, lambda o: main(o)["readinessProbe"].update(periodSeconds=5), "known too late not to be ready"),
    (CATALOG, lambda o: pod(o).update(terminationGracePeriodSeconds=10), "has no time to linger"),
    ("base/service-catalog-1.yaml", lambda o: o["spec"].update(publishNotReadyAddresses=True), "until it is gone"),
    ("base/service-cart.yaml", lambda o: o["spec"]["selector"].update({"app.kubernetes.io/name": "x"}), "other pods"),
    ("base/service-cart.yaml", lambda o: o["spec"]["ports"][0].update(targetPort="web"), "cart has no port web"),
    ("base/role-prometheus.yaml", lambda o: o["rules"][0]["verbs"].append("delete"), "a right to change something"),
    ("base/role-prometheus.yaml", lambda o: o["rules"][0]["resources"].append("secrets"), "to read secrets"),
    ("base/role-prometheus.yaml", lambda o: o.update(kind="ClusterRole"), "a right on the whole cluster"),
    ("base/rolebinding-shipper.yaml", lambda o: o["subjects"][0].update(name="default"), "binds something else"),
]  # fmt: skip


@pytest.mark.parametrize(("where", "do_break", "said"), BREAKS, ids=[said for *_, said in BREAKS])
def test_what_is_broken_is_named(
    objects: dict[str, Json], where: str, do_break: Callable[[Json], object], said: str
) -> None:
    """A copy with one mistake gets a complaint that names the file and the mistake."""
    do_break(objects[where])

    with pytest.raises(AssertionError, match=f"{where}: .*{said}"):
        raise AssertionError("\n".join(complaints(objects, where)))


class TestCatalogue:
    """The same components as those that run as processes."""

    def test_arguments_and_ports_are_those_of_the_catalogue(
        self, objects: dict[str, Json], layout: ClusterLayout
    ) -> None:
        """But for addresses, paths and what the table of exceptions names; toxiproxy has the ports of the links."""
        assert list(hold_to_catalogue(objects, layout.instances, layout.link_ports)) == []

    @pytest.mark.parametrize(
        ("where", "do_break", "said"),
        [
            (PROMETHEUS, lambda o: main(o)["args"].remove("--storage.tsdb.retention.time=40d"), "lacks --storage"),
            (PROMETHEUS, lambda o: main(o)["args"].append("--web.enable-admin-api"), "has --web.enable-admin-api"),
            (MARIADB, lambda o: main(o)["args"].remove("--skip-name-resolve"), "lacks --skip-name-resolve"),
            (CATALOG, lambda o: main(o)["ports"][0].update(containerPort=8082), "ports .*8082"),
            (CATALOG, lambda o: o["spec"].update(replicas=3), "3 replicas, the catalogue has 2"),
            ("base/deployment-toxiproxy.yaml", lambda o: main(o)["ports"].pop(), "ports .*redis"),
            ("base/service-cart.yaml", lambda o: o["spec"]["ports"][0].update(name="web"), "ports are not called"),
        ],
        ids=["flag-less", "flag-more", "mariadb", "port", "replicas", "link", "service"],
    )
    def test_a_difference_is_named(
        self, objects: dict[str, Json], tmp_path: Path, where: str, do_break: Callable[[Json], object], said: str
    ) -> None:
        """An argument, a port or a replica more or less is a complaint."""
        core = ClusterLayout(chosen(tmp_path, "core"))
        do_break(objects[where])

        with pytest.raises(AssertionError, match=f"{where}: .*{said}"):
            raise AssertionError("\n".join(hold_to_catalogue(objects, core.instances, core.link_ports)))

    def test_every_component_is_there(self, objects: dict[str, Json], layout: ClusterLayout) -> None:
        """A workload for each component of the profile, and none for what the catalogue has not."""
        named = {each["metadata"]["name"] for _, each in workloads(objects)}

        assert {instance.component.name for instance in layout.instances.values()} <= named
        assert named - load_catalogue().keys() == {"kube-state-metrics"}

    def test_every_text_that_is_made_is_used(self, objects: dict[str, Json], layout: ClusterLayout) -> None:
        """The ConfigMaps and Secrets of a lab are those that its pods read, with the keys that they name."""
        stores = {"core": "jaeger-opensearch", "jaeger-opensearch": "core"}
        other = f"components/{stores[layout.settings.profile]}/"
        used = dict(used_by({where: each for where, each in objects.items() if not where.startswith(other)}))
        made = layout.config_maps() | layout.secret_maps()

        assert used.keys() == made.keys()
        assert all(used[name] <= made[name].keys() for name in used)

    def test_spans_and_log_lines_go_where_they_may(self, objects: dict[str, Json]) -> None:
        """NetworkPolicies allow what components need, and nothing else; Prometheus reaches everything."""
        needed = {("load", "gateway"), ("blackbox-exporter", "gateway"), ("alertmanager", "webhook")}
        needed |= {(service, store) for service in SHOP for store in ("toxiproxy", "store", "jaeger")}
        needed |= {("toxiproxy", to) for to in (*SHOP, "mariadb", "redis")}
        needed |= {("exporter", "mariadb"), ("exporter", "redis"), ("shipper", "store"), ("shipper", "opensearch")}
        allowed = reach(objects)
        everything = {("prometheus", each["metadata"]["name"]) for _, each in workloads(objects)}

        assert allowed == needed | everything

    def test_without_the_first_policy_everybody_could(self, objects: dict[str, Json]) -> None:
        """What is selected by no policy is open to all: the check above sees it."""
        for name in ("default-deny", "scrape"):
            del objects[f"base/networkpolicy-{name}.yaml"]

        assert ("load", "exporter") in reach(objects)


def used_by(objects: Objects) -> Iterator[tuple[str, set[str]]]:
    """The ConfigMaps and Secrets that pods refer to, with the keys that they name."""
    found: dict[str, set[str]] = {}
    for _, each in workloads(objects):
        for container in containers(pod(each)):
            for source in container.get("envFrom", []):
                found.setdefault(source["configMapRef"]["name"], set())
        for volume in pod(each).get("volumes", []):
            if "configMap" in volume:
                found.setdefault(volume["configMap"]["name"], set())
            if "secret" in volume:
                keys = {item["key"] for item in volume["secret"]["items"]}
                found.setdefault(volume["secret"]["secretName"], set()).update(keys)
    yield from found.items()
