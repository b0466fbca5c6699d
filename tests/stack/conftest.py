"""A small stack of real processes, made of components that start in a moment."""

from __future__ import annotations

import random
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from labkit.settings import Settings, load_settings
from labkit.stack.local import LocalRuntime
from labkit.stack.ports import port_is_free
from labkit.stack.state import State, kill_all, lab_processes

# An HTTP server in one line of Python; `-c` programs behave as a component would.
_SERVER = (
    "import http.server as h, sys; "
    "h.HTTPServer(('127.0.0.1', int(sys.argv[1])), h.SimpleHTTPRequestHandler).serve_forever()"
)

WEB = f"""
name: web
title: Web
about: answers
profiles: [core]
required: true
memory_mb: 10
ports: {{http: 8900}}
ready: {{url: "http://127.0.0.1:@{{port.http}}/", within_s: 20}}
argv: ["@{{python}}", -c, "{_SERVER}", "@{{port.http}}"]
"""

GUARD = """
name: guard
title: Guard
about: guards
profiles: [core]
required: true
memory_mb: 20
ports: {}
ready: {running_s: 0, within_s: 20}
argv: ["@{python}", -m, labkit.stack.guard, "@{run}"]
"""


def _free_offset() -> int:
    """An offset at which the ports of the small catalogue are free."""
    return next(
        offset
        for offset in random.sample(range(2_000, 20_000, 10), 500)
        if all(port_is_free(port + offset) for port in (8900, 8901, 8950))
    )


def component(
    name: str, *, code: str, needs: str = "[]", ready: str = "{running_s: 1, within_s: 10}", ports: str = "{}"
) -> str:
    """A component that runs a line of Python."""
    return textwrap.dedent(f"""
        name: {name}
        title: {name}
        about: a test
        profiles: [core]
        required: true
        memory_mb: 10
        ports: {ports}
        needs: {needs}
        ready: {ready}
        argv: ["@{{python}}", -c, "{code}"]
        """)


@pytest.fixture
def stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., LocalRuntime]]:
    """
    `stack(other=text)` is a runtime whose catalogue holds `web`, `guard` and the given components.

    At the end of the test whatever still runs is killed and counts as a failure.
    """
    made: list[Settings] = []
    monkeypatch.setenv("LABKIT_OWNER_GRACE_S", "1s")

    def make(*, run_dir: Path | None = None, port_offset: int | None = None, **components: str) -> LocalRuntime:
        folder = tmp_path / "catalogue"
        folder.mkdir(exist_ok=True)
        for name, text in {"web": WEB, "guard": GUARD, **components}.items():
            (folder / f"{name}.yaml").write_text(text)
        offset = port_offset if port_offset is not None else _free_offset()
        settings = load_settings({"run_dir": run_dir or tmp_path / "lab", "port_offset": offset})
        made.append(settings)
        return LocalRuntime(settings, catalogue=folder)

    yield make
    leftovers = [s for settings in made if (s := State.load(settings.run_dir)) is not None]
    for state in leftovers:
        kill_all(lab_processes(state.lab_id), grace_s=1)
    assert not leftovers, f"a lab was left running: {leftovers}"


def run_in_background(code: str, *args: str) -> list[str]:
    """The argv of a Python process that runs *code*."""
    return [sys.executable, "-c", textwrap.dedent(code), *args]
