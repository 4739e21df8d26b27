"""The life of rows after their table is finished: written to files, served from files, moved to object storage, gone.

    finished table ── write ──▶ written ── switch ──▶ serving ── cold ──▶ serving, cold
                        (table has the rows)    │ ▲      (file has them)           │
                                                └─┴ merge                  expire ─┴─▶ retired ── collect ──▶ no more

Each step looks for what is due, does it piece by piece, and can be killed anywhere: what a piece changes for readers it changes
in one transaction at its end (catalogue.py), and what it leaves half-made nobody names (collecting.py). A piece that fails is
logged, counted and left to the next round; the others go on. One step at a time, for one event loop.

Late tables are tables. A table goes past its hot window, or once no class keeps any of its rows; the sealer drops it ten
minutes later.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

import structlog

from db.database import Database
from db.leases import Lease
from runtime.stopping import Stop
from schemas.errors import DatabaseUnavailable
from store.disk_room import DiskFull, DiskRoom
from store.objects.files import in_thread
from store.objects.port import ObjectDamaged, ObjectMissing, ObjectStore
from store.segments.format import SegmentDamaged, SegmentMissing
from store.segments.settings import SegmentSettings
from store.segments.verification import verify_file
from store.tiers import cold, collecting, merging, writing
from store.tiers.catalogue import FinishedTable, RowsDiffer, SegmentCatalogue, StaleEpoch
from store.tiers.cold import ColdMover, ObjectFiles
from store.tiers.collecting import Collector
from store.tiers.hot import HotWindows
from store.tiers.installation import Installation, WrongPlace
from store.tiers.merging import Merger, merges_due
from store.tiers.metrics import (
    DAMAGED_SEGMENTS,
    DISK_FULL,
    DUE_SECONDS,
    DUE_TABLES,
    EXPIRED_SEGMENTS,
    SEGMENT_BYTES,
    SEGMENTS,
    STEP_FAILURES,
    SWITCHED_TABLES,
)
from store.tiers.pace import Interrupted, Pace
from store.tiers.places import Places
from store.tiers.progress import Progress, unwatched
from store.tiers.retention import RetentionPolicy
from store.tiers.segments import Segment, SegmentState
from store.tiers.settings import TierSettings
from store.tiers.writing import TableWriter

log = structlog.get_logger(__name__)

_DAY_US: Final = 86_400_000_000
SETTLE_DAYS: Final = 7
"""So long a small file stays on the disk before it is cold, since it began to serve: others of its day may come."""

Step = Callable[[int], Awaitable[int]]
"""now_us -> how many pieces were done."""


class Tiering:
    """All steps, for whoever has the lease."""

    def __init__(
        self,
        database: Database,
        lease: Lease,
        directory: Path,
        *,
        topic: str,
        tiers: TierSettings,
        segments: SegmentSettings,
        policy: RetentionPolicy,
        store: ObjectStore | None,
        stop: Stop,
        share: float | None = None,
        settle_days: int = SETTLE_DAYS,
        progress: Progress = unwatched,
    ) -> None:
        """directory: of segments, see `prepare`. topic: whose writers must not be behind. store: without one nothing becomes
        cold. share: of the time that may be worked, that of the settings when left out. settle_days: how
        long small files wait for others of their day before they are cold."""
        self._tiers = tiers
        self._settle_days = settle_days
        self._segment_settings = segments
        self._policy = policy
        self._hot = HotWindows(tiers)
        self._progress = progress
        self.places = Places(directory)
        self.catalogue = SegmentCatalogue(database, lease)
        self.installation = Installation(database, self.catalogue, self.places, store)
        self.pace = pace = Pace(database, topic, share=tiers.busy_share if share is None else share, stop=stop)
        self.failures = 0
        """Pieces that failed so far."""
        room = DiskRoom(directory, tiers.disk_free_bytes_min, setting="tiers.disk_free_bytes_min")
        self._writer = TableWriter(database, self.catalogue, self.places, segments, policy, pace, progress, room)
        self._merger = Merger(self.catalogue, self.places, segments, pace, room)
        self.objects = None if store is None else ObjectFiles(self.places, store, self.installation, room)
        self.cold = None if self.objects is None else ColdMover(self.catalogue, self.places, self.objects)
        self._collector = Collector(
            self.catalogue, self.places, store, self.installation, strays_kept_us=tiers.strays_kept_days * _DAY_US
        )

    @property
    def steps(self) -> Mapping[str, Step]:
        """Name -> step, in the order of a round. What lies in files expires also where nothing comes to them any more."""
        moves: dict[str, Step] = {
            writing.STEP: self.write_due,
            "switch": self.switch_due,
            merging.STEP: self.merge_due,
            cold.STEP: self.move_due,
        }
        return {
            **(moves if self._tiers.enabled else {}),
            "expire": self.expire_due,
            collecting.STEP: self.collect,
            "measure": self.measure,
        }

    async def prepare(self, *, leads: bool = True) -> None:
        """Before every round: the directory is there, and this database's. leads: it is made where there are no files yet.
        Raises WrongPlace, OSError, StaleEpoch, DatabaseUnavailable."""
        await self.installation.check_directory(make=leads)

    async def write_due(self, now_us: int) -> int:
        """Write finished tables that have no segments yet, oldest first. Those past every age are left to the sealer."""
        oldest_us = now_us - self._policy.longest_us
        done = 0
        for table in await self.catalogue.tables():
            if table.rows and not table.is_segmented and table.end_us > oldest_us:
                done += await self._piece(writing.STEP, table.name, self._writer.write(table))
        return done

    async def switch_due(self, now_us: int) -> int:
        """Let files serve in the place of tables that are past their hot window; empty tables go."""
        written = defaultdict[str, list[Segment]](list)
        for segment in await self.catalogue.segments(SegmentState.WRITTEN):
            for source in segment.sources:
                written[source].append(segment)
        done = 0
        for table in await self.catalogue.tables():
            own = written[table.name]
            services = {service for segment in own for service in segment.info.services}
            is_past = table.end_us + self._hot.longest_us(services) <= now_us
            if table.rows == 0 or (table.is_segmented and is_past):
                done += await self._piece("switch", table.name, self._switch(table, own))
        return done

    async def merge_due(self, now_us: int) -> int:
        """Make few files of many small ones."""
        settings = self._segment_settings
        rows_max, bytes_max = self._small
        small = await self.catalogue.small(rows_max=rows_max, bytes_max=bytes_max)
        groups = merges_due(small, settings, files_min=self._tiers.merge_files_min)
        done = 0
        for group in groups:
            names = ", ".join(segment.name for segment in group)
            done += await self._piece(merging.STEP, names, self._merger.merge(group))
            self._progress(merging.STEP, names, done, len(groups))
        return done

    async def move_due(self, now_us: int) -> int:
        """Move old files to object storage, where there is one."""
        if self.cold is None:
            return 0
        end_us, settled_us = now_us - self._tiers.cold_days * _DAY_US, now_us - self._settle_days * _DAY_US
        due = await self.catalogue.cold_due(end_us=end_us, now_us=now_us)
        if self._tiers.merge_files_min:
            # What comes late by months is a few rows a file: it waits for more, and goes as one file.
            for group in merges_due(due, self._segment_settings, files_min=2):
                names = ", ".join(segment.name for segment in group)
                await self._piece(merging.STEP, names, self._merger.merge(group))
            rows_max, bytes_max = self._small
            due = await self.catalogue.cold_due(
                end_us=end_us, now_us=now_us, small=(rows_max, bytes_max), settled_us=settled_us
            )
        done = 0
        for segment in due:
            done += await self._piece(cold.STEP, segment.name, self.cold.freeze(segment))
            self._progress(cold.STEP, segment.name, done, len(due))
        return done

    async def expire_due(self, now_us: int) -> int:
        """Retire files whose rows are all past their class's age."""
        expired = await self.catalogue.expire(self._policy.ages_us, longest_us=self._policy.longest_us, now_us=now_us)
        if expired:
            EXPIRED_SEGMENTS.inc(len(expired))
            log.info("segments are past their class's age", segments=expired)
        return len(expired)

    async def collect(self, now_us: int) -> int:
        """Remove files that nobody reads any more."""
        return await self._collector.collect(now_us=now_us)

    async def measure(self, now_us: int) -> int:
        """Bring the gauges up to date."""
        waiting = [each for each in await self.catalogue.tables() if each.rows and not each.is_segmented]
        DUE_TABLES.set(len(waiting))
        DUE_SECONDS.set(max((table.finished_s for table in waiting), default=0.0))
        for (tier, state), (files, size) in (await self.catalogue.totals()).items():
            SEGMENTS.labels(tier.value, state.value).set(files)
            SEGMENT_BYTES.labels(tier.value, state.value).set(size)
        return 0

    @property
    def _small(self) -> tuple[int, int]:
        """Rows and bytes of a file up to which it is worth merging."""
        return self._segment_settings.rows_max // 2, self._segment_settings.bytes_max // 2

    async def _switch(self, table: FinishedTable, own: Sequence[Segment]) -> bool:
        """After one more look at the files: from then on they alone have the rows."""
        for segment in own:
            try:
                await in_thread(verify_file, self.places.file_of(segment.name), segment.info)
            except (SegmentDamaged, SegmentMissing) as error:
                DAMAGED_SEGMENTS.inc()
                log.error("a segment is damaged; its table has the rows and is written anew", error=str(error))
                await self.catalogue.take_back(table.name)
                return False
        try:
            if not await self.catalogue.switch(table.name):
                return False
        except RowsDiffer as error:
            log.error("files lack rows of their table, which is written anew", error=str(error))
            await self.catalogue.take_back(table.name)
            return False
        SWITCHED_TABLES.inc()
        log.info("segments serve", table=table.name, rows=table.rows, segments=[each.name for each in own])
        return True

    async def _piece(self, step: str, what: str, work: Awaitable[bool]) -> bool:
        """Do it; whatever its own trouble is, the others go on. What is everybody's trouble goes up."""
        try:
            return await work
        except (DatabaseUnavailable, StaleEpoch, Interrupted, WrongPlace):
            raise
        except DiskFull as error:
            # A smaller piece may find room, and what makes room goes on.
            DISK_FULL.labels(step).inc()
            STEP_FAILURES.labels(step).inc()
            self.failures += 1
            log.error("put off until there is room on the disk", step=step, what=what, error=str(error))
            return False
        except Exception as error:
            STEP_FAILURES.labels(step).inc()
            self.failures += 1
            damaged = isinstance(error, (SegmentDamaged, SegmentMissing, ObjectDamaged, ObjectMissing))
            if damaged:
                DAMAGED_SEGMENTS.inc()
            log.error(
                "not done, the next round tries again", step=step, what=what, error=str(error), exc_info=not damaged
            )
            return False
