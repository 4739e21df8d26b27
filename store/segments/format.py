"""What a segment is: the columns, how they are laid down in Parquet, what is kept of a file beside it.

A segment holds rows of one table, each once. Its row groups are slices of time: every position (timestamp, id) of one lies
before all of the next. Inside a row group rows lie by (service_name, timestamp, id): like stands beside like. Anything that
reads Parquet reads a segment; nothing in it is ours alone.

Measured on varied lines of 342 bytes of JSON with random 128-bit correlation ids, bytes a row and µs of one core a row, row
groups of 131,072 rows:

    defaults of pyarrow, zstd 3, Bloom filters on id and correlation_id at 1%        64.8   1.1
    delta encodings, zstd 3, Bloom filter on correlation_id at 5%                    58.8   1.0
    … zstd 1: no worse on hex digits, better on text                                 56.8   0.6
    … pages of 4 MiB                                                                 55.5   0.6

and what was left, each instead of that:

    id as BYTE_STREAM_SPLIT, which few others read of integers                       55.0   0.6
    zstd 3 / zstd 5 / zstd 9 for texts                                 57.6 / 57.5 / 53.4   1.0 / 2.6 / 4.5
    messages as DELTA_BYTE_ARRAY                                                     57.0   0.7
    row groups of 65,536 / 262,144 rows                                       65.4 / 50.8   0.8 / 0.7
    sorted by service_name, message / service_name, level, timestamp          59.5 / 55.6   0.7 / 0.6
    sorted by timestamp                                                              63.7   0.8

Of the 55.5 bytes 16.1 are the random id, 18.5 the message, 15.2 metadata, 4.5 id and timestamp, 1 the Bloom filter.
What is written has row groups of 196,608 rows and pages of 2 MiB: docs/performance.md says what that is between.
No Bloom filter on id: ids grow with the time they were given at, so that statistics prune them as well (2 bytes a row saved).
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
import pyarrow as pa

from schemas.errors import LogfeedError, Overloaded

SCHEMA: Final = pa.schema(
    [
        pa.field("timestamp", pa.timestamp("us", tz="UTC"), nullable=False),
        pa.field("id", pa.int64(), nullable=False),
        pa.field("level", pa.int32(), nullable=False),
        pa.field("service_name", pa.string(), nullable=False),
        pa.field("correlation_id", pa.string(), nullable=True),
        pa.field("message", pa.string(), nullable=False),
        pa.field("metadata", pa.string(), nullable=False),
    ]
)
"""level: severity number 1..24; metadata: the JSON text of an object."""
TEXTS: Final = ("service_name", "correlation_id", "message", "metadata")
ORDER: Final = (("timestamp", "ascending"), ("id", "ascending"))
"""Of everything."""
SORTED_BY: Final = (("service_name", "ascending"), *ORDER)
"""Inside a row group."""

_PAGE_BYTES: Final = 2 * 1024 * 1024
"""What is compressed at once."""
_BLOOM_FALSE_POSITIVES: Final = 0.05
"""For other readers: ours asks the segment's correlation filter first (filters.py), 1 byte a row instead of 2 at 1%."""


class RowGroup(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A slice of a segment's time. An array on the wire: a scan may name tens of thousands."""

    rows: int
    first_us: int
    last_us: int
    """Inclusive; the next row group may begin in the same microsecond."""
    bytes: int
    """Of the rows' values in memory: what reading all of it takes."""


class SegmentInfo(msgspec.Struct, frozen=True):
    """What the catalogue keeps of a segment. JSON by msgspec."""

    rows: int
    bytes: int
    """Of the file."""
    first_us: int
    last_us: int
    """Inclusive."""
    id_min: int
    id_max: int
    services: dict[str, int]
    """service_name -> rows."""
    levels: dict[int, int]
    """Severity number -> rows."""
    row_groups: tuple[RowGroup, ...]
    """In the file's order, which is that of time."""
    content: str
    """Checksum of all values (content.py), hex; of what the rows were before anything was written."""
    sha256: str
    """Of the file, hex."""


class SegmentDamaged(LogfeedError):
    """The segment is not what was written."""

    def __init__(self, segment: str, reason: str) -> None:
        """segment: its path or name; reason: what differs."""
        super().__init__(f"segment {segment} is damaged: {reason}")
        self.segment = segment
        self.reason = reason


class SegmentMissing(LogfeedError):
    """The segment's file is not there."""

    def __init__(self, segment: str) -> None:
        """segment: its path or name."""
        super().__init__(f"segment {segment}: there is no such file")
        self.segment = segment


class SegmentReaderUnavailable(Overloaded):
    """Segments cannot be read now; try again shortly."""


def writer_options(rows: int) -> dict[str, Any]:
    """For pyarrow.parquet.ParquetWriter, besides the schema. rows: of a full row group. Any: options of many types."""
    return {
        "version": "2.6",
        "compression": "zstd",
        "compression_level": 1,
        "use_dictionary": ["service_name", "level"],
        # Neighbours in time differ little; hex digits without the lengths between them compress to their entropy.
        "column_encoding": {
            "timestamp": "DELTA_BINARY_PACKED",
            "id": "DELTA_BINARY_PACKED",
            "correlation_id": "DELTA_LENGTH_BYTE_ARRAY",
        },
        "write_statistics": ["timestamp", "id", "level", "service_name"],
        "bloom_filter_options": {"correlation_id": {"ndv": max(1, rows), "fpp": _BLOOM_FALSE_POSITIVES}},
        "data_page_size": _PAGE_BYTES,
        "store_schema": False,
    }
