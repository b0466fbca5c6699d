"""Which exercises belong to which notebook: found by name, `ex00.py` for notebook 00."""

from __future__ import annotations

import difflib
import pkgutil
from importlib import import_module
from pathlib import Path

from labkit.course._types import LabLike
from labkit.course.exercise import Exercise, ExerciseSet

__all__ = ["all_exercises", "exercises", "numbers"]


def numbers() -> list[str]:
    """The notebooks that have exercises, in order: "00", "01" and so on."""
    found = pkgutil.iter_modules([str(Path(__file__).parent)])
    return sorted(name[2:] for _, name, _ in found if name.startswith("ex") and name[2:].isdigit())


def exercises(number: str, lab: LabLike) -> ExerciseSet:
    """
    The exercises of notebook *number*, bound to *lab*; what they compare the lab with is recorded now.

    Raises:
        LookupError: no notebook of that number has exercises; the message lists those that do.
    """
    return ExerciseSet(_of(number), lab)


def all_exercises() -> list[Exercise]:
    """Every exercise of the course, in order."""
    return [exercise for number in numbers() for exercise in _of(number)]


def _of(number: str) -> tuple[Exercise, ...]:
    known = numbers()
    if number not in known:
        close = difflib.get_close_matches(number, known, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(known)}"
        raise LookupError(f"no notebook {number!r} has exercises; {hint}")
    found: tuple[Exercise, ...] = import_module(f"labkit.course.ex{number}").EXERCISES
    return found
