"""Reads partitions of Kafka from given positions: `assign()` and `seek()`, no group membership.

aiokafka prefetches, hides an absent broker and can hang, so each record must continue its partition's position exactly, or
the consumer is sought anew and bounds are asked; silence is checked against the broker's end offsets each second, and a
consumer that stands still before known records is replaced. A partition without a leader stands still by itself: the others
are read, and its records come when it has one.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError, OffsetOutOfRangeError

from broker.kafka_clients import END_S, Endings, connection, start_whole
from broker.kafka_cluster import EARLIEST, LATEST, Cluster
from broker.kafka_topic import BATCH_BYTES_MAX
from broker.port import Delivered
from broker.settings import BrokerSettings
from schemas.errors import BrokerUnavailable, OffsetOutOfRange

_FETCH_BYTES_MAX: Final = 2 * BATCH_BYTES_MAX
"""One fetch of a reader; it holds at most one that is parsed and one that is prefetched."""
_FETCH_WAIT_MS: Final = 100
"""How long the broker holds an empty fetch. A fetch after a seek waits behind it on the same connection."""
_CHECK_S: Final = 1.0
_CHECK_BUSY_S: Final = 5.0
_CHECK_TIMEOUT_S: Final = 5.0


class KafkaReader:
    """See `Reader`."""

    def __init__(self, settings: BrokerSettings, cluster: Cluster, *, partitions: int, group: str) -> None:
        """Connects at the first poll."""
        self._settings = settings
        self._cluster = cluster
        self._endings = Endings()
        self._partitions = partitions
        self._group = group
        self._timeout_s = settings.request_timeout_ms / 1000
        self._consumer: AIOKafkaConsumer | None = None
        self._positions: dict[int, int] = {}
        self._fetched: deque[Delivered] = deque()
        self._fetch_positions: dict[int, int] = {}
        self._sought = False
        self._gaps: dict[int, int] = {}
        self._standing: dict[int, tuple[int, float]] = {}
        self._checked_s = 0.0
        self._polled_s = 0.0

    async def seek(self, positions: Mapping[int, int]) -> None:
        """See Reader. Raises ValueError for a partition that the topic does not have."""
        unknown = [partition for partition in positions if not 0 <= partition < self._partitions]
        if unknown:
            raise ValueError(f"topic {self._settings.topic} has partitions 0..{self._partitions - 1}, got {unknown}")
        self._positions = dict(positions)
        self._gaps.clear()
        self._forget()

    async def poll(self, *, max_bytes: int, wait_ms: int) -> list[Delivered]:
        """See Reader. With the broker away it may take some 15 s longer to say so, and request_timeout_ms to connect."""
        loop = asyncio.get_running_loop()
        entered_s = loop.time()
        deadline_s = entered_s + wait_ms / 1000
        if not self._positions:
            await asyncio.sleep(wait_ms / 1000)
            return []
        if entered_s - self._polled_s > _CHECK_BUSY_S:
            self._standing.clear()  # nobody asked meanwhile: that nothing moved is no sign of anything
        while True:
            if not self._fetched:
                await self._fetch(deadline_s)
            records = self._take(max_bytes)
            self._polled_s = loop.time()
            if records or self._polled_s >= deadline_s:
                return records

    async def first_offsets(self, partitions: Iterable[int]) -> dict[int, int]:
        """See Reader."""
        return await self._cluster.list_offsets(dict.fromkeys(partitions, EARLIEST))

    async def end_offsets(self, partitions: Iterable[int]) -> dict[int, int]:
        """See Reader."""
        return await self._cluster.list_offsets(dict.fromkeys(partitions, LATEST))

    async def close(self) -> None:
        """See Reader."""
        self._positions = {}
        await self._drop_consumer()
        await self._endings.finish(END_S)

    def _take(self, max_bytes: int) -> list[Delivered]:
        records: list[Delivered] = []
        taken_bytes = 0
        while self._fetched:
            size = _size_bytes(self._fetched[0])
            if records and taken_bytes + size > max_bytes:
                break
            record = self._fetched.popleft()
            taken_bytes += size
            self._positions[record.partition] = record.offset + 1
            records.append(record)
        return records

    async def _fetch(self, deadline_s: float) -> None:
        """Wait for records, at most until the deadline or the next check."""
        loop = asyncio.get_running_loop()
        try:
            consumer = await self._at_positions()
            wait_s = max(0.0, min(deadline_s - loop.time(), _CHECK_S))
            async with asyncio.timeout(wait_s + _CHECK_TIMEOUT_S):
                found = await consumer.getmany(timeout_ms=int(wait_s * 1000))
        except OffsetOutOfRangeError:
            # Raised for an earlier assignment too: the bounds tell. Asked before the consumer is sought again.
            self._forget()
            await self._check_bounds()
            return
        except (KafkaError, OSError, TimeoutError) as error:
            await self._drop_consumer()
            raise BrokerUnavailable(f"Kafka does not answer the reader: {error!r}") from error
        except BaseException:
            self._forget()  # cancelled: what getmany had taken out is lost to us, so begin again at our positions
            raise
        self._accept(found)
        since_check_s = loop.time() - self._checked_s
        if since_check_s > (_CHECK_BUSY_S if self._fetched else _CHECK_S):
            await self._check_bounds()

    def _accept(self, found: Mapping[Any, list[Any]]) -> None:
        """Buffer what continues the positions; anything else means to seek again, and the second time a real gap."""
        for where, records in found.items():
            partition = where.partition
            for record in records:
                expected = self._fetch_positions[partition]
                if record.offset != expected:
                    if record.offset > expected and self._gaps.get(partition) == expected:
                        raise OffsetOutOfRange(
                            partition=partition, wanted=expected, first=record.offset, end=record.offset + 1
                        )
                    self._forget()
                    self._gaps[partition] = expected
                    return
                self._fetch_positions[partition] = expected + 1
                self._fetched.append(
                    Delivered(partition, record.offset, record.timestamp, list(record.headers), record.value or b"")
                )

    def _forget(self) -> None:
        """Drop what was fetched and seek before the next fetch."""
        self._fetched.clear()
        self._sought = False
        self._standing.clear()

    async def _at_positions(self) -> AIOKafkaConsumer:
        """The consumer, assigned and sought."""
        if self._consumer is None:
            consumer = AIOKafkaConsumer(
                **connection(self._settings, f"logfeed-reader-{self._group}"),
                group_id=None,
                enable_auto_commit=False,
                auto_offset_reset="none",
                fetch_max_wait_ms=_FETCH_WAIT_MS,
                fetch_max_bytes=_FETCH_BYTES_MAX,
                max_partition_fetch_bytes=BATCH_BYTES_MAX,
            )

            async def end() -> None:
                await _end_consumer(consumer)

            await start_whole(consumer.start(), end, self._endings, "consumer", self._timeout_s)
            self._consumer = consumer
        if not self._sought:
            await self._check_bounds()
            # No await from here on: a fetch between assign and the last seek would start nowhere.
            self._consumer.assign([TopicPartition(self._settings.topic, partition) for partition in self._positions])
            for partition, position in self._positions.items():
                self._consumer.seek(TopicPartition(self._settings.topic, partition), position)
            self._fetch_positions = dict(self._positions)
            self._sought = True
        return self._consumer

    async def _check_bounds(self) -> None:
        """Compare positions with what the broker has, where there is a leader to ask.

        Raises OffsetOutOfRange, or BrokerUnavailable for a stuck consumer.
        """
        timeout_s = min(self._timeout_s, _CHECK_TIMEOUT_S)
        end = await self._cluster.list_offsets(dict.fromkeys(self._positions, LATEST), timeout_s=timeout_s)
        first = await self._cluster.list_offsets(dict.fromkeys(self._positions, EARLIEST), timeout_s=timeout_s)
        now_s = asyncio.get_running_loop().time()
        self._checked_s = now_s
        known = end.keys() & first.keys()
        for partition, position in self._positions.items():
            if partition in known and not first[partition] <= position <= end[partition]:
                self._forget()
                raise OffsetOutOfRange(partition=partition, wanted=position, first=first[partition], end=end[partition])
        waiting = {record.partition for record in self._fetched}
        for partition, position in self._positions.items():
            stood_at, since_s = self._standing.get(partition, (-1, now_s))
            if partition not in known or position == end[partition] or partition in waiting:
                self._standing.pop(partition, None)
            elif stood_at != position:
                self._standing[partition] = (position, now_s)
            elif now_s - since_s > self._timeout_s:
                await self._drop_consumer()
                raise BrokerUnavailable(
                    f"partition {partition} has records from offset {position}, none came in {self._timeout_s:g} s"
                )

    async def _drop_consumer(self) -> None:
        self._forget()
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await self._endings.run(_end_consumer(consumer), "consumer")


async def _end_consumer(consumer: AIOKafkaConsumer) -> None:
    """End a consumer. Its `stop` may raise CancelledError of its own tasks and leave the connections open."""
    stopping = asyncio.ensure_future(consumer.stop())
    try:
        await asyncio.wait({stopping})
    finally:
        stopping.cancel()
    await consumer._client.close()


def _size_bytes(record: Delivered) -> int:
    return len(record.value) + sum(len(name) + len(value) for name, value in record.headers)
