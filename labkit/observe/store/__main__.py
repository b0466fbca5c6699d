"""Run the embedded store: `python -m labkit.observe.store --data FOLDER --port 4318`."""

from __future__ import annotations

import argparse
from pathlib import Path

from aiohttp import web

from labkit.observe.store.database import Database
from labkit.observe.store.server import make_app


def main() -> None:
    """Entry point; runs until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="labkit.observe.store", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of the file")
    parser.add_argument("--port", type=int, required=True, help="to listen on")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--reserve-mb", type=float, default=64, help="stop writing while less is free on the disk")
    parser.add_argument("--most-rows", type=int, default=2_000_000, help="of logs, and of spans; the oldest go")
    parser.add_argument("--longest-age-s", type=float, default=86_400, help="what is older goes")
    given = parser.parse_args()
    database = Database(given.data / "store.duckdb", reserve_mb=given.reserve_mb, most_rows=given.most_rows)
    app = make_app(database, longest_age_s=given.longest_age_s)
    web.run_app(app, host=given.host, port=given.port, print=None, access_log=None)


if __name__ == "__main__":
    main()
