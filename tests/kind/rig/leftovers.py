"""What an engine leaves on a machine unless somebody looks: processes, mounts, control groups, kernel settings."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import psutil

from labkit._proc import run

__all__ = [
    "allow_watchers",
    "groups",
    "mounts_below",
    "processes_of",
    "read_sysctls",
    "remove_groups",
    "restore_sysctls",
    "unmount_below",
]

_GROUPS = Path("/sys/fs/cgroup")
_WATCHERS = "fs/inotify/max_user_instances"
_SYSCTLS = ("vm/overcommit_memory", "kernel/panic", "kernel/panic_on_oops", _WATCHERS)


def read_sysctls(root: Path = Path("/proc/sys")) -> dict[str, str]:
    """The settings of the kernel that a kubelet or the engine changes, as they are now."""
    return {name: (root / name).read_text(encoding="utf-8").strip() for name in _SYSCTLS}


def allow_watchers(instances: int, root: Path = Path("/proc/sys")) -> None:
    """Let the user of the engine have this many inotify instances, unless more are allowed: a node takes some 30."""
    if int(read_sysctls(root)[_WATCHERS]) < instances:
        (root / _WATCHERS).write_text(str(instances), encoding="utf-8")


def restore_sysctls(values: Mapping[str, str], root: Path = Path("/proc/sys")) -> None:
    """Set them to *values*; those that are right already are not written."""
    for name, value in read_sysctls(root).items():
        if values[name] != value:
            (root / name).write_text(values[name], encoding="utf-8")


def mounts_below(folder: Path, mountinfo: Path = Path("/proc/self/mountinfo")) -> list[Path]:
    """The mount points at or below *folder*, in the order in which they can be unmounted."""
    points = [Path(line.split()[4]) for line in mountinfo.read_text(encoding="utf-8").splitlines()]
    return [point for point in reversed(points) if point.is_relative_to(folder)]


def unmount_below(folder: Path) -> None:
    """Unmount all of them; one that is in use goes when its last user does."""
    for point in mounts_below(folder):
        run(["umount", "--lazy", point], timeout_s=30)


def groups(name: str, root: Path = _GROUPS) -> list[Path]:
    """The control groups called *name* in every hierarchy, and all below them, the deepest first."""
    tops = [*root.glob(name), *root.glob(f"*/{name}")]
    return [Path(folder) for top in tops for folder, _, _ in os.walk(top, topdown=False)]


def remove_groups(name: str) -> None:
    """Remove them; they hold no process any more."""
    for group in groups(name):
        with suppress(FileNotFoundError):
            group.rmdir()


def processes_of(netns: Path, group: str) -> list[psutil.Process]:
    """The processes in a network namespace, but this one, and those in the control groups of a name."""
    pids: set[int] = set()
    wanted = netns.stat() if netns.exists() else None
    for pid in psutil.pids():
        with suppress(OSError):
            if wanted is not None and os.path.samestat(Path(f"/proc/{pid}/ns/net").stat(), wanted):
                pids.add(pid)
    for folder in groups(group):
        with suppress(OSError):
            pids |= {int(pid) for pid in (folder / "cgroup.procs").read_text(encoding="utf-8").split()}
    found: list[psutil.Process] = []
    for pid in sorted(pids - {os.getpid(), 0}):
        with suppress(psutil.NoSuchProcess):
            found.append(psutil.Process(pid))
    return found
