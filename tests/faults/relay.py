"""A TCP relay between roles and a server, which a test cuts, silences or slows: what a network does to those who trust it.

One event loop; every connection is two tasks. Nothing is reordered or changed: bytes pass, wait, or their connection ends.
"""

from __future__ import annotations

import asyncio
import contextlib
from enum import StrEnum
from typing import Self
from urllib.parse import urlsplit, urlunsplit

_PIECE_BYTES = 1 << 16


class Passing(StrEnum):
    """What becomes of bytes."""

    PASS = "pass"
    CUT = "cut"
    """Connections end, and new ones as soon as they are made."""
    SILENT = "silent"
    """Connections stay and are made, and nothing passes until it is mended."""
    SLOW = "slow"
    """Each piece waits for `delay_s`, in both directions."""


class Relay:
    """One relay on a loopback port. Async context manager."""

    def __init__(self, host: str, port: int, *, listen_port: int = 0) -> None:
        """host, port: of the server. listen_port: 0 for any that is free."""
        self._target = (host, port)
        self._listen_port = listen_port
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._passes = asyncio.Event()
        self._passes.set()
        self._passing = Passing.PASS
        self.delay_s = 0.0
        self.connections = 0
        """Made so far."""

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._listen_port)
        self._listen_port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        self._drop_all()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def address(self) -> str:
        """host:port for clients."""
        return f"127.0.0.1:{self._listen_port}"

    def url_of(self, server_url: str) -> str:
        """The server's URL, through the relay."""
        parts = urlsplit(server_url)
        credentials, at, _ = parts.netloc.rpartition("@")
        return urlunsplit(parts._replace(netloc=f"{credentials}{at}{self.address}"))

    def turn(self, passing: Passing, *, delay_s: float = 0.0) -> None:
        """From now on. delay_s: of each piece, where it is slow."""
        self._passing = passing
        self.delay_s = delay_s if passing is Passing.SLOW else 0.0
        if passing is Passing.SILENT:
            self._passes.clear()
        else:
            self._passes.set()
        if passing is Passing.CUT:
            self._drop_all()

    def _drop_all(self) -> None:
        for task in list(self._tasks):
            task.cancel()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        try:
            if self._passing is not Passing.CUT:
                with contextlib.suppress(OSError, asyncio.CancelledError):
                    await self._relay(reader, writer)
        finally:
            self._tasks.discard(task)
            writer.transport.abort()

    def passes(self, _connection: int, _data: bytes, *, from_client: bool) -> bool:
        """Asked for each piece before it goes on; False: both sides are cut instead. For who looks at what comes by.

        connection: number of it, from 1."""
        return True

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = self.connections
        await self._passes.wait()
        there, to_there = await asyncio.open_connection(*self._target)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump(number, reader, to_there, from_client=True))
                group.create_task(self._pump(number, there, writer, from_client=False))
        except* (OSError, _Over):
            pass
        finally:
            to_there.transport.abort()

    async def _pump(
        self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, from_client: bool
    ) -> None:
        while data := await reader.read(_PIECE_BYTES):
            if self.delay_s:
                await asyncio.sleep(self.delay_s)
            await self._passes.wait()
            if not self.passes(number, data, from_client=from_client):
                break
            writer.write(data)
            await writer.drain()
        raise _Over


class _Over(Exception):
    """One side has closed: both are."""
