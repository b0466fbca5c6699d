"""
What observing costs: the same work with instrumentation and without it, in turns, with an interval.

    costs = measure_overhead(
        work=lambda: requests.get(url).raise_for_status(),
        switch=lambda on: lab.shop.set_flag("tracing", on),
        cpu_s=lab.shop.cpu_s,
    )

Both kinds of block lie next to each other in time, in an order that is drawn anew for each pair, so that what else
the machine does meets both alike.  What is compared is the difference within a pair.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
import psutil

from labkit.errors import InvalidValue

__all__ = ["Pairs", "cpu_of", "measure_overhead", "paired_difference"]

_RESAMPLES = 2000
_Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Pairs:
    """One quantity measured in pairs of blocks: without (`off`) and with (`on`) instrumentation, in the same order."""

    off: _Numbers
    on: _Numbers


def cpu_of(pids: Iterable[int]) -> float:
    """
    Seconds of processor that the processes have used so far, in user and kernel mode together.

    Raises:
        InvalidValue: one of them is not there: the sum would fall, and a difference would mean nothing.
    """
    total_s = 0.0
    for pid in pids:
        try:
            times = psutil.Process(pid).cpu_times()
        except psutil.Error as error:
            raise InvalidValue("pids", expected="processes that run during the whole measurement", got=pid) from error
        total_s += times.user + times.system
    return total_s


def measure_overhead(
    *,
    work: Callable[[], object],
    switch: Callable[[bool], object],
    cpu_s: Callable[[], float],
    pairs: int = 12,
    requests: int = 60,
    warm_up: int = 10,
    seed: int = 0,
    clock: Callable[[], float] = time.perf_counter,
) -> pd.DataFrame:
    """
    Do the same work in *pairs* of blocks, one with and one without instrumentation, and compare.

    Args:
        work: one request; whatever it raises ends the measurement, and instrumentation is on again.
        switch: turns instrumentation on (True) or off.
        cpu_s: processor seconds so far of everything that works for these requests.
        pairs: pairs of blocks, 4 or more; the interval shrinks with their square root.
        requests: measured requests in a block, 1 or more.
        warm_up: requests after each switch that are not measured.
        seed: of the order of the blocks and of the resampling.
        clock: seconds.

    Returns:
        As `paired_difference`, with the rows `latency, median` and `latency, mean` (ms) and `processor` (ms a request).

    Raises:
        InvalidValue: *pairs* or *requests* is too small to say anything.
    """
    if pairs < 4 or requests < 1:
        raise InvalidValue("pairs, requests", expected="at least 4 pairs of at least 1 request", got=(pairs, requests))
    first_on = np.random.default_rng(seed).random(pairs) < 0.5
    blocks: dict[bool, list[tuple[float, float, float]]] = {True: [], False: []}
    try:
        for starts_on in first_on:
            for on in (bool(starts_on), not starts_on):
                switch(on)
                blocks[on].append(_block(work, cpu_s, requests, warm_up, clock))
    finally:
        switch(True)
    off, on_ = np.array(blocks[False]), np.array(blocks[True])
    names = ("latency, median", "latency, mean", "processor")
    return paired_difference({n: Pairs(off[:, i], on_[:, i]) for i, n in enumerate(names)}, seed=seed)


def _block(
    work: Callable[[], object], cpu_s: Callable[[], float], requests: int, warm_up: int, clock: Callable[[], float]
) -> tuple[float, float, float]:
    """Median and mean latency and processor time of one block, in ms for each request."""
    for _ in range(warm_up):
        work()
    took = np.empty(requests)
    used_s = cpu_s()
    for number in range(requests):
        start = clock()
        work()
        took[number] = clock() - start
    used_s = cpu_s() - used_s
    return float(np.median(took)) * 1e3, float(took.mean()) * 1e3, used_s / requests * 1e3


def paired_difference(measured: dict[str, Pairs], *, level: float = 0.95, seed: int = 0) -> pd.DataFrame:
    """
    The mean difference within pairs, with a bootstrap interval over pairs.

    Args:
        measured: quantity → its pairs, in any unit.
        level: of the interval, in (0, 1).
        seed: of the resampling; the same seed gives the same interval.

    Returns:
        Index `quantity`; columns `off`, `on` (means), `difference`, `low`, `high` (in the unit given), `relative` (of
        `off`; nan where that is 0), `pairs`, and `clear`: whether the interval leaves 0 out.  A wide interval that
        holds 0 says that this many pairs cannot tell, not that there is no cost.

    Raises:
        InvalidValue: fewer than 4 pairs, or a quantity whose two sides differ in number.

    >>> import numpy as np
    >>> off = np.array([10.0, 11.0, 9.0, 10.0])
    >>> paired_difference({"latency": Pairs(off, off + 1.0)}).loc["latency", ["difference", "low", "high"]].tolist()
    [1.0, 1.0, 1.0]
    """
    rows = {name: _row(name, pairs, level, np.random.default_rng(seed)) for name, pairs in measured.items()}
    frame = pd.DataFrame.from_dict(rows, orient="index")
    return frame.rename_axis("quantity")


def _row(name: str, pairs: Pairs, level: float, random: np.random.Generator) -> dict[str, float | int | bool]:
    count = len(pairs.off)
    if count < 4 or count != len(pairs.on):
        raise InvalidValue(name, expected="4 or more pairs, as many with as without", got=(count, len(pairs.on)))
    differences = pairs.on - pairs.off
    means = differences[random.integers(0, count, (_RESAMPLES, count))].mean(axis=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    off = float(pairs.off.mean())
    return {
        "off": off,
        "on": float(pairs.on.mean()),
        "difference": float(differences.mean()),
        "low": float(low),
        "high": float(high),
        "relative": float(differences.mean()) / off if off else float("nan"),
        "pairs": count,
        "clear": bool(low > 0 or high < 0),
    }
