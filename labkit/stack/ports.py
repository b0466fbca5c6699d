"""Which ports are free, and who has those that are not."""

from __future__ import annotations

import socket
from collections.abc import Mapping

import psutil

from labkit.errors import PortInUse

__all__ = ["check_ports", "listener_of", "port_is_free"]


def port_is_free(port: int) -> bool:
    """Whether nothing listens on 127.0.0.1:*port*."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def listener_of(port: int) -> tuple[int | None, str | None]:
    """Process id and name of who listens on *port*; (None, None) when the system does not tell."""
    try:
        for connection in psutil.net_connections("tcp"):
            address = connection.laddr
            if connection.status == psutil.CONN_LISTEN and address and address.port == port and connection.pid:
                return connection.pid, psutil.Process(connection.pid).name()
    except (psutil.AccessDenied, psutil.NoSuchProcess):
        return None, None
    return None, None


def check_ports(ports: Mapping[int, str], *, offset: int) -> None:
    """
    Make sure that every port of the lab is free.

    Args:
        ports: instance name by port.
        offset: the port offset in force, in order to propose another.

    Raises:
        PortInUse: names the first port that is taken, by whom, and what to do.
    """
    for port, name in sorted(ports.items()):
        if not port_is_free(port):
            pid, process = listener_of(port)
            how = (
                "If it is from an earlier lab with another run directory, run `labkit down` there; "
                f"otherwise move this lab to other ports: `labkit up --port-offset {offset + 1000}`."
            )
            raise PortInUse(name, port=port, pid=pid, process=process, how=how)
