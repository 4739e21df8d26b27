"""What people ask of patterns: lists, one pattern over time, texts by id.

Each answer is of one snapshot; every call carries `allowed` (INV-5).

Templates are text of logs: a pattern is read service by service, and what somebody may not read is in no figure that they see.
Figures of up to `MINUTES_SPAN_MAX` come from rows by the minute while these are kept, others from rows by the hour; the span
that was meant is widened to whole ones, and answered with.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from db.database import Connection, Database, Error, bounded, sqlstate
from patterns.counts import OTHER
from schemas.errors import DatabaseUnavailable
from schemas.levels import LEVELS, level_name
from schemas.scope import ServiceScope
from search.predicate import EVERYTHING, Predicate, all_of, within
from search.sql import Sql
from search.sql_postgres import compile_postgres

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

MINUTES_SPAN_MAX: Final = 180
"""Minutes; more of them would be too many rows."""
SERVICES_SHOWN_MAX: Final = 20
_ERROR: Final = 17
_BUDGET_MS: Final = 10_000
_SLACK_S: Final = 2.0
_QUERY_CANCELED: Final = "57014"
_MINUTE_US: Final = 60_000_000

# Every pattern of what may be read, under the one that it is read as; both are of the same service.
_SHOWN: Final = """
    shown AS MATERIALIZED (
        SELECT t.key, f.pattern_id, f.template, t.service_name, t.first_minute, t.last_minute
        FROM pattern_templates t JOIN pattern_templates f ON f.key = coalesce(t.into_key, t.key)
        WHERE t.key IN (SELECT key FROM pattern_templates WHERE {allowed}))"""
_SUMS: Final = """
    sums AS MATERIALIZED (
        SELECT s.pattern_id, s.service_name, c.level,
            coalesce(sum(c.lines) FILTER (WHERE c.start >= {first}), 0)::bigint AS lines,
            coalesce(sum(c.lines) FILTER (WHERE c.start < {first}), 0)::bigint AS before
        FROM {table} c JOIN shown s USING (key)
        WHERE c.start >= {before} AND c.start < {end} AND c.level >= {min_level}
        GROUP BY 1, 2, 3)"""
_LIST: Final = f"""
    WITH {_SHOWN}, {_SUMS},
    spans AS (
        SELECT pattern_id, min(template) AS template, min(first_minute) AS first, max(last_minute) AS last
        FROM shown GROUP BY 1),
    patterns AS (
        SELECT pattern_id, sum(lines)::bigint AS lines, sum(before)::bigint AS before,
            coalesce(sum(lines) FILTER (WHERE level >= {_ERROR}), 0)::bigint AS errors
        FROM sums GROUP BY 1),
    totals AS (
        SELECT coalesce(sum(lines), 0)::bigint AS lines,
            coalesce(sum(lines) FILTER (WHERE pattern_id = {OTHER}), 0)::bigint AS other FROM patterns),
    chosen AS (
        SELECT * FROM (
            SELECT pattern_id, template, first, last, coalesce(lines, 0) AS lines, coalesce(before, 0) AS before,
                coalesce(errors, 0) AS errors
            FROM spans LEFT JOIN patterns USING (pattern_id)) AS c
        WHERE pattern_id <> {OTHER} AND {{wanted}}
        ORDER BY {{order}} LIMIT {{limit}}),
    levels AS (
        SELECT pattern_id, jsonb_object_agg(level, lines) AS levels
        FROM (SELECT pattern_id, level, sum(CASE WHEN c.lines > 0 THEN sums.lines ELSE sums.before END) AS lines
              FROM sums JOIN chosen c USING (pattern_id) GROUP BY 1, 2) AS each
        WHERE lines > 0 GROUP BY 1),
    services AS (
        SELECT pattern_id, max(place) AS number,
            array_agg(service_name ORDER BY place) FILTER (WHERE place <= {SERVICES_SHOWN_MAX}) AS names
        FROM (SELECT pattern_id, service_name, row_number() OVER (
                  PARTITION BY pattern_id ORDER BY sum(sums.lines) DESC, sum(sums.before) DESC, service_name) AS place
              FROM sums JOIN chosen USING (pattern_id) GROUP BY 1, 2) AS ranked
        GROUP BY 1)
    SELECT totals.lines, totals.other, c.pattern_id, c.template, c.first, c.last, c.lines, c.before, c.errors,
        l.levels, s.names, s.number
    FROM totals LEFT JOIN chosen c ON true LEFT JOIN levels l USING (pattern_id) LEFT JOIN services s USING (pattern_id)
    ORDER BY {{order}}"""
_SAMPLES: Final = f"""
    WITH {_SHOWN}
    SELECT DISTINCT ON (s.pattern_id) s.pattern_id, c.samples
    FROM shown s JOIN {{table}} c USING (key)
    WHERE s.pattern_id = ANY (%s) AND c.start >= {{before}} AND c.start < {{end}} AND c.level >= {{min_level}}
        AND c.samples <> '{{{{}}}}'
    ORDER BY s.pattern_id, c.start DESC, c.level DESC, c.samples[cardinality(c.samples)] DESC"""
# The patterns that an id is read as by now: of each service its own.
_BECAME: Final = f"""
    WITH {_SHOWN}
    SELECT s.pattern_id FROM shown s JOIN pattern_templates t USING (key)
    WHERE t.pattern_id = %s GROUP BY 1 ORDER BY s.pattern_id = %s DESC, count(*) DESC, 1 LIMIT 1"""
_SERIES: Final = f"""
    WITH {_SHOWN}
    SELECT (c.start - {{first}}) / {{step}} AS slot, sum(c.lines)::bigint,
        coalesce(sum(c.lines) FILTER (WHERE c.level >= {_ERROR}), 0)::bigint
    FROM shown s JOIN {{table}} c USING (key)
    WHERE s.pattern_id = %s AND c.start >= {{first}} AND c.start < {{end}} AND c.level >= {{min_level}}
    GROUP BY 1 ORDER BY 1"""
_TEXTS: Final = """
    SELECT DISTINCT pattern_id, template FROM pattern_templates
    WHERE pattern_id = ANY (%s) AND pattern_id <> {other} AND {allowed}"""
_PROGRESS: Final = """
    SELECT (extract(epoch FROM counted_from) * 1000000)::bigint, (extract(epoch FROM counted_through) * 1000000)::bigint,
        EXISTS (SELECT FROM pattern_gaps WHERE from_time < to_timestamp(%s / 1e6) AND to_time > to_timestamp(%s / 1e6))
    FROM pattern_miner WHERE topic = %s"""


class Sort(StrEnum):
    """Which patterns, and in which order."""

    COUNT = "count"
    """Most lines first."""
    ERRORS = "errors"
    """Those with lines of ERROR and above, most of these first."""
    NEW = "new"
    """Those first seen in the span, most lines first."""
    GONE = "gone"
    """Those that had lines in the span before and have none in it, most lines first."""


_WANTED: Final = {
    Sort.COUNT: ("lines > 0", "c.lines DESC, c.pattern_id"),
    Sort.ERRORS: ("errors > 0", "c.errors DESC, c.lines DESC, c.pattern_id"),
    Sort.NEW: ("lines > 0 AND first >= {first_minute}", "c.lines DESC, c.pattern_id"),
    Sort.GONE: ("lines = 0 AND before > 0", "c.before DESC, c.pattern_id"),
}


@dataclass(frozen=True, slots=True)
class Span:
    """Whole minutes or hours [first, end) since the Unix epoch, and as many before."""

    first: int
    end: int
    unit: int
    """Minutes: 1 or 60."""

    @classmethod
    def of(cls, start_us: int, end_us: int, *, minutes_from_us: int) -> Span:
        """start_us < end_us. minutes_from_us: where rows by the minute begin."""
        first, end = start_us // _MINUTE_US, -(-end_us // _MINUTE_US)
        if end - first <= MINUTES_SPAN_MAX and first - (end - first) >= minutes_from_us // _MINUTE_US:
            return cls(first, end, 1)
        return cls(first // 60, -(-end // 60), 60)

    @property
    def before(self) -> int:
        """Where the span before begins."""
        return self.first - (self.end - self.first)

    @property
    def start_us(self) -> int:
        """Microseconds since the Unix epoch."""
        return self.first * self.unit * _MINUTE_US

    @property
    def end_us(self) -> int:
        """Exclusive."""
        return self.end * self.unit * _MINUTE_US


@dataclass(frozen=True, slots=True)
class Asked:
    """What is asked, beside the right to read."""

    span: Span
    services: Predicate = EVERYTHING
    """Of service names alone."""
    min_level: int = 0
    """Severity number; 0: all levels."""


@dataclass(frozen=True, slots=True)
class PatternFigures:
    """One pattern, within what may be read and was asked for."""

    pattern_id: int
    template: str
    lines: int
    lines_before: int
    """In the span before."""
    errors: int
    first_us: int
    """Minute of the least timestamp, ever."""
    last_us: int
    levels: dict[str, int]
    """Lines by level's name; of the span before where this one has none."""
    services: tuple[str, ...]
    """With lines in one of the spans: those with most first, SERVICES_SHOWN_MAX at most."""
    services_number: int
    samples: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Progress:
    """What figures are worth."""

    counted_from_us: int | None
    """Logs appended before may be missing; None: nothing was counted yet."""
    counted_through_us: int | None
    """Everything appended before was counted."""
    has_gap: bool
    """Records that were appended in the span, or may have been, were gone before they were counted."""


@dataclass(frozen=True, slots=True)
class PatternList:
    """An answer."""

    patterns: list[PatternFigures]
    lines: int
    """Of all patterns in the span."""
    other_lines: int
    """Of them, those whose pattern was not kept."""
    progress: Progress


@dataclass(frozen=True, slots=True)
class Point:
    """Lines in one step."""

    start_us: int
    lines: int = 0
    errors: int = 0


@dataclass(frozen=True, slots=True)
class PatternHistory:
    """One pattern over time."""

    figures: PatternFigures
    step_us: int
    points: list[Point] = field(default_factory=list)
    """Without gaps, oldest first; the last step may reach past the span."""
    progress: Progress = Progress(None, None, False)


class PatternReader:
    """Reads what the miner of a topic saved."""

    def __init__(self, database: Database, topic: str) -> None:
        """database: opened and closed by the caller."""
        self._database = database
        self._topic = topic

    async def find(self, asked: Asked, sort: Sort, *, limit: int, allowed: ServiceScope) -> PatternList:
        """Patterns in the span. Raises DatabaseUnavailable."""
        wanted, order = _WANTED[sort]
        wanted = wanted.format(first_minute=asked.span.first * asked.span.unit)
        async with self._snapshot() as connection:
            rows = await self._list(connection, asked, allowed, wanted=wanted, order=order, limit=limit)
            figures = await self._with_samples(connection, asked, rows, allowed)
            return PatternList(figures, rows[0][0], rows[0][1], await self._progress(connection, asked.span))

    async def history(
        self, pattern_id: int, asked: Asked, *, points_max: int, allowed: ServiceScope
    ) -> PatternHistory | None:
        """The pattern that an id is read as by now; None when there is none that may be read. Raises DatabaseUnavailable."""
        span, scope = asked.span, _scope(asked, allowed)
        step = _step(span, points_max)
        async with self._snapshot() as connection:
            became = await _rows(
                connection, _BECAME.format(allowed=scope.text), (*scope.params, pattern_id, pattern_id)
            )
            if not became or became[0][0] == OTHER:
                return None
            (final_id,) = became[0]
            wanted = f"pattern_id = {final_id:d}"
            rows = await self._list(connection, asked, allowed, wanted=wanted, order="c.pattern_id", limit=1)
            (figures,) = await self._with_samples(connection, asked, rows, allowed)
            statement = _SERIES.format(allowed=scope.text, step=step, **_names(asked))
            found = await _rows(connection, statement, (*scope.params, final_id))
            progress = await self._progress(connection, span)
        lines = {slot: figures for slot, *figures in found}
        step_us = step * span.unit * _MINUTE_US
        slots = range(-(-(span.end - span.first) // step))
        points = [Point(span.start_us + slot * step_us, *lines.get(slot, (0, 0))) for slot in slots]
        return PatternHistory(figures, step_us, points, progress)

    async def texts(self, pattern_ids: Collection[int], *, allowed: ServiceScope) -> dict[int, str]:
        """Id -> template, of those that are known and may be read. Raises DatabaseUnavailable."""
        scope = compile_postgres(within(allowed))
        statement = _TEXTS.format(allowed=scope.text, other=OTHER)
        async with self._snapshot() as connection:
            rows = await _rows(connection, statement, (list(pattern_ids), *scope.params))
        return dict(rows)

    async def _list(
        self, connection: Connection, asked: Asked, allowed: ServiceScope, *, wanted: str, order: str, limit: int
    ) -> list[tuple[Any, ...]]:
        """wanted, order: ours. At least one row, for the totals."""
        scope = _scope(asked, allowed)
        statement = _LIST.format(allowed=scope.text, wanted=wanted, order=order, limit=int(limit), **_names(asked))
        return await _rows(connection, statement, scope.params)

    async def _with_samples(
        self, connection: Connection, asked: Asked, rows: Sequence[tuple[Any, ...]], allowed: ServiceScope
    ) -> list[PatternFigures]:
        found = [row[2:] for row in rows if row[2] is not None]
        scope = _scope(asked, allowed)
        statement = _SAMPLES.format(allowed=scope.text, **_names(asked))
        params = (*scope.params, [pattern_id for pattern_id, *_ in found])
        samples = dict(await _rows(connection, statement, params)) if found else {}
        return [_figures(row, tuple(samples.get(row[0], ()))) for row in found]

    async def _progress(self, connection: Connection, span: Span) -> Progress:
        rows = await _rows(connection, _PROGRESS, (span.end_us, span.start_us, self._topic))
        return Progress(*rows[0]) if rows else Progress(None, None, False)

    @asynccontextmanager
    async def _snapshot(self) -> AsyncIterator[Connection]:
        """One moment. Raises DatabaseUnavailable, also for what takes too long."""
        try:
            async with (
                bounded(_BUDGET_MS / 1000 + _SLACK_S),
                self._database.transaction(snapshot=True) as connection,
            ):
                await connection.execute(f"SET LOCAL statement_timeout = {_BUDGET_MS}".encode())
                yield connection
        except Error as error:
            if sqlstate(error) != _QUERY_CANCELED:
                raise
            raise DatabaseUnavailable(
                "patterns of so long a time were not read in time: ask for a shorter one"
            ) from error


async def _rows(connection: Connection, statement: str, params: Sequence[Any]) -> list[tuple[Any, ...]]:
    return await (await connection.execute(statement.encode(), params)).fetchall()


def _scope(asked: Asked, allowed: ServiceScope) -> Sql:
    return compile_postgres(all_of(asked.services, within(allowed)))


def _names(asked: Asked) -> dict[str, Any]:
    """What the statements are filled in with: numbers, and one of our tables."""
    span = asked.span
    return {
        "table": "pattern_minutes" if span.unit == 1 else "pattern_hours",
        "before": int(span.before),
        "first": int(span.first),
        "end": int(span.end),
        "min_level": int(asked.min_level),
    }


def _figures(row: Sequence[Any], samples: tuple[int, ...]) -> PatternFigures:
    pattern_id, template, first, last, lines, before, errors, levels, services, number = row
    named: dict[str, int] = dict.fromkeys(LEVELS, 0)
    for level, count in (levels or {}).items():
        if int(level):
            named[level_name(int(level))] += count
    return PatternFigures(
        pattern_id=pattern_id,
        template=template,
        lines=lines,
        lines_before=before,
        errors=errors,
        first_us=first * _MINUTE_US,
        last_us=last * _MINUTE_US,
        levels={name: count for name, count in named.items() if count},
        services=tuple(services or ()),
        services_number=number or 0,
        samples=samples,
    )


def _step(span: Span, points_max: int) -> int:
    """Units of the span in one point: a divisor or a multiple of an hour or a day."""
    steps = (1, 2, 5, 10, 15, 30, 60) if span.unit == 1 else (1, 2, 3, 6, 12, 24)
    units = span.end - span.first
    whole = steps[-1]
    return next((step for step in steps if units <= step * points_max), -(-units // (whole * points_max)) * whole)
