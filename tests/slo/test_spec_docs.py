"""The examples of docs/slo-spec.md: right ones load, wrong ones are refused in exactly the words shown."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from labkit.errors import ConfigInvalid
from labkit.slo.spec import parse_specs

TEXT = (Path(__file__).parents[2] / "docs" / "slo-spec.md").read_text(encoding="utf-8")
RIGHT = re.findall(r"^```yaml\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
WRONG = re.findall(r"^```yaml wrong\n(.*?)^```\n\n```text\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)


def test_the_documentation_has_examples() -> None:
    """One of everything that is right, and five files of mistakes."""
    assert (len(RIGHT), len(WRONG), TEXT.count("```yaml wrong")) == (1, 5, 5)


def test_the_right_example_shows_everything() -> None:
    """All types of indicators, both kinds of windows, slices and a policy of one's own."""
    [text] = RIGHT
    spec = parse_specs(text, "slos.yaml")

    assert {type(slo.sli).__name__ for slo in spec.slos} == {"EventSli", "LatencySli", "ThroughputSli", "FreshnessSli"}
    assert {type(slo.window).__name__ for slo in spec.slos} == {"Rolling", "Calendar"}
    assert {slo.budgeting.method for slo in spec.slos} == {"occurrences", "timeslices"}
    assert {slo.policy for slo in spec.slos} == {"workbook", "gentle"}
    assert [len(policy.alerts) for policy in spec.policies.values()] == [2]


@pytest.mark.parametrize(("text", "said"), WRONG)
def test_a_wrong_example_is_refused_in_the_words_shown(text: str, said: str) -> None:
    """Every mistake at once, in the order of the file."""
    with pytest.raises(ConfigInvalid) as caught:
        parse_specs(text, "slos.yaml")

    assert f"{caught.value}\n" == said
