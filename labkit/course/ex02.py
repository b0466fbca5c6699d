"""The exercises of notebook 02, each in a module of its own topic."""

from __future__ import annotations

from labkit.course.ex02_alerts import CONTROL, FACTORS, POLICY
from labkit.course.ex02_drill import DRILL
from labkit.course.ex02_govern import DOUBT, GATE
from labkit.course.ex02_promise import ALLOWED, CHOICE, THREE_WAYS

__all__ = ["EXERCISES"]

EXERCISES = (CHOICE, ALLOWED, THREE_WAYS, FACTORS, POLICY, DRILL, GATE, DOUBT, CONTROL)
