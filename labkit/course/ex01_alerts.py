"""Notebook 01, exercise 4: an alert rule, judged by what it would have done in the seeded month."""

from __future__ import annotations

import numbers
from datetime import timedelta
from typing import Any

import pandas as pd

from labkit.course._types import LabLike
from labkit.course.exercise import Bound, Exercise, Verdict, correct, not_yet
from labkit.course.judges import harm_done, parts_of, readable, ready_components
from labkit.errors import QueryError
from labkit.observe.quality import Quality, firing, score

__all__ = ["ALERTS", "MOST_PAGES_A_WEEK", "month_of", "page_worthy"]

MOST_PAGES_A_WEEK = 7
_LEAST_PRECISION = 0.75
_LONGEST_FOR_S = 900
_SHAPE = "(condition, must_hold_s)"
_REQUESTS = 'http_requests_total{job="shop",service="gateway"}'
_FAILED = 'http_requests_total{job="shop",service="gateway",status=~"5.."}'
_REFERENCE = f"sum by (service) (rate({_FAILED}[5m])) / sum by (service) (rate({_REQUESTS}[5m])) > 0.05"
_REFERENCE_FOR_S = 120


def month_of(lab: LabLike) -> tuple[pd.Timestamp, pd.Timestamp]:
    """The seeded month, without its first hour, in which windows are not full yet."""
    labels = lab.history.labels
    start, end = (pd.Timestamp(labels[name]).tz_convert("UTC") for name in ("start", "end"))
    return start + pd.Timedelta(hours=1), end


def page_worthy(lab: LabLike) -> pd.DataFrame:
    """Incidents of the month in which requests failed and somebody should have been woken: `id, start, end, …`."""
    incidents = lab.history.incidents
    worthy: pd.DataFrame = incidents[incidents["should_page"].astype(bool) & (incidents["kind"] == "availability")]
    return worthy.reset_index(drop=True)


def _baseline(lab: LabLike) -> tuple[list[str], set[str]]:
    return ready_components(lab), _silences(lab)


def _silences(lab: LabLike) -> set[str]:
    return set(lab.alertmanager.silences()["id"])


def _judge(exercise: Bound, answer: Any) -> Verdict:
    ready, silences = exercise.baseline
    harmed = harm_done(exercise, ready)
    if harmed:
        return not_yet(harmed)
    added = _silences(exercise.lab) - silences
    if added:
        return not_yet(
            f"{len(added)} silence{'s hold' if len(added) > 1 else ' holds'} alerts back that did not when these "
            "exercises began. The noise is not gone, nobody hears it, nor what is true in it. End it with "
            "`lab.alertmanager.expire_all()`."
        )
    parts, problem = parts_of(answer, 2, _SHAPE)
    problem = problem or _shape_problem(*parts)
    if problem:
        return not_yet(problem)
    return _judge_rule(exercise.lab, str(parts[0]), float(parts[1]))


def _shape_problem(condition: Any, for_s: Any) -> str:
    if not isinstance(condition, str):
        return f"The condition is a text, you have {condition!r}."
    if isinstance(for_s, bool) or not isinstance(for_s, numbers.Real) or not 0 <= float(for_s) <= _LONGEST_FOR_S:
        return f"`must_hold_s` is a number of seconds from 0 to {_LONGEST_FOR_S}, you have {for_s!r}."
    return ""


def _judge_rule(lab: LabLike, condition: str, for_s: float) -> Verdict:
    start, end = month_of(lab)
    incidents = page_worthy(lab)
    try:
        pages = firing(lab.prometheus, condition, start, end, for_s=for_s)
    except QueryError as error:
        return not_yet(str(error))
    quality = score(pages, incidents, end - start)
    if not quality.pages:
        return not_yet(
            f"In the whole month your rule never fires: all {len(incidents)} incidents pass in silence. That destroys "
            "the alert; it does not improve it."
        )
    if quality.per_week > MOST_PAGES_A_WEEK:
        return not_yet(_noise(quality, pages, end - start))
    if quality.precision < _LEAST_PRECISION:
        wrong = round(quality.pages * (1 - quality.precision))
        return not_yet(
            f"{wrong} of its {quality.pages} pages came while nothing was wrong that anybody should be woken for: a "
            f"precision of {quality.precision:.2f}, and {_LEAST_PRECISION:g} is asked for."
        )
    return _judge_recall(lab, quality, pages, incidents)


def _noise(quality: Quality, pages: pd.DataFrame, span: timedelta) -> str:
    said = f"Your rule pages {readable(quality.per_week)} times a week, and {MOST_PAGES_A_WEEK} is asked for. "
    series = pages["series"].nunique()
    if any("'status'" in one for one in pages["series"]):
        return said + (
            f"It fires for {series} series, each with a `status`: every series of errors was divided by itself, which "
            "is 1 whenever there is an error."
        )
    typical_s = float((pages["end"] - pages["start"]).dt.total_seconds().median())
    return said + (
        f"Half of these pages are over after {readable(typical_s)} s. Look at less than a moment, and every moment "
        f"counts: of {span.days} days there are many."
    )


def _judge_recall(lab: LabLike, quality: Quality, pages: pd.DataFrame, incidents: pd.DataFrame) -> Verdict:
    start, end = month_of(lab)
    reference = score(firing(lab.prometheus, _REFERENCE, start, end, for_s=_REFERENCE_FOR_S), incidents, end - start)
    if quality.recall <= reference.recall:
        missed = [str(row.id) for row in incidents.itertuples() if not _seen(pages, row)]
        return not_yet(
            f"It is quiet, {readable(quality.per_week)} pages a week, and it misses {', '.join(missed)}: a "
            f"recall of {quality.recall:.2f}. The corrected rule of the notebook has {reference.recall:.2f}, and "
            "better is asked for."
        )
    return correct(
        f"{readable(quality.per_week)} pages a week, precision {quality.precision:.2f}, recall {quality.recall:.2f}; "
        f"{quality.duplicates} of the pages repeat one that was sent, and grouping holds those back."
    )


def _seen(pages: pd.DataFrame, incident: Any) -> bool:
    return bool(((pages["start"] < incident.end) & (incident.start < pages["end"])).any())


ALERTS = Exercise(
    id="01-4",
    title="an alert worth waking up for",
    judge=_judge,
    hints=(
        "Evaluate the rule as it is at an instant at which something fails: which value do its series have?",
        ("Failures of the whole shop over requests of the whole shop; and what lasts is worth more than what passes."),
        "sum(rate(failed[5m])) / sum(rate(all[5m])) > 0.05, for 120 seconds; then try a lower threshold.",
    ),
    baseline=_baseline,
)
