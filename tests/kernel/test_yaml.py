"""YAML as typed objects: where mistakes are, in the words of the file and not of the parser."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, RootModel, model_validator

from labkit._yaml import Misplaced, load_model, parse_model
from labkit.errors import ConfigInvalid, ConfigProblem, InvalidValue


class Cat(BaseModel):
    """One member of a union."""

    model_config = ConfigDict(extra="forbid")
    kind: Literal["cat"]
    lives: int = 9
    name: str = ""


class Dog(BaseModel):
    """Another."""

    model_config = ConfigDict(extra="forbid")
    kind: Literal["dog"]
    tricks: list[str] = []


class Home(BaseModel):
    """A file."""

    model_config = ConfigDict(extra="forbid")
    pets: list[Annotated[Cat | Dog, Field(discriminator="kind")]] = []
    rent: Decimal = Decimal(1)
    floor: Literal["low", "high"] = "low"
    open_: bool = Field(True, alias="open")

    @model_validator(mode="after")
    def _affordable(self) -> Home:
        if self.rent > 1000:
            raise Misplaced([(("rent",), "is too high"), (("pets", 0), "must move out")])
        if self.rent < 0:
            raise InvalidValue("rent", expected="0 or more", got=float(self.rent))
        return self


def problems(text: str, **more: Any) -> list[str]:
    """What is said of a wrong file, a string for each mistake."""
    with pytest.raises(ConfigInvalid) as caught:
        parse_model(Home, text, "home.yaml", **more)
    assert all(isinstance(problem, ConfigProblem) for problem in caught.value.problems)
    return [str(problem) for problem in caught.value.problems]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("florr: low", "line 1, column 1: `florr` is not a known key; did you mean `floor`?"),
        ("xyz: low", "line 1, column 1: `xyz` is not a known key; known: floor, open, pets, rent"),
        ("floor: hihg", "line 1, column 8: `floor` must be one of low, high (got 'hihg'); did you mean `high`?"),
        ("open: maybe", "line 1, column 7: `open` must be true or false (got 'maybe')"),
        ("pets: {a: 1}", "line 1, column 7: `pets` must be a list (got {'a': 1})"),
        ("pets: [1]", "line 1, column 8: `pets.0` must be keys with values (got 1)"),
        ("- 1", "line 1, column 1: the file must be keys with values (got [1])"),
        (
            "pets:\n- kind: cta",
            "line 2, column 9: `pets.0.kind` must be one of cat, dog (got 'cta'); did you mean `cat`?",
        ),
        ("pets:\n- lives: 1", "line 2, column 3: `pets.0.kind` is missing"),
        (
            "pets:\n- {kind: cat, lifes: 1}",
            "line 2, column 15: `pets.0.lifes` is not a known key; did you mean `lives`?",
        ),
        ("pets:\n- {kind: dog, name: x}", "line 2, column 15: `pets.0.name` is not a known key; known: kind, tricks"),
        ("pets:\n- {kind: cat, name: 7}", "line 2, column 21: `pets.0.name` must be text; put it in quotes (got 7)"),
        ("rent: -1.5", "line 1, column 1: the file: rent must be 0 or more, got -1.5."),
        ("rent: 1\nrent: 2", "line 2, column 1: `rent` is given twice, first in line 1"),
        ("pets:\n- &a {kind: cat, kind: dog}\n- *a", "line 2, column 18: `kind` is given twice, first in line 2"),
    ],
)
def test_a_mistake_is_said_in_the_words_of_the_file(text: str, said: str) -> None:
    """Place, value, what is allowed, the nearest correct name; nothing of tags, unions and models."""
    assert said in problems(text)


def test_mistakes_come_in_the_order_of_the_file() -> None:
    """Whoever finds them: the parser, the classes, or a check over the whole file."""
    text = "rent: 1\nfloor: x\nopen: 3\npets: []\nfloor: low\nnew: 1\n"
    found = problems(text, checks=lambda data: [(("pets",), f"must not be empty in a file of {len(data)} keys")])

    assert [each.split(": ")[0] for each in found] == [
        "line 3, column 7",
        "line 4, column 7",
        "line 5, column 1",
        "line 6, column 1",
    ]
    assert "`pets` must not be empty in a file of 5 keys" in found[1]


def test_one_validator_can_name_several_places() -> None:
    """Each mistake at its own line."""
    assert problems("pets:\n- {kind: cat}\nrent: 2000") == [
        "line 2, column 3: `pets.0` must move out",
        "line 3, column 7: `rent` is too high",
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [1", "line 2, column 1: not YAML"),
        ("a: 1\n---\nb: 2", "line 2, column 1: not YAML: expected a single document"),
        ("rent: \x01", "not YAML: a character that YAML forbids"),
        ("rent: 2026-13-45", "a value that YAML cannot read: month must be in 1..12"),
        ("rent: !!python/object/apply:os.getcwd []", "not YAML: could not determine a constructor"),
        ("[" * 5000, "line 1"),
    ],
)
def test_what_is_not_yaml_is_located(text: str, said: str) -> None:
    """Syntax, a second document, control characters, impossible dates, tags that run code, endless nesting."""
    [problem] = problems(text)

    assert said in problem


def test_numbers_with_a_point_are_what_is_written() -> None:
    """0.1 is a tenth, however many digits there are; infinity is no decimal and stays a float."""
    assert parse_model(Home, "rent: 0.1000000000000000000001", "x").rent == Decimal("0.1000000000000000000001")
    assert parse_model(RootModel[Any], "[1_0.5, .inf, 1e3]", "x").root == [Decimal("10.5"), float("inf"), "1e3"]


def test_a_file_is_read_as_text_is(tmp_path: Path) -> None:
    """Its name is in the message, and text in another encoding is named before its content is judged."""
    path = tmp_path / "home.yaml"
    path.write_text("floor: high\n", encoding="utf-8")
    right = load_model(Home, path)
    path.write_bytes("a: 1\nb: ä\n".encode("latin-1"))

    assert right.floor == "high"
    with pytest.raises(ConfigInvalid, match=r"home\.yaml: 1 mistake\.\n  - line 2, column 1: not text in UTF-8"):
        load_model(Home, path)
