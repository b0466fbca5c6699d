"""Fixtures of all tests: a clean configuration, real programs, one live lab."""

from __future__ import annotations

import os
import random
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from labkit.settings import load_settings
from labkit.stack.acquire import find_program

if TYPE_CHECKING:
    from labkit.lab import Lab

# The shop, toxiproxy and the rest lie within this many ports above an offset of 0 (8080 … 16379).
_LOWEST, _HIGHEST = 8080, 16379


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whatever must see the lab at some age comes last: by then it has it, and nobody waits."""
    items.sort(key=lambda item: item.get_closest_marker("late") is not None)


def free_offset() -> int:
    """A port offset at which a whole lab finds its ports free, below those of outgoing connections (32768 up)."""
    for _ in range(50):
        offset = random.randrange(1000, 32768 - _HIGHEST, 20)
        with suppress(OSError):
            for port in (4318, 8080, 8180, 8281, 8474, 9090, 9093, 9100, 9105, 9106, 9115, 13306, 16379):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port + offset))
            return offset
    raise AssertionError("no free range of ports on this machine")


@pytest.fixture(autouse=True)
def _own_configuration(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No test sees the user's lab, settings file or proxies; all share the user's cache of components."""
    for name in list(os.environ):
        if (name.startswith("LABKIT_") and name != "LABKIT_CACHE_DIR") or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("LABKIT_RUN_DIR", str(tmp_path / "lab"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


@pytest.fixture(scope="session")
def program() -> object:
    """Path of a component's program by name, as in `program("promtool")`; fails when it is not here."""

    def path(name: str) -> Path:
        found = find_program(name, load_settings())
        assert found is not None, f"{name} is not here: run `make test`, which fetches it first"
        return found

    return path


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """One live lab for the whole session; tests that break something put it right with `lab.reset()`."""
    import labkit
    from labkit.stack.progress import silent

    run_dir = tmp_path_factory.mktemp("lab") / "run"
    with labkit.up(run_dir=run_dir, port_offset=free_offset(), progress=silent) as up:
        yield up
