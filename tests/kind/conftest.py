"""Fixtures of the tests on a real cluster: one engine and one cluster of two nodes for all of them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kind.cluster import Cluster, cluster
from tests.kind.kind_lab import KindLab, what_there_is, with_images
from tests.kind.rig.engine import Engine, default_home
from tests.kind.rig.leftovers import read_sysctls
from tests.kind.rig.parts import Parts, build_parts


@pytest.fixture(scope="session")
def parts() -> Parts:
    """What `python -m tests.kind.rig build` built."""
    return build_parts()


@pytest.fixture(scope="session")
def rig(parts: Parts) -> Iterator[Engine]:
    """The engine; one that was up before stays up.  What a node changes in the kernel's settings is put back."""
    engine = Engine(default_home())
    was_up, settings = engine.is_up(), read_sysctls()
    engine.up(parts)
    yield engine
    if not was_up:
        engine.down()
        assert read_sysctls() == settings


@pytest.fixture(scope="session")
def two_nodes(rig: Engine) -> Iterator[Cluster]:
    """A cluster with a control plane and a worker."""
    with cluster(rig, "rig-two-nodes", workers=1) as up:
        yield up


@pytest.fixture
def namespace(two_nodes: Cluster, request: pytest.FixtureRequest) -> Iterator[str]:
    """A namespace of the test's own on the cluster of two nodes."""
    name = re.sub(r"[^a-z0-9]+", "-", request.node.name.removeprefix("test_").lower())[:60].strip("-")
    with two_nodes.namespace(name) as created:
        yield created


@pytest.fixture(scope="session")
def inside(rig: Engine, images: Path) -> Iterator[Engine]:
    """The engine, when this process is in its network: Python reaches API servers and forwarded ports too."""
    assert images.exists()
    with rig.entered():
        yield rig


@pytest.fixture(scope="session")
def images(rig: Engine, parts: Parts) -> Path:
    """The images of the lab's servers, as one archive; the shop's is built."""
    return with_images(rig, parts)


@pytest.fixture(scope="session")
def kind_lab(inside: Engine, images: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[KindLab]:
    """A lab that `labkit up --on kind` made from nothing; when the session ends, nothing of it is left."""
    run_dir = tmp_path_factory.mktemp("kind") / "run"
    before = what_there_is(inside)
    with KindLab(inside, run_dir, images) as lab:
        yield lab
    assert what_there_is(inside) == before
