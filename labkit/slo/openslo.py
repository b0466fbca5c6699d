"""
OpenSLO v1, read; `openslo_write` is the other way.

Read are the kinds SLO, SLI, AlertPolicy and AlertCondition, of Prometheus and with `$window` (or `{{.window}}`) in the
queries.  What cannot be computed with is an error; what has no place in ours is named in `SpecFile.losses`.
Specification: https://github.com/OpenSLO/OpenSLO.  What OpenSLO has no key for is in annotations below `labkit/`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import TypeVar

from labkit._yaml import parse_model
from labkit.errors import ConfigInvalid, ConfigProblem, InvalidValue
from labkit.slo.model import (
    WINDOW,
    Budgeting,
    BurnAlert,
    FreshnessSli,
    LatencySli,
    Method,
    Policy,
    Severity,
    Sli,
    Slo,
    ThroughputSli,
)
from labkit.slo.openslo_form import (
    AlertPolicy,
    AnyObject,
    Condition,
    ConditionObject,
    Indicator,
    Metadata,
    ObjectiveForm,
    Objects,
    OneObject,
    Other,
    SliObject,
    SloObject,
    Source,
)
from labkit.slo.openslo_write import dump_openslo
from labkit.slo.policies import designs
from labkit.slo.rules import nominal_period_s
from labkit.slo.spec_file import SpecFile
from labkit.slo.spec_form import event_sli
from labkit.slo.windows import parse_rolling

__all__ = ["dump_openslo", "read_openslo"]

_METHODS: dict[str, Method] = {
    "Occurrences": "occurrences",
    "Timeslices": "timeslices",
    "RatioTimeslices": "ratio-timeslices",
}
_COUNTED = re.compile(r"sum\(increase\(([a-zA-Z_:][\w:]*)_count(?:\{(.*)\})?\[\$window\]\)\)", re.DOTALL)
# Those that `openslo_write` names, for want of others; it says nothing to lose them.
_TARGETS = ({"targetRef": "page"}, {"targetRef": "ticket"})
_OURS = frozenset({"owner", "policy", "runbook", "latency-bound-s", "budget-share", "short-window", "source"})


T = TypeVar("T")


class _Unreadable(ValueError):
    """An object that fits OpenSLO and cannot be held here."""


def read_openslo(text: str, source: str = "the OpenSLO specification") -> SpecFile:
    """
    Objectives from OpenSLO objects: one YAML document each, or lists of them.

    Raises:
        ConfigInvalid: every mistake; those of single objects with line and column.
    """
    found = _objects(text, source)
    reader = _Reader(found)
    slos, problems = [], list(_twice(found))
    for each in found:
        if isinstance(each, SloObject):
            try:
                slos.append(reader.slo(each))
            except (_Unreadable, InvalidValue) as error:
                problems.append(f"SLO {each.metadata.name}: {error}")
    if not slos and not problems:
        problems.append("there is no object of kind SLO")
    if problems:
        raise ConfigInvalid(source, problems=problems)
    losses = (*reader.losses, *(loss for each in found for loss in _lost(each)))
    return SpecFile(source, tuple(slos), reader.policies, losses=losses)


def _objects(text: str, source: str) -> list[AnyObject]:
    """All objects of all documents; the mistakes of all in one error."""
    found: list[AnyObject] = []
    problems: list[ConfigProblem | str] = []
    for document in _documents(text):
        try:
            if document.lstrip().startswith("- "):
                found += parse_model(Objects, document, source).root
            else:
                found.append(parse_model(OneObject, document, source).root)
        except ConfigInvalid as error:
            problems += error.problems
    if problems:
        raise ConfigInvalid(source, problems=problems)
    return found


def _documents(text: str) -> Iterator[str]:
    """The documents of a stream, each behind as many empty lines as it has lines before it: places stay right."""
    before = 0
    lines: list[str] = []
    for number, line in enumerate([*text.splitlines(), "---"]):
        if line.rstrip() != "---":
            lines.append(line)
            continue
        if any(each.strip() and not each.lstrip().startswith("#") for each in lines):
            yield "\n" * before + "\n".join(lines) + "\n"
        lines, before = [], number + 1


def _twice(found: list[AnyObject]) -> Iterator[str]:
    names = [(each.kind, each.metadata.name) for each in found]
    for kind, name in sorted({each for each in names if names.count(each) > 1}):
        yield f"{kind} {name}: there are {names.count((kind, name))} of this name"


class _Reader:
    def __init__(self, found: list[AnyObject]) -> None:
        self.indicators = {
            each.metadata.name: Indicator(metadata=each.metadata, spec=each.spec)
            for each in found
            if isinstance(each, SliObject)
        }
        self.alerts = {each.metadata.name: each for each in found if isinstance(each, AlertPolicy)}
        self.conditions = {each.metadata.name: each for each in found if isinstance(each, ConditionObject)}
        self.policies: dict[str, Policy] = {}
        self.losses: list[str] = []

    def slo(self, form: SloObject) -> Slo:
        """
        The objective.

        Raises:
            _Unreadable, InvalidValue: it names what is not there, or says what cannot be held.
        """
        spec, own = form.spec, _annotations(form.metadata)
        indicator = spec.indicator
        if indicator is None:
            indicator = _named("SLI", spec.indicator_ref or "", self.indicators)
            for place, message in spec.misfits(indicator.spec):
                raise _Unreadable(f"`spec.{'.'.join(map(str, place))}` {message}")
        objective = spec.objectives[0]
        target = objective.target if objective.target is not None else objective.percent
        budgeting = Budgeting()
        if indicator.spec.ratio is not None and spec.budgeting != "Occurrences":
            slice_target = objective.slice_target if spec.budgeting == "Timeslices" else None
            budgeting = Budgeting(_METHODS[spec.budgeting], objective.slice_s or 60, slice_target)
        made = Slo(
            name=form.metadata.name,
            service=spec.service,
            objective=target or Fraction(),
            window=spec.windows[0].window(),
            sli=_sli(indicator, objective, form.metadata.name),
            description=spec.description or form.metadata.display_name,
            budgeting=budgeting,
            owner=own.get("owner", ""),
            policy=own.get("policy", "workbook"),
            runbook=own.get("runbook", ""),
            labels={name: value for name, value in form.metadata.labels.items() if isinstance(value, str)},
        )
        return self._alerted(made, form, own.get("policy"))

    def _alerted(self, slo: Slo, form: SloObject, named: str | None) -> Slo:
        """The objective with the policy that its alert policies are together."""
        refs = [each.ref for each in form.spec.alert_policies]
        period_s = nominal_period_s(slo)
        built_in = designs(period_s)
        if not refs:
            if named is None:
                self.losses.append(f"SLO {slo.name} has no alert policies; it gets the policy {slo.policy}")
            elif named not in built_in:
                raise _Unreadable(f"its policy {named} is not built in, and it names no alert policies")
            return slo
        found = [_named("AlertPolicy", ref, self.alerts) for ref in refs]
        name = named or (refs[0] if len(refs) == 1 else f"{slo.name}-alerts")
        first = found[0]
        policy = Policy(
            name,
            tuple(self._alert(each, period_s) for each in found),
            first.spec.description,
            _annotations(first.metadata).get("source", ""),
        )
        known = built_in.get(name, self.policies.get(name))
        if known is not None and known.alerts != policy.alerts:
            where = "the built-in one" if name in built_in else "that of another SLO, perhaps with another window"
            raise _Unreadable(f"its policy {name} has other alerts than {where}; rename it")
        if name not in built_in:
            self.policies[name] = policy
        return Slo(**{**{each: getattr(slo, each) for each in slo.__slots__}, "policy": name})

    def _alert(self, form: AlertPolicy, period_s: int) -> BurnAlert:
        condition: Condition | ConditionObject = form.spec.conditions[0]
        if isinstance(condition, Condition) and condition.ref:
            condition = _named("AlertCondition", condition.ref, self.conditions)
        if condition.spec is None:
            raise _Unreadable(f"its alert policy {form.metadata.name} has a condition without spec and conditionRef")
        burn, own = condition.spec.condition, _annotations(form.metadata)
        if burn.op not in {"gt", "gte"}:
            raise _Unreadable(f"its alert policy {form.metadata.name} alerts while little is burnt ({burn.op})")
        if not form.spec.breaching:
            raise _Unreadable(f"its alert policy {form.metadata.name} does not alert when it is breached")
        share = Fraction(burn.threshold) * burn.lookback_s / period_s
        if "budget-share" in own:
            exact = _number(own["budget-share"])
            if exact is None or abs(exact - share) > share / 10**9:
                raise _Unreadable(f"its alert policy {form.metadata.name} has a threshold for another budget share")
            share = exact
        if share > 1:
            more = f"more than all of the budget in {burn.lookback_s} s"
            raise _Unreadable(f"its alert policy {form.metadata.name} waits for {more}")
        short_s = parse_rolling(own["short-window"]).seconds if "short-window" in own else None
        severity: Severity = "ticket" if condition.spec.severity == "ticket" else "page"
        if condition.spec.severity not in {"page", "ticket"}:
            self.losses.append(
                f"the severity {condition.spec.severity} of alert policy {form.metadata.name} became page"
            )
        return BurnAlert(share, burn.lookback_s, short_s, burn.after_s, severity)


def _sli(indicator: Indicator, objective: ObjectiveForm, slo: str) -> Sli:
    own, spec = _annotations(indicator.metadata), indicator.spec
    plain = "" if indicator.metadata.name == slo else indicator.metadata.name
    name = indicator.metadata.display_name or plain
    if spec.threshold is not None:
        query, value, slice_s = spec.threshold.query.strip(), objective.value or 0.0, objective.slice_s or 60
        if objective.op == "gte":
            return ThroughputSli(query, value, slice_s, name=name, description=spec.description)
        return FreshnessSli(query, value, slice_s, name=name, description=spec.description)
    if spec.ratio is None or spec.ratio.total is None:
        raise _Unreadable("its indicator has no total")
    total = spec.ratio.total.query
    good, bad = (each.query if each is not None else None for each in (spec.ratio.good, spec.ratio.bad))
    if "latency-bound-s" not in own:
        return event_sli(good, bad, total, name, spec.description)
    counted, bound = _COUNTED.fullmatch(total), _number(own["latency-bound-s"])
    if counted is not None and bound is not None:
        histogram, selector = counted[1], counted[2] or ""
        made = LatencySli(histogram, float(bound), selector, name=name, description=spec.description)
        if made.total_query(WINDOW) == total and made.good_query(WINDOW) == good:
            return made
    raise _Unreadable("its queries and the annotation labkit/latency-bound-s say different things; remove one")


def _number(text: str) -> Fraction | None:
    try:
        return Fraction(text)
    except (ValueError, ZeroDivisionError):
        return None


def _named(kind: str, name: str, known: Mapping[str, T]) -> T:
    if name in known:
        return known[name]
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean {close[0]}?" if close else ""
    raise _Unreadable(f"there is no {kind} {name!r} in the file{hint}")


def _annotations(metadata: Metadata) -> dict[str, str]:
    """Those that are ours, without the prefix."""
    return {name.removeprefix("labkit/"): text for name, text in metadata.annotations.items() if "labkit/" in name}


def _lost(each: AnyObject) -> Iterator[str]:
    """What an object says that has no place in ours, in sentences."""
    what = f"{each.kind} {each.metadata.name}"
    for name, value in each.metadata.labels.items():
        if not isinstance(each, SloObject) or not isinstance(value, str):
            yield f"{what}: the label {name} is not kept"
    for name in each.metadata.annotations:
        if name.removeprefix("labkit/") not in _OURS:
            yield f"{what}: the annotation {name} is not kept"
    if isinstance(each, SloObject) and each.spec.description and each.metadata.display_name:
        yield f"{what}: the display name is not kept"
    if isinstance(each, Other) and (each.kind == "DataSource" or each.spec.get("description")):
        yield f"{what} is not kept"
    if isinstance(each, AlertPolicy):
        if each.spec.no_data or each.spec.resolved:
            yield f"{what}: alerts for no data and for the end of a breach are not kept"
        if any(target not in _TARGETS for target in each.spec.targets):
            yield f"{what}: whom it notifies is not kept"
    for source in _sources(each):
        if source.ref:
            yield f"{what}: the data source {source.ref} is not kept"
        if others := sorted(set(source.spec) - {"query"}):
            yield f"{what}: keys beside a query are not kept: {', '.join(others)}"


def _sources(each: AnyObject) -> Iterator[Source]:
    """Where the metrics of an SLI, or of an SLO's own indicator, come from."""
    indicator = each.spec.indicator if isinstance(each, SloObject) else each if isinstance(each, SliObject) else None
    if indicator is not None:
        ratio = indicator.spec.ratio
        parts = (ratio.good, ratio.bad, ratio.total) if ratio is not None else (indicator.spec.threshold,)
        yield from (part.source for part in parts if part is not None)
