"""
worker: does the jobs of the three queues, keeps the table user_sessions current, and removes old orders.

A job is moved to a list of its own before it is done and removed after, so a worker that dies in the middle
does it again after its restart: at least once, never lost.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from opentelemetry.trace import Span

from labkit.shop.database import Database
from labkit.shop.logs import log
from labkit.shop.names import QUEUES, SESSIONS_KEY, taken_key
from labkit.shop.queues import Store
from labkit.shop.server import Refused, Service
from labkit.shop.state import Replica
from labkit.shop.tracing import fail

__all__ = ["Worker"]

# What a job of each queue takes beside the database, in seconds.
WORK_S: Final[Mapping[str, float]] = {"email_queue": 0.02, "processing_queue": 0.03, "notification_queue": 0.01}
BLOCK_S: Final = 1.0
PAUSE_S: Final = 1.0
LENGTHS_EVERY_S: Final = 1.0
SESSIONS_EVERY_S: Final = 5.0
SESSION_KEPT: Final = timedelta(hours=1)
PURGE_EVERY_S: Final = 60.0
PURGE_ROWS: Final = 1000


class Worker(Service):
    """One consumer per queue and a few repeated duties."""

    def __init__(self, replica: Replica) -> None:
        super().__init__(replica)
        self._database = Database(self.config.mariadb, self.telemetry)
        self._store = Store(self.config.redis_url, self.telemetry, timeout_s=BLOCK_S + 1)
        self._done = self.telemetry.counter("shop_jobs_total", "Jobs by queue and outcome.", "queue", "outcome")
        self._durations = self.telemetry.histogram("shop_job_duration_seconds", "Time to do a job.", "queue")
        self._length = self.telemetry.gauge("shop_queue_length", "Jobs that wait.", "queue")
        self._age = self.telemetry.gauge("shop_queue_wait_seconds", "How long the job taken last had waited.", "queue")
        self._active = self.telemetry.gauge("shop_active_users", "Users seen in the last 15 minutes.")
        self._flushed = 0.0

    async def start(self) -> None:
        """Begin to work; whatever is down is tried again."""
        await self._database.open()
        self.in_background(
            *(self._consume(queue) for queue in QUEUES),
            self._repeat(self._measure, LENGTHS_EVERY_S),
            self._repeat(self._flush_sessions, SESSIONS_EVERY_S),
            self._repeat(self._purge, PURGE_EVERY_S),
        )

    async def stop(self) -> None:
        """Close all connections; a job that was in the middle is done again later."""
        await self._database.close()
        await self._store.close()

    def checks(self) -> Mapping[str, Callable[[], Awaitable[None]]]:
        """Jobs come from Redis and end in MariaDB."""
        return {"mariadb": self._database.check, "redis": self._store.check}

    async def _consume(self, queue: str) -> None:
        await self._again(queue, self._take_back)
        while True:
            await self._again(queue, self._next_job)

    async def _again(self, queue: str, step: Callable[[str], Awaitable[None]]) -> None:
        """One *step*, with a pause after a failure so that a dependency that is down is not hammered."""
        try:
            await step(queue)
        except Refused as refusal:
            log(logging.WARNING, f"{queue}: {refusal}", queue=queue)
            await asyncio.sleep(PAUSE_S)

    async def _take_back(self, queue: str) -> None:
        with self._store.measured("take_back"):
            while await self._store.redis.lmove(taken_key(queue), queue, "LEFT", "RIGHT"):
                self._done.labels(queue, "taken_again").inc()

    async def _next_job(self, queue: str) -> None:
        with self._store.measured("take"):
            raw = await self._store.redis.blmove(queue, taken_key(queue), BLOCK_S, "RIGHT", "LEFT")
        if raw is None:
            self._age.labels(queue).set(0)
            return
        with self.telemetry.tracing.job(queue, _trace_of(raw)) as span:
            await self._handle(queue, raw, span)

    async def _handle(self, queue: str, raw: str, span: Span) -> None:
        try:
            await self._do(queue, json.loads(raw))
        except Refused as refusal:
            self._done.labels(queue, "failed").inc()
            fail(span, refusal.message, kind="Refused")
            log(logging.WARNING, f"{queue}: {refusal}", queue=queue)
            await self._take_back(queue)
            await asyncio.sleep(PAUSE_S)
            return
        except (ValueError, KeyError, TypeError) as error:
            # A job that nobody can do would come back for ever and keep all others waiting.
            self._done.labels(queue, "malformed").inc()
            fail(span, "malformed job", kind=type(error).__name__)
            log(logging.ERROR, f"{queue}: a malformed job is dropped", queue=queue, job=raw[:200], reason=repr(error))
        with self._store.measured("finish"):
            await self._store.redis.lrem(taken_key(queue), 1, raw)

    async def _do(self, queue: str, job: dict[str, Any]) -> None:
        self._age.labels(queue).set(max(0.0, time.time() - float(job["queued"])))
        start = time.perf_counter()
        if await self.replica.faults.meet(queue) is not None:
            raise Refused(500, "this failure was made by a fault")
        await asyncio.sleep(WORK_S[queue])
        if queue == "processing_queue":
            await self._database.run(
                "order_completed", "UPDATE orders SET status = 'completed' WHERE id = %s", (job["order"],)
            )
        self._durations.labels(queue).observe(time.perf_counter() - start)
        self._done.labels(queue, "done").inc()

    async def _repeat(self, duty: Callable[[], Awaitable[None]], every_s: float) -> None:
        while True:
            try:
                await duty()
            except Refused as refusal:
                log(logging.WARNING, f"{duty.__name__.strip('_')}: {refusal}")
            await asyncio.sleep(every_s)

    async def _measure(self) -> None:
        for queue, length in (await self._store.lengths()).items():
            self._length.labels(queue).set(length)

    async def _flush_sessions(self) -> None:
        """Copy who was here since the last time from Redis to MariaDB, and forget who was not for an hour."""
        now = time.time()
        with self._store.measured("sessions"):
            seen = await self._store.redis.zrangebyscore(SESSIONS_KEY, self._flushed, now, withscores=True)
            await self._store.redis.zremrangebyscore(SESSIONS_KEY, 0, now - SESSION_KEPT.total_seconds())
        async with self._database.connection() as connection:
            if seen:
                await connection.run_many(
                    "sessions_keep",
                    "INSERT INTO user_sessions (user_id, last_activity) VALUES (%s, %s)"
                    " ON DUPLICATE KEY UPDATE last_activity = VALUES(last_activity)",
                    [(user, datetime.fromtimestamp(score, UTC).replace(tzinfo=None)) for user, score in seen],
                )
            old = datetime.now(UTC).replace(tzinfo=None) - SESSION_KEPT
            await connection.run("sessions_forget", "DELETE FROM user_sessions WHERE last_activity < %s", (old,))
            rows = await connection.run(
                "sessions_active",
                "SELECT COUNT(*) AS n FROM user_sessions WHERE last_activity > UTC_TIMESTAMP() - INTERVAL 15 MINUTE",
            )
        self._active.set(rows[0]["n"])
        self._flushed = now

    async def _purge(self) -> None:
        """Remove the oldest orders above the number that is kept, a few at a time."""
        keep = self.config.orders_keep
        rows = await self._database.run("orders_bounds", "SELECT COALESCE(MAX(id), 0) AS newest FROM orders")
        await self._database.run(
            "orders_purge",
            "DELETE FROM orders WHERE id <= %s LIMIT %s",
            (rows[0]["newest"] - keep, PURGE_ROWS),
        )


def _trace_of(raw: str) -> dict[str, str]:
    """The part of a job that says in which trace it was queued; empty for one that has none or cannot be read."""
    try:
        job = json.loads(raw)
    except ValueError:
        return {}
    return {k: v for k in ("traceparent", "tracestate") if isinstance(job, dict) and isinstance(v := job.get(k), str)}
