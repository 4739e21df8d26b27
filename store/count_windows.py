"""Where a count looks next: windows of time, the newest first, no wider than can be counted in a moment. Pure.

Windows follow one another without a gap or an overlap down to where the count ends. They are whole buckets, where a bucket
can be counted at once, and end where the caller says that something changes. One that was too much is tried narrower.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable
from typing import Final

WINDOW_MS: Final = 300.0
"""So long a window should take: one that is cut off was read for nothing."""
LEAST_US: Final = 1_000_000
"""Narrower windows are not tried."""
_WIDER_MAX: Final = 8
_NARROWER: Final = 4


class CountWalk:
    """The windows of one count."""

    def __init__(
        self, low_us: int, high_us: int, *, width_us: int, origin_us: int, borders_us: Iterable[int] = ()
    ) -> None:
        """low_us inclusive, high_us exclusive. width_us, origin_us: of buckets. borders_us: where no window lies across."""
        self.low_us = low_us
        self.high_us = high_us
        """What is left ends here: everything from here on is counted."""
        self._width_us = width_us
        self._origin_us = origin_us
        self._borders_us = sorted(borders_us)
        self._step_us = width_us

    def next(self) -> tuple[int, int] | None:
        """[low, high) of the next window; None: nothing is left."""
        high_us = self.high_us
        if self.low_us >= high_us:
            return None
        low_us = high_us - self._step_us
        if self._step_us >= self._width_us:
            low_us -= (low_us - self._origin_us) % self._width_us
        border = bisect_left(self._borders_us, high_us)
        if border:
            low_us = max(low_us, self._borders_us[border - 1])
        return max(low_us, self.low_us), high_us

    def add_border(self, us: int) -> None:
        """No window lies across this time from now on."""
        insort(self._borders_us, us)

    def skip_to(self, us: int) -> None:
        """There is nothing from this time on."""
        self.high_us = max(self.low_us, min(self.high_us, us))

    def done_to(self, us: int, *, took_ms: float) -> None:
        """From this time on all is counted; the last window took so long."""
        span_us = self.high_us - us
        self.high_us = us
        affordable_us = int(span_us * WINDOW_MS / max(took_ms, 1.0))
        if took_ms > WINDOW_MS:
            self._step_us = max(LEAST_US, min(affordable_us, self._step_us))
        elif 2 * span_us >= self._step_us:  # a window that a border has cut short says little
            self._step_us = max(self._step_us, min(affordable_us, self._step_us * _WIDER_MAX))

    def was_too_much(self) -> bool:
        """The last window could not be counted in its time. False: no narrower one is tried."""
        window = self.next()
        if window is None or window[1] - window[0] <= LEAST_US:
            return False
        self._step_us = max(LEAST_US, min(self._step_us, window[1] - window[0]) // _NARROWER)
        return True
