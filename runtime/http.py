"""HTTP connections with the two limits that uvicorn lacks: how many there may be, and how long one may stay silent.

uvicorn starts its idle timer after the first response only, so that a client that connects and says nothing is kept for
ever; and its limit of concurrency counts connections that wait for their next request. Here a connection that has not
sent a complete request head within the deadline is closed without an answer, and one above the limit is answered 503
and closed. Between requests uvicorn's own keep-alive timer rules. Bodies have deadlines where they are read.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from runtime.settings import Section

_TOO_MANY: Final = (
    b"HTTP/1.1 503 Service Unavailable\r\n"
    b"content-type: application/problem+json\r\nretry-after: 2\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%b"
)
_TOO_MANY_BODY: Final = (
    b'{"type":"urn:logfeed:problem:too-many-connections","title":"Too many connections","status":503,'
    b'"detail":"This server holds as many connections as it may: retry, and keep connections open between requests."}'
)


class HttpSettings(Section):
    """Limits of HTTP connections."""

    connections_max: int = 2_000
    """Most connections at once, idle ones included; further ones get 503."""
    head_deadline_s: float = 10.0
    """Seconds in which a new connection must have sent its first request's head completely, else it is closed."""


def http_protocol_class(settings: HttpSettings) -> type[asyncio.Protocol]:
    """The `http=` class for one uvicorn server; its connections count against one limit."""
    connections: set[Any] = set()

    class BoundedHttpProtocol(HttpToolsProtocol):
        """uvicorn's protocol behind the limits of `settings`."""

        _head_timer: asyncio.TimerHandle | None = None
        _refused = False

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
            """Count, start the deadline, or refuse."""
            if len(connections) >= settings.connections_max:
                self._refused = True
                transport.write(_TOO_MANY % (len(_TOO_MANY_BODY), _TOO_MANY_BODY))
                transport.close()
                return
            connections.add(self)
            super().connection_made(transport)
            self._head_timer = self.loop.call_later(settings.head_deadline_s, transport.close)

        def connection_lost(self, exc: Exception | None) -> None:
            """Forget the connection."""
            self._end_deadline()
            connections.discard(self)
            if not self._refused:
                super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            """Nothing is read of a refused connection."""
            if not self._refused:
                super().data_received(data)

        def eof_received(self) -> None:
            """As above."""
            if not self._refused:
                super().eof_received()

        def on_headers_complete(self) -> None:
            """The head is complete: the deadline is met."""
            self._end_deadline()
            super().on_headers_complete()

        def _end_deadline(self) -> None:
            if self._head_timer is not None:
                self._head_timer.cancel()
                self._head_timer = None

    return BoundedHttpProtocol
