"""
The catalogue of components: one file each under `infra/components/`.

A file says what the component is, which program it needs in which versions and where that program can be
had, and how to run it: ports, configuration files, arguments, readiness.  Everything in `@{…}` is filled in
by `labkit.stack.plan` when the lab is laid out.
"""

from __future__ import annotations

import difflib
from functools import cache
from pathlib import Path
from typing import Annotated, Literal

from packaging.specifiers import SpecifierSet
from packaging.version import InvalidVersion, Version
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from labkit._yaml import load_model
from labkit.errors import ConfigInvalid
from labkit.settings import files_root

__all__ = [
    "AptSource",
    "Component",
    "Entry",
    "GoSource",
    "MavenSource",
    "Program",
    "Ready",
    "ReleaseSource",
    "Source",
    "Tool",
    "load_catalogue",
    "load_tools",
    "profile_components",
]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ReleaseSource(_Strict):
    """A file on the publisher's release page; `@{version}`, `@{os}` and `@{arch}` are filled in."""

    kind: Literal["release"]
    version: str
    url: str
    checksums: str
    binary: str
    megabytes: float
    args: tuple[str, ...] = ()


class AptSource(_Strict):
    """
    Packages of a Debian-like system; they are unpacked into the cache, never installed into the system.

    `relocate` names folders whose place is compiled into the program; it then finds them where it was unpacked.
    """

    kind: Literal["apt"]
    packages: tuple[str, ...]
    binary: str
    megabytes: float
    args: tuple[str, ...] = ()
    relocate: tuple[str, ...] = ()

    @field_validator("relocate")
    @classmethod
    def _below_usr(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not all(folder.startswith("/usr/") for folder in value):
            raise ValueError("only folders below /usr/ can be relocated")
        return value


class GoSource(_Strict):
    """
    A command in a Go module, compiled here; `cpu_s` is what the compilation costs, in CPU seconds.

    `module_version` is the module's version where it differs from the program's.
    """

    kind: Literal["go"]
    module: str
    package: str
    version: str
    module_version: str = ""
    megabytes: float
    cpu_s: float
    ldflags: str = ""
    args: tuple[str, ...] = ()


class MavenSource(_Strict):
    """
    Artifacts `group:artifact:version` and a launcher below `infra/`, compiled here; needs Maven and a JDK on PATH.

    `java` are options of the virtual machine, `files` go beside the jars, `warm` are arguments with which the
    launcher runs once, in a folder `@{data}`, so that its classes can be kept ready.
    """

    kind: Literal["maven"]
    version: str
    artifacts: tuple[str, ...]
    launcher: str
    oldest_java: int = 17
    java: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    warm: tuple[str, ...] = ()
    megabytes: float
    args: tuple[str, ...] = ()


Source = Annotated[ReleaseSource | AptSource | GoSource | MavenSource, Field(discriminator="kind")]


class VersionProbe(_Strict):
    """How a program says its version: arguments, and a pattern whose first group is the version."""

    args: tuple[str, ...]
    pattern: str


class Program(_Strict):
    """A program that is not part of labkit: names on PATH, accepted versions, and sources in order of preference."""

    commands: tuple[str, ...]
    also: tuple[str, ...] = ()
    accepted: str
    version: VersionProbe
    sources: tuple[Source, ...]
    brew: str | None = None

    @field_validator("accepted")
    @classmethod
    def _is_a_range(cls, value: str) -> str:
        SpecifierSet(value)
        return value

    def accepts(self, version: str) -> bool:
        """Whether *version* is in the accepted range; text that is no version is not."""
        try:
            return Version(version) in SpecifierSet(self.accepted)
        except InvalidVersion:
            return False


class Ready(_Strict):
    """When a component counts as ready: an address answers, a port accepts, or it has run for some seconds."""

    url: str | None = None
    tcp: str | None = None
    running_s: float | None = None
    within_s: float

    @model_validator(mode="after")
    def _one_kind(self) -> Ready:
        if [self.url, self.tcp, self.running_s].count(None) != 2:
            raise ValueError("give exactly one of url, tcp, running_s")
        return self


class Entry(_Strict):
    """What has a name, a line about it, and possibly a program that is found, fetched or compiled."""

    name: str
    title: str
    about: str
    program: Program | None = None


class Tool(Entry):
    """A program that labkit itself calls, such as `kubectl`; it is not a part of the lab."""


class Component(Entry):
    """One component of the stack.  `memory_mb` is its resident memory at rest, per replica, in MB."""

    profiles: tuple[str, ...]
    required: bool = False
    without: str = ""
    exercises: tuple[str, ...] = ()
    memory_mb: float
    replicas: int = Field(default=1, ge=1, le=9)
    ports: dict[str, int]
    ready: Ready
    needs: tuple[str, ...] = ()
    files: dict[str, str] = {}
    prepare: str = ""
    argv: tuple[str, ...]
    env: dict[str, str] = {}

    @property
    def instances(self) -> tuple[str, ...]:
        """The names under which it runs: its own, or `name-1`, `name-2`… for replicas."""
        if self.replicas == 1:
            return (self.name,)
        return tuple(f"{self.name}-{number}" for number in range(1, self.replicas + 1))


@cache
def _read(folder: Path) -> dict[str, Component]:
    found = {path.stem: load_model(Component, path) for path in sorted(folder.glob("*.yaml"))}
    problems = [f"{stem}.yaml: its name is {c.name!r}" for stem, c in found.items() if c.name != stem]
    for component in found.values():
        problems += [
            f"{component.name}.yaml: needs {need!r}, {_nearest(need, list(found))}"
            for need in component.needs
            if need not in found
        ]
    if problems:
        raise ConfigInvalid(str(folder), problems=problems)
    return found


def _nearest(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return (
        f"which is no component; did you mean {close[0]!r}?"
        if close
        else f"which is no component; known: {', '.join(known)}"
    )


def load_catalogue(folder: Path | None = None) -> dict[str, Component]:
    """
    Every component by name.

    Args:
        folder: where the files are; `infra/components` of the installation if None.

    Raises:
        ConfigInvalid: a file does not fit; every mistake is listed with line and column.

    >>> load_catalogue()["catalog"].instances
    ('catalog-1', 'catalog-2')
    """
    return dict(_read(folder or files_root() / "infra" / "components"))


@cache
def load_tools(folder: Path | None = None) -> dict[str, Tool]:
    """
    The programs that labkit itself calls, by name.

    Args:
        folder: where their files are; `infra/tools` of the installation if None.

    Raises:
        ConfigInvalid: a file does not fit; every mistake is listed with line and column.

    >>> sorted(load_tools())
    ['kind', 'kubectl']
    """
    folder = folder or files_root() / "infra" / "tools"
    return {path.stem: load_model(Tool, path) for path in sorted(folder.glob("*.yaml"))}


def profile_components(profile: str, folder: Path | None = None) -> dict[str, Component]:
    """The components of *profile* in an order in which each comes after what it needs."""
    chosen = {name: c for name, c in load_catalogue(folder).items() if profile in c.profiles}
    ordered: dict[str, Component] = {}

    def place(name: str, path: tuple[str, ...]) -> None:
        if name in path:
            raise ConfigInvalid(
                f"profile {profile}", problems=[f"components need one another in a circle: {' → '.join((*path, name))}"]
            )
        if name in chosen and name not in ordered:
            for need in chosen[name].needs:
                place(need, (*path, name))
            ordered[name] = chosen[name]

    for name in chosen:
        place(name, ())
    return ordered
