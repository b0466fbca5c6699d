"""What the exercises of notebook 02 look at: the promise about checkouts, its month, and what happened in it."""

from __future__ import annotations

from datetime import datetime
from functools import cache
from typing import Any

import pandas as pd

from labkit.course.exercise import Bound, Judge, Outcome, Verdict, correct, not_yet
from labkit.slo.model import Slo
from labkit.slo.spec import SpecFile, parse_specs

__all__ = [
    "DAY_S",
    "ENDPOINT",
    "PROMISE",
    "checkout",
    "count",
    "counts",
    "incidents",
    "kind_of",
    "several",
    "specification",
]

ENDPOINT = "/checkout/{user}"
DAY_S = 86_400
_OPERATION = f"POST {ENDPOINT}"

PROMISE = """\
slos:
  - name: checkouts-answered
    service: gateway
    description: Of a thousand checkouts at most one fails
    target: 99.9%
    window: 30d
    policy: workbook
    sli:
      target_type: availability
      total: sum(increase(http_requests_total{job="shop",service="gateway",endpoint="/checkout/{user}"}[$window]))
      bad: sum(increase(
        http_requests_total{job="shop",service="gateway",endpoint="/checkout/{user}",status=~"5.."}[$window]))
release:
  name: checkouts
  steps:
    - {name: burning, when: {alert: page}, then: deny, because: Something is spending the budget right now.}
    - {name: broken, when: {status: violated}, then: deny, because: The budget is spent., exempt: [fix]}
    - {name: low, when: {remaining_below: 10%}, then: approval, because: Little budget is left., exempt: [fix]}
    - {name: enough, then: allow, because: There is budget for the risk of a change.}
"""
"""The promise of notebook 00 as a specification: a learner's own, beside the objectives that the shop comes with."""


@cache
def specification() -> SpecFile:
    """What notebook 02 promises, read from `PROMISE`."""
    return parse_specs(PROMISE, "the promise about checkouts")


def checkout() -> Slo:
    """The promise about checkouts."""
    return specification().slos[0]


def counts(lab: Any) -> pd.DataFrame:
    """
    Good and total checkouts of each minute of the seeded thirty days; index `time`, the end of the minute, UTC.

    What came after them is left out: a learner's own rehearsals are no incidents that an alert policy must find.
    """
    found: pd.DataFrame = lab.slo.counts(checkout())
    end: datetime = lab.history.labels["end"]
    return found.loc[found.index <= end]


def incidents(lab: Any, *responses: str) -> pd.DataFrame:
    """The incidents in which checkouts suffered, oldest first; only those with one of *responses*, if any is given."""
    found: pd.DataFrame = lab.history.incidents
    ours = found[found["endpoints"].map(lambda pages: _OPERATION in pages)]
    return ours[ours["response"].isin(responses)] if responses else ours


def count(lab: Any, *matchers: str, span: str = "30d") -> float:
    """Requests at the gateway in *span* that match, counted by the counters of this lab; `instance` is summed away."""
    labels = ",".join(('job="shop"', 'service="gateway"', *matchers))
    return float(lab.prometheus.value(f"sum(increase(http_requests_total{{{labels}}}[{span}]))"))


def several(**judges: Judge) -> Judge:
    """A judge of a tuple, part by part; the first part that is not correct decides, and is named."""

    def judge(exercise: Bound, answer: Any) -> Verdict:
        names = list(judges)
        if not isinstance(answer, tuple) or len(answer) != len(names):
            return not_yet(f"The answer is checked as ({', '.join(names)}); run the cell of the check as it stands.")
        verdict = correct()
        for name, part in zip(names, answer, strict=True):
            if part is ...:
                return not_yet(f"`{name}` still has its dots.")
            verdict = judges[name](exercise, part)
            if verdict.outcome is not Outcome.CORRECT:
                return Verdict(verdict.outcome, f"`{name}`: {verdict.because}")
        return verdict

    return judge


def kind_of(answer: Any) -> str:
    """What an answer of the wrong type is called in a message."""
    name = type(answer).__name__
    return "None" if answer is None else f"{'an' if name[0] in 'aeiou' else 'a'} {name}"
