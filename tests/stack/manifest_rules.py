"""
What holds for every manifest below `infra/k8s`: rules that say what is wrong, and nothing when all is well.

A rule takes all objects, by the path of their file, because some of them are about several.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import kubernetes_validate.utils
import yaml

from labkit.settings import files_root
from labkit.stack.catalogue import ReleaseSource, load_catalogue
from labkit.stack.manifests import SHOP_IMAGE
from labkit.stack.plan import Instance
from tests.kind.rig.golang import KUBERNETES_VERSION

__all__ = [
    "MINORS",
    "RULES",
    "Json",
    "Objects",
    "containers",
    "fit_schemas",
    "hold_to_catalogue",
    "objects_below",
    "reach",
    "workloads",
]

Json = dict[str, Any]
Objects = Mapping[str, Json]
Rule = Callable[[Objects], Iterator[str]]

# The oldest in which replicas may count from 1, the one that is compiled for tests, and the newest that is known.
MINORS = ("1.31", ".".join(KUBERNETES_VERSION.split(".")[:2]), "1.37")
NAME, COMPONENT = "app.kubernetes.io/name", "app.kubernetes.io/component"
_WITH_TOKEN = {"prometheus", "shipper", "kube-state-metrics"}
# The only root file system that is written to; the manifest says why.
_WRITABLE = {"opensearch"}
_SECRET_KEYS = {
    "lab-secrets": {"admin_token", "shop_password", "monitor_password", "webhook_token"},
    "mariadb-init": {"init.sql"},
}
_CONFIGS = {"prometheus-config", "alertmanager-config", "blackbox-config", "jaeger-config", "toxiproxy-config"}

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
# It reads the same large files for every object.
kubernetes_validate.utils.schema_contents = cache(kubernetes_validate.utils.schema_contents)


def objects_below(folder: Path) -> dict[str, Json]:
    """Every object by the path of its file; kustomizations and patches are none."""
    found: dict[str, Json] = {}
    for path in sorted(folder.rglob("*.yaml")):
        documents = [each for each in yaml.load_all(path.read_text(encoding="utf-8"), _LOADER) if each]
        if path.name == "kustomization.yaml" or isinstance(documents[0], list):
            continue
        name = str(path.relative_to(folder))
        assert len(documents) == 1, f"{name}: {len(documents)} objects in one file"
        found[name] = documents[0]
    return found


def fit_schemas(objects: Objects) -> Iterator[str]:
    """Every object fits the schema of each version, with no field that it does not know."""
    for where, each in objects.items():
        for minor in MINORS:
            try:
                kubernetes_validate.validate(each, minor, strict=True)
            except kubernetes_validate.ValidationError as error:
                yield f"{where}: Kubernetes {minor}: {'.'.join(map(str, error.path))}: {error.message}"
            except kubernetes_validate.SchemaNotFoundError as error:
                yield f"{where}: {error.message}"


def named_by_kind(objects: Objects) -> Iterator[str]:
    """A file is named after its object's kind and name."""
    for where, each in objects.items():
        wanted = f"{each['kind'].lower()}-{each['metadata']['name']}.yaml"
        if Path(where).name != wanted:
            yield f"{where}: holds {each['kind']} {each['metadata']['name']}; call it {wanted}"


def labelled(objects: Objects) -> Iterator[str]:
    """Recommended labels are complete, the same on pods, and selectors use the name only."""
    for where, each in objects.items():
        labels = each["metadata"].get("labels", {})
        fixed = {"app.kubernetes.io/part-of": "labkit", "app.kubernetes.io/managed-by": "labkit"}
        for key in (NAME, COMPONENT, *fixed):
            if key not in labels:
                yield f"{where}: no label {key}"
            elif labels[key] != fixed.get(key, labels[key]):
                yield f"{where}: label {key} is {labels[key]}"
        if labels.get(COMPONENT) not in ("shop", "stack"):
            yield f"{where}: label {COMPONENT} is neither shop nor stack"
    for where, each in workloads(objects):
        if each["spec"]["template"]["metadata"]["labels"] != each["metadata"]["labels"]:
            yield f"{where}: its pods have other labels than itself"
        if each["spec"]["selector"] != {"matchLabels": {NAME: each["metadata"]["name"]}}:
            yield f"{where}: selects by something else than its name"


def restricted(objects: Objects) -> Iterator[str]:
    """Pods are as Pod Security `restricted` wants them, and have neither a token nor Service variables for nothing."""
    for where, each in workloads(objects):
        name, pod = each["metadata"]["name"], each["spec"]["template"]["spec"]
        context = pod.get("securityContext", {})
        if not context.get("runAsNonRoot") or not context.get("runAsUser") or not context.get("fsGroup"):
            yield f"{where}: does not say that it runs as a user that is not root"
        if context.get("seccompProfile") != {"type": "RuntimeDefault"}:
            yield f"{where}: no seccomp profile"
        if pod.get("enableServiceLinks") is not False:
            # WEBHOOK_PORT=tcp://… of a Service `webhook` would be taken for a setting.
            yield f"{where}: Services would enter its environment"
        if (pod.get("automountServiceAccountToken") is not False) != (name in _WITH_TOKEN):
            what = "is missing" if name in _WITH_TOKEN else "that it does not need"
            yield f"{where}: a token of the API server {what}"
        for container in containers(pod):
            own = container.get("securityContext", {})
            if own.get("allowPrivilegeEscalation") is not False or own.get("capabilities") != {"drop": ["ALL"]}:
                yield f"{where}: {container['name']} may gain privileges"
            if own.get("readOnlyRootFilesystem") is not (container["name"] not in _WRITABLE):
                yield f"{where}: the root of {container['name']} can be written to, or needlessly cannot"


def bounded(objects: Objects) -> Iterator[str]:
    """Every container says what it needs and what it may take; scratch space has a size."""
    for where, each in workloads(objects):
        pod = each["spec"]["template"]["spec"]
        for container in containers(pod):
            resources = container.get("resources", {})
            if not {"cpu", "memory"} <= resources.get("requests", {}).keys() or "memory" not in resources.get(
                "limits", {}
            ):
                yield f"{where}: {container['name']} does not say how much it needs"
        for volume in pod.get("volumes", []):
            if "emptyDir" in volume and "sizeLimit" not in volume["emptyDir"]:
                yield f"{where}: volume {volume['name']} may fill the node"
        if not 5 <= pod.get("terminationGracePeriodSeconds", 0) <= 60:
            yield f"{where}: no sensible time to end"
    for where, each in objects.items():
        for claim in each["spec"].get("volumeClaimTemplates", []) if "spec" in each else []:
            if "storageClassName" in claim["spec"]:
                yield f"{where}: asks for a storage class that another cluster may lack"


def exact_images(objects: Objects) -> Iterator[str]:
    """Images are named in full with the exact version of the label, which is the catalogue's where it has one."""
    for where, each in workloads(objects):
        version = each["metadata"]["labels"].get("app.kubernetes.io/version", "")
        for container in containers(each["spec"]["template"]["spec"]):
            name, _, tag = container["image"].rpartition(":")
            if not re.fullmatch(r"v?\d+\.\d+\.\d+", tag):
                yield f"{where}: {container['image']} is not an exact version"
            elif name != SHOP_IMAGE and (tag.removeprefix("v") != version or name.count("/") < 2):
                yield f"{where}: {container['image']} is not a full name of version {version or '(none)'}"
        program = getattr(load_catalogue().get(each["metadata"]["name"]), "program", None)
        releases = [s.version for s in program.sources if isinstance(s, ReleaseSource)] if program else []
        if releases and version not in releases:
            yield f"{where}: version {version}, but processes of the lab have {releases[0]}"


def probed(objects: Objects) -> Iterator[str]:
    """What serves is probed: whether it has started, is ready, is alive."""
    for where, each in workloads(objects):
        for container in each["spec"]["template"]["spec"]["containers"]:
            missing = [p for p in ("startupProbe", "readinessProbe", "livenessProbe") if p not in container]
            if container.get("ports") and missing:
                yield f"{where}: {container['name']} serves and has no {', '.join(missing)}"


def referring(objects: Objects) -> Iterator[str]:
    """ConfigMaps, Secrets, accounts, volumes and the pods of Services are there."""
    with_env = {f"env-{c.name}" for c in load_catalogue().values() if c.env}
    accounts = {each["metadata"]["name"] for each in objects.values() if each["kind"] == "ServiceAccount"}
    for where, each in workloads(objects):
        pod = each["spec"]["template"]["spec"]
        volumes = {volume["name"]: volume for volume in pod.get("volumes", [])}
        volumes |= {claim["metadata"]["name"]: claim for claim in each["spec"].get("volumeClaimTemplates", [])}
        if pod.get("serviceAccountName", "default") not in {"default", *accounts}:
            yield f"{where}: there is no account {pod['serviceAccountName']}"
        mounted = {mount["name"] for container in containers(pod) for mount in container.get("volumeMounts", [])}
        for name in sorted(mounted ^ volumes.keys()):
            yield f"{where}: volume {name} is mounted and not there, or there and not mounted"
        maps = {source["configMapRef"]["name"] for c in containers(pod) for source in c.get("envFrom", [])}
        unknown = maps - with_env
        unknown |= {v["configMap"]["name"] for v in volumes.values() if "configMap" in v} - _CONFIGS
        for secret in (v["secret"] for v in volumes.values() if "secret" in v):
            keys = {item["key"] for item in secret["items"]}
            unknown |= {f"{secret['secretName']}/{key}" for key in keys - _SECRET_KEYS.get(secret["secretName"], set())}
        yield from (f"{where}: nobody makes {name}" for name in sorted(unknown))
        own_env = f"env-{each['metadata']['name']}"
        if own_env in with_env - maps:
            yield f"{where}: does not get {own_env}"
    yield from _services(objects)


def lingering(objects: Objects) -> Iterator[str]:
    """What is behind a link keeps its address until no Service names it; none names what is not ready."""
    text = (files_root() / "infra" / "shop" / "links.yaml").read_text(encoding="utf-8")
    behind = {re.sub(r"-\d+$", "", link["upstream"]) for link in yaml.safe_load(text)["links"]}
    for where, each in workloads(objects):
        pod = each["spec"]["template"]["spec"]
        if each["metadata"]["name"] not in behind:
            continue
        if not [one for one in pod.get("initContainers", []) if one["name"] == "linger" and "restartPolicy" in one]:
            yield f"{where}: is behind a link and its address ends with it"
        ready = pod["containers"][0].get("readinessProbe", {"failureThreshold": 9})
        # Before the eight seconds are over, with some for those who hear of it.
        if ready.get("periodSeconds", 10) * ready["failureThreshold"] > 4:
            yield f"{where}: is behind a link and known too late not to be ready"
        if pod["terminationGracePeriodSeconds"] < 20:
            yield f"{where}: is behind a link and has no time to linger"
    for where, each in objects.items():
        if each["kind"] == "Service" and each["spec"].get("publishNotReadyAddresses"):
            yield f"{where}: names a pod until it is gone"


def _services(objects: Objects) -> Iterator[str]:
    pods = {each["metadata"]["name"]: each["spec"]["template"]["spec"] for _, each in workloads(objects)}
    for where, each in objects.items():
        if each["kind"] != "Service":
            continue
        owner = each["metadata"]["labels"][NAME]
        names = {port["name"] for c in pods.get(owner, {"containers": []})["containers"] for port in c.get("ports", [])}
        (selector,) = each["spec"]["selector"].items()
        if selector not in {(NAME, owner), ("statefulset.kubernetes.io/pod-name", each["metadata"]["name"])}:
            yield f"{where}: selects other pods than those of {owner}"
        for port in each["spec"]["ports"]:
            if port["targetPort"] not in names:
                yield f"{where}: {owner} has no port {port['targetPort']}"


def least_rights(objects: Objects) -> Iterator[str]:
    """Rights are those of a namespace, to look only, and at no secret; each Role is bound to its account."""
    for where, each in objects.items():
        if each["kind"].startswith("Cluster"):
            yield f"{where}: a right on the whole cluster"
        for rule in each.get("rules", []):
            if set(rule["verbs"]) - {"get", "list", "watch"} or {"secrets", "*"} & set(rule["resources"]):
                yield f"{where}: a right to change something, or to read secrets"
        if each["kind"] == "RoleBinding":
            name = each["metadata"]["name"]
            same = each["roleRef"]["name"] == name and [s["name"] for s in each["subjects"]] == [name]
            if not same or where.replace("rolebinding-", "role-") not in objects:
                yield f"{where}: binds something else than Role and account {name}"


def hold_to_catalogue(objects: Objects, instances: Mapping[str, Instance], links: Mapping[str, int]) -> Iterator[str]:
    """Ports and arguments are the catalogue's; toxiproxy also has those of the links."""
    for where, each in workloads(objects):
        name = each["metadata"]["name"]
        component = load_catalogue().get(name)
        if component is None:  # the cluster's own
            continue
        wanted = dict(component.ports) | (dict(links) if name == "toxiproxy" else {})
        if name == "opensearch":  # one node, which speaks to no other
            wanted = {"http": wanted["http"]}
        main = next(c for c in each["spec"]["template"]["spec"]["containers"] if c["name"] == name)
        ports = {port["name"]: port["containerPort"] for port in main.get("ports", [])}
        if ports != wanted:
            yield f"{where}: ports {ports}, the catalogue has {wanted}"
        if each["spec"]["replicas"] != component.replicas:
            yield f"{where}: {each['spec']['replicas']} replicas, the catalogue has {component.replicas}"
        yield from (f"{where}: {said}" for said in _other_arguments(name, main, instances))
    for where, each in objects.items():
        if each["kind"] == "Service" and any(port["targetPort"] != port["name"] for port in each["spec"]["ports"]):
            yield f"{where}: ports are not called as in the catalogue"


# What is not the same as in a process of the lab, and why.
_LESS = {
    "mariadb": ("--user=", "--lc-messages-dir=", "--socket="),  # its image knows; sockets have a folder of their own
    "shipper": ("/live/log", "/data/offsets.json", "otlp", "http://store:4318", "--to", "--url", ""),  # of the profile
    "opensearch": ("",),  # the public image is told by its environment
}
_MORE = {
    "mariadb": ("--socket=", "--pid-file=", "--log-warnings="),
    "redis": ("--protected-mode", "no"),
    "store": ("--host", "0.0.0.0"),  # noqa: S104
    "shipper": ("/logs", "--to", "nowhere"),
    "toxiproxy": ("-config", "/etc/labkit/toxiproxy/links.json"),
}


def _other_arguments(name: str, container: Json, instances: Mapping[str, Instance]) -> Iterator[str]:
    instance = next((one for one in instances.values() if one.component.name == name), None)
    if instance is None:
        return
    wanted = [part.replace("127.0.0.1", "0.0.0.0") for part in _argv_of(name, container, instance.argv)]  # noqa: S104
    got = [*container.get("command", []), *container.get("args", [])]
    for part in _without(wanted, got):
        if not part.startswith(_LESS.get(name, ("\0",))):
            yield f"{name} lacks {part}"
    for part in _without(got, wanted):
        if not part.startswith(_MORE.get(name, ("\0",))):
            yield f"{name} has {part}, the catalogue does not"


def _argv_of(name: str, container: Json, argv: tuple[str, ...]) -> tuple[str, ...]:
    # Where no command is given, the image's entrypoint is the program.
    return argv if "command" in container or not load_catalogue()[name].program else argv[1:]


def _without(left: list[str], right: list[str]) -> list[str]:
    rest = list(right)
    return [part for part in left if part not in rest or rest.remove(part)]  # type: ignore[func-returns-value]


def reach(objects: Objects) -> set[tuple[str, str]]:
    """Which workload may open connections to which, by the NetworkPolicies."""
    pods = {each["metadata"]["name"]: each["spec"]["template"]["metadata"]["labels"] for _, each in workloads(objects)}
    found = set()
    policies = [each["spec"] for each in objects.values() if each["kind"] == "NetworkPolicy"]
    for target, labels in pods.items():
        mine = [policy for policy in policies if _selects(policy["podSelector"], labels)]
        allowed = [
            peer["podSelector"] for policy in mine for rule in policy.get("ingress", []) for peer in rule["from"]
        ]
        for source, source_labels in pods.items():
            if not mine or any(_selects(peer, source_labels) for peer in allowed):
                found.add((source, target))
    return found


def _selects(selector: Json, labels: Mapping[str, str]) -> bool:
    return bool(selector.get("matchLabels", {}).items() <= labels.items())


def workloads(objects: Objects) -> Iterator[tuple[str, Json]]:
    """Deployments and StatefulSets."""
    return ((where, each) for where, each in objects.items() if each["kind"] in ("Deployment", "StatefulSet"))


def containers(pod: Json) -> list[Json]:
    """All containers of a pod, those that run before the others first."""
    return [*pod.get("initContainers", []), *pod["containers"]]


RULES: tuple[Rule, ...] = (
    fit_schemas, named_by_kind, labelled, restricted, bounded, exact_images, probed, referring,
    lingering, least_rights,
)  # fmt: skip
