"""MariaDB as a service sees it: a bounded pool, a limit on every statement, each statement named and measured."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final

import aiomysql
from pymysql.err import Error as MariaDbError
from pymysql.err import IntegrityError

from labkit.shop.config import MariaDbUrl
from labkit.shop.metrics import Telemetry
from labkit.shop.server import Refused

__all__ = ["Connection", "Database"]

POOL_SIZE: Final = 5
ACQUIRE_S: Final = 1.0
STATEMENT_S: Final = 2.0
CONNECT_S: Final = 1.0

Row = dict[str, Any]


class Connection:
    """One connection of the pool; `run` executes a statement under a name."""

    def __init__(self, raw: Any, database: Database) -> None:
        self.raw = raw
        self._database = database

    async def run(self, name: str, sql: str, values: Sequence[object] = ()) -> list[Row]:
        """
        Execute one statement and return its rows (none for a statement that has no result).

        Args:
            name: label of its metrics; one of a fixed few.
            sql: the statement, with %s for each value.
            values: in order.

        Raises:
            Refused: 503, when MariaDB failed or took longer than `STATEMENT_S` seconds.
        """
        with self._database.traced(name, sql):
            async with asyncio.timeout(STATEMENT_S), self.raw.cursor(aiomysql.DictCursor) as cursor:
                await cursor.execute(sql, values)
                return list(await cursor.fetchall())

    async def run_many(self, name: str, sql: str, rows: Sequence[Sequence[object]]) -> None:
        """Execute one statement for each of *rows*; as `run` otherwise."""
        with self._database.traced(name, sql):
            async with asyncio.timeout(STATEMENT_S), self.raw.cursor() as cursor:
                await cursor.executemany(sql, rows)


class Database:
    """
    A pool of connections that are made when they are needed, so a service starts without MariaDB.

    Args:
        url: where and as whom.
        telemetry: gets `db_queries_total`, `db_query_duration_seconds` and `db_pool_connections`.
    """

    def __init__(self, url: MariaDbUrl | None, telemetry: Telemetry) -> None:
        if url is None:
            raise ValueError("a service on MariaDB needs SHOP_MARIADB_URL; load_config sees to that")
        self._url = url
        self._pool: Any = None
        self._tracing = telemetry.tracing
        self._waiting = 0
        self._queries = telemetry.counter("db_queries_total", "Statements sent to MariaDB.", "query", "outcome")
        self._durations = telemetry.histogram("db_query_duration_seconds", "Time of a statement.", "query")
        connections = telemetry.gauge("db_pool_connections", "Connections to MariaDB by state.", "state")
        connections.labels("used").set_function(lambda: self._pool.size - self._pool.freesize if self._pool else 0)
        connections.labels("idle").set_function(lambda: self._pool.freesize if self._pool else 0)
        connections.labels("max").set(POOL_SIZE)
        waiting = telemetry.gauge("db_pool_waiting", "Requests that wait for a connection to MariaDB.")
        waiting.set_function(lambda: self._waiting)

    async def open(self) -> None:
        """Make the pool; connects to nothing yet."""
        self._pool = await aiomysql.create_pool(
            minsize=0,
            maxsize=POOL_SIZE,
            host=self._url.host,
            port=self._url.port,
            user=self._url.user,
            password=self._url.password,
            db=self._url.database,
            connect_timeout=CONNECT_S,
            autocommit=True,
            init_command="SET time_zone = '+00:00'",
            pool_recycle=300,
        )

    async def close(self) -> None:
        """Close every connection, also those in use."""
        if self._pool:
            self._pool.terminate()
            await self._pool.wait_closed()

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """
        A connection for the length of the block.

        Raises:
            Refused: 503, when MariaDB cannot be reached or all connections stay in use for `ACQUIRE_S` seconds.
        """
        with self.measured("connect", only_failures=True):
            raw = await self._acquire()
        try:
            yield Connection(raw, self)
        finally:
            self._pool.release(raw)

    async def _acquire(self) -> Any:
        self._waiting += 1
        try:
            async with asyncio.timeout(ACQUIRE_S):
                return await self._pool.acquire()
        finally:
            self._waiting -= 1

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """A connection whose statements are all kept, or none if the block raises."""
        async with self.connection() as connection:
            await connection.raw.begin()
            kept = False
            try:
                yield connection
                await connection.raw.commit()
                kept = True
            finally:
                if not kept:
                    connection.raw.close()  # the server rolls back; works also when the connection is broken

    async def run(self, name: str, sql: str, values: Sequence[object] = ()) -> list[Row]:
        """One statement on a connection of its own; see `Connection.run`."""
        async with self.connection() as connection:
            return await connection.run(name, sql, values)

    async def check(self) -> None:
        """Raise Refused unless MariaDB answers."""
        await self.run("check", "SELECT 1")

    @contextmanager
    def traced(self, name: str, sql: str) -> Iterator[None]:
        """As `measured`, with a span of the statement *sql*."""
        with self._tracing.statement(name, sql), self.measured(name):
            yield

    def measured(self, name: str, *, only_failures: bool = False) -> _Measured:
        """Count and time what the block does, and turn a failure into an answer (503) that says which."""
        return _Measured(self._queries, self._durations, name, only_failures=only_failures)


class _Measured:
    def __init__(self, queries: Any, durations: Any, name: str, *, only_failures: bool) -> None:
        self._queries, self._durations, self._name, self._only_failures = queries, durations, name, only_failures
        self._start = 0.0

    def __enter__(self) -> None:
        self._start = time.perf_counter()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if error is None and self._only_failures:
            return
        outcome = "ok" if error is None else "timeout" if isinstance(error, TimeoutError) else "error"
        self._queries.labels(self._name, outcome).inc()
        self._durations.labels(self._name).observe(time.perf_counter() - self._start)
        if isinstance(error, TimeoutError):
            raise Refused(503, f"MariaDB did not answer `{self._name}` in time") from error
        # A row that breaks a constraint is an answer of a healthy database; the caller knows what it means.
        if isinstance(error, MariaDbError | OSError) and not isinstance(error, IntegrityError):
            raise Refused(503, f"MariaDB failed at `{self._name}`: {error}") from error
