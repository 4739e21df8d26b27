"""HTTP connections with the two limits that uvicorn lacks: how many there may be, and how long one may stay silent.

uvicorn starts its idle timer after the first response only, so that a client that connects and says nothing is kept for
ever; and its limit of concurrency counts connections that wait for their next request. Here a connection is closed
without an answer when its first request's head is not complete within the deadline, or a later one's is not within the
deadline after its first byte; and one above the limit is answered 503 and closed. Between requests uvicorn's own
keep-alive timer rules. Bodies have deadlines where they are read. WebSockets no longer count once they are upgraded.
"""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Final

from pydantic import Field
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

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

    connections_max: Annotated[int, Field(ge=1, le=1_000_000)] = 2_000
    """Most connections at once, idle ones included; further ones get 503."""
    head_deadline_s: Annotated[float, Field(gt=0, le=600)] = 10.0
    """Seconds in which the head of a request must have arrived completely, else the connection is closed."""


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
            self._start_deadline()

        def connection_lost(self, exc: Exception | None) -> None:
            """Forget the connection."""
            self._end_deadline()
            connections.discard(self)
            if not self._refused:
                super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            """Nothing is read of a refused connection. A later request's first byte starts its deadline."""
            if self._refused:
                return
            cycle: RequestResponseCycle | None = self.cycle
            if cycle is not None and cycle.response_complete:
                self._start_deadline()
            super().data_received(data)

        def eof_received(self) -> None:
            """As above."""
            if not self._refused:
                super().eof_received()

        def on_headers_complete(self) -> None:
            """The head is complete: the deadline is met."""
            self._end_deadline()
            super().on_headers_complete()

        def handle_websocket_upgrade(self) -> None:
            """Another protocol takes over; this one hears no more of the connection."""
            connections.discard(self)
            super().handle_websocket_upgrade()

        def _start_deadline(self) -> None:
            if self._head_timer is None:
                self._head_timer = self.loop.call_later(settings.head_deadline_s, self.transport.close)

        def _end_deadline(self) -> None:
            if self._head_timer is not None:
                self._head_timer.cancel()
                self._head_timer = None

    return BoundedHttpProtocol
