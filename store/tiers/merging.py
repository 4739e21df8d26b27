"""Makes few files of many small ones: those of one UTC day and retention class, on the local disk.

What is merged serves; what comes out serves in the same moment in which the sources retire, and whoever is reading one of those
finds it for ten minutes more. Files that lie across midnight stay as they are; the writer makes none.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Sequence

import pyarrow as pa
import structlog

from store.disk_room import DiskRoom
from store.objects.files import in_thread
from store.segments.rewriting import rewrite
from store.segments.scans import SegmentFile
from store.segments.settings import SegmentSettings
from store.segments.verification import verify_file
from store.segments.writing import SegmentWriter, WrittenSegment
from store.tiers.catalogue import RowsDiffer, SegmentCatalogue
from store.tiers.discarding import discard, discard_unless_recorded
from store.tiers.metrics import WRITTEN_ROWS
from store.tiers.pace import Interrupted, Pace
from store.tiers.places import Places, fresh_name
from store.tiers.segments import Segment, SegmentState, Tier
from store.tiers.writing import read_back

log = structlog.get_logger(__name__)

STEP = "merge"
_DAY_US = 86_400_000_000


def merges_due(segments: Iterable[Segment], settings: SegmentSettings, *, files_min: int) -> list[list[Segment]]:
    """Which of the segments are to become one each, by time; none when files_min is 0."""
    days = defaultdict[tuple[int, str], list[Segment]](list)
    for segment in segments:
        day = segment.start_us // _DAY_US
        if (
            (segment.state, segment.tier) == (SegmentState.SERVING, Tier.WARM)
            and day == (segment.end_us - 1) // _DAY_US
            and 2 * segment.info.rows <= settings.rows_max
            and 2 * segment.info.bytes <= settings.bytes_max
        ):
            days[day, segment.retention_class].append(segment)
    groups = [group for day in sorted(days) for group in _packed(days[day], settings)]
    return [group for group in groups if len(group) >= max(2, files_min)] if files_min else []


def _packed(segments: Sequence[Segment], settings: SegmentSettings) -> list[list[Segment]]:
    """In their order, each group small enough for one file."""
    groups: list[list[Segment]] = []
    rows = size = 0
    for segment in segments:
        rows, size = rows + segment.info.rows, size + segment.info.bytes
        if not groups or rows > settings.rows_max or size > settings.bytes_max:
            groups.append([])
            rows, size = segment.info.rows, segment.info.bytes
        groups[-1].append(segment)
    return groups


class Merger:
    """Merges groups of segments."""

    def __init__(
        self, catalogue: SegmentCatalogue, places: Places, settings: SegmentSettings, pace: Pace, room: DiskRoom
    ) -> None:
        """places: prepared; room: on its disk."""
        self._catalogue = catalogue
        self._places = places
        self._settings = settings
        self._pace = pace
        self._room = room

    async def merge(self, group: Sequence[Segment]) -> bool:
        """One file serves instead of these, which are of one class. False: one of them does not serve any more. Raises
        DatabaseUnavailable, StaleEpoch, SegmentDamaged, SegmentMissing, RowsDiffer, DiskFull, OSError, Interrupted."""
        epoch = self._catalogue.begun()
        size = sum(segment.info.bytes for segment in group)
        await in_thread(self._room.check, size, f"merging {len(group)} files")
        for segment in group:
            await in_thread(verify_file, self._places.file_of(segment.name), segment.info)
        written = await in_thread(self._written, group)
        if not written:
            raise Interrupted
        try:
            await read_back(written, self._pace)
            rows, wanted = (sum(each.info.rows for each in of) for of in (written, group))
            if rows != wanted:
                raise RowsDiffer(f"{', '.join(each.name for each in group)} have {wanted} rows, merged {rows}")
            replaced = await self._catalogue.replace(group, written, epoch=epoch)
        except BaseException:
            await discard_unless_recorded(self._catalogue, written)
            raise
        if not replaced:
            await in_thread(discard, written)
            return False
        WRITTEN_ROWS.labels("segments").inc(rows)
        log.info(
            "segments merged", segments=[each.name for each in group], into=[each.name for each in written], rows=rows
        )
        return True

    def _written(self, group: Sequence[Segment]) -> list[WrittenSegment]:
        retention_class = group[0].retention_class
        writer = SegmentWriter(
            self._places.directory,
            fresh_name(group[0].start_us),
            settings=self._settings,
            # What was written as a class stays of it: its file goes with that class.
            classify=lambda batch: pa.repeat(retention_class, len(batch)),
            filter_directory=self._places.filters,
        )
        began_s = time.monotonic()

        def rest() -> bool:
            nonlocal began_s
            stopped = self._pace.rest_in_thread(time.monotonic() - began_s)
            began_s = time.monotonic()
            return stopped

        files = [SegmentFile(str(self._places.file_of(each.name)), each.name, each.info.row_groups) for each in group]
        return rewrite(files, writer, is_cancelled=rest)
