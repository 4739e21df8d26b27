"""The division of `logs` by time: chunks of a hypertable, or native partitions.

Promise: making a chunk never waits for a writer and never makes one wait; not even for one that was stopped in the
middle of a COPY. Both layouts take SHARE UPDATE EXCLUSIVE on `logs` (which COPY does not mind), with a lock_timeout, in
one message to the server, which is one transaction: a sealer that is stopped holds nothing. Dropping takes a table away
from whoever still reads it and is therefore tried, never waited for long. Everything can be killed anywhere and repeated.

Chunks begin at whole multiples of their length since the Unix epoch, except where older chunks of another length leave
a smaller gap. Names are our own or TimescaleDB's and stand in SQL as they are.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any, Final, Protocol, TypeVar

from db.database import Connection, Database, Error, sqlstate
from db.migrations import Layout

LOCK_TIMEOUT_MS: Final = 2_000
"""How long upkeep waits for a lock, at most. Longer than deadlock_timeout (1 s), after which an autovacuum gives way."""
DEADLOCK: Final = "40P01"
BUSY: Final = ("55P03", DEADLOCK)
"""Lock not available in time, deadlock: try again."""
DETACHING: Final = "55000"
"""Another partition's DETACH CONCURRENTLY is under way, or was interrupted."""
UNDEFINED_TABLE: Final = "42P01"
EXISTS_ALREADY: Final = ("42P07", "42710", "42P17", "23505")
"""Somebody made the same table, index or partition at the same moment."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_NAME: Final = re.compile(r"[a-z_][a-z0-9_]*(\.[a-z_][a-z0-9_]*)?")
_ATTEMPTS: Final = 3
_ATTEMPT_PAUSE_S: Final = 0.2
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Chunk:
    """A table that takes start <= timestamp < end."""

    table_name: str
    start_us: int
    end_us: int


class ChunkLayout(Protocol):
    """How chunks are made, listed and dropped. Connections are autocommit, with a lock_timeout."""

    @property
    def listing(self) -> str:
        """A query for (table_name, start_us, end_us) of all chunks, oldest first; of one moment within one statement."""

    async def chunks(self, connection: Connection) -> list[Chunk]:
        """All chunks, oldest first."""

    async def create(self, connection: Connection, start_us: int, end_us: int) -> None:
        """Make a chunk for the range, which no chunk covers yet."""

    async def drop(self, connection: Connection, table_name: str) -> None:
        """Drop a chunk with its rows; nothing happens when it is gone."""


class TimescaleChunks:
    """Chunks of a hypertable. create_chunk() is not in the Apache edition: a row that nobody sees makes the chunk."""

    listing: Final = """
        SELECT quote_ident(chunk_schema) || '.' || quote_ident(chunk_name) AS table_name,
            (extract(epoch FROM range_start) * 1000000)::bigint AS start_us,
            (extract(epoch FROM range_end) * 1000000)::bigint AS end_us
        FROM timescaledb_information.chunks
        WHERE hypertable_schema = current_schema() AND hypertable_name = 'logs' ORDER BY range_start"""

    async def chunks(self, connection: Connection) -> list[Chunk]:
        """See ChunkLayout."""
        return await _listed(connection, self.listing)

    async def create(self, connection: Connection, start_us: int, end_us: int) -> None:
        """See ChunkLayout. TimescaleDB itself cuts the range where it would overlap others."""
        start = _time(start_us).isoformat()
        await connection.execute(
            f"""SELECT set_chunk_time_interval('logs', interval '{end_us - start_us:d} microseconds')
                FROM timescaledb_information.dimensions
                WHERE hypertable_schema = current_schema() AND hypertable_name = 'logs'
                  AND time_interval <> interval '{end_us - start_us:d} microseconds';
                INSERT INTO logs (timestamp, id, level, service_name, message, metadata)
                VALUES ('{start}', 0, 1, '', '', '{{}}');
                DELETE FROM logs WHERE timestamp = '{start}' AND id = 0 AND service_name = ''""".encode()
        )

    async def drop(self, connection: Connection, table_name: str) -> None:
        """See ChunkLayout."""
        for chunk in await self.chunks(connection):
            if chunk.table_name == table_name:
                await connection.execute(
                    "SELECT drop_chunks('logs', older_than => %s::timestamptz, newer_than => %s::timestamptz)",
                    (_time(chunk.end_us), _time(chunk.start_us)),
                )


class NativeChunks:
    """Partitions of a plain table: `logs_20261122t06` begins at that hour, UTC."""

    @cached_property
    def listing(self) -> str:
        """See ChunkLayout."""
        bound = "(extract(epoch FROM {bound}::timestamptz) * 1000000)::bigint"
        return _partitions("logs", bound, names=("table_name", "start_us", "end_us"))

    async def chunks(self, connection: Connection) -> list[Chunk]:
        """See ChunkLayout."""
        return await _listed(connection, self.listing)

    async def create(self, connection: Connection, start_us: int, end_us: int) -> None:
        """See ChunkLayout."""
        start, end = _time(start_us), _time(end_us)
        await attach_partition(connection, "logs", f"logs_{start:%Y%m%dt%H}", start.isoformat(), end.isoformat())

    async def drop(self, connection: Connection, table_name: str) -> None:
        """See ChunkLayout."""
        await drop_partition(connection, "logs", table_name)


def chunk_layout(layout: Layout) -> ChunkLayout:
    """The strategy of a layout."""
    return TimescaleChunks() if layout is Layout.TIMESCALE else NativeChunks()


def missing_ranges(chunks: Sequence[Chunk], *, start_us: int, end_us: int, chunk_us: int) -> list[tuple[int, int]]:
    """The ranges to make so that [start, end) is covered: whole slots of chunk_us, less what chunks cover already."""
    ranges = []
    covered = sorted((chunk.start_us, chunk.end_us) for chunk in chunks)
    for slot in range(start_us - start_us % chunk_us, end_us, chunk_us):
        free, slot_end = slot, slot + chunk_us
        for start, end in covered:
            if end <= free or start >= slot_end:
                continue
            if start > free:
                ranges.append((free, start))
            free = end
        if free < slot_end:
            ranges.append((free, slot_end))
    return ranges


async def partitions(connection: Connection, parent: str, bound_sql: str) -> list[tuple[str, Any, Any]]:
    """(name, from, to) of a native table's partitions; `bound_sql` turns {bound}, the bound as text, into a value."""
    cursor = await connection.execute(_partitions(parent, bound_sql, names=("name", "start", "past")).encode())
    return [(name, start, end) for name, start, end in await cursor.fetchall()]


async def attach_partition(connection: Connection, parent: str, name: str, start: str, end: str) -> None:
    """Make a partition beside the table and attach it. start, end: ISO 8601 text of our own.

    CREATE TABLE … PARTITION OF would take ACCESS EXCLUSIVE on the parent. ATTACH finds indexes that match the parent's.
    """
    await connection.execute(
        f"""CREATE TABLE {checked(name)} (LIKE {checked(parent)} INCLUDING ALL);
            ALTER TABLE {parent} ATTACH PARTITION {name} FOR VALUES FROM ('{start}') TO ('{end}')""".encode()
    )


async def pending_detaches(connection: Connection, parent: str) -> list[str]:
    """Partitions whose DETACH CONCURRENTLY was interrupted: no other one can be detached before they are finalised."""
    cursor = await connection.execute(
        f"""SELECT c.relname FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid
            WHERE i.inhparent = '{checked(parent)}'::regclass AND i.inhdetachpending ORDER BY 1""".encode()
    )
    return [name for (name,) in await cursor.fetchall()]


async def finalise_detach(connection: Connection, parent: str, name: str) -> None:
    """Finish an interrupted DETACH CONCURRENTLY; the table stays, with its rows."""
    statement = f"ALTER TABLE {checked(parent)} DETACH PARTITION {checked(name)} FINALIZE"
    await connection.execute(statement.encode())


async def detached_tables(connection: Connection, parent: str) -> list[str]:
    """Tables named `<parent>_YYYYMMDD` that are no partitions any more: whoever detached them did not come to drop them."""
    cursor = await connection.execute(
        f"""SELECT c.relname FROM pg_class AS c JOIN pg_class AS p ON p.oid = '{checked(parent)}'::regclass
            WHERE c.relnamespace = p.relnamespace AND c.relkind = 'r' AND NOT c.relispartition
              AND c.relname ~ '^{parent}_[0-9]{{8}}$' ORDER BY 1""".encode()
    )
    return [name for (name,) in await cursor.fetchall()]


async def drop_partition(connection: Connection, parent: str, name: str) -> None:
    """DETACH CONCURRENTLY, DROP. Finishes what was begun and killed; nothing happens when the table is gone."""
    cursor = await connection.execute(
        """SELECT i.inhdetachpending FROM pg_class AS c LEFT JOIN pg_inherits AS i ON c.oid = i.inhrelid
           WHERE c.oid = to_regclass(%s)""",
        (checked(name),),
    )
    row = await cursor.fetchone()
    if row is None:
        return
    if row[0] is not None:
        how = "FINALIZE" if row[0] else "CONCURRENTLY"
        await connection.execute(f"ALTER TABLE {checked(parent)} DETACH PARTITION {name} {how}".encode())
    await connection.execute(f"DROP TABLE IF EXISTS {name}".encode())


@asynccontextmanager
async def patient(database: Database, lock_timeout_ms: int = LOCK_TIMEOUT_MS) -> AsyncIterator[Connection]:
    """A pooled connection whose statements wait for locks only so long. Raises as `Database.connection`."""
    async with database.connection() as connection:
        await connection.execute(f"SET lock_timeout = {lock_timeout_ms:d}".encode())
        try:
            yield connection
        finally:
            if not connection.closed:
                await connection.rollback()
                await connection.execute("RESET lock_timeout")


async def retried(action: Callable[[], Awaitable[Result]], *, again_on: Sequence[str] = BUSY) -> Result:
    """Run the action, again after these SQLSTATEs: three times in all, then the error goes up."""
    for attempt in range(1, _ATTEMPTS):
        try:
            return await action()
        except Error as error:
            if sqlstate(error) not in again_on:
                raise
        await asyncio.sleep(_ATTEMPT_PAUSE_S * attempt)
    return await action()


def _partitions(parent: str, bound_sql: str, *, names: tuple[str, str, str]) -> str:
    """The query of `partitions`; names: of its columns."""
    name, *ends = names
    bounds = ", ".join(
        bound_sql.format(bound=f"substring(pg_get_expr(c.relpartbound, c.oid) FROM '{pattern}')") + f" AS {end}"
        for pattern, end in zip((r"FROM \(''([^'']+)''\)", r"TO \(''([^'']+)''\)"), ends, strict=True)
    )
    return f"""
        SELECT c.relname AS {name}, {bounds} FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid
        WHERE i.inhparent = '{checked(parent)}'::regclass AND NOT i.inhdetachpending ORDER BY 2"""


async def _listed(connection: Connection, listing: str) -> list[Chunk]:
    return [Chunk(*row) for row in await (await connection.execute(listing.encode())).fetchall()]


def _time(us: int) -> datetime:
    return _EPOCH + timedelta(microseconds=us)


def checked(name: str) -> str:
    """A table's name that can stand in SQL as it is."""
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no name of ours for a table")
    return name
