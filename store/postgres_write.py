"""The writers' side of the store on PostgreSQL: leases on partitions, and batches (store/port.py, WriteStore).

Concurrency. A writer has one connection of its own for batches, one batch at a time; everything else goes through the
pool. Which backend serves that connection stands beside each lease, so that a successor can end it: a client that was
stopped in the middle of a COPY cannot be cancelled, only its backend terminated. Nobody waits for a lock that a stopped
writer may hold: claiming ends the backend first and then takes only rows that nobody has locked; every other change of
a lease is one transaction in one round trip with a lock_timeout.

"From before" means: under the owner's name, with an epoch that this object did not get. So a restart under the same name
takes its leases at once, and so does a claim whose answer was lost.
Times are the database's clock_timestamp(): the writers' clocks are never compared, and never believed beyond it.
A database that hangs without closing anything is left after a while: every call here is bounded on this side too.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from typing import Any, Final

import structlog

from db.database import Connection, Database, Error, bounded, connect
from db.migrations import Layout
from db.pipelines import COMMIT, Statement, in_one_go
from store.batches import Batch, copy_rows, store_errors
from store.port import EncodedRow, Lease, NameTaken, RowsRefused, StoreConflict

log = structlog.get_logger(__name__)

_TERMINATE_MS: Final = 3_000
"""How long to wait until a terminated backend is gone."""
_CALL_S: Final = 10.0
"""Most seconds for a call about leases: three round trips, a lock_timeout and _TERMINATE_MS in one."""
_BATCH_S: Final = 65.0
"""Most seconds for a batch: a little more than its transaction_timeout, which a server that works sees to."""
_BEGIN: Final[tuple[Statement, ...]] = (("BEGIN", ()), ("SET LOCAL lock_timeout = '2s'", ()))

_REGISTER: Final = """
    INSERT INTO consumer_offsets (topic, partition) SELECT %s, generate_series(0, %s - 1) ON CONFLICT DO NOTHING"""
# Once this object has noted the name, the row is its own or nobody's: who replaced the token runs at the same time.
_LIVE_WRITERS: Final = """
    WITH me AS (
        INSERT INTO writers AS w (name, token, seen_until)
        VALUES (%(owner)s, %(token)s, clock_timestamp() + %(ttl_s)s * interval '1 second')
        ON CONFLICT (name) DO UPDATE SET token = excluded.token, seen_until = excluded.seen_until
        WHERE w.token = excluded.token OR NOT %(noted)s
        RETURNING 1),
    gone AS (DELETE FROM writers WHERE seen_until < clock_timestamp() - interval '1 day' AND name <> %(owner)s)
    SELECT count(*) + 1, EXISTS (SELECT FROM me) FROM writers
    WHERE name <> %(owner)s AND seen_until > clock_timestamp()"""
_DEPART: Final = "DELETE FROM writers WHERE name = %s AND token = %s"
# Own ones from before first. `held`: what this object knows as its own.
_CANDIDATES: Final = """
    WITH held AS (SELECT * FROM unnest(%(partitions)s::integer[], %(epochs)s::bigint[]) AS h (partition, epoch))
    SELECT o.partition
    FROM consumer_offsets AS o LEFT JOIN held AS h USING (partition, epoch)
    WHERE o.topic = %(topic)s AND h.partition IS NULL
      AND (o.owner = %(owner)s OR o.lease_until < clock_timestamp())
    ORDER BY o.owner IS DISTINCT FROM %(owner)s, o.partition
    LIMIT greatest(0, %(want)s - (SELECT count(*) FROM consumer_offsets JOIN held USING (partition, epoch)
                                  WHERE topic = %(topic)s))"""
_TERMINATE_OWNERS: Final = """
    SELECT pid, pg_terminate_backend(pid, %(terminate_ms)s)
    FROM (SELECT DISTINCT a.pid
          FROM consumer_offsets AS o
          JOIN pg_stat_activity AS a ON a.pid = o.backend_pid AND a.backend_start = o.backend_start
          WHERE o.topic = %(topic)s AND o.partition = ANY(%(candidates)s) AND a.pid <> %(pid)s
            AND (o.owner = %(owner)s OR o.lease_until < clock_timestamp())) AS backends"""
_CLAIM: Final = """
    UPDATE consumer_offsets AS o
    SET owner = %(owner)s, epoch = o.epoch + 1, lease_until = clock_timestamp() + %(ttl_s)s * interval '1 second',
        backend_pid = %(pid)s, backend_start = %(start)s
    FROM (SELECT partition FROM consumer_offsets
          WHERE topic = %(topic)s AND partition = ANY(%(candidates)s)
            AND (owner = %(owner)s OR lease_until < clock_timestamp())
          ORDER BY partition FOR UPDATE SKIP LOCKED) AS free
    WHERE o.topic = %(topic)s AND o.partition = free.partition
    RETURNING o.partition, o.epoch, o.next_offset, o.last_frame_id, o.halted"""
# Only rows that are still ours are locked, in one order: a stopped successor's rows are never waited for.
_LOCK_HELD: Final = """
    SELECT 1 FROM consumer_offsets AS o
    JOIN unnest(%(partitions)s::integer[], %(epochs)s::bigint[]) AS h (partition, epoch) USING (partition, epoch)
    WHERE o.topic = %(topic)s ORDER BY o.partition FOR UPDATE OF o"""
_RENEW: Final = """
    UPDATE consumer_offsets AS o SET lease_until = clock_timestamp() + %(ttl_s)s * interval '1 second'
    FROM unnest(%(partitions)s::integer[], %(epochs)s::bigint[]) AS h (partition, epoch)
    WHERE o.topic = %(topic)s AND o.owner = %(owner)s AND o.partition = h.partition AND o.epoch = h.epoch
    RETURNING o.partition, o.epoch, o.next_offset, o.last_frame_id, o.halted"""
_RELEASE: Final = """
    UPDATE consumer_offsets AS o
    SET owner = NULL, lease_until = '-infinity', backend_pid = NULL, backend_start = NULL
    FROM unnest(%(partitions)s::integer[], %(epochs)s::bigint[]) AS h (partition, epoch)
    WHERE o.topic = %(topic)s AND o.owner = %(owner)s AND o.partition = h.partition AND o.epoch = h.epoch
    RETURNING o.partition"""
_HALT: Final = """
    UPDATE consumer_offsets SET halted = %s WHERE topic = %s AND partition = %s AND epoch = %s AND halted IS NULL"""
_CAUGHT_UP: Final = """
    UPDATE consumer_offsets AS o SET stored_to = m.at
    FROM (SELECT partition, epoch, next_offset,
              least(timestamptz 'epoch' + at * interval '1 microsecond', clock_timestamp()) AS at
          FROM unnest(%(partitions)s::integer[], %(epochs)s::bigint[], %(offsets)s::bigint[], %(at)s::bigint[])
              AS u (partition, epoch, next_offset, at)) AS m
    WHERE o.topic = %(topic)s AND o.partition = m.partition AND o.epoch = m.epoch AND o.next_offset = m.next_offset
      AND o.stored_to < m.at"""
# Older rows of the ledger are summed up and gone from there.
_RECENT_LINES: Final = """
    SELECT coalesce(sum(count) FILTER (WHERE outcome IN ('stored', 'dead')), 0)::bigint,
        coalesce(sum(count) FILTER (WHERE outcome = 'dead'), 0)::bigint
    FROM ledger
    WHERE appended_at > clock_timestamp() - interval '10 minutes' AND (outcome, reason) <> ('dead', 'key_reused')"""
_OWN_BACKEND: Final = "SELECT pid, backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid()"
_TERMINATE: Final = """
    SELECT pg_terminate_backend(pid, %s) FROM pg_stat_activity WHERE pid = %s AND backend_start = %s"""
_RECORD_BACKEND: Final = """
    UPDATE consumer_offsets AS o SET backend_pid = %(pid)s, backend_start = %(start)s
    FROM unnest(%(partitions)s::integer[], %(epochs)s::bigint[]) AS h (partition, epoch)
    WHERE o.topic = %(topic)s AND o.partition = h.partition AND o.epoch = h.epoch"""


class PostgresWriteStore:
    """WriteStore on PostgreSQL, one per writer process; `close` when done."""

    def __init__(self, database: Database, topic: str, layout: Layout, *, waits_for_disk: bool = True) -> None:
        """database: open; the connection for batches is made besides its pool, at first need.

        waits_for_disk False: a batch's COMMIT does not wait for its WAL to be on disk. Only where the broker keeps what was
        acknowledged (Kafka): a crash of the database then loses the last half second of batches whole, rows together with
        offsets, and they are read again.
        """
        self._database = database
        self._topic = topic
        self._layout = layout
        self._waits_for_disk = waits_for_disk
        self._token = secrets.token_hex(8)
        self._noted: set[str] = set()
        """Names of writers that this object has noted as living."""
        self._held: dict[int, int] = {}
        """partition -> epoch of the leases this object was given."""
        self._connection: Connection | None = None
        self._backend: tuple[int, datetime] | None = None
        """Process id and start of the backend that serves, or served last, the connection for batches."""
        self._connecting = asyncio.Lock()
        self._batch = asyncio.Lock()

    async def close(self) -> None:
        """Close the connection for batches. Leases stay until released or expired."""
        await self._discard()

    async def register_partitions(self, topic: str, count: int) -> None:
        """See WriteStore."""
        async with bounded(_CALL_S):
            await self._database.execute(_REGISTER, (topic, count))

    async def live_writers(self, owner: str, *, ttl_s: float) -> int:
        """See WriteStore. Names not seen for a day are forgotten."""
        known = {"owner": owner, "ttl_s": ttl_s, "token": self._token, "noted": owner in self._noted}
        ((live, noted),) = await self._one_go((_LIVE_WRITERS, known))
        if not noted:
            raise NameTaken(f"another writer runs under the name {owner!r}: give each writer its own --name")
        self._noted.add(owner)
        return int(live)

    async def depart(self, owner: str) -> None:
        """See WriteStore."""
        await self._one_go((_DEPART, (owner, self._token)))
        self._noted.discard(owner)

    async def claim(self, owner: str, *, want: int, ttl_s: float) -> list[Lease]:
        """See WriteStore. Partitions whose rows are locked by others are left for the next call."""
        async with self._connecting, bounded(_CALL_S):
            await self._connect()
            assert self._backend is not None
            pid, start = self._backend
            known = {"topic": self._topic, "owner": owner, "pid": pid, "start": start, "ttl_s": ttl_s}
            async with self._database.connection() as connection:
                cursor = await connection.execute(_CANDIDATES, {**known, **_columns(self._held), "want": want})
                candidates = [partition for (partition,) in await cursor.fetchall()]
                if not candidates:
                    return []
                known |= {"candidates": candidates, "terminate_ms": _TERMINATE_MS}
                cursor = await connection.execute(_TERMINATE_OWNERS, known)
                for replaced, ended in await cursor.fetchall():
                    log.warning("backend of a replaced writer terminated", pid=replaced, ended=ended, owner=owner)
                cursor = await connection.execute(_CLAIM, known)
                leases = _leases(await cursor.fetchall())
            self._held |= {lease.partition: lease.epoch for lease in leases}
        return leases

    async def renew(self, owner: str, leases: Sequence[Lease], *, ttl_s: float) -> list[Lease]:
        """See WriteStore."""
        if not leases:
            return []
        asked = {lease.partition: lease.epoch for lease in leases}
        known = {"topic": self._topic, "owner": owner, "ttl_s": ttl_s, **_columns(asked)}
        renewed = _leases(await self._one_go((_LOCK_HELD, known), (_RENEW, known)))
        self._forget(asked.items() - {(lease.partition, lease.epoch) for lease in renewed})
        return renewed

    async def release(self, owner: str, leases: Sequence[Lease]) -> list[int]:
        """See WriteStore. No batch of these partitions may be under way."""
        if not leases:
            return []
        given_up = {lease.partition: lease.epoch for lease in leases}
        self._forget(given_up.items())
        known = {"topic": self._topic, "owner": owner, **_columns(given_up)}
        released = await self._one_go((_LOCK_HELD, known), (_RELEASE, known))
        return sorted(given_up.keys() - {partition for (partition,) in released})

    async def halt(self, lease: Lease, reason: str) -> None:
        """See WriteStore. The first reason stays; a lease that was lost halts nothing."""
        await self._one_go((_HALT, (reason, self._topic, lease.partition, lease.epoch)))

    async def mark_caught_up(self, moves: Sequence[tuple[Lease, int, int]]) -> None:
        """See WriteStore."""
        if not moves:
            return
        known = {
            "topic": self._topic,
            "partitions": [lease.partition for lease, _, _ in moves],
            "epochs": [lease.epoch for lease, _, _ in moves],
            "offsets": [next_offset for _, next_offset, _ in moves],
            "at": [at_us for _, _, at_us in moves],
        }
        await self._one_go((_LOCK_HELD, known), (_CAUGHT_UP, known))

    async def recent_lines(self) -> tuple[int, int]:
        """See WriteStore."""
        ((lines, dead),) = await self._one_go((_RECENT_LINES, ()))
        return int(lines), int(dead)

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[Batch]:
        """See WriteStore. A second batch waits until the first has ended."""
        async with self._batch, bounded(_BATCH_S):
            async with self._connecting:
                connection = await self._connect()
            try:
                batch = Batch(connection, self._topic, self._layout)
                await batch.start()
                yield batch
                await self._roll_back(connection)
            except StoreConflict:
                await self._roll_back(connection)
                raise
            except BaseException:
                # In the middle of whatever it was: the server rolls back when the connection goes.
                await self._discard()
                raise

    async def refusal(self, rows: Sequence[EncodedRow]) -> str | None:
        """See WriteStore. Copies into a table that lives for this transaction only: no chunk, index or lock is touched."""
        async with bounded(_BATCH_S), self._database.connection() as connection:
            await connection.execute("BEGIN")
            try:
                await connection.execute("CREATE TEMPORARY TABLE refusal (LIKE logs) ON COMMIT DROP")
                with store_errors():
                    await copy_rows(connection, "refusal", rows)
            except RowsRefused as refused:
                return str(refused.__cause__).strip()
            finally:
                await self._roll_back(connection)
        return None

    async def _connect(self) -> Connection:
        """The connection for batches, made anew when it was lost. The caller holds `_connecting`."""
        if self._connection is not None and not self._connection.closed:
            return self._connection
        connection = await connect(self._database.url, application_name=f"{self._database.application_name} batches")
        try:
            with store_errors():
                if self._backend is not None:
                    # It may not have noticed that its client has gone, and hold locks on our own partitions.
                    await connection.execute(_TERMINATE, (_TERMINATE_MS, *self._backend))
                if not self._waits_for_disk:
                    await connection.execute("SET synchronous_commit = off")
                cursor = await connection.execute(_OWN_BACKEND)
                row = await cursor.fetchone()
                assert row is not None, "a backend sees itself"
                backend: tuple[int, datetime] = (row[0], row[1])
            known = {"topic": self._topic, "pid": backend[0], "start": backend[1], **_columns(self._held)}
            if self._held:
                await self._one_go((_LOCK_HELD, known), (_RECORD_BACKEND, known))
        except BaseException:
            await connection.close()
            raise
        self._connection, self._backend = connection, backend
        return connection

    async def _discard(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    async def _roll_back(self, connection: Connection) -> None:
        try:
            await connection.rollback()
        except (Error, OSError):
            with suppress(Error, OSError):
                await connection.close()

    async def _one_go(self, *statements: Statement) -> list[tuple[Any, ...]]:
        """Statements as one transaction in one round trip; the rows of the last. Raises DatabaseUnavailable."""
        async with bounded(_CALL_S), self._database.connection() as connection:
            cursors = await in_one_go(connection, [*_BEGIN, *statements, COMMIT])
            last = cursors[-2]
            return [] if last.description is None else await last.fetchall()

    def _forget(self, leases: Iterable[tuple[int, int]]) -> None:
        for partition, epoch in leases:
            if self._held.get(partition) == epoch:
                del self._held[partition]


def _columns(held: dict[int, int]) -> dict[str, list[int]]:
    return {"partitions": list(held), "epochs": list(held.values())}


def _leases(rows: Sequence[tuple[Any, ...]]) -> list[Lease]:
    leases = [Lease(*row) for row in rows]
    leases.sort(key=lambda lease: lease.partition)
    return leases
