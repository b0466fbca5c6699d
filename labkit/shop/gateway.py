"""
gateway: the edge of the shop.  It owns no data; it asks the other services and says what they said.

    GET  /products             GET  /products/{id}
    GET  /cart/{user}          POST /cart/{user}      {"product": 3, "quantity": 1}
    POST /checkout/{user}      header Idempotency-Key: the same key never buys twice
    GET  /orders/{user}
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlencode
from uuid import uuid4

import aiohttp
from aiohttp import web

from labkit.shop.calls import Answer, Client, Upstream
from labkit.shop.logs import log
from labkit.shop.server import Refused, Service, body_of
from labkit.shop.state import Replica

__all__ = ["Gateway"]


class Gateway(Service):
    """The HTTP edge, with client-side balancing over the replicas of catalog and payments."""

    def __init__(self, replica: Replica) -> None:
        super().__init__(replica)
        self._checkouts = self.telemetry.counter("shop_checkouts_total", "Checkouts by how they ended.", "outcome")
        self._by_customer = self.telemetry.histogram(
            "shop_customer_request_seconds", "Time from request to answer, by customer.", "endpoint", "user"
        )
        self._client = Client(self.telemetry)

    async def start(self) -> None:
        """Open the connections' session and begin to watch who is ready."""
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        self._probe_session = aiohttp.ClientSession()
        config = self.config
        self._catalog = self._upstream("catalog", config.catalog_urls, timeout_s=1.0)
        self._cart = self._upstream("cart", (config.cart_url,), timeout_s=1.0)
        self._orders = self._upstream("orders", (config.orders_url,), timeout_s=2.0)
        self._payments = self._upstream(
            "payments", config.payments_urls, timeout_s=1.0, no_timeout_flag="payments_without_timeout"
        )
        upstreams = (self._catalog, self._cart, self._orders, self._payments)
        self.in_background(*(upstream.watch() for upstream in upstreams))

    async def stop(self) -> None:
        """Close the connections."""
        await self._session.close()
        await self._probe_session.close()

    def checks(self) -> Mapping[str, Callable[[], Awaitable[None]]]:
        """Ready while the catalog can be shown: a shop that cannot take payments is still open."""
        return {"catalog": self._catalog_there}

    def routes(self) -> Sequence[web.RouteDef]:
        """See the head of this file."""
        return [
            web.get("/products", self._products),
            web.get("/products/{id}", self._product),
            web.get("/cart/{user}", self._show_cart),
            web.post("/cart/{user}", self._add_to_cart),
            web.post("/checkout/{user}", self._checkout),
            web.get("/orders/{user}", self._list_orders),
        ]

    def answered(self, request: web.Request, endpoint: str, duration_s: float) -> None:
        """Under the flag `customer_statistics`: a histogram for each customer; they go when the flag does."""
        user = request.match_info.get("user")
        if user and self.flags.on("customer_statistics"):
            self._by_customer.labels(endpoint, user).observe(duration_s)
        elif user:
            self._by_customer.clear()

    def _upstream(self, service: str, urls: tuple[str, ...], **options: Any) -> Upstream:
        return Upstream(
            service,
            urls,
            session=self._session,
            probe_session=self._probe_session,
            client=self._client,
            flags=self.flags,
            **options,
        )

    async def _catalog_there(self) -> None:
        if self._catalog.balancer.pick() is None:
            raise Refused(503, "no replica of catalog is ready")

    async def _products(self, request: web.Request) -> web.Response:
        query = {"page": request.query["page"]} if "page" in request.query else {}
        path = "/products" + (f"?{urlencode(query)}" if query else "")
        return _forward(await self._catalog.call("GET", path, repeatable=True))

    async def _product(self, request: web.Request) -> web.Response:
        path = f"/products/{_part(request, 'id')}"
        return _forward(await self._catalog.call("GET", path, repeatable=True))

    async def _show_cart(self, request: web.Request) -> web.Response:
        return _forward(await self._cart.call("GET", f"/cart/{_part(request, 'user')}", repeatable=True))

    async def _add_to_cart(self, request: web.Request) -> web.Response:
        body = await body_of(request)
        # Adding twice is not adding once: not repeatable.
        return _forward(await self._cart.call("POST", f"/cart/{_part(request, 'user')}", body=body, repeatable=False))

    async def _list_orders(self, request: web.Request) -> web.Response:
        path = f"/orders?{urlencode({'user': request.match_info['user']})}"
        return _forward(await self._orders.call("GET", path, repeatable=True))

    async def _checkout(self, request: web.Request) -> web.Response:
        try:
            response = await self._buy(request)
        except Refused as refusal:
            self._checkouts.labels("refused" if refusal.status < 500 else "failed").inc()
            raise
        self._checkouts.labels("bought" if response.status == 201 else "repeated").inc()
        return response

    async def _buy(self, request: web.Request) -> web.Response:
        user, key = request.match_info["user"], request.headers.get("Idempotency-Key")
        if key:
            known = await self._orders.call("GET", f"/orders/by-key/{quote(key, safe='')}", repeatable=True)
            if known.status == 200:
                return _forward(known)
        cart = (await self._cart.call("GET", f"/cart/{quote(user, safe='')}", repeatable=True)).body
        if not cart["items"]:
            raise Refused(409, f"the cart of {user} is empty")
        key = key or uuid4().hex
        amount_cents = sum(item["price_cents"] * item["quantity"] for item in await self._priced(cart["items"]))
        charge = await self._payments.call(
            "POST", "/charges", body={"user": user, "amount_cents": amount_cents, "key": key}, repeatable=True
        )
        if charge.status >= 400:
            raise Refused(402, charge.body.get("error", "payment refused"))
        order = {"user": user, "key": key, "charge": charge.body["charge"], "amount_cents": amount_cents}
        made = await self._orders.call("POST", "/orders", body={**order, "items": cart["items"]}, repeatable=True)
        if made.status < 400:
            await self._empty_cart(user)
        return _forward(made)

    async def _empty_cart(self, user: str) -> None:
        try:
            await self._cart.call("DELETE", f"/cart/{quote(user, safe='')}", repeatable=True)
        except Refused as refusal:
            # The order is made and paid for; a cart that stays full is no reason to call it failed.
            log(logging.WARNING, f"the cart was not emptied after the order: {refusal}", user=user)

    async def _priced(self, items: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The items with the prices of the catalog: what a client put in its cart is not believed."""
        ids = ",".join(str(item["product"]) for item in items)
        answer = await self._catalog.call("GET", f"/prices?ids={ids}", repeatable=True)
        prices = answer.body["prices"]
        gone = [item["product"] for item in items if str(item["product"]) not in prices]
        if gone:
            raise Refused(409, f"the catalog does not have product {gone[0]}", products=gone)
        for item in items:
            item["price_cents"] = prices[str(item["product"])]
        return items


def _part(request: web.Request, name: str) -> str:
    return quote(request.match_info[name], safe="")


def _forward(answer: Answer) -> web.Response:
    return web.json_response(answer.body, status=answer.status)
