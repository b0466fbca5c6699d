"""
Cardinality: how many series there are, which labels make them, what they cost, and what one more label would do.

    census = take_census(prometheus)
    census.metrics          series per metric, largest first
    census.labels           distinct values per label, largest first
    census.cost             bytes and what they were measured on
    what_if(census, "http_requests_total", "user", values=400)
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import pandas as pd

from labkit._time import as_utc, utc_now
from labkit.errors import InvalidValue, NoData, UnknownName

if TYPE_CHECKING:
    from labkit.observe.prometheus import Prometheus

__all__ = ["Census", "Cost", "Projection", "take_census", "what_if"]

_DAY_S = 86_400
# What Prometheus' documentation reckons with for a sample on disk (https://prometheus.io/docs/prometheus/latest/storage/,
# "an average of only 1-2 bytes per sample"); used until this server has compacted enough to be asked.
_DOCUMENTED_SAMPLE_BYTES = 2.0


@dataclass(frozen=True, slots=True)
class Cost:
    """
    What a series costs on this server.

    `series_bytes`: memory of one series, bytes: the heap in use over the series in the head.  It includes the server's
    own fixed part, so with few series it is an upper bound.  `sample_bytes`: disk of one sample, bytes.
    `samples_per_s`: of one series, from the scrape interval.  `source`: where the numbers come from, in words.
    """

    series_bytes: float
    sample_bytes: float
    samples_per_s: float
    source: str

    def memory_mb(self, series: float) -> float:
        """Memory of so many series, MB."""
        return series * self.series_bytes / 1e6

    def disk_mb_per_day(self, series: float) -> float:
        """Disk that so many series fill in a day, MB."""
        return series * self.samples_per_s * _DAY_S * self.sample_bytes / 1e6


@dataclass(frozen=True, slots=True)
class Census:
    """
    The series of a server at one instant.

    `metrics`: `metric, series, share, memory_mb, disk_mb_per_day`, largest first.  `labels`: `label, values`, largest
    first, without the name of the metric.  `total`: all series that have a sample now.  `created_per_hour`: series
    that were new, by the rate of the last five minutes: churn; nan when it is not known yet.
    """

    at: datetime
    metrics: pd.DataFrame
    labels: pd.DataFrame
    total: int
    created_per_hour: float
    cost: Cost

    def growth(self, earlier: Census) -> pd.DataFrame:
        """
        What was added since an *earlier* census: `metric, before, after, added`, largest growth first.

        A metric that one of them lacks counts 0 there.  Metrics that did not change are left out.
        """
        before, after = (one.metrics.set_index("metric")["series"] for one in (earlier, self))
        frame = pd.DataFrame({"before": before, "after": after}).fillna(0).astype(int)
        frame["added"] = frame["after"] - frame["before"]
        changed = frame[frame["added"] != 0].rename_axis("metric").reset_index()
        return changed.sort_values("added", ascending=False, ignore_index=True)


@dataclass(frozen=True, slots=True)
class Projection:
    """What a new label would do to a metric: series before and after, and the cost of those that are added."""

    metric: str
    label: str
    before: int
    after: int
    total_after: int
    added_memory_mb: float
    added_disk_mb_per_day: float

    def __str__(self) -> str:
        return (
            f"{self.metric} with the label {self.label}: {self.before:,} series become {self.after:,} "
            f"(all: {self.total_after:,}), {self.added_memory_mb:,.1f} MB of memory and "
            f"{self.added_disk_mb_per_day:,.1f} MB of disk a day more."
        )


def take_census(prometheus: Prometheus, at: datetime | None = None, *, job: str = "") -> Census:
    """
    Count the series that have a sample now.

    Args:
        prometheus: the server; it is also asked for its own memory, so it should scrape itself.
        at: timezone-aware instant; now if None.
        job: only series of this scrape job; all if empty.

    Raises:
        NoData: there is no series.
        RequestFailed: Prometheus does not answer.
    """
    moment = utc_now() if at is None else as_utc(at)
    matching = f'{{job="{job}"}}' if job else '{__name__!=""}'
    counted = prometheus.query(f"count by (__name__) ({matching})", moment)
    cost = _cost(prometheus, moment)
    metrics = pd.DataFrame({"metric": counted["__name__"], "series": counted["value"].astype(int)})
    metrics = metrics.sort_values(["series", "metric"], ascending=[False, True], ignore_index=True)
    total = int(metrics["series"].sum())
    metrics["share"] = metrics["series"] / total
    metrics["memory_mb"] = cost.memory_mb(1) * metrics["series"]
    metrics["disk_mb_per_day"] = cost.disk_mb_per_day(1) * metrics["series"]
    created = _number(prometheus, "3600 * sum(rate(prometheus_tsdb_head_series_created_total[5m]))", moment)
    return Census(moment, metrics, _labels(prometheus, matching, moment), total, created, cost)


def _labels(prometheus: Prometheus, matching: str, moment: datetime) -> pd.DataFrame:
    """Distinct values per label, from the series themselves; labels of their own for rules are among them."""
    series = prometheus.query(matching, moment)
    rows = [
        (name, int(values[values != ""].nunique()), int((values != "").sum()))
        for name, values in series.drop(columns=["value", "__name__"], errors="ignore").items()
    ]
    frame = pd.DataFrame(rows, columns=["label", "values", "series"])
    return frame.sort_values(["values", "label"], ascending=[False, True], ignore_index=True)


def _cost(prometheus: Prometheus, moment: datetime) -> Cost:
    heap = _number(prometheus, 'max(go_memstats_heap_inuse_bytes{job="prometheus"})', moment)
    # Right after its start the server's own count is a scrape behind.
    told = _number(prometheus, "max(prometheus_tsdb_head_series)", moment)
    counted = prometheus.value('count({__name__!=""})', moment)
    head = counted if math.isnan(told) else max(told, counted)
    sample = _number(
        prometheus,
        "sum(prometheus_tsdb_compaction_chunk_size_bytes_sum) / sum(prometheus_tsdb_compaction_chunk_samples_sum)",
        moment,
    )
    interval = _number(prometheus, 'max(prometheus_target_interval_length_seconds{quantile="0.5"})', moment)
    measured = not math.isnan(sample) and sample > 0
    source = (
        "memory: this server's heap over its series, an upper bound; "
        f"disk: {'its compactions' if measured else 'the documentation of Prometheus, until it compacts'}; "
        "scrapes: its median interval"
    )
    return Cost(heap / head, sample if measured else _DOCUMENTED_SAMPLE_BYTES, 1 / interval, source)


def _number(prometheus: Prometheus, promql: str, moment: datetime) -> float:
    """The value, nan when there is none."""
    try:
        return prometheus.value(promql, moment)
    except NoData:
        return float("nan")


def what_if(census: Census, metric: str, label: str, *, values: int) -> Projection:
    """
    What a new label would do, if each of its values may meet each series: the worst case, which users reach.

    Args:
        census: as from `take_census`.
        metric: its name; of a histogram, its base name counts buckets, sum and count together.
        label: the name of the new label.
        values: how many distinct values it would have, 1 or more.

    Raises:
        UnknownName: no series of that metric; names the nearest.
        InvalidValue: *values* is below 1.
    """
    if values < 1:
        raise InvalidValue("values", expected="1 or more", got=values)
    family = {metric, *(f"{metric}_{part}" for part in ("bucket", "sum", "count"))}
    before = int(census.metrics.loc[census.metrics["metric"].isin(family), "series"].sum())
    if not before:
        raise UnknownName("metric with series", metric, known=census.metrics["metric"].tolist()[:40])
    added = before * (values - 1)
    return Projection(
        metric,
        label,
        before,
        before + added,
        census.total + added,
        census.cost.memory_mb(added),
        census.cost.disk_mb_per_day(added),
    )
