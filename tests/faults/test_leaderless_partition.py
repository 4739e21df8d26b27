"""A Kafka partition without a leader waits alone: two real brokers, one copy of each partition, one broker killed.

And so does one whose leader hangs or is cut off while the cluster lists it: a relay on the clients' way to it stops.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import pytest
from aiokafka import client as aiokafka_client
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from broker.kafka_producer import PRODUCER_RESTARTS
from broker.kafka_topic import topic_settings
from broker.port import Broker, Producer, Reader, Record
from broker.settings import BrokerSettings
from db.migrations import Layout
from infra.fleet import until
from infra.native import KafkaNode
from schemas.errors import BrokerUnavailable, RecordNotSent
from tests.faults.writers import Place, key_of, producer_partitions
from tests.live_site import Topic, frame_of, logs_of, seeing

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(300), pytest.mark.slow]

PARTITIONS = 4


@dataclass
class Cluster:
    """The first node is the controller too and stays; the second one is killed and comes back."""

    stays: KafkaNode
    dies: KafkaNode

    @property
    def bootstrap(self) -> str:
        return f"{self.dies.bootstrap},{self.stays.bootstrap}"

    async def kill(self) -> None:
        await asyncio.to_thread(self.dies.kill)

    async def bring_back(self) -> None:
        # Spawned from the main thread: it ends with the thread that started it.
        self.dies.spawn()
        await asyncio.to_thread(self.dies.wait_ready)

    async def make_topic(self, topic: str, *, retention_ms: int) -> None:
        settings = topic_settings(1) | {"retention.ms": str(retention_ms)}
        admin = AIOKafkaAdminClient(bootstrap_servers=self.stays.bootstrap)
        await admin.start()
        try:
            await admin.create_topics([NewTopic(topic, PARTITIONS, 1, topic_configs=settings)])
        finally:
            await admin.close()

    async def halves(self, topic: str) -> tuple[set[int], set[int]]:
        """Partitions that the node that stays leads, and those of the other."""
        admin = AIOKafkaAdminClient(bootstrap_servers=self.stays.bootstrap)
        await admin.start()
        try:
            (description,) = await admin.describe_topics([topic])
        finally:
            await admin.close()
        leaders = {each["partition"]: each["leader"] for each in description["partitions"]}
        stay = {partition for partition, leader in leaders.items() if leader == self.stays.node_id}
        return stay, leaders.keys() - stay

    async def group_kept_by_the_one_that_stays(self) -> str:
        """A group whose offsets can be asked while the other is away."""
        admin = AIOKafkaAdminClient(bootstrap_servers=self.stays.bootstrap)
        await admin.start()
        try:
            for name in (f"group-{n}" for n in range(100)):
                with contextlib.suppress(Exception):  # the topic of offsets is being made
                    if await admin.find_coordinator(name) == self.stays.node_id:
                        return name
                await asyncio.sleep(0.05)
        finally:
            await admin.close()
        raise AssertionError("no group is kept by the node that stays")


@pytest.fixture(scope="module")
def nodes(kafka_bootstrap: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    # The shared broker skips, with the reason, where there can be none.
    directory = tmp_path_factory.mktemp("cluster")
    stays = KafkaNode(directory / "stays")
    dies = KafkaNode(directory / "dies", controller=stays, node_id=2)
    try:
        stays.start()
        dies.start()
        yield Cluster(stays, dies)
    finally:
        dies.remove()
        stays.remove()


@pytest.fixture
async def cluster(nodes: Cluster) -> Cluster:
    """Both run."""
    await nodes.bring_back()
    return nodes


@pytest.fixture
async def place(cluster: Cluster, native_url: str) -> AsyncIterator[Place]:
    settings = BrokerSettings(
        kind="kafka",
        topic=f"logs.{uuid.uuid4().hex[:8]}",
        partitions=PARTITIONS,
        bootstrap=cluster.bootstrap,
        request_timeout_ms=6_000,
    )
    async with AsyncExitStack() as stack:
        yield Place(native_url, Layout.NATIVE, settings, stack)


async def _publish(producer: Producer, partitions: set[int], count: int = 3) -> None:
    keys = [key_of(partition, producer_partitions(producer)) for partition in sorted(partitions)]
    for key in keys:
        for _ in range(count):
            await producer.publish(Record(b"x", [("v", b"1")]), partition_key=key)


async def _reads(reader: Reader, offsets: dict[int, list[int]], expected: dict[int, int]) -> None:
    """Poll until so many records of each partition came in all."""

    async def all_came() -> bool:
        with contextlib.suppress(BrokerUnavailable):
            for record in await reader.poll(max_bytes=1 << 20, wait_ms=100):
                offsets.setdefault(record.partition, []).append(record.offset)
        return {partition: len(found) for partition, found in offsets.items()} == expected

    await until(all_came, what=f"{expected} records")
    assert offsets == {partition: list(range(count)) for partition, count in expected.items()}


def _producer_restarts() -> float:
    return sum(sample.value for metric in PRODUCER_RESTARTS.collect() for sample in metric.samples)


async def _answers(reader: Reader) -> set[int]:
    return set(await reader.end_offsets(range(PARTITIONS)))


async def _opened(place: Place) -> tuple[Broker, Producer, Reader]:
    broker = await place.broker()
    producer = await broker.producer()
    reader = await broker.reader(group="readers")
    place.stack.push_async_callback(reader.close)
    place.stack.push_async_callback(producer.close)
    await reader.seek(dict.fromkeys(range(PARTITIONS), 0))
    return broker, producer, reader


async def test_reader_goes_on_with_the_other_partitions_and_returns_to_it(cluster: Cluster, place: Place) -> None:
    await cluster.make_topic(place.settings.topic, retention_ms=20_000)
    broker, producer, reader = await _opened(place)
    stay, away = await cluster.halves(place.settings.topic)
    assert len(stay) == len(away) == 2
    everything = stay | away
    await _publish(producer, everything)
    group = await cluster.group_kept_by_the_one_that_stays()
    await broker.commit_group(group, dict.fromkeys(everything, 3))
    assert await broker.retention_risk(group) == 0.0
    offsets: dict[int, list[int]] = {}
    await _reads(reader, offsets, dict.fromkeys(everything, 3))

    await cluster.kill()

    async def absent() -> bool:
        return await _answers(reader) == stay

    await until(absent, what="the answer lacks the partitions without a leader")
    assert set(await reader.first_offsets(everything)) == stay
    assert await reader.first_offsets(stay) == dict.fromkeys(stay, 0)
    with pytest.raises(BrokerUnavailable):
        await reader.end_offsets(away)
    went: Counter[int] = Counter()

    async def passed_over() -> bool:
        # One that was idle learns of it by the first failure.
        with contextlib.suppress(BrokerUnavailable):
            for _ in range(4):
                went[(await producer.publish(Record(b"x", [("v", b"1")]), partition_key=None))[0]] += 1
            return True
        return False

    await until(passed_over, what="records without a key pass over partitions without a leader")
    assert went.keys() == stay
    restarts = _producer_restarts()
    with pytest.raises(BrokerUnavailable, match="has no leader; the record was not sent"):
        await _publish(producer, away)
    assert _producer_restarts() == restarts
    ends = await reader.end_offsets(stay)
    assert all(end > 3 for end in ends.values())
    await _reads(reader, offsets, ends | dict.fromkeys(away, 3))

    # A reader made meanwhile reads the others as well, and so does one that is sought again.
    fresh = await broker.reader(group="readers")
    place.stack.push_async_callback(fresh.close)
    for positions in (0, 3):
        await fresh.seek(dict.fromkeys(everything, positions))
        found: dict[int, list[int]] = {}

        async def rest(found: dict[int, list[int]] = found, first: int = positions) -> bool:
            for record in await fresh.poll(max_bytes=1 << 20, wait_ms=100):
                found.setdefault(record.partition, []).append(record.offset)
            return found == {partition: list(range(first, ends[partition])) for partition in stay}

        await until(rest, what="the others are read")

    # Nothing is unread where it can be asked; what may be unread elsewhere grows older.
    await broker.commit_group(group, ends)

    async def risky() -> bool:
        return await broker.retention_risk(group) >= 0.1

    await until(risky, what="partitions that cannot be asked are a risk after a tenth of the retention")
    # Opening in such a moment, as a process that starts does, works too.
    assert (await place.broker()).partitions == PARTITIONS

    await cluster.bring_back()

    async def present() -> bool:
        return await _answers(reader) == everything

    await until(present, what="the leader is back")
    assert await broker.retention_risk(group) == 0.0
    await _publish(producer, away)
    await _reads(reader, offsets, ends | dict.fromkeys(away, 6))
    found = {}

    async def also_fresh() -> bool:
        for record in await fresh.poll(max_bytes=1 << 20, wait_ms=100):
            found.setdefault(record.partition, []).append(record.offset)
        return found == {partition: [3, 4, 5] for partition in away}

    await until(also_fresh, what="the reader made meanwhile reads them")


async def test_writer_stores_the_other_partitions_and_takes_it_up_again(cluster: Cluster, place: Place) -> None:
    _, producer, reader = await _opened(place)
    stay, away = await cluster.halves(place.settings.topic)
    for partition in range(PARTITIONS):
        await place.publish(producer, partition)

    async def without_leader() -> bool:
        return await _answers(reader) == stay

    async with place.writer("w", await place.broker()):
        await place.stores_everything()
        await cluster.kill()
        await until(without_leader, what="half of the partitions have no leader")
        for partition in stay:
            await place.publish(producer, partition, frames=3)
        await place.stores_everything()
    # One that starts meanwhile does the same.
    async with place.writer("w", await place.broker()):
        for partition in stay:
            await place.publish(producer, partition, frames=3)
        await place.stores_everything()
        stood_us = await _stored_to_us(place, away)
        moved_us = await _stored_to_us(place, stay)

        async def moves_on() -> bool:
            return await _stored_to_us(place, stay) > moved_us + 1_000_000

        await until(moves_on, what="the others are marked as read to their ends")
        assert await _stored_to_us(place, away) == stood_us, "what cannot be read is not said to be visible"

        await cluster.bring_back()
        for partition in range(PARTITIONS):
            await place.publish(producer, partition, frames=2)
        await place.stores_everything()

        async def all_move_on() -> bool:
            return await _stored_to_us(place, stay | away) > moved_us + 1_000_000

        await until(all_move_on, what="all are marked as read to their ends")
    assert await place.halted() == {}


async def _stored_to_us(place: Place, partitions: set[int]) -> int:
    names = ", ".join(map(str, partitions))
    ((at_us,),) = await place.ask(
        "SELECT (extract(epoch FROM min(stored_to)) * 1000000)::bigint FROM consumer_offsets"
        f" WHERE partition IN ({names})"
    )
    return int(at_us)


async def test_follower_goes_on_with_the_other_partitions_and_gets_the_rest(cluster: Cluster, place: Place) -> None:
    topic = Topic("kafka", cluster.bootstrap, place.stack, partitions=PARTITIONS, name=place.settings.topic)
    await topic.open()
    stay, away = await cluster.halves(topic.name)
    keys = {number: key_of(number, PARTITIONS).decode() for number in stay | away}

    async def send(partitions: set[int]) -> list[int]:
        return [number for partition in sorted(partitions) for number in await _sent(topic, keys[partition])]

    async def absent(reader: Reader) -> bool:
        return await _answers(reader) == stay

    # Nothing is kept in memory: who comes later reads by themselves.
    async with topic.follower(recent_bytes_max=0) as follower, seeing(follower) as seen:
        ids = await send(stay | away)
        await seen.until(ids)
        positions = seen.positions
        missed = await send(away)
        await seen.until(ids + missed)
        await cluster.kill()
        reader = await topic.broker.reader(group="test")
        place.stack.push_async_callback(reader.close)
        await until(lambda: absent(reader), what="half of the partitions have no leader")
        meanwhile = await send(stay)
        await seen.until(ids + missed + meanwhile)
        # Who comes meanwhile, and begins where the leader is away, is shown the others too.
        async with seeing(follower, positions) as later:
            await later.until(meanwhile)
            assert sorted(later.ids) == meanwhile
            await cluster.bring_back()
            after = await send(stay | away)
            for one, expected in ((seen, ids + missed + meanwhile + after), (later, missed + meanwhile + after)):
                await one.until(expected)
                assert sorted(one.ids) == sorted(expected)
                assert one.gaps == []
                one.check_order()


async def _sent(topic: Topic, key: str) -> list[int]:
    """One request, sent until it is taken: who was idle learns of a leader by a failure. A follower counts a key once."""
    logs = logs_of(topic.next_id, 2)
    topic.next_id += 2
    record = frame_of(logs)

    async def is_taken() -> bool:
        with contextlib.suppress(RecordNotSent):
            await topic.publish(record, key=key)
            return True
        return False

    await until(is_taken, what="a frame is taken")
    return [log.id for log in logs]


class Way:
    """The clients' way to one broker. While it is `cut`, connections are made and nothing passes, old ones included."""

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._passes = asyncio.Event()
        self._passes.set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0

    def cut(self) -> None:
        self._passes.clear()

    def mend(self) -> None:
        self._passes.set()

    @asynccontextmanager
    async def __call__(self) -> AsyncIterator[Way]:
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            for task in self._tasks:
                task.cancel()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        there, there_writer = await asyncio.open_connection("127.0.0.1", self._target_port)
        with contextlib.suppress(asyncio.CancelledError):  # asyncio complains of it
            await asyncio.gather(self._pass(reader, there_writer), self._pass(there, writer))
        there_writer.close()
        writer.close()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(1 << 16):
                await self._passes.wait()
                writer.write(data)
                await writer.drain()
        writer.close()


@pytest.fixture
async def way(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Way]:
    """Every client's connections to the second node lead through it."""
    connect = aiokafka_client.create_conn
    async with Way(cluster.dies.port())() as way:

        async def through_the_way(host: str, port: int, **options: object) -> object:
            return await connect(host, way.port if port == cluster.dies.port() else port, **options)

        monkeypatch.setattr(aiokafka_client, "create_conn", through_the_way)
        yield way


async def test_leader_that_is_listed_and_silent_holds_up_the_other_partitions_once(
    cluster: Cluster, place: Place, way: Way
) -> None:
    broker, producer, reader = await _opened(place)
    stay, silent = await cluster.halves(place.settings.topic)
    await _publish(producer, stay | silent)
    offsets: dict[int, list[int]] = {}
    await _reads(reader, offsets, dict.fromkeys(stay | silent, 3))
    assert await _answers(reader) == stay | silent
    loop = asyncio.get_running_loop()

    way.cut()
    assert await _answers(reader) == stay
    begun_s = loop.time()
    for _ in range(20):
        assert await _answers(reader) == stay
        assert set(await reader.first_offsets(range(PARTITIONS))) == stay
    assert loop.time() - begun_s < 4.0, "two seconds for each, before"
    # Where it is alone it is waited for, and the others are read meanwhile.
    with pytest.raises(BrokerUnavailable):
        await reader.end_offsets(silent)
    fresh = await broker.reader(group="fresh")
    place.stack.push_async_callback(fresh.close)
    await fresh.seek(dict.fromkeys(stay | silent, 0))
    await _reads(fresh, {}, dict.fromkeys(stay, 3))

    way.mend()

    async def everything() -> bool:
        return await _answers(reader) == stay | silent

    await until(everything, what="it answers again", timeout_s=15)
    await _reads(fresh, {}, dict.fromkeys(silent, 3))


async def test_writer_stores_the_other_partitions_while_a_leader_is_silent(
    cluster: Cluster, place: Place, way: Way
) -> None:
    broker, producer, _ = await _opened(place)
    later = await place.broker()
    stay, _silent = await cluster.halves(place.settings.topic)

    async def store_more() -> None:
        for partition in stay:
            await place.publish(producer, partition, frames=3)
        await place.stores_everything()

    for partition in range(PARTITIONS):
        await place.publish(producer, partition)
    async with place.writer("w", broker):
        await place.stores_everything()
        way.cut()
        await store_more()
    # One that begins meanwhile does the same.
    async with place.writer("w", later):
        await store_more()
        way.mend()
        for partition in range(PARTITIONS):
            await place.publish(producer, partition, frames=2)
        await place.stores_everything()
    assert await place.halted() == {}
