"""
From a seed to counters: the traffic, what the incidents spoilt of it, and the truth about both.

The result is a function of its arguments alone; nothing here reads a clock or the network.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from labkit._time import as_utc
from labkit.errors import ConfigInvalid
from labkit.shop import history_counts as counts
from labkit.shop._remote_write import Floats, Ints
from labkit.shop.history_grid import COARSE_S, STEADY_S, grid_ms
from labkit.shop.history_plan import (
    AVAILABILITY_OBJECTIVE,
    LATENCY_OBJECTIVE,
    LATENCY_THRESHOLD_S,
    QUIET_DAYS,
    SCENARIOS,
    Deploy,
    Endpoint,
    Incident,
    Slot,
    place,
    place_deploys,
)
from labkit.shop.rates import LIVE_RATES_PER_S

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["History", "build_history", "load_labels", "plan_id"]

# Raised whenever the same seed would give other numbers than before.
_METHOD = 1

_SEEDED = {"job": "shop", "service": "gateway", "instance": "seeded"}
_LABELS_SCHEMA = "labkit-history-labels/1"


@dataclass(frozen=True, slots=True)
class History:
    """
    The past as arrays: counters at instants, the counts behind them, and the truth.

    Attributes:
        times_ms: shape (instants,), milliseconds since 1970 UTC; every 60 s, up to every 5 s near the end.
        series: the labels of each series, `__name__` included.
        values: shape (series, instants); counters start at 0 at the first instant; nan where a series has no sample.
        traffic: the counts per step of `traffic.step_s`: minutes, in the last two hours seconds.
    """

    seed: int
    end: datetime
    days: int
    times_ms: Ints
    series: tuple[Mapping[str, str], ...]
    values: Floats
    traffic: counts.Traffic
    incidents: tuple[Incident, ...]
    deploys: tuple[Deploy, ...]

    @property
    def start(self) -> datetime:
        """The first instant, UTC."""
        return datetime.fromtimestamp(self.times_ms[0] / 1000, UTC)

    def request_counts(self, *, endpoint: Endpoint | None = None, step_s: int = 60) -> pd.DataFrame:
        """
        Good and total requests per step, as the SLO arithmetic wants them.

        Args:
            endpoint: (method, endpoint label); all endpoints together if None.
            step_s: a multiple of 60 that divides the length of the history, in seconds.

        Returns:
            Index `time` (UTC, the *end* of each step, as in `increase(...[1m])`), int64 columns
            `good` and `total`; `attrs["step_s"]`.  Never empty.

        Raises:
            ValueError: the step does not fit.
            KeyError: there is no such endpoint; the message lists them.
        """
        import pandas as pd  # noqa: PLC0415  (half a second that writing a history does not need)

        columns = self._columns(endpoint)
        total = self._per_step(self.traffic.requests[:, columns].sum(axis=1), step_s)
        bad = self._per_step(self.traffic.errors[:, columns].sum(axis=1), step_s)
        index = pd.date_range(end=self.end, periods=len(total), freq=f"{step_s}s", unit="ns", name="time")
        frame = pd.DataFrame({"good": total - bad, "total": total}, index=index)
        frame.attrs["step_s"] = step_s
        return frame

    def _columns(self, endpoint: Endpoint | None) -> list[int]:
        known = self.traffic.endpoints
        if endpoint is None:
            return list(range(len(known)))
        if endpoint not in known:
            raise KeyError(f"no endpoint {endpoint!r} in the history; there are {', '.join(map(str, known))}")
        return [known.index(endpoint)]

    def _per_step(self, counted: Ints, step_s: int) -> Ints:
        span_s = self.days * 86_400
        if step_s <= 0 or step_s % COARSE_S or span_s % step_s:
            raise ValueError(f"step_s must be a multiple of {COARSE_S} that divides {span_s}, got {step_s}")
        minutes = np.concatenate([counted[:-STEADY_S], counted[-STEADY_S:].reshape(-1, COARSE_S).sum(axis=1)])
        return np.asarray(minutes.reshape(-1, step_s // COARSE_S).sum(axis=1))

    def labels(self) -> dict[str, Any]:
        """
        What happened when, ready for JSON; the fields are described in docs/history.md.

        >>> past = build_history(seed=7, end=datetime(2026, 3, 1, tzinfo=UTC))
        >>> sorted(past.labels())
        ['days', 'deploys', 'end', 'incidents', 'objectives', 'schema', 'seed', 'start']
        """
        return {
            "schema": _LABELS_SCHEMA,
            "seed": self.seed,
            "days": self.days,
            "start": self.start.isoformat(),
            "end": self.end.isoformat(),
            "objectives": {
                "availability": {"objective": AVAILABILITY_OBJECTIVE, "scope": "all endpoints"},
                "latency": {
                    "objective": LATENCY_OBJECTIVE,
                    "threshold_s": LATENCY_THRESHOLD_S,
                    "scope": "the affected endpoint",
                },
            },
            "incidents": [_incident_label(incident) for incident in self.incidents],
            "deploys": [
                {
                    "time": d.time.isoformat(),
                    "service": d.service,
                    "version": d.version,
                    "kind": d.kind,
                    "incident": d.incident,
                }
                for d in self.deploys
            ],
        }


def _incident_label(incident: Incident) -> dict[str, Any]:
    return {
        "id": incident.id,
        "title": incident.title,
        "cause": incident.cause,
        "kind": incident.kind,
        "endpoints": [f"{method} {path}" for method, path in incident.endpoints],
        "start": incident.start.isoformat(),
        "end": incident.end.isoformat(),
        "budget_share": incident.budget_share,
        "bad": incident.bad,
        "total": incident.total,
        "response": incident.response,
        "should_page": incident.should_page,
    }


def load_labels(path: Path) -> dict[str, Any]:
    """
    The labels that were written beside the lab, with `start`, `end` and `time` as UTC datetimes.

    Raises:
        ConfigInvalid: the file is not there, not JSON, or of another schema.
    """
    how = "Run `labkit up`: it writes the file again."
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise ConfigInvalid(str(path), problems=[f"cannot be read as labels: {error}"], how=how) from error
    if not isinstance(found, dict) or found.get("schema") != _LABELS_SCHEMA:
        seen = found.get("schema") if isinstance(found, dict) else type(found).__name__
        raise ConfigInvalid(str(path), problems=[f"expected schema {_LABELS_SCHEMA!r}, found {seen!r}"], how=how)
    for part in (found, *found["incidents"], *found["deploys"]):
        part.update({k: datetime.fromisoformat(part[k]) for k in ("start", "end", "time") if k in part})
    return found


def plan_id(days: int, rates: Mapping[Endpoint, float]) -> str:
    """Eight characters that differ when the same seed and end would give other numbers."""
    plan = repr((_METHOD, days, sorted(rates.items()), SCENARIOS, counts.HISTOGRAMS))
    return hashlib.sha256(plan.encode()).hexdigest()[:8]


def build_history(
    *,
    seed: int,
    end: datetime,
    days: int = 30,
    rates: Mapping[Endpoint, float] = LIVE_RATES_PER_S,
    version: str = "1.0.0",
) -> History:
    """
    The past that ends at *end*; the same arguments give the same bytes.

    Args:
        seed: chooses order and minute of the incidents, and the noise.
        end: timezone-aware; cut to the second.
        days: length; incidents that find no room in a shorter past are left out.
        rates: requests per second by (method, endpoint) that the past arrives at; it equals them in its last two hours.
        version: version of the gateway that is live at the end.

    Raises:
        ValueError: *end* has no time zone, *days* is not 1 to 35, or a rate is too small to spend an incident's budget.
    """
    end = as_utc(end).replace(microsecond=0)
    if not 1 <= days <= 35:
        raise ValueError(f"days must be 1 to 35 (Prometheus keeps 40), got {days}")
    end_ms = int(end.timestamp()) * 1000
    start_ms = end_ms - days * 86_400_000
    times_ms = np.concatenate([[start_ms], grid_ms(start_ms, end_ms)])
    step_s = np.concatenate([np.full(days * 1440 - STEADY_S // COARSE_S, float(COARSE_S)), np.ones(STEADY_S)])
    slots = place(seed, days)
    traffic = counts.thirty_days_traffic(
        seed=seed, end=end, step_s=step_s, rates=rates, slots=slots, quiet_s=QUIET_DAYS * 86_400
    )
    incidents = _spoil(seed, end, traffic, slots)
    deploys = place_deploys(seed, end, days, incidents, version)
    labels, increments = counts.counter_increments(traffic, np.random.default_rng([seed, 5]))
    versions, live = _versions(deploys, times_ms)
    counters = np.concatenate([np.zeros((len(labels), 1)), np.cumsum(increments, axis=1)], axis=1)
    sampled = np.searchsorted(np.cumsum(step_s, dtype=np.int64), (times_ms - start_ms) // 1000, side="right")
    counters = counters[:, sampled]
    values = np.concatenate([counters, np.ones((1, len(times_ms))), live])
    builds = ({"__name__": "shop_build_info", "version": one} for one in versions)
    series = (
        *({**one, **_SEEDED} for one in labels),
        _info_series(seed, end_ms, days, rates),
        *({**one, **_SEEDED} for one in builds),
    )
    return History(seed, end, days, times_ms, series, values, traffic, incidents, deploys)


def _versions(deploys: Sequence[Deploy], times_ms: Ints) -> tuple[list[str], Floats]:
    """Each version of the gateway, and 1 at the instants when it was live, nan at others."""
    at_ms = [round(deploy.time.timestamp() * 1000) for deploy in deploys]
    names = ["0.0.0", *(deploy.version for deploy in deploys)]
    order = list(dict.fromkeys(names))
    live = np.array([order.index(name) for name in names])[np.searchsorted(at_ms, times_ms, side="right")]
    return order, np.where(live == np.arange(len(order))[:, None], 1.0, np.nan)


def _info_series(seed: int, end_ms: int, days: int, rates: Mapping[Endpoint, float]) -> dict[str, str]:
    # Read back by a later `up`: whose past this is, and whether it was written to its end.
    plan = {"seed": str(seed), "end": str(end_ms // 1000), "days": str(days), "plan": plan_id(days, rates)}
    return {"__name__": "shop_history_info", **_SEEDED, **plan}


def _spoil(seed: int, end: datetime, traffic: counts.Traffic, slots: tuple[Slot, ...]) -> tuple[Incident, ...]:
    rng = np.random.default_rng([seed, 4])
    starts_s = np.cumsum(traffic.step_s[::-1])[::-1]
    return tuple(_spoil_one(rng, end, traffic, starts_s, slot) for slot in slots)


def _spoil_one(
    rng: np.random.Generator, end: datetime, traffic: counts.Traffic, starts_s: Floats, slot: Slot
) -> Incident:
    """Make the requests of one slot go wrong, in place, and say what was done."""
    scenario = slot.scenario
    columns = [traffic.endpoints.index(endpoint) for endpoint in scenario.endpoints]
    latency = scenario.kind == "latency"
    scope = traffic.requests[:, columns] if latency else traffic.requests
    objective = LATENCY_OBJECTIVE if latency else AVAILABILITY_OBJECTIVE
    budget = round(scenario.budget_share * (1 - objective) * int(scope.sum()))
    first = int(np.argmax(starts_s <= slot.start_before_end_s))
    stop = int(np.argmax(starts_s <= slot.limit_before_end_s))
    elapsed_s = starts_s[first] - starts_s[first:stop]
    bad, spell = counts.allocate(rng, scenario, traffic.requests[first:stop, columns], elapsed_s, budget)
    rows = slice(first, first + spell.last + 1)
    if latency:
        traffic.slow[rows, [counts.HISTOGRAMS.index(e) for e in scenario.endpoints]] = bad[: spell.last + 1]
    else:
        traffic.errors[rows, columns] = bad[: spell.last + 1]
    begin = end - timedelta(seconds=float(starts_s[first]))
    over = end - timedelta(seconds=float(starts_s[first + spell.last] - traffic.step_s[first + spell.last]))
    return Incident(
        scenario.id,
        scenario.title,
        scenario.cause,
        scenario.kind,
        scenario.endpoints,
        begin,
        over,
        scenario.budget_share,
        spell.bad,
        spell.total,
        scenario.response,
    )
