"""What people ask of connections: lists, one of them, its series, figures of all.

Who was connected may be seen by whoever may read the logs of either side (the caller's decision); what stands in a side's log
only by who may read that side: every call carries `allowed`, and a side of a service that is not in it is as if it were
missing (INV-5).
Statements end by themselves in `_BUDGET_MS`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from connections.figures import OTHER_KINDS
from connections.metrics import LATENCY, Side
from connections.series import Series
from db.database import Connection, Database, Error, bounded, sqlstate
from schemas.errors import DatabaseUnavailable
from schemas.scope import ServiceScope
from search.predicate import Contains, within
from search.sql import Columns, Sql
from search.sql_postgres import compile_postgres

ERRORS_SHOWN_MAX: Final = 20
PAIRS_MAX: Final = 10_000
"""Connections whose errors and latency are compared: those that were updated last."""
_BUDGET_MS: Final = 10_000
_SLACK_S: Final = 2.0
_QUERY_CANCELED: Final = "57014"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_SERVICE: Final = Columns(service_name="s.service_name")
# {allowed} is of s.service_name.
_PAGE: Final = """
    SELECT connection_id, username, ip, version, last_updated FROM connections c
    WHERE {wanted} AND (%s::timestamptz IS NULL OR (last_updated, connection_id) < (%s, %s)) AND {errors}
    ORDER BY last_updated DESC, connection_id DESC LIMIT %s"""
_HAS_ERRORS: Final = """{negation} EXISTS (
        SELECT FROM connection_sides s WHERE s.connection_id = c.connection_id AND s.errors > 0 AND {allowed})"""
_SIDES: Final = """
    SELECT s.connection_id, s.side, s.service_name, s.lines, s.errors, s.warnings, s.first_us, s.last_us FROM connection_sides s
    WHERE s.connection_id = ANY (%s) AND {allowed}"""
_MEDIANS: Final = """
    SELECT m.metric, m.side, m.points, m.median FROM connection_metrics m JOIN connection_sides s USING (connection_id, side)
    WHERE m.connection_id = %s AND {allowed} ORDER BY m.metric, m.side DESC"""
_KINDS: Final = """
    SELECT e.message, sum(e.lines)::bigint FROM connection_errors e JOIN connection_sides s USING (connection_id, side)
    WHERE e.connection_id = %s AND {allowed} GROUP BY 1 ORDER BY (e.message = %s), 2 DESC, 1 LIMIT %s"""
_POINTS: Final = """
    SELECT p.points FROM connection_series p JOIN connection_sides s USING (connection_id, side)
    WHERE p.connection_id = %s AND p.side = %s AND p.metric = %s AND {allowed} ORDER BY p.from_byte"""
_ALL_MEDIANS: Final = """
    SELECT m.metric, percentile_cont(0.5) WITHIN GROUP (ORDER BY m.median), count(DISTINCT m.connection_id)
    FROM connection_metrics m JOIN connection_sides s USING (connection_id, side) WHERE {allowed} GROUP BY 1 ORDER BY 1"""
_ALL_KINDS: Final = """
    SELECT e.message, sum(e.lines)::bigint, count(DISTINCT e.connection_id)
    FROM connection_errors e JOIN connection_sides s USING (connection_id, side)
    WHERE {allowed} GROUP BY 1 ORDER BY (e.message = %s), 2 DESC, 1 LIMIT %s"""
_PAIRS: Final = """
    SELECT sum(s.errors)::bigint, avg(m.median)
    FROM (SELECT connection_id FROM connections ORDER BY last_updated DESC, connection_id DESC LIMIT %s) AS c
    JOIN connection_sides s USING (connection_id)
    LEFT JOIN connection_metrics m ON m.connection_id = s.connection_id AND m.side = s.side AND m.metric = %s
    WHERE {allowed} GROUP BY s.connection_id HAVING count(m.median) > 0"""


@dataclass(frozen=True, slots=True)
class SideFigures:
    """One side's log."""

    service_name: str
    lines: int
    errors: int
    warnings: int
    first_us: int | None
    """Least timestamp of its lines; None without any."""
    last_us: int | None


@dataclass(frozen=True, slots=True)
class StoredConnection:
    """One connection, with the sides that may be seen."""

    connection_id: str
    username: str
    ip: str
    version: str
    last_updated_us: int
    sides: dict[Side, SideFigures] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Median:
    """Of one metric of one side."""

    metric: str
    side: Side
    points: int
    median: float


@dataclass(frozen=True, slots=True)
class Statistics:
    """Of all connections."""

    connections: int
    medians: list[tuple[str, float, int]]
    """(metric, median of medians, connections that have it)"""
    kinds: list[tuple[str, int, int]]
    """(error, lines, connections that have it)"""
    pairs: list[tuple[float, float]]
    """(lines of errors, median latency) of each connection that has a latency."""


class ConnectionReader:
    """Reads what was put."""

    def __init__(self, database: Database) -> None:
        """database: opened and closed by the caller."""
        self._database = database

    async def find(
        self,
        *,
        username: str,
        has_errors: bool | None,
        before: tuple[int, str] | None,
        limit: int,
        allowed: ServiceScope,
    ) -> list[StoredConnection]:
        """The one that was updated last first. username: part of it, in any case of letters; may be empty. before:
        (last_updated_us, id), exclusive. Raises DatabaseUnavailable."""
        wanted = compile_postgres(Contains(username), Columns(message="username")) if username else Sql("true")
        scope, errors = _allowed(allowed), Sql("true")
        if has_errors is not None:
            negation = "" if has_errors else "NOT"
            errors = Sql(_HAS_ERRORS.format(negation=negation, allowed=scope.text), scope.params)
        moment, connection_id = (None, None) if before is None else (_EPOCH + before[0] * _MICROSECOND, before[1])
        params = (*wanted.params, moment, moment, connection_id, *errors.params, limit)
        async with self._snapshot() as connection:
            rows = await _rows(connection, _PAGE.format(wanted=wanted.text, errors=errors.text), params)
            return await self._with_sides(connection, rows, scope)

    async def one(self, connection_id: str, *, allowed: ServiceScope) -> StoredConnection | None:
        """None: there is none. Raises DatabaseUnavailable."""
        async with self._snapshot() as connection:
            return await self._one(connection, connection_id, _allowed(allowed))

    async def figures(
        self, connection_id: str, *, allowed: ServiceScope
    ) -> tuple[StoredConnection, list[Median], list[tuple[str, int]]] | None:
        """(connection, medians, kinds of errors with their lines); None: there is none. Raises DatabaseUnavailable."""
        scope = _allowed(allowed)
        async with self._snapshot() as connection:
            found = await self._one(connection, connection_id, scope)
            if found is None:
                return None
            medians = await _rows(connection, _MEDIANS.format(allowed=scope.text), (connection_id, *scope.params))
            params = (connection_id, *scope.params, OTHER_KINDS, ERRORS_SHOWN_MAX)
            kinds = await _rows(connection, _KINDS.format(allowed=scope.text), params)
        shown = [Median(metric, Side(side), points, median) for metric, side, points, median in medians]
        return found, shown, [(message, lines) for message, lines in kinds]

    async def series(
        self, connection_id: str, metric: str, sides: Sequence[Side], *, allowed: ServiceScope
    ) -> tuple[Side, Series] | None:
        """Of the first of these sides that has any; None: none has. Raises DatabaseUnavailable."""
        scope = _allowed(allowed)
        async with self._snapshot() as connection:
            for side in sides:
                params = (connection_id, side, metric, *scope.params)
                rows = await _rows(connection, _POINTS.format(allowed=scope.text), params)
                if rows:
                    return side, Series.unpack(points for (points,) in rows)
        return None

    async def statistics(self, *, allowed: ServiceScope) -> Statistics:
        """Raises DatabaseUnavailable."""
        scope = _allowed(allowed)

        def of_allowed(statement: str) -> str:
            return statement.format(allowed=scope.text)

        async with self._snapshot() as connection:
            ((count,),) = await _rows(connection, "SELECT count(*) FROM connections", ())
            medians = await _rows(connection, of_allowed(_ALL_MEDIANS), scope.params)
            kinds = await _rows(connection, of_allowed(_ALL_KINDS), (*scope.params, OTHER_KINDS, ERRORS_SHOWN_MAX))
            pairs = await _rows(connection, of_allowed(_PAIRS), (PAIRS_MAX, LATENCY, *scope.params))
        return Statistics(
            count,
            [(metric, median, number) for metric, median, number in medians],
            [(message, lines, number) for message, lines, number in kinds],
            [(float(errors), latency) for errors, latency in pairs],
        )

    async def _one(self, connection: Connection, connection_id: str, scope: Sql) -> StoredConnection | None:
        statement = _PAGE.format(wanted="connection_id = %s", errors="true")
        rows = await _rows(connection, statement, (connection_id, None, None, None, 1))
        found = await self._with_sides(connection, rows, scope)
        return found[0] if found else None

    @staticmethod
    async def _with_sides(
        connection: Connection, rows: Sequence[tuple[Any, ...]], scope: Sql
    ) -> list[StoredConnection]:
        found = {
            row[0]: StoredConnection(row[0], row[1], row[2], row[3], (row[4] - _EPOCH) // _MICROSECOND) for row in rows
        }
        sides = await _rows(connection, _SIDES.format(allowed=scope.text), (list(found), *scope.params))
        for connection_id, side, *figures in sides:
            found[connection_id].sides[Side(side)] = SideFigures(*figures)
        return list(found.values())

    @asynccontextmanager
    async def _snapshot(self) -> AsyncIterator[Connection]:
        """One moment; statements end by themselves."""
        try:
            async with bounded(_BUDGET_MS / 1000 + _SLACK_S), self._database.transaction(snapshot=True) as connection:
                await connection.execute(f"SET LOCAL statement_timeout = {_BUDGET_MS}".encode())
                yield connection
        except Error as error:
            if sqlstate(error) != _QUERY_CANCELED:
                raise
            raise DatabaseUnavailable(
                f"connections were not read in {_BUDGET_MS / 1000:g} s: try again shortly"
            ) from error


def _allowed(allowed: ServiceScope) -> Sql:
    return compile_postgres(within(allowed), _SERVICE)


async def _rows(connection: Connection, statement: str, params: tuple[Any, ...]) -> list[tuple[Any, ...]]:
    cursor = await connection.execute(statement.encode(), params)
    return await cursor.fetchall()
