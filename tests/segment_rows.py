"""Rows for tests of segments: as a table may hold them, as Arrow batches, as segments on disk."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import strategies as st

from schemas.record import Log
from store.segments.format import SCHEMA
from store.segments.settings import SegmentSettings
from store.segments.writing import Classify, SegmentWriter, WrittenSegment

SMALL = SegmentSettings(row_group_rows=1_024)
ODD = "aB\x01\t\n\r\"'\\,;\u00e9\u20ac\U0001f600\u2028\ufeff\uffff{}% "
TIMES = (-62_135_596_800_000_000, 253_402_300_799_999_999)
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12) | st.text(
    ODD, max_size=12
)
metadata = st.dictionaries(texts, st.none() | st.booleans() | st.integers(-9, 9) | st.floats(-1, 1) | texts, max_size=3)


def settings(**values: Any) -> SegmentSettings:
    """Settings that are not checked against their limits: a row group of three rows makes a short test. Any: their types."""
    return SegmentSettings.model_construct(**{**SegmentSettings().model_dump(), **values})


def log_at(timestamp_us: int, log_id: int, **fields: Any) -> Log:
    """A log at a position. Any: the other fields' types."""
    plain = {"level": 9, "service_name": "pay", "message": "m", "correlation_id": None, "metadata": {}}
    return Log(id=log_id, timestamp=timestamp_us, **{**plain, **fields})


def logs(*, times: st.SearchStrategy[int] | None = None, max_size: int = 40) -> st.SearchStrategy[list[Log]]:
    """Logs in order, each id once; few different times, so that there are ties."""
    one = st.builds(
        Log,
        id=st.integers(0, (1 << 63) - 1),
        timestamp=(st.integers(0, 20) | st.integers(*TIMES)) if times is None else times,
        level=st.integers(1, 24),
        service_name=st.sampled_from(["pay", "auth", "a/b_c.d-e", "Z"]),
        message=texts,
        correlation_id=st.none() | st.sampled_from(["", "c1", "C1"]) | texts,
        metadata=metadata,
    )
    return st.lists(one, max_size=max_size, unique_by=lambda log: log.id).map(in_order)


def in_order(of: Iterable[Log]) -> list[Log]:
    """By (timestamp, id)."""
    return sorted(of, key=lambda log: (log.timestamp, log.id))


def batch_of(of: Sequence[Log]) -> pa.RecordBatch:
    """The logs as rows, in their order."""
    rows = [
        {
            "timestamp": log.timestamp,
            "id": log.id,
            "level": log.level,
            "service_name": log.service_name,
            "correlation_id": log.correlation_id,
            "message": log.message,
            "metadata": json.dumps(log.metadata, ensure_ascii=False),
        }
        for log in of
    ]
    columns = [pa.array([row[name] for row in rows], SCHEMA.field(name).type) for name in SCHEMA.names]
    return pa.RecordBatch.from_arrays(columns, schema=SCHEMA)


def logs_of(rows: pa.RecordBatch | pa.Table) -> list[Log]:
    """The rows as logs, in their order."""
    times = rows.column("timestamp").cast(pa.int64()).to_pylist()
    others = rows.select([name for name in SCHEMA.names if name != "timestamp"]).to_pylist()
    return [
        Log(timestamp=time, **{**row, "metadata": msgspec.json.decode(row["metadata"])})
        for time, row in zip(times, others, strict=True)
    ]


def write_batch(directory: Path, batch: pa.RecordBatch, *, row_group_rows: int) -> list[WrittenSegment]:
    """Segments of rows that are in order."""
    writer = SegmentWriter(directory, "s", settings=settings(row_group_rows=row_group_rows))
    writer.write(batch)
    return writer.close()


def write(
    directory: Path,
    of: Sequence[Log],
    name: str = "s",
    *,
    using: SegmentSettings = SMALL,
    classify: Classify | None = None,
) -> list[WrittenSegment]:
    """Segments of these logs, which are in order."""
    writer = SegmentWriter(directory, name, settings=using, classify=classify)
    writer.write(batch_of(of))
    return writer.close()


def read(path: Path) -> list[Log]:
    """All logs of a file, in order, as pyarrow reads them."""
    return in_order(logs_of(pq.read_table(path)))
