"""A metric over time: points as they are kept, their median, and fewer of them that show the same.

Points lie behind one another as columns of 8, 8 and 4 bytes (little endian): times in microseconds, values, numbers of lines.
"""

from __future__ import annotations

import statistics
import sys
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

_POINT_BYTES = 20


class Point(NamedTuple):
    """One figure."""

    time_us: int
    value: float
    line: int
    """Number of its line in the text, from 1."""


@dataclass(slots=True)
class Series:
    """Points in the order of their lines."""

    times: array[int] = field(default_factory=lambda: array("q"))
    values: array[float] = field(default_factory=lambda: array("d"))
    lines: array[int] = field(default_factory=lambda: array("I"))

    def __len__(self) -> int:
        return len(self.times)

    def add(self, point: Point) -> None:
        """At the end."""
        self.times.append(point.time_us)
        self.values.append(point.value)
        self.lines.append(point.line)

    def point(self, index: int) -> Point:
        """By its place."""
        return Point(self.times[index], self.values[index], self.lines[index])

    @property
    def median(self) -> float | None:
        """Of all values; None without any."""
        return statistics.median(self.values) if self.values else None

    def pack(self) -> bytes:
        """As kept."""
        return _little(self.times) + _little(self.values) + _little(self.lines)

    @classmethod
    def unpack(cls, packed: Iterable[bytes]) -> Series:
        """Of parts that follow one another. Raises ValueError for what is not whole."""
        series = cls()
        for part in packed:
            count, rest = divmod(len(part), _POINT_BYTES)
            if rest:
                raise ValueError(f"expected points of {_POINT_BYTES} bytes, got {len(part)} bytes")
            for column, start, width in ((series.times, 0, 8), (series.values, 8, 8), (series.lines, 16, 4)):
                read: array[int] | array[float] = array(column.typecode)
                read.frombytes(part[start * count : (start + width) * count])
                if sys.byteorder == "big":
                    read.byteswap()
                column.extend(read)  # type: ignore[arg-type]  # of the same typecode
        return series


def downsampled(series: Series, points_max: int) -> list[Point]:
    """At most points_max (2 or more) points in order: first and last of all, and of each stretch of as many points its least
    and its greatest value. So every peak is there, and the greatest and least of all with their lines."""
    count = len(series)
    if count <= points_max:
        return [series.point(index) for index in range(count)]
    buckets = (points_max - 2) // 2
    chosen = {0, count - 1}
    values = series.values
    for bucket in range(buckets):
        start, end = 1 + bucket * (count - 2) // buckets, 1 + (bucket + 1) * (count - 2) // buckets
        chosen.add(min(range(start, end), key=values.__getitem__))
        chosen.add(max(range(start, end), key=values.__getitem__))
    return [series.point(index) for index in sorted(chosen)]


def spearman(pairs: Sequence[tuple[float, float]]) -> float | None:
    """Spearman's rank correlation, ties by the mean of their ranks; None of fewer than two pairs, or where one side is the same
    in all. (C. Spearman, American Journal of Psychology 15, 1904.)"""
    if len(pairs) < 2:
        return None
    firsts, seconds = (_ranks([pair[side] for pair in pairs]) for side in (0, 1))
    try:
        return statistics.correlation(firsts, seconds)
    except statistics.StatisticsError:
        return None


def _ranks(values: Sequence[float]) -> list[float]:
    order = sorted(range(len(values)), key=values.__getitem__)
    ranks = [0.0] * len(values)
    start = 0
    while start < len(order):
        end = start
        while end < len(order) and values[order[end]] == values[order[start]]:
            end += 1
        for place in order[start:end]:
            ranks[place] = (start + end - 1) / 2
        start = end
    return ranks


def _little(column: array[int] | array[float]) -> bytes:
    if sys.byteorder == "big":
        column = array(column.typecode, column)
        column.byteswap()
    return column.tobytes()
