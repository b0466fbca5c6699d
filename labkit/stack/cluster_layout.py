"""
The layout of a lab on Kubernetes: the same files of `infra/`, with the names that hold inside the cluster.

Every pod finds its configuration below `/etc/labkit`, its data in `/data`, secrets in `/secrets`; components reach
one another by the names of their Services.  This machine reaches them through the forwarder, at the same addresses
as those of a lab of processes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from labkit.settings import Settings, files_root
from labkit.stack.acquire import Installed
from labkit.stack.catalogue import Component, profile_components
from labkit.stack.download import write_atomically
from labkit.stack.plan import Layout

__all__ = ["ClusterLayout", "cluster_components", "prometheus_files"]

# What a lab on a cluster has on this machine instead.
_HERE = frozenset({"guard"})
_SCRAPE = "prometheus/scrape-kubernetes.yml"
_RULES = "prometheus/rules/kubernetes.yml"
_RULES_KEY = ".rules.yml"


def cluster_components(profile: str, folder: Path | None = None) -> dict[str, Component]:
    """The components of *profile* that run on the cluster, each after what it needs."""
    found = {name: c for name, c in profile_components(profile, folder).items() if name not in _HERE}
    if "opensearch" in found:
        # One node, which speaks to no other, and is told so by its manifest.
        alone = {"ports": {"http": 9200}, "argv": ()}
        found["opensearch"] = found["opensearch"].model_copy(update=alone)
    return found


class ClusterLayout(Layout):
    """
    Everything that is known about a lab on a cluster before it starts.

    Args:
        settings: run directory, port offset, seed, profile.
        catalogue: folder of the components; that of the installation if None.
    """

    def __init__(self, settings: Settings, catalogue: Path | None = None) -> None:
        components = cluster_components(settings.profile, catalogue)
        # Every image brings its program; the names are those that its own start finds on PATH.
        programs = {
            name: Installed(name, Path(c.program.commands[0]), "", "image")
            for name, c in components.items()
            if c.program is not None
        }
        super().__init__(components, programs, settings)

    def link(self, name: str) -> str:
        """The address under which other components reach *name*, through toxiproxy."""
        return f"toxiproxy:{self.link_ports[name] - self.settings.port_offset}"

    @property
    def link_host(self) -> str:
        """Every address of the pod."""
        return "0.0.0.0"  # noqa: S104  (inside a pod; NetworkPolicies say who may connect)

    @property
    def link_offset(self) -> int:
        """None: a pod has its ports for itself."""
        return 0

    def upstreams(self) -> dict[str, str]:
        """Where the components reach each instance that has a port, by the name of its Service."""
        return {name: self._at(name) for name, ports in self.ports.items() if ports}

    def names(self, component: Component, instance: str) -> dict[str, Any]:
        """What `@{…}` may refer to inside the cluster."""
        return {
            **super().names(component, instance),
            "port": dict(component.ports),
            "address": self.upstreams(),
            "at": self._at,
            "ports": {i: dict(c.ports) for c in self.components.values() for i in c.instances},
            "bin": {name: program.path.name for name, program in self.programs.items()},
            "share": {"mysql": "/usr/share/mysql"},
            "listen": self.link_host,
            "run": "/live",
            "etc": "/etc/labkit",
            "data": "/data",
            "secrets": "/secrets",
            "sockets": "/live",
            "live": "/live",
            "infra": "/app/infra",
            "package": "/app/labkit",
            "python": "python3",
            "user": "labkit",
            "rule_files": f"/etc/labkit/prometheus/*{_RULES_KEY}",
            "opensearch_nodes": 1,
        }

    def write_files(self) -> None:
        """
        Render every configuration file below `etc`: what enters the cluster, to be looked at.

        The jobs of Prometheus are those that find pods by themselves, and it has rules about the cluster beside the
        others.
        """
        super().write_files()
        prometheus = self.components["prometheus"]
        full, scrape = self.etc / "prometheus" / "full.yml", self._rendered(_SCRAPE, prometheus)
        config: dict[str, Any] = yaml.safe_load(full.read_text(encoding="utf-8"))
        config["scrape_configs"] = yaml.safe_load(scrape)["scrape_configs"]
        write_atomically(full, yaml.safe_dump(config, sort_keys=False), mode=0o600)
        write_atomically(self.etc / _RULES, self._rendered(_RULES, prometheus), mode=0o600)

    def config_maps(self) -> dict[str, Mapping[str, str]]:
        """ConfigMap → key → text, from the files below `etc` and the environments of the components."""
        found: dict[str, Mapping[str, str]] = {
            f"env-{c.name}": {key: self.render(value, c, c.instances[0], source=c.name) for key, value in c.env.items()}
            for c in self.components.values()
            if c.env
        }
        files = {
            "alertmanager-config": "alertmanager/alertmanager.yml",
            "blackbox-config": "blackbox/blackbox.yml",
            "jaeger-config": "jaeger/jaeger.yaml",
        }
        for name, file in files.items():
            path = self.etc / file
            if path.exists():
                found[name] = {path.name: path.read_text(encoding="utf-8")}
        if "toxiproxy" in self.components:
            found["toxiproxy-config"] = {"links.json": self._links()}
        return {**found, "prometheus-config": prometheus_files(self.etc / "prometheus")}

    def secret_maps(self) -> dict[str, dict[str, str]]:
        """Secret → key → text."""
        init = (self.etc / "mariadb" / "init.sql").read_text(encoding="utf-8")
        return {"lab-secrets": dict(self.secrets), "mariadb-init": {"init.sql": init}}

    def _links(self) -> str:
        """What toxiproxy begins with, also after its pod was replaced; a lab makes the same over its API."""
        links = [
            {"name": name, "listen": f"{self.link_host}:{port - self.settings.port_offset}", "upstream": self._at(name)}
            for name, port in self.link_ports.items()
        ]
        return json.dumps([{**link, "enabled": True} for link in links], indent=1)

    def _at(self, name: str, role: str | None = None) -> str:
        component = next(c for c in self.components.values() if name in c.instances)
        return f"{name}:{component.ports[role] if role else next(iter(component.ports.values()))}"

    def _rendered(self, source: str, component: Component) -> str:
        text = (files_root() / "infra" / source).read_text(encoding="utf-8")
        return self.render(text, component, component.instances[0], source=f"infra/{source}")


def prometheus_files(folder: Path) -> Mapping[str, str]:
    """Key → text of the ConfigMap that Prometheus reads, from the files in *folder*; ConfigMaps know no folders."""
    rules = {f"{path.stem}{_RULES_KEY}": path for path in sorted((folder / "rules").glob("*.yml"))}
    paths = {"prometheus.yml": folder / "prometheus.yml", **rules}
    return {key: path.read_text(encoding="utf-8") for key, path in paths.items()}
