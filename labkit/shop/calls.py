"""Calls from the gateway to the other services: balanced, limited in time, repeated within a budget, measured."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp
from opentelemetry.trace import Span

from labkit.shop.balancer import Balancer, RetryBudget, Target
from labkit.shop.flags import FlagSet
from labkit.shop.logs import REQUEST_ID
from labkit.shop.metrics import Telemetry
from labkit.shop.server import REQUEST_ID_HEADER, Refused
from labkit.shop.tracing import trace_headers

__all__ = ["Answer", "Client", "Upstream"]

PROBE_EVERY_S: Final = 2.0
PROBE_AGAIN_S: Final = 0.25  # while a replica is out: its return should not wait
PROBE_TIMEOUT_S: Final = 0.5
RETRIES_WITHOUT_BUDGET: Final = 3
POOL_SIZE: Final = 100  # to all other services together: calls that hang take connections from everyone
_NO_LIMIT: Final = aiohttp.ClientTimeout(total=None)


class Client:
    """What all upstreams of one service share: the connections and the metrics."""

    def __init__(self, telemetry: Telemetry) -> None:
        self.tracing = telemetry.tracing
        self.calls = telemetry.counter(
            "http_client_requests_total", "Calls to other services, each attempt counted.", "target", "outcome"
        )
        self.durations = telemetry.histogram("http_client_request_duration_seconds", "Time of an attempt.", "target")
        self.retries = telemetry.counter("http_client_retries_total", "Attempts after the first.", "upstream")
        self.refused_retries = telemetry.counter(
            "http_client_retries_refused_total", "Retries that the budget did not allow.", "upstream"
        )
        self.budget = telemetry.gauge("http_client_retry_budget", "Retries that may be made now.", "upstream")
        self.available = telemetry.gauge(
            "http_client_target_available", "1 if the target gets calls, 0 if it is ejected or not ready.", "target"
        )
        self.in_flight = telemetry.gauge("http_client_requests_in_flight", "Calls that wait for an answer.", "target")
        # aiohttp's own limit does not hold: an idle connection is used above it.
        self._slots = asyncio.Semaphore(POOL_SIZE)
        self._used = 0
        pool = telemetry.gauge("http_client_pool_connections", "Connections to other services by state.", "state")
        pool.labels("used").set_function(lambda: self._used)
        pool.labels("max").set(POOL_SIZE)

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[None]:
        """One of the connections that all upstreams share, for the length of the block; waits for it."""
        async with self._slots:
            self._used += 1
            try:
                yield
            finally:
                self._used -= 1


@dataclass(frozen=True, slots=True)
class Answer:
    """What a service answered: the status and the decoded JSON."""

    status: int
    body: Any


class Upstream:
    """
    One service as the gateway calls it.

    Args:
        service: its name.
        urls: its replicas.
        session: makes the connections of calls.
        probe_session: makes those of probes, which must not wait behind calls.
        client: the connections and the metrics.
        flags: `retries_without_budget`, and the one named by *no_timeout_flag*.
        timeout_s: limit of one attempt, in seconds.
        no_timeout_flag: the flag that takes the limit away; empty: none does.
    """

    def __init__(
        self,
        service: str,
        urls: tuple[str, ...],
        *,
        session: aiohttp.ClientSession,
        probe_session: aiohttp.ClientSession,
        client: Client,
        flags: FlagSet,
        timeout_s: float,
        no_timeout_flag: str = "",
    ) -> None:
        self.service = service
        self.balancer = Balancer(service, urls)
        self._session, self._probe_session, self._client, self._flags = session, probe_session, client, flags
        self._timeout_s, self._no_timeout_flag = timeout_s, no_timeout_flag
        self._budget = RetryBudget()
        client.budget.labels(service).set_function(lambda: self._budget.tokens)
        for target in self.balancer.targets:
            client.in_flight.labels(target.name).set_function(partial(_in_flight, target))
            client.available.labels(target.name).set_function(partial(self._available, target))

    async def call(self, method: str, path: str, *, body: Any = None, repeatable: bool) -> Answer:
        """
        One exchange, possibly in several attempts.

        Args:
            method: GET, POST or DELETE.
            path: with its query.
            body: sent as JSON.
            repeatable: doing it twice is the same as doing it once, so a failed attempt may be repeated.

        Returns:
            The first answer below 500.

        Raises:
            Refused: 503 no replica is ready or none could be reached, 504 no answer in time, 502 an error was answered.
        """
        self._budget.earn()
        tried: list[Target] = []
        while True:
            target = self.balancer.pick(avoid=tried)
            if target is None:
                raise Refused(503, f"no replica of {self.service} is ready", upstream=self.service)
            try:
                return await self._traced(target, method, path, body, len(tried))
            except Refused:
                tried.append(target)
                if not repeatable or not self._may_retry(len(tried)):
                    raise
            self._client.retries.labels(self.service).inc()

    def _available(self, target: Target) -> float:
        return float(target.ready and not self.balancer.ejected(target))

    def _may_retry(self, failures: int) -> bool:
        if self._flags.on("retries_without_budget"):
            return failures <= RETRIES_WITHOUT_BUDGET
        if failures > 1:
            return False
        allowed = self._budget.take()
        if not allowed:
            self._client.refused_retries.labels(self.service).inc()
        return allowed

    async def _traced(self, target: Target, method: str, path: str, body: Any, resend: int) -> Answer:
        address = urlsplit(target.url)
        attributes: dict[str, str | int] = {
            "http.request.method": method,
            "server.address": address.hostname or "",
            "server.port": address.port or 80,
            "peer.service": self.service,
            "labkit.target": target.name,
        }
        if resend:
            attributes["http.request.resend_count"] = resend
        with self._client.tracing.below(f"{method} {self.service}", attributes) as span:
            return await self._attempt(target, method, path, body, span)

    async def _attempt(self, target: Target, method: str, path: str, body: Any, span: Span) -> Answer:
        start = time.perf_counter()
        target.in_flight += 1
        outcome = "abandoned"
        try:
            answer = await self._exchange(target, method, path, body)
            span.set_attribute("http.response.status_code", answer.status)
            outcome = "ok" if answer.status < 400 else "refused" if answer.status < 500 else "error"
        except TimeoutError as error:
            outcome = "timeout"
            raise Refused(504, f"{target.name} did not answer in time", upstream=target.name) from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            outcome = "unreachable"
            raise Refused(503, f"{target.name} cannot be reached: {error}", upstream=target.name) from error
        finally:
            target.in_flight -= 1
            self._client.calls.labels(target.name, outcome).inc()
            self._client.durations.labels(target.name).observe(time.perf_counter() - start)
            self._judge(target, outcome)
        if answer.status >= 500:
            said = answer.body.get("error", "") if isinstance(answer.body, dict) else ""
            raise Refused(502, f"{target.name} answered {answer.status}: {said}", upstream=target.name)
        return answer

    def _judge(self, target: Target, outcome: str) -> None:
        if outcome in {"ok", "refused"}:
            self.balancer.succeeded(target)
        elif outcome != "abandoned":
            self.balancer.failed(target)

    async def _exchange(self, target: Target, method: str, path: str, body: Any) -> Answer:
        unlimited = self._no_timeout_flag and self._flags.on(self._no_timeout_flag)
        headers = {REQUEST_ID_HEADER: REQUEST_ID.get() or "", **trace_headers()}
        # The limit is on everything, the wait for a connection included.
        async with (
            asyncio.timeout(None if unlimited else self._timeout_s),
            self._client.connection(),
            self._session.request(method, target.url + path, json=body, timeout=_NO_LIMIT, headers=headers) as response,
        ):
            return Answer(response.status, await response.json())

    async def watch(self) -> None:
        """Ask every replica's /readyz again and again, until cancelled."""
        while True:
            await asyncio.gather(*map(self._probe, self.balancer.targets))
            settled = all(target.ready for target in self.balancer.targets)
            await asyncio.sleep(PROBE_EVERY_S if settled else PROBE_AGAIN_S)

    async def _probe(self, target: Target) -> None:
        ready = False
        limit = aiohttp.ClientTimeout(total=PROBE_TIMEOUT_S)
        with contextlib.suppress(aiohttp.ClientError, OSError, TimeoutError):
            async with self._probe_session.get(f"{target.url}/readyz", timeout=limit) as response:
                ready = response.status == 200
        self.balancer.probed(target, ready=ready)


def _in_flight(target: Target) -> float:
    return float(target.in_flight)
