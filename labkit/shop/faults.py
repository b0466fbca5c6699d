"""
Faults that a replica does to itself on request, each of which ends by itself.

`latency`, `error` and `hang` meet requests on their way in; `cpu`, `memory` and `crash` meet the process.
"""

from __future__ import annotations

import asyncio
import math
import mmap
import os
import random
import threading
import time
from dataclasses import dataclass, field
from typing import Any

from labkit.errors import InvalidValue, UnknownName

__all__ = ["FAULTS", "FaultKind", "FaultSet", "Parameter"]

DEFAULT_FOR_S = 900.0
CRASH_EXIT_CODE = 70


@dataclass(frozen=True, slots=True)
class Parameter:
    """One number or text of a fault, with its bounds (both included)."""

    default: float | str
    doc: str
    low: float = 0
    high: float = math.inf

    def parse(self, name: str, value: object) -> float | str:
        """The *value* if it fits; raises InvalidValue."""
        if isinstance(self.default, str):
            if isinstance(value, str) and value:
                return value
            raise InvalidValue(name, expected="a route template such as /products/{id}, or *", got=value)
        if isinstance(value, bool) or not isinstance(value, int | float) or not self.low <= value <= self.high:
            raise InvalidValue(name, expected=f"a number from {self.low:g} to {self.high:g}", got=value)
        return value


@dataclass(frozen=True, slots=True)
class FaultKind:
    """What a fault does and what can be chosen about it."""

    name: str
    doc: str
    parameters: dict[str, Parameter]

    def parse(self, given: dict[str, Any]) -> dict[str, Any]:
        """All parameters, defaults filled in; raises UnknownName or InvalidValue."""
        unknown = sorted(set(given) - set(self.parameters))
        if unknown:
            raise UnknownName(f"parameter of {self.name}", unknown[0], known=list(self.parameters))
        return {
            name: parameter.parse(name, given.get(name, parameter.default))
            for name, parameter in self.parameters.items()
        }

    def describe(self) -> dict[str, Any]:
        """The kind as JSON."""
        shown = {
            name: {"default": p.default, "doc": p.doc} | ({} if p.high == math.inf else {"from": p.low, "to": p.high})
            for name, p in self.parameters.items()
        }
        return {"name": self.name, "doc": self.doc, "parameters": shown}


_SHARE = Parameter(1.0, "share of requests that it meets, as a fraction", 0, 1)
_ENDPOINT = Parameter("*", "the route template it meets, or * for all (worker: a queue)")
_FOR = Parameter(DEFAULT_FOR_S, "seconds until it ends by itself", 0.1, 3600)

FAULTS: dict[str, FaultKind] = {
    kind.name: kind
    for kind in (
        FaultKind(
            "latency",
            "answers come later",
            {
                "ms": Parameter(200, "milliseconds added", 0, 60_000),
                "share": _SHARE,
                "endpoint": _ENDPOINT,
                "for_s": _FOR,
            },
        ),
        FaultKind(
            "error",
            "answers are errors",
            {
                "status": Parameter(500, "status of the answer", 400, 599),
                "share": _SHARE,
                "endpoint": _ENDPOINT,
                "for_s": _FOR,
            },
        ),
        FaultKind(
            "hang",
            "requests are accepted and never answered; with endpoint * also probes and scrapes",
            {"share": _SHARE, "endpoint": _ENDPOINT, "for_s": _FOR},
        ),
        FaultKind(
            "cpu",
            "a thread of the process burns processor time",
            {"share": Parameter(0.9, "share of one core", 0.05, 1), "for_s": _FOR},
        ),
        FaultKind(
            "memory",
            "the process grows",
            {
                "mb": Parameter(128, "megabytes it grows by in all", 1, 1024),
                "mb_per_s": Parameter(8, "megabytes per second", 0.1, 512),
                "for_s": _FOR,
            },
        ),
        FaultKind("crash", f"the process exits at once with code {CRASH_EXIT_CODE}, once", {}),
    )
}


@dataclass
class _Active:
    """A fault in force; *ended* is set when it is undone."""

    parameters: dict[str, Any]
    started: float
    ended: threading.Event = field(default_factory=threading.Event)
    timer: asyncio.TimerHandle | None = None

    def end(self) -> None:
        self.ended.set()
        if self.timer:
            self.timer.cancel()


class FaultSet:
    """The faults in force in this process."""

    def __init__(self) -> None:
        self._active: dict[str, _Active] = {}
        self._background: set[asyncio.Task[None]] = set()

    def apply(self, name: str, given: dict[str, Any]) -> dict[str, Any]:
        """
        Start a fault, in place of one of the same name; needs a running event loop.

        Returns:
            The parameters in force, defaults included.

        Raises:
            UnknownName, InvalidValue: nothing was changed.
        """
        parameters = _kind(name).parse(given)
        self.undo(name)
        loop = asyncio.get_running_loop()
        if name == "crash":
            # Late enough for the answer to leave.
            loop.call_later(0.05, os._exit, CRASH_EXIT_CODE)
            return parameters
        active = _Active(parameters, started=time.monotonic())
        active.timer = loop.call_later(parameters["for_s"], self.undo, name)
        self._active[name] = active
        if name == "cpu":
            threading.Thread(target=_burn, args=(active.ended, parameters["share"]), daemon=True).start()
        if name == "memory":
            task = asyncio.create_task(_grow(active.ended, parameters["mb"], parameters["mb_per_s"]))
            self._background.add(task)
            task.add_done_callback(self._background.discard)
        return parameters

    def undo(self, name: str) -> bool:
        """End a fault; whether it was in force.  Raises UnknownName."""
        active = self._active.pop(_kind(name).name, None)
        if active:
            active.end()
        return active is not None

    def undo_all(self) -> None:
        """End every fault."""
        for name in list(self._active):
            self.undo(name)

    def describe(self) -> list[dict[str, Any]]:
        """The faults in force with their parameters and the seconds they still have, as JSON."""
        now = time.monotonic()
        return [
            {"name": name, **active.parameters, "left_s": round(active.started + active.parameters["for_s"] - now, 1)}
            for name, active in self._active.items()
        ]

    async def meet(self, endpoint: str, *, probe: bool = False) -> int | None:
        """
        Let the faults in force act on one request.

        Args:
            endpoint: route template of the request.
            probe: the request is a probe or a scrape; only a hang of the whole process meets it.

        Returns:
            The status to answer with, or None to serve the request.
        """
        if not self._active:
            return None
        hang = self._hits("hang", endpoint)
        if hang and (not probe or hang.parameters["endpoint"] == "*"):
            await _until(hang.ended)
        if probe:
            return None
        latency = self._hits("latency", endpoint)
        if latency:
            await asyncio.sleep(latency.parameters["ms"] / 1000)
        error = self._hits("error", endpoint)
        return int(error.parameters["status"]) if error else None

    def _hits(self, name: str, endpoint: str) -> _Active | None:
        active = self._active.get(name)
        if not active or active.parameters["endpoint"] not in {"*", endpoint}:
            return None
        return active if random.random() < active.parameters["share"] else None  # noqa: S311  (a sample, not a secret)


def _kind(name: str) -> FaultKind:
    if name not in FAULTS:
        raise UnknownName("fault", name, known=list(FAULTS))
    return FAULTS[name]


async def _until(ended: threading.Event) -> None:
    while not ended.is_set():
        await asyncio.sleep(0.05)


def _burn(ended: threading.Event, share: float) -> None:
    slice_s = 0.05
    while not ended.is_set():
        until = time.perf_counter() + slice_s * share
        while time.perf_counter() < until:
            pass
        ended.wait(slice_s * (1 - share))


async def _grow(ended: threading.Event, mb: float, mb_per_s: float) -> None:
    # Anonymous maps go back to the system when they are closed; memory of the heap might not.
    held: list[mmap.mmap] = []
    try:
        while not ended.is_set():
            if len(held) < mb:
                held.append(mmap.mmap(-1, 1 << 20))
                held[-1].write(b"\1" * (1 << 20))
            await asyncio.sleep(1 / mb_per_s if len(held) < mb else 0.1)
    finally:
        for block in held:
            block.close()
