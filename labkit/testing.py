"""Helpers for tests of code that uses labkit: time that passes only when somebody sleeps."""

from __future__ import annotations

__all__ = ["FakeClock"]


class FakeClock:
    """
    A clock for `wait_until` and anything else that takes `clock` and `sleep`.

    Args:
        now_s: the first reading, in seconds.

    >>> clock = FakeClock(100)
    >>> clock.sleep(2.5)
    >>> clock(), clock.slept_s
    (102.5, 2.5)
    """

    def __init__(self, now_s: float = 0) -> None:
        self.now_s = float(now_s)
        self.slept_s = 0.0

    def __call__(self) -> float:
        """The present reading, in seconds."""
        return self.now_s

    def sleep(self, seconds: float) -> None:
        """Let *seconds* pass at once."""
        self.now_s += seconds
        self.slept_s += seconds
