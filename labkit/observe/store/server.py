"""
The HTTP face of the embedded store: OTLP in, fixed questions out, on loopback only.

| | |
|---|---|
| `POST /v1/traces`, `POST /v1/logs` | OTLP, protobuf or JSON, gzip or not; 200 means: on disk |
| `GET /api/NAME?…` | one of the questions of `questions.py`, as JSON columns |
| `GET /api/status` | rows, bytes on disk, limits, what was refused |
| `GET /-/ready` | 200 while it answers |

400 is a request that can never succeed, 413 one that is too big, 507 a full disk: try again later.
"""

from __future__ import annotations

import asyncio
import functools
import json
import logging
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import duckdb
from aiohttp import web
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from labkit.observe.store.database import Database, DiskFull
from labkit.observe.store.otlp import (
    Columns,
    Malformed,
    log_columns,
    parse,
    span_columns,
)
from labkit.observe.store.questions import QUESTIONS, BadQuestion

__all__ = ["make_app"]

_LARGEST_REQUEST = 16 * 1024 * 1024
_CLEAN_EVERY_S = 60
_log = logging.getLogger(__name__)


class _Face:
    def __init__(self, database: Database) -> None:
        self.database = database
        self.counted: Counter[str] = Counter()
        self.writer = ThreadPoolExecutor(1, "writer")
        self.readers = ThreadPoolExecutor(2, "reader")

    async def traces(self, request: web.Request) -> web.Response:
        return await self._take(request, ExportTraceServiceRequest, span_columns, self.database.add_spans)

    async def logs(self, request: web.Request) -> web.Response:
        return await self._take(request, ExportLogsServiceRequest, log_columns, self.database.add_logs)

    async def _take(
        self,
        request: web.Request,
        kind: type[Any],
        to_columns: Callable[[Any], Columns],
        keep: Callable[[Columns], int],
    ) -> web.Response:
        body = await request.read()

        def work() -> int:
            return keep(to_columns(parse(body, request.content_type, kind)))

        try:
            await asyncio.get_running_loop().run_in_executor(self.writer, work)
        except Malformed as error:
            self.counted["malformed"] += 1
            return _refusal(400, 3, str(error))
        except DiskFull as error:
            self.counted["disk_full"] += 1
            return _refusal(507, 8, str(error))
        except duckdb.Error as error:
            return _refusal(503, 14, f"the store could not keep this now: {error}")
        self.counted["accepted"] += 1
        if request.content_type == "application/json":
            return web.json_response({})
        return web.Response(content_type="application/x-protobuf")

    async def ask(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        if name not in QUESTIONS:
            return _refusal(404, 5, f"no question {name!r}; there are: {', '.join(QUESTIONS)}")
        known, answer = QUESTIONS[name]
        unknown = sorted(set(request.query) - known)
        if unknown:
            return _refusal(400, 3, f"{name} has no parameter {unknown[0]!r}; it has: {', '.join(sorted(known))}")
        work = functools.partial(answer, self.database, dict(request.query))
        try:
            columns = await asyncio.get_running_loop().run_in_executor(self.readers, work)
        except BadQuestion as error:
            return _refusal(400, 3, str(error))
        except duckdb.Error as error:
            return _refusal(503, 14, f"the store could not answer: {error}")
        return web.Response(text=json.dumps(columns), content_type="application/json")

    async def status(self, _: web.Request) -> web.Response:
        return web.json_response(self.database.status() | {"requests": dict(self.counted)})

    async def ready(self, _: web.Request) -> web.Response:
        return web.Response(text="ready\n")


def _refusal(status: int, code: int, message: str) -> web.Response:
    return web.json_response({"code": code, "message": message}, status=status)


def make_app(database: Database, *, longest_age_s: float) -> web.Application:
    """The application over *database*, which it closes at its end; rows older than *longest_age_s* seconds go."""
    face = _Face(database)
    app = web.Application(client_max_size=_LARGEST_REQUEST)
    app.add_routes(
        [
            web.post("/v1/traces", face.traces),
            web.post("/v1/logs", face.logs),
            web.get("/api/status", face.status),
            web.get("/api/{name}", face.ask),
            web.get("/-/ready", face.ready),
        ]
    )

    async def clean() -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                await loop.run_in_executor(face.writer, database.drop_older, longest_age_s)
            except duckdb.Error as error:
                _log.warning("old rows could not be dropped, trying again in a minute: %s", error)
            await asyncio.sleep(_CLEAN_EVERY_S)

    async def start(_: web.Application) -> None:
        face_task["clean"] = asyncio.create_task(clean())

    async def stop(_: web.Application) -> None:
        face_task["clean"].cancel()
        face.writer.shutdown()
        face.readers.shutdown()
        database.close()

    face_task: dict[str, asyncio.Task[None]] = {}
    app.on_startup.append(start)
    app.on_cleanup.append(stop)
    return app
