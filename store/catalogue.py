"""The catalogue as readers know it: which tables hold rows, where each begins and ends, how each is indexed.

It changes a few times an hour and is asked with every page, so a process keeps what it has read until the catalogue's
version moves (db/migrations/0005). All of it is plain values; nothing here waits.

Time is in two parts. Before `open_from_us` every chunk is finished: it never changes and has the bulk indexes. From there on
`logs` is asked as one, with the few indexes of open chunks. Late tables lie across the first part.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from schemas.ids import ID_MAX
from store.scan_windows import BEYOND, GREATEST_US, LEAST, LEAST_US, Arm, Ground

LOGS: Final = "logs"

CATALOGUE: Final = """
SELECT table_name, kind, state, (extract(epoch FROM range_start) * 1000000)::bigint,
       (extract(epoch FROM range_end) * 1000000)::bigint, rows, id_min, id_max, metadata_indexed
FROM catalogue WHERE rows IS DISTINCT FROM 0 ORDER BY range_start, table_name
"""
PARTS: Final = """
SELECT table_name, to_xid, (extract(epoch FROM built_at) * 1000000)::bigint FROM metadata_parts
WHERE system_identifier = (SELECT system_identifier FROM pg_control_system()) ORDER BY from_xid
"""
VERSION: Final = "(SELECT version FROM catalogue_version), (SELECT max(built_xid) FROM metadata_parts)"
"""Two columns. Parts are counted on their own: a crash empties them without a change of the catalogue."""

Version = tuple[int, int | None]


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
    """What indexes the metadata of chunks that are not finished (store/parts.py)."""

    tables: tuple[str, ...]
    to_xid: int
    """Rows that arrived with this transaction or a later one are in none of them."""
    built_us: int
    """When the newest one was made."""


class Catalogue:
    """One version of it. Immutable."""

    def __init__(self, version: Version | None, tables: Iterable[Table], parts: Parts | None = None) -> None:
        """version: as the database counts; None is older than any. parts: what indexes the metadata of open chunks."""
        self.version = version
        self.parts = parts
        tables = list(tables)
        chunks = [table for table in tables if not table.is_late]
        self._late = [table for table in tables if table.is_late]
        self._unfinished_us = min((chunk.start_us for chunk in chunks if not chunk.is_finished), default=GREATEST_US)
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
            is_open_indexed=self.parts is not None,
        )

    def places_of(self, log_id: int, closed_before_us: int) -> list[Arm]:
        """Where the log with this id can be, newest first."""
        open_from_us = min(closed_before_us, self._unfinished_us)
        places = [Arm(LOGS, (open_from_us, 0), BEYOND)]
        places += [Arm(table.name, LEAST, BEYOND) for table in self._late if table.may_hold(log_id)]
        places += [
            Arm(LOGS, (chunk.start_us, 0), (min(chunk.end_us, open_from_us), 0))
            for chunk in reversed(self._chunks)
            if chunk.start_us < open_from_us and chunk.may_hold(log_id)
        ]
        return places


def parts_of(rows: Sequence[Sequence[Any]]) -> Parts | None:
    """The rows of PARTS. Any: what the database answers."""
    return Parts(tuple(name for name, _, _ in rows), rows[-1][1], rows[-1][2]) if rows else None


def catalogued(rows: Iterable[Sequence[Any]]) -> Iterator[Table]:
    """Tables from the rows of CATALOGUE. Any: what the database answers."""
    fields = ("start_us", "end_us", "rows", "id_min", "id_max", "is_indexed")
    for name, kind, state, *found in rows:
        known = {field: value for field, value in zip(fields, found, strict=True) if value is not None}
        yield Table(name, kind == "late", state == "finished", **known)
