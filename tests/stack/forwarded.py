"""What the tests of the forwarder share: an API server, pods that are sockets, and a client."""

from __future__ import annotations

import asyncio
import json
import socket
import socketserver
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from labkit._wait import wait_until
from labkit.stack.forward import Forwarding, Route, forward, ready_file
from tests.stack.pod_server import ApiServer, Loop

__all__ = ["World", "echo", "free_port", "kubeconfig", "lines_about", "said", "seconds_to_reset"]


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
