"""
The steady background load: users who look around, fill a cart and check out, for ever.

    locust -f traffic.py --headless --only-summary --host http://127.0.0.1:8080

Run in a process of its own and never imported by the package, since importing locust patches the standard
library.  The number of requests per second is constant: every user makes one request every 4 s, at its own
moment and its own place in the journey, whether the shop answers, fails or is down.  With SHOP_SEED the
products and quantities repeat.
"""

from __future__ import annotations

import os
import random
import time
from itertools import count

import gevent  # type: ignore[import-untyped]
from locust import FastHttpUser, LoadTestShape, task

from labkit.shop.rates import JOURNEY, REQUESTS_PER_S, USERS

SEED = int(os.environ.get("SHOP_SEED", "7"))
PERIOD_S = USERS / REQUESTS_PER_S
TIMEOUT_S = 3.0  # below the period, so that a shop that hangs does not lower the rate
PRODUCTS = 100
_ADD, _CHECKOUT = JOURNEY.index(("POST", "/cart/{user}")), JOURNEY.index(("POST", "/checkout/{user}"))
_FORGET_EVERY_S = 600
_numbers = count()
_start = time.monotonic()


class SteadyShape(LoadTestShape):
    """All users from the first second until the process is told to stop."""

    forgot = _start

    def tick(self) -> tuple[int, float]:
        """Users wanted and how many to start per second; asked every second."""
        # Locust keeps a number per endpoint and second, for ever; this process runs for days and nobody reads them.
        if self.runner and time.monotonic() - self.forgot > _FORGET_EVERY_S:
            self.forgot = time.monotonic()
            self.runner.stats.reset_all()
        return USERS, float(USERS)


class Customer(FastHttpUser):
    """One user, who walks through the journey step by step and begins again."""

    connection_timeout = TIMEOUT_S
    network_timeout = TIMEOUT_S
    # The rate is the promise; a second attempt would break it.
    max_retries = 0

    def on_start(self) -> None:
        """Take a place in the journey and a moment in the period that no other user has."""
        number = next(_numbers) % USERS
        self.user_name = f"visitor-{number + 1}"
        self.rng = random.Random(f"{SEED}/{number}")  # noqa: S311  (choices of a shopper, not secrets)
        self.phase_s = number * PERIOD_S / USERS
        self.step = number % len(JOURNEY)
        # Who begins after the cart was filled fills it in place of the first step.
        self.fills_first = _ADD < self.step <= _CHECKOUT
        gevent.sleep(self.wait_time())

    def wait_time(self) -> float:
        """
        Seconds until this user's next moment; moments that passed while it waited for an answer are left out.

        Locust's own constant_throughput measures from the end of the last wait: its small delays add up and
        the users, which begin evenly spread, end up asking at the same instant.
        """
        return PERIOD_S - (time.monotonic() - _start - self.phase_s) % PERIOD_S

    @task
    def next_step(self) -> None:
        """One request."""
        method, endpoint = JOURNEY[_ADD if self.fills_first else self.step]
        self.fills_first = False
        self.step = (self.step + 1) % len(JOURNEY)
        path = endpoint.format(user=self.user_name, id=self.rng.randint(1, PRODUCTS))
        body = None
        if (method, endpoint) == JOURNEY[_ADD]:
            body = {"product": self.rng.randint(1, PRODUCTS), "quantity": self.rng.randint(1, 3)}
        with self.client.request(method, path, json=body, name=endpoint, catch_response=True) as response:
            # What the shop says is the shop's business and is measured there; this load never gives up.
            response.success()
