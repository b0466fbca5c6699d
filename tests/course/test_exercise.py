"""What an exercise shows, hides and raises."""

from __future__ import annotations

from typing import Any

import pytest

import labkit.course
from labkit.course import exercise as exercise_module
from labkit.course.exercise import CHECK_MIME, Bound, Exercise, ExerciseSet, Verdict, correct, not_yet
from labkit.errors import ExerciseFailed


def judge_four(bound: Bound, answer: Any) -> Verdict:
    """4 is right."""
    return correct("Indeed.") if answer == 4 else not_yet(f"You have {answer}; use `2 * 2`.")


EXAMPLE = Exercise(
    id="99-1",
    title="twice the half",
    judge=judge_four,
    hints=("Think of pairs.", "Add two and two."),
)


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What was displayed."""
    seen: list[Any] = []
    monkeypatch.setattr(exercise_module, "_show", seen.append)
    return seen


def test_a_wrong_answer_is_told_in_words(world: Any, shown: list[Any]) -> None:
    """The line has the exercise, the outcome, the learner's number and where the hint is."""
    EXAMPLE.bind(world).check(5)

    assert repr(shown[0]) == "99-1 (twice the half): not yet. You have 5; use `2 * 2`. Hint: `hint()`."


def test_a_verdict_can_be_read_by_people_and_programs(world: Any, shown: list[Any]) -> None:
    """One display has text, HTML with code marked, and data for the batch runner."""
    EXAMPLE.bind(world).check(5)
    bundle = shown[0]._repr_mimebundle_()

    assert "<code>2 * 2</code>" in bundle["text/html"]
    assert bundle[CHECK_MIME] == {
        "exercise": "99-1",
        "title": "twice the half",
        "outcome": "not_yet",
        "message": "You have 5; use `2 * 2`.",
    }


def test_html_of_an_answer_is_escaped(world: Any, shown: list[Any]) -> None:
    """What a learner typed cannot become markup."""
    EXAMPLE.bind(world).check("<script>")

    assert "<script>" not in shown[0]._repr_mimebundle_()["text/html"]


@pytest.mark.parametrize("stub", [..., (..., ...)])
def test_an_untouched_stub_is_not_attempted(stub: Any, world: Any, shown: list[Any]) -> None:
    """Dots, one or several, are not judged."""
    EXAMPLE.bind(world).check(stub)

    assert shown[0]._repr_mimebundle_()[CHECK_MIME]["outcome"] == "not_attempted"


@pytest.mark.parametrize(("answer", "outcome"), [(5, "not yet"), (..., "not attempted")])
def test_strict_mode_raises_after_showing(
    answer: Any, outcome: str, world: Any, shown: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With LABKIT_STRICT=1 a check that is not correct fails the notebook, and the verdict is in it."""
    monkeypatch.setenv("LABKIT_STRICT", "1")

    with pytest.raises(ExerciseFailed, match=rf"99-1 \(twice the half\): {outcome}") as raised:
        EXAMPLE.bind(world).check(answer)
    assert (raised.value.outcome, len(shown)) == (outcome, 1)


def test_strict_mode_lets_a_correct_answer_pass(world: Any, shown: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is raised for a correct answer."""
    monkeypatch.setenv("LABKIT_STRICT", "1")
    EXAMPLE.bind(world).check(4)

    assert repr(shown[0]) == "99-1 (twice the half): correct. Indeed."


def test_hints_go_one_step_further_and_stay_at_the_last(world: Any, shown: list[Any]) -> None:
    """Each call shows the next hint; there is no error after the last."""
    bound = EXAMPLE.bind(world)
    for _ in range(3):
        bound.hint()

    assert [repr(hint) for hint in shown] == [
        "99-1, hint 1 of 2: Think of pairs.",
        "99-1, hint 2 of 2: Add two and two.",
        "99-1, hint 2 of 2: Add two and two.",
    ]


def test_an_unknown_exercise_is_answered_with_those_there_are(world: Any) -> None:
    """A typing mistake names the exercises of this notebook."""
    with pytest.raises(AttributeError, match=r"no exercise 'first'; there are q1, q2\."):
        _ = ExerciseSet([EXAMPLE, EXAMPLE], world).first


def test_an_unknown_notebook_is_answered_with_those_there_are(world: Any) -> None:
    """So does a wrong number."""
    with pytest.raises(LookupError, match=r"no notebook '0' has exercises; did you mean '0[0-9]'\?"):
        labkit.course.exercises("0", world)


def test_exercises_hold_no_answers(world: Any) -> None:
    """Nothing that tab completion or printing offers contains what the checks accept."""
    exercises = labkit.course.exercises("00", world)
    offered = " ".join(
        f"{bound!r} {[getattr(bound, name) for name in dir(bound) if not name.startswith('_')]}" for bound in exercises
    )

    assert "slow-burn-connections" not in offered + repr(exercises)
    assert not [name for bound in exercises for name in dir(bound) if "answer" in name or "solution" in name]


def test_the_public_surface_is_what_it_says() -> None:
    """__all__ is sorted and everything in it is there."""
    names = labkit.course.__all__

    assert names == sorted(names)
    assert all(hasattr(labkit.course, name) for name in names)
