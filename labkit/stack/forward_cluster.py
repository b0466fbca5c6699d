"""
What the forwarder asks the API server: which pods could answer, and a stream to one of them.

The stream is a websocket with the protocol `v4.channel.k8s.io`: the first byte of a message is the channel, 0 for data
and 1 for what went wrong, and the first message of each channel is the port again.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Self, TypeVar

import aiohttp

from labkit.errors import ConfigInvalid
from labkit.stack.forward_access import Access, Credentials
from labkit.stack.forward_routes import Route

__all__ = ["Cluster", "NoAnswer", "NoPod", "Refused", "Stream", "usable_pods"]

PROTOCOL = "v4.channel.k8s.io"
Stream = aiohttp.ClientWebSocketResponse
_ANSWER_WITHIN_S = 5.0
_CONNECT_WITHIN_S = 2.0
# After an API server gave no answer, nobody else waits for it during this time, in seconds.
_GONE_FOR_S = 0.5
_CLOSE_WITHIN_S = 1.0

T = TypeVar("T")


class NoAnswer(Exception):
    """The API server cannot be reached, or its certificate is not what the kubeconfig says."""


class Refused(Exception):
    """The API server answered and does not let us."""


class NoPod(Exception):
    """There is no pod to connect to now."""


def usable_pods(listing: dict[str, Any], route: Route) -> list[str]:
    """
    Names of the pods that may get a connection, sorted.

    A pod that is being deleted gets none.  With a selector, pods must be ready; a pod that is asked for by name must
    only run, since whoever names it may want to know why it is not ready.

    Args:
        listing: a PodList, as the API server gives it.
        route: whose pods these are.

    >>> pod = {"metadata": {"name": "a"}, "status": {"phase": "Running", "conditions": []}}
    >>> usable_pods({"items": [pod]}, Route(name="a", listen=1, port=1, pod="a"))
    ['a']
    >>> usable_pods({"items": [pod]}, Route(name="a", listen=1, port=1, selector="app=a"))
    []
    """
    return sorted(
        pod["metadata"]["name"]
        for pod in listing.get("items") or []
        if pod["status"].get("phase") == "Running"
        and "deletionTimestamp" not in pod["metadata"]
        and (route.pod or _is_ready(pod))
    )


def _is_ready(pod: dict[str, Any]) -> bool:
    conditions = pod["status"].get("conditions") or []
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


class Cluster:
    """The pods of one namespace, by way of the API server; use it as an `async with`."""

    def __init__(self, credentials: Credentials, namespace: str) -> None:
        self._credentials, self._namespace = credentials, namespace
        self._gone_until, self._gone_because = float("-inf"), ""
        self._doubted: int | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_WITHIN_S),
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def pods(self, route: Route) -> list[str]:
        """
        Names of the pods that may get a connection of *route* now.

        Raises:
            NoAnswer, Refused: as they say.
        """
        asked = {"fieldSelector": f"metadata.name={route.pod}"} if route.pod else {"labelSelector": route.selector}

        async def listing(access: Access) -> list[str]:
            async with self._session.get(f"{access.url}{self._path}", params=asked, **_options(access)) as answer:
                answer.raise_for_status()
                return usable_pods(await answer.json(), route)

        return await self._ask(listing, f"list the pods with {route.target}")

    async def stream(self, pod: str, port: int) -> Stream:
        """
        A stream to a port of a pod.

        Raises:
            NoPod: the pod is not there or does not run any more.
            NoAnswer, Refused: as they say.
        """

        async def upgrade(access: Access) -> Stream:
            stream: Stream = await self._session.ws_connect(
                f"{access.url}{self._path}/{pod}/portforward",
                params={"ports": port},
                protocols=[PROTOCOL],
                autoping=False,
                timeout=aiohttp.ClientWSTimeout(ws_close=_CLOSE_WITHIN_S),
                **_options(access),
            )
            return stream

        return await self._ask(upgrade, f"connect to port {port} of pod {pod}")

    @property
    def _path(self) -> str:
        return f"/api/v1/namespaces/{self._namespace}/pods"

    async def _ask(self, request: Callable[[Access], Awaitable[T]], purpose: str) -> T:
        """Make a request; when we are unknown to the API server, once more with credentials that were read again."""
        if time.monotonic() < self._gone_until:
            raise NoAnswer(self._gone_because)
        access = await self._access(self._doubted)
        try:
            return await self._once(request, access, purpose)
        except NoAnswer as error:
            # The kubeconfig may have another address or authority by now; the next request looks.
            self._doubted = access.generation
            self._gone_until, self._gone_because = time.monotonic() + _GONE_FOR_S, str(error)
            raise
        except _Unauthorized:
            access = await self._access(access.generation)
        try:
            return await self._once(request, access, purpose)
        except _Unauthorized as error:
            raise Refused(str(error)) from error

    async def _access(self, refused: int | None) -> Access:
        try:
            async with asyncio.timeout(_ANSWER_WITHIN_S):
                return await asyncio.to_thread(self._credentials.access, refused=refused)
        except ConfigInvalid as error:
            raise Refused(str(error)) from error
        except TimeoutError as error:
            reason = f"the program that brings its credentials did not end within {_ANSWER_WITHIN_S:g} s"
            raise Refused(reason) from error

    async def _once(self, request: Callable[[Access], Awaitable[T]], access: Access, purpose: str) -> T:
        try:
            async with asyncio.timeout(_ANSWER_WITHIN_S):
                return await request(access)
        except aiohttp.ClientResponseError as error:  # a refused upgrade, too
            if error.status == 401:
                raise _Unauthorized(f"{access.url} does not know who we are (HTTP 401)") from error
            if error.status in {400, 403}:
                raise Refused(f"{access.url} does not let us {purpose} (HTTP {error.status})") from error
            raise NoPod(f"HTTP {error.status} for the attempt to {purpose}") from error
        except TimeoutError as error:
            raise NoAnswer(f"{access.url} did not answer within {_ANSWER_WITHIN_S:g} s") from error
        except (aiohttp.ClientError, ssl.SSLError, OSError) as error:
            raise NoAnswer(f"{access.url}: {error}") from error


class _Unauthorized(Exception):
    """The API server does not take these credentials."""


def _options(access: Access) -> dict[str, Any]:
    options: dict[str, Any] = {"headers": access.headers, "ssl": access.tls, "proxy": access.proxy}
    return options | ({"server_hostname": access.server_name} if access.server_name else {})
