"""Clients that tail, in one process: `python -m bench.tails http://KEY@HOST:PORT`; on standard input their paths, each on a
line, then an empty one.

Prints `ready` when every tail has had its first frame. The next line begins to count, the one after that prints a
`TailsReport` as JSON. Clients only count: bytes are sought for what stands once in each log and once in each frame, so that a
thousand of them cost less than the server does.
"""

from __future__ import annotations

import asyncio
import resource
import sys

import msgspec

from bench.wire import Target

_IN_EACH_LOG = b'"severity":'
_IN_EACH_FRAME = b'"token":'
_IN_EACH_SKIP = b'{"skipped":'
_PING = b"\x89\x04"
"""Of four bytes, as the server sends them; in no JSON."""
_PONG = b"\x8a\x84\0\0\0\0"
_OPEN_AT_ONCE = 50


class TailsReport(msgspec.Struct):
    """What all clients together were told."""

    logs: int
    frames: int
    skips: int
    """Frames that say that logs were skipped."""
    least_logs: int
    """Of one client."""
    most_logs: int
    bytes: int
    cut: int
    """Connections that the server has closed."""


class _Client(asyncio.Protocol):
    """One WebSocket."""

    def __init__(self, target: Target, path: str) -> None:
        self._head = (
            f"GET {path} HTTP/1.1\r\nHost: {target.host}:{target.port}\r\n{target.credentials}"
            "Upgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        ).encode()
        self.begun = asyncio.get_running_loop().create_future()
        self.logs = self.frames = self.skips = self.bytes = 0
        self.is_cut = False
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        self._transport = transport
        transport.write(self._head)

    def data_received(self, data: bytes) -> None:
        text = self._rest + data
        keep = max(map(len, (_IN_EACH_LOG, _IN_EACH_FRAME, _IN_EACH_SKIP))) - 1
        for name, mark in (("logs", _IN_EACH_LOG), ("frames", _IN_EACH_FRAME), ("skips", _IN_EACH_SKIP)):
            # What lies wholly in the rest was counted before.
            setattr(self, name, getattr(self, name) + text.count(mark) - self._rest.count(mark))
        if (at := text.find(_PING)) >= 0 and (payload := text[at + 2 : at + 6]):
            # One that stood in the rest is answered twice, which the server takes no notice of.
            self._transport.write(_PONG + payload)
        self._rest = text[-keep:]
        self.bytes += len(data)
        if self.frames and not self.begun.done():
            self.begun.set_result(None)

    def connection_lost(self, error: Exception | None) -> None:
        self.is_cut = True
        if not self.begun.done():
            self.begun.set_exception(RuntimeError(f"a tail was not begun: {self._rest!r}"))

    def clear(self) -> None:
        """Count from here."""
        self.logs = self.frames = self.skips = self.bytes = 0


async def _run(target: Target, paths: list[str]) -> TailsReport:
    loop = asyncio.get_running_loop()
    places = asyncio.Semaphore(_OPEN_AT_ONCE)

    async def opened(path: str) -> _Client:
        async with places:
            _, client = await loop.create_connection(lambda: _Client(target, path), target.host, target.port)
            await client.begun
            return client

    clients = await asyncio.gather(*map(opened, paths))
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    for client in clients:
        client.clear()
    await asyncio.to_thread(sys.stdin.readline)
    return TailsReport(
        logs=sum(client.logs for client in clients),
        frames=sum(client.frames for client in clients),
        skips=sum(client.skips for client in clients),
        least_logs=min(client.logs for client in clients),
        most_logs=max(client.logs for client in clients),
        bytes=sum(client.bytes for client in clients),
        cut=sum(client.is_cut for client in clients),
    )


def main() -> None:
    """See the module."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 16_384)), hard))
    paths = []
    while path := sys.stdin.readline().strip():
        paths.append(path)
    report = asyncio.run(_run(Target.of(sys.argv[1]), paths))
    print(msgspec.json.encode(report).decode(), flush=True)


if __name__ == "__main__":
    main()
