"""Publishing: refusals before anything is sent, counts that are never lost nor booked twice, and a broker that comes back."""

from __future__ import annotations

import asyncio
import os
from asyncio import CancelledError
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.intake import partition_of
from broker.port import Producer, Record
from ingest.errors import RetentionAtRisk
from ingest.publish import COUNTS_MAX, Publisher
from ingest.settings import IngestSettings
from runtime.stopping import Stop
from schemas.errors import (
    BrokerUnavailable,
    LogfeedError,
    Overloaded,
    PartitionUnavailable,
    RecordNotSent,
    RecordTooLarge,
)
from schemas.frames import FRAME_BYTES_MAX, FrameHeader, ServiceCounts, encode_lines
from schemas.record import Log
from tests.unit.ingest.memory_broker import MemoryBroker, MemoryProducer

SETTINGS = IngestSettings(retention_poll_s=0.01, counts_flush_s=0.01)
MINUTE_MS = 60_000
VALUE = encode_lines([Log(1, 1, 9, "shop", "m", None, {})])


def header(**counts: ServiceCounts) -> FrameHeader:
    return FrameHeader(os.urandom(16), 5 * MINUTE_MS, counts or {"shop": ServiceCounts(received=1)})


async def connected(broker: MemoryBroker, settings: IngestSettings = SETTINGS) -> Publisher:
    publisher = Publisher(broker, settings)
    await publisher.connect()
    return publisher


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110  # a condition of several parts
            await asyncio.sleep(0.005)


async def test_frame_too_large_is_refused_before_sending() -> None:
    broker = MemoryBroker()
    publisher = await connected(broker)
    with pytest.raises(RecordTooLarge):
        await publisher.publish(bytes(FRAME_BYTES_MAX), header())
    assert not broker.records


async def test_retention_at_risk_refuses_until_the_writers_caught_up() -> None:
    broker = MemoryBroker()
    publisher = await connected(broker)
    broker.risk = 0.8
    await publisher.poll_risk()
    with pytest.raises(RetentionAtRisk) as refused:
        await publisher.publish(VALUE, header())
    assert refused.value.retry_after_s > 0
    assert publisher.problems()
    broker.risk = 0.79
    await publisher.poll_risk()
    await publisher.publish(VALUE, header())
    assert not publisher.problems()


async def test_broker_away_is_told_and_found_again() -> None:
    broker = MemoryBroker()
    broker.error = BrokerUnavailable()
    publisher, stop = Publisher(broker, SETTINGS), Stop()
    running = asyncio.create_task(publisher.run(stop))
    with pytest.raises(BrokerUnavailable):
        publisher.check()
    assert publisher.problems()
    broker.error = None
    await until(lambda: not publisher.problems())
    await publisher.publish(VALUE, header())
    broker.error = BrokerUnavailable("gone")
    await until(lambda: publisher.problems() == ["gone"])
    broker.error = None
    await until(lambda: not publisher.problems())
    stop.set()
    await running


async def test_publish_gives_up_at_its_deadline_and_the_send_goes_on() -> None:
    broker = MemoryBroker()
    publisher = await connected(broker, SETTINGS.model_copy(update={"publish_deadline_s": 0.05}))
    broker.gate.clear()
    with pytest.raises(BrokerUnavailable, match="did not acknowledge"):
        await publisher.publish(VALUE, header())
    broker.gate.set()
    await until(lambda: len(broker.records) == 1)


async def test_counts_are_summed_by_minute_and_published_without_lines() -> None:
    broker = MemoryBroker()
    publisher = await connected(broker)
    for _ in range(3):
        publisher.note(
            5 * MINUTE_MS + 17, {"shop": ServiceCounts(received=2, filtered={"min": 1}, rejected={"level": 1})}
        )
    publisher.note(6 * MINUTE_MS, {"": ServiceCounts(received=1, rejected={"json": 1})})
    assert await publisher.flush_counts()
    (first, no_lines), (second, _) = broker.frames()
    assert no_lines == []
    assert (first.received_ms, second.received_ms) == (5 * MINUTE_MS, 6 * MINUTE_MS)
    assert first.counts == {"shop": ServiceCounts(received=6, filtered={"min": 3}, rejected={"level": 3})}
    assert second.counts[""].kept == 0


async def test_counts_whose_acknowledgement_was_lost_go_out_again_under_the_same_key() -> None:
    broker = MemoryBroker()
    publisher = await connected(broker)
    publisher.note(0, {"shop": ServiceCounts(received=1, rejected={"level": 1})})
    broker.error, broker.error_after_append = BrokerUnavailable(), True
    assert not await publisher.flush_counts()
    publisher.note(0, {"shop": ServiceCounts(received=1, rejected={"level": 1})})
    broker.error = None
    assert await publisher.flush_counts()
    headers = [frame for frame, _ in broker.frames()]
    assert len(headers) == 3
    assert headers[0] == headers[2] != headers[1], "a copy of the doubtful one, and new ones do not wait for it"
    assert headers[0].key_hash != headers[1].key_hash
    assert [frame.counts["shop"].received for frame in headers] == [1, 1, 1]


async def flushed(publisher: Publisher) -> None:
    """Flush, again and again, until nothing is left."""
    async with asyncio.timeout(5):
        while not await publisher.flush_counts():  # noqa: ASYNC110  # asks a broker
            await asyncio.sleep(0.005)


def booked_once(broker: MemoryBroker) -> int:
    """What a writer books: one copy of each key."""
    frames = {frame.key_hash: frame for frame, _ in broker.frames()}
    return sum(count.received for frame in frames.values() for count in frame.counts.values())


class Refusing(MemoryBroker):
    """A broker whose producer raises what the test says, before or after the record was taken."""

    def __init__(self) -> None:
        super().__init__()
        self.refusals: list[BaseException | None] = []
        """One for each attempt, None to take it; after the last one all are taken."""
        self.lost: set[int] = set()
        """Of `partitions` those that have no leader: for keys only."""
        self.partitions = 4
        self.keys: list[bytes] = []

    async def producer(self) -> Producer:
        self.producers += 1
        return RefusingProducer(self)


class RefusingProducer(MemoryProducer):
    """Of `Refusing`."""

    def __init__(self, broker: Refusing) -> None:
        super().__init__(broker)
        self._refusing = broker

    async def publish(self, record: Record, *, partition_key: bytes | None) -> tuple[int, int]:
        refusing = self._refusing
        if partition_key is not None:
            refusing.keys.append(partition_key)
            if partition_of(partition_key, refusing.partitions) in refusing.lost:
                raise PartitionUnavailable("no leader")
        refusal = refusing.refusals.pop(0) if refusing.refusals else None
        if refusal is not None:
            raise refusal
        return await super().publish(record, partition_key=partition_key)


async def test_counts_go_around_partitions_without_a_leader_which_trouble_nobody_else() -> None:
    broker = Refusing()
    publisher = await connected(broker)
    broker.lost = {0, 1, 2}
    for minute in range(20):
        publisher.note(minute * MINUTE_MS, {"shop": ServiceCounts(received=1, rejected={"level": 1})})
        await flushed(publisher)
        assert not publisher.problems()
    assert len(set(broker.keys)) == len(broker.keys) > 20, "a new key each time: nothing of the old one was sent"
    assert booked_once(broker) == len(broker.records) == 20


async def test_counts_that_may_have_been_taken_keep_their_key_and_hold_up_no_others() -> None:
    broker = Refusing()
    publisher = await connected(broker)
    broker.refusals = [BrokerUnavailable("no acknowledgement"), CancelledError(), ValueError("what is this?")]
    for minute in range(3):
        publisher.note(minute * MINUTE_MS, {"shop": ServiceCounts(received=1, rejected={"level": 1})})
        try:
            assert not await publisher.flush_counts()
        except (CancelledError, ValueError):
            continue
    doubtful = list(broker.keys)
    assert len(set(doubtful)) == 3
    broker.lost = {partition_of(doubtful[0], broker.partitions)}
    publisher.note(9 * MINUTE_MS, {"shop": ServiceCounts(received=1, rejected={"level": 1})})
    for _ in range(10):
        assert not await publisher.flush_counts()
    assert doubtful[0] not in {frame.key_hash for frame, _ in broker.frames()}
    assert any(frame.received_ms == 9 * MINUTE_MS for frame, _ in broker.frames())
    broker.lost.clear()
    assert await publisher.flush_counts()
    assert {frame.key_hash for frame, _ in broker.frames()} > set(doubtful)
    assert booked_once(broker) == 4


@given(outcomes=st.lists(st.sampled_from(["taken", "taken, not told", "lost", "not sent", "no leader", "full"])))
def test_counts_are_booked_once_whatever_becomes_of_the_attempts(outcomes: list[str]) -> None:
    async def scenario() -> None:
        broker = Refusing()
        publisher = await connected(broker)
        for number, outcome in enumerate(outcomes):
            publisher.note(number * MINUTE_MS, {"shop": ServiceCounts(received=1, rejected={"level": 1})})
            broker.error = BrokerUnavailable() if outcome == "taken, not told" else None
            broker.error_after_append = True
            refusal: dict[str, LogfeedError] = {
                "lost": BrokerUnavailable(),
                "not sent": RecordNotSent(),
                "no leader": PartitionUnavailable(),
                "full": Overloaded(),
            }
            broker.refusals = [refusal[outcome]] if outcome in refusal else []
            await publisher.flush_counts()
        broker.error, broker.refusals = None, []
        await flushed(publisher)
        assert booked_once(broker) == len(outcomes)

    asyncio.run(scenario())


async def test_cancellation_of_something_else_does_not_end_the_tasks_beside_the_requests() -> None:
    broker = Refusing()
    publisher, stop = Publisher(broker, SETTINGS), Stop()
    running = asyncio.create_task(publisher.run(stop))
    await until(lambda: not publisher.problems())
    broker.refusals = [CancelledError() for _ in range(3)]
    publisher.note(0, {"shop": ServiceCounts(received=1, rejected={"level": 1})})
    await until(lambda: any("CancelledError" in each for each in publisher.problems()))
    await until(lambda: not publisher.problems() and booked_once(broker) == 1)
    stop.set()
    await running
    running = asyncio.create_task(Publisher(broker, SETTINGS).run(Stop()))
    producers = broker.producers
    await until(lambda: broker.producers > producers)
    running.cancel()
    await asyncio.wait({running}, timeout=5)
    assert running.cancelled(), "its own cancellation does"


def rejected(services: int, *, first: int = 0) -> dict[str, ServiceCounts]:
    return {str(n): ServiceCounts(received=1, rejected={"level": 1}) for n in range(first, first + services)}


async def test_counts_that_wait_are_bounded_and_shown() -> None:
    broker = MemoryBroker()
    publisher = await connected(broker)
    with publisher.room(COUNTS_MAX), pytest.raises(Overloaded, match="counts"), publisher.room(1):
        pytest.fail("there was no room")
    assert not publisher.problems()
    with publisher.room(COUNTS_MAX - 999):
        publisher.note(0, rejected(COUNTS_MAX - 999))
    assert "counts" in publisher.problems()[0]
    with pytest.raises(Overloaded, match="counts"), publisher.room(1000):
        pytest.fail("there was no room")
    await publisher.publish(VALUE, header())


async def test_counts_that_fill_all_room_are_published_and_free_it() -> None:
    broker = MemoryBroker()
    publisher = await connected(broker)
    publisher.note(0, rejected(COUNTS_MAX + 10_000))
    assert await publisher.flush_counts()
    assert not publisher.problems()
    with publisher.room(1000):
        publisher.note(0, rejected(1000))
    assert sum(count.received for frame, _ in broker.frames() for count in frame.counts.values()) == COUNTS_MAX + 10_000


class Faulty(MemoryBroker):
    """Raises what nobody expects of a broker, in each of its calls, while `broken` is set."""

    broken: Exception | None = None

    async def producer(self) -> Producer:
        if self.broken is not None:
            raise self.broken
        return FaultyProducer(self)

    async def retention_risk(self, group: str) -> float:
        if self.broken is not None:
            raise self.broken
        return await super().retention_risk(group)


class FaultyProducer(MemoryProducer):
    """Of `Faulty`."""

    def __init__(self, broker: Faulty) -> None:
        super().__init__(broker)
        self._faulty = broker

    async def publish(self, record: Record, *, partition_key: bytes | None) -> tuple[int, int]:
        if self._faulty.broken is not None:
            raise self._faulty.broken
        return await super().publish(record, partition_key=partition_key)


async def test_unexpected_errors_are_shown_and_end_no_task(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingest.publish._CONNECT_EVERY_S", 0.01)
    broker = Faulty()
    broker.broken = RuntimeError("at the start")
    publisher, stop = Publisher(broker, SETTINGS), Stop()
    running = asyncio.create_task(publisher.run(stop))
    await until(lambda: any("at the start" in each for each in publisher.problems()))
    broker.broken = None
    await until(lambda: not publisher.problems())
    broker.broken = ValueError("later")
    publisher.note(0, {"shop": ServiceCounts(received=1, rejected={"level": 1})})
    await until(lambda: sum("later" in each for each in publisher.problems()) == 2)
    broker.broken = None
    await until(lambda: not publisher.problems() and len(broker.records) == 1)
    assert not running.done()
    stop.set()
    await running


async def test_more_counts_than_one_frame_holds_go_into_several() -> None:
    broker = MemoryBroker()
    publisher = await connected(broker)
    publisher.note(0, {str(n): ServiceCounts(received=1, rejected={"level": 1}) for n in range(2_500)})
    assert await publisher.flush_counts()
    frames = [frame for frame, _ in broker.frames()]
    assert len(frames) == 3
    assert sum(len(frame.counts) for frame in frames) == 2_500
    publisher.check()


async def test_stop_publishes_the_counts_that_wait() -> None:
    broker = MemoryBroker()
    publisher, stop = Publisher(broker, IngestSettings(counts_flush_s=1)), Stop()
    running = asyncio.create_task(publisher.run(stop))
    await until(lambda: broker.producers == 1)
    await asyncio.sleep(0)
    publisher.note(0, {"shop": ServiceCounts(received=1, rejected={"level": 1})})
    stop.set()
    await running
    await publisher.close()
    assert sum(frame.counts["shop"].received for frame, _ in broker.frames()) == 1
