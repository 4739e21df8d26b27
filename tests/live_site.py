"""A topic of either broker with a follower on it, and requests published as ingest publishes them."""

from __future__ import annotations

import asyncio
import hashlib
import os
import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, RecordsToDelete
from aiokafka.structs import TopicPartition

from broker.factory import make_broker
from broker.port import Broker, Producer, Record
from broker.queue import QueueBroker
from broker.settings import BrokerSettings
from db.database import Database
from live.events import Batch, Event, Gap
from live.follow import Follower, Subscription
from live.keys import StoredKeys
from live.settings import LiveSettings
from runtime.clock import SystemClock
from runtime.stopping import Stop
from schemas.frames import FrameHeader, ServiceCounts, encode_headers, encode_lines
from schemas.record import Log
from schemas.topics import WRITER_GROUP

DEADLINE_S = 30.0


async def eventually(condition: Callable[[], bool], what: Callable[[], str], timeout_s: float = DEADLINE_S) -> None:
    """Wait for a condition, with a deadline."""
    loop = asyncio.get_running_loop()
    ends_s = loop.time() + timeout_s
    while not condition():
        assert loop.time() < ends_s, what()
        await asyncio.sleep(0.02)


def logs_of(first: int, count: int, *, service: str = "shop") -> list[Log]:
    """Logs with the ids first…first + count - 1, of now."""
    now_us = SystemClock().now_us()
    return [Log(first + n, now_us, 9, service, f"message {first + n}", None, {"n": n}) for n in range(count)]


def frame_of(logs: Sequence[Log], *, key: str | None = None, body: str = "") -> Record:
    """One request's record."""
    counts: dict[str, ServiceCounts] = {}
    for one in logs:
        counts.setdefault(one.service_name, ServiceCounts()).received += 1
    header = FrameHeader(
        frame_id=os.urandom(16),
        received_ms=SystemClock().now_us() // 1000,
        counts=counts,
        key_hash=None if key is None else hashlib.sha256(key.encode()).digest(),
        body_sha256=None if key is None else hashlib.sha256(body.encode()).digest(),
    )
    return Record(encode_lines(logs), encode_headers(header))


@dataclass
class Topic:
    """One topic of a running server."""

    kind: str
    address: str
    stack: AsyncExitStack
    partitions: int = 2
    name: str = field(default_factory=lambda: f"live-{uuid.uuid4().hex}")
    next_id: int = 1

    async def open(self) -> None:
        """Make it."""
        self.broker = await self.new_broker()
        self.producer: Producer = await self.broker.producer()
        self.stack.push_async_callback(self.producer.close)

    async def new_broker(self) -> Broker:
        """Another client of the topic."""
        place = {"bootstrap": self.address} if self.kind == "kafka" else {}
        database = await self.database() if self.kind == "queue" else None
        settings = BrokerSettings.model_validate(
            {"kind": self.kind, "topic": self.name, "partitions": self.partitions, "request_timeout_ms": 5_000, **place}
        )
        broker = make_broker(settings, database)
        self.stack.push_async_callback(broker.close)
        await broker.open()
        return broker

    async def database(self) -> Database:
        """The queue's."""
        database = Database(self.address, application_name="live test", connections_max=10, wait_s=2.0)
        await database.open()
        self.stack.push_async_callback(database.close)
        return database

    @asynccontextmanager
    async def follower(self, *, stored_keys: StoredKeys | None = None, **settings: Any) -> AsyncIterator[Follower]:
        """One that runs."""
        chosen = LiveSettings.model_validate({"look_again_s": 0.3, **settings})
        follower = Follower(await self.new_broker(), chosen, group="live test", stored_keys=stored_keys)
        stop = Stop()
        running = asyncio.create_task(follower.run(stop))
        try:
            yield follower
        finally:
            stop.set()
            await running

    async def send(self, count: int = 1, *, service: str = "shop", key: str | None = None) -> list[int]:
        """One request; the ids of its logs."""
        logs = logs_of(self.next_id, count, service=service)
        self.next_id += count
        await self.publish(frame_of(logs, key=key), key=key)
        return [log.id for log in logs]

    async def publish(self, record: Record, *, key: str | None = None) -> tuple[int, int]:
        """Where it lies."""
        return await self.producer.publish(record, partition_key=None if key is None else key.encode())

    async def forget_everything(self) -> None:
        """Delete all records, as retention would."""
        reader = await self.broker.reader(group="test")
        ends = await reader.end_offsets(range(self.broker.partitions))
        await reader.close()
        if isinstance(self.broker, QueueBroker):
            database = await self.database()
            patient = BrokerSettings(topic=self.name, queue_keep_s=0.001, queue_bytes_max=1024)
            queue = QueueBroker(database, patient)
            await queue.open()
            await queue.commit_group(WRITER_GROUP, ends)
            await queue.upkeep()
            await queue.upkeep()
            return
        admin = AIOKafkaAdminClient(bootstrap_servers=self.address)
        await admin.start()
        try:
            records = {TopicPartition(self.name, partition): RecordsToDelete(end) for partition, end in ends.items()}
            await admin.delete_records(records)
        finally:
            await admin.close()

    async def grow(self, partitions: int) -> None:
        """Add partitions."""
        if self.kind == "kafka":
            admin = AIOKafkaAdminClient(bootstrap_servers=self.address)
            await admin.start()
            try:
                await admin.create_partitions({self.name: NewPartitions(total_count=partitions)})
            finally:
                await admin.close()
            return
        await (await self.database()).execute(
            "INSERT INTO queue_partitions (topic, partition, slot)"
            " SELECT topic, number, slot FROM queue_partitions, generate_series(%s::integer, %s::integer) AS number"
            " WHERE topic = %s AND partition = 0",
            (self.partitions, partitions - 1, self.name),
        )


class Seen:
    """What a subscription gave, while it is read."""

    def __init__(self, positions: Mapping[int, int] | None = None) -> None:
        """positions: where it begins."""
        self.events: list[Event] = []
        self.positions: dict[int, int] = dict(positions or {})

    @property
    def ids(self) -> list[int]:
        """Of the logs, in the order in which they came."""
        return [log.id for event in self.events if isinstance(event, Batch) for log in event.logs]

    @property
    def gaps(self) -> list[Gap]:
        """In order."""
        return [event for event in self.events if isinstance(event, Gap)]

    def check_order(self) -> None:
        """Each partition's events follow one another: nothing is missing and nothing comes twice."""
        following: dict[int, int] = {}
        for event in self.events:
            assert following.get(event.partition, event.offset) == event.offset
            following[event.partition] = event.next_offset

    async def read(self, subscription: Subscription) -> None:
        """Until cancelled."""
        async for event in subscription:
            self.events.append(event)
            self.positions = subscription.positions

    async def until(self, ids: Sequence[int]) -> None:
        """Wait until so many logs came."""
        await eventually(lambda: len(self.ids) >= len(ids), lambda: f"{len(self.ids)} of {len(ids)} logs came")


@asynccontextmanager
async def seeing(follower: Follower, positions: dict[int, int] | None = None) -> AsyncIterator[Seen]:
    """A subscription that is read, begun."""
    seen = Seen(positions)
    async with follower.subscribe(positions) as subscription:
        reading = asyncio.create_task(seen.read(subscription))
        try:
            if positions is None:
                await eventually(lambda: bool(subscription.positions), lambda: "the live end is known")
            yield seen
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
