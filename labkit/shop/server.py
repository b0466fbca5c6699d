"""
What every service has in common: requests measured, faults met, probes answered, an orderly end.

A service is started even when what it depends on is down, says so at /readyz, and recovers by itself.
"""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any, Final
from uuid import uuid4

from aiohttp import web
from aiohttp.typedefs import Handler
from opentelemetry.trace import Span

from labkit.shop.admin import admin_app
from labkit.shop.logs import REQUEST_ID, log
from labkit.shop.state import Replica
from labkit.shop.tracing import TEXT_LIMIT, exemplar, fail

__all__ = ["Refused", "Service", "body_of", "run_service"]

REQUEST_ID_HEADER: Final = "X-Request-ID"
DRAIN_S: Final = 3.0
CHECK_TIMEOUT_S: Final = 0.5
_REASON: Final = "labkit.shop.reason"
_PROBES: Final = frozenset({"/healthz", "/readyz", "/metrics"})


class Refused(Exception):
    """A request that the service answers with an error; *fields* go into the JSON beside the message."""

    def __init__(self, status: int, message: str, **fields: Any) -> None:
        self.status, self.message, self.fields = status, message, fields
        super().__init__(message)


class Service:
    """
    Base of the services.

    Subclasses give `routes`, `checks` (what /readyz asks) and, when they own connections or tasks, `start` and `stop`.
    """

    def __init__(self, replica: Replica) -> None:
        self.replica = replica
        self.config, self.flags, self.telemetry = replica.config, replica.flags, replica.telemetry
        self.draining = False
        self.failed = False
        self._on_failure: Callable[[], None] = lambda: None
        self._good = 0
        self._tasks: list[asyncio.Task[None]] = []

    def routes(self) -> Sequence[web.RouteDef]:
        """The routes of the traffic port, beside probes and metrics."""
        return []

    def checks(self) -> Mapping[str, Callable[[], Awaitable[None]]]:
        """What the service needs to do its work, by name; one that raises Refused means "not ready" and why."""
        return {}

    async def start(self) -> None:
        """Open what needs the event loop; must not fail because a dependency is down."""

    async def stop(self) -> None:
        """Close what `start` opened."""

    def in_background(self, *duties: Coroutine[Any, Any, None]) -> None:
        """Run *duties* until the service stops; an error in one ends the process, to be restarted whole."""
        for duty in duties:
            task = asyncio.create_task(duty)
            task.add_done_callback(self._duty_ended)
            self._tasks.append(task)

    async def end_background(self) -> None:
        """Cancel the duties and wait until they are gone."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _duty_ended(self, task: asyncio.Task[None]) -> None:
        if task.cancelled():
            return
        self.failed = True
        log(logging.ERROR, "a duty in the background failed; the process ends", error=task.exception())
        self._on_failure()

    def when_failed(self, action: Callable[[], None]) -> None:
        """Have *action* called when a duty in the background fails."""
        self._on_failure = action

    def app(self) -> web.Application:
        """The application of the traffic port."""
        app = web.Application(middlewares=[self._middleware])
        app.add_routes(
            [
                web.get("/healthz", self._healthz),
                web.get("/readyz", self._readyz),
                web.get("/metrics", self._metrics),
                *self.routes(),
            ]
        )
        return app

    @web.middleware
    async def _middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        resource = request.match_info.route.resource
        endpoint = resource.canonical if resource else "unmatched"
        if endpoint in _PROBES:
            await self.replica.faults.meet(endpoint, probe=True)
            return await handler(request)
        named: dict[str, str | int] = {
            "server.address": self.config.host,
            "server.port": self.config.port,
            "url.path": request.path[:TEXT_LIMIT],
        }
        with self.telemetry.tracing.server(request.method, endpoint, request.headers, named) as span:
            return await self._measured(request, handler, endpoint, span)

    async def _measured(self, request: web.Request, handler: Handler, endpoint: str, span: Span) -> web.StreamResponse:
        token = REQUEST_ID.set(request.headers.get(REQUEST_ID_HEADER) or uuid4().hex[:16])
        start = time.perf_counter()
        status = (
            500  # what aiohttp answers when the handler ends in an unforeseen error, which it logs with its traceback
        )
        try:
            with self.telemetry.in_flight.track_inprogress():
                response = await self._answer(request, handler, endpoint)
            status = response.status
            response.headers[REQUEST_ID_HEADER] = REQUEST_ID.get() or ""
            return response
        finally:
            duration_s = time.perf_counter() - start
            self.telemetry.request_done(request.method, endpoint, status, duration_s, exemplar())
            self.answered(request, endpoint, duration_s)
            span.set_attribute("http.response.status_code", status)
            if status >= 500:
                fail(span, request.get(_REASON) or f"answered {status}", kind=str(status))
            self._access_log(request, endpoint, status, duration_s)
            REQUEST_ID.reset(token)

    def answered(self, request: web.Request, endpoint: str, duration_s: float) -> None:
        """Called after every answer that is counted; for a service that keeps figures of its own about them."""

    async def _answer(self, request: web.Request, handler: Handler, endpoint: str) -> web.StreamResponse:
        try:
            status = await self.replica.faults.meet(endpoint)
            if status is not None:
                return _problem(status, "this answer was made by a fault")
            return await handler(request)
        except Refused as refusal:
            request[_REASON] = refusal.message
            return _problem(refusal.status, refusal.message, **refusal.fields)
        except web.HTTPException as error:
            return _problem(error.status, error.reason)

    def _access_log(self, request: web.Request, endpoint: str, status: int, duration_s: float) -> None:
        failed = status >= 500
        self._good += not failed
        sampled = self._good % self.config.access_log_every == 0 or self.flags.on("access_log")
        level = logging.ERROR if failed else logging.INFO if sampled else logging.DEBUG
        log(
            level,
            f"{request.method} {endpoint} {status}",
            method=request.method,
            endpoint=endpoint,
            path=request.path,
            status=status,
            duration_s=round(duration_s, 6),
            reason=request.get(_REASON),
        )

    async def _healthz(self, _: web.Request) -> web.Response:
        """The process runs and its event loop turns; says nothing about what it depends on."""
        return web.json_response({"status": "alive", "service": self.config.service})

    async def _readyz(self, _: web.Request) -> web.Response:
        """Whether requests should be sent here now, and if not, why."""
        if self.draining:
            return web.json_response({"status": "not ready", "why": {"process": "shutting down"}}, status=503)
        if self.flags.on("shallow_readiness"):
            return web.json_response({"status": "ready"})
        why = {name: reason for name, reason in await asyncio.gather(*map(_check, self.checks().items())) if reason}
        if why:
            return web.json_response({"status": "not ready", "why": why}, status=503)
        return web.json_response({"status": "ready"})

    async def _metrics(self, request: web.Request) -> web.Response:
        page, content_type = self.telemetry.exposition(request.headers.get("Accept", ""))
        return web.Response(body=page, headers={"Content-Type": content_type})


async def _check(named: tuple[str, Callable[[], Awaitable[None]]]) -> tuple[str, str]:
    name, check = named
    try:
        async with asyncio.timeout(CHECK_TIMEOUT_S):
            await check()
    except TimeoutError:
        return name, f"no answer within {CHECK_TIMEOUT_S:g} s"
    except Refused as refusal:
        return name, refusal.message
    return name, ""


def _problem(status: int, message: str, **fields: Any) -> web.Response:
    return web.json_response({"error": message, **fields}, status=status)


async def body_of(request: web.Request) -> dict[str, Any]:
    """The JSON object in the body of *request*; raises Refused (400) when there is none."""
    try:
        body = await request.json()
    except json.JSONDecodeError as error:
        raise Refused(400, f"the body is not JSON: {error}") from error
    if not isinstance(body, dict):
        raise Refused(400, f"the body must be a JSON object, got {type(body).__name__}")
    return body


async def run_service(service: Service) -> bool:
    """
    Serve until SIGTERM or SIGINT, then let requests in flight end (at most `DRAIN_S` seconds) and return.

    Returns:
        False when it was not a signal that ended it but the failure of a duty in the background.

    Raises:
        OSError: a port is taken.
    """
    config = service.config
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    service.when_failed(ended.set)
    runners: list[web.AppRunner] = []
    await service.start()
    service.in_background(_watch_loop(service))
    try:
        if config.admin_port:
            runners.append(await _listen(admin_app(service.replica), config.host, config.admin_port))
        runners.append(await _listen(service.app(), config.host, config.port))
        log(logging.INFO, "started", version=service.telemetry.version, port=config.port, admin_port=config.admin_port)
        await ended.wait()
        service.draining = True
        log(logging.INFO, "stopping: requests in flight may end", limit_s=DRAIN_S)
    finally:
        service.replica.faults.undo_all()
        for runner in reversed(runners):
            await runner.cleanup()
        await service.end_background()
        await service.stop()
        service.telemetry.tracing.close()
    log(logging.INFO, "stopped")
    return not service.failed


async def _listen(app: web.Application, host: str, port: int) -> web.AppRunner:
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=DRAIN_S)
    await runner.setup()
    await web.TCPSite(runner, host, port).start()
    return runner


async def _watch_loop(service: Service, every_s: float = 0.5) -> None:
    while True:
        due = time.perf_counter() + every_s
        await asyncio.sleep(every_s)
        service.telemetry.loop_lag.set(max(0.0, time.perf_counter() - due))
