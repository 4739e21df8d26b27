"""Time as an argument. Cores take numbers; shells take a `Clock`, so that tests can hold it."""

from __future__ import annotations

import time
from typing import Final, Protocol

CLOCKS_APART_US_MAX: Final = 300 * 1_000_000
"""Two hosts whose clocks are further apart do nothing that cannot be taken back."""


class Clock(Protocol):
    """Reads the time."""

    def now_us(self) -> int:
        """Wall time: microseconds since the Unix epoch, UTC. May step in either direction."""

    def monotonic_s(self) -> float:
        """Seconds that never step back: for deadlines."""


class SystemClock:
    """The machine's clock."""

    def now_us(self) -> int:
        """See Clock."""
        return time.time_ns() // 1000

    def monotonic_s(self) -> float:
        """See Clock."""
        return time.monotonic()


class ManualClock:
    """A clock that moves when told (tests)."""

    def __init__(self, now_us: int) -> None:
        """now_us: the first wall time; monotonic time starts at 0."""
        self.wall_us = now_us
        self.monotonic = 0.0

    def now_us(self) -> int:
        """See Clock."""
        return self.wall_us

    def monotonic_s(self) -> float:
        """See Clock."""
        return self.monotonic

    def advance(self, seconds: float) -> None:
        """Move both forward."""
        self.wall_us += int(seconds * 1_000_000)
        self.monotonic += seconds
