"""What a run leaves for programs fits its published schema, and what people read fits in one page."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import jsonschema
import nbformat
import pytest

from labkit.course.junit import write_junit
from labkit.course.report import write_report
from labkit.course.results import (
    EXIT_CODES,
    CellError,
    CheckResult,
    FigureNote,
    NotebookResult,
    RunOutcome,
    RunResult,
    exit_code_of,
    load_schema,
    write_json,
)
from labkit.errors import ConfigInvalid, NotRunning

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


@pytest.fixture
def result(tmp_path: Path) -> RunResult:
    """A run with one notebook of each outcome, one of which left an executed notebook with a figure."""
    machine = {"system": "Linux", "architecture": "x", "cpus": 2, "memory_mb": 10}
    run = RunResult(tmp_path, "2026-03-01T00:00:00+00:00", machine, {"python": "3.11"}, strict=True)
    for number, outcome in enumerate(RunOutcome):
        run.notebooks.append(NotebookResult(f"{number:02}_x", outcome, "", {"seed": number}, duration_s=1.5))
    first = run.notebooks[0]
    first.executed = "00_x.ipynb"
    first.checks = [
        CheckResult("00-1", "a <b>", name, "because & so") for name in ("correct", "not_yet", "not_reached")
    ]
    first.figures = [FigureNote(2, "Up", "Chart: Up.", [])]
    run.notebooks[1].error = CellError("ValueError", "<script>alert(1)</script>", 3, "Part")
    run.notebooks[1].stopped = ["sleep (process 1)"]
    figure = nbformat.v4.new_output("display_data", {"image/png": PIXEL}, metadata={"alt": 'Chart: "Up".'})
    cells = [nbformat.v4.new_markdown_cell("# Hello"), nbformat.v4.new_code_cell("1", outputs=[figure])]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "00_x.ipynb")
    return run


def test_every_outcome_fits_the_schema(result: RunResult) -> None:
    """result.json is checked when written, and says the gravest outcome."""
    data = json.loads(write_json(result).read_text())

    jsonschema.validate(data, load_schema())
    assert (data["outcome"], data["exit_code"]) == ("interrupted", 130)


def test_the_schema_is_one_and_refuses_what_it_does_not_know(result: RunResult) -> None:
    """It is valid itself, and a field that nobody published does not pass."""
    schema = load_schema()
    jsonschema.validators.validator_for(schema).check_schema(schema)
    with pytest.raises(jsonschema.ValidationError, match="colour"):
        jsonschema.validate(result.as_dict() | {"colour": 1}, schema)


def test_a_result_that_breaks_its_schema_leaves_the_old_file(result: RunResult) -> None:
    """The file is whole or not there: a defect does not overwrite a good result."""
    good = write_json(result).read_text()
    result.notebooks[0].cells_total = -1
    with pytest.raises(jsonschema.ValidationError):
        write_json(result)
    assert (result.out_dir / "result.json").read_text() == good


def test_exit_codes_are_stable() -> None:
    """docs/batch.md promises these numbers."""
    assert {outcome.value: code for outcome, code in EXIT_CODES.items()} == {
        "passed": 0,
        "failed": 1,
        "setup_failed": 3,
        "deadline": 4,
        "kernel_died": 5,
        "interrupted": 130,
    }
    errors = (ConfigInvalid("x", problems=["y"]), FileNotFoundError("x"), NotRunning("x", seen="y", how="z"))
    assert [exit_code_of(error) for error in errors] == [2, 2, 3]


def test_the_contract_on_paper_names_every_exit_code() -> None:
    """The table in docs/batch.md has each code and outcome."""
    text = (Path(__file__).parents[2] / "docs" / "batch.md").read_text()

    assert all(f"| {code} | `{outcome.value}`" in text for outcome, code in EXIT_CODES.items())
    assert all(f"`{name}`" in text for name in load_schema()["properties"])


def test_junit_counts_what_it_holds(result: RunResult) -> None:
    """A suite per notebook; tests, failures, errors and skipped are those of its cases."""
    text = write_junit(result).read_text()

    assert '<testsuite name="00_x" tests="4" failures="1" errors="0" skipped="1"' in text
    assert '<testsuite name="01_x" tests="1" failures="1"' in text
    assert text.count("<testsuite ") == len(RunOutcome)


class Page(HTMLParser):
    """Collects what a page would load, and how it is built."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, Any]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        """Keep the tag."""
        self.tags.append((tag, dict(attrs)))

    def of(self, name: str) -> list[dict[str, Any]]:
        """Attributes of all tags of that name."""
        return [attributes for tag, attributes in self.tags if tag == name]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # nbconvert's templates, not ours
def test_the_report_fetches_nothing_and_describes_its_figures(result: RunResult) -> None:
    """No script, no style or picture from elsewhere; every figure has its alt text; tables have heads; links work."""
    report = write_report(result)
    for path in (report, result.out_dir / "00_x.html"):
        text = path.read_text()
        page = Page(text)
        assert page.of("script") == page.of("link") == page.of("iframe") == []
        assert not re.search(r"@import|url\(", text)
        assert [image["alt"] for image in page.of("img")] == ['Chart: "Up".']
        assert page.of("html") == [{"lang": "en"}]
        assert all(image["src"].startswith("data:image/png;base64,") for image in page.of("img"))
    links = [link["href"] for link in Page(report.read_text()).of("a")]
    assert all((result.out_dir / link).is_file() for link in links if not link.startswith("#"))
    assert all(head["scope"] in {"col", "row"} for head in Page(report.read_text()).of("th"))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_report_says_outcomes_in_words_and_escapes_what_it_shows(result: RunResult) -> None:
    """Colour never stands alone, and an error message cannot become markup."""
    text = write_report(result).read_text()

    for words in ("passed", "failed", "set-up failed", "deadline passed", "kernel died", "interrupted", "not run"):
        assert f">{words}</span>" in text
    assert "<script>" not in text
    assert "&lt;script&gt;" in text
    assert "sleep (process 1)" in text
