"""The published JSON Schema is that of the classes which read the file, and says the same as far as it can."""

from __future__ import annotations

import json
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from labkit.settings import files_root
from labkit.slo.spec import json_schema, parse_specs

SCHEMA = json.loads((files("labkit.slo") / "schema.json").read_text(encoding="utf-8"))
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
DOCS = (Path(__file__).parents[2] / "docs" / "slo-spec.md").read_text(encoding="utf-8")
[EXAMPLE] = re.findall(r"^```yaml\n(.*?)^```$", DOCS, re.MULTILINE | re.DOTALL)


def test_the_schema_is_that_of_the_classes() -> None:
    """After a change: `python -m labkit.slo.spec > labkit/slo/schema.json`."""
    assert json_schema() == SCHEMA


def test_the_schema_is_a_schema() -> None:
    """Of the draft that it names."""
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("text", [EXAMPLE, (files_root() / "infra" / "slo" / "shop.yaml").read_text(encoding="utf-8")])
def test_right_files_are_right_for_the_schema_too(text: str) -> None:
    """The example of the documentation, and the shop's own objectives."""
    assert [error.message for error in VALIDATOR.iter_errors(yaml.safe_load(text))] == []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("slos", 0, "target"), 100),
        (("slos", 0, "target"), 5),
        (("slos", 0, "target"), "lots"),
        (("slos", 0, "window"), 30),
        (("slos", 0, "window"), "1y"),
        (("slos", 0, "window"), {"calendar": "sprint"}),
        (("slos", 0, "name"), "a b"),
        (("slos", 0, "labels"), {"1st": "a"}),
        (("slos", 0, "labels"), {"tier": 1}),
        (("slos", 0, "nmae"), "x"),
        (("slos", 0, "sli"), {"target_type": "speed"}),
        (("slos", 1, "sli", "bound"), "quick"),
        (("slos", 2, "sli", "minimum"), 0),
        (("slos", 4, "budgeting"), {"method": "slices"}),
        (("policies", 0, "alerts"), []),
        (("policies", 0, "alerts", 0, "budget_share"), 2),
        (("policies", 0, "alerts", 0, "severity"), "pager"),
        (("policies", 0, "alerts", 0, "hold"), "5m"),
    ],
)
def test_a_mistake_in_a_value_is_one_for_the_schema_too(path: tuple[str | int, ...], value: Any) -> None:
    """What an editor underlines is what the reader refuses."""
    data = yaml.safe_load(EXAMPLE)
    place = data
    for part in path[:-1]:
        place = place[part]
    place[path[-1]] = value

    assert list(VALIDATOR.iter_errors(data))
    with pytest.raises(ValueError, match="mistake"):
        parse_specs(yaml.safe_dump(data))
