"""What is being done and how long it took, as events; whoever starts the work decides how they look."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal, TextIO

from labkit._time import format_duration

_LONG_S = 1.5
_SHOWN = 140

__all__ = ["Event", "Progress", "Step", "printer", "silent", "step"]


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened: `what` in words, `took_s` seconds when it ended, `detail` after the fact."""

    kind: Literal["started", "done", "failed", "note"]
    what: str
    took_s: float | None = None
    detail: str = ""

    def __str__(self) -> str:
        sign = {"started": "•", "done": "✓", "failed": "✗", "note": "!"}[self.kind]
        took = f" ({format_duration(self.took_s)})" if self.took_s is not None else ""
        return f" {sign} {self.what}{took}" + (f"  {self.detail}" if self.detail else "")


Progress = Callable[[Event], None]


def silent(_event: Event) -> None:
    """Show nothing."""


def printer(stream: TextIO | None = None) -> Progress:
    """
    A progress that writes one line per event; the start of a step is shown only when the step takes a while.

    Args:
        stream: where to write; standard output at the time of the event if None.
    """
    waiting: dict[str, threading.Timer] = {}
    lock = threading.Lock()

    def write(event: Event) -> None:
        with lock:
            out = stream or sys.stdout
            out.write(f"{event}\n")
            out.flush()

    def show(event: Event) -> None:
        if event.kind == "started":
            timer = threading.Timer(_LONG_S, write, [event])
            timer.daemon = True
            waiting[event.what] = timer
            timer.start()
            return
        timer_or_none = waiting.pop(event.what, None)
        if timer_or_none is not None:
            timer_or_none.cancel()
        write(event)

    return show


@dataclass(slots=True)
class Step:
    """A step under way; set `detail` to say more at its end."""

    detail: str = ""
    started: float = field(default_factory=time.monotonic)


@contextmanager
def step(progress: Progress, what: str) -> Iterator[Step]:
    """Report the start of *what*, and its end or failure with the time it took."""
    now = Step()
    progress(Event("started", what))
    try:
        yield now
    except BaseException as error:
        progress(Event("failed", what, time.monotonic() - now.started, _short(error)))
        raise
    progress(Event("done", what, time.monotonic() - now.started, now.detail))


def _short(error: BaseException) -> str:
    """The reason alone, in one line: the whole message follows when nothing else helps."""
    text = getattr(error, "reason", None) or str(error) or type(error).__name__
    line = str(text).splitlines()[0]
    return line if len(line) <= _SHOWN else line[:_SHOWN] + "…"
