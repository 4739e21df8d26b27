"""How the store stands, for people: what writers have stored of each partition, who leads what, what could not be stored.

One moment of the database, a few bounded statements. Nothing of a log is told but why it died, and of which service it was: who
may ask is the edge's to say.
"""

from __future__ import annotations

from typing import Final, LiteralString

import msgspec

from db.database import Database
from store.steps import US

DEAD_COUNTED_MAX: Final = 100_000
"""The newest dead letters that are counted."""
DEAD_KINDS_MAX: Final = 200
WRITERS_MAX: Final = 100

_PARTITIONS: Final = f"""
    SELECT partition, CASE WHEN lease_until > clock_timestamp() THEN owner END, next_offset,
        CASE WHEN stored_to > '-infinity' THEN {US.format("stored_to")} END, halted
    FROM consumer_offsets WHERE topic = %s ORDER BY partition"""
_WRITERS: Final[LiteralString] = "SELECT name FROM writers WHERE seen_until > clock_timestamp() ORDER BY name LIMIT %s"
_ROLES: Final[LiteralString] = """
    SELECT name, CASE WHEN lease_until > clock_timestamp() THEN owner END FROM leases ORDER BY name"""
_DEAD: Final = f"""
    SELECT reason, service_name, count(*), {US.format("max(died_at)")}, max(id)
    FROM (SELECT id, reason, service_name, died_at FROM dead_letters ORDER BY id DESC LIMIT %s) AS newest
    GROUP BY reason, service_name ORDER BY count(*) DESC, reason, service_name LIMIT %s"""


class PartitionStatus(msgspec.Struct, frozen=True):
    """How far a partition is stored."""

    partition: int
    writer: str | None
    """Who has it now; None: nobody."""
    next_offset: int
    """The first record that is not stored yet."""
    stored_to_us: int | None
    """Everything appended before is stored; None: not known yet."""
    halted: str | None
    """Why it stands still."""


class DeadLetterCount(msgspec.Struct, frozen=True):
    """Dead letters of one reason and service."""

    reason: str
    service_name: str
    count: int
    newest_us: int
    newest_id: int
    """As `logfeed dead show` takes it."""


class StoreStatus(msgspec.Struct, frozen=True):
    """All of it."""

    partitions: tuple[PartitionStatus, ...]
    writers: tuple[str, ...]
    """Those that live, by name; at most WRITERS_MAX."""
    leaders: dict[str, str | None]
    """Role that one process has at a time -> that process; None: nobody."""
    dead: tuple[DeadLetterCount, ...]
    """The most first, of the newest DEAD_COUNTED_MAX."""


async def store_status(database: Database, topic: str) -> StoreStatus:
    """Raises DatabaseUnavailable."""
    async with database.transaction(snapshot=True) as connection:
        partitions = await (await connection.execute(_PARTITIONS.encode(), (topic,))).fetchall()
        writers = await (await connection.execute(_WRITERS, (WRITERS_MAX,))).fetchall()
        roles = await (await connection.execute(_ROLES)).fetchall()
        dead = await (await connection.execute(_DEAD.encode(), (DEAD_COUNTED_MAX, DEAD_KINDS_MAX))).fetchall()
    return StoreStatus(
        tuple(PartitionStatus(*row) for row in partitions),
        tuple(name for (name,) in writers),
        dict(roles),
        tuple(DeadLetterCount(*row) for row in dead),
    )
