"""Fills one page: window after window until limit, bytes, budget or range are used up; then on to the first row beyond them.

The first window of each part of time is a counted number of rows. Most pages end in it. Where it held too little, what it
took says how wide the next windows may be (store/scan_windows.py, Pace), and how many of its rows matched says whether an
index on metadata is the shorter way (store/scan_ways.py); for keys whose values have been rare so far no look is taken first
(store/rare_keys.py). A search that reads texts for long reads two windows at once, where there is a second connection
(store/second_connection.py); they are looked at in their order all the same. One task and one beside it, no locks; time is the
caller's clock.
"""

from __future__ import annotations

import asyncio
import copy
import sys
from typing import Any, Final, NamedTuple

from db.database import Error
from runtime.clock import Clock
from schemas.errors import DatabaseUnavailable
from schemas.record import Log
from search.predicate import Predicate
from search.sql import Sql, joined
from search.sql_postgres import compile_postgres, indexable_metadata, metadata_keys
from store import page_sql
from store.catalogue import CORRELATION_HASH, Catalogue
from store.port import OpenIndex, Order, Position, Scan, ScanResult
from store.rare_keys import RareKeys
from store.scan_ways import INDEX_EXCESS, Density, Traits, prefers_index
from store.scan_windows import CHUNKS_MAX, Pace, Walk, Window
from store.second_connection import SecondConnection
from store.statements import BY_BITMAP, BY_PARTS, IN_ORDER, WINDOW_MS_MAX, StatementRunner

LOOK_ROWS: Final = 10_000
"""Of a first window: some milliseconds, and enough for a page of what is in one row of a hundred."""
_INDEX_LOOK_ROWS: Final = 2_000
"""Of a first window where an index may be the shorter way."""
_INDEX_FACTOR: Final = 8
"""By so much wider is each next window that an index is asked over: what it cost depends on its matches, which were few."""
_COUNTED_ROWS: Final = 2_000
"""Of a window after two that were too much."""
_CORRELATION_ROWS_BESIDE: Final = 200_000
"""With more rows in no part, BRIN over the whole of the open chunks finds a correlation id sooner."""
_WINDOW_MS: Final = 250
_STATEMENT_MS: Final = (50, WINDOW_MS_MAX)
"""Least and most that one window may take."""
_GUESS_MS: Final = 60
"""For an index that is asked without a look first: a value that is not rare after all has too many rows to read."""
_LAST_TRY_MS: Final = 1_000
_STOP_MS: Final = 20
"""With so little left no further window begins, once the page has got on."""
_AHEAD_MS: Final = 200
"""With less left no window is read ahead: a second connection has to be worth opening."""

Row = tuple[Any, ...]  # as the database answers


class _Answer(NamedTuple):
    """What there was in a window."""

    rows: list[Row] | None
    """None: it took too long."""
    took_ms: float


class _Ahead(NamedTuple):
    """A window that is read while the one before it is."""

    window: Window
    reading: asyncio.Task[_Answer]


class PageScan:
    """One scan of a snapshot."""

    def __init__(
        self,
        runner: StatementRunner,
        walk: Walk,
        predicate: Predicate,
        scan: Scan,
        *,
        catalogue: Catalogue,
        rare_keys: RareKeys,
        bytes_max: int,
        clock: Clock,
        second: SecondConnection | None = None,
        has_got_on: bool = False,
    ) -> None:
        """predicate: the scan's, and what may be read. second: closed by the caller. has_got_on: it need not look at anything
        where its budget is short."""
        self._runner = runner
        self._walk = walk
        self._catalogue = catalogue
        self._scan = scan
        self._clock = clock
        self._newest_first = scan.order is Order.NEWEST_FIRST
        self._condition = compile_postgres(predicate)
        self._traits = Traits.of(predicate)
        self._keys = metadata_keys(predicate)
        if self._traits.correlation is not None:
            self._open_terms: Sql | None = _hashed(self._traits.correlation)
            self._parts = catalogue.parts_by(OpenIndex.CORRELATION)
        else:
            keys = self._keys & set(catalogue.known_keys)
            self._open_terms = indexable_metadata(predicate, keys=keys)
            self._parts = None if self._open_terms is None else catalogue.parts_by(OpenIndex.METADATA, keys)
        self.wanted_keys: set[str] = set()
        """Of metadata: an index of open chunks by these would have been the shorter way, or was."""
        self._rows_beside: int | None = None
        self._rare_keys = rare_keys
        self._is_guess = self._traits.terms is not None and rare_keys.expects(self._keys)
        self._density = Density(_INDEX_LOOK_ROWS) if self._is_guess else Density()
        self._index_failed = False
        self._index_factor = 1
        self._logs: list[Log] = []
        self._bytes_max = self._bytes_left = bytes_max
        self._is_full = False
        self._got_on = has_got_on
        self._second = second if self._traits.is_slow else None
        self._ahead: _Ahead | None = None

    async def run(self) -> ScanResult:
        """Raises DatabaseUnavailable when the budget ended before anything was looked at."""
        try:
            return await self._run()
        finally:
            await self._drop_ahead()

    async def _run(self) -> ScanResult:
        ends_s = self._clock.monotonic_s() + self._scan.budget_ms / 1000
        was_open: bool | None = None
        pace = Pace(None)
        while True:
            window, by_index = await self._next(pace)
            if window is None:
                return ScanResult(self._logs, True, None)
            if window.is_open is not was_open:
                was_open, pace = window.is_open, self._first_pace(window)
                continue
            left_ms = (ends_s - self._clock.monotonic_s()) * 1000
            if self._ahead is None and self._is_over(left_ms):
                return ScanResult(self._logs, False, self._walk.scanned_to)
            is_guess = by_index and self._is_guess
            share_ms = _GUESS_MS if is_guess else _share_ms(left_ms, is_last_try=pace.rows == 1)
            answer = await self._ask(window, pace, share_ms, by_index=by_index, left_ms=left_ms)
            if answer is None:
                continue
            rows, took_ms = answer
            if rows is None and is_guess:
                self._guessed_wrong()
                continue
            if rows is None and by_index:
                self._index_failed = True
                continue
            if rows is None:
                pace.was_too_much(_COUNTED_ROWS)
                continue
            if self._begins_anew(window, pace, rows):
                continue
            self._got_on = True
            is_cut = bool(rows) and (self._is_full or len(rows) < rows[0][page_sql.TOTAL])
            if not self._is_full:
                self._logs += map(page_sql.log_of, rows)
                self._bytes_left -= sum(row[page_sql.BYTES] for row in rows)
            if len(self._logs) > self._scan.limit or is_cut:
                del self._logs[self._scan.limit :]
                return ScanResult(self._logs, False, (self._logs[-1].timestamp, self._logs[-1].id))
            if not self._is_full and (len(self._logs) == self._scan.limit or self._bytes_left <= 0):
                self._is_full = True
                await self._drop_ahead()
                ends_s = min(ends_s, self._clock.monotonic_s() + self._scan.beyond_ms / 1000)
            if is_guess:
                self._rare_keys.saw(self._keys, is_rare=True)
            if by_index:
                self._is_guess = False
                self._density.saw(self._rows_in(window), len(rows))
                self._index_factor *= _INDEX_FACTOR
                self._walk.done(window)
            else:
                await self._walk_on(window, pace, rows, took_ms=took_ms, share_ms=share_ms)

    @property
    def bytes_taken(self) -> int:
        """Of the result's messages and metadata."""
        return self._bytes_max - self._bytes_left

    def _guessed_wrong(self) -> None:
        """Look first, as at a value of which nothing is known."""
        self._is_guess = False
        self._density = Density()
        self._rare_keys.was_wrong(self._keys)

    def _rows_in(self, window: Window) -> int:
        """How many rows an index was asked over, about."""
        if window.rows is not None:
            return window.rows
        return 0 if self._parts is None else self._parts.rows_in(window.low[0], window.high[0])

    def _begins_anew(self, window: Window, pace: Pace, rows: list[Row]) -> bool:
        """Whether a first look has told that an index is asked from the same place on: where the look ended need not be known
        then. Finished tables say themselves how many rows they have, and so do parts."""
        if pace.rows is None or self._traits.terms is None or self._density.rows:
            return False
        if window.is_open and self._covered(window) is None:
            return False
        if not window.is_indexed or self._index_failed or len(rows) >= self._wanted or self._logs:
            return False
        looked = Density(pace.rows, len(rows))
        is_rare = prefers_index(looked, wanted=self._wanted)
        self._rare_keys.saw(self._keys, is_rare=is_rare)
        if not is_rare:
            return False
        self._density = looked
        return True

    @property
    def _wanted(self) -> int:
        """Rows that the page lacks, and one more: it says whether anything lies beyond."""
        return 1 if self._is_full else self._scan.limit - len(self._logs) + 1

    async def _next(self, pace: Pace) -> tuple[Window | None, bool]:
        """The next window, and whether an index is asked for candidates in it."""
        if self._ahead is not None:
            return self._ahead.window, False
        window = self._walk.next(width_us=pace.width_us, chunks=pace.chunks)
        if window is None or self._index_failed:
            return window, False
        traits = self._traits
        if traits.correlation is not None:  # finished chunks have them in order
            if window.is_open and pace.rows is None and await self._beside() < _CORRELATION_ROWS_BESIDE:
                covered = self._covered(window)
                return covered or window, covered is not None
            return window, False
        if traits.terms is None or not self._density.rows or not prefers_index(self._density, wanted=self._wanted):
            return window, False
        rows = self._density.rows_with(INDEX_EXCESS * self._wanted) * self._index_factor
        if window.is_open:
            self.wanted_keys |= self._keys
            beside = await self._beside()
            if not prefers_index(self._density, wanted=self._wanted, rows_beside=beside):
                return window, False
        width_us: int | None = None
        if window.is_open and self._parts is not None:
            width_us = pace.width_of(rows) or self._parts.width_of(
                rows, low_us=window.low[0], high_us=window.high[0], newest_first=self._newest_first
            )
        larger = self._walk.next(rows=rows, width_us=width_us)
        if larger is not None and larger.is_open:
            larger = self._covered(larger)
        return (larger, True) if larger is not None and larger.is_indexed else (window, False)

    def _covered(self, window: Window) -> Window | None:
        """The next rows of an open window of which parts hold all that came before the newest was made; None: not even the
        next ones."""
        if self._parts is None:
            return None
        least: Position = (self._parts.from_us, 0)
        if window.low >= least:
            return window
        return self._walk.narrow(window, least) if self._newest_first and window.high > least else None

    async def _beside(self) -> int:
        """How many rows of open chunks are in no part, about; all are, where there is none."""
        if self._parts is None:
            return sys.maxsize
        if self._rows_beside is None:
            sizes = await self._runner.rows(*page_sql.open_bytes(self._catalogue.unfinished_chunks))
            self._rows_beside = self._parts.rows_beside(dict(sizes))
        return self._rows_beside

    def _first_pace(self, window: Window) -> Pace:
        """For the first window in a part of time."""
        traits = self._traits
        if traits.correlation is not None:
            pace = Pace(None)
            pace.chunks = CHUNKS_MAX
            return pace
        if traits.terms is not None:
            return Pace(_INDEX_LOOK_ROWS)
        if traits.is_everything or (traits.has_bulk_index and not window.is_open):
            return Pace(None)
        return Pace(LOOK_ROWS)

    def _is_over(self, left_ms: float) -> bool:
        """Raises DatabaseUnavailable when the time is over and nothing was looked at."""
        if self._got_on:
            return left_ms <= _STOP_MS
        if left_ms <= -_LAST_TRY_MS:
            raise DatabaseUnavailable("the search got nowhere in its time: the database is busy")
        return False

    async def _ask(
        self, window: Window, pace: Pace, share_ms: int, *, by_index: bool, left_ms: float
    ) -> _Answer | None:
        """None: what was read ahead cannot be had."""
        if self._ahead is not None:
            return await self._read_ahead(self._ahead)
        if not by_index and left_ms >= _AHEAD_MS:
            await self._begin_ahead(window, pace, share_ms)
        began_s = self._clock.monotonic_s()
        rows = await (self._indexed(window, share_ms) if by_index else self._walked(window, pace, share_ms))
        if rows is None:
            await self._drop_ahead()
        return _Answer(rows, (self._clock.monotonic_s() - began_s) * 1000)

    async def _walked(self, window: Window, pace: Pace, share_ms: int) -> list[Row] | None:
        """The window's rows, met in their order; None when it took too long."""
        query = self._query(window, self._condition, rows=pace.rows)
        # Beside parts, open chunks answer correlation ids from a BRIN alone.
        by_bitmap = self._traits.correlation is not None and window.is_open and pace.rows is None
        return await self._runner.rows_within(share_ms, *query, plans=BY_BITMAP if by_bitmap else IN_ORDER)

    async def _begin_ahead(self, window: Window, pace: Pace, share_ms: int) -> None:
        """Read the window after this one, of the same width, beside it."""
        if self._second is None or pace.rows is not None or pace.width_us is None or self._is_full:
            return
        walk = copy.copy(self._walk)
        walk.done(window)
        following = walk.next(width_us=pace.width_us, chunks=pace.chunks)
        if following is None or following.is_open is not window.is_open:
            return
        runner = await self._second.runner()
        if runner is not None:
            self._ahead = _Ahead(following, asyncio.create_task(self._reading(runner, following, share_ms)))

    async def _reading(self, runner: StatementRunner, window: Window, share_ms: int) -> _Answer:
        began_s = self._clock.monotonic_s()
        rows = await runner.rows_within(share_ms, *self._query(window, self._condition))
        return _Answer(rows, (self._clock.monotonic_s() - began_s) * 1000)

    async def _read_ahead(self, ahead: _Ahead) -> _Answer | None:
        """No more bytes than are left now. None: it failed, and the window is read as any other."""
        try:
            answer = await ahead.reading
        except (Error, DatabaseUnavailable, OSError):
            await self._drop_ahead()
            return None
        self._ahead = None
        bytes_left = self._bytes_left
        for index, row in enumerate(answer.rows or ()):
            if index and bytes_left <= 0:
                return _Answer((answer.rows or [])[:index], answer.took_ms)
            bytes_left -= row[page_sql.BYTES]
        return answer

    async def _drop_ahead(self) -> None:
        """What is read ahead is not wanted, or cannot be had. Its connection is in the middle of something then."""
        if self._ahead is None:
            return
        ahead, self._ahead = self._ahead, None
        ahead.reading.cancel()
        await asyncio.gather(ahead.reading, return_exceptions=True)
        if self._second is not None:
            second, self._second = self._second, None
            await second.give_up()

    async def _indexed(self, window: Window, share_ms: int) -> list[Row] | None:
        """The window's rows, found by an index on what is sought; None when it took too long."""
        if not window.is_open:
            terms = self._traits.terms
            assert terms is not None
            condition = joined("AND", [terms, self._condition])
            return await self._runner.rows_within(share_ms, *self._query(window, condition), plans=BY_BITMAP)
        assert self._parts is not None
        assert self._open_terms is not None
        query = page_sql.by_parts(
            window.arms,
            self._parts,
            self._catalogue.unfinished_chunk_of(*self._parts.extent(window.low[0], window.high[0])),
            self._open_terms,
            self._condition,
            open_from_us=self._walk.open_from_us,
            wanted=self._wanted,
            bytes_max=self._bytes_left,
            newest_first=self._newest_first,
        )
        return await self._runner.rows_within(share_ms, *query, plans=BY_PARTS)

    def _query(self, window: Window, condition: Sql, *, rows: int | None = None) -> page_sql.Query:
        return page_sql.ordered(
            window.arms,
            condition,
            wanted=self._wanted,
            bytes_max=self._bytes_left,
            newest_first=self._newest_first,
            rows=rows,
        )

    async def _walk_on(self, window: Window, pace: Pace, rows: list[Row], *, took_ms: float, share_ms: int) -> None:
        """Go on beyond what of the window was looked at; its length in time, where that is known, says how wide the next one
        may be."""
        span_us = None
        if pace.rows is None:
            self._walk.done(window)
            if pace.width_us is not None:
                span_us = window.high[0] - window.low[0]
                self._density.saw(pace.rows_in(span_us), len(rows))
        else:
            query = page_sql.edges(window.arms, pace.rows, newest_first=self._newest_first)
            ends = await self._runner.rows_within(share_ms, *query)
            if ends is None:  # how far it came is known from what was found alone
                if rows:
                    self._walk.done(self._walk.narrow(window, (page_sql.to_us(rows[-1][0]), rows[-1][1])))
                pace.was_too_much(_COUNTED_ROWS)
                return
            ((first, last, last_id),) = ends
            self._density.saw(pace.rows, len(rows))
            if last is None:
                self._walk.done(window)
            else:
                position: Position = (page_sql.to_us(last), last_id)
                self._walk.done(self._walk.narrow(window, position))
                span_us = abs(page_sql.to_us(first) - position[0])
        pace.took(took_ms, span_us=span_us)
        pace.aim(min(_WINDOW_MS, share_ms / 2))


def _hashed(correlation_id: str) -> Sql:
    """How a part is asked for a correlation id."""
    return Sql(f"(correlation = {CORRELATION_HASH.format('%s::text')})", (correlation_id,))


def _share_ms(left_ms: float, *, is_last_try: bool) -> int:
    """How long the next window may take."""
    least_ms, most_ms = _STATEMENT_MS
    return _LAST_TRY_MS if is_last_try else int(max(least_ms, min(left_ms / 2, most_ms)))
