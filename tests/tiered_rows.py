"""Moves rows of finished tables into segments, as the tier role does but at once: for tests of reading."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

import msgspec

from db.database import Connection, Database
from store.segments.from_rows import batches_from_rows
from store.segments.settings import SegmentSettings
from store.segments.writing import Classify, SegmentWriter, WrittenSegment
from store.steps import AT
from store.tiers.places import Places
from tests.segment_rows import settings

SMALL = settings(row_group_rows=7, rows_max=40)
"""Many files and row groups of few rows."""
READER = SegmentSettings(readers=1, reader_threads=1, reader_memory_mib=128)

_INSERT = f"""
    INSERT INTO segments (
        name, state, tier, retention_class, sources, range_start, range_end, rows, bytes, info, epoch, serving_at)
    VALUES (%s, %s, %s, %s, %s, {AT}, {AT}, %s, %s, %s, 1, CASE WHEN %s = 'serving' THEN clock_timestamp() END)"""


async def write_segments(
    database: Database,
    directory: Path,
    table: str,
    *,
    using: SegmentSettings = SMALL,
    classify: Classify | None = None,
    name: str | None = None,
) -> list[WrittenSegment]:
    """All rows of the table as files."""
    places = Places(directory)
    places.prepare()
    writer = SegmentWriter(
        directory,
        name or table.replace(".", "_"),
        settings=using,
        classify=classify,
        filter_directory=places.filters,
    )
    async with aclosing(batches_from_rows(database, table)) as batches:
        async for batch in batches:
            writer.write(batch)
    return writer.close()


async def record(
    connection: Connection, segments: Sequence[WrittenSegment], table: str, *, state: str, tier: str = "warm"
) -> None:
    """Make them known, and the table gone or segmented, in one transaction."""
    async with connection.transaction():
        for segment in segments:
            info = segment.info
            values: tuple[Any, ...] = (
                segment.name,
                state,
                tier,
                segment.retention_class,
                [table],
                info.first_us,
                info.last_us + 1,
                info.rows,
                info.bytes,
                msgspec.json.encode(info).decode(),
                state,
            )
            await connection.execute(_INSERT.encode(), values)
        if state == "serving":
            await connection.execute(
                b"WITH gone AS (DELETE FROM catalogue WHERE table_name = %s RETURNING table_name, kind)"
                b" INSERT INTO expired_tables (table_name, kind, expired_at)"
                b" SELECT table_name, kind, clock_timestamp() FROM gone",
                (table,),
            )
        else:
            await connection.execute(
                b"UPDATE catalogue SET segmented_at = clock_timestamp() WHERE table_name = %s", (table,)
            )
