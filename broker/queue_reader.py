"""Reads the queue by polling indexed ranges; keeps positions, no records.

TRUNCATE is not MVCC: a snapshot older than it sees the table empty. So every read names one table, and what it returns is
used only where it continues the position without a gap; an answer that lacks the position is explained by a later
statement that reads the queue's bounds, in READ COMMITTED. Records are never skipped: the position is returned, or
OffsetOutOfRange is raised, or nothing is there yet.

An idle reader costs one small query per 100 ms; a record is seen within 5 to 100 ms of its commit.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

import msgspec

from broker.port import Delivered
from db.database import Connection, Database
from schemas.errors import BrokerUnavailable, DatabaseUnavailable, OffsetOutOfRange

_BACKOFF_MIN_S: Final = 0.005
_BACKOFF_MAX_S: Final = 0.1
_LOOK_EVERY_S: Final = 0.1
"""While some partitions have a backlog, the others are looked at this often."""
_ATTEMPTS_MAX: Final = 8
"""Reads that may find a table rotated away before the database is taken to be wrong."""
_RECORDS_PER_PARTITION_MAX: Final = 256

_headers_decoder: Final = msgspec.msgpack.Decoder(list[tuple[str, bytes]])

# One statement, one snapshot: bounds, and the table that holds the position (the oldest one that ends after it).
_LOOK: Final = """
SELECT p.partition, p.first_offset, p.next_offset,
    coalesce((SELECT r.slot FROM queue_ranges r
              WHERE r.topic = p.topic AND r.partition = p.partition AND r.end_offset > w.position
              ORDER BY r.generation LIMIT 1), p.slot)
FROM unnest(%s::integer[], %s::bigint[]) AS w (partition, position)
JOIN queue_partitions p ON p.topic = %s AND p.partition = w.partition
"""

# LATERAL with LIMIT: one bounded index range per partition whatever the planner believes about tables that nobody
# analyses. The sum runs over the partitions' records in turn, so that none starves and each gives a prefix. Only the
# values of the rows returned are read from TOAST.
_READ: Final = """
SELECT partition, "offset", append_ms, headers, value
FROM (SELECT r.*,
          sum(size_bytes) OVER in_turn AS bytes_through,
          row_number() OVER in_turn AS number
      FROM unnest(%s::integer[], %s::bigint[]) AS w (partition, position)
      CROSS JOIN LATERAL (
          SELECT q.partition, q."offset", q.append_ms, q.size_bytes, q.headers, q.value, q."offset" - w.position AS turn
          FROM {table} q
          WHERE q.topic = %s AND q.partition = w.partition
            AND q."offset" >= w.position AND q."offset" < w.position + {records_max}
          ORDER BY q."offset" LIMIT {records_max}) r
      WINDOW in_turn AS (ORDER BY turn, r.partition ROWS UNBOUNDED PRECEDING)) AS taken
WHERE bytes_through <= %s OR number <= %s
ORDER BY partition, "offset"
"""
_READ_SLOT: Final = {
    slot: _READ.format(table=f"queue_{slot}", records_max=_RECORDS_PER_PARTITION_MAX).encode() for slot in (0, 1, 2)
}
_BOUNDS: Final = (
    "SELECT partition, first_offset, next_offset FROM queue_partitions WHERE topic = %s AND partition = ANY(%s)"
)


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a partition's next record is looked for. `end`: the end offset when that was asked."""

    slot: int
    end: int


class QueueReader:
    """See `Reader`."""

    def __init__(self, database: Database, *, topic: str, partitions: int, timeout_s: float) -> None:
        """timeout_s: bound of each statement."""
        self._database = database
        self._topic = topic
        self._partitions = partitions
        self._timeout_s = timeout_s
        self._positions: dict[int, int] = {}
        self._places: dict[int, _Place] = {}
        self._turn = 0
        """Of the tables, where partitions are in several."""
        self._look_at_s = 0.0
        self._backoff_s = _BACKOFF_MIN_S
        self._read_at_s = 0.0
        """Loop's time before which nothing new is looked for, where a poll may wait."""

    async def seek(self, positions: Mapping[int, int]) -> None:
        """See Reader. Raises ValueError for a partition that the topic does not have."""
        unknown = [partition for partition in positions if not 0 <= partition < self._partitions]
        if unknown:
            raise ValueError(f"topic {self._topic} has partitions 0..{self._partitions - 1}, got {unknown}")
        self._positions = dict(positions)
        self._places = {}
        self._look_soon()

    async def poll(self, *, max_bytes: int, wait_ms: int) -> list[Delivered]:
        """See Reader."""
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + wait_ms / 1000
        while True:
            if (pause_s := min(self._read_at_s, deadline_s) - loop.time()) > 0:
                await asyncio.sleep(pause_s)
            records = await self._read(max_bytes) if self._positions else []
            now_s = loop.time()
            if records:
                self._look_soon()
                return records
            # Kept from poll to poll: who polls often would otherwise ask as often as one who has just had something.
            self._read_at_s = now_s + self._backoff_s
            self._backoff_s = min(self._backoff_s * 2, _BACKOFF_MAX_S)
            if now_s >= deadline_s:
                return []

    def _look_soon(self) -> None:
        self._read_at_s, self._backoff_s = 0.0, _BACKOFF_MIN_S

    async def first_offsets(self, partitions: Iterable[int]) -> dict[int, int]:
        """See Reader."""
        return {partition: first for partition, first, _ in await self._bounds(partitions)}

    async def end_offsets(self, partitions: Iterable[int]) -> dict[int, int]:
        """See Reader."""
        return {partition: end for partition, _, end in await self._bounds(partitions)}

    async def close(self) -> None:
        """See Reader."""
        self._positions = {}
        self._places = {}

    async def _read(self, max_bytes: int) -> list[Delivered]:
        for _ in range(_ATTEMPTS_MAX):
            if not self._behind() or asyncio.get_running_loop().time() >= self._look_at_s:
                await self._look()
            if not self._behind():
                return []
            records = await self._fetch(max_bytes)
            if records:
                return records
            self._look_at_s = 0.0
        raise BrokerUnavailable(
            f"topic {self._topic}: records within the queue's bounds cannot be read: {self._positions}"
        )

    def _behind(self) -> dict[int, int]:
        """Partitions known to have records at their position."""
        return {
            partition: position
            for partition, position in self._positions.items()
            if partition in self._places and position < self._places[partition].end
        }

    async def _look(self) -> None:
        """Learn bounds and tables. Raises OffsetOutOfRange for the first position that is outside."""
        async with self._connection() as connection:
            cursor = await connection.execute(
                _LOOK, (list(self._positions.keys()), list(self._positions.values()), self._topic)
            )
            rows = await cursor.fetchall()
        bounds = {partition: (first, end) for partition, first, end, _ in rows}
        for partition, position in self._positions.items():
            first, end = bounds.get(partition, (0, 0))
            if not first <= position <= end:
                raise OffsetOutOfRange(partition=partition, wanted=position, first=first, end=end)
        self._places = {partition: _Place(slot, end) for partition, _, end, slot in rows}
        self._look_at_s = asyncio.get_running_loop().time() + _LOOK_EVERY_S

    async def _fetch(self, max_bytes: int) -> list[Delivered]:
        by_slot: defaultdict[int, dict[int, int]] = defaultdict(dict)
        for partition, position in self._behind().items():
            by_slot[self._places[partition].slot][partition] = position
        records: list[Delivered] = []
        bytes_left = max_bytes
        # Each table is the first in its turn: else the backlog in one takes all the bytes of every poll, a partition that is
        # still in an older table starves, and that table can never be truncated.
        slots = sorted(by_slot)
        first = self._turn % len(slots)
        self._turn += 1
        for slot in (*slots[first:], *slots[:first]):
            found = await self._fetch_slot(slot, by_slot[slot], bytes_left, at_least=0 if records else 1)
            records += found
            bytes_left -= sum(_size_bytes(record) for record in found)
            if bytes_left <= 0:
                break
        # Only now, with no await between this and the return: a failed or cancelled poll loses nothing.
        for record in records:
            self._positions[record.partition] = record.offset + 1
        return records

    async def _fetch_slot(
        self, slot: int, positions: dict[int, int], bytes_max: int, *, at_least: int
    ) -> list[Delivered]:
        """What the table has at the positions, as far as it continues them."""
        async with self._connection() as connection:
            cursor = connection.cursor(binary=True)
            await cursor.execute(
                _READ_SLOT[slot],
                (list(positions.keys()), list(positions.values()), self._topic, bytes_max, at_least),
            )
            rows = await cursor.fetchall()
        records = []
        expected = dict(positions)
        for partition, offset, append_ms, headers, value in rows:
            if offset == expected[partition]:
                expected[partition] = offset + 1
                records.append(Delivered(partition, offset, append_ms, _headers_decoder.decode(headers), value))
        if any(expected[partition] == position for partition, position in positions.items()):
            self._look_at_s = 0.0  # its records moved to another table, or there was no room: look before the next read
        return records

    async def _bounds(self, partitions: Iterable[int]) -> list[tuple[int, int, int]]:
        async with self._connection() as connection:
            cursor = await connection.execute(_BOUNDS, (self._topic, list(partitions)))
            return [(partition, first, end) for partition, first, end in await cursor.fetchall()]

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Connection]:
        try:
            async with asyncio.timeout(self._timeout_s), self._database.connection() as connection:
                yield connection
        except (DatabaseUnavailable, TimeoutError) as error:
            raise BrokerUnavailable(f"the queue's database does not answer: {error}") from error


def _size_bytes(record: Delivered) -> int:
    return len(record.value) + sum(len(name) + len(value) for name, value in record.headers)
