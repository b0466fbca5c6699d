"""The form of a specification file: which keys it has, and what they become."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationInfo,
    field_validator,
    model_validator,
)

from labkit._yaml import Misplaced, Place
from labkit.errors import InvalidValue
from labkit.slo import spec_checks
from labkit.slo.journeys import JourneyForm
from labkit.slo.model import (
    Budgeting,
    BurnAlert,
    Calendar,
    CalendarUnit,
    EventSli,
    FreshnessSli,
    LatencySli,
    Method,
    Policy,
    Severity,
    Sli,
    Slo,
    ThroughputSli,
    Window,
)
from labkit.slo.release_form import ReleaseForm
from labkit.slo.spec_promql import counting
from labkit.slo.spec_values import (
    Amount,
    Hold,
    LabelNames,
    Length,
    Name,
    Objective,
    RollingWindow,
    Share,
    SliceTarget,
    seconds_in,
)
from labkit.slo.windows import parse_calendar

__all__ = ["Form", "PolicyForm", "SloForm", "SpecForm", "event_problems", "event_sli"]


def event_problems(good: str | None, bad: str | None, total: str | None) -> Iterator[tuple[Place, str]]:
    """What is wrong with the queries of an event SLI, each with the key of the query: `good`, `bad` or `total`."""
    if good is not None and bad is not None:
        yield ("bad",), "says the same as `good`; give one of the two"
    if total is None:
        yield ("total",), "is missing"
    if good is None and bad is None:
        yield ("good",), "is missing (or `bad`)"
    clashes = False
    for name, part in (("good", good), ("bad", bad)):
        if part is None or total is None:
            continue
        if part.split() == total.split():
            yield (name,), f"is the same query as `total`: every event would be {name}"
        if clash := spec_checks.unmatched(part, total):
            clashes = True
            yield (name,), clash
    for name, part in (("good", good), ("bad", bad), ("total", total)):
        for problem in spec_checks.count_problems(part) if part is not None else ():
            # The clash says it already, and better.
            if not (clashes and problem.startswith("gives one value")):
                yield (name,), problem


def event_sli(good: str | None, bad: str | None, total: str, name: str = "", description: str = "") -> EventSli:
    """An event SLI whose queries count events, also where they were written with `rate`."""
    parts = [counting(part.strip()) if part is not None else None for part in (good, bad)]
    return EventSli(counting(total.strip()), parts[0], parts[1], name=name, description=description)


def _histogram(query: str) -> str:
    if isinstance(found := spec_checks.histogram_in(query), str):
        raise Misplaced([((), found)])
    return query


def _level(query: str) -> str:
    if problems := spec_checks.level_problems(query):
        raise Misplaced([((), problem) for problem in problems])
    return query.strip()


def _in_unit(cls: object, value: object, info: ValidationInfo) -> object:  # noqa: ARG001
    # A wrong unit has an error of its own.
    if "unit" in info.data:
        seconds_in(value, info.data["unit"])
    return value


Level = Annotated[str, AfterValidator(_level)]


class Form(BaseModel):
    """Keys with values; none but those that are known, and what is wrong between them is said at its place."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if problems := list(self.problems()):
            raise Misplaced(problems)
        return self

    def problems(self) -> Iterator[tuple[Place, str]]:
        """What is wrong with values that are right by themselves; places are below this form."""
        yield from ()


class _SliForm(Form):
    name: str = Field("", description="what is measured, in a word")
    description: str = ""


class AvailabilityForm(_SliForm):
    """The share of events that are good: `good` or `bad`, and `total`; or a `query` that divides them."""

    target_type: Literal["availability"]
    unit: Literal["ratio", "percent"] | None = Field(None, description="what `query` gives")
    good: str | None = Field(None, description="PromQL that counts good events in $window")
    bad: str | None = Field(None, description="PromQL that counts bad events in $window")
    total: str | None = Field(None, description="PromQL that counts all events in $window")
    query: str | None = Field(None, description="good / total, or 1 - bad / total, perhaps * 100")

    def problems(self) -> Iterator[tuple[Place, str]]:
        """Queries that cannot count, do not match, are missing or given twice."""
        if self.query is None:
            yield from event_problems(self.good, self.bad, self.total)
            return
        parts = spec_checks.divided(self.query)
        if given := [name for name in ("good", "bad", "total") if getattr(self, name) is not None]:
            yield ("query",), f"says the same as `{given[0]}`; give one of the two"
        elif isinstance(parts, str):
            yield ("query",), parts
        else:
            if self.unit is not None and (self.unit == "percent") != parts.percent:
                gives = "a percentage, it multiplies by 100" if parts.percent else "a ratio, nothing multiplies by 100"
                yield ("unit",), f"is {self.unit}, but `query` gives {gives}"
            found = event_problems(parts.good, parts.bad, parts.total)
            yield from ((("query",), message) for message in dict.fromkeys(message for _, message in found))

    def sli(self) -> Sli:
        """The indicator."""
        good, bad, total = self.good, self.bad, self.total
        if self.query is not None and isinstance(parts := spec_checks.divided(self.query), spec_checks.Division):
            good, bad, total = parts.good, parts.bad, parts.total
        return event_sli(good, bad, total or "", self.name, self.description)


class LatencyForm(_SliForm):
    """The share of requests that took at most `bound`, from the histogram that `query` names."""

    target_type: Literal["latency"]
    query: Annotated[str, AfterValidator(_histogram)] = Field(
        description="name of a histogram with its matchers: http_request_duration_seconds{job=…}"
    )
    unit: Literal["milliseconds", "seconds"] | None = Field(None, description="of `bound`, when it is a number")
    bound: Amount = Field(description="the longest good request: 250ms, or 250 with its unit; a bucket must end there")

    _bound_in_unit = field_validator("bound")(_in_unit)

    def sli(self) -> Sli:
        """The indicator."""
        found = spec_checks.histogram_in(self.query)
        name, selector = (found, "") if isinstance(found, str) else found
        bound_s = seconds_in(self.bound, self.unit)
        return LatencySli(name, bound_s, selector, name=self.name, description=self.description)


class ThroughputForm(_SliForm):
    """The share of slices of time in which `query`, events per second, is at least `minimum`."""

    target_type: Literal["throughput"]
    query: Level = Field(description="PromQL of one value, events per second")
    minimum: float = Field(gt=0, allow_inf_nan=False)
    unit: Literal["per_second", "per_minute"] = Field("per_second", description="of `minimum`")
    slice: Length = 60

    def sli(self) -> Sli:
        """The indicator."""
        minimum = self.minimum / (60 if self.unit == "per_minute" else 1)
        return ThroughputSli(self.query, minimum, self.slice, name=self.name, description=self.description)


class FreshnessForm(_SliForm):
    """The share of slices of time in which `query`, the age of data in seconds, is at most `maximum`."""

    target_type: Literal["freshness"]
    query: Level = Field(description="PromQL of one value, seconds")
    unit: Literal["seconds", "minutes", "hours"] | None = Field(None, description="of `maximum`, when it is a number")
    maximum: Amount = Field(description="the greatest good age: 5m, or 5 with its unit")
    slice: Length = 60

    _maximum_in_unit = field_validator("maximum")(_in_unit)

    def sli(self) -> Sli:
        """The indicator."""
        maximum_s = seconds_in(self.maximum, self.unit)
        return FreshnessSli(self.query, maximum_s, self.slice, name=self.name, description=self.description)


SliForm = Annotated[
    AvailabilityForm | LatencyForm | ThroughputForm | FreshnessForm,
    Field(discriminator="target_type"),
]


class CalendarForm(Form):
    """A calendar window: from midnight in `timezone`; weeks start on Monday."""

    calendar: CalendarUnit
    timezone: str = Field("UTC", description="an IANA name")

    def problems(self) -> Iterator[tuple[Place, str]]:
        """A time zone that nobody knows."""
        try:
            self.window()
        except InvalidValue as error:
            yield ("timezone",), str(error)

    def window(self) -> Calendar:
        """The window."""
        return parse_calendar(self.calendar, self.timezone)


def _window_tag(value: object) -> str:
    return "calendar window" if isinstance(value, dict | CalendarForm) else "rolling window"


WindowForm = Annotated[
    Annotated[CalendarForm, Tag("calendar window")] | Annotated[RollingWindow, Tag("rolling window")],
    Discriminator(_window_tag),
]


class BudgetingForm(Form):
    """How bad is counted: by events, or by slices of time."""

    method: Method
    slice: Length | None = Field(None, description="length of a slice, 1m if not given")
    slice_target: SliceTarget | None = Field(None, description="share of good events that makes a slice good")

    def problems(self) -> Iterator[tuple[Place, str]]:
        """A slice that would be of no use, a target that is missing."""
        if self.method == "timeslices" and self.slice_target is None:
            yield ("slice_target",), "is missing: which share of good events makes a slice good?"
        if self.method == "ratio-timeslices" and self.slice_target is not None:
            yield ("slice_target",), "is of no use for ratio-timeslices, which take every slice's ratio as it is"
        if self.method == "occurrences":
            for name in ("slice", "slice_target"):
                if getattr(self, name) is not None:
                    yield (name,), "is of no use for occurrences, which know no slices"

    def budgeting(self) -> Budgeting:
        """The method."""
        return Budgeting(self.method, self.slice or 60, self.slice_target)


def _spelled_out(value: object) -> object:
    return {"method": value} if isinstance(value, str) else value


class SloForm(Form):
    """One objective."""

    name: Name
    service: str = ""
    description: str = ""
    target: Objective
    window: WindowForm
    sli: SliForm
    budgeting: Annotated[
        BudgetingForm, BeforeValidator(_spelled_out, json_schema_input_type=BudgetingForm | Literal["occurrences"])
    ] = BudgetingForm(method="occurrences")
    owner: str = ""
    policy: str = Field("workbook", description="a policy of this file or a built-in one")
    runbook: str = ""
    labels: LabelNames = Field(default_factory=dict)

    def slo(self) -> Slo:
        """The objective."""
        window: Window = self.window.window() if isinstance(self.window, CalendarForm) else self.window
        return Slo(
            name=self.name,
            service=self.service,
            objective=self.target,
            window=window,
            sli=self.sli.sli(),
            description=self.description,
            budgeting=self.budgeting.budgeting(),
            owner=self.owner,
            policy=self.policy,
            runbook=self.runbook,
            labels=self.labels,
        )


class AlertForm(Form):
    """Fire when `budget_share` of the budget is spent within `long`, and it is still being spent in `short`."""

    budget_share: Share
    long: Length
    short: Length | None = None
    hold: Hold = Field(0, alias="for")
    severity: Severity = "page"

    @field_validator("short")
    @classmethod
    def _shorter(cls, short: int | None, info: ValidationInfo) -> int | None:
        if short is not None and short >= info.data.get("long", short + 1):
            raise Misplaced([((), "must be shorter than `long`: it is there to end the alert soon after its cause")])
        return short

    def alert(self) -> BurnAlert:
        """The alert."""
        return BurnAlert(self.budget_share, self.long, self.short, self.hold, self.severity)


class PolicyForm(Form):
    """Alerts that belong together."""

    name: Name
    title: str = ""
    source: str = ""
    alerts: Annotated[list[AlertForm], Field(min_length=1)]

    def policy(self) -> Policy:
        """The policy."""
        return Policy(self.name, tuple(alert.alert() for alert in self.alerts), self.title, self.source)


class SpecForm(Form):
    """A file of objectives, with the policies that it adds to the built-in ones."""

    slos: Annotated[list[SloForm], Field(min_length=1)]
    policies: list[PolicyForm] = []
    release: ReleaseForm | None = None
    journeys: list[JourneyForm] = []
