"""Asks segments wherever their files lie: warm ones in the directory of segments, cold ones through the cache of objects.

Promise: an answer, or an error that says what to do. A file that is not there was collected after its rows had moved on, which
a newer snapshot knows: `SnapshotLost`. A damaged one is named, counted, and concerns no question but those for its time. What
cannot be had now is Overloaded. Cold files stay while they are in use; a download goes on when the question that began it has
run out of time, so that asking again finds the file.

Every process that reads sees the same directory; nothing is written here but the cache, which keeps no copy of what the
catalogue no longer names. A cache that cannot be used refuses cold files alone. What the directory says is asked in threads
with deadlines (disk_looks.py) and kept from one `look` to the next. One event loop, no locks.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Final

import structlog
from msgspec.structs import replace

from runtime.tracing import step
from schemas.errors import ConfigurationError, Overloaded
from search.predicate import Predicate
from search.sql_duckdb import compile_duckdb
from store.objects.cache import ObjectCache
from store.objects.keys import copy_name
from store.objects.port import ObjectDamaged, ObjectMissing, ObjectStore, ObjectStoreRefused, ObjectStoreUnavailable
from store.objects.settings import ObjectSettings
from store.port import Position, SnapshotLost
from store.segments.filters import CorrelationFilters, Skipped
from store.segments.format import SegmentDamaged, SegmentMissing
from store.segments.reading import SegmentReader
from store.segments.scans import SegmentCount, SegmentCounts, SegmentFile, SegmentResult, SegmentScan
from store.segments.settings import SegmentSettings
from store.tiers.disk_looks import DiskHangs, DiskLooks
from store.tiers.finding import Wanted
from store.tiers.places import Places, key_of
from store.tiers.reading_metrics import SEGMENTS_DAMAGED, SEGMENTS_GONE
from store.tiers.segments import Segment, Tier

_LOOK_S: Final = 2.0
"""So long the directory of segments may take to answer."""
_FILTERS_S: Final = 10.0
"""So long it may take to read a page of each correlation filter that is asked: thousands, of a cold disk."""

log = structlog.get_logger(__name__)


class SegmentGone(SnapshotLost):
    """A file of rows is not where it should be: take a new snapshot and ask again."""


class SegmentOnItsWay(Overloaded):
    """A file of rows is being fetched from object storage; try again shortly."""


class SegmentsUnreachable(Overloaded):
    """Files of rows cannot be read on this host."""


class SegmentAccess:
    """For one process that answers questions. `open` before the first one, `close` at the end."""

    def __init__(
        self,
        directory: Path,
        settings: SegmentSettings,
        *,
        objects: ObjectStore | None = None,
        object_settings: ObjectSettings | None = None,
    ) -> None:
        """directory: of segments; it need not exist yet. objects: where cold ones lie, closed here; with settings of its
        cache."""
        self._places = Places(directory)
        self._objects = objects
        self._is_closed = False
        self._cache: ObjectCache | None = None
        self._filters = CorrelationFilters(self._places.filters, files_open_max=settings.filters_open_max)
        readable = [directory]
        self.cold_bytes_max = 1
        """Of files in object storage that are asked at once, but for one: half of the cache, so that two questions do not wait
        for each other's."""
        if objects is not None and object_settings is not None:
            self._cache = ObjectCache(objects, object_settings)
            readable.append(object_settings.cache_dir)
            self.cold_bytes_max = max(1, object_settings.cache_bytes_max // 2)
        self._reader = SegmentReader(readable, settings)
        self._looks = DiskLooks()
        self._directory_problem: str | None = None
        self._cache_problem: str | None = "the cache of objects was not opened"
        """None: it is open, or there is none."""
        self._copies_of: tuple[Sequence[Segment], frozenset[str]] | None = None
        """Names that copies of these segments have."""

    async def open(self) -> None:
        """Take the cache; where that fails, `problem` says why, and each `look` tries again."""
        if self._cache is None:
            self._cache_problem = None
            return
        try:
            await self._cache.open()
            self._cache_problem = None
        except ConfigurationError as error:
            if self._cache_problem != str(error):
                log.warning("files in object storage cannot be read", error=str(error))
            self._cache_problem = str(error)

    async def look(self, cold: Sequence[Segment]) -> None:
        """See whether files can be read on this host, and let go of copies of all but these objects. Takes some seconds at most
        where a disk hangs. cold: all segments in object storage that the newest catalogue knows."""
        await self._look_at_directory()
        if self._cache_problem is not None:
            await self.open()
        if self._cache is None or self._cache_problem is not None:
            return
        if self._copies_of is None or self._copies_of[0] is not cold:
            names = (copy_name(key_of(s), bytes=s.info.bytes, sha256=s.info.sha256) for s in cold)
            self._copies_of = (cold, frozenset(names))
        try:
            await self._cache.keep_only(self._copies_of[1])
        except (ObjectStoreUnavailable, ObjectStoreRefused) as error:
            log.warning("copies of objects that are gone were not deleted", error=str(error))

    async def start_readers(self) -> None:
        """Start the processes, which the first questions would wait for. Once; failures are left to these."""
        await self._reader.start()

    async def close(self) -> None:
        """End everything; questions under way get Overloaded errors. Safe to call twice."""
        if self._is_closed:
            return
        self._is_closed = True
        await self._reader.close()
        self._filters.close()
        if self._cache is not None:
            await self._cache.close()
        if self._objects is not None:
            await self._objects.close()

    def problem(self, *, has_cold: bool = False) -> str | None:
        """What keeps files from being read on this host, for people; as of the last `look`. has_cold: some are in object
        storage."""
        if self._directory_problem is not None or not has_cold:
            return self._directory_problem
        if self._cache is None:
            return "files of rows in object storage cannot be read: objects.url does not say where that is"
        if self._cache_problem is not None:
            return f"files of rows in object storage cannot be read: {self._cache_problem}"
        return None

    async def _look_at_directory(self) -> None:
        directory = self._places.directory
        try:
            is_there = await self._looks.look(directory.is_dir, timeout_s=_LOOK_S)
            state = None if is_there else "is not there; every process that reads rows must see it"
        except DiskHangs:
            state = "does not answer"
        except OSError as error:
            state = f"cannot be looked at: {error.strerror}"
        self._directory_problem = (
            None
            if state is None
            else f"files of rows cannot be read: the directory {directory} (tiers.directory) {state}"
        )

    async def candidates(self, segments: Sequence[Segment], wanted: Wanted) -> Skipped:
        """Names of those that may have such rows, and their row groups that have none: by the filters of correlation ids and
        of metadata alone. Raises DiskHangs."""
        names = [segment.name for segment in segments]
        in_thread = partial(self._looks.look, timeout_s=_FILTERS_S)
        return await self._filters.candidates(names, wanted.correlation, wanted.texts, in_thread=in_thread)

    async def scan(
        self,
        segments: Sequence[Segment],
        predicate: Predicate,
        *,
        low: Position,
        high: Position,
        newest_first: bool,
        wanted: int,
        bytes_max: int,
        budget_ms: int,
        skipped: Mapping[str, tuple[int, ...]] = MappingProxyType({}),
    ) -> SegmentResult:
        """Rows of these segments that match, with low <= position < high; see SegmentScan. skipped: row groups without a match
        (`candidates`).

        Raises SegmentGone, SegmentOnItsWay, SegmentsUnreachable, SegmentReaderUnavailable, DiskHangs, ObjectStoreUnavailable
        (all Overloaded), SegmentDamaged, SegmentScanFailed, ObjectTooLarge, ObjectStoreRefused.
        """
        clock = asyncio.get_running_loop().time
        ends_s = clock() + budget_ms / 1000
        async with self._files(segments, budget_ms / 1000) as files:
            scan = SegmentScan(
                tuple(replace(file, skipped=skipped.get(file.name, ())) for file in files),
                compile_duckdb(predicate),
                low,
                high,
                newest_first,
                wanted,
                bytes_max,
                max(1, int((ends_s - clock()) * 1000)),
            )
            try:
                with step("ask files") as span:
                    if span is not None:
                        span.note(files=len(files))
                    return await self._reader.scan(scan)
            except SegmentMissing as error:
                raise await self._gone(error.segment) from error
            except SegmentDamaged as error:
                raise _damaged(error) from error.__cause__

    async def count(
        self,
        segments: Sequence[Segment],
        predicate: Predicate,
        *,
        low_us: int,
        high_us: int,
        base_us: int,
        width_us: int,
        budget_ms: int,
        skipped: Mapping[str, tuple[int, ...]] = MappingProxyType({}),
    ) -> SegmentCounts:
        """How many rows of these segments with low_us <= timestamp < high_us match; see SegmentCount. Raises as `scan` does."""
        clock = asyncio.get_running_loop().time
        ends_s = clock() + budget_ms / 1000
        async with self._files(segments, budget_ms / 1000) as files:
            count = SegmentCount(
                tuple(replace(file, skipped=skipped.get(file.name, ())) for file in files),
                compile_duckdb(predicate),
                (low_us, 0),
                (high_us, 0),
                width_us,
                base_us,
                max(1, int((ends_s - clock()) * 1000)),
            )
            try:
                with step("ask files") as span:
                    if span is not None:
                        span.note(files=len(files))
                    return await self._reader.count(count)
            except SegmentMissing as error:
                raise await self._gone(error.segment) from error
            except SegmentDamaged as error:
                raise _damaged(error) from error.__cause__

    @asynccontextmanager
    async def _files(self, segments: Sequence[Segment], timeout_s: float) -> AsyncIterator[tuple[SegmentFile, ...]]:
        """The segments as files that stay until the block is left."""
        async with AsyncExitStack() as stack:
            paths = {segment.name: self._places.file_of(segment.name) for segment in segments}
            # For some minutes a file lies in both places, and the near one does.
            far = [s for s in segments if s.tier is Tier.COLD]
            cold = far and await self._looks.look(
                lambda: [s for s in far if not paths[s.name].exists()], timeout_s=min(timeout_s, _LOOK_S)
            )
            if cold:
                waiting = [asyncio.ensure_future(self._fetched(segment, stack)) for segment in cold]
                try:
                    async with asyncio.timeout(timeout_s):
                        for segment, path in zip(cold, await asyncio.gather(*waiting), strict=True):
                            paths[segment.name] = path
                except TimeoutError:
                    raise SegmentOnItsWay(
                        f"{cold[0].name}, a file of rows, is being fetched from object storage; try again shortly",
                        retry_after_s=2,
                    ) from None
                finally:
                    for task in waiting:
                        task.cancel()
                    await asyncio.gather(*waiting, return_exceptions=True)
            yield tuple(SegmentFile(str(paths[s.name]), s.name, s.info.row_groups) for s in segments)

    async def _fetched(self, segment: Segment, stack: AsyncExitStack) -> Path:
        """The object as a local file, kept until the stack is left."""
        if self._cache is None:
            raise SegmentsUnreachable(
                f"{segment.name}, a file of rows, lies in object storage, and objects.url does not say where that is"
            )
        if self._cache_problem is not None:
            raise SegmentsUnreachable(
                f"{segment.name}, a file of rows, lies in object storage, which cannot be read here: {self._cache_problem}"
            )
        info = segment.info
        try:
            return await stack.enter_async_context(
                self._cache.file(key_of(segment), bytes=info.bytes, sha256=info.sha256)
            )
        except ObjectMissing as error:
            SEGMENTS_GONE.inc()
            raise SegmentGone(f"a file of rows is not in object storage: {error}") from error
        except ObjectDamaged as error:
            raise _damaged(SegmentDamaged(segment.name, str(error))) from error

    async def _gone(self, name: str) -> SegmentGone:
        SEGMENTS_GONE.inc()
        await self._look_at_directory()
        if self._directory_problem is not None:
            return SegmentGone(self._directory_problem)
        return SegmentGone(f"{name}, a file of rows, is not in {self._places.directory} (tiers.directory)")


def _damaged(error: SegmentDamaged) -> SegmentDamaged:
    SEGMENTS_DAMAGED.inc()
    log.error("a file of rows is damaged: restore it from a copy", segment=error.segment, reason=error.reason)
    return error
