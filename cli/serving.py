"""Answering HTTP for some services until the stop."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import structlog
import uvicorn

from cli.http_app import HttpService, build_app
from cli.listening import listening_socket
from cli.settings import HttpSettings
from runtime.certificate import Certificate
from runtime.http import fit_open_files, http_protocol_class
from runtime.origins import Origins
from runtime.stopping import Stop
from runtime.tls import over_tls
from runtime.tracing import Traces
from runtime.websocket import MESSAGE_BYTES_MAX, PING_S, websocket_protocol_class

log = structlog.get_logger(__name__)


async def serve_http(
    http: HttpSettings, services: Sequence[HttpService], stop: Stop, *, traces: Traces | None = None
) -> None:
    """Answer for these services until the stop. traces: closed by the caller; None traces nothing.

    Raises ConfigurationError when its certificate cannot be used.
    """
    http = http.model_copy(update={"connections_max": fit_open_files(http.connections_max)})
    certificate = None
    protocol: Any = http_protocol_class(
        http, trusted_proxies=http.trusted_proxies
    )  # a class, or what makes one: uvicorn calls it
    if http.tls_cert is not None and http.tls_key is not None:
        certificate = Certificate(http.tls_cert, http.tls_key)
        protocol = over_tls(protocol, certificate.shown)
    config = uvicorn.Config(
        build_app(services, origins=Origins(http.allowed_origins), hsts_s=http.hsts_s, traces=traces),
        http=protocol,
        # Over TLS too: it takes over the connection, with its transport, of the protocol above.
        ws=websocket_protocol_class(http),
        ws_max_size=MESSAGE_BYTES_MAX,
        ws_ping_interval=PING_S,
        ws_ping_timeout=PING_S,
        # Compressing each client's frames anew would cost more than all else.
        ws_per_message_deflate=False,
        loop="none",
        lifespan="off",
        access_log=False,
        log_config=None,
        log_level="warning",
        timeout_graceful_shutdown=15,
        server_header=False,
        # Without trusted proxies nobody's word about where they come from counts.
        proxy_headers=bool(http.trusted_proxies),
        forwarded_allow_ips=list(http.trusted_proxies),
    )
    with listening_socket(http.host, http.port) as listener:
        log.info("listening", host=http.host, port=listener.getsockname()[1], tls=certificate is not None)
        server = _Server(config)
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        stopping = asyncio.create_task(stop.wait())
        looking = None if certificate is None else asyncio.create_task(certificate.watch(stop))
        await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
        server.should_exit = True
        stopping.cancel()
        if looking is not None:
            looking.cancel()
        await serving


class _Server(uvicorn.Server):
    """uvicorn without its own signal handlers: `runtime.stopping` has them."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Nothing to capture."""
        yield
