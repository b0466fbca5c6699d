"""The programs that a lab on a cluster needs on this machine: kubectl, and kind where labkit makes the cluster."""

from __future__ import annotations

from pathlib import Path

from labkit.settings import Settings
from labkit.stack.acquire import acquire
from labkit.stack.catalogue import load_tools
from labkit.stack.progress import Progress, silent

__all__ = ["kind_tool", "kubectl_tool"]


def kind_tool(settings: Settings, progress: Progress = silent) -> Path:
    """
    Where kind is: on PATH in an accepted version, in the cache, or fetched.

    Raises:
        ToolMissing: no source had it; lists what was tried and says what to do.
        NoSpace: the disk cannot hold it.
    """
    return acquire(load_tools()["kind"], settings, progress).path


def kubectl_tool(settings: Settings, progress: Progress = silent) -> Path:
    """Where kubectl is; errors as for `kind_tool`."""
    return acquire(load_tools()["kubectl"], settings, progress).path
