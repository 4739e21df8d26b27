"""What the producer does with sends in the very turn of the loop in which a session ends, and with keys of a lost partition.

Which turn that is no real broker can be told: a stand-in for aiokafka's producer acknowledges when a test says so. What Kafka
itself does is held in tests/contract/test_broker.py and tests/faults/test_leaderless_partition.py.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any, cast

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition

from broker import kafka_producer
from broker.intake import partition_of
from broker.kafka_producer import KafkaProducer, _Session
from broker.port import Record
from broker.settings import BrokerSettings
from schemas.errors import BrokerUnavailable, PartitionUnavailable, RecordNotSent

PARTITIONS = 4
MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class _Metadata:
    offset: int


class _Stub:
    """Stands for an AIOKafkaProducer, its client and the client's cluster."""

    def __init__(self) -> None:
        self.lost: set[int] = set()
        """Partitions without a leader."""
        self.acknowledgements: list[asyncio.Future[_Metadata]] = []
        self.acknowledges = True
        self.looks = 0
        self.client = self.cluster = self

    def leader_for_partition(self, where: TopicPartition) -> int:
        return -1 if where.partition in self.lost else 1

    def force_metadata_update(self) -> asyncio.Future[bool]:
        self.looks += 1
        future = asyncio.get_running_loop().create_future()
        future.set_result(True)
        return future

    async def send(self, topic: str, value: bytes, **_: object) -> asyncio.Future[_Metadata]:
        acknowledgement = asyncio.get_running_loop().create_future()
        self.acknowledgements.append(acknowledgement)
        if self.acknowledges:
            acknowledgement.set_result(_Metadata(len(self.acknowledgements)))
        return acknowledgement


class _Producer(KafkaProducer):
    """Makes its sessions of stubs."""

    def __init__(self, settings: BrokerSettings) -> None:
        super().__init__(settings, partitions=PARTITIONS)
        self.stubs: list[_Stub] = []

    @property
    def stub(self) -> _Stub:
        return self.stubs[-1]

    async def _connect(self) -> _Session:
        self.stubs.append(_Stub())
        # Any: it has what a session asks of the real one.
        return _Session(cast(Any, self.stub), self._settings.topic, PARTITIONS)


@pytest.fixture
async def producer(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[_Producer]:
    async def ended(client: AIOKafkaProducer, timeout_s: float) -> None:
        return

    monkeypatch.setattr(kafka_producer, "_end_producer", ended)
    monkeypatch.setattr(kafka_producer, "_LEADERLESS_S", 0.05)
    monkeypatch.setattr(kafka_producer, "_LEADER_EVERY_S", 0.005)
    producer = _Producer(BrokerSettings(kind="kafka", in_flight_bytes_max=64 * MIB, request_timeout_ms=5_000))
    await producer.start()
    yield producer
    await producer.close()


def _record(size: int = 1000) -> Record:
    return Record(bytes(size), [])


def _keys(partition: int, count: int) -> list[bytes]:
    keys: list[bytes] = []
    while len(keys) < count:
        key = os.urandom(8)
        if partition_of(key, PARTITIONS) == partition:
            keys.append(key)
    return keys


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110  # a condition of several parts
            await asyncio.sleep(0.001)


async def _outcome(sending: Awaitable[object]) -> object:
    try:
        return await sending
    except BaseException as error:
        return error


async def test_send_that_has_not_begun_when_its_session_ends_is_settled_and_was_not_sent(producer: _Producer) -> None:
    producer.stub.acknowledges = False
    first = asyncio.create_task(producer.publish(_record(), partition_key=None))
    await _until(lambda: bool(producer.stub.acknowledgements))
    # The next publish is ready to run; behind it stands the failure of the first one, and then the second one's send.
    second = asyncio.create_task(producer.publish(_record(), partition_key=None))
    producer.stub.acknowledgements[0].set_exception(RuntimeError("fenced"))
    assert isinstance(await _outcome(first), BrokerUnavailable)
    assert isinstance(await _outcome(second), RecordNotSent)
    assert producer.bytes_in_flight == 0
    await _until(lambda: len(producer.stubs) == 2 and producer._session is not None)
    await producer.publish(_record(), partition_key=None)


async def test_acknowledgement_that_is_cancelled_by_the_client_is_an_unknown_outcome(producer: _Producer) -> None:
    producer.stub.acknowledges = False
    sends = [asyncio.create_task(producer.publish(_record(), partition_key=None)) for _ in range(3)]
    await _until(lambda: len(producer.stub.acknowledgements) == 3)
    producer.stub.acknowledgements[1].cancel()
    for send in sends:
        outcome = await _outcome(send)
        assert isinstance(outcome, BrokerUnavailable)
        assert not isinstance(outcome, RecordNotSent)
    assert producer.bytes_in_flight == 0
    await _until(lambda: len(producer.stubs) == 2)


async def test_cancelled_caller_leaves_the_send_alone_also_before_it_began(producer: _Producer) -> None:
    producer.stub.acknowledges = False
    send = asyncio.create_task(producer.publish(_record(), partition_key=None))
    await asyncio.sleep(0)
    send.cancel()
    assert isinstance(await _outcome(send), asyncio.CancelledError)
    await _until(lambda: bool(producer.stub.acknowledgements))
    assert producer.bytes_in_flight == 1000
    producer.stub.acknowledgements[0].set_result(_Metadata(1))
    await _until(lambda: producer.bytes_in_flight == 0)
    assert len(producer.stubs) == 1, "no session was abandoned"


async def test_keys_of_a_lost_partition_fail_soon_and_hold_a_quarter_at_most(producer: _Producer) -> None:
    producer.stub.lost = {0}
    sends = [asyncio.create_task(producer.publish(_record(MIB), partition_key=key)) for key in _keys(0, 60)]
    await _until(lambda: sum(send.done() for send in sends) == 44)
    assert producer.bytes_in_flight == 16 * MIB
    for _ in range(8):
        await producer.publish(_record(MIB), partition_key=None)
    for key in _keys(1, 3):
        assert (await producer.publish(_record(MIB), partition_key=key))[0] == 1
    outcomes = [await _outcome(send) for send in sends]
    assert all(isinstance(outcome, PartitionUnavailable) for outcome in outcomes)
    assert producer.bytes_in_flight == 0
    assert len(producer.stubs) == 1, "no session was abandoned"


async def test_key_waits_for_a_leader_that_is_being_elected(
    producer: _Producer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka_producer, "_LEADERLESS_S", 60.0)
    producer.stub.lost = {0}
    (key,) = _keys(0, 1)
    send = asyncio.create_task(producer.publish(_record(), partition_key=key))
    await producer.publish(_record(), partition_key=None)
    assert not send.done()
    producer.stub.lost.clear()
    assert (await send)[0] == 0


async def test_without_any_leader_records_wait_as_long_as_a_send_may_take(producer: _Producer) -> None:
    producer.stub.lost = set(range(PARTITIONS))
    sends = [asyncio.create_task(producer.publish(_record(MIB), partition_key=key)) for key in _keys(0, 30)]
    sends += [asyncio.create_task(producer.publish(_record(MIB), partition_key=None)) for _ in range(30)]
    await _until(lambda: producer.bytes_in_flight == 60 * MIB)
    # Each looks every 5 ms at most, and would give up after ten times that.
    await _until(lambda: producer.stub.looks > 20 * len(sends))
    assert not any(send.done() for send in sends), "there is nobody whom they could hold up"
    producer.stub.lost.clear()
    await asyncio.gather(*sends)
