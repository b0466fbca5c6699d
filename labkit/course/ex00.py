"""The exercises of notebook 00, "Was last month's promise kept?"."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import pandas as pd

from labkit.course._types import LabLike
from labkit.course.exercise import Bound, Exercise, Verdict, correct, not_yet
from labkit.course.judges import Slip, choice_judge, harm_done, number_judge, ready_components

__all__ = ["EXERCISES"]

_OBJECTIVE = 0.999
_LIST, _PAGES, _CHECKOUT = "/products", "/products/{id}", "/checkout/{user}"


def _count(lab: LabLike, *, endpoint: str = "", failed: bool = False, span: str = "30d") -> float:
    """Requests at the gateway, counted by the counters of this lab; `instance` is summed away."""
    labels = ['job="shop"', 'service="gateway"']
    labels += [f'endpoint="{endpoint}"'] if endpoint else []
    labels += ['status=~"5.."'] if failed else []
    return float(lab.prometheus.value(f"sum(increase(http_requests_total{{{','.join(labels)}}}[{span}]))"))


def _ratio(lab: LabLike, endpoint: str = "") -> float:
    return _count(lab, endpoint=endpoint, failed=True) / _count(lab, endpoint=endpoint)


def _spent(endpoint: str = "") -> Callable[[LabLike], float]:
    return lambda lab: _ratio(lab, endpoint) / (1 - _OBJECTIVE)


def _spent_by_prefix(lab: LabLike) -> float:
    """What endpoint=~"/products.*" gives: the list and the pages together."""
    failed = sum(_count(lab, endpoint=endpoint, failed=True) for endpoint in (_LIST, _PAGES))
    return failed / sum(_count(lab, endpoint=endpoint) for endpoint in (_LIST, _PAGES)) / (1 - _OBJECTIVE)


_BUDGET = Exercise(
    id="00-1",
    title="the budget of the product list",
    judge=number_judge(
        _spent(_LIST),
        unit="budgets",
        slips=[
            Slip(
                lambda lab: 100 * _spent(_LIST)(lab),
                "{answer} is a percentage; ratios here are fractions, so that 1 means the whole budget.",
            ),
            Slip(
                lambda lab: _ratio(lab, _LIST),
                "{answer} is the share of requests that failed. "
                "How many times does the share that may fail, 1 - objective, go into it?",
            ),
            Slip(
                lambda lab: _count(lab, endpoint=_LIST, failed=True),
                "{answer} is the number of failed requests. Divide it by the number that was allowed to fail.",
            ),
            Slip(
                lambda lab: 1 - _spent(_LIST)(lab),
                "{answer} is what is left of the budget; the question is what was spent.",
            ),
            Slip(_spent(_CHECKOUT), "{answer} is the budget of checkouts. Which label picks the product list?"),
            Slip(_spent(), "{answer} is the budget of all endpoints together. Which label picks the product list?"),
            Slip(
                _spent_by_prefix,
                "{answer} counts single product pages too. A pattern that begins with /products matches both.",
            ),
            Slip(_spent(_PAGES), "{answer} is the budget of single product pages; the list is another endpoint."),
        ],
        debrief="The product list kept its promise in the month in which checkouts did not.",
    ),
    hints=(
        "It is the arithmetic of the chapter on checkouts with another value of the label `endpoint`.",
        "Count all requests to the endpoint over 30d, and the failed ones; a thousandth of all was allowed to fail.",
        "spent = failed / (0.001 * total), where both come from sum(increase(http_requests_total{…}[30d])).",
    ),
)


def _failures(lab: LabLike) -> pd.Series[float]:
    """Failed requests of all endpoints during each incident, by id."""
    seen = {row["id"]: _failed_between(lab, row["start"], row["end"]) for row in _rows(lab)}
    return pd.Series(seen, dtype=float)


def _failed_between(lab: LabLike, start: pd.Timestamp, end: pd.Timestamp) -> float:
    # A minute more: the past is sampled once a minute, and a window that leaves its first instant out, as Prometheus 3
    # does, would else miss the reading before the incident (and find a single one in an incident of a minute).
    span = f"{math.ceil((end - start).total_seconds()) + 60}s] @ {end.timestamp():.0f}"
    query = f'sum(increase(http_requests_total{{job="shop",service="gateway",status=~"5.."}}[{span}))'
    return float(lab.prometheus.value(query))


def _rows(lab: LabLike) -> list[dict[str, Any]]:
    return list(lab.history.incidents.to_dict("records"))


def _ids(lab: LabLike) -> list[str]:
    return [row["id"] for row in _rows(lab)]


def _costliest(lab: LabLike) -> str:
    return str(_failures(lab).idxmax())


def _longest(lab: LabLike) -> str:
    return str(max(_rows(lab), key=lambda row: row["end"] - row["start"])["id"])


def _loudest(lab: LabLike) -> str:
    """The incident with most failures per minute."""
    failures = _failures(lab)
    return str(max(_rows(lab), key=lambda row: failures[row["id"]] / (row["end"] - row["start"]).total_seconds())["id"])


def _only_slow(lab: LabLike) -> str:
    return next((row["id"] for row in _rows(lab) if row["kind"] == "latency"), "")


def _worst_for_checkout(lab: LabLike) -> str:
    alone = [row for row in _rows(lab) if len(row["endpoints"]) == 1 and _CHECKOUT in row["endpoints"][0]]
    failures = _failures(lab)
    return str(max(alone, key=lambda row: failures[row["id"]])["id"]) if alone else ""


_INCIDENT = Exercise(
    id="00-2",
    title="the costliest incident for the whole shop",
    judge=choice_judge(
        _costliest,
        options=_ids,
        slips={
            "{answer!r} cost checkouts most. Count the failures of all endpoints this time.": _worst_for_checkout,
            "{answer!r} failed most requests a minute, and was over soon. Multiply by how long it lasted.": _loudest,
            "{answer!r} lasted longest, at a trickle. Multiply its length by the failures a minute.": _longest,
            "{answer!r} made answers slow; none failed, so it cost nothing of the budget of failures.": _only_slow,
        },
        what="incident",
        debrief="A small leak over most of a day cost more than the outage that everybody remembers.",
    ),
    hints=(
        "Use the function of the chapter on incidents, without the label `endpoint` in its query.",
        "Call it for every row of `incidents`, put the results beside the ids, and sort.",
        "For each row: count('status=~\"5..\"', window=<its length in seconds>, at=<its end>); then idxmax.",
    ),
)


def _down(lab: LabLike) -> set[str]:
    """Names of the jobs and services that Prometheus cannot scrape now."""
    targets = lab.prometheus.targets()
    return {str(name) for name in targets.loc[targets["health"] != "up", "instance"]}


def _judge_control(exercise: Bound, answer: Any) -> Verdict:
    harmed = harm_done(exercise)
    if harmed:
        return not_yet(harmed)
    if isinstance(answer, str) or not isinstance(answer, Iterable):
        kind = "None" if answer is None else f"a {type(answer).__name__}"
        return not_yet(
            f"Your answer is {kind}; a list of names is expected. The empty list, [], says that nothing is down."
        )
    named, down = {str(name) for name in answer}, _down(exercise.lab)
    unfounded, overlooked = sorted(named - down), sorted(down - named)
    if unfounded:
        listed = ", ".join(f"`{name}`" for name in unfounded)
        return not_yet(
            f"You named {listed}, which Prometheus scraped without trouble (up = 1). Which number says otherwise?"
        )
    if overlooked:
        return not_yet(
            f"{len(overlooked)} of the targets did not answer the last scrape, and your list has {len(named)}."
        )
    if down:
        return correct("Something is down indeed, and you named it.")
    return correct("Nothing was wrong. Saying so, from numbers, is a finding.")


_CONTROL = Exercise(
    id="00-3",
    title="is anything down?",
    judge=_judge_control,
    hints=(
        "A claim in a chat is a hypothesis. Which series tells for each target whether Prometheus could reach it?",
        "The series is `up`: 1 for a target that answered the last scrape, 0 for one that did not.",
        "Keep the rows of lab.prometheus.targets() whose health is not up, and list their instances.",
    ),
    baseline=ready_components,
)

EXERCISES = (_BUDGET, _INCIDENT, _CONTROL)
