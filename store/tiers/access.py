"""Asks segments wherever their files lie: warm ones in the directory of segments, cold ones through the cache of objects.

Promise: an answer, or an error that says what to do. A file that is not there was collected after its rows had moved on, which
a newer snapshot knows: `SnapshotLost`. A damaged one is named, counted, and concerns no question but those for its time. What
cannot be had now is Overloaded. Cold files stay while they are in use; a download goes on when the question that began it has
run out of time, so that asking again finds the file.

Every process that reads sees the same directory; nothing is written here but the cache. One event loop, no locks.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import structlog

from schemas.errors import Overloaded
from search.predicate import Predicate
from search.sql_duckdb import compile_duckdb
from store.objects.cache import ObjectCache
from store.objects.port import ObjectDamaged, ObjectMissing, ObjectStore
from store.objects.settings import ObjectSettings
from store.port import Position, SnapshotLost
from store.segments.filters import CorrelationFilters
from store.segments.format import SegmentDamaged, SegmentMissing
from store.segments.reading import SegmentReader
from store.segments.scans import SegmentFile, SegmentResult, SegmentScan
from store.segments.settings import SegmentSettings
from store.tiers.places import Places, key_of
from store.tiers.reading_metrics import SEGMENTS_DAMAGED, SEGMENTS_GONE
from store.tiers.segments import Segment, Tier

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
        if objects is not None and object_settings is not None:
            self._cache = ObjectCache(objects, object_settings)
            readable.append(object_settings.cache_dir)
        self._reader = SegmentReader(readable, settings)

    async def open(self) -> None:
        """Take the cache. Raises ConfigurationError when another process has it."""
        if self._cache is not None:
            await self._cache.open()

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

    def problem(self) -> str | None:
        """What keeps files from being read on this host, for people."""
        if self._places.directory.is_dir():
            return None
        return (
            f"files of rows cannot be read: the directory {self._places.directory} (tiers.directory) is not there;"
            " every process that reads rows must see it"
        )

    async def candidates(self, segments: Sequence[Segment], correlation_id: str) -> list[Segment]:
        """Those that may have rows with the correlation id."""
        kept = set(await self._filters.candidates([segment.name for segment in segments], correlation_id))
        return [segment for segment in segments if segment.name in kept]

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
    ) -> SegmentResult:
        """Rows of these segments that match, with low <= position < high; see SegmentScan.

        Raises SegmentGone, SegmentOnItsWay, SegmentReaderUnavailable, ObjectStoreUnavailable (all Overloaded), SegmentDamaged,
        SegmentScanFailed, ObjectTooLarge, ObjectStoreRefused.
        """
        clock = asyncio.get_running_loop().time
        ends_s = clock() + budget_ms / 1000
        async with self._files(segments, budget_ms / 1000) as files:
            scan = SegmentScan(
                files,
                compile_duckdb(predicate),
                low,
                high,
                newest_first,
                wanted,
                bytes_max,
                max(1, int((ends_s - clock()) * 1000)),
            )
            try:
                return await self._reader.scan(scan)
            except SegmentMissing as error:
                raise self._gone(error.segment) from error
            except SegmentDamaged as error:
                raise _damaged(error) from error.__cause__

    @asynccontextmanager
    async def _files(self, segments: Iterable[Segment], timeout_s: float) -> AsyncIterator[tuple[SegmentFile, ...]]:
        """The segments as files that stay until the block is left."""
        async with AsyncExitStack() as stack:
            paths = {segment.name: self._places.file_of(segment.name) for segment in segments}
            # For some minutes a file lies in both places, and the near one does.
            cold = [s for s in segments if s.tier is Tier.COLD and not paths[s.name].exists()]
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

    def _gone(self, name: str) -> SegmentGone:
        SEGMENTS_GONE.inc()
        if problem := self.problem():
            return SegmentGone(problem)
        return SegmentGone(f"{name}, a file of rows, is not in {self._places.directory} (tiers.directory)")


def _damaged(error: SegmentDamaged) -> SegmentDamaged:
    SEGMENTS_DAMAGED.inc()
    log.error("a file of rows is damaged: restore it from a copy", segment=error.segment, reason=error.reason)
    return error
