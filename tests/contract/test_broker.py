"""What every broker owes its users (broker/port.py), held against both adapters on real servers."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import structlog
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic, RecordsToDelete
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import NotControllerError
from aiokafka.structs import TopicPartition

from broker.factory import make_broker
from broker.kafka import KafkaBroker
from broker.kafka_producer import KafkaProducer
from broker.port import Broker, Delivered, Producer, Reader, Record
from broker.queue import REFUSE_AT, UPKEEP_LOCK, QueueBroker
from broker.queue_reader import QueueReader
from broker.settings import BrokerSettings
from db.database import Database
from runtime.telemetry import REGISTRY
from schemas.errors import BrokerUnavailable, ConfigurationError, OffsetOutOfRange, Overloaded, RecordTooLarge
from schemas.frames import FRAME_BYTES_MAX
from schemas.topics import WRITER_GROUP
from tests.fleets import Fleets, OwnBroker

DEADLINE_S = 20.0
MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Backend:
    """A running server of one kind."""

    kind: str
    address: str


class Bench:
    """Makes brokers, producers and readers of one topic and closes them all."""

    def __init__(self, backend: Backend, stack: AsyncExitStack) -> None:
        self.backend = backend
        self.topic = f"t-{uuid.uuid4().hex}"
        self._stack = stack

    async def unopened(self, **settings: Any) -> Broker:
        place = {"bootstrap": self.backend.address} if self.backend.kind == "kafka" else {}
        chosen = {"topic": self.topic, "partitions": 3, "request_timeout_ms": 10_000, **place, **settings}
        database = await self.database() if self.backend.kind == "queue" else None
        broker = make_broker(BrokerSettings(kind=self.backend.kind, **chosen), database)
        self._stack.push_async_callback(broker.close)
        return broker

    async def broker(self, **settings: Any) -> Broker:
        broker = await self.unopened(**settings)
        await broker.open()
        return broker

    async def database(self) -> Database:
        database = Database(self.backend.address, application_name="test", connections_max=20, wait_s=2.0)
        await database.open()
        self._stack.push_async_callback(database.close)
        return database

    @contextlib.asynccontextmanager
    async def admin(self) -> AsyncIterator[AIOKafkaAdminClient]:
        admin = AIOKafkaAdminClient(bootstrap_servers=self.backend.address)
        await admin.start()
        try:
            yield admin
        finally:
            await admin.close()

    async def producer(self, broker: Broker) -> Producer:
        producer = await broker.producer()
        self._stack.push_async_callback(producer.close)
        return producer

    async def reader(self, broker: Broker, positions: Mapping[int, int] | None = None) -> Reader:
        reader = await broker.reader(group="readers")
        self._stack.push_async_callback(reader.close)
        await reader.seek(dict.fromkeys(range(broker.partitions), 0) if positions is None else positions)
        return reader

    async def forget_everything(self, broker: Broker, end: Mapping[int, int]) -> None:
        """Make the broker delete all records there are, as retention would."""
        if isinstance(broker, QueueBroker):
            await broker.commit_group(WRITER_GROUP, end)
            await broker.upkeep()
            await broker.upkeep()
            return
        admin = AIOKafkaAdminClient(bootstrap_servers=self.backend.address)
        await admin.start()
        try:
            await admin.delete_records(
                {TopicPartition(self.topic, partition): RecordsToDelete(offset) for partition, offset in end.items()}
            )
        finally:
            await admin.close()


@pytest.fixture(params=["queue", pytest.param("kafka", marks=pytest.mark.kafka)])
def backend(request: pytest.FixtureRequest) -> Backend:
    fixture = {"queue": "native_url", "kafka": "kafka_bootstrap"}[request.param]
    return Backend(request.param, request.getfixturevalue(fixture))


@pytest.fixture
async def bench(backend: Backend) -> AsyncIterator[Bench]:
    async with AsyncExitStack() as stack:
        yield Bench(backend, stack)


@pytest.fixture
async def queue(native_url: str) -> AsyncIterator[Bench]:
    async with AsyncExitStack() as stack:
        yield Bench(Backend("queue", native_url), stack)


@pytest.fixture
async def kafka(kafka_bootstrap: str) -> AsyncIterator[Bench]:
    async with AsyncExitStack() as stack:
        yield Bench(Backend("kafka", kafka_bootstrap), stack)


def backend_of(broker: OwnBroker) -> Backend:
    return Backend(broker.kind, broker.address)


async def read(reader: Reader, count: int, *, max_bytes: int = 64 * MIB) -> list[Delivered]:
    """Poll until `count` records came; fails at the deadline."""
    records: list[Delivered] = []
    deadline_s = time.monotonic() + DEADLINE_S
    while len(records) < count:
        assert time.monotonic() < deadline_s, f"{len(records)} of {count} records came"
        records += await reader.poll(max_bytes=max_bytes, wait_ms=200)
    return records


async def eventually(condition: Callable[[], Awaitable[bool]], deadline_s: float = DEADLINE_S) -> None:
    end_s = time.monotonic() + deadline_s
    while not await condition():
        assert time.monotonic() < end_s, "the condition did not come true in time"
        await asyncio.sleep(0.02)


def record(text: str | bytes = b"", size: int = 0) -> Record:
    value = text.encode() if isinstance(text, str) else text
    return Record(value + bytes(max(0, size - len(value))), [("v", b"1")])


def by_partition(records: list[Delivered]) -> dict[int, list[int]]:
    offsets: dict[int, list[int]] = {}
    for each in records:
        offsets.setdefault(each.partition, []).append(each.offset)
    return offsets


# ---- publishing


async def test_offsets_begin_at_zero_without_gaps_and_are_read_in_order(bench: Bench) -> None:
    broker = await bench.broker()
    producer = await bench.producer(broker)
    acknowledged = [await producer.publish(record(f"{n}"), partition_key=b"k") for n in range(10)]
    acknowledged += await asyncio.gather(*(producer.publish(record(f"{n}"), partition_key=b"k") for n in range(10, 40)))
    partition = acknowledged[0][0]
    assert sorted(acknowledged) == [(partition, offset) for offset in range(40)]
    records = await read(await bench.reader(broker), 40)
    assert [each.offset for each in records] == list(range(40))
    assert {each.offset: each.value for each in records} == {
        offset: f"{n}".encode() for n, (_, offset) in enumerate(acknowledged)
    }


async def test_acknowledged_record_is_there_for_everybody_at_once(bench: Bench) -> None:
    broker, other = await bench.broker(), await bench.broker()
    producer = await bench.producer(broker)
    reader = await bench.reader(other)
    for n in range(5):
        partition, offset = await producer.publish(record(f"{n}"), partition_key=None)
        assert (await reader.end_offsets([partition]))[partition] >= offset + 1


async def test_key_chooses_the_partition_for_ever(bench: Bench) -> None:
    first, second = await bench.broker(), await bench.broker()
    one, two = await bench.producer(first), await bench.producer(second)
    keys = [f"key {n}".encode() for n in range(20)]
    chosen = [(await one.publish(record(), partition_key=key))[0] for key in keys]
    assert [(await two.publish(record(), partition_key=key))[0] for key in keys] == chosen
    assert set(chosen) == {0, 1, 2}


async def test_records_without_key_go_round(bench: Bench) -> None:
    broker = await bench.broker()
    producer = await bench.producer(broker)
    chosen = [(await producer.publish(record(), partition_key=None))[0] for _ in range(9)]
    assert all(chosen.count(partition) == 3 for partition in range(3))


async def until_led(reader: Reader) -> None:
    """Each partition of a new topic has a leader; until then its offsets are not answered."""
    deadline = time.monotonic() + 30
    while len(await reader.end_offsets(range(3))) < 3:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


async def test_record_too_large_is_refused_before_anything_is_sent(bench: Bench) -> None:
    broker = await bench.broker()
    producer = await bench.producer(broker)
    with pytest.raises(RecordTooLarge, match=str(FRAME_BYTES_MAX)):
        await producer.publish(record(size=FRAME_BYTES_MAX - 1), partition_key=None)  # its header counts too
    assert producer.bytes_in_flight == 0
    reader = await bench.reader(broker)
    await until_led(reader)
    assert await reader.end_offsets(range(3)) == {0: 0, 1: 0, 2: 0}


async def test_largest_frame_comes_through_and_exceeds_max_bytes_alone(bench: Bench) -> None:
    broker = await bench.broker()
    producer = await bench.producer(broker)
    value = os.urandom(FRAME_BYTES_MAX - 2)
    await producer.publish(Record(value, [("v", b"1")]), partition_key=b"k")
    await producer.publish(record("small"), partition_key=b"k")
    records = await read(await bench.reader(broker), 1, max_bytes=1000)
    assert len(records) == 1
    assert records[0].value == value


async def test_overload_is_refused_before_sending_and_counted_exactly(bench: Bench) -> None:
    broker = await bench.broker(in_flight_bytes_max=16 * MIB)
    producer = await bench.producer(broker)
    large = record(size=6 * MIB)
    sends = [asyncio.create_task(producer.publish(large, partition_key=b"k")) for _ in range(2)]
    await asyncio.sleep(0)
    assert producer.bytes_in_flight == 2 * large.size_bytes
    with pytest.raises(Overloaded) as refusal:
        await producer.publish(large, partition_key=b"k")
    assert not isinstance(refusal.value, BrokerUnavailable)
    assert sorted(offset for _, offset in await asyncio.gather(*sends)) == [0, 1]
    assert producer.bytes_in_flight == 0
    assert sum((await (await bench.reader(broker)).end_offsets(range(3))).values()) == 2


async def test_cancelled_caller_leaves_the_send_and_the_count_alone(bench: Bench) -> None:
    broker = await bench.broker()
    producer = await bench.producer(broker)
    sends = [asyncio.create_task(producer.publish(record(f"{n}"), partition_key=b"k")) for n in range(20)]
    await asyncio.sleep(0)
    for send in sends[::2]:
        send.cancel()
    done = await asyncio.gather(*sends, return_exceptions=True)
    assert [isinstance(each, asyncio.CancelledError) for each in done] == [n % 2 == 0 for n in range(20)]
    records = await read(await bench.reader(broker), 20)
    assert sorted(int(each.value) for each in records) == list(range(20))

    async def nothing_in_flight() -> bool:
        return producer.bytes_in_flight == 0

    await eventually(nothing_in_flight)


async def test_two_producers_share_partitions_without_loss_or_gap(bench: Bench) -> None:
    broker, other = await bench.broker(), await bench.broker()
    producers = [await bench.producer(broker), await bench.producer(other)]
    acknowledged = await asyncio.gather(
        *(producers[n % 2].publish(record(f"{n}", size=n * 50), partition_key=None) for n in range(200))
    )
    records = await read(await bench.reader(broker), 200)
    assert len(set(acknowledged)) == 200
    assert {(each.partition, each.offset) for each in records} == set(acknowledged)
    for offsets in by_partition(records).values():
        assert offsets == list(range(len(offsets)))


async def test_headers_and_values_come_back_as_they_were(bench: Bench) -> None:
    broker = await bench.broker()
    producer = await bench.producer(broker)
    headers = [("frame", bytes(range(256))), ("empty", b""), ("frame", b"again"), ("ünicode", "日本".encode())]
    await producer.publish(Record(b"\x00\xff\n", headers), partition_key=b"k")
    await producer.publish(Record(b"", [("counts", b"{}")]), partition_key=b"k")
    await producer.publish(Record(b"", []), partition_key=b"k")
    records = await read(await bench.reader(broker), 3)
    assert [(each.value, each.headers) for each in records] == [
        (b"\x00\xff\n", headers),
        (b"", [("counts", b"{}")]),
        (b"", []),
    ]


async def test_append_times_are_the_brokers_and_do_not_decrease(bench: Bench) -> None:
    broker = await bench.broker()
    producer = await bench.producer(broker)
    before_ms = time.time_ns() // 1_000_000
    for n in range(10):
        await producer.publish(record(f"{n}"), partition_key=b"k")
    times = [each.append_ms for each in await read(await bench.reader(broker), 10)]
    assert times == sorted(times)
    assert before_ms - 1000 <= times[0] <= times[-1] <= time.time_ns() // 1_000_000 + 1000


async def test_closing_flushes_and_refuses_afterwards(bench: Bench) -> None:
    broker = await bench.broker()
    producer = await broker.producer()
    sends = [asyncio.create_task(producer.publish(record(), partition_key=None)) for _ in range(30)]
    await asyncio.sleep(0)
    await producer.close()
    assert len(set(await asyncio.gather(*sends))) == 30
    with pytest.raises(BrokerUnavailable):
        await producer.publish(record(), partition_key=None)
    assert producer.bytes_in_flight == 0


# ---- reading


async def publish_numbers(bench: Bench, broker: Broker, count: int) -> int:
    """`count` small records in one partition, numbered like their offsets; returns the partition."""
    producer = await bench.producer(broker)
    done = [await producer.publish(record(f"{n}"), partition_key=b"k") for n in range(count)]
    assert [offset for _, offset in done] == list(range(count))
    return done[0][0]


async def test_seek_back_and_forth_returns_nothing_stale(bench: Bench) -> None:
    broker = await bench.broker()
    partition = await publish_numbers(bench, broker, 30)
    others = [each for each in range(3) if each != partition]
    reader = await bench.reader(broker, {})
    for turn in range(25):
        start = (turn * 17) % 30
        await reader.seek({partition: start} | ({others[turn % 2]: 0} if turn % 3 else {}))
        if turn % 4 == 3:
            continue  # sought again before anything was read
        taken = await read(reader, 1, max_bytes=10 if turn % 2 else 64 * MIB)
        assert [each.offset for each in taken] == list(range(start, start + len(taken)))
        assert all(each.value == str(each.offset).encode() for each in taken)


async def test_seek_replaces_the_whole_assignment(bench: Bench) -> None:
    broker = await bench.broker()
    producer = await bench.producer(broker)
    for _ in range(12):
        await producer.publish(record(), partition_key=None)
    reader = await bench.reader(broker)
    assert by_partition(await read(reader, 12)) == {0: [0, 1, 2, 3], 1: [0, 1, 2, 3], 2: [0, 1, 2, 3]}
    await reader.seek({1: 2})
    assert by_partition(await read(reader, 2)) == {1: [2, 3]}
    for _ in range(3):
        await producer.publish(record(), partition_key=None)
    assert by_partition(await read(reader, 1)) == {1: [4]}
    assert await reader.poll(max_bytes=MIB, wait_ms=100) == []
    await reader.seek({0: 4, 2: 1})
    assert by_partition(await read(reader, 5)) == {0: [4], 2: [1, 2, 3, 4]}
    await reader.seek({})
    assert await reader.poll(max_bytes=MIB, wait_ms=50) == []


async def test_poll_waits_as_told_and_wakes_for_a_record(bench: Bench) -> None:
    broker = await bench.broker()
    producer = await bench.producer(broker)
    reader = await bench.reader(broker)
    await reader.poll(max_bytes=MIB, wait_ms=0)
    begun_s = time.monotonic()
    assert await reader.poll(max_bytes=MIB, wait_ms=300) == []
    assert 0.25 <= time.monotonic() - begun_s < 3.0
    waiting = asyncio.create_task(reader.poll(max_bytes=MIB, wait_ms=15_000))
    await producer.publish(record("now"), partition_key=None)
    assert [each.value for each in await asyncio.wait_for(waiting, 5.0)] == [b"now"]


async def test_an_idle_queue_is_asked_no_more_often_for_being_polled_often(
    queue: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of six processes follows the queue by short polls."""
    broker = await queue.broker()
    reader = await queue.reader(broker)
    await reader.seek({0: 0})
    reads, polls, read = 0, 20, QueueReader._read

    async def counted(reader: QueueReader, max_bytes: int) -> list[Delivered]:
        nonlocal reads
        reads += 1
        return await read(reader, max_bytes)

    monkeypatch.setattr(QueueReader, "_read", counted)
    for _ in range(polls):
        assert await reader.poll(max_bytes=MIB, wait_ms=20) == []
    assert polls <= reads < 2 * polls


async def test_cancelled_poll_loses_nothing(bench: Bench) -> None:
    broker = await bench.broker()
    await publish_numbers(bench, broker, 60)
    reader = await bench.reader(broker)
    numbers: list[int] = []
    for turn in range(1000):
        poll = asyncio.create_task(reader.poll(max_bytes=10, wait_ms=200))
        done, _ = await asyncio.wait({poll}, timeout=(turn % 7) * 0.002)
        if not done:
            poll.cancel()
        for each in await asyncio.gather(poll, return_exceptions=True):
            if isinstance(each, list):
                numbers += [int(one.value) for one in each]
            else:
                assert isinstance(each, asyncio.CancelledError)
        if len(numbers) >= 60:
            break
    assert numbers == list(range(60))


async def test_max_bytes_bounds_a_poll_and_no_partition_starves(bench: Bench) -> None:
    broker = await bench.broker()
    producer = await bench.producer(broker)
    await asyncio.gather(*(producer.publish(record(size=10_000), partition_key=None) for _ in range(60)))
    reader = await bench.reader(broker)
    seen: list[Delivered] = []
    while len(seen) < 60:
        records = await reader.poll(max_bytes=45_000, wait_ms=2000)
        assert 1 <= len(records) <= 4
        seen += records
    for offsets in by_partition(seen).values():
        assert offsets == list(range(20))


async def test_readers_do_not_disturb_one_another(bench: Bench) -> None:
    broker = await bench.broker()
    partition = await publish_numbers(bench, broker, 20)
    one, two = await bench.reader(broker), await bench.reader(broker, {partition: 10})
    both = await asyncio.gather(read(one, 20), read(two, 10))
    assert [[each.offset for each in records] for records in both] == [list(range(20)), list(range(10, 20))]


async def test_position_past_the_end_is_an_error(bench: Bench) -> None:
    broker = await bench.broker()
    partition = await publish_numbers(bench, broker, 3)
    reader = await bench.reader(broker, {partition: 3})
    assert await reader.poll(max_bytes=MIB, wait_ms=50) == []
    await reader.seek({partition: 4})
    for _ in range(2):
        with pytest.raises(OffsetOutOfRange) as found:
            await reader.poll(max_bytes=MIB, wait_ms=2000)
        assert (found.value.partition, found.value.wanted, found.value.first, found.value.end) == (partition, 4, 0, 3)
    await reader.seek({partition: 2})
    assert [each.offset for each in await read(reader, 1)] == [2]


async def test_deleted_records_are_an_error_never_a_silent_gap(bench: Bench) -> None:
    broker = await bench.broker(queue_bytes_max=1024, queue_keep_s=0.001)
    partition = await publish_numbers(bench, broker, 5)
    under_way = await bench.reader(broker, {partition: 0})
    assert len(await under_way.poll(max_bytes=1, wait_ms=5000)) == 1
    ends = await under_way.end_offsets(range(3))
    await bench.forget_everything(broker, ends)
    producer = await bench.producer(broker)
    await producer.publish(record("after"), partition_key=b"k")
    fresh = await bench.reader(broker, {partition: 2})
    with pytest.raises(OffsetOutOfRange) as found:
        await fresh.poll(max_bytes=MIB, wait_ms=2000)
    assert (found.value.first, found.value.end) == (5, 6)
    # This one may have fetched more before they were deleted, as the port allows: that comes in order and without a gap. What
    # nobody may do is skip, and who asks anew must be told.
    following: list[int] = []
    with contextlib.suppress(OffsetOutOfRange):
        while len(following) < 5:
            following += [each.offset for each in await under_way.poll(max_bytes=MIB, wait_ms=2000)]
    assert following in ([], [1, 2, 3, 4, 5])
    assert (await fresh.first_offsets([partition]), await fresh.end_offsets([partition])) == (
        {partition: 5},
        {partition: 6},
    )
    await fresh.seek({partition: 5})
    assert [each.value for each in await read(fresh, 1)] == [b"after"]


@pytest.mark.kafka
async def test_topic_made_anew_is_noticed_by_its_readers(kafka: Bench) -> None:
    broker = await kafka.broker(request_timeout_ms=3000)
    partition = await publish_numbers(kafka, broker, 5)
    reader = await kafka.reader(broker, {partition: 0})
    await read(reader, 5)
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.backend.address)
    await admin.start()
    await admin.delete_topics([kafka.topic])

    async def made_anew() -> bool:
        answer = await admin.create_topics([NewTopic(kafka.topic, 3, 1)])
        return all(code == 0 for _, code, *_ in answer.topic_errors)

    await eventually(made_anew)
    await admin.close()

    async def noticed() -> bool:
        try:
            assert await reader.poll(max_bytes=MIB, wait_ms=200) == []
        except BrokerUnavailable:
            return False
        except OffsetOutOfRange as error:
            return (error.wanted, error.first, error.end) == (5, 0, 0)
        return False

    await eventually(noticed)


async def test_bounds_of_an_empty_topic_are_zero(bench: Bench) -> None:
    broker = await bench.broker()
    reader = await bench.reader(broker)
    await until_led(reader)
    assert await reader.first_offsets(range(3)) == await reader.end_offsets(range(3)) == {0: 0, 1: 0, 2: 0}
    assert await reader.first_offsets([]) == {}


# ---- groups


async def test_group_offsets_are_kept_per_group_and_partition(bench: Bench) -> None:
    broker, other = await bench.broker(), await bench.broker()
    producer = await bench.producer(broker)  # one: its round robin gives each partition three
    await asyncio.gather(*[producer.publish(record(), partition_key=None) for _ in range(9)])
    assert await broker.group_offsets("one") == {}
    await broker.commit_group("one", {0: 1, 2: 3})
    await broker.commit_group("two", {0: 2})
    await broker.commit_group("one", {0: 2})
    await broker.commit_group("one", {})
    assert await other.group_offsets("one") == {0: 2, 2: 3}
    assert await other.group_offsets("two") == {0: 2}


# ---- opening


async def test_open_keeps_the_partitions_of_an_existing_topic(bench: Bench) -> None:
    assert (await bench.broker(partitions=3)).partitions == 3
    assert (await bench.broker(partitions=7)).partitions == 3


async def test_many_processes_may_open_a_new_topic_at_once(bench: Bench) -> None:
    brokers = await asyncio.gather(*(bench.broker() for _ in range(4)))
    assert [broker.partitions for broker in brokers] == [3, 3, 3, 3]


async def test_missing_topic_is_named_where_it_may_not_be_made(bench: Bench) -> None:
    broker = await bench.unopened(create_topic=False)
    with pytest.raises(ConfigurationError, match=bench.topic):
        await broker.open()


async def test_open_says_so_when_the_broker_is_away(backend: Backend) -> None:
    away = Backend(backend.kind, "127.0.0.1:1" if backend.kind == "kafka" else "postgresql://x@127.0.0.1:1/x")
    async with AsyncExitStack() as stack:
        broker = await Bench(away, stack).unopened(request_timeout_ms=1000)
        with pytest.raises(BrokerUnavailable):
            await broker.open()


@pytest.mark.kafka
async def test_every_unsafe_topic_setting_is_named(kafka: Bench) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.backend.address)
    await admin.start()
    settings = {"cleanup.policy": "compact", "retention.bytes": "1000", "message.timestamp.type": "CreateTime"}
    settings |= {"unclean.leader.election.enable": "true", "max.message.bytes": "1000000"}
    await admin.create_topics([NewTopic(kafka.topic, 2, 1, topic_configs=settings)])
    await admin.close()
    with pytest.raises(ConfigurationError) as found:
        await kafka.broker(in_flight_bytes_max=200 * MIB)
    for name, value in settings.items():
        assert f"{name} is {value}, expected" in str(found.value)
    assert "socket.request.max.bytes is 104857600, expected at least 210763776" in str(found.value)


@pytest.mark.kafka
async def test_opening_while_kafka_is_not_ready_asks_often_and_says_so_once(
    kafka: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = await kafka.unopened(request_timeout_ms=3_000)
    questions = 0

    async def not_ready(self: object, admin: object) -> None:
        nonlocal questions
        questions += 1
        raise NotControllerError

    monkeypatch.setattr(KafkaBroker, "_find_topic", not_ready)
    with structlog.testing.capture_logs() as lines, pytest.raises(BrokerUnavailable):
        await broker.open()
    assert questions > 5
    assert [line["event"] for line in lines] == ["asking Kafka again"]


async def test_looking_again_learns_of_more_partitions(bench: Bench) -> None:
    broker = await bench.broker(partitions=2)
    assert await broker.look_again() == []
    assert broker.partitions == 2
    if bench.backend.kind == "kafka":
        async with bench.admin() as admin:
            await admin.create_partitions({bench.topic: NewPartitions(total_count=5)})
    else:
        database = await bench.database()
        async with database.transaction() as connection:
            await connection.execute(
                "INSERT INTO queue_partitions (topic, partition, slot)"
                " SELECT topic, number, slot FROM queue_partitions, generate_series(2, 4) AS number"
                " WHERE topic = %s AND partition = 0",
                (bench.topic,),
            )

    async def seen() -> bool:
        assert await broker.look_again() == []
        return broker.partitions == 5

    await eventually(seen)


@pytest.mark.kafka
async def test_looking_again_names_what_is_wrong_by_now_and_makes_nothing(kafka: Bench) -> None:
    broker = await kafka.broker(partitions=2)
    async with kafka.admin() as admin:
        wrong = {"retention.bytes": "1000", "message.timestamp.type": "LogAppendTime", "max.message.bytes": "20000000"}
        await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, kafka.topic, configs=wrong)])

        async def named() -> bool:
            return await broker.look_again() == ["topic setting retention.bytes is 1000, expected -1"]

        await eventually(named)
        await admin.delete_topics([kafka.topic])

        async def gone() -> bool:
            return await broker.look_again() == [f"topic {kafka.topic} is gone"]

        await eventually(gone)
        for _ in range(3):
            assert await gone()
        assert kafka.topic not in await admin.list_topics()
    assert broker.partitions == 2


async def test_queue_without_its_tables_says_what_to_do(embedded_server: str) -> None:
    async with AsyncExitStack() as stack:
        broker = await Bench(Backend("queue", embedded_server), stack).unopened()
        with pytest.raises(ConfigurationError, match="logfeed db migrate"):
            await broker.open()


# ---- what is kept


async def test_queue_risk_reaches_the_refusal_where_unread_bytes_reach_the_limit(queue: Bench) -> None:
    broker = await queue.broker(queue_unread_bytes_max=100_000)
    producer = await queue.producer(broker)
    assert await broker.retention_risk(WRITER_GROUP) == 0.0
    one = record(size=9_998)
    for _ in range(5):
        await producer.publish(one, partition_key=b"k")
    assert await broker.retention_risk(WRITER_GROUP) == pytest.approx(0.4)
    for _ in range(6):
        partition, _ = await producer.publish(one, partition_key=b"k")
    assert await broker.retention_risk(WRITER_GROUP) > 0.8
    await broker.commit_group(WRITER_GROUP, {partition: 9})
    assert await broker.retention_risk(WRITER_GROUP) == pytest.approx(0.16)
    await broker.commit_group(WRITER_GROUP, {partition: 9_999})
    assert await broker.retention_risk(WRITER_GROUP) == 0.0
    assert await broker.group_offsets(WRITER_GROUP) == {partition: 11}


@pytest.mark.kafka
async def test_kafka_risk_is_the_age_of_the_oldest_record_not_stored(kafka: Bench) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.backend.address)
    await admin.start()
    settings = {"retention.ms": "5000", "retention.bytes": "-1", "max.message.bytes": str(17 * MIB)}
    await admin.create_topics([NewTopic(kafka.topic, 3, 1, topic_configs=settings)])
    await admin.close()
    broker = await kafka.broker()
    producer = await kafka.producer(broker)
    assert await broker.retention_risk(WRITER_GROUP) == 0.0
    published_s = time.monotonic()
    partition, offset = await producer.publish(record("old"), partition_key=b"k")
    risks = [await broker.retention_risk(WRITER_GROUP)]

    async def risky() -> bool:
        risks.append(await broker.retention_risk(WRITER_GROUP))
        return risks[-1] >= 0.8

    await eventually(risky)
    assert 3.5 <= time.monotonic() - published_s < 10.0
    assert risks[0] < 0.5
    assert risks == sorted(risks)
    await producer.publish(record("new"), partition_key=b"k")
    await broker.commit_group(WRITER_GROUP, {partition: offset + 1})
    assert await broker.retention_risk(WRITER_GROUP) < 0.5
    await broker.commit_group(WRITER_GROUP, {partition: offset + 2})
    assert await broker.retention_risk(WRITER_GROUP) == 0.0


@pytest.mark.kafka
async def test_kafka_topic_kept_for_ever_has_no_risk(kafka: Bench) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.backend.address)
    await admin.start()
    await admin.create_topics([NewTopic(kafka.topic, 3, 1, topic_configs={"retention.ms": "-1"})])
    await admin.close()
    broker = await kafka.broker()
    await (await kafka.producer(broker)).publish(record(), partition_key=None)
    assert await broker.retention_risk(WRITER_GROUP) == 0.0


async def test_queue_keeps_what_the_writers_have_not_stored(queue: Bench) -> None:
    broker = await queue.broker(queue_bytes_max=10_000, queue_keep_s=0.001)
    assert isinstance(broker, QueueBroker)
    producer = await queue.producer(broker)
    for _ in range(6):
        await asyncio.gather(*(producer.publish(record(size=5_000), partition_key=None) for _ in range(6)))
        await broker.upkeep()
    assert await (await queue.reader(broker)).first_offsets(range(3)) == {0: 0, 1: 0, 2: 0}
    records = await read(await queue.reader(broker), 36)
    assert by_partition(records) == {partition: list(range(12)) for partition in range(3)}
    await broker.commit_group(WRITER_GROUP, {0: 12, 1: 12, 2: 1})
    for _ in range(4):
        await broker.upkeep()
    assert await (await queue.reader(broker)).first_offsets(range(3)) == {0: 0, 1: 0, 2: 0}
    await broker.commit_group(WRITER_GROUP, {2: 12})
    for _ in range(4):
        await broker.upkeep()
    assert await (await queue.reader(broker)).first_offsets(range(3)) == {0: 12, 1: 12, 2: 12}


async def test_queue_rotates_under_load_without_losing_or_reordering(queue: Bench) -> None:
    """A writer that follows reads everything; a group that does not keep up gets gaps, each one an error with the bounds.

    The load goes on until the tables have rotated under it, however fast or slow this machine is. It holds back as ingest does:
    a table goes once the writers have passed it, so where these fall behind without end each table is larger than the last one.
    """
    broker = await queue.broker(queue_bytes_max=200_000, queue_unread_bytes_max=200_000, queue_keep_s=3600)
    assert isinstance(broker, QueueBroker)
    producers = [await queue.producer(broker), await queue.producer(await queue.broker())]
    published: list[tuple[int, int]] = []
    skipped = 0
    another_round, is_published, stopped = asyncio.Event(), asyncio.Event(), asyncio.Event()
    bounds = await queue.reader(broker)

    async def deleted() -> int:
        return sum((await bounds.first_offsets(range(3))).values())

    async def has_room() -> bool:
        return await broker.retention_risk(WRITER_GROUP) < REFUSE_AT

    async def publish() -> None:
        """Rounds of 10 records a producer and partition."""
        while len(published) < 1500 or await deleted() <= 750 or not skipped:
            await eventually(has_room, 4 * DEADLINE_S)
            for burst in range(6):
                records = [record(f"{len(published) + n}", size=2_000) for n in range(10)]
                sent = (producers[burst % 2].publish(each, partition_key=None) for each in records)
                published.extend(await asyncio.gather(*sent))
            another_round.set()
        is_published.set()

    async def upkeep() -> None:
        while not stopped.is_set():
            await asyncio.gather(broker.upkeep(), broker.upkeep())
            await asyncio.sleep(0.005)

    async def follow() -> list[Delivered]:
        reader = await queue.reader(broker)
        records: list[Delivered] = []
        while not is_published.is_set() or len(records) < len(published):
            found = await reader.poll(max_bytes=30_000, wait_ms=50)
            records += found
            ends = {partition: offsets[-1] + 1 for partition, offsets in by_partition(found).items()}
            await broker.commit_group(WRITER_GROUP, ends)
        return records

    async def lag() -> int:
        """Takes a few records of each round."""
        nonlocal skipped
        reader = await queue.reader(broker)
        positions = dict.fromkeys(range(3), 0)
        taken = 0
        gaps: list[tuple[int, int, int]] = []
        while not stopped.is_set():
            try:
                records = await reader.poll(max_bytes=10_000, wait_ms=20)
            except OffsetOutOfRange as gap:
                gaps.append((positions[gap.partition], gap.wanted, gap.first))
                skipped += gap.first - gap.wanted
                positions[gap.partition] = gap.first
                await reader.seek(positions)
                continue
            for each in records:
                assert each.offset == positions[each.partition]
                positions[each.partition] += 1
            taken += len(records)
            if not stopped.is_set():
                another_round.clear()
                await another_round.wait()
        assert all(position == wanted < first for position, wanted, first in gaps)
        return taken

    async with asyncio.timeout(4 * DEADLINE_S), asyncio.TaskGroup() as group:
        group.create_task(upkeep())
        group.create_task(publish())
        laggard = group.create_task(lag())
        records = await group.create_task(follow())
        stopped.set()
        another_round.set()
    taken = laggard.result()
    assert {(each.partition, each.offset) for each in records} == set(published)
    assert len(records) == len(published)
    for offsets in by_partition(records).values():
        assert offsets == list(range(len(published) // 3))
    assert taken > 0
    assert skipped > 0
    assert await deleted() > 750


async def test_queue_partition_in_an_older_table_is_read_beside_the_backlog_of_the_others(queue: Bench) -> None:
    """Else its table could not be truncated while the others have more than a poll takes, and the queue would only grow."""
    broker = await queue.broker(queue_bytes_max=1024, queue_keep_s=3600)
    assert isinstance(broker, QueueBroker)
    producer = await queue.producer(broker)
    for _ in range(2):  # the second half goes into the next table
        for n in range(30):
            await producer.publish(record(f"{n}", size=500), partition_key=None)
        await broker.upkeep()
    for behind in range(3):
        positions = {partition: 0 if partition == behind else 10 for partition in range(3)}
        reader = await queue.reader(broker, positions)
        records: list[Delivered] = []
        for _ in range(4):
            records += await reader.poll(max_bytes=1_100, wait_ms=0)
        offsets = by_partition(records)
        assert offsets[behind][:2] == [0, 1]
        assert any(offsets.get(partition) for partition in range(3) if partition != behind)


async def test_queue_upkeep_gives_way_to_a_reader_in_the_table(queue: Bench) -> None:
    broker = await queue.broker(queue_bytes_max=1024, queue_keep_s=0.001)
    assert isinstance(broker, QueueBroker)
    await publish_numbers(queue, broker, 3)
    await broker.commit_group(WRITER_GROUP, dict.fromkeys(range(3), 3))
    await broker.upkeep()
    database = Database(queue.backend.address, application_name="test")
    await database.open()
    try:
        async with database.transaction() as connection:
            await connection.execute("SELECT count(*) FROM queue_0")
            await asyncio.wait_for(broker.upkeep(), 5.0)
            assert sum((await (await queue.reader(broker)).first_offsets(range(3))).values()) == 0
        await broker.upkeep()
    finally:
        await database.close()
    assert sum((await (await queue.reader(broker)).first_offsets(range(3))).values()) == 3


async def test_a_process_stopped_in_the_middle_of_upkeep_keeps_nobody_from_a_queue_that_is_there(queue: Bench) -> None:
    await queue.broker()
    other = await queue.database()
    async with other.transaction() as stopped:
        await stopped.execute("SELECT pg_advisory_xact_lock(%s)", (UPKEEP_LOCK,))
        opened = await asyncio.wait_for(queue.broker(), 5.0)
        assert opened.partitions == 3
        assert await asyncio.wait_for(opened.look_again(), 5.0) == []


# ---- faults


class Relay:
    """Stands before a server; while `held`, new connections get the server's first answer and then nothing more."""

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self._target = (host, int(port))
        self._tasks: set[asyncio.Task[None]] = set()
        self.address = ""
        self.held = False
        self.holds = asyncio.Event()
        """Set once an answer is being kept back."""

    @contextlib.asynccontextmanager
    async def __call__(self) -> AsyncIterator[Relay]:
        server = await asyncio.start_server(self._pass, "127.0.0.1", 0)
        self.address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield self
        finally:
            server.close()
            for task in list(self._tasks):
                task.cancel()

    @property
    def connections(self) -> int:
        """Clients connected now."""
        return len(self._tasks)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        there, there_writer = await asyncio.open_connection(*self._target)
        answering = asyncio.create_task(self._answer(there, writer))
        try:
            while data := await reader.read(1 << 16):
                there_writer.write(data)
        finally:
            answering.cancel()
            self._tasks.discard(task)
            for each in (there_writer, writer):
                each.close()

    async def _answer(self, there: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        keep_back = self.held
        answers = 0
        while head := await there.read(4):
            answer = await there.readexactly(int.from_bytes(head, "big"))
            answers += 1
            if keep_back and answers > 1:
                self.holds.set()
                await asyncio.Event().wait()
            writer.write(head + answer)


@pytest.mark.kafka
async def test_poll_cancelled_while_it_connects_leaves_no_connection_behind(kafka: Bench) -> None:
    complaints: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(str(context["message"])))
    async with Relay(kafka.backend.address)() as relay:
        broker = await kafka.broker(bootstrap=relay.address, request_timeout_ms=3_000)
        reader = await broker.reader(group="readers")
        await reader.seek({0: 0})
        await reader.end_offsets([0])
        relay.held = True
        poll = asyncio.create_task(reader.poll(max_bytes=MIB, wait_ms=100))
        await asyncio.wait_for(relay.holds.wait(), DEADLINE_S)
        poll.cancel()
        await asyncio.wait({poll}, timeout=DEADLINE_S)
        assert poll.cancelled()
        await reader.close()
        await broker.close()

        async def nobody_is_connected() -> bool:
            return relay.connections == 0

        await eventually(nobody_is_connected)
    gc.collect()
    assert complaints == []


@pytest.mark.slow
@pytest.mark.kafka
async def test_closing_a_producer_takes_no_longer_than_a_request_may(own_kafka: OwnBroker) -> None:
    """Whatever it waits for: records without an acknowledgement, a request under way, a new session."""
    async with AsyncExitStack() as stack:
        broker = await Bench(backend_of(own_kafka), stack).broker(request_timeout_ms=6_000)
        producers = [await broker.producer() for _ in range(2)]
        for producer in producers:
            await producer.publish(record("first"), partition_key=b"k")
        freeze(own_kafka)
        try:
            early = asyncio.create_task(producers[0].publish(record("abandoned"), partition_key=b"k"))
            with pytest.raises(BrokerUnavailable):
                await early
            held = asyncio.create_task(producers[1].publish(record("held"), partition_key=b"k"))
            await asyncio.sleep(0)
            begun_s = time.monotonic()
            await asyncio.gather(*(producer.close() for producer in producers))
            assert time.monotonic() - begun_s < 7.5
            with pytest.raises(BrokerUnavailable):
                await held
            assert [producer.bytes_in_flight for producer in producers] == [0, 0]
        finally:
            thaw(own_kafka)


@pytest.mark.kafka
async def test_kafka_fatal_producer_error_fails_what_it_held_and_makes_a_new_one(kafka: Bench) -> None:
    broker = await kafka.broker()
    producer = await kafka.producer(broker)
    assert isinstance(producer, KafkaProducer)
    await producer.publish(record("before"), partition_key=b"k")

    def restarts() -> float:
        reason = {"reason": "OutOfOrderSequenceNumber"}
        return REGISTRY.get_sample_value("logfeed_producer_restarts_total", reason) or 0.0

    before = restarts()
    session = producer._session
    assert session is not None
    for partition in range(3):
        session.client._txn_manager.increment_sequence_number(TopicPartition(kafka.topic, partition), 1000)
    held = await asyncio.gather(
        *(producer.publish(record(f"held {n}"), partition_key=b"k") for n in range(3)), return_exceptions=True
    )
    assert all(isinstance(each, BrokerUnavailable) for each in held)
    assert producer.bytes_in_flight == 0
    assert restarts() == before + 1

    async def works_again() -> bool:
        try:
            await producer.publish(record("after"), partition_key=b"k")
        except BrokerUnavailable:
            return False
        return True

    await eventually(works_again)
    assert [each.value for each in await read(await kafka.reader(broker), 2)] == [b"before", b"after"]


def freeze(broker: OwnBroker) -> None:
    """Returns when no thread of it runs: a signal alone may leave a busy machine's thread time for an answer."""
    for pid in _signal(broker, signal.SIGSTOP):
        until_stopped(pid)


def thaw(broker: OwnBroker) -> None:
    _signal(broker, signal.SIGCONT)


def _signal(broker: OwnBroker, number: signal.Signals) -> list[int]:
    """The processes that have it."""
    pid = broker.pid
    assert pid is not None
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    signalled = []
    for each in (pid, *map(int, children)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(each, number)
            signalled.append(each)
    return signalled


def until_stopped(pid: int) -> None:
    deadline_s = time.monotonic() + 30
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has ended
            while (thread / "stat").read_text().rpartition(")")[2].split()[0] != "T":
                assert time.monotonic() < deadline_s, "it does not stop"
                time.sleep(0.001)


@pytest.fixture
def own_kafka(kafka_bootstrap: str, fleets: Fleets) -> Iterator[OwnBroker]:
    """kafka_bootstrap: where there is none, there cannot be this one either."""
    with fleets.broker("kafka") as broker:
        yield broker


@dataclass(slots=True)
class Load:
    """Publishers that go on whatever happens, and what became of their records."""

    producer: Producer
    acknowledged: dict[tuple[int, int], bytes] = field(default_factory=dict)
    refused_after_s: list[float] = field(default_factory=list)
    stopped: bool = False

    async def publish(self, publisher: int) -> None:
        for number in range(10**9):
            if self.stopped:
                return
            value = b"%d-%d" % (publisher, number)
            begun_s = time.monotonic()
            try:
                where = await self.producer.publish(record(value, size=2000), partition_key=None)
            except Overloaded:
                self.refused_after_s.append(time.monotonic() - begun_s)
                await asyncio.sleep(0.05)
            else:
                self.acknowledged[where] = value

    async def acknowledges_more(self, count: int) -> None:
        goal = len(self.acknowledged) + count

        async def reached() -> bool:
            return len(self.acknowledged) >= goal

        await eventually(reached, 60.0)

    async def refuses(self, count: int) -> None:
        async def reached() -> bool:
            return len(self.refused_after_s) >= count

        await eventually(reached, 60.0)


async def says_unavailable(poll: Callable[[], Awaitable[object]]) -> bool:
    try:
        await poll()
    except BrokerUnavailable:
        return True
    return False


async def read_all_acknowledged(reader: Reader, load: Load) -> list[Delivered]:
    """Everything up to the last acknowledged record, each once, without gaps."""
    records: list[Delivered] = []
    missing = set(load.acknowledged)
    deadline_s = time.monotonic() + 60
    while missing:
        assert time.monotonic() < deadline_s, f"{len(missing)} acknowledged records are missing"
        with contextlib.suppress(BrokerUnavailable):
            found = await reader.poll(max_bytes=64 * MIB, wait_ms=200)
            missing -= {(each.partition, each.offset) for each in found}
            records += found
    values = Counter(each.value.rstrip(b"\0") for each in records)
    assert all(values[value] == 1 for value in load.acknowledged.values())
    stored = {(each.partition, each.offset): each.value.rstrip(b"\0") for each in records}
    assert all(stored[where] == value for where, value in load.acknowledged.items())
    for offsets in by_partition(records).values():
        assert offsets == list(range(len(offsets)))
    return records


@pytest.mark.timeout(300)
async def test_killed_broker_keeps_what_it_acknowledged_and_all_recovers_without_help(own_broker: OwnBroker) -> None:
    async with AsyncExitStack() as stack:
        bench = Bench(backend_of(own_broker), stack)
        broker = await bench.broker(request_timeout_ms=3000)
        load = Load(await bench.producer(broker))
        reader = await bench.reader(broker)
        publishers = [asyncio.create_task(load.publish(n)) for n in range(4)]
        await load.acknowledges_more(200)
        before = await reader.poll(max_bytes=MIB, wait_ms=5000)
        assert before
        await asyncio.to_thread(own_broker.kill)
        await load.refuses(12)
        assert max(load.refused_after_s) < 10.0
        await eventually(lambda: says_unavailable(lambda: reader.end_offsets([0])))
        await eventually(lambda: says_unavailable(lambda: broker.retention_risk(WRITER_GROUP)))

        async def reader_says_so() -> bool:
            async def poll() -> None:
                before.extend(await reader.poll(max_bytes=64 * MIB, wait_ms=100))  # fetched earlier

            return await says_unavailable(poll)

        await eventually(reader_says_so)
        await asyncio.to_thread(own_broker.bring_back)
        await load.acknowledges_more(100)
        load.stopped = True
        await asyncio.gather(*publishers)
        assert load.producer.bytes_in_flight == 0
        records = await read_all_acknowledged(await bench.reader(broker), load)
        following: list[Delivered] = []
        while len(before) + len(following) < len(records):
            with contextlib.suppress(BrokerUnavailable):
                following += await reader.poll(max_bytes=64 * MIB, wait_ms=200)
        for offsets in by_partition([*before, *following]).values():
            assert offsets == list(range(len(offsets)))


@pytest.mark.timeout(300)
async def test_frozen_broker_hangs_nobody(own_broker: OwnBroker) -> None:
    async with AsyncExitStack() as stack:
        bench = Bench(backend_of(own_broker), stack)
        broker = await bench.broker(request_timeout_ms=2000)
        load = Load(await bench.producer(broker))
        reader = await bench.reader(broker)
        publishers = [asyncio.create_task(load.publish(n)) for n in range(3)]
        await load.acknowledges_more(50)
        await read(reader, 20)
        freeze(own_broker)
        try:
            await load.refuses(3)
            assert max(load.refused_after_s) < 5.0
            async with asyncio.timeout(20):
                while not await says_unavailable(lambda: reader.poll(max_bytes=MIB, wait_ms=100)):
                    pass
        finally:
            thaw(own_broker)
        await load.acknowledges_more(50)
        load.stopped = True
        await asyncio.gather(*publishers)
        await read_all_acknowledged(await bench.reader(broker), load)

        async def nothing_in_flight() -> bool:
            return load.producer.bytes_in_flight == 0

        await eventually(nothing_in_flight)


@pytest.mark.timeout(300)
@pytest.mark.kafka
async def test_quick_restart_of_kafka_costs_time_and_nothing_else(own_kafka: OwnBroker) -> None:
    async with AsyncExitStack() as stack:
        bench = Bench(backend_of(own_kafka), stack)
        broker = await bench.broker(request_timeout_ms=60_000)
        load = Load(await bench.producer(broker))
        publishers = [asyncio.create_task(load.publish(n)) for n in range(4)]
        await load.acknowledges_more(100)
        await asyncio.to_thread(own_kafka.kill)
        await asyncio.to_thread(own_kafka.bring_back)
        await load.acknowledges_more(100)
        load.stopped = True
        await asyncio.gather(*publishers)
        assert load.refused_after_s == []
        records = await read_all_acknowledged(await bench.reader(broker), load)
        assert len(records) == len(load.acknowledged)
