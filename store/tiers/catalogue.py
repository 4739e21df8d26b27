"""All changes of the table of segments: which files there are, and who has the rows, a table or a file.

Each method is one transaction that holds the row of the lease `tier` at the epoch of whoever makes the change; one whose
lease went to another raises StaleEpoch and has changed nothing. Each looks again at what it relies on, under the locks of what
it changes: two processes that both believe they lead do no harm. Times are the database's clock, except `now_us`, by which
things are due.

Readers see every change whole, in their own snapshot. What has gone from it may still be read for ten minutes.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import msgspec

from db.database import Connection, Database
from db.leases import Lease
from schemas.errors import LogfeedError, Overloaded
from store.segments.writing import WrittenSegment
from store.steps import AT, US, one
from store.tiers.segments import SEGMENTS, Segment, SegmentState, Tier, segments_of

TIER: Final = "tier"
"""Name of the lease."""

_LOCK_TIMEOUT_MS: Final = 10_000
_FENCE: Final = "SELECT epoch FROM leases WHERE name = 'tier' FOR SHARE"
_TABLES: Final = f"""
    SELECT table_name, kind, {US.format("range_start")}, {US.format("range_end")}, rows, segmented_at IS NOT NULL,
        extract(epoch FROM clock_timestamp() - finished_at)::float8
    FROM catalogue WHERE state = 'finished' ORDER BY range_start, table_name"""
_LOCK_TABLE: Final = """
    SELECT rows, segmented_at IS NOT NULL FROM catalogue WHERE table_name = %s AND state = 'finished' FOR UPDATE"""
_INSERT: Final = f"""
    INSERT INTO segments (
        name, state, tier, retention_class, sources, range_start, range_end, rows, bytes, info, epoch, serving_at)
    VALUES (%s, %s, 'warm', %s, %s, {AT}, {AT}, %s, %s, %s::jsonb, %s, CASE %s WHEN 'serving' THEN clock_timestamp() END)"""
_SEGMENTED: Final = "UPDATE catalogue SET segmented_at = clock_timestamp() WHERE table_name = %s"
_UNSEGMENTED: Final = "UPDATE catalogue SET segmented_at = NULL WHERE table_name = %s"
_RETIRE_OF_TABLE: Final = """
    UPDATE segments SET state = 'retired', retired_at = clock_timestamp() WHERE state = 'written' AND sources @> ARRAY[%s]"""
_SERVE: Final = """
    UPDATE segments SET state = 'serving', serving_at = clock_timestamp() WHERE state = 'written' AND sources @> ARRAY[%s]"""
_LET_TABLE_GO: Final = """
    WITH gone AS (DELETE FROM catalogue WHERE table_name = %s RETURNING table_name, kind)
    INSERT INTO expired_tables (table_name, kind, expired_at) SELECT table_name, kind, clock_timestamp() FROM gone
    ON CONFLICT DO NOTHING"""
_LOCK_SEGMENTS: Final = """
    SELECT name FROM segments WHERE name = ANY (%s) AND state = %s ORDER BY name FOR UPDATE"""
_RETIRE: Final = "UPDATE segments SET state = 'retired', retired_at = clock_timestamp() WHERE name = ANY (%s)"
_MOVE: Final = f"""
    UPDATE segments SET tier = %s, moved_at = clock_timestamp(), warm_until = {AT}
    WHERE name = %s AND state = 'serving' AND tier <> %s"""
_ROWS_WRITTEN: Final = """
    SELECT coalesce(sum(rows), 0)::bigint FROM segments WHERE state = 'written' AND sources @> ARRAY[%s]"""
# They serve, or the sealer has dropped their table.
_ALONE: Final = """(state = 'serving'
    OR state = 'written' AND NOT EXISTS (SELECT FROM catalogue WHERE table_name = ANY (sources)))"""
# Of a table that is still there every file stays: the switch lets the table go on the word of its files.
_EXPIRE: Final = f"""
    UPDATE segments AS s SET state = 'retired', retired_at = clock_timestamp()
    WHERE {_ALONE}
        AND range_end <= (SELECT {AT.replace("%s", "(%s - coalesce(max(age), %s))")}
        FROM unnest(%s::text[], %s::bigint[]) AS found (class, age) WHERE class = s.retention_class)
    RETURNING name"""
_COLD_DUE: Final = (
    f"state = 'serving' AND tier = 'warm' AND range_end <= {AT} AND (warm_until IS NULL OR warm_until <= {AT})"
    f" AND (rows > %s OR bytes > %s OR serving_at <= {AT})"
)
_SMALL: Final = "state = 'serving' AND tier = 'warm' AND warm_until IS NULL AND rows <= %s AND bytes <= %s"
_TOTALS: Final = "SELECT tier, state, count(*), sum(bytes)::bigint FROM segments GROUP BY 1, 2"
_RETIRED: Final = f"""state = 'retired' AND retired_at <= {AT} AND (moved_at IS NOT NULL) = %s AND NOT EXISTS (
    SELECT FROM segments AS later WHERE later.name = ANY (%s) AND segments.name = ANY (later.sources))"""
_MOVED: Final = f"""
    SELECT name FROM segments WHERE name = ANY (%s) AND tier = 'cold' AND moved_at <= {AT} ORDER BY name FOR UPDATE"""


class StaleEpoch(Overloaded):
    """Another process moves rows now: the lease `tier` went to it."""


class RowsDiffer(LogfeedError):
    """The files do not have as many rows as their table."""


class FinishedTable(msgspec.Struct, frozen=True):
    """A table to which no row comes any more."""

    name: str
    kind: str
    """chunk or late."""
    start_us: int
    end_us: int
    """Exclusive. Both are 0 for a late table without rows."""
    rows: int
    is_segmented: bool
    """All its rows are in segments."""
    finished_s: float
    """How long ago it was finished."""


class SegmentCatalogue:
    """The table of segments, for whoever has the lease."""

    def __init__(self, database: Database, lease: Lease) -> None:
        """lease: of the name TIER, on the same database."""
        self._database = database
        self.lease = lease

    async def tables(self) -> list[FinishedTable]:
        """Finished tables, oldest first."""
        return [
            FinishedTable(name, kind, start_us or 0, end_us or 0, rows, is_segmented, finished_s)
            for name, kind, start_us, end_us, rows, is_segmented, finished_s in await self._database.fetch_all(_TABLES)
        ]

    async def segments(self, *states: SegmentState) -> list[Segment]:
        """Those in these states, by time."""
        rows = await self._database.fetch_all(SEGMENTS.format("state = ANY (%s)"), ([state.value for state in states],))
        return list(segments_of(rows))

    async def alone(self) -> list[Segment]:
        """Those that have rows which no table of the catalogue has, whether or not readers ask them; by time."""
        return list(segments_of(await self._database.fetch_all(SEGMENTS.format(_ALONE))))

    async def cold_due(
        self, *, end_us: int, now_us: int, small: tuple[int, int] = (-1, -1), settled_us: int = 0
    ) -> list[Segment]:
        """Warm ones that serve, all of them older than end_us, and that nobody has asked back until after now_us. Those that
        have at most as many rows and bytes as `small` have served since settled_us."""
        asked = (end_us, now_us, *small, settled_us)
        return list(segments_of(await self._database.fetch_all(SEGMENTS.format(_COLD_DUE), asked)))

    async def small(self, *, rows_max: int, bytes_max: int) -> list[Segment]:
        """Warm ones that serve and have no more than that, those that were asked back left out; by time."""
        return list(segments_of(await self._database.fetch_all(SEGMENTS.format(_SMALL), (rows_max, bytes_max))))

    async def totals(self) -> dict[tuple[Tier, SegmentState], tuple[int, int]]:
        """(tier, state) -> files, bytes; none is left out."""
        found = {(tier, state): (0, 0) for tier in Tier for state in SegmentState}
        for tier, state, files, size in await self._database.fetch_all(_TOTALS):
            found[Tier(tier), SegmentState(state)] = (files, size)
        return found

    async def retired(self, *, before_us: int, were_cold: bool, missing: Collection[str]) -> list[Segment]:
        """Those that nobody reads any more since then, or earlier. were_cold: those that have an object, or have had one.
        missing: segments without a file; what they were made of is left out."""
        asked = (before_us, were_cold, [*missing])
        return list(segments_of(await self._database.fetch_all(SEGMENTS.format(_RETIRED), asked)))

    async def names(self) -> set[str]:
        """Of all segments, whatever their state."""
        return {name for (name,) in await self._database.fetch_all("SELECT name FROM segments")}

    async def warm_names(self) -> set[str]:
        """Of those whose file is on the disk, and read: what is missing there is lost, or the disk is another one."""
        found = await self._database.fetch_all("SELECT name FROM segments WHERE state <> 'retired' AND tier = 'warm'")
        return {name for (name,) in found}

    async def has_objects(self) -> bool:
        """Whether any file is, or was, in object storage, where it may be still."""
        found = "SELECT FROM segments WHERE tier = 'cold' OR moved_at IS NOT NULL LIMIT 1"
        return await self._database.fetch_one(found) is not None

    async def has_cold(self) -> bool:
        """Whether any is read from object storage."""
        found = "SELECT FROM segments WHERE state <> 'retired' AND tier = 'cold' LIMIT 1"
        return await self._database.fetch_one(found) is not None

    def begun(self) -> int:
        """Epoch of what is begun now and recorded later. Raises StaleEpoch."""
        if self.lease.epoch is None:
            raise StaleEpoch
        return self.lease.epoch

    async def record(self, table: str, written: Sequence[WrittenSegment], *, epoch: int) -> bool:
        """These files have all rows of the table. False: it has gone, or others have recorded theirs. epoch: of the lease when
        they were begun, since another leader may have put them aside. Raises RowsDiffer."""
        async with self.change(epoch) as connection:
            found = await (await connection.execute(_LOCK_TABLE, (table,))).fetchone()
            if found is None or found[1]:
                return False
            if (rows := sum(each.info.rows for each in written)) != found[0]:
                raise RowsDiffer(f"{table} has {found[0]} rows, its segments have {rows}")
            await self._insert(connection, written, SegmentState.WRITTEN, [table])
            await connection.execute(_SEGMENTED, (table,))
            return True

    async def switch(self, table: str) -> bool:
        """Its segments have its rows from now on, and the table leaves the catalogue; one without rows just goes. False: it
        has gone, or its segments have. Raises RowsDiffer."""
        async with self.change() as connection:
            found = await (await connection.execute(_LOCK_TABLE, (table,))).fetchone()
            if found is None or not (found[1] or found[0] == 0):
                return False
            (rows,) = await one(connection, _ROWS_WRITTEN, (table,))
            if rows != found[0]:
                raise RowsDiffer(f"{table} has {found[0]} rows, its segments have {rows}")
            await connection.execute(_SERVE, (table,))
            await connection.execute(_LET_TABLE_GO, (table,))
            return True

    async def take_back(self, table: str) -> bool:
        """The table's segments are no good: they retire, and it is due to be written anew. False: it has gone."""
        async with self.change() as connection:
            if await (await connection.execute(_LOCK_TABLE, (table,))).fetchone() is None:
                return False
            await connection.execute(_RETIRE_OF_TABLE, (table,))
            await connection.execute(_UNSEGMENTED, (table,))
            return True

    async def replace(self, old: Sequence[Segment], written: Sequence[WrittenSegment], *, epoch: int) -> bool:
        """These files are in the place of others, which are in one state and retire. False: one of those is in another state
        by now. epoch: as for `record`. Whoever calls answers for the rows."""
        names, state = [segment.name for segment in old], old[0].state
        async with self.change(epoch) as connection:
            locked = await (await connection.execute(_LOCK_SEGMENTS, (names, state.value))).fetchall()
            if len(locked) != len(names):
                return False
            await self._insert(connection, written, state, names)
            await connection.execute(_RETIRE, (names,))
            return True

    async def move(self, name: str, tier: Tier, *, warm_until_us: int | None = None) -> bool:
        """Readers get it there from now on. False: it does not serve any more, or is there already."""
        async with self.change() as connection:
            return (await connection.execute(_MOVE, (tier.value, warm_until_us, name, tier.value))).rowcount > 0

    async def expire(self, ages_us: Mapping[str, int], *, longest_us: int, now_us: int) -> list[str]:
        """Retire those whose rows are all past their class's age; of a class that is not named: past the longest. Those whose
        table has the rows too wait for the switch."""
        ages = (now_us, longest_us, [*ages_us], [*ages_us.values()])
        async with self.change() as connection:
            return [name for (name,) in await (await connection.execute(_EXPIRE, ages)).fetchall()]

    async def forget(self, names: Sequence[str]) -> None:
        """These retired ones have no file any more."""
        async with self.change() as connection:
            await connection.execute("DELETE FROM segments WHERE state = 'retired' AND name = ANY (%s)", ([*names],))

    async def moved(self, connection: Connection, names: Sequence[str], *, before_us: int) -> list[str]:
        """Within `change`: which of these are cold, and were by then; they stay so until it is committed."""
        return [name for (name,) in await (await connection.execute(_MOVED, ([*names], before_us))).fetchall()]

    @asynccontextmanager
    async def change(self, begun: int | None = None) -> AsyncIterator[Connection]:
        """A transaction in which nobody else can begin to lead. begun: epoch since which nobody else may have led. Raises
        StaleEpoch, DatabaseUnavailable."""
        async with self._database.transaction() as connection:
            await connection.execute(f"SET LOCAL lock_timeout = {_LOCK_TIMEOUT_MS}".encode())
            row = await (await connection.execute(_FENCE)).fetchone()
            epoch = self.lease.epoch
            if epoch is None or row is None or row[0] != epoch or begun not in (None, epoch):
                raise StaleEpoch
            yield connection

    async def _insert(
        self, connection: Connection, written: Sequence[WrittenSegment], state: SegmentState, sources: Sequence[str]
    ) -> None:
        rows: list[tuple[Any, ...]] = [  # Any: whatever psycopg adapts
            (
                *(each.name, state.value, each.retention_class, [*sources]),
                *(each.info.first_us, each.info.last_us + 1, each.info.rows, each.info.bytes),
                *(msgspec.json.encode(each.info).decode(), self.lease.epoch, state.value),
            )
            for each in written
        ]
        async with connection.cursor() as cursor:
            await cursor.executemany(_INSERT, rows)

    async def settled_names(self) -> set[str]:
        """As `names`, once no change is under way any more: each holds the lease's row until its transaction is over, also
        where its client has gone. Raises DatabaseUnavailable, also where one takes longer than 10 s."""
        async with self._database.transaction() as connection:
            await connection.execute(f"SET LOCAL lock_timeout = {_LOCK_TIMEOUT_MS}".encode())
            await connection.execute("SELECT FROM leases WHERE name = 'tier' FOR UPDATE")
            return {name for (name,) in await (await connection.execute("SELECT name FROM segments")).fetchall()}
