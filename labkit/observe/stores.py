"""
What a store of logs and a store of traces can be asked, whoever keeps them.

Two implementations of each answer with the same frames and pass the same tests (`tests/observe/contract_*.py`):
the embedded store (`logs.py`, `traces.py`), and OpenSearch and Jaeger.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Protocol

import pandas as pd

from labkit._wait import wait_until
from labkit.errors import InvalidValue, NoData

__all__ = [
    "LOG_COLUMNS",
    "SPAN_COLUMNS",
    "TRACE_COLUMNS",
    "LogStore",
    "TraceStore",
    "check_limit",
    "check_steps",
    "wait_for_traces",
]

_MOST_ROWS, _MOST_STEPS = 10_000, 11_000
_TRACE_ID = re.compile("[0-9a-fA-F]{32}")

LOG_COLUMNS = ("time", "service", "level", "message", "trace_id", "span_id")
SPAN_COLUMNS = ("trace_id", "span_id", "parent_id", "service", "operation", "start", "duration_s", "error")
TRACE_COLUMNS = ("trace_id", "service", "operation", "start", "duration_s", "spans", "error")


class LogStore(Protocol):
    """A store of log lines.  Instants are timezone-aware; an interval includes its start and not its end."""

    def search(
        self,
        text: str = "",
        *,
        service: str | None = None,
        level: str | None = None,
        trace_id: str | None = None,
        start: datetime | None = None,
        end: datetime | None = None,
        limit: int = 100,
    ) -> pd.DataFrame:
        """
        The newest *limit* matching lines, oldest first.

        Args:
            text: a part of the message, in any case; "" for all.
            service: its exact name; None for any.
            level: exactly, as in `error`; None for any.
            trace_id: lines of this trace only; None for any.
            start: an hour before *end* if None.
            end: now if None.
            limit: most rows, from 1 to 10,000.

        Returns:
            `LOG_COLUMNS`, then one column per field of the lines found; "" is no trace or span.

        Raises:
            NoData: no line matches; names the nearest service or level that has lines.
            RequestFailed: the store does not answer.
        """
        ...

    def aggregate(
        self,
        by: Sequence[str] = ("service",),
        *,
        step_s: float = 60,
        text: str = "",
        service: str | None = None,
        level: str | None = None,
        start: datetime | None = None,
        end: datetime | None = None,
    ) -> pd.DataFrame:
        """
        How many lines there were in each step.

        Returns:
            Index `time` (UTC, start of each step, complete grid), one column per combination of *by* (`service`,
            `level`), counts as float64.  A step without a line of a combination that has lines is 0: the store
            holds everything of the interval, so nothing was logged.

        Raises:
            NoData, RequestFailed: as `search`.
        """
        ...

    def errors_per_minute(self, *, start: datetime | None = None, end: datetime | None = None) -> pd.DataFrame:
        """Lines of level `error` per minute and service, as `aggregate`."""
        ...

    def services(self) -> list[str]:
        """The services that have lines, sorted."""
        ...


class TraceStore(Protocol):
    """A store of spans.  Instants are timezone-aware; an interval includes its start and not its end."""

    def search(
        self,
        service: str | None = None,
        operation: str | None = None,
        *,
        min_duration_s: float = 0,
        error: bool | None = None,
        start: datetime | None = None,
        end: datetime | None = None,
        limit: int = 20,
    ) -> pd.DataFrame:
        """
        The newest *limit* traces with a span that matches everything given.

        Returns:
            `TRACE_COLUMNS`, newest first: service and operation of the root span, its `start`, seconds from the
            first start to the last end, number of spans, whether any failed.

        Raises:
            NoData: no trace matches; names the nearest service or operation that has spans.
            RequestFailed: the store does not answer.
        """
        ...

    def trace(self, trace_id: str) -> pd.DataFrame:
        """
        Every span of one trace, by start.

        Returns:
            `SPAN_COLUMNS`, then one column per attribute; `parent_id` of a root is "".

        Raises:
            NoData: the store has no span of it.
            RequestFailed: the store does not answer.
        """
        ...

    def services(self) -> list[str]:
        """The services that have spans, sorted."""
        ...

    def dependencies(self, *, start: datetime | None = None, end: datetime | None = None) -> pd.DataFrame:
        """Who calls whom: `parent`, `child`, `calls` in the interval (the last hour if None); empty if nobody does."""
        ...

    def wait_for(self, trace_ids: Sequence[str], *, timeout_s: float = 30) -> None:
        """
        Wait until the store has each of these traces whole: with its root, and no span whose parent is missing.

        A trace comes later than what names it: an exemplar is seen at the next scrape, a span when its sender's
        batch is full or old enough, and the root, which ends last, comes last.

        Args:
            trace_ids: as in an exemplar or a log line, each of 32 hexadecimal digits; none is no wait.
            timeout_s: limit for all of them together, in seconds.

        Raises:
            NotReady: not all came in time; names those that are not there and those that are not whole.
            InvalidValue: one of them is no trace id.
            RequestFailed: the store does not answer.
        """
        ...


def check_limit(limit: int) -> None:
    """Raises `InvalidValue` when nobody should be asked for so many rows."""
    if not 1 <= limit <= _MOST_ROWS:
        raise InvalidValue("limit", expected=f"from 1 to {_MOST_ROWS:,}", got=limit)


def check_steps(by: Sequence[str], step_s: float, first: datetime, last: datetime) -> int:
    """
    The length of a step in nanoseconds.

    Raises:
        InvalidValue: lines are not counted by one of *by*, or there would be no or too many steps.
    """
    if not by or not set(by) <= {"service", "level"}:
        raise InvalidValue("by", expected="service, level or both", got=by)
    if step_s <= 0 or (last - first).total_seconds() / step_s > _MOST_STEPS:
        raise InvalidValue("step_s", expected=f"above 0 and at most {_MOST_STEPS:,} steps", got=step_s)
    return round(step_s * 1e9)


def wait_for_traces(
    spans_of: Callable[[str], pd.DataFrame],
    trace_ids: Sequence[str],
    *,
    timeout_s: float,
    how: str,
    every_s: float = 0.3,
) -> None:
    """
    What `TraceStore.wait_for` promises, for any store.

    Args:
        spans_of: a trace's spans by its id; raises `NoData` when there are none.
        trace_ids: which traces.
        timeout_s: limit in seconds.
        how: why this store may never get one; ends the error.
        every_s: pause between two looks, in seconds.

    Raises:
        NotReady, InvalidValue: as there.
    """
    if isinstance(trace_ids, str) or not all(_TRACE_ID.fullmatch(one) for one in trace_ids):
        raise InvalidValue("trace_ids", expected="a list of ids of 32 hexadecimal digits", got=trace_ids)
    waiting = list(dict.fromkeys(trace_ids))

    def not_yet() -> dict[str, str]:
        states = {one: _state(spans_of, one) for one in waiting}
        waiting[:] = [one for one, state in states.items() if state]
        return {one: states[one] for one in waiting}

    count = "the trace is" if len(waiting) == 1 else f"the {len(waiting)} traces are"
    wait_until(
        not_yet, f"{count} in the store", timeout_s=timeout_s, every_s=every_s, ready=lambda left: not left, how=how
    )


def _state(spans_of: Callable[[str], pd.DataFrame], trace_id: str) -> str:
    """What is missing of a trace, in words; "" if nothing."""
    try:
        spans = spans_of(trace_id)
    except NoData:
        return "not there"
    here = f"{len(spans)} span{'s' if len(spans) != 1 else ''}"
    parents = set(spans["parent_id"])
    if "" not in parents:
        return f"{here}, its root is not there"
    orphans = len(parents - {""} - set(spans["span_id"]))
    return f"{here}, {orphans} of their parents not there" if orphans else ""
