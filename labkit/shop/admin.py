"""
The admin API of a replica: flags, faults, deploys.  Every call needs the bearer token.

    GET    /admin/state
    GET    /admin/flags               PUT, DELETE /admin/flags/{name}     {"value": true}
    GET    /admin/faults              PUT, DELETE /admin/faults/{name}    {"ms": 300, "share": 0.5, "for_s": 60}
    GET    /admin/deploys             POST        /admin/deploy           {"version": "1.1.0", "actor": "you"}
    POST   /admin/reset
"""

from __future__ import annotations

import hmac
import json
import logging
from datetime import UTC, datetime
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler

from labkit.errors import InvalidValue, UnknownName
from labkit.shop.faults import FAULTS
from labkit.shop.logs import log
from labkit.shop.state import Replica

__all__ = ["admin_app"]


def admin_app(replica: Replica) -> web.Application:
    """The application of the admin port of *replica*."""
    api = _Admin(replica)
    app = web.Application(middlewares=[api.guard])
    app.add_routes(
        [
            web.get("/admin/state", api.state),
            web.get("/admin/flags", api.flags),
            web.put("/admin/flags/{name}", api.set_flag),
            web.delete("/admin/flags/{name}", api.restore_flag),
            web.get("/admin/faults", api.faults),
            web.put("/admin/faults/{name}", api.apply_fault),
            web.delete("/admin/faults/{name}", api.undo_fault),
            web.get("/admin/deploys", api.deploys),
            web.post("/admin/deploy", api.deploy),
            web.post("/admin/reset", api.reset),
        ]
    )
    return app


class _Admin:
    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self._token = replica.config.admin_token

    @web.middleware
    async def guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Let in who has the token, and answer every mistake in JSON."""
        sent = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if not hmac.compare_digest(sent.encode(), self._token.encode()):
            return _answer({"error": "this port needs the header `Authorization: Bearer <token>`"}, 401)
        try:
            return await handler(request)
        except UnknownName as error:
            return _answer({"error": str(error), "known": error.known, "nearest": error.nearest}, 404)
        except InvalidValue as error:
            return _answer({"error": str(error)}, 422)
        except web.HTTPException as error:
            return _answer({"error": f"{request.method} {request.path}: {error.reason}"}, error.status)
        except OSError as error:
            return _answer({"error": f"the deploy log cannot be used: {error}"}, 500)

    async def state(self, _: web.Request) -> web.Response:
        return _answer(self._replica.describe())

    async def flags(self, _: web.Request) -> web.Response:
        return _answer(self._replica.flags.describe())

    async def set_flag(self, request: web.Request) -> web.Response:
        name, body = request.match_info["name"], await _body(request)
        if "value" not in body:
            raise InvalidValue("the body", expected='a JSON object with "value"', got=body)
        self._replica.flags.set(name, body["value"])
        return self._flag_changed(name)

    async def restore_flag(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        self._replica.flags.restore(name)
        return self._flag_changed(name)

    def _flag_changed(self, name: str) -> web.Response:
        self._replica.remember()
        value = self._replica.flags.get(name)
        log(logging.INFO, "flag changed", flag=name, value=value)
        return _answer({"name": name, "value": value})

    async def faults(self, _: web.Request) -> web.Response:
        kinds = [kind.describe() for kind in FAULTS.values()]
        return _answer({"active": self._replica.faults.describe(), "known": kinds})

    async def apply_fault(self, request: web.Request) -> web.Response:
        # Not logged: a log line that names the fault would solve the exercise that injects it.
        name = request.match_info["name"]
        return _answer({"name": name, **self._replica.faults.apply(name, await _body(request))})

    async def undo_fault(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        return _answer({"name": name, "was_active": self._replica.faults.undo(name)})

    async def deploy(self, request: web.Request) -> web.Response:
        body = await _body(request)
        version, actor = body.get("version"), body.get("actor", "admin")
        if not isinstance(version, str) or not version or not isinstance(actor, str):
            raise InvalidValue("version", expected="a text such as 1.1.0", got=version)
        return _answer(self._replica.deploy(version, actor=actor, time=_now()))

    async def deploys(self, _: web.Request) -> web.Response:
        return _answer(self._replica.deploys())

    async def reset(self, _: web.Request) -> web.Response:
        self._replica.reset(actor="reset", time=_now())
        return _answer(self._replica.describe())


async def _body(request: web.Request) -> dict[str, Any]:
    text = await request.text()
    if not text:
        return {}
    try:
        body = json.loads(text)
    except json.JSONDecodeError as error:
        raise InvalidValue("the body", expected="a JSON object", got=text[:100]) from error
    if not isinstance(body, dict):
        raise InvalidValue("the body", expected="a JSON object", got=body)
    return body


def _answer(data: object, status: int = 200) -> web.Response:
    return web.json_response(data, status=status)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
