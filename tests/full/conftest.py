"""Programs that tests need and no registry has ready."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.full.prometheus3 import compiled


@pytest.fixture(scope="session")
def program3() -> Callable[[str], Path]:
    """Path of a program of the pinned Prometheus release by name, as in `program3("promtool")`."""
    return compiled
