"""Counts rows across tiers, by buckets of time and levels, the newest first, as far as its budget allows.

In each window of time (store/count_windows.py) every home of rows is asked for numbers: files by a reader process, which reads
three columns of them, then tables by one statement. A row that has two homes is counted in one of them: a finished table whose
rows lie in files as well is not asked where the files can be, and tables are asked by their own names, since `logs` shows what
waits to be dropped too (but for chunks so new that they have no name here yet). So what is left to PostgreSQL is what is not
finished: some hours. Of these there are sums by the minute (store/open_sums.py) for what asks for services and levels alone;
what arrived since is counted, by its arrival.

A file that lies in one bucket, and of which each level matches as a whole, is counted from the catalogue without being read.
Rows past their age are left out as pages leave them out. One task, no locks; memory: the numbers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final

from runtime.clock import Clock
from schemas.errors import LogfeedError, Overloaded
from schemas.record import Log
from search.bounds import time_bounds
from search.match import compile_match
from search.predicate import (
    And,
    Everything,
    LevelIn,
    MinLevel,
    Not,
    Nothing,
    Or,
    Predicate,
    ServiceIn,
    all_of,
    children_of,
)
from search.sql import Sql, joined
from search.sql_postgres import compile_postgres
from store.catalogue import LOGS, Catalogue, Table
from store.count_sql import CountArm, counted, summed
from store.count_windows import CountWalk
from store.objects.cache import ObjectTooLarge
from store.objects.port import ObjectStoreRefused
from store.open_sums import MINUTE_US, SUMS, Sum, sums_that_count
from store.port import Count, CountResult, SnapshotLost
from store.scan_ways import Traits
from store.segments.filters import Skipped
from store.segments.format import SegmentDamaged, SegmentReaderUnavailable
from store.segments.reading import SegmentScanFailed
from store.statements import BY_BITMAP, WINDOW_MS_MAX, Settings, StatementRunner
from store.tiers.access import SegmentAccess, SegmentsUnreachable
from store.tiers.finding import Segments, Wanted
from store.tiers.hiding import Hiding
from store.tiers.segments import Segment, Tier
from store.tiers.stretches import Stretch

_ARMS_MAX: Final = 32
"""Tables that one statement asks."""
_COLD_MAX: Final = 4
"""Files of one window that may have to be fetched, where a narrower one has fewer."""
_SERVICES_MAX: Final = 200
"""Of a file that is counted from the catalogue: each is judged."""
_LEAST_MS: Final = 50
_LAST_TRY_MS: Final = 1_000
"""So much longer a count may take that has counted nothing yet."""
_STOP_MS: Final = 20
"""With so little left no further window begins, once one was counted."""
_IN_PART: Final[Settings] = {"enable_bitmapscan": "on"}
_AS_A_WHOLE: Final[Settings] = {**_IN_PART, "enable_seqscan": "on", "max_parallel_workers_per_gather": "1"}
"""Where most of a table is counted, reading it as it lies takes half of the time; on two cores, a quarter."""

_ENDS_A_COUNT: Final = (Overloaded, SegmentDamaged, SegmentScanFailed, ObjectTooLarge, ObjectStoreRefused)
"""What keeps a count from going on into a file."""


class TieredCount:
    """One count of a snapshot."""

    def __init__(
        self,
        count: Count,
        predicate: Predicate,
        *,
        runner: StatementRunner,
        catalogue: Catalogue,
        closed_before_us: int,
        segments: Segments,
        access: SegmentAccess | None,
        hiding: Hiding | None,
        clock: Clock,
    ) -> None:
        """predicate: the count's, and what may be read. access: None where files cannot be read."""
        self._count = count
        self._predicate = predicate
        self._runner = runner
        self._catalogue = catalogue
        self._closed_before_us = closed_before_us
        self._known = segments
        self._access = access
        self._hiding = hiding
        self._clock = clock
        self._traits = Traits.of(predicate)
        self._by_level = _LevelsOf(predicate) if _is_of_labels(predicate) else None
        self._rows: Counter[tuple[int, int]] = Counter()
        self._tables: Sequence[Table] = ()
        self._segments: Sequence[Segment] = ()
        self._instead: frozenset[str] = frozenset()
        """Segments that are asked instead of tables."""
        self._skipped: Skipped = {}
        self._open_from_us = catalogue.open_from_us(closed_before_us)
        self._sums: list[Sum] = []
        """Of what is in open chunks, from open_from_us on."""
        self._ends_s = 0.0

    async def run(self) -> CountResult:
        """Raises SnapshotLost unless the count is asked again; when nothing could be counted: Overloaded errors,
        SegmentDamaged, SegmentScanFailed, ObjectTooLarge, ObjectStoreRefused."""
        self._ends_s = self._clock.monotonic_s() + self._count.budget_ms / 1000
        self._sums = await self._known_sums()
        walk = self._walk()
        await self._choose(walk, without_segmented=self._access is not None and self._access.problem() is None)
        trouble: LogfeedError | None = None
        got_on = False
        while (window := self._next(walk)) is not None:
            if self._left_ms() <= (_STOP_MS if got_on else -_LAST_TRY_MS):
                break
            began_s = self._clock.monotonic_s()
            low_us, high_us = window
            predicate = self._aged(low_us)
            try:
                found = await self._of_files(low_us, high_us, predicate)
            except SegmentReaderUnavailable as error:
                trouble, found = error, None
            except _ENDS_A_COUNT as error:
                is_lost = isinstance(error, SnapshotLost)
                if is_lost and not self._count.is_again:
                    raise
                if (is_lost or isinstance(error, SegmentDamaged)) and self._instead:
                    # Tables have the rows of these files as well.
                    await self._choose(walk, without_segmented=False)
                    continue
                if not self._rows:  # nothing to show: who asks is told why
                    raise
                break
            if found is not None:
                rows, low_us = found
                of_tables = await self._of_tables(low_us, high_us, predicate)
                if of_tables is not None:
                    self._rows.update(rows)
                    self._rows.update(of_tables)
                    walk.done_to(low_us, took_ms=(self._clock.monotonic_s() - began_s) * 1000)
                    got_on = True
                    continue
            if not walk.was_too_much():
                break
        if not got_on and trouble is not None:
            raise trouble
        return CountResult(dict(self._rows), None if walk.next() is None else walk.high_us)

    def _walk(self) -> CountWalk:
        count, implied = self._count, time_bounds(self._predicate)
        low_us, high_us = count.start_us, count.end_us
        low_us = low_us if implied.start_us is None else max(low_us, implied.start_us)
        high_us = high_us if implied.end_us is None else min(high_us, implied.end_us)
        borders_us = []
        if self._hiding is not None:
            low_us = max(low_us, self._hiding.gone_before_us)
            borders_us = [self._hiding.cutoff_us]
        if self._sums:
            edges_us = (high_us - high_us % MINUTE_US, low_us + -low_us % MINUTE_US)
            borders_us += [self._open_from_us, *(us for us in edges_us if us > self._open_from_us)]
        return CountWalk(low_us, high_us, width_us=count.width_us, origin_us=count.origin_us, borders_us=borders_us)

    async def _known_sums(self) -> list[Sum]:
        """Those that say what is in open chunks; none where they cannot say what is asked for."""
        is_by_minute = self._count.width_us % MINUTE_US == 0 and self._count.origin_us % MINUTE_US == 0
        if self._by_level is None or not is_by_minute or self._count.end_us <= self._open_from_us:
            return []
        chunks = [table for table in self._catalogue.tables if not table.is_late and table.end_us > self._open_from_us]
        is_apart = all(not chunk.is_finished for chunk in chunks) and self._known.newest_us <= self._open_from_us
        if not is_apart or (self._hiding is not None and self._hiding.cutoff_us > self._open_from_us):
            return []  # a chunk that was finished before an older one: its rows may be asked of files as well
        return sums_that_count(await self._runner.rows(SUMS, ()), self._open_from_us)

    async def _choose(self, walk: CountWalk, *, without_segmented: bool) -> None:
        """Which homes are asked for what is left."""
        replaced = set(self._catalogue.segmented) if without_segmented else set()
        instead = self._known.instead_of(replaced)
        self._instead = frozenset(segment.name for segment in instead)
        low_us, high_us = walk.low_us, walk.high_us
        self._tables = [
            table
            for table in (*self._catalogue.tables, *self._not_noted())
            if table.name not in replaced and table.start_us < high_us and self._end_us(table) > low_us
        ]
        wanted = Wanted.of(self._predicate)
        found = [
            segment
            for segment in (*self._known.serving, *instead)
            if segment.end_us > low_us and segment.start_us < high_us and wanted.may_be_in(segment)
        ]
        if found and self._access is not None and (wanted.correlation is not None or wanted.texts):
            self._skipped = await self._access.candidates(found, wanted)
            found = [segment for segment in found if segment.name in self._skipped]
        self._segments = found
        if found:  # what only tables have is counted, whatever comes of the files
            walk.add_border(max(segment.end_us for segment in found))

    def _not_noted(self) -> Iterator[Table]:
        """Stretches of `logs` in the open part of time that belong to no chunk of the catalogue: one that was just made may be
        there. One that has just gone has its rows in files, which reach as far."""
        start_us = max(self._open_from_us, self._known.newest_us)
        for chunk in sorted(
            (table for table in self._catalogue.tables if not table.is_late), key=lambda table: table.start_us
        ):
            if start_us < chunk.start_us:
                yield Table(LOGS, False, False, start_us, chunk.start_us)
            start_us = max(start_us, chunk.end_us)
        yield Table(LOGS, False, False, start_us)

    def _next(self, walk: CountWalk) -> tuple[int, int] | None:
        """The next window; stretches without a home are passed over."""
        if walk.next() is None:
            return None
        ends = [self._end_us(table) for table in self._tables if table.start_us < walk.high_us]
        ends += [segment.end_us for segment in self._segments if segment.start_us < walk.high_us]
        walk.skip_to(max(ends, default=walk.low_us))
        return walk.next()

    def _aged(self, low_us: int) -> Predicate:
        """What is counted in a window that begins there: fast ways are kept where no row is past its age."""
        if self._hiding is None or low_us >= self._hiding.cutoff_us:
            return self._predicate
        return all_of(self._predicate, self._hiding.shown)

    async def _of_files(
        self, low_us: int, high_us: int, predicate: Predicate
    ) -> tuple[Counter[tuple[int, int]], int] | None:
        """Numbers of rows in files, and from when on they are complete. None: the window is too much."""
        rows: Counter[tuple[int, int]] = Counter()
        whole: list[tuple[Segment, dict[int, int]]] = []
        asked: list[Segment] = []
        for segment in self._segments:
            if not _has_rows(segment, low_us, high_us):
                continue
            figures = self._figures(segment, low_us, high_us, predicate)
            if figures is None:
                asked.append(segment)
            else:
                whole.append((segment, figures))
        if asked:
            counted_to_us = await self._asked(rows, asked, low_us, high_us, predicate)
            if counted_to_us is None:
                return None
            low_us = counted_to_us
        for segment, figures in whole:
            if segment.info.last_us < low_us:
                continue
            if segment.info.first_us < low_us:
                return None
            bucket_us = self._bucket_of(segment.info.first_us)
            rows.update({(bucket_us, level): number for level, number in figures.items()})
        return rows, low_us

    async def _asked(
        self,
        rows: Counter[tuple[int, int]],
        segments: Sequence[Segment],
        low_us: int,
        high_us: int,
        predicate: Predicate,
    ) -> int | None:
        """Add what a reader counts; from when on that is complete."""
        access = self._access
        if access is None:
            raise SegmentsUnreachable(
                "rows of this time lie in files, which this host cannot read: set tiers.directory to where they are"
            )
        cold = sum(segment.tier is Tier.COLD for segment in segments)
        groups = list(Stretch((low_us, 0), (high_us, 0), tuple(segments)).groups(access.cold_bytes_max))
        if (cold > _COLD_MAX or len(groups) > 1) and high_us - low_us > self._count.width_us:
            return None
        ends_ms = self._share_ms()
        began_s = self._clock.monotonic_s()
        for number, group in enumerate(groups):
            left_ms = ends_ms - (self._clock.monotonic_s() - began_s) * 1000
            if number and left_ms <= 0:
                return None
            found = await access.count(
                group,
                predicate,
                low_us=low_us,
                high_us=high_us,
                base_us=self._bucket_of(low_us),
                width_us=self._count.width_us,
                budget_ms=max(1, int(left_ms / (len(groups) - number))),
                skipped=self._skipped,
            )
            if found.looked_to is not None:
                if len(groups) > 1:
                    return None
                low_us = found.looked_to[0]
            rows.update(found.rows)
        return low_us

    async def _of_tables(self, low_us: int, high_us: int, predicate: Predicate) -> Counter[tuple[int, int]] | None:
        """Numbers of rows in tables. None: the window is too much."""
        rows: Counter[tuple[int, int]] = Counter()
        is_summed = bool(self._sums) and low_us >= self._open_from_us and low_us % MINUTE_US == high_us % MINUTE_US == 0
        if is_summed:
            query = summed(
                [each.number for each in self._sums],
                low_us=low_us,
                high_us=high_us,
                predicate=predicate,
                width_us=self._count.width_us,
                origin_us=self._count.origin_us,
            )
            found = await self._runner.rows_within(self._share_ms(), *query)
            if found is None:
                return None
            rows.update({(bucket_us, level): number for bucket_us, level, number in found})
        for plans, arms in self._arms(low_us, high_us, predicate, is_summed=is_summed):
            query = counted(arms, width_us=self._count.width_us, origin_us=self._count.origin_us)
            found = await self._runner.rows_within(self._share_ms(), *query, plans=plans)
            if found is None:
                return None
            for bucket_us, level, number in found:
                rows[bucket_us, level] += number
        return rows

    def _arms(
        self, low_us: int, high_us: int, predicate: Predicate, *, is_summed: bool
    ) -> Iterator[tuple[Settings, list[CountArm]]]:
        """Tables with rows in the window, by the way in which they are read. is_summed: of open chunks only what no sum has."""
        condition = compile_postgres(predicate)
        traits = self._traits
        by_plans: list[tuple[Settings, list[CountArm]]] = [(_AS_A_WHOLE, []), (_IN_PART, []), (BY_BITMAP, [])]
        whole, in_part, by_bitmap = (arms for _, arms in by_plans)
        for table in self._tables:
            start_us, end_us = max(low_us, table.start_us), min(high_us, self._end_us(table))
            if start_us >= end_us:
                continue
            arm = CountArm(table.name, start_us, end_us, condition)
            if is_summed and not table.is_late:
                by_bitmap.append(
                    arm._replace(condition=joined("AND", [_arrived_from(self._sums[-1].to_xid), condition]))
                )
            elif traits.correlation is not None:
                (in_part if table.is_finished else by_bitmap).append(arm)
            elif traits.terms is not None and table.is_finished and table.is_indexed:
                in_part.append(arm._replace(condition=joined("AND", [traits.terms, condition])))
            elif 2 * (end_us - start_us) >= self._extent_us(table):
                whole.append(arm)
            else:
                in_part.append(arm)
        for plans, arms in by_plans:
            for first in range(0, len(arms), _ARMS_MAX):
                yield plans, arms[first : first + _ARMS_MAX]

    def _figures(self, segment: Segment, low_us: int, high_us: int, predicate: Predicate) -> dict[int, int] | None:
        """Its rows that match, by level, from what the catalogue says of it. None: it has to be read."""
        info = segment.info
        if self._by_level is None or predicate is not self._predicate:
            return None
        if info.first_us < low_us or info.last_us >= high_us or len(info.services) > _SERVICES_MAX:
            return None
        if self._bucket_of(info.first_us) != self._bucket_of(info.last_us):
            return None
        return self._by_level.of(segment)

    def _bucket_of(self, us: int) -> int:
        return us - (us - self._count.origin_us) % self._count.width_us

    def _end_us(self, table: Table) -> int:
        """Late tables have rows older than the border only."""
        return min(table.end_us, self._closed_before_us) if table.is_late else table.end_us

    def _extent_us(self, table: Table) -> int:
        """Of the table's rows, about: chunks that are not over yet have none to come."""
        return max(1, min(self._end_us(table), self._clock.now_us()) - table.start_us)

    def _left_ms(self) -> float:
        return (self._ends_s - self._clock.monotonic_s()) * 1000

    def _share_ms(self) -> int:
        """How long the next step may take."""
        return int(max(_LEAST_MS, min(self._left_ms() * 2 / 3, WINDOW_MS_MAX)))


class _LevelsOf:
    """Which levels match as a whole, by what services a file has. For predicates about services and levels alone."""

    def __init__(self, predicate: Predicate) -> None:
        self._matches = compile_match(predicate)
        self._seen: dict[tuple[str, int], bool] = {}

    def of(self, segment: Segment) -> dict[int, int] | None:
        """Level -> rows that match; None where some services of a level do and others do not."""
        figures: dict[int, int] = {}
        for level, rows in segment.info.levels.items():
            answers = {self._judged(service, level) for service in segment.info.services}
            if len(answers) != 1:
                return None
            if answers.pop():
                figures[level] = rows
        return figures

    def _judged(self, service: str, level: int) -> bool:
        known = self._seen.get((service, level))
        if known is None:
            log = Log(0, 0, level, service, "", None, {})
            known = self._seen[service, level] = self._matches(log)
        return known


def _arrived_from(xid: int) -> Sql:
    """Of rows that this transaction or a later one has brought, or none that is known."""
    return Sql("(arrived >= %s OR arrived IS NULL)", (xid,))


def _is_of_labels(predicate: Predicate) -> bool:
    """Whether services and levels are all it asks for."""
    if isinstance(predicate, (And, Or, Not)):
        return all(map(_is_of_labels, children_of(predicate)))
    return isinstance(predicate, (Everything, Nothing, ServiceIn, LevelIn, MinLevel))


def _has_rows(segment: Segment, low_us: int, high_us: int) -> bool:
    """Whether a row group of it may have rows with low_us <= timestamp < high_us."""
    if segment.end_us <= low_us or segment.start_us >= high_us:
        return False
    groups = segment.info.row_groups
    return not groups or any(group.first_us < high_us and group.last_us >= low_us for group in groups)
