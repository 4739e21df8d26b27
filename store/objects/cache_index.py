"""What the cache holds, and what goes when room is needed: decisions only, no file is touched here.

Bytes are counted from the moment a copy is admitted, before the first is written, until its file is gone: their sum never
passes `bytes_max`. Copies that are in use or under way stay; of the others the least recently used goes first.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Container
from dataclasses import dataclass
from enum import Enum, auto


class State(Enum):
    """Of a copy."""

    ABSENT = auto()
    """Not on disk (yet), or no longer."""
    FOUND = auto()
    """On disk since before the start: not verified."""
    WHOLE = auto()
    """On disk, verified."""


@dataclass(slots=True, eq=False)
class Copy:
    """One object's copy. Whoever needs it counts in `pins`, while it is fetched too."""

    name: str
    bytes: int
    state: State = State.ABSENT
    pins: int = 0
    times_made: int = 0
    """How many times it became whole: tells an old look at the disk from a new one."""
    busy: bool = False
    """It is being fetched or verified."""
    counted: bool = False
    """Its bytes are among those of the index."""

    @property
    def may_go(self) -> bool:
        """Nobody would miss it."""
        return self.pins == 0 and not self.busy and self.state is not State.ABSENT


class CacheIndex:
    """Copies by name, least recently used first."""

    def __init__(self, bytes_max: int) -> None:
        """bytes_max: of all copies together."""
        self.bytes_max = bytes_max
        self.bytes = 0
        self.pinned_bytes = 0
        """Of the copies in use, those under way included."""
        self._copies: OrderedDict[str, Copy] = OrderedDict()

    def __len__(self) -> int:
        """Copies, those under way included."""
        return len(self._copies)

    def use(self, name: str, bytes: int) -> Copy:
        """The copy of that name, made (ABSENT) when there is none; it is the most recently used now."""
        copy = self._copies.get(name)
        if copy is None:
            copy = self._copies[name] = Copy(name, bytes)
        self._copies.move_to_end(name)
        return copy

    def pin(self, copy: Copy) -> None:
        """One more needs it."""
        copy.pins += 1
        if copy.pins == 1 and copy.counted:
            self.pinned_bytes += copy.bytes

    def unpin(self, copy: Copy) -> None:
        """One less needs it."""
        copy.pins -= 1
        if copy.pins == 0 and copy.counted:
            self.pinned_bytes -= copy.bytes

    def find(self, name: str, bytes: int) -> None:
        """At the start: a file is there. Call it for the least recently used first."""
        copy = self.use(name, bytes)
        copy.state = State.FOUND
        self._count(copy)

    def admit(self, copy: Copy, room: int | None = None) -> list[Copy] | None:
        """Count a copy's bytes. room: bytes that the disk has for it as it is. Returns those that must go first, forgotten
        already; None when there is no room now."""
        needed = self.bytes + copy.bytes - self.bytes_max
        going = self._going(needed if room is None else max(needed, copy.bytes - room))
        if going is not None:
            for each in going:
                self.forget(each)
            self._count(copy)
        return going

    def surplus(self) -> list[Copy]:
        """What must go because the limit is lower than it was, forgotten already."""
        going = self._going(self.bytes - self.bytes_max) or []
        for each in going:
            self.forget(each)
        return going

    def others(self, names: Container[str]) -> list[Copy]:
        """All that may go but those of these names, forgotten already."""
        going = [copy for copy in self._copies.values() if copy.may_go and copy.name not in names]
        for copy in going:
            self.forget(copy)
        return going

    def lose(self, copy: Copy) -> None:
        """Its file is gone; whoever holds it may have it fetched again."""
        copy.state = State.ABSENT
        if copy.counted:
            copy.counted = False
            self.bytes -= copy.bytes
            self.pinned_bytes -= copy.bytes if copy.pins else 0

    def forget(self, copy: Copy) -> None:
        """It is gone, and the next to ask gets another."""
        self.lose(copy)
        if self._copies.get(copy.name) is copy:
            del self._copies[copy.name]

    def _going(self, needed: int) -> list[Copy] | None:
        going: list[Copy] = []
        for copy in self._copies.values():
            if needed <= 0:
                break
            if copy.may_go:
                going.append(copy)
                needed -= copy.bytes
        return going if needed <= 0 else None

    def _count(self, copy: Copy) -> None:
        assert not copy.counted
        copy.counted = True
        self.bytes += copy.bytes
        self.pinned_bytes += copy.bytes if copy.pins else 0
