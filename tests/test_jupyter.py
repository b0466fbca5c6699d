"""`make lab`: JupyterLab shows the pages of the lab's components behind its own address and token."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from labkit._http import get_json, is_up, request
from labkit._wait import wait_until
from labkit.lab import Lab
from labkit.settings import files_root

pytestmark = pytest.mark.live
TOKEN = "a-token-of-this-test"


def free_port() -> int:
    """A port of loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_pages_of_prometheus_and_alertmanager_work_below_jupyterlab(lab: Lab, tmp_path: Path) -> None:
    """Page, assets and API answer below /prometheus/, Alertmanager below its name, and neither without the token."""
    port = free_port()
    config = files_root() / "infra" / "jupyter" / "jupyter_server_config.py"
    argv = [sys.executable, "-m", "jupyter_server", f"--port={port}", "--ServerApp.ip=127.0.0.1", f"--config={config}"]
    argv += ["--no-browser", "--allow-root", f"--IdentityProvider.token={TOKEN}", f"--notebook-dir={tmp_path}"]
    pages = {f"LABKIT_UI_{name.upper()}": lab.url(name) for name in ("prometheus", "alertmanager")}
    environment = {**os.environ, **pages, "HOME": str(tmp_path), "JUPYTER_RUNTIME_DIR": str(tmp_path / "runtime")}
    base, headers = f"http://127.0.0.1:{port}", {"Authorization": f"token {TOKEN}"}
    quiet = subprocess.DEVNULL
    with subprocess.Popen(argv, env=environment, stdin=quiet, stdout=quiet, stderr=quiet) as server:
        try:
            wait_until(lambda: is_up(f"{base}/login"), "JupyterLab answers", timeout_s=60)
            page = request("GET", f"{base}/prometheus/graph", headers=headers).text
            links = [link for link in re.findall(r'(?:src|href)="([^"]+\.(?:js|css)[^"]*)"', page) if "://" not in link]
            assert links
            for link in links:
                address = f"{base}{link}" if link.startswith("/") else f"{base}/prometheus/{link.removeprefix('./')}"
                assert request("GET", address, headers=headers).status_code == 200
            answer = get_json(f"{base}/prometheus/api/v1/query", params={"query": "vector(42)"}, headers=headers)
            assert answer["data"]["result"][0]["value"][1] == "42"
            assert get_json(f"{base}/alertmanager/api/v2/status", headers=headers)["cluster"]["status"] == "disabled"
            assert "/login" in request("GET", f"{base}/prometheus/graph").url
        finally:
            server.terminate()
