"""The comparison with and without instrumentation, on work whose cost is known."""

from __future__ import annotations

import os

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labkit.errors import InvalidValue
from labkit.observe.overhead import Pairs, cpu_of, measure_overhead, paired_difference


class Shop:
    """Requests on a clock of its own: 10 ms, *cost_ms* more with instrumentation, and slower all the time."""

    def __init__(self, cost_ms: float, noise_ms: float = 0.0) -> None:
        self.now_s, self.cpu_s, self.on, self.switched = 0.0, 0.0, True, 0
        self._cost_ms, self._noise_ms, self._random = cost_ms, noise_ms, np.random.default_rng(1)
        self._drift_ms = 0.0

    def work(self) -> None:
        """One request."""
        self._drift_ms += 0.001
        took_ms = 10 + self._drift_ms + self.on * self._cost_ms + self._random.normal(0, 1) * self._noise_ms
        self.now_s += took_ms / 1e3
        self.cpu_s += (4 + self.on * self._cost_ms) / 1e3

    def switch(self, on: bool) -> None:
        """Instrumentation on or off."""
        self.switched += on is not self.on
        self.on = on

    def measure(self, **options: int) -> pd.DataFrame:
        """The comparison on this shop."""
        return measure_overhead(
            work=self.work, switch=self.switch, cpu_s=lambda: self.cpu_s, clock=lambda: self.now_s, **options
        )


def test_a_known_cost_is_found_though_everything_gets_slower():
    """1.5 ms more per request are found, though a drift of the same size runs through the measurement."""
    shop = Shop(1.5, noise_ms=0.3)
    frame = shop.measure(pairs=20, requests=50)
    latency, processor = frame.loc["latency, median"], frame.loc["processor"]
    assert latency["low"] - 0.1 < 1.5 < latency["high"] + 0.1
    assert (bool(latency["clear"]), round(processor["difference"], 6)) == (True, 1.5)
    assert processor["relative"] == pytest.approx(1.5 / 4)


def test_no_cost_is_not_clear():
    """Without a cost the interval holds 0."""
    frame = Shop(0.0, noise_ms=2.0).measure(pairs=20, requests=30)
    assert frame.loc["latency, mean", "low"] < 0 < frame.loc["latency, mean", "high"]
    assert not frame.loc["latency, mean", "clear"]


def test_more_noise_is_a_wider_interval():
    """The interval says how little is known."""
    calm, noisy = (Shop(1.0, noise_ms=n).measure(pairs=12, requests=10).loc["latency, mean"] for n in (0.1, 5.0))
    assert noisy["high"] - noisy["low"] > 5 * (calm["high"] - calm["low"])


def test_the_order_within_pairs_varies_and_the_end_is_with_instrumentation():
    """Neither kind of block is always first, and the shop is instrumented afterwards, also after a failure."""
    shop = Shop(1.0)
    shop.measure(pairs=10, requests=1)
    assert (10 <= shop.switched < 20, shop.on) == (True, True)

    def fail() -> None:
        raise RuntimeError("the shop is gone")

    with pytest.raises(RuntimeError, match="gone"):
        measure_overhead(work=fail, switch=shop.switch, cpu_s=lambda: 0.0)
    assert shop.on


@given(st.lists(st.floats(0.1, 100), min_size=4, max_size=20), st.floats(-5, 5))
@settings(max_examples=30, deadline=None)
def test_a_constant_difference_has_no_width(off: list[float], cost: float):
    """When every pair differs by the same, the interval is that difference."""
    row = paired_difference({"x": Pairs(np.array(off), np.array(off) + cost)}).loc["x"]
    assert [row["low"], row["high"], row["difference"]] == pytest.approx([cost] * 3, abs=1e-9)


def test_the_same_seed_gives_the_same_interval():
    """Nothing but the seed decides about the resampling."""
    random = np.random.default_rng(3)
    pairs = {"x": Pairs(random.random(10), random.random(10))}
    assert paired_difference(pairs, seed=5).equals(paired_difference(pairs, seed=5))


def test_too_little_to_say_anything_is_refused():
    """Three pairs, sides of unequal number and no request are errors that say what is needed."""
    with pytest.raises(InvalidValue, match="at least 4 pairs"):
        Shop(1.0).measure(pairs=3)
    with pytest.raises(InvalidValue, match="4 or more pairs"):
        paired_difference({"x": Pairs(np.ones(4), np.ones(5))})


def test_processor_time_is_that_of_the_processes():
    """A process that works uses processor time; one that is not there is an error and not a zero."""
    before_s = cpu_of([os.getpid()])
    sum(i * i for i in range(2_000_000))
    assert cpu_of([os.getpid()]) > before_s
    with pytest.raises(InvalidValue, match="run during the whole measurement"):
        cpu_of([2**22 + 1])
