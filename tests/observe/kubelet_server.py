"""One pod as an API server shows it, whose log can be cut anywhere: what a cluster does too seldom to wait for it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit


@dataclass
class Run:
    """One run of the container: its id, what it wrote (nanoseconds, text with its end), and whether it has ended."""

    name: str
    lines: list[tuple[int, bytes]] = field(default_factory=list)
    ended: bool = False


@dataclass
class OnePod:
    """
    The state that the server shows.

    Attributes:
        runs: of the container, oldest first; the API gives the last two.
        cut_after: bytes of a log after which the connection is cut without a word; 0 is never.
        remark: what is sent instead of a log.
        token: that is accepted.
        gone: there is no such pod any more.
        asked: requests for a log so far, as their parameters.
    """

    runs: list[Run] = field(default_factory=list)
    cut_after: int = 0
    remark: bytes = b""
    token: str = "t"
    gone: bool = False
    asked: list[dict[str, str]] = field(default_factory=list)
    url: str = ""

    def object(self) -> dict[str, Any]:
        """The pod."""
        status: dict[str, Any] = {"name": "gateway", "state": {"waiting": {}}, "lastState": {}}
        if self.runs:
            end = {"terminated": {"containerID": self.runs[-1].name}}
            status |= {"containerID": self.runs[-1].name, "state": end if self.runs[-1].ended else {"running": {}}}
        if len(self.runs) > 1:
            status["lastState"] = {"terminated": {"containerID": self.runs[-2].name}}
        labels = {"app.kubernetes.io/name": "gateway", "app.kubernetes.io/part-of": "labkit"}
        meta = {"name": "gateway-1", "uid": "0123456789", "labels": labels, "resourceVersion": "1"}
        return {
            "metadata": meta,
            "spec": {"containers": [{"name": "gateway"}]},
            "status": {"containerStatuses": [status]},
        }


def _text(line: tuple[int, bytes]) -> bytes:
    second, rest = divmod(line[0], 10**9)
    return f"{datetime.fromtimestamp(second, UTC):%Y-%m-%dT%H:%M:%S}.{rest:09}+00:00 ".encode() + line[1]


@contextmanager
def serving(pod: OnePod) -> Iterator[OnePod]:
    """*pod* with the `url` of a server that shows it."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            asked = {name: values[0] for name, values in parse_qs(parts.query).items()}
            if self.headers["Authorization"] != f"Bearer {pod.token}":
                self._answer(403, {"message": "forbidden"})
            elif parts.path.endswith("/pods") and "watch" in asked:
                time.sleep(0.3)
                self._answer(200, {"type": "BOOKMARK", "object": pod.object()})
            elif parts.path.endswith("/pods"):
                items = [] if pod.gone else [pod.object()]
                self._answer(200, {"items": items, "metadata": {"resourceVersion": "1"}})
            elif pod.gone:
                self._answer(404, {"message": "not found"})
            elif parts.path.endswith("/log"):
                pod.asked.append(asked)
                self._log(asked)
            else:
                self._answer(200, pod.object())

        def _log(self, asked: dict[str, str]) -> None:
            number = -2 if "previous" in asked else -1
            if len(pod.runs) < -number:
                self._answer(400, {"message": "previous terminated container not found"})
                return
            run, sent, left = pod.runs[number], 0, pod.cut_after
            since = datetime.fromisoformat(asked["sinceTime"]).timestamp() if "sinceTime" in asked else 0
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            while True:
                ended, lines = run.ended, run.lines[sent:]
                data = pod.remark or b"".join(_text(line) for line in lines if line[0] // 10**9 >= since)
                sent += len(lines)
                if pod.cut_after and len(data) >= left:
                    self._chunk(data[:left])
                    self.close_connection = True
                    return
                left -= len(data)
                self._chunk(data)
                if "follow" not in asked or ended or pod.remark or pod.gone:
                    break
                time.sleep(0.01)
            self.wfile.write(b"0\r\n\r\n")

        def _chunk(self, data: bytes) -> None:
            if data:
                self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))

        def _answer(self, status: int, value: object) -> None:
            body = json.dumps(value).encode() + b"\n"
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        pod.url = f"http://127.0.0.1:{server.server_address[1]}"
        yield pod
        pod.gone, pod.cut_after = True, 1
        server.shutdown()
