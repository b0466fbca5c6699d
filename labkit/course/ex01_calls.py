"""
Notebook 01, exercises 6 and 7: two calls in one night.  In one nothing is wrong; in the other something is.

`second_call(lab)` breaks something that the seed chooses; it ends by itself after a quarter of an hour.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pandas as pd

from labkit.course._types import LabLike
from labkit.course.exercise import Bound, Exercise, Verdict, correct, not_yet
from labkit.course.judges import harm_done, parts_of, readable, ready_components
from labkit.errors import InvalidValue, NoData

__all__ = ["CONTROL", "DRILL", "second_call", "troubled"]

_LATENCY_MS = 600
_FOR_S = 900
# Where the time may go: one replica, one of its routes.  Every one of them is on the way of a checkout.
_CASES = (
    ("payments-1", "POST /charges"),
    ("catalog-2", "GET /prices"),
    ("payments-2", "POST /charges"),
    ("catalog-1", "GET /prices"),
)
_GATEWAY = 'job="shop",service="gateway"'
_SHARE = (
    f'(sum(rate(http_requests_total{{{_GATEWAY},status=~"5.."}}[30s])) or vector(0))'
    f" / sum(rate(http_requests_total{{{_GATEWAY}}}[30s]))"
)
# Between the answer and the check some failures leave the window and others enter it.
_SHARE_TOLERANCE = 0.02
_SETTLED = timedelta(seconds=45)


def second_call(lab: LabLike) -> datetime:
    """
    Break something that the seed of the lab chooses, and say when.

    It ends by itself after a quarter of an hour; `lab.reset()` ends it earlier.  Called again, it begins anew.

    Returns:
        The instant at which it began, UTC.
    """
    instance, operation = _CASES[lab.seed % len(_CASES)]
    began = lab.now()
    lab.shop.inject("latency", on=instance, ms=_LATENCY_MS, endpoint=operation.partition(" ")[2], for_s=_FOR_S)
    return began


def troubled(lab: LabLike) -> tuple[set[str], set[str]]:
    """
    Services with an alert that somebody should look at (critical or warning), or a target that cannot be reached.

    Returns:
        Those where this is so for longer than the time between an answer and its check, and those where it is so,
        or about to be, at all.
    """
    alerts = lab.prometheus.alerts()
    alerts = alerts[alerts["severity"].isin(["critical", "warning"])]
    lasting = alerts[(alerts["state"] == "firing") & (alerts["active_since"] < lab.now() - _SETTLED)]
    targets = lab.prometheus.targets()
    # On a cluster a pod that is gone is no target: what alerts tell of its absence is among the alerts.
    down = {str(one) for one in targets.loc[targets["health"] != "up", "service"] if one}
    return _services(lasting) | down, _services(alerts) | down


def _services(alerts: pd.DataFrame) -> set[str]:
    return {str(labels["service"]) for labels in alerts["labels"] if labels.get("service")}


def _judge_control(exercise: Bound, answer: Any) -> Verdict:
    harmed = harm_done(exercise)
    if harmed:
        return not_yet(harmed)
    parts, problem = parts_of(answer, 2, "(list of services, failing share)")
    if problem:
        return not_yet(problem)
    named, share = parts
    if isinstance(named, str) or not isinstance(named, Iterable):
        return not_yet(f"The services are a list; you have {named!r}. The empty list, [], says that nothing is wrong.")
    names, (wrong, perhaps) = {str(name) for name in named}, troubled(exercise.lab)
    if names - perhaps:
        listed = ", ".join(f"`{name}`" for name in sorted(names - perhaps))
        return not_yet(
            f"You named {listed}, for which no alert fires and whose replicas all answer. A counter that falls to 0 "
            "tells of a restart, not of trouble: what does its rate say?"
        )
    if wrong - names:
        return not_yet(
            f"{len(wrong - names)} of the services that you did not name: an alert fires for it, or a replica does not "
            "answer. See alerts() and targets()."
        )
    return _judge_evidence(exercise.lab, share, calm=not names)


def _judge_evidence(lab: LabLike, share: Any, *, calm: bool) -> Verdict:
    if isinstance(share, bool) or not isinstance(share, numbers.Real) or not math.isfinite(share):
        return not_yet(
            f"The evidence is a share of requests, a number; you have {share!r}. Where nothing failed there is no "
            "series: say `or vector(0)` where you mean 0."
        )
    now = float(lab.prometheus.value(_SHARE, lab.now()))
    if abs(float(share) - now) > _SHARE_TOLERANCE:
        return not_yet(f"You have {readable(float(share))} as the failing share; over the last 30 s it is another one.")
    if calm:
        return correct(
            "Nothing is wrong: no alert, every replica answers, nobody is failed. That is a finding, with evidence."
        )
    return correct("Something is wrong indeed, and you named it.")


CONTROL = Exercise(
    id="01-6",
    title="the first call",
    judge=_judge_control,
    hints=(
        "A reading that looks bad is a hypothesis. Which readings would be bad too, if it were true?",
        "Which alerts fire, which targets do not answer, and which share of customers' requests fails?",
        (
            "Keep the rows of alerts() that fire and are critical or warnings; and divide sums of rates, with "
            "`or vector(0)` above the line."
        ),
    ),
    baseline=ready_components,
)


@dataclass(frozen=True, slots=True)
class _Case:
    """What is broken now: the replica, its operation, and by how many seconds each answer is late."""

    instance: str
    operation: str
    late_s: float


def _case(lab: LabLike) -> _Case | None:
    """The drill that runs, from the state of the shop; None if none does."""
    operations = dict(_CASES)
    for instance, faults in lab.shop.faults().items():
        for fault in faults:
            path = fault.get("endpoint", "")
            if instance in operations and operations[instance].endswith(f" {path}") and fault.get("name") == "latency":
                return _Case(instance, operations[instance], fault["ms"] / 1000)
    return None


def _judge_drill(exercise: Bound, answer: Any) -> Verdict:
    lab = exercise.lab
    harmed = harm_done(exercise)
    if harmed:
        return not_yet(harmed)
    case = _case(lab)
    if case is None:
        return not_yet(
            "Nothing is broken any more: a restart or a reset took the cause away before it was found, and the time "
            "does so after a quarter of an hour. Begin the call again with `second_call(lab)`."
        )
    parts, problem = parts_of(answer, 3, "(replica, operation, trace id)")
    return not_yet(problem) if problem else _judge_cause(lab, case, *parts)


def _judge_cause(lab: LabLike, case: _Case, replica: Any, operation: Any, trace_id: Any) -> Verdict:
    try:
        spans = lab.traces.trace(str(trace_id))
    except (NoData, InvalidValue):
        return not_yet(f"Your evidence, {trace_id!r}, is no trace in the store. An exemplar names one; wait for it.")
    problem = _poor_evidence(spans, case) or _wrong_operation(spans, case, operation)
    if problem:
        return not_yet(problem)
    if replica != case.instance:
        return not_yet(
            f"The operation is right; `{replica}` is not the replica that answered in your trace. Its log line has "
            "`instance`."
        )
    return correct(
        f"From a percentile by an exemplar, a trace and a line to `{case.instance}`: {case.late_s:g} s in "
        f"`{case.operation}`."
    )


def _poor_evidence(spans: pd.DataFrame, case: _Case) -> str:
    """Why this trace did not meet what is broken; empty if it did."""
    if spans["duration_s"].max() < case.late_s:
        longest_ms = 1000 * float(spans["duration_s"].max())
        return (
            f"Your trace took {longest_ms:.0f} ms, as in quiet times: it did not meet the trouble. Take an exemplar "
            "from a slow bucket."
        )
    met = spans[(spans["operation"] == case.operation) & (spans["duration_s"] >= case.late_s)]
    return "" if len(met) else "Your trace is slow for another reason; take one of a checkout since the call began."


def _wrong_operation(spans: pd.DataFrame, case: _Case, operation: Any) -> str:
    """What to say of an operation that is not the one; empty if it is."""
    if operation == case.operation:
        return ""
    named = spans[spans["operation"] == operation]
    if named.empty:
        return f"Your trace has no operation {operation!r}; it has {', '.join(sorted(set(spans['operation'])))}."
    took_ms = 1000 * float(named["duration_s"].max())
    if took_ms < 1000 * case.late_s:
        return f"`{operation}` took {took_ms:.1f} ms in your trace. That is not where the time went."
    return (
        f"`{operation}` took {took_ms:.0f} ms, nearly all of it waiting for a span below it. Go down to the last slow "
        "one."
    )


DRILL = Exercise(
    id="01-7",
    title="the second call",
    judge=_judge_drill,
    hints=(
        "The percentile says that it is slow and since when; an exemplar names one slow checkout.",
        "Draw its trace: the time that a span waits is that of a span below it. The last slow one is it.",
        "The trace has the operation; log lines of the same trace id have the replica, in `instance`.",
    ),
    baseline=ready_components,
)
