"""The kind cluster that labkit makes: made, loaded, stopped, started, interrupted and deleted, on a real engine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from labkit._proc import run
from labkit._wait import wait_until
from labkit.errors import ClusterGone, CommandFailed, SetupError
from labkit.settings import load_settings
from labkit.stack.engine import EngineUnfit, check_engine
from labkit.stack.kind import KindCluster, Node
from labkit.stack.tools import kind_tool
from tests.kind.rig.engine import Engine

pytestmark = [pytest.mark.kind, pytest.mark.timeout(900)]

CUT = """
import sys
from pathlib import Path
from labkit.stack.kind import KindCluster
KindCluster("labkit-cut", Path(sys.argv[1]), Path(sys.argv[2])).create(sys.argv[3])
"""


@pytest.fixture(scope="module")
def inside(rig: Engine) -> Iterator[str]:
    """This process in the engine's network and environment; the value is the node image that the engine has."""
    with rig.entered():
        yield rig.environment["RIG_NODE_IMAGE"]


@pytest.fixture(scope="module")
def kind(inside: str) -> Path:
    return kind_tool(load_settings())


@pytest.fixture(scope="module")
def made(inside: str, kind: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[KindCluster]:
    """A cluster that `ensure` made; the kubeconfig of the environment must not notice."""
    cluster = KindCluster("labkit-tool", tmp_path_factory.mktemp("tool") / "lab" / "kubeconfig", kind)
    cluster.delete()
    users = Path(os.environ["KUBECONFIG"])
    before = users.read_bytes() if users.exists() else None
    try:
        cluster.ensure(inside)
        yield cluster
    finally:
        cluster.delete()
    assert not cluster.exists()
    assert (users.read_bytes() if users.exists() else None) == before


def containers_of(name: str) -> list[str]:
    return run(
        ["docker", "ps", "--all", "--quiet", "--filter", f"label=io.x-k8s.kind.cluster={name}"], timeout_s=30
    ).split()


def nodes_by_kubectl(cluster: KindCluster) -> str:
    return run(["kubectl", "--kubeconfig", cluster.kubeconfig, "get", "nodes", "-o", "name"], timeout_s=60).strip()


def test_a_cluster_is_one_node_on_loopback_with_a_kubeconfig_of_its_own(made: KindCluster) -> None:
    """The API server listens on 127.0.0.1 alone, and the file that leads to it is for its owner alone."""
    config = yaml.safe_load(made.kubeconfig.read_text())
    published = run(["docker", "port", "labkit-tool-control-plane"], timeout_s=30).splitlines()

    assert made.nodes() == [Node("labkit-tool-control-plane", running=True)]
    assert [context["name"] for context in config["contexts"]] == ["kind-labkit-tool"] == [made.context]
    assert config["clusters"][0]["cluster"]["server"].startswith("https://127.0.0.1:")
    assert published
    assert all("-> 127.0.0.1:" in line for line in published)
    assert made.kubeconfig.stat().st_mode & 0o077 == 0
    assert nodes_by_kubectl(made) == "node/labkit-tool-control-plane"


def test_a_second_ensure_keeps_what_is_there_and_writes_the_kubeconfig_anew(made: KindCluster) -> None:
    """Another lab comes with a file of its own; the node stays the same container."""
    before = containers_of(made.name)
    made.kubeconfig.unlink()

    made.ensure("a/image:that-would-fail")

    assert containers_of(made.name) == before
    assert nodes_by_kubectl(made) == "node/labkit-tool-control-plane"


def test_create_refuses_a_name_that_is_taken_and_leaves_that_cluster_alone(made: KindCluster) -> None:
    """What is left of a creation is deleted only when this creation made it."""
    with pytest.raises(SetupError, match="there is one of this name"):
        made.create()

    assert nodes_by_kubectl(made) == "node/labkit-tool-control-plane"


def test_a_stopped_node_is_named_started_and_waited_for(made: KindCluster) -> None:
    """As after a restart of the machine: the API server answers when `start_nodes` returns, at the same address."""
    assert made.start_nodes() is False
    run(["docker", "stop", "--time", "20", "labkit-tool-control-plane"], timeout_s=60)
    assert made.nodes() == [Node("labkit-tool-control-plane", running=False)]
    with pytest.raises(ClusterGone, match="labkit-tool-control-plane is stopped"):
        made.export_kubeconfig()

    assert made.start_nodes() is True

    assert nodes_by_kubectl(made) == "node/labkit-tool-control-plane"
    assert made.start_nodes() is False


def test_an_image_is_loaded_and_one_that_is_not_there_is_named(made: KindCluster, tmp_path: Path) -> None:
    """By name and as an archive, the node has it afterwards."""
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY Dockerfile /\n")
    names = ["localhost/labkit-tool/a:1", "localhost/labkit-tool/b:1"]
    for name in names:
        run(["docker", "build", "--network", "none", "--label", f"n={name}", "-t", name, tmp_path], timeout_s=60)
    archive = tmp_path / "b.tar"
    run(["docker", "save", "--output", archive, names[1]], timeout_s=60)
    try:
        made.load(names[0])
        made.load(archive)
        on_node = run(["docker", "exec", "labkit-tool-control-plane", "crictl", "images"], timeout_s=60)
        with pytest.raises(CommandFailed, match="localhost/labkit-tool/none:1"):
            made.load("localhost/labkit-tool/none:1")
    finally:
        run(["docker", "image", "rm", *names], timeout_s=60)

    assert "localhost/labkit-tool/a" in on_node
    assert "localhost/labkit-tool/b" in on_node


def test_an_image_that_cannot_be_pulled_is_named_and_nothing_is_left(inside: str, kind: Path, tmp_path: Path) -> None:
    """No network here: the message names the image, the cause and the setting; no container and no context stay."""
    cluster = KindCluster("labkit-pull", tmp_path / "kubeconfig", kind)

    with pytest.raises(SetupError) as caught:
        cluster.create("registry.invalid/kindest/node:v1.0.0")

    said = str(caught.value)
    assert "registry.invalid/kindest/node:v1.0.0, cannot be pulled: the registry's name cannot be resolved" in said
    assert "LABKIT_NODE_IMAGE" in said
    assert containers_of("labkit-pull") == []


def test_an_interrupted_creation_leaves_no_node(inside: str, kind: Path, tmp_path: Path) -> None:
    """Ctrl-C when the container of the node has just appeared; the signal reaches labkit alone, not kind."""
    creating = subprocess.Popen(
        [sys.executable, "-c", CUT, tmp_path / "kubeconfig", kind, inside], stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    try:
        wait_until(lambda: containers_of("labkit-cut"), "the node's container is there", timeout_s=60)
        creating.send_signal(signal.SIGINT)
        _, said = creating.communicate(timeout=120)
    finally:
        creating.kill()
        creating.wait()

    assert "KeyboardInterrupt" in said
    assert containers_of("labkit-cut") == []
    written = tmp_path / "kubeconfig"
    assert not written.exists() or "kind-labkit-cut" not in written.read_text()


def test_deleting_what_is_not_there_is_no_mistake(inside: str, kind: Path, tmp_path: Path) -> None:
    """As `labkit down` after somebody deleted the cluster by hand."""
    cluster = KindCluster("labkit-none", tmp_path / "kubeconfig", kind)

    cluster.delete()

    assert not cluster.exists()
    with pytest.raises(ClusterGone):
        cluster.export_kubeconfig()


def test_a_healthy_engine_is_fit_for_a_lab_and_not_for_a_thousand(inside: str) -> None:
    """What a real engine says of itself is understood."""
    check_engine(1_000)

    with pytest.raises(EngineUnfit, match="Memory for Docker"):
        check_engine(10_000_000)
