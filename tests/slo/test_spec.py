"""Reading specification files: formats, defaults, exactness, places of mistakes."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest

from labkit.errors import ConfigInvalid, UnknownName
from labkit.settings import files_root
from labkit.slo.model import (
    Budgeting,
    BurnAlert,
    EventSli,
    FreshnessSli,
    LatencySli,
    Policy,
    Rolling,
    Slo,
    ThroughputSli,
)
from labkit.slo.spec import load_specs, parse_specs
from labkit.slo.spec_values import seconds_in

SLI = "{target_type: latency, query: wait_seconds, bound: 1s}"


def one(**changes: str) -> str:
    """A file with one objective, some keys of which are changed."""
    keys = {"name": "a", "target": "99%", "window": "30d", "sli": SLI} | changes
    return "slos:\n- " + "\n  ".join(f"{key}: {value}" for key, value in keys.items()) + "\n"


def refusal(text: str) -> str:
    """What is said of a wrong file."""
    with pytest.raises(ConfigInvalid) as caught:
        parse_specs(text, "slos.yaml")
    return str(caught.value)


def test_the_shop_s_own_objectives_load() -> None:
    """The file that the lab puts in force."""
    spec = load_specs(files_root() / "infra" / "slo" / "shop.yaml")

    assert spec.slo("visit-availability").objective == Fraction(999, 1000)
    assert len({slo.name for slo in spec.slos}) == len(spec.slos) >= 3


def test_what_is_not_said_has_its_default() -> None:
    """Every default at once."""
    assert parse_specs(one()).slos == (
        Slo("a", "", Fraction(99, 100), Rolling(2_592_000), LatencySli("wait_seconds", 1.0)),
    )


def test_every_digit_of_a_number_is_kept() -> None:
    """A float would make 99.99999999999999999 % of it 100 %."""
    assert parse_specs(one(target="99.99999999999999999")).slos[0].objective == 1 - Fraction(1, 10**19)


@pytest.mark.parametrize(
    ("sli", "made"),
    [
        (
            "{target_type: throughput, query: 'sum(rate(a[2m]))', minimum: 90, unit: per_minute, slice: 5m}",
            ThroughputSli("sum(rate(a[2m]))", 1.5, 300),
        ),
        ("{target_type: throughput, query: 'sum(rate(a[2m]))', minimum: 0.1}", ThroughputSli("sum(rate(a[2m]))", 0.1)),
        (
            "{target_type: freshness, query: time() - max(a), maximum: 1.5, unit: hours}",
            FreshnessSli("time() - max(a)", 5400),
        ),
        (
            "{target_type: latency, query: 'w{a=\"1\"}', bound: 250, unit: milliseconds, name: quick, description: d}",
            LatencySli("w", 0.25, 'a="1"', "quick", "d"),
        ),
        (
            "{target_type: availability, unit: percent, query: '100 * sum(rate(a[$window])) / sum(rate(b[$window]))'}",
            EventSli("sum(increase(b[$window]))", good="sum(increase(a[$window]))"),
        ),
        (
            "{target_type: availability, bad: ' sum(increase(a[$window]))', total: 'sum(increase(b[$window])) '}",
            EventSli("sum(increase(b[$window]))", bad="sum(increase(a[$window]))"),
        ),
    ],
)
def test_units_are_converted_and_rates_counted(sli: str, made: object) -> None:
    """An indicator holds seconds, events per second and increases, whatever the file has."""
    assert parse_specs(one(sli=sli)).slos[0].sli == made


@pytest.mark.parametrize(("milliseconds", "seconds"), [(1001, 1.001), (57, 0.057), (300, 0.3), (2500, 2.5)])
def test_a_bound_is_the_number_that_a_bucket_has(milliseconds: int, seconds: float) -> None:
    """1001 times 0.001 is 1.0009999999999999; the bounds of buckets are compared as text."""
    assert seconds_in(f"{milliseconds}ms", None) == seconds == seconds_in(milliseconds, "milliseconds")


@pytest.mark.parametrize(
    ("written", "made"),
    [
        ("occurrences", Budgeting()),
        ("{method: timeslices, slice_target: 99%}", Budgeting("timeslices", 60, Fraction(99, 100))),
        ("{method: timeslices, slice: 5m, slice_target: 100%}", Budgeting("timeslices", 300, Fraction(1))),
        ("{method: ratio-timeslices, slice: 30s}", Budgeting("ratio-timeslices", 30)),
    ],
)
def test_budgeting_has_a_short_and_a_long_form(written: str, made: Budgeting) -> None:
    """A slice is a minute if nothing else is said."""
    assert parse_specs(one(budgeting=written)).slos[0].budgeting == made


def test_a_file_adds_policies() -> None:
    """Shares are exact, lengths are seconds, and the objective may name them."""
    text = one(policy="mine") + (
        "policies:\n- name: mine\n  title: t\n  source: s\n  alerts:\n"
        "  - {budget_share: 0.02, long: 1h, short: 5m, for: 0}\n"
        "  - {budget_share: 100%, long: 3d, for: 1h, severity: ticket}\n"
    )
    spec = parse_specs(text)

    assert spec.slos[0].policy == "mine"
    assert spec.policies == {
        "mine": Policy(
            "mine",
            (BurnAlert(Fraction(1, 50), 3600, 300), BurnAlert(Fraction(1), 259_200, None, 3600, "ticket")),
            "t",
            "s",
        )
    }


def test_release_and_journeys_are_checked_and_handed_on_as_they_are() -> None:
    """The release policy's own classes take the mapping; mistakes in it have their line already here."""
    rest = "release: {slos: [a], steps: [{then: allow}]}\njourneys:\n- {name: buy, steps: [a], measured: a}\n"
    spec = parse_specs(one() + rest)
    wrong = "release: {slos: [b], steps: [{then: alow}]}\njourneys:\n- {name: buy, steps: [a], measured: c}\n"
    said = refusal(one() + wrong)

    assert spec.release == {"slos": ["a"], "steps": [{"then": "allow"}]}
    assert spec.journeys == ({"name": "buy", "steps": ["a"], "measured": "a"},)
    assert "line 6, column 18: `release.slos.0`: no SLO is called 'b'" in said
    assert "line 6, column 37: `release.steps.0.then` must be one of allow, approval, deny (got 'alow')" in said
    assert "`journeys.0.measured`: no SLO is called 'c'" in said


@pytest.mark.parametrize("text", ["", "slos: []", "slos:", "[]", "slos: {a: 1}", "slos: [3]", "a: b: c"])
def test_a_file_of_another_shape_is_refused(text: str) -> None:
    """Nothing, no objectives, a list, a mapping of objectives, numbers, no YAML."""
    assert refusal(text).startswith("slos.yaml: ")


def test_keys_that_rules_need_for_themselves_are_refused_in_labels() -> None:
    """Also what Prometheus keeps for itself, and what is no text."""
    said = refusal(one(labels="{__x: a, severity: b, ok: [c], fine: d}"))

    assert said.count("`slos.0.labels.") == 3
    assert "fine" not in said


@pytest.mark.parametrize("window", ["{calendar: month, zone: UTC}", "{timezone: UTC}", "[30d]"])
def test_windows_of_another_shape_are_refused(window: str) -> None:
    """An unknown key, none, a list."""
    assert "slos.0.window" in refusal(one(window=window))


def test_a_file_that_is_not_there_or_no_text_says_so(tmp_path: Path) -> None:
    """With its name."""
    (tmp_path / "latin.yaml").write_bytes("slos: # ä\n".encode("latin-1"))

    with pytest.raises(FileNotFoundError, match=r"nowhere\.yaml"):
        load_specs(tmp_path / "nowhere.yaml")
    with pytest.raises(ConfigInvalid, match=r"latin\.yaml: 1 mistake(.|\n)*line 1, column 1: not text in UTF-8"):
        load_specs(tmp_path / "latin.yaml")


def test_an_objective_is_found_by_name() -> None:
    """And the nearest one when there is none."""
    spec = parse_specs(one(name="checkout"), "slos.yaml")

    assert spec.slo("checkout").name == "checkout"
    with pytest.raises(UnknownName, match=r"did you mean 'checkout'\?.*They are in slos\.yaml"):
        spec.slo("chekout")
