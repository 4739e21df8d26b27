"""A TCP proxy in front of PostgreSQL that acts at an exact moment of a writer's transaction.

It looks at what passes on connections whose start-up message names an application, and when a chosen piece of protocol
comes by, it calls back: before forwarding it (`before`), or after the server's answer was seen (`answered`), and can hold
or cut what follows. So a test kills, stops or disconnects a writer between COPY and COMMIT without a hook in the writer.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from urllib.parse import urlsplit, urlunsplit


class Moment(StrEnum):
    """Where in a batch's transaction the action falls. The bytes are what the client sends then."""

    BEFORE_BEGIN = "BEGIN"
    MID_COPY = "copy data"
    BEFORE_COMMIT = "COMMIT"
    COMMIT_ANSWERED = "commit answered"


@dataclass(slots=True)
class Trap:
    """Fires once, on the n-th time the moment comes by."""

    moment: Moment
    action: Callable[[], None]
    cut: bool = False
    """Close both sides after the action instead of forwarding."""
    skip: int = 0
    fired: asyncio.Event = field(default_factory=asyncio.Event)


_COPY_DATA = b"d"


class DatabaseProxy:
    """One proxy on a free loopback port. Async context manager."""

    def __init__(self, target_url: str, *, application: bytes) -> None:
        """target_url: the real database. application: part of the application_name whose connections are watched."""
        parts = urlsplit(target_url)
        self._target = (parts.hostname or "127.0.0.1", parts.port or 5432)
        self._parts = parts
        self._application = application
        self._server: asyncio.Server | None = None
        self._port = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self.trap: Trap | None = None
        self.refusing = False
        """True: new connections are closed at once (the database is away)."""

    async def __aenter__(self) -> DatabaseProxy:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self._port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        self.cut_all()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def url(self) -> str:
        """The database's URL through the proxy."""
        host = f"127.0.0.1:{self._port}"
        credentials = self._parts.netloc.rpartition("@")[0]
        netloc = f"{credentials}@{host}" if credentials else host
        return urlunsplit(self._parts._replace(netloc=netloc))

    def cut_all(self) -> None:
        """Drop every connection, as a network would."""
        for task in list(self._tasks):
            task.cancel()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            if self.refusing:
                return
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await self._pass(reader, writer)
        finally:
            self._tasks.discard(task)
            writer.transport.abort()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_connection(*self._target)
        watch = _Watch(self)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(_pump(reader, server_writer, watch.client_sends))
                group.create_task(_pump(server_reader, writer, watch.server_sends))
        except* (OSError, _Cut):
            pass
        finally:
            server_writer.transport.abort()

    def watches(self, start_up: bytes) -> bool:
        """True when the start-up message is of a connection to watch."""
        return self._application in start_up

    def fire(self, moment: Moment) -> None:
        """Spring the trap if this is its moment."""
        trap = self.trap
        if trap is None or trap.fired.is_set() or trap.moment is not moment:
            return
        if trap.skip > 0:
            trap.skip -= 1
            return
        trap.fired.set()
        trap.action()
        if trap.cut:
            raise _Cut


class _Cut(Exception):
    """Both directions end."""


class _Watch:
    """Follows one connection's protocol closely enough to see the moments."""

    def __init__(self, proxy: DatabaseProxy) -> None:
        self._proxy = proxy
        self._watched = False
        self._commit_sent = False

    def client_sends(self, data: bytes) -> None:
        if b"application_name" in data[:2000]:
            self._watched = self._proxy.watches(data[:2000])
        if not self._watched:
            return
        if data[:1] == _COPY_DATA:
            self._proxy.fire(Moment.MID_COPY)
        if b"BEGIN" in data and b"COPY" not in data:
            self._proxy.fire(Moment.BEFORE_BEGIN)
        if b"COMMIT" in data:
            self._commit_sent = True
            self._proxy.fire(Moment.BEFORE_COMMIT)

    def server_sends(self, data: bytes) -> None:
        if self._watched and self._commit_sent and b"COMMIT\0" in data:
            self._commit_sent = False
            self._proxy.fire(Moment.COMMIT_ANSWERED)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, look: Callable[[bytes], None]) -> None:
    while data := await reader.read(1 << 16):
        look(data)
        writer.write(data)
        await writer.drain()
    raise _Cut
