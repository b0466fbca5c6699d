"""Judges made from data: a number with its known slips, a choice, a world that must not have been harmed."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from labkit.course._types import LabLike
from labkit.course.exercise import Bound, Judge, Verdict, correct, not_yet

__all__ = ["Slip", "choice_judge", "harm_done", "number_judge", "parts_of", "readable", "ready_components"]


_COUNTERS = "the counters of this lab say"


@dataclass(frozen=True, slots=True)
class Slip:
    """
    A wrong number that people really arrive at.

    Attributes:
        value: the number that this mistake gives on this lab; nan when it cannot be told here.
        because: the message; `{answer}` is the learner's number.
    """

    value: Callable[[LabLike], float]
    because: str


def number_judge(
    expected: Callable[[LabLike], float],
    *,
    unit: str,
    slips: Sequence[Slip] = (),
    tolerance: float = 0.02,
    debrief: str = "",
    says: str = _COUNTERS,
) -> Judge:
    """
    A judge of one number.

    Args:
        expected: recomputes the right number from the lab at the moment of the check.
        unit: what is counted, for messages: "failed requests".
        slips: once the number is not the expected one, the nearest of these within the tolerance explains it.
        tolerance: relative; room for the seconds that pass between the answer and the check.
        debrief: what a right answer is followed by.
        says: who knows better, for a wrong number that no slip explains.
    """

    def judge(exercise: Bound, answer: Any) -> Verdict:
        number, problem = _as_number(answer, unit)
        if problem:
            return not_yet(problem)
        right = expected(exercise.lab)
        if _distance(number, right) <= tolerance:
            return correct(debrief)
        # The nearest slip explains best: two mistakes may lead to numbers that are close to one another.
        distances = [(_distance(number, slip.value(exercise.lab)), index) for index, slip in enumerate(slips)]
        nearest, index = min(distances, default=(math.inf, -1))
        if nearest <= tolerance:
            return not_yet(slips[index].because.format(answer=readable(number)))
        return not_yet(_direction(number, right, unit, says))

    return judge


def choice_judge(
    expected: Callable[[LabLike], str],
    *,
    options: Callable[[LabLike], Sequence[str]],
    slips: Mapping[str, Callable[[LabLike], str]],
    what: str,
    debrief: str = "",
) -> Judge:
    """
    A judge of one name out of a list that the learner can see.

    Args:
        expected: the right name, recomputed from the lab.
        options: all names that could be meant.
        slips: message → the name that this mistake leads to; `{answer}` is the learner's.
        what: what is named, for messages: "incident".
        debrief: what a right answer is followed by.
    """

    def judge(exercise: Bound, answer: Any) -> Verdict:
        known = list(options(exercise.lab))
        if not isinstance(answer, str):
            return not_yet(
                f"Your answer is {_kind(answer)}; the {what} is named by a text, one of: {', '.join(known)}."
            )
        if answer not in known:
            return not_yet(f"There is no {what} {answer!r}; choose one of: {', '.join(known)}.")
        if answer == expected(exercise.lab):
            return correct(debrief)
        for because, wrong in slips.items():
            if answer == wrong(exercise.lab):
                return not_yet(because.format(answer=answer))
        return not_yet(
            f"{answer!r} is one of them, but another {what} fits better: compute the quantity for each, then compare."
        )

    return judge


def ready_components(lab: LabLike) -> list[str]:
    """Names of the components that are ready now; a baseline for `harm_done`."""
    status = lab.status()
    return [str(name) for name in status.index[status["ready"].astype(bool)]]


def parts_of(answer: Any, count: int, shape: str) -> tuple[tuple[Any, ...], str]:
    """
    The parts of an answer that has several, and what is wrong with it in words ("" if nothing).

    Args:
        answer: the learner's.
        count: how many parts are expected.
        shape: them in words, for the message: "(metric, label)".

    >>> parts_of(("a", 2), 2, "(name, number)")
    (('a', 2), '')
    >>> parts_of("a", 2, "(name, number)")[1]
    'Your answer is a str; 2 parts are expected: (name, number).'
    """
    if not isinstance(answer, tuple | list):
        return (), f"Your answer is {_kind(answer)}; {count} parts are expected: {shape}."
    if len(answer) != count:
        return (), f"Your answer has {len(answer)} parts; {count} are expected: {shape}."
    open_ = [str(number) for number, part in enumerate(answer, start=1) if part is ...]
    if open_:
        return (), f"Part {', '.join(open_)} of {shape} is still open."
    return tuple(answer), ""


def harm_done(exercise: Bound, ready: Sequence[str] | None = None) -> str:
    """
    A sentence naming what was ready at the baseline and is not now; empty when nothing was harmed.

    Destruction is told from the state of the lab, whoever caused it and however.

    Args:
        exercise: bound.
        ready: names of what was ready, from `ready_components`; the baseline itself if None.
    """
    status = exercise.lab.status()
    names = exercise.baseline if ready is None else ready
    lost = [name for name in names if name not in status.index or not bool(status.at[name, "ready"])]
    if not lost:
        return ""
    states = {name: str(status.at[name, "state"]) if name in status.index else "gone" for name in lost}
    seen = ", ".join(f"`{name}` ({state})" for name, state in states.items())
    were, are = ("was", "is") if len(lost) == 1 else ("were", "are")
    return (
        f"{seen} {were} ready when these exercises began and no longer {are}. "
        "Bring the lab back with `lab.reset()`, then answer again."
    )


def readable(number: float) -> str:
    """
    A number for people: grouped thousands, at most four significant digits after the point.

    >>> readable(1234567.0), readable(0.00123456), readable(12.5)
    ('1,234,567', '0.001235', '12.5')
    """
    if math.isfinite(number) and abs(number) >= 1000:
        return f"{number:,.0f}"
    return f"{number:.4g}"


def _as_number(answer: Any, unit: str) -> tuple[float, str]:
    if hasattr(answer, "item") and getattr(answer, "size", 0) == 1:
        answer = answer.item()
    if isinstance(answer, bool) or not isinstance(answer, numbers.Real):
        return math.nan, f"Your answer is {_kind(answer)}; a single number of {unit} is expected."
    number = float(answer)
    if not math.isfinite(number):
        return math.nan, f"Your answer is {number}: no data is not a number of {unit}. Does the query match any series?"
    return number, ""


def _kind(answer: Any) -> str:
    name = type(answer).__name__
    return "None" if answer is None else f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def _distance(number: float, target: float) -> float:
    """Relative distance; infinite when the target is unknown."""
    if not math.isfinite(target):
        return math.inf
    if number == target:
        return 0.0
    return abs(number - target) / max(abs(number), abs(target))


def _direction(number: float, right: float, unit: str, says: str) -> str:
    factor = number / right if right else math.inf
    if number <= 0:
        size = f"and {says} more than none"
    elif factor > 2:
        size = f"which is more than twice what {says}"
    elif factor < 0.5:
        size = f"which is less than half of what {says}"
    elif says == _COUNTERS:
        size = f"which is too {'high' if factor > 1 else 'low'} by more than the few seconds since your query explain"
    else:
        size = f"which is too {'high' if factor > 1 else 'low'}: {says} otherwise"
    return f"You have {readable(number)} {unit}, {size}."
