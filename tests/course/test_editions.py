"""One source, two editions, deterministic, held in step."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from labkit.course import editions
from labkit.course.editions import Edition
from labkit.errors import ConfigInvalid

SOURCE = """---
kernelspec:
  display_name: Python 3
  language: python
  name: python3
---

# Title

```{code-cell} ipython3
:tags: [stub]

answer = ...
```

```{code-cell} ipython3
:tags: [solution]

answer = 42
```

```{code-cell} ipython3
:tags: [check]

ex.q1.check(answer)
```

```{code-cell} ipython3
ex.q1.check
```

```{code-cell} ipython3
ex.q1.check
```
"""


@pytest.fixture
def course(tmp_path: Path) -> Path:
    """A folder `notebooks` with one source, built."""
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "00_x.md").write_text(SOURCE)
    editions.build(tmp_path)
    return tmp_path


def sources_of(path: Path) -> list[str]:
    """The cells' texts."""
    return ["".join(cell["source"]) for cell in json.loads(path.read_text())["cells"]]


def test_learners_get_stubs_and_the_solved_edition_solutions(course: Path) -> None:
    """Neither edition has the other's cells; everything else is shared, in order."""
    learner, solved = sources_of(course / "00_x.ipynb"), sources_of(course / "solved" / "00_x.ipynb")

    assert (learner[1], solved[1]) == ("answer = ...", "answer = 42")
    assert learner[2:] == solved[2:]
    assert "42" not in (course / "00_x.ipynb").read_text()


def test_building_is_deterministic_and_ids_are_shared(course: Path) -> None:
    """The same source gives the same bytes; a cell has one id in both editions; equal cells have ids of their own."""
    assert editions.build(course) == []
    learner, solved = (json.loads((course / p / "00_x.ipynb").read_text())["cells"] for p in (".", "solved"))

    assert [c["id"] for c in learner[2:]] == [c["id"] for c in solved[2:]]
    assert len({c["id"] for c in learner}) == len(learner)


@pytest.mark.parametrize("path", ["00_x.ipynb", "solved/00_x.ipynb"])
def test_an_edited_edition_is_drift(course: Path, path: str) -> None:
    """Changing, deleting or adding a generated file is named."""
    (course / path).write_text((course / path).read_text().replace("Title", "Other"))
    assert [str(d.path.relative_to(course)) for d in editions.check(course)] == [path]
    (course / path).unlink()
    assert "missing" in str(editions.check(course)[0])
    (course / "07_stray.ipynb").write_text("{}")
    assert "has no source" in str(editions.check(course)[-1])


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("[solution]", "[other]", "stub 'answer = ...' is not followed by a solution and a check"),
        ("[stub]", "[other]", "check 'ex.q1.check(answer)' has no stub before it"),
        ("answer = 42", "reply = 42", "the solution does not assign 'answer', which its stub does"),
        ("check(answer)", "check(42)", "the check does not use 'answer', which its stub assigns"),
    ],
)
def test_an_exercise_with_a_missing_part_is_refused(course: Path, before: str, after: str, message: str) -> None:
    """Stub, solution and check belong together and share their names."""
    source = course / "src" / "00_x.md"
    source.write_text(SOURCE.replace(before, after))

    with pytest.raises(ConfigInvalid) as raised:
        editions.render(source, Edition.LEARNER)
    assert message in str(raised.value)


def test_a_learners_pack_has_no_solutions_and_overwrites_nothing(course: Path, tmp_path: Path) -> None:
    """Only learner editions are copied; work that is there stays."""
    target = tmp_path / "mine"
    assert [p.name for p in editions.learner_pack(target, course)] == ["00_x.ipynb"]
    assert not [p for p in target.rglob("*") if p.is_file() and "42" in p.read_text()]
    with pytest.raises(FileExistsError, match=r"already has 00_x\.ipynb"):
        editions.learner_pack(target, course)


def test_a_notebook_is_found_by_number_name_or_path(course: Path) -> None:
    """A batch means the solved edition; a wrong name is answered with the nearest."""
    solved = course / "solved" / "00_x.ipynb"
    assert [editions.find(name, course) for name in ("00", "00_x", str(course / "00_x.ipynb"))] == [
        solved,
        solved,
        course / "00_x.ipynb",
    ]
    with pytest.raises(FileNotFoundError, match="did you mean 00_x"):
        editions.find("0_x", course)


def test_the_editions_of_this_course_are_in_step() -> None:
    """No generated notebook of the repository differs from its source."""
    assert editions.check() == []
