"""Indexes the rows of open chunks by correlation id and by metadata, in parts, without touching the chunks.

A part is a table of its own with what is sought, timestamp and id of all rows that transactions in [from_xid, to_xid)
brought. It is made in one transaction whose snapshot says that all of these have ended, so no row can come to it any more,
whatever its id and timestamp, and none is missing: a reader asks the parts, and by `arrived >= to_xid` of the last one the
rest. Writers neither wait for any of this nor do more for it than fill one column. Killed anywhere, nothing is left behind.
Parts are in the WAL, so that replicas have them and a crash or a failover takes none away: 0.2 µs and 117 bytes of WAL a row.

Measured (docs/performance.md): about 2 µs a row, by correlation id as by one key of metadata; by all of seven keys it was 6.
So parts are made while writers keep up, of metadata only what is asked for (store/asked_keys.py), and by a sealer that rests
several times as long as it works; the rest is asked row by row meanwhile, and no part is made of less than that costs little.
Many small parts are made into one. They go when their chunk is finished, which then has indexes of its own.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import structlog

from db.database import Connection, undo
from store.asked_keys import asked_keys
from store.catalogue import (
    CORRELATION_HASH,
    PARTS,
    UNFINISHED,
    Catalogue,
    Part,
    catalogued,
    known_parts,
    parts_that_count,
)
from store.chunks import checked
from store.page_sql import open_bytes, to_datetime
from store.port import OpenIndex
from store.scan_windows import GREATEST_US, LEAST_US
from store.steps import AT, US, one

log = structlog.get_logger(__name__)

ROWS_MIN: Final = 50_000
"""Rows that a part is made of while more come: what is in none is read row by row, 0.6 µs each."""
QUIET_ROWS_MIN: Final = 10_000
"""… and when nothing has come for QUIET_S: fewer are read in some milliseconds."""
QUIET_S: Final = 10
PARTS_MAX: Final = 24
"""With so many, the newest are made into one with what has come. A statement asks each: 0.1 ms."""
SMALL_PARTS_MAX: Final = 8
METADATA_ROWS_MAX: Final = 500_000
"""Of parts by metadata that are made into one: what comes meanwhile, a second's, waits for its part. Questions by metadata ask
only the parts of the time that they look at, so that many large ones do no harm."""
REMADE_ROWS_MAX: Final = 20_000_000
"""All parts together are made again for a key that is asked for the first time, where they have no more rows than so many:
half a minute. Else the key is known from then on."""
LAG_S_MAX: Final = 10.0
"""Writers that are further behind have the machine for themselves."""
LAG_S_EASY: Final = 0.5
"""Writers that are further behind may be short of processors: parts take a thirtieth of one then."""
_REST_WHEN_SHORT: Final = 30
_REST_UNASKED: Final = 3
"""Parts by metadata that nobody has asked for lately take half of the time that the sealer gives them."""

LOCK: Final = 7402
"""Advisory, for a session: one sealer makes parts at a time. That parts are disjoint the table itself makes sure of."""
_ARRIVAL_INDEX: Final = "_arrived_brin"
_SMALL_BYTES: Final = 8 * 1024 * 1024
_UNINDEXED: Final = f"""
    SELECT table_name FROM catalogue AS c
    WHERE kind = 'chunk' AND state = 'open' AND pg_relation_size(to_regclass(table_name)) < {_SMALL_BYTES}
      AND NOT EXISTS (SELECT FROM pg_index AS i JOIN pg_class AS x ON x.oid = i.indexrelid
                      WHERE i.indrelid = to_regclass(c.table_name) AND x.relname ~ '{_ARRIVAL_INDEX}$')
    ORDER BY range_start"""
# One message is one transaction. NOWAIT: who waits for this lock makes all writers behind it wait too.
_INDEX_ARRIVALS: Final = """
    LOCK TABLE {table} IN SHARE MODE NOWAIT;
    CREATE INDEX IF NOT EXISTS {name} ON {table} USING brin (arrived) WITH (pages_per_range = 32)"""
_SUMMARISE: Final = f"""
    SELECT brin_summarize_new_values(x.oid) FROM catalogue AS c
    JOIN pg_index AS i ON i.indrelid = to_regclass(c.table_name) JOIN pg_class AS x ON x.oid = i.indexrelid
    WHERE c.state <> 'finished' AND x.relname ~ '{_ARRIVAL_INDEX}$'"""
_LAG: Final = """
    SELECT coalesce(extract(epoch FROM clock_timestamp() - min(stored_to) FILTER (WHERE halted IS NULL)), 0)::float8
    FROM consumer_offsets WHERE topic = %s"""
_ASKED_LATELY: Final = """
    SELECT EXISTS (SELECT FROM asked_keys WHERE asked_at > clock_timestamp() - interval '15 minutes')"""
_LET_GO: Final = """
    WITH gone AS (DELETE FROM open_parts WHERE table_name = ANY (%s) RETURNING table_name)
    INSERT INTO expired_tables (table_name, kind, expired_at) SELECT table_name, 'part', clock_timestamp() FROM gone
    ON CONFLICT DO NOTHING"""
_ORPHANS: Final = """
    SELECT relname FROM pg_class AS c
    WHERE relkind = 'r' AND relname ~ '^open_(correlation|metadata)_[0-9a-f]+$' AND pg_table_is_visible(oid)
      AND NOT EXISTS (SELECT FROM open_parts AS p WHERE p.table_name = c.relname)
      AND NOT EXISTS (SELECT FROM expired_tables AS e WHERE e.table_name = c.relname)"""
_BEGIN: Final = """
    BEGIN ISOLATION LEVEL REPEATABLE READ; SET LOCAL max_parallel_maintenance_workers = 0;
    SET LOCAL max_parallel_workers_per_gather = 0; SET LOCAL enable_seqscan = off; SET LOCAL enable_indexscan = off"""
# Everything that transactions before this one brought has ended: the snapshot sees all of it, and no more can come.
_COMPLETE_TO: Final = f"""
    SELECT txid_snapshot_xmin(txid_current_snapshot()), {US.format("clock_timestamp()")}, {US.format("closed_before")}
    FROM border"""
# A literal: chunks before it are neither planned for nor locked. One that was only computed would be found out too late.
_TAIL: Final = """
    FROM logs WHERE timestamp >= timestamptz '{stretch.open_from}'
    AND arrived >= {stretch.from_xid} AND arrived < {stretch.to_xid}"""
_MAKE: Final = f"""
    CREATE TABLE {{part}} WITH (autovacuum_enabled = false) AS
    SELECT timestamp, id, {{form.value}} AS {{form.column}} {_TAIL} AND {{form.has_value}}{{others}};
    CREATE INDEX ON {{part}} {{form.index}}"""
_NOTE: Final = f"""
    INSERT INTO open_parts
        (table_name, kind, from_xid, to_xid, rows, open_from, range_start, range_end, open_bytes, keys)
    VALUES (%s, %s, %s, %s, %s, {AT}, {AT}, {AT}, %s, %s)"""


@dataclass(frozen=True, slots=True)
class _Form:
    """What the parts of one kind look like."""

    column: str
    value: str
    """Of the column, from a row of logs."""
    has_value: str
    index: str


_BY_CORRELATION: Final = _Form(
    "correlation",
    CORRELATION_HASH.format("correlation_id"),
    "correlation_id IS NOT NULL",
    "(correlation, timestamp, id)",
)


def _form(kind: OpenIndex, keys: Sequence[str]) -> _Form:
    """keys: of metadata, that are asked for, as SQL has them between quotes."""
    if kind is OpenIndex.CORRELATION:
        return _BY_CORRELATION
    fields = ", ".join(f"{key}, metadata -> {key}" for key in keys)
    value = f"jsonb_build_object({fields})"
    return _Form(
        "metadata",
        value if len(keys) == 1 else f"jsonb_strip_nulls({value})",
        f"metadata ?| ARRAY[{', '.join(keys)}]",
        "USING gin (metadata jsonb_path_ops) WITH (fastupdate = off)",
    )


@dataclass(frozen=True, slots=True)
class _Stretch:
    """Rows from open_from on that transactions in [from_xid, to_xid) brought."""

    open_from: str
    from_xid: int
    to_xid: int

    async def measured(self, connection: Connection) -> tuple[int, int, int]:
        """How many there are, the time of the oldest, and one that all are before."""
        first, last = US.format("min(timestamp)"), US.format("max(timestamp)")
        text = f"SELECT count(*), coalesce({first}, {GREATEST_US}), coalesce({last} + 1, {LEAST_US})"
        ((rows, start_us, end_us),) = await (
            await connection.execute(f"{text} {_TAIL.format(stretch=self)}".encode())
        ).fetchall()
        return int(rows), int(start_us), int(end_us)

    def make(self, name: str, form: _Form, copied: Sequence[Part]) -> str:
        """The statement that makes a part of these, and of all in some other parts of the same form."""
        others = "".join(
            f" UNION ALL SELECT timestamp, id, {form.column} FROM {checked(part.table_name)}"
            f" WHERE timestamp >= timestamptz '{self.open_from}'"
            for part in copied
        )
        return _MAKE.format(part=name, stretch=self, form=form, others=others)


@dataclass(frozen=True, slots=True)
class _Moment:
    """What the snapshot in which a part is made says."""

    to_xid: int
    now_us: int
    open_from_us: int
    chunk_bytes: dict[str, int]
    """Of each chunk that is not finished."""
    parts: list[Part]
    """Of the kind asked for, that are of any use; oldest first."""
    useless: list[str]
    """Parts of any kind that are not."""


@dataclass(frozen=True, slots=True)
class Tail:
    """What no part holds yet, as it was found the last time."""

    from_xid: int = -1
    rows: int = -1
    seen_us: int = 0


def parts_to_merge(sizes: Sequence[int], rows: int, *, is_quiet: bool, rows_max: int | None = None) -> int | None:
    """How many of the newest parts (sizes: rows of each, oldest first) the next one takes in; None: none is to be made yet.

    rows: that no part holds. Few small parts cost less than one that is made again and again: they are taken in when
    there are many of them, together with all that are not larger than what has gathered by then.
    rows_max: of what is made into one; larger parts stay as they are, and there may be any number of them.
    """
    if rows < (QUIET_ROWS_MIN if is_quiet else ROWS_MIN):
        return None
    small = len(sizes)
    if rows_max is not None:
        small = next((n for n, size in enumerate(reversed(sizes)) if 2 * size > rows_max), small)
    if small < (PARTS_MAX if rows_max is None else SMALL_PARTS_MAX):
        return 0
    merged = 1
    gathered = rows + sizes[-1]
    while merged < small and sizes[-1 - merged] <= gathered:
        gathered += sizes[-1 - merged]
        merged += 1
    return merged


class OpenChunkIndexer:
    """Makes parts. One call at a time."""

    def __init__(self, topic: str) -> None:
        """topic: whose writers must not be behind."""
        self._topic = topic
        self._tails = dict.fromkeys(OpenIndex, Tail())
        self._last_s = dict.fromkeys(OpenIndex, (0.0, 0.0))
        """Kind -> how long its last part took, and when, by the monotonic clock, it was made."""

    async def index_arrivals(self, connection: Connection) -> None:
        """New chunks have what finds their newest rows. Raises 55P03 where somebody writes to one already."""
        cursor = await connection.execute(_UNINDEXED)
        for (table,) in await cursor.fetchall():
            name = f"{table.rpartition('.')[2]}{_ARRIVAL_INDEX}"
            await connection.execute(_INDEX_ARRIVALS.format(table=checked(table), name=checked(name)).encode())

    async def retire(self, connection: Connection, kind: OpenIndex) -> None:
        """Nothing is asked of the parts of this kind from now on."""
        parts = known_parts(await (await connection.execute(PARTS)).fetchall())
        await connection.execute(_LET_GO, ([part.table_name for part in parts if part.kind is kind],))

    async def index_open(self, connection: Connection, kind: OpenIndex) -> int:
        """Make a part if it is time to; returns the rows that are newly in one."""
        (has_lock,) = await one(connection, "SELECT pg_try_advisory_lock(%s)", (LOCK,))
        if not has_lock:
            return 0
        try:
            for (orphan,) in await (await connection.execute(_ORPHANS)).fetchall():
                await connection.execute(f"DROP TABLE IF EXISTS {checked(orphan)}".encode())
            if await self._must_rest(connection, kind):
                return 0
            began_s = time.monotonic()
            await connection.execute(_SUMMARISE)
            try:
                await connection.execute(_BEGIN)
                rows = await self._make(connection, kind)
                await connection.commit()
            except BaseException:  # a cancellation too: the session goes back to its pool, without a transaction
                await undo(connection)
                raise
            if rows:
                ended_s = time.monotonic()
                self._last_s[kind] = ended_s - began_s, ended_s
            return rows
        finally:
            await _unlock(connection)

    async def _must_rest(self, connection: Connection, kind: OpenIndex) -> bool:
        """Whether others need the processors more."""
        behind_s = await lag_s(connection, self._topic)
        if behind_s > LAG_S_MAX:
            return True
        rest = 0
        if behind_s > LAG_S_EASY:
            rest = _REST_WHEN_SHORT
        elif kind is OpenIndex.METADATA and not (await one(connection, _ASKED_LATELY))[0]:
            rest = _REST_UNASKED
        took_s, ended_s = self._last_s[kind]
        return time.monotonic() < ended_s + rest * took_s

    async def _make(self, connection: Connection, kind: OpenIndex) -> int:
        """In the transaction: look, decide, make, note."""
        moment = await _look(connection, kind)
        if moment.useless:
            await connection.execute(_LET_GO, (moment.useless,))
        parts, to_xid = moment.parts, moment.to_xid
        asked = await asked_keys(connection, parts[-1].keys if parts else ()) if kind is OpenIndex.METADATA else {}
        if kind is OpenIndex.METADATA and not asked:
            return 0
        open_from = to_datetime(moment.open_from_us).isoformat()
        stretch = _Stretch(open_from, parts[-1].to_xid if parts else 0, to_xid)
        rows, start_us, end_us = await stretch.measured(connection)
        new = rows
        merged = parts_to_merge(
            [part.rows for part in parts],
            rows,
            is_quiet=self._is_quiet(kind, stretch.from_xid, rows, moment.now_us),
            rows_max=METADATA_ROWS_MAX if kind is OpenIndex.METADATA else None,
        )
        if (
            parts
            and not set(asked) <= set(parts[-1].keys)
            and rows + sum(part.rows for part in parts) <= REMADE_ROWS_MAX
        ):
            merged = len(parts)
        if merged is None:
            return 0
        taken = parts[len(parts) - merged :]
        copied = taken
        if any(set(part.keys) != set(asked) for part in taken):  # what they do not know is read from the logs
            stretch, copied = _Stretch(open_from, taken[0].from_xid, to_xid), []
            rows, start_us, end_us = await stretch.measured(connection)
        # By chance: a number of a transaction may stand in the name of a part that a dump brought.
        name = f"open_{kind}_{secrets.token_hex(8)}"
        await connection.execute(stretch.make(name, _form(kind, list(asked.values())), copied).encode())
        first_xid = taken[0].from_xid if taken else stretch.from_xid
        total = rows + sum(part.rows for part in copied)
        start_us = min([start_us, *(part.range_start_us for part in copied)])
        end_us = max([end_us, *(part.range_end_us for part in copied)])
        if taken:
            await connection.execute(_LET_GO, ([part.table_name for part in taken],))
        sizes = json.dumps(moment.chunk_bytes)
        noted = (name, kind, first_xid, to_xid, total, moment.open_from_us, start_us, end_us, sizes, list(asked))
        await connection.execute(_NOTE, noted)
        log.info(
            "open chunks indexed",
            by=kind,
            keys=list(asked),
            rows=new,
            parts=len(parts) - merged + 1,
            parts_taken_in=merged,
        )
        return int(new)

    def _is_quiet(self, kind: OpenIndex, from_xid: int, rows: int, now_us: int) -> bool:
        """Whether the tail has been the same for a while."""
        tail = self._tails[kind]
        if (from_xid, rows) != (tail.from_xid, tail.rows):
            self._tails[kind] = tail = Tail(from_xid, rows, now_us)
        return now_us - tail.seen_us >= QUIET_S * 1_000_000


async def lag_s(connection: Connection, topic: str) -> float:
    """How far the writers are behind, those of halted partitions left out."""
    return float((await one(connection, _LAG, (topic,)))[0])


async def _look(connection: Connection, kind: OpenIndex) -> _Moment:
    """As readers see it, by the same rules (store/catalogue.py)."""
    to_xid, now_us, closed_before_us = await one(connection, _COMPLETE_TO)
    unfinished = Catalogue(None, catalogued(await (await connection.execute(UNFINISHED)).fetchall()))
    open_from_us = unfinished.open_from_us(closed_before_us)
    text, params = open_bytes(unfinished.unfinished_chunks)
    chunk_bytes: dict[str, int] = dict(await (await connection.execute(text.encode(), params)).fetchall())
    parts = known_parts(await (await connection.execute(PARTS)).fetchall())
    useful = {
        each: [part for part in of_kind if part.range_end_us > open_from_us]
        for each, of_kind in parts_that_count(parts, open_from_us).items()
    }
    kept = {part.table_name for of_kind in useful.values() for part in of_kind}
    useless = [part.table_name for part in parts if part.table_name not in kept]
    return _Moment(to_xid, now_us, open_from_us, chunk_bytes, useful.get(kind, []), useless)


async def _unlock(connection: Connection) -> None:
    """A session that keeps the lock must not go back to its pool."""
    if connection.closed:
        return
    try:
        await connection.execute("SELECT pg_advisory_unlock(%s)", (LOCK,))
    except BaseException:
        await connection.close()
        raise
