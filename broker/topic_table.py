"""Derived topics in PostgreSQL, of the embedded profile: one partition each (migration 0015).

Records lie in eight tables that are filled in turn; the oldest is truncated and filled anew when the active one was filled for
a seventh of the retention, or has a ninth of the bytes, which is looked at after each seventy-second of them. So nothing is
deleted row by row, records stay for the retention at least while there is room, and never take more than the bytes (and one
call's), unless a reader keeps the oldest. Appends and that step take one advisory lock to
their commit: offsets become visible in order, so that who goes on behind the last one it saw misses nothing.

TRUNCATE is seen by older snapshots too. So rows are read first, and the bounds in a later statement: a row that is missing
then is a gap that the bounds explain, never the end.

Concurrency: one event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Final

import msgspec
import structlog

from broker.port import Delivered
from broker.settings import BrokerSettings
from broker.topics import Extent, TopicRecord
from db.database import Connection, Database, sqlstate
from schemas.errors import BrokerUnavailable, ConfigurationError, DatabaseUnavailable, OffsetOutOfRange
from schemas.frames import Headers

log = structlog.get_logger(__name__)

_LOOK_S: Final = 0.2
_RECORDS_MAX: Final = 2_000
"""Of one read."""
_LOCK_NOT_AVAILABLE: Final = "55P03"
_ENSURE: Final = "INSERT INTO topics (name) SELECT unnest(%s::text[]) ON CONFLICT DO NOTHING"
_APPEND: Final = "SELECT logfeed_topics_append(%s, %b::bytea[], %b::bytea[], %b::bytea[])"
_ROTATE: Final = "SELECT logfeed_topics_rotate(%s, %s)"
_READ: Final = f"""
SELECT "offset", append_ms, headers, value FROM (
  SELECT *, sum(octet_length(value)) OVER (ORDER BY "offset") - octet_length(value) AS bytes_before FROM (
    SELECT "offset", append_ms, headers, value FROM topic_records
    WHERE topic = %s AND "offset" >= %s ORDER BY "offset" LIMIT {_RECORDS_MAX}) AS here) AS taken
WHERE bytes_before < %s
ORDER BY "offset"
"""
_EXTENTS: Final = "SELECT name, first_offset, next_offset FROM topics WHERE name = ANY(%s)"
_NAMES: Final = "SELECT name FROM topics"
_headers_encoder: Final = msgspec.msgpack.Encoder()
_headers_decoder: Final = msgspec.msgpack.Decoder(Headers)


class TableTopics:
    """See `Topics`."""

    def __init__(self, database: Database, settings: BrokerSettings) -> None:
        """database: opened and closed by the caller."""
        self._database = database
        self._settings = settings
        self._timeout_s = settings.request_timeout_ms / 1000
        self._bytes_unlooked = 0
        """Published since it was last asked whether a table is full."""

    async def ensure(self, names: Collection[str]) -> None:
        """See Topics."""
        if self._settings.create_topic:
            async with self._connection() as connection:
                await connection.execute(_ENSURE, (sorted(names),))
            return
        if missing := sorted(set(names) - await self.names()):
            raise ConfigurationError(f"topic {missing[0]} is missing: set broker.create_topic")

    async def publish(self, records: Sequence[TopicRecord]) -> None:
        """See Topics. 10 µs a record with fsync, 4,000 at a time (`bench live`)."""
        if not records:
            return
        # In autocommit: when it returns, the transaction is committed and fsynced.
        async with self._connection() as connection:
            await connection.execute(
                _APPEND,
                (
                    [record.topic for record in records],
                    [record.key for record in records],
                    [_headers_encoder.encode(record.headers) for record in records],
                    [record.value for record in records],
                ),
            )
        self._bytes_unlooked += sum(record.size_bytes for record in records)
        if self._bytes_unlooked >= self._settings.derived_bytes_max // 72:
            try:
                await self.upkeep()
            except BrokerUnavailable as error:  # the records are in their topics
                log.warning("old records of derived topics cannot be let go now", error=str(error))

    async def partitions(self, name: str) -> int:
        """See Topics."""
        return len(await self.extents([name]))

    async def names(self) -> set[str]:
        """See Topics."""
        async with self._connection() as connection:
            return {name for (name,) in await (await connection.execute(_NAMES)).fetchall()}

    async def extents(self, names: Collection[str]) -> dict[str, dict[int, Extent]]:
        """See Topics."""
        async with self._connection() as connection:
            rows = await (await connection.execute(_EXTENTS, (list(names),))).fetchall()
        return {name: {0: Extent(first, following)} for name, first, following in rows}

    async def reader(self, name: str) -> TableReader:
        """See Topics."""
        return TableReader(self, name)

    async def upkeep(self) -> None:
        """See Topics. `publish` does it too, where much comes between two calls."""
        self._bytes_unlooked = 0
        slot_s = self._settings.derived_retention_h * 3600 / 7
        try:
            async with self._connection() as connection:
                cursor = await connection.execute(_ROTATE, (slot_s, self._settings.derived_bytes_max // 9))
                row = await cursor.fetchone()
        except BrokerUnavailable as error:
            origin = error.__cause__.__cause__ if error.__cause__ is not None else None
            if origin is None or sqlstate(origin) != _LOCK_NOT_AVAILABLE:
                raise
            log.info("the oldest records of derived topics stay: somebody reads them")
            return
        if row is not None and row[0] is not None:
            log.info("the oldest records of derived topics are gone", table=row[0])

    async def close(self) -> None:
        """See Topics. The database is the caller's."""

    async def read(self, name: str, position: int, *, max_bytes: int) -> list[Delivered]:
        """Records from the position on. Raises OffsetOutOfRange, BrokerUnavailable."""
        for _ in range(3):
            async with self._connection() as connection:
                cursor = connection.cursor(binary=True)
                await cursor.execute(_READ.encode(), (name, position, max_bytes))
                rows = await cursor.fetchall()
            if rows and rows[0][0] == position:
                return [
                    Delivered(0, offset, append_ms, _headers_decoder.decode(headers), bytes(value))
                    for offset, append_ms, headers, value in rows
                ]
            extent = (await self.extents([name])).get(name, {0: Extent(0, 0)})[0]
            if not extent.first <= position <= extent.next:
                raise OffsetOutOfRange(partition=0, wanted=position, first=extent.first, end=extent.next)
            if position == extent.next:
                return []
        raise BrokerUnavailable(f"topic {name}: records from offset {position} on cannot be read")

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Connection]:
        try:
            async with asyncio.timeout(self._timeout_s), self._database.connection() as connection:
                yield connection
        except (DatabaseUnavailable, TimeoutError) as error:
            raise BrokerUnavailable(f"the database of derived topics does not answer: {error}") from error


class TableReader:
    """See `Reader`."""

    def __init__(self, topics: TableTopics, name: str) -> None:
        """topics: closed by the caller, later."""
        self._topics = topics
        self._name = name
        self._position: int | None = None

    async def seek(self, positions: Mapping[int, int]) -> None:
        """See Reader. Raises ValueError for a partition that the topic does not have."""
        if positions.keys() - {0}:
            raise ValueError(f"topic {self._name} has partition 0, got {sorted(positions)}")
        self._position = positions.get(0)

    async def poll(self, *, max_bytes: int, wait_ms: int) -> list[Delivered]:
        """See Reader."""
        if self._position is None:
            await asyncio.sleep(wait_ms / 1000)
            return []
        loop = asyncio.get_running_loop()
        ends_s = loop.time() + wait_ms / 1000
        while True:
            records = await self._topics.read(self._name, self._position, max_bytes=max_bytes)
            if records:
                self._position = records[-1].offset + 1
            left_s = ends_s - loop.time()
            if records or left_s <= 0:
                return records
            await asyncio.sleep(min(_LOOK_S, left_s))

    async def first_offsets(self, partitions: Iterable[int]) -> dict[int, int]:
        """See Reader."""
        return {partition: extent.first for partition, extent in (await self._extents(partitions)).items()}

    async def end_offsets(self, partitions: Iterable[int]) -> dict[int, int]:
        """See Reader."""
        return {partition: extent.next for partition, extent in (await self._extents(partitions)).items()}

    async def close(self) -> None:
        """See Reader."""
        self._position = None

    async def _extents(self, partitions: Iterable[int]) -> dict[int, Extent]:
        found = (await self._topics.extents([self._name])).get(self._name, {})
        return {partition: found[partition] for partition in partitions if partition in found}
