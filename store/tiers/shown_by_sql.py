"""Writes down how long rows are kept, for row security: readers by SQL are shown no more than pages show (hiding.py)."""

from __future__ import annotations

from typing import Final

from db.database import Database
from store.tiers.retention import RetentionPolicy

_FORGET: Final = "DELETE FROM sql_retention"
_NOTE: Final = """
    INSERT INTO sql_retention (place, names, prefixes, level_min, level_max, age)
    VALUES (%s, %s, %s, %s, %s, %s * interval '1 microsecond')"""


async def write_down(database: Database, policy: RetentionPolicy) -> None:
    """From the next statement on, that is what readers are held to. Raises DatabaseUnavailable."""
    async with database.transaction() as connection:
        # Two at once would each insert all places; readers do not mind the lock.
        await connection.execute("LOCK TABLE sql_retention IN SHARE ROW EXCLUSIVE MODE")
        await connection.execute(_FORGET)
        for place, row in enumerate(policy.table):
            await connection.execute(_NOTE, (place, *row))
