"""What derived topics owe their users (broker/topics.py), held against both adapters on real servers."""

from __future__ import annotations

import asyncio
import uuid
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic, RecordsToDelete
from aiokafka.structs import TopicPartition

from broker.factory import make_topics
from broker.port import Delivered
from broker.settings import BrokerSettings
from broker.topics import Extent, TopicRecord, Topics
from db.database import Database
from schemas.errors import BrokerUnavailable, ConfigurationError, OffsetOutOfRange
from tests.fleets import OwnBroker
from tests.live_site import eventually

pytestmark = pytest.mark.timeout(120)
MIB = 1024 * 1024


@dataclass
class Bench:
    """Topics of a server of one kind."""

    kind: str
    address: str
    stack: AsyncExitStack
    name: str = field(default_factory=lambda: f"derived-{uuid.uuid4().hex}")

    async def topics(self, **settings: Any) -> Topics:
        place = {"bootstrap": self.address} if self.kind == "kafka" else {}
        chosen = {"kind": self.kind, "derived_partitions": 2, "request_timeout_ms": 5_000, **place, **settings}
        database = await self.database() if self.kind == "queue" else None
        topics = make_topics(BrokerSettings.model_validate(chosen), database)
        self.stack.push_async_callback(topics.close)
        return topics

    async def database(self) -> Database:
        database = Database(self.address, application_name="topics test", connections_max=10, wait_s=2.0)
        await database.open()
        self.stack.push_async_callback(database.close)
        return database

    async def admin(self) -> AIOKafkaAdminClient:
        admin = AIOKafkaAdminClient(bootstrap_servers=self.address)
        await admin.start()
        self.stack.push_async_callback(admin.close)
        return admin

    async def forget(self, topics: Topics) -> None:
        """Let go all that is past retention, which is everything."""
        if self.kind == "queue":
            hasty = await self.topics(derived_retention_h=1e-9)
            for _ in range(8):
                await hasty.upkeep()
            return
        ends = (await topics.extents([self.name]))[self.name]
        await (await self.admin()).delete_records(
            {TopicPartition(self.name, partition): RecordsToDelete(end.next) for partition, end in ends.items()}
        )

    def record(self, number: int, *, key: str = "shop", topic: str | None = None) -> TopicRecord:
        return TopicRecord(topic or self.name, key.encode(), b"value %d" % number, [("n", b"%d" % number)])


@pytest.fixture(params=["queue", pytest.param("kafka", marks=pytest.mark.kafka)])
def place(request: pytest.FixtureRequest) -> tuple[str, str]:
    fixture = {"queue": "native_url", "kafka": "kafka_bootstrap"}[request.param]
    return request.param, request.getfixturevalue(fixture)


@pytest.fixture
async def bench(place: tuple[str, str]) -> AsyncIterator[Bench]:
    async with AsyncExitStack() as stack:
        yield Bench(*place, stack)


async def read_all(
    topics: Topics, name: str, positions: Mapping[int, int], count: int, *, max_bytes: int = MIB
) -> list[Delivered]:
    """So many records from there on."""
    reader = await topics.reader(name)
    try:
        await reader.seek(positions)
        found: list[Delivered] = []
        async with asyncio.timeout(30):
            while len(found) < count:
                found += await reader.poll(max_bytes=max_bytes, wait_ms=500)
        return found
    finally:
        await reader.close()


async def test_what_was_published_is_there_in_order_of_each_key(bench: Bench) -> None:
    topics = await bench.topics()
    await topics.ensure([bench.name])
    await topics.ensure([bench.name])  # harmless
    keys = ["shop", "mail", "pay/api"]
    for first in (0, 60):
        await topics.publish([bench.record(number, key=keys[number % 3]) for number in range(first, first + 60)])
    extents = (await topics.extents([bench.name, "no-such-topic"]))[bench.name]
    assert sum(extent.next - extent.first for extent in extents.values()) == 120
    assert all(extent.first == 0 for extent in extents.values())
    assert len(extents) == await topics.partitions(bench.name) == (2 if bench.kind == "kafka" else 1)
    found = await read_all(topics, bench.name, dict.fromkeys(extents, 0), 120, max_bytes=2_000)
    by_partition: defaultdict[int, list[int]] = defaultdict(list)
    by_key: defaultdict[int, list[int]] = defaultdict(list)
    for record in found:
        number = int(dict(record.headers)["n"])
        assert record.value == b"value %d" % number
        assert record.append_ms > 1_700_000_000_000
        by_partition[record.partition].append(record.offset)
        by_key[number % 3].append(number)
    for partition, offsets in by_partition.items():
        assert offsets == list(range(extents[partition].next)), "no offset is missing"
    assert all(numbers == sorted(numbers) and len(numbers) == 40 for numbers in by_key.values())


async def test_one_call_fills_several_topics(bench: Bench) -> None:
    topics = await bench.topics()
    names = [f"{bench.name}-{letter}" for letter in "abc"]
    await topics.ensure(names)
    assert await topics.names() >= set(names)
    await topics.publish([bench.record(number, topic=names[number % 3]) for number in range(9)])
    for place, name in enumerate(names):
        extents = (await topics.extents([name]))[name]
        found = await read_all(topics, name, dict.fromkeys(extents, 0), 3)
        assert [int(dict(record.headers)["n"]) for record in found] == [place, place + 3, place + 6]


async def test_who_goes_on_behind_the_last_one_misses_nothing_while_others_publish(bench: Bench) -> None:
    topics = await bench.topics()
    await topics.ensure([bench.name])
    publishers = [await bench.topics() for _ in range(3)]

    async def publish(number: int) -> None:
        for each in range(20):
            await publishers[number].publish([bench.record(number * 1_000 + each, key=f"k{number}")])

    publishing = asyncio.gather(*map(publish, range(3)))
    partitions = range(await topics.partitions(bench.name))
    positions = dict.fromkeys(partitions, 0)
    seen: list[int] = []
    async with asyncio.timeout(60):
        while len(seen) < 60:
            reader = await topics.reader(bench.name)
            await reader.seek(positions)
            for record in await reader.poll(max_bytes=1_000, wait_ms=1_000):
                assert record.offset == positions[record.partition]
                positions[record.partition] += 1
                seen.append(int(dict(record.headers)["n"]))
            await reader.close()
    await publishing
    assert sorted(seen) == [number * 1_000 + each for number in range(3) for each in range(20)]


async def test_the_largest_log_fits(bench: Bench) -> None:
    topics = await bench.topics()
    await topics.ensure([bench.name])
    large = TopicRecord(bench.name, b"shop", b"x" * (2 * MIB), [("v", b"1")])
    await topics.publish([bench.record(1), large, bench.record(2), large])
    extents = (await topics.extents([bench.name]))[bench.name]
    found = await read_all(topics, bench.name, dict.fromkeys(extents, 0), 4)
    assert [len(record.value) for record in found] == [7, 2 * MIB, 7, 2 * MIB]


async def test_expired_records_are_said_to_be_gone_and_new_ones_follow(bench: Bench) -> None:
    topics = await bench.topics()
    await topics.ensure([bench.name])
    await topics.publish([bench.record(number) for number in range(5)])
    (partition, before), *_ = [
        (partition, extent)
        for partition, extent in (await topics.extents([bench.name]))[bench.name].items()
        if extent.next
    ]
    await bench.forget(topics)
    assert (await topics.extents([bench.name]))[bench.name][partition] == Extent(5, 5)
    reader = await topics.reader(bench.name)
    try:
        for wanted in (before.first, 4, 6):
            await reader.seek({partition: wanted})
            with pytest.raises(OffsetOutOfRange) as raised:
                await reader.poll(max_bytes=MIB, wait_ms=20_000)
            assert (raised.value.wanted, raised.value.first) == (wanted, 5)
    finally:
        await reader.close()
    await topics.publish([bench.record(9)])
    assert [record.offset for record in await read_all(topics, bench.name, {partition: 5}, 1)] == [5]


async def test_a_missing_topic_is_an_error_where_none_may_be_made(bench: Bench) -> None:
    topics = await bench.topics(create_topic=False)
    with pytest.raises(ConfigurationError, match=bench.name):
        await topics.ensure([bench.name])
    assert await topics.partitions(bench.name) == 0
    assert not await topics.extents([bench.name])
    other = await bench.topics()
    await other.ensure([bench.name])
    await topics.ensure([bench.name])


@pytest.mark.kafka
async def test_a_topic_that_cannot_take_every_log_is_an_error(kafka_bootstrap: str) -> None:
    async with AsyncExitStack() as stack:
        bench = Bench("kafka", kafka_bootstrap, stack)
        small = NewTopic(bench.name, 1, 1, topic_configs={"max.message.bytes": "1000000"})
        await (await bench.admin()).create_topics([small])
        topics = await bench.topics()
        with pytest.raises(ConfigurationError, match=r"max\.message\.bytes is 1000000, expected at least"):
            await topics.ensure([bench.name])


async def test_tables_never_take_more_than_their_bytes(native_url: str) -> None:
    """Whoever publishes does not wait for the minute of upkeep."""
    async with AsyncExitStack() as stack:
        bench = Bench("queue", native_url, stack)
        topics = await bench.topics(derived_bytes_max=8 * 64 * 1024)
        await topics.ensure([bench.name])
        database = await bench.database()
        for number in range(40):
            await topics.publish([TopicRecord(bench.name, b"k", b"v" * 32 * 1024, [("n", b"%d" % number)])])
            (size,) = await database.fetch_one("SELECT sum(octet_length(value)) FROM topic_records") or (0,)
            assert size <= 8 * 64 * 1024 + 32 * 1024
        extent = (await topics.extents([bench.name]))[bench.name][0]
        assert extent.next == 40
        assert 0 < extent.first <= 40 - 7 * 2
        found = await read_all(topics, bench.name, {0: extent.first}, 40 - extent.first, max_bytes=100_000)
        assert [int(dict(record.headers)["n"]) for record in found] == list(range(extent.first, 40))


@pytest.mark.long
async def test_away_servers_are_said_and_used_again_when_they_are_back(own_broker: OwnBroker) -> None:
    async with AsyncExitStack() as stack:
        bench = Bench(own_broker.kind, own_broker.address, stack)
        topics = await bench.topics(request_timeout_ms=3_000)
        await topics.ensure([bench.name])
        await topics.publish([bench.record(1)])
        await asyncio.to_thread(own_broker.kill)
        with pytest.raises(BrokerUnavailable):
            await topics.publish([bench.record(2)])
        with pytest.raises(BrokerUnavailable):
            await topics.extents([bench.name])
        with pytest.raises(BrokerUnavailable):
            await topics.ensure([bench.name])
        await asyncio.to_thread(own_broker.bring_back)
        is_there = False

        async def publish() -> None:
            nonlocal is_there
            while not is_there:
                try:
                    await topics.publish([bench.record(3)])
                    is_there = True
                except BrokerUnavailable:
                    await asyncio.sleep(0.1)

        publishing = asyncio.create_task(publish())
        await eventually(lambda: is_there, lambda: "it publishes again", 60)
        await publishing
        extents = (await topics.extents([bench.name]))[bench.name]
        count = sum(extent.next for extent in extents.values())
        found = await read_all(topics, bench.name, dict.fromkeys(extents, 0), count)
        numbers = [int(dict(record.headers)["n"]) for record in found]
        assert numbers[0] == 1
        assert 3 in numbers
