"""What the Prometheus of a lab on a cluster reads: a ConfigMap that is changed in place while the lab runs."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

import yaml

from labkit._http import get_json, request
from labkit._wait import wait_until
from labkit.errors import RequestFailed
from labkit.stack.cluster import Cluster
from labkit.stack.cluster_layout import prometheus_files
from labkit.stack.prometheus_config import PrometheusConfig

__all__ = ["ClusterPrometheusConfig"]

CONFIG_MAP = "prometheus-config"
POD = "prometheus-0"
_ANNOTATION = "labkit/config"
# Without the nudge below kubelet would look at what is mounted once in a minute or so.
_ARRIVES_S = 120
_HOW = "`labkit logs prometheus` shows what it says; `labkit status` whether it runs."


class ClusterPrometheusConfig(PrometheusConfig):
    """
    The configuration of a Prometheus that runs as a pod.

    Its files arrive in the pod some time after the ConfigMap was changed, all at once.  A fingerprint among the rule
    files, a pattern that fits none, tells which of them Prometheus has read.

    Args:
        url: of Prometheus, from this machine.
        run_dir: of the lab.
        cluster: where it runs.
        namespace: of the lab.
    """

    def __init__(self, url: str, run_dir: Path, cluster: Cluster, namespace: str) -> None:
        super().__init__(url, run_dir)
        self.cluster, self.namespace = cluster, namespace

    def _publish(self) -> None:
        files = dict(prometheus_files(self.folder))
        mark = hashlib.sha256(repr(sorted(files.items())).encode()).hexdigest()[:16]
        fingerprint = f"/etc/labkit/prometheus/none-{mark}.yml"
        config = yaml.safe_load(files["prometheus.yml"])
        config["rule_files"] = [*config.get("rule_files", []), fingerprint]
        files["prometheus.yml"] = yaml.safe_dump(config, sort_keys=False)
        path = f"/api/v1/namespaces/{self.namespace}/configmaps/{CONFIG_MAP}"
        present = (self.cluster.get(path) or {}).get("data") or {}
        gone: dict[str, str | None] = dict.fromkeys(set(present) - set(files))
        self.cluster.patch_configmap(self.namespace, CONFIG_MAP, {**files, **gone})
        # kubelet brings what is mounted up to date as soon as anything about the pod changes.
        # https://kubernetes.io/docs/tasks/configure-pod-container/configure-pod-configmap/
        self.cluster.annotate_pod(self.namespace, POD, _ANNOTATION, mark)
        wait_until(
            lambda: self._has_read(fingerprint),
            "Prometheus has read its new configuration",
            timeout_s=_ARRIVES_S,
            every_s=0.5,
            how=_HOW,
        )

    def _has_read(self, fingerprint: str) -> bool:
        try:
            request("POST", f"{self.url}/-/reload", timeout_s=30, how=_HOW)
        except RequestFailed as error:
            # What it read before was right: a refusal is of the new files.
            if error.status is not None:
                raise
            return False
        return fingerprint in str(get_json(f"{self.url}/api/v1/status/config")["data"]["yaml"])

    def _log_mark(self) -> float:
        return time.time()

    def _log_since(self, mark: float) -> list[str]:
        text = self.cluster.pod_log(self.namespace, POD, since_s=time.time() - mark + 1)
        return text.splitlines()
