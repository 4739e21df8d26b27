"""The durable queue in PostgreSQL: the broker of the embedded profile.

Promises. An acknowledged record is committed and fsynced (INV-3). Within a partition offsets have no gaps, append times
never decrease, and records become visible in the order of their offsets: all three are handed out under the lock of the
partition's row, which is held to the commit (`logfeed_queue_append`, migration 0004). What the writers have not stored
is never deleted; other groups do not hold records back, they are told of the gap (`OffsetOutOfRange`).

Records lie in three tables that rotate, since TRUNCATE gives the space back at once where DELETE leaves work for vacuum.
`upkeep` (any process, every few seconds) closes the active table when it is a third of the limit or half of the age, and
truncates the oldest closed one when the writers have passed it and it is old, or room is needed. Each step is one
transaction under one advisory lock: safe from several processes and to kill. Rotation holds every partition's lock, so
no append straddles it; TRUNCATE moves `first_offset` in its own transaction, so a reader that finds nothing knows why.

Limits. Unread bytes are bounded by ingest, which asks `retention_risk`. The tables are shared by all topics of the
database, and a table is kept until the writers' group has passed it in every topic.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Final

import structlog

from broker.queue_producer import QueueProducer
from broker.queue_reader import QueueReader
from broker.settings import BrokerSettings
from db.database import Connection, Database, Error, sqlstate
from schemas.errors import BrokerUnavailable, ConfigurationError, DatabaseUnavailable
from schemas.topics import WRITER_GROUP

log = structlog.get_logger(__name__)

REFUSE_AT: Final = 0.8
"""Risk at which ingest refuses; the queue reaches it when the unread bytes reach their limit."""

UPKEEP_LOCK: Final = 7410
_TRUNCATE_WAIT: Final = "SET LOCAL lock_timeout = '200ms'"
"""A waiting TRUNCATE makes readers of that table wait behind it: give way soon, the next upkeep tries again."""
_ROTATE_WAIT: Final = "SET LOCAL lock_timeout = '2s'"
_UNDEFINED_TABLE: Final = "42P01"
_LOCK_NOT_AVAILABLE: Final = "55P03"

_DURABILITY: Final = (
    "SELECT name, setting FROM pg_settings WHERE name IN ('fsync', 'full_page_writes') AND setting <> 'on'"
)
_COUNT_PARTITIONS: Final = "SELECT count(*) FROM queue_partitions WHERE topic = %s"
_TAKE_LOCK: Final = "SELECT pg_advisory_xact_lock(%s)"
_TRY_LOCK: Final = "SELECT pg_try_advisory_xact_lock(%s)"
_MAKE_PARTITIONS: Final = """
INSERT INTO queue_partitions (topic, partition, slot)
SELECT %s, number, (SELECT slot FROM queue_slots WHERE state = 'active') FROM generate_series(0, %s::integer - 1) AS number
"""

# A commit beyond the end counts as the end: nothing may be deleted because somebody claims to have read the future.
# The byte position of a record that is gone, or not found while tables move, is that of the oldest one: too many unread
# bytes for a moment, never too few.
_COMMIT: Final = """
INSERT INTO queue_groups AS g (topic, group_name, partition, next_offset, bytes_done)
SELECT p.topic, %(group)s, p.partition, least(w.next_offset, p.next_offset),
    CASE WHEN w.next_offset >= p.next_offset THEN p.next_bytes
    ELSE coalesce(
        (SELECT bytes_before FROM queue_0 q WHERE (q.topic, q.partition, q."offset") = (p.topic, p.partition, w.next_offset)),
        (SELECT bytes_before FROM queue_1 q WHERE (q.topic, q.partition, q."offset") = (p.topic, p.partition, w.next_offset)),
        (SELECT bytes_before FROM queue_2 q WHERE (q.topic, q.partition, q."offset") = (p.topic, p.partition, w.next_offset)),
        p.first_bytes)
    END
FROM unnest(%(partitions)s::integer[], %(offsets)s::bigint[]) AS w (partition, next_offset)
JOIN queue_partitions p ON p.topic = %(topic)s AND p.partition = w.partition
ORDER BY p.partition
ON CONFLICT (topic, group_name, partition) DO UPDATE
SET next_offset = excluded.next_offset, bytes_done = excluded.bytes_done, committed_at = clock_timestamp()
"""
_GROUP_OFFSETS: Final = "SELECT partition, next_offset FROM queue_groups WHERE topic = %s AND group_name = %s"
_UNREAD_BYTES: Final = """
SELECT coalesce(sum(p.next_bytes - greatest(g.bytes_done, p.first_bytes)), 0)::bigint
FROM queue_partitions p
LEFT JOIN queue_groups g ON g.topic = p.topic AND g.partition = p.partition AND g.group_name = %s
WHERE p.topic = %s
"""

# The oldest closed table, when every partition's part of it was stored by the writers (or is empty), and it is old
# enough or the three together are too large.
_TRUNCATABLE: Final = """
SELECT s.slot
FROM queue_slots s
WHERE s.state = 'closed'
  AND s.generation = (SELECT min(generation) FROM queue_slots WHERE state = 'closed')
  AND (s.changed_at < clock_timestamp() - make_interval(secs => %(keep_s)s)
       OR (SELECT sum(next_bytes - first_bytes) FROM queue_partitions) > %(bytes_max)s)
  AND NOT EXISTS (
    SELECT FROM queue_ranges r
    JOIN queue_partitions p ON p.topic = r.topic AND p.partition = r.partition
    LEFT JOIN queue_groups g ON g.topic = r.topic AND g.partition = r.partition AND g.group_name = %(group)s
    WHERE r.slot = s.slot AND r.end_offset > p.first_offset AND coalesce(g.next_offset, 0) < r.end_offset)
"""
_TRUNCATE: Final = {0: b"TRUNCATE queue_0", 1: b"TRUNCATE queue_1", 2: b"TRUNCATE queue_2"}
_LOCK_PARTITIONS: Final = "SELECT FROM queue_partitions ORDER BY topic, partition FOR UPDATE"
_MOVE_FIRST: Final = """
UPDATE queue_partitions p SET first_offset = r.end_offset, first_bytes = r.end_bytes
FROM queue_ranges r WHERE r.slot = %s AND r.topic = p.topic AND r.partition = p.partition
"""
_FORGET_RANGES: Final = "DELETE FROM queue_ranges WHERE slot = %s"
_SET_SLOT: Final = (
    "UPDATE queue_slots SET state = %s, generation = generation + %s, changed_at = clock_timestamp() WHERE slot = %s"
)

# The active table and the one after it, when the active one has records, is large or old, and the next one is empty.
_ROTATABLE: Final = """
SELECT active.slot, next.slot, active.generation
FROM queue_slots active
JOIN queue_slots next ON next.slot = (active.slot + 1) %% 3 AND next.state = 'empty',
    (SELECT sum(next_bytes - slot_bytes) AS bytes, sum(next_offset - slot_offset) AS records FROM queue_partitions) AS filled
WHERE active.state = 'active' AND filled.records > 0
  AND (filled.bytes >= %(bytes_max)s / 3 OR active.changed_at < clock_timestamp() - make_interval(secs => %(keep_s)s / 2))
"""
_CLOSE_RANGES: Final = """
INSERT INTO queue_ranges (topic, partition, generation, slot, end_offset, end_bytes)
SELECT topic, partition, %s, slot, next_offset, next_bytes FROM queue_partitions
"""
_MOVE_SLOT: Final = "UPDATE queue_partitions SET slot = %s, slot_offset = next_offset, slot_bytes = next_bytes"
_OPEN_SLOT: Final = (
    "UPDATE queue_slots SET state = 'active', generation = %s, changed_at = clock_timestamp() WHERE slot = %s"
)


class QueueBroker:
    """One topic of the queue. See `Broker`."""

    def __init__(self, database: Database, settings: BrokerSettings) -> None:
        """database: opened and closed by the caller."""
        self._database = database
        self._settings = settings
        self._partitions: int | None = None

    @property
    def topic(self) -> str:
        """See Broker."""
        return self._settings.topic

    @property
    def partitions(self) -> int:
        """See Broker."""
        if self._partitions is None:
            raise RuntimeError("the broker is not open")
        return self._partitions

    async def open(self) -> None:
        """See Broker."""
        try:
            async with self._transaction() as connection:
                problems = await self._wrong_settings(connection)
                if problems:
                    raise ConfigurationError("; ".join(problems))
                count = await self._count_partitions(connection)
                if count == 0 and self._settings.create_topic:
                    count = await self._make_topic(connection)
        except Error as error:
            if sqlstate(error) == _UNDEFINED_TABLE:
                raise ConfigurationError("the database lacks the queue's tables: run `logfeed db migrate`") from error
            raise
        if count == 0:
            raise ConfigurationError(f"topic {self.topic} is missing, expected to exist: make it, or set create_topic")
        self._partitions = count

    async def _make_topic(self, connection: Connection) -> int:
        """Partitions of the topic, made here or by another process at the same moment. The lock is for this alone: a process
        that was stopped while it held it must not keep others from a topic that is there."""
        await connection.execute(_TAKE_LOCK, (UPKEEP_LOCK,))
        count = await self._count_partitions(connection)
        if count == 0:
            count = self._settings.partitions
            await connection.execute(_MAKE_PARTITIONS, (self.topic, count))
            log.info("topic made", topic=self.topic, partitions=count)
        return count

    async def look_again(self) -> list[str]:
        """See Broker."""
        try:
            async with self._transaction() as connection:
                problems = await self._wrong_settings(connection)
                count = await self._count_partitions(connection)
        except Error as error:
            if sqlstate(error) == _UNDEFINED_TABLE:
                return ["the database lacks the queue's tables"]
            raise
        if count < self.partitions:
            problems.append(f"topic {self.topic} has {count} partitions and had {self.partitions}")
        self._partitions = max(count, self.partitions)
        return problems

    async def close(self) -> None:
        """See Broker. The database is the caller's."""

    async def producer(self) -> QueueProducer:
        """See Broker."""
        return QueueProducer(
            self._database,
            self._settings,
            partitions=self.partitions,
            first_partition=random.randrange(self.partitions),
        )

    async def reader(self, *, group: str) -> QueueReader:
        """See Broker."""
        return QueueReader(
            self._database,
            topic=self.topic,
            partitions=self.partitions,
            timeout_s=self._settings.request_timeout_ms / 1000,
        )

    async def commit_group(self, group: str, offsets: Mapping[int, int]) -> None:
        """See Broker. Beyond the end counts as the end."""
        async with self._answering():
            async with self._database.connection() as connection:
                await connection.execute(
                    _COMMIT,
                    {
                        "topic": self.topic,
                        "group": group,
                        "partitions": list(offsets.keys()),
                        "offsets": list(offsets.values()),
                    },
                )

    async def group_offsets(self, group: str) -> dict[int, int]:
        """See Broker."""
        async with self._answering():
            return dict(await self._database.fetch_all(_GROUP_OFFSETS, (self.topic, group)))

    async def retention_risk(self, group: str) -> float:
        """See Broker: unread bytes as a share of their limit, so that the limit is where ingest refuses."""
        async with self._answering():
            row = await self._database.fetch_one(_UNREAD_BYTES, (group, self.topic))
        assert row is not None
        return float(REFUSE_AT * row[0] / self._settings.queue_unread_bytes_max)

    async def upkeep(self) -> None:
        """Truncate what nobody needs, close the active table when it is due. Call it every few seconds, from anywhere.

        Raises BrokerUnavailable. Where a lock is busy (a reader, another upkeep), the step is left for the next call.
        """
        try:
            async with self._answering():
                await self._truncate_oldest()
                await self._rotate()
        except BrokerUnavailable as error:
            if sqlstate(_origin(error)) != _LOCK_NOT_AVAILABLE:
                raise
            log.info("queue upkeep put off: a lock is busy")

    async def _truncate_oldest(self) -> None:
        async with self._database.transaction() as connection:
            await connection.execute(_TRUNCATE_WAIT)
            if not await self._locked(connection):
                return
            cursor = await connection.execute(_TRUNCATABLE, self._limits())
            row = await cursor.fetchone()
            if row is None:
                return
            (slot,) = row
            await connection.execute(_TRUNCATE[slot])
            await connection.execute(_LOCK_PARTITIONS)
            await connection.execute(_MOVE_FIRST, (slot,))
            await connection.execute(_FORGET_RANGES, (slot,))
            await connection.execute(_SET_SLOT, ("empty", 0, slot))
        log.info("queue table truncated", slot=slot)

    async def _rotate(self) -> None:
        async with self._database.transaction() as connection:
            await connection.execute(_ROTATE_WAIT)
            if not await self._locked(connection):
                return
            cursor = await connection.execute(_ROTATABLE, self._limits())
            row = await cursor.fetchone()
            if row is None:
                return
            slot, next_slot, generation = row
            await connection.execute(_LOCK_PARTITIONS)
            await connection.execute(_CLOSE_RANGES, (generation,))
            await connection.execute(_MOVE_SLOT, (next_slot,))
            await connection.execute(_SET_SLOT, ("closed", 0, slot))
            await connection.execute(_OPEN_SLOT, (generation + 1, next_slot))
        log.info("queue tables rotated", closed=slot, active=next_slot)

    async def _locked(self, connection: Connection) -> bool:
        row = await (await connection.execute(_TRY_LOCK, (UPKEEP_LOCK,))).fetchone()
        return row is not None and bool(row[0])

    def _limits(self) -> dict[str, object]:
        return {
            "keep_s": self._settings.queue_keep_s,
            "bytes_max": self._settings.queue_bytes_max,
            "group": WRITER_GROUP,
        }

    @staticmethod
    async def _wrong_settings(connection: Connection) -> list[str]:
        return [
            f"the database would lose acknowledged records in a crash: {name} is {setting}, expected on"
            for name, setting in await (await connection.execute(_DURABILITY)).fetchall()
        ]

    async def _count_partitions(self, connection: Connection) -> int:
        row = await (await connection.execute(_COUNT_PARTITIONS, (self.topic,))).fetchone()
        assert row is not None
        return int(row[0])

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[Connection]:
        async with self._answering(), self._database.transaction() as connection:
            yield connection

    @asynccontextmanager
    async def _answering(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._settings.request_timeout_ms / 1000):
                yield
        except (DatabaseUnavailable, TimeoutError) as error:
            raise BrokerUnavailable(f"the queue's database does not answer: {error}") from error


def _origin(error: BaseException) -> BaseException:
    """The error that started a chain of causes."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error
