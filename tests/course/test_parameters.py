"""Parameters are typed by the notebook and refused before anything starts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from labkit.course.parameters import declared, parse_assignments, resolve
from labkit.errors import ConfigInvalid

CELL = 'lab = "local"  # where\nseed = 7\nshare = 0.5  # of the budget\nslow = False\nnote = None'


@pytest.fixture
def path(write_notebook: Callable[..., Path]) -> Path:
    """A notebook with a parameter of each kind."""
    return write_notebook("typed", (CELL, "parameters"))


def test_the_parameters_cell_declares_names_types_and_comments(path: Path) -> None:
    """Each default gives the type; the comment beside it is the help; None reads as text."""
    assert [(p.name, p.kind, p.help) for p in declared(path)] == [
        ("lab", str, "where"),
        ("seed", int, ""),
        ("share", float, "of the budget"),
        ("slow", bool, ""),
        ("note", str, ""),
    ]


def test_texts_become_the_declared_types(path: Path) -> None:
    """What `-p` gives as text arrives as what the notebook declared; the rest keeps its default."""
    given = {"seed": "3", "share": "1e-3", "slow": "yes", "note": "x"}

    assert resolve(declared(path), given, notebook="typed") == {
        "lab": "local",
        "seed": 3,
        "share": 0.001,
        "slow": True,
        "note": "x",
    }


def test_every_mistake_is_listed_with_the_nearest_name(path: Path) -> None:
    """Unknown names and wrong values come in one message, and nothing was started."""
    with pytest.raises(ConfigInvalid) as raised:
        resolve(declared(path), {"sed": 1, "seed": "many", "lab": "lokal", "slow": "perhaps"}, notebook="typed")

    assert str(raised.value).splitlines() == [
        "The parameters for typed: 4 mistakes.",
        "  - 'sed' is not a parameter of it; did you mean 'seed'?",
        "  - lab: expected local, kind or the name of a kubectl context, got 'lokal'; did you mean 'local'?",
        "  - seed: expected a whole number, got 'many'",
        "  - slow: expected true or false, got 'perhaps'",
        "Nothing was started.",
    ]


def test_a_value_of_another_type_is_refused(path: Path) -> None:
    """True is not a seed, though Python would add it."""
    with pytest.raises(ConfigInvalid, match="seed: expected int, got True"):
        resolve(declared(path), {"seed": True}, notebook="typed")


@pytest.mark.parametrize(
    ("texts", "message"),
    [(["seed"], "'seed' is not of the form name=value"), (["a=1", "a=2"], "'a' is given twice")],
)
def test_assignments_are_name_and_value(texts: list[str], message: str) -> None:
    """A value may be empty or contain =; a name may not be missing or come twice."""
    with pytest.raises(ConfigInvalid, match=message):
        parse_assignments(texts)
    assert parse_assignments(["a=b=c", "d="]) == {"a": "b=c", "d": ""}


def test_braces_in_a_path_are_just_characters(write_notebook: Callable[..., Path], path: Path) -> None:
    """Papermill formats paths as templates; a folder called {x} must work all the same."""
    folder = path.parent / "{seed}"
    folder.mkdir()
    moved = path.rename(folder / "b{}.ipynb")

    assert len(declared(moved)) == 5


def test_a_file_that_is_no_notebook_says_so(tmp_path: Path) -> None:
    """The message names the file; a missing one is missing."""
    wrong = tmp_path / "x.ipynb"
    wrong.write_text("[]")
    with pytest.raises(ConfigInvalid, match="cannot be read as a notebook"):
        declared(wrong)
    with pytest.raises(FileNotFoundError, match=r"there is no notebook .*y\.ipynb"):
        declared(tmp_path / "y.ipynb")
