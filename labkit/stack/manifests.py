"""
From `infra/k8s` to the objects of one lab, by kustomize, and what they ask of a cluster.

A lab is an overlay (which machine), a profile (which stores), and its own configuration and image, in a namespace.
Nothing here speaks to a cluster.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import yaml

from labkit._proc import run
from labkit.errors import InvalidValue, UnknownName
from labkit.settings import files_root
from labkit.stack.catalogue import load_catalogue
from labkit.stack.download import write_atomically

__all__ = ["SHOP_IMAGE", "Requests", "build", "overlays", "requests_of", "static_requests", "write_kustomization"]

SHOP_IMAGE = "labkit-shop"
"""The name under which manifests know the image of labkit itself; every lab gives it a tag by content."""

_BUILD_TIMEOUT_S = 60
# kustomize ends the names of the others with a digest of their content, and with them the pod templates that use them:
# what changed is rolled out, `kubectl rollout undo` brings the old text back with the old pods, and what did not change
# is left alone.  These three are not read at the start only, or are asked for by name; they are changed where they are.
_CHANGED_IN_PLACE = frozenset({"prometheus-config", "alertmanager-config", "lab-secrets"})
# Limits and rules first, then what pods refer to, then pods; databases and links before those who wait for them.
_KINDS = (
    "LimitRange",
    "ResourceQuota",
    "NetworkPolicy",
    "ServiceAccount",
    "Role",
    "RoleBinding",
    "ConfigMap",
    "Secret",
    "PersistentVolumeClaim",
    "Service",
    "PodDisruptionBudget",
    "StatefulSet",
    "Deployment",
)
_FIRST = ("mariadb", "redis", "toxiproxy")
_UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}
_MIB = 2**20


@dataclass(frozen=True, slots=True)
class Requests:
    """
    What objects ask of a cluster, replicas included.

    Memory in MiB that is set aside and that may be used at most, CPU in thousandths of a core, volumes in MiB.
    """

    memory_mib: float
    limits_memory_mib: float
    cpu_m: float
    volumes_mib: float
    pods: int


def overlays() -> tuple[str, ...]:
    """The overlays that there are, each for one kind of machine."""
    return tuple(sorted(path.parent.name for path in (_source() / "overlays").glob("*/kustomization.yaml")))


def write_kustomization(
    folder: Path,
    *,
    overlay: str,
    profile: str,
    namespace: str,
    lab_id: str,
    configmaps: Mapping[str, Mapping[str, str]],
    secrets: Mapping[str, Mapping[str, str]],
    shop_image: str,
    image_registry: str = "",
) -> Path:
    """
    Write everything that kustomize needs for one lab, in place of what was there.

    Args:
        folder: where to; holds secrets afterwards, so it is readable by its owner only.
        overlay: one of `overlays()`.
        profile: one of the profiles; its stores are added.
        namespace: where the objects will live; it is not among them.
        lab_id: goes on everything, as label `labkit/lab-id`.
        configmaps: name → key → text.
        secrets: name → key → text.
        shop_image: labkit's own image with its tag, as in `labkit-shop:3f2a1c`.
        image_registry: a mirror that public images are taken from, with their full names below it:
            `mirror:5000` gives `mirror:5000/docker.io/prom/prometheus:v3.5.0`; empty for none.

    Returns:
        The path of the kustomization.yaml.

    Raises:
        UnknownName: there is no such overlay or profile.
        InvalidValue: the image has no tag.
    """
    _known("kustomize overlay", overlay, overlays())
    _known("profile", profile, _profiles())
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    for part in ("k8s", "configmaps", "secrets"):
        shutil.rmtree(folder / part, ignore_errors=True)
    # kustomize reads nothing outside the folder that it was given.
    shutil.copytree(_source(), folder / "k8s")
    tuning = f"k8s/overlays/{overlay}/tuning"
    content = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "namespace": namespace,
        "resources": [f"k8s/overlays/{overlay}"],
        "components": [f"k8s/components/{profile}", tuning],
        "labels": [
            {"pairs": {"labkit/lab-id": lab_id}, "includeTemplates": True},
            {"pairs": {"app.kubernetes.io/part-of": "labkit", "app.kubernetes.io/managed-by": "labkit"}},
        ],
        "configMapGenerator": list(_generators(folder, "configmaps", configmaps)),
        "secretGenerator": list(_generators(folder, "secrets", secrets)),
        "images": [_own_image(shop_image), *_mirrored(overlay, profile, image_registry)],
    }
    path = folder / "kustomization.yaml"
    write_atomically(path, yaml.safe_dump(content, sort_keys=False), mode=0o600)
    return path


def build(folder: Path, kubectl: Path) -> list[dict[str, Any]]:
    """
    The objects of the kustomization in *folder*, in an order in which each comes after what it refers to.

    Raises:
        CommandFailed: kustomize refused; carries its words.
        ToolMissing: there is no such kubectl.
    """
    argv: list[str | Path] = [kubectl, "kustomize", folder]
    text = run(argv, timeout_s=_BUILD_TIMEOUT_S, how="Run `labkit up` again: it writes these files anew.")
    return sorted((each for each in _documents(text) if each), key=_place)


def requests_of(objects: Iterable[Mapping[str, Any]]) -> Requests:
    """
    What *objects* ask of a cluster: the sums over Deployments and StatefulSets; zeros when there are none.

    As the scheduler counts: of a pod's containers the sum, or the largest of its init containers if that is more.
    """
    memory = limits = cpu = volumes = Decimal(0)
    pods = 0
    for each in objects:
        if each["kind"] not in ("Deployment", "StatefulSet"):
            continue
        spec = each["spec"]
        count = spec.get("replicas", 1)
        pods += count
        memory += count * _of_pod(spec["template"]["spec"], "requests", "memory")
        limits += count * _of_pod(spec["template"]["spec"], "limits", "memory")
        cpu += count * _of_pod(spec["template"]["spec"], "requests", "cpu")
        claims = [claim["spec"]["resources"]["requests"]["storage"] for claim in spec.get("volumeClaimTemplates", [])]
        volumes += count * sum(map(_quantity, claims), Decimal(0))
    return Requests(float(memory / _MIB), float(limits / _MIB), float(cpu * 1000), float(volumes / _MIB), pods)


def static_requests(overlay: str, profile: str) -> Requests:
    """
    What a lab asks of a cluster, without kubectl: from the files, patched in the one way that they use.

    Raises:
        UnknownName: there is no such overlay or profile.

    >>> static_requests("small", "core").pods
    21
    """
    _known("kustomize overlay", overlay, overlays())
    _known("profile", profile, _profiles())
    return requests_of(_static_objects(overlay, profile))


def _source() -> Path:
    return files_root() / "infra" / "k8s"


def _profiles() -> tuple[str, ...]:
    return tuple(sorted({profile for component in load_catalogue().values() for profile in component.profiles}))


def _known(kind: str, name: str, known: tuple[str, ...]) -> None:
    if name not in known:
        raise UnknownName(kind, name, known=known)


def _generators(folder: Path, part: str, maps: Mapping[str, Mapping[str, str]]) -> Iterator[dict[str, Any]]:
    """Write the texts below *folder*, and say how kustomize makes ConfigMaps or Secrets of them."""
    for name, texts in maps.items():
        (folder / part / name).mkdir(parents=True)
        for key, text in texts.items():
            write_atomically(folder / part / name / key, text, mode=0o600)
        options: dict[str, Any] = {"labels": _labels_of(name)}
        if name in _CHANGED_IN_PLACE:
            options["disableNameSuffixHash"] = True
        yield {"name": name, "files": [f"{key}={part}/{name}/{key}" for key in texts], "options": options}


def _labels_of(name: str) -> dict[str, str]:
    """The labels of a ConfigMap or Secret: those of the component that it configures, if it is for one."""
    owners = load_catalogue()
    stem = name.removeprefix("env-").removesuffix("-config").removesuffix("-init")
    owner = next((each for each in owners if stem in (each, each.removesuffix("-exporter"))), "lab")
    of_shop = owner in owners and "labkit.shop" in owners[owner].argv
    return {"app.kubernetes.io/name": owner, "app.kubernetes.io/component": "shop" if of_shop else "stack"}


def _own_image(image: str) -> dict[str, str]:
    name, colon, tag = image.rpartition(":")
    if not colon or "/" in tag or not name or not tag or "@" in name:
        raise InvalidValue("shop_image", expected="a name with a tag, as in labkit-shop:3f2a1c", got=image)
    return {"name": SHOP_IMAGE, "newName": name, "newTag": tag}


def _mirrored(overlay: str, profile: str, registry: str) -> list[dict[str, str]]:
    if not registry:
        return []
    pods = [each["spec"]["template"]["spec"] for each in _static_objects(overlay, profile) if _has_pods(each)]
    names = {container["image"].rpartition(":")[0] for pod in pods for container in pod["containers"]}
    return [{"name": name, "newName": f"{registry.rstrip('/')}/{name}"} for name in sorted(names - {SHOP_IMAGE})]


def _has_pods(each: Mapping[str, Any]) -> bool:
    return each["kind"] in ("Deployment", "StatefulSet")


def _documents(text: str) -> Iterator[Any]:
    return iter(yaml.load_all(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)))


def _place(each: Mapping[str, Any]) -> tuple[int, int, str]:
    kind, name = each["kind"], each["metadata"]["name"]
    # What is not known here may refer to anything.
    position = _KINDS.index(kind) if kind in _KINDS else len(_KINDS)
    return position, _FIRST.index(name) if name in _FIRST else len(_FIRST), name


def _of_pod(pod: Mapping[str, Any], side: str, resource: str) -> Decimal:
    def values(containers: Iterable[Mapping[str, Any]]) -> list[Decimal]:
        return [_quantity(one.get("resources", {}).get(side, {}).get(resource, 0)) for one in containers]

    inits = pod.get("initContainers", [])
    # One that is restarted always runs beside the others.
    beside = sum(values(one for one in inits if one.get("restartPolicy") == "Always"), Decimal(0))
    once = values(one for one in inits if one.get("restartPolicy") != "Always")
    return beside + max([sum(values(pod["containers"]), Decimal(0)), *once])


def _quantity(text: str | float) -> Decimal:
    """A quantity of Kubernetes: bytes, or cores."""
    found = re.fullmatch(r"([0-9.]+)(m|k|[KMGT]i?|)", str(text))
    if not found or (found[2] not in _UNITS and found[2] != "m"):
        raise InvalidValue("a quantity", expected="a number with a unit, as in 250m or 64Mi", got=text)
    number = Decimal(found[1])
    return number / 1000 if found[2] == "m" else number * _UNITS[found[2]]


def _static_objects(overlay: str, profile: str) -> list[dict[str, Any]]:
    objects: list[dict[str, Any]] = []
    for part in (f"overlays/{overlay}", f"components/{profile}", f"overlays/{overlay}/tuning"):
        _add(_source() / part, objects)
    return objects


def _add(folder: Path, objects: list[dict[str, Any]]) -> None:
    """Do with *objects* what the kustomization in *folder* says: add resources, then components, then patch."""
    content = _read(folder / "kustomization.yaml")
    for name in content.get("resources", []):
        if (folder / name).is_dir():
            _add(folder / name, objects)
        else:
            objects.append(_read(folder / name))
    for name in content.get("components", []):
        _add(folder / name, objects)
    for patch in content.get("patches", []):
        target = patch["target"]
        for each in objects:
            same_kind = re.fullmatch(target["kind"], each["kind"])
            if same_kind and re.fullmatch(target["name"], each["metadata"]["name"]):
                for operation in _read(folder / patch["path"]):
                    _replace(each, operation)


def _replace(each: dict[str, Any], operation: Mapping[str, Any]) -> None:
    """One `replace` of JSON Patch; it is all that the overlays use, and a test holds them to it."""
    parent: Any = each
    *parts, last = operation["path"].strip("/").split("/")
    for part in parts:
        parent = parent[int(part) if isinstance(parent, list) else part]
    parent[int(last) if isinstance(parent, list) else last] = operation["value"]


def _read(path: Path) -> Any:
    (only,) = _documents(path.read_text(encoding="utf-8"))
    return only
