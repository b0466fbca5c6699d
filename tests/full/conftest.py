"""Programs that tests need and no registry has ready: compiled once from their Go modules, kept in the cache."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from labkit.settings import load_settings
from labkit.stack import golang
from tests.full.test_prometheus3 import PINNED, SOURCE


@pytest.fixture(scope="session")
def program3() -> Callable[[str], Path]:
    """Path of a program of the pinned Prometheus release by name, as in `program3("promtool")`."""

    def path(name: str) -> Path:
        cache = load_settings().cache_dir
        binary = cache / "test-tools" / f"prometheus-{PINNED}" / name
        if not binary.exists():
            binary.parent.mkdir(parents=True, exist_ok=True)
            part = binary.with_name(f"{name}.part")
            golang.build(SOURCE.model_copy(update={"package": f"cmd/{name}"}), part, cache=cache)
            part.rename(binary)
        return binary

    return path
