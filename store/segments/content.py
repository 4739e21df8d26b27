"""A checksum of rows' values that does not depend on how a file lays them down.

Defined over the rows in the order of (timestamp, id), for ever: each column has a SHA-256 of its own, numbers as little-endian
integers of their width (timestamp in microseconds since the Unix epoch: 8 bytes, id: 8, level: 4); a text column has two, one
of the lengths (4 bytes each, -1 for NULL) and one of the UTF-8 bytes. The content is the SHA-256 of these eleven in the order
of SCHEMA's columns, lengths before bytes; hex. Row groups, sorting inside them, encodings and batches do not matter.

A sum of hashes row by row would do without the order: 1.6 µs a row by DuckDB's md5. Measured: 0.2 µs a row of 310 bytes, and
0.2 for readers, who have to restore the order (`in_order`).
"""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from store.segments.format import ORDER, SCHEMA, TEXTS

_EMPTY: Final = pa.scalar("", pa.string())


class ContentHash:
    """Gathers rows, in the order of (timestamp, id)."""

    def __init__(self) -> None:
        """Of no rows yet."""
        self._hashes = {name: hashlib.sha256() for name in SCHEMA.names}
        self._lengths = {name: hashlib.sha256() for name in TEXTS}

    def update(self, batch: pa.RecordBatch) -> None:
        """More rows, of SCHEMA; none of them before the last ones."""
        for name, column in zip(SCHEMA.names, batch.columns, strict=True):
            if name in self._lengths:
                self._lengths[name].update(_fixed(pc.fill_null(pc.binary_length(column), -1)))
                self._hashes[name].update(_text(column))
            else:
                self._hashes[name].update(_fixed(column))

    def hexdigest(self) -> str:
        """The content so far."""
        whole = hashlib.sha256()
        for name, values in self._hashes.items():
            if name in self._lengths:
                whole.update(self._lengths[name].digest())
            whole.update(values.digest())
        return whole.hexdigest()


def in_order(rows: pa.Table) -> pa.RecordBatch:
    """The rows of a row group by (timestamp, id), in one batch."""
    batch = rows.combine_chunks().to_batches(max_chunksize=max(1, rows.num_rows))[0]
    return batch.take(pc.sort_indices(batch, sort_keys=list(ORDER)))


def value_bytes(rows: pa.RecordBatch) -> int:
    """Bytes of all values: 20 a row, and those of its texts."""
    texts = (int(pc.sum(pc.binary_length(rows.column(name)), min_count=0).as_py()) for name in TEXTS)
    return 20 * len(rows) + sum(texts)


def counts_of(values: pa.Array) -> Counter[Any]:
    """Value -> how often. Any: the column's type."""
    found = pc.value_counts(values)
    return Counter(dict(zip(found.field("values").to_pylist(), found.field("counts").to_pylist(), strict=True)))


def _fixed(column: pa.Array) -> memoryview:
    """Values of a column of fixed width without NULL."""
    width = column.type.bit_width // 8
    return memoryview(column.buffers()[1])[column.offset * width : (column.offset + len(column)) * width]


def _text(column: pa.Array) -> memoryview:
    """All bytes of a text column, one text after the other."""
    if column.null_count:
        column = pc.fill_null(column, _EMPTY)
    _, offsets, values = column.buffers()
    if values is None or not len(column):
        return memoryview(b"")
    ends = memoryview(offsets).cast("i")
    return memoryview(values)[ends[column.offset] : ends[column.offset + len(column)]]
