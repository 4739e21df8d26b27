"""WebSockets with a deadline for what their clients do not read.

uvicorn's protocol waits for a client to take what was written, for ever, also when it closes. Here every byte that the kernel
does not take at once starts the write deadline, which cuts the connection.
"""

from __future__ import annotations

import asyncio
from typing import Final, cast

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.http11 import Response

from runtime.answer_headers import API_POLICY, FIXED, NO_STORE
from runtime.http import ENDED, HttpSettings

MESSAGE_BYTES_MAX: Final = 4_096
"""Of a message from a client: there is nothing to say."""
PING_S: Final = 20.0
"""Seconds between two pings, and in which a client must answer one."""

REFUSAL_HEADERS: Final = (
    *((name.decode(), value.decode()) for name, value in FIXED),
    ("content-security-policy", API_POLICY),
    ("cache-control", NO_STORE),
)


def websocket_protocol_class(settings: HttpSettings) -> type[asyncio.Protocol]:
    """The `ws=` class for one uvicorn server."""

    class BoundedWebSocketProtocol(WebSocketsSansIOProtocol):
        """uvicorn's protocol with `write_deadline_s`."""

        _write_timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            """`pause_writing` as soon as anything waits for the client."""
            cast(asyncio.Transport, transport).set_write_buffer_limits(high=0)  # uvloop's are of no common class
            self._guard_refusals()
            super().connection_made(transport)

        def _guard_refusals(self) -> None:
            """What the protocol refuses by itself (no handshake, a failed application) has the headers of all answers."""
            plain = self.conn.reject

            def reject(status: int, text: str) -> Response:
                response = plain(status, text)
                for name, value in REFUSAL_HEADERS:
                    response.headers[name] = value
                return response

            self.conn.reject = reject  # type: ignore[method-assign]  # its own refusals come through it, too

        def connection_lost(self, exc: Exception | None) -> None:
            """Nothing is waited for any more."""
            self._end_write_deadline()
            super().connection_lost(exc)

        def pause_writing(self) -> None:
            """The client has not taken all that was written."""
            super().pause_writing()
            if self._write_timer is None:
                self._write_timer = self.loop.call_later(settings.write_deadline_s, self._cut)

        def resume_writing(self) -> None:
            """The client has taken everything."""
            self._end_write_deadline()
            super().resume_writing()

        def _cut(self) -> None:
            ENDED.labels(reason="write_deadline").inc()
            self.transport.abort()

        def _end_write_deadline(self) -> None:
            if self._write_timer is not None:
                self._write_timer.cancel()
                self._write_timer = None

    return BoundedWebSocketProtocol
