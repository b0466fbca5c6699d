"""The questions that the embedded store answers, each one fixed statement; values never become part of its text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from labkit.observe.store.database import Database

__all__ = ["QUESTIONS", "BadQuestion"]

_MOST_ROWS = 10_000


class BadQuestion(ValueError):
    """A parameter that no question has, or a value that it cannot be."""


def _number(given: Mapping[str, str], name: str, default: int, *, least: int = 0, most: int = 2**63 - 1) -> int:
    text = given.get(name, str(default))
    try:
        value = int(text)
    except ValueError as error:
        raise BadQuestion(f"{name} must be a whole number, got {text!r}") from error
    if not least <= value <= most:
        raise BadQuestion(f"{name} must be from {least} to {most}, got {value}")
    return value


def _interval(given: Mapping[str, str]) -> list[Any]:
    return [_number(given, "start_ns", 0), _number(given, "end_ns", 2**63 - 1)]


def _limit(given: Mapping[str, str], default: int) -> int:
    return _number(given, "limit", default, least=1, most=_MOST_ROWS)


def _log_filter(given: Mapping[str, str]) -> tuple[str, list[Any]]:
    clauses, values = ["time_ns >= $1 and time_ns < $2"], _interval(given)
    for name in ("service", "level", "trace_id"):
        if name in given:
            values.append(given[name])
            clauses.append(f"{name} = ${len(values)}")
    if given.get("text"):
        values.append(given["text"].lower())
        clauses.append(f"contains(lower(message), ${len(values)})")
    return " and ".join(clauses), values


def _logs(database: Database, given: Mapping[str, str]) -> dict[str, list[Any]]:
    where, values = _log_filter(given)
    values.append(_limit(given, 100))
    return database.columns(
        f"select * from (select * from logs where {where} order by time_ns desc limit ${len(values)}) order by time_ns",  # noqa: S608
        values,
    )


def _counts(database: Database, given: Mapping[str, str]) -> dict[str, list[Any]]:
    by = [name for name in given.get("by", "service").split(",") if name]
    if not set(by) <= {"service", "level"}:
        raise BadQuestion(f"by must be service, level or both, got {given['by']!r}")
    where, values = _log_filter(given)
    values.append(_number(given, "step_ns", 60_000_000_000, least=1))
    step = f"${len(values)}"
    names = ", ".join([f"time_ns // {step} * {step} as step_ns", *by])
    return database.columns(f"select {names}, count(*) as lines from logs where {where} group by all", values)  # noqa: S608


def _known(database: Database, _: Mapping[str, str]) -> dict[str, list[Any]]:
    return database.columns(
        "select service, level, count(*) as lines, min(time_ns) as first_ns, max(time_ns) as last_ns "
        "from logs group by all order by service, level",
        [],
    )


def _traces(database: Database, given: Mapping[str, str]) -> dict[str, list[Any]]:
    clauses, values = ["start_ns >= $1 and start_ns < $2"], _interval(given)
    for name in ("service", "operation"):
        if name in given:
            values.append(given[name])
            clauses.append(f"{name} = ${len(values)}")
    values.append(_number(given, "min_duration_ns", 0))
    clauses.append(f"duration_ns >= ${len(values)}")
    if "error" in given:
        clauses.append("error" if given["error"] == "true" else "not error")
    values.append(_limit(given, 20))
    return database.columns(
        f"""
        with found as (select trace_id from spans where {" and ".join(clauses)}
            group by trace_id order by max(start_ns) desc limit ${len(values)})
        select trace_id, arg_min(service, (parent_id <> '', start_ns)) as service,
            arg_min(operation, (parent_id <> '', start_ns)) as operation, min(start_ns) as start_ns,
            max(start_ns + duration_ns) - min(start_ns) as duration_ns,
            count(distinct span_id) as spans, bool_or(error) as error
        from spans where trace_id in (select trace_id from found) group by trace_id order by start_ns desc
        """,  # noqa: S608  (the clauses above are constants)
        values,
    )


def _trace(database: Database, given: Mapping[str, str]) -> dict[str, list[Any]]:
    # A sender that never heard of its success sends a span again: one of each is enough.
    return database.columns(
        "select * from (select distinct on (span_id) * from spans where trace_id = $1) order by start_ns",
        [given.get("trace_id", "")],
    )


def _operations(database: Database, _: Mapping[str, str]) -> dict[str, list[Any]]:
    return database.columns(
        "select service, operation, count(*) as spans from spans group by all order by service, operation", []
    )


def _dependencies(database: Database, given: Mapping[str, str]) -> dict[str, list[Any]]:
    return database.columns(
        "select p.service as parent, c.service as child, count(distinct (c.trace_id, c.span_id)) as calls "
        "from spans c join spans p on p.trace_id = c.trace_id and p.span_id = c.parent_id "
        "where p.service <> c.service and c.start_ns >= $1 and c.start_ns < $2 group by all order by parent, child",
        _interval(given),
    )


_FILTERS = {"start_ns", "end_ns", "service", "level", "trace_id", "text"}

# The name in the address: the parameters that it has, and who answers.
QUESTIONS = {
    "logs": (_FILTERS | {"limit"}, _logs),
    "log-counts": (_FILTERS | {"by", "step_ns"}, _counts),
    "log-services": (set[str](), _known),
    "traces": (
        {"start_ns", "end_ns", "service", "operation", "min_duration_ns", "error", "limit"},
        _traces,
    ),
    "trace": ({"trace_id"}, _trace),
    "operations": (set[str](), _operations),
    "dependencies": ({"start_ns", "end_ns"}, _dependencies),
}
