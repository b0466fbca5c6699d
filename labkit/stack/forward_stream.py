"""
One forwarded connection: bytes between a client on this machine and a pod, until one of them ends it.

Neither side is read faster than the other takes it, so a slow reader costs the few buffers on the way and no more.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from contextlib import suppress

from aiohttp import ClientConnectionError, WSMessage, WSMsgType

from labkit.stack.forward_cluster import Stream

__all__ = ["Cut", "carry", "reset"]

_DATA, _ERROR = 0, 1
_CHUNK_BYTES = 64 * 1024
# Idle connections say something this often, in seconds: what lies between may forget a silent one.
_PING_EVERY_S = 30.0
_PONG_WITHIN_S = 30.0
# The protocol cannot say "no more from me, I still listen".  A client that ends its side before it has its answer
# gets this long for it, in seconds.
_ANSWER_AFTER_END_S = 2.0
_CLOSE_WITHIN_S = 2.0


class Cut(Exception):
    """The connection ended otherwise than by one side closing it; the message says how."""


def reset(writer: asyncio.StreamWriter) -> None:
    """End a connection so that the client gets an error (`ECONNRESET`) and not the end of an answer."""
    sock = writer.get_extra_info("socket")
    if sock is not None:
        with suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def carry(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, stream: Stream, *, answers: Callable[[], None]
) -> None:
    """
    Carry bytes both ways until one side closes; then close the other.

    Args:
        reader: what the client sends.
        writer: to the client.
        stream: a new stream to a port of a pod.
        answers: called when the pod sends its first bytes.

    Raises:
        Cut: the stream broke, or nothing listens on the pod's port; the client's connection was reset.
    """
    try:
        await _Connection(reader, writer, stream, answers).run()
    except Cut:
        reset(writer)
        raise
    finally:
        writer.close()
        with suppress(TimeoutError, ClientConnectionError, OSError):
            async with asyncio.timeout(_CLOSE_WITHIN_S):
                await stream.close()


def _in_short(reason: str) -> str:
    """
    What a node says when it cannot connect, without the names that it alone knows.

    >>> _in_short('error forwarding port 1 to pod 9f, uid : dial tcp4 127.0.0.1:1: connect: connection refused')
    'nothing listens there'
    """
    return "nothing listens there" if "connection refused" in reason else reason.strip()


class _Connection:
    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        stream: Stream,
        answers: Callable[[], None],
    ) -> None:
        self._reader, self._writer, self._stream, self._answers = reader, writer, stream, answers
        self._announced: set[int] = set()
        self._awaits_answer = False  # the last bytes went to the pod
        self._answered = False
        self._silent = False  # nothing came since the last ping
        self._listens = False  # everything that came was passed on

    async def run(self) -> None:
        up, down = asyncio.create_task(self._up()), asyncio.create_task(self._down())
        pulse = asyncio.create_task(self._pulse())
        tasks = [up, down, pulse]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if up.done() and not down.done() and not up.exception() and self._awaits_answer:
                await asyncio.wait([down, pulse], timeout=_ANSWER_AFTER_END_S, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
        # What the pod said comes first: when a stream breaks, all who use it hear of it.
        for error in (results[1], results[0], results[2]):
            if isinstance(error, Exception) and not isinstance(error, ConnectionError):
                raise error

    async def _up(self) -> None:
        """From the client to the pod."""
        while data := await self._reader.read(_CHUNK_BYTES):
            self._awaits_answer = True
            try:
                await self._stream.send_bytes(bytes([_DATA]) + data)
            except (ClientConnectionError, ConnectionError) as error:
                raise Cut("the stream to it broke") from error

    async def _down(self) -> None:
        """From the pod to the client."""
        while True:
            self._listens = True
            message = await self._stream.receive()
            self._silent = self._listens = False
            if message.type is WSMsgType.BINARY:
                await self._pass_on(message)
            elif message.type is WSMsgType.PING:
                await self._stream.pong(message.data)
            elif message.type is WSMsgType.CLOSE:
                return
            elif message.type is not WSMsgType.PONG:
                raise Cut("the stream to it broke")

    async def _pass_on(self, message: WSMessage) -> None:
        channel, data = message.data[0], memoryview(message.data)[1:]
        if channel not in self._announced:
            self._announced.add(channel)  # the port's number
        elif channel == _ERROR and data:
            raise Cut(_in_short(bytes(data).decode(errors="replace")))
        elif channel == _DATA and data:
            self._awaits_answer = False
            if not self._answered:
                self._answered = True
                self._answers()
            self._writer.write(data)
            await self._writer.drain()

    async def _pulse(self) -> None:
        """Keep an idle stream known, and notice when nobody is at its other end."""
        while True:
            await asyncio.sleep(_PING_EVERY_S)
            self._silent = True
            with suppress(ClientConnectionError, ConnectionError):
                await self._stream.ping()
            await asyncio.sleep(_PONG_WITHIN_S)
            # An answer may be late for a good reason: it stands behind bytes that the client does not read yet, or
            # the ping behind bytes that the pod does not read yet.
            if self._silent and self._listens and not self._awaits_answer:
                raise Cut(f"no answer to a ping within {_PONG_WITHIN_S:g} s")
