"""The exercises of notebook 01, each in a module of its own topic."""

from __future__ import annotations

from labkit.course.ex01_alerts import ALERTS
from labkit.course.ex01_calls import CONTROL, DRILL
from labkit.course.ex01_cardinality import CARDINALITY
from labkit.course.ex01_exporter import EXPORTER
from labkit.course.ex01_pillars import PILLARS
from labkit.course.ex01_queries import QUERIES

__all__ = ["EXERCISES"]

EXERCISES = (PILLARS, QUERIES, EXPORTER, ALERTS, CARDINALITY, CONTROL, DRILL)
