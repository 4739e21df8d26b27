"""Divides a scan's interval by where its rows lie: stretches that only tables cover, and stretches with segments in them.

Pure. Stretches follow one another in the scan's direction without a gap or an overlap, so that each row is in exactly one; each
names all segments that may hold rows in it, as their row groups say: a file of late rows, which lies across a year, is named
where it has some. A stretch ends where it has enough files (a page is usually full before), before the first file that may have
to be fetched, and where chunks begin that no segment overlaps: these are asked alone. Late tables, which lie across everything,
end none. Where even one moment needs more files than that, they are asked in groups.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Final

from store.port import Position
from store.scan_windows import Ground, predecessor, successor
from store.tiers.segments import Segment, Tier

FILES: Final = 32
"""Most files that are asked at once: the reader divides their time further, and is told of every row group."""
_COLD_FIRST: Final = 1
_COLD_FACTOR: Final = 2
_COLD_MAX: Final = 4
"""Most of them that may have to be fetched first. The first one alone: often it is enough."""
_COLD_BYTES: Final = 32 * 1024 * 1024
"""Of one group: so many are fetched together however many files they are, as those of late rows are small."""


_UNBOUNDED: Final = 2**63


@dataclass(frozen=True, slots=True)
class Stretch:
    """Positions low <= position < high."""

    low: Position
    high: Position
    segments: tuple[Segment, ...]
    """All that may hold rows there; none: tables alone do."""

    def groups(self, cold_bytes_max: int = _UNBOUNDED) -> Iterator[tuple[Segment, ...]]:
        """Its segments, as many as are asked at once: one group, but where more of them overlap, or those in object storage
        have more bytes together than may be on this host."""
        group: list[Segment] = []
        cold = cold_bytes = 0
        for segment in self.segments:
            is_cold = segment.tier is Tier.COLD
            fetched = segment.info.bytes if is_cold else 0
            together_max = min(_COLD_BYTES, cold_bytes_max) if cold >= _COLD_MAX else cold_bytes_max
            is_much = cold_bytes + fetched > together_max
            if len(group) >= FILES or (is_cold and cold and is_much):
                yield tuple(group)
                group, cold, cold_bytes = [], 0, 0
            group.append(segment)
            cold += is_cold
            cold_bytes += fetched
        if group:
            yield tuple(group)


class Stretches:
    """Of one scan, in its direction."""

    def __init__(
        self,
        segments: Sequence[Segment],
        ground: Ground,
        low: Position,
        high: Position,
        *,
        newest_first: bool,
        cold_bytes_max: int = _UNBOUNDED,
    ) -> None:
        """segments: those that may hold rows that match, in any order. ground: the tables. low inclusive, high exclusive.
        cold_bytes_max: of the files of a stretch that may have to be fetched, but for one."""
        self._cold_bytes_max = cold_bytes_max
        self._newest_first = newest_first
        self._ground = ground
        self.low = low
        """What is left: low <= position < high."""
        self.high = high
        # On an axis that points in the scan's direction: where a segment begins, where it ends, and which one it is.
        self._ahead = sorted(
            (*self._on_axis(segment.start_us, segment.end_us), segment.name, segment) for segment in segments
        )
        self._cold = _COLD_FIRST

    @property
    def scanned_to(self) -> Position:
        """Everything up to here, in the scan's direction, was looked at: go on after it."""
        return self.high if self._newest_first else predecessor(self.low)

    def next(self) -> Stretch | None:
        """The next one; None: nothing is left."""
        if self.low >= self.high:
            return None
        front, end = self._front_and_end()
        self._ahead = [entry for entry in self._ahead if entry[1] > front]
        taken: dict[str, Segment] = {}
        cold, cold_bytes, reach, border = 0, 0, front, None
        for begins, ends, segment in self._pieces(front, end):
            if begins > front:
                if reach < begins and self._has_chunks(reach, begins):
                    border = reach if taken else begins
                    break
                if segment.name not in taken and self._has_enough(segment, len(taken), cold, cold_bytes):
                    border = begins
                    break
            if segment.name not in taken:
                taken[segment.name] = segment
                if segment.tier is Tier.COLD:
                    cold, cold_bytes = cold + 1, cold_bytes + segment.info.bytes
            reach = max(reach, ends)
        if border is None and taken and reach < end and self._has_chunks(reach, end):
            border = reach
        if cold:
            self._cold = min(_COLD_MAX, self._cold * _COLD_FACTOR)
        return self._stretch(border, tuple(taken.values()))

    def _has_enough(self, segment: Segment, files: int, cold: int, cold_bytes: int) -> bool:
        """Whether a stretch of so many files ends where this one would come to them."""
        if files >= FILES:
            return True
        if segment.tier is not Tier.COLD:
            return False
        is_much = cold > 0 and cold_bytes + segment.info.bytes > self._cold_bytes_max
        return is_much or cold >= self._cold or (files > 0 and cold == 0)

    def _pieces(self, front: int, end: int) -> Iterator[tuple[int, int, Segment]]:
        """Where the segments have rows between front and end: places on the axis, by their begin. Of each no more is looked at
        than is asked for: all together may have tens of thousands of row groups."""
        coming: list[tuple[int, int, str, Segment, Iterator[tuple[int, int]]]] = []
        opened = 0
        while True:
            while opened < len(self._ahead) and (not coming or self._ahead[opened][0] <= coming[0][0]):
                *_, segment = self._ahead[opened]
                opened += 1
                _push(coming, segment, self._pieces_of(segment, front))
            if not coming:
                return
            begins, ends, _, segment, rest = heappop(coming)
            if begins >= end:
                return
            yield begins, ends, segment
            _push(coming, segment, rest)

    def _pieces_of(self, segment: Segment, front: int) -> Iterator[tuple[int, int]]:
        """Its row groups that end behind the front, in the scan's direction."""
        groups = segment.info.row_groups
        if not groups or groups[-1].last_us < segment.start_us or groups[0].first_us >= segment.end_us:
            yield self._on_axis(segment.start_us, segment.end_us)
            return
        if self._newest_first:
            numbers = range(bisect_left(groups, -front, key=lambda group: group.first_us) - 1, -1, -1)
        else:
            numbers = range(bisect_left(groups, front, key=lambda group: group.last_us), len(groups))
        for number in numbers:
            start_us = max(groups[number].first_us, segment.start_us)
            end_us = min(groups[number].last_us + 1, segment.end_us)
            if start_us < end_us:
                yield self._on_axis(start_us, end_us)

    def within(self, stretch: Stretch, border_us: int) -> Stretch:
        """The part of the stretch on the near side of this time, where it lies on both."""
        border = (border_us, 0)
        if not stretch.low < border < stretch.high:
            return stretch
        if self._newest_first:
            return Stretch(border, stretch.high, stretch.segments)
        return Stretch(stretch.low, border, stretch.segments)

    def done(self, stretch: Stretch) -> None:
        """It was looked at completely."""
        if self._newest_first:
            self.high = stretch.low
        else:
            self.low = stretch.high

    def done_to(self, position: Position) -> None:
        """Everything up to this position, itself included, was looked at."""
        if self._newest_first:
            self.high = position
        else:
            self.low = successor(position)

    def _front_and_end(self) -> tuple[int, int]:
        """Where what is left begins and where it ends, on the axis."""
        low_us, beyond_us = self.low[0], self.high[0] + (self.high[1] > 0)
        return (-beyond_us, -low_us) if self._newest_first else (low_us, beyond_us)

    def _on_axis(self, start_us: int, end_us: int) -> tuple[int, int]:
        return (-end_us, -start_us) if self._newest_first else (start_us, end_us)

    def _has_chunks(self, begins: int, ends: int) -> bool:
        """Whether a table other than late ones may hold rows between these places on the axis."""
        start_us, end_us = (-ends, -begins) if self._newest_first else (begins, ends)
        return self._ground.has_chunks(start_us, end_us)

    def _stretch(self, border: int | None, segments: tuple[Segment, ...]) -> Stretch:
        if border is None:
            return Stretch(self.low, self.high, segments)
        if self._newest_first:
            return Stretch(max(self.low, (-border, 0)), self.high, segments)
        return Stretch(self.low, min(self.high, (border, 0)), segments)


def _push(
    coming: list[tuple[int, int, str, Segment, Iterator[tuple[int, int]]]],
    segment: Segment,
    pieces: Iterator[tuple[int, int]],
) -> None:
    """The segment's next piece, if it has one. Names tell pieces at one place apart: each has one there."""
    for begins, ends in pieces:
        heappush(coming, (begins, ends, segment.name, segment, pieces))
        return
