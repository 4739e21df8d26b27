"""The catalogue as readers know it: which tables hold rows, where each begins and ends, how each is indexed.

It changes a few times an hour and is asked with every page, so a process keeps what it has read until the catalogue's
version moves (db/migrations/0005). All of it is plain values; nothing here waits.

Time is in two parts. Before `open_from_us` every chunk is finished: it never changes and has the bulk indexes. From there on
`logs` is asked as one, with the few indexes of open chunks. Late tables lie across the first part.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from schemas.ids import ID_MAX
from store.port import OpenIndex
from store.scan_windows import BEYOND, GREATEST_US, LEAST, LEAST_US, Arm, Ground

LOGS: Final = "logs"

CATALOGUE: Final = """
SELECT table_name, kind, state, (extract(epoch FROM range_start) * 1000000)::bigint,
       (extract(epoch FROM range_end) * 1000000)::bigint, rows, id_min, id_max, metadata_indexed
FROM catalogue WHERE rows IS DISTINCT FROM 0 ORDER BY range_start, table_name
"""
PARTS: Final = """
SELECT kind, array_agg(table_name ORDER BY from_xid), max(to_xid), sum(rows)::bigint,
       (array_agg(open_bytes ORDER BY from_xid DESC))[1]
FROM open_parts WHERE system_identifier = (SELECT system_identifier FROM pg_control_system()) GROUP BY kind
"""
CORRELATION_HASH: Final = "hashtextextended({}, 0)"
"""What parts hold of a correlation id. Two ids may have the same: rows are tested for theirs all the same."""
VERSION: Final = """
(SELECT version FROM catalogue_version),
(SELECT ARRAY[count(*), max(built_xid)] FROM open_parts)"""
"""Two columns. Parts are counted on their own: they come and go without a change of what can be read, and a crash empties
them without any sign but this."""

Version = tuple[int, list[int | None]]


@dataclass(frozen=True, slots=True)
class Table:
    """One row of the catalogue; what is not known of it is as wide as can be."""

    name: str
    is_late: bool
    is_finished: bool
    start_us: int = LEAST_US
    end_us: int = GREATEST_US
    rows: int | None = None
    id_min: int = 0
    id_max: int = ID_MAX
    is_indexed: bool = False
    """It has the bulk index on metadata."""

    def may_hold(self, log_id: int) -> bool:
        """Whether the log with this id can be in the table."""
        return self.id_min <= log_id <= self.id_max


@dataclass(frozen=True, slots=True)
class Parts:
    """What indexes the chunks that are not finished, by one thing (store/parts.py)."""

    tables: tuple[str, ...]
    to_xid: int
    """Rows that arrived with this transaction or a later one are in none of them."""
    rows: int
    open_bytes: int
    """Of these chunks, when the newest part was made."""

    def rows_beside(self, open_bytes: int) -> int:
        """How many rows are in no part, about, now that the chunks have so many bytes."""
        grown = max(0, open_bytes - self.open_bytes)
        return grown * self.rows // max(1, self.open_bytes)


class Catalogue:
    """One version of it. Immutable."""

    def __init__(
        self, version: Version | None, tables: Iterable[Table], parts: Mapping[OpenIndex, Parts] | None = None
    ) -> None:
        """version: as the database counts; None is older than any. parts: what indexes open chunks."""
        self.version = version
        self.parts = parts or {}
        tables = list(tables)
        chunks = [table for table in tables if not table.is_late]
        self._late = [table for table in tables if table.is_late]
        unfinished = [chunk for chunk in chunks if not chunk.is_finished]
        self._unfinished_us = min((chunk.start_us for chunk in unfinished), default=GREATEST_US)
        self.open_chunks = [chunk.name for chunk in unfinished]
        self.growing_late = [table.name for table in self._late if not table.is_finished]
        self._chunks = sorted((chunk for chunk in chunks if chunk.is_finished), key=lambda chunk: chunk.start_us)
        self._starts_us = [chunk.start_us for chunk in self._chunks]
        self._ends_us = [chunk.end_us for chunk in self._chunks]

    def ground(self, closed_before_us: int) -> Ground:
        """What a scan walks over, given the border."""
        open_from_us = min(closed_before_us, self._unfinished_us)
        finished = bisect_left(self._starts_us, open_from_us)
        return Ground(
            LOGS,
            self._chunks[:finished],
            self._starts_us[:finished],
            self._ends_us[:finished],
            self._late,
            open_from_us,
            closed_before_us,
            is_open_indexed=OpenIndex.METADATA in self.parts,
        )

    def places_of(self, log_id: int, closed_before_us: int) -> list[Arm]:
        """Where the log with this id can be, newest first: the open part, and whole tables by their names. Bounds of time
        would only tempt the planner to walk an index of times, which does not have the id first."""
        open_from_us = min(closed_before_us, self._unfinished_us)
        places = [Arm(LOGS, (open_from_us, 0), BEYOND)]
        places += [Arm(table.name, LEAST, BEYOND) for table in self._late if table.may_hold(log_id)]
        places += [
            Arm(chunk.name, LEAST, BEYOND)
            for chunk in reversed(self._chunks)
            if chunk.start_us < open_from_us and chunk.may_hold(log_id)
        ]
        return places


def parts_of(rows: Iterable[Sequence[Any]]) -> dict[OpenIndex, Parts]:
    """From the rows of PARTS. Any: what the database answers."""
    return {OpenIndex(kind): Parts(tuple(tables), *figures) for kind, tables, *figures in rows}


def catalogued(rows: Iterable[Sequence[Any]]) -> Iterator[Table]:
    """Tables from the rows of CATALOGUE. Any: what the database answers."""
    fields = ("start_us", "end_us", "rows", "id_min", "id_max", "is_indexed")
    for name, kind, state, *found in rows:
        known = {field: value for field, value in zip(fields, found, strict=True) if value is not None}
        yield Table(name, kind == "late", state == "finished", **known)
