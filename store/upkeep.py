"""What keeps the rows in shape: chunks ahead of time, BRIN summaries, closing, bulk indexes, expiry (store/port.py, Upkeep).

Run by whoever holds the `sealer` lease, but safe twice at once and safe to kill at any statement: each step is one
transaction that leaves a state from which the next call goes on. Steps that change what readers see change the catalogue
and the border in that transaction. No writer waits for upkeep longer than a lock_timeout: the exclusive border lock is
taken, used and given back in one round trip.

A chunk's life: made (`open`) → closed, once everything visible has passed it (the border moves; nobody writes to it any
more) → counted and indexed (`finished`) → out of the catalogue (`expired_tables`) → dropped 10 minutes later.
Late tables take what is older than the border, one after the other, and have the same life.

Time. What closes, drops or sums follows the database's clock, or the caller's where that is behind: a host whose clock
stepped forward must not make what is retained unfindable.
"""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import Final

import structlog

from db.database import Connection, Database, Error, sqlstate
from db.migrations import Layout
from db.reader_sessions import READ_S_MAX, end_reads
from store.chunks import (
    BUSY,
    DEADLOCK,
    LOCK_TIMEOUT_MS,
    UNDEFINED_TABLE,
    attach_partition,
    chunk_layout,
    detached_tables,
    drop_partition,
    finalise_detach,
    missing_ranges,
    partitions,
    patient,
    pending_detaches,
)
from store.finishing import finish, forget_if_gone, index_metadata_of_one
from store.open_sums import sum_open
from store.parts import LAG_S_EASY, OpenChunkIndexer, lag_s
from store.port import OpenIndex
from store.settings import StoreSettings
from store.steps import AT, US, clock_us, in_batches, one, tried, under_border

log = structlog.get_logger(__name__)

KEYS_KEPT_H: Final = 72
"""How long an idempotency key is honoured, in hours."""
DROP_DELAY_S: Final = 600
"""Seconds from leaving the catalogue to the drop: a drop is seen whatever the snapshot, and pages live up to a minute."""
LEDGER_SETTLES_S: Final = 180
"""Seconds after which a ledger row is summed."""

_HOUR_US: Final = 3_600_000_000
_CHUNKS_AHEAD: Final = 2
_CHUNKS_A_CALL: Final = 100
"""Most chunks that one call makes: 25 days of them by default."""
_BORDER_WAIT_MS: Final = 300
"""While the closer waits for the border, writers that come after it wait too."""
_DEFAULTS: Final = StoreSettings()

# Chunks that were made and not yet noted: by ensure_chunks when it was killed, or by a hypertable itself. One statement sees
# one moment of both catalogues, in which what is about to be dropped is still in ours or among the expired. Listed before, or
# without a look at ours, a chunk that another call drops meanwhile would come back as a row without a table.
_NOTE_CHUNKS: Final = """
    INSERT INTO catalogue (table_name, kind, state, range_start, range_end, closed_at)
    SELECT table_name, 'chunk', CASE WHEN range_end <= closed_before THEN 'closed' ELSE 'open' END, range_start, range_end,
        CASE WHEN range_end <= closed_before THEN clock_timestamp() END
    FROM border, ({listing}) AS c,
        LATERAL (SELECT {start} AS range_start, {end} AS range_end) AS range
    WHERE table_name NOT IN (SELECT table_name FROM expired_tables)
      AND table_name NOT IN (SELECT table_name FROM catalogue)
    ON CONFLICT DO NOTHING"""
_OPEN_BRIN: Final = """
    SELECT i.indexrelid::bigint FROM catalogue AS t
    JOIN pg_index AS i ON i.indrelid = to_regclass(t.table_name)
    JOIN pg_class AS c ON c.oid = i.indexrelid JOIN pg_am AS m ON m.oid = c.relam
    WHERE t.state = 'open' AND m.amname = 'brin' AND c.relname !~ '_arrived_brin$' ORDER BY 1"""
_SUMMARISE: Final = "SELECT brin_summarize_new_values(%s::oid::regclass)"
# A chunk is due when all partitions have passed its end by closing_delay; while one is halted, when the others have and
# its end is halted_closing ago. 1 s: the clocks of the brokers.
_DUE: Final = f"""
    WITH seen AS (
        SELECT min(stored_to) AS by_all, coalesce(min(stored_to) FILTER (WHERE halted IS NULL), 'infinity') AS by_running,
            bool_or(halted IS NOT NULL) AS halted
        FROM consumer_offsets WHERE topic = %s),
    due AS (
        SELECT c.range_end, c.range_end + %s <= seen.by_all - interval '1 second' AS by_all
        FROM catalogue AS c, seen
        WHERE c.kind = 'chunk' AND c.state = 'open'
          AND (c.range_end + %s <= seen.by_all - interval '1 second'
               OR seen.halted AND c.range_end + %s <= seen.by_running - interval '1 second'
                  AND c.range_end + %s <= {AT}))
    SELECT {US.format("max(range_end)")}, bool_and(by_all), array_agg(DISTINCT range_end::text) FILTER (WHERE NOT by_all)
    FROM due"""
_MOVE_BORDER: Final = f"UPDATE border SET closed_before = greatest(closed_before, {AT})"
_CLOSE_CHUNKS: Final = """
    UPDATE catalogue SET state = 'closed', closed_at = clock_timestamp()
    FROM border WHERE kind = 'chunk' AND state = 'open' AND range_end <= closed_before"""
_LATE_OPEN: Final = f"""
    SELECT b.late_generation, c.opened_at <= {AT} - %s,
        greatest(pg_stat_get_tuples_inserted(to_regclass(c.table_name)), t.reltuples) >= %s
    FROM border AS b JOIN catalogue AS c ON c.kind = 'late' AND c.generation = b.late_generation
    JOIN pg_class AS t ON t.oid = to_regclass(c.table_name)"""
# It becomes a child of late_logs, for readers by SQL, with its row of the catalogue (a trigger).
_LATE_TABLE: Final = """
    CREATE TABLE {table} (LIKE logs INCLUDING DEFAULTS);
    CREATE INDEX {table}_arrived ON {table} (arrived);
    CREATE INDEX {table}_timestamp_id ON {table} (timestamp, id);
    CREATE INDEX {table}_id_brin ON {table} USING brin (id) WITH (pages_per_range = 32);
    CREATE INDEX {table}_correlation ON {table} (correlation_id, timestamp, id) WHERE correlation_id IS NOT NULL;
    INSERT INTO catalogue (table_name, kind, generation, state) VALUES ('{table}', 'late', {generation}, 'open')"""
_END_GENERATION: Final = "UPDATE border SET late_generation = late_generation + 1 WHERE late_generation = %s"
_CLOSE_LATE: Final = """
    UPDATE catalogue SET state = 'closed', closed_at = clock_timestamp()
    FROM border WHERE kind = 'late' AND state = 'open' AND generation < late_generation"""
_EXPIRE: Final = f"""
    WITH gone AS (
        DELETE FROM catalogue
        WHERE state = 'finished' AND (range_end <= {AT} OR kind = 'late' AND rows = 0) RETURNING table_name, kind)
    INSERT INTO expired_tables (table_name, kind, expired_at) SELECT table_name, kind, {AT} FROM gone
    ON CONFLICT DO NOTHING"""
_DROPPABLE: Final = f"SELECT table_name, kind FROM expired_tables WHERE expired_at <= {AT} ORDER BY expired_at"
# A key table goes when everything that could repeat one of its keys has been read (INV-2), halted partitions included.
_KEY_DAY_OVER: Final = """
    SELECT min(stored_to) - interval '1 second' >= (%s::date + 1) AT TIME ZONE 'UTC' + %s
    FROM consumer_offsets WHERE topic = %s"""
_DROP_RESERVATIONS: Final = f"""
    DELETE FROM id_reservations WHERE key_hash IN (
        SELECT key_hash FROM id_reservations WHERE reserved_at < {AT} LIMIT %s)"""
_DROP_MINUTES: Final = f"""
    DELETE FROM ledger_minutes
    WHERE ctid = ANY (ARRAY(SELECT ctid FROM ledger_minutes WHERE minute < {AT} ORDER BY minute LIMIT %s))"""
_ROLL_UP: Final = f"""
    WITH settled AS (
        DELETE FROM ledger WHERE appended_at < {AT} RETURNING minute, service_name, level, outcome, reason, count),
    minutes AS (
        INSERT INTO ledger_minutes AS m (minute, service_name, level, outcome, reason, count)
        SELECT minute, service_name, level, outcome, reason, sum(count) FROM settled
        GROUP BY minute, service_name, level, outcome, reason ORDER BY minute, service_name, level, outcome, reason
        ON CONFLICT (minute, service_name, level, outcome, reason) DO UPDATE SET count = m.count + excluded.count)
    INSERT INTO service_totals AS t (service_name, level, count, last_minute)
    SELECT service_name, level, sum(count), max(minute) FROM settled WHERE outcome = 'stored'
    GROUP BY service_name, level ORDER BY service_name, level
    ON CONFLICT (service_name, level) DO UPDATE
    SET count = t.count + excluded.count, last_minute = greatest(t.last_minute, excluded.last_minute)"""


class PostgresUpkeep:
    """Upkeep on PostgreSQL. One call at a time."""

    def __init__(
        self,
        database: Database,
        topic: str,
        layout: Layout,
        settings: StoreSettings = _DEFAULTS,
        *,
        ahead_us_max: int = 0,
    ) -> None:
        """topic: whose partitions decide what is visible. ahead_us_max: how far ahead of the database's clock a caller's
        time may be and still count; for looking at what comes later."""
        self._database = database
        self._topic = topic
        self._chunks = chunk_layout(layout)
        self._settings = settings
        self._ahead_us_max = ahead_us_max
        self._indexer = OpenChunkIndexer(topic)

    async def clock_us(self) -> int:
        """See Upkeep. Raises DatabaseUnavailable."""
        async with self._database.connection() as connection:
            return await clock_us(connection)

    async def ensure_chunks(self, *, now_us: int) -> None:
        """Chunks from the border to two past the present one exist and are in the catalogue; so do the tables of keys for
        today and tomorrow by the database's clock. Raises DatabaseUnavailable."""
        chunk_us = self._settings.chunk_hours * _HOUR_US
        async with patient(self._database) as connection:
            (start_us,) = await one(connection, f"SELECT {US.format('closed_before')} FROM border")
            # Whatever the caller's clock says, the database's present has its chunks.
            now_us = max(await clock_us(connection), await self._counted_us(connection, now_us))
            end_us = now_us - now_us % chunk_us + (1 + _CHUNKS_AHEAD) * chunk_us
            chunks = await self._chunks.chunks(connection)
            missing = missing_ranges(chunks, start_us=start_us, end_us=end_us, chunk_us=chunk_us)
            if len(missing) > _CHUNKS_A_CALL:
                log.warning("many chunks are missing, the next calls go on", missing=len(missing), made=_CHUNKS_A_CALL)
            for bounds in missing[:_CHUNKS_A_CALL]:
                await tried("make a chunk", "logs", partial(self._chunks.create, connection, *bounds))
            await self._note_chunks(connection)
            await tried("index arrivals", "logs", partial(self._indexer.index_arrivals, connection), again_on=())
            days = {day for _, day, _ in await partitions(connection, "stored_keys", "{bound}::date")}
            (today,) = await one(connection, "SELECT (clock_timestamp() AT TIME ZONE 'UTC')::date")
            for day in {today, today + timedelta(days=1)} - days:
                name = f"stored_keys_{day:%Y%m%d}"
                until = day + timedelta(days=1)
                attach = partial(attach_partition, connection, "stored_keys", name, day.isoformat(), until.isoformat())
                await tried("make a table of keys", name, attach)

    async def summarise(self) -> None:
        """Summarise the BRIN indexes of open tables, each in its own transaction; that of arrivals is left to `index_open`,
        before which it says nothing. Raises DatabaseUnavailable."""
        async with patient(self._database, _BORDER_WAIT_MS) as connection:
            cursor = await connection.execute(_OPEN_BRIN)
            for (index,) in await cursor.fetchall():
                await tried("summarise", index, partial(connection.execute, _SUMMARISE, (index,)))

    async def index_open(self, by: OpenIndex) -> int:
        """See Upkeep. Raises DatabaseUnavailable."""
        async with patient(self._database) as connection:
            if by is OpenIndex.METADATA and not self._settings.metadata_index:
                await self._indexer.retire(connection, by)
                return 0
            return await self._indexer.index_open(connection, by)

    async def sum_open(self) -> int:
        """See Upkeep. Writers that are behind have the machine for themselves. Raises DatabaseUnavailable."""
        async with patient(self._database) as connection:
            if await lag_s(connection, self._topic) > LAG_S_EASY:
                return 0
            numbers = 0

            async def make() -> None:
                nonlocal numbers
                numbers = await sum_open(connection)

            await tried("sum", "open chunks", make, again_on=())
            return numbers

    async def close_due(self, *, now_us: int) -> int:
        """See Upkeep. Raises DatabaseUnavailable."""
        async with patient(self._database, _BORDER_WAIT_MS) as connection:
            now_us = await self._counted_us(connection, now_us)
            return await self._close_chunks(connection, now_us) + await self._end_late_generation(connection, now_us)

    async def finish_closed(self) -> int:
        """See Upkeep. A table that somebody still holds on to is left for the next call; so is all but one of the finished
        tables that lack the index on metadata. One that is gone keeps up no other. Raises DatabaseUnavailable."""
        finished = 0
        async with patient(self._database) as connection:
            await self._note_chunks(connection)
            cursor = await connection.execute(
                "SELECT table_name FROM catalogue WHERE state = 'closed' ORDER BY closed_at, table_name"
            )
            for (table,) in await cursor.fetchall():
                work = partial(finish, connection, table, metadata_index=self._settings.metadata_index)
                try:
                    finished += await tried("finish", table, work, again_on=(DEADLOCK,))
                except Error as error:
                    if sqlstate(error) != UNDEFINED_TABLE:
                        raise
                    if await forget_if_gone(connection, table):
                        log.error("a closed table is not there and has left the catalogue", table=table)
            if self._settings.metadata_index:
                await tried("index metadata", "a finished table", partial(index_metadata_of_one, connection))
        return finished

    async def drop_expired(self, *, now_us: int, retention_us: int) -> int:
        """See Upkeep. A table leaves the catalogue now and is dropped by a call 10 minutes later. Raises
        DatabaseUnavailable."""
        dropped = 0
        async with patient(self._database) as connection:
            now_us = await self._counted_us(connection, now_us)
            await end_reads(connection, older_s=READ_S_MAX)
            await self._finish_detaches(connection)
            await connection.execute(_EXPIRE, (now_us - retention_us, now_us))
            cursor = await connection.execute(_DROPPABLE, (now_us - DROP_DELAY_S * 1_000_000,))
            for table, kind in await cursor.fetchall():
                drop = partial(self._drop_before_readers, connection, table, kind)
                dropped += await tried("drop", table, drop, again_on=(DEADLOCK,))
            dropped += await self._drop_keys(connection)
            await in_batches(connection, _DROP_RESERVATIONS, now_us - KEYS_KEPT_H * _HOUR_US)
            await in_batches(connection, _DROP_MINUTES, now_us - retention_us)
        return dropped

    async def roll_up_ledger(self, *, now_us: int) -> None:
        """See Upkeep. One statement, hence one transaction. Raises DatabaseUnavailable."""
        async with self._database.connection() as connection:
            now_us = await self._counted_us(connection, now_us)
            await connection.execute(_ROLL_UP, (now_us - LEDGER_SETTLES_S * 1_000_000,))

    async def _counted_us(self, connection: Connection, now_us: int) -> int:
        """The time that counts when the caller says that it is `now_us`."""
        return min(now_us, await clock_us(connection) + self._ahead_us_max)

    async def _finish_detaches(self, connection: Connection) -> None:
        for parent in ("logs", "stored_keys"):
            for name in await pending_detaches(connection, parent):
                finalise = partial(finalise_detach, connection, parent, name)
                await tried("finish a detach", name, finalise, again_on=(DEADLOCK,))

    async def _drop_keys(self, connection: Connection) -> int:
        tables = await detached_tables(connection, "stored_keys")
        for name, day, _ in await partitions(connection, "stored_keys", "{bound}::date"):
            (over,) = await one(connection, _KEY_DAY_OVER, (day, timedelta(hours=KEYS_KEPT_H), self._topic))
            if over:
                tables.append(name)
        dropped = 0
        for name in tables:
            drop = partial(drop_partition, connection, "stored_keys", name)
            dropped += await tried("drop", name, drop, again_on=(DEADLOCK,))
        return dropped

    async def _note_chunks(self, connection: Connection) -> None:
        start, end = (AT.replace("%s", column) for column in ("start_us", "end_us"))
        note = _NOTE_CHUNKS.format(listing=self._chunks.listing, start=start, end=end)
        await connection.execute(note.encode())

    async def _close_chunks(self, connection: Connection, now_us: int) -> int:
        await self._note_chunks(connection)
        delay = timedelta(seconds=self._settings.closing_delay_s)
        halted_delay = timedelta(seconds=self._settings.halted_closing_s)
        due = await one(connection, _DUE, (self._topic, delay, delay, delay, halted_delay, now_us))
        border_us, seen_by_all, forced = due
        if border_us is None:
            return 0
        closed = await under_border(connection, (_MOVE_BORDER, (border_us,)), (_CLOSE_CHUNKS, ()))
        if closed and not seen_by_all:
            log.error("chunks closed although a halted partition has not passed them", ends=forced, topic=self._topic)
        return closed

    async def _end_late_generation(self, connection: Connection, now_us: int) -> int:
        age = timedelta(seconds=self._settings.late_age_s)
        generation, old, full = await one(connection, _LATE_OPEN, (now_us, age, self._settings.late_rows_max))
        if not (old or full):
            return 0
        (has_rows,) = await one(connection, f"SELECT EXISTS (SELECT FROM logs_late_{generation:d})")
        if not has_rows:
            return 0
        # Before the border names it, so that it is there for whoever reads the new border.
        following = generation + 1
        table = _LATE_TABLE.format(table=f"logs_late_{following:d}", generation=following)
        await tried("make a late table", f"logs_late_{following:d}", partial(connection.execute, table.encode()))
        return await under_border(connection, (_END_GENERATION, (generation,)), (_CLOSE_LATE, ()))

    async def _drop_before_readers(self, connection: Connection, table: str, kind: str) -> None:
        """Readers by SQL who are in the way lose their session, once: one after the other they could keep a table for ever."""
        try:
            await self._drop(connection, table, kind)
        except Error as error:
            in_the_way = sqlstate(error) in BUSY
            if not in_the_way or not await end_reads(connection, older_s=LOCK_TIMEOUT_MS / 1_000):
                raise
            await self._drop(connection, table, kind)

    async def _drop(self, connection: Connection, table: str, kind: str) -> None:
        if kind == "chunk":
            await self._chunks.drop(connection, table)
        else:
            await connection.execute(f"DROP TABLE IF EXISTS {table}".encode())
        await connection.execute("DELETE FROM expired_tables WHERE table_name = %s", (table,))
