"""May we deploy now?  Every answer of a release policy, its exit code, and that unknown is never a yes."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labkit.errors import ConfigInvalid, InvalidValue, UnknownName
from labkit.slo.counts import frame
from labkit.slo.model import EventSli, Rolling, Slo
from labkit.slo.release import (
    DEFAULT,
    EXIT_CODES,
    Condition,
    Decision,
    ReleasePolicy,
    Step,
    as_policy,
    decide,
    load_policy,
    parse_policy,
    require_known,
)
from labkit.slo.report import Report, report
from labkit.slo.source import CountsSource
from tests.slo.conftest import END

DAY_S = 86_400
# 99 % over ten days, of a thousand requests a day: a hundred may be bad.
SLO = Slo("shop", "gateway", Fraction(99, 100), Rolling(10 * DAY_S), EventSli("total[$window]", good="good"))

OUR_POLICY = """
slos: []
release:
  name: shop
  slos: [shop]
  steps:
    - {name: broken, when: {status: violated}, then: deny, because: The promise is broken., exempt: [security]}
    - {name: low, when: {remaining_below: 50%}, then: approval, because: Half is gone.}
    - {name: fast, when: {burn_above: {window: 2d, rate: 2.5}}, then: deny}
    - {name: enough, then: allow}
"""


def of_days(**bad: list[int] | None) -> Report:
    """A report on objectives with so many bad requests on each of ten days; None for no counts."""
    slos = [replace(SLO, name=name) for name in bad]
    frames = {
        name: frame([1000 - one for one in days], [1000] * 10, end=END, step_s=DAY_S)
        for name, days in bad.items()
        if days is not None
    }
    return report(slos, CountsSource(frames), END, windows_s=[2 * DAY_S])


def first_day(bad: int) -> list[int]:
    """All bad requests on the first of ten days."""
    return [bad, *[0] * 9]


@pytest.mark.parametrize(
    ("bad", "outcome", "exit_code"),
    [(0, "allow", 0), (90, "allow", 0), (95, "approval", 1), (101, "deny", 1), (None, "unknown", 2)],
)
def test_the_policy_of_the_house(bad: int | None, outcome: str, exit_code: int) -> None:
    """Enough budget allows, little asks for an approval, a broken promise denies, and no counts are unknown."""
    decision = decide(DEFAULT, of_days(shop=None if bad is None else first_day(bad)))

    assert (decision.outcome, decision.exit_code, decision.allowed) == (outcome, exit_code, exit_code == 0)
    assert decision.reason
    assert decision.to_dict()["exit_code"] == exit_code


def test_an_incident_that_goes_on_denies() -> None:
    """While a page's condition holds nothing is released, however much budget is left."""
    slo = replace(SLO, objective=Fraction(999, 1000), window=Rolling(30 * DAY_S))
    month = frame([1000] * 43_190 + [900] * 10, [1000] * 43_200, end=END, step_s=60)
    decision = decide(DEFAULT, report([slo], CountsSource({"shop": month}), END))

    assert (decision.outcome, decision.rows[0].step) == ("deny", "burning")
    assert "An incident is spending the budget now." in decision.reason


def test_the_gravest_answer_counts() -> None:
    """One broken promise outweighs an unknown one, which outweighs a low budget, which outweighs a healthy one."""
    healthy, low, broken = first_day(0), first_day(95), first_day(200)

    def outcome(**bad: list[int] | None) -> str:
        return decide(DEFAULT, of_days(**bad)).outcome

    assert outcome(a=healthy, b=low) == "approval"
    assert outcome(a=healthy, b=low, c=None) == "unknown"
    assert outcome(a=healthy, b=low, c=None, d=broken) == "deny"


def test_an_approval_is_a_yes_to_that_question_only() -> None:
    """Whoever approves turns `approval` into a yes, and neither `deny` nor `unknown`."""
    asked = decide(DEFAULT, of_days(shop=first_day(95)), approved_by="the owner")

    assert (asked.allowed, asked.exit_code, asked.outcome) == (True, 0, "approval")
    assert "Approved by the owner." in asked.reason
    for bad in (first_day(200), None):
        assert not decide(DEFAULT, of_days(shop=bad), approved_by="the owner").allowed


def test_a_step_does_not_stop_the_changes_that_it_exempts() -> None:
    """A security fix passes the step that names it, and is judged by the steps below."""
    policy = parse_policy(OUR_POLICY)
    assert policy is not None
    broken = of_days(shop=first_day(200))

    assert decide(policy, broken).rows[0].step == "broken"
    fix = decide(policy, broken, change="security")
    assert (fix.outcome, fix.rows[0].step) == ("approval", "low")


def test_steps_are_taken_in_their_order_and_objectives_by_name() -> None:
    """The first step that applies counts; objectives that the policy does not name do not matter."""
    policy = parse_policy(OUR_POLICY)
    assert policy is not None
    decision = decide(policy, of_days(shop=[*[0] * 8, 30, 21], other=None))

    assert [(row.slo, row.outcome, row.step) for row in decision.rows] == [("shop", "approval", "low")]
    fast = decide(policy, of_days(shop=[*[0] * 8, 25, 26][:10]))
    assert fast.rows[0].step == "low"
    slow = decide(policy, of_days(shop=[*[0] * 8, 25, 24]))
    assert slow.outcome == "allow"


def test_the_same_mapping_is_the_same_policy() -> None:
    """What a specification file holds as plain keys decides as the policy itself."""
    policy = as_policy({"steps": [{"when": {"remaining_below": "50%"}, "then": "deny"}, {"then": "allow"}]})

    assert [str(step.when) for step in policy.steps] == ["less than 50 % of the budget is left", "always"]
    low = of_days(shop=first_day(60))
    assert decide({"steps": [{"when": {"remaining_below": "50%"}, "then": "deny"}, {"then": "allow"}]}, low) == decide(
        policy, low
    )


def test_without_objectives_nothing_is_known() -> None:
    """An empty report is no yes."""
    decision = decide(DEFAULT, of_days())

    assert (decision.outcome, decision.exit_code) == ("unknown", 2)
    assert decision.reason == "No objective was measured, so nothing is known."


def test_a_condition_that_cannot_be_told_is_said_to_be_so() -> None:
    """The reason names the condition and what is missing."""
    policy = ReleasePolicy(
        "fast", (Step("fast", Condition(burn_window_s=2 * DAY_S, burn_above=Fraction(2)), "deny"), DEFAULT.steps[-1])
    )
    decision = decide(policy, of_days(shop=None))

    assert decision.reason.startswith("shop: It cannot be told whether burn over 2 d is above 2: There are no counts")


def test_a_false_part_decides_whatever_the_unknown_one_says() -> None:
    """Of two parts that must both be true a false one is enough to skip the step."""
    row = of_days(shop=None)["shop"]

    assert Condition(status=("violated",), remaining_below=Fraction(1, 2)).holds(row) is False
    assert Condition(status=("unknown",), remaining_below=Fraction(1, 2)).holds(row) is None
    assert Condition(status=("unknown",)).holds(row) is True


def test_a_report_without_the_window_is_refused() -> None:
    """A policy that looks at a burn window that nobody measured raises, and says how to measure it."""
    policy = ReleasePolicy(
        "fast", (Step("fast", Condition(burn_window_s=7200, burn_above=Fraction(2)), "deny"), DEFAULT.steps[-1])
    )

    assert policy.windows_s == (7200,)
    with pytest.raises(InvalidValue, match=r"windows_s=policy.windows_s"):
        decide(policy, of_days(shop=first_day(0)))


def test_unknown_objectives_are_named() -> None:
    """A policy for an objective that there is not is refused with the nearest name."""
    policy = replace(DEFAULT, slos=("shp",))
    with pytest.raises(UnknownName, match="did you mean 'shop'"):
        decide(policy, of_days(shop=first_day(0)))
    with pytest.raises(UnknownName, match="Release policy default names it"):
        require_known(policy, ["shop"])


def test_every_mistake_in_a_policy_has_its_place(tmp_path: Path) -> None:
    """Line and column, the bad value and what is allowed; a yes to unknown, and steps that never apply, are refused."""
    path = tmp_path / "release.yaml"
    path.write_text(
        """
release:
  steps:
    - {when: {status: unknown}, then: allow}
    - {when: {remaining_below: 20}, then: maybe}
    - {then: allow}
    - {when: {burn_above: {window: 1h, rate: fast}}, then: deny}
"""
    )
    with pytest.raises(ConfigInvalid) as caught:
        load_policy(path)

    text = str(caught.value)
    assert "unknown is not a yes" in text
    assert "line 5, column 32: `release.steps.1.when.remaining_below`" in text
    assert "must be one of allow, approval, deny (got 'maybe')" in text
    assert "burn rate must be a number from 0 up, such as 14.4, got 'fast'" in text


@pytest.mark.parametrize(
    ("steps", "says"),
    [
        ("[{when: {alert: page}, then: deny}]", "must not be in the last step"),
        ("[{then: deny}, {then: allow}]", "always applies, so the steps below it never do"),
        ("[{then: allow, exempt: [security]}]", "nothing would apply to such changes"),
        ("[]", "must not be empty"),
    ],
)
def test_a_policy_has_an_answer_for_everything(steps: str, says: str) -> None:
    """The last step, and only it, applies always."""
    with pytest.raises(ConfigInvalid, match=says):
        parse_policy(f"release: {{steps: {steps}}}")


def test_a_file_without_a_policy_has_none() -> None:
    """Other keys are for other readers."""
    assert parse_policy("slos: []") is None


def test_the_text_names_the_objectives_and_steps() -> None:
    """A pipeline's log says the answer, the reason, and which step decided for which objective."""
    text = str(decide(DEFAULT, of_days(good=first_day(0), bad=first_day(200))))

    assert text.startswith("Release denied (policy default). bad: The error budget is spent.")
    assert "\n  bad: deny, step broken-promise\n  good: allow, step enough" in text


_CONDITIONS = st.builds(
    Condition,
    status=st.lists(st.sampled_from(["healthy", "at_risk", "violated"]), max_size=2).map(tuple),
    remaining_below=st.none() | st.fractions(0, 1),
    alert=st.none() | st.sampled_from(["page", "ticket"]),
    exhausted_within_s=st.none() | st.integers(1, 10**6),
)
_STEPS = st.lists(
    st.builds(Step, st.just("step"), _CONDITIONS, st.sampled_from(["allow", "approval", "deny"])), max_size=4
)
# Made once: what varies is the policy.
_UNKNOWN, _KNOWN = of_days(a=first_day(0), b=None), of_days(a=first_day(0))


@given(_STEPS)
@settings(max_examples=60, deadline=None)
def test_no_policy_says_yes_to_the_unknown(steps: list[Step]) -> None:
    """Whatever the steps, an objective of which nothing is known keeps a release from being allowed."""
    policy = ReleasePolicy("any", (*steps, Step("rest", Condition(), "allow")))
    decision = decide(policy, _UNKNOWN)

    assert not decision.allowed
    assert decision.exit_code == EXIT_CODES[decision.outcome] != 0
    # Knowing less never turns a no into a yes.
    assert isinstance(known := decide(policy, _KNOWN), Decision)
    assert known.exit_code <= decision.exit_code or decision.outcome == "deny"
