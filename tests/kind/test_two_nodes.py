"""A lab on a cluster that somebody else made, of two nodes, with Jaeger and OpenSearch; and a node that is drained."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest
import requests

from labkit._wait import wait_until
from labkit.errors import NoData
from labkit.stack.cluster_status import is_ready
from tests.kind.cluster import Cluster
from tests.kind.kind_lab import KindLab
from tests.kind.rig.engine import Engine
from tests.test_telemetry import SIGNAL_MATRIX

pytestmark = [pytest.mark.kind, pytest.mark.timeout(1800)]

_TAINT = "node-role.kubernetes.io/control-plane"


@pytest.fixture(scope="module")
def lab(
    inside: Engine, two_nodes: Cluster, images: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[KindLab]:
    """`labkit up --on CONTEXT`: both nodes take pods; other namespaces are as before when it is down."""
    two_nodes.kubectl("taint", "nodes", "-l", _TAINT, f"{_TAINT}-")
    inside.run("kind", "load", "image-archive", images, "--name", two_nodes.name, timeout_s=600)
    before = _namespaces(two_nodes)
    run_dir = tmp_path_factory.mktemp("two") / "run"
    with KindLab(inside, run_dir, images, place=f"kind-{two_nodes.name}", profile="jaeger-opensearch") as up:
        yield up
    assert _namespaces(two_nodes) == before
    two_nodes.kubectl("taint", "nodes", "-l", _TAINT, f"{_TAINT}:NoSchedule")


def _namespaces(cluster: Cluster) -> set[str]:
    found = cluster.get("namespaces")["items"]
    # Another test's may be on its way out.
    return {one["metadata"]["name"] for one in found if one["status"]["phase"] == "Active"}


def _nodes_of(lab: KindLab, name: str) -> list[str]:
    pods = lab.get("pods", "-l", f"app.kubernetes.io/name={name}")["items"]
    return [pod["spec"]["nodeName"] for pod in pods if is_ready(pod)]


@pytest.mark.parametrize("service", SIGNAL_MATRIX)
def test_every_service_is_in_prometheus_opensearch_and_jaeger(lab: KindLab, service: str) -> None:
    """Its counter moved, OpenSearch has a line of it, Jaeger a span."""
    seen = SIGNAL_MATRIX[service]
    start = lab.lab.now() - timedelta(minutes=30)
    wait_until(
        lambda: (
            lab.lab.prometheus.value(f'sum({seen.metric}{{service="{service}",instance!="seeded"}})')
            and len(lab.lab.logs.search(service=service, start=start, limit=1))
            and len(lab.lab.traces.search(service, seen.operation, start=start, limit=1))
        ),
        f"metrics, logs and traces of {service}",
        timeout_s=180,
        every_s=1,
        tolerate=(NoData,),
    )


def test_replicas_are_on_different_nodes(lab: KindLab) -> None:
    """The constraint on their spread: what takes one node takes one replica."""
    for name in ("catalog", "payments"):
        assert len(set(_nodes_of(lab, name))) == 2


def test_a_drained_node_takes_no_replica_away_before_its_turn(lab: KindLab, two_nodes: Cluster) -> None:
    """
    What may move moves, a replica of the catalogue is ready all the time, and customers are answered again.

    Not the node with the database: its volume cannot follow it, here as on most clusters of one machine.
    """
    (stays,) = _nodes_of(lab, "mariadb")
    drained = next(n["metadata"]["name"] for n in two_nodes.get("nodes")["items"] if n["metadata"]["name"] != stays)
    with _counting(lab, "catalog") as ready:
        two_nodes.kubectl("drain", drained, "--ignore-daemonsets", "--delete-emptydir-data", "--force",
                          "--timeout=240s", timeout_s=270)  # fmt: skip
        moved = lab.get("pods")["items"]
        wait_until(lambda: _nodes_of(lab, "gateway"), "a gateway elsewhere", timeout_s=120, every_s=1)
    try:
        assert {pod["spec"].get("nodeName") for pod in moved if is_ready(pod)} == {stays}
        assert ready
        # A probe may be late on a busy machine; without the budget both would be away for most of the time.
        assert sum(number >= 1 for number in ready) / len(ready) > 0.8, ready
        wait_until(
            lambda: requests.get(lab.lab.url("gateway") + "/products/3", timeout=10).ok,
            "customers are answered",
            timeout_s=120,
            every_s=1,
            tolerate=(requests.RequestException,),
        )
    finally:
        two_nodes.kubectl("uncordon", drained)
    wait_until(
        lambda: [row.name for row in lab.lab._runtime.status() if not row.ready],
        "every component is ready again",
        timeout_s=300,
        every_s=2,
        ready=lambda waiting: not waiting,
    )


@contextmanager
def _counting(lab: KindLab, name: str) -> Iterator[list[int]]:
    """How many pods of a component are ready, twice a second, while the block runs."""
    counts: list[int] = []
    done = threading.Event()

    def count() -> None:
        while not done.wait(0.5):
            counts.append(len(_nodes_of(lab, name)))

    thread = threading.Thread(target=count)
    thread.start()
    try:
        yield counts
    finally:
        done.set()
        thread.join()
