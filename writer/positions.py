"""Holds each partition to its order: the first record after a start proves that the log is the one we stored from, and
every later offset is the last + 1. Pure.

A topic that was deleted and made again, or restored from elsewhere, has other frame ids at the offsets we remember:
going on would lose or repeat logs silently, so the partition halts with a sentence that says what was found.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from broker.port import Delivered
from schemas.errors import LogfeedError
from store.port import Lease


class BrokenSequence(LogfeedError):
    """The broker's log is not the one the partition was stored from."""

    def __init__(self, partition: int, message: str) -> None:
        """message: what was found and expected."""
        super().__init__(f"partition {partition}: {message}")
        self.partition = partition


class NewerRecord(BrokenSequence):
    """A record was written by a newer program: this one must not go past it."""


@dataclass(slots=True)
class _Place:
    next_offset: int
    verify_frame_id: bytes | None
    """Set until the record at next_offset - 1 was seen and compared."""


class Positions:
    """Where each leased partition stands."""

    def __init__(self) -> None:
        """Nothing is leased."""
        self._places: dict[int, _Place] = {}

    def start(self, leases: Iterable[Lease], first_offsets: Mapping[int, int]) -> dict[int, int]:
        """Begin anew with these leases; returns where to seek: one record early, to compare its frame id.

        The comparison is skipped only when the log starts exactly at next_offset, or an operator set the position by
        hand (last_frame_id None). Raises BrokenSequence.
        """
        self._places = {}
        seeks = {}
        for lease in leases:
            first = first_offsets[lease.partition]
            if first > lease.next_offset:
                raise BrokenSequence(
                    lease.partition,
                    f"the broker's oldest offset is {first}, the next to store is {lease.next_offset}:"
                    f" {first - lease.next_offset} frames were deleted before they were stored",
                )
            verify = lease.last_frame_id is not None and first < lease.next_offset
            self._places[lease.partition] = _Place(lease.next_offset, lease.last_frame_id if verify else None)
            seeks[lease.partition] = lease.next_offset - 1 if verify else lease.next_offset
        return seeks

    def accept(self, record: Delivered) -> bool:
        """True: the record is the partition's next. False: it was the one to compare, and is the right one.

        Raises BrokenSequence.
        """
        place = self._places[record.partition]
        if place.verify_frame_id is not None:
            self._verify(record, place)
            place.verify_frame_id = None
            return False
        if record.offset != place.next_offset:
            raise BrokenSequence(
                record.partition, f"offset {record.offset} came, expected {place.next_offset}: the log has a gap"
            )
        place.next_offset += 1
        return True

    def next_offset(self, partition: int) -> int:
        """Offset of the record that `accept` takes next."""
        return self._places[partition].next_offset

    def is_verified(self, partition: int) -> bool:
        """False while the record to compare has not been seen."""
        return self._places[partition].verify_frame_id is None

    @staticmethod
    def _verify(record: Delivered, place: _Place) -> None:
        found = dict(record.headers).get("frame")
        if record.offset != place.next_offset - 1 or found != place.verify_frame_id:
            shown = found.hex() if found is not None else "none"
            expected = place.verify_frame_id.hex() if place.verify_frame_id is not None else "none"
            raise BrokenSequence(
                record.partition,
                f"offset {record.offset} holds frame {shown}, expected frame {expected} at {place.next_offset - 1}:"
                " the topic was made again or restored; nothing was stored from it",
            )
