"""Connections: silent and slow ones are closed, the ones above the limit are told, and honest ones never notice."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import uvicorn
from fastapi import FastAPI

from runtime.http import HttpSettings, http_protocol_class


def application() -> FastAPI:
    app = FastAPI()

    @app.post("/echo")
    async def echo(body: dict[str, int]) -> dict[str, int]:
        return body

    return app


@asynccontextmanager
async def serving(
    *, connections_max: int = 100, head_deadline_s: float = 5.0, ws: type[asyncio.Protocol] | None = None
) -> AsyncIterator[int]:
    """A running server; yields its port."""
    protocol = http_protocol_class(HttpSettings(connections_max=connections_max, head_deadline_s=head_deadline_s))
    config = uvicorn.Config(
        application(), http=protocol, log_config=None, lifespan="off", timeout_keep_alive=60, ws=ws or "auto"
    )
    server = uvicorn.Server(config)
    listener = socket.create_server(("127.0.0.1", 0))
    task = asyncio.create_task(server._serve([listener]))
    async with asyncio.timeout(10):
        while not server.started:  # noqa: ASYNC110  # uvicorn has no event for it
            await asyncio.sleep(0.01)
    try:
        yield listener.getsockname()[1]
    finally:
        server.should_exit = server.force_exit = True
        await task


async def closed_by_server(reader: asyncio.StreamReader) -> bytes:
    """What the server sends until it closes."""
    async with asyncio.timeout(5):
        with contextlib.suppress(ConnectionError):
            return await reader.read()
    return b""


HEAD = b"POST /echo HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 7\r\n\r\n"


async def test_silent_and_half_spoken_connections_are_closed() -> None:
    async with serving(head_deadline_s=0.1) as port:
        for begin in (b"", b"POST /echo HTTP/1.1\r\nhost: x\r\n"):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(begin)
            assert await closed_by_server(reader) == b""
            writer.close()


async def test_later_request_on_a_connection_has_the_same_deadline() -> None:
    async with serving(head_deadline_s=0.2) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(2):
            writer.write(HEAD + b'{"a":1}')
            answer = await asyncio.wait_for(reader.readuntil(b'{"a":1}'), 5)
            assert b"200 OK" in answer
            await asyncio.sleep(0.3)  # longer than the deadline: an idle connection is not silent
        writer.write(HEAD[:20])
        assert await closed_by_server(reader) == b""
        writer.close()


async def test_body_may_come_after_the_heads_deadline() -> None:
    async with serving(head_deadline_s=0.1) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(HEAD)
        await asyncio.sleep(0.3)  # the deadline passes meanwhile
        writer.write(b'{"a":1}')
        assert b"200 OK" in await asyncio.wait_for(reader.readuntil(b'{"a":1}'), 5)
        writer.close()


async def test_connections_above_the_limit_get_503_and_room_comes_back() -> None:
    async with serving(connections_max=50) as port:
        silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(50)]
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        answer = await closed_by_server(reader)
        writer.close()
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"retry-after: 2" in answer
        assert b"application/problem+json" in answer
        for _, each in silent:
            each.close()
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http, asyncio.timeout(5):
            while (await http.post("/echo", json={"a": 1})).status_code != 200:  # noqa: ASYNC110  # asks a server
                await asyncio.sleep(0.01)


class Upgraded(asyncio.Protocol):
    """Stands for a WebSocket library: takes the connection over, says so, and holds it."""

    def __init__(self, **_: object) -> None:
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        assert self.transport is not None
        self.transport.write(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")


async def test_upgraded_connection_is_handed_over_and_counts_no_longer() -> None:
    async with serving(connections_max=1, head_deadline_s=0.1, ws=Upgraded) as port:
        held = []
        for _ in range(3):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET /ws HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n")
            assert b" 101 " in await asyncio.wait_for(reader.readline(), 5)
            held.append((reader, writer))
        await asyncio.sleep(0.2)  # longer than the deadline
        for reader, writer in held:
            assert not reader.at_eof()
            writer.close()
