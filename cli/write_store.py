"""The writers' store: ingest and query register partitions in it too."""

from __future__ import annotations

from cli.settings import Settings
from db.database import Database
from store.postgres_write import PostgresWriteStore


def write_store(settings: Settings, database: Database) -> PostgresWriteStore:
    """The writers' store."""
    return PostgresWriteStore(
        database,
        topic=settings.broker.topic,
        layout=settings.layout,
        # The queue lives in the same database: what it has forgotten nobody can read again.
        waits_for_disk=settings.broker.kind == "queue",
    )
