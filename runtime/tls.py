"""TLS below any asyncio protocol, with the TCP connection's own buffers, limits and moments.

asyncio and uvloop put a buffer of their own between a protocol and its connection, which nobody outside can see: what a
client has not taken would count for nothing, a connection in its handshake would be known to nobody, and the limits of
`runtime/http.py` would hold only without TLS. Here each piece goes through OpenSSL at once (`ssl.SSLObject`): what waits,
waits in the transport below, and its `pause_writing` and `get_write_buffer_size` say so. The protocol above is connected as
soon as TCP is, so its deadline for the first request holds for the handshake too. What it writes before the handshake is
done is dropped.

Costs what OpenSSL costs, in the loop's thread: 8 MiB take about 5 ms.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Callable
from typing import Any, Final, cast

from prometheus_client import Counter

from runtime.telemetry import REGISTRY

HANDSHAKES_FAILED: Final = Counter(
    "logfeed_tls_handshakes_failed_total",
    "Connections that ended before TLS was agreed upon",
    registry=REGISTRY,
)
_READ_BYTES: Final = 256 * 1024


class TlsProtocol(asyncio.Protocol):
    """What the event loop talks to for one connection."""

    def __init__(self, protocol: asyncio.Protocol, context: ssl.SSLContext) -> None:
        """protocol: sees the connection as if there were no TLS, but for `get_extra_info("sslcontext")`."""
        self.protocol: asyncio.BaseProtocol = protocol
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._transport: asyncio.Transport | None = None
        self.is_agreed = False
        self._is_over = False
        """Nothing more is read: the client said goodbye, or broke the protocol."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio."""
        self._transport = cast(asyncio.Transport, transport)  # of TCP; uvloop's is no subclass
        self.protocol.connection_made(TlsTransport(self, self._transport))

    def data_received(self, data: bytes) -> None:
        """Read on, as far as whole records have come."""
        if self._is_over:
            return
        self._incoming.write(data)
        try:
            if not self.is_agreed:
                self.tls.do_handshake()
                self.is_agreed = True
            while self._reads() and (plain := self.tls.read(_READ_BYTES)):
                self._deliver(plain)
            self._end()  # a goodbye
        except ssl.SSLWantReadError:
            self._flush()
        except ssl.SSLError:
            if not self.is_agreed:
                HANDSHAKES_FAILED.inc()
            self._end()

    def eof_received(self) -> bool | None:
        """TCP's end without a goodbye is one too: HTTP knows by itself whether a message is whole."""
        protocol = self.protocol
        return protocol.eof_received() if isinstance(protocol, asyncio.Protocol) else None

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio."""
        self._is_over = True
        self.protocol.connection_lost(exc)

    def pause_writing(self) -> None:
        """See asyncio."""
        self.protocol.pause_writing()

    def resume_writing(self) -> None:
        """See asyncio."""
        self.protocol.resume_writing()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Encrypt and send."""
        if not self.is_agreed or not data:
            return
        try:
            self.tls.write(data)
        except ssl.SSLError:  # the session is over; the connection's end is on its way
            return
        self._flush()

    def say_goodbye(self) -> None:
        """`close_notify`, behind what was written. Nothing more is read."""
        self._is_over = True
        if self.is_agreed:
            with contextlib.suppress(ssl.SSLError):  # the client's own goodbye is not waited for
                self.tls.unwrap()
        self._flush()

    def _reads(self) -> bool:
        return not self._is_over

    def _deliver(self, plain: bytes) -> None:
        protocol = self.protocol
        if isinstance(protocol, asyncio.BufferedProtocol):
            raise TypeError("a protocol that brings its own buffer is not supported over TLS")
        assert isinstance(protocol, asyncio.Protocol)
        protocol.data_received(plain)

    def _flush(self) -> None:
        if self._transport is not None and (data := self._outgoing.read()):
            self._transport.write(data)

    def _end(self) -> None:
        self._is_over = True
        self._flush()
        if self._transport is not None:
            self._transport.close()


class TlsTransport(asyncio.Transport):
    """What the protocol above writes to: the TCP transport in all but `write`."""

    def __init__(self, tls: TlsProtocol, below: asyncio.Transport) -> None:
        """below: of the TCP connection."""
        super().__init__()
        self._tls, self._below = tls, below

    def get_extra_info(self, name: str, default: Any = None) -> Any:  # as asyncio has it
        """As below; `sslcontext` and `ssl_object` besides."""
        if name == "sslcontext":
            return self._tls.tls.context
        if name == "ssl_object":
            return self._tls.tls
        return self._below.get_extra_info(name, default)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """See asyncio."""
        if not self._below.is_closing():
            self._tls.write(data)

    def writelines(self, list_of_data: Any) -> None:  # as asyncio has it
        """See asyncio."""
        self.write(b"".join(list_of_data))

    def close(self) -> None:
        """See asyncio."""
        if not self._below.is_closing():
            self._tls.say_goodbye()
        self._below.close()

    def abort(self) -> None:
        """See asyncio."""
        self._below.abort()

    def is_closing(self) -> bool:
        """See asyncio."""
        return self._below.is_closing()

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """See asyncio."""
        self._tls.protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        """See asyncio."""
        return self._tls.protocol

    def can_write_eof(self) -> bool:
        """TLS has no half-closed connections."""
        return False

    def pause_reading(self) -> None:
        """See asyncio."""
        self._below.pause_reading()

    def resume_reading(self) -> None:
        """See asyncio."""
        self._below.resume_reading()

    def is_reading(self) -> bool:
        """See asyncio."""
        return self._below.is_reading()

    def get_write_buffer_size(self) -> int:
        """Bytes, as they go over the wire, that the kernel has not taken."""
        return self._below.get_write_buffer_size()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """See asyncio."""
        self._below.set_write_buffer_limits(high, low)

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """See asyncio."""
        return self._below.get_write_buffer_limits()


def over_tls(
    make: Callable[..., asyncio.Protocol], context: Callable[[], ssl.SSLContext]
) -> Callable[..., TlsProtocol]:
    """A factory of the same protocols over TLS. context: asked at each connection, so that it may change."""

    def make_over_tls(**arguments: Any) -> TlsProtocol:  # of `make`
        return TlsProtocol(make(**arguments), context())

    return make_over_tls
