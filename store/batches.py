"""One batch as one transaction of PostgreSQL: what the writers and the replay of dead letters have in common.

Promise: all or nothing (INV-2), counts checked by the server (INV-1). The rows are copied first and take no lock that
anybody else needs; everything that may conflict follows in one pipeline without a sync inside, so that no round trip lies
between a lock and the COMMIT, and a statement that raises (`logfeed_expect`) skips the COMMIT behind it.
A client that is stopped at any point holds at worst its rows' table locks, which nobody needs to go on.
Locks in order: keys by hash, the border's advisory lock (shared), partitions by number; last, at the COMMIT of a replay, the
catalogue's version (db/migrations/0005_reading.sql). One task per Batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final, LiteralString

from db.database import DATA_ERRORS, Connection, Error, is_unavailable, sqlstate
from db.migrations import Layout
from db.pipelines import COMMIT, Statement, in_one_go
from runtime.tracing import step
from schemas.errors import DatabaseUnavailable, LogfeedError
from store.batch_metrics import COMMIT_SECONDS, COPY_SECONDS
from store.port import (
    Border,
    BorderMoved,
    ChunkMissing,
    CountMismatch,
    DeadLetter,
    EncodedRow,
    Fenced,
    KeyAlreadyStored,
    LedgerRow,
    OffsetMove,
    Outcome,
    RowsRefused,
    StoredKey,
    StorePlan,
)
from store.rows import COLUMNS, COPY_HEADER, COPY_TRAILER

BORDER_LOCK: Final = 7401
"""Advisory lock of the border: writers share it from their check to their COMMIT, the closer holds it alone."""

_CONFLICTS: Final[dict[str | None, type[LogfeedError]]] = {
    "LF001": KeyAlreadyStored,
    "LF002": Fenced,
    "LF003": BorderMoved,
    "LF004": CountMismatch,
    # No table of ours has a CHECK: this is a partitioned table without a partition for the row.
    "23514": ChunkMissing,
    "23502": RowsRefused,
}
_COPY_BLOCK_ROWS: Final = 256
_BEGIN: Final[tuple[Statement, ...]] = (
    ("BEGIN ISOLATION LEVEL READ COMMITTED", ()),
    ("SET LOCAL lock_timeout = '5s'", ()),
    ("SET LOCAL transaction_timeout = '60s'", ()),
)
_BORDER: Final[dict[Layout, LiteralString]] = {
    Layout.NATIVE: "SELECT (extract(epoch FROM closed_before) * 1000000)::bigint, late_generation, NULL FROM border",
    # A hypertable makes a missing chunk inside the COPY that needs it, and every other writer waits for that
    # transaction: where the chunks end has to be known before.
    Layout.TIMESCALE: """
        SELECT (extract(epoch FROM closed_before) * 1000000)::bigint, late_generation,
            (SELECT coalesce((extract(epoch FROM max(range_end)) * 1000000)::bigint, 0)
             FROM catalogue WHERE kind = 'chunk' AND state = 'open')
        FROM border""",
}
# Every day that still has its table is asked, not 72 hours: a frame that waited long in the broker is stored long after
# its first copy, and the tables stay until all that could repeat them has been read (store/upkeep.py).
_KNOWN_KEYS: Final = "SELECT key_hash, body_sha256 FROM stored_keys WHERE key_hash = ANY(%s)"
_INSERT_KEYS: Final = """
    WITH stored AS (
        INSERT INTO stored_keys (stored_day, key_hash, body_sha256, partition, "offset")
        SELECT (clock_timestamp() AT TIME ZONE 'UTC')::date, key_hash, body_sha256, partition, "offset"
        FROM unnest(%s::bytea[], %s::bytea[], %s::integer[], %s::bigint[])
            AS k (key_hash, body_sha256, partition, "offset")
        WHERE NOT EXISTS (SELECT FROM stored_keys WHERE stored_keys.key_hash = k.key_hash)
        ORDER BY key_hash
        ON CONFLICT DO NOTHING RETURNING 1)
    SELECT logfeed_expect(count(*), %s, 'LF001') FROM stored"""
_INSERT_LEDGER: Final = """
    WITH booked AS (
        INSERT INTO ledger (minute, service_name, level, outcome, reason, count)
        SELECT timestamptz 'epoch' + minute * interval '1 microsecond', service_name, level, outcome, reason, count
        FROM unnest(%s::bigint[], %s::text[], %s::smallint[], %s::text[], %s::text[], %s::bigint[])
            AS r (minute, service_name, level, outcome, reason, count)
        RETURNING outcome, count)
    SELECT logfeed_expect(coalesce(sum(count) FILTER (WHERE outcome = 'stored'), 0)::bigint, %s, 'LF004') FROM booked"""
_INSERT_DEAD: Final = """
    INSERT INTO dead_letters
        (topic, partition, "offset", line_index, log_id, service_name, received_minute, reason, detail, line)
    SELECT %s, partition, "offset", line_index, log_id, service_name,
        timestamptz 'epoch' + minute * interval '1 microsecond', reason, detail, line
    FROM unnest(%s::integer[], %s::bigint[], %s::integer[], %s::bigint[], %s::text[], %s::bigint[], %s::text[],
        %s::text[], %s::bytea[])
        AS d (partition, "offset", line_index, log_id, service_name, minute, reason, detail, line)"""
_SHARE_BORDER: Final = "SELECT pg_advisory_xact_lock_shared(%s)"
# A statement of its own: its snapshot must be newer than the lock.
_CHECK_BORDER: Final = """
    SELECT logfeed_expect(count(*), 1, 'LF003') FROM border
    WHERE closed_before <= timestamptz 'epoch' + %s::bigint * interval '1 microsecond'
      AND late_generation = coalesce(%s, late_generation)"""
_LOCK_OFFSETS: Final = """
    SELECT 1 FROM consumer_offsets AS o JOIN unnest(%s::integer[], %s::bigint[]) AS m (partition, epoch)
        USING (partition, epoch)
    WHERE o.topic = %s ORDER BY o.partition FOR UPDATE OF o"""
_MOVE_OFFSETS: Final = """
    WITH moved AS (
        UPDATE consumer_offsets AS o
        SET next_offset = m.next_offset, last_frame_id = m.last_frame_id,
            stored_to = greatest(o.stored_to, timestamptz 'epoch' + m.stored_to * interval '1 microsecond')
        FROM unnest(%s::integer[], %s::bigint[], %s::bigint[], %s::bigint[], %s::bytea[], %s::bigint[])
            AS m (partition, epoch, from_offset, next_offset, last_frame_id, stored_to)
        WHERE o.topic = %s AND o.partition = m.partition AND o.epoch = m.epoch AND o.next_offset = m.from_offset
          AND o.halted IS NULL
        RETURNING 1)
    SELECT logfeed_expect(count(*), %s, 'LF002') FROM moved"""
_FAR_FUTURE_US: Final = 1 << 62


class Batch:
    """One transaction on a connection that nobody else uses meanwhile (store/port.py, WriteTransaction)."""

    def __init__(self, connection: Connection, topic: str, layout: Layout) -> None:
        """connection: idle, autocommit. `start` comes first."""
        self._connection = connection
        self._topic = topic
        self._layout = layout
        self._border = Border(closed_before_us=0, late_generation=0)
        self._chunks_end_us: int | None = None

    @property
    def border(self) -> Border:
        """The border as read at the start of this transaction."""
        return self._border

    async def start(self) -> None:
        """BEGIN and read the border. Raises DatabaseUnavailable."""
        with store_errors():
            opened = await in_one_go(self._connection, [*_BEGIN, (_BORDER[self._layout], ())])
            row = await opened[-1].fetchone()
        assert row is not None, "the border is one row, made by the migration"
        self._border = Border(closed_before_us=row[0], late_generation=row[1])
        self._chunks_end_us = row[2]

    async def known_keys(self, key_hashes: Sequence[bytes]) -> dict[bytes, bytes]:
        """key hash -> body sha256 of those that are stored."""
        if not key_hashes:
            return {}
        with store_errors():
            cursor = await self._connection.execute(_KNOWN_KEYS, (list(key_hashes),))
            return dict(await cursor.fetchall())

    async def commit(self, plan: StorePlan) -> None:
        """Copy, check, move, COMMIT (store/port.py, WriteTransaction.commit)."""
        booked = sum(row.count for row in plan.ledger if row.outcome is Outcome.STORED)
        if booked != len(plan.hot) + len(plan.late):
            raise CountMismatch(f"the ledger books {booked} rows, the batch has {len(plan.hot) + len(plan.late)}")
        if self._chunks_end_us is not None and plan.hot:
            newest = max([row.timestamp_us for row in plan.hot])
            if newest >= self._chunks_end_us:
                raise ChunkMissing(f"no chunk takes timestamp {newest} µs, they end at {self._chunks_end_us} µs")
        with store_errors():
            with step("COPY") as span, COPY_SECONDS.time():
                copied = await copy_rows(self._connection, "logs", plan.hot)
                copied += await copy_rows(self._connection, f"logs_late_{self._border.late_generation}", plan.late)
                if span is not None:
                    span.note(rows=copied, late_rows=len(plan.late))
            with step("COMMIT"), COMMIT_SECONDS.time():
                done = await in_one_go(self._connection, [*self._statements(plan, copied), COMMIT])
        if done[-1].statusmessage != "COMMIT":
            raise DatabaseUnavailable(f"the database answered the COMMIT with {done[-1].statusmessage}")

    def _statements(self, plan: StorePlan, copied: int) -> Iterator[Statement]:
        if plan.keys:
            yield _insert_keys(plan.keys)
        if plan.ledger or copied:
            yield _insert_ledger(plan.ledger, copied)
        if plan.dead:
            yield _insert_dead(self._topic, plan.dead)
        if plan.hot or plan.late:
            oldest = min([row.timestamp_us for row in plan.hot], default=_FAR_FUTURE_US)
            generation = self._border.late_generation if plan.late else None
            yield _SHARE_BORDER, (BORDER_LOCK,)
            yield _CHECK_BORDER, (oldest, generation)
        if plan.moves:
            if len(plan.moves) > 1:
                yield _LOCK_OFFSETS, ([m.partition for m in plan.moves], [m.epoch for m in plan.moves], self._topic)
            yield _move_offsets(self._topic, plan.moves)


@contextmanager
def store_errors() -> Iterator[None]:
    """Raise the port's errors instead of the database's; unexpected ones pass."""
    try:
        yield
    except (Error, OSError) as error:
        conflict = _CONFLICTS.get(sqlstate(error))
        if conflict is None and isinstance(error, DATA_ERRORS):
            conflict = RowsRefused
        if conflict is not None:
            raise conflict(f"{(conflict.__doc__ or '').splitlines()[0]} ({error})") from error
        if is_unavailable(error):
            raise DatabaseUnavailable(f"the database does not answer: {error}") from error
        raise


async def copy_rows(connection: Connection, table: str, rows: Sequence[EncodedRow]) -> int:
    """COPY rows into one of our own tables; returns how many the server took. The name stands in SQL as it is."""
    if not rows:
        return 0
    async with connection.cursor() as cursor:
        async with cursor.copy(f"COPY {table} ({COLUMNS}) FROM STDIN (FORMAT binary)".encode()) as copy:
            await copy.write(COPY_HEADER)
            for start in range(0, len(rows), _COPY_BLOCK_ROWS):
                await copy.write(b"".join([row.copy_bytes for row in rows[start : start + _COPY_BLOCK_ROWS]]))
            await copy.write(COPY_TRAILER)
        return cursor.rowcount


def _insert_keys(keys: Sequence[StoredKey]) -> Statement:
    return _INSERT_KEYS, (
        [key.key_hash for key in keys],
        [key.body_sha256 for key in keys],
        [key.partition for key in keys],
        [key.offset for key in keys],
        len(keys),
    )


def _insert_ledger(rows: Sequence[LedgerRow], copied: int) -> Statement:
    return _INSERT_LEDGER, (
        [row.minute_us for row in rows],
        [_storable(row.service_name) for row in rows],
        [row.level for row in rows],
        [row.outcome.value for row in rows],
        [_storable(row.reason) for row in rows],
        [row.count for row in rows],
        copied,
    )


def _insert_dead(topic: str, letters: Sequence[DeadLetter]) -> Statement:
    return _INSERT_DEAD, (
        topic,
        [letter.partition for letter in letters],
        [letter.offset for letter in letters],
        [letter.line_index for letter in letters],
        [letter.log_id for letter in letters],
        [_storable(letter.service_name) for letter in letters],
        [letter.received_minute_us for letter in letters],
        [_storable(letter.reason) for letter in letters],
        [_storable(letter.detail) for letter in letters],
        [letter.line for letter in letters],
    )


def _move_offsets(topic: str, moves: Sequence[OffsetMove]) -> Statement:
    return _MOVE_OFFSETS, (
        [move.partition for move in moves],
        [move.epoch for move in moves],
        [move.from_offset for move in moves],
        [move.next_offset for move in moves],
        [move.last_frame_id for move in moves],
        [move.stored_to_us for move in moves],
        topic,
        len(moves),
    )


def _storable(text: str) -> str:
    """The text as a column takes it: what is kept about a poison line must not be poison itself."""
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode()
