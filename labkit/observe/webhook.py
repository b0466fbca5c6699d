"""
Receives Alertmanager's notifications and keeps them on disk: `python -m labkit.observe.webhook`.

`POST /notify/RECEIVER` takes one, `GET /notifications?after=N` gives those after number N; both need the bearer
token.  A notification is acknowledged when it is on disk, so Alertmanager sends again whatever was not.

| variable | is |
|---|---|
| `WEBHOOK_PORT` | port |
| `WEBHOOK_HOST` | address to listen on; 127.0.0.1 if not given |
| `WEBHOOK_TOKEN_FILE` | file with the token |
| `WEBHOOK_FILE` | file that keeps the notifications, one JSON object per line |
"""

from __future__ import annotations

import hmac
import json
import os
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from labkit._http import request
from labkit._time import utc_now
from labkit.errors import ConfigInvalid

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Notifications", "Received", "main", "serve"]

_VARIABLES = ("WEBHOOK_PORT", "WEBHOOK_TOKEN_FILE", "WEBHOOK_FILE")
_MOST_BYTES = 2_000_000
_MOST_KEPT = 5_000
_COLUMNS = (
    "number", "time", "receiver", "status", "name", "service", "severity", "starts_at", "ends_at", "summary",
    "description", "runbook", "group_key", "fingerprint", "labels",
)  # fmt: skip


class Notifications:
    """The notifications in one file; the newest 5,000 are kept.  A last line that was cut off is left out."""

    def __init__(self, path: Path) -> None:
        self._path, self._lock = path, threading.Lock()
        self._kept = self._load()
        self._number = self._kept[-1]["number"] if self._kept else 0
        self._rewrite()

    def add(self, receiver: str, payload: Mapping[str, Any]) -> int:
        """Keep one; returns its number when it is on disk."""
        with self._lock:
            kept = {"number": self._number + 1, "time": utc_now().isoformat(), "receiver": receiver, **payload}
            with self._path.open("ab") as file:
                file.write(json.dumps(kept).encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
            self._number += 1
            self._kept.append(kept)
            if len(self._kept) > 2 * _MOST_KEPT:
                self._rewrite()
            return self._number

    def after(self, number: int) -> list[dict[str, Any]]:
        """Those with a higher number, oldest first."""
        with self._lock:
            return [one for one in self._kept if one["number"] > number]

    def _load(self) -> list[dict[str, Any]]:
        if not self._path.exists():
            return []
        lines = self._path.read_bytes().split(b"\n")
        return [json.loads(line) for line in lines[:-1] if line]

    def _rewrite(self) -> None:
        """Only the newest, in a file that takes the old one's place at once."""
        self._kept = self._kept[-_MOST_KEPT:]
        self._path.parent.mkdir(parents=True, exist_ok=True)
        beside = self._path.with_suffix(".new")
        with beside.open("wb") as file:
            file.writelines(json.dumps(one).encode() + b"\n" for one in self._kept)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(self._path)


def serve(kept: Notifications, token: str, port: int, host: str = "127.0.0.1") -> ThreadingHTTPServer:
    """A server for *kept* on *host*:*port* (0: any free one); call its `serve_forever`."""

    class Handler(BaseHTTPRequestHandler):
        timeout = 10

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            if parts.path == "/healthz":
                self._answer(200, {"status": "ok"})
            elif parts.path != "/notifications":
                self._answer(404, {"error": "there are /healthz, /notifications and /notify/RECEIVER"})
            elif self._allowed():
                after = parse_qs(parts.query).get("after", ["0"])[0]
                if after.isdigit():
                    self._answer(200, kept.after(int(after)))
                else:
                    self._answer(422, {"error": f"after must be a whole number, got {after!r}"})

        def do_POST(self) -> None:
            prefix, _, receiver = self.path.rpartition("/")
            length = self.headers.get("Content-Length", "")
            if not self._allowed():
                return
            if prefix != "/notify" or not receiver:
                self._answer(404, {"error": "send to /notify/RECEIVER"})
            elif not length.isdigit() or int(length) > _MOST_BYTES:
                self._answer(413, {"error": f"a body of at most {_MOST_BYTES} bytes with its Content-Length"})
            else:
                self._take(receiver, self.rfile.read(int(length)))

        def _take(self, receiver: str, body: bytes) -> None:
            try:
                payload = json.loads(body)
            except ValueError as error:
                self._answer(422, {"error": f"not JSON: {error}"})
                return
            if not isinstance(payload, dict) or not isinstance(payload.get("alerts"), list):
                self._answer(422, {"error": "expected an object with a list `alerts`, as Alertmanager sends"})
                return
            try:
                number = kept.add(receiver, payload)
            except OSError as error:
                self._answer(507, {"error": f"could not be kept: {error.strerror}"})
                return
            self._answer(200, {"number": number})

        def _allowed(self) -> bool:
            given = self.headers.get("Authorization", "").encode()
            allowed = hmac.compare_digest(given, f"Bearer {token}".encode())
            if not allowed:
                self._answer(401, {"error": "the bearer token is missing or wrong"})
            return allowed

        def _answer(self, status: int, value: object) -> None:
            body = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Nothing: what arrives is in the file."""

    return ThreadingHTTPServer((host, port), Handler)


class Received:
    """
    What the receiver got, as `lab.pages` offers it.

    Args:
        url: of the component `webhook`.
        token: its bearer token.
    """

    def __init__(self, url: str, token: str) -> None:
        self.url, self._headers = url.rstrip("/"), {"Authorization": f"Bearer {token.strip()}"}

    def __repr__(self) -> str:
        return f"Received({self.url!r})"

    def last_number(self) -> int:
        """The number of the newest notification; 0 before the first.  Take it before a fault to see what follows."""
        return max((one["number"] for one in self._get(0)), default=0)

    def frame(self, after: int = 0) -> pd.DataFrame:
        """
        One row per alert of each notification, oldest first.

        Args:
            after: only notifications with a higher number.

        Returns:
            `number, time, receiver, status, name, service, severity, starts_at, ends_at, summary, description,
            runbook, group_key, fingerprint, labels`.  Times are UTC; `status` is firing or resolved; `ends_at`
            is NaT while it fires; `receiver` is page or desk.  Empty when nothing came.

        Raises:
            RequestFailed: the receiver does not answer.
        """
        import pandas as pd  # noqa: PLC0415  (the receiver itself needs no frames)

        rows = [_row(one, alert) for one in self._get(after) for alert in one["alerts"]]
        found = pd.DataFrame(rows, columns=list(_COLUMNS))
        for name in ("time", "starts_at", "ends_at"):
            found[name] = pd.to_datetime(found[name], utc=True, format="ISO8601")
        return found

    def _get(self, after: int) -> list[dict[str, Any]]:
        how = "See `labkit logs webhook`."
        answer = request("GET", f"{self.url}/notifications", params={"after": after}, headers=self._headers, how=how)
        found: list[dict[str, Any]] = answer.json()
        return found


def _row(one: Mapping[str, Any], alert: Mapping[str, Any]) -> tuple[object, ...]:
    labels, notes = alert["labels"], alert.get("annotations", {})
    ends = None if alert["status"] == "firing" else alert["endsAt"]
    said = (notes.get(name, "") for name in ("summary", "description", "runbook"))
    who = (labels.get(name, "") for name in ("alertname", "service", "severity"))
    return (
        *(one["number"], one["time"], one["receiver"], alert["status"], *who, alert["startsAt"], ends, *said),
        *(one.get("groupKey", ""), alert.get("fingerprint", ""), labels),
    )


def main(environ: Mapping[str, str] | None = None) -> None:
    """
    Receive until the process is ended.

    Raises:
        ConfigInvalid: variables are missing or wrong; all are listed.
    """
    environ = os.environ if environ is None else environ
    missing = [f"{name} is missing" for name in _VARIABLES if not environ.get(name)]
    if missing:
        raise ConfigInvalid("The environment of the webhook", problems=missing, how="docs/alerts.md lists them.")
    token = Path(environ["WEBHOOK_TOKEN_FILE"]).read_text(encoding="utf-8").strip()
    port, host = int(environ["WEBHOOK_PORT"]), environ.get("WEBHOOK_HOST") or "127.0.0.1"
    serve(Notifications(Path(environ["WEBHOOK_FILE"])), token, port, host).serve_forever()


if __name__ == "__main__":
    main()
