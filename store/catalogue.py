"""The catalogue as readers know it: which tables hold rows, where each begins and ends, how each is indexed.

It changes a few times an hour and is asked with every page, so a process keeps what it has read until the catalogue's
version moves (db/migrations/0005). All of it is plain values; nothing here waits.

Time is in two parts. Before `open_from_us` every chunk is finished: it never changes and has the bulk indexes. From there on
`logs` is asked as one, with the few indexes of open chunks. Late tables lie across the first part.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, takewhile
from typing import Any, Final

from schemas.ids import ID_MAX
from store.port import OpenIndex
from store.scan_windows import BEYOND, GREATEST_US, LEAST, LEAST_US, Arm, Ground

LOGS: Final = "logs"

_TABLES: Final = """
SELECT table_name, kind, state, (extract(epoch FROM range_start) * 1000000)::bigint,
       (extract(epoch FROM range_end) * 1000000)::bigint, rows, id_min, id_max, metadata_indexed,
       kind = 'late' AND state <> 'finished' AND EXISTS (
           SELECT FROM pg_index AS i JOIN pg_attribute AS a ON (a.attrelid, a.attnum) = (i.indrelid, i.indkey[0])
           WHERE i.indrelid = to_regclass(table_name) AND i.indisvalid AND a.attname = 'arrived'),
       segmented_at IS NOT NULL AND state = 'finished'
FROM catalogue WHERE {} ORDER BY range_start, table_name
"""
CATALOGUE: Final = _TABLES.format("rows IS DISTINCT FROM 0")
UNFINISHED: Final = _TABLES.format("state <> 'finished'")
"""As CATALOGUE, without what never changes."""
# The last column: a part belongs to this cluster while its row is the one that its own transaction brought. A dump's load
# brings it in another transaction, of a cluster that counts them differently, or of one that has counted on in another way.
PARTS: Final = """
SELECT kind, table_name, from_xid, to_xid, rows, (extract(epoch FROM open_from) * 1000000)::bigint,
       (extract(epoch FROM range_start) * 1000000)::bigint, (extract(epoch FROM range_end) * 1000000)::bigint,
       open_bytes, keys,
       xmin::text::bigint = built_xid & 4294967295 AND to_xid <= txid_snapshot_xmin(txid_current_snapshot())
FROM open_parts ORDER BY kind, from_xid
"""
CORRELATION_HASH: Final = "hashtextextended({}, 0)"
"""What parts hold of a correlation id. Two ids may have the same: rows are tested for theirs all the same."""
VERSION: Final = """
(SELECT version FROM catalogue_version),
(SELECT ARRAY[count(*), sum(xmin::text::bigint)::bigint] FROM open_parts)"""
"""Two columns. Parts are told on their own, by the transactions that brought their rows: they come and go without a change of
what can be read, and a dump that is loaded over them gives no sign but this."""

Version = tuple[int, list[int | None], int, int]
"""The columns of VERSION, and which server counts them, since when."""


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
    tells_arrivals: bool = False
    """What has arrived in it since some transaction is found by an index. Late tables of an older program have none."""
    is_segmented: bool = False
    """All its rows that are kept are in segments as well."""

    def may_hold(self, log_id: int) -> bool:
        """Whether the log with this id can be in the table."""
        return self.id_min <= log_id <= self.id_max


@dataclass(frozen=True, slots=True)
class Part:
    """One row of open_parts: an index of what transactions in [from_xid, to_xid) brought, from open_from_us on."""

    kind: OpenIndex
    table_name: str
    from_xid: int
    to_xid: int
    rows: int
    open_from_us: int
    range_start_us: int
    """No row is older; all are older than range_end_us."""
    range_end_us: int
    open_bytes: Mapping[str, int]
    """Of each chunk that was not finished when the part was made."""
    keys: Collection[str]
    """Of metadata: top-level keys that a part by metadata knows."""
    is_own: bool
    """Made in this cluster; the numbers of transactions mean something here."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What indexes the chunks that are not finished, by one thing (store/parts.py)."""

    parts: tuple[Part, ...]
    to_xid: int
    """Rows that arrived with this transaction or a later one are in none of them."""
    rows: int
    open_bytes: Mapping[str, int]
    """Of each of these chunks, when the newest part was made."""
    from_us: int = LEAST_US
    """Older rows may be in none of them although they arrived before."""

    def tables(self, low_us: int = LEAST_US, high_us: int = GREATEST_US) -> list[str]:
        """Those that may hold rows with low_us <= timestamp <= high_us."""
        return [part.table_name for part in self.parts if part.range_start_us <= high_us and low_us < part.range_end_us]

    def extent(self, low_us: int, high_us: int) -> tuple[int, int]:
        """From when to when, exclusive, lie the rows of those that may hold some with low_us <= timestamp <= high_us."""
        asked = [part for part in self.parts if part.range_start_us <= high_us and low_us < part.range_end_us]
        start_us = min((part.range_start_us for part in asked), default=GREATEST_US)
        end_us = max((part.range_end_us for part in asked), default=LEAST_US)
        return max(start_us, low_us), min(end_us, high_us + 1)

    def width_of(self, rows: float, *, low_us: int, high_us: int, newest_first: bool) -> int:
        """In how much time from an end of this interval so many rows lie, about."""
        start_us, end_us, held = self._extent()
        before_us = high_us - end_us if newest_first else start_us - low_us
        return max(0, before_us) + max(1, int(min(rows * (end_us - start_us) / max(1, held), GREATEST_US)))

    def rows_in(self, low_us: int, high_us: int) -> int:
        """How many rows lie in this time, about."""
        start_us, end_us, held = self._extent()
        span_us = min(high_us, end_us) - max(low_us, start_us)
        return max(0, span_us) * held // max(1, end_us - start_us)

    def _extent(self) -> tuple[int, int, int]:
        """From when to when they have rows, and how many."""
        return (
            min(part.range_start_us for part in self.parts),
            max(part.range_end_us for part in self.parts),
            sum(part.rows for part in self.parts),
        )

    def rows_beside(self, open_bytes: Mapping[str, int]) -> int:
        """How many rows are in no part, about, now that the chunks that are not finished have so many bytes each."""
        grown = sum(max(0, size - self.open_bytes.get(chunk, 0)) for chunk, size in open_bytes.items())
        return grown * self.rows // max(1, sum(self.open_bytes.values()))


def parts_that_count(parts: Iterable[Part], open_from_us: int) -> dict[OpenIndex, list[Part]]:
    """What may be asked of them where chunks that are not finished begin at open_from_us, oldest first. Behind one that covers
    less than that none counts: what is in no part is found by its arrival after all of them."""
    found: dict[OpenIndex, list[Part]] = {}
    for kind, of_kind in groupby(parts, key=lambda part: part.kind):
        counting = list(takewhile(lambda part: part.is_own and part.open_from_us <= open_from_us, of_kind))
        if counting:
            found[kind] = counting
    return found


@dataclass(frozen=True, slots=True)
class _Homes:
    """Tables as a walk needs them."""

    chunks: Sequence[Table]
    """Finished ones, oldest first."""
    starts_us: Sequence[int]
    ends_us: Sequence[int]
    late: Sequence[Table]

    @classmethod
    def of(cls, chunks: Sequence[Table], late: Sequence[Table]) -> _Homes:
        """chunks: oldest first."""
        return cls(chunks, [chunk.start_us for chunk in chunks], [chunk.end_us for chunk in chunks], late)


class Catalogue:
    """One version of it. Immutable."""

    def __init__(
        self, version: Version | None, tables: Iterable[Table], parts: Iterable[Part] = (), *, closed_before_us: int = 0
    ) -> None:
        """version: as the database counts; None is older than any. parts: all that there are, by kind and age.
        closed_before_us: the border beside these; later ones, which are no less, change nothing about parts."""
        self.version = version
        self.tables: Sequence[Table] = list(tables)
        """All of them, by the start of their range."""
        tables = self.tables
        chunks = [table for table in tables if not table.is_late]
        self._late = [table for table in tables if table.is_late]
        unfinished = [chunk for chunk in chunks if not chunk.is_finished]
        self._unfinished_us = min((chunk.start_us for chunk in unfinished), default=GREATEST_US)
        self._unfinished = unfinished
        self.unfinished_chunks = [chunk.name for chunk in unfinished]
        unfinished_late = [table for table in self._late if not table.is_finished]
        self.unfinished_late = [table.name for table in unfinished_late]
        self.tells_late_arrivals = all(table.tells_arrivals for table in unfinished_late)
        self._chunks = sorted((chunk for chunk in chunks if chunk.is_finished), key=lambda chunk: chunk.start_us)
        self._homes = _Homes.of(self._chunks, self._late)
        self._homes_without_segments = _Homes.of(
            [chunk for chunk in self._chunks if not chunk.is_segmented],
            [table for table in self._late if not table.is_segmented],
        )
        self.oldest_us = min((table.start_us for table in tables), default=GREATEST_US)
        """No row is older, as far as is known."""
        self.segmented = [table.name for table in (*self._chunks, *self._late) if table.is_segmented]
        counting = parts_that_count(parts, self.open_from_us(closed_before_us))
        self._parts = counting

    def open_from_us(self, closed_before_us: int) -> int:
        """Where the second part of time begins, given the border. Parts are made from here on, and asked from here on."""
        return min(closed_before_us, self._unfinished_us)

    def unfinished_chunk_of(self, start_us: int, end_us: int) -> str | None:
        """The one chunk that has all rows with start_us <= timestamp < end_us; None where several may have some, or none."""
        found = [chunk.name for chunk in self._unfinished if chunk.start_us < end_us and start_us < chunk.end_us]
        return found[0] if len(found) == 1 else None

    @property
    def known_keys(self) -> Collection[str]:
        """Top-level keys of metadata that the newest part by metadata knows."""
        parts = self._parts.get(OpenIndex.METADATA)
        return parts[-1].keys if parts else ()

    def parts_by(self, kind: OpenIndex, keys: Collection[str] = ()) -> Parts | None:
        """The parts that can be asked, for rows from `Parts.from_us` on. keys: that they have to know. A key that was first
        asked for lately is in the newest parts only."""
        parts = self._parts.get(kind, [])
        first = len(parts)
        while first > 0 and all(key in parts[first - 1].keys for key in keys):
            first -= 1
        if first == len(parts):
            return None
        return Parts(
            tuple(parts[first:]),
            parts[-1].to_xid,
            sum(part.rows for part in parts),
            parts[-1].open_bytes,
            from_us=max((part.range_end_us for part in parts[:first]), default=LEAST_US),
        )

    def ground(self, closed_before_us: int, *, without_segmented: bool = False) -> Ground:
        """What a scan walks over, given the border. without_segmented: tables left out whose rows are asked of segments."""
        homes = self._homes_without_segments if without_segmented else self._homes
        open_from_us = self.open_from_us(closed_before_us)
        finished = bisect_left(homes.starts_us, open_from_us)
        return Ground(
            LOGS,
            homes.chunks[:finished],
            homes.starts_us[:finished],
            homes.ends_us[:finished],
            homes.late,
            open_from_us,
            closed_before_us,
        )

    def places_of(self, log_id: int, closed_before_us: int) -> list[Arm]:
        """Where the log with this id can be, newest first: the open part, and whole tables by their names. Bounds of time
        would only tempt the planner to walk an index of times, which does not have the id first."""
        open_from_us = self.open_from_us(closed_before_us)
        places = [Arm(LOGS, (open_from_us, 0), BEYOND)]
        places += [Arm(table.name, LEAST, BEYOND) for table in self._late if table.may_hold(log_id)]
        places += [
            Arm(chunk.name, LEAST, BEYOND)
            for chunk in reversed(self._chunks)
            if chunk.start_us < open_from_us and chunk.may_hold(log_id)
        ]
        return places


def known_parts(rows: Iterable[Sequence[Any]]) -> list[Part]:
    """From the rows of PARTS. Any: what the database answers."""
    return [Part(OpenIndex(kind), *found) for kind, *found in rows]


def catalogued(rows: Iterable[Sequence[Any]]) -> Iterator[Table]:
    """Tables from the rows of CATALOGUE. Any: what the database answers."""
    fields = ("start_us", "end_us", "rows", "id_min", "id_max", "is_indexed", "tells_arrivals", "is_segmented")
    for name, kind, state, *found in rows:
        known = {field: value for field, value in zip(fields, found, strict=True) if value is not None}
        yield Table(name, kind == "late", state == "finished", **known)
