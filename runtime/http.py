"""HTTP connections with the limits that uvicorn lacks: how many there may be, how long one may stay silent, how long a head is.

uvicorn starts its idle timer after the first response only, so that a client that connects and says nothing is kept for
ever; its limit of concurrency counts connections that wait for their next request; and it keeps a head of any size. Here a
connection is closed without an answer when its first request's head is not complete within the deadline, or a later one's
is not within the deadline after its first byte. At the limit of connections the one that has been without a request for
longest makes room, so that thousands of silent ones keep nobody out; where all have sent one, the new one is refused. Who has
to go is answered 503. Between requests uvicorn's own keep-alive timer rules. Bodies have deadlines where they are read.
WebSockets no longer count once they are upgraded.

Every connection is an open file: `fit_open_files` makes the process's limit and ours agree.
"""

from __future__ import annotations

import asyncio
import resource
from typing import Annotated, Any, Final

import structlog
from pydantic import Field
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from runtime.settings import Section

log = structlog.get_logger(__name__)

FILES_RESERVED: Final = 256
"""Open files beside connections: the database's, the broker's, the listener, our own."""
_BURST: Final = 2_048
"""Connections that may be accepted in one go before those above the limit are closed."""


def _refusal(status: str, headers: str, problem: str, title: str, detail: str) -> bytes:
    """A whole response, written without the application."""
    body = (
        f'{{"type":"urn:logfeed:problem:{problem}","title":"{title}","status":{status.split()[0]},"detail":"{detail}"}}'
    )
    head = f"HTTP/1.1 {status}\r\ncontent-type: application/problem+json\r\n{headers}connection: close\r\n"
    return f"{head}content-length: {len(body)}\r\n\r\n{body}".encode()


_TOO_MANY: Final = _refusal(
    "503 Service Unavailable",
    "retry-after: 2\r\n",
    "too-many-connections",
    "Too many connections",
    "This server holds as many connections as it may: retry, and keep connections open between requests.",
)
_HEAD_TOO_LARGE: Final = _refusal(
    "431 Request Header Fields Too Large",
    "",
    "head-too-large",
    "The request's head is too large",
    "Request line and header fields are larger than this server reads: send less, or in the body.",
)


class HttpSettings(Section):
    """Limits of HTTP connections."""

    connections_max: Annotated[int, Field(ge=1, le=1_000_000)] = 2_000
    """Most connections at once, idle ones included. At the limit the oldest one without a request yet gets 503, else the new
    one. Fewer where the process may open fewer files (ulimit -n)."""
    head_deadline_s: Annotated[float, Field(gt=0, le=600)] = 10.0
    """Seconds in which the head of a request must have arrived completely, else the connection is closed."""
    head_bytes_max: Annotated[int, Field(ge=1024, le=1024 * 1024)] = 64 * 1024
    """Bytes of a request's head (line and header fields) that are read before it is answered 431."""


def fit_open_files(connections_max: int) -> int:
    """Raise this process's limit of open files to what the connections need; returns how many fit, 1 at least."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections_max + FILES_RESERVED + _BURST
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    fitting = min(connections_max, max(1, allowed - FILES_RESERVED))
    if fitting < connections_max:
        log.warning(
            "fewer connections than set, for want of open files (ulimit -n)",
            open_files_max=hard,
            connections_max=connections_max,
            in_force=fitting,
        )
    return fitting


def http_protocol_class(settings: HttpSettings) -> type[asyncio.Protocol]:
    """The `http=` class for one uvicorn server; its connections count against one limit."""
    connections: set[Any] = set()
    waiting: dict[Any, None] = {}
    """Those of them whose first head is not complete, oldest first."""

    class BoundedHttpProtocol(HttpToolsProtocol):
        """uvicorn's protocol behind the limits of `settings`."""

        _head_timer: asyncio.TimerHandle | None = None
        _heads = 0
        _in_head = False
        _head_bytes = 0
        """Of the head being read, without the piece that it began in."""
        _refused = False

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
            """Count and start the deadline; above the limit one has to go."""
            super().connection_made(transport)
            if len(connections) >= settings.connections_max:
                next(iter(waiting), self).refuse(_TOO_MANY)
            if not self._refused:
                connections.add(self)
                waiting[self] = None
                self._start_deadline()

        def refuse(self, answer: bytes) -> None:
            """Answer and close; no longer counts."""
            self._refused = True
            self._forget()
            self.transport.write(answer)
            self.transport.close()

        def connection_lost(self, exc: Exception | None) -> None:
            """Forget the connection."""
            self._forget()
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            """Nothing is read of a refused connection. A later request's first byte starts its deadline."""
            if self._refused:
                return
            cycle: RequestResponseCycle | None = self.cycle
            if cycle is not None and cycle.response_complete:
                self._start_deadline()
            heads = self._heads
            super().data_received(data)
            if self._in_head and self._heads == heads:
                self._head_bytes += len(data)
                if self._head_bytes > settings.head_bytes_max and not self.transport.is_closing():
                    self.refuse(_HEAD_TOO_LARGE)

        def eof_received(self) -> None:
            """As above."""
            if not self._refused:
                super().eof_received()

        def on_message_begin(self) -> None:
            """A head begins."""
            self._heads, self._in_head, self._head_bytes = self._heads + 1, True, 0
            super().on_message_begin()

        def on_headers_complete(self) -> None:
            """The head is complete: the deadline is met."""
            self._in_head = False
            self._end_deadline()
            waiting.pop(self, None)
            super().on_headers_complete()

        def handle_websocket_upgrade(self) -> None:
            """Another protocol takes over; this one hears no more of the connection."""
            self._forget()
            super().handle_websocket_upgrade()

        def _forget(self) -> None:
            self._end_deadline()
            connections.discard(self)
            waiting.pop(self, None)

        def _start_deadline(self) -> None:
            if self._head_timer is None:
                self._head_timer = self.loop.call_later(settings.head_deadline_s, self.transport.close)

        def _end_deadline(self) -> None:
            if self._head_timer is not None:
                self._head_timer.cancel()
                self._head_timer = None

    return BoundedHttpProtocol
