"""Fills a store for the questions: rows over seven days as the pipeline would have left them, without waiting seven days.

Rows are made by the project's own encoder and copied in the order of time into chunks that the project's own layout made.
The newest fifth is in the open part (behind the border, few indexes, summaries and parts up to date); older chunks are closed
and then finished by the project's own upkeep, so that their bulk indexes are those of production. One connection; the encoder
and the server work side by side: about 7 µs a row, and 8 more for the indexes.

At known depths stand rows with a word that is nowhere else; every so often a row is remembered, to be asked for.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from bench.lines import LOGS_PER_REQUEST, ORDER_KEY, Form, bodies, moulds
from bench.options import Options
from bench.progress import progress
from bench.site import Site
from db.database import Connection, Database
from db.migrations import Layout
from infra.fleet import FULL
from schemas.frames import decode_lines
from schemas.ids import SEQUENCES, first_id_at
from schemas.record import LogLine
from store.batches import copy_rows
from store.chunks import chunk_layout
from store.port import OpenIndex
from store.rows import encode_rows
from store.settings import StoreSettings
from store.upkeep import PostgresUpkeep

DAYS: Final = 7
_OPEN_SHARE: Final = 0.2
_OPEN_US_MIN: Final = 20 * 60 * 1_000_000
"""The open part is at least so long: right after a chunk's beginning the chunk before it stays open too."""
_HOUR_US: Final = 3_600_000_000
_COPY_ROWS: Final = 20_000
_REMEMBERED: Final = 4_000
_NEEDLE_DEPTH_MAX: Final = 2_000_000
_MOULDS: Final = 64
_BORDER: Final = "SELECT (extract(epoch FROM closed_before) * 1000000)::bigint FROM border"
_MOVE_BORDER: Final = "UPDATE border SET closed_before = timestamptz 'epoch' + %s::bigint * interval '1 microsecond'"
_ASKED: Final = "INSERT INTO asked_keys (key, asked_at) VALUES (%s, clock_timestamp())"
"""As the first question by a key has it: that one is answered row by row."""
_SIZES: Final = """
    SELECT CASE state WHEN 'open' THEN 'open' ELSE 'finished' END, sum(pg_total_relation_size(to_regclass(table_name)))
    FROM catalogue WHERE kind = 'chunk' GROUP BY 1"""


@dataclass(frozen=True, slots=True)
class Known:
    """A row that is there."""

    timestamp_us: int
    log_id: int
    correlation_id: str


@dataclass(frozen=True, slots=True)
class Needle:
    """A word that stands in one row only."""

    word: str
    depth_rows: int
    """Rows that are newer."""


@dataclass(frozen=True, slots=True)
class OldNeedle:
    """A word that stands in one row only, of the older half."""

    word: str
    timestamp_us: int


@dataclass(slots=True)
class Filled:
    """What was put into the store."""

    rows: int
    open_rows: int
    start_us: int
    end_us: int
    known: list[Known] = field(default_factory=list)
    """Evenly over all rows, oldest first."""
    needles: list[Needle] = field(default_factory=list)
    old_needles: list[OldNeedle] = field(default_factory=list)
    bytes_per_log: dict[str, float] = field(default_factory=dict)
    """Tier (open, finished) -> bytes of tables and indexes a row."""


async def filled_once(site: Site, options: Options) -> Filled:
    """Fill the site's store unless another section has; it must be empty then."""
    if site.filled is None:
        progress(f"filling the store with {options.rows:,} rows")
        site.filled = await _fill(site, options)
    return site.filled


async def _fill(site: Site, options: Options) -> Filled:
    layout = Layout.TIMESCALE if site.fleet.profile == FULL else Layout.NATIVE
    database = Database(site.fleet.database_url, application_name="bench fill", connections_max=4)
    await database.open()
    upkeep = PostgresUpkeep(database, site.fleet.topic, layout)
    try:
        async with database.connection() as connection:
            border_us = await _border(connection)
            await _make_chunks(connection, layout, border_us)
            await upkeep.ensure_chunks(now_us=time.time_ns() // 1000)
            filled = await _copy_all(connection, options, border_us)
        progress("closing and indexing the older chunks")
        await upkeep.finish_closed()
        progress("indexing the open part as a sealer has when writers are at rest")
        await database.execute(_ASKED, (ORDER_KEY,))
        for by in OpenIndex:
            await upkeep.index_open(by)
        await upkeep.summarise()
        async with database.connection() as connection:
            # What autovacuum would have done by then, so that it does not do it while questions are timed.
            await connection.execute("VACUUM (ANALYZE) logs")
            await connection.execute("CHECKPOINT")
            rows = {"open": filled.open_rows, "finished": filled.rows - filled.open_rows}
            for tier, size in await (await connection.execute(_SIZES)).fetchall():
                if rows[tier]:
                    filled.bytes_per_log[tier] = int(size) / rows[tier]
        return filled
    finally:
        await database.close()


async def _border(connection: Connection) -> int:
    """Where the open part begins, moved back by a chunk when the present one has only begun."""
    row = await (await connection.execute(_BORDER)).fetchone()
    assert row is not None
    border_us = int(row[0])
    if time.time_ns() // 1000 - border_us < _OPEN_US_MIN:
        border_us -= StoreSettings().chunk_hours * _HOUR_US
        await connection.execute(_MOVE_BORDER, (border_us,))
    return border_us


async def _make_chunks(connection: Connection, layout: Layout, border_us: int) -> None:
    chunk_us = StoreSettings().chunk_hours * _HOUR_US
    for start_us in range(border_us - DAYS * 24 * _HOUR_US, border_us, chunk_us):
        await chunk_layout(layout).create(connection, start_us, start_us + chunk_us)


async def _copy_all(connection: Connection, options: Options, border_us: int) -> Filled:
    now_us = time.time_ns() // 1000
    open_rows = int(options.rows * _OPEN_SHARE)
    filled = Filled(options.rows, open_rows, border_us - DAYS * 24 * _HOUR_US, now_us)
    filled.needles = needles(options.rows, options.questions)
    old = {
        options.rows // 2 * number // options.questions: f"old-needle-{number:04}x"
        for number in range(options.questions)
    }
    words = {options.rows - 1 - needle.depth_rows: needle.word for needle in filled.needles} | old
    times = [
        *_parts(filled.start_us, border_us, options.rows - open_rows),
        *_parts(border_us, now_us, open_rows),
    ]
    lines = _lines()
    every = max(1, options.rows // _REMEMBERED)
    row_number, said = 0, 0
    for first_us, last_us, count in times:
        batch = [next(lines) for _ in range(count)]
        for number, line in enumerate(batch):
            line.timestamp = first_us + (last_us - first_us) * number // count
            line.id = first_id_at(line.timestamp // 1000) + row_number % SEQUENCES
            if row_number in words:
                line.message = f"looked for {words[row_number]} and found it"
            if row_number in old:
                filled.old_needles.append(OldNeedle(old[row_number], line.timestamp))
            if row_number % every == 0:
                assert line.correlation_id is not None
                filled.known.append(Known(line.timestamp, line.id, line.correlation_id))
            row_number += 1
        await copy_rows(connection, "logs", encode_rows(batch))
        if row_number * 10 // options.rows > said:
            said = row_number * 10 // options.rows
            progress(f"{row_number:,} of {options.rows:,} rows")
    return filled


def needles(rows: int, how_many: int) -> list[Needle]:
    """Words at even distances, from a twentieth of the depth that is searched down to all of it."""
    deepest = min(rows, _NEEDLE_DEPTH_MAX) - 1
    least = deepest // 20
    step = (deepest - least) / max(1, how_many - 1)
    return [Needle(f"needle-{number:04}x", least + int(number * step)) for number in range(how_many)]


def _parts(start_us: int, end_us: int, rows: int) -> Iterator[tuple[int, int, int]]:
    """(first, end, rows) of each batch, so that `rows` are even over [start, end)."""
    for first in range(0, rows, _COPY_ROWS):
        count = min(_COPY_ROWS, rows - first)
        yield (
            start_us + (end_us - start_us) * first // rows,
            start_us + (end_us - start_us) * (first + count) // rows,
            count,
        )


def _lines() -> Iterator[LogLine]:
    for body in bodies(moulds(_MOULDS, logs=LOGS_PER_REQUEST, seed=5, form=Form.FRAME)):
        yield from decode_lines(body)


def of_both_ages(known: Sequence[Known], border: float = 1 - _OPEN_SHARE) -> tuple[list[Known], list[Known]]:
    """(in finished chunks, in the open part)."""
    place = int(len(known) * border)
    return list(known[:place]), list(known[place:])
