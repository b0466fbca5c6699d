"""The pages on error budgets say what the code computes, and lead to pages that exist."""

from __future__ import annotations

import doctest
import re
from pathlib import Path
from typing import Any

import pytest

from labkit.settings import files_root

DOCS = files_root() / "docs"
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
TEXT = re.compile(r"^```text\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?://|#)([^)#]+)")


def _examples(page: Path) -> list[str]:
    return [block for block in BLOCK.findall(page.read_text(encoding="utf-8")) if ">>>" in block]


@pytest.mark.parametrize("name", ["slo.md", "slo-formulas.md", "slo-backtest.md", "slo-report.md"])
def test_every_example_gives_what_the_page_says(name: str) -> None:
    """All examples of a page, one after the other, as a reader would type them."""
    examples = _examples(DOCS / name)
    assert len(examples) > 2
    told: list[str] = []
    case = doctest.DocTestParser().get_doctest("\n".join(examples), {}, name, name, 0)
    result = doctest.DocTestRunner(verbose=False).run(case, out=told.append)
    assert result.attempted >= len(examples)
    assert result.failed == 0, "".join(told)


def test_the_page_shows_what_an_explanation_prints() -> None:
    """To the last digit of every approximation."""
    page = DOCS / "slo.md"
    names: dict[str, Any] = {}
    lines = [one.source for block in _examples(page) for one in doctest.DocTestParser().get_examples(block)]
    exec("".join(lines), names)  # noqa: S102  (the page of this repository)
    assert TEXT.findall(page.read_text(encoding="utf-8")) == [f"{names['opened']}\n"]


@pytest.mark.parametrize("name", ["slo.md", "slo-formulas.md", "slo-backtest.md", "slo-report.md"])
def test_links_lead_somewhere(name: str) -> None:
    """Pages and files beside this one."""
    text = (DOCS / name).read_text(encoding="utf-8")
    assert [link for link in LINK.findall(text) if not (DOCS / link).exists()] == []
