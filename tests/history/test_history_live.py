"""The past in a real Prometheus: written, read back, cut short, continued, and followed by a live target."""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily

from labkit import _http
from labkit._time import utc_now
from labkit._wait import wait_until
from labkit.errors import ConfigInvalid, RequestFailed
from labkit.shop import _remote_write as remote
from labkit.shop.history import (
    History,
    build_history,
    ensure_history,
    fill_gap,
    last_sample_time,
    load_labels,
    write_history,
)
from labkit.shop.rates import LIVE_RATES_PER_S, REQUESTS_PER_S
from tests.prometheus_process import NO_JOBS, PrometheusProcess, free_port

pytestmark = pytest.mark.live

Start = Callable[..., PrometheusProcess]


def ask(server: PrometheusProcess, promql: str, at: datetime | None = None) -> list[dict[str, Any]]:
    """The result of an instant query."""
    params = {"query": promql, "time": (at or utc_now()).timestamp()}
    result: list[dict[str, Any]] = _http.get_json(f"{server.url}/api/v1/query", params=params, timeout_s=60)["data"][
        "result"
    ]
    return result


def number(server: PrometheusProcess, promql: str, at: datetime | None = None) -> float:
    """The one value of an instant query."""
    (only,) = ask(server, promql, at)
    return float(only["value"][1])


def ask_range(server: PrometheusProcess, promql: str, start: datetime, end: datetime, step_s: float) -> np.ndarray:
    """Instants and values of the one series of a range query, shape (instants, 2)."""
    params = {"query": promql, "start": start.timestamp(), "end": end.timestamp(), "step": step_s}
    (only,) = _http.get_json(f"{server.url}/api/v1/query_range", params=params)["data"]["result"]
    return np.array(only["values"], dtype=float)


@pytest.fixture(scope="module")
def seeded(start_prometheus: Start) -> tuple[PrometheusProcess, History]:
    """A server with a whole past that ended a minute ago; nothing else is in it."""
    server = start_prometheus()
    past = build_history(seed=7, end=utc_now() - timedelta(minutes=1))
    report = write_history(server.url, past)
    assert (report.kind, report.series) == ("new", len(past.series))
    assert report.samples == np.isfinite(past.values).sum()
    assert report.sent_bytes < report.samples * 18
    return server, past


def test_every_sample_is_there(seeded: tuple[PrometheusProcess, History]) -> None:
    """Count and last value of each series are those that were built."""
    server, past = seeded
    lasts = {frozenset(s["metric"].items()): s for s in ask(server, 'last_over_time({instance="seeded"}[31d])')}
    counted = {
        frozenset({**s["metric"], "__name__": name}.items()): int(s["value"][1])
        for name in {one["__name__"] for one in past.series}
        for s in ask(server, f'count_over_time({name}{{instance="seeded"}}[31d])')
    }
    assert len(lasts) == len(counted) == len(past.series)
    for labels, row in zip(past.series, past.values, strict=True):
        there = row[~np.isnan(row)]
        assert float(lasts[frozenset(labels.items())]["value"][1]) == there[-1]
        assert counted[frozenset(labels.items())] == len(there)


def test_a_thirty_day_ratio_takes_under_a_second(seeded: tuple[PrometheusProcess, History]) -> None:
    """The question that a fresh lab could not answer is answered at once, and right."""
    server, past = seeded
    counted = past.request_counts()
    ratio = (
        'sum(increase(http_requests_total{job="shop",status!~"5.."}[30d]))'
        ' / sum(increase(http_requests_total{job="shop"}[30d]))'
    )
    began = time.monotonic()
    found = number(server, ratio, past.end)
    took_s = time.monotonic() - began

    assert took_s < 1
    assert found == pytest.approx(counted["good"].sum() / counted["total"].sum(), abs=2e-6)


def test_an_incident_costs_in_promql_what_its_label_says(seeded: tuple[PrometheusProcess, History]) -> None:
    """`increase` over the incident finds the bad requests of the label, within what it extrapolates."""
    server, past = seeded
    for incident in past.incidents:
        if incident.kind == "availability":
            window_s = int((incident.end - incident.start).total_seconds()) + 120
            at = incident.end + timedelta(seconds=60)
            endpoints = "|".join(
                sorted({path.replace("{", "[{]").replace("}", "[}]") for _, path in incident.endpoints})
            )
            query = f'sum(increase(http_requests_total{{status=~"5..",endpoint=~"{endpoints}"}}[{window_s}s]))'
            assert number(server, query, at) == pytest.approx(incident.bad, rel=0.05, abs=15), incident.id


def test_the_newest_sample_is_the_end_of_the_past(seeded: tuple[PrometheusProcess, History]) -> None:
    """Prometheus itself says up to when it knows anything."""
    server, past = seeded
    assert last_sample_time(server.url) == past.end


def test_another_seed_is_refused_and_nothing_is_written(seeded: tuple[PrometheusProcess, History]) -> None:
    """One lab has one past: the message names both seeds."""
    server, past = seeded
    for call in (
        lambda: ensure_history(server.url, seed=8),
        lambda: fill_gap(server.url, seed=8, until=utc_now()),
    ):
        with pytest.raises(ConfigInvalid, match=r"seed 7.*seed 8"):
            call()
    assert last_sample_time(server.url) == past.end


def test_a_second_past_over_the_first_is_refused_with_what_to_do(seeded: tuple[PrometheusProcess, History]) -> None:
    """Prometheus takes no older samples; the error says how it must be started."""
    server, past = seeded
    with pytest.raises(RequestFailed, match=r"HTTP 400: .*(out of|duplicate)(.|\n)*first thing that is written"):
        write_history(server.url, build_history(seed=8, end=past.end))


def test_a_short_retention_is_refused_before_anything_is_written(start_prometheus: Start) -> None:
    """Fifteen days of retention would delete half the past within minutes."""
    server = start_prometheus(retention="15d")
    with pytest.raises(ConfigInvalid, match=r"keeps 15 d.*30 d(.|\n)*retention.time=40d"):
        write_history(server.url, build_history(seed=7, end=utc_now()))
    assert last_sample_time(server.url) is None


def test_a_server_without_a_receiver_is_named(start_prometheus: Start) -> None:
    """The flag that is missing is in the message."""
    server = start_prometheus(receiver=False)
    with pytest.raises(RequestFailed, match=r"--web\.enable-remote-write-receiver"):
        write_history(server.url, build_history(seed=7, end=utc_now(), days=1))


def test_an_empty_server_has_no_gap() -> None:
    """Nothing listens: the error says so; it is not taken for an empty server."""
    with pytest.raises(RequestFailed, match="nothing listens there"):
        last_sample_time(f"http://127.0.0.1:{free_port()}")


def test_a_killed_write_is_continued_where_it_stopped(start_prometheus: Start, tmp_path: Path) -> None:
    """Kill -9 of Prometheus in the middle of the past: the next `ensure_history` completes it, sample for sample."""
    server = start_prometheus()
    labels_path = tmp_path / "data" / "labels.json"

    def kill_at_forty_percent(done: float) -> None:
        if done > 0.4:
            server.end(signal.SIGKILL)

    with pytest.raises(RequestFailed, match="continues it"):
        ensure_history(server.url, seed=7, labels_path=labels_path, progress=kill_at_forty_percent)
    assert not labels_path.exists()
    server.start()
    cut = last_sample_time(server.url)
    progress: list[float] = []
    reports = ensure_history(server.url, seed=7, labels_path=labels_path, progress=progress.append)

    labels = load_labels(labels_path)
    assert cut is not None
    assert cut < labels["end"] - timedelta(days=10)
    assert reports[0].kind == "resumed"
    assert reports[0].start > cut
    assert progress == sorted(progress)
    assert progress[-1] == 1
    whole = build_history(seed=7, end=labels["end"])
    at = labels["end"]
    requests = {
        tuple(s["metric"][k] for k in ("method", "endpoint", "status")): int(s["value"][1])
        for s in ask(server, 'count_over_time(http_requests_total{instance="seeded"}[31d])', at)
    }
    assert set(requests.values()) == {len(whole.times_ms)}
    assert number(server, 'sum(http_requests_total{instance="seeded"})', at) == whole.traffic.requests.sum()
    assert number(server, "sum(resets(http_requests_total[31d]))", at) == 0


def test_a_past_cut_short_by_another_version_is_not_continued(start_prometheus: Start) -> None:
    """Rates of another version would not fit on; the error says how to start over."""
    server = start_prometheus()
    past = build_history(seed=7, end=utc_now(), days=1, rates=dict.fromkeys(LIVE_RATES_PER_S, 1.0))
    half = History(past.seed, past.end, 1, past.times_ms[:700], past.series, past.values[:, :700], past.traffic, (), ())
    write_history(server.url, half)
    with pytest.raises(ConfigInvalid, match=r"earlier version(.|\n)*labkit down"):
        ensure_history(server.url, seed=7)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_nothing_is_lost_while_the_lab_is_off(start_prometheus: Start, how: signal.Signals) -> None:
    """After a stop of two hours the past is whole, the gap holds traffic at the live rate, and no counter fell."""
    server = start_prometheus()
    away = timedelta(hours=2)
    stopped = (utc_now() - away).replace(microsecond=0)
    past = build_history(seed=7, end=stopped)
    write_history(server.url, past)
    server.end(how)
    server.start()
    assert last_sample_time(server.url) == stopped
    (report,) = ensure_history(server.url, seed=7)

    assert report.kind == "gap"
    assert report.start > stopped
    assert utc_now() - report.end < timedelta(seconds=10)
    now = report.end
    before = past.request_counts()["total"].sum()
    whole = number(server, 'sum(http_requests_total{instance="seeded"})', now)
    assert whole - before == pytest.approx(REQUESTS_PER_S * (now - stopped).total_seconds(), abs=6)
    assert number(server, "sum(resets(http_requests_total[31d]))", now) == 0
    rates = ask_range(server, "sum(rate(http_requests_total[5m]))", stopped - timedelta(minutes=5), now, 15)
    assert np.abs(rates[:, 1] / REQUESTS_PER_S - 1).max() < 0.05
    ratio = 'sum(increase(http_requests_total{status=~"5.."}[2h])) / sum(increase(http_requests_total[2h]))'
    assert number(server, ratio, now) < 0.0005
    count, plus_inf = (
        number(server, f"sum(http_request_duration_seconds_{one})", now) for one in ("count", 'bucket{le="+Inf"}')
    )
    assert count == plus_inf
    assert ensure_history(server.url, seed=7, now=lambda: now) == []


def test_a_gap_starts_after_the_newest_live_sample(start_prometheus: Start) -> None:
    """What was scraped while the lab was up is not counted twice: the seeded series go on after it."""
    server = start_prometheus()
    end = (utc_now() - timedelta(minutes=30)).replace(microsecond=0)
    write_history(server.url, build_history(seed=7, end=end, days=2))
    live_end = end + timedelta(minutes=10)
    times_ms = np.arange(int(end.timestamp()) + 5, int(live_end.timestamp()) + 1, 5) * 1000
    live = {"__name__": "http_requests_total", "job": "shop", "service": "gateway", "instance": "127.0.0.1:8080"}
    live |= {"method": "GET", "endpoint": "/products", "status": "200"}
    values = REQUESTS_PER_S * 5 * np.arange(1, len(times_ms) + 1, dtype=float)
    remote.push(
        server.url,
        remote.compress(remote.encode([remote.label_bytes(live)], times_ms, values[None])),
        how="",
        timeout_s=10,
    )
    report = fill_gap(server.url, seed=7, until=utc_now())

    assert report is not None
    assert live_end < report.start <= live_end + timedelta(seconds=60)
    seeded_in_live = ask(server, 'count_over_time(http_requests_total{instance="seeded"}[9m])', live_end)
    assert seeded_in_live == []
    rates = ask_range(
        server, "sum(rate(http_requests_total[5m]))", end - timedelta(minutes=4), utc_now() - timedelta(seconds=5), 15
    )
    assert np.abs(rates[:, 1] / REQUESTS_PER_S - 1).max() < 0.05


def test_after_a_month_away_a_new_past_follows_the_old(start_prometheus: Start) -> None:
    """Nothing of the old past is in any window then, so the lab gets fresh incidents, written after the old samples."""
    server = start_prometheus()
    old_end = utc_now() - timedelta(days=4)
    write_history(server.url, build_history(seed=7, end=old_end, days=1))
    reports = ensure_history(server.url, seed=7, days=3)

    assert reports[0].kind == "new"
    assert reports[0].start > old_end
    whole = build_history(seed=7, end=reports[0].end, days=3)
    assert number(server, "sum(increase(http_requests_total[3d]))") == pytest.approx(
        whole.traffic.requests.sum(), rel=0.01
    )
    assert fill_gap(server.url, seed=7, until=utc_now() + timedelta(seconds=30)) is not None


@contextmanager
def live_target() -> Iterator[int]:
    """A gateway that is asked at exactly the live rates, as an endpoint to scrape; yields its port."""
    began = time.monotonic()

    class Gateway:
        def collect(self) -> Iterator[CounterMetricFamily]:
            requests = CounterMetricFamily(
                "http_requests", "Requests that were answered.", labels=["method", "endpoint", "status"]
            )
            for (method, endpoint), rate in LIVE_RATES_PER_S.items():
                requests.add_metric([method, endpoint, "200"], int(rate * (time.monotonic() - began)))
            yield requests

    registry = CollectorRegistry()
    registry.register(Gateway())  # type: ignore[arg-type]
    port = free_port()
    server, thread = start_http_server(port, addr="127.0.0.1", registry=registry)
    try:
        yield port
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=5)


def test_the_rate_is_the_same_on_both_sides_of_the_first_scrape(start_prometheus: Start) -> None:
    """
    A real target is scraped every second right after the past: the 5-minute rate stays within 5 %.

    So does a 1-minute rate, in which the seam weighs five times as much, within 10 %.
    """
    server = start_prometheus()
    with live_target() as port:
        ensure_history(server.url, seed=7, days=1)
        job = (
            f"scrape_configs: [{{job_name: shop, scrape_interval: 1s, "
            f"static_configs: [{{targets: ['127.0.0.1:{port}'], labels: {{service: gateway}}}}]}}]\n"
        )
        server.reload(NO_JOBS + job)
        (up,) = wait_until(lambda: ask(server, "timestamp(up)"), "the first scrape", timeout_s=15)
        seam = datetime.fromtimestamp(float(up["value"][1]), UTC)
        wait_until(
            lambda: (utc_now() - seam).total_seconds() > 20, "twenty seconds of live samples", timeout_s=30, every_s=1
        )
        for window, within in (("5m", 0.05), ("1m", 0.10)):
            rates = ask_range(
                server,
                f'sum(rate(http_requests_total{{job="shop"}}[{window}]))',
                seam - timedelta(minutes=5),
                utc_now(),
                1,
            )
            assert np.abs(rates[:, 1] / REQUESTS_PER_S - 1).max() < within, window


@pytest.mark.parametrize("first_scrape_s", [0.2, 2.0, 4.9, 9.0])
def test_the_rate_across_the_whole_seam_at_the_interval_of_the_lab(
    start_prometheus: Start, first_scrape_s: float
) -> None:
    """
    With scrapes every 5 s the 5-minute rate stays within 5 % for every position of its window.

    The first scrape may follow the past by up to 9 s; the ten minutes after it are written, not waited for.
    """
    server = start_prometheus()
    end = (utc_now() - timedelta(minutes=10)).replace(microsecond=0)
    write_history(server.url, build_history(seed=7, end=end, days=1))
    times_s = end.timestamp() + first_scrape_s + 5 * np.arange(110)
    series, rows = [], []
    for (method, endpoint), rate in LIVE_RATES_PER_S.items():
        labels = {"__name__": "http_requests_total", "job": "shop", "service": "gateway", "instance": "127.0.0.1:8080"}
        series.append(remote.label_bytes(labels | {"method": method, "endpoint": endpoint, "status": "200"}))
        # The process had been asked for three seconds when it was first scraped.
        rows.append(np.floor(rate * (times_s - times_s[0] + 3)))
    times_ms = np.rint(times_s * 1000).astype(np.int64)
    remote.push(server.url, remote.compress(remote.encode(series, times_ms, np.stack(rows))), how="")
    rates = ask_range(
        server, "sum(rate(http_requests_total[5m]))", end - timedelta(minutes=5), end + timedelta(minutes=9), 1
    )

    assert np.abs(rates[:, 1] / REQUESTS_PER_S - 1).max() < 0.05


def test_a_server_that_lost_its_log_is_continued_from_its_blocks(start_prometheus: Start) -> None:
    """With nothing in the head the newest sample is found in the blocks, and the gap starts where its block ends."""
    server = start_prometheus()
    end = (utc_now() - timedelta(minutes=5)).replace(microsecond=0)
    write_history(server.url, build_history(seed=7, end=end, days=1))

    def oldest_in_head() -> datetime:
        status = _http.get_json(f"{server.url}/api/v1/status/tsdb")["data"]["headStats"]
        return datetime.fromtimestamp(status["minTime"] / 1000, UTC)

    wait_until(
        oldest_in_head, "older samples in blocks", timeout_s=30, ready=lambda oldest: oldest > end - timedelta(hours=5)
    )
    server.end()
    for part in ("wal", "chunks_head"):
        shutil.rmtree(server.folder / "data" / part)
    server.start()
    found = last_sample_time(server.url)
    report = fill_gap(server.url, seed=7, until=utc_now())

    assert found is not None
    assert end - timedelta(hours=5) < found < end
    assert report is not None
    assert found < report.start <= found + timedelta(seconds=65)
    assert report.start.timestamp() % 7200 <= 5
    assert number(server, "sum(resets(http_requests_total[1d]))") == 0
