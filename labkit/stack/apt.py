"""
Programs from the packages of a Debian-like system, without installing them.

`apt-get install prometheus` would start a service that listens on every address and would need root.  Instead
the packages are downloaded and verified by apt itself, with its lists and cache in labkit's own folder, and
unpacked there: no root, no service, nothing in the system changes.
"""

from __future__ import annotations

import os
import platform
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

from filelock import FileLock

from labkit._proc import run
from labkit.errors import CommandFailed, ToolMissing

__all__ = ["available", "library_dirs", "relocate", "unpack"]

_LISTS_FRESH_S = 12 * 3600
_UPDATE_TIMEOUT_S = 180
_DOWNLOAD_TIMEOUT_S = 600


def available() -> bool:
    """Whether this machine has apt and dpkg."""
    return all(shutil.which(tool) for tool in ("apt-get", "dpkg-deb"))


def unpack(packages: Sequence[str], into: Path, *, state: Path) -> None:
    """
    Download *packages*, with whatever of their dependencies this machine lacks, and unpack all of it below *into*.

    Args:
        packages: names as apt knows them.
        into: an empty folder; receives `usr/bin/…` and so on.
        state: labkit's own folder for apt's lists; shared by all downloads.

    Raises:
        ToolMissing: there is no apt here.
        CommandFailed: apt could not find or fetch a package; carries what it said.
    """
    if not available():
        raise ToolMissing("apt-get", wanted_version="(any)", tried=["PATH: not found"], how="Use another source.")
    config = _configure(state)
    _update(state, config)
    archives = into.parent / f"{into.name}.debs"
    (archives / "partial").mkdir(parents=True)
    try:
        _apt(config, "install", "-y", "-qq", "--no-install-recommends", "--download-only",
             "-o", f"Dir::Cache::archives={archives}", *packages)  # fmt: skip
        for archive in sorted(archives.glob("*.deb")):
            run(["dpkg-deb", "-x", archive, into], timeout_s=120)
        _mend_links(into)
    finally:
        shutil.rmtree(archives, ignore_errors=True)


def library_dirs(prefix: Path) -> list[Path]:
    """The folders below *prefix* that hold shared libraries which the system itself lacks."""
    return sorted({found.parent for found in prefix.glob(f"usr/lib/{platform.machine()}-*/*.so*")})


def _mend_links(prefix: Path) -> None:
    """Let links that lead into packages which the system has already, and which were not unpacked, lead there."""
    for link in prefix.rglob("*"):
        if link.is_symlink() and not link.exists():
            meant = Path(os.path.normpath(link.parent / link.readlink()))
            on_system = Path("/") / meant.relative_to(prefix) if meant.is_relative_to(prefix) else meant
            if on_system.exists():
                link.unlink()
                link.symlink_to(on_system)


def relocate(binary: Path, folders: Sequence[str]) -> None:
    """
    Make a program look for *folders* (below `/usr/`) relative to its working directory.

    The path keeps its length, `/usr/share/x` becoming `usr//share/x`, so the program stays intact.

    Raises:
        ToolMissing: the program does not hold such a path; it is another build than the catalogue expects.
    """
    content = binary.read_bytes()
    for folder in folders:
        old = folder.encode()
        if old not in content:
            how = "Use another source, or put a build of your own on PATH."
            raise ToolMissing(binary.name, wanted_version="from packages", tried=[f"no {folder} in it"], how=how)
        content = content.replace(old, b"usr//" + old.removeprefix(b"/usr/"))
    binary.write_bytes(content)


def _configure(state: Path) -> Path:
    (state / "lists" / "partial").mkdir(parents=True, exist_ok=True)
    (state / "cache").mkdir(parents=True, exist_ok=True)
    config = state / "apt.conf"
    # The package caches are switched off so that several downloads may run at once.
    config.write_text(
        f'Dir::State::Lists "{state}/lists";\n'
        f'Dir::Cache "{state}/cache";\n'
        'Dir::Cache::pkgcache "";\nDir::Cache::srcpkgcache "";\n'
        'Dir::State::status "/var/lib/dpkg/status";\n'
        'Acquire::Retries "3";\nDebug::NoLocking "1";\nAPT::Sandbox::User "";\nAPT::Get::Assume-Yes "1";\n',
        encoding="utf-8",
    )
    return config


def _update(state: Path, config: Path) -> None:
    stamp = state / "updated"
    with FileLock(str(state / "update.lock")):
        if stamp.exists() and time.time() - stamp.stat().st_mtime < _LISTS_FRESH_S:
            return
        _apt(config, "update", "-qq", timeout_s=_UPDATE_TIMEOUT_S)
        # apt calls it a success when no list could be fetched at all.
        if not any((state / "lists").glob("*_Packages*")):
            argv, how = ["apt-get", "update"], "Check the network and /etc/apt/sources.list; then try again."
            raise CommandFailed(argv, returncode=0, took_s=0, stderr_tail="it fetched no list of packages", how=how)
        stamp.touch()


def _apt(config: Path, *args: str, timeout_s: float = _DOWNLOAD_TIMEOUT_S) -> None:
    env = {**os.environ, "APT_CONFIG": str(config), "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}
    how = f"If the lists of packages are out of date, delete {config.parent} and try again."
    run(["apt-get", *args], timeout_s=timeout_s, env=env, how=how)
