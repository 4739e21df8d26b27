"""The floor and the usual way, on the same server in the same run: what stored logs a second are compared with.

The floor: one connection copies ready-made binary blocks of 5,000 rows, a COPY and a commit each, into a table like `logs`
(a hypertable, or a native partition) that has only the index (timestamp, id). Nothing that stores rows in PostgreSQL one
connection at a time is faster; nothing is parsed, encoded or checked.

The usual way: INSERTs, a thousand a transaction, pipelined and prepared by the driver, into a table with the four indexes
that answer the same questions, kept up row by row.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, LiteralString

from bench.figures import ProfileFigures
from bench.lines import Form, bodies, moulds
from bench.options import Options
from bench.processes import usage
from bench.progress import progress
from bench.quantiles import median
from bench.site import Site
from db.database import Connection, connect
from infra.fleet import FULL
from schemas.frames import decode_lines
from schemas.ids import first_id_at
from schemas.record import LogLine
from store.rows import COLUMNS, COPY_HEADER, COPY_TRAILER, encode_rows

BLOCK_ROWS: Final = 5_000
_BLOCKS_FIRST: Final = 20
_BLOCKS_MAX: Final = 400
"""Ready-made blocks in memory at once: 2 million rows, 700 MB."""
_INSERTS_A_BATCH: Final = 1_000
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

_TABLE: Final[dict[bool, LiteralString]] = {
    True: """
        CREATE TABLE floor (LIKE logs);
        SELECT create_hypertable('floor', by_range('timestamp', interval '1 day'), create_default_indexes => false)""",
    False: """
        CREATE TABLE floor (LIKE logs) PARTITION BY RANGE (timestamp);
        CREATE TABLE floor_partition PARTITION OF floor FOR VALUES FROM ('2020-01-01') TO ('2200-01-01')""",
}
_FLOOR_INDEX: Final = "CREATE INDEX ON floor (timestamp, id)"
_USUAL_INDEXES: Final = """
    CREATE INDEX ON floor (timestamp, id);
    CREATE INDEX ON floor (id);
    CREATE INDEX ON floor (correlation_id);
    CREATE INDEX ON floor (service_name, timestamp)"""
_INSERT: Final = f"INSERT INTO floor ({COLUMNS}) VALUES (%s, %s, %s, %s, %s, %s, %s::jsonb)"


async def measure(site: Site, options: Options, figures: ProfileFigures) -> None:
    """floor_rows_per_s, naive_rows_per_s, and the database's CPU time a row of both."""
    is_hypertable = site.fleet.profile == FULL
    async with await connect(site.fleet.database_url, application_name="bench floor") as connection:
        lines = _lines()
        floor, floor_cpu = await _floor(connection, site, options, lines, is_hypertable)
        figures.put("floor_rows_per_s", floor)
        figures.put("cpu_us_per_log.floor", floor_cpu)
        naive, naive_cpu = await _naive(connection, site, options, lines, is_hypertable)
        figures.put("naive_rows_per_s", naive)
        figures.put("cpu_us_per_log.naive", naive_cpu)


async def _floor(
    connection: Connection, site: Site, options: Options, lines: Iterator[LogLine], is_hypertable: bool
) -> tuple[float, float]:
    """Rows a second, the median repetition's; the database's CPU µs a row, the median too."""
    blocks = [_block(lines) for _ in range(_BLOCKS_FIRST)]
    first, _ = await _copy_into_new(connection, site, blocks, is_hypertable)
    needed = int(first * options.floor_s / BLOCK_ROWS) + 1
    blocks += [_block(lines) for _ in range(min(needed, _BLOCKS_MAX) - len(blocks))]
    measured = []
    for number in range(options.floor_repetitions):
        measured.append(await _copy_into_new(connection, site, blocks, is_hypertable))
        progress(f"floor {number + 1}: {measured[-1][0]:,.0f} rows/s, {measured[-1][1]:.2f} µs a row")
    return median([rate for rate, _ in measured]), median([cpu for _, cpu in measured])


async def _copy_into_new(
    connection: Connection, site: Site, blocks: Sequence[bytes], is_hypertable: bool
) -> tuple[float, float]:
    await connection.execute(_TABLE[is_hypertable])
    await connection.execute(_FLOOR_INDEX)
    began_s, cpu_s = time.monotonic(), usage([site.database_pid]).cpu_s
    for block in blocks:
        async with connection.cursor() as cursor:
            async with cursor.copy(f"COPY floor ({COLUMNS}) FROM STDIN (FORMAT binary)".encode()) as copy:
                await copy.write(block)
    rows, took_s = len(blocks) * BLOCK_ROWS, time.monotonic() - began_s
    cpu_us = (usage([site.database_pid]).cpu_s - cpu_s) / rows * 1e6
    await connection.execute("DROP TABLE floor")
    return rows / took_s, cpu_us


async def _naive(
    connection: Connection, site: Site, options: Options, lines: Iterator[LogLine], is_hypertable: bool
) -> tuple[float, float]:
    """Rows a second, and the database's CPU µs a row."""
    await connection.execute(_TABLE[is_hypertable])
    await connection.execute(_USUAL_INDEXES)
    connection.prepare_threshold = 0
    rows, busy_s, cpu_s = 0, 0.0, usage([site.database_pid]).cpu_s
    while busy_s < options.naive_s:
        batch = [_parameters(next(lines)) for _ in range(_INSERTS_A_BATCH)]
        began_s = time.monotonic()
        async with connection.transaction(), connection.cursor() as cursor:
            await cursor.executemany(_INSERT, batch)
        busy_s += time.monotonic() - began_s
        rows += len(batch)
    cpu_us = (usage([site.database_pid]).cpu_s - cpu_s) / rows * 1e6
    await connection.execute("DROP TABLE floor")
    progress(f"the usual way: {rows / busy_s:,.0f} rows/s, {cpu_us:.1f} µs a row")
    return rows / busy_s, cpu_us


def _lines() -> Iterator[LogLine]:
    """Rows for ever, ids and timestamps rising from now on by a microsecond."""
    now_us = time.time_ns() // 1000
    first_id = first_id_at(now_us // 1000)
    number = 0
    for body in bodies(moulds(16, seed=3, form=Form.FRAME)):
        for line in decode_lines(body):
            line.id, line.timestamp = first_id + number, now_us + number
            number += 1
            yield line


def _block(lines: Iterator[LogLine]) -> bytes:
    rows = encode_rows([next(lines) for _ in range(BLOCK_ROWS)])
    return b"".join([COPY_HEADER, *(row.copy_bytes for row in rows), COPY_TRAILER])


def _parameters(line: LogLine) -> tuple[Any, ...]:  # Any: what the driver takes
    return (
        _EPOCH + timedelta(microseconds=line.timestamp),
        line.id,
        line.level,
        line.service_name,
        line.correlation_id,
        line.message,
        bytes(line.metadata).decode(),
    )
