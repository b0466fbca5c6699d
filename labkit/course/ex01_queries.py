"""
Notebook 01, exercise 2: three queries, evaluated beside the right ones at instants of the month and now.

A wrong query often gives the right number by chance: of traffic while only one service is seen, of a ratio while
nothing fails.  So each query is asked at an instant at which its known mistakes give other numbers.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pandas as pd

from labkit.course._types import LabLike
from labkit.course.exercise import Bound, Exercise, Verdict, correct, not_yet
from labkit.course.judges import parts_of, readable
from labkit.errors import LabkitError, NoData, QueryError, QueryRejected

__all__ = ["QUERIES"]

_TOLERANCE = 0.03
_SHAPE = "(traffic, share, slow)"
_JOB = 'job="shop",service="gateway"'
_REQUESTS = f"http_requests_total{{{_JOB}}}"
_FAILED = f'http_requests_total{{{_JOB},status=~"5.."}}'
_BUCKETS = f"http_request_duration_seconds_bucket{{{_JOB}}}"
# Over a sum the resets of single counters cannot be seen any more, whatever the numbers say today.
_RATE_OF_SUM = re.compile(r"\b(i?rate|increase)\s*\(\s*(sum|avg|max|min)\b")


@dataclass(frozen=True, slots=True)
class _Slip:
    """A wrong query and what to say to whoever gets its number; `{value}` is that number."""

    promql: str
    because: str


@dataclass(frozen=True, slots=True)
class _Task:
    """One query: its name, the right one, when it is asked, and its known mistakes."""

    name: str
    right: str
    when: Callable[[LabLike], Sequence[datetime]]
    slips: tuple[_Slip, ...]
    without_group: str = ""


def _during(incident: str) -> Callable[[LabLike], Sequence[datetime]]:
    """An instant well inside of an incident of the month."""

    def when(lab: LabLike) -> Sequence[datetime]:
        row = lab.history.incidents.set_index("id").loc[incident]
        return [(row["start"] + 0.7 * (row["end"] - row["start"])).to_pydatetime(warn=False)]

    return when


_TASKS = (
    _Task(
        "traffic",
        f"sum(rate({_REQUESTS}[5m]))",
        lambda lab: [*_during("retry-storm")(lab), lab.now()],
        (
            _Slip(
                'sum(rate(http_requests_total{job="shop"}[5m]))',
                "{value} counts a request again in every service that it passes. Whom do customers ask?",
            ),
            _Slip(f"sum(increase({_REQUESTS}[5m]))", "{value} is a number in five minutes, not a number a second."),
            _Slip(f"sum({_REQUESTS})", "{value} is the counter, everything since its start. How fast does it rise?"),
            _Slip(f"avg(rate({_REQUESTS}[5m]))", "{value} is the average over series. Requests of all series add up."),
        ),
    ),
    _Task(
        "share",
        f"sum(rate({_FAILED}[5m])) / sum(rate({_REQUESTS}[5m]))",
        _during("partial-payments"),
        (
            _Slip(
                "vector(1)",
                "it is 1, every request fails? Series by series, each divides itself. Sum above and below the line.",
            ),
            _Slip(
                f"avg(sum by (endpoint) (rate({_FAILED}[5m])) / sum by (endpoint) (rate({_REQUESTS}[5m])))",
                "{value} is an average of ratios, in which a rare page weighs as much as a busy one.",
            ),
            _Slip(
                f"max(sum by (endpoint) (rate({_FAILED}[5m])) / sum by (endpoint) (rate({_REQUESTS}[5m])))",
                "{value} is the share of the worst page; the question is about all requests.",
            ),
            _Slip(
                f"100 * sum(rate({_FAILED}[5m])) / sum(rate({_REQUESTS}[5m]))",
                "{value} is a percentage; shares here are fractions.",
            ),
            _Slip(f"sum(rate({_FAILED}[5m]))", "{value} is failures a second. Failures out of how many requests?"),
        ),
        without_group="Each is 1: a label that differs above and below matches nothing, so each series divided itself.",
    ),
    _Task(
        "slow",
        f"histogram_quantile(0.95, sum by (le) (rate({_BUCKETS}[5m])))",
        _during("latency-product"),
        (
            _Slip(
                f"avg(histogram_quantile(0.95, rate({_BUCKETS}[5m])))",
                "{value} is an average of percentiles, which is the percentile of nothing. Add up buckets first.",
            ),
            _Slip(
                f"max(histogram_quantile(0.95, rate({_BUCKETS}[5m])))",
                "{value} is the percentile of the slowest page; the question is about all requests.",
            ),
            _Slip(
                f"histogram_quantile(0.5, sum by (le) (rate({_BUCKETS}[5m])))",
                "{value} is the median: half of the requests took longer. Which quantile leaves out one in twenty?",
            ),
            _Slip(
                f"histogram_quantile(0.95, sum by (le) ({_BUCKETS}))",
                "{value} is the percentile since the counters began; take `rate` over five minutes inside.",
            ),
            _Slip(
                f"1000 * histogram_quantile(0.95, sum by (le) (rate({_BUCKETS}[5m])))",
                "{value} is in milliseconds; base units here are seconds.",
            ),
        ),
        without_group="There is one percentile for each page and replica. Sum the buckets, and keep `le` alone.",
    ),
)


def _judge(exercise: Bound, answer: Any) -> Verdict:
    parts, problem = parts_of(answer, len(_TASKS), _SHAPE)
    if problem:
        return not_yet(problem)
    for task, query in zip(_TASKS, parts, strict=True):
        problem = _problem(exercise.lab, task, query)
        if problem:
            return not_yet(f"`{task.name}`: {problem}")
    return correct("Each gives the right number in the quiet and in the incident, which is when it is read.")


def _problem(lab: LabLike, task: _Task, query: Any) -> str:
    """What is wrong with *query*, in words; empty if nothing."""
    if not isinstance(query, str):
        return f"a query is a text, you have {query!r}."
    if _RATE_OF_SUM.search(query):
        return (
            "it takes a rate of a sum. When one replica restarts its counter begins at 0, the sum falls, and that "
            "is read as a reset of everything. First rate, then sum."
        )
    values: dict[datetime, float] = {}
    for at in task.when(lab):
        values[at], problem = _number(lab, task, query, at)
        if problem:
            return problem
    wrong = [at for at, value in values.items() if not _near(value, float(lab.prometheus.value(task.right, at)))]
    return _explained(lab, task, values, wrong[0]) if wrong else ""


def _number(lab: LabLike, task: _Task, query: str, at: datetime) -> tuple[float, str]:
    try:
        rows: pd.DataFrame = lab.prometheus.query(query, at)
    except NoData:
        return (
            math.nan,
            f"it matched nothing at {at:%Y-%m-%d %H:%M} UTC, in the middle of an incident. No data is not 0.",
        )
    except QueryRejected as error:
        return math.nan, str(error)
    except (QueryError, LabkitError) as error:
        return math.nan, str(error)
    if len(rows) > 1:
        return math.nan, f"it gives {len(rows)} numbers where one was asked for. {task.without_group}".strip()
    value = rows["value"].iloc[0]
    if not isinstance(value, float) or not math.isfinite(value):
        return math.nan, f"it gives {value} at {at:%Y-%m-%d %H:%M} UTC. Did a sum drop the label `le`?"
    return value, ""


def _explained(lab: LabLike, task: _Task, values: Mapping[datetime, float], at: datetime) -> str:
    value = values[at]
    off = {
        slip: max(_off(found, _or_nan(lab, slip.promql, when)) for when, found in values.items()) for slip in task.slips
    }
    # The nearest: of requests that come once a second, failures a second and their share are nearly one number.
    slip = min(off, key=off.__getitem__)
    if off[slip] <= _TOLERANCE:
        return slip.because.format(value=readable(value))
    return (
        f"at {at:%Y-%m-%d %H:%M} UTC it gives {readable(value)}, and the right one another number. Are they the "
        "requests of customers, all of them, over five minutes?"
    )


def _or_nan(lab: LabLike, promql: str, at: datetime) -> float:
    try:
        return float(lab.prometheus.value(promql, at))
    except NoData:
        return math.nan


def _near(one: float, other: float) -> bool:
    return _off(one, other) <= _TOLERANCE


def _off(one: float, other: float) -> float:
    """How far apart, as a share of the larger; infinite where one is missing."""
    if one == other:
        return 0.0
    off = abs(one - other) / max(abs(one), abs(other))
    return math.inf if math.isnan(off) else off


QUERIES = Exercise(
    id="01-2",
    title="three queries that keep their word",
    judge=_judge,
    hints=(
        "One number each, of customers' requests, over five minutes. What must be added up, and before or after what?",
        "traffic: a sum of rates. share: a sum of rates over a sum of rates. slow: the quantile of summed buckets.",
        (
            'sum(rate(…[5m])) with service="gateway"; the same with status=~"5.." above the line; '
            "histogram_quantile(0.95, sum by (le) (rate(…_bucket{…}[5m])))."
        ),
    ),
)
