"""
labkit: a laboratory for site reliability engineering.

    lab = labkit.up()            start the stack, or join the one that is up
    lab = labkit.connect()       join a lab that is up, after a kernel restart for example
    lab.prometheus.query("up")   ask it
    labkit.doctor()              what this machine has and lacks, before anything starts

Importing labkit loads nothing heavy: names below are loaded when first used, because every
service of the shop imports this package too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from labkit.lab import Lab, connect, doctor, up

__all__ = ["Lab", "connect", "doctor", "up"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name in __all__:
        from labkit import lab  # noqa: PLC0415  (lazy on purpose, see above)

        return getattr(lab, name)
    raise AttributeError(f"module 'labkit' has no attribute {name!r}")
