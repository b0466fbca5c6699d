"""
Sloth's format `prometheus/v1`, read.

What Sloth can say and `labkit` cannot hold is either an error (an SLI without counts) or named in `SpecFile.losses`.
Format: https://pkg.go.dev/github.com/slok/sloth/pkg/prometheus/api/v1
"""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from fractions import Fraction
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, model_validator

from labkit._yaml import Misplaced, Place, parse_model
from labkit.errors import InvalidValue
from labkit.slo.model import Policy, Rolling, Slo
from labkit.slo.policies import POLICIES
from labkit.slo.spec_checks import repeated, with_placeholder
from labkit.slo.spec_file import SpecFile
from labkit.slo.spec_form import event_problems, event_sli
from labkit.slo.spec_values import LabelNames, Name

__all__ = ["read_sloth"]

# What Sloth takes when it is not told otherwise on its command line.
_PERIOD = Rolling(30 * 86_400)
_POLICY = "four-window"
_RUNBOOKS = ("runbook", "runbook_url")


def read_sloth(text: str, source: str = "the Sloth specification") -> SpecFile:
    """
    Objectives from a Sloth file.

    Sloth keeps the period and the windows of its alerts outside the file; its defaults are taken, 30 days and the
    policy `four-window`, without the pages or the tickets that the file disables.

    Raises:
        ConfigInvalid: every mistake of the file, with line and column.
    """
    form = parse_model(_Sloth, text, source, checks=lambda data: repeated(data, "slos"))
    policies: dict[str, Policy] = {}
    slos = tuple(_slo(each, form, policies) for each in form.slos)
    losses = ["the period of 30 days is Sloth's default; the file says nothing of it"]
    losses += [loss for each in form.slos for loss in _lost(each)]
    if form.slo_plugins is not None:
        losses.append("the plugins in `slo_plugins` are not applied")
    return SpecFile(source, slos, policies, losses=tuple(losses))


def _percentage(value: object) -> Fraction:
    wanted = "a percentage above 0 and below 100, such as 99.9"
    if isinstance(value, int | Decimal) and not isinstance(value, bool) and 0 < value < 100:
        return Fraction(value) / 100
    fix = " (100 leaves no budget)" if value == 100 else ""
    raise InvalidValue("objective", expected=wanted + fix, got=float(value) if isinstance(value, Decimal) else value)


class _Form(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Events(_Form):
    error_query: str
    total_query: str


class _Sli(_Form):
    events: _Events | None = None
    raw: Any = None
    plugin: Any = None

    @model_validator(mode="after")
    def _counts(self) -> _Sli:
        if problems := list(self._problems()):
            raise Misplaced(problems)
        return self

    def _problems(self) -> Iterator[tuple[Place, str]]:
        for name in ("raw", "plugin"):
            if getattr(self, name) is not None:
                yield (name,), "has a ratio and no counts, so budgets cannot be computed from it; write `events`"
        if self.events is None:
            if self.raw is None and self.plugin is None:
                yield ("events",), "is missing"
            return
        bad, total = (with_placeholder(each) for each in (self.events.error_query, self.events.total_query))
        keys = {"bad": "error_query", "total": "total_query"}
        for (key, *_), message in event_problems(None, bad, total):
            theirs = message.replace("$window", "{{.window}}").replace("`total`", "`total_query`")
            yield ("events", keys[str(key)]), theirs


class _Alert(_Form):
    disable: bool = False
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}


class _Alerting(_Form):
    name: str = ""
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    page_alert: _Alert = _Alert()
    ticket_alert: _Alert = _Alert()


class _Slo(_Form):
    name: Name
    objective: Annotated[Fraction, PlainValidator(_percentage)]
    description: str = ""
    labels: LabelNames = Field(default_factory=dict)
    sli: _Sli
    alerting: _Alerting = _Alerting()
    plugins: Any = None


class _Sloth(_Form):
    version: Literal["prometheus/v1"]
    service: str
    labels: LabelNames = Field(default_factory=dict)
    slos: Annotated[list[_Slo], Field(min_length=1)]
    slo_plugins: Any = None


def _slo(form: _Slo, spec: _Sloth, policies: dict[str, Policy]) -> Slo:
    events = form.sli.events
    if events is None:
        raise InvalidValue("sli", expected="events", got=form.sli)
    policy = _policy(form.alerting)
    if policy.name not in POLICIES:
        policies[policy.name] = policy
    annotations = form.alerting.annotations
    return Slo(
        name=form.name,
        service=spec.service,
        objective=form.objective,
        window=_PERIOD,
        sli=event_sli(None, with_placeholder(events.error_query), with_placeholder(events.total_query)),
        description=form.description,
        policy=policy.name,
        runbook=next((annotations[name] for name in _RUNBOOKS if name in annotations), ""),
        labels={**spec.labels, **form.labels},
    )


def _policy(alerting: _Alerting) -> Policy:
    """Sloth's windows without the severities that the file disables."""
    whole = POLICIES[_POLICY]
    off = {
        severity
        for severity, alert in (("page", alerting.page_alert), ("ticket", alerting.ticket_alert))
        if alert.disable
    }
    if not off:
        return whole
    name = f"{_POLICY}-without-{'-and-'.join(f'{severity}s' for severity in sorted(off))}"
    left = tuple(alert for alert in whole.alerts if alert.severity not in off)
    return Policy(name, left, f"{whole.title}, {' and '.join(sorted(off))} disabled", whole.source)


def _lost(form: _Slo) -> Iterator[str]:
    """What the file says of an objective that has no place in ours, in sentences."""
    alerting = form.alerting
    if alerting.name:
        yield f"{form.name}: the name of its alerts, {alerting.name}, is not kept; the policy names them"
    if alerting.labels:
        yield f"{form.name}: the labels of its alerts are not kept: {', '.join(alerting.labels)}"
    if others := [name for name in alerting.annotations if name not in _RUNBOOKS]:
        yield f"{form.name}: the annotations of its alerts are not kept: {', '.join(others)}"
    for kind, alert in (("page", alerting.page_alert), ("ticket", alerting.ticket_alert)):
        if names := [*alert.labels, *alert.annotations]:
            yield f"{form.name}: the labels and annotations of its {kind}s are not kept: {', '.join(names)}"
    if form.plugins is not None:
        yield f"{form.name}: its plugins are not applied"
