"""
orders: the orders in MariaDB, and the jobs that each order makes, in Redis.

    POST /orders    GET /orders?user=ada    GET /orders/by-key/{key}
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from aiohttp import web
from pymysql.constants import ER
from pymysql.err import IntegrityError

from labkit.shop.database import Connection, Database
from labkit.shop.logs import log
from labkit.shop.names import QUEUES
from labkit.shop.queues import Store
from labkit.shop.server import Refused, Service, body_of
from labkit.shop.state import Replica

__all__ = ["Orders"]

_BY_USER: Final = (
    "SELECT COUNT(*) AS orders, COALESCE(SUM(amount_cents), 0) AS spent_cents FROM orders {} WHERE user_id = %s"
)


class Orders(Service):
    """Makes orders once per key, and queues e-mail, processing and notification for each."""

    def __init__(self, replica: Replica) -> None:
        super().__init__(replica)
        self._database = Database(self.config.mariadb, self.telemetry)
        self._store = Store(self.config.redis_url, self.telemetry)
        self._made = self.telemetry.counter("shop_orders_total", "Orders by status.", "status")
        self._revenue = self.telemetry.counter("shop_revenue_euros_total", "Euros of the orders that were placed.")
        self._jobs = self.telemetry.counter("shop_jobs_queued_total", "Jobs by queue and outcome.", "queue", "outcome")

    async def start(self) -> None:
        """Make the pool."""
        await self._database.open()

    async def stop(self) -> None:
        """Close all connections."""
        await self._database.close()
        await self._store.close()

    def checks(self) -> Mapping[str, Callable[[], Awaitable[None]]]:
        """An order needs both: its row and its jobs."""
        return {"mariadb": self._database.check, "redis": self._store.check}

    def routes(self) -> Sequence[web.RouteDef]:
        """See the head of this file."""
        return [
            web.post("/orders", self._make),
            web.get("/orders", self._list),
            web.get("/orders/by-key/{key}", self._by_key),
        ]

    async def _make(self, request: web.Request) -> web.Response:
        order = _valid(await body_of(request))
        known = await self._find(order["key"])
        if known:
            return web.json_response(known)
        try:
            number, earlier = await self._insert(order)
        except IntegrityError as error:
            # Two requests with one key at the same time: the first made the order, this one reports it.
            known = await self._find(order["key"]) if error.args[0] == ER.DUP_ENTRY else None
            if known is None:
                raise Refused(422, f"the order does not fit the catalog: {error.args[-1]}") from error
            return web.json_response(known)
        self._made.labels("placed").inc()
        self._revenue.inc(order["amount_cents"] / 100)
        # An order that is kept gets its jobs even if whoever asked has gone.
        await asyncio.shield(self._queue_jobs(number, order))
        body = {"order": number, "status": "placed", "amount_cents": order["amount_cents"], "earlier": earlier}
        return web.json_response(body, status=201)

    async def _insert(self, order: dict[str, Any]) -> tuple[int, int]:
        """The number of the new order and how many the user made before."""
        async with self._database.transaction() as connection:
            history = await self._history(connection, order["user"])
            await connection.run(
                "order_insert",
                "INSERT INTO orders (user_id, status, amount_cents, idempotency_key, charge_id)"
                " VALUES (%s, 'placed', %s, %s, %s)",
                (order["user"], order["amount_cents"], order["key"], order["charge"]),
            )
            number = int((await connection.run("order_id", "SELECT LAST_INSERT_ID() AS id"))[0]["id"])
            await connection.run_many(
                "order_items_insert",
                "INSERT INTO order_items (order_id, product_id, quantity, price_cents) VALUES (%s, %s, %s, %s)",
                [(number, item["product"], item["quantity"], item["price_cents"]) for item in order["items"]],
            )
        return number, int(history["orders"])

    async def _history(self, connection: Connection, user: str) -> dict[str, Any]:
        """What the user bought before; with the weakness `missing_index`, by reading the whole table."""
        hint = "IGNORE INDEX (orders_by_user)" if self.flags.on("missing_index") else ""
        return (await connection.run("orders_by_user", _BY_USER.format(hint), (user,)))[0]

    async def _queue_jobs(self, number: int, order: dict[str, Any]) -> None:
        cap = None if self.flags.on("unbounded_queue") else self.config.queue_cap
        job = {"order": number, "user": order["user"]}
        try:
            accepted = await self._store.push(dict.fromkeys(QUEUES, job), cap=cap)
        except Refused as refusal:
            log(logging.ERROR, f"the jobs of an order are lost: {refusal}", order=number)
            accepted = {}
        for queue in QUEUES:
            outcome = "lost" if queue not in accepted else "queued" if accepted[queue] else "shed"
            self._jobs.labels(queue, outcome).inc()

    async def _list(self, request: web.Request) -> web.Response:
        user = request.query.get("user", "")
        async with self._database.connection() as connection:
            history = await self._history(connection, user)
            rows = await connection.run(
                "orders_newest",
                "SELECT id AS `order`, status, amount_cents, created_at FROM orders"
                " WHERE user_id = %s ORDER BY id DESC LIMIT 20",
                (user,),
            )
        for row in rows:
            row["created_at"] = _iso(row["created_at"])
        return web.json_response({"user": user, "count": int(history["orders"]), "newest": rows})

    async def _by_key(self, request: web.Request) -> web.Response:
        known = await self._find(request.match_info["key"])
        if known is None:
            raise Refused(404, "no order was made with this key")
        return web.json_response(known)

    async def _find(self, key: str) -> dict[str, Any] | None:
        rows = await self._database.run(
            "order_by_key",
            "SELECT id AS `order`, status, amount_cents FROM orders WHERE idempotency_key = %s",
            (key,),
        )
        return rows[0] if rows else None


def _valid(body: dict[str, Any]) -> dict[str, Any]:
    wanted = {"user": str, "key": str, "charge": str, "amount_cents": int, "items": list}
    wrong = [name for name, kind in wanted.items() if not isinstance(body.get(name), kind)]
    if wrong or not body["items"]:
        raise Refused(
            400, f"an order needs user, key, charge, amount_cents and items; wrong: {', '.join(wrong) or 'items'}"
        )
    fields = ("product", "quantity", "price_cents")
    if not all(isinstance(item, dict) and all(type(item.get(f)) is int for f in fields) for item in body["items"]):
        raise Refused(400, f"an item needs {', '.join(fields)} as whole numbers")
    return body


def _iso(instant: datetime) -> str:
    return instant.isoformat(timespec="seconds") + "+00:00"
