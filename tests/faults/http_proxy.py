"""An HTTP proxy in front of an object storage server that spoils chosen requests: what a bad network or a bad disk would do.

One request is one connection on both sides. Heads pass unchanged but for `Connection`, so that signatures stay valid. A
`Fault` says which requests it spoils, how, and how many times; the first that fits is used. `requests` tells what came by.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

_HEAD_END: Final = b"\r\n\r\n"
_STEP_BYTES: Final = 1 << 16


@dataclass(frozen=True, slots=True)
class Request:
    """Head of a request."""

    method: str
    target: str
    """Path and query as sent."""
    body_bytes: int


@dataclass(frozen=True, slots=True)
class Answer:
    """Answer this instead of asking the server."""

    status: int
    code: str = ""
    """S3's error code; empty for an answer without a body."""
    message: str = "a fault of the tests"
    body: str = ""
    """Whole body, instead of one made of code and message."""


@dataclass(frozen=True, slots=True)
class Silence:
    """Take the request and say nothing, until the client goes."""


@dataclass(frozen=True, slots=True)
class CutRequest:
    """Drop the connection when so many bytes of the request's body have come."""

    after_bytes: int


@dataclass(frozen=True, slots=True)
class CutAnswer:
    """Drop the connection when so many bytes of the answer's body went out."""

    after_bytes: int


@dataclass(frozen=True, slots=True)
class LoseAnswer:
    """Let the server do it, and drop the connection instead of passing its answer on."""


@dataclass(frozen=True, slots=True)
class Trickle:
    """Pass the answer's body on in small steps with a pause after each."""

    step_bytes: int
    pause_s: float


@dataclass(frozen=True, slots=True)
class FlipByte:
    """Invert one byte of the answer's body."""

    at: int


@dataclass(frozen=True, slots=True)
class Truncate:
    """Let the answer's body, and the length that its head names, end early."""

    at: int


Spoiling = Answer | Silence | CutRequest | CutAnswer | LoseAnswer | Trickle | FlipByte | Truncate


@dataclass(slots=True)
class Fault:
    """How requests are spoiled."""

    how: Spoiling
    only: Callable[[Request], bool] = lambda _: True
    times: int = 1_000_000
    met: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when a request was spoiled."""
    left: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the client of a spoiled request had gone, or its connection was dropped."""


class ObjectStorageProxy:
    """One proxy on a free loopback port. Async context manager."""

    def __init__(self, target_port: int) -> None:
        """target_port: where the real server listens on loopback."""
        self._target_port = target_port
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.endpoint = ""
        self.faults: list[Fault] = []
        self.requests: list[Request] = []
        self.open_connections = 0

    async def __aenter__(self) -> ObjectStorageProxy:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.endpoint = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def spoil(
        self, how: Spoiling, *, only: Callable[[Request], bool] = lambda _: True, times: int = 1_000_000
    ) -> Fault:
        """Spoil requests from now on."""
        fault = Fault(how, only, times)
        self.faults.append(fault)
        return fault

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.open_connections += 1
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await self._one_request(reader, writer)
        finally:
            self.open_connections -= 1
            self._tasks.discard(task)
            writer.transport.abort()

    async def _one_request(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(_HEAD_END)
        request = _parse(head)
        self.requests.append(request)
        fault = next((each for each in self.faults if each.times > 0 and each.only(request)), None)
        if fault is None:
            await self._pass(head, request, reader, writer, None)
            return
        fault.times -= 1
        fault.met.set()
        try:
            await self._spoil(fault.how, head, request, reader, writer)
        finally:
            fault.left.set()

    async def _spoil(
        self,
        how: Spoiling,
        head: bytes,
        request: Request,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        match how:
            case Silence():
                while await reader.read(_STEP_BYTES):
                    pass
            case CutRequest(after_bytes=count):
                await reader.readexactly(min(count, request.body_bytes))
            case Answer():
                await _discard(reader, request.body_bytes)
                writer.write(_answer(how))
                await writer.drain()
                writer.write_eof()
                await reader.read()  # the client has read it when it closes
            case _:
                await self._pass(head, request, reader, writer, how)

    async def _pass(
        self,
        head: bytes,
        request: Request,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        how: CutAnswer | LoseAnswer | Trickle | FlipByte | Truncate | None,
    ) -> None:
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self._target_port)
        try:
            server_writer.write(_close_after(head))
            left = request.body_bytes
            while left:
                data = await reader.read(min(left, _STEP_BYTES))
                if not data:
                    return
                left -= len(data)
                server_writer.write(data)
                await server_writer.drain()
            answer_head = await server_reader.readuntil(_HEAD_END)
            if isinstance(how, LoseAnswer):
                return
            if isinstance(how, Truncate):
                answer_head = _with_length(answer_head, how.at)
            writer.write(_close_after(answer_head))
            await _pass_body(server_reader, writer, how)
            await writer.drain()
            if isinstance(how, CutAnswer):
                return
            writer.write_eof()
            await reader.read()
        finally:
            server_writer.transport.abort()


async def _pass_body(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    how: CutAnswer | LoseAnswer | Trickle | FlipByte | Truncate | None,
) -> None:
    passed = 0
    end = how.after_bytes if isinstance(how, CutAnswer) else how.at if isinstance(how, Truncate) else None
    step = how.step_bytes if isinstance(how, Trickle) else _STEP_BYTES
    while data := await reader.read(step if end is None else min(step, end - passed)):
        if isinstance(how, FlipByte) and passed <= how.at < passed + len(data):
            spoiled = bytearray(data)
            spoiled[how.at - passed] ^= 0xFF
            data = bytes(spoiled)
        passed += len(data)
        writer.write(data)
        await writer.drain()
        if isinstance(how, Trickle):
            await asyncio.sleep(how.pause_s)


def _parse(head: bytes) -> Request:
    first, *fields = head.decode("latin-1").split("\r\n")
    method, target, _ = first.split(" ")
    lengths = [int(field.partition(":")[2]) for field in fields if field.lower().startswith("content-length:")]
    return Request(method, target, lengths[0] if lengths else 0)


def _close_after(head: bytes) -> bytes:
    lines = [
        line for line in head.removesuffix(_HEAD_END).split(b"\r\n") if not line.lower().startswith(b"connection:")
    ]
    return b"\r\n".join([*lines, b"Connection: close"]) + _HEAD_END


def _with_length(head: bytes, count: int) -> bytes:
    lines = [
        b"Content-Length: %d" % count if line.lower().startswith(b"content-length:") else line
        for line in head.removesuffix(_HEAD_END).split(b"\r\n")
    ]
    return b"\r\n".join(lines) + _HEAD_END


def _answer(answer: Answer) -> bytes:
    body = answer.body.encode()
    if answer.code:
        body = f"<Error><Code>{answer.code}</Code><Message>{answer.message}</Message></Error>".encode()
    head = f"HTTP/1.1 {answer.status} Fault\r\nContent-Length: {len(body)}\r\nConnection: close"
    return head.encode() + _HEAD_END + body


async def _discard(reader: asyncio.StreamReader, count: int) -> None:
    while count:
        data = await reader.read(min(count, _STEP_BYTES))
        if not data:
            return
        count -= len(data)
