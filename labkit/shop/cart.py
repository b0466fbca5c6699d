"""
cart: what each user is about to buy, in Redis, and who was here lately.

    GET, DELETE /cart/{user}    POST /cart/{user} {"product": 3, "quantity": 1}
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

from aiohttp import web

from labkit.shop.names import SESSIONS_KEY
from labkit.shop.queues import Store
from labkit.shop.server import Refused, Service, body_of
from labkit.shop.state import Replica

__all__ = ["Cart"]

CART_TTL_S: Final = 3600
MAX_LINES: Final = 50
MAX_QUANTITY: Final = 99
MAX_USER_LENGTH: Final = 64


class Cart(Service):
    """Keeps carts for an hour."""

    def __init__(self, replica: Replica) -> None:
        super().__init__(replica)
        self._store = Store(self.config.redis_url, self.telemetry)

    async def stop(self) -> None:
        """Close the connections."""
        await self._store.close()

    def checks(self) -> Mapping[str, Callable[[], Awaitable[None]]]:
        """Without Redis there are no carts."""
        return {"redis": self._store.check}

    def routes(self) -> Sequence[web.RouteDef]:
        """See the head of this file."""
        return [
            web.get("/cart/{user}", self._show),
            web.post("/cart/{user}", self._add),
            web.delete("/cart/{user}", self._empty),
        ]

    async def _show(self, request: web.Request) -> web.Response:
        user = _user(request)
        with self._store.measured("cart_show"):
            pipe = self._store.redis.pipeline(transaction=False)
            pipe.hgetall(_key(user))
            pipe.zadd(SESSIONS_KEY, {user: time.time()})
            lines, _ = await pipe.execute()
        return _cart(user, lines)

    async def _add(self, request: web.Request) -> web.Response:
        user, body = _user(request), await body_of(request)
        product = _whole(body, "product", 1_000_000)
        quantity = _whole(body, "quantity", MAX_QUANTITY)
        key = _key(user)
        with self._store.measured("cart_add"):
            pipe = self._store.redis.pipeline(transaction=False)
            pipe.hincrby(key, str(product), quantity)
            pipe.expire(key, CART_TTL_S)
            pipe.zadd(SESSIONS_KEY, {user: time.time()})
            pipe.hgetall(key)
            lines = (await pipe.execute())[-1]
            if len(lines) > MAX_LINES or int(lines[str(product)]) > MAX_QUANTITY:
                await self._store.redis.hincrby(key, str(product), -quantity)
                raise Refused(409, f"a cart holds {MAX_LINES} products and {MAX_QUANTITY} of each")
        return _cart(user, lines)

    async def _empty(self, request: web.Request) -> web.Response:
        user = _user(request)
        with self._store.measured("cart_empty"):
            await self._store.redis.delete(_key(user))
        return _cart(user, {})


def _cart(user: str, lines: Mapping[str, str]) -> web.Response:
    items = [{"product": int(product), "quantity": int(n)} for product, n in sorted(lines.items()) if int(n) > 0]
    return web.json_response({"user": user, "items": items})


def _key(user: str) -> str:
    return f"cart:{user}"


def _user(request: web.Request) -> str:
    user = request.match_info["user"]
    if not 0 < len(user) <= MAX_USER_LENGTH:
        raise Refused(400, f"a user's name has 1 to {MAX_USER_LENGTH} characters")
    return user


def _whole(body: Mapping[str, Any], name: str, high: int) -> int:
    value = body.get(name)
    if type(value) is not int or not 1 <= value <= high:
        raise Refused(400, f"{name} must be a whole number from 1 to {high}, got {value!r}")
    return value
