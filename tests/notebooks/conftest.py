"""The notebooks of the course as parameters of tests."""

from __future__ import annotations

import pytest

from labkit.course import editions


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """
    A test with `source` runs for every notebook, with `sample` for the first of them, with `further` for the others.

    Every run of a live notebook takes minutes.  What holds for all because the machinery is the same is shown on one.
    """
    sources = editions.sources()
    for name, paths in (("source", sources), ("sample", sources[:1]), ("further", sources[1:])):
        if name in metafunc.fixturenames:
            metafunc.parametrize(name, paths, ids=[path.stem for path in paths])
