"""A store with as many processes on it as a test needs, seen from outside the code under test."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, TypeVar

import msgspec

from db.database import Database
from db.migrations import Layout
from schemas.record import LogLine
from store.memory import MemoryDatabase, MemoryStore
from store.port import EncodedRow, LedgerRow, Outcome, Upkeep, WriteStore
from store.postgres_write import PostgresWriteStore
from store.rows import encode_row
from store.settings import StoreSettings
from store.upkeep import PostgresUpkeep

TOPIC = "logs.v1"
HOUR_US = 3_600_000_000
AHEAD_US = 1_000 * 24 * HOUR_US
"""How far tests move the time of upkeep: past every retention."""
Stored = list[tuple[int, str]]


class Site(Protocol):
    """A store, seen from outside."""

    upkeep: Upkeep

    def process(self, topic: str = TOPIC) -> WriteStore:
        """The store as one more process has it."""

    async def rows(self) -> Stored:
        """(id, message) of every row, by id."""

    async def ledger(self) -> dict[str, int]:
        """outcome -> sum."""

    async def dead_lines(self) -> list[bytes]:
        """The lines kept aside."""

    async def stored_to_us(self, partition: int) -> int | None:
        """The partition's stored_to; None before there is one."""

    async def see(self, seen_us: int, *, but: int | None = None) -> None:
        """Everything up to this time, which may be to come, is stored; except in one partition."""


@dataclass
class PostgresSite:
    """Site over a database; further connections for what only a database can do."""

    database: Database
    layout: Layout
    upkeep: Upkeep
    processes: list[PostgresWriteStore]

    def process(self, topic: str = TOPIC) -> PostgresWriteStore:
        self.processes.append(PostgresWriteStore(self.database, topic, self.layout))
        return self.processes[-1]

    @cached_property
    def writer(self) -> PostgresWriteStore:
        """A process for storing what a test needs."""
        return self.process()

    async def rows(self) -> Stored:
        late = await self.database.fetch_all("SELECT table_name FROM catalogue WHERE kind = 'late'")
        tables = ["logs", *(name for (name,) in late)]
        union = " UNION ALL ".join(f"SELECT id, message FROM {table}" for table in tables)
        return [(log_id, message) for log_id, message in await self.database.fetch_all(f"{union} ORDER BY 1")]

    async def ledger(self) -> dict[str, int]:
        rows = await self.database.fetch_all("SELECT outcome, sum(count)::bigint FROM ledger GROUP BY 1")
        return dict(rows)

    async def dead_lines(self) -> list[bytes]:
        return [line for (line,) in await self.database.fetch_all("SELECT line FROM dead_letters ORDER BY id")]

    async def stored_to_us(self, partition: int) -> int | None:
        row = await self.database.fetch_one(
            "SELECT CASE WHEN isfinite(stored_to) THEN (extract(epoch FROM stored_to) * 1000000)::bigint END"
            " FROM consumer_offsets WHERE topic = %s AND partition = %s",
            (TOPIC, partition),
        )
        return None if row is None else row[0]

    async def see(self, seen_us: int, *, but: int | None = None) -> None:
        await self.database.execute(
            "UPDATE consumer_offsets SET stored_to = timestamptz 'epoch' + %s::bigint * interval '1 microsecond'"
            " WHERE topic = %s AND partition IS DISTINCT FROM %s",
            (seen_us, TOPIC, but),
        )

    async def backend(self, partition: int) -> tuple[Any, ...] | None:
        """(pid, start) beside the partition's lease."""
        return await self.database.fetch_one(
            "SELECT backend_pid, backend_start FROM consumer_offsets WHERE topic = %s AND partition = %s",
            (TOPIC, partition),
        )


@dataclass
class MemorySite:
    """Site over the store in memory."""

    memory: MemoryDatabase
    upkeep: Upkeep

    def process(self, topic: str = TOPIC) -> WriteStore:
        return MemoryStore(self.memory)

    async def rows(self) -> Stored:
        return sorted((log.id, log.message) for log in self.memory.rows())

    async def ledger(self) -> dict[str, int]:
        sums: dict[str, int] = {}
        for (_, _, _, outcome, _), count in self.memory.ledger.items():
            sums[str(outcome)] = sums.get(str(outcome), 0) + count
        return sums

    async def dead_lines(self) -> list[bytes]:
        return [letter.line for letter in self.memory.dead]

    async def stored_to_us(self, partition: int) -> int | None:
        return self.memory.partitions[partition].stored_to_us or None

    async def see(self, seen_us: int, *, but: int | None = None) -> None:
        for number, partition in self.memory.partitions.items():
            if number != but:
                partition.stored_to_us = seen_us


@asynccontextmanager
async def postgres_site(
    url: str, layout: Layout, store_settings: StoreSettings | None = None
) -> AsyncIterator[PostgresSite]:
    """A site on a migrated database; ends its processes' connections."""
    database = Database(url, application_name="test")
    await database.open()
    upkeep = PostgresUpkeep(database, TOPIC, layout, store_settings or StoreSettings(), ahead_us_max=AHEAD_US)
    site = PostgresSite(database, layout, upkeep, [])
    try:
        yield site
    finally:
        for process in site.processes:
            await process.close()
        await database.close()


S = TypeVar("S", bound=Site)


async def prepared(site: S) -> S:
    """The site with chunks for now and three partitions."""
    await site.upkeep.ensure_chunks(now_us=now_us())
    await site.process().register_partitions(TOPIC, 3)
    return site


def now_us() -> int:
    """The machine's time."""
    return time.time_ns() // 1000


def row(log_id: int, timestamp_us: int, message: str = "m", **fields: object) -> EncodedRow:
    """A row to store."""
    line: dict[str, object] = {
        "id": log_id,
        "timestamp": timestamp_us,
        "level": 9,
        "service_name": "api",
        "message": message,
        "correlation_id": None,
        "metadata": msgspec.Raw(b"{}"),
    }
    return encode_row(LogLine(**(line | fields)))  # type: ignore[arg-type]  # the fields are spelled above


def booked(count: int, outcome: Outcome = Outcome.STORED) -> list[LedgerRow]:
    """The ledger of so many rows."""
    return [LedgerRow(now_us() // 60_000_000 * 60_000_000, "api", 9, outcome, "", count)] if count else []
