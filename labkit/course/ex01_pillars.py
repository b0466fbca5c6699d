"""Notebook 01, exercise 1: one failed checkout in a metric, a log line and a trace."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pandas as pd

from labkit.course._types import LabLike
from labkit.course.exercise import Bound, Exercise, Verdict, correct, not_yet
from labkit.course.judges import Slip, harm_done, number_judge, parts_of, ready_components
from labkit.errors import InvalidValue, NoData

__all__ = ["PILLARS", "Begun"]

_ALL = 'http_requests_total{job="shop"}'
_GATEWAY = 'http_requests_total{job="shop",service="gateway"}'
_SHAPE = "(requests a second, trace id, service)"


@dataclass(frozen=True, slots=True)
class Begun:
    """The lab when the exercises were bound: the instant, and the components that were ready."""

    at: datetime
    ready: list[str]


def _begun(lab: LabLike) -> Begun:
    return Begun(lab.now(), ready_components(lab))


def _rate(lab: LabLike, selector: str) -> float:
    return float(lab.prometheus.value(f"sum(rate({selector}[1m]))", lab.now()))


# Between the answer and the check some seconds pass, and a young lab has not yet a whole minute of itself.
_rate_judge = number_judge(
    lambda lab: _rate(lab, _GATEWAY),
    unit="requests a second",
    tolerance=0.15,
    slips=[
        Slip(
            lambda lab: _rate(lab, _ALL),
            "{answer} counts every service: one checkout is counted again by each service that it passes. "
            "Customers knock at the gateway only.",
        ),
        Slip(
            lambda lab: 60 * _rate(lab, _GATEWAY),
            "{answer} is the number of requests in a minute (`increase`); `rate` says how many a second.",
        ),
        Slip(
            lambda lab: float(lab.prometheus.value(f"sum({_GATEWAY})", lab.now())),
            "{answer} is the counter itself, everything since it began; a rate says how fast it rises.",
        ),
    ],
)


def _judge(exercise: Bound, answer: Any) -> Verdict:
    harmed = harm_done(exercise, exercise.baseline.ready)
    if harmed:
        return not_yet(harmed)
    parts, problem = parts_of(answer, 3, _SHAPE)
    if problem:
        return not_yet(problem)
    per_second, trace_id, began_in = parts
    verdict = _rate_judge(exercise, per_second)
    if verdict.outcome is not correct().outcome:
        return not_yet(f"The metric: {verdict.because}")
    problem = _line_problem(exercise, trace_id)
    if problem:
        return not_yet(f"The log line: {problem}")
    return _judge_origin(exercise.lab, str(trace_id), began_in)


def _line_problem(exercise: Bound, trace_id: Any) -> str:
    """Why this is not the trace of a request that failed since the exercises began; empty if it is."""
    if not isinstance(trace_id, str) or len(trace_id) != 32:
        return f"a trace id is a text of 32 hexadecimal digits, you have {trace_id!r}."
    since = exercise.baseline.at
    try:
        lines = exercise.lab.logs.search(trace_id=trace_id, start=since)
    except NoData:
        return f"no line since {since:%H:%M:%S} UTC, when these exercises began, has the trace id {trace_id}."
    if not (lines["level"] == "error").any():
        return "the lines of this trace have no error; look for level `error` at the gateway."
    return ""


def _judge_origin(lab: LabLike, trace_id: str, began_in: Any) -> Verdict:
    try:
        spans = lab.traces.trace(trace_id)
    except (NoData, InvalidValue):
        return not_yet(f"The trace: the store does not have {trace_id} yet; `lab.traces.wait_for([…])` waits for it.")
    failed = spans[spans["error"].astype(bool)]
    origins = set(failed.loc[~failed["span_id"].isin(failed["parent_id"]), "service"])
    if began_in in origins:
        return correct("One request, three views: how many, what was said, and where it began.")
    if began_in in set(failed["service"]):
        return not_yet(
            f"The trace: the span of `{began_in}` failed because a span below it failed. Follow ERROR to the last one."
        )
    if began_in in set(spans["service"]):
        took_ms = 1000 * _longest(spans, str(began_in))
        return not_yet(
            f"The trace: `{began_in}` took part, at most {took_ms:.1f} ms, and none of its spans is an error."
        )
    return not_yet(f"The trace: it has no span of {began_in!r}; it has {', '.join(sorted(set(spans['service'])))}.")


def _longest(spans: pd.DataFrame, service: str) -> float:
    return float(spans.loc[spans["service"] == service, "duration_s"].max()) if len(spans) else math.nan


PILLARS = Exercise(
    id="01-1",
    title="one failed checkout in three signals",
    judge=_judge,
    hints=(
        "Three questions to three stores: a rate to Prometheus, a search to the logs, one trace to the traces.",
        (
            "The newest line of level `error` of the gateway has a column `trace_id`; `tree` shows that trace, and "
            "marks failed spans with ERROR."
        ),
        (
            'sum(rate(http_requests_total{job="shop",service="gateway"}[1m])); the trace id of the line; the service '
            "of the failed span that has no failed span below it."
        ),
    ),
    baseline=_begun,
)
