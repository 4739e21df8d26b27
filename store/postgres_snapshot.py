"""One moment of the hot store in PostgreSQL: implements `store.port.Snapshot` on one transaction.

Rows are in `logs` (chunks by time) and in the late generations; both are merged by (timestamp, id) inside each statement.
`logs` is asked through the parent with explicit bounds of time, which exclude all other chunks at planning (measured: as
cheap as the chunks' own names, 0.1 ms a chunk natively).

Where segments have rows as well, both are merged (store/tiers/tiered_scan.py); what follows is about tables.

A scan walks windows (store/scan_windows.py) within its budget. A window that does not end in its share of the budget is
cancelled by the server and tried narrower, at last as a counted number of rows: a page always gets on, or says 503.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from runtime.clock import Clock
from runtime.tracing import step
from schemas.errors import DatabaseUnavailable
from schemas.record import Log
from schemas.scope import ALL_SERVICES, ServiceScope
from search.bounds import time_bounds
from search.predicate import EVERYTHING, Predicate, all_of, within
from search.sql_postgres import compile_postgres
from store import page_sql
from store.catalogue import Catalogue
from store.page_scan import PageScan
from store.port import Count, CountResult, Order, Position, Scan, ScanResult
from store.rare_keys import RareKeys
from store.scan_windows import BEYOND, CHUNKS_MAX, LEAST, Ground, Walk, successor
from store.second_connection import SecondConnection
from store.statements import BY_BITMAP, Settings, StatementRunner
from store.tiers.access import SegmentAccess
from store.tiers.by_id import log_with_id
from store.tiers.counting import TieredCount
from store.tiers.finding import Segments
from store.tiers.hiding import Hiding
from store.tiers.tiered_scan import TieredScan

LOOK_UP_MS: Final = 2_000
"""For look-ups, which bring no budget of their own."""
_LOOK_UP: Final[Settings] = {**BY_BITMAP, "statement_timeout": str(LOOK_UP_MS)}


class PostgresSnapshot:
    """One task; statements follow one another."""

    def __init__(
        self,
        runner: StatementRunner,
        *,
        offsets: dict[int, int],
        visible_through_us: int,
        closed_before_us: int,
        revision: int,
        place: str,
        is_current: bool,
        mark: int,
        catalogue: Catalogue,
        segments: Segments,
        access: SegmentAccess | None,
        hiding: Hiding | None,
        rare_keys: RareKeys,
        page_bytes_max: int,
        clock: Clock,
        second: SecondConnection,
    ) -> None:
        """Up to segments: as they were at this moment. access: None where files cannot be read; hiding: None where no row is
        past its age. second: closed with the snapshot."""
        self._second = second
        self._runner = runner
        self._offsets = offsets
        self._visible_through_us = visible_through_us
        self._closed_before_us = closed_before_us
        self._revision = revision
        self._place = place
        self._is_current = is_current
        self._mark = mark
        self._catalogue = catalogue
        self._segments = segments
        self._access = access
        self._hiding = hiding
        self._rare_keys = rare_keys
        self._page_bytes_max = page_bytes_max
        self._clock = clock
        self.wanted_keys: set[str] = set()
        """Of metadata: scans sought something rare by these in open chunks."""

    async def close(self) -> None:
        """Give back what it opened; the transaction is its caller's."""
        await self._second.close()

    @property
    def offsets(self) -> dict[int, int]:
        """See Snapshot."""
        return dict(self._offsets)

    @property
    def visible_through_us(self) -> int:
        """See Snapshot."""
        return self._visible_through_us

    @property
    def closed_before_us(self) -> int:
        """See Snapshot."""
        return self._closed_before_us

    @property
    def revision(self) -> int:
        """See Snapshot."""
        return self._revision

    @property
    def place(self) -> str:
        """See Snapshot."""
        return self._place

    @property
    def is_current(self) -> bool:
        """See Snapshot."""
        return self._is_current

    @property
    def mark(self) -> int:
        """See Snapshot. The first transaction that this snapshot may not see all of."""
        return self._mark

    async def late_since(self, mark: int) -> bool:
        """See Snapshot. Tables that an older program has made do not say what came when, or only row by row: all may be new
        there."""
        if not self._catalogue.unfinished_late:
            return False
        if not self._catalogue.tells_late_arrivals:
            return True
        ((is_any,),) = await self._runner.rows(*page_sql.arrived_since(self._catalogue.unfinished_late, mark))
        return bool(is_any)

    async def newest(self) -> Position | None:
        """See Snapshot."""
        scan = Scan(EVERYTHING, Order.NEWEST_FIRST, limit=1, budget_ms=LOOK_UP_MS)
        result = await self.scan(scan, allowed=ALL_SERVICES)
        if result.logs:
            return result.logs[0].timestamp, result.logs[0].id
        if not result.finished:
            raise DatabaseUnavailable("the newest log was not found in time; try again shortly")
        return None

    async def scan(self, scan: Scan, *, allowed: ServiceScope) -> ScanResult:
        """See Snapshot."""
        if allowed.is_empty or scan.limit < 1:
            return ScanResult([], True, None)
        low, high = interval(scan)
        tables = _Tables(
            self._runner, self._catalogue, self._rare_keys, self._closed_before_us, self._clock, self._second
        )
        tiered = TieredScan(
            scan,
            all_of(scan.predicate, within(allowed)),
            low,
            high,
            tables=tables,
            segments=self._segments,
            access=self._access,
            hiding=self._hiding,
            bytes_max=self._page_bytes_max,
            clock=self._clock,
        )
        try:
            with step("scan") as span:
                result = await tiered.run()
                if span is not None:
                    span.note(logs=len(result.logs), is_finished=result.finished)
                return result
        finally:
            for page in tables.pages:
                self.wanted_keys |= page.wanted_keys

    async def count(self, count: Count, *, allowed: ServiceScope) -> CountResult:
        """See Snapshot."""
        if allowed.is_empty:
            return CountResult({}, None)
        counting = TieredCount(
            count,
            all_of(count.predicate, within(allowed)),
            runner=self._runner,
            catalogue=self._catalogue,
            closed_before_us=self._closed_before_us,
            segments=self._segments,
            access=self._access,
            hiding=self._hiding,
            clock=self._clock,
        )
        with step("count"):
            return await counting.run()

    async def by_id(self, log_id: int, *, allowed: ServiceScope) -> Log | None:
        """See Snapshot. Tables first, the newest places first; each is asked through its BRIN of ids."""
        if allowed.is_empty:
            return None
        with step("look up an id"):
            found = await self._by_id_in_tables(log_id, allowed) or await log_with_id(
                log_id, self._segments, self._access, allowed=allowed, budget_ms=LOOK_UP_MS, clock=self._clock
            )
        if found is not None and self._hiding is not None and not self._hiding.shows(found):
            return None
        return found

    async def _by_id_in_tables(self, log_id: int, allowed: ServiceScope) -> Log | None:
        scope = compile_postgres(within(allowed))
        places = self._catalogue.places_of(log_id, self._closed_before_us)
        for first in range(0, len(places), CHUNKS_MAX):
            query = page_sql.by_id(places[first : first + CHUNKS_MAX], log_id, scope)
            for row in await self._runner.rows(*query, plans=_LOOK_UP):
                return page_sql.log_of(row)
        return None


class _Tables:
    """Implements `store.tiers.tiered_scan.Tables`."""

    def __init__(
        self,
        runner: StatementRunner,
        catalogue: Catalogue,
        rare_keys: RareKeys,
        closed_before_us: int,
        clock: Clock,
        second: SecondConnection,
    ) -> None:
        self._runner = runner
        self._catalogue = catalogue
        self._rare_keys = rare_keys
        self._closed_before_us = closed_before_us
        self._clock = clock
        self._second = second
        self.pages: list[PageScan] = []
        """All that were begun."""

    @property
    def segmented(self) -> Sequence[str]:
        """See Tables."""
        return self._catalogue.segmented

    def ground(self, *, without_segmented: bool) -> Ground:
        """See Tables."""
        return self._catalogue.ground(self._closed_before_us, without_segmented=without_segmented)

    def page(self, walk: Walk, predicate: Predicate, scan: Scan, *, bytes_max: int, has_got_on: bool) -> PageScan:
        """See Tables."""
        self.pages.append(
            PageScan(
                self._runner,
                walk,
                predicate,
                scan,
                catalogue=self._catalogue,
                rare_keys=self._rare_keys,
                bytes_max=bytes_max,
                clock=self._clock,
                second=self._second,
                has_got_on=has_got_on,
            )
        )
        return self.pages[-1]


def interval(scan: Scan) -> tuple[Position, Position]:
    """The scan's range as [low, high)."""
    low, high = LEAST, BEYOND
    implied = time_bounds(scan.predicate)
    for start_us in (scan.start_us, implied.start_us):
        low = low if start_us is None else max(low, (start_us, 0))
    for end_us in (scan.end_us, implied.end_us):
        high = high if end_us is None else min(high, (end_us, 0))
    if scan.last is not None:
        high = min(high, successor(scan.last))
    if scan.after is not None:
        if scan.order is Order.NEWEST_FIRST:
            high = min(high, scan.after)
        else:
            low = max(low, successor(scan.after))
    return low, high
