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
from typing import Any, Final

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
_SUSTAINED_S: Final = (60.0, 120.0)
"""Shorter runs are compared with the repetitions alone; longer ones would need more disk than they tell."""
_INSERTS_A_BATCH: Final = 1_000
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

_TABLE: Final[dict[bool, str]] = {
    True: """
        CREATE TABLE {table} (LIKE logs);
        SELECT create_hypertable('{table}', by_range('timestamp', interval '1 day'), create_default_indexes => false);""",
    False: """
        CREATE TABLE {table} (LIKE logs) PARTITION BY RANGE (timestamp);
        CREATE TABLE {table}_partition PARTITION OF {table} FOR VALUES FROM ('2020-01-01') TO ('2200-01-01');""",
}
_FLOOR_INDEX: Final = "CREATE INDEX ON {table} (timestamp, id)"
_USUAL_INDEXES: Final = """
    CREATE INDEX ON {table} (timestamp, id);
    CREATE INDEX ON {table} (id);
    CREATE INDEX ON {table} (correlation_id);
    CREATE INDEX ON {table} (service_name, timestamp)"""
_INSERT: Final = f"INSERT INTO floor ({COLUMNS}) VALUES (%s, %s, %s, %s, %s, %s, %s::jsonb)"


async def measure(site: Site, options: Options, figures: ProfileFigures) -> None:
    """floor_rows_per_s, floor_sustained_rows_per_s, naive_rows_per_s, and the database's CPU time a row of each."""
    is_hypertable = site.fleet.profile == FULL
    async with await connect(site.fleet.database_url, application_name="bench floor") as connection:
        lines = _lines()
        floor, floor_cpu = await _floor(connection, site, options, figures, lines, is_hypertable)
        figures.put("floor_rows_per_s", floor)
        figures.put("cpu_us_per_log.floor", floor_cpu)
        naive, naive_cpu = await _naive(connection, site, options, lines, is_hypertable)
        figures.put("naive_rows_per_s", naive)
        figures.put("cpu_us_per_log.naive", naive_cpu)


async def _floor(
    connection: Connection,
    site: Site,
    options: Options,
    figures: ProfileFigures,
    lines: Iterator[LogLine],
    is_hypertable: bool,
) -> tuple[float, float]:
    """Rows a second, the median repetition's; the database's CPU µs a row, the median too."""
    floor = _Floor(connection, site, is_hypertable)
    blocks = [_block(lines) for _ in range(_BLOCKS_FIRST)]
    first, _ = await floor.repetition(blocks)
    needed = int(first * options.floor_s / BLOCK_ROWS) + 1
    blocks += [_block(lines) for _ in range(min(needed, _BLOCKS_MAX) - len(blocks))]
    measured = []
    for number in range(options.floor_repetitions):
        measured.append(await floor.repetition(blocks))
        progress(f"floor {number + 1}: {measured[-1][0]:,.0f} rows/s, {measured[-1][1]:.2f} µs a row")
    least_s, most_s = _SUSTAINED_S
    if options.run_s >= least_s:
        sustained, cpu_us = await floor.sustained(blocks, min(options.run_s, most_s))
        progress(f"floor, sustained: {sustained:,.0f} rows/s, {cpu_us:.2f} µs a row")
        figures.put("floor_sustained_rows_per_s", sustained)
        figures.put("cpu_us_per_log.floor_sustained", cpu_us)
    return median([rate for rate, _ in measured]), median([cpu for _, cpu in measured])


class _Floor:
    """Copies ready-made blocks into tables of its own. Each call answers rows a second and the database's CPU µs a row."""

    def __init__(self, connection: Connection, site: Site, is_hypertable: bool) -> None:
        self._connection = connection
        self._site = site
        self._new_table = _TABLE[is_hypertable] + _FLOOR_INDEX

    async def repetition(self, blocks: Sequence[bytes]) -> tuple[float, float]:
        """All blocks once."""
        await self._create("floor")
        began_s, cpu_s = self._now()
        await self._copy("floor", blocks)
        figures = self._since(began_s, cpu_s, len(blocks))
        await self._connection.execute("DROP TABLE floor")
        return figures

    async def sustained(self, blocks: Sequence[bytes], seconds: float) -> tuple[float, float]:
        """All blocks again and again, into one table after the other: each position is the greatest of its table so far."""
        tables = 0
        began_s, cpu_s = self._now()
        while time.monotonic() - began_s < seconds:
            tables += 1
            await self._create(f"floor_{tables}")
            await self._copy(f"floor_{tables}", blocks)
        figures = self._since(began_s, cpu_s, tables * len(blocks))
        for number in range(tables):
            await self._connection.execute(f"DROP TABLE floor_{number + 1}".encode())
        return figures

    def _now(self) -> tuple[float, float]:
        return time.monotonic(), usage([self._site.database_pid]).cpu_s

    def _since(self, began_s: float, cpu_s: float, blocks: int) -> tuple[float, float]:
        now_s, now_cpu_s = self._now()
        rows = blocks * BLOCK_ROWS
        return rows / (now_s - began_s), (now_cpu_s - cpu_s) / rows * 1e6

    async def _create(self, table: str) -> None:
        await self._connection.execute(self._new_table.format(table=table).encode())

    async def _copy(self, table: str, blocks: Sequence[bytes]) -> None:
        for block in blocks:
            async with self._connection.cursor() as cursor:
                async with cursor.copy(f"COPY {table} ({COLUMNS}) FROM STDIN (FORMAT binary)".encode()) as copy:
                    await copy.write(block)


async def _naive(
    connection: Connection, site: Site, options: Options, lines: Iterator[LogLine], is_hypertable: bool
) -> tuple[float, float]:
    """Rows a second, and the database's CPU µs a row."""
    await connection.execute((_TABLE[is_hypertable] + _USUAL_INDEXES).format(table="floor").encode())
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
