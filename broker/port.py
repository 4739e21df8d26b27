"""The broker as its users see it. One contract suite (tests/contract/test_broker.py) holds every adapter to this.

A topic is a fixed number of partitions, each an append-only log with offsets 0, 1, 2, … without gaps. Positions are never
kept here for the writers: they are stored beside the rows (store/), and a reader is told where to start.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from schemas.frames import Headers


@dataclass(frozen=True, slots=True)
class Record:
    """One record to publish."""

    value: bytes
    headers: Headers

    @property
    def size_bytes(self) -> int:
        """Bytes that count against limits: value, header names and header values."""
        return len(self.value) + sum(len(name) + len(value) for name, value in self.headers)


@dataclass(frozen=True, slots=True)
class Delivered:
    """One record as read. `append_ms`: Unix milliseconds at which the broker appended it (never decreasing much)."""

    partition: int
    offset: int
    append_ms: int
    headers: Headers
    value: bytes


class Producer(Protocol):
    """Publishes records. Safe for many tasks of one event loop at once."""

    @property
    def bytes_in_flight(self) -> int:
        """Bytes of the records taken and not yet acknowledged or failed; exact also after callers were cancelled."""

    async def publish(self, record: Record, *, partition_key: bytes | None) -> tuple[int, int]:
        """Append one record; returns (partition, offset) once it is durable (acks=all, or the commit).

        With partition_key the partition is a pure function of the key and the partition count; without, round robin over
        those that have a leader.
        Must not return before durability. Must raise RecordTooLarge before anything was sent, Overloaded when
        bytes_in_flight would pass the limit (before anything was sent), BrokerUnavailable when the outcome is
        failure or unknown; of its subclasses RecordNotSent where nothing was sent, PartitionUnavailable where moreover only
        the key's partition takes nothing: soon, and without holding up the others. Must not raise CancelledError unless the
        caller is cancelled, which must not cancel the send, nor corrupt bytes_in_flight.
        """

    async def close(self) -> None:
        """Flush what is in flight within a bounded time, then stop."""


class Reader(Protocol):
    """Reads assigned partitions from given positions. One task at a time."""

    async def seek(self, positions: Mapping[int, int]) -> None:
        """Replace the whole assignment: afterwards exactly these partitions are read, each from the given offset.

        Nothing fetched for earlier positions may be returned afterwards. An empty mapping reads nothing.
        """

    async def poll(self, *, max_bytes: int, wait_ms: int) -> list[Delivered]:
        """Records that follow the last ones returned, in offset order within each partition; [] after wait_ms.

        max_bytes bounds what is returned (one record may exceed it). Raises OffsetOutOfRange when a position is below the
        first or above the end offset (never skips silently); records fetched before they were deleted may still come, in
        order. A partition whose leader is away holds no other up: its records come when it has one. Raises
        BrokerUnavailable when no partition can be read.
        """

    async def first_offsets(self, partitions: Iterable[int]) -> dict[int, int]:
        """Offset of the oldest record kept in each partition (the end offset when empty).

        A partition whose leader is away, or does not answer, is absent from the answer, and may hold it up only when that
        happens, not while it lasts. Raises BrokerUnavailable when that is so of all.
        """

    async def end_offsets(self, partitions: Iterable[int]) -> dict[int, int]:
        """Offset that the next record of each partition will get. Asked of the broker at each call.

        Absent and unavailable as in `first_offsets`: what is absent is unknown, not read to its end.
        """

    async def close(self) -> None:
        """Stop reading and free connections."""


class Broker(Protocol):
    """One topic of a broker: makes producers and readers, answers questions about the log."""

    @property
    def topic(self) -> str:
        """Name of the topic."""

    @property
    def partitions(self) -> int:
        """Number of partitions, known after `open`."""

    async def open(self) -> None:
        """Connect, create the topic where the adapter may, learn the partitions, and assert every setting the promises need.

        Raises ConfigurationError naming each wrong setting, its value and the value expected; BrokerUnavailable.
        """

    async def look_again(self) -> list[str]:
        """Ask, after `open`, whether the topic has more partitions by now: `partitions` says so afterwards, and never fewer
        than before. Returns what `open` would refuse now, for people; must change nothing, and make no topic.

        Raises BrokerUnavailable.
        """

    async def close(self) -> None:
        """Free connections. Producers and readers are closed by who made them."""

    async def producer(self) -> Producer:
        """A started producer. Raises BrokerUnavailable."""

    async def reader(self, *, group: str) -> Reader:
        """A reader; `group` names it to the broker (for lag displays and to keep unread records), it joins nothing."""

    async def commit_group(self, group: str, offsets: Mapping[int, int]) -> None:
        """Tell the broker how far the group has stored: partition -> next offset. For displays and the retention guard."""

    async def group_offsets(self, group: str) -> dict[int, int]:
        """Partition -> next offset as last committed; partitions without a commit are absent."""

    async def retention_risk(self, group: str) -> float:
        """0.0 … 1.0+: how near the oldest record that the group has not stored is to being deleted by the broker.

        1.0 means it may be deleted now. Ingest refuses at 0.8 (503). Adapters define it: share of retention.ms that the
        oldest unstored record has aged (Kafka), share of the unread bytes' limit (queue). What cannot be asked now (a
        partition whose leader is away) counts with what was known of it last, grown by the time since. Raises
        BrokerUnavailable when nothing can be asked.
        """
