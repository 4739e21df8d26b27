"""Reading the hot store: pages, look-ups and the ledger, from PostgreSQL with native partitions or TimescaleDB.

One `snapshot` is one REPEATABLE READ, READ ONLY transaction: offsets, `visible_through`, border, catalogue and rows of one
moment (INV-6). A snapshot serves one task; statements follow one another.

Rows are in `logs` (chunks by time) and in the late generations; both are merged by (timestamp, id) inside each statement.
`logs` is asked through the parent with explicit bounds of time, which exclude all other chunks at planning (measured: as
cheap as the chunks' own names, 0.1 ms a chunk natively). Values are always parameters of statements that are planned anew;
identifiers come from our catalogue only.

A scan walks windows (store/scan_windows.py) within its budget. A window that does not end in its share of the budget is
cancelled by the server and tried narrower, at last as a counted number of rows: a page always gets on, or says 503. What one
call returns is bounded in rows and in bytes, by the server, so that nothing larger ever reaches us.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec

from db.database import Connection, Database, Error, sql, sqlstate
from db.migrations import Layout
from runtime.clock import Clock, SystemClock
from schemas.errors import DatabaseUnavailable
from schemas.levels import level_name
from schemas.record import Log
from schemas.scope import ALL_SERVICES, ServiceScope
from search.bounds import correlation_of, time_bounds
from search.predicate import EVERYTHING, all_of, within
from search.sql import Sql
from search.sql_postgres import compile_postgres
from store.port import (
    SERVICES_MAX,
    LedgerRow,
    Order,
    Outcome,
    Position,
    Scan,
    ScanResult,
    ServiceSummary,
    Snapshot,
)
from store.scan_windows import BEYOND, GREATEST_US, LEAST, LEAST_US, Pace, Span, Walk, Window, successor

__all__ = ["PostgresReadStore", "SnapshotLost"]

PAGE_BYTES_MAX: Final = 8 * 1024 * 1024
"""Messages and metadata of one result; one log may exceed it."""
SNAPSHOT_MS_MAX: Final = 60_000
SCAN_BUDGET_MS: Final = 2_000
"""For look-ups, which bring no budget of their own."""

_FIRST_WIDTH_US: Final = 3_600 * 1_000_000
_TABLES_MAX: Final = 64
"""Chunks and late generations that one statement asks: 6 ms of planning natively."""
_STATEMENT_MS_LEAST: Final = 50
_LAST_TRY_MS: Final = 1_000
_VISIBLE_SLACK_US: Final = 1_000_000
"""Clocks of broker and writers may differ by so much."""
_LOGS: Final = "logs"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_EVERYWHERE_US: Final = GREATEST_US - LEAST_US

_CANCELLED: Final = "57014"

_OFFSETS: Final = """
SELECT partition, next_offset,
       CASE WHEN isfinite(stored_to) THEN (extract(epoch FROM stored_to) * 1000000)::bigint ELSE 0 END
FROM consumer_offsets WHERE topic = %s
"""
_BORDER: Final = "SELECT (extract(epoch FROM closed_before) * 1000000)::bigint FROM border"
_CATALOGUE: Final = """
SELECT table_name, kind, state, (extract(epoch FROM range_start) * 1000000)::bigint,
       (extract(epoch FROM range_end) * 1000000)::bigint, id_min, id_max
FROM catalogue WHERE (state = 'finished') = %s AND rows IS DISTINCT FROM 0
"""
_FINISHED_VERSION: Final = """
SELECT count(*), coalesce(sum(hashtextextended(table_name, xmin::text::bigint)), 0)
FROM catalogue WHERE state = 'finished'
"""
"""Changes whenever a row appears, changes or goes: xmin names the transaction that wrote it."""
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
ORDER BY minute, service_name, level, outcome, reason
"""
_LEDGER_MS_MAX: Final = 30_000
_SECRET: Final = "cursor"


class SnapshotLost(DatabaseUnavailable):
    """A table was dropped while it was read (retention): take a new snapshot and ask again."""


@dataclass(frozen=True, slots=True)
class _Table:
    """One row of the catalogue."""

    name: str
    is_late: bool
    is_finished: bool
    start_us: int | None
    end_us: int | None
    id_min: int | None
    id_max: int | None

    def may_hold(self, log_id: int) -> bool:
        """Whether the log with this id can be in the table."""
        return self.id_min is None or self.id_max is None or self.id_min <= log_id <= self.id_max


class PostgresReadStore:
    """Implements `store.port.ReadStore` for one topic's partitions."""

    def __init__(
        self,
        database: Database,
        topic: str,
        layout: Layout,
        *,
        page_bytes_max: int = PAGE_BYTES_MAX,
        clock: Clock | None = None,
    ) -> None:
        """database: opened by the caller; page_bytes_max: cut a result there (one log may exceed it)."""
        self._database = database
        self._topic = topic
        self.layout = layout
        self._page_bytes_max = page_bytes_max
        self._clock = clock or SystemClock()
        self._finished: tuple[object, list[_Table]] = (None, [])
        """Version and rows of the catalogue's finished part, as last seen."""

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[Snapshot]:
        """See ReadStore. Raises SnapshotLost from within when a table was dropped meanwhile."""
        async with self._database.transaction(snapshot=True) as connection:
            await connection.execute(
                f"SET LOCAL transaction_timeout = {SNAPSHOT_MS_MAX}; SET LOCAL statement_timeout = 10000;"
                " SET LOCAL max_parallel_workers_per_gather = 0".encode()
            )
            try:
                yield await self._load(connection)
            except Error as error:
                if _is_table_gone(error):
                    raise SnapshotLost from error
                raise

    async def services(self, *, allowed: ServiceScope) -> list[ServiceSummary]:
        """See ReadStore."""
        condition = _scope(allowed)
        query = _SERVICES.replace("{allowed}", condition.text).replace("{services_max}", str(SERVICES_MAX))
        found: dict[str, ServiceSummary] = {}
        for name, level, count, minute_us in await self._bounded(query, tuple(condition.params)):
            summary = found.get(name) or ServiceSummary(name, minute_us, {})
            counts = summary.counts_by_level
            band = level_name(level)
            counts[band] = counts.get(band, 0) + count
            found[name] = ServiceSummary(name, max(summary.last_seen_us, minute_us), counts)
        return list(found.values())

    async def ledger(
        self, *, start_us: int, end_us: int, allowed: ServiceScope, service_names: Iterable[str] = ()
    ) -> list[LedgerRow]:
        """See ReadStore."""
        condition = _scope(allowed)
        names = list(service_names) or None
        start, end = _to_datetime(start_us), _to_datetime(end_us)
        query = _LEDGER.replace("{allowed}", condition.text).replace("{names}", "%s")
        rows = await self._bounded(query, (start, end, start, end, *condition.params, names, names))
        return [
            LedgerRow(minute_us, name, level, Outcome(outcome), reason, count)
            for minute_us, name, level, outcome, reason, count in rows
        ]

    async def cursor_secret(self) -> bytes:
        """See ReadStore."""
        async with self._database.connection() as connection:
            await connection.execute(
                "INSERT INTO secrets (name, value) VALUES (%s, %s) ON CONFLICT DO NOTHING",
                (_SECRET, secrets.token_bytes(32)),
            )
            cursor = await connection.execute("SELECT value FROM secrets WHERE name = %s", (_SECRET,))
            row = await cursor.fetchone()
        assert row is not None
        return bytes(row[0])

    async def _load(self, connection: Connection) -> _PostgresSnapshot:
        """The first statement takes the snapshot; all others of the transaction see the same moment."""
        partitions = await (await connection.execute(_OFFSETS, (self._topic,))).fetchall()
        border = await (await connection.execute(_BORDER)).fetchone()
        assert border is not None
        tables = await self._finished_tables(connection) + await _catalogued(connection, is_finished=False)
        stored_to_us = min((stored_us for _, _, stored_us in partitions), default=0)
        return _PostgresSnapshot(
            connection,
            offsets={partition: offset for partition, offset, _ in partitions},
            visible_through_us=max(0, stored_to_us - _VISIBLE_SLACK_US),
            closed_before_us=border[0],
            tables=tables,
            page_bytes_max=self._page_bytes_max,
            clock=self._clock,
        )

    async def _finished_tables(self, connection: Connection) -> list[_Table]:
        """Finished tables are many (1,600 in 400 days) and seldom change: they are kept from snapshot to snapshot."""
        version = await (await connection.execute(_FINISHED_VERSION)).fetchone()
        if version != self._finished[0]:
            self._finished = version, await _catalogued(connection, is_finished=True)
        return self._finished[1]

    async def _bounded(self, query: str, params: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        async with self._database.transaction(snapshot=True) as connection:
            await connection.execute(f"SET LOCAL statement_timeout = {_LEDGER_MS_MAX}".encode())
            return await (await connection.execute(query.encode(), params)).fetchall()


async def _catalogued(connection: Connection, *, is_finished: bool) -> list[_Table]:
    """Tables of the catalogue that can hold rows."""
    return [
        _Table(name, kind == "late", state == "finished", start_us, end_us, id_min, id_max)
        for name, kind, state, start_us, end_us, id_min, id_max in await (
            await connection.execute(_CATALOGUE, (is_finished,))
        ).fetchall()
    ]


class _PostgresSnapshot:
    """Implements `store.port.Snapshot` on one transaction."""

    def __init__(
        self,
        connection: Connection,
        *,
        offsets: dict[int, int],
        visible_through_us: int,
        closed_before_us: int,
        tables: list[_Table],
        page_bytes_max: int,
        clock: Clock,
    ) -> None:
        self._connection = connection
        self._offsets = offsets
        self._visible_through_us = visible_through_us
        self._closed_before_us = closed_before_us
        self._tables = tables
        self._page_bytes_max = page_bytes_max
        self._clock = clock
        self._spans: list[Span] | None = None
        self._has_savepoint = False

    @property
    def offsets(self) -> dict[int, int]:
        """See Snapshot."""
        return dict(self._offsets)

    @property
    def visible_through_us(self) -> int:
        """See Snapshot."""
        return self._visible_through_us

    async def newest(self) -> Position | None:
        """See Snapshot."""
        scan = Scan(EVERYTHING, Order.NEWEST_FIRST, limit=1, budget_ms=SCAN_BUDGET_MS)
        result = await self.scan(scan, allowed=ALL_SERVICES)
        if result.logs:
            return result.logs[0].timestamp, result.logs[0].id
        if not result.finished:
            raise DatabaseUnavailable("the newest log was not found in time; try again shortly")
        return None

    async def scan(self, scan: Scan, *, allowed: ServiceScope) -> ScanResult:
        """See Snapshot."""
        if allowed.is_empty or scan.limit < 1:
            return ScanResult([], True, None)
        low, high = _interval(scan)
        newest_first = scan.order is Order.NEWEST_FIRST
        by_index = correlation_of(scan.predicate) is not None
        walk = Walk(
            await self._all_spans(),
            newest_first=newest_first,
            low=low,
            high=high,
            barrier_us=self._closed_before_us,
            tables_max=_TABLES_MAX,
        )
        condition = compile_postgres(all_of(scan.predicate, within(allowed)))
        return await self._walk(walk, condition, scan, newest_first=newest_first, by_index=by_index)

    async def by_id(self, log_id: int, *, allowed: ServiceScope) -> Log | None:
        """See Snapshot. Newest places first; each is asked through its BRIN of ids."""
        if allowed.is_empty:
            return None
        scope = _scope(allowed)
        places = self._places(log_id)
        for first in range(0, len(places), _TABLES_MAX):
            arms: list[sql.Composable] = []
            params: list[Any] = []
            for table, low_us, high_us in places[first : first + _TABLES_MAX]:
                bounds = _bounds((low_us, 0), (high_us, 0), params)
                arms.append(
                    sql.SQL("SELECT {columns} FROM {table} WHERE {bounds} AND id = %s AND ({scope})").format(
                        columns=_COLUMNS, table=sql.Identifier(table), bounds=bounds, scope=_raw(scope.text)
                    )
                )
                params += [log_id, *scope.params]
            query = sql.SQL("{arms} LIMIT 1").format(arms=sql.SQL(" UNION ALL ").join(arms))
            rows = await self._run(query, params, timeout_ms=SCAN_BUDGET_MS, bitmap_only=True)
            if rows is None:
                raise DatabaseUnavailable("the look-up took too long; try again shortly")
            if rows:
                return _log(rows[0])
        return None

    # --- windows ---------------------------------------------------------------------------------------------------

    async def _walk(self, walk: Walk, condition: Sql, scan: Scan, *, newest_first: bool, by_index: bool) -> ScanResult:
        """Window after window until limit, bytes, budget or range are used up; then on to the first row beyond them."""
        border = (self._closed_before_us, 0)
        pace = Pace(_EVERYWHERE_US if by_index else _FIRST_WIDTH_US)
        ends_s = self._clock.monotonic_s() + scan.budget_ms / 1000
        logs: list[Log] = []
        bytes_left = self._page_bytes_max
        got_on = is_full = False
        while True:
            window = walk.next(pace.width_us)
            if window is None:
                return ScanResult(logs, True, None)
            began_s = self._clock.monotonic_s()
            left_ms = int((ends_s - began_s) * 1000)
            if left_ms <= 0 and (got_on or left_ms <= -_LAST_TRY_MS):
                if not got_on:
                    raise DatabaseUnavailable("the search got nowhere in its time: the database is busy")
                return ScanResult(logs, False, walk.scanned_to)
            last_try = pace.rows == 1
            share_ms = max(_STATEMENT_MS_LEAST, _LAST_TRY_MS if last_try else left_ms // 4)
            if pace.rows is not None:
                narrowed = await self._narrow(walk, window, pace.rows, share_ms, newest_first=newest_first)
                if narrowed is None:
                    pace.was_too_much()
                    continue
                window = narrowed
            wanted = 1 if is_full else scan.limit - len(logs) + 1
            bitmap_only = by_index and pace.rows is None and window.low >= border
            query, params = _window_query(window, condition, wanted, bytes_left, newest_first=newest_first)
            rows = await self._run(query, params, timeout_ms=share_ms, bitmap_only=bitmap_only)
            if rows is None:
                pace.was_too_much()
                continue
            got_on = True
            is_cut = bool(rows) and (is_full or len(rows) < rows[0][_TOTAL])
            logs += () if is_full else map(_log, rows)
            if len(logs) > scan.limit or is_cut:
                del logs[scan.limit :]
                return ScanResult(logs, False, (logs[-1].timestamp, logs[-1].id))
            bytes_left -= sum(row[_BYTES] for row in rows)
            walk.done(window)
            if not is_full and (len(logs) == scan.limit or bytes_left <= 0):
                is_full = True
                ends_s = min(ends_s, self._clock.monotonic_s() + scan.beyond_ms / 1000)
            if by_index and border in (window.low, window.high):
                pace = Pace(_EVERYWHERE_US)  # closed tables have an index that open ones lack, and the reverse
            elif (self._clock.monotonic_s() - began_s) * 8_000 < share_ms:
                pace.was_quick()
            else:
                pace.was_enough()

    async def _narrow(
        self, walk: Walk, window: Window, count: int, timeout_ms: int, *, newest_first: bool
    ) -> Window | None:
        """The part of the window in which no table has more than `count` rows; None when even that took too long."""
        last: Position | None = None
        for table in window.tables:
            params: list[Any] = []
            query = sql.SQL(
                "SELECT timestamp, id FROM {table} WHERE {bounds} ORDER BY {order} LIMIT 1 OFFSET %s"
            ).format(
                table=sql.Identifier(table), bounds=_bounds(window.low, window.high, params), order=_order(newest_first)
            )
            rows = await self._run(query, [*params, count - 1], timeout_ms=timeout_ms)
            if rows is None:
                return None
            if rows:
                position = (_to_us(rows[0][0]), rows[0][1])
                nearest = max if newest_first else min
                last = position if last is None else nearest(last, position)
        return window if last is None else walk.narrow(window, last)

    async def _all_spans(self) -> list[Span]:
        """Where rows can be: closed tables as catalogued, open ones as their indexes say now."""
        if self._spans is None:
            spans = [
                Span(_LOGS, table.start_us, min(table.end_us, self._closed_before_us))
                for table in self._tables
                if not table.is_late
                and table.start_us is not None
                and table.end_us is not None
                and table.start_us < self._closed_before_us
            ]
            unknown = [(_LOGS, self._closed_before_us)]
            for table in self._tables:
                if not table.is_late:
                    continue
                if table.is_finished and table.start_us is not None and table.end_us is not None:
                    spans.append(Span(table.name, table.start_us, table.end_us))
                else:
                    unknown.append((table.name, LEAST_US))
            self._spans = spans + await self._probe(unknown)
        return self._spans

    async def _probe(self, tables: Sequence[tuple[str, int]]) -> list[Span]:
        """First and last timestamp of open tables, each by one end of its index."""
        part = sql.SQL(
            "(SELECT timestamp FROM {table} WHERE timestamp >= %s ORDER BY timestamp, id LIMIT 1),"
            " (SELECT timestamp FROM {table} WHERE timestamp >= %s ORDER BY timestamp DESC, id DESC LIMIT 1)"
        )
        query = sql.SQL("SELECT {parts}").format(
            parts=sql.SQL(", ").join(part.format(table=sql.Identifier(name)) for name, _ in tables)
        )
        params = [moment for _, least_us in tables for moment in (_to_datetime(least_us),) * 2]
        found = await self._run(query, params, timeout_ms=SCAN_BUDGET_MS)
        if found is None:
            raise DatabaseUnavailable("the database is busy: the ends of the open tables were not found in time")
        ends = found[0]
        return [
            Span(name, _to_us(ends[2 * index]), _to_us(ends[2 * index + 1]) + 1)
            for index, (name, _) in enumerate(tables)
            if ends[2 * index] is not None
        ]

    def _places(self, log_id: int) -> list[tuple[str, int, int]]:
        """(table, from, to) of every place that can hold the id, newest first."""
        places = [(_LOGS, self._closed_before_us, GREATEST_US)]
        places += [
            (table.name, LEAST_US, GREATEST_US) for table in self._tables if table.is_late and table.may_hold(log_id)
        ]
        places += sorted(
            (
                (_LOGS, table.start_us, min(table.end_us, self._closed_before_us))
                for table in self._tables
                if not table.is_late
                and table.start_us is not None
                and table.end_us is not None
                and table.start_us < self._closed_before_us
                and table.may_hold(log_id)
            ),
            key=lambda place: -place[1],
        )
        return places

    async def _run(
        self, query: sql.Composed, params: Sequence[Any], *, timeout_ms: int, bitmap_only: bool = False
    ) -> list[tuple[Any, ...]] | None:
        """Rows, or None when the statement did not end in its time; the snapshot goes on either way.

        bitmap_only: open chunks answer ids and correlation ids from BRIN, which the planner holds for worse than it is.
        """
        scans = "off" if bitmap_only else "on"
        await self._connection.execute(
            f"{'RELEASE SAVEPOINT statement; ' if self._has_savepoint else ''}SAVEPOINT statement;"
            f" SET LOCAL statement_timeout = {timeout_ms:d};"
            f" SET LOCAL enable_seqscan = {scans}; SET LOCAL enable_indexscan = {scans}".encode()
        )
        self._has_savepoint = True
        try:
            cursor = await self._connection.execute(query, params)
            return await cursor.fetchall()
        except Error as error:
            if sqlstate(error) != _CANCELLED:
                raise
        await self._connection.execute("ROLLBACK TO SAVEPOINT statement")
        return None


# --- statements -------------------------------------------------------------------------------------------------------

_COLUMNS: Final = sql.SQL("timestamp, id, level, service_name, correlation_id, message, metadata::text AS metadata")
_BYTES: Final = 7
_TOTAL: Final = 8
_WINDOW: Final = sql.SQL("""
SELECT timestamp, id, level, service_name, correlation_id, message, metadata, bytes, total FROM (
    SELECT *, count(*) OVER () AS total,
           sum(bytes) OVER (ORDER BY {order} ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS bytes_before
    FROM (
        SELECT *, octet_length(message) + octet_length(metadata) AS bytes FROM (
            SELECT timestamp, id, level, service_name, correlation_id, message, metadata::text AS metadata
            FROM ({arms}) AS every ORDER BY {order} LIMIT %s
        ) AS wanted
    ) AS sized
) AS bounded WHERE bytes_before IS NULL OR bytes_before < %s ORDER BY {order}
""")
_ARM: Final = sql.SQL(
    "(SELECT timestamp, id, level, service_name, correlation_id, message, metadata FROM {table}"
    " WHERE {bounds} AND ({condition}) ORDER BY {order} LIMIT %s)"
)


def _window_query(
    window: Window, condition: Sql, wanted: int, bytes_max: int, *, newest_first: bool
) -> tuple[sql.Composed, list[Any]]:
    """The rows of a window in order: at most `wanted`, and none after bytes_max were passed."""
    params: list[Any] = []
    arms: list[sql.Composable] = []
    order = _order(newest_first)
    for table in window.tables:
        bounds = _bounds(window.low, window.high, params)
        params += [*condition.params, wanted]
        arms.append(
            _ARM.format(table=sql.Identifier(table), bounds=bounds, condition=_raw(condition.text), order=order)
        )
    query = _WINDOW.format(arms=sql.SQL(" UNION ALL ").join(arms), order=order)
    return query, [*params, wanted, bytes_max]


def _bounds(low: Position, high: Position, params: list[Any]) -> sql.Composable:
    """low <= (timestamp, id) < high, with the bounds of time on their own: a row comparison alone excludes no chunk."""
    parts = ["timestamp >= %s"]
    params.append(_to_datetime(low[0]))
    if low[1] > 0:
        parts.append("(timestamp, id) >= (%s, %s)")
        params += [_to_datetime(low[0]), low[1]]
    if high[1] > 0:
        parts.append("timestamp <= %s AND (timestamp, id) < (%s, %s)")
        params += [_to_datetime(high[0]), _to_datetime(high[0]), high[1]]
    else:
        parts.append("timestamp < %s")
        params.append(_to_datetime(high[0]))
    return _raw(" AND ".join(parts))


def _order(newest_first: bool) -> sql.SQL:
    return sql.SQL("timestamp DESC, id DESC") if newest_first else sql.SQL("timestamp, id")


def _raw(text: str) -> sql.Composable:
    """SQL text that search/ or we made: placeholders, no values."""
    return sql.SQL(text)


def _scope(allowed: ServiceScope) -> Sql:
    """The condition on service_name that a right stands for."""
    return compile_postgres(within(allowed))


def _interval(scan: Scan) -> tuple[Position, Position]:
    """The scan's range as [low, high)."""
    low, high = LEAST, BEYOND
    implied = time_bounds(scan.predicate)
    for start_us in (scan.start_us, implied.start_us):
        low = low if start_us is None else max(low, (start_us, 0))
    for end_us in (scan.end_us, implied.end_us):
        high = high if end_us is None else min(high, (end_us, 0))
    if scan.last is not None:
        high = min(high, successor(scan.last))
    if scan.after is not None:
        if scan.order is Order.NEWEST_FIRST:
            high = min(high, scan.after)
        else:
            low = max(low, successor(scan.after))
    return low, high


def _log(row: Sequence[Any]) -> Log:
    timestamp, log_id, level, service_name, correlation_id, message, metadata = row[:7]
    return Log(log_id, _to_us(timestamp), level, service_name, message, correlation_id, msgspec.json.decode(metadata))


def _to_datetime(us: int) -> datetime:
    """Exact: no floating point."""
    return _EPOCH + timedelta(microseconds=min(max(us, LEAST_US), GREATEST_US))


def _to_us(moment: datetime) -> int:
    return (moment - _EPOCH) // _MICROSECOND


def _is_table_gone(error: Error) -> bool:
    """Undefined table, or an internal error: `could not open relation`, when the drop came between planning and reading."""
    return sqlstate(error) in ("42P01", "XX000")
