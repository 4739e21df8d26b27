"""Fills one page across tiers: stretch after stretch (stretches.py), from tables, from segments, or from both at once.

Where only tables have rows, a stretch is a scan of tables (store/page_scan.py), and the newest page is nothing else. Where
segments have them, both sides are asked at once, each within what is left of the budget, and merged by (timestamp, id) up to
where the slower one has looked; the page goes on from there. A position that both have is one row: while its table leaves, and
until that is dropped, a row may have two homes. So each row is met once, whatever moves between two pages.

A search that reads texts and has no index asks tables first, shortly: the newest rows answer most of them. Then it asks
segments instead of the finished tables whose rows these have as well.

Rows past their age are left out by the predicate, and only where there can be any. One task and one beside it, no locks;
memory: the page, and what two sides bring for it, each bounded as the page is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Final, Protocol

import msgspec

from runtime.clock import Clock
from schemas.errors import Overloaded
from schemas.record import Log
from search.predicate import Predicate, all_of
from store.objects.cache import ObjectTooLarge
from store.objects.port import ObjectStoreRefused
from store.page_scan import PageScan
from store.port import Order, Position, Scan, ScanResult, SnapshotLost
from store.scan_ways import Traits
from store.scan_windows import Ground, Walk, successor
from store.segments.filters import Skipped
from store.segments.format import SegmentDamaged, SegmentReaderUnavailable
from store.segments.reading import SegmentScanFailed
from store.segments.scans import SegmentResult
from store.tiers.access import SegmentAccess, SegmentOnItsWay, SegmentsUnreachable
from store.tiers.finding import Segments, Wanted
from store.tiers.hiding import Hiding
from store.tiers.reading_metrics import SCANS_WITH_SEGMENTS
from store.tiers.segments import Segment, Tier
from store.tiers.stretches import Stretch, Stretches

LOOK_MS: Final = 40
"""So long tables are asked before segments are, where these can be asked instead."""
_STOP_MS: Final = 20
"""With so little left no further stretch begins, once the page has got on."""

_ENDS_A_PAGE: Final = (Overloaded, SegmentDamaged, SegmentScanFailed, ObjectTooLarge, ObjectStoreRefused)
"""What keeps a page from going on into a file."""


class Tables(Protocol):
    """The tables of a snapshot."""

    @property
    def segmented(self) -> Sequence[str]:
        """Tables whose rows are in segments as well."""

    def ground(self, *, without_segmented: bool) -> Ground:
        """What there is to walk over."""

    def page(self, walk: Walk, predicate: Predicate, scan: Scan, *, bytes_max: int, has_got_on: bool) -> PageScan:
        """A scan of what the walk leads over."""


class TieredScan:
    """One scan of a snapshot."""

    def __init__(
        self,
        scan: Scan,
        predicate: Predicate,
        low: Position,
        high: Position,
        *,
        tables: Tables,
        segments: Segments,
        access: SegmentAccess | None,
        hiding: Hiding | None,
        bytes_max: int,
        clock: Clock,
    ) -> None:
        """predicate: the scan's, and what may be read. access: None where files cannot be read."""
        self._scan = scan
        self._predicate = predicate
        self._low = low if hiding is None else max(low, (hiding.gone_before_us, 0))
        self._high = high
        self._tables = tables
        self._segments = segments
        self._access = access
        self._hiding = hiding
        self._clock = clock
        self._newest_first = scan.order is Order.NEWEST_FIRST
        self._instead: tuple[Segment, ...] = ()
        can_read = access is not None and access.problem() is None
        if can_read and tables.segmented and _reads_every_row(predicate):
            self._instead = segments.instead_of(tables.segmented)
        self._ground = tables.ground(without_segmented=False)
        self._ends_s = 0.0
        self._logs: list[Log] = []
        self._bytes_left = bytes_max
        self._got_on = False
        self._skipped: Skipped = {}
        """Row groups that hold no match, of the segments that are asked."""

    async def run(self) -> ScanResult:
        """Raises SnapshotLost unless the scan is asked again; when nothing could be looked at: Overloaded errors,
        SegmentDamaged, SegmentScanFailed, ObjectTooLarge, ObjectStoreRefused."""
        self._ends_s = self._clock.monotonic_s() + self._scan.budget_ms / 1000
        alone = Stretches((), self._ground, *self._alone(), newest_first=self._newest_first)
        result = await self._through(alone, is_look=bool(self._instead))
        if result is not None:
            return result
        low, high = (self._low, alone.high) if self._newest_first else (alone.low, self._high)
        if self._instead:
            self._ground = self._tables.ground(without_segmented=True)
        try:
            rest = await self._stretches(low, high)
        except Overloaded:
            if not self._logs:
                raise
            return ScanResult(self._logs, False, alone.scanned_to)
        try:
            result = await self._through(rest)
        except (SegmentDamaged, SnapshotLost) as error:
            if not self._instead or (isinstance(error, SnapshotLost) and not self._scan.is_again):
                raise
            # Tables have the rows of these files as well.
            self._instead = ()
            self._ground = self._tables.ground(without_segmented=False)
            result = await self._through(await self._stretches(rest.low, rest.high))
        return result or ScanResult(self._logs, True, None)

    async def _stretches(self, low: Position, high: Position) -> Stretches:
        """Of what is left, with segments."""
        segments = await self._candidates(low, high)
        bounds = {} if self._access is None else {"cold_bytes_max": self._access.cold_bytes_max}
        return Stretches(segments, self._ground, low, high, newest_first=self._newest_first, **bounds)

    def _alone(self) -> tuple[Position, Position]:
        """What of the interval comes before any serving segment, in the scan's direction."""
        low, high = self._low, self._high
        if not self._segments.reach(low, high):
            return low, high
        if self._newest_first:
            return min(high, max(low, (self._segments.newest_us, 0))), high
        return low, max(low, min(high, (self._segments.oldest_us, 0)))

    async def _candidates(self, low: Position, high: Position) -> Sequence[Segment]:
        """Segments that may hold rows that match, in this interval."""
        if low >= high:
            return ()
        wanted = Wanted.of(self._predicate)
        found = [
            segment
            for segment in (*self._segments.serving, *self._instead)
            if segment.end_us > low[0] and (segment.start_us, 0) < high and wanted.may_be_in(segment)
        ]
        if (wanted.correlation is None and not wanted.texts) or not found or self._access is None:
            return found
        self._skipped = await self._access.candidates(found, wanted)
        return [segment for segment in found if segment.name in self._skipped]

    async def _through(self, stretches: Stretches, *, is_look: bool = False) -> ScanResult | None:
        """Walk over them. None: to the end, or for as long as a look may take; the page goes on."""
        while (stretch := stretches.next()) is not None:
            stretch, predicate = self._aged(stretches, stretch)
            left_ms = (self._ends_s - self._clock.monotonic_s()) * 1000
            if self._got_on and left_ms <= _STOP_MS:
                return ScanResult(self._logs, False, stretches.scanned_to)
            if not stretch.segments:
                result = await self._of_tables(stretches, stretch, predicate, left_ms, is_look=is_look)
                if result is not None or is_look:
                    return result
                continue
            if self._is_full and any(segment.tier is Tier.COLD for segment in stretch.segments):
                # Whether anything lies beyond a full page is not worth fetching a file for: there may.
                return ScanResult(self._logs, False, stretches.scanned_to)
            try:
                result = await self._of_both(stretches, stretch, predicate, left_ms)
            except _ENDS_A_PAGE as error:
                if isinstance(error, SnapshotLost) and not self._scan.is_again:
                    raise
                # Who goes on from there is told. With nothing to show, only what took long is not to be done again.
                if not self._logs and (not self._got_on or left_ms > self._scan.budget_ms / 2):
                    raise
                return ScanResult(self._logs, False, stretches.scanned_to)
            if result is not None:
                return result
        return None

    def _aged(self, stretches: Stretches, stretch: Stretch) -> tuple[Stretch, Predicate]:
        """What of the stretch is asked at once, and what for: fast ways are kept where no row is past its age."""
        hiding = self._hiding
        if hiding is None or stretch.low >= (hiding.cutoff_us, 0):
            return stretch, self._predicate
        stretch = stretches.within(stretch, hiding.cutoff_us)
        if stretch.low >= (hiding.cutoff_us, 0):
            return stretch, self._predicate
        return stretch, all_of(self._predicate, hiding.shown)

    async def _of_tables(
        self, stretches: Stretches, stretch: Stretch, predicate: Predicate, left_ms: float, *, is_look: bool
    ) -> ScanResult | None:
        """None: the page goes on."""
        budget_ms = min(left_ms, LOOK_MS) if is_look else left_ms
        page = self._page(stretch, predicate, budget_ms, has_got_on=is_look or self._got_on)
        found = await page.run()
        if self._is_full:
            if found.logs:
                return ScanResult(self._logs, False, _position(self._logs[-1]))
            if not found.finished:
                return ScanResult(self._logs, False, found.scanned_to)
            stretches.done(stretch)
            return None
        self._logs += found.logs
        self._bytes_left -= page.bytes_taken
        if found.scanned_to is None:
            stretches.done(stretch)
            self._went_on()
            return None
        if is_look and not self._is_full:
            self._got_on = found.scanned_to != stretches.scanned_to
            stretches.done_to(found.scanned_to)
            return None
        return ScanResult(self._logs, False, found.scanned_to)

    async def _of_both(
        self, stretches: Stretches, stretch: Stretch, predicate: Predicate, left_ms: float
    ) -> ScanResult | None:
        """None: the page goes on."""
        if self._access is None:
            raise SegmentsUnreachable(
                "rows of this time lie in files, which this host cannot read: set tiers.directory to where they are"
            )
        beside = (
            Walk(self._ground, newest_first=self._newest_first, low=stretch.low, high=stretch.high).next() is not None
        )
        SCANS_WITH_SEGMENTS.labels("tables" if beside else "nothing").inc()
        asking = asyncio.ensure_future(self._of_files(self._access, stretch, predicate, left_ms))
        try:
            of_tables = None
            if beside:
                of_tables = await self._page(stretch, predicate, left_ms, has_got_on=self._got_on).run()
            of_segments = await asking
        finally:
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
        rows, reach = merged(of_tables, of_segments, newest_first=self._newest_first)
        for row in rows:
            if self._is_full:
                return ScanResult(self._logs, False, _position(self._logs[-1]))
            self._logs.append(row)
            self._bytes_left -= _bytes_of(row)
        if reach is None:
            stretches.done(stretch)
        else:
            stretches.done_to(reach)
        self._went_on()
        if self._is_full and of_tables is not None and not of_tables.finished:
            return ScanResult(self._logs, False, stretches.scanned_to)
        return None

    async def _of_files(
        self, access: SegmentAccess, stretch: Stretch, predicate: Predicate, left_ms: float
    ) -> SegmentResult:
        """Rows of all files of the stretch, group after group; each is asked as far as those before it have come, and has its
        share of the time: the first one alone would take all of it where rows take long."""
        ends_s = self._clock.monotonic_s() + left_ms / 1000
        low, high = stretch.low, stretch.high
        wanted, bytes_max = self._wanted + 1, max(1, self._bytes_left)
        found: SegmentResult | None = None
        groups = list(stretch.groups(access.cold_bytes_max))
        cold_bytes = sum(segment.info.bytes for segment in stretch.segments if segment.tier is Tier.COLD)
        # Fetched one after the other they put each other out: asking again would begin anew.
        is_too_much = len(groups) > 1 and cold_bytes > access.cold_bytes_max
        too_much = (
            f"{len(stretch.segments)} files of rows overlap here, and those in object storage have {cold_bytes} bytes, more"
            f" than half of the cache on this host: raise objects.cache_bytes_max, or bring them back (logfeed tier restore)"
        )
        for number, group in enumerate(groups):
            left_ms = (ends_s - self._clock.monotonic_s()) * 1000
            if found is not None and left_ms <= 0:
                raise SegmentReaderUnavailable(
                    too_much
                    if is_too_much
                    else f"{len(stretch.segments)} files of rows overlap here, too many to be asked in time; try again shortly"
                )
            try:
                result = await access.scan(
                    group,
                    predicate,
                    low=low,
                    high=high,
                    newest_first=self._newest_first,
                    wanted=wanted,
                    bytes_max=bytes_max,
                    budget_ms=max(1, int(left_ms / (len(groups) - number))),
                    skipped=self._skipped,
                )
            except SegmentOnItsWay as error:
                if is_too_much:
                    raise SegmentOnItsWay(too_much, retry_after_s=30) from error
                raise
            found = result if found is None else _cut(found, result, wanted, bytes_max, newest_first=self._newest_first)
            if found.looked_to is not None:
                low, high = (found.looked_to, high) if self._newest_first else (low, successor(found.looked_to))
        assert found is not None, "a stretch without segments is one of tables"
        return found

    def _page(self, stretch: Stretch, predicate: Predicate, budget_ms: float, *, has_got_on: bool) -> PageScan:
        """A scan of the tables in the stretch, for what the page lacks; of a full one, for whether anything lies beyond."""
        walk = Walk(self._ground, newest_first=self._newest_first, low=stretch.low, high=stretch.high)
        scan = replace(self._scan, limit=self._wanted, budget_ms=max(1, int(budget_ms)))
        return self._tables.page(walk, predicate, scan, bytes_max=max(1, self._bytes_left), has_got_on=has_got_on)

    @property
    def _is_full(self) -> bool:
        return len(self._logs) >= self._scan.limit or self._bytes_left <= 0

    @property
    def _wanted(self) -> int:
        return 1 if self._is_full else self._scan.limit - len(self._logs)

    def _went_on(self) -> None:
        """Something was looked at; a full page has little time for what lies beyond it."""
        self._got_on = True
        if self._is_full:
            self._ends_s = min(self._ends_s, self._clock.monotonic_s() + self._scan.beyond_ms / 1000)


def merged(
    of_tables: ScanResult | None, of_segments: SegmentResult, *, newest_first: bool
) -> tuple[list[Log], Position | None]:
    """Rows of both sides in order, each position once, and how far both have looked (None: to the end). of_tables: None where
    no table was asked."""
    reaches = [of_segments.looked_to] if of_tables is None else [of_segments.looked_to, of_tables.scanned_to]
    known = [reach for reach in reaches if reach is not None]
    rows = {_position(log): log for log in (*(of_tables.logs if of_tables else ()), *of_segments.logs)}
    positions = sorted(rows, reverse=newest_first)
    if not known:
        return [rows[position] for position in positions], None
    reach = max(known) if newest_first else min(known)
    kept = [rows[each] for each in positions if (each >= reach if newest_first else each <= reach)]
    return kept, reach


def _cut(one: SegmentResult, other: SegmentResult, wanted: int, bytes_max: int, *, newest_first: bool) -> SegmentResult:
    """Both as one result, which is no larger than each may be."""
    rows, reach = merged(ScanResult(one.logs, one.looked_to is None, one.looked_to), other, newest_first=newest_first)
    for number, row in enumerate(rows, 1):
        bytes_max -= _bytes_of(row)
        if number == wanted or bytes_max <= 0:
            return SegmentResult(rows[:number], _position(row))
    return SegmentResult(rows, reach)


def _reads_every_row(predicate: Predicate) -> bool:
    """Whether it reads texts, and no index of finished tables says which."""
    traits = Traits.of(predicate)
    return traits.is_slow and traits.correlation is None and traits.terms is None and not traits.has_bulk_index


def _position(log: Log) -> Position:
    return log.timestamp, log.id


def _bytes_of(log: Log) -> int:
    """As a result counts them: message and metadata."""
    return len(log.message.encode()) + len(msgspec.json.encode(log.metadata))
