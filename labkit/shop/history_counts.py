"""
Seeded traffic as counts: requests, errors and slow requests per step and endpoint.

Everything here is integers in arrays of shape (steps, endpoints); counters and buckets are their
running sums, so they are monotone and consistent by construction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from statistics import NormalDist

import numpy as np

from labkit.shop._remote_write import Floats, Ints
from labkit.shop.history_grid import STEADY_S
from labkit.shop.history_plan import LATENCY_THRESHOLD_S, Endpoint, Scenario, Slot
from labkit.shop.metrics import DURATION_BUCKETS_S
from labkit.shop.rates import BASE_ERROR_SHARE, ERROR_STATUS, OK_STATUS, TYPICAL_LATENCY_S

__all__ = [
    "BASE_SLOW_SHARE",
    "HISTOGRAMS",
    "Spell",
    "Traffic",
    "allocate",
    "counter_increments",
    "evenly",
    "shape",
    "steady_traffic",
    "thirty_days_traffic",
]

# Histograms cost twelve series per endpoint.  Two tell the story: the endpoint that earns the
# money and the one with the most traffic; with all five the history would take twice as long.
HISTOGRAMS: tuple[Endpoint, ...] = (("POST", "/checkout/{user}"), ("GET", "/products/{id}"))

# Requests over the latency threshold on an ordinary day, as a fraction: a fifth of what 99 % allows.
BASE_SLOW_SHARE = 0.002

# From this long before the end the shape fades into the live load; the last two hours are steady.
_FADE_S = 8 * 3600

# How slow requests spread over the buckets above the threshold: 0.5 s, 1 s, 2.5 s, more.
_SLOW_SPREAD = (0.55, 0.30, 0.12, 0.03)


@dataclass(slots=True)
class Traffic:
    """Counts per step (rows) and endpoint (columns); `slow` has the columns of `HISTOGRAMS` only."""

    endpoints: tuple[Endpoint, ...]
    step_s: Floats
    requests: Ints
    errors: Ints
    slow: Ints


@dataclass(frozen=True, slots=True)
class Spell:
    """The steps [first, last] in which an incident was on, and what it cost."""

    first: int
    last: int
    bad: int
    total: int


def shape(times_s: Floats) -> Floats:
    """
    Traffic relative to the mean: a daily wave with its peak at 15:00 UTC and a quieter weekend.

    The smallest value is about 0.55, the mean over a week is 1.

    >>> monday_peak, sunday_trough = 1_772_463_600.0, 1_772_334_000.0
    >>> [round(float(x), 2) for x in shape(np.array([monday_peak, sunday_trough]))]
    [1.43, 0.55]
    """
    day_s, week_s = 86_400.0, 604_800.0
    daily = 1 + 0.35 * np.cos(2 * np.pi * (times_s - 15 * 3600) / day_s)
    # 1970-01-01 was a Thursday; the weekend starts 2 days later, its edges are an hour wide.
    since_saturday_s = (times_s - 2 * day_s) % week_s
    weekend = np.clip(np.minimum(since_saturday_s, 2 * day_s - since_saturday_s) / 3600 + 0.5, 0, 1)
    weekly = 1.06 - 0.21 * weekend
    return np.asarray(daily * weekly)


def evenly(expected: Floats, offset: float = 0.5) -> Ints:
    """
    Whole numbers per step whose running sum stays within one of the running sum of *expected*.

    This is how a paced load generator spaces its requests, and how errors are spread when no
    cluster of them may look like an incident.

    >>> evenly(np.array([0.4, 0.4, 0.4, 0.4])).tolist()
    [0, 1, 0, 1]
    """
    running = np.floor(np.cumsum(expected, axis=0) + offset)
    return np.diff(running, axis=0, prepend=np.floor(np.zeros_like(running[:1]) + offset)).astype(np.int64)


def thirty_days_traffic(
    *, seed: int, end: datetime, step_s: Floats, rates: Mapping[Endpoint, float], slots: Sequence[Slot], quiet_s: float
) -> Traffic:
    """
    Ordinary traffic up to *end*: shape, noise, surges, background errors; no incident's errors yet.

    In the last *quiet_s* seconds errors are spread evenly instead of at random.
    """
    rng = np.random.default_rng([seed, 3])
    to_end_s = np.cumsum(step_s[::-1])[::-1]
    fade = np.clip((to_end_s - STEADY_S) / (_FADE_S - STEADY_S), 0, 1)
    times_s = end.astimezone(UTC).timestamp() - to_end_s
    relative = np.exp(fade * (np.log(shape(times_s)) + _wander(rng, to_end_s)))
    relative *= _surges(to_end_s, slots)
    expected = np.asarray(list(rates.values())) * (relative * step_s)[:, None]
    steady = to_end_s <= STEADY_S
    requests = rng.poisson(expected).astype(np.int64)
    requests[steady] = evenly(expected[steady])
    quiet = to_end_s <= quiet_s
    return Traffic(
        tuple(rates),
        step_s,
        requests,
        _background(rng, requests, BASE_ERROR_SHARE, quiet),
        _background(rng, requests[:, [list(rates).index(e) for e in HISTOGRAMS]], BASE_SLOW_SHARE, quiet),
    )


def _wander(rng: np.random.Generator, to_end_s: Floats) -> Floats:
    # Real traffic varies more than Poisson: a slow wander by the hour and a little per step.
    hours = to_end_s / 3600
    knots = rng.normal(0, 0.03, int(hours[0]) + 2)
    return np.asarray(np.interp(hours, np.arange(len(knots)), knots) + rng.normal(0, 0.02, len(hours)))


def _surges(to_end_s: Floats, slots: Sequence[Slot]) -> Floats:
    factor = np.ones_like(to_end_s)
    for slot in slots:
        if slot.scenario.surge > 1:
            elapsed_s = slot.start_before_end_s - to_end_s
            hill = np.clip(np.minimum(elapsed_s / 120, (slot.scenario.surge_s - elapsed_s) / 120), 0, 1)
            factor *= 1 + (slot.scenario.surge - 1) * hill
    return factor


def _background(rng: np.random.Generator, requests: Ints, share: float, quiet: np.ndarray) -> Ints:
    bad = rng.binomial(requests, share).astype(np.int64)
    bad[quiet] = evenly(requests[quiet] * share, offset=0.0)
    # A smooth spread can ask for an error in a step without a request; it is dropped.
    return np.minimum(bad, requests)


def steady_traffic(step_s: Floats, rates: Mapping[Endpoint, float]) -> Traffic:
    """Traffic at exactly the live rates with evenly spread background errors: what fills a gap."""
    requests = evenly(np.asarray(list(rates.values())) * step_s[:, None])
    columns = [list(rates).index(endpoint) for endpoint in HISTOGRAMS]
    everywhere = np.ones(len(step_s), dtype=bool)
    rng = np.random.default_rng(0)
    return Traffic(
        tuple(rates),
        step_s,
        requests,
        _background(rng, requests, BASE_ERROR_SHARE, everywhere),
        _background(rng, requests[:, columns], BASE_SLOW_SHARE, everywhere),
    )


def allocate(
    rng: np.random.Generator, scenario: Scenario, requests: Ints, elapsed_s: Floats, budget: int
) -> tuple[Ints, Spell]:
    """
    Which requests of the affected endpoints go wrong, step by step, until *budget* is spent.

    Args:
        rng: source of the noise on the error ratio (5 % by step, always at most 1).
        scenario: gives ratio, ramp and flapping.
        requests: shape (steps, affected endpoints), from the start of the incident on.
        elapsed_s: seconds since the start at the beginning of each step.
        budget: how many bad requests it costs.

    Returns:
        Bad requests in the shape of *requests*, and the spell with steps counted from the start.

    Raises:
        ValueError: the steps do not have enough requests to spend the budget.
    """
    ratio = scenario.ratio * np.exp(rng.normal(0, 0.05, len(requests)))
    if scenario.ramp_s:
        ratio *= np.clip((elapsed_s + 60) / scenario.ramp_s, 0.05, 1)
    if scenario.flap_s:
        on_s, off_s = scenario.flap_s
        ratio *= elapsed_s % (on_s + off_s) < on_s
    all_requests = requests.sum(axis=1)
    running = np.minimum(np.floor(np.cumsum(all_requests * np.minimum(ratio, 1))), budget)
    if running[-1] < budget:
        raise ValueError(
            f"{scenario.id} must spoil {budget} requests and only {running[-1]:.0f} can be spoilt before its time "
            f"is over; raise the rates of its endpoints, its ratio, or its room_days"
        )
    per_step = np.diff(running, prepend=0)
    last = int(np.searchsorted(running, budget))
    bad = _among(rng, np.rint(per_step).astype(np.int64), requests)
    return bad, Spell(0, last, budget, int(all_requests[: last + 1].sum()))


def _among(rng: np.random.Generator, bad: Ints, requests: Ints) -> Ints:
    # Drawn without replacement, endpoint by endpoint: each in proportion, none more than it has.
    left, others = bad.copy(), requests.sum(axis=1)
    columns: list[Ints] = []
    for own in requests.T:
        others = others - own
        taken = rng.hypergeometric(own, others, left).astype(np.int64)
        columns.append(taken)
        left = left - taken
    return np.stack(columns, axis=1)


def counter_increments(traffic: Traffic, rng: np.random.Generator) -> tuple[list[dict[str, str]], Floats]:
    """
    The series of the gateway and what each gains per step.

    Returns:
        Labels without job, service and instance, and increments of shape (series, steps).
    """
    labels: list[dict[str, str]] = []
    rows: list[Floats] = []
    for column, endpoint in enumerate(traffic.endpoints):
        method, path = endpoint
        for status, counts in (
            (OK_STATUS[endpoint], traffic.requests[:, column] - traffic.errors[:, column]),
            (ERROR_STATUS, traffic.errors[:, column]),
        ):
            labels.append({"__name__": "http_requests_total", "method": method, "endpoint": path, "status": status})
            rows.append(counts.astype(np.float64))
    for index, endpoint in enumerate(HISTOGRAMS):
        counts = traffic.requests[:, traffic.endpoints.index(endpoint)]
        new_labels, new_rows = _histogram(endpoint, counts, traffic.slow[:, index], rng)
        labels += new_labels
        rows += new_rows
    return labels, np.stack(rows)


def _histogram(
    endpoint: Endpoint, counts: Ints, slow: Ints, rng: np.random.Generator
) -> tuple[list[dict[str, str]], list[Floats]]:
    bounds = DURATION_BUCKETS_S
    fast_bounds = bounds.index(LATENCY_THRESHOLD_S) + 1
    fast = _spread(rng, counts - slow, _fast_shares(endpoint))
    over = _spread(rng, slow, _SLOW_SPREAD)
    per_bucket = np.concatenate([fast, over], axis=1)
    middles = np.sqrt(np.array((0.001, *bounds)) * np.array((*bounds, 2 * bounds[-1])))
    cumulative = np.cumsum(per_bucket, axis=1).astype(np.float64)
    assert fast.shape[1] == fast_bounds  # noqa: S101  (the two spreads meet at the threshold)
    name, base = "http_request_duration_seconds", {"method": endpoint[0], "endpoint": endpoint[1]}
    bucket_labels = [{"__name__": f"{name}_bucket", **base, "le": le} for le in (*map(_le, bounds), "+Inf")]
    labels = [*bucket_labels, {"__name__": f"{name}_count", **base}, {"__name__": f"{name}_sum", **base}]
    return labels, [*cumulative.T, counts.astype(np.float64), per_bucket @ middles]


def _le(bound: float) -> str:
    # As the Python client writes it: always a float.
    return repr(float(bound))


def _spread(rng: np.random.Generator, counts: Ints, shares: Sequence[float]) -> Ints:
    # A multinomial per step, as a chain of binomials: each bucket takes its part of what is left.
    left, rest = counts.copy(), 1.0
    columns: list[Ints] = []
    for share in shares[:-1]:
        taken = rng.binomial(left, min(1.0, share / rest) if rest > 0 else 0.0).astype(np.int64)
        columns.append(taken)
        left, rest = left - taken, rest - share
    return np.stack([*columns, left], axis=1)


def _fast_shares(endpoint: Endpoint) -> tuple[float, ...]:
    """The fraction of ordinary requests in each bucket up to the threshold, from the measured quantiles."""
    quantiles = TYPICAL_LATENCY_S[endpoint]
    z = [NormalDist().inv_cdf(q) for q in quantiles]
    logs = np.log(list(quantiles.values()))
    bounds = [np.log(b) for b in DURATION_BUCKETS_S if b <= LATENCY_THRESHOLD_S]
    below = [NormalDist().cdf(_line(float(x), logs, z)) for x in bounds]
    below[-1] = 1.0
    return tuple(float(d) for d in np.diff(below, prepend=0.0))


def _line(x: float, xs: Floats, ys: Sequence[float]) -> float:
    # Linear between the points and beyond them: a log-normal body with its own tails.
    right = int(np.clip(np.searchsorted(xs, x), 1, len(xs) - 1))
    slope = (ys[right] - ys[right - 1]) / (xs[right] - xs[right - 1])
    return float(ys[right] + slope * (x - xs[right]))
