"""Publishing: refusals before anything is sent, counts that are never lost nor booked twice, and a broker that comes back."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

import pytest

from broker.port import Producer, Record
from ingest.errors import RetentionAtRisk
from ingest.publish import COUNTS_MAX, Publisher
from ingest.settings import IngestSettings
from runtime.stopping import Stop
from schemas.errors import BrokerUnavailable, Overloaded, RecordTooLarge
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
    assert headers[0].key_hash == headers[1].key_hash != headers[2].key_hash
    assert headers[0].body_sha256 == headers[1].body_sha256
    assert [frame.counts["shop"].received for frame in headers] == [1, 1, 1]


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
