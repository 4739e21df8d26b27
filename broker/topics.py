"""Derived topics as their users see them: one log per record, for subscribers. One contract suite
(tests/contract/test_topics.py) holds both adapters to this: Kafka's topics, and tables where there is no Kafka.

A topic has one or more partitions, each an append-only log with offsets 0, 1, 2, … in order of visibility, of which the oldest
go with time. Who reads is told where to start; nobody's position is kept.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from broker.port import Reader
from schemas.frames import Headers


@dataclass(frozen=True, slots=True)
class TopicRecord:
    """One record to publish."""

    topic: str
    key: bytes
    """Records of one key stay in order: they share a partition."""
    value: bytes
    headers: Headers

    @property
    def size_bytes(self) -> int:
        """Bytes that count against limits."""
        return len(self.key) + len(self.value) + sum(len(name) + len(value) for name, value in self.headers)


@dataclass(frozen=True, slots=True)
class Extent:
    """What a partition has: offsets first … next - 1."""

    first: int
    next: int


class Topics(Protocol):
    """Any number of topics. Connects when it is first used; safe for many tasks of one event loop."""

    async def ensure(self, names: Collection[str]) -> None:
        """Make the topics that are missing. Raises ConfigurationError where that is not allowed, or a topic is set so that it
        cannot take every log; BrokerUnavailable."""

    async def publish(self, records: Sequence[TopicRecord]) -> None:
        """Append, in order within each key. Returns once all are durable (acks=all, or the commit). One call at a time.

        Raises BrokerUnavailable when the outcome is failure or unknown, of any of them: publish all again. Bounded by
        `broker.request_timeout_ms`.
        """

    async def partitions(self, name: str) -> int:
        """How many the topic has; 0 where there is no such topic. May be a second old. Raises BrokerUnavailable."""

    async def names(self) -> set[str]:
        """All topics there are. May be a second old. Raises BrokerUnavailable."""

    async def extents(self, names: Collection[str]) -> Mapping[str, Mapping[int, Extent]]:
        """Topic -> partition -> what it has; topics that are not there are absent. Raises BrokerUnavailable."""

    async def reader(self, name: str) -> Reader:
        """A reader of a topic that is there. Close it. Raises BrokerUnavailable."""

    async def upkeep(self) -> None:
        """Let go what is past its retention, where the adapter has to. Call it every minute, from one process. Raises
        BrokerUnavailable."""

    async def close(self) -> None:
        """Free connections, in a bounded time."""
