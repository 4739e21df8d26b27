"""Who was connected, and how far the texts of both sides are stored.

A text is stored chunk by chunk. Before a chunk is published its end is written down (`intend`), so that whoever goes on after a
crash sends the very same chunk under the very same key, and the writer stores it once; afterwards `advance` moves the text's
end, and adds the figures of the chunk, in one transaction. Both compare what they begin from, so that several requests with one
text may go on side by side: one of them moves, the others look again. No lock is held while anything is published.
"""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from connections.figures import OTHER_KINDS, Figures
from connections.metrics import Side
from connections.series import Series
from db.database import Connection, Database, bounded
from schemas.errors import InvalidInput

_CALL_S: Final = 15.0
_EXPIRED_MAX: Final = 1_000
"""Most that one new connection removes."""
NOTHING_SHA256: Final = hashlib.sha256(b"").digest()
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_PUT: Final = """
    INSERT INTO connections AS c (connection_id, username, ip, version, last_updated, put_at) VALUES (%s, %s, %s, %s, %s, %s)
    ON CONFLICT (connection_id) DO UPDATE SET username = excluded.username, ip = excluded.ip, version = excluded.version,
        last_updated = excluded.last_updated, put_at = excluded.put_at
    RETURNING xmax = 0"""
# What somebody changes at this moment is not old, and is waited for by nobody.
_EXPIRE: Final = """
    WITH gone AS (
        DELETE FROM connections WHERE connection_id IN (
            SELECT connection_id FROM connections WHERE put_at < %s ORDER BY put_at LIMIT %s FOR UPDATE SKIP LOCKED)
        RETURNING 1)
    UPDATE connection_totals SET connections = connections + 1 - (SELECT count(*) FROM gone) RETURNING connections"""
_STATE: Final = """
    SELECT c.last_updated, c.shift_us, s.stored_bytes, s.stored_line_ends, s.stored_sha256, s.carried_us, s.pending_end,
        s.pending_sha256, s.pending_us, s.lines, s.filtered, s.rejected
    FROM connections c LEFT JOIN connection_sides s ON s.connection_id = c.connection_id AND s.side = %s
    WHERE c.connection_id = %s"""
_BEGIN: Final = """
    WITH shifted AS (
        UPDATE connections SET shift_us = %s WHERE connection_id = %s AND (shift_us IS NULL OR shift_us = %s) RETURNING
        connection_id)
    INSERT INTO connection_sides (connection_id, side, service_name, stored_sha256)
    SELECT connection_id, %s, %s, %s FROM shifted ON CONFLICT DO NOTHING"""
_INTEND: Final = """
    UPDATE connection_sides SET pending_end = %s, pending_sha256 = %s, pending_us = %s
    WHERE connection_id = %s AND side = %s AND stored_bytes = %s AND pending_end IS NULL"""
_ADVANCE: Final = """
    UPDATE connection_sides SET stored_bytes = pending_end, stored_sha256 = pending_sha256, stored_line_ends = %s, carried_us =
    %s,
        pending_end = NULL, pending_sha256 = NULL, pending_us = NULL,
        lines = lines + %s, errors = errors + %s, warnings = warnings + %s, filtered = filtered + %s, rejected = rejected + %s,
        first_us = least(first_us, %s), last_us = greatest(last_us, %s)
    WHERE connection_id = %s AND side = %s AND stored_bytes = %s AND pending_end = %s"""
_SERIES: Final = (
    "INSERT INTO connection_series (connection_id, side, metric, from_byte, points) VALUES (%s, %s, %s, %s, %s)"
)
_POINTS: Final = """
    SELECT metric, points FROM connection_series WHERE connection_id = %s AND side = %s ORDER BY metric, from_byte"""
_MEDIAN: Final = """
    INSERT INTO connection_metrics (connection_id, side, metric, points, median) VALUES (%s, %s, %s, %s, %s)
    ON CONFLICT (connection_id, side, metric) DO UPDATE SET points = excluded.points, median = excluded.median"""
_ERRORS: Final = """
    INSERT INTO connection_errors AS e (connection_id, side, message, lines)
    SELECT %s, %s, message, lines FROM unnest(%s::text[], %s::bigint[]) AS kinds (message, lines)
    ON CONFLICT (connection_id, side, message) DO UPDATE SET lines = e.lines + excluded.lines"""
_FEWER_ERRORS: Final = """
    WITH fewest AS (
        DELETE FROM connection_errors
        WHERE connection_id = %(id)s AND side = %(side)s AND message <> %(other)s AND message NOT IN (
            SELECT message FROM connection_errors WHERE connection_id = %(id)s AND side = %(side)s AND message <> %(other)s
            ORDER BY lines DESC, message LIMIT %(most)s)
        RETURNING lines)
    INSERT INTO connection_errors AS e (connection_id, side, message, lines)
    SELECT %(id)s, %(side)s, %(other)s, sum(lines) FROM fewest HAVING count(*) > 0
    ON CONFLICT (connection_id, side, message) DO UPDATE SET lines = e.lines + excluded.lines"""


class TooManyConnections(InvalidInput):
    """There are as many connections as are kept."""


@dataclass(frozen=True, slots=True)
class ConnectionDetails:
    """Who was connected."""

    username: str
    ip: str
    version: str
    last_updated_us: int


@dataclass(frozen=True, slots=True)
class Pending:
    """A chunk that may be in the broker."""

    end: int
    sha256: bytes
    """Of the text up to its end."""
    judged_us: int


@dataclass(frozen=True, slots=True)
class TextState:
    """How far a text is stored."""

    last_updated_us: int
    """Of its connection."""
    shift_us: int | None
    """What is added to the times of its lines; None: nobody has decided yet."""
    is_begun: bool = False
    stored_bytes: int = 0
    line_ends: int = 0
    sha256: bytes = NOTHING_SHA256
    carried_us: int | None = None
    pending: Pending | None = None
    lines: int = 0
    filtered: int = 0
    rejected: int = 0


class ConnectionTexts:
    """Connections and the ends of their texts, for who takes them in."""

    def __init__(self, database: Database, *, kept_max: int, retention_days: int, error_kinds_max: int) -> None:
        """database: opened and closed by the caller. retention_days: after which a connection that nobody puts goes."""
        self._database = database
        self._kept_max = kept_max
        self._retention_us = retention_days * 86_400_000_000
        self._error_kinds_max = error_kinds_max

    async def put(self, connection_id: str, details: ConnectionDetails, *, now_us: int) -> bool:
        """Whether it is new. Raises TooManyConnections, DatabaseUnavailable."""
        named = (connection_id, details.username, details.ip, details.version)
        async with bounded(_CALL_S), self._database.transaction() as connection:
            times = (_moment(details.last_updated_us), _moment(now_us))
            row = await _row(connection, _PUT, (*named, *times))
            if row is None or not row[0]:
                return False
            totals = await _row(connection, _EXPIRE, (_moment(now_us - self._retention_us), _EXPIRED_MAX))
            if totals is None or totals[0] > self._kept_max:
                raise TooManyConnections(
                    f"there are {self._kept_max} connections, as many as are kept (connections.kept_max)"
                )
            return True

    async def state(self, connection_id: str, side: Side) -> TextState | None:
        """None: there is no such connection. Raises DatabaseUnavailable."""
        async with bounded(_CALL_S):
            row = await self._database.fetch_one(_STATE, (side, connection_id))
        if row is None:
            return None
        last_updated, shift_us, stored_bytes, line_ends, sha256, carried_us, end, end_sha256, judged_us, *counts = row
        last_updated_us = (last_updated - _EPOCH) // _MICROSECOND
        if stored_bytes is None:
            return TextState(last_updated_us, shift_us)
        pending = None if end is None else Pending(end, bytes(end_sha256), judged_us)
        return TextState(
            last_updated_us, shift_us, True, stored_bytes, line_ends, bytes(sha256), carried_us, pending, *counts
        )

    async def begin(self, connection_id: str, side: Side, *, service_name: str, shift_us: int) -> None:
        """Make the side, and decide the shift, unless either has come first. Raises DatabaseUnavailable."""
        params = (shift_us, connection_id, shift_us, side, service_name, NOTHING_SHA256)
        async with bounded(_CALL_S):
            await self._database.execute(_BEGIN, params)

    async def intend(self, connection_id: str, side: Side, stored_bytes: int, pending: Pending) -> bool:
        """Write down what is about to be published behind so many bytes. False: look again. Raises DatabaseUnavailable."""
        params = (pending.end, pending.sha256, pending.judged_us, connection_id, side, stored_bytes)
        async with bounded(_CALL_S):
            return await self._database.execute(_INTEND, params) == 1

    async def advance(
        self,
        connection_id: str,
        side: Side,
        stored_bytes: int,
        end: int,
        *,
        line_ends: int,
        carried_us: int | None,
        figures: Figures,
        filtered: int,
        rejected: int,
        is_whole: bool,
    ) -> bool:
        """The chunk from stored_bytes to `end` is durable. is_whole: the text ends there. False: look again. Raises
        DatabaseUnavailable."""
        key = (connection_id, side)
        counts = (figures.lines, figures.errors, figures.warnings, filtered, rejected)
        params = (line_ends, carried_us, *counts, figures.first_us, figures.last_us, *key, stored_bytes, end)
        async with bounded(_CALL_S), self._database.transaction() as connection:
            cursor = await connection.execute(_ADVANCE.encode(), params)
            if cursor.rowcount != 1:
                return False
            for metric, series in figures.series.items():
                await connection.execute(_SERIES.encode(), (*key, metric, stored_bytes, series.pack()))
            if figures.error_kinds:
                kinds = sorted(figures.error_kinds.items())
                names, lines = [name for name, _ in kinds], [count for _, count in kinds]
                await connection.execute(_ERRORS.encode(), (*key, names, lines))
                named = {"id": connection_id, "side": side, "other": OTHER_KINDS, "most": self._error_kinds_max}
                await connection.execute(_FEWER_ERRORS.encode(), named)
            if is_whole:
                await self._take_medians(connection, key)
            return True

    @staticmethod
    async def _take_medians(connection: Connection, key: tuple[str, Side]) -> None:
        cursor = await connection.execute(_POINTS.encode(), key)
        parts: dict[str, list[bytes]] = {}
        for metric, points in await cursor.fetchall():
            parts.setdefault(metric, []).append(points)
        for metric, packed in parts.items():
            points, median = await asyncio.to_thread(_median_of, packed)
            await connection.execute(_MEDIAN.encode(), (*key, metric, points, median))


def _median_of(packed: list[bytes]) -> tuple[int, float | None]:
    """(points, their median). Sorting those of a long text is not for the event loop."""
    series = Series.unpack(packed)
    return len(series), series.median


async def _row(connection: Connection, statement: str, params: tuple[Any, ...]) -> tuple[Any, ...] | None:
    cursor = await connection.execute(statement.encode(), params)
    return await cursor.fetchone()


def _moment(us: int) -> datetime:
    return _EPOCH + timedelta(microseconds=us)
