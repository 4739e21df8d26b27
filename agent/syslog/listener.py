"""Receives syslog over TCP and UDP, and hands it to the spool.

Messages wait in memory, bounded in bytes, for one task that writes them to disk, many at a time. When the disk is behind, or
the spool is full since the server is away, TCP senders are read from no more and wait; datagrams nobody can hold back: those
that find no room are dropped, and counted. Everything but the writing runs on one event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Final
from zoneinfo import ZoneInfo

import structlog

from agent.metrics import SYSLOG, SYSLOG_REFUSED
from agent.settings import SyslogSettings
from agent.syslog.framing import Frame, Framer
from agent.syslog.parse import encode, parse
from agent.syslog.spool import Spool, SpoolFull
from formats.times import TimeReader
from runtime.clock import Clock
from runtime.sockets import alive_options
from schemas.errors import ConfigurationError

log = structlog.get_logger(__name__)

_READ_BYTES: Final = 64 * 1024
_PAUSE_S: Final = 0.5
"""Before the disk is tried again."""
_GATHER_S: Final = 0.05
"""For so long messages gather, so that one sync serves many."""
_TIMES_US: Final = 60 * 1_000_000
_END_S: Final = 2.0
_BLOCK_BYTES: Final = 1024 * 1024


class SyslogListener:
    """One agent's. `start`, then `stop`."""

    def __init__(self, settings: SyslogSettings, spool: Spool, clock: Clock, *, agent: str) -> None:
        """agent: the host's name."""
        self._settings, self._spool, self._clock, self._agent = settings, spool, clock, agent
        self._zone = ZoneInfo(settings.zone)
        self._times = TimeReader(zone=self._zone, now_us=clock.now_us())
        self._times_us = clock.now_us()
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        self._has_some, self._has_room = asyncio.Event(), asyncio.Event()
        self._has_room.set()
        self._connections: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._datagrams: asyncio.DatagramTransport | None = None
        self._writer: asyncio.Task[None] | None = None
        self._is_ending = False
        self.problem: str | None = None
        """What keeps messages from the disk now."""

    @property
    def tcp_port(self) -> int | None:
        """Where it listens."""
        return None if self._server is None else int(self._server.sockets[0].getsockname()[1])

    @property
    def udp_port(self) -> int | None:
        """Where it listens."""
        return None if self._datagrams is None else int(self._datagrams.get_extra_info("sockname")[1])

    async def start(self) -> None:
        """Listen. Raises ConfigurationError when an address cannot be had."""
        settings = self._settings
        try:
            if settings.tcp_port is not None:
                self._server = await asyncio.start_server(self._connected, settings.host, settings.tcp_port)
            if settings.udp_port is not None:
                loop = asyncio.get_running_loop()
                self._datagrams, _ = await loop.create_datagram_endpoint(
                    lambda: _Datagrams(self._datagram), (settings.host, settings.udp_port)
                )
        except OSError as error:
            await self.stop()
            raise ConfigurationError(f"agent.syslog: cannot listen: {error.strerror or error}") from error
        self._writer = asyncio.create_task(self._write())
        log.info("listening for syslog", host=settings.host, tcp_port=self.tcp_port, udp_port=self.udp_port)

    async def stop(self) -> None:
        """Receive no more, and write what was received, as far as the disk takes it."""
        if self._server is not None:
            self._server.close()
        if self._datagrams is not None:
            self._datagrams.close()
        for connection in list(self._connections):
            connection.cancel()
        if self._connections:
            await asyncio.wait(self._connections)
        if self._writer is not None:
            self._is_ending = True
            self._has_some.set()
            _, late = await asyncio.wait({self._writer}, timeout=_END_S)
            if late:
                self._writer.cancel()
                await asyncio.wait({self._writer})
                SYSLOG.labels(outcome="dropped").inc(len(self._waiting))
        self._spool.close()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        if len(self._connections) >= self._settings.connections_max or self._is_ending:
            SYSLOG_REFUSED.inc()
            writer.close()
            return
        # A sender that is gone without a word would keep its place for good.
        for option in alive_options():
            writer.get_extra_info("socket").setsockopt(*option)
        self._connections.add(task)
        peer = _address(writer.get_extra_info("peername"))
        framer = Framer(self._settings.message_bytes_max)
        try:
            while data := await reader.read(_READ_BYTES):
                self._take(framer.feed(data), peer)
                await self._has_room.wait()
            self._take(framer.end(), peer)
        except OSError:  # also a sender that keep-alive found gone
            self._take(framer.end(), peer)
        except asyncio.CancelledError:
            self._take(framer.end(), peer)
        finally:
            self._connections.discard(task)
            writer.close()

    def _datagram(self, data: bytes, peer: object) -> None:
        if not self._has_room.is_set():
            SYSLOG.labels(outcome="dropped").inc()
            return
        size = self._settings.message_bytes_max
        self._take([Frame(data[:size], len(data) > size)], _address(peer))

    def _take(self, frames: list[Frame], peer: str) -> None:
        now_us = self._clock.now_us()
        if abs(now_us - self._times_us) > _TIMES_US:
            self._times, self._times_us = TimeReader(zone=self._zone, now_us=now_us), now_us
        for raw, is_cut in frames:
            message = parse(raw, self._times)
            line = encode(
                message, service=self._settings.service, now_us=now_us, peer=peer, agent=self._agent, is_cut=is_cut
            )
            self._waiting.append(line)
            self._waiting_bytes += len(line)
        if frames:
            self._has_some.set()
            if self._waiting_bytes >= self._settings.queue_bytes_max:
                self._has_room.clear()

    async def _write(self) -> None:
        while True:
            await self._has_some.wait()
            if not self._is_ending:
                await asyncio.sleep(_GATHER_S)
            while self._waiting:
                count, block = self._block()
                try:
                    await asyncio.to_thread(self._spool.append, block)
                except (SpoolFull, OSError) as error:
                    self._complain(error)
                    if self._is_ending:
                        SYSLOG.labels(outcome="dropped").inc(len(self._waiting))
                        return
                    await asyncio.sleep(_PAUSE_S)
                    continue
                self.problem = None
                del self._waiting[:count]
                self._waiting_bytes -= len(block)
                SYSLOG.labels(outcome="kept").inc(count)
                if self._waiting_bytes < self._settings.queue_bytes_max // 2:
                    self._has_room.set()
            self._has_some.clear()
            if self._is_ending:
                return

    def _block(self) -> tuple[int, bytes]:
        count = size = 0
        while count < len(self._waiting) and size < _BLOCK_BYTES:
            size += len(self._waiting[count])
            count += 1
        return count, b"".join(self._waiting[:count])

    def _complain(self, error: SpoolFull | OSError) -> None:
        reason = "the spool is full" if isinstance(error, SpoolFull) else f"the disk: {error.strerror}"
        if self.problem is None:
            log.warning("syslog messages cannot be kept: TCP senders wait, datagrams are dropped", reason=reason)
        self.problem = f"syslog: {reason}"


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, take: Callable[[bytes, object], None]) -> None:
        self._take = take

    def datagram_received(self, data: bytes, addr: object) -> None:
        """See DatagramProtocol."""
        self._take(data, addr)


def _address(peer: object) -> str:
    with suppress(TypeError, IndexError):
        return str(peer[0])  # type: ignore[index]  # of sockets: (address, port, …)
    return "unknown"
