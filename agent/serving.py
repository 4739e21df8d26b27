"""The agent's HTTP server: one application, on one address, behind the limits of all our connections."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import uvicorn
from starlette.types import ASGIApp

from runtime.http import HttpSettings, fit_open_files, http_protocol_class
from runtime.stopping import Stop
from schemas.errors import ConfigurationError

GRACE_S: Final = 5
"""Seconds for which answers go on after a stop."""


def listening(host: str, port: int) -> socket.socket:
    """A bound socket. Raises ConfigurationError when it cannot be had."""
    listener = None
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        # With its protocol named: else asyncio leaves Nagle's algorithm on, and each answer waits 40 ms for the client's ACK.
        listener = socket.socket(family, kind, protocol or socket.IPPROTO_TCP)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(128)
        return listener
    except OSError as error:
        if listener is not None:
            listener.close()
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
        raise ConfigurationError(f"cannot listen on {host}:{port}: {reason}; set agent.host and agent.port") from error


async def serve(
    app: ASGIApp, listener: socket.socket, stop: Stop, *, connections_max: int, tls: tuple[Path, Path] | None
) -> None:
    """Answer until the stop. tls: certificate and key. Raises ConfigurationError when these cannot be used."""
    settings = HttpSettings(
        connections_max=fit_open_files(connections_max), connections_per_address_max=0, head_bytes_max=128 * 1024
    )
    protocol: Any = http_protocol_class(settings)  # a class, or what makes one: uvicorn calls it
    looking = None
    if tls is not None:
        from runtime.certificate import Certificate
        from runtime.tls import over_tls

        certificate = Certificate(*tls)
        protocol = over_tls(protocol, certificate.shown)
        looking = asyncio.create_task(certificate.watch(stop))
    config = uvicorn.Config(
        app,
        http=protocol,
        ws="none",
        loop="none",
        lifespan="off",
        access_log=False,
        log_config=None,
        log_level="warning",
        timeout_graceful_shutdown=GRACE_S,
        server_header=False,
        proxy_headers=False,
    )
    server = _Server(config)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
    server.should_exit = True
    for task in filter(None, (stopping, looking)):
        task.cancel()
    await serving


class _Server(uvicorn.Server):
    """uvicorn without its own signal handlers: `runtime.stopping` has them."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Nothing to capture."""
        yield
