"""
Dashboards, defined in Python and generated as Grafana's JSON.

    load("operations")                     the JSON that Grafana reads and that the notebook draws
    python -m labkit.observe.dashboards    writes infra/grafana/dashboards/ anew; a test holds the two together
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from labkit.errors import UnknownName
from labkit.settings import files_root

__all__ = ["folder", "generate", "load", "names"]


def folder() -> Path:
    """Where the generated files are: infra/grafana/dashboards."""
    return files_root() / "infra" / "grafana" / "dashboards"


def names() -> list[str]:
    """The dashboards that there are."""
    return sorted(path.stem for path in folder().glob("*.json"))


def load(name: str) -> dict[str, Any]:
    """
    The JSON of a dashboard, as Grafana reads it.

    Raises:
        UnknownName: there is no such dashboard; lists those there are.
    """
    path = folder() / f"{name}.json"
    if not path.is_file():
        raise UnknownName("dashboard", name, known=names())
    return dict(json.loads(path.read_text(encoding="utf-8")))


def generate() -> Mapping[str, str]:
    """File name → text of every dashboard, made from its definition now."""
    from labkit.observe.dashboards import operations  # noqa: PLC0415  (only who generates needs the SDK)

    made: Mapping[str, Callable[[], str]] = {"operations.json": operations.to_json}
    return {name: make() for name, make in made.items()}
