"""Wait for a condition, with a limit, and report the last thing seen."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from labkit.errors import NotReady

__all__ = ["wait_until"]

T = TypeVar("T")


def wait_until(
    probe: Callable[[], T],
    what: str,
    *,
    timeout_s: float,
    every_s: float = 0.1,
    ready: Callable[[T], bool] = bool,
    tolerate: tuple[type[Exception], ...] = (),
    how: str = "",
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> T:
    """
    Call *probe* until its result is *ready*, and return that result.

    Args:
        probe: asked at least once, then every *every_s* seconds.
        what: the condition in words, for the error: "3 Prometheus targets up".
        timeout_s: limit, in seconds; a probe that is running is not interrupted.
        every_s: pause between probes, in seconds.
        ready: which result ends the wait; by default, a true one.
        tolerate: errors that count as "not yet"; any other error passes through.
        how: what to do when it does not happen; ends the message.
        clock: monotonic seconds; replaced in tests.
        sleep: pauses; replaced in tests.

    Returns:
        The first ready result.

    Raises:
        NotReady: the limit passed; carries the last result or error seen.

    >>> answers = iter([0, 0, 3])
    >>> wait_until(lambda: next(answers), "three targets up", timeout_s=5, sleep=lambda s: None)
    3
    """
    start = clock()
    while True:
        seen: object
        try:
            result = probe()
            if ready(result):
                return result
            seen = result
        except tolerate as error:
            seen = f"{type(error).__name__}: {error}"
        if clock() - start >= timeout_s:
            raise NotReady(what, waited_s=timeout_s, last_seen=seen, how=how)
        sleep(every_s)
