"""
payments: stands for a payment provider.  The same key gives the same charge, whichever replica is asked.

    POST /charges {"user": "ada", "amount_cents": 1290, "key": "…"}
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from typing import Final
from uuid import NAMESPACE_URL, uuid5

from aiohttp import web

from labkit.shop.server import Refused, Service, body_of
from labkit.shop.state import Replica

__all__ = ["Payments"]

# The provider's own time: a floor and an exponential tail, in seconds.
FLOOR_S: Final = 0.008
TAIL_MEAN_S: Final = 0.004
TAIL_MAX_S: Final = 0.05
LIMIT_CENTS: Final = 1_000_000


class Payments(Service):
    """Charges everyone who pays less than 10,000 euros; needs nothing else to be there."""

    def __init__(self, replica: Replica) -> None:
        super().__init__(replica)
        self._charges = self.telemetry.counter("shop_charges_total", "Charges by outcome.", "outcome")

    def routes(self) -> Sequence[web.RouteDef]:
        """See the head of this file."""
        return [web.post("/charges", self._charge)]

    async def _charge(self, request: web.Request) -> web.Response:
        body = await body_of(request)
        user, amount_cents, key = body.get("user"), body.get("amount_cents"), body.get("key")
        if not isinstance(user, str) or not isinstance(key, str) or type(amount_cents) is not int:
            raise Refused(400, "a charge needs user, amount_cents and key")
        tail_s = min(TAIL_MAX_S, random.expovariate(1 / TAIL_MEAN_S))
        await asyncio.sleep(FLOOR_S + tail_s)
        if not 0 < amount_cents <= LIMIT_CENTS:
            self._charges.labels("declined").inc()
            raise Refused(402, f"{amount_cents} cents are declined; the limit is {LIMIT_CENTS}")
        self._charges.labels("charged").inc()
        return web.json_response({"charge": str(uuid5(NAMESPACE_URL, f"{user}/{key}")), "amount_cents": amount_cents})
