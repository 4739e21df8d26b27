"""What the writer does with records and logs it must not trust, and while the database changes under it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import psycopg
import pytest
import zstandard
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from broker.factory import make_broker
from broker.kafka_topic import topic_settings
from broker.port import Record
from broker.settings import BrokerSettings
from db.database import Database
from db.migrations import Layout, Migration, migrate, migrations
from infra import warm
from infra.fleet import EMBEDDED, FULL, Fleet, until
from schemas.frames import FrameHeader, ServiceCounts, encode_headers
from tests.faults.conftest import MakeFleet
from tests.faults.producers import Producers, assert_exactly_once


def _settings(fleet: Fleet) -> BrokerSettings:
    if fleet.kafka is not None:
        return BrokerSettings(
            kind="kafka", bootstrap=fleet.kafka.bootstrap, topic=fleet.topic, partitions=fleet.partitions
        )
    return BrokerSettings(kind="queue", topic=fleet.topic, partitions=fleet.partitions)


@asynccontextmanager
async def _publishing(fleet: Fleet) -> AsyncIterator[Callable[[Record], Awaitable[object]]]:
    """Publishes records into one partition."""
    database = Database(fleet.database_url, application_name="test")
    await database.open()
    broker = make_broker(_settings(fleet), database)
    await broker.open()
    producer = await broker.producer()
    yield lambda record: producer.publish(record, partition_key=b"one partition")
    await producer.close()
    await broker.close()
    await database.close()


async def _publish(fleet: Fleet, *records: Record) -> None:
    async with _publishing(fleet) as publish:
        for record in records:
            await publish(record)


def _frame(lines: list[bytes], *, version: int = 1, number: int = 1) -> Record:
    head = FrameHeader(
        frame_id=number.to_bytes(16, "big"),
        received_ms=time.time_ns() // 1_000_000,
        counts={"shop": ServiceCounts(received=len(lines))},
        version=version,
    )
    return Record(value=zstandard.compress(b"\n".join(lines)), headers=encode_headers(head))


def _halted(fleet: Fleet) -> list[str]:
    with psycopg.connect(fleet.database_url) as connection:
        rows = connection.execute(
            "SELECT halted FROM consumer_offsets WHERE topic = %s AND halted IS NOT NULL", (fleet.topic,)
        ).fetchall()
    return [reason for (reason,) in rows]


async def test_poison_line_is_put_aside_and_the_rest_is_stored(make_fleet: MakeFleet, profile: str) -> None:
    fleet = await asyncio.to_thread(make_fleet, profile)
    fleet.role("serve")
    fleet.role("write")
    await fleet.ready("serve")
    # PostgreSQL refuses \u0000 in jsonb; ingest would have replaced it, another program might not.
    good = b'[%d,1767268800000000,9,"shop","fine",null,{"producer":0,"number":%d}]'
    poison = b'[77,1767268800000000,9,"shop","poison",null,{"a":"\\u0000"}]'
    await _publish(fleet, _frame([good % (5, 0), poison, b"not json", good % (6, 1)]))
    producers = Producers(lambda: fleet.url("serve"), sent={(0, 0), (0, 1)}, acked={(0, 0), (0, 1)})
    await assert_exactly_once(fleet.url("serve"), producers)
    with psycopg.connect(fleet.database_url) as connection:
        dead = connection.execute("SELECT line_index, reason FROM dead_letters ORDER BY line_index").fetchall()
    assert dead == [(1, "refused"), (2, "undecodable")]


async def test_unknown_record_version_stops_the_partition(make_fleet: MakeFleet, profile: str) -> None:
    fleet = await asyncio.to_thread(make_fleet, profile)
    writer = fleet.role("write")
    await _publish(fleet, _frame([b"[]"], version=99))

    async def halted() -> bool:
        return any("record version 99" in reason for reason in await asyncio.to_thread(_halted, fleet))

    await until(halted, what="the partition is halted with a clear reason")
    assert writer.alive


async def test_all_poison_stops_the_writer_and_diverts_nothing(make_fleet: MakeFleet, profile: str) -> None:
    fleet = await asyncio.to_thread(make_fleet, profile)
    writer = fleet.role("write")
    await _publish(fleet, _frame([b"poison"] * 500))
    assert writer.process is not None
    assert await asyncio.to_thread(writer.process.wait, 60) == 1
    assert "500 of 500 lines" in writer.log_text()
    with psycopg.connect(fleet.database_url) as connection:
        assert connection.execute("SELECT count(*) FROM dead_letters").fetchone() == (0,)
        assert connection.execute("SELECT sum(next_offset) FROM consumer_offsets").fetchone() == (0,)


async def test_flood_of_small_poison_frames_stops_the_writer_for_good(make_fleet: MakeFleet, profile: str) -> None:
    """However small the frames are, and however often a supervisor starts the writer again."""
    fleet = await asyncio.to_thread(make_fleet, profile)
    writer = fleet.role("write")
    async with _publishing(fleet) as publish:
        for number in range(1, 21):
            await publish(_frame([b"poison"] * 5, number=number))

            async def put_aside(number: int = number) -> bool:
                return sum(await asyncio.to_thread(_next_offsets, fleet)) == number

            await until(put_aside, what=f"frame {number} is put aside")
        await publish(_frame([b"poison"] * 5, number=21))
    assert writer.process is not None
    for _ in range(3):
        assert await asyncio.to_thread(writer.process.wait, 60) == 1
        with psycopg.connect(fleet.database_url) as connection:
            assert connection.execute("SELECT count(*) FROM dead_letters").fetchone() == (100,)
        assert sum(_next_offsets(fleet)) == 20
        writer.start()
    assert writer.log_text().count("105 of 105 lines cannot be stored, 100 of them put aside before") >= 3


@pytest.mark.kafka
async def test_topic_deleted_and_made_again_halts_its_partitions(make_fleet: MakeFleet) -> None:
    """Under a running writer, and again for one that starts when the new topic has more records than were stored."""
    fleet = await asyncio.to_thread(make_fleet, FULL, partitions=2)
    writer = fleet.role("write")
    good = b'[%d,1767268800000000,9,"shop","fine",null,{"number":%d}]'
    await _publish(fleet, *(_frame([good % (number, number)], number=number) for number in range(1, 4)))

    async def stored() -> bool:
        return await asyncio.to_thread(_next_offsets, fleet) == [0, 3]

    await until(stored, what="three frames are stored")
    await _make_topic_again(fleet)

    async def halted() -> bool:
        return len(await asyncio.to_thread(_halted, fleet)) == 1

    await until(halted, what="the partition that was stored from is halted")
    assert _halted(fleet) == ["partition 0: offset 2 was asked for, the broker has 0..-1"]
    assert writer.alive
    await asyncio.to_thread(writer.stop)
    await asyncio.to_thread(_forget_halt, fleet)
    await _publish(fleet, *(_frame([good % (number, number)], number=number) for number in range(11, 16)))
    writer.start()
    await until(halted, what="the partition is halted again")
    assert "the topic was made again or restored; nothing was stored from it" in _halted(fleet)[0]
    assert _next_offsets(fleet) == [0, 3]
    with psycopg.connect(fleet.database_url) as connection:
        sums = connection.execute("SELECT outcome, sum(count)::bigint FROM ledger GROUP BY 1").fetchall()
    assert dict(sums) == {"received": 3, "stored": 3}


async def _make_topic_again(fleet: Fleet) -> None:
    assert fleet.kafka is not None
    admin = AIOKafkaAdminClient(bootstrap_servers=fleet.kafka.bootstrap)
    await admin.start()
    await admin.delete_topics([fleet.topic])

    async def made() -> bool:
        new = NewTopic(fleet.topic, fleet.partitions, 1, topic_configs=topic_settings(1))
        answer = await admin.create_topics([new])
        return all(code == 0 for _, code, *_ in answer.topic_errors)

    await until(made, what="the old topic is gone and there is a new one")
    await admin.close()


def _next_offsets(fleet: Fleet) -> list[int]:
    with psycopg.connect(fleet.database_url) as connection:
        rows = connection.execute(
            "SELECT next_offset FROM consumer_offsets WHERE topic = %s ORDER BY next_offset", (fleet.topic,)
        ).fetchall()
    return [offset for (offset,) in rows]


def _forget_halt(fleet: Fleet) -> None:
    """As if an operator had resumed it without looking."""
    with psycopg.connect(fleet.database_url) as connection:
        connection.execute("UPDATE consumer_offsets SET halted = NULL WHERE topic = %s", (fleet.topic,))


async def test_topic_that_lost_its_records_halts_and_can_be_resumed(make_fleet: MakeFleet, profile: str) -> None:
    """The broker holds less than what was stored: as after a topic was deleted and made again."""
    fleet = await asyncio.to_thread(make_fleet, profile, partitions=1)
    fleet.role("serve")
    writer = fleet.role("write")
    await fleet.ready("serve")
    producers = Producers(lambda: fleet.url("serve"), seed=100)
    await producers.run(producers=1, requests=3, logs_per_request=10)
    await assert_exactly_once(fleet.url("serve"), producers)
    await asyncio.to_thread(writer.stop)
    with psycopg.connect(fleet.database_url) as connection:
        connection.execute(
            "UPDATE consumer_offsets SET next_offset = next_offset + 1000 WHERE topic = %s", (fleet.topic,)
        )
    writer.start()

    async def halted() -> bool:
        return bool(await asyncio.to_thread(_halted, fleet))

    await until(halted, what="the partition is halted", timeout_s=30)
    assert writer.alive
    with psycopg.connect(fleet.database_url) as connection:
        row = connection.execute(
            "SELECT next_offset - 1000 FROM consumer_offsets WHERE topic = %s", (fleet.topic,)
        ).fetchone()
    assert row is not None
    resumed = await asyncio.to_thread(
        warm.run, "db", "resume", "0", "--next-offset", str(row[0]), environment=fleet.environment()
    )
    assert resumed.returncode == 0, resumed.stderr
    producers.seed += 1
    producers_after = Producers(lambda: fleet.url("serve"), seed=101, sent=producers.sent, acked=producers.acked)
    await _send_more(producers_after)
    await assert_exactly_once(fleet.url("serve"), producers_after)


async def _send_more(producers: Producers) -> None:
    """The same producers go on numbering where the first run ended."""
    import httpx

    async with httpx.AsyncClient(trust_env=False) as client:
        for number in range(1000, 1010):
            body = {"service_name": "shop", "message": "more", "metadata": {"producer": 0, "number": number}}
            answer = await client.post(f"{producers.url()}/api/v1/logs", json=body)
            assert answer.status_code == 201
            producers.sent.add((0, number))
            producers.acked.add((0, number))


async def test_additive_migration_under_a_running_writer(make_fleet: MakeFleet, profile: str) -> None:
    fleet = await asyncio.to_thread(make_fleet, profile)
    fleet.role("serve")
    writer = fleet.role("write")
    await fleet.ready("serve")
    producers = Producers(lambda: fleet.url("serve"), seed=110)
    sending = asyncio.create_task(producers.run(producers=2, requests=30, logs_per_request=20))
    layout = Layout.NATIVE if profile == EMBEDDED else Layout.TIMESCALE
    newer = Migration(9999, "newer", "ALTER TABLE logs ADD COLUMN extra text; CREATE TABLE newer (a integer);")
    applied = await migrate(fleet.database_url, layout, known=[*migrations(layout), newer])
    assert applied == [newer]
    await sending
    await assert_exactly_once(fleet.url("serve"), producers)
    assert writer.alive
