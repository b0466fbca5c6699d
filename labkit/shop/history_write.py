"""
Put the seeded past into a running Prometheus, continue one that was cut short, fill the time the lab was off.

Prometheus is the only memory: what was written is asked from it, never from a file, so a lab that
was killed in the middle of anything is continued from what really is there.  All of it must happen
before Prometheus scrapes or evaluates anything (start it without jobs and rules, then reload):
samples older than the newest hour are refused, and with an out-of-order window 30-day queries
become fifty times slower.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np

from labkit import _http
from labkit._time import as_utc, format_duration, parse_duration, utc_now
from labkit.errors import ConfigInvalid, RequestFailed
from labkit.shop import _remote_write as remote
from labkit.shop.history_build import History, build_history, plan_id
from labkit.shop.history_counts import counter_increments, steady_traffic
from labkit.shop.history_grid import grid_ms
from labkit.shop.history_plan import Endpoint
from labkit.shop.rates import LIVE_RATES_PER_S

__all__ = ["Samples", "WriteReport", "bodies", "ensure_history", "fill_gap", "last_sample_time", "write_history"]

_SEEDED = '{job="shop",instance="seeded"}'
_RETENTION_S = 41 * 86_400
# Blocks of Prometheus end at multiples of two hours.
_BLOCK_MS = 7_200_000
# One body holds about this many samples: large enough to keep Prometheus busy, small enough to overlap with it.
_SAMPLES_PER_BODY = 60_000
# A gap shorter than the fine grid needs no sample.
_SMALLEST_GAP_S = 5

_START_OVER = (
    "`labkit down`, then remove the lab's run directory (`labkit status` names it): "
    "the next `labkit up` writes a new past."
)

Progress = Callable[[float], None]
Labels = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Samples:
    """What a body is made of: labels, instants shared by all, values of shape (series, instants), nan for no sample."""

    series: Sequence[Labels]
    times_ms: remote.Ints
    values: remote.Floats

    def where(self, instants: remote.Bools, series: remote.Bools) -> Samples:
        """The part that both masks choose."""
        chosen = [labels for labels, keep in zip(self.series, series, strict=True) if keep]
        return Samples(chosen, self.times_ms[instants], self.values[series][:, instants])


@dataclass(frozen=True, slots=True)
class WriteReport:
    """
    What was written: `kind` is a whole new past, the rest of one that was cut short, or a filled gap.

    `sent_bytes` are compressed; `seconds` include encoding, sending and the check afterwards.
    """

    kind: Literal["new", "resumed", "gap"]
    samples: int
    series: int
    seconds: float
    sent_bytes: int
    start: datetime
    end: datetime


def write_history(prometheus_url: str, history: History, *, progress: Progress | None = None) -> WriteReport:
    """
    Write a whole past into a Prometheus that has none of it, in time order, and check that it is there.

    Args:
        prometheus_url: as in `http://127.0.0.1:9090`.
        history: from `build_history`.
        progress: called with the fraction done, up to 1.0.

    Raises:
        ConfigInvalid: Prometheus keeps less than the history is long; nothing was written.
        RequestFailed: Prometheus refused or went away, or does not have what it accepted.
    """
    _require_retention(prometheus_url, history.days)
    samples = Samples(history.series, history.times_ms, history.values)
    return _write(prometheus_url, "new", samples, progress)


def last_sample_time(prometheus_url: str) -> datetime | None:
    """
    The instant of the newest sample of any series, or None in an empty Prometheus.

    Any series counts, not only the shop's: while anything was recorded, a shop without samples was
    down, which is a fact and not a gap.
    """
    newest_ms = _newest_ms(prometheus_url)
    return None if newest_ms is None else datetime.fromtimestamp(newest_ms / 1000, UTC)


def fill_gap(
    prometheus_url: str, *, seed: int, until: datetime, rates: Mapping[Endpoint, float] = LIVE_RATES_PER_S
) -> WriteReport | None:
    """
    Continue the seeded counters from the newest sample of any series to *until* with quiet traffic at the live rates.

    Args:
        prometheus_url: a Prometheus that holds a whole seeded past and scrapes nothing yet.
        seed: of the past that must be there.
        until: timezone-aware; usually now.
        rates: requests per second by (method, endpoint).

    Returns:
        What was written, or None when there is nothing to fill: no past, or less than 5 s since the newest sample.

    Raises:
        ConfigInvalid: the past that is there has another seed.
        RequestFailed: as in `write_history`.
    """
    until_ms = int(as_utc(until).timestamp()) * 1000
    newest_ms = _settled_ms(prometheus_url)
    plan = _newest_plan(prometheus_url, newest_ms)
    if newest_ms is None or plan is None or until_ms - newest_ms < _SMALLEST_GAP_S * 1000:
        return None
    _require_seed(plan, seed)
    times_ms = grid_ms(newest_ms, until_ms, dense_start=True)
    traffic = steady_traffic(np.diff(times_ms, prepend=newest_ms) / 1000, rates)
    labels, increments = counter_increments(traffic, np.random.default_rng([seed, newest_ms]))
    gained = {_identity(one): row for one, row in zip(labels, np.cumsum(increments, axis=1), strict=True)}
    found = _query(prometheus_url, f"last_over_time({_SEEDED}[{_RETENTION_S}s])", newest_ms, timeout_s=30)
    # `last_over_time` keeps the name; series of an older past that has ended are not continued.
    kept = [(entry["metric"], float(entry["value"][1])) for entry in found if _continues(entry["metric"], plan)]
    values = np.stack([last + gained.get(_identity(metric), np.zeros(len(times_ms))) for metric, last in kept])
    return _write(prometheus_url, "gap", Samples([metric for metric, _ in kept], times_ms, values), None)


def ensure_history(
    prometheus_url: str,
    *,
    seed: int,
    labels_path: Path | None = None,
    days: int = 30,
    rates: Mapping[Endpoint, float] = LIVE_RATES_PER_S,
    progress: Progress | None = None,
    now: Callable[[], datetime] = utc_now,
) -> list[WriteReport]:
    """
    Bring the seeded past up to now, whatever is there: the one call that `labkit up` makes before the first scrape.

    An empty Prometheus gets a whole past; one that was cut short is continued where it stopped; a
    complete one gets its gap filled.  After more than *days* away a new past is written after the old
    one, since nothing of the old is in any window.  The labels are written beside the lab.

    Returns:
        One report per write, oldest first; empty when there was nothing to do.

    Raises:
        ConfigInvalid: the past that is there has another seed or was cut short by another version of labkit.
        RequestFailed: as in `write_history`.
    """
    newest_ms = _newest_ms(prometheus_url)
    plan = _newest_plan(prometheus_url, newest_ms)
    reports: list[WriteReport] = []
    if newest_ms is None or plan is None or now().timestamp() - newest_ms / 1000 > days * 86_400:
        history = build_history(seed=seed, end=now(), days=days, rates=rates)
        reports.append(write_history(prometheus_url, history, progress=progress))
    else:
        _require_seed(plan, seed)
        history = build_history(
            seed=seed, end=datetime.fromtimestamp(int(plan["end"]), UTC), days=int(plan["days"]), rates=rates
        )
        if newest_ms < int(plan["end"]) * 1000:
            reports.append(_resume(prometheus_url, history, plan, rates, progress))
    if labels_path is not None:
        _write_labels(labels_path, history.labels())
    # Writing took seconds: close the distance, so that the first scrape follows at once.
    filled = fill_gap(prometheus_url, seed=seed, until=now(), rates=rates)
    return [*reports, filled] if filled else reports


def _resume(
    prometheus_url: str,
    history: History,
    plan: Labels,
    rates: Mapping[Endpoint, float],
    progress: Progress | None,
) -> WriteReport:
    if plan["plan"] != plan_id(history.days, rates):
        raise ConfigInvalid(
            "The seeded history in Prometheus",
            problems=["it was cut short by an earlier version of labkit, which this one cannot continue"],
            how=f"Start over: {_START_OVER}",
        )
    have_ms = _newest_by_series(prometheus_url)
    newest_ms = max(have_ms.values(), default=0)
    # A series that comes and goes (a version that was live for a while) may have nothing near the end.
    never_ms = np.where(np.isnan(history.values).any(axis=1), newest_ms, 0)
    ends = np.array(
        [have_ms.get(frozenset(one.items()), never) for one, never in zip(history.series, never_ms, strict=True)]
    )
    whole = Samples(history.series, history.times_ms, history.values)
    # Prometheus commits body by body; after a crash some series may be one body ahead of the others.
    for end_ms in np.unique(ends)[:-1]:
        instants = (whole.times_ms > end_ms) & (whole.times_ms <= ends.max())
        _send(prometheus_url, whole.where(instants, ends == end_ms), None)
    rest = whole.where(whole.times_ms > ends.max(), np.ones(len(ends), dtype=bool))
    return _write(prometheus_url, "resumed", rest, progress)


def _write(
    prometheus_url: str, kind: Literal["new", "resumed", "gap"], samples: Samples, progress: Progress | None
) -> WriteReport:
    began = time.monotonic()
    sent = _send(prometheus_url, samples, progress)
    first_ms, last_ms = int(samples.times_ms[0]), int(samples.times_ms[-1])
    there = ~np.isnan(samples.values)
    _verify(prometheus_url, {first_ms: int(there[:, 0].sum()), last_ms: int(there[:, -1].sum())})
    start, end = (datetime.fromtimestamp(ms / 1000, UTC) for ms in (first_ms, last_ms))
    took_s = time.monotonic() - began
    return WriteReport(kind, int(there.sum()), len(samples.series), took_s, sent, start, end)


def _send(prometheus_url: str, samples: Samples, progress: Progress | None) -> int:
    how = (
        "The past must be the first thing that is written: start Prometheus without scrape jobs and rules, with "
        "--web.enable-remote-write-receiver, then reload. What was written so far stays; `labkit up` continues it."
    )
    sent = done = 0
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="encode") as encoder:
        source = bodies(samples)
        upcoming = encoder.submit(next, source, None)
        while (body := upcoming.result()) is not None:
            upcoming = encoder.submit(next, source, None)
            remote.push(prometheus_url, body[0], how=how)
            sent, done = sent + len(body[0]), done + body[1]
            if progress is not None:
                progress(done / len(samples.times_ms))
    return sent


def bodies(samples: Samples) -> Iterator[tuple[bytes, int]]:
    """Compressed request bodies in time order, each with the number of instants it holds."""
    headers = [remote.label_bytes(labels) for labels in samples.series]
    instants = max(1, _SAMPLES_PER_BODY // max(1, len(headers)))
    for start in range(0, len(samples.times_ms), instants):
        part = slice(start, start + instants)
        body = remote.encode(headers, samples.times_ms[part], samples.values[:, part])
        yield remote.compress(body), len(samples.times_ms[part])


def _verify(prometheus_url: str, series_at: Mapping[int, int]) -> None:
    # An answer of 204 says "accepted"; only a query says "there".
    for instant_ms, series in series_at.items():
        found = _query(prometheus_url, f"count({_SEEDED})", instant_ms)
        count = int(found[0]["value"][1]) if found else 0
        if count < series:
            at = datetime.fromtimestamp(instant_ms / 1000, UTC)
            raise RequestFailed(
                "POST",
                f"{prometheus_url}/api/v1/write",
                status=None,
                reason=f"Prometheus accepted {series} series and has {count} of them at {at:%Y-%m-%d %H:%M:%S} UTC",
                how=f"Is its retention long enough, its disk full? To start over: {_START_OVER}",
            )


def _require_retention(prometheus_url: str, days: int) -> None:
    flags = _http.get_json(f"{prometheus_url}/api/v1/status/flags", how="Is it running? See `labkit status`.")["data"]
    kept = flags.get("storage.tsdb.retention.time", "0s")
    kept_s = parse_duration(kept) if kept not in {"0s", ""} else 15 * 86_400
    if kept_s <= days * 86_400:
        raise ConfigInvalid(
            f"Prometheus at {prometheus_url}",
            problems=[f"it keeps {format_duration(kept_s)}, the history is {days} d long: the rest would be deleted"],
            how="Start it with --storage.tsdb.retention.time=40d. Nothing was written.",
        )


def _require_seed(plan: Labels, seed: int) -> None:
    if plan["seed"] != str(seed):
        raise ConfigInvalid(
            "The seed of this lab",
            problems=[
                f"its past was made with seed {plan['seed']}, and seed {seed} was asked for; one lab has one past"
            ],
            how=f"Use `--seed {plan['seed']}`, or start over: {_START_OVER}",
        )


def _newest_ms(prometheus_url: str) -> int | None:
    """The newest sample of any series: from the head or, when that is empty, from the blocks."""
    in_head_ms = _newest_in_head_ms(prometheus_url)
    return _newest_in_blocks_ms(prometheus_url) if in_head_ms is None else in_head_ms


def _settled_ms(prometheus_url: str) -> int | None:
    """The instant up to which nothing can be written any more: the newest sample, or the end of its block."""
    in_head_ms = _newest_in_head_ms(prometheus_url)
    if in_head_ms is not None:
        return in_head_ms
    newest_ms = _newest_in_blocks_ms(prometheus_url)
    return None if newest_ms is None else -(-newest_ms // _BLOCK_MS) * _BLOCK_MS


def _newest_in_head_ms(prometheus_url: str) -> int | None:
    status = _http.get_json(f"{prometheus_url}/api/v1/status/tsdb", how="Is it running? See `labkit status`.")["data"]
    head = status["headStats"]
    return int(head["maxTime"]) if head["numSeries"] and head["maxTime"] > 0 else None


def _newest_in_blocks_ms(prometheus_url: str) -> int | None:
    # Each step of the subquery sees five minutes back, so one step beyond now misses nothing.  Whatever was
    # scraped has `up`, whatever was seeded has the info series.
    soon_ms = int(time.time() * 1000) + 300_000
    newest = f"max_over_time(max(timestamp(up) or timestamp(shop_history_info))[{_RETENTION_S}s:5m])"
    found = _query(prometheus_url, newest, soon_ms, timeout_s=60)
    return round(float(found[0]["value"][1]) * 1000) if found else None


def _newest_plan(prometheus_url: str, newest_ms: int | None) -> Labels | None:
    """The labels of the info series whose past ends last."""
    if newest_ms is None:
        return None
    found = _query(prometheus_url, f"last_over_time(shop_history_info[{_RETENTION_S}s])", newest_ms)
    plans: list[Labels] = [entry["metric"] for entry in found]
    return max(plans, key=lambda plan: int(plan["end"]), default=None)


def _newest_by_series(prometheus_url: str) -> dict[frozenset[tuple[str, str]], int]:
    newest_ms = _newest_ms(prometheus_url)
    found = _query(prometheus_url, f"{_SEEDED}[1d]", newest_ms or 0)
    return {frozenset(entry["metric"].items()): round(entry["values"][-1][0] * 1000) for entry in found}


def _identity(labels: Labels) -> tuple[str | None, ...]:
    return tuple(labels.get(name) for name in ("__name__", "method", "endpoint", "status", "le"))


def _continues(metric: Labels, plan: Labels) -> bool:
    # Nobody knows which version was live while the lab was off.
    if metric["__name__"] == "shop_build_info":
        return False
    return metric["__name__"] != "shop_history_info" or dict(metric) == dict(plan)


def _query(prometheus_url: str, promql: str, at_ms: int, *, timeout_s: float = 20) -> list[Any]:
    answer = _http.get_json(
        f"{prometheus_url}/api/v1/query",
        params={"query": promql, "time": f"{at_ms / 1000:.3f}"},
        timeout_s=timeout_s,
        how="Is it running? See `labkit status`.",
    )
    found: list[Any] = answer["data"]["result"]
    return found


def _write_labels(path: Path, labels: dict[str, Any]) -> None:
    # Whole or not at all: a reader never meets half a file.
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f".{os.getpid()}.part")
    part.write_text(json.dumps(labels, indent=2) + "\n", encoding="utf-8")
    part.replace(path)
