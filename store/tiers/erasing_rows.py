"""Deletes rows that match from tables and dead letters, in bounded steps.

A step looks at a stretch of one table's pages, deletes what matches there, and corrects the table's figures, in one transaction
that holds the table's row of the catalogue: nobody closes, counts or writes the table to files in between. Files that were
already written of a table that loses rows retire in the same transaction; the table is due to be written anew. A closed table
that is not counted yet is left alone until it is. Tables that have left the catalogue and are not dropped yet lose their rows
too: a page that spans them may still meet those. Afterwards each table is vacuumed: what was deleted does not linger in its
pages, nor do examples of its values in the statistics.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection
from typing import Final, TypeAlias

import msgspec

from db.database import Connection, Database, Error, sqlstate
from schemas.errors import DatabaseUnavailable
from schemas.record import Log
from search.bounds import time_bounds
from search.predicate import Predicate
from search.sql import Sql
from search.sql_postgres import compile_postgres
from store.chunks import BUSY, UNDEFINED_TABLE, checked
from store.parts import LOCK
from store.tiers.catalogue import SegmentCatalogue

Removed: TypeAlias = Counter[tuple[str, str]]
"""(service_name, UTC day as ISO 8601) -> logs."""

_PAGES_A_STEP: Final = 2_048
_PAGE_BYTES: Final = 8_192
_LETTERS_A_STEP: Final = 1_000
_LETTER_BYTES_A_STEP: Final = 8 * 1024 * 1024
"""One letter may pass it: a whole record is at most one frame."""
_TABLES: Final = """
    SELECT table_name, (extract(epoch FROM range_start) * 1000000)::bigint,
        (extract(epoch FROM range_end) * 1000000)::bigint, pg_relation_size(to_regclass(table_name))
    FROM catalogue WHERE to_regclass(table_name) IS NOT NULL ORDER BY range_start, table_name"""
_LOCK: Final = "SELECT state FROM catalogue WHERE table_name = %s FOR UPDATE"
_DELETE: Final = """
    WITH gone AS (
        DELETE FROM {table} WHERE ctid >= %s::tid AND ctid < %s::tid AND ({where}) RETURNING service_name, timestamp)
    SELECT service_name, (timestamp AT TIME ZONE 'UTC')::date::text, count(*) FROM gone GROUP BY 1, 2"""
_COUNT_LESS: Final = (
    "UPDATE catalogue SET rows = rows - %s, segmented_at = NULL WHERE table_name = %s AND state = 'finished'"
)
_RETIRE: Final = """
    UPDATE segments SET state = 'retired', retired_at = clock_timestamp() WHERE state = 'written' AND sources @> ARRAY[%s]"""
# Rows of open tables are no part of the catalogue: whoever keeps pages hears of them so.
_CHANGED: Final = "UPDATE catalogue_version SET version = version + 1"
# What indexes open chunks beside them holds values of metadata. One that is being made from an older moment is waited for.
_PARTS_LOCK: Final = f"SELECT pg_advisory_xact_lock({LOCK})"
_LET_PARTS_GO: Final = """
    WITH gone AS (DELETE FROM open_parts RETURNING table_name)
    INSERT INTO expired_tables (table_name, kind, expired_at) SELECT table_name, 'part', clock_timestamp() FROM gone
    ON CONFLICT DO NOTHING"""
# Numbers of rows in open tables, those that are deleted among them. One that is being made is waited for, and goes as well.
_LET_SUMS_GO: Final = "DELETE FROM open_sums"
_PARTS_LEFT: Final = "SELECT FROM expired_tables WHERE kind = 'part' LIMIT 1"
_LEFT: Final = "SELECT table_name FROM expired_tables WHERE kind IN ('chunk', 'late') ORDER BY table_name"
_SIZE: Final = "SELECT pg_relation_size(to_regclass(%s))"
# Lengths are known without reading lines; those past the bound are not read.
_LETTERS: Final = """
    SELECT id, line FROM (
        SELECT id, line, sum(octet_length(line)) OVER (ORDER BY id ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before
        FROM (SELECT id, line FROM dead_letters WHERE id > %s ORDER BY id LIMIT %s) AS coming
    ) AS sized WHERE before IS NULL OR before < %s ORDER BY id"""
_DROP_LETTERS: Final = "DELETE FROM dead_letters WHERE id = ANY (%s)"

_line: Final = msgspec.json.Decoder(Log)


class TableRows:
    """Rows in tables, for whoever has the lease `tier`."""

    def __init__(self, database: Database, catalogue: SegmentCatalogue, predicate: Predicate) -> None:
        """predicate: of the rows to delete."""
        self._database = database
        self._catalogue = catalogue
        self._bounds = time_bounds(predicate)
        self._where: Sql = compile_postgres(predicate)

    async def delete(
        self, progress: Callable[[str, int, int], None], *, only: Collection[str] | None = None
    ) -> tuple[Removed, list[str]]:
        """What was removed, and the tables that could not be looked at yet: call again with these when they are finished.
        progress: (table, tables done, of how many). Raises StaleEpoch, DatabaseUnavailable."""
        removed, left = Removed(), []
        tables = [
            table
            for table in await self._database.fetch_all(_TABLES)
            if self._may_hold(table[1], table[2]) and (only is None or table[0] in only)
        ]
        for number, (table, _, _, size) in enumerate(tables, 1):
            found, is_left = await self._delete_from(table, -(-size // _PAGE_BYTES))
            removed += found
            if is_left:
                left.append(table)
            if found:
                async with self._database.connection() as connection:
                    await connection.execute(f"VACUUM (ANALYZE) {checked(table)}".encode())
            progress(table, number, len(tables))
        # Also where nothing was left to remove: an erasure that was killed may have come no further than this.
        if removed or only is None:
            async with self._database.transaction() as connection:
                await connection.execute(_PARTS_LOCK.encode())
                await connection.execute(_LET_PARTS_GO)
        return removed, left

    async def has_parts_left(self) -> bool:
        """Whether what indexed open tables waits to be dropped. Raises DatabaseUnavailable."""
        return await self._database.fetch_one(_PARTS_LEFT) is not None

    async def delete_copies(self) -> list[str]:
        """Delete rows from tables that have left the catalogue, after `delete`: what leaves it later has lost them. They are
        not counted: files have the same rows, or their time was over. Returns the tables that others keep locked. Raises
        StaleEpoch, DatabaseUnavailable."""
        locked = []
        for (table,) in await self._database.fetch_all(_LEFT):
            try:
                await self._delete_copies_in(table)
            except DatabaseUnavailable as error:
                if error.__cause__ is None or sqlstate(error.__cause__) not in BUSY:
                    raise
                locked.append(table)
            except Error as error:
                if sqlstate(error) != UNDEFINED_TABLE:  # dropped meanwhile
                    raise
        return locked

    def _may_hold(self, start_us: int | None, end_us: int | None) -> bool:
        low, high = self._bounds.start_us, self._bounds.end_us
        is_past = low is not None and end_us is not None and end_us <= low
        is_later = high is not None and start_us is not None and start_us >= high
        return not is_past and not is_later

    async def _delete_copies_in(self, table: str) -> None:
        first, pages = 0, 1
        while first < pages:
            async with self._catalogue.change() as connection:
                row = await (await connection.execute(_SIZE, (table,))).fetchone()
                if row is None or row[0] is None:
                    return  # dropped meanwhile
                pages = -(-row[0] // _PAGE_BYTES)
                if await self._delete_step(connection, table, first):
                    await connection.execute(_CHANGED)
            first += _PAGES_A_STEP

    async def _delete_step(self, connection: Connection, table: str, first: int) -> Removed:
        """From one stretch of pages."""
        text = _DELETE.format(table=checked(table), where=self._where.text)
        bounds = (f"({first},0)", f"({first + _PAGES_A_STEP},0)")
        cursor = await connection.execute(text.encode(), (*bounds, *self._where.params))
        return Removed({(service, day): count for service, day, count in await cursor.fetchall()})

    async def _delete_from(self, table: str, pages: int) -> tuple[Removed, bool]:
        """What was removed, and whether the table is closed and not finished: then it is to be looked at again, all of it."""
        removed = Removed()
        for first in range(0, max(1, pages), _PAGES_A_STEP):
            async with self._catalogue.change() as connection:
                row = await (await connection.execute(_LOCK, (table,))).fetchone()
                if row is None:
                    return removed, False  # it has left the catalogue: see delete_copies
                if row[0] == "closed":
                    return removed, True
                gone = await self._delete_step(connection, table, first)
                if gone:
                    await connection.execute(_COUNT_LESS, (gone.total(), table))
                    await connection.execute(_LET_SUMS_GO)
                    await connection.execute(_RETIRE, (table,))
                    await connection.execute(_CHANGED)
            removed += gone
        return removed, False


async def delete_letters(database: Database, matches: Callable[[Log], bool]) -> tuple[int, int]:
    """(dead letters deleted, letters that are no log and stay). Raises DatabaseUnavailable."""
    deleted = unreadable = 0
    last = -1
    while letters := await database.fetch_all(_LETTERS, (last, _LETTERS_A_STEP, _LETTER_BYTES_A_STEP)):
        matching = []
        for letter_id, line in letters:
            try:
                if matches(_line.decode(line)):
                    matching.append(letter_id)
            except (msgspec.MsgspecError, UnicodeDecodeError):
                unreadable += 1
        last = letters[-1][0]
        if matching:
            deleted += await database.execute(_DROP_LETTERS, (matching,))
    return deleted, unreadable
