"""A call that fails says why. Real servers."""

from __future__ import annotations

import asyncio

import orjson
import pytest

from cli.http_client import Unreachable, new_client
from cli.mcp.tools import TOOLS, BadArguments, Server, call
from runtime.clock import SystemClock

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%b"


async def called(port: int, name: str, **arguments: object) -> str:
    async with new_client(f"http://127.0.0.1:{port}") as client:
        return await call(TOOLS, Server(client, SystemClock(), patience_s=0), name, arguments)


@pytest.mark.parametrize("body", [b"<html>", b"[]", b"{}", b'{"logs":[1],"next_cursor":null}', b'{"logs":null}'])
async def test_what_is_no_logfeed_server_is_told(body: bytes) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(ANSWER % (len(body), body))
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(handle, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(Unreachable, match="answers, but not as"):
            await called(port, "search_logs")
    with pytest.raises(Unreachable, match="no connection"):
        await called(port, "search_logs")


async def test_arguments_are_read_before_anybody_is_asked() -> None:
    for name, arguments in (("search_logs", {"limit": 0}), ("get_log", {}), ("get_log", {"id": "x"}), ("drop", {})):
        with pytest.raises(BadArguments, match=name):
            await called(9, name, **arguments)


async def test_services_that_have_no_room_are_reached_by_what_their_names_begin_with() -> None:
    services = [{"service_name": f"team-{n:04}/api", "last_log": None, "counts": {"INFO": n}} for n in range(2_000)]
    body = orjson.dumps({"services": services})

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(ANSWER % (len(body), body))
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(handle, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        everything = await called(port, "list_services")
        assert "more had no room" in everything
        assert "team-1999" not in everything
        assert "team-1999" in await called(port, "list_services", prefix="team-199")
