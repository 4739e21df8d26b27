"""Reading the hot store: snapshots, services and the ledger, from PostgreSQL with native partitions or TimescaleDB.

One `snapshot` is one REPEATABLE READ, READ ONLY transaction: offsets, `visible_through`, border, catalogue, segments and rows
of one moment (INV-6). It is opened by one round trip: the transaction, its settings, and one statement that takes the snapshot
and reads everything but the rows. Catalogue and segments are kept from snapshot to snapshot while their version stays. A
snapshot serves one task; statements follow one another (store/postgres_snapshot.py).
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import structlog

from db.database import Connection, Database, Error, bounded, sql, sqlstate, undo
from db.migrations import Layout
from runtime.clock import Clock, SystemClock
from runtime.tracing import step
from schemas.errors import DatabaseUnavailable
from schemas.levels import level_name
from schemas.scope import ServiceScope
from search.predicate import within
from search.sql import Sql
from search.sql_postgres import compile_postgres
from store.asked_keys import KeyNotes
from store.catalogue import CATALOGUE, PARTS, VERSION, Catalogue, catalogued, known_parts
from store.page_sql import to_datetime
from store.port import SERVICES_MAX, LedgerRow, Outcome, ServiceSummary, Snapshot, SnapshotLost
from store.postgres_snapshot import PostgresSnapshot
from store.rare_keys import RareKeys
from store.second_connection import SecondConnection
from store.statements import OPENED, OPENING, StatementRunner
from store.steps import US
from store.tiers.access import SegmentAccess
from store.tiers.finding import Segments
from store.tiers.hiding import Hiding
from store.tiers.retention import RetentionPolicy

__all__ = ["PostgresReadStore", "SnapshotLost"]

log = structlog.get_logger(__name__)

PAGE_BYTES_MAX: Final = 8 * 1024 * 1024
"""Messages and metadata of one result; one log may exceed it."""
_VISIBLE_SLACK_US: Final = 1_000_000
"""Clocks of broker and writers may differ by so much."""
# Two columns: another server, or one that was started anew; and one that went on after the crash of one of its processes, which
# throws its statistics away. What had not reached the disk is lost with its transactions, whose numbers are given out again:
# they say no more what has come since.
_LIFE: Final = f"""
       {US.format("pg_postmaster_start_time()")}, coalesce({US.format("pg_stat_get_bgwriter_stat_reset_time()")}, 0)"""
_SNAPSHOT: Final = f"""
SELECT (extract(epoch FROM closed_before) * 1000000)::bigint, partitions, next_offsets,
       CASE WHEN isfinite(stored_to) THEN (extract(epoch FROM stored_to) * 1000000)::bigint ELSE 0 END,
       txid_snapshot_xmin(txid_current_snapshot()), {_LIFE}, {VERSION}
FROM border,
     (SELECT array_agg(partition) AS partitions, array_agg(next_offset) AS next_offsets, min(stored_to) AS stored_to
      FROM consumer_offsets WHERE topic = {{topic}}) AS positions
"""
_SERVICES: Final = """
SELECT service_name, level, count, last_us
FROM (SELECT service_name, level, sum(count)::bigint AS count, (extract(epoch FROM max(minute)) * 1000000)::bigint AS last_us,
          dense_rank() OVER (ORDER BY service_name) AS place
      FROM (SELECT service_name, level, count, minute FROM ledger WHERE outcome = 'stored'
            UNION ALL SELECT service_name, level, count, last_minute FROM service_totals) booked
      WHERE {allowed}
      GROUP BY service_name, level) services
WHERE place <= {services_max} ORDER BY service_name, level
"""
_LEDGER: Final = """
SELECT (extract(epoch FROM minute) * 1000000)::bigint, service_name, level, outcome, reason, sum(count)::bigint
FROM (SELECT minute, service_name, level, outcome, reason, count FROM ledger WHERE minute >= %s AND minute < %s
      UNION ALL
      SELECT minute, service_name, level, outcome, reason, count FROM ledger_minutes WHERE minute >= %s AND minute < %s
     ) booked
WHERE {allowed} AND ({names}::text[] IS NULL OR service_name = ANY ({names}::text[]))
GROUP BY minute, service_name, level, outcome, reason HAVING sum(count) <> 0
ORDER BY minute, service_name, level, outcome, reason LIMIT %s
"""
SNAPSHOT_S_MAX: Final = 60.0
SECOND_CONNECTIONS_MAX: Final = 1
"""One search at a time has a second core: others, and whoever stores, need them too."""
_SERVICES_MS_MAX: Final = 30_000
_SECRET: Final = "cursor"
# The server ends statements by itself; a server that hangs does not.
_SECRET_S_MAX: Final = 10.0
_SLACK_S: Final = 5.0
"""So much longer than a statement may take is waited for its answer."""


class PostgresReadStore:
    """Implements `store.port.ReadStore` for one topic's partitions."""

    def __init__(
        self,
        database: Database,
        topic: str,
        layout: Layout,
        *,
        page_bytes_max: int = PAGE_BYTES_MAX,
        snapshot_s_max: float = SNAPSHOT_S_MAX,
        clock: Clock | None = None,
        segments: SegmentAccess | None = None,
        retention: RetentionPolicy | None = None,
        second_connections_max: int = SECOND_CONNECTIONS_MAX,
        open_s_max: float = SNAPSHOT_S_MAX,
        primary: Database | None = None,
    ) -> None:
        """database: opened by the caller; page_bytes_max: cut a result there (one log may exceed it); snapshot_s_max: how long
        a snapshot may be open, whether the server answers or not. segments: opened by the caller; None where files of rows
        cannot be read: what needs them is refused. retention: None shows whatever is there. second_connections_max: how many
        searches may read two windows at once. open_s_max: how long opening a snapshot may take. primary: where database is a
        replica of; None: it is none."""
        self._database = database
        self._topic = topic
        self.layout = layout
        self._page_bytes_max = page_bytes_max
        self._snapshot_s_max = min(snapshot_s_max, SNAPSHOT_S_MAX)
        self._open_s_max = open_s_max
        self._primary = primary
        self._clock = clock or SystemClock()
        self._opening = _opening(topic)
        self._catalogue = Catalogue(None, ())
        """As last seen."""
        self._segments = Segments()
        """Of the same moment."""
        self._access = segments
        self._files_problem: str | None = None
        self._was_told = False
        """Of files that cannot be read and need not yet be."""
        self._retention = retention
        self._hiding: Hiding | None = None
        self._key_notes = KeyNotes(self._clock)
        self._rare_keys = RareKeys()
        self._second_places = asyncio.Semaphore(second_connections_max)

    @property
    def has_segments(self) -> bool:
        """Whether there were files of rows at the last snapshot."""
        return len(self._segments) > 0

    def problem(self) -> str | None:
        """What keeps this process from reading rows that only files have, for people; as of the last `look_at_files`."""
        return self._files_problem if self._segments.serving else None

    async def look_at_files(self) -> None:
        """See whether the files that the last snapshot knew can be read, and let go of copies of others."""
        if self._catalogue.version is None:
            return
        if self._access is None:
            self._files_problem = "files of rows cannot be read: tiers.directory is not set on this host"
        else:
            await self._access.look(self._segments.cold)
            self._files_problem = self._access.problem(has_cold=bool(self._segments.cold))
        if self._files_problem is None or not self.has_segments:
            self._was_told = False
        elif not self._was_told and not self._segments.serving:
            self._was_told = True
            log.warning("tables still have every row, but soon files alone will", problem=self._files_problem)

    @asynccontextmanager
    async def snapshot(
        self, *, at_least: Mapping[int, int] | None = None, is_again: bool = False
    ) -> AsyncIterator[Snapshot]:
        """See ReadStore: there is one place, and one moment. Raises SnapshotLost from within when a table was dropped
        meanwhile."""
        del at_least, is_again
        async with bounded(self._snapshot_s_max), self._database.connection() as connection:
            snapshot: PostgresSnapshot | None = None
            try:
                with step("snapshot"):
                    async with bounded(self._open_s_max):
                        snapshot = await self._taken(connection)
                yield snapshot
            except Error as error:
                if _is_table_gone(error):
                    raise SnapshotLost from error
                raise
            finally:
                if snapshot is not None:
                    await snapshot.close()
                await undo(connection)  # nothing was written: this only ends it
            if not connection.closed and (due := self._key_notes.due(snapshot.wanted_keys)):
                await self._note(connection, due)

    async def _note(self, connection: Connection, keys: Sequence[str]) -> None:
        if self._primary is None:
            await self._key_notes.note(connection, keys)
            return
        try:
            async with self._primary.connection() as writing:
                await self._key_notes.note(writing, keys)
        except DatabaseUnavailable as error:  # the question was answered
            log.info("keys that were asked for are not noted", keys=list(keys), reason=str(error))

    async def services(self, *, allowed: ServiceScope) -> list[ServiceSummary]:
        """See ReadStore."""
        condition = _scope(allowed)
        query = _SERVICES.replace("{allowed}", condition.text).replace("{services_max}", str(SERVICES_MAX))
        found: dict[str, ServiceSummary] = {}
        for name, level, count, minute_us in await self._bounded(_SERVICES_MS_MAX, query, condition.params):
            summary = found.get(name) or ServiceSummary(name, minute_us, {})
            counts = summary.counts_by_level
            band = level_name(level)
            counts[band] = counts.get(band, 0) + count
            found[name] = ServiceSummary(name, max(summary.last_seen_us, minute_us), counts)
        return list(found.values())

    async def ledger(
        self,
        *,
        start_us: int,
        end_us: int,
        allowed: ServiceScope,
        service_names: Iterable[str] = (),
        rows_max: int,
        budget_ms: int,
    ) -> list[LedgerRow]:
        """See ReadStore."""
        condition = _scope(allowed)
        names = list(service_names) or None
        start, end = to_datetime(start_us), to_datetime(end_us)
        query = _LEDGER.replace("{allowed}", condition.text).replace("{names}", "%s")
        params = (start, end, start, end, *condition.params, names, names, rows_max)
        rows = await self._bounded(budget_ms, query, params)
        return [
            LedgerRow(minute_us, name, level, Outcome(outcome), reason, count)
            for minute_us, name, level, outcome, reason, count in rows
        ]

    async def cursor_secret(self) -> bytes:
        """See ReadStore."""
        async with bounded(_SECRET_S_MAX), self._database.connection() as connection:
            await connection.execute(
                "INSERT INTO secrets (name, value) VALUES (%s, %s) ON CONFLICT DO NOTHING",
                (_SECRET, secrets.token_bytes(32)),
            )
            cursor = await connection.execute("SELECT value FROM secrets WHERE name = %s", (_SECRET,))
            row = await cursor.fetchone()
        assert row is not None
        return bytes(row[0])

    async def _taken(self, connection: Connection) -> PostgresSnapshot:
        """The one SELECT of the first message takes the snapshot; all others of the transaction see the same moment."""
        cursor = await connection.execute(self._opening)
        while cursor.nextset():
            pass
        row = await cursor.fetchone()
        assert row is not None, "border and version are one row each, made by migrations"
        closed_before_us, partitions, next_offsets, stored_to_us, mark, *life, revision, parts_counts = row
        # Of this life: a database that was promoted behind counts again from a version that another has counted from already.
        version, runner = (revision, parts_counts, *life), StatementRunner(connection)
        if version != self._catalogue.version:
            tables, parts = await runner.rows(CATALOGUE, ()), await runner.rows(PARTS, ())
            self._segments = await Segments.read(runner, self._segments)
            self._catalogue = Catalogue(
                version, catalogued(tables), known_parts(parts), closed_before_us=closed_before_us
            )
        hiding = self._hiding_now()
        hides = hiding is not None and min(self._catalogue.oldest_us, self._segments.oldest_us) < hiding.cutoff_us
        return PostgresSnapshot(
            runner,
            offsets=dict(zip(partitions or (), next_offsets or (), strict=True)),
            visible_through_us=max(0, stored_to_us - _VISIBLE_SLACK_US),
            closed_before_us=closed_before_us,
            revision=hash((revision, *life, hiding.hour_us if hiding is not None and hides else 0)),
            place=str(life[0]),
            is_current=self._primary is None,
            mark=mark,
            catalogue=self._catalogue,
            segments=self._segments,
            access=self._access,
            hiding=hiding if hides else None,
            rare_keys=self._rare_keys,
            page_bytes_max=self._page_bytes_max,
            clock=self._clock,
            second=SecondConnection(self._database, runner, self._second_places),
        )

    def _hiding_now(self) -> Hiding | None:
        """What is past its age, by the hour."""
        if self._retention is not None:
            now_us = self._clock.now_us()
            if self._hiding is None or not self._hiding.lasts(now_us):
                self._hiding = Hiding.at(self._retention, now_us)
        return self._hiding

    async def _bounded(self, budget_ms: int, query: str, params: Sequence[Any]) -> list[tuple[Any, ...]]:
        async with (
            bounded(budget_ms / 1000 + _SLACK_S),
            self._database.transaction(snapshot=True) as connection,
        ):
            await connection.execute(f"SET LOCAL statement_timeout = {max(1, budget_ms):d}".encode())
            return await (await connection.execute(query.encode(), params)).fetchall()


def _opening(topic: str) -> bytes:
    """One message: without parameters, the server takes several statements in it."""
    settings = "".join(f" SET LOCAL {name} = {value};" for name, value in OPENING.items())
    snapshot = sql.SQL(_SNAPSHOT).format(topic=sql.Literal(topic)).as_bytes(None)
    return f"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;{settings} {OPENED};".encode() + snapshot


def _scope(allowed: ServiceScope) -> Sql:
    """The condition on service_name that a right stands for."""
    return compile_postgres(within(allowed))


def _is_table_gone(error: Error) -> bool:
    """Undefined table, or an internal error: `could not open relation`, when the drop came between planning and reading."""
    return sqlstate(error) in ("42P01", "XX000")
