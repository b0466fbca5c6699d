"""
The two requests that the forwarder makes of an API server, answered by real sockets on this machine.

A "port of a pod" is a port of 127.0.0.1; which pods there are, and whose token is good, the test says.  What this
leaves out (TLS, RBAC, nodes) `tests/kind/test_forward.py` asks of a real API server.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from aiohttp import WSMsgType, web

__all__ = ["ApiServer", "loop_in_background"]

PODS = "/api/v1/namespaces/{namespace}/pods"


class Loop:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()

    def run(self, work: Coroutine[Any, Any, Any], *, timeout_s: float = 20) -> Any:
        """Run a coroutine there and return what it returns."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(timeout_s)


@contextmanager
def loop_in_background() -> Iterator[Loop]:
    """An event loop that runs while the block does."""
    background = Loop()
    thread = threading.Thread(target=background.loop.run_forever)
    thread.start()
    try:
        yield background
    finally:
        background.loop.call_soon_threadsafe(background.loop.stop)
        thread.join(20)
        background.loop.close()


@dataclass
class ApiServer:
    """A namespace: *pods* are ready or not by name, *token* is the good one, *asked* is what was asked of it."""

    port: int
    pods: dict[str, bool] = field(default_factory=lambda: {"web-1": True})
    token: str = ""
    asked: list[str] = field(default_factory=list)
    sent_bytes: int = 0
    answers_pings: bool = True

    async def start(self) -> None:
        """Listen."""
        app = web.Application()
        app.router.add_get(PODS, self._list)
        app.router.add_get(PODS + "/{pod}/portforward", self._forward)
        self._streams: list[web.Request] = []
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True).start()

    async def stop(self) -> None:
        """Go away in the middle of everything."""
        self.cut()
        await self._runner.cleanup()

    def cut(self) -> None:
        """Break all streams."""
        for request in list(self._streams):
            if request.transport is not None:
                request.transport.abort()

    def _check(self, request: web.Request) -> None:
        if self.token and request.headers.get("Authorization") != f"Bearer {self.token}":
            raise web.HTTPUnauthorized

    async def _list(self, request: web.Request) -> web.Response:
        self.asked.append("list")
        self._check(request)
        items = [
            {
                "metadata": {"name": name},
                "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": str(ready)}]},
            }
            for name, ready in self.pods.items()
        ]
        return web.json_response({"kind": "PodList", "items": items})

    async def _forward(self, request: web.Request) -> web.WebSocketResponse:
        self.asked.append(pod := request.match_info["pod"])
        self._check(request)
        if pod not in self.pods:
            raise web.HTTPNotFound
        port = int(request.query["ports"])
        socket = web.WebSocketResponse(protocols=["v4.channel.k8s.io"], autoping=self.answers_pings)
        await socket.prepare(request)
        assert socket.ws_protocol == "v4.channel.k8s.io"
        self._streams.append(request)
        for channel in (0, 1):
            await socket.send_bytes(bytes([channel]) + port.to_bytes(2, "little"))
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await socket.send_bytes(b"\x01dial tcp4: connect: connection refused")
        else:
            await self._carry(socket, reader, writer)
        self._streams.remove(request)
        await socket.close()
        return socket

    async def _carry(
        self, socket: web.WebSocketResponse, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        async def down() -> None:
            while data := await reader.read(32 * 1024):
                await socket.send_bytes(b"\x00" + data)
                self.sent_bytes += len(data)

        async def up() -> None:
            async for message in socket:
                if message.type is WSMsgType.PING:
                    continue
                assert message.type is WSMsgType.BINARY
                assert message.data[0] == 0
                writer.write(message.data[1:])
                await writer.drain()

        tasks = [asyncio.create_task(down()), asyncio.create_task(up())]
        with suppress(ConnectionError):
            _, rest = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in rest:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        writer.close()
