"""Notebook 02, what follows from the numbers: which change may go out, and why a screen says something else."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from labkit.course import ex02_world as world
from labkit.course.ex02_world import kind_of
from labkit.course.exercise import Bound, Exercise, Verdict, correct, not_yet
from labkit.course.judges import choice_judge
from labkit.slo.approximations import average_of_ratios
from labkit.slo.explain import Explanation, explain
from labkit.slo.release import Decision, ReleasePolicy, as_policy, decide
from labkit.slo.report import Report

__all__ = ["DOUBT", "GATE", "on_the_screen", "release_policy"]

_CHANGES = ("feature", "fix")


def release_policy() -> ReleasePolicy:
    """The release policy that the specification of notebook 02 states."""
    raw = world.specification().release
    assert raw is not None  # noqa: S101  (`PROMISE` has one)
    return as_policy(raw)


def _report(lab: Any) -> Report:
    found: Report = lab.slo.report([world.checkout()])
    return found


def _objections(lab: Any, answer: tuple[Decision, Decision]) -> Iterator[str]:
    """What is wrong with the two decisions: first whether they were made by the rules, then what they say."""
    policy, report = release_policy(), _report(lab)
    name = world.checkout().name
    for change, mine in zip(_CHANGES, answer, strict=True):
        if mine.policy != policy.name:
            yield (
                f"`{change}` was decided by the policy `{mine.policy}`, and the specification has `{policy.name}`: "
                "rules that are changed until they allow it are no rules."
            )
        if name not in {row.slo for row in mine.rows}:
            yield f"`{change}` was decided without looking at `{name}`: an objective that is left out cannot be missed."
        due = decide(policy, report, change=change)
        if mine.approved_by and mine.outcome != "approval":
            yield f"`{change}`: {mine.approved_by} approved, and nobody was asked: {mine.outcome} stays {mine.outcome}."
        if mine.outcome != due.outcome and mine.outcome == decide(policy, report).outcome:
            yield f"`{change}` was decided as if it were any change. Which argument of `decide` says what kind it is?"
        if mine.outcome != due.outcome:
            yield (
                f"`{change}`: you have {mine.outcome}, and the counts of this lab say {due.outcome}. {due.reason} "
                "Is your objective the one that was promised?"
            )


def _judge_gate(exercise: Bound, answer: Any) -> Verdict:
    if not isinstance(answer, tuple) or len(answer) != len(_CHANGES):
        return not_yet("The answer is checked as (for_feature, for_fix); run the cell of the check as it stands.")
    for change, one in zip(_CHANGES, answer, strict=True):
        if not isinstance(one, Decision):
            seen = "still its dots" if one is ... else kind_of(one)
            return not_yet(f"`{change}` is {seen}; what `decide(…)` returned is expected.")
    objection = next(_objections(exercise.lab, answer), None)
    if objection:
        return not_yet(objection)
    feature, fix = answer
    return correct(
        f"The feature: {feature.outcome}. The fix: {fix.outcome}. A spent budget stops what risks more of it, "
        "and not what mends it."
    )


GATE = Exercise(
    id="02-7",
    title="may these two changes go out?",
    judge=_judge_gate,
    hints=(
        "`decide` takes the policy and a report of this moment, and which kind of change it is.",
        "One step of the policy has an exemption. To which of the two changes does it apply?",
        "for_feature = decide(policy, report, change='feature'), and the same with 'fix'.",
    ),
)


def on_the_screen(lab: Any) -> float:
    """How many budgets of checkouts a colleague's screen says are spent; what it computes is exercise 8."""
    slo = world.checkout()
    return average_of_ratios(world.counts(lab)) / float(1 - slo.objective)


def _explained(lab: Any) -> Explanation:
    return explain("budget", counts=world.counts(lab), slo=world.checkout())


def _ways(lab: Any) -> list[str]:
    return [one.name for one in _explained(lab).approximations]


def _nearest(lab: Any) -> str:
    """The way of computing whose value is that of the screen."""
    shown = on_the_screen(lab)
    known = [one for one in _explained(lab).approximations if one.value is not None]
    return min(known, key=lambda one: abs((one.value or 0) - shown)).name


def _always(name: str, _: Any) -> str:
    return name


DOUBT = Exercise(
    id="02-8",
    title="why the screen says something else",
    judge=choice_judge(
        _nearest,
        options=_ways,
        what="way",
        slips={
            "{answer!r} is a count and no number of budgets; the screen shows budgets.": partial(
                _always, "increase() of all events"
            ),
            "{answer!r} counts failures, and hardly differs from the truth; the screen does.": partial(
                _always, "increase() of bad events"
            ),
            "{answer!r} agrees with the exact value: stretching cancels in a ratio. The screen does not.": partial(
                _always, "the ratio of the two"
            ),
            "{answer!r} comes near and not to the digit: it looks through windows of five minutes.": partial(
                _always, "average of a recorded ratio"
            ),
        },
        debrief="It gives a minute at night, with half of the customers, the weight of a minute at noon.",
    ),
    hints=(
        "`explain('budget', …, shown=…)` sets the number on the screen beside other ways to compute it.",
        "Compare `off by` of the value that was shown with `off by` of each way.",
        "Which way gives every minute the same weight, however few customers it had?",
    ),
)
