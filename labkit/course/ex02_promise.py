"""Notebook 02, what is promised: choose an indicator, what the objective allows, one outage counted three ways."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import pandas as pd

from labkit.course import ex02_world as world
from labkit.course.ex02_world import kind_of, several
from labkit.course.exercise import Bound, Exercise, Outcome, Verdict, correct, not_yet
from labkit.course.judges import Slip, number_judge
from labkit.slo.arithmetic import allowed_s

__all__ = ["ALLOWED", "CANDIDATES", "CHOICE", "THREE_WAYS"]

_GATEWAY = 'job="shop",service="gateway"'
_CHECKOUTS = f'{_GATEWAY},endpoint="{world.ENDPOINT}"'

CANDIDATES: Mapping[str, str] = {
    "processor": 'sum(rate(process_cpu_seconds_total{job="shop"}[5m]))',
    "all answered": f'sum(rate(http_requests_total{{{_GATEWAY},status!~"5.."}}[5m])) / '
    f"sum(rate(http_requests_total{{{_GATEWAY}}}[5m]))",
    "checkouts answered": f'sum(rate(http_requests_total{{{_CHECKOUTS},status!~"5.."}}[5m])) / '
    f"sum(rate(http_requests_total{{{_CHECKOUTS}}}[5m]))",
    "checkouts sold": f'sum(rate(http_requests_total{{{_CHECKOUTS},status="201"}}[5m])) / '
    f"sum(rate(http_requests_total{{{_CHECKOUTS}}}[5m]))",
    "checkouts in time": f'sum(rate(http_request_duration_seconds_bucket{{{_CHECKOUTS},le="0.25"}}[5m])) / '
    f"sum(rate(http_request_duration_seconds_count{{{_CHECKOUTS}}}[5m]))",
    "95th percentile": "histogram_quantile(0.95, sum by (le) "
    f"(rate(http_request_duration_seconds_bucket{{{_CHECKOUTS}}}[5m])))",
    "payments up": 'avg(up{job="shop",service="payments"})',
}
"""Indicators that people propose for checkouts: name → what Prometheus would be asked."""

_RIGHT = frozenset({"checkouts answered", "checkouts in time"})


def _failing_share(lab: Any, *matchers: str) -> float:
    return world.count(lab, *matchers, 'status=~"5.."') / world.count(lab, *matchers)


def _hidden(lab: Any) -> str:
    everything, ours = _failing_share(lab), _failing_share(lab, f'endpoint="{world.ENDPOINT}"')
    return (
        f"`all answered` mixes seven other requests with each checkout: over 30 days {everything:.3%} of all failed, "
        f"and {ours:.3%} of the checkouts."
    )


_AGAINST: Mapping[str, Callable[[Any], str]] = {
    "processor": lambda _: (
        "`processor` is a cause and not an experience: a busy processor that serves everybody well breaks no promise."
    ),
    "all answered": _hidden,
    "checkouts sold": lambda _: (
        "`checkouts sold` counts a refused checkout, such as one with an empty cart (409), as the shop's failure: "
        "customers' mistakes would spend your budget."
    ),
    "95th percentile": lambda _: (
        "`95th percentile` is a number of seconds and not a share of good events: it has no budget, cannot be added "
        "up over a month, and is the same whether one checkout in a hundred takes a second or a minute."
    ),
    "payments up": lambda _: (
        "`payments up` says whether a replica answers its scrape. Checkouts fail while it is 1, and succeed by the "
        "other replica while one is 0."
    ),
}


def _objections(lab: Any, answer: Any) -> Iterator[str]:
    """What speaks against the choice, the weightiest first."""
    if isinstance(answer, str) or not isinstance(answer, Collection):
        yield f"Your answer is {kind_of(answer)}; a set of names is expected, as in {{'processor', 'payments up'}}."
        return
    chosen = {str(name) for name in answer}
    for name in sorted(chosen - set(CANDIDATES)):
        yield f"There is no candidate {name!r}; choose among: {', '.join(CANDIDATES)}."
    for name in CANDIDATES:
        if name in chosen - _RIGHT:
            yield _AGAINST[name](lab)
    if not chosen:
        yield "Your set is empty: nothing is measured, and so nothing can be promised."
    slow, failed = (
        "A checkout that takes ten seconds and is then answered",
        "A checkout that fails within a millisecond",
    )
    for name, event in (("checkouts in time", slow), ("checkouts answered", failed)):
        if name not in chosen:
            yield f"{event} is a good event to you. Which candidate says otherwise?"


def _judge_choice(exercise: Bound, answer: Any) -> Verdict:
    objection = next(_objections(exercise.lab, answer), None)
    if objection:
        return not_yet(objection)
    return correct("Both are shares of good checkouts, seen where the customer is: they can be promised and budgeted.")


CHOICE = Exercise(
    id="02-1",
    title="indicators of the checkout journey",
    judge=_judge_choice,
    hints=(
        "Cross out what a customer would not notice, then what is not a share of good events.",
        "Cross out also what counts mostly other requests, and what counts a customer's own mistake as a failure.",
        "One of the two says that checkouts are answered, the other that they are answered in time.",
    ),
)


def _minutes(objective: float = 0.999, days: float = 30) -> float:
    return float(allowed_s(objective, days * world.DAY_S)) / 60


def _allowed(lab: Any) -> float:
    return 0.001 * float(world.counts(lab)["total"].sum())


ALLOWED = Exercise(
    id="02-2",
    title="what the objective allows",
    judge=several(
        outage_min=number_judge(
            lambda _: _minutes(),
            unit="minutes",
            says="the arithmetic says",
            slips=[
                Slip(lambda _: 60 * _minutes(), "{answer} is in seconds; minutes are asked for."),
                Slip(lambda _: _minutes() / 60, "{answer} is in hours; minutes are asked for."),
                Slip(lambda _: 30 * 1440 * 0.999, "{answer} is how long it must work; what is left of the month?"),
                Slip(lambda _: _minutes(days=365), "{answer} is for a year; the window is thirty days."),
                Slip(lambda _: _minutes(days=1), "{answer} is for a day; the window is thirty days."),
                Slip(lambda _: 30 * 1440 * 0.1, "{answer} takes 0.1 for a tenth of a percent; 0.1 % is 0.001."),
                Slip(lambda _: _minutes(0.9999), "{answer} is what 99.99 % allows; the objective has three nines."),
            ],
        ),
        may_fail=number_judge(
            _allowed,
            unit="checkouts",
            slips=[
                Slip(lambda lab: 1000 * _allowed(lab), "{answer} is all checkouts; a thousandth of them may fail."),
                Slip(lambda lab: 999 * _allowed(lab), "{answer} is how many must go well; how many may not?"),
                Slip(lambda lab: 100 * _allowed(lab), "{answer} takes 0.1 for a tenth of a percent; 0.1 % is 0.001."),
                Slip(
                    lambda lab: 0.001 * world.count(lab),
                    "{answer} is for requests of all kinds. Which label picks the checkouts?",
                ),
                Slip(
                    lambda lab: world.count(lab, f'endpoint="{world.ENDPOINT}"', 'status=~"5.."'),
                    "{answer} is how many failed last month; the question is how many were allowed to.",
                ),
            ],
            debrief="Minutes are what people remember, checkouts are what is counted: an hour at night has fewer.",
        ),
    ),
    hints=(
        "Both are 1 - objective of something: of the length of the month, of the checkouts of the month.",
        "Thirty days have 43,200 minutes. The checkouts are in the column `total` of the month's counts.",
        "outage_min = 0.001 * 43_200; may_fail = 0.001 * month['total'].sum()",
    ),
)

OUTAGE = "partial-payments"
SLICE_TARGET = 0.95


def outage_minutes(lab: Any) -> pd.DataFrame:
    """The minutes of the outage that exercise 3 is about, as counts."""
    row = world.incidents(lab).set_index("id").loc[OUTAGE]
    month = world.counts(lab)
    return month[(month.index > row["start"]) & (month.index <= row["end"])]


def _three_ways(lab: Any) -> tuple[float, float, float]:
    """Budgets spent by the outage: by requests, by bad minutes, by the minutes' mean."""
    month, minutes = world.counts(lab), outage_minutes(lab)
    bad = 1 - minutes["good"] / minutes["total"]
    allowed_minutes = 0.001 * len(month)
    return (
        float((minutes["total"] - minutes["good"]).sum() / (0.001 * month["total"].sum())),
        float((bad > 1 - SLICE_TARGET).sum() / allowed_minutes),
        float(bad.sum() / allowed_minutes),
    )


def _judge_three_ways(exercise: Bound, answer: Any) -> Verdict:
    right = _three_ways(exercise.lab)
    names = ("by_requests", "by_minutes", "by_mean")
    minutes = len(outage_minutes(exercise.lab))

    def slips(index: int) -> list[Slip]:
        others = [
            Slip(_always(value), f"{{answer}} is `{names[at]}`; the names are mixed up.")
            for at, value in enumerate(right)
            if at != index
        ]
        return [
            *others,
            Slip(_always(100 * right[index]), "{answer} is a percentage; ratios here are fractions: 1 is all of it."),
            Slip(
                _always(right[index] * 43.2 if index else math.nan),
                "{answer} is in minutes; divide by the minutes that were allowed.",
            ),
            Slip(
                _always(0.001 * right[index]),
                "{answer} is the share of all that was bad; how often does the share that may be bad go into it?",
            ),
            Slip(
                _always(minutes * 0.05 / 43.2 if index == 1 else math.nan),
                "{answer} weighs bad minutes by the bound; a minute is bad as a whole or good as a whole.",
            ),
        ]

    judges = {
        name: number_judge(_always(right[index]), unit="budgets", slips=slips(index), tolerance=0.03)
        for index, name in enumerate(names)
    }
    verdict = several(**judges)(exercise, answer)
    if verdict.outcome is not Outcome.CORRECT:
        return verdict
    return correct(
        f"One outage, three prices: {right[0]:.2f}, {right[1]:.2f} and {right[2]:.2f} budgets. "
        "Whoever writes an objective must say how it is counted."
    )


def _always(value: float) -> Callable[[Any], float]:
    return lambda _: value


THREE_WAYS = Exercise(
    id="02-3",
    title="one outage counted three ways",
    judge=_judge_three_ways,
    hints=(
        "Cut the month to the outage: rows after its start, up to its end. Each row is a minute.",
        "Failed over a thousandth of the month's checkouts; bad minutes over 43.2; sum of failing shares over 43.2.",
        "With share = 1 - cut['good'] / cut['total']: (share > 0.05).sum() / 43.2, and share.sum() / 43.2.",
    ),
)
