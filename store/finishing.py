"""What a closed table gets: bulk indexes, statistics, its figures in the catalogue.

Nobody writes to it any more, so that its indexes are built in one go and its figures stay true. Each step stays when the
next one fails or is killed. Finished tables that were made without an index on metadata get it one after the other.
"""

from __future__ import annotations

from typing import Final

from db.database import Connection

_BULK_INDEXES: Final = {
    "correlation": "(correlation_id, timestamp, id) WHERE correlation_id IS NOT NULL",
    "service": "(service_name, timestamp, id)",
    "errors": "(timestamp, id) WHERE level >= 17",
}
_METADATA_INDEX: Final = "USING gin (metadata jsonb_path_ops) WITH (fastupdate = off)"
_FINISH: Final = """
    WITH found AS (SELECT count(*) AS rows, min(id) AS id_min, max(id) AS id_max, min(timestamp) AS first,
                       max(timestamp) + interval '1 microsecond' AS past FROM {table})
    UPDATE catalogue AS c
    SET state = 'finished', finished_at = clock_timestamp(), rows = found.rows, id_min = found.id_min,
        id_max = found.id_max, metadata_indexed = {metadata_indexed},
        range_start = CASE kind WHEN 'late' THEN first ELSE range_start END,
        range_end = CASE kind WHEN 'late' THEN past ELSE range_end END
    FROM found WHERE c.table_name = '{table}' AND c.state = 'closed'"""
_FORGET: Final = """
    DELETE FROM catalogue WHERE table_name = %s AND state = 'closed' AND to_regclass(table_name) IS NULL"""
_UNINDEXED: Final = """
    SELECT table_name FROM catalogue WHERE state = 'finished' AND NOT metadata_indexed AND rows > 0
    ORDER BY range_end DESC, table_name LIMIT 1"""


async def finish(connection: Connection, table: str, *, metadata_index: bool) -> None:
    """Indexes, statistics, figures: each stays when the next one fails."""
    for suffix, columns in _BULK_INDEXES.items():
        await _index(connection, table, suffix, columns)
    if metadata_index:
        await _index(connection, table, "metadata", _METADATA_INDEX)
    await connection.execute(f"ANALYZE {table}".encode())
    await connection.execute(_FINISH.format(table=table, metadata_indexed=metadata_index).encode())


async def forget_if_gone(connection: Connection, table: str) -> bool:
    """A closed table that is not there leaves the catalogue: readers would hold everything from its beginning on for open."""
    return (await connection.execute(_FORGET, (table,))).rowcount > 0


async def index_metadata_of_one(connection: Connection) -> None:
    """The newest finished table that was made without an index on metadata has one afterwards."""
    row = await (await connection.execute(_UNINDEXED)).fetchone()
    if row is not None:
        await _index(connection, row[0], "metadata", _METADATA_INDEX)
        await connection.execute("UPDATE catalogue SET metadata_indexed = true WHERE table_name = %s", row)


async def _index(connection: Connection, table: str, suffix: str, columns: str) -> None:
    name = f"{table.rpartition('.')[2]}_{suffix}"
    await connection.execute(f"CREATE INDEX IF NOT EXISTS {name} ON {table} {columns}".encode())
