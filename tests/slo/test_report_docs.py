"""docs/slo-report.md names everything that there is: verdicts, problems, conditions, commands, recommendations."""

from __future__ import annotations

import re
from typing import get_args

import pytest
import yaml

from labkit.cli.slo import COMMANDS
from labkit.settings import files_root
from labkit.slo.journeys import as_journeys
from labkit.slo.objectives_log import parse_log
from labkit.slo.release import EXIT_CODES, parse_policy
from labkit.slo.release_form import WhenForm
from labkit.slo.review import Action
from labkit.slo.source import Kind
from labkit.slo.verdict import STATUS_MEANING

PAGE = (files_root() / "docs" / "slo-report.md").read_text(encoding="utf-8")
YAML = re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize(
    "names", [get_args(Kind), tuple(STATUS_MEANING), get_args(Action), tuple(EXIT_CODES), tuple(WhenForm.model_fields)]
)
def test_every_name_is_on_the_page(names: tuple[str, ...]) -> None:
    """Whoever meets a word in JSON or writes a policy finds it explained."""
    assert [name for name in names if f"`{name}`" not in PAGE] == []


def test_every_command_has_its_exit_codes_on_the_page() -> None:
    """The table has a row for each command of the group."""
    rows = re.findall(r"^\| `(\w+)` \|", PAGE.split("## Exit codes")[1].split("##")[0], re.MULTILINE)
    assert rows == [command.__name__ for command in COMMANDS]


def test_every_file_on_the_page_is_one() -> None:
    """The policy, the journey and the history are read by the code that reads them."""
    policy, journeys, history = YAML

    found = parse_policy(policy)
    assert found is not None
    assert [step.then for step in found.steps] == ["deny", "deny", "approval", "allow"]
    (journey,) = as_journeys(yaml.safe_load(journeys)["journeys"], ["product-pages", "orders-placed", "whole-visits"])
    assert journey.measured == "whole-visits"
    assert parse_log(history).slos == ["visit-availability"]
