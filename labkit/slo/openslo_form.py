"""The form of OpenSLO v1 objects, as far as they are read (https://github.com/OpenSLO/OpenSLO)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date, datetime
from decimal import Decimal
from fractions import Fraction
from typing import Annotated, Any, Literal

from pydantic import Field, PlainValidator, RootModel, model_validator

from labkit._yaml import Place
from labkit.errors import InvalidValue
from labkit.slo.model import Calendar, CalendarUnit, Rolling, Window
from labkit.slo.spec_checks import level_problems, with_placeholder
from labkit.slo.spec_form import Form, event_problems
from labkit.slo.windows import parse_calendar

__all__ = [
    "AlertPolicy",
    "AnyObject",
    "Condition",
    "ConditionObject",
    "Indicator",
    "Metadata",
    "ObjectiveForm",
    "Objects",
    "OneObject",
    "Other",
    "SliObject",
    "SloObject",
    "Source",
    "shorthand",
]

_SHORTHAND = re.compile(r"(\d+)([mhdwMQY])")
_CALENDAR: dict[str, CalendarUnit] = {"d": "day", "w": "week", "M": "month", "Q": "quarter", "Y": "year"}
_SECONDS = {"m": 60, "h": 3600, "d": 86_400, "w": 604_800}


def shorthand(seconds: int) -> str:
    """
    A length of time as OpenSLO writes it, in the greatest unit that divides it.

    Raises:
        InvalidValue: parts of a minute have no spelling there.

    >>> shorthand(2_592_000), shorthand(5400)
    ('30d', '90m')
    """
    if seconds == 0:
        return "0m"
    for unit in ("d", "h", "m"):
        if seconds % _SECONDS[unit] == 0:
            return f"{seconds // _SECONDS[unit]}{unit}"
    raise InvalidValue("length of time", expected="whole minutes, which OpenSLO can write", got=f"{seconds}s")


def _lasting(value: object) -> tuple[int, str]:
    found = _SHORTHAND.fullmatch(value) if isinstance(value, str) else None
    if found and int(found[1]):
        return int(found[1]), found[2]
    raise InvalidValue("duration", expected="a number above 0 and one of m h d w M Q Y, such as 30d", got=value)


def _lasting_s(value: object) -> int:
    if value == "0m":
        return 0
    number, unit = _lasting(value)
    if unit not in _SECONDS:
        raise InvalidValue("duration", expected="a fixed length, in m, h, d or w", got=value)
    return number * _SECONDS[unit]


def _slice_s(value: object) -> int:
    # A number without unit is minutes, says the specification.
    return _lasting_s(f"{value}m" if isinstance(value, int) and not isinstance(value, bool) else value)


def _fraction(value: object) -> Fraction:
    if isinstance(value, int | Decimal) and not isinstance(value, bool) and 0 < value < 1:
        return Fraction(value)
    raise InvalidValue("target", expected="a fraction above 0 and below 1, such as 0.999", got=_plain(value))


def _percentage(value: object) -> Fraction:
    if isinstance(value, int | Decimal) and not isinstance(value, bool) and 0 < value < 100:
        return Fraction(value) / 100
    raise InvalidValue("targetPercent", expected="a percentage above 0 and below 100, such as 99.9", got=_plain(value))


def _slice_target(value: object) -> Fraction:
    if isinstance(value, int | Decimal) and not isinstance(value, bool) and 0 < value <= 1:
        return Fraction(value)
    raise InvalidValue("timeSliceTarget", expected="a fraction above 0 and at most 1, such as 0.95", got=_plain(value))


def _plain(value: object) -> object:
    return float(value) if isinstance(value, Decimal) else value


def _start(value: object) -> datetime:
    if type(value) is date:
        return datetime(value.year, value.month, value.day)  # noqa: DTZ001  (the zone stands beside it)
    try:
        return value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
    except ValueError as error:
        wanted = "a date and a time of day, such as 2026-01-01 00:00:00"
        raise InvalidValue("startTime", expected=wanted, got=value) from error


Lasting = Annotated[tuple[int, str], PlainValidator(_lasting)]
LastingS = Annotated[int, PlainValidator(_lasting_s)]


class Metadata(Form):
    """Name, labels and annotations of an object."""

    name: str
    display_name: str = Field("", alias="displayName")
    labels: dict[str, str | list[str]] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)


class Source(Form):
    """Where a metric comes from; `spec` is free."""

    ref: str = Field("", alias="metricSourceRef")
    type: str = ""
    spec: dict[str, Any]

    def problems(self) -> Iterator[tuple[Place, str]]:
        """What is not a query for Prometheus."""
        if self.type.lower() not in {"", "prometheus"}:
            yield ("type",), f"must be Prometheus, others cannot be asked (got {self.type!r})"
        if not isinstance(self.spec.get("query"), str):
            yield ("spec", "query"), "is missing: PromQL"


class Metric(Form):
    """One query."""

    source: Source = Field(alias="metricSource")

    @property
    def query(self) -> str:
        """The PromQL, with our placeholder."""
        return with_placeholder(str(self.source.spec["query"]))


class Ratio(Form):
    """Good or bad events, and all; or a ratio that is made elsewhere."""

    counter: bool = True
    good: Metric | None = None
    bad: Metric | None = None
    total: Metric | None = None
    raw: Any = None
    raw_type: Any = Field(None, alias="rawType")

    def problems(self) -> Iterator[tuple[Place, str]]:
        """Queries that cannot count, are missing, or are a ratio already."""
        if self.raw is not None:
            yield ("raw",), "has a ratio and no counts, so budgets cannot be computed from it; give `good` and `total`"
            return
        queries = [None if each is None else each.query for each in (self.good, self.bad, self.total)]
        for (name, *_), message in event_problems(*queries):
            given = getattr(self, str(name)) is not None
            yield (name, *(("metricSource", "spec", "query") if given else ())), message


class IndicatorSpec(Form):
    """How an indicator is measured."""

    description: str = ""
    threshold: Metric | None = Field(None, alias="thresholdMetric")
    ratio: Ratio | None = Field(None, alias="ratioMetric")

    def problems(self) -> Iterator[tuple[Place, str]]:
        """No metric or two, or a level that is none."""
        if (self.threshold is None) == (self.ratio is None):
            yield ("ratioMetric",), "must be given, or `thresholdMetric`, and not both"
        for problem in level_problems(self.threshold.query) if self.threshold is not None else ():
            yield ("thresholdMetric", "metricSource", "spec", "query"), problem


class Indicator(Form):
    """An indicator inside an SLO."""

    metadata: Metadata
    spec: IndicatorSpec


class CalendarStart(Form):
    """When a calendar window starts."""

    start: Annotated[datetime, PlainValidator(_start)] = Field(alias="startTime")
    zone: str = Field(alias="timeZone")


class TimeWindow(Form):
    """A rolling or a calendar window."""

    duration: Lasting
    rolling: bool = Field(False, alias="isRolling")
    calendar: CalendarStart | None = None

    def problems(self) -> Iterator[tuple[Place, str]]:
        """Windows of no fixed length, or that start where no calendar period does."""
        number, unit = self.duration
        if self.calendar is None:
            if not self.rolling:
                yield ("calendar",), "is missing, or `isRolling: true`"
            elif unit not in _SECONDS:
                yield ("duration",), f"must be a fixed length when it is rolling, in m, h, d or w (got {number}{unit})"
            return
        if self.rolling:
            yield ("isRolling",), "must be false with `calendar`"
        if number != 1 or unit not in _CALENDAR:
            yield ("duration",), f"must be 1d, 1w, 1M, 1Q or 1Y with `calendar` (got {number}{unit})"
        elif not _begins(_CALENDAR[unit], self.calendar.start):
            starts = f"must be where a calendar {_CALENDAR[unit]} starts, at midnight (got {self.calendar.start})"
            yield ("calendar", "startTime"), starts
        try:
            parse_calendar("day", self.calendar.zone)
        except InvalidValue as error:
            yield ("calendar", "timeZone"), str(error)

    def window(self) -> Window:
        """The window."""
        number, unit = self.duration
        if self.calendar is None:
            return Rolling(number * _SECONDS[unit])
        return Calendar(_CALENDAR[unit], self.calendar.zone)


def _begins(unit: CalendarUnit, at: datetime) -> bool:
    first_month = {"quarter": at.month % 3 == 1, "year": at.month == 1}.get(unit, True)
    first_day = {"day": True, "week": at.weekday() == 0}.get(unit, at.day == 1)
    return first_month and first_day and (at.hour, at.minute, at.second) == (0, 0, 0)


class ObjectiveForm(Form):
    """What must be kept."""

    display_name: str = Field("", alias="displayName")
    op: Literal["lte", "gte", "lt", "gt"] | None = None
    value: float | None = None
    target: Annotated[Fraction, PlainValidator(_fraction)] | None = None
    percent: Annotated[Fraction, PlainValidator(_percentage)] | None = Field(None, alias="targetPercent")
    slice_target: Annotated[Fraction, PlainValidator(_slice_target)] | None = Field(None, alias="timeSliceTarget")
    slice_s: Annotated[int, PlainValidator(_slice_s)] | None = Field(None, alias="timeSliceWindow")

    def problems(self) -> Iterator[tuple[Place, str]]:
        """No target or two."""
        if (self.target is None) == (self.percent is None):
            yield ("target",), "must be given, or `targetPercent`, and not both"


class Burnrate(Form):
    """A burn rate over a window."""

    kind: Literal["burnrate"] = "burnrate"
    op: Literal["lte", "gte", "lt", "gt"] = "gt"
    threshold: Annotated[Decimal, Field(gt=0)]
    lookback_s: LastingS = Field(alias="lookbackWindow")
    after_s: LastingS = Field(0, alias="alertAfter")


class ConditionSpec(Form):
    """What an alert waits for."""

    description: str = ""
    severity: str
    condition: Burnrate


class Condition(Form):
    """An alert condition: by itself, inside a policy, or named there by `conditionRef`."""

    api_version: str = Field("openslo/v1", alias="apiVersion")
    kind: Literal["AlertCondition"] = "AlertCondition"
    metadata: Metadata | None = None
    spec: ConditionSpec | None = None
    ref: str = Field("", alias="conditionRef")


class AlertPolicySpec(Form):
    """When one condition alerts whom."""

    description: str = ""
    no_data: bool = Field(False, alias="alertWhenNoData")
    resolved: bool = Field(False, alias="alertWhenResolved")
    breaching: bool = Field(False, alias="alertWhenBreaching")
    conditions: Annotated[list[Condition], Field(min_length=1, max_length=1)]
    targets: list[Any] = Field([], alias="notificationTargets")


class PolicyRef(Form):
    """The name of an alert policy of the same file; a bare name is one too."""

    ref: str = Field(alias="alertPolicyRef")

    @model_validator(mode="before")
    @classmethod
    def _bare(cls, value: object) -> object:
        return {"alertPolicyRef": value} if isinstance(value, str) else value


class SloSpec(Form):
    """An objective."""

    description: str = ""
    service: str
    indicator: Indicator | None = None
    indicator_ref: str | None = Field(None, alias="indicatorRef")
    windows: Annotated[list[TimeWindow], Field(alias="timeWindow", min_length=1, max_length=1)]
    budgeting: Literal["Occurrences", "Timeslices", "RatioTimeslices"] = Field(alias="budgetingMethod")
    objectives: Annotated[list[ObjectiveForm], Field(min_length=1, max_length=1)]
    alert_policies: list[PolicyRef] = Field([], alias="alertPolicies")

    def problems(self) -> Iterator[tuple[Place, str]]:
        """No indicator or two, slices without length or target, thresholds that do not fit."""
        objective, sliced = self.objectives[0], self.budgeting != "Occurrences"
        place: Place = ("objectives", 0)
        if (self.indicator is None) == (self.indicator_ref is None):
            yield ("indicator",), "must be given, or `indicatorRef`, and not both"
        if sliced and objective.slice_s is None:
            yield (*place, "timeSliceWindow"), f"is missing: the length of a slice for {self.budgeting}"
        if self.budgeting == "Timeslices" and objective.slice_target is None:
            yield (*place, "timeSliceTarget"), "is missing: which share of good events makes a slice good?"
        if self.indicator is not None:
            yield from ((where, message) for where, message in self.misfits(self.indicator.spec))

    def misfits(self, indicator: IndicatorSpec) -> Iterator[tuple[Place, str]]:
        """Why this objective cannot be one over *indicator*."""
        objective, place = self.objectives[0], ("objectives", 0)
        if indicator.threshold is None:
            return
        if objective.op not in {"gte", "lte"}:
            yield (*place, "op"), "must be gte (a throughput) or lte (a freshness) for a thresholdMetric"
        if objective.value is None:
            yield (*place, "value"), "is missing: what the thresholdMetric is compared with"
        if self.budgeting != "Timeslices":
            yield ("budgetingMethod",), "must be Timeslices for a thresholdMetric: a level is judged slice by slice"
        elif objective.slice_target not in {None, 1}:
            yield (*place, "timeSliceTarget"), "must be 1 for a thresholdMetric: a slice is good or it is not"


class _Object(Form):
    api_version: Literal["openslo/v1"] = Field(alias="apiVersion")
    metadata: Metadata


class SloObject(_Object):
    """Kind SLO."""

    kind: Literal["SLO"]
    spec: SloSpec


class SliObject(_Object):
    """Kind SLI."""

    kind: Literal["SLI"]
    spec: IndicatorSpec


class AlertPolicy(_Object):
    """Kind AlertPolicy."""

    kind: Literal["AlertPolicy"]
    spec: AlertPolicySpec


class ConditionObject(_Object):
    """Kind AlertCondition."""

    kind: Literal["AlertCondition"]
    spec: ConditionSpec


class Other(_Object):
    """Kinds that say nothing of objectives."""

    kind: Literal["Service", "DataSource", "AlertNotificationTarget"]
    spec: dict[str, Any] = Field(default_factory=dict)


AnyObject = Annotated[
    SloObject | SliObject | AlertPolicy | ConditionObject | Other,
    Field(discriminator="kind"),
]


class Objects(RootModel[list[AnyObject]]):
    """All objects of a file."""


class OneObject(RootModel[AnyObject]):
    """The object of one document."""
