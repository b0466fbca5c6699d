"""Cardinality: what is counted is what Prometheus has, and what one more label would do."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labkit._time import utc_now
from labkit._wait import wait_until
from labkit.errors import InvalidValue, UnknownName
from labkit.observe.cardinality import Census, Cost, take_census, what_if

if TYPE_CHECKING:
    from labkit.lab import Lab

COST = Cost(series_bytes=4000, sample_bytes=2, samples_per_s=0.2, source="made up")


def census(**series: int) -> Census:
    """With so many series per metric."""
    metrics = pd.DataFrame({"metric": list(series), "series": list(series.values())})
    return Census(utc_now(), metrics, pd.DataFrame(), sum(series.values()), 0.0, COST)


def test_a_label_multiplies_and_costs() -> None:
    """10 series and 400 users are 4,000 series; 3,990 of them are new, at 4 kB each."""
    found = what_if(census(http_requests_total=10, up=5), "http_requests_total", "user", values=400)

    assert (found.before, found.after, found.total_after) == (10, 4000, 4005)
    assert found.added_memory_mb == pytest.approx(15.96)
    assert found.added_disk_mb_per_day == pytest.approx(3990 * 0.2 * 86_400 * 2 / 1e6)
    assert "10 series become 4,000" in str(found)


def test_a_histogram_is_a_family() -> None:
    """Its base name counts buckets, sum and count; that is why histograms are dear."""
    found = what_if(census(d_bucket=100, d_sum=10, d_count=10, down=1), "d", "version", values=2)

    assert (found.before, found.after) == (120, 240)


@settings(max_examples=40, derandomize=True)
@given(st.integers(1, 10_000), st.integers(1, 10_000))
def test_a_label_of_one_value_costs_nothing(series: int, values: int) -> None:
    """And never does a label make less of anything."""
    one, many = (what_if(census(a=series), "a", "x", values=n) for n in (1, values))

    assert one.after == one.before
    assert one.added_memory_mb == 0
    assert many.after == series * values


def test_what_cannot_be_is_refused() -> None:
    """A metric without series is named with the nearest; fewer than one value is no label."""
    with pytest.raises(UnknownName, match="did you mean 'http_requests_total'"):
        what_if(census(http_requests_total=1), "http_request_total", "user", values=2)
    with pytest.raises(InvalidValue, match="1 or more, got 0"):
        what_if(census(a=1), "a", "x", values=0)


def test_growth_is_what_changed() -> None:
    """Largest first, with what is new and what has gone; what stayed is left out."""
    grown = census(a=9, c=4, same=2).growth(census(a=1, b=3, same=2))

    assert grown.to_numpy().tolist() == [["a", 1, 9, 8], ["c", 0, 4, 4], ["b", 3, 0, -3]]


@pytest.mark.live
def test_the_census_counts_what_prometheus_has(lab: Lab) -> None:
    """Its metrics add up to its total, which is that of a query; labels come with the number of their values."""
    now = lab.now()
    found = take_census(lab.prometheus, now)
    labels = found.labels.set_index("label")["values"]

    assert found.total == lab.prometheus.value('count({__name__!=""})', now) == found.metrics["series"].sum()
    assert found.metrics["series"].is_monotonic_decreasing
    assert found.metrics["share"].sum() == pytest.approx(1)
    assert labels["service"] >= 6
    assert labels["le"] > 10
    assert "__name__" not in labels


@pytest.mark.live
def test_the_cost_is_measured_on_this_server(lab: Lab) -> None:
    """A series takes kilobytes, a sample bytes, at the scrape interval; the source of each is said."""
    found = wait_until(
        lambda: take_census(lab.prometheus, job="shop"),
        "Prometheus has told its scrape interval",
        timeout_s=30,
        every_s=1,
        ready=lambda one: not math.isnan(one.cost.samples_per_s),
    )

    assert 500 < found.cost.series_bytes < 200_000
    assert 0.5 < found.cost.sample_bytes < 16
    assert found.cost.samples_per_s == pytest.approx(0.2, rel=0.2)
    assert "heap over its series" in found.cost.source
    assert set(found.metrics["metric"]) >= {"http_requests_total", "up"}
    assert "prometheus_tsdb_head_series" not in set(found.metrics["metric"])
