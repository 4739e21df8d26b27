"""A broker in memory behind the port: for unit tests of what publishes, never for promises about storing."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from broker.port import Producer, Reader, Record
from schemas.errors import BrokerUnavailable, LogfeedError, Overloaded
from schemas.frames import FrameHeader, decode_headers, decode_lines, decompress
from schemas.record import LogLine


class MemoryBroker:
    """One partition; `error`, `risk` and `gate` are set by tests."""

    topic = "memory"
    partitions = 1

    def __init__(self) -> None:
        self.records: list[tuple[Record, bytes | None]] = []
        self.error: LogfeedError | None = None
        """Raised by the next calls until cleared."""
        self.error_after_append = False
        """Whether the record is kept all the same, as with an answer that was lost."""
        self.risk = 0.0
        self.gate = asyncio.Event()
        """Publishing waits for it."""
        self.gate.set()
        self.producers = 0

    def frames(self) -> list[tuple[FrameHeader, list[LogLine]]]:
        """Every record, decoded."""
        return [(decode_headers(record.headers), decode_lines(decompress(record.value))) for record, _ in self.records]

    async def open(self) -> None:
        return

    async def look_again(self) -> list[str]:
        return []

    async def close(self) -> None:
        return

    async def producer(self) -> Producer:
        if self.error is not None:
            raise self.error
        self.producers += 1
        return MemoryProducer(self)

    async def reader(self, *, group: str) -> Reader:
        raise BrokerUnavailable("this broker only takes")

    async def commit_group(self, group: str, offsets: Mapping[int, int]) -> None:
        return

    async def group_offsets(self, group: str) -> dict[int, int]:
        return {}

    async def retention_risk(self, group: str) -> float:
        if self.error is not None:
            raise self.error
        return self.risk


class MemoryProducer:
    """Keeps records in the broker's list."""

    def __init__(self, broker: MemoryBroker, bytes_max: int = 64 * 1024 * 1024) -> None:
        self._broker = broker
        self._bytes_max = bytes_max
        self.bytes_in_flight = 0
        self._sends: set[asyncio.Task[tuple[int, int]]] = set()

    async def publish(self, record: Record, *, partition_key: bytes | None) -> tuple[int, int]:
        if self.bytes_in_flight + record.size_bytes > self._bytes_max:
            raise Overloaded()
        self.bytes_in_flight += record.size_bytes
        task = asyncio.create_task(self._send(record, partition_key))
        self._sends.add(task)
        task.add_done_callback(self._sends.discard)
        return await asyncio.shield(task)

    async def _send(self, record: Record, partition_key: bytes | None) -> tuple[int, int]:
        try:
            await self._broker.gate.wait()
            error = self._broker.error
            if error is None or self._broker.error_after_append:
                self._broker.records.append((record, partition_key))
            if error is not None:
                raise error
            return 0, len(self._broker.records) - 1
        finally:
            self.bytes_in_flight -= record.size_bytes

    async def close(self) -> None:
        return
