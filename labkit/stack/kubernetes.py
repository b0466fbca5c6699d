"""
The lab on Kubernetes: one namespace on a kind cluster that labkit makes, or on a cluster of a kubectl context.

On this machine the lab has its run directory, a supervisor with the guard, and the forwarder, through which every
component is at the same address as in a lab of processes.
"""

from __future__ import annotations

import getpass
import hashlib
import json
import re
import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from labkit._proc import tail
from labkit._wait import wait_until
from labkit.errors import ComponentDied, ConfigInvalid, NotRunning
from labkit.settings import Settings
from labkit.stack.catalogue import load_catalogue
from labkit.stack.cluster import Cluster
from labkit.stack.cluster_api import GRACE_S
from labkit.stack.cluster_apply import apply
from labkit.stack.cluster_layout import ClusterLayout
from labkit.stack.cluster_logs import follow, last_lines
from labkit.stack.cluster_prometheus import CONFIG_MAP, ClusterPrometheusConfig
from labkit.stack.cluster_return import lost_because, require_nodes, wait_for_return
from labkit.stack.cluster_status import NAME, component_rows, pods_of
from labkit.stack.cluster_wait import wait_ready
from labkit.stack.contexts import TRUST, confirm, resolve
from labkit.stack.doctor_cluster import NODE_MIB
from labkit.stack.download import write_atomically
from labkit.stack.engine import check_engine
from labkit.stack.forward_routes import Forwarding, Route, ready_file, write_routes
from labkit.stack.kind import KindCluster
from labkit.stack.manifests import build, static_requests, write_kustomization
from labkit.stack.plan import Layout
from labkit.stack.ports import check_ports
from labkit.stack.progress import Event, Progress, step
from labkit.stack.rights import require_rights
from labkit.stack.runtime import ComponentStatus, Hooks, Runtime
from labkit.stack.shop_image import build_shop_image
from labkit.stack.state import ClusterRef, ProcessId, State
from labkit.stack.supervisor import ProcessInfo, memory_mb
from labkit.stack.tools import kind_tool, kubectl_tool

__all__ = ["KIND_CLUSTER", "KubernetesRuntime"]

KIND_CLUSTER = "labkit"
"""The kind cluster that labkit makes for labs, and deletes with the last of them."""

_READY_S = 600
_STATUS_GRACE_S = 5
_FORWARD_S = 60
_HERE = ("guard", "forward")


class KubernetesRuntime(Runtime):
    """The lab of one run directory, as a namespace on a cluster."""

    def __init__(self, settings: Settings, *, catalogue: Path | None = None) -> None:
        super().__init__(settings, catalogue=catalogue)
        self._ref: ClusterRef | None = None

    # What is there

    def status(self) -> list[ComponentStatus]:
        """A row per instance on the cluster, and one for the guard and the forwarder here; empty if no lab runs."""
        state = self.state()
        if state is None or state.cluster is None:
            return []
        require_nodes(self._kind(state.cluster), self.run_dir)
        layout = self.layout(state)
        cluster, namespace = self._cluster(state, grace_s=_STATUS_GRACE_S), state.cluster.namespace
        seen = self.supervisor.processes()
        rows = component_rows(layout, cluster.pods(namespace), cluster.events(namespace))
        return [*rows, *(self._row_here(name, seen) for name in _HERE)]

    def layout(self, state: State) -> ClusterLayout:
        """The layout of a lab that runs."""
        return ClusterLayout(replace(self.settings, **state.choices), self.catalogue)

    def restart(self, name: str) -> None:
        """Delete the pods of one instance, and wait until their successors are ready."""
        state, cluster, namespace = self._running()
        layout = self.layout(state)
        if name not in layout.instances:
            raise LookupError(f"no instance {name!r} in this lab; there are: {', '.join(layout.instances)}")
        old = pods_of(layout, name, cluster.pods(namespace))
        before = {pod["metadata"]["uid"] for pod in old}
        for pod in old:
            cluster.delete_pod(namespace, pod["metadata"]["name"])

        def renewed() -> bool:
            pods = cluster.pods(namespace)
            mine = {pod["metadata"]["uid"] for pod in pods_of(layout, name, pods)}
            rows = {row.name: row for row in component_rows(layout, pods)}
            return rows[name].ready and not mine & before

        within_s = layout.instances[name].component.ready.within_s
        wait_until(renewed, f"{name} is ready again", timeout_s=within_s + 60, every_s=0.5)

    def revive(self, state: State) -> None:
        """Apply every object again: what was scaled down, changed or deleted by hand is as it was."""
        cluster, namespace = self._cluster(state), self._running()[2]
        objects = json.loads(self._objects_file.read_text(encoding="utf-8"))
        # What Prometheus reads changes while the lab runs; it is not the manifests' any more.
        kept = [o for o in objects if (o["kind"], o["metadata"]["name"]) != ("ConfigMap", CONFIG_MAP)]
        apply(cluster, kept, namespace, take_back=True)

    def log_lines(self, name: str, lines: int) -> list[str]:
        """The last *lines* lines that an instance wrote."""
        if name in _HERE:
            path = self.run_dir / "log" / f"{name}.log"
            return path.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:] if path.exists() else []
        _, cluster, namespace = self._running()
        return last_lines(cluster, namespace, self._pod(name), self._container(name), lines)

    def follow_log(self, name: str) -> Iterator[str]:
        """What an instance adds to its log from now on, without end."""
        _, cluster, namespace = self._running()
        return follow(cluster, namespace, self._container(name), lambda: self._pod(name))

    def prometheus_config(self, url: str) -> ClusterPrometheusConfig:
        """What the lab's Prometheus, at *url*, reads."""
        _, cluster, namespace = self._running()
        return ClusterPrometheusConfig(url, self.run_dir, cluster, namespace)

    # How it starts

    def _cluster_ref(self) -> ClusterRef | None:
        return self._ref

    def _plan(self, progress: Progress) -> tuple[Layout, Mapping[str, str]]:
        settings = self.settings
        if settings.lab == "kind":
            # Before anything is fetched that would be of no use.
            for warning in check_engine(static_requests(settings.overlay, settings.profile).memory_mib + NODE_MIB):
                progress(Event("note", warning))
            kind_tool(settings, progress)
            context, kubeconfig, kind = f"kind-{KIND_CLUSTER}", str(self.run_dir / "kubeconfig"), KIND_CLUSTER
        else:
            context, kubeconfig, kind = self._confirmed(), "", ""
            # Without patience: nothing is made yet that would have to be taken away.
            Cluster(None, context).version()
            self._require_image()
        kubectl_tool(settings, progress)
        self._ref = ClusterRef(kind, kubeconfig, context, namespace_of(self.run_dir))
        layout = ClusterLayout(settings, self.catalogue)
        ports = {port: name for name in layout.instances for port in layout.ports[name].values()}
        check_ports(ports, offset=settings.port_offset)
        return layout, {}

    def _confirmed(self) -> str:
        """The context of the settings, when it is on this machine or somebody said that it may be used."""
        settings = self.settings
        found = resolve(settings.lab)
        terminal = sys.stdin.isatty() and sys.stdout.isatty()
        confirm(
            found,
            namespace_of(self.run_dir),
            ask=_ask if terminal else None,
            environ={TRUST: settings.trust_context},
        )
        return found.context

    def _launch(self, state: State, layout: Layout, hooks: Hooks, progress: Progress) -> State:
        ref = state.cluster
        assert ref is not None  # noqa: S101  (_first_state put it there)
        # The guard first: from here on it takes down what was made, whatever becomes of this process.
        here = Layout({name: load_catalogue(self.catalogue)[name] for name in _HERE}, {}, self.settings)
        for name in _HERE:
            here.data(name).mkdir(parents=True, exist_ok=True)
        supervisor = self.supervisor.start(here, state.lab_id, whole_environment=True)
        state = state.changed(supervisor=ProcessId.of(supervisor))
        kind = self._kind(ref)
        if kind is not None:
            kind.ensure(self.settings.node_image, progress)
        cluster = self._cluster(state)
        if kind is not None:
            # At once: a lab that ends on this cluster deletes it unless it sees that another one is here.
            self._make_namespace(cluster, ref, state.lab_id, layout, progress)
        objects = self._objects(layout, state, self._shop_image(kind, progress), progress)
        require_rights(cluster, objects, ref.namespace, progress)
        if kind is None:
            self._make_namespace(cluster, ref, state.lab_id, layout, progress)
        apply(cluster, objects, ref.namespace, progress)
        self._forward(layout, ref, progress)
        self._follow(layout, cluster, ref.namespace, hooks, progress)
        return state

    def _make_namespace(
        self, cluster: Cluster, ref: ClusterRef, lab_id: str, layout: Layout, progress: Progress
    ) -> None:
        with step(progress, f"make namespace {ref.namespace} on {ref.context}") as now:
            now.detail = f"Kubernetes {cluster.version()}"
            if cluster.create_namespace(ref.namespace, lab_id):
                # Its volumes are new: what was recorded on earlier ones is gone.
                layout.data("slo-recorded.json").unlink(missing_ok=True)

    def _lost(self, running: State, progress: Progress) -> str:
        ref = running.cluster
        return lost_because(self._kind(ref), self._cluster(running), ref, running.lab_id, progress) if ref else ""

    def _rejoin(self, running: State, progress: Progress) -> None:
        """Wait until the lab is ready, when the node of its kind cluster was started a short while ago."""
        ref = running.cluster
        kind = self._kind(ref) if ref else None
        if ref is not None and kind is not None:
            wait_for_return(kind, self._cluster(running), ref.namespace, progress, timeout_s=_READY_S)

    def _require_image(self) -> None:
        if not self.settings.shop_image and self._other_kind() is None:
            raise self._no_image()

    def _no_image(self) -> ConfigInvalid:
        return ConfigInvalid(
            f"A lab on {self.settings.lab}",
            problems=["the nodes of this cluster cannot see images that are built on this machine"],
            how="Run `labkit image --push REGISTRY/NAME` once, and set LABKIT_SHOP_IMAGE to what it prints.",
        )

    def _shop_image(self, kind: KindCluster | None, progress: Progress) -> str:
        """The name of the shop's image, where the cluster's nodes find it."""
        settings = self.settings
        if settings.shop_image:
            return settings.shop_image
        kind = kind or self._other_kind()
        if kind is None:
            raise self._no_image()
        image = build_shop_image(progress=progress, cache=settings.cache_dir, base=settings.base_image)
        kind.load(image, progress)
        return image

    def _objects(self, layout: Layout, state: State, image: str, progress: Progress) -> list[dict[str, Any]]:
        """What is applied; kept in the run directory, to be looked at and to be applied again."""
        ref = state.cluster
        assert ref is not None and isinstance(layout, ClusterLayout)  # noqa: S101, PT018
        folder = self.run_dir / "k8s"
        write_kustomization(
            folder,
            overlay=self.settings.overlay,
            profile=self.settings.profile,
            namespace=ref.namespace,
            lab_id=state.lab_id,
            configmaps=layout.config_maps(),
            secrets=layout.secret_maps(),
            shop_image=image,
            image_registry=self.settings.image_registry,
        )
        objects = build(folder, kubectl_tool(self.settings, progress))
        write_atomically(self._objects_file, json.dumps(objects), mode=0o600)
        return objects

    def _forward(self, layout: Layout, ref: ClusterRef, progress: Progress) -> None:
        """Open the lab's ports on this machine."""
        routes = [
            Route(
                name=f"{name} {role}",
                listen=layout.ports[name][role],
                port=port,
                **({"pod": name} if instance.component.replicas > 1 else {"selector": f"{NAME}={name}"}),
            )
            for name, instance in layout.instances.items()
            for role, port in instance.component.ports.items()
        ]
        write_routes(
            self.run_dir,
            Forwarding(context=ref.context, namespace=ref.namespace, routes=tuple(routes), kubeconfig=ref.kubeconfig),
        )
        with step(progress, f"forward {len(routes)} ports of this machine"):
            self.supervisor.start_process("forward")
            wait_until(self._forwards, "the forwarder has opened its ports", timeout_s=_FORWARD_S)

    def _forwards(self) -> bool:
        """Whether the forwarder has opened its ports; it does not try again when it cannot."""
        info = self.supervisor.processes().get("forward")
        if info is None or info.state in ("BACKOFF", "EXITED", "FATAL"):
            log = self.run_dir / "log" / "forward.log"
            said = tail(log.read_text(encoding="utf-8", errors="replace")[-4000:]) if log.exists() else ""
            raise ComponentDied("forward", state=info.state if info else "gone", log_path=log, log_tail=said)
        return ready_file(self.run_dir).exists()

    def _follow(self, layout: Layout, cluster: Cluster, namespace: str, hooks: Hooks, progress: Progress) -> None:
        """Wait for what hooks belong to, run them, then wait for the rest."""
        for name, hook in hooks.after.items():
            if name in layout.instances:
                wait_ready(cluster, namespace, progress, timeout_s=_READY_S, wanted=[name])
                hook(layout)
        wait_ready(cluster, namespace, progress, timeout_s=_READY_S)
        if hooks.finish:
            hooks.finish(layout)

    # Small things

    def _kind(self, ref: ClusterRef) -> KindCluster | None:
        return KindCluster(ref.kind, Path(ref.kubeconfig), kind_tool(self.settings)) if ref.kind else None

    def _other_kind(self) -> KindCluster | None:
        """The kind cluster behind the context of the settings, if somebody else made one of this name here."""
        prefix, _, name = self.settings.lab.partition("kind-")
        if prefix or not name or shutil.which("docker") is None or shutil.which("kind") is None:
            return None
        kind = KindCluster(name, self.run_dir / "kubeconfig", kind_tool(self.settings))
        return kind if kind.exists() else None

    def _cluster(self, state: State, *, grace_s: float = GRACE_S) -> Cluster:
        ref = state.cluster
        assert ref is not None  # noqa: S101  (a state of this runtime has it)
        return Cluster(Path(ref.kubeconfig) if ref.kubeconfig else None, ref.context, grace_s=grace_s)

    def _running(self) -> tuple[State, Cluster, str]:
        state = State.load(self.run_dir)
        if state is None or state.cluster is None:
            raise NotRunning(
                f"The lab in {self.run_dir}", seen="it is not on a cluster", how="Run `labkit up --on kind`."
            )
        require_nodes(self._kind(state.cluster), self.run_dir)
        return state, self._cluster(state), state.cluster.namespace

    @property
    def _objects_file(self) -> Path:
        return self.run_dir / "k8s" / "objects.json"

    def _pod(self, name: str) -> str:
        """The name of an instance's pod."""
        state, cluster, namespace = self._running()
        layout = self.layout(state)
        if name not in layout.instances:
            raise LookupError(f"there are logs of: {', '.join([*layout.instances, *_HERE])}")
        pods = pods_of(layout, name, cluster.pods(namespace))
        if not pods:
            raise LookupError(f"{name} has no pod at the moment")
        return str(pods[0]["metadata"]["name"])

    def _container(self, name: str) -> str:
        return re.sub(r"-\d+$", "", name) if name not in load_catalogue(self.catalogue) else name

    def _row_here(self, name: str, seen: Mapping[str, ProcessInfo]) -> ComponentStatus:
        info, component = seen.get(name), load_catalogue(self.catalogue)[name]
        running = info is not None and info.state == "RUNNING"
        pid = info.pid if info else None
        return ComponentStatus(
            name=name,
            title=component.title,
            state=info.state if info else "UNKNOWN",
            ready=running,
            port=None,
            pid=pid,
            memory_mb=memory_mb(pid),
            uptime_s=info.uptime_s if info and pid else None,
            version="",
            note="on this machine",
        )


def _ask(question: str) -> bool:
    return input(f"{question} [y/N] ").strip().lower() in {"y", "yes"}


def namespace_of(run_dir: Path) -> str:
    """
    The namespace of the lab of a run directory: two labs of one user, or of two users, have two.

    >>> namespace_of(Path("/home/ana/lab"))[:7]
    'labkit-'
    """
    user = re.sub(r"[^a-z0-9]+", "-", getpass.getuser().lower()).strip("-")[:20] or "user"
    return f"labkit-{user}-{hashlib.sha256(str(run_dir).encode()).hexdigest()[:6]}"
