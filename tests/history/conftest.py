"""Pasts and Prometheus servers for the tests of the seeded history."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from labkit.shop.history import History, build_history
from tests.prometheus_process import PrometheusProcess

END = datetime(2026, 3, 4, 11, 17, 23, tzinfo=UTC)


@pytest.fixture(scope="session", params=[7, 1, 20260304])
def past(request: pytest.FixtureRequest) -> History:
    """Thirty days with a fixed end, for three seeds."""
    return build_history(seed=request.param, end=END)


@pytest.fixture(scope="module")
def start_prometheus(
    program: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., PrometheusProcess]]:
    """Starts servers that are empty and end with the module."""
    started: list[PrometheusProcess] = []

    def start(**options: object) -> PrometheusProcess:
        folder = tmp_path_factory.mktemp("prometheus")
        started.append(PrometheusProcess(program("prometheus"), folder, **options))  # type: ignore[arg-type]
        return started[-1].start()

    yield start
    for server in started:
        server.end(signal.SIGKILL)
