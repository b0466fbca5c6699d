"""What passes through the forwarder, and what a client sees when nothing can; a real cluster is in tests/kind."""

from __future__ import annotations

import hashlib
import logging
import random
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from labkit._wait import wait_until
from labkit.stack import forward_stream
from tests.stack.forwarded import World, echo, free_port, kubeconfig, lines_about, said, seconds_to_reset
from tests.stack.pod_server import loop_in_background


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """All that a connection passes, on loopback."""
    with loop_in_background() as background:
        yield World(tmp_path, background)


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

    def test_who_leaves_is_gone_in_the_pod_too(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        """When a client closes after its answer, the pod's connection ends, and awaits no further answers."""
        monkeypatch.setattr(forward_stream, "_ANSWER_AFTER_END_S", 60)
        ended = threading.Event()

        def wait(peer: socket.socket) -> None:
            echo(peer)
            ended.set()

        with world.forwarded(wait) as port:
            assert said(port) == b"hello"
            assert ended.wait(10)

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
            assert max(seconds_to_reset(port) for _ in range(3)) < 5
        assert len(lines_about(caplog, "web (127")) == 1
        assert "nothing listens there" in lines_about(caplog, "web (127")[0]


class TestPulse:
    """Pings, every fifth of a second here, and what their answers may be late for."""

    @pytest.fixture(autouse=True)
    def _often(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(forward_stream, "_PING_EVERY_S", 0.2)
        monkeypatch.setattr(forward_stream, "_PONG_WITHIN_S", 0.5)

    def test_an_idle_connection_stays(self, world: World) -> None:
        """It still works after several pings."""
        with (
            world.forwarded() as port,
            closing(socket.create_connection(("127.0.0.1", port), timeout=10)) as client,
        ):
            for _ in range(2):
                client.sendall(b"hello")
                assert client.recv(100) == b"hello"
                time.sleep(2)

    def test_nobody_at_the_other_end(self, world: World, caplog: pytest.LogCaptureFixture) -> None:
        """A stream that is there and answers nothing is cut, so that the client can connect anew."""
        world.api.answers_pings = False
        with (
            caplog.at_level(logging.INFO),
            world.forwarded() as port,
            closing(socket.create_connection(("127.0.0.1", port), timeout=10)) as client,
            pytest.raises(ConnectionResetError),
        ):
            client.recv(1)
        assert lines_about(caplog, "no answer to a ping")

    def test_a_slow_client_is_not_taken_for_dead(self, world: World) -> None:
        """Answers to pings stand behind the bytes that it has not read yet; it gets all of them."""
        size = 20_000_000

        def talk(peer: socket.socket) -> None:
            peer.sendall(bytes(size))

        with (
            world.forwarded(talk) as port,
            closing(socket.create_connection(("127.0.0.1", port), timeout=10)) as client,
        ):
            got = len(client.recv(1))
            time.sleep(2)
            while data := client.recv(65536):
                got += len(data)
        assert got == size

    def test_a_slow_pod_is_not_taken_for_dead(self, world: World) -> None:
        """A pod that does not read holds back the pings; it gets all that was sent."""
        size = 20_000_000

        def listen(peer: socket.socket) -> None:
            time.sleep(2)
            got = 0
            while got < size:
                got += len(peer.recv(65536))
            peer.sendall(b"%d" % got)

        with (
            world.forwarded(listen) as port,
            closing(socket.create_connection(("127.0.0.1", port), timeout=10)) as client,
        ):
            client.sendall(bytes(size))
            assert client.recv(100) == b"%d" % size


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
            assert max(seconds_to_reset(port) for _ in range(5)) < 5
            world.background.run(world.api.start())
            wait_until(lambda: said(port) == b"hello", "an echo", timeout_s=5, tolerate=(OSError,))
        states = [line.split(": ")[1] for line in lines_about(caplog, "API server of here")]
        assert states == ["answers.", "no answer", "answers."]

    def test_an_api_server_that_moves(self, world: World) -> None:
        """A cluster that comes back at another address is found, once its kubeconfig says so."""
        with world.forwarded() as port:
            said(port)
            world.background.run(world.api.stop())
            seconds_to_reset(port)
            world.api.port = free_port()
            kubeconfig(world.folder, world.api.port, world.user)
            world.background.run(world.api.start())
            wait_until(lambda: said(port) == b"hello", "an echo", timeout_s=10, tolerate=(OSError,))


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
            assert max(seconds_to_reset(port) for _ in range(3)) < 5
        (line,) = lines_about(caplog, "API server of here")
        assert "does not know who we are (HTTP 401)" in line
