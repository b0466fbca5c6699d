"""
The history of objectives: which one was in force when, and what a budget is across a change.

    log = load_log("objectives.yaml")
    log.at("checkout", instant)                     the objective in force, or None before the first
    log.segments("checkout", start, end)            stretches of time with one objective each
    log.budget("checkout", counts, start, end)      each stretch with its own objective, added up

A changed objective does not rewrite the past: what was allowed under the old one stays allowed.  The file, one entry
per change, in the order of time:

    objectives:
      - slo: checkout
        changes:
          - {from: 2026-01-01T00:00:00Z, objective: 99.5%, reason: "first guess, from a month of counts"}
          - {from: 2026-03-01T00:00:00Z, objective: 99.9%, reason: "users complained at 99.6 %", approved: "product"}
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Self

import pandas as pd
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from labkit._time import as_utc
from labkit._yaml import Misplaced, Place, parse_model, read_text
from labkit.errors import InvalidValue, UnknownName
from labkit.slo.counts import checked, sums
from labkit.slo.model import Slo
from labkit.slo.objective import format_percentage
from labkit.slo.spec_values import Name, Objective

__all__ = ["Change", "LogBudget", "ObjectiveLog", "Segment", "load_log", "parse_log"]


@dataclass(frozen=True, slots=True)
class Change:
    """An objective that began to hold: from when (UTC), which, why, and who agreed."""

    since: datetime
    objective: Fraction
    reason: str
    approved: str = ""


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of time with one objective; None before the first one."""

    start: datetime
    end: datetime
    objective: Fraction | None


@dataclass(frozen=True, slots=True)
class LogBudget:
    """
    A budget across changes of the objective, exact.

    Attributes:
        bad, total: events under any objective.
        allowed: events that may be bad: the sum over the stretches of (1 - objective) * total.
        without: events before the first objective, which allow and spend nothing.
    """

    bad: Fraction
    total: Fraction
    allowed: Fraction
    without: Fraction

    @property
    def spent(self) -> Fraction | None:
        """Spent budgets; None without events."""
        return self.bad / self.allowed if self.allowed else None


class ObjectiveLog:
    """
    Objectives over time.

    Args:
        changes: by the name of the SLO, in the order of time.

    Raises:
        InvalidValue: changes of one SLO are not in the order of time, or it has none.
    """

    def __init__(self, changes: dict[str, Sequence[Change]]) -> None:
        for name, each in changes.items():
            times = [change.since for change in each]
            if not times or any(later <= earlier for earlier, later in pairwise(times)):
                raise InvalidValue(f"changes of {name}", expected="one or more, each later than the last", got=times)
        self._changes = {name: tuple(each) for name, each in changes.items()}

    @property
    def slos(self) -> list[str]:
        """Names of the SLOs that have a history, sorted."""
        return sorted(self._changes)

    def changes(self, slo: str) -> tuple[Change, ...]:
        """All changes of *slo* in the order of time; UnknownName when it has no history."""
        if slo not in self._changes:
            raise UnknownName("SLO with a history of objectives", slo, known=self.slos)
        return self._changes[slo]

    def at(self, slo: str, instant: datetime) -> Fraction | None:
        """
        The objective in force; at the very instant of a change that is the new one.  None before the first.

        Raises:
            UnknownName: *slo* has no history.
            ValueError: *instant* has no time zone.
        """
        when = as_utc(instant)
        return next((change.objective for change in reversed(self.changes(slo)) if change.since <= when), None)

    def segments(self, slo: str, start: datetime, end: datetime) -> list[Segment]:
        """
        The stretches between *start* and *end* in which one objective holds; they leave no gap.

        Raises:
            UnknownName: *slo* has no history.
            InvalidValue: *end* is not after *start*.
            ValueError: an instant has no time zone.
        """
        first, last = as_utc(start), as_utc(end)
        if last <= first:
            raise InvalidValue("end", expected=f"after start, which is {first.isoformat()}", got=last.isoformat())
        inside = [change.since for change in self.changes(slo) if first < change.since < last]
        return [Segment(begin, stop, self.at(slo, begin)) for begin, stop in pairwise([first, *inside, last])]

    def budget(self, slo: str, counts: pd.DataFrame, start: datetime, end: datetime) -> LogBudget:
        """
        What the objectives of their time allowed of the events between *start* and *end*, and what was spent.

        Args:
            slo: whose history.
            counts: events per step; a step across a change belongs to the new objective.
            start: aware instant.
            end: aware instant.

        Raises:
            UnknownName, InvalidValue, ValueError: as in `segments`; the counts cannot be.
        """
        found = checked(counts)
        bad = total = allowed = without = Fraction(0)
        for segment in self.segments(slo, start, end):
            events = sums(found, segment.start, segment.end)
            if segment.objective is None:
                without += events.total
                continue
            bad, total = bad + events.bad, total + events.total
            allowed += (1 - segment.objective) * events.total
        return LogBudget(bad, total, allowed, without)

    def differences(self, slos: Sequence[Slo], at: datetime) -> list[str]:
        """
        Where specifications promise something else than the log says, a sentence each; empty when they agree.

        SLOs without a history are left out.
        """
        found = []
        for slo in slos:
            if slo.name not in self._changes:
                continue
            logged = self.at(slo.name, at)
            if logged != slo.objective:
                says = format_percentage(logged) if logged is not None else "nothing yet"
                spec = format_percentage(slo.objective)
                found.append(
                    f"{slo.name}: the specification promises {spec}, the log of objectives says {says}; "
                    f"add the change to the log, with its reason."
                )
        return found

    def frame(self) -> pd.DataFrame:
        """All changes: `slo, since, objective` (float), `reason, approved`, by SLO and time; empty without any."""
        rows = [
            (name, change.since, float(change.objective), change.reason, change.approved)
            for name in self.slos
            for change in self._changes[name]
        ]
        table = pd.DataFrame(rows, columns=["slo", "since", "objective", "reason", "approved"])
        return table.assign(since=pd.to_datetime(table["since"], utc=True))


def _instant(value: object) -> object:
    # YAML makes a datetime of what looks like one, without a time zone when none is written.
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            raise InvalidValue("instant", expected="a time such as 2026-03-01T00:00:00Z", got=value) from None
    if not isinstance(value, datetime) or value.tzinfo is None:
        raise InvalidValue("instant", expected="a time with its zone, such as 2026-03-01T00:00:00Z", got=str(value))
    return as_utc(value)


class _Form(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ChangeForm(_Form):
    """One change in the file."""

    since: Annotated[datetime, BeforeValidator(_instant)] = Field(alias="from")
    objective: Objective
    reason: Annotated[str, Field(min_length=1)]
    approved: str = ""


class HistoryForm(_Form):
    """The changes of one SLO in the file."""

    slo: Name
    changes: Annotated[list[ChangeForm], Field(min_length=1)]

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        problems: list[tuple[Place, str]] = [
            (("changes", number, "from"), f"must be later than the change before it, {earlier.since.isoformat()}")
            for number, (earlier, later) in enumerate(pairwise(self.changes), start=1)
            if later.since <= earlier.since
        ]
        if problems:
            raise Misplaced(problems)
        return self


class LogForm(_Form):
    """The file."""

    objectives: list[HistoryForm]

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        if problems := list(self._repeated()):
            raise Misplaced(problems)
        return self

    def _repeated(self) -> Iterator[tuple[Place, str]]:
        seen: set[str] = set()
        for number, history in enumerate(self.objectives):
            if history.slo in seen:
                yield ("objectives", number, "slo"), f"{history.slo!r} has a history above; one list per SLO"
            seen.add(history.slo)


def load_log(path: Path) -> ObjectiveLog:
    """
    Read a history of objectives.

    Raises:
        ConfigInvalid: every mistake with line and column.
        FileNotFoundError: there is no such file.
    """
    return parse_log(read_text(path), str(path))


def parse_log(text: str, source: str = "the log of objectives") -> ObjectiveLog:
    '''
    As `load_log`, from text.

    >>> log = parse_log("""
    ... objectives:
    ... - slo: checkout
    ...   changes:
    ...   - {from: 2026-01-01T00:00:00Z, objective: 99.5%, reason: first guess}
    ...   - {from: 2026-03-01T00:00:00Z, objective: 99.9%, reason: users noticed}
    ... """)
    >>> log.at("checkout", datetime.fromisoformat("2026-02-01T00:00:00+00:00"))
    Fraction(199, 200)
    '''
    form = parse_model(LogForm, text, source)
    return ObjectiveLog(
        {
            history.slo: [
                Change(change.since, change.objective, change.reason, change.approved) for change in history.changes
            ]
            for history in form.objectives
        }
    )
