"""
What the steady background load asks of the shop, as plain data.

`traffic.py` produces exactly this, the seeded history continues it into the past, and tests hold
the three in step.  Endpoints are the route templates that the `endpoint` label of
`http_requests_total` carries.
"""

from __future__ import annotations

__all__ = [
    "BASE_ERROR_SHARE",
    "ERROR_STATUS",
    "JOURNEY",
    "LIVE_RATES_PER_S",
    "OK_STATUS",
    "REQUESTS_PER_S",
    "TYPICAL_LATENCY_S",
    "USERS",
]

# One visit: look around, put something in the cart, look again, buy.
JOURNEY: tuple[tuple[str, str], ...] = (
    ("GET", "/products"),
    ("GET", "/products/{id}"),
    ("GET", "/products/{id}"),
    ("POST", "/cart/{user}"),
    ("GET", "/products"),
    ("GET", "/products/{id}"),
    ("GET", "/cart/{user}"),
    ("POST", "/checkout/{user}"),
)

# Requests per second at the gateway, all endpoints together.
REQUESTS_PER_S = 10.0

# Each user makes one request every USERS / REQUESTS_PER_S = 4 s, so the rate holds while answers take less than that.
USERS = 40

LIVE_RATES_PER_S: dict[tuple[str, str], float] = {
    step: REQUESTS_PER_S * JOURNEY.count(step) / len(JOURNEY) for step in dict.fromkeys(JOURNEY)
}

# The `status` label of a request that went well, and of one that did not.
OK_STATUS: dict[tuple[str, str], str] = {
    step: "201" if step == ("POST", "/checkout/{user}") else "200" for step in LIVE_RATES_PER_S
}
ERROR_STATUS = "503"

# Share of 5xx answers on an ordinary day of the seeded history, as a fraction.  A shop on one machine that
# nobody disturbs has none at all; months of a real one do.  At an objective of 99.9 % this burns 0.2 of the budget.
BASE_ERROR_SHARE = 0.0002

# Quantiles of the gateway's response time in seconds, measured on the live shop at rest (2 cores).
TYPICAL_LATENCY_S: dict[tuple[str, str], dict[float, float]] = {
    ("GET", "/products"): {0.5: 0.0022, 0.9: 0.0030, 0.99: 0.0060},
    ("GET", "/products/{id}"): {0.5: 0.0020, 0.9: 0.0026, 0.99: 0.0045},
    ("POST", "/cart/{user}"): {0.5: 0.0021, 0.9: 0.0030, 0.99: 0.0080},
    ("GET", "/cart/{user}"): {0.5: 0.0019, 0.9: 0.0025, 0.99: 0.0057},
    ("POST", "/checkout/{user}"): {0.5: 0.0245, 0.9: 0.0325, 0.99: 0.0400},
}
