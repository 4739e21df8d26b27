"""Which segments the table has: those whose rows nobody else in it has, and all rows of the tables they came from."""

from __future__ import annotations

from typing import Final

from db.database import Connection
from store.tiers.segments import SEGMENTS, Segment, segments_of

_IN_TABLE: Final = """
state = 'serving' OR state = 'written' AND NOT EXISTS (
    SELECT FROM unnest(sources) AS source WHERE NOT EXISTS (
        SELECT FROM catalogue AS c WHERE c.table_name = source AND c.segmented_at IS NOT NULL))"""


async def published_segments(connection: Connection) -> list[Segment]:
    """By time. A segment that is written belongs to the table once all of its source's are: a chunk comes as a whole.

    One statement, one moment: a merge replaces its segments in one transaction, so that no row is in two of them.
    """
    rows = await (await connection.execute(SEGMENTS.format(_IN_TABLE).encode())).fetchall()
    return list(segments_of(rows))
