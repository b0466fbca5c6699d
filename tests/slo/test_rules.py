"""Generated rules: what they hold, that Prometheus' own tools accept them, and that their tests can fail."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from labkit.errors import InvalidValue, UnknownName
from labkit.settings import files_root
from labkit.slo import rule_tests, rules
from labkit.slo._rule_text import Group, Rule, text_of
from labkit.slo._selectors import counted, selected
from labkit.slo.model import (
    Budgeting,
    BurnAlert,
    Calendar,
    EventSli,
    FreshnessSli,
    LatencySli,
    Policy,
    Rolling,
    Sli,
    Slo,
    ThroughputSli,
)
from labkit.slo.policies import POLICIES
from labkit.slo.pyrra import pyrra
from labkit.slo.spec import load_specs

SHOP = files_root() / "infra" / "slo" / "shop.yaml"
DAY_S = 86_400
TOTAL = 'sum(increase(http_requests_total{job="shop"}[$window]))'
GOOD = 'sum(increase(http_requests_total{job="shop",status!~"5.."}[$window]))'
BAD = 'sum(increase(http_requests_total{job="shop",status=~"5.."}[$window]))'


def slo(name: str = "a", sli: Sli | None = None, *, days: int = 30, **other: object) -> Slo:
    """An objective of 99.9 % of events."""
    given = {"objective": Fraction(999, 1000), "window": Rolling(days * DAY_S), **other}
    return Slo(name, "gateway", sli=sli or EventSli(TOTAL, good=GOOD), **given)  # type: ignore[arg-type]


EVERY_KIND = (
    slo("good"),
    slo("bad", EventSli(TOTAL, bad=BAD), days=7, policy="four-window"),
    slo("latency", LatencySli("http_request_duration_seconds", 0.25, 'job="shop"'), days=28, policy="pyrra"),
    slo("whole-bound", LatencySli("http_request_duration_seconds", 1), policy="threshold"),
    slo("throughput", ThroughputSli("sum(rate(orders_total[5m]))", 0.5), policy="multi-burn-rate"),
    slo("freshness", FreshnessSli("time() - max(last_success_timestamp_seconds)", 600), policy="for-duration"),
    slo("month", window=Calendar("month", "Europe/Berlin"), policy="long-window"),
    slo("day", days=1, policy="burn-rate"),
    slo("slices", budgeting=Budgeting("timeslices", 60, Fraction(99, 100)), objective=Fraction(99, 100)),
    slo("ratios", budgeting=Budgeting("ratio-timeslices", 300), labels={"team": 'the "best"\nof {{all}}'}),
)


def said(*argv: str | Path, cwd: Path) -> tuple[int, str]:
    """Exit code and output of a program."""
    done = subprocess.run([*map(str, argv)], cwd=cwd, capture_output=True, text=True, timeout=240, check=False)
    return done.returncode, done.stdout + done.stderr


def alerts_of(text: str) -> list[dict[str, object]]:
    """The alerting rules in the text of a rule file."""
    return [rule for group in yaml.safe_load(text)["groups"] for rule in group["rules"] if "alert" in rule]


def test_the_committed_files_are_what_the_specification_makes() -> None:
    """Rules and tests of the shop lie beside their source, so that a change shows what it does."""
    spec = load_specs(SHOP)

    assert (SHOP.parent / "rules.yml").read_text() == rules.generate(spec.slos, spec.policies)
    assert (SHOP.parent / "rules.test.yml").read_text() == rule_tests.generate(
        spec.slos, spec.policies, rules_file="rules.yml"
    )


def test_promtool_accepts_rules_of_every_kind(program: Callable[[str], Path], tmp_path: Path) -> None:
    """Indicators, windows, methods and policies of all kinds make rules that Prometheus takes."""
    templates = replace(EVERY_KIND[9], labels={"team": "ä'b\n"})
    text = rules.generate((*EVERY_KIND[:9], templates), {"pyrra": pyrra(28 * DAY_S)})
    (tmp_path / "slo.yml").write_text(text)

    code, output = said(program("promtool"), "check", "rules", "slo.yml", cwd=tmp_path)

    assert (code, "FAILED" in output) == (0, False), output
    assert f"SUCCESS: {text.count(chr(10) + '      - ')} rules found" in output


def test_the_generated_tests_pass_and_notice_a_wrong_rule(program: Callable[[str], Path], tmp_path: Path) -> None:
    """`promtool test rules`: a threshold, a window, a condition or a sign that is wrong makes them fail."""
    both = (load_specs(SHOP).slos[0], EVERY_KIND[1])
    text = rules.generate(both)
    (tmp_path / "both.yml").write_text(rule_tests.generate(both, rules_file="slo.yml"))
    (tmp_path / "one.yml").write_text(rule_tests.generate(both[:1], rules_file="slo.yml"))
    ratio = '1 - ((sum(increase(http_requests_total{job="shop",service="gateway",status!~'
    mutants = {
        "": "",
        "> 0.0144": "> 0.0288",
        "\n          and\n": "\n          or\n",
        ratio: ratio.replace("1 - ", "0 + "),
        "ratio_rate29d{slo": "ratio_rate30d{slo",
        "severity: critical": "severity: warning",
    }  # fmt: skip
    outcomes = {}
    for right, wrong in mutants.items():
        assert right in text
        (tmp_path / "slo.yml").write_text(text.replace(right, wrong) if right else text)
        tests = "one.yml" if right else "both.yml"
        outcomes[right] = said(program("promtool"), "test", "rules", tests, cwd=tmp_path)

    assert outcomes[""][0] == 0, outcomes[""][1]
    assert [right for right, (code, output) in outcomes.items() if code == 0 or "FAILED" not in output] == [""]


def test_every_alert_leads_somebody_somewhere() -> None:
    """Each has labels to route by, two texts, and a runbook that exists; an objective's own one goes before it."""
    own = slo("own", runbook="https://runbooks.example.org/own", owner="shop", labels={"team": "red"})
    alerts = alerts_of(rules.generate((*load_specs(SHOP).slos, own)))

    assert {str(alert["alert"]) for alert in alerts} == set(rules.ALERT_NAMES)
    for alert in alerts:
        labels, notes = alert["labels"], alert["annotations"]
        assert isinstance(labels, dict)
        assert isinstance(notes, dict)
        assert {"slo", "service", "severity", "long"} <= set(labels)
        assert labels["severity"] in {"critical", "warning"}
        assert notes["summary"] != notes["description"]
        if labels["slo"] == "own":
            assert notes["runbook"] == "https://runbooks.example.org/own"
            assert (labels["owner"], labels["team"]) == ("shop", "red")
        else:
            assert (files_root() / notes["runbook"]).read_text().startswith(f"# {alert['alert']}\n")


@pytest.mark.parametrize("name", rules.ALERT_NAMES)
def test_every_name_has_a_runbook_with_first_steps(name: str) -> None:
    """Meaning, first look, mitigations: as the runbooks of all other alerts."""
    text = (files_root() / "infra" / "runbooks" / f"{name}.md").read_text()

    assert [line for line in text.splitlines() if line.startswith("## ")] == [
        "## What it means", "## First look", "## Mitigations"
    ]  # fmt: skip


def test_fast_is_what_takes_the_budget_within_three_days() -> None:
    """2 % in an hour is fast whatever the period, 5 % in six hours is slow, and so is a ratio above the objective."""
    for days in (7, 28, 30, 90):
        made = rules.plan(slo(days=days, policy="four-window"))
        assert [burn.name for burn in made.burns] == [rules.FAST_BURN, *[rules.SLOW_BURN] * 3]
    assert [burn.name for burn in rules.plan(slo(policy="threshold")).burns] == [rules.SLOW_BURN]


def test_thresholds_follow_share_and_period() -> None:
    """2 % in 1 h is a burn of 14.4 over 30 days, 13.44 over 28, 3.36 over 7; times the ratio that 99.9 % allows."""
    found = {days: rules.plan(slo(days=days)).burns[0].threshold for days in (30, 28, 7)}

    assert found == {30: 0.0144, 28: 0.01344, 7: 0.00336}


def test_the_day_of_the_exhaustion_alert_needs_more_than_a_day() -> None:
    """A window of one day or a calendar's month has no such alert; a calendar's window has no rule over its length."""
    by_name = {name: {str(a["alert"]) for a in alerts_of(rules.generate([EVERY_KIND[i]]))} for name, i in
               (("good", 0), ("month", 6), ("day", 7))}  # fmt: skip

    assert by_name["good"] >= {rules.VIOLATION, rules.EXHAUSTION}
    assert not by_name["month"] & {rules.VIOLATION, rules.EXHAUSTION}
    assert rules.VIOLATION in by_name["day"]
    assert rules.EXHAUSTION not in by_name["day"]


def test_what_is_doubtful_stands_above_the_objective() -> None:
    """A policy that can never fire is generated as it is wanted, and said."""
    hopeless = Policy("hopeless", (BurnAlert(Fraction(1), long_s=3600),))

    text = rules.generate([slo(objective=Fraction(9, 10), policy="hopeless")], {"hopeless": hopeless})

    assert "# Doubtful: page 1h: can never fire" in text
    assert len(alerts_of(text)) == 3


def test_what_cannot_be_generated_is_refused() -> None:
    """The same objective twice, an unknown policy, and slices that nobody can call good."""
    with pytest.raises(InvalidValue, match="a of gateway, twice"):
        rules.generate([slo(), slo()])
    with pytest.raises(UnknownName, match="did you mean 'workbook'"):
        rules.generate([slo(policy="workbok")])
    with pytest.raises(InvalidValue, match="slice_target must be the fraction"):
        rules.generate([slo(budgeting=Budgeting("timeslices"))])


def test_no_objectives_make_an_empty_file(program: Callable[[str], Path], tmp_path: Path) -> None:
    """Still one that Prometheus reads."""
    (tmp_path / "slo.yml").write_text(rules.generate([]))

    assert said(program("promtool"), "check", "rules", "slo.yml", cwd=tmp_path)[0] == 0


def test_a_thousand_objectives_take_under_two_seconds() -> None:
    """Processor time, so that a busy machine does not count; the bench has the row."""
    many = [slo(f"objective-{index}", policy="four-window") for index in range(1000)]
    began = time.process_time()

    text = rules.generate(many)

    assert time.process_time() - began < 2
    assert text.count("  - name: ") == 2000


TEXT = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=40) | st.sampled_from(
    [
        *("no", "5m", "1e3", "a: b", "- x", "|", "{{ x }}", "~", ""),
        *('say "hi"\n  there', "a\n\nb", " lead", "tail ", "a #b", "é\u2028x", "😀"),
    ]
)


@settings(max_examples=150, deadline=None)
@given(name=TEXT, expr=TEXT, value=TEXT, note=TEXT)
def test_whatever_is_written_is_read_back(name: str, expr: str, value: str, note: str) -> None:
    """The file says to a YAML reader exactly what the rules say, whatever signs are in them or in comments."""
    group = Group(name, (Rule("alert", name, expr, {"a": value}, 60, {"summary": value}),), "1m", (note,))

    (read,) = yaml.safe_load(text_of([group], "made by a test"))["groups"]

    assert read == {
        "name": name,
        "interval": "1m",
        "rules": [
            {"alert": name, "expr": expr, "for": "60s", "labels": {"a": value}, "annotations": {"summary": value}}
        ],
    }


@pytest.mark.parametrize(
    ("query", "metric"),
    [
        (GOOD, "http_requests_total"),
        ("sum(rate(a[$window]))", "a"),
        ('sum( increase( a{b="}{"} [$window] ) )', "a"),
        ("sum(increase(a[$window])) + sum(increase(b[$window]))", None),
        ("sum by (x) (increase(a[$window]))", None),
        ("sum(increase(a{b=\"x\" c='y'}[$window]))", None),
        ("max(a)", None),
    ],
)
def test_a_sum_over_one_metric_is_recognised_and_nothing_else(query: str, metric: str | None) -> None:
    """What is not understood whole is not understood at all."""
    found = selected(query)

    assert (found.metric if found else None) == metric


def test_slices_of_time_count_no_metric() -> None:
    """Throughput and freshness have no counters of their own, so their ratios are not tested from counters."""
    assert counted(ThroughputSli("sum(rate(a[5m]))", 1)) is None
    assert "events are bad" not in rule_tests.generate([EVERY_KIND[4]])


def test_every_design_has_its_tests() -> None:
    """For each alert of each policy one test that it fires and ends, and one that its threshold is not above itself."""
    for name, policy in POLICIES.items():
        text = rule_tests.generate([slo(policy=name)])
        assert text.count("fires and ends") == text.count("does not fire at its threshold") == len(policy.alerts)


def test_the_page_about_rules_names_what_there_is() -> None:
    """Every alert, and the numbers of Pyrra's method as our code computes them."""
    page = (files_root() / "docs" / "slo-rules.md").read_text()

    assert all(f"`{name}`" in page for name in rules.ALERT_NAMES)
    for alert in pyrra().alerts:
        assert f"{alert.budget_share} = {float(alert.budget_share) * 100:.3g} %" in page
        assert f"| {alert.factor(28 * DAY_S)} |" in page
    assert pyrra(30 * DAY_S).alerts[3].long_s == 4 * DAY_S + 6 * 3600 + 51 * 60
    assert "4 d 6 h 51 min" in page
