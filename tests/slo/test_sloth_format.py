"""Sloth's `prometheus/v1`: read with its defaults, and nothing lost in silence."""

from __future__ import annotations

from fractions import Fraction

import pytest

from labkit.errors import ConfigInvalid
from labkit.slo.model import BurnAlert, EventSli, Policy, Rolling, Slo
from labkit.slo.policies import POLICIES
from labkit.slo.spec import parse_specs

EVENTS = """sli:
    events:
      error_query: sum(rate(hits_total{code=~"(5..|429)"}[{{.window}}]))
      total_query: sum(rate(hits_total[{{ .window }}]))"""
FILE = f"""
version: "prometheus/v1"
service: "shop"
labels:
  owner: "a-team"
  tier: "2"
slos:
- name: "requests-availability"
  objective: 99.9
  description: "Common SLO"
  labels:
    tier: "1"
  {EVENTS}
  alerting:
    name: ShopAvailability
    labels:
      category: "availability"
    annotations:
      runbook_url: "https://runbooks.example/shop"
      summary: "too many errors"
    page_alert:
      labels:
        severity: pageteam
    ticket_alert:
      disable: true
- name: "requests-availability-2"
  objective: 0.5
  {EVENTS}
  alerting: {{page_alert: {{disable: true}}, ticket_alert: {{disable: true}}}}
- name: "requests-availability-3"
  objective: 99
  {EVENTS}
"""


def refusal(text: str) -> str:
    """What is said of a wrong file."""
    with pytest.raises(ConfigInvalid) as caught:
        parse_specs(text, "sloth.yml")
    return str(caught.value)


def test_objectives_come_with_sloth_s_period_and_windows() -> None:
    """Percentages always, bad over total, labels of the file below those of the objective, the runbook."""
    spec = parse_specs(FILE)
    counted = 'sum(increase(hits_total{code=~"(5..|429)"}[$window]))'

    assert spec.slos[0] == Slo(
        "requests-availability",
        "shop",
        Fraction(999, 1000),
        Rolling(30 * 86_400),
        EventSli("sum(increase(hits_total[$window]))", bad=counted),
        "Common SLO",
        policy="four-window-without-tickets",
        runbook="https://runbooks.example/shop",
        labels={"owner": "a-team", "tier": "1"},
    )
    assert [slo.objective for slo in spec.slos[1:]] == [Fraction(1, 200), Fraction(99, 100)]


def test_disabled_alerts_are_left_out_of_the_policy() -> None:
    """Without tickets, without any, and as Sloth makes them."""
    spec = parse_specs(FILE)
    names = [slo.policy for slo in spec.slos]

    assert names == ["four-window-without-tickets", "four-window-without-pages-and-tickets", "four-window"]
    assert set(spec.policies) == set(names[:2])
    assert {alert.severity for alert in spec.policies[names[0]].alerts} == {"page"}
    assert spec.policies[names[1]].alerts == ()


def test_sloth_s_windows_are_those_of_its_default_for_thirty_days() -> None:
    """2 % in 1 h and 5 % in 6 h page, 10 % in 1 d and in 3 d are tickets; the short windows are a twelfth."""
    policy: Policy = POLICIES["four-window"]
    percent, hour = Fraction(1, 100), 3600

    assert policy.alerts == tuple(
        BurnAlert(share * percent, hours * hour, hours * hour // 12, severity=severity)
        for share, hours, severity in ((2, 1, "page"), (5, 6, "page"), (10, 24, "ticket"), (10, 72, "ticket"))
    )


def test_what_has_no_place_is_named() -> None:
    """The period that is assumed, and names, labels and annotations of alerts."""
    assert parse_specs(FILE).losses == (
        "the period of 30 days is Sloth's default; the file says nothing of it",
        "requests-availability: the name of its alerts, ShopAvailability, is not kept; the policy names them",
        "requests-availability: the labels of its alerts are not kept: category",
        "requests-availability: the annotations of its alerts are not kept: summary",
        "requests-availability: the labels and annotations of its pages are not kept: severity",
    )


def test_plugins_are_named_and_not_applied() -> None:
    """Of the file and of an objective."""
    text = FILE + "  plugins: {chain: []}\nslo_plugins: {chain: []}\n"

    assert parse_specs(text).losses[-2:] == (
        "requests-availability-3: its plugins are not applied",
        "the plugins in `slo_plugins` are not applied",
    )


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "objective: 99.9",
            "objective: 100",
            "a percentage above 0 and below 100, such as 99.9 (100 leaves no budget), got 100",
        ),
        ("objective: 99.9", "objective: 0", "got 0"),
        ("objective: 99.9", "objective: 99.9%", "got '99.9%'"),
        ("prometheus/v1", "prometheus/v2", "`version` must be one of prometheus/v1 (got 'prometheus/v2')"),
        ("requests-availability-2", "requests-availability", "is the name of `slos.0` already"),
        ("page_alert", "page_alrt", "is not a known key; did you mean `page_alert`?"),
        ("[{{.window}}]", "[5m]", "error_query`: the length of time is fixed; write [{{.window}}] in place of [5m]"),
        ("[{{ .window }}]", "[{{.windows}}]", "total_query`: not PromQL"),
        (
            "sum(rate(hits_total{",
            "sum by (job) (rate(hits_total{",
            "and `total_query` keeps none: no value of one matches",
        ),
        ("events:", "raw: {error_ratio_query: x}\n    events:", "sli.raw`: has a ratio and no counts"),
        ("events:", "plugin: {id: x}\n    events:", "sli.plugin`: has a ratio and no counts"),
        ("service:", "servic:", "`service` is missing"),
        ('tier: "2"', "tier: 2", "`labels.tier` must be text; put it in quotes (got 2)"),
    ],
)
def test_mistakes_have_their_place_and_their_fix(old: str, new: str, said: str) -> None:
    """In Sloth's own words: its keys, its placeholder."""
    assert said in refusal(FILE.replace(old, new, 1))


def test_an_indicator_without_anything_is_refused() -> None:
    """`events` is named."""
    assert "sli.events` is missing" in refusal(FILE.replace(EVENTS, "sli: {}", 1))
