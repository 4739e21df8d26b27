"""A question to segments and its answer, and how both travel between our process and a reader.

Messages are MessagePack behind their length (4 bytes, big-endian). The client sends one `Open`, then a `Question` at a time and
`Cancel` or `GiveWay` for it; the reader answers each question once, with `Found` or `Failed`, cancelled ones too.
"""

from __future__ import annotations

import struct
from typing import Any, Final, Literal

import msgspec

from schemas.record import Log
from search.sql import Sql
from store.port import Position
from store.scan_windows import successor
from store.segments.format import RowGroup

LENGTH: Final = struct.Struct(">I")
MESSAGE_BYTES_MAX: Final = 256 * 1024 * 1024
"""A longer one is no message of ours."""
ROWS_MAX: Final = 100_000
BYTES_MAX: Final = 64 * 1024 * 1024
"""Of one answer, whatever was asked for: it is cut there as it is at `wanted` and `bytes_max`."""
GRACE_MS: Final = 1_000
"""So much longer than its budget a scan may take that has looked at nothing yet."""

TURN_MS: Final = 100
"""So long a scan may work before it gives way to others that wait."""

Row = tuple[int, int, int, str, str, str | None, str]
"""The fields of schemas.record.Log, metadata as JSON text."""


class SegmentFile(msgspec.Struct, frozen=True, array_like=True):
    """A segment to be asked."""

    path: str
    name: str
    """For errors."""
    row_groups: tuple[RowGroup, ...]
    """In the file's order."""
    skipped: tuple[int, ...] = ()
    """Numbers of row groups in which nothing matches."""


class SegmentScan(msgspec.Struct, frozen=True):
    """Rows with low <= (timestamp_us, id) < high that match, in order."""

    files: tuple[SegmentFile, ...]
    """No row in two of them; they may overlap in time."""
    where: Sql
    """Of search.sql_duckdb.compile_duckdb, with its default columns."""
    low: Position
    high: Position
    newest_first: bool
    wanted: int
    """Most rows, at least 1; never more than ROWS_MAX."""
    bytes_max: int
    """Of messages and metadata: no row follows the one that reaches it, or BYTES_MAX."""
    budget_ms: int


class SegmentCount(msgspec.Struct, frozen=True):
    """How many rows with low <= (timestamp_us, id) < high match, by time and level; counted from the newest on."""

    files: tuple[SegmentFile, ...]
    """As of a scan."""
    where: Sql
    low: Position
    high: Position
    width_us: int
    """Of a bucket."""
    base_us: int
    """Where a bucket begins; none of the rows is older."""
    budget_ms: int


class SegmentCounts(msgspec.Struct, frozen=True):
    """What was counted."""

    rows: dict[tuple[int, int], int]
    """(start of the bucket in µs, severity number) -> rows."""
    looked_to: Position | None
    """All rows from this position on are counted, and none before it. None: all are."""


class SegmentResult(msgspec.Struct, frozen=True):
    """What was found."""

    logs: list[Log]
    """In the scan's order."""
    looked_to: Position | None
    """All rows up to this position, itself included, in the scan's direction, are in `logs` if they match: go on after it.
    None: so is everything in the interval."""


class Open(msgspec.Struct, frozen=True, tag=True):
    """How the reader is to work."""

    directories: tuple[str, ...]
    memory_mib: int
    """Of DuckDB."""
    process_mib: int
    """Of the process: past it, it ends itself."""
    threads: int


class Question(msgspec.Struct, frozen=True, tag=True):
    """A scan."""

    number: int
    files: tuple[SegmentFile, ...]
    where: str
    params: tuple[Any, ...]
    """Of the types that a predicate's values have: text, integers, floats."""
    low: Position
    high: Position
    newest_first: bool
    wanted: int
    bytes_max: int
    budget_ms: int


class CountQuestion(msgspec.Struct, frozen=True, tag=True):
    """A count."""

    number: int
    files: tuple[SegmentFile, ...]
    where: str
    params: tuple[Any, ...]
    """As a question's."""
    low: Position
    high: Position
    width_us: int
    base_us: int
    budget_ms: int


class Cancel(msgspec.Struct, frozen=True, tag=True):
    """Nobody waits for the answer any more."""

    number: int


class GiveWay(msgspec.Struct, frozen=True, tag=True):
    """Others wait for the reader: answer with what was looked at once the question had its turn (TURN_MS)."""

    number: int


class Ready(msgspec.Struct, frozen=True, tag=True):
    """The answer to Open."""


class Found(msgspec.Struct, frozen=True, tag=True):
    """The answer to a question."""

    number: int
    rows: list[Row]
    looked_to: Position | None
    gave_way: bool = False
    """There is more to look at, and time for it: it was asked to give way."""


class Counted(msgspec.Struct, frozen=True, tag=True):
    """The answer to a count."""

    number: int
    rows: list[tuple[int, int, int]]
    """(start of the bucket in µs, severity number, rows), each pair once."""
    looked_to: Position | None
    gave_way: bool = False
    """As of Found."""


class Failed(msgspec.Struct, frozen=True, tag=True):
    """A question has no answer."""

    number: int
    kind: Literal["missing", "damaged", "nowhere", "cancelled", "memory", "failed"]
    segment: str
    """Its name, for `missing` and `damaged`."""
    reason: str


def question_of(number: int, scan: SegmentScan) -> Question:
    """The scan as it travels: segments outside its interval stay at home."""
    return Question(
        number,
        _files_of(scan),
        scan.where.text,
        scan.where.params,
        scan.low,
        scan.high,
        scan.newest_first,
        min(scan.wanted, ROWS_MAX),
        min(scan.bytes_max, BYTES_MAX),
        scan.budget_ms,
    )


def count_question_of(number: int, count: SegmentCount) -> CountQuestion:
    """The count as it travels."""
    return CountQuestion(
        number,
        _files_of(count),
        count.where.text,
        count.where.params,
        count.low,
        count.high,
        count.width_us,
        count.base_us,
        count.budget_ms,
    )


def _files_of(asked: SegmentScan | SegmentCount) -> tuple[SegmentFile, ...]:
    """Those that may have rows in its interval."""
    return tuple(
        file
        for file in asked.files
        if file.row_groups
        and file.row_groups[-1].last_us >= asked.low[0]
        and (file.row_groups[0].first_us, 0) < asked.high
    )


def rest_of(scan: SegmentScan, found: Found) -> SegmentScan:
    """What is left of a scan that gave way."""
    assert found.looked_to is not None, "who gives way has not come to the end"
    rest = msgspec.structs.replace(
        scan,
        wanted=scan.wanted - len(found.rows),
        bytes_max=scan.bytes_max - sum(map(bytes_of, found.rows)),
    )
    if scan.newest_first:
        return msgspec.structs.replace(rest, high=found.looked_to)
    return msgspec.structs.replace(rest, low=successor(found.looked_to))


def bytes_of(row: Row) -> int:
    """As bytes_max counts them: message and metadata."""
    return len(row[4].encode()) + len(row[6].encode())


def result_of(found: Found) -> SegmentResult:
    """The answer with its metadata decoded."""
    decode = msgspec.json.decode
    return SegmentResult([Log(*row[:6], decode(row[6])) for row in found.rows], found.looked_to)


def framed(message: msgspec.Struct) -> bytes:
    """The message behind its length."""
    content = msgspec.msgpack.encode(message)
    return LENGTH.pack(len(content)) + content
