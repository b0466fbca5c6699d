"""The sources: the machine, MariaDB, Redis, and the orders in MariaDB.  Every call has a time-out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psutil
import pymysql
import redis
from prometheus_client import CollectorRegistry, Histogram
from redis.backoff import NoBackoff
from redis.retry import Retry

from labkit.observe.exporter.readings import Reading, SourceFailed

__all__ = ["TIMEOUT_S", "Business", "Database", "Machine", "MariaDb", "RedisServer"]

TIMEOUT_S = 2
_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)
# An order gets its number before its transaction is committed: younger ones may still be missing below it.
_SETTLED_S = 5
_BATCH = 1000
_MOST_PENDING = 10_000


class Machine:
    """Processor, memory and disks of this machine."""

    name = "machine"

    def __init__(self) -> None:
        psutil.cpu_percent(interval=None)  # the first call has nothing to compare with and says 0

    def read(self) -> list[Reading]:
        """Shares in use, as fractions; the processor's since the reading before."""
        disks: dict[tuple[str, ...], float] = {}
        for part in psutil.disk_partitions():
            try:
                disks[(part.mountpoint,)] = psutil.disk_usage(part.mountpoint).percent / 100
            except OSError:  # one that may not be read says nothing about the others
                continue
        cpu, memory = psutil.cpu_percent(interval=None) / 100, psutil.virtual_memory().percent / 100
        return [
            Reading("system_cpu_usage_ratio", "Share of all processors in use since the last reading.", {(): cpu}),
            Reading("system_memory_usage_ratio", "Share of memory that is not available.", {(): memory}),
            Reading("system_filesystem_usage_ratio", "Share of a file system in use.", disks, ("mountpoint",)),
        ]


@dataclass(frozen=True, slots=True)
class MariaDb:
    """Where MariaDB is and as whom to enter; the password is never shown."""

    host: str
    port: int
    user: str
    password: str
    database: str

    def __repr__(self) -> str:
        return f"mysql://{self.user}:***@{self.host}:{self.port}/{self.database}"


class Connection:
    """A connection to MariaDB that is made when it is needed, and thrown away when anything fails."""

    def __init__(self, where: MariaDb, durations: Histogram) -> None:
        self._where, self._durations = where, durations
        self._raw: Any = None

    def run(self, name: str, sql: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """
        The rows of one statement; its time is observed under *name*.

        Raises:
            SourceFailed: MariaDB failed or did not answer within `TIMEOUT_S` seconds.
        """
        with self._failures(), self._durations.labels(name).time():
            if self._raw is None:
                self._raw = self._connect()
            with self._raw.cursor() as cursor:
                cursor.execute(sql, values)
                return list(cursor.fetchall())

    def _connect(self) -> Any:
        return pymysql.connect(
            host=self._where.host,
            port=self._where.port,
            user=self._where.user,
            password=self._where.password,
            database=self._where.database,
            connect_timeout=TIMEOUT_S,
            read_timeout=TIMEOUT_S,
            write_timeout=TIMEOUT_S,
            autocommit=True,
            init_command="SET time_zone = '+00:00'",
        )

    @contextmanager
    def _failures(self) -> Iterator[None]:
        try:
            yield
        except (pymysql.Error, OSError) as error:
            raw, self._raw = self._raw, None
            if raw is not None:
                raw._force_close()  # noqa: SLF001  (close() says goodbye first, to a server that may hang)
            raise SourceFailed(str(error)) from error


def query_durations() -> Histogram:
    """The histogram that the sources on MariaDB share; in a registry of its own."""
    return Histogram(
        "database_query_duration_seconds",
        "Time of the exporter's own statements, connecting included.",
        ["database", "query"],
        buckets=_BUCKETS_S,
        registry=CollectorRegistry(),
    )


class Database:
    """Connections and long statements of MariaDB."""

    name = "mariadb"

    def __init__(self, where: MariaDb, durations: Histogram) -> None:
        self._database = where.database
        self._connection = Connection(where, _of(durations, where))

    def read(self) -> list[Reading]:
        """Counts of now, and MariaDB's own counters."""
        status = dict(self._connection.run("status", "SHOW GLOBAL STATUS"))
        limit = self._connection.run("limit", "SELECT @@max_connections")[0][0]
        long = self._connection.run(
            "processes",
            "SELECT COUNT(*) FROM information_schema.processlist WHERE time > 10 AND command = 'Query'",
        )[0][0]

        def one(name: str, doc: str, value: object, *, counter: bool = False) -> Reading:
            values: dict[tuple[str, ...], float] = {(self._database,): float(str(value))}
            return Reading(name, doc, values, ("database",), counter)

        return [
            one("database_connections", "Open connections.", status["Threads_connected"]),
            one("database_connections_active", "Connections that run a statement.", status["Threads_running"]),
            one("database_connections_limit", "Connections that MariaDB allows.", limit),
            one("database_long_queries", "Statements that have run for more than 10 seconds.", long),
            one(
                "database_slow_queries_total", "Statements over long_query_time.", status["Slow_queries"], counter=True
            ),
            one("database_queries_total", "Statements executed.", status["Questions"], counter=True),
        ]


class Business:
    """
    Orders, revenue and active users, from MariaDB.

    Rows of old orders are removed, so their number is no counter.  Each order is counted once when it appears
    and once when it is completed, from the start of the exporter on.
    """

    name = "business"

    def __init__(self, where: MariaDb, durations: Histogram) -> None:
        self._connection = Connection(where, _of(durations, where))
        self._last_id: int | None = None
        self._pending: dict[int, int] = {}
        self._placed = self._completed = self._cents = 0

    def read(self) -> list[Reading]:
        """Counters since the start, and the users of the last 15 minutes."""
        users = self._connection.run(
            "active_users", "SELECT COUNT(*) FROM user_sessions WHERE last_activity > NOW() - INTERVAL 15 MINUTE"
        )[0][0]
        self._count_orders()
        orders: dict[tuple[str, ...], float] = {
            ("placed",): float(self._placed),
            ("completed",): float(self._completed),
        }
        return [
            Reading("active_users", "Users seen in the last 15 minutes.", {(): float(users)}),
            Reading("orders_processed_total", "Orders that reached a status.", orders, ("status",), counter=True),
            Reading("revenue_dollars_total", "Value of completed orders.", {(): self._cents / 100}, counter=True),
        ]

    def _count_orders(self) -> None:
        if self._last_id is None:
            newest = self._connection.run("newest_order", "SELECT COALESCE(MAX(id), 0) FROM orders")[0][0]
            self._last_id = int(newest)
        rows = self._connection.run(
            "new_orders",
            "SELECT id, amount_cents FROM orders WHERE id > %s AND created_at < NOW() - INTERVAL %s SECOND "
            "ORDER BY id LIMIT %s",
            (self._last_id, _SETTLED_S, _BATCH),
        )
        if rows:
            self._last_id = rows[-1][0]
            self._placed += len(rows)
            self._pending.update(rows)
        if self._pending:
            self._complete()

    def _complete(self) -> None:
        done = self._connection.run(
            "completed_orders",
            "SELECT id FROM orders WHERE id IN %s AND status = 'completed'",
            (list(self._pending)[:_MOST_PENDING],),
        )
        for (order,) in done:
            self._completed += 1
            self._cents += self._pending.pop(order)
        # Orders that stay unfinished for this long are given up, oldest first: memory is bounded.
        for order in list(self._pending)[: max(0, len(self._pending) - _MOST_PENDING)]:
            del self._pending[order]


class RedisServer:
    """
    Hits and misses of the cache, memory, clients, and jobs in the queues.

    Args:
        url: redis://host:port/db.
        queues: names of the lists that hold jobs.
    """

    name = "redis"

    def __init__(self, url: str, queues: Sequence[str]) -> None:
        self._queues = tuple(queues)
        self._redis: Any = redis.Redis.from_url(
            url, socket_timeout=TIMEOUT_S, socket_connect_timeout=TIMEOUT_S, retry=Retry(NoBackoff(), 0)
        )

    def read(self) -> list[Reading]:
        """Figures of now, and Redis' own counters."""
        try:
            info = self._redis.info()
            waiting: dict[tuple[str, ...], float] = {(queue,): float(self._redis.llen(queue)) for queue in self._queues}
        except (redis.RedisError, OSError) as error:
            raise SourceFailed(str(error)) from error

        def one(name: str, doc: str, key: str, *, counter: bool = False) -> Reading:
            values: dict[tuple[str, ...], float] = {("redis",): float(info[key])}
            return Reading(name, doc, values, ("cache",), counter)

        return [
            one("cache_hits_total", "Keys that were asked for and found.", "keyspace_hits", counter=True),
            one("cache_misses_total", "Keys that were asked for and not found.", "keyspace_misses", counter=True),
            one("cache_memory_bytes", "Memory that Redis uses for data.", "used_memory"),
            one("cache_memory_limit_bytes", "Memory that Redis may use; 0: no limit.", "maxmemory"),
            one("cache_clients", "Connections to Redis.", "connected_clients"),
            Reading("queue_jobs", "Jobs that wait in a queue.", waiting, ("queue",)),
        ]


class _Labelled:
    """A histogram whose first label is fixed."""

    def __init__(self, histogram: Histogram, first: str) -> None:
        self._histogram, self._first = histogram, first

    def labels(self, *rest: str) -> Any:
        return self._histogram.labels(self._first, *rest)


def _of(durations: Histogram, where: MariaDb) -> Any:
    return _Labelled(durations, where.database)
