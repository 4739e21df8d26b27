"""One HTTP/1.1 connection, as cheap as Python can have it: what the generator and the questions are made of.

A request is a head that was made before and a body, handed to the transport as they are; of an answer only the status, the
length, Retry-After and the body are read. One request at a time on a connection, so memory is bounded by one body. Costs
about 20 µs a request beside the kernel's copies; an HTTP library costs 500.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final, cast
from urllib.parse import urlsplit

_HEAD_END: Final = b"\r\n\r\n"


class ConnectionBroken(Exception):
    """The server closed the connection before it answered: whether it took the request is not known."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server said."""

    status: int
    retry_after_s: float | None
    body: bytes


@dataclass(frozen=True, slots=True)
class Target:
    """Where requests go."""

    host: str
    port: int
    path: str
    """Of POSTs."""
    credentials: str = ""
    """The header that carries the API key, with its line's end; empty without one."""

    @classmethod
    def of(cls, url: str, path: str = "/") -> Target:
        """url: http://host:port, or http://KEY@host:port; path: with its query string."""
        parts = urlsplit(url)
        if parts.scheme != "http" or parts.hostname is None or parts.port is None:
            raise ValueError(f"expected http://host:port, got {url!r}")
        credentials = "" if parts.username is None else f"Authorization: Bearer {parts.username}\r\n"
        return cls(parts.hostname, parts.port, path, credentials)

    def post_head(self, content_type: str) -> bytes:
        """A POST's head up to the value of Content-Length, which the caller adds, with any more headers and an empty line."""
        return (
            f"POST {self.path} HTTP/1.1\r\nHost: {self.host}:{self.port}\r\n{self.credentials}Content-Type: {content_type}\r\n"
            "Content-Length: "
        ).encode()

    def get_head(self, path: str) -> bytes:
        """A GET's whole head, for a path on the same server; no kept answer is wanted."""
        return (
            f"GET {path} HTTP/1.1\r\nHost: {self.host}:{self.port}\r\n{self.credentials}Cache-Control: no-cache\r\n\r\n"
        ).encode()


class HttpConnection(asyncio.Protocol):
    """A keep-alive connection; opened again when the server closed it between two requests."""

    def __init__(self, target: Target) -> None:
        """Connects at the first request."""
        self._target = target
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[Answer] | None = None
        self._received = b""

    async def request(self, head: bytes, body: bytes = b"") -> Answer:
        """Send one request, head complete with its empty line. Raises ConnectionBroken, OSError (no server)."""
        loop = asyncio.get_running_loop()
        if self._transport is None or self._transport.is_closing():
            await loop.create_connection(lambda: self, self._target.host, self._target.port)
        assert self._transport is not None
        self._received = b""
        self._answer = loop.create_future()
        self._transport.writelines((head, body))
        return await self._answer

    def close(self) -> None:
        """Close it."""
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's transports are no subclasses

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        self._received = self._received + data if self._received else data
        answer = parse_answer(self._received)
        if answer is not None and self._answer is not None and not self._answer.done():
            self._answer.set_result(answer)

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        self._transport = None
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(ConnectionBroken(f"no answer: {exc or 'closed by the server'}"))


def parse_answer(received: bytes) -> Answer | None:
    """The answer, None while it is not complete. Needs Content-Length, except for 204."""
    end = received.find(_HEAD_END)
    if end < 0:
        return None
    head = received[:end].lower()
    status = int(head[9:12])
    length = int(_header(head, b"content-length") or 0)
    start = end + len(_HEAD_END)
    if len(received) < start + length:
        return None
    retry_after = _header(head, b"retry-after")
    return Answer(status, None if retry_after is None else float(retry_after), received[start : start + length])


def _header(head: bytes, name: bytes) -> bytes | None:
    start = head.find(b"\r\n" + name + b":")
    if start < 0:
        return None
    start += len(name) + 3
    end = head.find(b"\r\n", start)
    return head[start : end if end >= 0 else len(head)].strip()
