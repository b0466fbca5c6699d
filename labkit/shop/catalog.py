"""
catalog: the products, from MariaDB.

    GET /products?page=1    GET /products/{id}    GET /prices?ids=1,2
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

from aiohttp import web

from labkit.shop.database import Connection, Database
from labkit.shop.server import Refused, Service
from labkit.shop.state import Replica

__all__ = ["Catalog"]

_COLUMNS: Final = "id, name, category, price_cents, stock"
_MAX_PRICES: Final = 100


class Catalog(Service):
    """Lists and shows products."""

    def __init__(self, replica: Replica) -> None:
        super().__init__(replica)
        self._database = Database(self.config.mariadb, self.telemetry)

    async def start(self) -> None:
        """Make the pool."""
        await self._database.open()

    async def stop(self) -> None:
        """Close the pool."""
        await self._database.close()

    def checks(self) -> Mapping[str, Callable[[], Awaitable[None]]]:
        """Without MariaDB there is nothing to show."""
        return {"mariadb": self._database.check}

    def routes(self) -> Sequence[web.RouteDef]:
        """See the head of this file."""
        return [
            web.get("/products", self._list),
            web.get("/products/{id}", self._show),
            web.get("/prices", self._prices),
        ]

    async def _list(self, request: web.Request) -> web.Response:
        page, size = _whole(request.query.get("page", "1"), "page"), int(self.flags.get("page_size"))
        async with self._database.connection() as connection:
            if self.flags.on("n_plus_one"):
                products = await self._one_by_one(connection, page, size)
            else:
                products = await connection.run(
                    "products_page",
                    f"SELECT {_COLUMNS} FROM products ORDER BY id LIMIT %s OFFSET %s",  # noqa: S608  (constant)
                    (size, (page - 1) * size),
                )
        return web.json_response({"page": page, "products": products})

    async def _one_by_one(self, connection: Connection, page: int, size: int) -> list[dict[str, Any]]:
        """The same products in 1 + N statements: the weakness `n_plus_one`."""
        ids = await connection.run(
            "products_ids", "SELECT id FROM products ORDER BY id LIMIT %s OFFSET %s", (size, (page - 1) * size)
        )
        return [await _product(connection, row["id"]) for row in ids]

    async def _show(self, request: web.Request) -> web.Response:
        number = _whole(request.match_info["id"], "id")
        async with self._database.connection() as connection:
            return web.json_response(await _product(connection, number))

    async def _prices(self, request: web.Request) -> web.Response:
        ids = [_whole(text, "ids") for text in request.query.get("ids", "").split(",")][:_MAX_PRICES]
        marks = ", ".join(["%s"] * len(ids))
        rows = await self._database.run("prices", f"SELECT id, price_cents FROM products WHERE id IN ({marks})", ids)  # noqa: S608  (marks only)
        return web.json_response({"prices": {str(row["id"]): row["price_cents"] for row in rows}})


async def _product(connection: Connection, number: int) -> dict[str, Any]:
    rows = await connection.run(
        "product",
        f"SELECT {_COLUMNS} FROM products WHERE id = %s",  # noqa: S608  (constant)
        (number,),
    )
    if not rows:
        raise Refused(404, f"there is no product {number}")
    return rows[0]


def _whole(text: str, name: str) -> int:
    if not text.isdigit() or not 1 <= int(text) <= 1_000_000:
        raise Refused(400, f"{name} must be a whole number from 1 up, got {text[:40]!r}")
    return int(text)
