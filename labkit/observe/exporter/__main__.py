"""
The exporter as a process.

Configured by its environment:

| variable | is |
|---|---|
| `EXPORTER_PORT` | port of /metrics and /healthz |
| `EXPORTER_HOST` | address to listen on; 127.0.0.1 if not given |
| `EXPORTER_MARIADB_URL` | mysql://user@host:port/database |
| `EXPORTER_MARIADB_PASSWORD_FILE` | file with the password |
| `EXPORTER_REDIS_URL` | redis://host:port/db |
| `EXPORTER_QUEUES` | names of the queues in Redis, separated by commas |
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

from prometheus_client import CollectorRegistry, ProcessCollector, disable_created_metrics
from prometheus_client.exposition import choose_encoder

from labkit.errors import ConfigInvalid
from labkit.observe.exporter.readings import Metrics, Poller
from labkit.observe.exporter.sources import Business, Database, Machine, MariaDb, RedisServer, query_durations

__all__ = ["main", "serve"]

_VARIABLES = (
    "EXPORTER_PORT",
    "EXPORTER_MARIADB_URL",
    "EXPORTER_MARIADB_PASSWORD_FILE",
    "EXPORTER_REDIS_URL",
    "EXPORTER_QUEUES",
)


def serve(registry: CollectorRegistry, port: int, host: str = "127.0.0.1") -> ThreadingHTTPServer:
    """A server for *registry* on *host*:*port* (0: any free one); call its `serve_forever`."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if path == "/metrics":
                encode, content_type = choose_encoder(self.headers.get("Accept", ""))
                self._answer(200, encode(registry), content_type)
            elif path == "/healthz":
                self._answer(200, b"ok\n", "text/plain")
            else:
                self._answer(404, b"there are /metrics and /healthz\n", "text/plain")

        def _answer(self, status: int, body: bytes, content_type: str) -> None:
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Scrapes are no news."""

    return ThreadingHTTPServer((host, port), Handler)


def _mariadb(url: str, password_file: str) -> MariaDb:
    parts = urlsplit(url)
    if parts.scheme != "mysql" or not (parts.hostname and parts.username and parts.path.strip("/")):
        raise ValueError(f"EXPORTER_MARIADB_URL: expected mysql://user@host:port/database, got {url!r}")
    try:
        password = Path(password_file).read_text(encoding="utf-8").strip()
    except OSError as error:
        raise ValueError(f"EXPORTER_MARIADB_PASSWORD_FILE: {password_file} cannot be read: {error.strerror}") from error
    return MariaDb(parts.hostname, parts.port or 3306, parts.username, password, parts.path.strip("/"))


def main(environ: Mapping[str, str] | None = None) -> None:
    """
    Read the sources and answer scrapes until the process is ended.

    Raises:
        ConfigInvalid: variables are missing or wrong; all are listed.
    """
    environ = os.environ if environ is None else environ
    missing = [f"{name} is missing" for name in _VARIABLES if not environ.get(name)]
    if missing:
        raise ConfigInvalid("The environment of the exporter", problems=missing, how="docs/exporter.md lists them.")
    try:
        where = _mariadb(environ["EXPORTER_MARIADB_URL"], environ["EXPORTER_MARIADB_PASSWORD_FILE"])
        port = int(environ["EXPORTER_PORT"])
    except ValueError as error:
        raise ConfigInvalid("The environment of the exporter", problems=[str(error)]) from error
    logging.basicConfig(stream=sys.stdout, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    disable_created_metrics()  # type: ignore[no-untyped-call]
    durations = query_durations()
    queues = [name.strip() for name in environ["EXPORTER_QUEUES"].split(",")]
    sources = (
        Machine(),
        Database(where, durations),
        RedisServer(environ["EXPORTER_REDIS_URL"], queues),
        Business(where, durations),
    )
    pollers = [Poller(source) for source in sources]
    registry = CollectorRegistry()
    registry.register(Metrics(pollers, [durations]))
    ProcessCollector(registry=registry)
    for poller in pollers:
        poller.start()
    serve(registry, port, environ.get("EXPORTER_HOST") or "127.0.0.1").serve_forever()


if __name__ == "__main__":
    main()
