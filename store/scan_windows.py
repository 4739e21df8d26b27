"""Where a scan looks next: which stretch of (timestamp, id), which tables, how much of it. Decided without a database.

A scan's range is a half-open interval of positions [low, high). A `Walk` consumes it window by window from one end; each
window names, as arms, the tables that can hold rows in it, and jumps over stretches that no table covers. No window lies
across the place where finished chunks end: they have other indexes. Every position is in exactly one window, so each row is
met once.

A `Pace` says how much one window may hold: first a counted number of rows, whose speed then gives a width of time; less
where one was too much, at last one row, which always fits. Hence pages neither wait long for a window that finds
nothing nor waste what was cancelled.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from schemas.ids import ID_MAX
from store.port import Position

LEAST_US: Final = -62_135_596_800_000_000
"""0001-01-01T00:00:00Z, the first time there is for us."""
GREATEST_US: Final = 253_402_300_799_999_999
"""The last microsecond of the year 9999."""
LEAST: Final[Position] = (LEAST_US, 0)
BEYOND: Final[Position] = (GREATEST_US, ID_MAX)

CHUNKS_MAX: Final = 64
"""Chunks that one statement asks: 6 ms of planning natively, three times that on a hypertable."""
_GAP_US: Final = 24 * 3_600 * 1_000_000
"""A window reaches over no longer stretch without rows: empty chunks there may be many, and planning looks at each."""
_CHUNKS_FIRST: Final = 2
_FACTOR: Final = 4
_WIDTH_FACTOR: Final = 8
_ROWS_SHRINK: Final = 20
_QUICK_MS: Final = 20.0
_LEAST_MS: Final = 0.5


def successor(position: Position) -> Position:
    """The least position after this one."""
    timestamp_us, log_id = position
    return (timestamp_us, log_id + 1) if log_id < ID_MAX else (timestamp_us + 1, 0)


def predecessor(position: Position) -> Position:
    """The greatest position before this one."""
    timestamp_us, log_id = position
    return (timestamp_us, log_id - 1) if log_id > 0 else (timestamp_us - 1, ID_MAX)


class Stretch(Protocol):
    """A table that may hold rows with start_us <= timestamp < end_us."""

    @property
    def name(self) -> str: ...
    @property
    def start_us(self) -> int: ...
    @property
    def end_us(self) -> int: ...
    @property
    def rows(self) -> int | None:
        """None: unknown, it still grows."""

    @property
    def is_indexed(self) -> bool:
        """It has the bulk index on metadata."""


@dataclass(frozen=True, slots=True)
class Arm:
    """Look at positions low <= position < high of this table."""

    table: str
    low: Position
    high: Position


@dataclass(frozen=True, slots=True)
class Window:
    """Positions low <= position < high; all rows there are in the arms."""

    low: Position
    high: Position
    arms: tuple[Arm, ...]
    is_open: bool
    """Its chunks have the indexes of open chunks only."""
    is_indexed: bool
    """Its finished tables have indexes on metadata. Of chunks that are not finished this says nothing; other tables that
    still grow count as small."""
    rows: int | None
    """That its chunks hold, about; None: unknown."""


@dataclass(frozen=True, slots=True)
class Ground:
    """What there is to walk over."""

    table: str
    """All chunks, as one table."""
    chunks: Sequence[Stretch]
    """Finished ones, oldest first. They do not overlap."""
    starts_us: Sequence[int]
    """Of the chunks, as ends_us."""
    ends_us: Sequence[int]
    late: Sequence[Stretch]
    """Tables beside the chunks, with rows older than late_end_us."""
    open_from_us: int
    """Finished chunks end before; from here on everything is asked as `table`."""
    late_end_us: int

    def has_chunks(self, start_us: int, end_us: int) -> bool:
        """Whether a chunk may hold rows with start_us <= timestamp < end_us."""
        if end_us > self.open_from_us:
            return True
        return bisect_right(self.ends_us, start_us) < bisect_left(self.starts_us, end_us)


class Walk:
    """The windows of one scan, in its direction."""

    def __init__(self, ground: Ground, *, newest_first: bool, low: Position, high: Position) -> None:
        """low inclusive, high exclusive."""
        self._ground = ground
        self._newest_first = newest_first
        self._low = low
        self._high = high
        self._open_from: Position = (ground.open_from_us, 0)

    @property
    def open_from_us(self) -> int:
        """Where the open part begins."""
        return self._ground.open_from_us

    @property
    def scanned_to(self) -> Position:
        """Exclusive: everything before this, in the scan's direction, was looked at, and it too unless newest first."""
        return self._high if self._newest_first else predecessor(self._low)

    def next(
        self, *, width_us: int | None = None, chunks: int = CHUNKS_MAX, rows: float | None = None
    ) -> Window | None:
        """The next window, at most so wide where there are chunks, over at most so many, and over no more than hold so many
        rows; None when nothing is left where a row could be."""
        while self._low < self._high:
            if rows is not None:
                chunks = self._chunks_with(rows, chunks)
            window = self._newest(width_us, chunks) if self._newest_first else self._oldest(width_us, chunks)
            if window.arms:
                return window
            self.done(window)
        return None

    def narrow(self, window: Window, last: Position) -> Window:
        """The part of the window up to and with this position, in the scan's direction."""
        if self._newest_first:
            return self._window(max(window.low, last), window.high)
        return self._window(window.low, min(window.high, successor(last)))

    def done(self, window: Window) -> None:
        """The window was looked at completely: go on beyond it."""
        if self._newest_first:
            self._high = window.low
        else:
            self._low = window.high

    def _newest(self, width_us: int | None, chunks: int) -> Window:
        low, high = self._low, self._high
        starts, ends = self._ground.starts_us, self._ground.ends_us
        if high > self._open_from:
            low = max(low, self._open_from)
            if width_us is not None:
                low = max(low, (high[0] - width_us, 0))
            return self._window(low, high)
        least, end = self._chunks_in(low, high)
        if least < end:
            first = end - 1
            while first > least and end - first < chunks and starts[first] - ends[first - 1] <= _GAP_US:
                first -= 1
            if first > least:
                low = max(low, (starts[first], 0))
            if width_us is not None:
                low = max(low, (min(high[0], ends[end - 1]) - width_us, 0))
        return self._window(low, high)

    def _oldest(self, width_us: int | None, chunks: int) -> Window:
        low, high = self._low, self._high
        starts, ends = self._ground.starts_us, self._ground.ends_us
        if low >= self._open_from:
            if width_us is not None:
                high = min(high, (low[0] + width_us, 0))
            return self._window(low, high)
        high = min(high, self._open_from)
        first, most = self._chunks_in(low, high)
        if first < most:
            end = first + 1
            while end < most and end - first < chunks and starts[end] - ends[end - 1] <= _GAP_US:
                end += 1
            if end < most:
                high = min(high, (ends[end - 1], 0))
            if width_us is not None:
                high = min(high, (max(low[0], starts[first]) + width_us, 0))
        return self._window(low, high)

    def _chunks_with(self, rows: float, chunks: int) -> int:
        """How many of the next finished chunks hold so many rows; at most `chunks`, at least 1."""
        first, end = self._chunks_in(self._low, min(self._high, self._open_from))
        ahead = range(end - 1, first - 1, -1) if self._newest_first else range(first, end)
        count = 1
        for index in ahead[: chunks - 1]:
            rows -= self._ground.chunks[index].rows or 0
            if rows <= 0:
                break
            count += 1
        return count

    def _chunks_in(self, low: Position, high: Position) -> tuple[int, int]:
        """Finished chunks [first, end) that can hold a position in [low, high)."""
        return bisect_right(self._ground.ends_us, low[0]), bisect_left(self._ground.starts_us, high[0] + (high[1] > 0))

    def _window(self, low: Position, high: Position) -> Window:
        """The window with its arms. Chunks are asked within their own bounds: around them may lie what has expired."""
        ground, arms = self._ground, []
        is_open = low >= self._open_from
        is_indexed, rows = True, None
        if is_open:
            arms.append(Arm(ground.table, low, high))
        else:
            first, end = self._chunks_in(low, high)
            asked = ground.chunks[first:end]
            if asked:
                least, most = (ground.starts_us[first], 0), (ground.ends_us[end - 1], 0)
                arms.append(Arm(ground.table, max(low, least), min(high, most)))
            is_indexed = all(chunk.is_indexed for chunk in asked)
            rows = sum(chunk.rows or 0 for chunk in asked)
        for table in ground.late:
            least, most = max(low, (table.start_us, 0)), min(high, (min(table.end_us, ground.late_end_us), 0))
            if least < most:
                arms.append(Arm(table.name, least, most))
                is_indexed = is_indexed and (table.is_indexed or table.rows is None)
        return Window(low, high, tuple(arms), is_open, is_indexed, rows)


class Pace:
    """How much one window may hold."""

    def __init__(self, rows: int | None) -> None:
        """rows: of the first window; None: all that there is."""
        self.rows = rows
        self.width_us: int | None = None
        self.chunks = _CHUNKS_FIRST
        self._us_per_ms: float | None = None
        self._rows_per_us = 0.0
        self._refused = 0

    def aim(self, window_ms: float) -> None:
        """Make the next window take about so long, if its speed is known."""
        if self.width_us is not None and self._us_per_ms is not None:
            self.width_us = max(1, min(self.width_us * _WIDTH_FACTOR, int(self._us_per_ms * window_ms)))

    def took(self, took_ms: float, *, span_us: int | None = None) -> None:
        """A window ended in its time. span_us: of time, from end to end of what it looked at, where that is known."""
        self._refused = 0
        if took_ms < _QUICK_MS:
            self.chunks = min(self.chunks * _FACTOR, CHUNKS_MAX)
        if span_us is None:
            return
        self._us_per_ms = max(1, span_us) / max(took_ms, _LEAST_MS)
        if self.rows is not None and span_us > 0:
            self._rows_per_us = self.rows / span_us
            self.rows, self.width_us = None, span_us
        elif self.rows is not None:  # so many rows at one moment: a width of time would look at none of them
            self.rows *= _FACTOR

    def rows_in(self, span_us: int) -> int:
        """How many rows lie in so much time, as far as was counted."""
        return int(self._rows_per_us * span_us)

    def width_of(self, rows: float) -> int | None:
        """In how much time so many rows lie; None where nothing was counted."""
        return max(1, int(min(rows / self._rows_per_us, GREATEST_US))) if self._rows_per_us else None

    def was_too_much(self, rows: int) -> None:
        """The window did not end in its time. rows: to begin counting with."""
        self._refused += 1
        if self.rows is not None:
            self.rows = max(1, self.rows // _ROWS_SHRINK)
        elif self.width_us is not None and self._refused == 1:
            self.width_us = max(1, self.width_us // _WIDTH_FACTOR)
        else:
            self.rows, self.width_us = rows, None
