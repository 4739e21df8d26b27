"""Divides a scan's interval into slices of time along the edges of row groups, and says how wide the next one may be.

Pure. Slices follow one another without a gap or an overlap, whatever files overlap, so each row lies in exactly one; edges of
row groups only make them cheap: a slice that begins where a row group begins touches it once.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final

from store.port import Position
from store.segments.scans import SegmentFile

ID_MAX: Final = 2**63 - 1
SLICE_MS: Final = 400
"""A slice that is cut off by the end of the budget was read for nothing: it should not be longer."""
_QUICK_MS: Final = 25
_FACTOR: Final = 2
_QUICK_FACTOR: Final = 8


@dataclass(frozen=True, slots=True)
class Slice:
    """low <= (timestamp_us, id) < high, and which files may hold such rows."""

    low: Position
    high: Position
    files: tuple[SegmentFile, ...]
    row_groups: int
    """That begin (newest first) or end (oldest first) in it."""


class Walk:
    """The slices of a scan, in its direction."""

    def __init__(self, files: Sequence[SegmentFile], low: Position, high: Position, *, newest_first: bool) -> None:
        """files: in any order."""
        self._files = [
            (file.row_groups[0].first_us, file.row_groups[-1].last_us, file) for file in files if file.row_groups
        ]
        self._newest_first = newest_first
        least = min((first for first, _, _ in self._files), default=0)
        most = max((last for _, last, _ in self._files), default=-1)
        self._low = max(low, (least, 0))
        self._high = min(high, (most + 1, 0))
        if newest_first:
            edges = {group.first_us for file in files for group in file.row_groups}
        else:
            edges = {group.last_us + 1 for file in files for group in file.row_groups}
        self._edges = sorted(edges)
        """Where row groups begin, or end; ascending."""
        self._asked = _asked(files) if any(file.skipped for file in files) else None
        """Stretches of time with row groups that are not skipped, [first_us, end_us), ascending; None: none is skipped."""
        self._looked_to: Position | None = None

    @property
    def looked_to(self) -> Position | None:
        """How far all slices up to now reach, inclusive; None: nothing is left."""
        return None if self._low >= self._high else self._looked_to

    def next(self, row_groups: int) -> Slice | None:
        """The next slice, of about so many row groups; None: nothing is left."""
        if self._low >= self._high:
            return None
        low, high, edges = *self._asked_next(), self._edges
        if low >= high:
            return None
        if self._newest_first:
            end = bisect_left(edges, high[0] + (high[1] > 0))
            first = max(0, end - row_groups)
            low = max(low, (edges[first], 0)) if end else low
            count = end - first
        else:
            start = bisect_left(edges, low[0] + 1)
            last = min(len(edges), start + row_groups) - 1
            high = min(high, (edges[last], 0)) if last >= start else high
            count = last - start + 1
        touched = (file for first_us, last_us, file in self._files if (first_us, 0) < high and last_us >= low[0])
        return Slice(low, high, tuple(touched), max(1, count))

    def _asked_next(self) -> tuple[Position, Position]:
        """What is left up to where row groups are skipped; what is skipped before it counts as looked at."""
        if self._asked is None:
            return self._low, self._high
        for first_us, end_us in reversed(self._asked) if self._newest_first else self._asked:
            low, high = max(self._low, (first_us, 0)), min(self._high, (end_us, 0))
            if low < high:
                return low, high
        self._high = self._low
        return self._low, self._high

    def done(self, looked_at: Slice) -> None:
        """Go on behind it."""
        if self._newest_first:
            self._high = self._looked_to = looked_at.low
        else:
            self._low = looked_at.high
            time_us, log_id = looked_at.high
            self._looked_to = (time_us, log_id - 1) if log_id else (time_us - 1, ID_MAX)


def _asked(files: Sequence[SegmentFile]) -> list[tuple[int, int]]:
    """Stretches in which some file has row groups to ask; those of one file that follow one another are one."""
    runs = []
    for file in files:
        skipped = {*file.skipped}
        for is_skipped, numbers in groupby(range(len(file.row_groups)), skipped.__contains__):
            if not is_skipped:
                run = [*numbers]
                runs.append((file.row_groups[run[0]].first_us, file.row_groups[run[-1]].last_us + 1))
    merged: list[tuple[int, int]] = []
    for first_us, end_us in sorted(runs):
        if merged and first_us <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end_us))
        else:
            merged.append((first_us, end_us))
    return merged


class Pace:
    """How many row groups the next slice may have: few while there is hope for a page in them, more while there is none."""

    def __init__(self) -> None:
        """One row group: the newest page costs the least there is."""
        self.row_groups = 1

    def took(self, row_groups: int, took_ms: float, left_ms: float) -> None:
        """A slice of so many took so long; left_ms: of the budget."""
        factor = _QUICK_FACTOR if took_ms < _QUICK_MS else _FACTOR
        affordable = min(SLICE_MS, left_ms / 2) * row_groups / max(took_ms, 0.1)
        self.row_groups = max(1, min(self.row_groups * factor, int(affordable)))
