"""
Every check discriminates: nothing done, plausible wrong answers, destruction, the right answer.

One table.  A second test fails when an exercise lacks one of the four; "destroy" may be declared not applicable,
with the reason, where an exercise has no world that could be destroyed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from labkit.course import Outcome, all_exercises
from labkit.course.catalogue import numbers
from labkit.course.ex00 import EXERCISES
from labkit.course.exercise import Exercise

KINDS = ("nothing", "wrong", "destroy", "right")


@dataclass(frozen=True)
class Row:
    """One way to answer: *prepare* changes the world after the exercise was bound, *answer* may be computed from it."""

    exercise: str
    kind: str
    name: str
    answer: Any
    message: str
    prepare: Callable[[Any], None] | None = None


def budget(world: Any, *endpoints: str) -> float:
    """A reference of its own: failed over a thousandth of all, from the counts behind the history."""
    past = world.prometheus.past
    frames = [past.request_counts(endpoint=e) for e in past.traffic.endpoints if not endpoints or e[1] in endpoints]
    total = sum(f["total"].sum() for f in frames)
    return float((total - sum(f["good"].sum() for f in frames)) / (0.001 * total))


LIST, PAGES, CHECKOUT = "/products", "/products/{id}", "/checkout/{user}"


def failed(world: Any) -> float:
    """Failed requests of the product list, counted behind the history."""
    frame = world.prometheus.past.request_counts(endpoint=("GET", LIST))
    return float((frame["total"] - frame["good"]).sum())


ROWS = [
    Row("00-1", "nothing", "stub", ..., "Replace the dots"),
    Row("00-1", "wrong", "percent", lambda w: 100 * budget(w, LIST), "is a percentage"),
    Row("00-1", "wrong", "ratio", lambda w: 0.001 * budget(w, LIST), "is the share of requests that failed"),
    Row("00-1", "wrong", "count", failed, "is the number of failed requests"),
    Row("00-1", "wrong", "left", lambda w: 1 - budget(w, LIST), "is what is left of the budget"),
    Row("00-1", "wrong", "checkout", lambda w: budget(w, CHECKOUT), "is the budget of checkouts"),
    Row("00-1", "wrong", "whole shop", budget, "is the budget of all endpoints together"),
    Row("00-1", "wrong", "pattern", lambda w: budget(w, LIST, PAGES), "counts single product pages too"),
    Row("00-1", "wrong", "pages", lambda w: budget(w, PAGES), "is the budget of single product pages"),
    Row("00-1", "wrong", "far too much", 7.0, "You have 7 budgets, which is more than twice"),
    Row("00-1", "wrong", "far too little", 0.03, "You have 0.03 budgets, which is less than half"),
    Row("00-1", "wrong", "none", 0, "You have 0 budgets, and the counters of this lab say more than none"),
    Row("00-1", "wrong", "no data", float("nan"), "no data is not a number"),
    Row("00-1", "wrong", "text", "52 %", "Your answer is a str"),
    Row("00-1", "wrong", "truth", True, "Your answer is a bool"),
    Row("00-1", "right", "reference", lambda w: budget(w, LIST), "kept its promise"),
    Row("00-2", "nothing", "stub", ..., "Replace the dots"),
    Row("00-2", "wrong", "for checkout", "partial-payments", "cost checkouts most"),
    Row("00-2", "wrong", "loudest", "outage-database", "failed most requests a minute"),
    Row("00-2", "wrong", "longest", "slow-drip", "lasted longest, at a trickle"),
    Row("00-2", "wrong", "only slow", "latency-product", "made answers slow; none failed"),
    Row("00-2", "wrong", "another", "retry-storm", "but another incident fits better"),
    Row("00-2", "wrong", "unknown", "dns", "There is no incident 'dns'; choose one of:"),
    Row("00-2", "wrong", "number", 3, "Your answer is an int"),
    Row("00-2", "right", "reference", "slow-burn-connections", "cost more than the outage"),
    Row("00-3", "nothing", "stub", ..., "Replace the dots"),
    Row(
        "00-3",
        "wrong",
        "the rumour",
        ["catalog-1"],
        "You named `catalog-1`, which Prometheus scraped without trouble",
    ),
    Row("00-3", "wrong", "None", None, "Your answer is None; a list of names is expected"),
    Row("00-3", "wrong", "text", "nothing", "Your answer is a str; a list of names is expected"),
    Row(
        "00-3",
        "wrong",
        "overlooked",
        [],
        "1 of the targets did not answer the last scrape, and your list has 0",
        lambda w: w.down_targets.append("catalog-1"),
    ),
    Row(
        "00-3",
        "destroy",
        "stopped the rumoured one",
        [],
        "`catalog-1` (STOPPED) was ready when these exercises began and no longer is. Bring the lab back",
        lambda w: w.stop("catalog-1"),
    ),
    Row(
        "00-3",
        "destroy",
        "stopped it, then named it",
        ["catalog-1"],
        "`catalog-1` (STOPPED) was ready",
        lambda w: w.stop("catalog-1"),
    ),
    Row("00-3", "right", "nothing is wrong", [], "Nothing was wrong"),
]

NO_WORLD = {
    "00-1": "asks for a number about the past, which nobody can change",
    "00-2": "asks for a name from the past, which nobody can change",
}
_WANTED = {
    "nothing": Outcome.NOT_ATTEMPTED,
    "wrong": Outcome.NOT_YET,
    "destroy": Outcome.NOT_YET,
    "right": Outcome.CORRECT,
}
_BY_ID: dict[str, Exercise] = {exercise.id: exercise for exercise in all_exercises()}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.exercise}-{row.kind}-{row.name}")
def test_each_way_of_answering_gets_its_own_verdict(row: Row, world: Any) -> None:
    """The outcome is that of its kind, and the message is the one written for this mistake."""
    bound = _BY_ID[row.exercise].bind(world)
    if row.prepare:
        row.prepare(world)

    verdict = bound.judge(row.answer(world) if callable(row.answer) else row.answer)

    assert (_WANTED[row.kind], True) == (verdict.outcome, row.message in verdict.because), verdict


def unproven(exercises: Sequence[Exercise], rows: Sequence[Row], no_world: Mapping[str, str]) -> dict[str, set[str]]:
    """Exercise → the kinds of proof that *rows* lack for it; *no_world* says why one has nothing to destroy."""
    proven = {e.id: {row.kind for row in rows if row.exercise == e.id} for e in exercises}
    missing = {
        name: set(KINDS) - kinds - ({"destroy"} if name in no_world else set()) for name, kinds in proven.items()
    }
    return {name: kinds for name, kinds in missing.items() if kinds}


def test_every_exercise_is_proven_four_ways() -> None:
    """No exercise of notebook 00 ships without all four kinds of proof, or a reason why it has nothing to destroy."""
    assert unproven(EXERCISES, ROWS, NO_WORLD) == {}


def test_every_notebook_has_its_proofs() -> None:
    """The exercises of notebook 00 are proven here, those of notebook NN in test_exNN.py."""
    here = Path(__file__).parent

    assert [number for number in numbers()[1:] if not (here / f"test_ex{number}.py").is_file()] == []


def test_only_exercises_without_a_world_are_excused() -> None:
    """An exercise that takes a baseline of the world must prove that it notices destruction."""
    assert not [name for name in NO_WORLD if _BY_ID[name].baseline is not None]


def test_a_repaired_world_is_accepted_again(world: Any) -> None:
    """Destruction is judged by the state of the lab: undone, the same answer is correct."""
    bound = _BY_ID["00-3"].bind(world)
    world.stop("catalog-1")
    world.restart("catalog-1")

    assert Outcome.CORRECT is bound.judge([]).outcome


def test_wrong_answers_are_told_apart() -> None:
    """No two plausible mistakes of one exercise share a message."""
    told = [(row.exercise, row.message) for row in ROWS if row.kind == "wrong"]

    assert sorted(set(told)) == sorted(told)


@pytest.mark.parametrize("exercise", all_exercises(), ids=lambda exercise: exercise.id)
def test_hints_come_in_steps(exercise: Exercise) -> None:
    """There are at least two hints, each different, none empty."""
    assert len(exercise.hints) >= 2
    assert len(set(exercise.hints)) == len([hint for hint in exercise.hints if hint])
