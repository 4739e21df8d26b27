"""Files that overlap in more groups than one share the time of a page: it gets on, however slow they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import pytest

from runtime.clock import ManualClock
from search.predicate import Contains, Predicate
from store.page_scan import PageScan
from store.port import Order, Position, Scan, ScanResult
from store.scan_windows import Ground, Walk
from store.segments.scans import SegmentResult
from store.tiers.access import SegmentAccess
from store.tiers.finding import Segments
from store.tiers.segments import Segment
from store.tiers.stretches import FILES
from store.tiers.tiered_scan import TieredScan
from tests.unit.store.tiers.test_stretches import ground, segment

EVER_US = 10_000
US_PER_MS = 4
"""Of the files' time that is looked through: all of it takes more than a page has."""


class SlowFiles:
    """Looks through the time it is asked for at a constant speed, and finds nothing."""

    cold_bytes_max = 1 << 60

    def __init__(self, clock: ManualClock) -> None:
        self._clock = clock

    def problem(self) -> str | None:
        """None."""
        return None

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
        skipped: Mapping[str, tuple[int, ...]],
    ) -> SegmentResult:
        """See SegmentAccess."""
        us = min(high[0] - low[0], budget_ms * US_PER_MS)
        self._clock.advance(us / US_PER_MS / 1000)
        if us == high[0] - low[0]:
            return SegmentResult([], None)
        return SegmentResult([], (high[0] - us, 0) if newest_first else (low[0] + us, 0))


class NoTables:
    """Nothing is in tables."""

    segmented: Sequence[str] = ()

    def ground(self, *, without_segmented: bool) -> Ground:
        """See Tables."""
        return ground()

    def page(self, walk: Walk, predicate: Predicate, scan: Scan, *, bytes_max: int, has_got_on: bool) -> PageScan:
        """See Tables."""
        raise AssertionError("there are none")


@pytest.mark.parametrize("order", list(Order))
async def test_a_walk_over_many_slow_files_of_one_moment_comes_to_its_end(order: Order) -> None:
    clock = ManualClock(0)
    segments = Segments(segment(n, 0, EVER_US) for n in range(2 * FILES + 1))
    low, high, pages = (0, 0), (EVER_US, 0), 0
    while True:
        found = await _page(clock, segments, low, high, order)
        pages += 1
        if found.scanned_to is None:
            break
        low, high = (low, found.scanned_to) if order is Order.NEWEST_FIRST else (found.scanned_to, high)
    assert 2 < pages < 20


async def _page(clock: ManualClock, segments: Segments, low: Position, high: Position, order: Order) -> ScanResult:
    return await TieredScan(
        Scan(Contains("rare"), order, limit=10, budget_ms=1_000),
        Contains("rare"),
        low,
        high,
        tables=NoTables(),
        segments=segments,
        access=cast("SegmentAccess", SlowFiles(clock)),
        hiding=None,
        bytes_max=1_000,
        clock=clock,
    ).run()
