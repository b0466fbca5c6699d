"""What generated rules say about outages of known size, asked of a real Prometheus."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from math import ceil
from pathlib import Path

import numpy as np
import pytest

from labkit._time import utc_now
from labkit.observe.prometheus import Prometheus
from labkit.shop import _remote_write as remote
from labkit.slo import rules
from labkit.slo.model import EventSli, Rolling, Slo
from tests.prometheus_process import PrometheusProcess
from tests.slo.ruled import Ruled

pytestmark = pytest.mark.live

MINUTES_BEFORE = 3 * 1440
PER_MINUTE = 600
# Minutes in which every event is bad, and the long windows whose alerts they reach, at 99.9 % over 30 days.
REACHED = {0.8: set(), 1.2: {"1h"}, 1.8: {"1h"}, 2.4: {"1h", "6h"}, 4.5: {"1h", "6h", "3d"}}
HOURS_AFTER = 7


def counters(error_minutes: float) -> np.ndarray:
    """Good and bad events since the start, at every minute: even traffic, the outage after three days."""
    minutes = MINUTES_BEFORE + HOURS_AFTER * 60
    bad = np.zeros(minutes)
    whole = ceil(error_minutes)
    bad[MINUTES_BEFORE : MINUTES_BEFORE + whole] = np.minimum(1, error_minutes - np.arange(whole)) * PER_MINUTE
    steps = np.stack([PER_MINUTE - bad, bad])
    return np.concatenate([np.zeros((2, 1)), np.cumsum(steps, axis=1)], axis=1)


@pytest.fixture(scope="module")
def outages(
    program: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Prometheus, datetime]]:
    """A server that holds an outage of each size, and when they all began."""
    end = utc_now().replace(microsecond=0)
    start = end - timedelta(minutes=MINUTES_BEFORE + HOURS_AFTER * 60)
    server = PrometheusProcess(program("prometheus"), tmp_path_factory.mktemp("outages") / "prometheus").start()
    headers = [
        remote.label_bytes({"__name__": "events_total", "case": str(size), "result": result})
        for size in REACHED
        for result in ("good", "bad")
    ]
    values = np.concatenate([counters(size) for size in REACHED])
    times_ms = int(start.timestamp() * 1000) + 60_000 * np.arange(values.shape[1])
    remote.push(server.url, remote.compress(remote.encode(headers, times_ms, values)), how="")
    with Prometheus(server.url) as client:
        yield client, start + timedelta(minutes=MINUTES_BEFORE)
    server.end()


def ruled(size: float) -> list[tuple[str, str, Ruled]]:
    """The burn-rate alerts for one size of outage: name, long window, and the rules with that alert alone."""
    case = json.dumps(str(size))
    sli = EventSli(
        f"sum(increase(events_total{{case={case}}}[$window]))",
        good=f'sum(increase(events_total{{case={case},result="good"}}[$window]))',
    )
    slo = Slo("outage", "test", Fraction(999, 1000), Rolling(30 * 86_400), sli)
    whole = Ruled.of(rules.generate([slo]))
    alerts = [rule for group in rules.groups([slo]) for rule in group.rules if rule.kind == "alert"]
    return [
        (rule.name, rule.labels["long"], Ruled(whole.recorded, [(rule.labels["severity"], rule.expr)]))
        for rule in alerts
        if rule.name in {rules.FAST_BURN, rules.SLOW_BURN}
    ]


@pytest.mark.parametrize("size", REACHED)
def test_error_minutes_reach_the_alerts_one_after_the_other(outages: tuple[Prometheus, datetime], size: float) -> None:
    """
    0.864 minutes of nothing but errors reach the page of an hour, 2.16 that of six, 4.32 the ticket of three days.

    So 0.8 fire nothing, and 1.2 to 1.8 exactly the fast alert, which is over six minutes after the last error.
    """
    client, began = outages
    over = began + timedelta(minutes=ceil(size))
    reached = {}
    for name, long, one in ruled(size):
        (severity, _) = one.alerts[0]
        instants = one.firing(client, severity, began - timedelta(hours=1), over + timedelta(hours=6))
        if instants:
            reached[long] = instants
        assert not instants or name == (rules.FAST_BURN if long == "1h" else rules.SLOW_BURN)

    assert set(reached) == REACHED[size]
    if "1h" in reached:
        assert began.astimezone(UTC) < min(reached["1h"])
        assert max(reached["1h"]) < over + timedelta(minutes=6)
