"""An agent's HTTP interface as a small real program: files of services, lines of them, and answers that go wrong."""

from __future__ import annotations

import asyncio
import json
import secrets
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

Write = Callable[[bytes], Awaitable[None]]
"""Sends, and waits until the other side takes it."""


@dataclass
class Asked:
    """One request."""

    path: str
    """Decoded."""
    parameters: dict[str, list[str]]
    head: str
    """As it came."""

    def header(self, name: str) -> str | None:
        """None when it is not there once."""
        found = [
            line.partition(":")[2].strip() for line in self.head.split("\r\n") if line.lower().startswith(f"{name}:")
        ]
        return found[0] if len(found) == 1 else None


@dataclass
class HostAgent:
    """What it serves, and what it was asked."""

    files: dict[str, tuple[str, list[str]]] = field(default_factory=dict)
    """Name -> service and lines, oldest first."""
    token: str = field(default_factory=lambda: secrets.token_urlsafe(32))
    port: int = 0
    asked: list[Asked] = field(default_factory=list)
    raw: bytes | None = None
    """Answered to everything instead, then the connection is closed."""
    is_silent: bool = False
    """Takes requests and says nothing."""
    is_endless: bool = False
    """Lines without end, as fast as they are taken."""
    lines_sent: int = 0
    streams: int = 0
    """Answers that are under way."""
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    """One has come to its end."""
    written: asyncio.Queue[str] = field(default_factory=asyncio.Queue)
    """Lines that are yet to be given to whoever follows."""

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.port}"

    def heartbeat(self, **changes: Any) -> dict[str, Any]:
        """What it says of itself. changes: other values."""
        services = sorted({service for service, _ in self.files.values()})
        return {"address": self.url, "token": self.token, "version": "0.1.0", "services": services, **changes}

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, one request."""
        self.streams += 1

        async def write(piece: bytes) -> None:
            writer.write(piece)
            await writer.drain()

        working: asyncio.Task[None] | None = None
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            target = urlsplit(head.split(" ")[1])
            asked = Asked(unquote(target.path), parse_qs(target.query, keep_blank_values=True), head)
            self.asked.append(asked)
            working = asyncio.create_task(self._work(asked, write))
            gone = asyncio.create_task(reader.read())
            await asyncio.wait({working, gone}, return_when=asyncio.FIRST_COMPLETED)
            gone.cancel()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            if working is not None:
                working.cancel()
                await asyncio.gather(working, return_exceptions=True)
            writer.close()
            self.streams -= 1
            self.ended.set()

    async def _work(self, asked: Asked, write: Write) -> None:
        if self.raw is not None:
            await write(self.raw)
        elif self.is_silent:
            await asyncio.Event().wait()
        elif asked.header("authorization") != f"Bearer {self.token}":
            await write(problem(401, "unknown token"))
        elif asked.path == "/files":
            await write(whole({"files": self._listed(asked), "next_cursor": None, "errors": []}))
        else:
            await self._lines(asked, write)

    def _listed(self, asked: Asked) -> list[dict[str, Any]]:
        return [
            {
                "name": name,
                "service_name": service,
                "bytes": sum(len(line) + 1 for line in lines),
                "modified_at": "2026-11-26T12:00:00.000000Z",
                "compressed": None,
                "rotated": False,
            }
            for name, (service, lines) in sorted(self.files.items())
            if _permits(asked, service)
        ]

    async def _lines(self, asked: Asked, write: Write) -> None:
        service, lines = self.files.get(asked.path.removeprefix("/files/"), ("", []))
        if not _permits(asked, service):
            await write(problem(404, "there is no such file"))
            return
        await write(b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n")
        keywords, most = asked.parameters.get("keyword", []), int(asked.parameters["n"][0])
        found = [line for line in reversed(lines) if all(keyword in line for keyword in keywords)][:most]
        if asked.parameters.get("follow") == ["true"]:
            found.reverse()
        for line in found:
            await self._line(line, write)
        while self.is_endless:
            await self._line("x" * 10_000, write)
        while asked.parameters.get("follow") == ["true"]:
            await self._line(await self.written.get(), write)
        end = {"status": "complete", "lines": len(found), "scanned_bytes": 345, "error": None}
        await write(chunk(json.dumps({"end": end}).encode() + b"\n") + b"0\r\n\r\n")

    async def _line(self, line: str, write: Write) -> None:
        await write(chunk(json.dumps({"line": line, "offset": self.lines_sent}).encode() + b"\n"))
        self.lines_sent += 1


def chunk(content: bytes) -> bytes:
    """Of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(content), content)


def whole(document: Any, status: str = "200 OK", media_type: str = "application/json") -> bytes:
    """An answer with this JSON."""
    body = json.dumps(document).encode()
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: {media_type}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body


def problem(status: int, detail: str) -> bytes:
    """An answer that refuses (RFC 9457)."""
    return whole({"title": "no", "status": status, "detail": detail}, f"{status} No", "application/problem+json")


@asynccontextmanager
async def host_agent(agent: HostAgent, *, tls: ssl.SSLContext | None = None) -> AsyncIterator[HostAgent]:
    """It listens on a free port of 127.0.0.1. Closes what is open at the end."""
    connections: set[asyncio.Task[None]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        connections.add(task)
        try:
            await agent.answer(reader, writer)
        finally:
            connections.discard(task)

    server = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=tls)
    agent.port = server.sockets[0].getsockname()[1]
    try:
        yield agent
    finally:
        server.close()
        for task in list(connections):
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)


def _permits(asked: Asked, service: str) -> bool:
    scope = json.loads(asked.parameters["scope"][0])
    if service in scope.get("excluded", ()):
        return False
    if scope.get("all"):
        return bool(service)
    return service in scope["names"] or any(service.startswith(prefix) for prefix in scope["prefixes"])
