"""The forwarder: its file, its ways to fail, and bytes through sockets; a real cluster is in tests/kind."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import os
import random
import signal
import socket
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from labkit._wait import wait_until
from labkit.errors import ConfigInvalid
from labkit.stack.forward import EXIT_CONFIG, EXIT_PORT_TAKEN, Forwarding, Route, forward, ready_file, write_routes
from labkit.stack.forward_cluster import usable_pods
from labkit.stack.forward_routes import read_routes, routes_file
from tests.stack.pod_server import ApiServer, Loop, loop_in_background


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def kubeconfig(folder: Path, api_port: int, user: dict[str, Any]) -> Path:
    """A kubeconfig whose only context is `here`."""
    path = folder / "kubeconfig"
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "here", "cluster": {"server": f"http://127.0.0.1:{api_port}"}}],
        "users": [{"name": "me", "user": user}],
        "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me"}}],
    }
    path.write_text(json.dumps(config))
    return path


class Backend(socketserver.ThreadingTCPServer):
    """What listens in a pod: *answer* gets each connection."""

    allow_reuse_address = daemon_threads = True

    def __init__(self, answer: Any) -> None:
        handler = type("Handler", (socketserver.BaseRequestHandler,), {"handle": lambda self: answer(self.request)})
        super().__init__(("127.0.0.1", 0), handler)
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.server_address[1])

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that is cut is what some tests are about."""


def echo(peer: socket.socket) -> None:
    """Send back what comes."""
    while data := peer.recv(65536):
        peer.sendall(data)


class World:
    """An API server, a forwarder and a client, for one test."""

    def __init__(self, folder: Path, background: Loop) -> None:
        self.folder, self.background = folder, background
        self.api = ApiServer(free_port())
        self.user: dict[str, Any] = {"token": "one"}

    @contextmanager
    def forwarded(self, answer: Any = echo, *, listening: bool = True) -> Iterator[int]:
        """The port of this machine that leads to *answer*, or to a port where nobody listens."""
        backend, listen = Backend(answer), free_port()
        port = backend.port if listening else free_port()
        route = Route(name="web", listen=listen, port=port, selector="app=web")
        config = kubeconfig(self.folder, self.api.port, self.user)
        forwarding = Forwarding(kubeconfig=str(config), context="here", namespace="lab", routes=(route,))
        ready_file(self.folder).parent.mkdir()
        self.background.run(self.api.start())
        stop = asyncio.Event()
        running = asyncio.run_coroutine_threadsafe(forward(self.folder, forwarding, stop=stop), self.background.loop)
        try:
            wait_until(ready_file(self.folder).exists, "the forwarder", timeout_s=10)
            yield listen
        finally:
            self.background.loop.call_soon_threadsafe(stop.set)
            running.result(10)
            self.background.run(self.api.stop())
            backend.shutdown()
            backend.server_close()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """All that a connection passes, on loopback."""
    with loop_in_background() as background:
        yield World(tmp_path, background)


def said(port: int, text: bytes = b"hello") -> bytes:
    """What an echo says, or the error that a client gets."""
    with closing(socket.create_connection(("127.0.0.1", port), timeout=10)) as client:
        client.sendall(text)
        answer = b""
        while len(answer) < len(text) and (data := client.recv(65536)):
            answer += data
        return answer


def seconds_to_reset(port: int) -> float:
    """How long it took until a new connection was reset."""
    start = time.monotonic()
    with (
        pytest.raises(ConnectionResetError),  # also while it connects
        closing(socket.create_connection(("127.0.0.1", port), timeout=10)) as client,
    ):
        client.recv(1)
    return time.monotonic() - start


def lines_about(caplog: pytest.LogCaptureFixture, text: str) -> list[str]:
    """The lines of the forwarder's log that have a text."""
    return [record.getMessage() for record in caplog.records if text in record.getMessage()]


class TestRoutes:
    """`forward.json`."""

    def test_what_is_written_is_read(self, tmp_path: Path) -> None:
        """Routes survive the way through the file, which others cannot read."""
        route = Route(name="catalog-1", listen=9081, port=8081, pod="catalog-1")
        given = Forwarding(context="kind-labkit", namespace="labkit-ana-3f2a1c", routes=(route,))
        path = write_routes(tmp_path, given)

        assert read_routes(tmp_path) == given
        assert path.stat().st_mode & 0o077 == 0

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
        assert took_s < 2
        assert process.returncode == 0
        assert "API server of here: no answer" in log
        assert not ready_file(tmp_path).exists()


class TestBytes:
    """What passes, and what a client sees when it cannot."""

    def test_nothing_is_lost_or_added(self, world: World) -> None:
        """Three megabytes come back as they were, on eight connections at once."""
        text = random.randbytes(3_000_000)
        wanted, seen = hashlib.sha256(text).digest(), []

        def one(port: int) -> None:
            with closing(socket.create_connection(("127.0.0.1", port), timeout=30)) as client:
                sender = threading.Thread(target=client.sendall, args=(text,))
                sender.start()
                digest, left = hashlib.sha256(), len(text)
                while left and (data := client.recv(65536)):
                    digest.update(data)
                    left -= len(data)
                sender.join()
                seen.append(digest.digest())

        with world.forwarded() as port:
            clients = [threading.Thread(target=one, args=(port,)) for _ in range(8)]
            for client in clients:
                client.start()
            for client in clients:
                client.join(60)
        assert seen == [wanted] * 8

    def test_a_reader_that_does_not_read_costs_nothing(self, world: World) -> None:
        """Of 300 MB that a pod would send, it can send no more than what fits into the buffers on the way."""

        def talk(peer: socket.socket) -> None:
            for _ in range(3000):
                peer.sendall(bytes(100_000))

        with world.forwarded(talk) as port, closing(socket.create_connection(("127.0.0.1", port))) as client:
            client.recv(1)
            before = -1
            while before != world.api.sent_bytes:  # until it moves no more
                before = world.api.sent_bytes
                time.sleep(0.5)
            assert 0 < world.api.sent_bytes < 30_000_000

    def test_the_end_of_a_request_is_not_the_end_of_its_answer(self, world: World) -> None:
        """A client that shuts down its side after asking gets its answer, and then the end."""

        def later(peer: socket.socket) -> None:
            asked = peer.recv(100)
            time.sleep(0.5)
            peer.sendall(b"answer to " + asked)

        with (
            world.forwarded(later) as port,
            closing(socket.create_connection(("127.0.0.1", port), timeout=10)) as client,
        ):
            client.sendall(b"question")
            client.shutdown(socket.SHUT_WR)
            assert client.recv(100) == b"answer to question"
            assert client.recv(100) == b""

    def test_who_leaves_is_gone_in_the_pod_too(self, world: World) -> None:
        """When a client closes, the pod's connection ends soon, and does not stay until the pod is replaced."""
        ended = threading.Event()

        def wait(peer: socket.socket) -> None:
            echo(peer)
            ended.set()

        with world.forwarded(wait) as port:
            assert said(port) == b"hello"
            assert ended.wait(5)

    def test_a_broken_stream_is_an_error_for_the_client(self, world: World) -> None:
        """A stream that breaks in the middle of an answer is a reset, so that half an answer is not taken for one."""
        with (
            world.forwarded() as port,
            closing(socket.create_connection(("127.0.0.1", port), timeout=10)) as client,
        ):
            client.sendall(b"hello")
            assert client.recv(100) == b"hello"
            world.background.loop.call_soon_threadsafe(world.api.cut)
            with pytest.raises(ConnectionResetError):
                client.recv(100)

    def test_nothing_listens_in_the_pod(self, world: World, caplog: pytest.LogCaptureFixture) -> None:
        """Connections are reset at once, and the log says so once."""
        with caplog.at_level(logging.INFO), world.forwarded(listening=False) as port:
            assert max(seconds_to_reset(port) for _ in range(3)) < 2
        assert len(lines_about(caplog, "web (127")) == 1
        assert "nothing listens there" in lines_about(caplog, "web (127")[0]


class TestPods:
    """Pods that come and go."""

    def test_the_next_connection_goes_to_the_successor(self, world: World) -> None:
        """A pod that is gone, although it was just seen, costs no connection."""
        with world.forwarded() as port:
            assert said(port) == b"hello"
            world.api.pods = {"web-2": True}
            assert said(port) == b"hello"
        assert world.api.asked == ["list", "web-1", "web-1", "list", "web-2"]

    def test_ready_pods_take_turns(self, world: World) -> None:
        """Connections are spread as a service would spread them; a pod that is not ready has no turn."""
        world.api.pods = {"web-1": True, "web-2": False, "web-3": True}
        with world.forwarded() as port:
            for _ in range(4):
                said(port)
        assert world.api.asked == ["list", "web-1", "web-3", "web-1", "web-3"]

    def test_a_connection_waits_a_little_for_a_pod(self, world: World) -> None:
        """A pod that is ready within a second gets the connection that came before it."""
        world.api.pods = {}

        def appear() -> None:
            world.api.pods = {"web-1": True}

        with world.forwarded() as port:
            threading.Timer(0.7, appear).start()
            assert said(port) == b"hello"

    def test_a_connection_does_not_wait_for_ever(self, world: World, caplog: pytest.LogCaptureFixture) -> None:
        """Without a pod connections are reset after two seconds; the log says once which pods are looked for."""
        world.api.pods = {"web-1": False}
        with caplog.at_level(logging.INFO), world.forwarded() as port:
            assert 1.5 < seconds_to_reset(port) < 5
            seconds_to_reset(port)
            world.api.pods = {"web-1": True}
            assert said(port) == b"hello"
        missing, found = lines_about(caplog, "web (127")
        assert "no ready pod with app=web" in missing
        assert "of web-1" in found

    def test_an_api_server_that_is_gone(self, world: World, caplog: pytest.LogCaptureFixture) -> None:
        """Connections are reset quickly, the log has a line per change, and it works again when the server is back."""
        with caplog.at_level(logging.INFO), world.forwarded() as port:
            said(port)
            world.background.run(world.api.stop())
            assert max(seconds_to_reset(port) for _ in range(5)) < 2
            world.background.run(world.api.start())
            wait_until(lambda: said(port) == b"hello", "an echo", timeout_s=5, tolerate=(OSError,))
        states = [line.split(": ")[1] for line in lines_about(caplog, "API server of here")]
        assert states == ["answers.", "no answer", "answers."]


class TestCredentials:
    """Tokens that run out."""

    def plugin(self, world: World, *lives_s: float) -> Path:
        """
        A program that prints the token `one` when it runs first, then `two`; how often it ran is the length of a file.

        Each token has a life, in seconds from now.
        """
        ends = [f"{datetime.now(UTC) + timedelta(seconds=life_s):%Y-%m-%dT%H:%M:%SZ}" for life_s in lives_s]
        runs = world.folder / "runs"
        program = world.folder / "plugin.py"
        program.write_text(f"""
import json, pathlib
runs = pathlib.Path({str(runs)!r})
count = len(runs.read_text()) if runs.exists() else 0
runs.write_text("x" * (count + 1))
status = {{"token": ["one", "two"][count], "expirationTimestamp": {ends!r}[count]}}
version = "client.authentication.k8s.io/v1"
print(json.dumps({{"apiVersion": version, "kind": "ExecCredential", "status": status}}))
""")
        version = "client.authentication.k8s.io/v1"
        world.user = {
            "exec": {
                "apiVersion": version,
                "command": sys.executable,
                "args": [str(program)],
                "interactiveMode": "Never",
            }
        }
        return runs

    def test_a_token_that_is_not_taken_is_asked_for_again(self, world: World) -> None:
        """The connection that met the refusal succeeds with what the program prints next."""
        runs = self.plugin(world, 3600, 3600)
        world.api.token = "one"
        with world.forwarded() as port:
            assert said(port) == b"hello"
            time.sleep(2.1)  # credentials are not read again sooner
            world.api.token = "two"
            assert said(port) == b"hello"
        assert runs.read_text() == "xx"

    def test_an_expired_token_is_not_used(self, world: World) -> None:
        """The program runs again before the API server refuses anything."""
        self.plugin(world, -60, 3600)
        world.api.token = "two"
        with world.forwarded() as port:
            assert said(port) == b"hello"
        assert world.api.asked == ["list", "web-1"]

    def test_a_token_that_stays_bad(self, world: World, caplog: pytest.LogCaptureFixture) -> None:
        """Connections are reset quickly, and the log says that we are unknown."""
        world.api.token = "another"
        with caplog.at_level(logging.INFO), world.forwarded() as port:
            assert max(seconds_to_reset(port) for _ in range(3)) < 2
        (line,) = lines_about(caplog, "API server of here")
        assert "does not know who we are (HTTP 401)" in line
