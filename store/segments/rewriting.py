"""Segments made of segments: without some rows (erasing), or of many small files (merging by day).

Rows come out in the order of (timestamp, id) slice by slice (slices.py), sorted by DuckDB within each, and go through
SegmentWriter as rows of a table do. What is read is not trusted: verify the sources first, the results afterwards. Memory: the
rows of a slice, which is no longer than one row group of each file that overlaps it. For upkeep, in a thread of its own;
conditions of users are asked in reader processes (reading.py).

Measured: 2.8 µs of one core a row of 310 bytes, 2 of them writing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import duckdb
import pyarrow as pa

from search.sql import Sql
from store.segments.duck import FILES, connected
from store.segments.format import SCHEMA, SegmentDamaged, SegmentMissing
from store.segments.scanning import bounds_of
from store.segments.scans import SegmentFile
from store.segments.slices import ID_MAX, Slice, Walk
from store.segments.writing import SegmentWriter, WrittenSegment

_EVERY: Final = Sql("TRUE")
_EVER: Final = ((-(2**62), 0), (2**62, ID_MAX))


def rewrite(
    files: Sequence[SegmentFile],
    writer: SegmentWriter,
    *,
    keep: Sql = _EVERY,
    memory_mib: int = 1_024,
    threads: int = 1,
    is_cancelled: Callable[[], bool] = lambda: False,
) -> list[WrittenSegment]:
    """Write the rows of these segments that `keep` (search.sql_duckdb) is true of; returns what the writer's `close` does.

    No row is in two of the files. is_cancelled: asked between slices; nothing is written then, and the answer is empty.
    Raises SegmentDamaged, SegmentMissing, OSError, duckdb.OutOfMemoryException; nothing is left behind.
    """
    try:
        for batch in rows_of(files, keep=keep, memory_mib=memory_mib, threads=threads):
            if is_cancelled():
                writer.abort()
                return []
            writer.write(batch)
        return writer.close()
    except BaseException:
        writer.abort()
        raise


def rows_of(
    files: Sequence[SegmentFile], *, keep: Sql = _EVERY, memory_mib: int = 1_024, threads: int = 1
) -> Iterator[pa.RecordBatch]:
    """The rows, in the order of (timestamp, id), as batches of SCHEMA; raises as `rewrite` does."""
    walk = Walk(files, *_EVER, newest_first=False)
    directories = {Path(file.path).parent for file in files}
    with connected(directories, memory_mib=memory_mib, threads=threads) as connection:
        while (piece := walk.next(1)) is not None:
            for batch in _sorted(connection, piece, keep):
                if len(batch):
                    yield pa.RecordBatch.from_arrays(batch.columns, schema=SCHEMA)
            walk.done(piece)


def _sorted(connection: duckdb.DuckDBPyConnection, piece: Slice, keep: Sql) -> list[pa.RecordBatch]:
    bounds, params = bounds_of(piece.low, piece.high)
    text = f"SELECT {', '.join(SCHEMA.names)} FROM {FILES} WHERE {bounds} AND ({keep.text}) ORDER BY timestamp, id"
    values: list[Any] = [[file.path for file in piece.files], *params, *keep.params]  # Any: of the condition's types
    try:
        batches: list[pa.RecordBatch] = connection.sql(text, params=values).to_arrow_table().to_batches()
        return batches
    except duckdb.OutOfMemoryException:
        raise
    except duckdb.Error as error:
        for file in piece.files:
            if not Path(file.path).exists():
                raise SegmentMissing(file.name) from error
        names = ", ".join(file.name for file in piece.files)
        raise SegmentDamaged(names, f"{error}".splitlines()[0]) from error
