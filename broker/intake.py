"""What both producers decide before anything is sent: is there room, is the record small enough, which partition.

Pure bookkeeping of one event loop: no locks, no awaits, no clock. Chance (where round robin begins) is an argument.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from broker.port import Record
from schemas.errors import Overloaded, PartitionUnavailable, RecordTooLarge
from schemas.frames import FRAME_BYTES_MAX

WAITING_SHARE: Final = 4
"""Records whose partition has no leader may hold one part in so many of the bytes in flight: the rest is for the others."""


def partition_of(key: bytes, partitions: int) -> int:
    """The partition of a key: first 8 bytes of its sha256, big endian, modulo. Never change it: copies of one request
    must meet in one partition, also across versions."""
    return int.from_bytes(hashlib.sha256(key).digest()[:8], "big") % partitions


class Intake:
    """Admits records and counts their bytes until they are settled."""

    def __init__(self, *, partitions: int, bytes_max: int, first_partition: int) -> None:
        """bytes_max: bytes in flight at once; first_partition: where the round robin of unkeyed records begins."""
        self._partitions = partitions
        self._bytes_max = bytes_max
        self._next_partition = first_partition % partitions
        self.bytes_in_flight = 0
        self._bytes_waiting = 0

    def admit(
        self, record: Record, partition_key: bytes | None, *, has_leader: Callable[[int], bool] | None = None
    ) -> int:
        """Count the record and return its partition. Raises RecordTooLarge, Overloaded; then nothing was counted.

        Without a key, partitions of which has_leader says no are passed over, while there are others.
        """
        size = record.size_bytes
        if size > FRAME_BYTES_MAX:
            raise RecordTooLarge(f"the record has {size} bytes, at most {FRAME_BYTES_MAX} are taken: send less at once")
        if self.bytes_in_flight + size > self._bytes_max:
            raise Overloaded(f"{self.bytes_in_flight} bytes wait for the broker, at most {self._bytes_max} may")
        self.bytes_in_flight += size
        if partition_key is not None:
            return partition_of(partition_key, self._partitions)
        for step in range(self._partitions):
            partition = (self._next_partition + step) % self._partitions
            if has_leader is None or has_leader(partition):
                break
        else:
            partition = self._next_partition
        self._next_partition = (partition + 1) % self._partitions
        return partition

    @contextmanager
    def waiting(self, record: Record, partition: int) -> Iterator[None]:
        """Count an admitted record as one that waits for its partition's leader while others have one.

        Raises PartitionUnavailable where such records hold all that they may.
        """
        size, bytes_max = record.size_bytes, self._bytes_max // WAITING_SHARE
        if self._bytes_waiting + size > bytes_max:
            raise PartitionUnavailable(
                f"partition {partition} has no leader and {self._bytes_waiting} bytes wait for theirs, at most {bytes_max}"
                " may; the record was not sent",
                retry_after_s=2,
            )
        self._bytes_waiting += size
        try:
            yield
        finally:
            self._bytes_waiting -= size

    def settle(self, record: Record) -> None:
        """The record was acknowledged or has failed."""
        self.bytes_in_flight -= record.size_bytes
