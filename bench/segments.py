"""What segments cost: `python -m bench.segments [rows]`: writing, verifying, size, correlation filters, questions.

Rows are made in memory and never repeated; PostgreSQL has no part in it. Figures are µs of one core and bytes a row, and
milliseconds a question; the reader's processor time is its process's own. Takes about a minute for a million rows.
"""

from __future__ import annotations

import asyncio
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec
import psutil
import pyarrow as pa

from bench.lines import Form, bodies, moulds
from schemas.frames import decode_lines
from schemas.ids import first_id_at
from schemas.levels import level_name
from schemas.record import LogLine
from search.predicate import EVERYTHING, Contains, CorrelationIs, Predicate, ServiceIn
from search.sql_duckdb import compile_duckdb
from store.segments.filters import SUFFIX, CorrelationFilters, write_filter
from store.segments.format import SCHEMA
from store.segments.reading import SegmentReader
from store.segments.scans import SegmentFile, SegmentScan
from store.segments.settings import SegmentSettings
from store.segments.verification import verify
from store.segments.writing import SegmentWriter, WrittenSegment

FILTERS: Final = 2_000
FILTER_IDS: Final = 20_000
_BEGINS_US: Final = 1_790_000_000_000_000
_US_A_ROW: Final = 50
_BATCH: Final = 16_000
_REPEATS: Final = 5
_EVER: Final = ((0, 0), (2**61, 0))


def main(rows: int) -> None:
    """Print the figures of one run."""
    settings = SegmentSettings()
    with tempfile.TemporaryDirectory(prefix="logfeed-segments-") as name:
        directory = Path(name).resolve()
        segments, last_id = _written(directory, rows, settings)
        asyncio.run(_questions(directory, segments, settings, last_id))
        asyncio.run(_filters(directory))


def batches(rows: int) -> Iterator[tuple[pa.RecordBatch, int]]:
    """Rows in order, and how many bytes of JSON text they were as producers sent them."""
    source = bodies(moulds(64, form=Form.FRAME))
    for start in range(0, rows, _BATCH):
        content = b""
        while content.count(b"\n") < _BATCH:
            content += next(source) + b"\n"
        lines = decode_lines(content)[:_BATCH]
        times = [_BEGINS_US + (start + number) * _US_A_ROW for number in range(len(lines))]
        columns = [
            times,
            [first_id_at(time_us // 1000) + number for number, time_us in enumerate(times)],
            [line.level for line in lines],
            [line.service_name for line in lines],
            [line.correlation_id for line in lines],
            [line.message for line in lines],
            [bytes(line.metadata).decode() for line in lines],
        ]
        arrays = [pa.array(column, field.type) for column, field in zip(columns, SCHEMA, strict=True)]
        yield pa.RecordBatch.from_arrays(arrays, schema=SCHEMA), sum(map(_json_bytes, lines))


def _json_bytes(line: LogLine) -> int:
    """Of the log as its producer sent it."""
    fields = {
        "service_name": line.service_name,
        "level": level_name(line.level),
        "message": line.message,
        "correlation_id": line.correlation_id,
        "metadata": line.metadata,
    }
    return len(msgspec.json.encode(fields))


def _written(directory: Path, rows: int, settings: SegmentSettings) -> tuple[list[WrittenSegment], str]:
    writer = SegmentWriter(directory, "bench", settings=settings)
    cpu_s, json_bytes, last = 0.0, 0, ""
    for batch, size in batches(rows):
        json_bytes += size
        last = batch.column("correlation_id")[0].as_py()
        began_s = time.process_time()
        writer.write(batch)
        cpu_s += time.process_time() - began_s
    began_s = time.process_time()
    segments = writer.close()
    cpu_s += time.process_time() - began_s
    rows = sum(segment.info.rows for segment in segments)
    size = sum(segment.info.bytes for segment in segments)
    filters = sum(segment.filter_path.stat().st_size for segment in segments)
    print(f"write                    {cpu_s / rows * 1e6:8.2f} µs a row")
    print(f"size                     {size / rows:8.2f} bytes a row, {size / json_bytes:.3f} of the JSON text")
    print(f"filters                  {filters / rows:8.2f} bytes a row")
    began_s = time.process_time()
    for segment in segments:
        verify(segment.path, segment.info)
    print(f"verify                   {(time.process_time() - began_s) / rows * 1e6:8.2f} µs a row")
    return segments, last


async def _questions(
    directory: Path, segments: list[WrittenSegment], settings: SegmentSettings, correlation_id: str
) -> None:
    files = tuple(SegmentFile(str(segment.path), segment.name, segment.info.row_groups) for segment in segments)
    reader = SegmentReader([directory], settings)
    questions: tuple[tuple[str, Predicate], ...] = (
        ("page, newest 100", EVERYTHING),
        ("one service, newest 100", ServiceIn(frozenset({"pay-a"}))),
        ("common word, newest 100", Contains("connection")),
        ("rare text, all rows", Contains("zqxzqx")),
        ("correlation id, all rows", CorrelationIs(correlation_id)),
    )
    for name, predicate in questions:
        scan = SegmentScan(files, compile_duckdb(predicate), *_EVER, True, 100, 8 << 20, 600_000)
        took = []
        for _ in range(_REPEATS):
            cpu_s, began_s = _reader_cpu_s(), time.perf_counter()
            await reader.scan(scan)
            took.append((time.perf_counter() - began_s, _reader_cpu_s() - cpu_s))
        first, best = took[0], min(took)
        print(
            f"{name:24} {first[0] * 1e3:8.1f} ms first, {best[0] * 1e3:.1f} ms again ({best[1] * 1e3:.0f} ms of the reader)"
        )
    await reader.close()


async def _filters(directory: Path) -> None:
    """Not of the rows' segments: as many as there would be."""
    chance = random.Random(1)
    for number in range(FILTERS):
        ids = [f"{chance.getrandbits(128):032x}" for _ in range(FILTER_IDS)]
        write_filter(directory / f"{number}{SUFFIX}", [pa.array(ids)])
    filters = CorrelationFilters(directory)
    names = [str(number) for number in range(FILTERS)]
    for when in ("first", "again"):
        began_s = time.perf_counter()
        found = await filters.candidates(names, "00112233445566778899aabbccddeeff")
        print(f"{FILTERS} filters, {when:5}      {(time.perf_counter() - began_s) * 1e3:8.1f} ms, {len(found)} false")
    filters.close()


def _reader_cpu_s() -> float:
    """Of our children."""
    return sum(sum(process.cpu_times()[:2]) for process in psutil.Process().children())


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)
