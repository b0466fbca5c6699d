"""
The tables of the embedded store, on DuckDB.

An acknowledged batch is one transaction: DuckDB writes it to its log and asks the disk to keep it (fdatasync)
before `commit` returns.  One thread writes; readers see whole batches.
"""

from __future__ import annotations

import logging
import os
import shutil
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import duckdb

from labkit.observe.store.otlp import LOG_FIELDS, SPAN_FIELDS, Columns

__all__ = ["Database", "DiskFull"]

_SCHEMA = """
create table if not exists logs(time_ns bigint, service varchar, level varchar, message varchar, trace_id varchar,
    span_id varchar, fields varchar);
create table if not exists spans(trace_id varchar, span_id varchar, parent_id varchar, service varchar,
    operation varchar, kind varchar, start_ns bigint, duration_ns bigint, error boolean, attributes varchar);
create table if not exists sources(source varchar primary key, position bigint);
"""
_MB = 1_000_000
_log = logging.getLogger(__name__)


class DiskFull(OSError):
    """The disk has no room for more; nothing of the batch was kept."""


class Database:
    """
    Logs and spans in one file.

    Args:
        path: the file; made if it is not there.
        reserve_mb: writing stops while the disk has less than this free, in MB: DuckDB needs room for its log.
        most_rows: of each table; the oldest tenth goes when there are more.
        memory_mb: what DuckDB may use, in MB.
    """

    def __init__(self, path: Path, *, reserve_mb: float = 64, most_rows: int = 2_000_000, memory_mb: int = 128) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path, self._reserve, self._most_rows, self._memory_mb = path, reserve_mb * _MB, most_rows, memory_mb
        self._lock = threading.Lock()
        self._broken = False
        self._connection = self._open()
        self._rows = {
            table: int(self.ask(f"select count(*) from {table}", [])[0][0])  # noqa: S608  (names of our tables)
            for table in ("logs", "spans")
        }

    def _open(self) -> duckdb.DuckDBPyConnection:
        options: dict[str, Any] = {
            "memory_limit": f"{self._memory_mb}MB",
            "threads": min(2, os.cpu_count() or 1),
            "preserve_insertion_order": False,
            "autoinstall_known_extensions": False,
            "enable_external_access": False,
            "checkpoint_threshold": "16MB",
        }
        connection = duckdb.connect(str(self._path), config=options)
        connection.execute(_SCHEMA)
        return connection

    def close(self) -> None:
        """Write the log into the file and close it; twice is fine."""
        with self._lock:
            self._connection.close()

    def ask(self, sql: str, values: list[Any]) -> list[tuple[Any, ...]]:
        """The rows of one question, on a connection of its own, so that it waits for no writer."""
        cursor = self._connection.cursor()
        try:
            return cursor.execute(sql, values).fetchall()
        finally:
            cursor.close()

    def columns(self, sql: str, values: list[Any]) -> dict[str, list[Any]]:
        """The answer to one question as columns."""
        cursor = self._connection.cursor()
        try:
            found = cursor.execute(sql, values)
            names = [column[0] for column in found.description or ()]
            rows = found.fetchall()
        finally:
            cursor.close()
        return {name: [row[i] for row in rows] for i, name in enumerate(names)}

    def status(self) -> dict[str, Any]:
        """Rows of each table, bytes on disk, and the limits."""
        size = sum(file.stat().st_size for file in self._path.parent.glob(self._path.name + "*"))
        return {
            "logs": self._rows["logs"],
            "spans": self._rows["spans"],
            "disk_bytes": size,
            "most_rows": self._most_rows,
            "reserve_bytes": int(self._reserve),
        }

    def add_spans(self, columns: Columns) -> int:
        """
        Keep spans; when this returns they are on disk.

        Returns:
            How many were kept.

        Raises:
            DiskFull: none was kept.
        """
        return self._add("spans", columns, SPAN_FIELDS) if columns else 0

    def add_logs(self, columns: Columns) -> int:
        """
        Keep log lines; when this returns they are on disk.

        A line whose `source` (a file, say) has a line of the same or a later `position` here was sent before and
        is left out, so a sender that never heard of its success may send again.

        Returns:
            How many were kept.

        Raises:
            DiskFull: none was kept.
        """
        if not columns:
            return 0
        with self._lock:
            self._reopen()
            kept, marks = self._new_lines(columns)
            return self._write("logs", kept, LOG_FIELDS[:7], marks) if kept else 0

    def _new_lines(self, columns: Columns) -> tuple[Columns, Mapping[str, int]]:
        sources = columns["source"]
        if not any(sources):
            return columns, {}
        names = sorted(set(sources) - {""})
        marks = dict(
            self._connection.execute("select source, position from sources where source in ?", [names]).fetchall()
        )
        keep = []
        for row, (source, position) in enumerate(zip(sources, columns["position"], strict=True)):
            if not source or position > marks.get(source, -1):
                keep.append(row)
                if source:
                    marks[source] = position
        if not keep:
            return {}, {}
        return {name: [values[row] for row in keep] for name, values in columns.items()}, marks

    def _add(self, table: str, columns: Columns, fields: tuple[str, ...]) -> int:
        with self._lock:
            self._reopen()
            return self._write(table, columns, fields, {})

    def _write(self, table: str, columns: Columns, fields: tuple[str, ...], marks: Mapping[str, int]) -> int:
        self._check_space()
        places = ", ".join(f"unnest(${number})" for number in range(1, len(fields) + 1))
        try:
            self._connection.execute("begin")
            self._connection.execute(
                f"insert into {table} ({', '.join(fields)}) select {places}",
                [columns[field] for field in fields],
            )
            for source, position in marks.items():
                self._connection.execute("insert or replace into sources values ($1, $2)", [source, position])
            self._connection.execute("commit")
        except duckdb.Error as error:
            self._recover()
            raise DiskFull(f"the batch was not kept: {error}") from error
        count = len(columns[fields[0]])
        self._rows[table] += count
        try:
            self._drop_oldest(table)
        except duckdb.Error as error:
            # The batch is on disk; what is too much goes with a later one.
            _log.warning("the oldest rows of %s could not be dropped now: %s", table, error)
            self._recover()
        return count

    def _check_space(self) -> None:
        free = shutil.disk_usage(self._path.parent).free
        if free < self._reserve:
            raise DiskFull(
                f"{free / _MB:.0f} MB are free where the store keeps its file, {self._reserve / _MB:.0f} MB must be; "
                f"nothing of this batch was kept. Free some space, then send it again."
            )

    def _recover(self) -> None:
        """A failed write leaves a transaction open, and a failed commit closes the database: begin anew."""
        try:
            self._connection.execute("rollback")
        except duckdb.Error:
            self._broken = True
            with suppress(duckdb.Error):
                self._connection.close()
            self._reopen()

    def _reopen(self) -> None:
        """Open a database that a failed commit closed; on a disk without any room this works at a later try."""
        if self._broken:
            with suppress(duckdb.Error):
                self._connection = self._open()
                self._broken = False

    def _drop_oldest(self, table: str) -> None:
        if self._rows[table] <= self._most_rows:
            return
        time_column = "time_ns" if table == "logs" else "start_ns"
        spare = self._rows[table] - int(self._most_rows * 0.9)
        self._connection.execute(
            f"delete from {table} where {time_column} <= (select max(t) from (select {time_column} as t "  # noqa: S608
            f"from {table} order by 1 limit $1))",
            [spare],
        )
        (left,) = self._connection.execute(f"select count(*) from {table}").fetchone() or (0,)  # noqa: S608
        self._rows[table] = int(left)

    def drop_older(self, age_s: float) -> None:
        """Forget what is older than *age_s* seconds; the room is used again by what comes."""
        cutoff = time.time_ns() - int(age_s * 1e9)
        with self._lock:
            for table, column in (("logs", "time_ns"), ("spans", "start_ns")):
                self._connection.execute(f"delete from {table} where {column} < $1", [cutoff])  # noqa: S608
                (left,) = self._connection.execute(f"select count(*) from {table}").fetchone() or (0,)  # noqa: S608
                self._rows[table] = int(left)
