"""HTTP connections with the limits that uvicorn lacks: how many there may be, how long one may stay silent, how long a head is,
how long an answer waits for a client that does not read it.

uvicorn starts its idle timer after the first response only, so that a client that connects and says nothing is kept for
ever; its limit of concurrency counts connections that wait for their next request; and it keeps a head of any size. Here a
connection is closed without an answer when its first request's head is not complete within the deadline, or a later one's
is not within the deadline after its first byte. At the limit of connections the one that has been without a request for
longest makes room, so that thousands of silent ones keep nobody out; where all have sent one, the new one is refused. Before
that the same holds among the connections of one address, so that no host keeps others out. Who has to go is answered 503.
Between requests uvicorn's own keep-alive timer rules. Bodies have deadlines where they are read.
WebSockets no longer count once they are upgraded.

Closing a transport waits for the client to take what is written, for ever. So every byte that the kernel does not take at
once starts the write deadline, whoever closes meanwhile, and a connection that is ended for its client's fault is aborted a
moment later; until then it counts. An answer that ends a connection before the request's body has come is followed by the end
of our side alone, and what comes in the next moment is read and dropped: the kernel resets a connection that is closed with
bytes unread, and the client would lose the answer. What all connections hold unread has a limit too: the one that has waited
for longest goes.

Every connection is an open file: `fit_open_files` makes the process's limit and ours agree.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import resource
import socket
from collections.abc import Iterable
from typing import Annotated, Any, Final

import structlog
from prometheus_client import Counter
from pydantic import Field
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from runtime.addresses import network_of
from runtime.answer_headers import raw_lines
from runtime.settings import Section
from runtime.telemetry import REGISTRY

log = structlog.get_logger(__name__)

ENDED: Final = Counter(
    "logfeed_http_connections_ended_total",
    "Connections ended for what their clients did or left undone",
    ["reason"],
    registry=REGISTRY,
)

_MiB: Final = 1024 * 1024
_LINGER_S: Final = 1.0
"""How long a connection that is ended may take to give its client what was written."""
_READ_BYTES_PER_S_MIN: Final = 32 * 1024
"""A client that takes an answer so fast may take longer than the write deadline."""
_KERNEL_UNSENT_BYTES_MAX: Final = 128 * 1024
"""What the kernel takes of an answer beyond what is on its way. Without a limit it takes megabytes in steps of a third of
them: a slow client would look like one that does not read."""

CUT_OFF: Final = "logfeed.cut_off"
"""ASGI extension: a function without arguments that ends the connection of a request at once, its answer half written."""
FILES_RESERVED: Final = 256
"""Open files beside connections: the database's, the broker's, the listener, our own."""
_BURST: Final = 2_048
"""Connections that may be accepted in one go before those above the limit are closed."""


def _refusal(status: str, headers: str, problem: str, title: str, detail: str) -> bytes:
    """A whole response, written without the application."""
    body = (
        f'{{"type":"urn:logfeed:problem:{problem}","title":"{title}","status":{status.split()[0]},"detail":"{detail}"}}'
    )
    head = f"HTTP/1.1 {status}\r\ncontent-type: application/problem+json\r\n{raw_lines()}{headers}connection: close\r\n"
    return f"{head}content-length: {len(body)}\r\n\r\n{body}".encode()


_TOO_MANY: Final = _refusal(
    "503 Service Unavailable",
    "retry-after: 2\r\n",
    "too-many-connections",
    "Too many connections",
    "This server holds as many connections as it may: retry, and keep connections open between requests.",
)
_TOO_MANY_OF_ADDRESS: Final = _refusal(
    "503 Service Unavailable",
    "retry-after: 2\r\n",
    "too-many-connections",
    "Too many connections of one address",
    "Your address holds as many connections as one may: keep fewer open, and send several requests over each.",
)
_HEAD_TOO_LARGE: Final = _refusal(
    "431 Request Header Fields Too Large",
    "",
    "head-too-large",
    "The request's head is too large",
    "Request line and header fields are larger than this server reads: send less, or in the body.",
)

_NO_HTTP: Final = _refusal(
    "400 Bad Request",
    "",
    "malformed-request",
    "The request is no HTTP",
    "Its line or a header field cannot be read: send HTTP/1.1.",
)


class HttpSettings(Section):
    """Limits of HTTP connections."""

    connections_max: Annotated[int, Field(ge=1, le=1_000_000)] = 2_000
    """Most connections at once, idle ones included. At the limit the oldest one without a request yet gets 503, else the new
    one. Fewer where the process may open fewer files (ulimit -n)."""
    connections_per_address_max: Annotated[int, Field(ge=0, le=1_000_000)] = 1_000
    """Most connections at once of one client address (IPv6: of a /64), by the same rule; 0: no limit. It is the address of the
    connection that counts: those of http.trusted_proxies are not limited. Default: half of connections_max, so that a
    proxy nobody named, or a busy agent, does not feel it."""
    head_deadline_s: Annotated[float, Field(gt=0, le=600)] = 10.0
    """Seconds in which the head of a request must have arrived completely, else the connection is closed."""
    head_bytes_max: Annotated[int, Field(ge=1024, le=1024 * 1024)] = 64 * 1024
    """Bytes of a request's head (line and header fields) that are read before it is answered 431."""
    write_deadline_s: Annotated[float, Field(gt=0, le=3600)] = 30.0
    """Seconds in which a client must have taken an answer, or another 32 KiB of it for each of them, else the connection is
    closed. Default 30 s: a page of 8 MiB comes through at 256 kbit/s, and who does not read holds memory no longer."""
    unread_bytes_max: Annotated[int, Field(ge=_MiB)] = 256 * _MiB
    """Bytes of answers that all clients together have not taken yet; above it the connection that has waited for longest is
    closed. Default 256 MiB: 32 of the largest pages."""


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


class _Crowd:
    """The connections that count against one limit."""

    __slots__ = ("connections", "waiting")

    def __init__(self) -> None:
        self.connections: set[Any] = set()
        self.waiting: dict[Any, None] = {}
        """Those of them whose first head is not complete, oldest first."""


class _Answering:
    """The transport as a request's cycle has it: closing it before the body has come does not lose the answer."""

    def __init__(self, protocol: Any, cycle: RequestResponseCycle) -> None:  # Any: made by http_protocol_class
        self._protocol = protocol
        self._cycle = cycle

    def write(self, data: bytes) -> None:
        self._protocol.transport.write(data)

    def is_closing(self) -> bool:
        closing: bool = self._protocol.transport.is_closing()
        return closing

    def close(self) -> None:
        if self._cycle.more_body and self._cycle.response_complete:
            self._protocol.linger()
        else:
            self._protocol.transport.close()


def http_protocol_class(settings: HttpSettings, *, trusted_proxies: Iterable[str] = ()) -> type[asyncio.Protocol]:
    """The `http=` class for one uvicorn server; its connections count against one limit, and those of an address against
    another. trusted_proxies: addresses, networks or * whose connections are many clients' (other texts name no address)."""
    everyone = _Crowd()
    by_address: dict[str, _Crowd] = {}
    """Addresses that have a connection."""
    proxies = _networks(trusted_proxies)
    unread: dict[Any, None] = {}
    """Those whose clients have not taken all that was written, longest first."""

    class BoundedHttpProtocol(HttpToolsProtocol):
        """uvicorn's protocol behind the limits of `settings`."""

        _crowds: tuple[_Crowd, ...] = ()
        """What it counts against."""
        _address = ""
        _head_timer: asyncio.TimerHandle | None = None
        _heads = 0
        _in_head = False
        _head_bytes = 0
        """Of the head being read, without the piece that it began in."""
        _refused = False
        _write_timer: asyncio.TimerHandle | None = None
        _unread_bytes = 0
        """When the write deadline began."""
        _abort_timer: asyncio.TimerHandle | None = None
        _linger_timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
            """Count and start the deadline; above the limit one has to go."""
            transport.set_write_buffer_limits(high=0)  # `pause_writing` as soon as anything waits for the client
            _show_progress(transport.get_extra_info("socket"))
            super().connection_made(transport)
            crowd = self._crowd_of_address(transport) if settings.connections_per_address_max else None
            if crowd is not None and len(crowd.connections) >= settings.connections_per_address_max:
                next(iter(crowd.waiting), self).refuse(_TOO_MANY_OF_ADDRESS, "address_limit")
            elif len(everyone.connections) >= settings.connections_max:
                next(iter(everyone.waiting), self).refuse(_TOO_MANY, "limit")
            if self._refused:
                return
            self._crowds = (everyone,) if crowd is None else (everyone, crowd)
            for each in self._crowds:
                each.connections.add(self)
                each.waiting[self] = None
            self._start_deadline()

        def _crowd_of_address(self, transport: asyncio.Transport) -> _Crowd | None:
            """Those of the same address; None where it is a proxy's, or there is none."""
            peer = transport.get_extra_info("peername")
            if not isinstance(peer, tuple) or _is_within(str(peer[0]), proxies):
                return None
            self._address = network_of(str(peer[0]))
            return by_address.setdefault(self._address, _Crowd())

        def _has_spoken(self) -> None:
            """It no longer makes room for others."""
            for each in self._crowds:
                each.waiting.pop(self, None)

        def refuse(self, answer: bytes, reason: str) -> None:
            """Answer, unless another answer is due first, and end."""
            self._refused = True
            cycle: RequestResponseCycle | None = self.cycle
            if cycle is None or cycle.response_complete:
                self.transport.write(answer)
            self.end(reason)

        def end(self, reason: str) -> None:
            """Close; what the client does not take in a moment is dropped. Counts until it is gone."""
            ENDED.labels(reason=reason).inc()
            self._has_spoken()
            self._end_deadline()
            self.transport.close()
            self._abort_timer = self.loop.call_later(_LINGER_S, self.transport.abort)

        def connection_lost(self, exc: Exception | None) -> None:
            """Forget the connection."""
            self._forget()
            for timer in (self._abort_timer, self._linger_timer):
                if timer is not None:
                    timer.cancel()
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
                    self.refuse(_HEAD_TOO_LARGE, "head_bytes")

        def send_400_response(self, msg: str) -> None:
            """For what cannot be read; uvicorn's own answer says nothing of how it may be shown."""
            self.refuse(_NO_HTTP, "malformed")

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
            self._has_spoken()
            super().on_headers_complete()
            cycle: RequestResponseCycle | None = self.cycle
            if cycle is not None:
                cycle.transport = _Answering(self, cycle)  # type: ignore[assignment]  # what a cycle uses of one
                extensions: dict[str, Any] = cycle.scope.setdefault("extensions", {})  # ours holds no dictionary
                extensions[CUT_OFF] = self.cut_off

        def on_message_complete(self) -> None:
            """What was left of a body that was answered before: the next request is waited for as after any other."""
            cycle: RequestResponseCycle | None = self.cycle
            if cycle is not None and cycle.response_complete and not self._refused:
                self._end_deadline()
                self._unset_keepalive_if_required()
                self.timeout_keep_alive_task = self.loop.call_later(
                    self.timeout_keep_alive, self.timeout_keep_alive_handler
                )
            super().on_message_complete()

        def cut_off(self) -> None:
            """End the connection with what was written, in the middle of an answer."""
            self.end("cut_off")

        def linger(self) -> None:
            """Nothing more is written; what still comes of the body is dropped, for a moment."""
            if self._refused or self.transport.is_closing():
                return
            self._refused = True
            if self.transport.can_write_eof():
                self.transport.write_eof()
            self.flow.resume_reading()
            self._linger_timer = self.loop.call_later(_LINGER_S, self.transport.close)

        def handle_websocket_upgrade(self) -> None:
            """Another protocol takes over; this one hears no more of the connection."""
            self._forget()
            self.transport.set_write_buffer_limits()
            super().handle_websocket_upgrade()

        def pause_writing(self) -> None:
            """The client has not taken all that was written."""
            super().pause_writing()
            unread[self] = None
            self._start_write_deadline()
            held_bytes = sum(each.transport.get_write_buffer_size() for each in unread)
            while held_bytes > settings.unread_bytes_max and (longest := next(iter(unread))) is not self:
                held_bytes -= longest.transport.get_write_buffer_size()
                longest.drop("unread_bytes")

        def resume_writing(self) -> None:
            """The client has taken everything."""
            self._end_write_deadline()
            super().resume_writing()

        def drop(self, reason: str) -> None:
            """End at once, with what was written and not taken."""
            ENDED.labels(reason=reason).inc()
            self._end_write_deadline()
            self.transport.abort()

        def _forget(self) -> None:
            self._end_deadline()
            self._end_write_deadline()
            self._has_spoken()
            for each in self._crowds:
                each.connections.discard(self)
            crowd = by_address.get(self._address)
            if crowd is not None and not crowd.connections:
                del by_address[self._address]

        def _start_deadline(self) -> None:
            if self._head_timer is None:
                self._head_timer = self.loop.call_later(settings.head_deadline_s, self.end, "head_deadline")

        def _end_deadline(self) -> None:
            if self._head_timer is not None:
                self._head_timer.cancel()
                self._head_timer = None

        def _start_write_deadline(self) -> None:
            self._unread_bytes = self.transport.get_write_buffer_size()
            self._write_timer = self.loop.call_later(settings.write_deadline_s, self._on_write_deadline)

        def _on_write_deadline(self) -> None:
            taken_bytes = self._unread_bytes - self.transport.get_write_buffer_size()
            if taken_bytes < settings.write_deadline_s * _READ_BYTES_PER_S_MIN:
                self.drop("write_deadline")
            else:
                self._start_write_deadline()

        def _end_write_deadline(self) -> None:
            unread.pop(self, None)
            if self._write_timer is not None:
                self._write_timer.cancel()
                self._write_timer = None

    return BoundedHttpProtocol


Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def _networks(texts: Iterable[str]) -> tuple[Network, ...]:
    found: list[Network] = []
    for text in texts:
        for each in ("0.0.0.0/0", "::/0") if text == "*" else (text,):
            with contextlib.suppress(ValueError):
                found.append(ipaddress.ip_network(each, strict=False))
    return tuple(found)


def _is_within(address: str, networks: tuple[Network, ...]) -> bool:
    if not networks:
        return False
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is not None:
        found = found.ipv4_mapped
    return any(found in network for network in networks)


def _show_progress(connection: socket.socket) -> None:
    """Let the write buffer shrink as the client reads."""
    if connection.family in (socket.AF_INET, socket.AF_INET6) and hasattr(socket, "TCP_NOTSENT_LOWAT"):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _KERNEL_UNSENT_BYTES_MAX)
