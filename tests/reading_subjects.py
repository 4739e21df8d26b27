"""Stores under test, with the means to bring them into any state that writers, upkeep and the tier role can."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol, Self

from db.database import Connection, Database, connect
from db.migrations import Layout
from runtime.clock import Clock
from schemas.ids import first_id_at
from schemas.record import Log
from schemas.scope import ALL_SERVICES, ServiceScope
from schemas.topics import LOGS_TOPIC
from search.match import compile_match
from search.predicate import EVERYTHING, Predicate
from store.chunks import chunk_layout
from store.memory import CHUNK_US, MemoryDatabase, MemoryStore
from store.port import Border, LedgerRow, Order, ReadStore, Scan, ScanResult
from store.postgres_read import PostgresReadStore
from store.segments.settings import SegmentSettings
from store.tiers.access import SegmentAccess
from store.tiers.retention import RetentionPolicy
from store.upkeep import PostgresUpkeep
from tests.tiered_rows import READER, SMALL, record, write_segments

SECOND = 1_000_000
HOUR = 3_600 * SECOND
T0 = 1_767_225_600 * SECOND
"""2026-01-01T00:00:00Z: where open storage begins in these tests; a chunk begins here."""
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Subject(Protocol):
    """A store under test, with the means to bring it into any state that writers and upkeep can."""

    store: ReadStore

    async def open_chunks(self, starts_us: Iterable[int]) -> None:
        """Make chunks of CHUNK_US."""

    async def put(self, logs: Iterable[Log]) -> None:
        """Store rows as a writer would: older ones than the border in the late generation."""

    async def close_before(self, border_us: int) -> None:
        """Move the border."""

    async def finish(self) -> None:
        """Count and index what is closed."""

    async def end_late(self) -> None:
        """Begin the next late generation."""

    async def set_partitions(self, partitions: dict[int, tuple[int, int | None]]) -> None:
        """partition -> (next offset, stored_to); the last one is halted."""

    async def book(self, rows: Sequence[LedgerRow], *, rolled_up: bool) -> None:
        """Append to the ledger."""

    async def reset(self) -> None:
        """Nothing stored, border at T0."""

    async def close(self) -> None:
        """Free everything."""


class MemorySubject:
    """MemoryStore."""

    def __init__(self, *, page_bytes_max: int = 8 << 20) -> None:
        self.database = MemoryDatabase()
        self.database.border = Border(T0, 1)
        self.store: ReadStore = MemoryStore(self.database, page_bytes_max=page_bytes_max)

    async def open_chunks(self, starts_us: Iterable[int]) -> None:
        for start_us in starts_us:
            self.database.chunks.setdefault(start_us, [])

    async def put(self, logs: Iterable[Log]) -> None:
        border = self.database.border
        for log in logs:
            if log.timestamp < border.closed_before_us:
                self.database.late[border.late_generation].rows.append(log)
            else:
                self.database.chunks[log.timestamp - log.timestamp % CHUNK_US].append(log)

    async def close_before(self, border_us: int) -> None:
        self.database.border = Border(border_us, self.database.border.late_generation)

    async def finish(self) -> None:
        await MemoryStore(self.database).finish_closed()

    async def end_late(self) -> None:
        border = self.database.border
        self.database.border = Border(border.closed_before_us, border.late_generation + 1)
        self.database.late[border.late_generation + 1] = replace(self.database.late[1], rows=[])

    async def set_partitions(self, partitions: dict[int, tuple[int, int | None]]) -> None:
        await MemoryStore(self.database).register_partitions(LOGS_TOPIC, max(partitions) + 1)
        for number, (offset, stored_us) in partitions.items():
            partition = self.database.partitions[number]
            partition.next_offset, partition.stored_to_us = offset, stored_us or 0

    async def book(self, rows: Sequence[LedgerRow], *, rolled_up: bool) -> None:
        for row in rows:
            key = (row.minute_us, row.service_name, row.level, row.outcome.value, row.reason)
            self.database.ledger[key] += row.count

    async def reset(self) -> None:
        fresh = MemoryDatabase()
        fresh.border = Border(T0, 1)
        self.database.__dict__.update(fresh.__dict__)

    async def close(self) -> None:
        pass


class PostgresSubject:
    """PostgresReadStore; the state is made by plain statements and the real upkeep."""

    def __init__(self, url: str, layout: Layout, *, page_bytes_max: int = 8 << 20) -> None:
        self.database = Database(url, application_name="reading", connections_max=4)
        self.layout = layout
        self.store: ReadStore = PostgresReadStore(self.database, LOGS_TOPIC, layout, page_bytes_max=page_bytes_max)
        self._url = url
        self._connection: Connection | None = None
        self._border_us = T0
        self._generation = 1

    async def open(self) -> Self:
        await self.database.open()
        self._connection = await connect(self._url, application_name="reading's hand")
        await self.run("UPDATE border SET closed_before = %s", moment(T0))
        return self

    @property
    def connection(self) -> Connection:
        assert self._connection is not None
        return self._connection

    async def run(self, query: str, *params: Any) -> list[tuple[Any, ...]]:
        cursor = await self.connection.execute(query.encode(), params or None)
        return await cursor.fetchall() if cursor.description else []

    async def open_chunks(self, starts_us: Iterable[int]) -> None:
        chunks = chunk_layout(self.layout)
        for start_us in starts_us:
            await chunks.create(self.connection, start_us, start_us + CHUNK_US)
        for chunk in await chunks.chunks(self.connection):
            await self.run(
                "INSERT INTO catalogue (table_name, kind, state, range_start, range_end)"
                " VALUES (%s, 'chunk', 'open', %s, %s) ON CONFLICT DO NOTHING",
                chunk.table_name,
                moment(chunk.start_us),
                moment(chunk.end_us),
            )

    async def put(self, logs: Iterable[Log]) -> None:
        logs = list(logs)
        async with self.connection.transaction():
            for late in (False, True):
                rows = [row(log) for log in logs if (log.timestamp < self._border_us) is late]
                table = f"logs_late_{self._generation}" if late else "logs"
                statement = f"INSERT INTO {table} VALUES (%s, %s, %s, %s, %s, %s, %s)"
                if rows:
                    await self.connection.cursor().executemany(statement.encode(), rows)

    async def close_before(self, border_us: int) -> None:
        self._border_us = border_us
        await self.run("UPDATE border SET closed_before = %s", moment(border_us))
        await self.run(
            "UPDATE catalogue SET state = 'closed' WHERE kind = 'chunk' AND state = 'open' AND range_end <= %s",
            moment(border_us),
        )

    async def finish(self) -> None:
        await PostgresUpkeep(self.database, LOGS_TOPIC, self.layout).finish_closed()
        assert await self.run("SELECT 1 FROM catalogue WHERE state = 'closed'") == []

    async def end_late(self) -> None:
        old, new = f"logs_late_{self._generation}", f"logs_late_{self._generation + 1}"
        await self.run(f"CREATE TABLE {new} (LIKE {old} INCLUDING ALL)")
        await self.run(
            "INSERT INTO catalogue (table_name, kind, generation, state) VALUES (%s, 'late', %s, 'open')",
            new,
            self._generation + 1,
        )
        await self.run("UPDATE catalogue SET state = 'closed' WHERE table_name = %s", old)
        self._generation += 1
        await self.run("UPDATE border SET late_generation = %s", self._generation)

    async def set_partitions(self, partitions: dict[int, tuple[int, int | None]]) -> None:
        for number, (offset, stored_us) in partitions.items():
            await self.run(
                "INSERT INTO consumer_offsets (topic, partition, next_offset, stored_to, halted)"
                " VALUES (%s, %s, %s, coalesce(%s, '-infinity'::timestamptz), %s)",
                LOGS_TOPIC,
                number,
                offset,
                None if stored_us is None else moment(stored_us),
                "halted here" if number == len(partitions) - 1 else None,
            )

    async def book(self, rows: Sequence[LedgerRow], *, rolled_up: bool) -> None:
        for booked in rows:
            await self.run(
                "INSERT INTO ledger (minute, service_name, level, outcome, reason, count, appended_at)"
                " VALUES (%s, %s, %s, %s, %s, %s, clock_timestamp() - %s * interval '1 hour')",
                moment(booked.minute_us),
                booked.service_name,
                booked.level,
                booked.outcome.value,
                booked.reason,
                booked.count,
                int(rolled_up),
            )
        upkeep = PostgresUpkeep(self.database, LOGS_TOPIC, self.layout)
        await upkeep.roll_up_ledger(now_us=await upkeep.clock_us())

    async def reset(self) -> None:
        await self.run("DELETE FROM logs")
        for (name,) in await self.run("SELECT table_name FROM catalogue WHERE kind = 'late'"):
            await self.run(f"DELETE FROM {name}" if name == "logs_late_1" else f"DROP TABLE {name}")
        await self.run("DELETE FROM catalogue WHERE kind = 'late' AND generation > 1")
        await self.run("UPDATE catalogue SET state = 'open', rows = NULL, id_min = NULL, id_max = NULL")
        await self.run("UPDATE catalogue SET range_start = NULL, range_end = NULL WHERE kind = 'late'")
        self._border_us, self._generation = T0, 1
        await self.run("UPDATE border SET closed_before = %s, late_generation = 1", moment(T0))

    async def close(self) -> None:
        await self.connection.close()
        await self.database.close()


class TieredSubject(PostgresSubject):
    """PostgresReadStore over rows that leave their tables as soon as these are finished."""

    HOMES: tuple[tuple[str, bool], ...] = (("serving", False), ("written", False), ("serving", True))
    """In turn: files instead of the table, which waits to be dropped; files beside the table; files alone."""
    USING: SegmentSettings = SMALL
    """How files are written."""

    def __init__(
        self,
        url: str,
        layout: Layout,
        directory: Path,
        *,
        page_bytes_max: int = 8 << 20,
        access: SegmentAccess | None = None,
        retention: RetentionPolicy | None = None,
        clock: Clock | None = None,
    ) -> None:
        super().__init__(url, layout)
        self.directory = directory
        self.access = access or SegmentAccess(directory, READER)
        self.store = PostgresReadStore(
            self.database,
            LOGS_TOPIC,
            layout,
            page_bytes_max=page_bytes_max,
            clock=clock,
            segments=self.access,
            retention=retention,
        )
        self._moved = 0

    async def finish(self) -> None:
        await super().finish()
        tables = await self.run(
            "SELECT table_name FROM catalogue"
            " WHERE state = 'finished' AND rows > 0 AND segmented_at IS NULL ORDER BY finished_at, table_name"
        )
        for (table,) in tables:
            state, is_dropped = self.HOMES[self._moved % len(self.HOMES)]
            self._moved += 1
            written = await write_segments(
                self.database, self.directory, table, using=self.USING, name=f"moved_{self._moved}"
            )
            await record(self.connection, written, table, state=state)
            if is_dropped:
                await self.run(f"DELETE FROM {table}")
        if tables:  # as the query service does: a question's budget may be shorter than a start
            await self.access.start_readers()

    async def reset(self) -> None:
        await self.run("DELETE FROM segments")
        await self.run("UPDATE catalogue SET segmented_at = NULL")
        for table, kind in await self.run("DELETE FROM expired_tables RETURNING table_name, kind"):
            if kind == "late":
                await self.run(
                    "INSERT INTO catalogue (table_name, kind, generation, state) VALUES (%s, 'late', %s, 'open')",
                    table,
                    int(table.rpartition("_")[2]),
                )
        await self.open_chunks(())
        await super().reset()

    async def close(self) -> None:
        await self.access.close()
        await super().close()


def moment(us: int) -> datetime:
    return EPOCH + timedelta(microseconds=us)


def row(log: Log) -> tuple[Any, ...]:
    return (
        moment(log.timestamp),
        log.id,
        log.level,
        log.service_name,
        log.correlation_id,
        log.message,
        json.dumps(log.metadata),
    )


def a_log(number: int, *, at: int, **changes: Any) -> Log:
    """The log with this number, at `at` µs after T0, received in the order of the numbers."""
    fields: dict[str, Any] = {
        "level": 9,
        "service_name": "shop",
        "message": f"message {number}",
        "correlation_id": None,
        "metadata": {"n": number},
    }
    return Log(id=first_id_at(T0 // 1000) + number + 1, timestamp=T0 + at, **{**fields, **changes})


def ids(logs: Iterable[Log]) -> list[int]:
    return [log.id for log in logs]


def in_order(logs: Iterable[Log], order: Order) -> list[Log]:
    return sorted(logs, key=lambda log: (log.timestamp, log.id), reverse=order is Order.NEWEST_FIRST)


async def scan(
    store: ReadStore, predicate: Predicate = EVERYTHING, *, allowed: ServiceScope = ALL_SERVICES, **options: Any
) -> ScanResult:
    options = {"order": Order.NEWEST_FIRST, "limit": 100, **options}
    async with store.snapshot() as snapshot:
        return await snapshot.scan(Scan(predicate, **options), allowed=allowed)


async def walk(
    store: ReadStore, predicate: Predicate = EVERYTHING, *, allowed: ServiceScope = ALL_SERVICES, **options: Any
) -> list[Log]:
    """All rows, page by page, a new snapshot for each."""
    found: list[Log] = []
    after = options.pop("after", None)
    while True:
        result = await scan(store, predicate, allowed=allowed, after=after, **options)
        found += result.logs
        if result.scanned_to is None:
            assert result.finished
            return found
        assert not result.finished
        after = result.scanned_to


def counted(
    logs: Iterable[Log],
    predicate: Predicate = EVERYTHING,
    *,
    allowed: ServiceScope = ALL_SERVICES,
    start_us: int,
    end_us: int,
    width_us: int,
    origin_us: int,
) -> dict[tuple[int, int], int]:
    """What a count of these logs is, by looking at each."""
    matches = compile_match(predicate)
    return Counter(
        (log.timestamp - (log.timestamp - origin_us) % width_us, log.level)
        for log in logs
        if start_us <= log.timestamp < end_us and allowed.permits(log.service_name) and matches(log)
    )


async def with_many_places(subject: Subject, *, metadata: Sequence[dict[str, Any]] = ()) -> list[Log]:
    """Rows in two closed chunks (one finished), two open ones, an ended and an open late generation; some equal times.
    metadata: of the rows, in turn."""
    await subject.open_chunks(T0 + n * CHUNK_US for n in range(4))
    services = ("shop", "pay", "pay/cards", "mail")
    logs = [
        a_log(
            n,
            at=(n * 7919 % 240) * 6 * 60 * SECOND,
            service_name=services[n % 4],
            level=(9, 13, 17, 21)[n // 4 % 4],
            correlation_id=f"story-{n % 5}" if n % 3 else None,
            message=f"Order {n} was {'paid' if n % 2 else 'refused'}",
            metadata=metadata[n * 13 % 300 % len(metadata)] if metadata else {"n": n},
        )
        for n in range(300)
    ]
    await subject.put(logs[:100])
    await subject.close_before(T0 + CHUNK_US)
    await subject.finish()
    await subject.put(logs[100:180])
    await subject.end_late()
    await subject.put(logs[180:240])
    await subject.finish()
    await subject.close_before(T0 + 2 * CHUNK_US)
    await subject.put(logs[240:])
    return logs
