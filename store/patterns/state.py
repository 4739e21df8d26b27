"""The miner's tables: counts, templates and the positions they belong to, in one transaction.

Every save holds the row of the lease `patterns` at its holder's epoch (StaleEpoch) and moves `version` from the one that was
read (StateMoved). So a log is counted once: whoever was thought dead and goes on is refused, and a save whose outcome nobody
knows is settled by reading again. What a killed process had not saved is read again from the same positions.

Bounded by `purge`: counts by age and by number, templates by number; what goes early stays in the sums, without its pattern.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
import zstandard

from db.database import Connection, Database, bounded
from db.leases import Lease
from patterns.counts import OTHER, Counted, CountRow
from schemas.errors import Overloaded

PATTERNS: Final = "patterns"
"""Name of the lease."""
SNAPSHOT_BYTES_MAX: Final = 64 * 1024 * 1024
"""Of a miner's snapshot; 10,000 templates of 20 words are 4 MB."""
_SAVE_S: Final = 30.0
_LOCK_TIMEOUT_MS: Final = 10_000
_PURGED_AT_ONCE: Final = 50_000
_FORGOTTEN_AT_ONCE: Final = 1_000
"""Templates: each may have a row for every minute and level."""
_GAPS_MAX: Final = 1_000
_MINUTE_S: Final = 60
_DAY_MINUTES: Final = 1_440

_FENCE: Final = "SELECT epoch FROM leases WHERE name = 'patterns' FOR SHARE"
_MINER: Final = "SELECT version, positions, read_to, snapshot FROM pattern_miner WHERE topic = %s"
_SAVE: Final = """
    INSERT INTO pattern_miner AS m (topic, version, epoch, positions, read_to, counted_from, counted_through, snapshot)
    VALUES (%(topic)s, 1, %(epoch)s, %(positions)s::jsonb, %(read_to)s::jsonb,
            to_timestamp(nullif(%(from)s, 0) / 1e6), to_timestamp(nullif(%(through)s, 0) / 1e6), %(snapshot)s)
    ON CONFLICT (topic) DO UPDATE SET version = m.version + 1, epoch = excluded.epoch, positions = excluded.positions,
        read_to = excluded.read_to, counted_from = coalesce(m.counted_from, excluded.counted_from),
        counted_through = coalesce(excluded.counted_through, m.counted_through),
        snapshot = coalesce(nullif(excluded.snapshot, ''::bytea), m.snapshot), saved_at = clock_timestamp()
    WHERE m.version = %(version)s
    RETURNING version"""
# Looked for first: a conflict would cost a number of the identity each time. Nobody else inserts meanwhile.
_ADD_TEMPLATES: Final = """
    INSERT INTO pattern_templates (service_name, pattern_id, template, first_minute, last_minute)
    SELECT n.service_name, n.pattern_id, n.template, n.first_minute, n.last_minute
    FROM unnest(%s::text[], %s::bigint[], %s::text[], %s::integer[], %s::integer[])
        AS n (service_name, pattern_id, template, first_minute, last_minute)
    WHERE NOT EXISTS (SELECT FROM pattern_templates t
                      WHERE (t.service_name, t.pattern_id) = (n.service_name, n.pattern_id))"""
_SEE_TEMPLATES: Final = """
    UPDATE pattern_templates t
    SET first_minute = least(t.first_minute, n.first_minute), last_minute = greatest(t.last_minute, n.last_minute)
    FROM unnest(%s::text[], %s::bigint[], %s::integer[], %s::integer[])
        AS n (service_name, pattern_id, first_minute, last_minute)
    WHERE (t.service_name, t.pattern_id) = (n.service_name, n.pattern_id)
        AND (n.first_minute < t.first_minute OR n.last_minute > t.last_minute)"""
_PART: Final = """
    UPDATE pattern_templates t SET into_key = NULL
    FROM unnest(%s::text[], %s::bigint[]) AS n (service_name, pattern_id)
    WHERE (t.service_name, t.pattern_id) = (n.service_name, n.pattern_id) AND t.into_key IS NOT NULL"""
# Of patterns that have rows here; one that nothing was counted under needs none.
_ADD_GENERAL: Final = """
    INSERT INTO pattern_templates (service_name, pattern_id, template, first_minute, last_minute)
    SELECT n.service_name, n.into_id, min(n.template), min(t.first_minute), max(t.last_minute)
    FROM unnest(%s::text[], %s::bigint[], %s::bigint[], %s::text[]) AS n (service_name, pattern_id, into_id, template)
    JOIN pattern_templates t ON (t.service_name, t.pattern_id) = (n.service_name, n.pattern_id)
    WHERE NOT EXISTS (SELECT FROM pattern_templates i
                      WHERE (i.service_name, i.pattern_id) = (n.service_name, n.into_id))
    GROUP BY 1, 2"""
# What was read as the one that goes is read as the one it goes into, so that there are no chains.
_MERGE: Final = """
    WITH steps AS (
        SELECT t.key, i.key AS into_key, t.first_minute, t.last_minute
        FROM unnest(%s::text[], %s::bigint[], %s::bigint[]) AS n (service_name, pattern_id, into_id)
        JOIN pattern_templates t ON (t.service_name, t.pattern_id) = (n.service_name, n.pattern_id)
        JOIN pattern_templates i ON (i.service_name, i.pattern_id) = (n.service_name, n.into_id)
    ), moved AS (
        UPDATE pattern_templates t SET into_key = s.into_key
        FROM steps s WHERE t.key = s.key OR t.into_key = s.key
    )
    UPDATE pattern_templates i
    SET first_minute = least(i.first_minute, s.first_minute), last_minute = greatest(i.last_minute, s.last_minute)
    FROM (SELECT into_key, min(first_minute) AS first_minute, max(last_minute) AS last_minute FROM steps GROUP BY into_key) s
    WHERE i.key = s.into_key"""
_COUNT: Final = """
    INSERT INTO {table} AS c (key, start, level, lines, samples)
    SELECT t.key, n.start, n.level, n.lines, n.samples::bigint[]
    FROM unnest(%s::text[], %s::bigint[], %s::integer[], %s::smallint[], %s::bigint[], %s::text[])
        AS n (service_name, pattern_id, start, level, lines, samples)
    JOIN pattern_templates t ON (t.service_name, t.pattern_id) = (n.service_name, n.pattern_id)
    ORDER BY 1, 2, 3
    ON CONFLICT (key, start, level) DO UPDATE SET lines = c.lines + excluded.lines, samples = (
        SELECT array_agg(id ORDER BY id) FROM (
            SELECT id, row_number() OVER (ORDER BY id) AS up, row_number() OVER (ORDER BY id DESC) AS down
            FROM (SELECT DISTINCT unnest(c.samples || excluded.samples)) AS every (id)) AS ranked
        WHERE up = 1 OR down <= 2)"""
_ADD_GAP: Final = """
    INSERT INTO pattern_gaps (from_time, to_time, reason)
    VALUES (to_timestamp(%s / 1e6), to_timestamp(%s / 1e6), %s)"""
_OLD_GAPS: Final = """
    DELETE FROM pattern_gaps
    WHERE to_time < to_timestamp(%s) OR gap_id <= (SELECT max(gap_id) - %s FROM pattern_gaps)"""
_TABLES: Final = ("pattern_minutes", "pattern_hours")
_OLD: Final = """
    DELETE FROM {table} WHERE ctid = ANY (ARRAY(SELECT ctid FROM {table} WHERE start < {kept:d} LIMIT {at_once:d}))"""
_BORDER: Final = "SELECT start FROM {table} ORDER BY start DESC OFFSET %s LIMIT 1"
# Templates that nothing counts under, and nothing is read as.
_UNUSED: Final = f"""
    DELETE FROM pattern_templates t WHERE key = ANY (ARRAY(
        SELECT key FROM pattern_templates u WHERE last_minute < %s
            AND NOT EXISTS (SELECT FROM pattern_minutes c WHERE c.key = u.key)
            AND NOT EXISTS (SELECT FROM pattern_hours c WHERE c.key = u.key)
            AND NOT EXISTS (SELECT FROM pattern_templates m WHERE m.into_key = u.key)
        LIMIT {_PURGED_AT_ONCE}))"""
# Those not seen for longest; what is read as another one goes before that one.
_TOO_MANY: Final = f"""
    SELECT key FROM pattern_templates WHERE pattern_id <> {OTHER} ORDER BY last_minute, into_key IS NULL, key
    LIMIT least(%s, greatest(0, (SELECT count(*) FROM pattern_templates) - %s))"""
_ADD_OTHERS: Final = f"""
    INSERT INTO pattern_templates (service_name, pattern_id, template, first_minute, last_minute)
    SELECT service_name, {OTHER}, '', min(first_minute), max(last_minute) FROM pattern_templates t
    WHERE key = ANY (%s) AND NOT EXISTS (
        SELECT FROM pattern_templates o WHERE (o.service_name, o.pattern_id) = (t.service_name, {OTHER}))
    GROUP BY service_name"""
_BOOK_AS_OTHER: Final = f"""
    WITH gone AS (DELETE FROM {{table}} WHERE key = ANY (%s) RETURNING key, start, level, lines)
    INSERT INTO {{table}} AS c (key, start, level, lines, samples)
    SELECT o.key, g.start, g.level, sum(g.lines), '{{{{}}}}'
    FROM gone g JOIN pattern_templates t ON t.key = g.key
    JOIN pattern_templates o ON (o.service_name, o.pattern_id) = (t.service_name, {OTHER})
    GROUP BY 1, 2, 3
    ON CONFLICT (key, start, level) DO UPDATE SET lines = c.lines + excluded.lines"""


class StaleEpoch(Overloaded):
    """Another process counts patterns now: the lease `patterns` went to it."""


class StateMoved(Overloaded):
    """What is saved is not what this process went on from: it is read anew."""


@dataclass(slots=True)
class Saved:
    """What whoever leads goes on from."""

    positions: dict[int, int] = field(default_factory=dict)
    """partition -> next offset."""
    read_us: dict[int, int] = field(default_factory=dict)
    """partition -> everything appended before was read."""
    snapshot: bytes | None = None
    """Of the miner; None: nobody has mined yet."""


@dataclass(frozen=True, slots=True)
class GapInCounts:
    """Records appended in [from_us, to_us) of which some are in no count."""

    from_us: int
    to_us: int
    reason: str


class PatternState:
    """The leader's view of the database."""

    def __init__(self, database: Database, lease: Lease, topic: str) -> None:
        """lease: of the name PATTERNS, on the same database."""
        self._database = database
        self._lease = lease
        self._topic = topic
        self._version = 0
        self.added = 0
        """Templates that were added since the last purge."""

    async def load(self) -> Saved:
        """What was saved last. Raises DatabaseUnavailable."""
        async with bounded(_SAVE_S):
            row = await self._database.fetch_one(_MINER, (self._topic,))
        if row is None:
            self._version = 0
            return Saved()
        self._version, positions, read_to, snapshot = row
        unpacked = zstandard.ZstdDecompressor().decompress(bytes(snapshot), max_output_size=SNAPSHOT_BYTES_MAX)
        return Saved(
            {int(partition): offset for partition, offset in positions.items()},
            {int(partition): us for partition, us in read_to.items()},
            unpacked,
        )

    async def save(
        self,
        counted: Counted,
        *,
        positions: Mapping[int, int],
        read_us: Mapping[int, int],
        counted_from_us: int,
        counted_through_us: int,
        gaps: Sequence[GapInCounts] = (),
    ) -> None:
        """One moment. counted_from_us, counted_through_us: 0 where it is not known; the first counted_from_us that is counts.

        The first save has a snapshot. Raises StaleEpoch, StateMoved, DatabaseUnavailable; after any of them nothing in memory
        counts.
        """
        snapshot = b"" if counted.snapshot is None else zstandard.ZstdCompressor(level=1).compress(counted.snapshot)
        added = 0
        async with bounded(_SAVE_S), self._database.transaction() as connection:
            await self._fence(connection)
            cursor = await connection.execute(
                _SAVE,
                {
                    "topic": self._topic,
                    "epoch": self._lease.epoch,
                    "positions": _json(positions),
                    "read_to": _json(read_us),
                    "from": counted_from_us,
                    "through": counted_through_us,
                    "snapshot": snapshot,
                    "version": self._version,
                },
            )
            row = await cursor.fetchone()
            if row is None or row[0] != self._version + 1:
                raise StateMoved
            if counted.rows or counted.merged or counted.revived:
                added = await _book(connection, counted)
            for gap in gaps:
                await connection.execute(_ADD_GAP, (gap.from_us, gap.to_us, gap.reason))
        self._version += 1
        self.added += added

    async def purge(
        self, now_us: int, *, minutes_days: int, retention_days: int, rows_max: int, templates_max: int
    ) -> None:
        """Remove what is past its age or its number, in transactions of bounded size. rows_max: of each of the two tables.

        Raises StaleEpoch, DatabaseUnavailable.
        """
        now_minute = now_us // 1_000_000 // _MINUTE_S
        oldest_minute = now_minute - retention_days * _DAY_MINUTES
        borders = (now_minute - minutes_days * _DAY_MINUTES, oldest_minute // 60)
        for table, border in zip(_TABLES, borders, strict=True):
            async with bounded(_SAVE_S):
                full = await self._database.fetch_one(_BORDER.format(table=table), (rows_max,))
            oldest = border if full is None else max(border, full[0] + 1)
            await self._until_done(_OLD.format(table=table, kept=oldest, at_once=_PURGED_AT_ONCE))
        await self._until_done(_UNUSED, oldest_minute)
        while await self._forget_templates(templates_max):
            pass
        async with bounded(_SAVE_S):
            await self._database.execute(_OLD_GAPS, (oldest_minute * _MINUTE_S, _GAPS_MAX))
        self.added = 0

    async def _until_done(self, statement: str, *params: int) -> None:
        gone = _PURGED_AT_ONCE
        while gone >= _PURGED_AT_ONCE:
            async with bounded(_SAVE_S), self._database.transaction() as connection:
                await self._fence(connection)
                gone = (await connection.execute(statement.encode(), params)).rowcount

    async def _forget_templates(self, templates_max: int) -> bool:
        """Whether there may be more of them."""
        limits = _FORGOTTEN_AT_ONCE, templates_max
        async with bounded(_SAVE_S), self._database.transaction() as connection:
            await self._fence(connection)
            keys = [key for (key,) in await (await connection.execute(_TOO_MANY.encode(), limits)).fetchall()]
            if not keys:
                return False
            await connection.execute(_ADD_OTHERS.encode(), (keys,))
            for table in _TABLES:
                await connection.execute(_BOOK_AS_OTHER.format(table=table).encode(), (keys,))
            await connection.execute("DELETE FROM pattern_templates WHERE key = ANY (%s)", (keys,))
        return len(keys) == _FORGOTTEN_AT_ONCE

    async def _fence(self, connection: Connection) -> None:
        await connection.execute(f"SET LOCAL lock_timeout = {_LOCK_TIMEOUT_MS}".encode())
        row = await (await connection.execute(_FENCE)).fetchone()
        if self._lease.epoch is None or row is None or row[0] != self._lease.epoch:
            raise StaleEpoch


async def _book(connection: Connection, counted: Counted) -> int:
    """Templates first, then what they are read as, then counts. Returns how many templates are new."""
    spans: dict[tuple[str, int], tuple[int, int]] = {}
    for row in counted.rows:
        key = row.service, row.pattern_id
        first, last = spans.get(key, (row.minute, row.minute))
        spans[key] = min(first, row.minute), max(last, row.minute)
    services, ids = [service for service, _ in spans], [pattern_id for _, pattern_id in spans]
    firsts, lasts = [first for first, _ in spans.values()], [last for _, last in spans.values()]
    texts = [counted.texts[pattern_id] for pattern_id in ids]
    added = (await connection.execute(_ADD_TEMPLATES, (services, ids, texts, firsts, lasts))).rowcount
    await connection.execute(_SEE_TEMPLATES, (services, ids, firsts, lasts))
    if counted.revived:
        revived = sorted(counted.revived)
        await connection.execute(_PART, ([service for service, _ in revived], [each for _, each in revived]))
    if counted.merged:
        steps = sorted(counted.merged.items())
        columns = [service for (service, _), _ in steps], [each for (_, each), _ in steps], [into for _, into in steps]
        cursor = await connection.execute(_ADD_GENERAL, (*columns, [counted.texts[into] for _, into in steps]))
        added += cursor.rowcount
        await connection.execute(_MERGE, columns)
    await _count(connection, "pattern_minutes", counted.rows)
    await _count(connection, "pattern_hours", _by_hour(counted.rows))
    return added


async def _count(connection: Connection, table: str, rows: Sequence[CountRow]) -> None:
    cursor = await connection.execute(
        _COUNT.format(table=table).encode(),
        (
            [row.service for row in rows],
            [row.pattern_id for row in rows],
            [row.minute for row in rows],
            [row.level for row in rows],
            [row.lines for row in rows],
            ["{" + ",".join(map(str, sorted(row.samples))) + "}" for row in rows],
        ),
    )
    assert cursor.rowcount == len(rows), f"{len(rows)} rows of counts became {cursor.rowcount} in {table}"


def _by_hour(rows: Sequence[CountRow]) -> list[CountRow]:
    """The same lines by hour; `minute` is the hour's number."""
    hours: dict[tuple[str, int, int, int], CountRow] = {}
    for row in rows:
        key = row.service, row.pattern_id, row.minute // 60, row.level
        known = hours.get(key)
        lines, samples = row.lines, row.samples
        if known is not None:
            ids = sorted({*known.samples, *samples})
            lines, samples = lines + known.lines, tuple(ids if len(ids) <= 3 else [ids[0], *ids[-2:]])
        hours[key] = CountRow(row.minute // 60, row.service, row.level, row.pattern_id, lines, samples)
    return list(hours.values())


def _json(value: Any) -> str:  # JSON values; keys may be numbers
    return msgspec.json.encode(value).decode()
