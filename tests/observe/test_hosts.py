"""Which address the components of our own listen on: only 127.0.0.1, unless they are told another."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from labkit._http import is_up
from labkit._wait import wait_until
from tests.prometheus_process import free_port

OTHER = "127.0.0.2"


def started(component: str, folder: Path, port: int, host: str) -> subprocess.Popen[bytes]:
    """The component on *port*, told to listen on *host*; with an empty one told nothing."""
    (folder / "secret").write_text("t")
    url, secret = "mysql://nobody@127.0.0.1:1/shop", str(folder / "secret")
    environs: Mapping[str, Mapping[str, str]] = {
        "webhook": {"WEBHOOK_PORT": str(port), "WEBHOOK_TOKEN_FILE": secret, "WEBHOOK_FILE": str(folder / "n.jsonl")},
        "exporter": {
            "EXPORTER_PORT": str(port),
            "EXPORTER_MARIADB_URL": url,
            "EXPORTER_MARIADB_PASSWORD_FILE": secret,
            "EXPORTER_REDIS_URL": "redis://127.0.0.1:1/0",
            "EXPORTER_QUEUES": "a",
        },
        "store": {},
    }
    argv = [sys.executable, "-m", f"labkit.observe.{component}"]
    environ = {**os.environ, **environs[component]}
    if component == "store":
        argv += ["--data", str(folder), "--port", str(port), *(["--host", host] if host else [])]
    elif host:
        environ[f"{component.upper()}_HOST"] = host
    return subprocess.Popen(argv, env=environ, stdout=subprocess.DEVNULL)


@pytest.mark.parametrize(("host", "expected", "not_there"), [("", "127.0.0.1", OTHER), (OTHER, OTHER, "127.0.0.1")])
@pytest.mark.parametrize(
    ("component", "path"), [("webhook", "/healthz"), ("exporter", "/healthz"), ("store", "/-/ready")]
)
def test_a_component_listens_where_it_is_told_and_nowhere_else(
    component: str, path: str, *, host: str, expected: str, not_there: str, tmp_path: Path
) -> None:
    """In a pod that is every address, on a learner's machine nobody else's."""
    port = free_port()
    process = started(component, tmp_path, port, host)
    try:
        wait_until(lambda: is_up(f"http://{expected}:{port}{path}"), f"{component} answers", timeout_s=30)
        assert not is_up(f"http://{not_there}:{port}{path}")
    finally:
        process.terminate()
        process.wait(timeout=20)
