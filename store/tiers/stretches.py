"""Divides a scan's interval by where its rows lie: stretches that only tables cover, and stretches with segments in them.

Pure. Stretches follow one another in the scan's direction without a gap or an overlap, so that each row is in exactly one; each
names all segments that may hold rows in it. A stretch ends where it has enough files (a page is usually full before), and where
chunks begin that no segment overlaps: these are asked alone. Late tables, which lie across everything, end none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from store.port import Position
from store.scan_windows import Ground, predecessor, successor
from store.tiers.segments import Segment, Tier

FILES: Final = 32
"""Most files of one stretch where no more overlap: the reader divides it further, and is told of every row group."""
_COLD_FIRST: Final = 1
_COLD_FACTOR: Final = 2
_COLD_MAX: Final = 4
"""Most files of one stretch that may have to be fetched first. The first one alone: often it is enough."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """Positions low <= position < high."""

    low: Position
    high: Position
    segments: tuple[Segment, ...]
    """All that may hold rows there; none: tables alone do."""


class Stretches:
    """Of one scan, in its direction."""

    def __init__(
        self, segments: Sequence[Segment], ground: Ground, low: Position, high: Position, *, newest_first: bool
    ) -> None:
        """segments: those that may hold rows that match, in any order. ground: the tables. low inclusive, high exclusive."""
        self._newest_first = newest_first
        self._ground = ground
        self.low = low
        """What is left: low <= position < high."""
        self.high = high
        # On an axis that points in the scan's direction: where a segment begins, where it ends, and which one it is.
        self._ahead = sorted((*self._on_axis(segment), segment.name, segment) for segment in segments)
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
        taken: list[Segment] = []
        cold, reach, border = 0, front, None
        for begins, ends, _, segment in self._ahead:
            if begins >= end:
                break
            if begins > front:
                if reach < begins and self._has_chunks(reach, begins):
                    border = reach if taken else begins
                    break
                if len(taken) >= FILES or (cold >= self._cold and segment.tier is Tier.COLD):
                    border = begins
                    break
            taken.append(segment)
            cold += segment.tier is Tier.COLD
            reach = max(reach, ends)
        if border is None and taken and reach < end and self._has_chunks(reach, end):
            border = reach
        if cold:
            self._cold = min(_COLD_MAX, self._cold * _COLD_FACTOR)
        return self._stretch(border, tuple(taken))

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

    def _on_axis(self, segment: Segment) -> tuple[int, int]:
        return (-segment.end_us, -segment.start_us) if self._newest_first else (segment.start_us, segment.end_us)

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
