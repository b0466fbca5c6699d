"""The programs that a lab on a cluster needs on this machine: kubectl, and kind where labkit makes the cluster."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from labkit.settings import Settings
from labkit.stack.acquire import acquire
from labkit.stack.catalogue import load_tools
from labkit.stack.progress import Progress, silent

__all__ = ["Tools", "kind_tool", "kubectl_tool", "tools"]


@dataclass(frozen=True, slots=True)
class Tools:
    """Where they are; `kind` is None where it was not asked for."""

    kind: Path | None
    kubectl: Path


def tools(settings: Settings, progress: Progress = silent, *, need_kind: bool) -> Tools:
    """
    Kubectl and, if *need_kind*, kind: from PATH in an accepted version, from the cache, or fetched.

    Raises:
        ToolMissing: no source had one of them; lists what was tried and says what to do.
        NoSpace: the disk cannot hold it.
    """
    kind = kind_tool(settings, progress) if need_kind else None
    return Tools(kind, kubectl_tool(settings, progress))


def kind_tool(settings: Settings, progress: Progress = silent) -> Path:
    """Kind alone; see `tools`."""
    return acquire(load_tools()["kind"], settings, progress).path


def kubectl_tool(settings: Settings, progress: Progress = silent) -> Path:
    """Kubectl alone; see `tools`."""
    return acquire(load_tools()["kubectl"], settings, progress).path
