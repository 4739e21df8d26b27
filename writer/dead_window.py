"""How many lines may be put aside, judged over the last lines that were stored, not over one batch. Pure.

One bad request must not stop a quiet service, a few bad lines must not stop a busy one, and a stream of nothing but poison
must stop the writer however small its frames are. So a batch is judged together with what was committed before it: at most
`dead_min` lines, or `ratio_max` of all, may be dead among the last `lines_max` lines of the last `seconds`. Poison after a
quiet time stops the writer after `dead_min` lines; after much good traffic after `ratio_max` of `lines_max` of them.

Bounded: what was committed is kept as sums of slices, some hundred at most, so the window is exact to 1/64 of its length.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final

_SLICES: Final = 64


@dataclass(slots=True)
class _Slice:
    began_s: float
    lines: int = 0
    dead: int = 0


class DeadWindow:
    """Counts of committed lines. Times are of any monotonic clock, the same for every call."""

    def __init__(self, *, seconds: float, lines_max: int, dead_min: int, ratio_max: float) -> None:
        """Empty. dead_min: below lines_max, or nothing would ever exceed it."""
        self._seconds = seconds
        self._lines_max = lines_max
        self._dead_min = dead_min
        self._ratio_max = ratio_max
        self._slices: deque[_Slice] = deque()
        self.lines = 0
        """Lines in the window."""
        self.dead = 0
        """Of them, how many were put aside."""

    def allowance(self, lines: int, now_s: float) -> int:
        """How many of the next `lines` lines may be put aside."""
        self._expire(now_s)
        return max(0, max(self._dead_min, int(self._ratio_max * (self.lines + lines))) - self.dead)

    def note(self, lines: int, dead: int, now_s: float) -> None:
        """So many lines were committed, `dead` of them as dead letters."""
        if lines <= 0:
            return
        self._expire(now_s)
        last = self._slices[-1] if self._slices else None
        if last is None or self._is_whole(last, now_s):
            last = _Slice(now_s)
            self._slices.append(last)
        last.lines += lines
        last.dead += dead
        self.lines += lines
        self.dead += dead
        while self.lines - self._slices[0].lines >= self._lines_max:
            self._drop_oldest()

    def _is_whole(self, one: _Slice, now_s: float) -> bool:
        return one.lines * _SLICES >= self._lines_max or (now_s - one.began_s) * _SLICES >= self._seconds

    def _expire(self, now_s: float) -> None:
        while self._slices and self._slices[0].began_s <= now_s - self._seconds:
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        oldest = self._slices.popleft()
        self.lines -= oldest.lines
        self.dead -= oldest.dead
