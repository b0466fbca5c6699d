"""The notebooks of the course as parameters of tests."""

from __future__ import annotations

import pytest

from labkit.course import editions


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test with the argument `source` runs for every notebook."""
    if "source" in metafunc.fixturenames:
        sources = editions.sources()
        metafunc.parametrize("source", sources, ids=[source.stem for source in sources])
