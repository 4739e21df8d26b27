"""Writes files anew without the rows that match: under new names, verified, in the place of the old ones, which retire.

Files that cannot hold a match, by services, times and correlation filter, are not opened. A cold one is fetched, and what comes
out is warm until the next round moves it. Nothing is rewritten of which no row goes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from search.bounds import correlation_of, services_of, time_bounds
from search.predicate import Predicate, ServiceIn, negate
from search.sql_duckdb import compile_duckdb
from store.objects.files import in_thread
from store.segments.files import UNFINISHED
from store.segments.filters import CorrelationFilters
from store.segments.rewriting import rewrite, rows_of
from store.segments.scans import SegmentFile
from store.segments.settings import SegmentSettings
from store.segments.verification import verify_file
from store.segments.writing import SegmentWriter, WrittenSegment
from store.tiers.catalogue import RowsDiffer, SegmentCatalogue
from store.tiers.cold import ObjectFiles
from store.tiers.discarding import discard_unless_recorded
from store.tiers.erasing_rows import Removed
from store.tiers.pace import Pace
from store.tiers.places import Places, fresh_name
from store.tiers.segments import Segment, Tier
from store.tiers.writing import read_back


class FileRows:
    """Rows in files that alone have them, for whoever has the lease `tier`."""

    def __init__(
        self,
        catalogue: SegmentCatalogue,
        places: Places,
        objects: ObjectFiles | None,
        settings: SegmentSettings,
        pace: Pace,
        predicate: Predicate,
    ) -> None:
        """predicate: of the rows to remove. objects: needed where files are cold."""
        self._catalogue = catalogue
        self._places = places
        self._objects = objects
        self._settings = settings
        self._pace = pace
        self._predicate = predicate

    async def remove(self, progress: Callable[[str, int, int], None]) -> tuple[Removed, list[str]]:
        """What was removed, and the files that were replaced. progress: (file, files done, of how many). Raises StaleEpoch,
        DatabaseUnavailable, SegmentDamaged, SegmentMissing, RowsDiffer, OSError, and as the object storage does; files
        before the one in trouble are done."""
        removed, replaced = Removed(), []
        affected = await self._candidates()
        for number, segment in enumerate(affected, 1):
            found = await self._rewrite(segment)
            if found:
                removed += found
                replaced.append(segment.name)
            progress(segment.name, number, len(affected))
        return removed, replaced

    async def _candidates(self) -> list[Segment]:
        services, bounds = services_of(self._predicate), time_bounds(self._predicate)
        found = [
            segment
            for segment in await self._catalogue.alone()
            if (services is None or _any_of(services, segment))
            and (bounds.start_us is None or segment.end_us > bounds.start_us)
            and (bounds.end_us is None or segment.start_us < bounds.end_us)
        ]
        correlation_id = correlation_of(self._predicate)
        if correlation_id is None:
            return found
        filters = CorrelationFilters(self._places.filters)
        try:
            held = await filters.candidates([segment.name for segment in found], correlation_id)
        finally:
            filters.close()
        return [segment for segment in found if segment.name in held]

    async def _rewrite(self, segment: Segment) -> Removed:
        """Without a match: nothing."""
        path = self._places.file_of(segment.name)
        fetched: Path | None = None
        try:
            if segment.tier is Tier.COLD:
                assert self._objects is not None, "whoever runs this has looked"
                fetched = path = self._places.directory / f"{segment.name}.erase{UNFINISHED}"
                await self._objects.fetch(segment, path, to_the_last=True)
            else:
                await in_thread(verify_file, path, segment.info)
            file = SegmentFile(str(path), segment.name, segment.info.row_groups)
            removed = await in_thread(self._matching, file)
            if removed:
                await self._replace(segment, file, segment.info.rows - removed.total())
            return removed
        finally:
            if fetched is not None:
                await in_thread(fetched.unlink, missing_ok=True)

    async def _replace(self, segment: Segment, file: SegmentFile, rows: int) -> None:
        epoch = self._catalogue.begun()
        written = await in_thread(self._without_matches, segment, file)
        try:
            await read_back(written, self._pace)
            if (found := sum(each.info.rows for each in written)) != rows:
                raise RowsDiffer(f"{segment.name} keeps {rows} rows, its new files have {found}")
            if not await self._catalogue.replace([segment], written, epoch=epoch):
                raise RowsDiffer(f"{segment.name} is not what it was: begin again")
        except BaseException:
            await discard_unless_recorded(self._catalogue, written)
            raise

    def _matching(self, file: SegmentFile) -> Removed:
        removed = Removed()
        for batch in rows_of([file], keep=compile_duckdb(self._predicate)):
            days = pc.floor_temporal(batch.column("timestamp"), unit="day").cast(pa.date32())
            groups = pa.table({"service": batch.column("service_name"), "day": days}).group_by(["service", "day"])
            for row in groups.aggregate([([], "count_all")]).to_pylist():
                removed[row["service"], row["day"].isoformat()] += row["count_all"]
        return removed

    def _without_matches(self, segment: Segment, file: SegmentFile) -> list[WrittenSegment]:
        writer = SegmentWriter(
            self._places.directory,
            fresh_name(segment.start_us),
            settings=self._settings,
            classify=lambda batch: pa.repeat(segment.retention_class, len(batch)),
            filter_directory=self._places.filters,
        )
        return rewrite([file], writer, keep=compile_duckdb(negate(self._predicate)))


def _any_of(services: ServiceIn, segment: Segment) -> bool:
    names: Sequence[str] = [*segment.info.services]
    return any(name in services.names or name.startswith(tuple(services.prefixes)) for name in names)
