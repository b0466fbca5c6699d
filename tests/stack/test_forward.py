"""The forwarder's file, its choice of pods, and the ways in which its process ends."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from labkit._wait import wait_until
from labkit.errors import ConfigInvalid
from labkit.stack.forward import EXIT_CONFIG, EXIT_PORT_TAKEN, Forwarding, Route, ready_file, write_routes
from labkit.stack.forward_cluster import usable_pods
from labkit.stack.forward_routes import read_routes, routes_file
from tests.stack.forwarded import free_port, kubeconfig, seconds_to_reset


class TestRoutes:
    """`forward.json`."""

    def test_what_is_written_is_read(self, tmp_path: Path) -> None:
        """Routes survive the way through the file, which others cannot read."""
        route = Route(name="catalog-1", listen=9081, port=8081, pod="catalog-1")
        given = Forwarding(context="kind-labkit", namespace="labkit-ana-3f2a1c", routes=(route,))
        path = write_routes(tmp_path, given)

        assert read_routes(tmp_path) == given
        assert path.stat().st_mode & 0o077 == 0

    def test_an_earlier_ready_file_goes(self, tmp_path: Path) -> None:
        """Who writes routes and then waits for the ready file sees that of the next forwarder."""
        ready_file(tmp_path).parent.mkdir()
        ready_file(tmp_path).write_text("from an earlier one")
        write_routes(tmp_path, Forwarding(context="c", namespace="lab", routes=()))
        assert not ready_file(tmp_path).exists()

    def test_all_mistakes_are_listed(self, tmp_path: Path) -> None:
        """A port twice, a route that leads nowhere, an unknown key and a bad namespace are told with their lines."""
        routes_file(tmp_path).write_text("""{"context": "c", "namespace": "Lab", "routes": [
            {"name": "a", "listen": 0, "port": 1, "selector": "x=y"},
            {"name": "b", "listen": 1, "port": 1},
            {"name": "c", "listen": 1, "port": 1, "pods": "c-0", "pod": "c-0"}]}""")
        with pytest.raises(ConfigInvalid) as error:
            read_routes(tmp_path)
        message = str(error.value)

        for part in (
            "line 1, column 31: `namespace` must be",
            "line 2",
            "needs a `selector` or a `pod`",
            "line 3",
            "line 4",
            "did you mean `pod`",
        ):
            assert part in message, message

    def test_two_routes_cannot_share_a_port(self, tmp_path: Path) -> None:
        """The second one is the mistake, and the message names the first."""
        routes_file(tmp_path).write_text("""{"context": "c", "namespace": "lab", "routes": [
            {"name": "a", "listen": 9090, "port": 1, "selector": "x=y"},
            {"name": "b", "listen": 9090, "port": 1, "selector": "x=y"}]}""")
        with pytest.raises(ConfigInvalid, match=r"line 3, .*9090 is that of route 'a'"):
            read_routes(tmp_path)

    def test_no_file(self, tmp_path: Path) -> None:
        """The message says what would have written it."""
        with pytest.raises(ConfigInvalid, match="labkit up --on kind"):
            read_routes(tmp_path)


class TestChoice:
    """Which pods may get a connection."""

    @staticmethod
    def listing() -> dict[str, Any]:
        """One pod of each kind."""

        def pod(name: str, phase: str, ready: str, **metadata: str) -> dict[str, Any]:
            conditions = [{"type": "Initialized", "status": "True"}, {"type": "Ready", "status": ready}]
            return {"metadata": {"name": name, **metadata}, "status": {"phase": phase, "conditions": conditions}}

        leaving = pod("leaving", "Running", "True", deletionTimestamp="2026-01-01T00:00:00Z")
        return {
            "items": [
                pod("z-good", "Running", "True"),
                pod("a-good", "Running", "True"),
                pod("unready", "Running", "False"),
                pod("failed", "Failed", "True"),
                leaving,
                {"metadata": {"name": "new"}, "status": {"phase": "Pending"}},
            ]
        }

    def test_labels_lead_to_ready_pods(self) -> None:
        """Neither a pod that is leaving nor one that is not ready gets connections."""
        route = Route(name="x", listen=1, port=1, selector="app=x")
        assert usable_pods(self.listing(), route) == ["a-good", "z-good"]

    def test_a_name_leads_to_a_running_pod(self) -> None:
        """Whoever names a pod may ask it why it is not ready."""
        route = Route(name="x", listen=1, port=1, pod="unready")
        assert usable_pods(self.listing(), route) == ["a-good", "unready", "z-good"]

    def test_no_pods(self) -> None:
        """An empty list, also where the API writes null."""
        assert usable_pods({"items": None}, Route(name="x", listen=1, port=1, selector="app=x")) == []


class TestProcess:
    """`python -m labkit.stack.forward RUN_DIR`."""

    @staticmethod
    @contextmanager
    def started(run_dir: Path) -> Iterator[subprocess.Popen[str]]:
        """The process, which is gone after the block."""
        argv = [sys.executable, "-m", "labkit.stack.forward", str(run_dir)]
        with subprocess.Popen(argv, stderr=subprocess.PIPE, text=True) as process:
            try:
                yield process
            finally:
                process.kill()

    @staticmethod
    def given(run_dir: Path, *listen: int, context: str = "here") -> None:
        """Routes from these ports, and a kubeconfig whose API server is not there."""
        routes = tuple(Route(name=f"web-{port}", listen=port, port=80, selector="app=web") for port in listen)
        config = kubeconfig(run_dir, free_port(), {"token": "one"})
        write_routes(run_dir, Forwarding(kubeconfig=str(config), context=context, namespace="lab", routes=routes))

    def test_a_taken_port_is_named_with_its_owner(self, tmp_path: Path) -> None:
        """Exit code 69; the ports that were free are free again, and nobody is told that it is ready."""
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            self.given(tmp_path, free_port(), port)
            ready_file(tmp_path).parent.mkdir()
            ready_file(tmp_path).write_text("from an earlier one")
            with self.started(tmp_path) as process:
                _, message = process.communicate(timeout=60)

        assert process.returncode == EXIT_PORT_TAKEN == 69
        assert f"web-{port} wants 127.0.0.1:{port}, but process {os.getpid()}" in message
        assert not ready_file(tmp_path).exists()

    @pytest.mark.parametrize(
        ("context", "config", "part"),
        [("hero", None, "did you mean 'here'?"), ("here", "/nowhere/config", "/nowhere/config: 1 mistake")],
    )
    def test_no_context(self, tmp_path: Path, context: str, config: str | None, part: str) -> None:
        """Exit code 78, and the message has the nearest context, or the kubeconfig that is not there."""
        self.given(tmp_path, free_port(), context=context)
        if config:
            text = routes_file(tmp_path).read_text().replace(str(tmp_path / "kubeconfig"), config)
            routes_file(tmp_path).write_text(text)
        with self.started(tmp_path) as process:
            _, message = process.communicate(timeout=60)

        assert process.returncode == EXIT_CONFIG == 78
        assert part in message
        assert "Traceback" not in message

    def test_it_serves_until_sigterm(self, tmp_path: Path) -> None:
        """It is ready without an API server, resets who connects, ends with 0 and takes its ready file along."""
        port = free_port()
        self.given(tmp_path, port)
        with self.started(tmp_path) as process:
            wait_until(ready_file(tmp_path).exists, "the forwarder", timeout_s=60)
            ready = json.loads(ready_file(tmp_path).read_text())
            took_s = seconds_to_reset(port)
            process.send_signal(signal.SIGTERM)
            _, log = process.communicate(timeout=20)

        assert (ready["pid"], ready["routes"][0]["listen"]) == (process.pid, port)
        assert took_s < 5
        assert process.returncode == 0
        assert "API server of here: no answer" in log
        assert not ready_file(tmp_path).exists()
