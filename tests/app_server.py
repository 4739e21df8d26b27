"""An application on a socket of its own, behind the connections' limits, with or without TLS."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import uvicorn

from runtime.http import HttpSettings, http_protocol_class
from runtime.tls import over_tls
from runtime.websocket import websocket_protocol_class


@asynccontextmanager
async def serving(
    app: Any,  # an ASGI application
    settings: HttpSettings | None = None,
    *,
    context: ssl.SSLContext | None = None,
    trusted_proxies: tuple[str, ...] = (),
    ws: type[asyncio.Protocol] | None = None,
    timeout_keep_alive: int = 60,
    port: int = 0,
) -> AsyncIterator[int]:
    """Yields the port on 127.0.0.1, a free one unless one is asked for. context: of a server, for TLS. ws: class that takes
    WebSockets, else the product's own."""
    settings = settings or HttpSettings()
    protocol: Any = http_protocol_class(settings, trusted_proxies=trusted_proxies)  # a class, or what makes one
    if context is not None:
        protocol = over_tls(protocol, lambda: context)
    config = uvicorn.Config(
        app,
        http=protocol,
        ws=ws or websocket_protocol_class(settings),
        loop="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        timeout_keep_alive=timeout_keep_alive,
        server_header=False,
    )
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", port)) as listener:
        task = asyncio.create_task(server._serve([listener]))
        async with asyncio.timeout(30):
            while not server.started:  # noqa: ASYNC110  # uvicorn has no event for it
                await asyncio.sleep(0.01)
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = server.force_exit = True
            await task
