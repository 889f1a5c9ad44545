"""Ports that a server is asked to listen on."""

from __future__ import annotations

import socket

from carray.errors import ConfigError

MOST_PORT = 65535


def check_port(host: str, port: int) -> None:
    """Refuse a port that this process can't listen on.

    Raises:
        ConfigError: it is none, it is taken, or the system keeps it or the address from us.
    """
    if not 1 <= port <= MOST_PORT:
        raise ConfigError(f"--port {port} must be from 1 to {MOST_PORT}")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ConfigError(
                f"port {port} of {host} can't be listened on ({error.strerror}): choose another "
                "--port"
            ) from None
