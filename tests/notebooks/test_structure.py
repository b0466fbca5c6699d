"""Every notebook keeps the shape of the model page; what a machine can measure is measured here."""

from __future__ import annotations

import ast
import re
import statistics
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest

from labkit.course import _nb
from labkit.course.catalogue import all_exercises
from labkit.course.editions import Edition, edition_path
from labkit.course.parameters import declared

BOTH = pytest.mark.parametrize("edition", list(Edition), ids=lambda edition: edition.name.lower())


def cells(source: Path, edition: Edition) -> list[Any]:
    """The cells of an edition."""
    return list(_nb.read(edition_path(source, edition)).cells)


def code_of(source: Path, edition: Edition = Edition.SOLVED) -> list[Any]:
    """Its code cells."""
    return [cell for cell in cells(source, edition) if cell.cell_type == "code"]


def prose_of(source: Path) -> str:
    """All text, without code spans and links."""
    text = "\n\n".join(cell.source for cell in cells(source, Edition.LEARNER) if cell.cell_type == "markdown")
    return re.sub(r"\]\([^)]*\)|`[^`]*`", " ", text)


def lines(cell: Any) -> int:
    """Lines that say something."""
    return sum(bool(line.strip()) for line in cell.source.splitlines())


def test_it_opens_with_a_question_that_has_numbers(source: Path) -> None:
    """The title asks, and the first paragraph has figures in it; the next cell says what one will be able to do."""
    first, second = cells(source, Edition.LEARNER)[:2]

    assert first.source.splitlines()[0].endswith("?")
    assert len(re.findall(r"\d[\d.,]*", first.source.split("\n", 1)[1])) >= 3
    assert "You will be able to" in second.source
    assert "You need" in second.source


def test_it_declares_the_four_parameters(source: Path) -> None:
    """One cell tagged parameters, before any other code: lab, profile, pace and seed, each with a comment."""
    path = edition_path(source, Edition.LEARNER)

    assert [p.name for p in declared(path)] == ["lab", "profile", "pace", "seed"]
    assert all(p.help for p in declared(path))
    assert "parameters" in _nb.tags(code_of(source)[0])


@BOTH
def test_code_cells_are_short(source: Path, edition: Edition) -> None:
    """Median 2 to 5 lines, nine in ten at most 12, none over 25."""
    lengths = sorted(lines(cell) for cell in code_of(source, edition))

    assert 2 <= statistics.median(lengths) <= 5
    assert lengths[int(0.9 * (len(lengths) - 1))] <= 12
    assert lengths[-1] <= 25


@BOTH
def test_text_stands_between_code(source: Path, edition: Edition) -> None:
    """Never more than three code cells in a row."""
    runs = [len(list(run)) for kind, run in groupby(cells(source, edition), lambda c: c.cell_type) if kind == "code"]

    assert max(runs) <= 3


def test_there_is_enough_text_and_not_too_much(source: Path) -> None:
    """40 to 70 words for each code cell."""
    words = len(prose_of(source).split())

    assert 40 <= words / len(code_of(source)) <= 70


def test_the_first_result_comes_early(source: Path) -> None:
    """Within the first five code cells something is shown that is not set-up."""
    early = [cell for cell in code_of(source)[:5] if not {"parameters", "setup"} & set(_nb.tags(cell))]

    assert any(not isinstance(ast.parse(cell.source).body[-1], ast.Assign) for cell in early)


@pytest.mark.parametrize(
    "forbidden",
    [r"time\.sleep", r"plt\.show", r"['\"(]/(home|tmp|root|usr|Users)/", r"127\.0\.0\.1|localhost", r"except:"],
)
def test_code_has_none_of(forbidden: str, source: Path) -> None:
    """No sleeping, no showing by hand, no absolute path, no address, no bare except."""
    assert not [cell.source for cell in code_of(source) if re.search(forbidden, cell.source)]


def test_prose_names_no_port_and_no_clock_time(source: Path) -> None:
    """They differ on every machine and in every run."""
    assert not re.findall(r":\d{4,5}\b|\b\d{1,2}:\d{2}\b", prose_of(source))


def test_a_number_is_checked_a_second_way(source: Path) -> None:
    """At least one assertion before the exercises, and one in the clean-up."""
    asserting = [i for i, cell in enumerate(code_of(source)) if re.search(r"(?m)^\s*assert ", cell.source)]

    assert len(asserting) >= 2
    assert asserting[-1] == len(code_of(source)) - 1


def test_it_asks_for_a_prediction_and_closes_its_question(source: Path) -> None:
    """Predict first; The answer; Remember; Check yourself; Going further; Clean up, in this order."""
    text = prose_of(source)
    places = [
        text.find(words)
        for words in ("Predict first", "## The answer", "Remember", "Check yourself", "Going further", "## Clean up")
    ]

    assert -1 not in places
    assert places == sorted(places)


def test_its_exercises_are_those_of_the_catalogue(source: Path) -> None:
    """Two to nine exercises, each with a stub cell and a check; nothing later uses an answer."""
    number = source.stem[:2]
    known = [f"q{e.id.partition('-')[2]}" for e in all_exercises() if e.id.startswith(f"{number}-")]
    learner = code_of(source, Edition.LEARNER)
    checked = [re.findall(r"ex\.(q\d+)\.check", cell.source) for cell in learner if "check" in _nb.tags(cell)]
    answers = {
        node.id
        for cell in learner
        if "stub" in _nb.tags(cell)
        for node in ast.walk(ast.parse(cell.source))
        if isinstance(node, ast.Name)
    }
    used = [
        name
        for cell in learner
        if not {"stub", "check"} & set(_nb.tags(cell))
        for name in answers
        if re.search(rf"\b{name}\b", cell.source)
    ]

    assert 2 <= len(known) <= 9
    assert [name for names in checked for name in names] == known
    assert used == []


def test_the_learner_edition_has_stubs_only(source: Path) -> None:
    """Every stub assigns dots and nothing else; no solution tag is left."""
    learner = code_of(source, Edition.LEARNER)
    stubs = [cell for cell in learner if "stub" in _nb.tags(cell)]

    assert all(re.fullmatch(r"(\w+ = \.\.\.\n?)+", cell.source) for cell in stubs)
    assert not [cell for cell in learner if "solution" in _nb.tags(cell)]


@BOTH
def test_outputs_are_stripped(source: Path, edition: Edition) -> None:
    """No output, no execution count, no metadata of an editor."""
    for cell in code_of(source, edition):
        assert (cell.outputs, cell.execution_count) == ([], None)
        assert set(cell.metadata) <= {"tags"}
