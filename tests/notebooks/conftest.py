"""The notebooks of the course as parameters of tests."""

from __future__ import annotations

import pytest

from labkit.course import editions


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """
    A test with the argument `source` runs for every notebook.

    One with the argument `sample` runs for the first of them in `make test`, and for the others in `make test-full`:
    every further run of a live notebook takes minutes.
    """
    sources = editions.sources()
    if "source" in metafunc.fixturenames:
        metafunc.parametrize("source", sources, ids=[source.stem for source in sources])
    if "sample" in metafunc.fixturenames:
        marks = [[], *([pytest.mark.full] for _ in sources[1:])]
        cases = [pytest.param(one, id=one.stem, marks=mark) for one, mark in zip(sources, marks, strict=True)]
        metafunc.parametrize("sample", cases)
