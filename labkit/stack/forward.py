"""
The forwarder: ports of this machine that lead to pods, also after a pod was replaced.

It is a process of the lab, next to its guard.  Each connection goes to a pod that is ready at that moment; there is
nothing to restart when pods come and go, or when the API server does.  It listens on 127.0.0.1 only.

    python -m labkit.stack.forward RUN_DIR

Exit codes: 0 after SIGTERM or SIGINT, 69 when a port is taken or refused, 78 when `forward.json` or the kubeconfig
cannot be used.
"""

from __future__ import annotations

import asyncio
import errno
import itertools
import json
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path

from labkit.errors import ConfigInvalid, PortInUse, SetupError, UnknownName
from labkit.stack.download import write_atomically
from labkit.stack.forward_access import Credentials, check_context
from labkit.stack.forward_cluster import Cluster, NoAnswer, NoPod, Refused, Stream
from labkit.stack.forward_routes import Forwarding, Route, read_routes, ready_file, write_routes
from labkit.stack.forward_stream import Cut, carry, reset
from labkit.stack.ports import listener_of

__all__ = ["EXIT_CONFIG", "EXIT_PORT_TAKEN", "Forwarding", "Route", "forward", "main", "ready_file", "write_routes"]

EXIT_PORT_TAKEN = 69
EXIT_CONFIG = 78
# A connection waits this long for a pod, and looks this often, in seconds.
_POD_WITHIN_S = 2.0
_LOOK_EVERY_S = 0.2
# Pods that were seen are believed in for this long, in seconds, or until a connection fails.
_BELIEVED_S = 2.0
_BACKLOG = 128

_log = logging.getLogger(__name__)


class _Journal:
    """Says what changed, once."""

    def __init__(self) -> None:
        self._last: dict[str, str] = {}

    def say(self, about: str, state: str, *, how: str = "") -> None:
        if self._last.get(about) != state:
            self._last[about] = state
            _log.info("%s: %s.%s", about, state, f" {how}" if how else "")


class _Way:
    """One route at work: which pods it has, whose turn it is."""

    def __init__(self, route: Route, cluster: Cluster, journal: _Journal, context: str) -> None:
        self.route = route
        self._cluster, self._journal = cluster, journal
        self._api = f"API server of {context}"
        self._about = f"{route.name} (127.0.0.1:{route.listen})"
        self._pods: list[str] = []
        self._seen_at = float("-inf")
        self._looking = asyncio.Lock()
        self._turns = itertools.count()

    async def connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one client from its first byte to its last; whatever goes wrong ends the connection, with a reset."""
        with self._telling(writer):
            stream = await self._open()
            works = f"goes to port {self.route.port} of {', '.join(self._pods)}"
            await carry(reader, writer, stream, answers=lambda: self._journal.say(self._about, works))

    @contextmanager
    def _telling(self, writer: asyncio.StreamWriter) -> Iterator[None]:
        closed = "Connections are closed until that changes"
        try:
            yield
        except NoAnswer as error:
            self._journal.say(self._api, f"no answer: {error}", how=f"{closed}.")
        except Refused as error:
            self._journal.say(self._api, f"refused: {error}", how=f"{closed}: see `kubectl auth can-i --list`.")
        except NoPod as error:
            self._journal.say(self._about, str(error), how=f"{closed}.")
        except Cut as error:
            self._forget()
            self._journal.say(self._about, f"port {self.route.port} of the pod: {error}")
        finally:
            if not writer.is_closing():
                reset(writer)

    async def _open(self) -> Stream:
        """
        A stream to a pod whose turn it is.

        Raises:
            NoPod: there was none within two seconds.
            NoAnswer, Refused: of the API server.
        """
        deadline = time.monotonic() + _POD_WITHIN_S
        while True:
            try:
                pods = await self._usable()
                stream = await self._stream_to(pods[next(self._turns) % len(pods)])
            except NoPod:
                if time.monotonic() >= deadline:
                    raise
                await asyncio.sleep(_LOOK_EVERY_S)
            else:
                self._journal.say(self._api, "answers")
                return stream

    async def _stream_to(self, pod: str) -> Stream:
        try:
            return await self._cluster.stream(pod, self.route.port)
        except NoPod:
            self._forget()
            raise

    async def _usable(self) -> list[str]:
        async with self._looking:  # many connections at once ask once
            if time.monotonic() - self._seen_at > (_BELIEVED_S if self._pods else _LOOK_EVERY_S):
                self._pods = await self._cluster.pods(self.route)
                self._seen_at = time.monotonic()
            if not self._pods:
                wanted = "running pod" if self.route.pod else "ready pod with"
                raise NoPod(f"no {wanted} {self.route.target}")
            return self._pods

    def _forget(self) -> None:
        self._seen_at = float("-inf")


class _Connections:
    """The connections that are open."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def serve(self, way: _Way) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], None]:
        """What a listener calls for each client of *way*."""

        def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.create_task(way.connect(reader, writer))
            self._tasks.add(task)
            task.add_done_callback(self._ended)

        return accepted

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("a connection ended by a mistake of the forwarder", exc_info=error)

    async def end(self) -> None:
        """End them now."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def _bind(route: Route) -> socket.socket:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", route.listen))
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        other = "move this lab to other ports: `labkit up --port-offset 1000`."
        if error.errno != errno.EADDRINUSE:
            raise SetupError(
                f"{route.name} wants 127.0.0.1:{route.listen}, which the system refuses: {error.strerror}. "
                f"If it is a port below 1024, {other}"
            ) from error
        pid, process = listener_of(route.listen)
        how = f"If it is from an earlier lab with another run directory, run `labkit down` there; otherwise {other}"
        raise PortInUse(route.name, port=route.listen, pid=pid, process=process, how=how) from error
    return listener


async def forward(run_dir: Path, forwarding: Forwarding, *, stop: asyncio.Event) -> None:
    """
    Forward until *stop* is set.

    Raises:
        PortInUse: names the port and who has it; nothing listens then.
        SetupError: the system refuses a port.
    """
    cluster = Cluster(Credentials(forwarding.kubeconfig, forwarding.context), forwarding.namespace)
    journal = _Journal()
    async with AsyncExitStack() as stack:
        listeners = []
        for route in forwarding.routes:
            listeners.append(_bind(route))
            stack.callback(listeners[-1].close)
        await stack.enter_async_context(cluster)
        connections = _Connections()
        stack.push_async_callback(connections.end)
        for route, listener in zip(forwarding.routes, listeners, strict=True):
            way = _Way(route, cluster, journal, forwarding.context)
            server = await asyncio.start_server(connections.serve(way), sock=listener)
            stack.callback(server.close)
        ready = {"pid": os.getpid(), "routes": [route.model_dump() for route in forwarding.routes]}
        write_atomically(ready_file(run_dir), json.dumps(ready) + "\n")
        stack.callback(ready_file(run_dir).unlink, missing_ok=True)
        _log.info("%d ports lead into namespace %s of %s.", len(listeners), forwarding.namespace, forwarding.context)
        await stop.wait()


def main(argv: list[str]) -> int:
    """Entry point of the module."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s - %(message)s", force=True)
    run_dir = Path(argv[1])
    ready_file(run_dir).parent.mkdir(parents=True, exist_ok=True)
    ready_file(run_dir).unlink(missing_ok=True)
    try:
        forwarding = read_routes(run_dir)
        check_context(forwarding.kubeconfig, forwarding.context)
        asyncio.run(_until_told(run_dir, forwarding))
    except (ConfigInvalid, UnknownName) as error:
        _log.error("%s", error)
        return EXIT_CONFIG
    except SetupError as error:
        _log.error("%s", error)
        return EXIT_PORT_TAKEN
    return 0


async def _until_told(run_dir: Path, forwarding: Forwarding) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await forward(run_dir, forwarding, stop=stop)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
