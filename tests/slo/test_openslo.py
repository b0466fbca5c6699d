"""OpenSLO v1: what is written reads back equal, and nothing is lost in silence."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from labkit.errors import ConfigInvalid, UnknownName
from labkit.settings import files_root
from labkit.slo.model import (
    Budgeting,
    BurnAlert,
    Calendar,
    CalendarUnit,
    EventSli,
    FreshnessSli,
    LatencySli,
    Policy,
    Rolling,
    Severity,
    Slo,
    ThroughputSli,
)
from labkit.slo.openslo import dump_openslo, read_openslo
from labkit.slo.spec import load_specs, parse_specs

GOOD, TOTAL = 'sum(increase(hits_total{code!~"5.."}[$window]))', "sum(increase(hits_total[$window]))"
SLO = Slo("a", "shop", Fraction(999, 1000), Rolling(2_592_000), EventSli(TOTAL, good=GOOD, name="answered"))
OBJECT = next(each for each in yaml.safe_load_all(dump_openslo([SLO])) if each["kind"] == "SLO")


def changed(path: str, value: object) -> str:
    """An SLO by itself, without alert policies, with one value set; the parts of *path* are separated by dots."""
    made = yaml.safe_load(yaml.safe_dump(OBJECT))
    del made["spec"]["alertPolicies"]
    place: Any = made
    *parts, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    for part in parts:
        place = place[part]
    if value is None:
        del place[last]
    else:
        place[last] = value
    return yaml.safe_dump(made)


def refusal(text: str) -> str:
    """What is said of a wrong file."""
    with pytest.raises(ConfigInvalid) as caught:
        read_openslo(text, "slos.yaml")
    return str(caught.value)


NAMES = st.from_regex(r"[a-z][a-z0-9-]{0,10}[a-z0-9]", fullmatch=True)
TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Zl", "Zp")), max_size=20).map(str.strip)
OBJECTIVES = st.integers(1, 10**7 - 1).map(lambda n: Fraction(n, 10**7))
MINUTES = st.integers(1, 100_000).map(lambda n: 60 * n)
SLI_NAMES = {
    "name": st.from_regex(r"sli-[a-z0-9]{1,8}", fullmatch=True) | st.just("Wait In Words"),
    "description": TEXTS,
}
EVENTS = st.sampled_from(
    [
        EventSli(TOTAL, good=GOOD),
        EventSli(TOTAL, bad='sum(increase(hits_total{code=~"5..|\'"}[$window]))\n or vector(0)'),
    ]
)
COUNTED = st.builds(
    LatencySli,
    st.sampled_from(["wait_seconds", "a:b"]),
    st.sampled_from([0.005, 0.25, 1, 2.5, 10.0]),
    st.sampled_from(["", 'job="shop"', 'path="/a{b}", x=~"[1h]|\\\\d+"']),
    **SLI_NAMES,
) | st.builds(lambda sli, name, text: replace(sli, name=name, description=text), EVENTS, *SLI_NAMES.values())
LEVELS = st.builds(ThroughputSli, st.just("sum(rate(a[2m]))"), st.floats(1e-3, 1e6), MINUTES, **SLI_NAMES) | st.builds(
    FreshnessSli, st.just("time() - max(a)"), st.floats(1e-3, 1e6), MINUTES, **SLI_NAMES
)
WINDOWS = st.builds(Rolling, MINUTES) | st.builds(
    Calendar, st.sampled_from(get_args(CalendarUnit)), st.sampled_from(["UTC", "Europe/Berlin"])
)
BUDGETINGS = st.one_of(
    st.just(Budgeting()),
    st.builds(Budgeting, st.just("timeslices"), MINUTES, OBJECTIVES | st.just(Fraction(1))),
    st.builds(Budgeting, st.just("ratio-timeslices"), MINUTES),
)
ALERTS = st.builds(
    BurnAlert,
    st.fractions(Fraction(1, 1000), 1, max_denominator=1000),
    MINUTES,
    st.none() | MINUTES,
    st.just(0) | MINUTES,
    st.sampled_from(get_args(Severity)),
)
OWN = st.builds(Policy, st.just("own"), st.lists(ALERTS, min_size=1, max_size=3).map(tuple), TEXTS, TEXTS)


@st.composite
def specs(draw: st.DrawFn) -> tuple[list[Slo], Policy]:
    """Objectives of any kind over windows of one length, with built-in policies and one of their own."""
    window = draw(WINDOWS)
    slos = []
    for name in draw(st.lists(NAMES, min_size=1, max_size=3, unique=True)):
        sli = draw(COUNTED | LEVELS)
        counted = isinstance(sli, EventSli | LatencySli)
        slos.append(
            Slo(
                name=name,
                service=draw(NAMES),
                objective=draw(OBJECTIVES),
                window=window,
                sli=sli,
                description=draw(TEXTS),
                budgeting=draw(BUDGETINGS) if counted else Budgeting(),
                owner=draw(TEXTS),
                policy=draw(st.sampled_from(["workbook", "four-window", "threshold", "own"])),
                runbook=draw(TEXTS),
                labels=draw(st.dictionaries(st.sampled_from(["tier", "team"]), TEXTS)),
            )
        )
    return slos, draw(OWN)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(specs())
def test_what_is_written_reads_back_equal(made: tuple[list[Slo], Policy]) -> None:
    """Objectives and the policies they name, to the last digit; and nothing is said to be lost."""
    slos, policy = made
    spec = read_openslo(dump_openslo(slos, {policy.name: policy}))

    assert list(spec.slos) == slos
    assert spec.policies == ({policy.name: policy} if any(slo.policy == policy.name for slo in slos) else {})
    assert spec.losses == ()


def test_the_shop_s_objectives_survive_the_way_through_a_file(tmp_path: Path) -> None:
    """Written, and read by the function that reads every format."""
    shop = load_specs(files_root() / "infra" / "slo" / "shop.yaml")
    (tmp_path / "openslo.yaml").write_text(dump_openslo(shop.slos), encoding="utf-8")

    assert load_specs(tmp_path / "openslo.yaml").slos == shop.slos


def test_one_thing_is_lost_in_writing() -> None:
    """OpenSLO wants a name for every indicator, so one that is called like its objective has none when it returns."""
    same = replace(SLO, sli=replace(SLO.sli, name=SLO.name))

    assert read_openslo(dump_openslo([same])).slos == (replace(SLO, sli=replace(SLO.sli, name="")),)


def test_numbers_are_written_with_every_digit() -> None:
    """A float would end after seventeen."""
    fine = replace(SLO, objective=1 - Fraction(1, 10**20))

    assert "target: 0.99999999999999999999\n" in dump_openslo([fine])
    assert read_openslo(dump_openslo([fine])).slos == (fine,)


@pytest.mark.parametrize(
    ("slo", "said"),
    [
        (
            replace(SLO, name="Api_Availability"),
            "lower-case letters, digits, `-` and `.` for OpenSLO, at most 63 (perhaps api-availability)",
        ),
        (replace(SLO, service=""), "the service must be"),
        (replace(SLO, objective=Fraction(2, 3)), "one that ends as a decimal number, got '2/3'"),
        (replace(SLO, window=Rolling(90)), "whole minutes, which OpenSLO can write, got '90s'"),
        (replace(SLO, description="x" * 1051), "at most 1050 characters"),
        (
            replace(SLO, sli=ThroughputSli("sum(a)", 1), budgeting=Budgeting("ratio-timeslices")),
            "occurrences for slices of time",
        ),
    ],
)
def test_what_openslo_cannot_say_is_an_error(slo: Slo, said: str) -> None:
    """With the name of the objective, and all of them at once."""
    with pytest.raises(ConfigInvalid) as caught:
        dump_openslo([slo, replace(SLO, name="B!")])

    assert caught.value.problems[0].startswith(f"{slo.name}: ")
    assert said in str(caught.value)
    assert "perhaps b" in str(caught.value)


def test_a_policy_that_there_is_not_cannot_be_written() -> None:
    """The nearest is named."""
    with pytest.raises(UnknownName, match="did you mean 'workbook'"):
        dump_openslo([replace(SLO, policy="workbok")])


FOREIGN = """
- apiVersion: openslo/v1
  kind: SLI
  metadata: {name: answered, labels: {team: x}}
  spec:
    ratioMetric:
      counter: true
      bad:
        metricSource:
          metricSourceRef: main
          type: prometheus
          spec: {query: 'sum(rate(hits_total{code=~"5.."}[{{.window}}]))'}
      total:
        metricSource: {spec: {query: 'sum(rate(hits_total[{{.window}}]))', dimensions: [a]}}
- apiVersion: openslo/v1
  kind: SLO
  metadata: {name: web, displayName: The web, labels: {tier: gold, teams: [a, b]}, annotations: {example.com/x: y}}
  spec:
    service: web
    indicatorRef: answered
    timeWindow: [{duration: 1Q, calendar: {startTime: 2025-10-01 00:00:00, timeZone: America/New_York}}]
    budgetingMethod: Timeslices
    objectives: [{targetPercent: 99.95, timeSliceTarget: 0.95, timeSliceWindow: 5}]
    alertPolicies: [fast]
- apiVersion: openslo/v1
  kind: AlertPolicy
  metadata: {name: fast}
  spec:
    alertWhenBreaching: true
    alertWhenNoData: true
    conditions: [{conditionRef: burns}]
    notificationTargets: [{targetRef: somebody}]
- apiVersion: openslo/v1
  kind: AlertCondition
  metadata: {name: burns}
  spec:
    severity: sev1
    condition: {kind: burnrate, threshold: 14, lookbackWindow: 1h, alertAfter: 5m}
- apiVersion: openslo/v1
  kind: DataSource
  metadata: {name: main}
  spec: {type: prometheus, connectionDetails: {}}
"""


def test_a_file_of_others_is_read_with_its_losses_named() -> None:
    """References, percentages, minutes without unit, a calendar quarter; rates count, a factor becomes a share."""
    spec = parse_specs(FOREIGN)
    query = 'sum(increase(hits_total{code=~"5.."}[$window]))'

    assert spec.slos == (
        Slo(
            "web",
            "web",
            Fraction(9995, 10_000),
            Calendar("quarter", "America/New_York"),
            EventSli(TOTAL, bad=query, name="answered"),
            "The web",
            Budgeting("timeslices", 300, Fraction(95, 100)),
            policy="fast",
            labels={"tier": "gold"},
        ),
    )
    # 14 times the burn rate for one hour of 91 days.
    assert spec.policies == {"fast": Policy("fast", (BurnAlert(Fraction(14, 91 * 24), 3600, None, 300),))}
    assert set(spec.losses) == {
        "the severity sev1 of alert policy fast became page",
        "SLI answered: the label team is not kept",
        "SLI answered: the data source main is not kept",
        "SLI answered: keys beside a query are not kept: dimensions",
        "SLO web: the label teams is not kept",
        "SLO web: the annotation example.com/x is not kept",
        "AlertPolicy fast: alerts for no data and for the end of a breach are not kept",
        "AlertPolicy fast: whom it notifies is not kept",
        "DataSource main is not kept",
    }


def test_an_slo_without_alert_policies_gets_the_default_and_says_so() -> None:
    """An assumption is named like a loss."""
    spec = read_openslo(changed("metadata.annotations", {}))

    assert spec.slos[0].policy == "workbook"
    assert spec.losses == ("SLO a has no alert policies; it gets the policy workbook",)


RATIO = "spec.indicator.spec.ratioMetric"
WINDOW = {"duration": "1M", "calendar": {"startTime": "2026-01-01 00:00:00", "timeZone": "UTC"}}


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("apiVersion", "openslo/v2alpha", "`apiVersion` must be one of openslo/v1"),
        ("kind", "SLOs", "must be one of SLO, SLI, AlertPolicy, AlertCondition, Service"),
        ("spec.servce", "x", "`spec.servce` is not a known key; did you mean `service`?"),
        ("spec.service", None, "`spec.service` is missing"),
        ("spec.indicator", None, "`spec.indicator` must be given, or `indicatorRef`"),
        ("spec.indicatorRef", "x", "and not both"),
        ("spec.timeWindow.0.duration", "1M", "must be a fixed length when it is rolling, in m, h, d or w (got 1M)"),
        ("spec.timeWindow.0.duration", "30", "a number above 0 and one of m h d w M Q Y"),
        ("spec.timeWindow.0.isRolling", False, "`spec.timeWindow.0.calendar` is missing, or `isRolling: true`"),
        ("spec.timeWindow", [], "`spec.timeWindow` must not be empty"),
        ("spec.timeWindow.0", {**WINDOW, "duration": "2M"}, "must be 1d, 1w, 1M, 1Q or 1Y with `calendar` (got 2M)"),
        (
            "spec.timeWindow.0",
            {**WINDOW, "calendar": {"startTime": "2026-01-02 00:00:00", "timeZone": "UTC"}},
            "must be where a calendar month starts, at midnight (got 2026-01-02 00:00:00)",
        ),
        (
            "spec.timeWindow.0",
            {**WINDOW, "calendar": {"startTime": "2026-01-01", "timeZone": "Europe/Berln"}},
            "did you mean Europe/Berlin?",
        ),
        ("spec.timeWindow.0", {**WINDOW, "isRolling": True}, "must be false with `calendar`"),
        ("spec.objectives.0.target", 99.9, "target must be a fraction above 0 and below 1, such as 0.999, got 99.9"),
        ("spec.objectives.0.target", 1, "got 1"),
        ("spec.objectives.0.targetPercent", 99.9, "must be given, or `targetPercent`, and not both"),
        ("spec.objectives", [{"target": 0.9}, {"target": 0.99}], "`spec.objectives` must have 1 at most, it has 2"),
        ("spec.budgetingMethod", "Timeslices", "`spec.objectives.0.timeSliceTarget` is missing"),
        ("spec.budgetingMethod", "RatioTimeslices", "`spec.objectives.0.timeSliceWindow` is missing"),
        (f"{RATIO}.total", None, "ratioMetric.total` is missing"),
        (f"{RATIO}.good.metricSource.spec", {}, "good.metricSource.spec.query` is missing: PromQL"),
        (f"{RATIO}.good.metricSource.type", "Datadog", "must be Prometheus, others cannot be asked (got 'Datadog')"),
        (
            f"{RATIO}.good.metricSource.spec.query",
            "sum(hits_total)",
            "spec.query`: counts nothing over time",
        ),
        (RATIO, {"raw": {}, "rawType": "success"}, "has a ratio and no counts"),
        ("spec.indicator.spec", {}, "ratioMetric` must be given, or `thresholdMetric`"),
        ("metadata.annotations", {"labkit/policy": "own"}, "its policy own is not built in"),
        ("spec.alertPolicies", ["fast"], "SLO a: there is no AlertPolicy 'fast' in the file"),
    ],
)
def test_what_cannot_be_computed_with_is_an_error(path: str, value: object, said: str) -> None:
    """With its place where it is in one object."""
    assert said in refusal(changed(path, value))


THRESHOLD = {"thresholdMetric": {"metricSource": {"spec": {"query": "sum(rate(a[2m]))"}}}}


@pytest.mark.parametrize(
    ("objective", "method", "said"),
    [
        ({"op": "lt", "value": 1}, "Timeslices", "must be gte (a throughput) or lte (a freshness)"),
        ({"op": "gte"}, "Timeslices", "value` is missing: what the thresholdMetric is compared with"),
        ({"op": "gte", "value": 1}, "Occurrences", "must be Timeslices for a thresholdMetric"),
        ({"op": "gte", "value": 1, "timeSliceTarget": 0.9}, "Timeslices", "must be 1 for a thresholdMetric"),
    ],
)
def test_a_threshold_is_judged_slice_by_slice(objective: dict[str, Any], method: str, said: str) -> None:
    """Everything else about levels has no meaning here, also where the indicator stands elsewhere in the file."""
    objective = {"target": 0.99, "timeSliceWindow": "1m", "timeSliceTarget": 1} | objective
    made = yaml.safe_load(changed("spec.objectives", [objective])) | {}
    made["spec"]["budgetingMethod"] = method
    made["spec"]["indicator"]["spec"] = THRESHOLD
    inside = refusal(yaml.safe_dump(made))
    indicator = {"apiVersion": "openslo/v1", "kind": "SLI", "metadata": {"name": "rate"}, "spec": THRESHOLD}
    del made["spec"]["indicator"]
    made["spec"]["indicatorRef"] = "rate"

    assert said in inside
    assert said in refusal(yaml.safe_dump_all([indicator, made]))


def test_alert_policies_that_mean_something_else_are_errors() -> None:
    """Thresholds beside their annotation, more than the whole budget, alerts on little burning or on nothing."""
    text = dump_openslo([SLO])
    changes = {
        "threshold: 14.4": ("threshold: 15", "has a threshold for another budget share"),
        "op: gt": ("op: lt", "alerts while little is burnt (lt)"),
        "alertWhenBreaching: true": ("alertWhenBreaching: false", "does not alert when it is breached"),
        "labkit/short-window: 5m": ("labkit/short-window: 10m", "has other alerts than the built-in one; rename it"),
        "name: workbook-30d-1": ("name: other", "there is no AlertPolicy 'workbook-30d-1' in the file"),
    }
    burnt = text.replace("labkit/budget-share: 1/50", "x: y", 1).replace("threshold: 14.4", "threshold: 721", 1)

    for old, (new, said) in changes.items():
        assert said in refusal(text.replace(old, new, 1)), old
    assert "waits for more than all of the budget in 3600 s" in refusal(burnt)


def test_places_are_those_of_the_whole_file() -> None:
    """Documents count on; the mistakes of all of them come at once."""
    wrong = changed("spec.service", None)
    said = refusal(f"# a comment\n---\n{wrong}---\n{wrong}")
    lines = [int(part.split(",")[0]) for part in said.split("line ")[1:]]

    assert len(lines) == 2
    assert lines[1] - lines[0] == wrong.count("\n") + 1


def test_names_are_unique_and_there_is_an_slo() -> None:
    """One name for each object of a kind."""
    service = "apiVersion: openslo/v1\nkind: Service\nmetadata: {name: a}\nspec: {}\n"

    assert "SLO a: there are 2 of this name" in refusal(
        f"{changed('spec.service', 'x')}---\n{changed('spec.service', 'y')}"
    )
    assert "there is no object of kind SLO" in refusal(service)


def test_a_latency_whose_queries_were_changed_by_hand_is_refused() -> None:
    """The annotation says what the queries said when they were written."""
    slo = replace(SLO, sli=LatencySli("wait_seconds", 0.25))
    text = dump_openslo([slo])

    assert read_openslo(text).slos == (slo,)
    for old, new in (('le="0.25"', 'le="0.5"'), ("wait_seconds_count", "other_total")):
        assert "say different things; remove one" in refusal(text.replace(old, new))
