"""Writes a finished table into segments and reads them back.

One table at a time, a batch at a time, in a thread, with rests between batches (pace.py). Files bear names that were never
given: one that was killed half-way leaves files that nobody names (collecting.py), and the table is written anew.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import aclosing

import structlog

from db.database import Database
from store.disk_room import DiskRoom
from store.objects.files import in_thread
from store.segments.filters import verify_filter
from store.segments.from_rows import batches_from_rows
from store.segments.settings import SegmentSettings
from store.segments.verification import verify
from store.segments.writing import SegmentWriter, WrittenSegment
from store.tiers.catalogue import FinishedTable, SegmentCatalogue
from store.tiers.discarding import discard, discard_unless_recorded
from store.tiers.metrics import WRITTEN_ROWS
from store.tiers.pace import Pace
from store.tiers.places import Places, fresh_name
from store.tiers.progress import Progress
from store.tiers.retention import RetentionPolicy

log = structlog.get_logger(__name__)

STEP = "write"
_BYTES_A_ROW = 64
"""Of a file, about, to know before it is begun."""


class TableWriter:
    """Makes segments of tables."""

    def __init__(
        self,
        database: Database,
        catalogue: SegmentCatalogue,
        places: Places,
        settings: SegmentSettings,
        policy: RetentionPolicy,
        pace: Pace,
        progress: Progress,
        room: DiskRoom,
    ) -> None:
        """places: prepared; room: on its disk."""
        self._database = database
        self._catalogue = catalogue
        self._places = places
        self._settings = settings
        self._policy = policy
        self._pace = pace
        self._progress = progress
        self._room = room

    async def write(self, table: FinishedTable) -> bool:
        """Its rows are in segments, which have been read back and are in the catalogue. False: others were first, or it has
        gone. Raises DatabaseUnavailable, StaleEpoch, SegmentDamaged, RowsDiffer, RowsUnreadable, DiskFull, OSError,
        Interrupted; then its files are gone, or will be."""
        epoch = self._catalogue.begun()
        written = await self._written(table)
        try:
            await read_back(written, self._pace)
            recorded = await self._catalogue.record(table.name, written, epoch=epoch)
        except BaseException:
            await discard_unless_recorded(self._catalogue, written)
            raise
        if not recorded:
            await in_thread(discard, written)
            return False
        WRITTEN_ROWS.labels("table").inc(table.rows)
        log.info("table written", table=table.name, rows=table.rows, segments=[each.name for each in written])
        return True

    async def _written(self, table: FinishedTable) -> list[WrittenSegment]:
        writer = SegmentWriter(
            self._places.directory,
            fresh_name(table.start_us),
            settings=self._settings,
            classify=self._policy.classify,
            filter_directory=self._places.filters,
        )
        rows = 0
        await in_thread(self._room.check, table.rows * _BYTES_A_ROW, f"writing {table.name} to files")
        try:
            async with aclosing(batches_from_rows(self._database, table.name)) as batches:
                began_s = time.monotonic()
                async for batch in batches:
                    await in_thread(self._room.check, batch.nbytes, f"writing {table.name} to files")
                    await in_thread(writer.write, batch)
                    rows += len(batch)
                    self._progress(STEP, table.name, rows, table.rows)
                    await self._pace.rest(time.monotonic() - began_s)
                    began_s = time.monotonic()
            return await in_thread(writer.close)
        except BaseException:
            await in_thread(writer.abort)
            raise


async def read_back(written: Iterable[WrittenSegment], pace: Pace) -> None:
    """Hold each file and its filter to what was written. Raises SegmentDamaged, FilterUnreadable, OSError, Interrupted."""
    for each in written:
        began_s = time.monotonic()
        await in_thread(verify, each.path, each.info)
        await in_thread(verify_filter, each.filter_path)
        await pace.rest(time.monotonic() - began_s)
