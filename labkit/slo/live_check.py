"""
Does an objective count anything on a running server?  What a specification cannot tell by itself.

    live_problems(slo, source, at)      an empty list when everything is as it should be

Three mistakes look like health: a division whose sides have different labels is empty, so its alert never fires; a
negative matcher on a label that no series has lets everything pass, so nothing is ever bad; a bound that is no bucket
counts nothing.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from datetime import datetime

from labkit.errors import RequestFailed
from labkit.slo._ask import Asker
from labkit.slo._selectors import Selector, counted
from labkit.slo.model import LatencySli, Slo
from labkit.slo.source import Problem, PrometheusSource

__all__ = ["live_problems"]


def live_problems(slo: Slo, source: PrometheusSource, at: datetime) -> list[Problem]:
    """
    What is wrong with *slo* on the server at the instant *at*, the gravest first.

    Looks at its counts, at the labels that its selectors name, and at the bounds of its histogram.  Takes a few
    requests more than a report.

    Args:
        slo: the objective.
        source: the server.
        at: timezone-aware instant.
    """
    found = list(source.measure(slo, at).problems)
    if any(problem.kind == "query_failed" and "connection" in problem.text for problem in found):
        return found
    asker = Asker(source.url, source.timeout_s)
    try:
        found += _bounds(slo, asker)
        selectors = counted(slo.sli) or {}
        for part, selector in selectors.items():
            found += _labels(slo, part, selector, asker)
    except RequestFailed as error:
        found.append(Problem("query_failed", str(error)))
    return found


def _bounds(slo: Slo, asker: Asker) -> Iterator[Problem]:
    sli = slo.sli
    if not isinstance(sli, LatencySli):
        return
    bounds = asker.label_values("le", f"{sli.histogram}_bucket{{{sli.selector}}}")
    numbers = sorted(float(bound) for bound in bounds)
    if numbers and sli.bound_s not in numbers:
        nearest = min(numbers, key=lambda bound: abs(bound - sli.bound_s))
        listed = ", ".join(f"{bound:g}" for bound in numbers)
        yield Problem(
            "no_such_bucket",
            f"{slo.name} wants the requests of {sli.histogram} up to {sli.bound_s:g} s, and no bucket ends there. "
            f"Bounds are {listed}; the nearest is {nearest:g} s.",
        )


def _labels(slo: Slo, part: str, selector: Selector, asker: Asker) -> Iterator[Problem]:
    names = asker.label_names(selector.metric)
    for matcher in selector.matchers:
        if not names or matcher.label in names or not matcher.accepts({}):
            continue
        close = difflib.get_close_matches(matcher.label, names, n=1)
        known = f"did you mean `{close[0]}`?" if close else f"It has: {', '.join(names)}."
        yield Problem(
            "no_such_label",
            f'`{part}` of {slo.name} asks for {matcher.label}{matcher.how}"{matcher.value}", and no series of '
            f"{selector.metric} has a label `{matcher.label}`: the condition lets everything pass, without a word. "
            f"{known[0].upper()}{known[1:]}",
        )
