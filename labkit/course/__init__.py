"""
The course: exercises and checks, one source for two editions, the batch runner and its report.

    ex = labkit.course.exercises("00", lab)
    ex.q1.check(answer)
    ex.q1.hint()
"""

from __future__ import annotations

from labkit._wait import wait_until
from labkit.course.catalogue import all_exercises, exercises
from labkit.course.exercise import Exercise, ExerciseSet, Outcome, Verdict

__all__ = ["Exercise", "ExerciseSet", "Outcome", "Verdict", "all_exercises", "exercises", "wait_until"]
