"""
What is forwarded: one route per address of the lab, kept in the run directory as `forward.json`.

Here is only the file; who reads it is `labkit.stack.forward`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from labkit._yaml import Misplaced, Place, load_model
from labkit.errors import ConfigInvalid
from labkit.stack.download import write_atomically

__all__ = ["Forwarding", "Route", "read_routes", "ready_file", "routes_file", "write_routes"]

_Port = Annotated[int, Field(ge=1, le=65535)]
_Name = Annotated[str, Field(min_length=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Route(_Strict):
    """
    From a port of this machine to a port of a pod.

    Args:
        name: what messages call it, such as `prometheus`.
        listen: port on 127.0.0.1.
        port: port of the pod.
        selector: labels of the pods that may answer, as kubectl writes them; the ready ones take turns.
        pod: the name of the one pod that answers, ready or not, as long as it runs; goes before *selector*.

    >>> Route(name="prometheus", listen=9090, port=9090, selector="app.kubernetes.io/name=prometheus").target
    'app.kubernetes.io/name=prometheus'
    """

    name: _Name
    listen: _Port
    port: _Port
    selector: str = ""
    pod: str = ""

    @model_validator(mode="after")
    def _has_a_target(self) -> Route:
        if not self.target:
            raise Misplaced([((), "needs a `selector` or a `pod`")])
        return self

    @property
    def target(self) -> str:
        """The pod's name, or else the labels of the pods."""
        return self.pod or self.selector


class Forwarding(_Strict):
    """
    All routes into one namespace, and how to reach its cluster.

    Args:
        context: a context of the kubeconfig.
        namespace: where the pods are.
        routes: no two of them listen on one port.
        kubeconfig: path of the file; the user's own (`KUBECONFIG`, `~/.kube/config`) if empty.
    """

    context: _Name
    namespace: str
    routes: tuple[Route, ...]
    kubeconfig: str = ""

    @field_validator("namespace")
    @classmethod
    def _is_a_label(cls, value: str) -> str:
        if not re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", value):
            raise ValueError("must be 1 to 63 of a-z, 0-9 and - between them")
        return value

    @model_validator(mode="after")
    def _ports_differ(self) -> Forwarding:
        owner: dict[int, str] = {}
        problems: list[tuple[Place, str]] = []
        for index, route in enumerate(self.routes):
            if route.listen in owner:
                message = f"port {route.listen} is that of route {owner[route.listen]!r}, too"
                problems.append((("routes", index, "listen"), message))
            owner.setdefault(route.listen, route.name)
        if problems:
            raise Misplaced(problems)
        return self


def routes_file(run_dir: Path) -> Path:
    """Where the routes of the lab in *run_dir* are kept."""
    return run_dir / "forward.json"


def ready_file(run_dir: Path) -> Path:
    """What the forwarder writes when all its ports are open: JSON with its `pid` and the `routes`."""
    return run_dir / "live" / "forward.ready"


def write_routes(run_dir: Path, forwarding: Forwarding) -> Path:
    """
    Write `forward.json` for the forwarder of a lab; the next one that starts reads it.

    The ready file of an earlier one goes, so that nobody takes it for that of the next.

    Returns:
        The file.
    """
    path = routes_file(run_dir)
    ready_file(run_dir).unlink(missing_ok=True)
    write_atomically(path, forwarding.model_dump_json(indent=2) + "\n", mode=0o600)
    return path


def read_routes(run_dir: Path) -> Forwarding:
    """
    The routes of the lab in *run_dir*.

    Raises:
        ConfigInvalid: there is no `forward.json`, or it has mistakes, which are listed by line and column.
    """
    path = routes_file(run_dir)
    try:
        return load_model(Forwarding, path)
    except FileNotFoundError as error:
        how = "It is written when a lab starts on Kubernetes: `labkit up --on kind`."
        raise ConfigInvalid(str(path), problems=["there is no such file"], how=how) from error
