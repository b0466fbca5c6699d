"""What kustomize is given for a lab, and what a lab asks of a cluster."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from labkit import settings
from labkit.errors import InvalidValue, UnknownName
from labkit.settings import files_root
from labkit.stack.manifests import Requests, overlays, requests_of, static_requests, write_kustomization

FOLDER = files_root() / "infra" / "k8s"


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
        assert needs.limits_memory_mib < 4096
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

    def write(self, folder: Path, **changed: Any) -> dict[str, Any]:
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
        found: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
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
