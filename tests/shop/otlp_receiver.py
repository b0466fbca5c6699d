"""A trace store for tests: takes OTLP over HTTP on loopback, keeps the spans, and can hang or refuse."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


@dataclass(frozen=True)
class Received:
    """One span as it arrived."""

    trace_id: str
    span_id: str
    parent_id: str
    service: str
    instance: str
    version: str
    name: str
    kind: int
    error: bool
    attributes: dict[str, Any]


class Receiver:
    """Listens until closed; `mode` is ok, hang (accepts, never answers) or refuse (answers 500)."""

    def __init__(self) -> None:
        self.spans: list[Received] = []
        self.mode, self.posts = "ok", 0
        self._held = threading.Event()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                receiver.posts += 1
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if receiver.mode == "hang":
                    receiver._held.wait(60)
                    self.close_connection = True
                    return
                if receiver.mode == "ok":
                    receiver.spans.extend(_decode(body))
                self.send_response(200 if receiver.mode == "ok" else 500)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Nothing on the screen."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def trace(self, trace_id: str) -> list[Received]:
        """The spans of one trace so far."""
        return [span for span in list(self.spans) if span.trace_id == trace_id]

    def find(self, **wanted: Any) -> list[Received]:
        """The spans whose fields or attributes equal all that is wanted."""
        return [s for s in list(self.spans) if all(getattr(s, k, None) == v for k, v in wanted.items())]

    def release(self) -> None:
        """Work again, and let go of every request that hangs."""
        self.mode = "ok"
        self._held.set()
        self._held = threading.Event()

    def close(self) -> None:
        """Stop to listen."""
        self.release()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)


def _decode(body: bytes) -> list[Received]:
    found = []
    for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
        who = _values(resource.resource.attributes)
        for scope in resource.scope_spans:
            found += [
                Received(
                    span.trace_id.hex(),
                    span.span_id.hex(),
                    span.parent_span_id.hex(),
                    who.get("service.name", ""),
                    who.get("service.instance.id", ""),
                    who.get("service.version", ""),
                    span.name,
                    span.kind,
                    span.status.code == 2,
                    _values(span.attributes),
                )
                for span in scope.spans
            ]
    return found


def _values(attributes: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in attributes}
