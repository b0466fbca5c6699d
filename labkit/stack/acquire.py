"""
Programs are found, not assumed.

In order: on PATH in an accepted version; in labkit's cache; then each source that the catalogue names, in its
order (the publisher's release, the system's packages, the Go toolchain, Maven).  A program enters the cache only after
it ran and said an accepted version, by one rename: nothing half-written is ever found.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import sys
import tarfile
import time
import uuid
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from labkit._proc import given_up, run, stopping_on_error
from labkit.errors import CommandFailed, DownloadFailed, LabkitError, NoSpace, ToolMissing
from labkit.settings import Settings
from labkit.stack import apt, golang, maven
from labkit.stack.catalogue import (
    AptSource,
    Entry,
    GoSource,
    MavenSource,
    Program,
    ReleaseSource,
    Source,
    load_catalogue,
)
from labkit.stack.download import check_space, fetch_verified, write_atomically
from labkit.stack.progress import Event, Progress, silent

__all__ = ["Installed", "acquire", "acquire_all", "find", "find_program", "usable_sources"]

# Server programs live outside a user's PATH on Debian and Homebrew.
_MORE_FOLDERS = ("/usr/sbin", "/usr/local/sbin", "/sbin", "/opt/homebrew/bin", "/opt/homebrew/sbin")
_ARCHITECTURES = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}
_VERSION_TIMEOUT_S = 20
_ROOM = 3  # an unpacked program takes about three times its download


@dataclass(frozen=True, slots=True)
class Installed:
    """A program that can be run: where it is, which version, how it was had, and what it needs to start."""

    name: str
    path: Path
    version: str
    source: str
    prefix: Path | None = None
    args: tuple[str, ...] = ()
    library_dirs: tuple[Path, ...] = ()
    cwd: Path | None = None

    @property
    def env(self) -> dict[str, str]:
        """Variables that the program needs in order to find its libraries."""
        return {"LD_LIBRARY_PATH": ":".join(map(str, self.library_dirs))} if self.library_dirs else {}

    def beside(self, tool: str) -> Path:
        """A further tool of the same package, such as `promtool` beside `prometheus`."""
        return self.path.with_name(tool)


def find(component: Entry, settings: Settings) -> Installed | None:
    """The program of *component* from PATH or the cache, without fetching anything; None if neither has it."""
    installed, _ = _look(component, settings)
    return installed


def find_program(name: str, settings: Settings) -> Path | None:
    """The path of a component's program, or of a tool beside it, by any of its names; None if it is not here."""
    for component in load_catalogue().values():
        program = component.program
        if program is None or name not in (component.name, *program.commands, *program.also):
            continue
        installed = find(component, settings)
        if installed is None:
            return None
        return installed.beside(name) if name in program.also else installed.path
    return None


def acquire(component: Entry, settings: Settings, progress: Progress = silent) -> Installed:
    """
    The program of *component*, fetched or built if it is not here yet.

    Raises:
        ToolMissing: no source had it; lists what was tried and says what to do.
        NoSpace: the disk cannot hold it.
    """
    installed, tried = _look(component, settings)
    if installed is not None:
        return installed
    program = _program(component)
    home = _home(component, settings)
    home.mkdir(parents=True, exist_ok=True)
    with FileLock(str(home / ".lock")):
        installed = _cached(component, settings)
        if installed is not None:
            return installed
        for source in program.sources:
            if given_up():
                break
            reason = _unusable(source)
            if reason is None:
                what, start = f"get {component.title}: {_describe(source)}", time.monotonic()
                progress(Event("started", what))
                try:
                    installed = _fetch(component, source, settings)
                except NoSpace:
                    raise
                except LabkitError as error:
                    reason = _reason(error)
                    progress(Event("note", what, time.monotonic() - start, f"not to be had: {reason}"))
                else:
                    progress(Event("done", what, time.monotonic() - start, f"version {installed.version}"))
                    return installed
            tried.append(f"{_describe(source)}: {reason}")
    raise ToolMissing(program.commands[0], wanted_version=program.accepted, tried=tried, how=remedy(component))


def acquire_all(
    components: Iterable[Entry], settings: Settings, progress: Progress = silent
) -> tuple[dict[str, Installed], dict[str, LabkitError]]:
    """
    The programs of several components, side by side.

    Returns:
        What is here by component name, and for each component whose program could not be had, the error.
    """
    wanted = [component for component in components if component.program is not None]
    found: dict[str, Installed] = {}
    missing: dict[str, LabkitError] = {}

    def one(component: Entry) -> None:
        try:
            found[component.name] = acquire(component, settings, progress)
        except LabkitError as error:
            missing[component.name] = error

    with ThreadPoolExecutor(max_workers=max(1, len(wanted))) as pool, stopping_on_error():
        list(pool.map(one, wanted))
    return found, missing


def remedy(component: Entry) -> str:
    """What a person can do to get the program of *component*, in one sentence."""
    program = _program(component)
    if any(s.kind == "maven" for s in program.sources):
        return f"{maven.HOW} Then try again."
    ways = [f"`brew install {program.brew}`"] if sys.platform == "darwin" and program.brew else []
    ways += [
        f"download it from {s.url.split('/download/')[0].split('/v@')[0]}"
        for s in program.sources
        if s.kind == "release"
    ]
    ways += [
        f"`apt-get install {' '.join(s.packages)}`"
        for s in program.sources
        if s.kind == "apt" and sys.platform == "linux"
    ]
    return f"Put it on PATH ({', or '.join(ways) or 'from your system'}), or set LABKIT_MIRROR; then try again."


def usable_sources(component: Entry) -> list[Source]:
    """The sources of the catalogue that this machine can use at all, in their order."""
    return [source for source in _program(component).sources if _unusable(source) is None]


def _program(component: Entry) -> Program:
    if component.program is None:
        raise ValueError(f"{component.name} is part of labkit and needs no program")
    return component.program


def _home(component: Entry, settings: Settings) -> Path:
    return settings.cache_dir / "components" / component.name


def _look(component: Entry, settings: Settings) -> tuple[Installed | None, list[str]]:
    """PATH, then the cache; and a line for each place that had the program in a version that is not accepted."""
    program = _program(component)
    tried: list[str] = []
    folders = os.pathsep.join([os.environ.get("PATH", os.defpath), *_MORE_FOLDERS])
    for command in program.commands:
        on_path = shutil.which(command, path=folders)
        if on_path is None:
            continue
        version = _version(program, Path(on_path), {})
        if version and program.accepts(version):
            return Installed(component.name, Path(on_path), version, "PATH"), tried
        tried.append(f"PATH: {on_path} is version {version or 'unknown'}, not accepted")
    if not tried:
        tried.append(f"PATH: no {' or '.join(program.commands)}")
    return _cached(component, settings), tried


def _cached(component: Entry, settings: Settings) -> Installed | None:
    program = _program(component)
    manifests = sorted(
        _home(component, settings).glob("*/manifest.json"), key=lambda p: p.stat().st_mtime, reverse=True
    )
    for manifest in manifests:
        installed = _read_manifest(component, manifest)
        if installed.path.exists() and program.accepts(installed.version) and _up_to_date(program, manifest):
            return installed
    return None


def _up_to_date(program: Program, manifest: Path) -> bool:
    """Whether the part of it that is ours (a launcher, its options) is still the one that labkit has."""
    data = json.loads(manifest.read_text(encoding="utf-8"))
    recipes = [maven.recipe(source) for source in program.sources if isinstance(source, MavenSource)]
    return data["source"] != "maven" or data.get("recipe") in recipes


def _read_manifest(component: Entry, manifest: Path) -> Installed:
    data, prefix = json.loads(manifest.read_text(encoding="utf-8")), manifest.parent
    return Installed(
        name=component.name,
        path=prefix / data["binary"],
        version=data["version"],
        source=data["source"],
        prefix=prefix,
        args=tuple(arg.replace("@{prefix}", str(prefix)) for arg in data["args"]),
        library_dirs=tuple(prefix / folder for folder in data["library_dirs"]),
        cwd=prefix if data["relocated"] else None,
    )


def _version(program: Program, path: Path, env: dict[str, str]) -> str | None:
    try:
        said = run([path, *program.version.args], timeout_s=_VERSION_TIMEOUT_S, env={**os.environ, **env})
    except LabkitError as error:
        # Some programs print their version on standard error, or exit with 1 after doing so.
        said = error.stderr_tail if isinstance(error, CommandFailed) else ""
    found = re.search(program.version.pattern, said)
    return found.group(1) if found else None


def _unusable(source: Source) -> str | None:
    if isinstance(source, ReleaseSource) and (
        sys.platform not in ("linux", "darwin") or platform.machine() not in _ARCHITECTURES
    ):
        return f"no release for {sys.platform} on {platform.machine()}"
    if isinstance(source, AptSource) and not apt.available():
        return "this system has no apt"
    if isinstance(source, MavenSource):
        return maven.missing_tools(source.oldest_java) or None
    return None


def _reason(error: LabkitError) -> str:
    """Why a source did not work, in one line."""
    if isinstance(error, ToolMissing):
        return "; ".join(error.tried)
    if isinstance(error, DownloadFailed):
        return error.reason
    if isinstance(error, CommandFailed) and error.stderr_tail:
        return error.stderr_tail.splitlines()[-1]
    return str(error).splitlines()[0]


def _describe(source: Source) -> str:
    if isinstance(source, ReleaseSource):
        return f"release {source.version}"
    if isinstance(source, AptSource):
        return f"packages {' '.join(source.packages)}"
    if isinstance(source, MavenSource):
        return f"assemble version {source.version} with Maven"
    return f"compile {source.module} {source.version} with Go"


def _fetch(component: Entry, source: Source, settings: Settings) -> Installed:
    home = _home(component, settings)
    check_space(f"Installing {component.title}", home, source.megabytes * _ROOM)
    stage = home / f".stage-{uuid.uuid4().hex[:8]}"
    stage.mkdir(parents=True)
    try:
        fetchers: dict[type, Callable[[Program, Source, Path, Settings], str]] = {
            ReleaseSource: _fetch_release,
            AptSource: _fetch_apt,
            GoSource: _fetch_go,
            MavenSource: _fetch_maven,
        }
        binary = fetchers[type(source)](_program(component), source, stage, settings)
        return _adopt(component, source, stage, binary, home)
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def _fetch_release(_program: Program, source: Source, stage: Path, settings: Settings) -> str:
    assert isinstance(source, ReleaseSource)  # noqa: S101  (the table above pairs them)
    names = {"version": source.version, "os": sys.platform, "arch": _ARCHITECTURES[platform.machine()]}

    def fill(text: str) -> str:
        return re.sub(r"@\{(\w+)\}", lambda m: names[m.group(1)], text)

    url, binary = fill(source.url), fill(source.binary)
    archive = stage / url.rsplit("/", 1)[-1]
    remembered = settings.cache_dir / "checksums.json"
    fetch_verified(url, fill(source.checksums), archive, remembered=remembered, mirror=settings.mirror)
    if archive.name.endswith((".tar.gz", ".tgz")):
        _unpack(archive, stage)
        archive.unlink()
    else:
        archive.chmod(0o755)
        archive.rename(stage / binary)
    return binary


def _unpack(archive: Path, into: Path) -> None:
    """
    The regular files of a tar archive below *into*.

    By hand, because the `filter` that makes `extractall` safe is missing in Debian 12's Python 3.11.2.

    Raises:
        DownloadFailed: a name in the archive leads out of the folder.
    """
    with tarfile.open(archive) as tar:
        for member in tar:
            content = tar.extractfile(member) if member.isfile() else None
            if content is None:
                continue
            target = (into / member.name).resolve()
            if not target.is_relative_to(into.resolve()):
                how = "Do not use this mirror."
                raise DownloadFailed(
                    archive.name, reason=f"it holds {member.name!r}, which leads out of its folder", how=how
                )
            target.parent.mkdir(parents=True, exist_ok=True)
            with content, target.open("wb") as file:
                shutil.copyfileobj(content, file)
            target.chmod(0o755 if member.mode & 0o100 else 0o644)


def _fetch_apt(_program: Program, source: Source, stage: Path, settings: Settings) -> str:
    assert isinstance(source, AptSource)  # noqa: S101
    apt.unpack(source.packages, stage, state=settings.cache_dir / "apt")
    if source.relocate:
        apt.relocate(stage / source.binary, source.relocate)
    return source.binary


def _fetch_go(program: Program, source: Source, stage: Path, settings: Settings) -> str:
    assert isinstance(source, GoSource)  # noqa: S101
    binary = program.commands[0]
    golang.build(source, stage / binary, cache=settings.cache_dir)
    return binary


def _fetch_maven(program: Program, source: Source, stage: Path, settings: Settings) -> str:
    assert isinstance(source, MavenSource)  # noqa: S101
    command = program.commands[0]
    maven.assemble(source, stage, command, cache=settings.cache_dir)
    return command


def _adopt(component: Entry, source: Source, stage: Path, binary: str, home: Path) -> Installed:
    """Prove that the program in *stage* runs, and move it to its place under the version that it says."""
    program = _program(component)
    libraries = [str(folder.relative_to(stage)) for folder in apt.library_dirs(stage)]
    env = {"LD_LIBRARY_PATH": ":".join(str(stage / folder) for folder in libraries)} if libraries else {}
    version = _version(program, stage / binary, env)
    if version is None or not program.accepts(version):
        how = "It was not kept."
        raise ToolMissing(
            program.commands[0], wanted_version=program.accepted, tried=[f"it says version {version}"], how=how
        )
    manifest = {
        "binary": binary,
        "version": version,
        "source": source.kind,
        "args": source.args,
        "library_dirs": libraries,
        "relocated": isinstance(source, AptSource) and bool(source.relocate),
        "recipe": maven.recipe(source) if isinstance(source, MavenSource) else "",
    }
    write_atomically(stage / "manifest.json", json.dumps(manifest, indent=1))
    place = home / f"{version}-{source.kind}"
    shutil.rmtree(place, ignore_errors=True)
    stage.rename(place)
    return _read_manifest(component, place / "manifest.json")
