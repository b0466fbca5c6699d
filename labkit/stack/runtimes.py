"""Which runtime a lab has: that of the lab that is there, or else the one that the settings ask for."""

from __future__ import annotations

from labkit.settings import Settings
from labkit.stack.local import LocalRuntime
from labkit.stack.runtime import Runtime
from labkit.stack.state import State

__all__ = ["runtime_of"]


def runtime_of(settings: Settings) -> Runtime:
    """
    The runtime of the lab in the run directory of *settings*.

    A lab that is there keeps its own; `same_lab` says so to whoever asked for another.
    """
    state = State.load(settings.run_dir)
    if (state.lab if state else settings.lab) == "local":
        return LocalRuntime(settings)
    from labkit.stack.kubernetes import KubernetesRuntime  # noqa: PLC0415  (its client takes half a second)

    return KubernetesRuntime(settings)
