"""What whoever follows the broker is given, in offset order of each partition."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, TypeAlias

from schemas.record import Log

EVENT_BYTES: Final = 200
"""What an event without logs counts for."""


@dataclass(frozen=True, slots=True)
class Batch:
    """One record of the broker: the logs of one request that are stored, or will be.

    Empty for a record that has none: a repeated request, one that is no frame, one of counts only.
    """

    partition: int
    offset: int
    next_offset: int
    """Where to go on after this batch."""
    append_ms: int
    """Unix milliseconds at which the broker appended it."""
    logs: list[Log]
    size_bytes: int = EVENT_BYTES
    """Of the logs as text; in memory they take some four times that."""


class GapReason(StrEnum):
    """Why records cannot be read."""

    EXPIRED = "expired"
    """The broker has deleted them: pages have what was in them."""
    REMADE = "remade"
    """The topic was made again: its offsets begin anew, at `next_offset`, which may be below `offset`."""
    NEWER = "newer"
    """A newer program wrote the record: this one must be upgraded to read it."""


@dataclass(frozen=True, slots=True)
class Gap:
    """Records [offset, next_offset) of a partition that this follower cannot show."""

    partition: int
    offset: int
    next_offset: int
    """Where to go on after the gap."""
    reason: GapReason

    @property
    def size_bytes(self) -> int:
        """See Batch."""
        return EVENT_BYTES


Event: TypeAlias = Batch | Gap


class Recent:
    """The events that were handed out last, within a bound of bytes. Pure."""

    def __init__(self, *, bytes_max: int) -> None:
        """bytes_max: of the logs as text."""
        self._bytes_max = bytes_max
        self._events: deque[Event] = deque()
        self._bytes = 0
        self._dropped: dict[int, int] = {}
        """Partition -> offset up to which events are not here any more."""

    def add(self, event: Event) -> None:
        """Keep an event, which follows the last one of its partition."""
        self._dropped.setdefault(event.partition, event.offset)
        self._events.append(event)
        self._bytes += event.size_bytes
        while self._bytes > self._bytes_max:
            oldest = self._events.popleft()
            self._bytes -= oldest.size_bytes
            self._dropped[oldest.partition] = oldest.next_offset

    def clear(self) -> None:
        """Forget everything."""
        self._events.clear()
        self._bytes = 0
        self._dropped.clear()

    def covers(self, place: Place, live: Mapping[int, int]) -> bool:
        """Whether all that the place lacks is here."""
        return not place.is_beyond(live) and all(
            partition in place.positions and place.positions[partition] >= self._dropped.get(partition, offset)
            for partition, offset in live.items()
        )

    def events(self) -> list[Event]:
        """In the order in which they were handed out."""
        return list(self._events)


@dataclass(slots=True)
class Place:
    """Where one subscriber stands: partition -> offset of the event that is next. Pure.

    Joins what it has read by itself to what everyone is given, without a gap and without a repeat.
    """

    positions: dict[int, int] = field(default_factory=dict)

    def takes(self, event: Event) -> bool | None:
        """True: the event is the next one, and was counted. False: it was given before. None: events before it are missing,
        and nothing was counted. A gap may have begun before: whoever stands in it goes on behind it."""
        expected = self.positions.get(event.partition)
        if expected is None or event.offset == expected or event.offset < expected < event.next_offset:
            self.positions[event.partition] = event.next_offset
            return True
        return False if event.offset < expected else None

    def is_beyond(self, live: Mapping[int, int]) -> bool:
        """Whether it stands where the live end has not been: another process read faster, or the topic is another."""
        return any(offset > live.get(partition, offset) for partition, offset in self.positions.items())

    def has_reached(self, live: Mapping[int, int]) -> bool:
        """Whether nothing lies between here and the live end."""
        return all(self.positions.get(partition, 0) >= offset for partition, offset in live.items())
