"""Notebook 01, exercise 5: an accident of cardinality, found by its growth and undone at its cause."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from labkit.course._types import LabLike
from labkit.course.exercise import Bound, Exercise, Verdict, correct, not_yet
from labkit.course.judges import harm_done, parts_of, ready_components
from labkit.errors import NoData

__all__ = ["CARDINALITY"]

_SHAPE = "(metric, label)"
_PARTS = ("_bucket", "_count", "_sum")
# The one label of the shop whose values have no bound; only the flag `customer_statistics` makes series with it.
_LABEL = "user"
_SHOP = 'job="shop",instance!="seeded"'


@dataclass(frozen=True, slots=True)
class _Before:
    """The lab when the exercises were bound: the instant, series by metric, and the components that were ready."""

    at: datetime
    series: dict[str, int]
    ready: list[str]


def _family(name: str) -> str:
    """The base name of a histogram's parts."""
    return next((name.removesuffix(part) for part in _PARTS if name.endswith(part)), name)


def _counted(lab: LabLike, selector: str) -> dict[str, int]:
    """Series by the base name of their metric; empty when nothing matches."""
    try:
        rows = lab.prometheus.query(f"count by (__name__) ({selector})", lab.now())
    except NoData:
        return {}
    return {str(name): int(count) for name, count in rows.groupby(rows["__name__"].map(_family))["value"].sum().items()}


def _before(lab: LabLike) -> _Before:
    return _Before(lab.now(), _counted(lab, f"{{{_SHOP}}}"), ready_components(lab))


def _since(lab: LabLike, before: _Before, matchers: str) -> str:
    """Every series that had a sample since the exercises were bound, also those that are gone again."""
    seconds = max(1, math.ceil((lab.now() - before.at).total_seconds()))
    return f"last_over_time({{{matchers}}}[{seconds}s])"


def _judge(exercise: Bound, answer: Any) -> Verdict:
    lab, before = exercise.lab, exercise.baseline
    harmed = harm_done(exercise, before.ready)
    if harmed:
        return not_yet(harmed)
    made = _counted(lab, _since(lab, before, f'{_SHOP},{_LABEL}!=""'))
    if not made:
        return not_yet(
            "Since these exercises began nothing was deployed that makes series without end. Run the cell that deploys "
            "the statistics, give it ten seconds, then look again."
        )
    metric = max(made, key=lambda name: made[name])
    parts, problem = parts_of(answer, 2, _SHAPE)
    problem = problem or _wrong_name(lab, before, (metric, made[metric]), *parts)
    return not_yet(problem) if problem else _judge_undone(lab, metric)


def _wrong_name(lab: LabLike, before: _Before, made: tuple[str, int], named: Any, label: Any) -> str:
    if not isinstance(named, str) or not isinstance(label, str):
        return f"Names are texts; you have {named!r} and {label!r}."
    metric, series = made
    if _family(named) != metric:
        had = before.series.get(_family(named))
        seen = f"`{named}` had {had} series when these exercises began" if had else f"The shop had no metric `{named}`"
        return f"{seen}; another metric has {series} that were not there at all. Subtract: `census.growth(before)`."
    rows = lab.prometheus.query(_since(lab, before, f'{_SHOP},__name__=~"{metric}_.+"'), lab.now())
    values = {str(name): int(rows[name].nunique()) for name in rows.columns if name not in {"value", "__name__"}}
    if label == "le":
        return f"`le` has {values['le']} values, however many customers come. Which label has no bound?"
    if label not in values:
        return f"`{metric}` has no label `{label}`; it has {', '.join(sorted(values))}."
    if label != _LABEL:
        seen = f"{values[label]} value{'s' if values[label] > 1 else ''}"
        return f"`{label}` has {seen}, and that number stands still. Which one rises with the customers?"
    return ""


def _judge_undone(lab: LabLike, metric: str) -> Verdict:
    left = sum(_counted(lab, f'{{{_SHOP},{_LABEL}!=""}}').values())
    if left:
        return not_yet(
            f"You found it, and {left} series of `{metric}` are still scraped, each time again. Undo it where it comes "
            "from, the flag, then wait for the next scrape."
        )
    return correct("Found by its growth, undone at its cause; and every other series of the shop is still there.")


CARDINALITY = Exercise(
    id="01-5",
    title="series without end",
    judge=_judge,
    hints=(
        "A census of now, a census of before: what was added, and which label has more values than it had?",
        "`census.growth(before)` names the metric. Its label is the one that a new customer makes a new value of.",
        'lab.shop.restore_flag("customer_statistics") ends it; the series go with the next scrape.',
    ),
    baseline=_before,
)
