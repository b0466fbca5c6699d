"""Objectives written as OpenSLO v1."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from fractions import Fraction
from typing import Any

import yaml

from labkit.errors import ConfigInvalid, InvalidValue
from labkit.slo import policies as designs
from labkit.slo.model import (
    WINDOW,
    BurnAlert,
    Calendar,
    EventSli,
    FreshnessSli,
    LatencySli,
    Policy,
    Slo,
    ThroughputSli,
)
from labkit.slo.objective import format_decimal
from labkit.slo.openslo_form import shorthand
from labkit.slo.rules import nominal_period_s

__all__ = ["dump_openslo"]

# https://github.com/OpenSLO/OpenSLO, schemas/v1/parts/name.schema.json; the bound is that of a DNS label.
_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?")
_LONGEST_DESCRIPTION = 1050
_METHODS = {"occurrences": "Occurrences", "timeslices": "Timeslices", "ratio-timeslices": "RatioTimeslices"}
_CALENDAR = {"day": "1d", "week": "1w", "month": "1M", "quarter": "1Q", "year": "1Y"}
# A Monday and the first day of a month, a quarter and a year.
_START = "2024-01-01 00:00:00"

_Mapping = dict[str, Any]


def dump_openslo(slos: Iterable[Slo], policies: Mapping[str, Policy] | None = None) -> str:
    """
    OpenSLO v1 objects for *slos*: a Service for each service, an SLO each, and the alert policies that they name.

    Reading the text back gives equal objectives and policies; one thing is lost: an indicator with the name of its
    objective comes back without name.  OpenSLO has one condition for each alert policy, so a policy becomes several.

    Args:
        slos: at least one.
        policies: of one's own by name; the workbook's designs are known without.

    Raises:
        ConfigInvalid: what OpenSLO cannot say, for all objectives at once: names with other than lower-case letters,
            digits, `-` and `.`, no service, slices of parts of a minute, objectives without an end as decimals.
        UnknownName: an objective names a policy that there is not.
    """
    made: list[_Mapping] = []
    alerts: dict[str, _Mapping] = {}
    problems: list[str] = []
    listed = list(slos)
    for slo in listed:
        period_s = nominal_period_s(slo)
        policy = designs.get(slo.policy, {**designs.designs(period_s), **(policies or {})})
        try:
            _require(slo)
            made.append(_slo(slo, policy, period_s))
            alerts |= {each["metadata"]["name"]: each for each in _alert_policies(policy, period_s)}
        except InvalidValue as error:
            problems.append(f"{slo.name}: {error}")
    if problems:
        raise ConfigInvalid("writing OpenSLO", problems=problems)
    services = [_object("Service", name, {}) for name in sorted({slo.service for slo in listed})]
    severities = {
        alert["spec"]["notificationTargets"][0]["targetRef"] for alert in made if alert["kind"] == "AlertPolicy"
    }
    targets = [_object("AlertNotificationTarget", name, {"target": "alertmanager"}) for name in sorted(severities)]
    return yaml.dump_all(
        [*services, *made, *alerts.values(), *targets],
        Dumper=_Dumper,
        sort_keys=False,
        allow_unicode=True,
        width=10_000,
        explicit_start=True,
    )


class _Dumper(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]
    """Numbers with every digit they have; the same value twice is written twice."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
        return True


_Dumper.add_representer(
    Decimal, lambda dumper, value: dumper.represent_scalar("tag:yaml.org,2002:float", format(value, "f"))
)


def _require(slo: Slo) -> None:
    for what, name in (("name", slo.name), ("service", slo.service), ("policy", slo.policy)):
        if not _NAME.fullmatch(name):
            slug = re.sub(r"[^a-z0-9.-]+", "-", name.lower()).strip("-.")
            hint = f" (perhaps {slug})" if slug and slug != name else ""
            wanted = f"lower-case letters, digits, `-` and `.` for OpenSLO, at most 63{hint}"
            raise InvalidValue(f"the {what}", expected=wanted, got=name)
    for text in (slo.description, slo.sli.description):
        if len(text) > _LONGEST_DESCRIPTION:
            wanted = f"at most {_LONGEST_DESCRIPTION} characters long for OpenSLO"
            raise InvalidValue("a description", expected=wanted, got=f"{len(text)} characters")
    if isinstance(slo.sli, ThroughputSli | FreshnessSli) and slo.budgeting.method != "occurrences":
        raise InvalidValue("the budgeting", expected="occurrences for slices of time", got=slo.budgeting.method)


def _object(kind: str, name: str, spec: _Mapping, **metadata: _Mapping) -> _Mapping:
    given = {key: value for key, value in metadata.items() if value}
    return {"apiVersion": "openslo/v1", "kind": kind, "metadata": {"name": name, **given}, "spec": spec}


def _ours(**annotations: str) -> dict[str, str]:
    return {f"labkit/{name.replace('_', '-')}": text for name, text in annotations.items() if text}


def _slo(slo: Slo, policy: Policy, period_s: int) -> _Mapping:
    objective: _Mapping = {"target": _exact(slo.objective)}
    method = _METHODS[slo.budgeting.method]
    if isinstance(slo.sli, ThroughputSli | FreshnessSli):
        method = "Timeslices"
        least = isinstance(slo.sli, ThroughputSli)
        bound = slo.sli.minimum_per_s if isinstance(slo.sli, ThroughputSli) else slo.sli.maximum_s
        objective |= {"op": "gte" if least else "lte", "value": bound, "timeSliceTarget": 1}
        objective["timeSliceWindow"] = shorthand(slo.sli.slice_s)
    elif slo.budgeting.method != "occurrences":
        objective["timeSliceWindow"] = shorthand(slo.budgeting.slice_s)
        if slo.budgeting.slice_target is not None:
            objective["timeSliceTarget"] = _exact(slo.budgeting.slice_target)
    spec = {
        **({"description": slo.description} if slo.description else {}),
        "service": slo.service,
        "indicator": _indicator(slo),
        "timeWindow": [_window(slo)],
        "budgetingMethod": method,
        "objectives": [objective],
        "alertPolicies": [{"alertPolicyRef": each["metadata"]["name"]} for each in _alert_policies(policy, period_s)],
    }
    annotations = _ours(owner=slo.owner, policy=slo.policy, runbook=slo.runbook)
    return _object("SLO", slo.name, spec, labels=slo.labels, annotations=annotations)


def _window(slo: Slo) -> _Mapping:
    if isinstance(slo.window, Calendar):
        calendar = {"startTime": _START, "timeZone": slo.window.timezone}
        return {"duration": _CALENDAR[slo.window.unit], "isRolling": False, "calendar": calendar}
    return {"duration": shorthand(slo.window.seconds), "isRolling": True}


def _indicator(slo: Slo) -> _Mapping:
    sli = slo.sli
    metadata: _Mapping = {"name": slo.name}
    if _NAME.fullmatch(sli.name):
        metadata["name"] = sli.name
    elif sli.name:
        metadata["displayName"] = sli.name
    spec: _Mapping = {"description": sli.description} if sli.description else {}
    if isinstance(sli, ThroughputSli | FreshnessSli):
        return {"metadata": metadata, "spec": {**spec, "thresholdMetric": _metric(sli.query)}}
    parts: _Mapping = {"counter": True}
    if isinstance(sli, LatencySli):
        metadata["annotations"] = _ours(latency_bound_s=repr(float(sli.bound_s)))
    if isinstance(sli, EventSli) and sli.bad is not None:
        parts["bad"] = _metric(sli.bad)
    else:
        good = sli.good if isinstance(sli, EventSli) else sli.good_query(WINDOW)
        parts["good"] = _metric(good or "")
    parts["total"] = _metric(sli.total_query(WINDOW))
    return {"metadata": metadata, "spec": {**spec, "ratioMetric": parts}}


def _metric(query: str) -> _Mapping:
    return {"metricSource": {"type": "Prometheus", "spec": {"query": query}}}


def _alert_policies(policy: Policy, period_s: int) -> Iterator[_Mapping]:
    """One object for each alert: their thresholds depend on the period, so its length is in the name."""
    for number, alert in enumerate(policy.alerts, start=1):
        name = f"{policy.name}-{shorthand(period_s)}-{number}"
        annotations = _ours(
            budget_share=str(alert.budget_share),
            short_window=shorthand(alert.short_s) if alert.short_s is not None else "",
            source=policy.source,
        )
        spec = {
            **({"description": policy.title} if policy.title else {}),
            "alertWhenBreaching": True,
            "alertWhenResolved": False,
            "alertWhenNoData": False,
            "conditions": [_condition(name, alert, period_s)],
            "notificationTargets": [{"targetRef": alert.severity}],
        }
        yield _object("AlertPolicy", name, spec, annotations=annotations)


def _condition(name: str, alert: BurnAlert, period_s: int) -> _Mapping:
    condition = {
        "kind": "burnrate",
        "op": "gt",
        "threshold": float(alert.factor(period_s)),
        "lookbackWindow": shorthand(alert.long_s),
        "alertAfter": shorthand(alert.for_s),
    }
    return {
        "kind": "AlertCondition",
        "metadata": {"name": name},
        "spec": {"severity": alert.severity, "condition": condition},
    }


def _exact(share: Fraction) -> Decimal:
    return Decimal(format_decimal(share))
