"""
Exercises: three outcomes, stepped hints, and a strict mode that raises.

    ex.q1.check(answer)     not attempted · not yet, because … · correct
    ex.q1.hint()            one step further each time

An exercise holds no reference answer.  Its judge recomputes what it expects from the lab when asked, and
compares; what the lab looked like when the exercises were bound (the *baseline*) tells destruction from repair.
"""

from __future__ import annotations

import difflib
import html
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from labkit.course._types import LabLike
from labkit.errors import ExerciseFailed
from labkit.settings import load_settings

__all__ = [
    "CHECK_MIME",
    "Bound",
    "Exercise",
    "ExerciseSet",
    "Outcome",
    "Verdict",
    "correct",
    "not_attempted",
    "not_yet",
]

CHECK_MIME = "application/vnd.labkit.check+json"


class Outcome(Enum):
    """How a check ended; the values are the words that people read."""

    NOT_ATTEMPTED = "not attempted"
    NOT_YET = "not yet"
    CORRECT = "correct"


@dataclass(frozen=True, slots=True)
class Verdict:
    """An outcome and the sentence that explains it."""

    outcome: Outcome
    because: str


def correct(because: str = "") -> Verdict:
    """The answer stands."""
    return Verdict(Outcome.CORRECT, because)


def not_yet(because: str) -> Verdict:
    """The answer does not stand, for the reason given."""
    return Verdict(Outcome.NOT_YET, because)


def not_attempted() -> Verdict:
    """The stub is untouched."""
    return Verdict(Outcome.NOT_ATTEMPTED, "Replace the dots with your answer and run both cells again.")


Judge = Callable[["Bound", Any], Verdict]


@dataclass(frozen=True, slots=True)
class Exercise:
    """
    One exercise, before it is bound to a lab.

    Attributes:
        id: notebook and number, "00-1".
        title: what it asks, in a few words.
        judge: takes the bound exercise and an answer that is not `...`; returns a verdict.
        hints: from a nudge to nearly the answer; at least two.
        baseline: called once when bound; what it returns is `Bound.baseline`.
    """

    id: str
    title: str
    judge: Judge
    hints: tuple[str, ...]
    baseline: Callable[[LabLike], Any] | None = None

    def bind(self, lab: LabLike) -> Bound:
        """The exercise of one learner on *lab*, with the baseline taken now."""
        return Bound(self, lab, self.baseline(lab) if self.baseline else None)


class Bound:
    """An exercise on a lab: what `ex.q1` is."""

    __slots__ = ("_exercise", "_hints_shown", "baseline", "lab")

    def __init__(self, exercise: Exercise, lab: LabLike, baseline: Any) -> None:
        self._exercise, self._hints_shown = exercise, 0
        self.lab, self.baseline = lab, baseline

    @property
    def id(self) -> str:
        """Notebook and number."""
        return self._exercise.id

    @property
    def title(self) -> str:
        """What it asks, in a few words."""
        return self._exercise.title

    def judge(self, answer: Any) -> Verdict:
        """The verdict on *answer*, silently; `...` (or several that are all `...`) is not attempted."""
        if answer is ... or (isinstance(answer, tuple) and answer and all(part is ... for part in answer)):
            return not_attempted()
        return self._exercise.judge(self, answer)

    def check(self, answer: Any) -> None:
        """
        Judge *answer* and show the verdict.

        Raises:
            ExerciseFailed: in strict mode (LABKIT_STRICT=1; batch and CI), unless the answer is correct.
                The verdict is shown first, so that the executed notebook has it.
        """
        verdict = self.judge(answer)
        _show(_Shown(self, verdict))
        if load_settings().strict and verdict.outcome is not Outcome.CORRECT:
            raise ExerciseFailed(f"{self.id} ({self.title})", outcome=verdict.outcome.value, because=verdict.because)

    def hint(self) -> None:
        """Show the next hint; the last one stays."""
        hints = self._exercise.hints
        self._hints_shown = min(self._hints_shown + 1, len(hints))
        _show(_Hint(self, self._hints_shown, len(hints), hints[self._hints_shown - 1]))

    def __repr__(self) -> str:
        return f"<exercise {self.id}: {self.title}>"


@dataclass(frozen=True, slots=True)
class _Shown:
    """A verdict as a notebook shows it, readable by programs too."""

    exercise: Bound
    verdict: Verdict

    def __repr__(self) -> str:
        ending = " Hint: `hint()`." if self.verdict.outcome is Outcome.NOT_YET else ""
        return (
            f"{self.exercise.id} ({self.exercise.title}): {self.verdict.outcome.value}. {self.verdict.because}{ending}"
        )

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:  # noqa: ARG002
        data = {
            "exercise": self.exercise.id,
            "title": self.exercise.title,
            "outcome": self.verdict.outcome.name.lower(),
            "message": self.verdict.because,
        }
        return {
            "text/plain": repr(self),
            "text/html": _box(repr(self), _COLOURS[self.verdict.outcome]),
            CHECK_MIME: data,
        }


@dataclass(frozen=True, slots=True)
class _Hint:
    exercise: Bound
    number: int
    of: int
    text: str

    def __repr__(self) -> str:
        return f"{self.exercise.id}, hint {self.number} of {self.of}: {self.text}"

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:  # noqa: ARG002
        return {"text/plain": repr(self), "text/html": _box(repr(self), "#6b7280")}


# Colour supports the words, which always say the outcome.
_COLOURS = {Outcome.NOT_ATTEMPTED: "#6b7280", Outcome.NOT_YET: "#b45309", Outcome.CORRECT: "#15803d"}


def _box(text: str, colour: str) -> str:
    head, _, rest = text.partition(". ")
    code = html.escape(rest).split("`")
    body = "".join(f"<code>{part}</code>" if index % 2 else part for index, part in enumerate(code))
    return (
        f'<div class="labkit-check" style="border-left:4px solid {colour};padding:.4em .9em;margin:.3em 0">'
        f"<strong>{html.escape(head)}.</strong> {body}</div>"
    )


def _show(shown: object) -> None:
    from IPython.display import display  # noqa: PLC0415  (heavy, and only needed when something is shown)

    display(shown)  # type: ignore[no-untyped-call]


class ExerciseSet:
    """The exercises of one notebook as attributes `q1`, `q2` and so on."""

    def __init__(self, exercises: Sequence[Exercise], lab: LabLike) -> None:
        self._bound = {f"q{number}": exercise.bind(lab) for number, exercise in enumerate(exercises, start=1)}

    def __getattr__(self, name: str) -> Bound:
        bound: dict[str, Bound] = self.__dict__.get("_bound", {})
        if name in bound:
            return bound[name]
        close = difflib.get_close_matches(name, bound, n=1)
        known = f"did you mean {close[0]}?" if close else f"there are {', '.join(bound)}."
        raise AttributeError(f"this notebook has no exercise {name!r}; {known}")

    def __iter__(self) -> Iterator[Bound]:
        return iter(self._bound.values())

    def __dir__(self) -> list[str]:
        return list(self._bound)

    def __repr__(self) -> str:
        return "\n".join(f"{name}: {bound.title}" for name, bound in self._bound.items())
