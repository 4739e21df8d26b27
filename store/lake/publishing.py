"""Makes the table name exactly the files that the catalogue of segments has now: one commit, or none if nothing changed.

Publishers take turns under an advisory lock of the database, which goes with its connection: whoever is killed leaves nothing
to wait for. The lock is manners, not a fence. The fence is the commit: it holds only on the snapshot it was made from, and
whoever lost begins again with what there is then. A publisher that is killed before its commit has changed nothing; what it had
written is removed a day later by another one.

What has to be done is always the difference of two sets of URLs, those of the table and those of the catalogue. So it does not
matter what was published before, and a segment that moved to object storage is the same segment under another URL.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

import structlog
from pyiceberg.manifest import DataFile
from pyiceberg.table import Table

from db.database import Database
from schemas.errors import ConfigurationError
from store.lake.catalog import LakeCatalog, LakeConflict, explained
from store.lake.contents import published_segments
from store.lake.data_files import data_file
from store.lake.leftovers import remove_leftovers
from store.lake.locations import Locations
from store.lake.settings import LakeSettings
from store.objects.settings import ObjectSettings
from store.tiers.segments import Segment, Tier

_LOCK: Final = 7420
_TAKE_LOCK: Final = "SELECT pg_advisory_xact_lock(%s)"
_ATTEMPTS: Final = 3

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Published:
    """What the table is after a publication."""

    snapshot_id: int | None
    """None: nothing was ever published into it."""
    files: int
    rows: int
    added: int
    """Files that this publication entered."""
    removed: int
    """Files that it took out."""


@dataclass(frozen=True, slots=True)
class LakeStatus:
    """The table, and what publishing now would change."""

    location: str
    metadata: str
    """URL of the newest metadata file."""
    snapshot_id: int | None
    published_at: datetime | None
    """Of the newest snapshot."""
    files: int
    rows: int
    newest_us: int | None
    """Greatest timestamp of a row."""
    to_add: int
    to_remove: int


class Lake:
    """The table of one store. Calls may raise DatabaseUnavailable, LakeConflict, LakeUnreadable, ConfigurationError."""

    def __init__(
        self, database: Database, settings: LakeSettings, objects: ObjectSettings, locations: Locations
    ) -> None:
        """database: its URL is the catalog's as well."""
        self._database = database
        self._settings = settings
        self._objects = objects
        self._locations = locations

    async def publish(self, *, anew: bool = False) -> Published:
        """Bring the table to what the catalogue has. anew: forget the table first, and make it again."""
        schema = self._settings.database_schema
        async with self._database.transaction() as connection:
            await connection.execute(_TAKE_LOCK, (_LOCK,))
            # By a connection of its own: the catalog's connections must see it.
            await self._database.execute(f'CREATE SCHEMA IF NOT EXISTS "{schema}"')
            for attempt in range(1, _ATTEMPTS + 1):
                segments = await published_segments(connection)
                try:
                    return await asyncio.to_thread(self._publish, segments, anew=anew and attempt == 1)
                except LakeConflict as error:
                    if attempt == _ATTEMPTS:
                        raise
                    log.warning("lake was changed by another program, trying again", reason=str(error))
        raise AssertionError("the last attempt returns or raises")

    async def status(self) -> LakeStatus | None:
        """None when it was never published."""
        present = await self._database.fetch_one("SELECT to_regnamespace(%s)", (self._settings.database_schema,))
        if present is None or present[0] is None:
            return None
        async with self._database.connection() as connection:
            segments = await published_segments(connection)
        return await asyncio.to_thread(self._status, segments)

    def _catalog(self) -> LakeCatalog:
        return LakeCatalog(self._database.url, self._settings, self._objects, warehouse=self._locations.warehouse)

    def _publish(self, segments: list[Segment], *, anew: bool) -> Published:
        catalog = self._catalog()
        try:
            if anew:
                catalog.forget()
            table = catalog.find() or catalog.make()
            wanted = {self._locations.url_of(segment): segment for segment in segments}
            present = _files(table)
            added = [segment for url, segment in wanted.items() if url not in present]
            removed = [file for url, file in present.items() if url not in wanted]
            self._check(added)
            with explained(f"the table at {table.location()}"):
                if added or removed:
                    _commit(table, [data_file(self._locations.url_of(one), one.info) for one in added], removed)
                _expire(table, timedelta(hours=self._settings.snapshots_hours))
                remove_leftovers(table)
            snapshot = table.current_snapshot()
            return Published(
                snapshot_id=None if snapshot is None else snapshot.snapshot_id,
                files=len(wanted),
                rows=sum(segment.info.rows for segment in segments),
                added=len(added),
                removed=len(removed),
            )
        finally:
            catalog.close()

    def _status(self, segments: list[Segment]) -> LakeStatus | None:
        catalog = self._catalog()
        try:
            table = catalog.find()
            if table is None:
                return None
            present = _files(table)
            wanted = {self._locations.url_of(segment): segment for segment in segments}
            snapshot = table.current_snapshot()
            both = [wanted[url].info.last_us for url in present.keys() & wanted.keys()]
            return LakeStatus(
                location=table.location(),
                metadata=table.metadata_location,
                snapshot_id=None if snapshot is None else snapshot.snapshot_id,
                published_at=None if snapshot is None else datetime.fromtimestamp(snapshot.timestamp_ms / 1000, UTC),
                files=len(present),
                rows=sum(file.record_count for file in present.values()),
                newest_us=max(both, default=None),
                to_add=len(wanted.keys() - present.keys()),
                to_remove=len(present.keys() - wanted.keys()),
            )
        finally:
            catalog.close()

    def _check(self, segments: Iterable[Segment]) -> None:
        """That the files are where the settings say: a table of wrong URLs would fail its readers, one by one."""
        for segment in segments:
            path = self._locations.directory / segment.name
            if segment.tier is Tier.WARM and (not path.is_file() or path.stat().st_size != segment.info.bytes):
                raise ConfigurationError(
                    f"{path} is not the file of {segment.info.bytes} bytes that the catalogue has: is tiers.directory"
                    " (LOGFEED_TIERS__DIRECTORY) the directory of segments, seen from here?"
                )


def _files(table: Table) -> dict[str, DataFile]:
    """URL -> entry, of the newest snapshot."""
    if table.current_snapshot() is None:
        return {}
    with explained(f"the table at {table.location()}"):
        return {task.file.file_path: task.file for task in table.scan().plan_files()}


def _commit(table: Table, added: list[DataFile], removed: list[DataFile]) -> None:
    with table.transaction() as transaction, transaction.update_snapshot().overwrite() as snapshot:
        for file in removed:
            snapshot.delete_data_file(file)
        for file in added:
            snapshot.append_data_file(file)


def _expire(table: Table, age: timedelta) -> None:
    """Forget snapshots that are older, in a commit of its own and only where there are some."""
    before = datetime.now(UTC) - age
    current = table.current_snapshot()
    old = [
        snapshot.snapshot_id
        for snapshot in table.metadata.snapshots
        if snapshot.timestamp_ms < before.timestamp() * 1000 and snapshot != current
    ]
    if old:
        table.maintenance.expire_snapshots().by_ids(old).commit()
