"""Notebook files with types: nbformat's functions have none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import nbformat
from nbformat import NotebookNode

__all__ = ["dumps", "new_code", "new_markdown", "read", "tags"]


def read(path: Path) -> NotebookNode:
    """The notebook at *path*, as version 4."""
    return cast("NotebookNode", nbformat.read(path, as_version=4))  # type: ignore[no-untyped-call]


def new_code(source: str, metadata: Mapping[str, Any] | None = None) -> NotebookNode:
    """A code cell without outputs."""
    return cast("NotebookNode", nbformat.v4.new_code_cell(source, metadata=dict(metadata or {})))  # type: ignore[no-untyped-call]


def new_markdown(source: str, metadata: Mapping[str, Any] | None = None) -> NotebookNode:
    """A text cell."""
    return cast("NotebookNode", nbformat.v4.new_markdown_cell(source, metadata=dict(metadata or {})))  # type: ignore[no-untyped-call]


def dumps(cells: Sequence[NotebookNode], metadata: Mapping[str, Any]) -> str:
    """The JSON text of a notebook of these cells, in a fixed order of keys."""
    made = nbformat.v4.new_notebook(cells=list(cells), metadata=dict(metadata))  # type: ignore[no-untyped-call]
    made.nbformat_minor = 5
    return cast("str", nbformat.writes(made, version=nbformat.NO_CONVERT)) + "\n"  # type: ignore[no-untyped-call]


def tags(cell: NotebookNode) -> list[str]:
    """The tags of a cell; empty when it has none."""
    return list(cell.metadata.get("tags", []))
