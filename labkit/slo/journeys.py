"""
What a journey through several dependencies can promise, and what it kept.

    series([0.999, 0.995])            0.994005, if the two fail independently
    bounds([0.999, 0.995])            from 0.994 to 0.995, whatever they do together
    needed(0.99, 3)                   what each of three must keep for 99 % in the worst case
    journey_reports(journeys, report) both, beside what the journey's own objective measured

A journey works when every step of it does.  How often that is does not follow from the steps alone: failures that
coincide cost the journey once, failures that do not add up.  So a product states its assumption, and the bounds hold
without one.  Sources and derivations: docs/slo-report.md.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from labkit.errors import ConfigInvalid, InvalidValue, UnknownName
from labkit.slo.arithmetic import as_objective
from labkit.slo.report import Report
from labkit.slo.spec_values import Name

__all__ = [
    "Journey",
    "JourneyReport",
    "as_journeys",
    "bounds",
    "journey_reports",
    "needed",
    "series",
]

_Ratio = Fraction | float


@dataclass(frozen=True, slots=True)
class Journey:
    """
    What a user does that needs several things to work.

    Attributes:
        name: of the journey.
        steps: names of the objectives of its dependencies; one that is called twice is listed twice.
        measured: name of the journey's own objective, which counts whole journeys; "" without one.
        description: for people.
    """

    name: str
    steps: tuple[str, ...]
    measured: str = ""
    description: str = ""


@dataclass(frozen=True, slots=True)
class JourneyReport:
    """
    What a journey kept.

    Attributes:
        journey: which one.
        achieved: by the objective of each step; None when unknown.
        product: success of the journey if its steps fail independently; None when a step is unknown.
        low, high: bounds that hold however they fail; `low` is 0 when a step is unknown.
        measured: what the journey's own events say; None without.
        promised: what the objectives of the steps promise together in the worst case.
    """

    journey: Journey
    achieved: Mapping[str, Fraction | None]
    product: Fraction | None
    low: Fraction
    high: Fraction
    measured: Fraction | None
    promised: Fraction

    @property
    def finding(self) -> str:
        """What the numbers say, in a sentence."""
        span = f"between {_percent(self.low)} and {_percent(self.high)}"
        if self.product is None:
            missing = ", ".join(name for name, one in self.achieved.items() if one is None)
            return f"{missing} is unknown, so of {self.journey.name} only the bounds are known: {span}."
        if self.measured is None:
            return (
                f"{self.journey.name} worked {_percent(self.product)} of the time if its steps fail independently, and "
                f"{span} whatever they do together; it has no counts of its own."
            )
        if self.measured < self.low or self.measured > self.high:
            return (
                f"{self.journey.name} worked {_percent(self.measured)} of the time, which its steps cannot explain "
                f"({span}): a step is missing from the journey, or the two count different events."
            )
        if self.measured > self.product:
            how = "more often than if its steps failed independently: their failures coincide"
        elif self.measured == self.product:
            how = "as if its steps failed independently"
        else:
            how = "less often than if its steps failed independently: their failures avoid one another"
        return f"{self.journey.name} worked {_percent(self.measured)} of the time, {how} ({_percent(self.product)})."

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it: fractions as floats, None for unknown."""
        return {
            "name": self.journey.name,
            "description": self.journey.description,
            "steps": list(self.journey.steps),
            "achieved": {name: _float(one) for name, one in self.achieved.items()},
            "product": _float(self.product),
            "low": float(self.low),
            "high": float(self.high),
            "measured": _float(self.measured),
            "promised": float(self.promised),
            "finding": self.finding,
        }


def series(ratios: Sequence[_Ratio]) -> Fraction:
    """
    How often all of several things work, if they fail independently: the product.

    Assumes what is seldom true: a shared network, database or deploy makes failures coincide.

    Args:
        ratios: fractions of good events, in [0, 1]; at least one.

    Raises:
        InvalidValue: no ratio, or one outside [0, 1].

    >>> float(series([0.999, 0.995]))
    0.994005
    """
    return math.prod(_checked(ratios), start=Fraction(1))


def bounds(ratios: Sequence[_Ratio]) -> tuple[Fraction, Fraction]:
    """
    The least and the most that all of several things can work together, however their failures go together.

    At worst no two fail at once, and the failures add up; at best all failures lie within those of the weakest.
    Source: the Fréchet inequalities for a conjunction.

    Args:
        ratios: fractions of good events, in [0, 1]; at least one.

    Raises:
        InvalidValue: no ratio, or one outside [0, 1].

    >>> [float(edge) for edge in bounds([0.999, 0.995])]
    [0.994, 0.995]
    """
    exact = _checked(ratios)
    return max(Fraction(0), 1 - sum((1 - ratio for ratio in exact), Fraction(0))), min(exact)


def needed(objective: _Ratio, steps: int) -> Fraction:
    """
    What each of equal steps must keep so that a journey keeps *objective* even if no two failures coincide.

    Args:
        objective: fraction of good journeys, in (0, 1).
        steps: number of dependencies, 1 or more.

    Raises:
        InvalidValue: the objective is outside (0, 1), or there is no step.

    >>> float(needed(0.99, 2))
    0.995
    """
    if steps < 1:
        raise InvalidValue("steps", expected="1 or more", got=steps)
    return 1 - (1 - as_objective(objective)) / steps


def journey_reports(journeys: Sequence[Journey], report: Report) -> list[JourneyReport]:
    """
    What each journey kept, by a report on the objectives of its steps.

    The windows of the objectives should be alike: what was kept over a week and over a month does not multiply.

    Raises:
        UnknownName: a journey names an objective that the report lacks.
        InvalidValue: the steps of a journey have different windows.
    """
    return [_journey_report(journey, report) for journey in journeys]


def _journey_report(journey: Journey, report: Report) -> JourneyReport:
    rows = {name: report[name] for name in journey.steps}
    own = report[journey.measured] if journey.measured else None
    windows = {row.slo.name: row.slo.window for row in (*rows.values(), *((own,) if own else ()))}
    if len(set(windows.values())) > 1:
        shown = ", ".join(f"{name}: {window}" for name, window in windows.items())
        raise InvalidValue(f"windows of the objectives of {journey.name}", expected="all the same", got=shown)
    achieved = {name: row.achieved for name, row in rows.items()}
    each = [achieved[name] for name in journey.steps]
    known = [one for one in each if one is not None]
    low, high = bounds(known) if known else (Fraction(0), Fraction(1))
    complete = len(known) == len(each)
    return JourneyReport(
        journey=journey,
        achieved=achieved,
        product=series(known) if complete else None,
        low=low if complete else Fraction(0),
        high=high,
        measured=own.achieved if own else None,
        promised=bounds([rows[name].slo.objective for name in journey.steps])[0],
    )


class JourneyForm(BaseModel):
    """A journey in a file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Name
    steps: Annotated[list[str], Field(min_length=1)]
    measured: str = ""
    description: str = ""

    def journey(self) -> Journey:
        """The journey."""
        return Journey(self.name, tuple(self.steps), self.measured, self.description)


def as_journeys(raw: Sequence[Mapping[str, Any]], slos: Sequence[str]) -> list[Journey]:
    """
    Journeys from the mappings that a specification file has under `journeys`.

    Args:
        raw: as `SpecFile.journeys` has them.
        slos: names of the objectives that there are.

    Raises:
        ConfigInvalid: a mapping is no journey; every mistake with its place.
        UnknownName: a journey names an objective that there is not.

    >>> as_journeys([{"name": "buy", "steps": ["search", "pay"]}], ["search", "pay"])
    [Journey(name='buy', steps=('search', 'pay'), measured='', description='')]
    """
    try:
        forms = [JourneyForm.model_validate(dict(one)) for one in raw]
    except ValidationError as error:
        problems = [f"`{'.'.join(str(part) for part in one['loc'])}`: {one['msg']}" for one in error.errors()]
        raise ConfigInvalid("journeys", problems=problems) from error
    return _known([form.journey() for form in forms], slos)


def _known(journeys: list[Journey], slos: Sequence[str]) -> list[Journey]:
    for journey in journeys:
        for name in (*journey.steps, *((journey.measured,) if journey.measured else ())):
            if name not in slos:
                raise UnknownName("objective", name, known=slos, how=f"Journey {journey.name} names it.")
    return journeys


def _checked(ratios: Sequence[_Ratio]) -> list[Fraction]:
    exact = [ratio if isinstance(ratio, Fraction) else _decimal(ratio) for ratio in ratios]
    if not exact or any(not 0 <= ratio <= 1 for ratio in exact):
        raise InvalidValue("ratios", expected="one or more fractions from 0 to 1", got=list(ratios))
    return exact


def _decimal(ratio: float) -> Fraction:
    # nan and infinity are no ratios; 2 is none either, and the message shows the list.
    return Fraction(repr(float(ratio))) if math.isfinite(ratio) else Fraction(2)


def _percent(ratio: Fraction) -> str:
    return f"{float(ratio) * 100:.6g} %"


def _float(value: Fraction | None) -> float | None:
    return None if value is None else float(value)
