"""
What happened in the last thirty days: incidents and deploys, as a table and placed in time.

The table says what each incident is and which share of the error budget it costs; a seed says in
which order they came and at which minute.  Positions are relative to the end of the history, so
the same seed tells the same story whenever the lab is started.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

import numpy as np

from labkit.shop.rates import LIVE_RATES_PER_S

__all__ = [
    "AVAILABILITY_OBJECTIVE",
    "LATENCY_OBJECTIVE",
    "LATENCY_THRESHOLD_S",
    "QUIET_DAYS",
    "SCENARIOS",
    "Deploy",
    "Incident",
    "Scenario",
    "Slot",
    "place",
    "place_deploys",
]

Endpoint = tuple[str, str]
Kind = Literal["availability", "latency"]
Response = Literal["page", "ticket", "none"]

# The objectives that shares of budget refer to, over the length of the history.
AVAILABILITY_OBJECTIVE = 0.999
LATENCY_OBJECTIVE = 0.99
LATENCY_THRESHOLD_S = 0.25

# Nothing happens in the last days, so that a live fault stands out.
QUIET_DAYS = 3.0

ALL: tuple[Endpoint, ...] = tuple(LIVE_RATES_PER_S)
CHECKOUT: Endpoint = ("POST", "/checkout/{user}")
PRODUCT: Endpoint = ("GET", "/products/{id}")


@dataclass(frozen=True, slots=True)
class Scenario:
    """
    One kind of incident, before it has a place in time.

    `ratio` is the fraction of the affected endpoints' requests that go wrong while it is on;
    it lasts until `budget_share` (a fraction of the 30-day budget of its objective) is spent.
    `flap_s` are seconds on and off in turn.  `surge` multiplies traffic for `surge_s` seconds.
    `room_days` is the stretch of the month kept for it.
    """

    id: str
    title: str
    cause: str
    kind: Kind
    endpoints: tuple[Endpoint, ...]
    budget_share: float
    ratio: float
    response: Response
    room_days: float = 2.5
    ramp_s: float = 0
    flap_s: tuple[float, float] | None = None
    surge: float = 1
    surge_s: float = 0
    deploy: bool = False


SCENARIOS: tuple[Scenario, ...] = (
    Scenario(
        "outage-database",
        "Database failover: every page down",
        "dependency",
        "availability",
        ALL,
        0.12,
        0.98,
        "page",
    ),
    Scenario(
        "slow-burn-connections",
        "Connection leak: a few requests in a thousand, most of a day",
        "resource exhaustion",
        "availability",
        ALL,
        0.17,
        0.0066,
        "page",
        room_days=3.5,
        ramp_s=7200,
    ),
    Scenario(
        "partial-payments",
        "Payment provider: every third checkout fails",
        "dependency",
        "availability",
        (CHECKOUT,),
        0.07,
        0.34,
        "page",
    ),
    Scenario(
        "latency-product",
        "Missing index: product pages slow, none fails",
        "data",
        "latency",
        (PRODUCT,),
        0.14,
        0.55,
        "page",
        ramp_s=600,
    ),
    Scenario(
        "bad-deploy-product",
        "Bad deploy: product pages fail, rolled back",
        "change",
        "availability",
        (PRODUCT,),
        0.06,
        0.45,
        "page",
        deploy=True,
    ),
    Scenario(
        "retry-storm",
        "Retry storm: clients double the load they suffer from",
        "overload",
        "availability",
        ALL,
        0.08,
        0.15,
        "page",
        ramp_s=120,
        surge=2.4,
        surge_s=900,
    ),
    Scenario(
        "flapping-replica",
        "A replica that crashes and comes back for hours",
        "software defect",
        "availability",
        (PRODUCT, ("GET", "/products")),
        0.05,
        0.08,
        "page",
        flap_s=(180, 420),
    ),
    Scenario(
        "slow-drip",
        "A broken client: one error in a thousand, for two days",
        "client",
        "availability",
        ALL,
        0.05,
        0.0009,
        "ticket",
        room_days=4.5,
    ),
    Scenario(
        "harmless-blip",
        "One minute of failed carts after a restart",
        "maintenance",
        "availability",
        (("POST", "/cart/{user}"), ("GET", "/cart/{user}")),
        0.003,
        0.5,
        "none",
        room_days=2,
    ),
)


@dataclass(frozen=True, slots=True)
class Slot:
    """Where a scenario starts, and the instant by which it must be over; seconds before the end of the history."""

    scenario: Scenario
    start_before_end_s: float
    limit_before_end_s: float


@dataclass(frozen=True, slots=True)
class Incident:
    """
    What happened, exactly: the truth that an alert policy is judged against.

    `bad` and `total` count the requests of `endpoints` in (`start`, `end`]; `bad` is `budget_share`
    of all bad requests that the objective of its kind allows in the whole history, to the request.
    `response` is what an on-call policy should have made of it: a page, a ticket or nothing.
    """

    id: str
    title: str
    cause: str
    kind: Kind
    endpoints: tuple[Endpoint, ...]
    start: datetime
    end: datetime
    budget_share: float
    bad: int
    total: int
    response: Response

    @property
    def should_page(self) -> bool:
        """Whether a person should have been woken."""
        return self.response == "page"


@dataclass(frozen=True, slots=True)
class Deploy:
    """A version of the gateway going live; `incident` names the one it caused, if any."""

    time: datetime
    service: str
    version: str
    kind: Literal["deploy", "rollback"]
    incident: str | None = None


def place(seed: int, days: int, scenarios: Sequence[Scenario] = SCENARIOS) -> tuple[Slot, ...]:
    """
    The order and the starts of the incidents, chosen by *seed*, oldest first.

    Each scenario gets its own stretch of the time before the quiet days and starts in the first
    third of it, on a whole minute.  Scenarios that do not fit into *days* are left out, from the
    end of the table.

    >>> len(place(7, 30)), len(place(7, 10)), len(place(7, 3))
    (9, 2, 0)
    """
    free_days = days - QUIET_DAYS - 0.25
    chosen: list[Scenario] = []
    for scenario in scenarios:
        if sum(s.room_days for s in chosen) + scenario.room_days > free_days:
            break
        chosen.append(scenario)
    if not chosen:
        return ()
    rng = np.random.default_rng([seed, 1])
    stretch = free_days / sum(s.room_days for s in chosen)
    slots, at_days = [], free_days + QUIET_DAYS
    for index in rng.permutation(len(chosen)):
        room_days = chosen[index].room_days * stretch
        start_s = round((at_days - rng.uniform(0.03, 0.33) * room_days) * 1440) * 60.0
        slots.append(Slot(chosen[index], start_s, (at_days - room_days) * 86_400))
        at_days -= room_days
    return tuple(slots)


def place_deploys(
    seed: int, end: datetime, days: int, incidents: Sequence[Incident], version: str
) -> tuple[Deploy, ...]:
    """
    About three deploys a week of which one went wrong and was rolled back; the last leaves *version* live.

    Deploys without consequence are the majority on purpose: that one preceded an incident proves nothing.
    """
    rng = np.random.default_rng([seed, 2])
    starts = end - timedelta(days=days)
    spots = (np.arange(round(days * 3 / 7)) + rng.uniform(0.1, 0.9, round(days * 3 / 7))) * 7 / 3
    moments: list[tuple[datetime, str | None, bool]] = [
        (starts + timedelta(minutes=round(float(day) * 1440)), None, False) for day in spots
    ]
    bad = {scenario.id for scenario in SCENARIOS if scenario.deploy}
    for incident in incidents:
        around = [
            m for m in moments if incident.start - timedelta(hours=12) <= m[0] <= incident.end + timedelta(hours=12)
        ]
        if incident.id in bad:
            moments = [m for m in moments if m not in around]
            moments += [(incident.start, incident.id, False), (incident.end, incident.id, True)]
    return _versions(sorted(moments, key=lambda m: m[0]), version)


def _versions(moments: Sequence[tuple[datetime, str | None, bool]], last: str) -> tuple[Deploy, ...]:
    # Each deploy counts on; a rollback returns to the version before the bad one.
    numbers: list[int] = []
    counter, live, before = 0, 0, 0
    for _moment, _incident, back in moments:
        if back:
            live = before
        else:
            counter, before, live = counter + 1, live, counter + 1
        numbers.append(live)
    return tuple(
        Deploy(
            moment,
            "gateway",
            last if number == numbers[-1] else f"0.{number}.0",
            "rollback" if back else "deploy",
            cause,
        )
        for (moment, cause, back), number in zip(moments, numbers, strict=True)
    )
