"""Redis as the services see it: carts, sessions and the three queues of the worker."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from labkit.shop.metrics import Telemetry
from labkit.shop.names import QUEUES
from labkit.shop.server import Refused
from labkit.shop.tracing import trace_headers

__all__ = ["Store"]

POOL_SIZE: Final = 10
TIMEOUT_S: Final = 1.0


class Store:
    """
    A pool of connections to Redis, made when they are needed.

    Args:
        url: redis://host:port/db.
        telemetry: gets `redis_commands_total` and `redis_pool_connections`.
        timeout_s: limit of a command, in seconds; above the longest blocking one.
    """

    def __init__(self, url: str, telemetry: Telemetry, *, timeout_s: float = TIMEOUT_S) -> None:
        self._pool = BlockingConnectionPool.from_url(
            url,
            max_connections=POOL_SIZE,
            timeout=1,
            socket_timeout=timeout_s,
            socket_connect_timeout=TIMEOUT_S,
            decode_responses=True,
            protocol=2,
            # Who calls decides about retries; a second, hidden layer would multiply them.
            retry=Retry(NoBackoff(), 0),
        )
        self.redis: Any = Redis(connection_pool=self._pool)
        self._tracing = telemetry.tracing
        self._commands = telemetry.counter("redis_commands_total", "Exchanges with Redis.", "operation", "outcome")
        connections = telemetry.gauge("redis_pool_connections", "Connections to Redis by state.", "state")
        connections.labels("used").set_function(lambda: len(self._pool._in_use_connections))  # noqa: SLF001
        connections.labels("max").set(POOL_SIZE)

    async def close(self) -> None:
        """Close every connection."""
        await self.redis.aclose(close_connection_pool=True)

    async def check(self) -> None:
        """Raise Refused unless Redis answers."""
        with self.measured("check"):
            await self.redis.ping()

    @contextmanager
    def measured(self, operation: str) -> Iterator[None]:
        """Count the exchange in the block, and turn a failure into an answer (503) that says which."""
        with self._tracing.command(operation):
            try:
                yield
            except (RedisError, OSError, TimeoutError) as error:
                self._commands.labels(operation, "error").inc()
                raise Refused(503, f"Redis failed at `{operation}`: {error}") from error
        self._commands.labels(operation, "ok").inc()

    async def lengths(self) -> dict[str, int]:
        """Jobs that wait in each queue."""
        with self.measured("queue_length"):
            pipe = self.redis.pipeline(transaction=False)
            for queue in QUEUES:
                pipe.llen(queue)
            return dict(zip(QUEUES, await pipe.execute(), strict=True))

    async def push(self, jobs: Mapping[str, Mapping[str, Any]], *, cap: int | None) -> dict[str, bool]:
        """
        Put one job on each queue of *jobs*, at the end.

        Args:
            jobs: queue → job.
            cap: a queue that holds this many refuses the job; None: no limit.

        Returns:
            For each queue whether it took the job.
        """
        lengths = await self.lengths() if cap is not None else {}
        accepted = {queue: cap is None or lengths[queue] < cap for queue in jobs}
        with self.measured("push"):
            pipe = self.redis.pipeline(transaction=False)
            for queue, job in jobs.items():
                if accepted[queue]:
                    pipe.lpush(queue, json.dumps({**job, **trace_headers(), "queued": time.time()}))
            await pipe.execute()
        return accepted
