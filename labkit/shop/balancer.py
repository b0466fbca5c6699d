"""
Which replica gets the next call, and whether a failed call may be repeated.

No network and no clock of its own in here: outcomes and probe results are told to it, the time is an argument.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

__all__ = ["Balancer", "RetryBudget", "Target"]

EJECT_AFTER_FAILURES = 3
EJECT_S = 5.0


@dataclass
class Target:
    """One replica as a caller knows it."""

    name: str
    url: str
    ready: bool = True
    failures_in_a_row: int = 0
    ejected_until: float = 0.0
    in_flight: int = 0


class Balancer:
    """
    Round robin over the replicas of one service, leaving out those that fail.

    A replica is ejected for `EJECT_S` seconds after `EJECT_AFTER_FAILURES` failures in a row, then gets one
    chance: the next failure ejects it again.  One whose readiness probe says no gets nothing until it says yes.
    When all are ejected, they are used all the same: the last replicas are not taken out on a suspicion.
    When all say that they are not ready, there is nobody to ask and `pick` returns None at once.

    >>> balancer = Balancer("catalog", ["http://a", "http://b"])
    >>> [balancer.pick().name for _ in range(4)]
    ['catalog-1', 'catalog-2', 'catalog-1', 'catalog-2']
    """

    def __init__(self, service: str, urls: Sequence[str], *, clock: Callable[[], float] = time.monotonic) -> None:
        several = len(urls) > 1
        self.targets = [Target(f"{service}-{n}" if several else service, url) for n, url in enumerate(urls, 1)]
        self._clock = clock
        self._turn = itertools.count()

    def pick(self, avoid: Sequence[Target] = ()) -> Target | None:
        """The replica for the next call, none of *avoid* if there is another; None when no replica is ready."""
        ready = [target for target in self.targets if target.ready]
        usable = [target for target in ready if not self.ejected(target)] or ready
        fresh = [target for target in usable if target not in avoid] or usable
        return fresh[next(self._turn) % len(fresh)] if fresh else None

    def ejected(self, target: Target) -> bool:
        """Whether *target* is out for its failures now."""
        return target.ejected_until > self._clock()

    def succeeded(self, target: Target) -> None:
        """A call to *target* went well: it is trusted again."""
        target.failures_in_a_row, target.ejected_until = 0, 0.0

    def failed(self, target: Target) -> None:
        """A call to *target* failed."""
        target.failures_in_a_row += 1
        if target.failures_in_a_row >= EJECT_AFTER_FAILURES:
            target.ejected_until = self._clock() + EJECT_S

    def probed(self, target: Target, *, ready: bool) -> None:
        """The readiness probe of *target* said so."""
        if ready and not target.ready:
            self.succeeded(target)
        target.ready = ready


class RetryBudget:
    """
    Lets a share of calls be repeated, so that retries cannot multiply the load of a service in trouble.

    Every call earns a tenth of a retry and every second half of one, up to a small reserve; every retry costs one.

    >>> budget = RetryBudget(share=0.1, per_s=0, reserve=1)
    >>> budget.take(), budget.take()
    (True, False)
    >>> for _ in range(10): budget.earn()
    >>> budget.take()
    True
    """

    def __init__(
        self,
        *,
        share: float = 0.1,
        per_s: float = 0.5,
        reserve: float = 5,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._share, self._per_s, self._reserve, self._clock = share, per_s, reserve, clock
        self._tokens, self._counted = reserve, clock()

    @property
    def tokens(self) -> float:
        """Retries that may be made now."""
        now = self._clock()
        self._tokens = min(self._reserve, self._tokens + (now - self._counted) * self._per_s)
        self._counted = now
        return self._tokens

    def earn(self) -> None:
        """One call was made for the first time."""
        self._tokens = min(self._reserve, self.tokens + self._share)

    def take(self) -> bool:
        """Whether a retry may be made now; if so it is paid for."""
        if self.tokens < 1 - 1e-9:
            return False
        self._tokens -= 1
        return True
