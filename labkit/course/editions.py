"""
One text source per notebook, two generated editions.

`notebooks/src/NN_name.md` (MyST) is what people edit.  From it come the learner edition `notebooks/NN_name.ipynb`
(stubs, no solutions) and the solved edition `notebooks/solved/NN_name.ipynb` (solutions, no stubs).  Generation is
deterministic, so that a test can hold all three in step.  Outputs are stripped.
"""

from __future__ import annotations

import ast
import difflib
import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from nbformat import NotebookNode

from labkit.course import _nb
from labkit.course._nb import tags as _tags
from labkit.errors import ConfigInvalid
from labkit.settings import files_root

__all__ = [
    "Drift",
    "Edition",
    "build",
    "check",
    "edition_path",
    "find",
    "learner_pack",
    "notebooks_dir",
    "render",
    "solved",
    "sources",
]

_NOTEBOOKS = "[0-9][0-9]_*.ipynb"
_METADATA = {
    "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


class Edition(Enum):
    """Who a notebook is for; the value is its folder below `notebooks/`."""

    LEARNER = "."
    SOLVED = "solved"


@dataclass(frozen=True, slots=True)
class Drift:
    """A generated file that is not what its source says."""

    path: Path
    reason: str

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


def notebooks_dir() -> Path:
    """The folder `notebooks/` of the checkout or of the installed wheel."""
    return files_root() / "notebooks"


def sources(folder: Path | None = None) -> list[Path]:
    """The text sources, in the order of the series; empty in a learner's pack, which has none."""
    return sorted(((folder or notebooks_dir()) / "src").glob("[0-9][0-9]_*.md"))


def edition_path(source: Path, edition: Edition) -> Path:
    """Where the *edition* of *source* lives."""
    return source.parent.parent / edition.value / f"{source.stem}.ipynb"


def solved(folder: Path | None = None) -> list[Path]:
    """The solved editions, in order; the learner editions where there are none (a learner's pack)."""
    root = folder or notebooks_dir()
    return sorted((root / Edition.SOLVED.value).glob(_NOTEBOOKS)) or sorted(root.glob(_NOTEBOOKS))


def find(name: str, folder: Path | None = None) -> Path:
    """
    The notebook that *name* means: a file, or one of the course by number ("00") or name ("00_start_here").

    A name of the course means the solved edition where there is one, since a batch run is strict.

    Raises:
        FileNotFoundError: neither; the message lists the notebooks of the course.
    """
    if Path(name).is_file():
        return Path(name)
    known = solved(folder)
    found = next((path for path in known if name in {path.stem, path.stem.partition("_")[0]}), None)
    if found is None:
        stems = [path.stem for path in known]
        close = difflib.get_close_matches(name, stems, n=1)
        hint = f"did you mean {close[0]}?" if close else f"the course has: {', '.join(stems) or 'none'}"
        raise FileNotFoundError(f"there is no notebook {name!r}, neither as a file nor in the course; {hint}")
    return found


def render(source: Path, edition: Edition) -> str:
    """
    The JSON text of one edition; the same source gives the same bytes.

    Raises:
        ConfigInvalid: an exercise of the source lacks its stub, solution or check; all mistakes are listed.
        FileNotFoundError: there is no such source.
    """
    import jupytext  # noqa: PLC0415  (a second of imports that only building needs)

    notebook = jupytext.reads(source.read_text(encoding="utf-8"), fmt="md:myst")
    problems = _exercise_problems(notebook.cells)
    if problems:
        raise ConfigInvalid(str(source), problems=problems, how="docs/authoring.md shows an exercise.")
    cells = [_clean(cell) for cell in notebook.cells if _belongs(cell, edition)]
    _number(cells)
    return _nb.dumps(cells, _METADATA)


def build(folder: Path | None = None) -> list[Path]:
    """
    Write both editions of every source below *folder* (default: this checkout) and return what changed.

    Raises:
        ConfigInvalid: see `render`.
    """
    changed = []
    for path, text in _wanted(folder).items():
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            changed.append(path)
    return changed


def check(folder: Path | None = None) -> list[Drift]:
    """Every generated file that differs from its source, is missing, or has no source; empty when in step."""
    wanted = _wanted(folder)
    drifts = []
    for path, text in wanted.items():
        if not path.is_file():
            drifts.append(Drift(path, "missing; run `labkit notebooks build`"))
        elif path.read_text(encoding="utf-8") != text:
            drifts.append(Drift(path, "differs from its source; edit notebooks/src, then `labkit notebooks build`"))
    root = folder or notebooks_dir()
    strays = {path for edition in Edition for path in (root / edition.value).glob("*.ipynb")} - set(wanted)
    return drifts + [Drift(path, "has no source in notebooks/src") for path in sorted(strays)]


def learner_pack(target: Path, folder: Path | None = None) -> list[Path]:
    """
    Copy the learner editions into *target* and return their new paths; sources and solutions stay behind.

    Raises:
        FileExistsError: a notebook of that name is already there; a learner's work is never overwritten.
    """
    originals = sorted((folder or notebooks_dir()).glob(_NOTEBOOKS))
    taken = [target / original.name for original in originals if (target / original.name).exists()]
    if taken:
        names = ", ".join(path.name for path in taken)
        raise FileExistsError(f"{target} already has {names}; choose another folder, or move your work aside first")
    target.mkdir(parents=True, exist_ok=True)
    return [_copy(original, target / original.name) for original in originals]


def _copy(original: Path, copy: Path) -> Path:
    copy.write_bytes(original.read_bytes())
    return copy


def _wanted(folder: Path | None) -> dict[Path, str]:
    return {edition_path(source, edition): render(source, edition) for source in sources(folder) for edition in Edition}


def _belongs(cell: NotebookNode, edition: Edition) -> bool:
    return ("solution" if edition is Edition.LEARNER else "stub") not in _tags(cell)


def _clean(cell: NotebookNode) -> NotebookNode:
    """Source and tags only: outputs, counts and editor metadata are not part of an edition."""
    metadata = {"tags": _tags(cell)} if _tags(cell) else {}
    if cell.cell_type == "code":
        return _nb.new_code(cell.source.strip("\n"), metadata)
    return _nb.new_markdown(cell.source.strip("\n"), metadata)


def _number(cells: Sequence[NotebookNode]) -> None:
    """Ids from content, so that they survive insertions and both editions agree on shared cells."""
    seen: Counter[str] = Counter()
    for cell in cells:
        digest = hashlib.sha256(f"{cell.cell_type}\0{cell.source}".encode()).hexdigest()[:12]
        seen[digest] += 1
        cell["id"] = digest if seen[digest] == 1 else f"{digest}-{seen[digest]}"


def _exercise_problems(cells: Sequence[NotebookNode]) -> list[str]:
    """What is wrong with the order stub → solution → check, and with the names that these cells share."""
    code = [cell for cell in cells if cell.cell_type == "code"]
    problems = []
    for index, cell in enumerate(code):
        after = code[index + 1 : index + 3]
        if "stub" in _tags(cell):
            if len(after) < 2 or "solution" not in _tags(after[0]) or "check" not in _tags(after[1]):
                problems.append(f"stub {_first_line(cell)!r} is not followed by a solution and a check")
            else:
                problems += _name_problems(cell, after[0], after[1])
        if "check" in _tags(cell) and not any("stub" in _tags(other) for other in code[max(0, index - 2) : index]):
            problems.append(f"check {_first_line(cell)!r} has no stub before it")
    return problems


def _name_problems(stub: NotebookNode, solution: NotebookNode, check_cell: NotebookNode) -> list[str]:
    names = _assigned(stub.source)
    missing = sorted(names - _assigned(solution.source))
    unused = sorted(name for name in names if name not in _used(check_cell.source))
    return [f"the solution does not assign {name!r}, which its stub does" for name in missing] + [
        f"the check does not use {name!r}, which its stub assigns" for name in unused
    ]


def _assigned(source: str) -> set[str]:
    nodes = list(ast.walk(ast.parse(source)))
    defined = {n.name for n in nodes if isinstance(n, ast.ClassDef | ast.FunctionDef)}
    return defined | {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}


def _used(source: str) -> set[str]:
    return {n.id for n in ast.walk(ast.parse(source)) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}


def _first_line(cell: Any) -> str:
    return str(cell.source.strip().split("\n", 1)[0])
