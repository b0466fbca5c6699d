"""The form of a release policy in a file: which keys it has."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Annotated, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainValidator, model_validator

from labkit._yaml import Misplaced, Place
from labkit.errors import InvalidValue
from labkit.slo.model import Severity
from labkit.slo.spec_values import Length, Share
from labkit.slo.verdict import Status

__all__ = ["ReleaseFile", "ReleaseForm", "StepForm", "WhenForm"]


class _Form(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _listed(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _rate(value: object) -> Fraction:
    try:
        rate = Fraction(str(value))
    except ValueError:
        rate = Fraction(-1)
    if rate < 0:
        raise InvalidValue("burn rate", expected="a number from 0 up, such as 14.4", got=value)
    return rate


class BurnForm(_Form):
    """A burn rate over a window is above a bound."""

    window: Length
    rate: Annotated[Fraction, PlainValidator(_rate)]


class WhenForm(_Form):
    """What must all be true of an objective; without a key it always applies."""

    status: Annotated[tuple[Status, ...], BeforeValidator(_listed)] = ()
    remaining_below: Share | None = None
    burn_above: BurnForm | None = None
    alert: Severity | None = None
    exhausted_within: Length | None = None


class StepForm(_Form):
    """One step: when it applies and what follows."""

    name: str = ""
    when: WhenForm = WhenForm()
    then: Literal["allow", "approval", "deny"]
    because: str = ""
    exempt: list[str] = Field(default_factory=list, description="kinds of change that this step does not stop")

    @model_validator(mode="after")
    def _no_yes_to_unknown(self) -> Self:
        if self.then == "allow" and "unknown" in self.when.status:
            raise Misplaced([(("then",), "must not be allow for status unknown: unknown is not a yes; write approval")])
        return self


class ReleaseForm(_Form):
    """A release policy: its steps in order, the last without `when`."""

    name: str = "release"
    slos: list[str] = Field(default_factory=list, description="objectives that count; all if not given")
    steps: Annotated[list[StepForm], Field(min_length=1)]

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if problems := list(self._problems()):
            raise Misplaced(problems)
        return self

    def _problems(self) -> Iterator[tuple[Place, str]]:
        last = len(self.steps) - 1
        if self.steps[last].when != WhenForm():
            yield ("steps", last, "when"), "must not be in the last step, which applies when no other does"
        if self.steps[last].exempt:
            yield ("steps", last, "exempt"), "must not be in the last step, or nothing would apply to such changes"
        for number, step in enumerate(self.steps[:-1]):
            if step.when == WhenForm():
                yield ("steps", number), "always applies, so the steps below it never do; give it a `when`"


class ReleaseFile(BaseModel):
    """A file of which only `release` is looked at: what else it holds is for other readers."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    release: ReleaseForm | None = None
