"""A real Prometheus beside the exact counts: what it makes of them is predicted, and the difference explained."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest

from labkit._time import utc_now
from labkit.observe.prometheus import Prometheus
from labkit.shop._remote_write import compress, encode, label_bytes, push
from labkit.slo.approximations import counters, increase
from labkit.slo.backtest_ratio import Range, range_semantics
from labkit.slo.counts import frame, from_counters, sums
from labkit.slo.explain import explain
from labkit.slo.model import Rolling
from tests.prometheus_process import PrometheusProcess
from tests.slo.drawn import slo

pytestmark = pytest.mark.live

MINUTES = 180
HOUR_S = 3600
# Before this minute the process restarts, and both counters begin again at 0.
RESTART_AT = 100


@dataclass(frozen=True)
class Counted:
    """Exact counts per minute, and a Prometheus that holds the counters made of them."""

    client: Prometheus
    counts: pd.DataFrame
    times_s: npt.NDArray[np.float64]
    samples: dict[str, npt.NDArray[np.float64]]
    closed: Range

    @property
    def end(self) -> datetime:
        """The last sample."""
        return pd.Timestamp(self.counts.index[-1]).to_pydatetime()

    def asked(self, kind: str, at: datetime, window_s: int = HOUR_S) -> float:
        """What the server makes of the counter."""
        return self.client.value(f'increase(requests_total{{kind="{kind}"}}[{window_s}s])', at=at)

    def exactly(self, kind: str, at: datetime, window_s: int = HOUR_S) -> float:
        """What was counted."""
        found = sums(self.counts, at - timedelta(seconds=window_s), at)
        return float(found.bad if kind == "bad" else found.total)


@pytest.fixture(scope="module")
def counted(program: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Counted]:
    """Three hours of uneven traffic with twenty bad minutes and a restart."""
    end = utc_now().replace(second=0, microsecond=0)
    rng, minute = np.random.default_rng(5), np.arange(MINUTES)
    total = rng.poisson(90 + 60 * np.sin(minute / 30))
    bad = rng.binomial(total, np.where(minute // 20 == 7, 0.3, 0.01))
    counts = frame((total - bad).tolist(), total.tolist(), end=end, step_s=60)
    times_s, *both = counters(counts, fresh=True)
    for samples in both:
        samples[RESTART_AT + 1 :] -= samples[RESTART_AT]
    server = PrometheusProcess(program("prometheus"), tmp_path_factory.mktemp("counted"))
    try:
        server.start()
        labels = [label_bytes({"__name__": "requests_total", "kind": kind}) for kind in ("bad", "all")]
        body = encode(labels, (times_s * 1000).astype(np.int64), np.array(both))
        push(server.url, compress(body), how="See the log of the server.")
        with Prometheus(server.url) as client:
            closed = range_semantics(client.version())
            yield Counted(client, counts, times_s, dict(zip(("bad", "all"), both, strict=True)), closed)
    finally:
        server.end(signal.SIGKILL)


@pytest.mark.parametrize(
    ("back_s", "window_s"),
    [(0, 3600), (17, 3600), (59, 3600), (0, 300), (31, 300), (77 * 60 + 13, 3600), (0, 4 * 3600), (175 * 60 + 30, 300)],
)
def test_what_increase_returns_is_known_beforehand(counted: Counted, back_s: int, window_s: int) -> None:
    """On the grid and between, over the restart, over the beginning of the series: to nine digits, both counters."""
    at = counted.end - timedelta(seconds=back_s)
    for kind, samples in counted.samples.items():
        predicted = increase(counted.times_s, samples, at_s=at.timestamp(), window_s=window_s, closed=counted.closed)
        assert predicted is not None
        assert counted.asked(kind, at, window_s) == pytest.approx(predicted.value, rel=1e-9)


def test_the_difference_from_the_counts_is_the_stretching(counted: Counted) -> None:
    """Between two samples increase() is no whole number; the growth that it saw times its factor is what it says."""
    at = counted.end - timedelta(seconds=17)
    asked, real = counted.asked("all", at), counted.exactly("all", at)
    seen = increase(
        counted.times_s, counted.samples["all"], at_s=at.timestamp(), window_s=HOUR_S, closed=counted.closed
    )
    assert seen is not None
    assert not float(asked).is_integer()
    assert asked != real
    assert asked == pytest.approx(seen.grown * seen.factor, rel=1e-9)
    assert seen.factor == pytest.approx(HOUR_S / seen.span_s, rel=1e-9)


def test_an_explanation_says_what_the_server_says(counted: Counted) -> None:
    """
    The burn rate of the server over an hour is the one that the explanation predicts beside the exact one.

    Both are compared at an instant between two samples, where they differ.
    """
    late_s = 17
    at = counted.end - timedelta(minutes=30)
    query = 'increase(requests_total{kind="bad"}[1h]) / ignoring(kind) increase(requests_total{kind="all"}[1h]) / 0.01'
    asked = counted.client.value(query, at=at + timedelta(seconds=late_s))
    found = explain(
        "burn_rate",
        counts=counted.counts,
        slo=slo("0.99", Rolling(7200)),
        at=at,
        window_s=HOUR_S,
        shown=asked,
        late_s=late_s,
        closed=counted.closed,
    )
    named = {one.name: one for one in found.approximations}
    shown, predicted = named["the value that was shown"], named["the ratio of the two"]
    assert found.value is not None
    assert float(found.value) * 0.01 == pytest.approx(counted.exactly("bad", at) / counted.exactly("all", at))
    assert shown.error != 0
    assert shown.error == pytest.approx(predicted.error, rel=1e-6)


def test_an_average_of_ratios_is_another_number_on_the_server_too(counted: Counted) -> None:
    """avg_over_time of a ratio per minute, on the server and predicted; the ratio of sums is not that."""
    at = counted.end
    ratio = 'increase(requests_total{kind="bad"}[2m]) / ignoring(kind) increase(requests_total{kind="all"}[2m])'
    asked = counted.client.value(f"avg_over_time(({ratio})[59m1s:1m])", at=at)
    step = timedelta(minutes=1)
    each = []
    for number in range(60):
        instant = at - number * step
        bad, total = (
            increase(counted.times_s, samples, at_s=instant.timestamp(), window_s=120, closed=counted.closed)
            for samples in counted.samples.values()
        )
        assert bad is not None
        assert total is not None
        each.append(bad.value / total.value)
    assert asked == pytest.approx(np.mean(each), rel=1e-9)
    exact = counted.exactly("bad", at) / counted.exactly("all", at)
    assert abs(asked / exact - 1) > 0.001


def test_counts_come_back_out_of_the_counters(counted: Counted) -> None:
    """The server's samples give the exact counts again; the restart lost nothing, since it followed upon a sample."""
    start = counted.end - timedelta(minutes=MINUTES)
    raw = counted.client.query_range("requests_total", start, counted.end, step_s=60)
    bad, total = (raw[[kind]] for kind in ("bad", "all"))
    good = pd.DataFrame({"good": total.to_numpy()[:, 0] - bad.to_numpy()[:, 0]}, index=raw.index)
    found = from_counters(good, total)
    pd.testing.assert_series_equal(
        found["total"], counted.counts["total"].astype(float), check_freq=False, check_index_type=False
    )
    assert found["good"].sum() == counted.counts["good"].sum()
