"""The table: its columns, how it is partitioned, and what its metadata says of a file (Apache Iceberg, format version 2).

Columns have numbers, and a column keeps its number for ever: names may change, and a column that is added later is NULL in
older files. Files carry no numbers; the table's name mapping says which name has which.

Partitioned by day of timestamp: every segment is of one UTC day (store/segments/writing.py).
"""

from __future__ import annotations

from typing import Any, Final

from pyiceberg.conversions import to_bytes
from pyiceberg.manifest import DataFile, DataFileContent, FileFormat
from pyiceberg.partitioning import PARTITION_FIELD_ID_START, PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.transforms import DayTransform
from pyiceberg.typedef import Record
from pyiceberg.types import IntegerType, LongType, NestedField, StringType, TimestamptzType

from store.segments.format import SegmentInfo

SCHEMA: Final = Schema(
    NestedField(1, "timestamp", TimestamptzType(), required=True, doc="When it happened, as the producer said."),
    NestedField(2, "id", LongType(), required=True, doc="Snowflake; greater ones were received later."),
    NestedField(3, "level", IntegerType(), required=True, doc="OpenTelemetry severity number, 1 to 24."),
    NestedField(4, "service_name", StringType(), required=True),
    NestedField(5, "correlation_id", StringType(), required=False),
    NestedField(6, "message", StringType(), required=True),
    NestedField(7, "metadata", StringType(), required=True, doc="The JSON text of an object."),
)
BY_DAY: Final = PartitionSpec(PartitionField(1, PARTITION_FIELD_ID_START, DayTransform(), "timestamp_day"), spec_id=0)
PROPERTIES: Final = {
    "format-version": "2",
    "schema.name-mapping.default": SCHEMA.name_mapping.model_dump_json(),
    # Files are the catalogue's: no engine may delete one because no snapshot names it any more.
    "gc.enabled": "false",
    "write.metadata.delete-after-commit.enabled": "true",
    "write.metadata.previous-versions-max": "20",
    # Iceberg's readers for batches of a column do not know all encodings of ours (DELTA_LENGTH_BYTE_ARRAY, up to 1.11): without
    # this Spark refuses to read correlation ids. Row by row it reads everything.
    "read.parquet.vectorization.enabled": "false",
    # A commit that lost is made anew from what there is then (publishing.py), never repeated as it was.
    "commit.retry.num-retries": "0",
}

_DAY_US: Final = 86_400_000_000
_REQUIRED: Final = tuple(field.field_id for field in SCHEMA.fields if field.required)


def data_file(url: str, info: SegmentInfo) -> DataFile:
    """The entry of a segment's file, from what the catalogue knows. Nothing is read."""
    day = info.first_us // _DAY_US
    assert day == info.last_us // _DAY_US, "segments are of one UTC day"
    # Any: values of the columns' types.
    bounds: dict[int, tuple[Any, Any]] = {
        1: (info.first_us, info.last_us),
        2: (info.id_min, info.id_max),
        3: (min(info.levels), max(info.levels)),
        4: (min(info.services), max(info.services)),
    }
    return DataFile.from_args(
        content=DataFileContent.DATA,
        file_path=url,
        file_format=FileFormat.PARQUET,
        partition=Record(day),
        record_count=info.rows,
        file_size_in_bytes=info.bytes,
        column_sizes=None,
        value_counts=dict.fromkeys(_REQUIRED, info.rows),
        null_value_counts=dict.fromkeys(_REQUIRED, 0),
        nan_value_counts=None,
        lower_bounds={number: _bytes(number, least) for number, (least, _) in bounds.items()},
        upper_bounds={number: _bytes(number, greatest) for number, (_, greatest) in bounds.items()},
        key_metadata=None,
        split_offsets=None,
        equality_ids=None,
        sort_order_id=None,
    )


def _bytes(number: int, value: int | str) -> bytes:
    """Single-value serialization (Iceberg's specification, appendix D)."""
    return to_bytes(SCHEMA.find_type(number), value)  # type: ignore[arg-type]  # all columns have primitive types
