"""One partition's trouble is one partition's: what a writer does when a log is not what it expects, and when it is away."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from broker.kafka_topic import topic_settings
from broker.port import Delivered
from broker.settings import BrokerSettings
from db.migrations import Layout
from infra.fleet import until
from runtime.telemetry import REGISTRY
from schemas.errors import BrokerUnavailable, LogfeedError, OffsetOutOfRange
from store.batches import Batch
from store.port import BorderMoved, StorePlan
from store.postgres_write import PostgresWriteStore
from tests.faults.writers import Meddler, Place, Poll
from writer.consume import StuckConsumer
from writer.positions import BrokenSequence

PARTITIONS = 3


@pytest.fixture
async def place(native_url: str) -> AsyncIterator[Place]:
    """The embedded profile: what these tests hurt is the same on both."""
    settings = BrokerSettings(kind="queue", topic="logs.trouble", partitions=PARTITIONS)
    async with AsyncExitStack() as stack:
        yield Place(native_url, Layout.NATIVE, settings, stack)


def _out_of_range() -> LogfeedError:
    return OffsetOutOfRange(partition=1, wanted=7, first=0, end=3)


def _other_frame() -> LogfeedError:
    return BrokenSequence(1, "offset 2 holds another frame")


@pytest.mark.parametrize("trouble", [_out_of_range, _other_frame])
async def test_trouble_that_passes_halts_nothing(place: Place, trouble: Callable[[], LogfeedError]) -> None:
    broker = Meddler(await place.broker())

    async def stale_twice(meddler: Meddler, poll: Poll) -> list[Delivered]:
        records = await poll()
        if len(seen) < 2 and any(record.partition == 1 for record in records):
            seen.append(meddler.sessions)
            raise trouble()
        return records

    seen: list[int] = []
    broker.on_poll = stale_twice
    producer = await broker.producer()
    for partition in range(PARTITIONS):
        await place.publish(producer, partition, frames=3)
    async with place.writer("w", broker):
        await place.stores_everything()
        for partition in range(PARTITIONS):
            await place.publish(producer, partition, frames=3)
        await place.stores_everything()
    await producer.close()
    assert len(seen) == 2
    assert await place.halted() == {}


async def test_trouble_that_stays_halts_its_partition_while_the_others_go_on(place: Place) -> None:
    broker = Meddler(await place.broker())
    sightings: list[int] = []

    async def stale(meddler: Meddler, poll: Poll) -> list[Delivered]:
        records = await poll()
        if any(record.partition == 1 for record in records):
            sightings.append(meddler.sessions)
            raise _out_of_range()
        return records

    broker.on_poll = stale
    producer = await broker.producer()
    for partition in range(PARTITIONS):
        await place.publish(producer, partition, frames=3)
    async with place.writer("w", broker):
        await place.stores(place.sent[0] + place.sent[2])

        async def halted() -> bool:
            # While the partition is looked at again and again, its neighbours store what comes in.
            for partition in (0, 2):
                await place.publish(producer, partition)
            await place.stores(place.sent[0] + place.sent[2], timeout_s=20)
            return bool(await place.halted())

        await until(halted, what="the partition is halted")
        assert await place.halted() == {1: str(_out_of_range())}
        assert len(sightings) == 3
        assert len(set(sightings)) == 3, "each time in a session of its own"
        await place.publish(producer, 0)
        await place.stores(place.sent[0] + place.sent[2])
        assert len(sightings) == 3
    await producer.close()


async def test_partition_whose_batch_never_agrees_with_the_store_is_halted_alone(place: Place) -> None:
    broker = await place.broker()
    producer = await broker.producer()
    for partition in range(PARTITIONS):
        await place.publish(producer, partition, frames=3)
    async with place.writer("w", broker, store_class=_Disagreeing):
        await place.stores(place.sent[0] + place.sent[2])

        async def halted() -> bool:
            return bool(await place.halted())

        await until(halted, what="the partition is halted")
        assert list(await place.halted()) == [1]
        assert "planned 20 times and never agreed with the store" in (await place.halted())[1]
        for partition in (0, 2):
            await place.publish(producer, partition, frames=3)
        await place.stores(place.sent[0] + place.sent[2])
    await producer.close()


class _Disagreeing(PostgresWriteStore):
    """Never agrees with what would move partition 1."""

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[Batch]:
        async with super().begin() as batch:
            commit = batch.commit

            async def disagree(plan: StorePlan) -> None:
                if any(move.partition == 1 for move in plan.moves):
                    raise BorderMoved
                await commit(plan)

            batch.commit = disagree  # type: ignore[method-assign]  # the fault
            yield batch


async def test_writer_that_lost_its_broker_gives_its_partitions_to_one_that_has_it(place: Place) -> None:
    cut_off, reaching = Meddler(await place.broker()), Meddler(await place.broker())
    producer = await reaching.producer()
    async with place.writer("cut off", cut_off), place.writer("reaching", reaching):

        async def shared() -> bool:
            return set((await place.owners()).values()) == {"cut off", "reaching"}

        await until(shared, what="both have partitions")
        cut_off.away = BrokerUnavailable("no route to the broker")
        for partition in range(PARTITIONS):
            await place.publish(producer, partition, frames=3)
        await place.stores_everything()
        assert set((await place.owners()).values()) == {"reaching"}
        cut_off.away = None
        await until(shared, what="it takes its share again")
        for partition in range(PARTITIONS):
            await place.publish(producer, partition, frames=3)
        await place.stores_everything()
    await producer.close()


async def test_consumer_that_hangs_ends_the_writer(place: Place) -> None:
    """A supervisor then starts a fresh one."""
    broker = Meddler(await place.broker())

    async def hang(_: Meddler, poll: Poll) -> list[Delivered]:
        await asyncio.sleep(0.02)
        return []

    producer = await broker.producer()
    async with place.writer("w", broker, stuck_after_s=1.0) as writer:
        await place.publish(producer, 0)
        await place.stores_everything()
        broker.on_poll = hang
        began_us = await _read_to_the_end_at_us(place)

        async def silent_for_long() -> bool:
            return await _read_to_the_end_at_us(place) > began_us + 2_000_000

        await until(silent_for_long, what="a consumer without records is not stuck")
        await place.publish(producer, 1)
        with pytest.raises(StuckConsumer, match="none arrived for 1 s"):
            await asyncio.wait_for(asyncio.shield(writer), 30)
        broker.on_poll = None
        assert set((await place.owners()).values()) == {None}, "its partitions are free at once"
        async with place.writer("fresh", await place.broker()):
            await place.stores_everything()
    await producer.close()


async def _read_to_the_end_at_us(place: Place) -> int:
    ((at_us,),) = await place.ask("SELECT (extract(epoch FROM min(stored_to)) * 1000000)::bigint FROM consumer_offsets")
    return int(at_us)


@pytest.fixture(params=["queue", pytest.param("kafka", marks=pytest.mark.kafka)])
async def either_place(request: pytest.FixtureRequest, native_url: str) -> AsyncIterator[Place]:
    """Both brokers."""
    where = {"bootstrap": request.getfixturevalue("kafka_bootstrap")} if request.param == "kafka" else {}
    settings = BrokerSettings(kind=request.param, topic=f"logs.{uuid.uuid4().hex[:8]}", partitions=PARTITIONS, **where)
    async with AsyncExitStack() as stack:
        yield Place(native_url, Layout.NATIVE, settings, stack)


async def test_partitions_added_under_a_running_writer_are_stored_once(either_place: Place) -> None:
    place = either_place
    producer = await (await place.broker()).producer()
    for partition in range(PARTITIONS):
        await place.publish(producer, partition, frames=2)
    async with place.writer("w", await place.broker(), partitions_check_s=0.2):
        await place.stores_everything()
        await _widen(place, PARTITIONS + 2)
        wider = await (await place.broker()).producer()
        for partition in range(PARTITIONS + 2):
            await place.publish(wider, partition, frames=2)
        await place.publish(producer, 0)
        await place.stores_everything()
        await wider.close()
    await producer.close()
    offsets = dict(await place.ask("SELECT partition, next_offset FROM consumer_offsets"))
    assert offsets == {0: 5, 1: 4, 2: 4, 3: 2, 4: 2}


@pytest.mark.slow
@pytest.mark.kafka
async def test_wrong_setting_or_a_topic_that_is_gone_is_told_and_ends_no_writer(
    kafka_bootstrap: str, native_url: str
) -> None:
    settings = BrokerSettings(
        kind="kafka", topic=f"logs.{uuid.uuid4().hex[:8]}", partitions=PARTITIONS, bootstrap=kafka_bootstrap
    )

    def problems() -> float | None:
        return REGISTRY.get_sample_value("logfeed_broker_problems")

    async def set_retention_bytes(value: str) -> None:
        configs = topic_settings(1) | {"retention.bytes": value}
        await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, settings.topic, configs=configs)])

        async def noticed() -> bool:
            return problems() == (0 if value == "-1" else 1)

        await until(noticed, what=f"retention.bytes={value} is noticed")

    async with AsyncExitStack() as stack:
        place = Place(native_url, Layout.NATIVE, settings, stack)
        broker = await place.broker()
        producer = await broker.producer()
        admin = AIOKafkaAdminClient(bootstrap_servers=kafka_bootstrap)
        await admin.start()
        stack.push_async_callback(admin.close)
        async with place.writer("w", broker, partitions_check_s=0.1) as writer:
            for value in ("1000000", "-1"):
                await set_retention_bytes(value)
                for partition in range(PARTITIONS):
                    await place.publish(producer, partition, frames=3)
                await place.stores_everything()
            await producer.close()
            await admin.delete_topics([settings.topic])

            async def noticed() -> bool:
                return problems() == 1

            await until(noticed, what="that the topic is gone is noticed")
            assert settings.topic not in await admin.list_topics(), "nobody makes it again"
            assert not writer.done()


async def _widen(place: Place, partitions: int) -> None:
    """More partitions for the topic, as an operator would make them."""
    if place.settings.kind == "queue":
        await place.ask(
            "INSERT INTO queue_partitions (topic, partition, slot)"
            f" SELECT '{place.settings.topic}', number, (SELECT slot FROM queue_slots WHERE state = 'active')"
            f" FROM generate_series(0, {partitions - 1}) AS number ON CONFLICT DO NOTHING RETURNING partition"
        )
        return
    admin = AIOKafkaAdminClient(bootstrap_servers=place.settings.bootstrap)
    await admin.start()
    await admin.create_partitions({place.settings.topic: NewPartitions(total_count=partitions)})
    await admin.close()
