"""What waits for one client: bodies of logs, oldest first, within a bound. Pure.

Past the bound the oldest are skipped and counted: who watches wants the newest, and is told how many are missing.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from live.events import Gap


@dataclass(slots=True)
class Taken:
    """All that waited."""

    bodies: list[bytes]
    skipped: int
    """Logs before these that were left out."""
    gaps: list[Gap]


@dataclass(slots=True)
class ClientQueue:
    """One client's."""

    bodies: deque[bytes] = field(default_factory=deque)
    size_bytes: int = 0
    skipped: int = 0
    gaps: list[Gap] = field(default_factory=list)

    def add(self, body: bytes, *, bytes_max: int) -> int:
        """Put a log behind the others; how many were skipped for it. One that is alone stays, however large."""
        self.bodies.append(body)
        self.size_bytes += len(body)
        skipped = 0
        while self.size_bytes > bytes_max and len(self.bodies) > 1:
            self.size_bytes -= len(self.bodies.popleft())
            skipped += 1
        self.skipped += skipped
        return skipped

    def add_gap(self, gap: Gap) -> None:
        """Of each partition the last one is kept: it tells of what is missing now."""
        self.gaps = [each for each in self.gaps if each.partition != gap.partition]
        self.gaps.append(gap)

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to tell."""
        return not (self.bodies or self.skipped or self.gaps)

    def take(self) -> Taken:
        """Everything; nothing waits afterwards."""
        taken = Taken(list(self.bodies), self.skipped, self.gaps)
        self.bodies.clear()
        self.size_bytes, self.skipped, self.gaps = 0, 0, []
        return taken
