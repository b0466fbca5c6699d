"""`python -m labkit.shop SERVICE`: one replica, configured by its environment."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Sequence
from importlib import import_module

from labkit.errors import ConfigInvalid
from labkit.shop.config import SERVICES, load_config
from labkit.shop.logs import set_up_logs

EXIT_CONFIG = 78  # EX_CONFIG of sysexits.h
EXIT_PORT = 69  # EX_UNAVAILABLE


def main(argv: Sequence[str]) -> int:
    """
    Run one service until it is told to stop.

    Returns:
        0 after SIGTERM or SIGINT; 1 when a duty in the background failed; 64 without exactly one argument;
        69 when a port is taken; 78 when the environment is wrong.
    """
    if len(argv) != 1:
        sys.stderr.write(f"usage: python -m labkit.shop SERVICE, one of: {', '.join(SERVICES)}\n")
        return 64
    try:
        config = load_config(argv[0])
    except ConfigInvalid as error:
        sys.stderr.write(f"{error}\n")
        return EXIT_CONFIG
    set_up_logs(config)
    # Imported only now, and only this one: the gateway has no use for a driver of MariaDB or Redis.
    from labkit.shop.server import Service, run_service  # noqa: PLC0415
    from labkit.shop.state import Replica  # noqa: PLC0415

    make: Callable[[Replica], Service] = getattr(import_module(f"labkit.shop.{config.service}"), config.service.title())
    try:
        orderly = asyncio.run(run_service(make(Replica.start(config))))
    except OSError as error:
        sys.stderr.write(f"{config.instance} cannot listen on {config.host}:{config.port}: {error}\n")
        return EXIT_PORT
    return 0 if orderly else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
