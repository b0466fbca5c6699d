"""A lab on kind, from nothing, as tests hold it."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

import labkit
from labkit._proc import run
from labkit.errors import ClusterRefused
from labkit.lab import Lab
from labkit.stack.cluster import Cluster
from labkit.stack.progress import Event
from labkit.stack.shop_image import build_shop_image
from labkit.stack.state import State
from tests.conftest import free_offset
from tests.kind.rig.engine import Engine
from tests.kind.rig.parts import BASE_IMAGE, Parts
from tests.kind.rig.stack_images import stack_archive

__all__ = ["KindLab", "settings_on", "what_there_is", "with_images"]

_LOAD_TIMEOUT_S = 300


def settings_on(engine: Engine) -> dict[str, str]:
    """What stands in for Docker Hub on an engine that has no way out."""
    return {
        "LABKIT_OVERLAY": "ci",
        "LABKIT_NODE_IMAGE": engine.environment["RIG_NODE_IMAGE"],
        "LABKIT_BASE_IMAGE": BASE_IMAGE,
    }


def with_images(engine: Engine, parts: Parts) -> Path:
    """
    The images of the lab's servers, as one archive; the shop's is on the engine then, too.

    Called before a process enters the engine's network, which has no way out: packages come from outside.
    """
    archive = stack_archive(parts)
    engine.run("docker", "load", "--input", parts.base_archive, timeout_s=_LOAD_TIMEOUT_S)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in engine.environment.items():
            patch.setenv(name, value)
        build_shop_image(base=BASE_IMAGE)
    return archive


def what_there_is(engine: Engine) -> dict[str, list[str]]:
    """What labs on the kind cluster `labkit` would leave: it and its nodes, and volumes without a container."""
    asked = {
        "nodes": ("docker", "ps", "--all", "--quiet", "--filter", "label=io.x-k8s.kind.cluster=labkit"),
        "volumes": ("docker", "volume", "ls", "--quiet", "--filter", "dangling=true"),
        "clusters": ("kind", "get", "clusters"),
    }
    found = {what: sorted(engine.run(*argv, timeout_s=60).split()) for what, argv in asked.items()}
    return {**found, "clusters": [name for name in found["clusters"] if name == "labkit"]}


class KindLab:
    """
    A lab on kind while the block runs.

    Args:
        engine: whose network this process is in.
        run_dir: of the lab.
        images: an archive that goes onto the nodes of its cluster as soon as there is one.
        place: `kind`, or the name of a context.
        profile: which components.
    """

    def __init__(
        self, engine: Engine, run_dir: Path, images: Path, *, place: str = "kind", profile: str = "core"
    ) -> None:
        self.engine, self.run_dir, self.place, self.profile = engine, run_dir, place, profile
        self.events: list[Event] = []
        self.took_s: dict[str, float] = {}
        self._images = images

    def __enter__(self) -> Self:
        began = time.monotonic()
        with pytest.MonkeyPatch.context() as patch:
            for name, value in settings_on(self.engine).items():
                patch.setenv(name, value)
            self.lab: Lab = labkit.up(
                self.place,
                profile=self.profile,
                run_dir=self.run_dir,
                port_offset=free_offset(),
                progress=self._hear,
            )
        self.took_s["up"] = time.monotonic() - began - self.took_s.get("images", 0)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.lab.down(progress=self.events.append)

    @property
    def state(self) -> State:
        """The lab as its run directory has it."""
        state = State.load(self.run_dir)
        assert state is not None
        return state

    @property
    def namespace(self) -> str:
        """Where its objects are."""
        assert self.state.cluster is not None
        return self.state.cluster.namespace

    def kubectl(self, *arguments: str, timeout_s: float = 120, input_text: str | None = None) -> str:
        """What kubectl wrote, with the lab's own kubeconfig and namespace."""
        assert self.state.cluster is not None
        cluster = self.state.cluster
        files = ["--kubeconfig", cluster.kubeconfig] if cluster.kubeconfig else []
        argv = ["kubectl", *files, "--context", cluster.context, "-n", cluster.namespace, *arguments]
        return self.engine.run(*argv, timeout_s=timeout_s, input_text=input_text)

    def get(self, *arguments: str) -> Any:
        """An object, or a list of them as `items`."""
        return json.loads(self.kubectl("get", *arguments, "-o", "json"))

    def environment(self) -> Mapping[str, str]:
        """What makes another process join this lab."""
        return {
            **settings_on(self.engine),
            "LABKIT_RUN_DIR": str(self.run_dir),
            "LABKIT_PORT_OFFSET": str(self.lab.settings.port_offset),
            "LABKIT_CACHE_DIR": str(self.lab.settings.cache_dir),
        }

    def _hear(self, event: Event) -> None:
        self.events.append(event)
        if event.kind == "done" and event.took_s is not None:
            self.took_s[event.what] = event.took_s
        if event.kind == "done" and event.what.startswith("make the kind cluster"):
            began = time.monotonic()
            argv = ["kind", "load", "image-archive", self._images, "--name", "labkit"]
            self.engine.run(*argv, timeout_s=_LOAD_TIMEOUT_S)
            self.took_s["images"] = time.monotonic() - began

    def command(self, *arguments: str, timeout_s: float = 300) -> str:
        """What `labkit` wrote, run in this lab as from a terminal; it must succeed."""
        return run([Path(sys.executable).with_name("labkit"), *arguments], timeout_s=timeout_s, env=self.surroundings())

    def surroundings(self) -> dict[str, str]:
        """The environment of a process that joins this lab."""
        return {**os.environ, **self.engine.environment, **self.environment()}

    def evict(self, pod: str) -> int:
        """The HTTP status with which the API server answers an eviction."""
        assert self.state.cluster is not None
        file = self.state.cluster.kubeconfig
        api = Cluster(Path(file) if file else None, self.state.cluster.context).api
        body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod}}
        try:
            api.call("POST", f"/api/v1/namespaces/{self.namespace}/pods/{pod}/eviction", body=body)
        except ClusterRefused as error:
            return error.status
        return 201
