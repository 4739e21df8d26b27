"""The address that the HTTP application listens on."""

from __future__ import annotations

import os
import socket

from schemas.errors import ConfigurationError


def listening_socket(host: str, port: int) -> socket.socket:
    """A TCP socket bound to the address. Raises ConfigurationError when it cannot be had."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
        raise ConfigurationError(
            f"cannot listen on {host}:{port}: {reason}; choose another with --host, --port"
        ) from error
