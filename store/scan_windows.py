"""Where a scan looks next: which stretch of (timestamp, id), which tables, how wide. Decided without a database.

A scan's range is a half-open interval of positions [low, high). A `Walk` consumes it window by window from one end; it
jumps over stretches in which no table can hold rows, so that data a year apart costs two windows. A `Pace` says how wide a
window may be: it grows while windows are quick and shrinks when one was too much, at last to a counted number of rows,
which always fits. Every position is in exactly one window, so each row is met once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from schemas.ids import ID_MAX
from store.port import Position

LEAST_US: Final = -62_135_596_800_000_000
"""0001-01-01T00:00:00Z, the first time there is for us."""
GREATEST_US: Final = 253_402_300_799_999_999
"""The last microsecond of the year 9999."""
LEAST: Final[Position] = (LEAST_US, 0)
BEYOND: Final[Position] = (GREATEST_US, ID_MAX)

_GAP_US: Final = 24 * 3_600 * 1_000_000
"""A window does not reach over a longer stretch without rows: chunks there may be many, and planning looks at each."""
_WIDTH_FACTOR: Final = 4
_SHRINK_FACTOR: Final = 16
_ROWS_FIRST: Final = 20_000
_ROWS_MOST: Final = 320_000
_ROWS_SHRINK: Final = 20


def successor(position: Position) -> Position:
    """The least position after this one."""
    timestamp_us, log_id = position
    return (timestamp_us, log_id + 1) if log_id < ID_MAX else (timestamp_us + 1, 0)


def predecessor(position: Position) -> Position:
    """The greatest position before this one."""
    timestamp_us, log_id = position
    return (timestamp_us, log_id - 1) if log_id > 0 else (timestamp_us - 1, ID_MAX)


@dataclass(frozen=True, slots=True)
class Span:
    """A table may hold rows with start_us <= timestamp < end_us."""

    table: str
    start_us: int
    end_us: int


@dataclass(frozen=True, slots=True)
class Window:
    """Look at positions low <= position < high in these tables."""

    low: Position
    high: Position
    tables: tuple[str, ...]


class Walk:
    """The windows of one scan, in its direction."""

    def __init__(
        self,
        spans: Sequence[Span],
        *,
        newest_first: bool,
        low: Position,
        high: Position,
        barrier_us: int,
        tables_max: int,
    ) -> None:
        """low inclusive, high exclusive; no window crosses barrier_us; tables_max bounds what one statement has to plan."""
        self._spans = spans
        self._newest_first = newest_first
        self._low = low
        self._high = high
        self._barrier = (barrier_us, 0)
        self._tables_max = tables_max

    @property
    def scanned_to(self) -> Position:
        """Exclusive: everything before this, in the scan's direction, was looked at, and it too unless newest first."""
        return self._high if self._newest_first else predecessor(self._low)

    def next(self, width_us: int) -> Window | None:
        """The next window, at most so wide; None when nothing is left where a row could be."""
        low, high = self._low, self._high
        spans = [span for span in self._spans if (span.start_us, 0) < high and (span.end_us, 0) > low]
        if low >= high or not spans:
            return None
        if self._newest_first:
            high = min(high, max((span.end_us, 0) for span in spans))
            low = max(low, (high[0] - width_us, 0), (_run_start(spans, high[0]), 0))
            if low < self._barrier < high:
                low = self._barrier
            starts = sorted(((span.start_us, 0) for span in spans if (span.end_us, 0) > low), reverse=True)
            if len(starts) > self._tables_max:
                low = max(low, starts[self._tables_max - 1])
        else:
            low = max(low, min((span.start_us, 0) for span in spans))
            high = min(high, (low[0] + width_us, 0), (_run_end(spans, low[0]), 0))
            if low < self._barrier < high:
                high = self._barrier
            ends = sorted((span.end_us, 0) for span in spans if (span.start_us, 0) < high)
            if len(ends) > self._tables_max:
                high = min(high, ends[self._tables_max - 1])
        tables = {span.table for span in spans if (span.start_us, 0) < high and (span.end_us, 0) > low}
        return Window(low, high, tuple(sorted(tables)))

    def narrow(self, window: Window, last: Position) -> Window:
        """The part of the window up to and with this position, in the scan's direction."""
        if self._newest_first:
            return Window(max(window.low, last), window.high, window.tables)
        return Window(window.low, min(window.high, successor(last)), window.tables)

    def done(self, window: Window) -> None:
        """The window was looked at completely: go on beyond it."""
        if self._newest_first:
            self._high = window.low
        else:
            self._low = window.high


def _run_start(spans: Sequence[Span], end_us: int) -> int:
    """Where the stretch of rows that ends at end_us begins."""
    start_us = end_us
    for span in sorted(spans, key=lambda span: -span.end_us):
        if span.end_us < start_us - _GAP_US:
            break
        start_us = min(start_us, span.start_us)
    return start_us


def _run_end(spans: Sequence[Span], start_us: int) -> int:
    """Where the stretch of rows that begins at start_us ends."""
    end_us = start_us
    for span in sorted(spans, key=lambda span: span.start_us):
        if span.start_us > end_us + _GAP_US:
            break
        end_us = max(end_us, span.end_us)
    return end_us


class Pace:
    """How much one window may hold. Starts with a width of time; counts rows when even a narrow one was too much."""

    def __init__(self, width_us: int) -> None:
        """width_us: of the first window."""
        self.width_us = width_us
        self.rows: int | None = None
        self._refused = 0

    def was_quick(self) -> None:
        """The window took a small part of its time."""
        self._refused = 0
        if self.rows is None:
            self.width_us = min(self.width_us * _WIDTH_FACTOR, GREATEST_US - LEAST_US)
        else:
            self.rows = min(self.rows * _WIDTH_FACTOR, _ROWS_MOST)

    def was_enough(self) -> None:
        """The window fitted, a larger one might not."""
        self._refused = 0

    def was_too_much(self) -> None:
        """The window did not end in its time."""
        self._refused += 1
        if self.rows is not None:
            self.rows = max(1, self.rows // _ROWS_SHRINK)
        elif self._refused == 1:
            self.width_us = max(1, self.width_us // _SHRINK_FACTOR)
        else:
            self.rows = _ROWS_FIRST
