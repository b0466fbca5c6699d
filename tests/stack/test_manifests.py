"""The manifests of the lab: every rule holds for every file, and every rule can fail."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from labkit import settings
from labkit.errors import InvalidValue, UnknownName
from labkit.settings import Settings, files_root, load_settings
from labkit.stack.catalogue import load_catalogue
from labkit.stack.cluster_layout import ClusterLayout
from labkit.stack.manifests import (
    SHOP_IMAGE,
    Requests,
    overlays,
    requests_of,
    static_requests,
    write_kustomization,
)
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


class TestRequests:
    """What a lab asks of a cluster."""

    def test_sums_count_replicas_and_units(self) -> None:
        """Two replicas of two containers, whose init container needs more memory than both."""

        def needs(cpu: str, memory: str, limit: str) -> Mapping[str, Any]:
            return {"resources": {"requests": {"cpu": cpu, "memory": memory}, "limits": {"memory": limit}}}

        claim = {"spec": {"resources": {"requests": {"storage": "1Gi"}}}}
        spec = {
            "replicas": 2,
            "template": {
                "spec": {
                    "initContainers": [needs("10m", "1Gi", "1Gi")],
                    "containers": [needs("100m", "64Mi", "128Mi"), needs("0.5", "1048576", "2048Ki")],
                }
            },
            "volumeClaimTemplates": [claim],
        }
        got = requests_of([{"kind": "StatefulSet", "spec": spec}, {"kind": "Service"}])

        assert got == Requests(memory_mib=2048, limits_memory_mib=2048, cpu_m=1200, volumes_mib=2048, pods=2)

    def test_nothing_needs_nothing(self) -> None:
        """No objects, no requests."""
        assert requests_of([]) == Requests(0, 0, 0, 0, 0)

    def test_a_quantity_without_sense_is_named(self) -> None:
        """As in a manifest with a slip."""
        spec = {"template": {"spec": {"containers": [{"resources": {"requests": {"cpu": "1", "memory": "64MB"}}}]}}}

        with pytest.raises(InvalidValue, match="as in 250m or 64Mi, got '64MB'"):
            requests_of([{"kind": "Deployment", "spec": spec}])

    def test_a_laptop_of_6_gb_holds_small(self) -> None:
        """Half of it is the cluster's: what is set aside fits twice, what may be used at most once and a half."""
        needs = static_requests("small", "core")

        assert needs.memory_mib < 1700
        assert needs.limits_memory_mib < 4000
        assert static_requests("small", "jaeger-opensearch").memory_mib < 2400

    def test_a_node_of_two_cores_holds_ci(self) -> None:
        """The control plane of kind has 950 thousandths of 2000; a rollout needs some more than the rest."""
        assert static_requests("ci", "core").cpu_m < 600
        assert static_requests("ci", "jaeger-opensearch").cpu_m < 600

    @pytest.mark.parametrize("overlay", overlays())
    def test_the_quota_has_room(self, overlay: str) -> None:
        """A lab uses three quarters of its quota at most: rollouts and a pod by hand must fit."""
        quota = yaml.safe_load((FOLDER / "base/resourcequota-lab.yaml").read_text(encoding="utf-8"))["spec"]["hard"]
        tuning = FOLDER / "overlays" / overlay / "tuning" / "quota.yaml"
        if tuning.exists():
            replaced = yaml.safe_load(tuning.read_text(encoding="utf-8"))
            quota |= {operation["path"].rpartition("/")[2]: operation["value"] for operation in replaced}
        mib = {key: 1024 * int(value.removesuffix("Gi")) for key, value in quota.items() if value.endswith("Gi")}
        for profile in settings.PROFILES:
            needs = static_requests(overlay, profile)

            assert needs.memory_mib <= 0.8 * mib["requests.memory"]
            assert needs.limits_memory_mib <= 0.8 * mib["limits.memory"]
            assert needs.volumes_mib <= 0.75 * mib["requests.storage"]
            assert needs.cpu_m <= 0.75 * 1000 * int(quota["requests.cpu"])
            assert needs.pods <= 0.75 * int(quota["pods"])

    def test_an_unknown_overlay_is_named(self) -> None:
        """With the nearest that there is."""
        with pytest.raises(UnknownName, match="'smal' is not a kustomize overlay; did you mean 'small'"):
            static_requests("smal", "core")


class TestKustomization:
    """What is written for kustomize."""

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        """Where it is written."""
        return tmp_path / "k8s"

    def write(self, folder: Path, **changed: Any) -> Json:
        """The kustomization of a lab, as data."""
        given: dict[str, Any] = {
            "overlay": "small",
            "profile": "core",
            "namespace": "labkit-ana-3f2a1c",
            "lab_id": "3f2a1c",
            "configmaps": {"env-catalog": {"SHOP_PORT": "8081"}, "prometheus-config": {"prometheus.yml": "a: 1\n"}},
            "secrets": {"lab-secrets": {"admin_token": "secret"}},
            "shop_image": "localhost:5000/labkit-shop:3f2a1c",
        }
        path = write_kustomization(folder, **(given | changed))
        assert path == folder / "kustomization.yaml"
        found: Json = yaml.safe_load(path.read_text(encoding="utf-8"))
        return found

    def test_it_names_what_belongs_to_the_lab(self, folder: Path) -> None:
        """Overlay, profile, namespace, and the shop's image under its own name and tag."""
        content = self.write(folder)

        assert content["resources"] == ["k8s/overlays/small"]
        assert content["components"] == ["k8s/components/core", "k8s/overlays/small/tuning"]
        assert content["namespace"] == "labkit-ana-3f2a1c"
        assert content["images"] == [
            {"name": "labkit-shop", "newName": "localhost:5000/labkit-shop", "newTag": "3f2a1c"}
        ]

    def test_texts_are_files_byte_for_byte(self, folder: Path) -> None:
        """Each key is a file; those that change in place keep their name."""
        content = self.write(folder)
        env, prometheus = content["configMapGenerator"]

        assert env["files"] == ["SHOP_PORT=configmaps/env-catalog/SHOP_PORT"]
        assert (folder / "configmaps/env-catalog/SHOP_PORT").read_text() == "8081"
        assert "disableNameSuffixHash" not in env["options"]
        assert prometheus["options"]["disableNameSuffixHash"] is True
        assert env["options"]["labels"] == {
            "app.kubernetes.io/name": "catalog",
            "app.kubernetes.io/component": "shop",
        }

    def test_secrets_are_for_their_owner_only(self, folder: Path) -> None:
        """Neither the folder nor the file is readable by others."""
        self.write(folder)

        assert folder.stat().st_mode & 0o077 == 0
        assert (folder / "secrets/lab-secrets/admin_token").stat().st_mode & 0o077 == 0

    def test_what_is_no_more_is_not_left(self, folder: Path) -> None:
        """Written twice: a key of before is gone."""
        self.write(folder)
        self.write(folder, configmaps={"env-catalog": {"OTHER": ""}})

        assert [path.name for path in (folder / "configmaps").rglob("*") if path.is_file()] == ["OTHER"]

    def test_a_mirror_stands_before_every_public_name(self, folder: Path) -> None:
        """With the whole name below it; our own image is where it was."""
        images = self.write(folder, image_registry="mirror:5000/")["images"]
        renamed = {each["name"]: each["newName"] for each in images}

        assert renamed["docker.io/prom/prometheus"] == "mirror:5000/docker.io/prom/prometheus"
        assert renamed["ghcr.io/shopify/toxiproxy"] == "mirror:5000/ghcr.io/shopify/toxiproxy"
        assert renamed["labkit-shop"] == "localhost:5000/labkit-shop"
        assert "docker.io/opensearchproject/opensearch" not in renamed

    @pytest.mark.parametrize("image", ["labkit-shop", "localhost:5000/labkit-shop", "labkit-shop:", ":1"])
    def test_an_image_without_a_tag_is_refused(self, folder: Path, image: str) -> None:
        """It would be the newest that is there, whichever that is."""
        with pytest.raises(InvalidValue, match="shop_image must be a name with a tag"):
            self.write(folder, shop_image=image)

    def test_unknown_names_are_refused_before_anything_is_written(self, folder: Path) -> None:
        """An overlay or a profile that there is not."""
        with pytest.raises(UnknownName, match="not a profile"):
            self.write(folder, profile="cores")
        with pytest.raises(UnknownName, match="not a kustomize overlay"):
            self.write(folder, overlay="big")

        assert not folder.exists()

    def test_it_needs_nothing_outside_its_folder(self, folder: Path) -> None:
        """There is a copy of every file, because kustomize follows no path that leads out."""
        self.write(folder)
        copies = {str(path.relative_to(folder / "k8s")) for path in (folder / "k8s").rglob("*.yaml")}

        assert copies == {str(path.relative_to(FOLDER)) for path in FOLDER.rglob("*.yaml")}
