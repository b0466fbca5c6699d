"""What indicators say in PromQL, evaluated by Prometheus itself."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from labkit.errors import InvalidValue
from labkit.slo.model import WINDOW, EventSli, FreshnessSli, LatencySli, Sli, ThroughputSli

ALL = "sum(increase(hits_total[$window]))"
# Per minute: 48 good and 12 bad hits; 3 of 4 waits within a second; the clock of `stamp` stands still at 1800 s.
SERIES = {
    'hits_total{code="200"}': "0+48x60",
    'hits_total{code="500"}': "0+12x60",
    'wait_seconds_bucket{job="a",le="1.0"}': "0+3x60",
    'wait_seconds_bucket{job="a",le="0.25"}': "0+1x60",
    'wait_seconds_count{job="a"}': "0+4x60",
    "idle_total": "7x60",
    "stamp": "1800x60",
}


def hits(code: str) -> str:
    """A count of hits with this code."""
    return f'sum(increase(hits_total{{code="{code}"}}[$window]))'


def event(good: str | None = None, bad: str | None = None, total: str = ALL) -> EventSli:
    """An event SLI."""
    return EventSli(total, good, bad)


# Indicator, and what it must say after an hour over ten minutes: events, good events, error ratio; None is no value.
CASES: list[tuple[Sli, tuple[float | None, float | None, float | None]]] = [
    (event(good=hits("200")), (600, 480, 0.2)),
    (event(bad=hits("500")), (600, 480, 0.2)),
    # No series of good ones, nor of bad ones: all bad, all good.
    (event(good=hits("299")), (600, 0, 1)),
    (event(bad=hits("599")), (600, 600, 0)),
    # No series at all is no value, not 0.
    (event(good=hits("200"), total="sum(increase(none_total[$window]))"), (None, 480, None)),
    (event(bad=hits("500"), total="sum(increase(none_total[$window]))"), (None, None, None)),
    (LatencySli("wait_seconds", 1, 'job="a"'), (40, 30, 0.25)),
    (LatencySli("wait_seconds", 0.25), (40, 10, 0.75)),
    # A bound that is no bucket is no value, not an outage.
    (LatencySli("wait_seconds", 0.3), (40, None, None)),
    (ThroughputSli("sum(rate(hits_total[2m]))", 1.0), (10, 10, 0)),
    (ThroughputSli("sum(rate(hits_total[2m]))", 1.01), (10, 0, 1)),
    # 3600 - 1800 s old after an hour; within the last ten minutes it was below 1500 s in every second slice.
    (FreshnessSli("time() - max(stamp)", 1800), (10, 10, 0)),
    (FreshnessSli("time() - max(stamp)", 1510), (10, 5, 0.5)),
    # Nothing at all is a value, and so is an age below zero, which clocks that differ produce.
    (ThroughputSli("0 * sum(rate(hits_total[2m]))", 1.0), (10, 0, 1)),
    (FreshnessSli("max(stamp) - 1801", 10), (10, 10, 0)),
    (FreshnessSli("max(stamp) * NaN", 10), (None, None, None)),
    (FreshnessSli("max(none)", 10), (None, None, None)),
]


def test_prometheus_computes_what_indicators_mean(program: Callable[[str], Path], tmp_path: Path) -> None:
    """Counts and error ratios of every kind of indicator, with everything there and with parts absent."""
    checks = [
        {
            # A subquery has its first slice at the left edge in Prometheus 2, so the window is a second short.
            "expr": f"round({query}, 1e-6)",
            "eval_time": "1h",
            "exp_samples": [] if value is None else [{"labels": "{}", "value": value}],
        }
        for sli, values in CASES
        for query, value in zip(_queries(sli), values, strict=True)
    ]
    series = [{"series": name, "values": values} for name, values in SERIES.items()]
    (tmp_path / "none.yml").write_text("groups: []\n")
    (tmp_path / "test.yml").write_text(
        yaml.safe_dump(
            {
                "rule_files": ["none.yml"],
                "evaluation_interval": "1m",
                "tests": [{"interval": "1m", "input_series": series, "promql_expr_test": checks}],
            }
        )
    )
    argv = [program("promtool"), "test", "rules", tmp_path / "test.yml"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)

    assert done.returncode == 0, done.stdout + done.stderr


def _queries(sli: Sli) -> tuple[str, str, str]:
    window = "10m" if isinstance(sli, EventSli | LatencySli) else "599s"
    return sli.total_query(window), sli.good_query(window), sli.error_ratio(window)


def test_no_traffic_is_not_a_number(program: Callable[[str], Path], tmp_path: Path) -> None:
    """A counter that stands still has an error ratio of NaN: no comparison is true of it, no alert fires."""
    total = "sum(increase(idle_total[$window]))"
    ratio = event(bad='sum(increase(idle_total{code="500"}[$window]))', total=total).error_ratio("10m")
    checks = [
        {"expr": expr, "eval_time": "1h", "exp_samples": samples}
        for expr, samples in (
            (f"count({ratio})", [{"labels": "{}", "value": 1}]),
            (f"count(({ratio}) == ({ratio}))", []),
            (f"({ratio}) > 0 or ({ratio}) <= 0", []),
        )
    ]
    (tmp_path / "none.yml").write_text("groups: []\n")
    series = [{"series": "idle_total", "values": SERIES["idle_total"]}]
    tests = [{"interval": "1m", "input_series": series, "promql_expr_test": checks}]
    (tmp_path / "test.yml").write_text(yaml.safe_dump({"rule_files": ["none.yml"], "tests": tests}))
    argv = [program("promtool"), "test", "rules", tmp_path / "test.yml"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("window", ["", "3600", "1", "0s", "1h)", "soon"])
def test_a_window_that_is_no_duration_is_refused(window: str) -> None:
    """Nothing but a duration gets into a query; the placeholder stands for one."""
    for sli, _ in CASES:
        with pytest.raises(ValueError, match="duration"):
            sli.error_ratio(window)
        assert f"[{WINDOW}" in sli.error_ratio(WINDOW)


def test_an_event_indicator_without_good_and_bad_says_so() -> None:
    """Nothing can be computed from a total alone."""
    with pytest.raises(InvalidValue, match="one that has good or bad"):
        event().error_ratio("1h")
