"""The writer's loop in one process over real brokers and databases: what the fault tests then hurt."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import psycopg
import pytest

from broker.factory import make_broker
from broker.port import Broker, Record
from broker.settings import BrokerSettings
from db.database import Database
from db.migrations import Layout
from infra.fleet import until
from runtime.clock import SystemClock
from runtime.stopping import Stop
from schemas.errors import BrokerUnavailable
from schemas.frames import encode_headers, encode_lines
from schemas.record import Log
from schemas.topics import WRITER_GROUP
from store.postgres_write import PostgresWriteStore
from store.upkeep import PostgresUpkeep
from tests.unit.writer.builders import header, log
from writer.consume import Consumer
from writer.settings import WriterSettings


@dataclass
class Site:
    """One broker and one database."""

    database_url: str
    layout: Layout
    broker_settings: BrokerSettings

    @asynccontextmanager
    async def broker(self) -> AsyncIterator[tuple[Broker, Database]]:
        """Opened adapters."""
        database = Database(self.database_url, application_name="test")
        await database.open()
        broker = make_broker(self.broker_settings, database)
        await broker.open()
        try:
            yield broker, database
        finally:
            await broker.close()
            await database.close()

    @asynccontextmanager
    async def writer(self, name: str, **settings: object) -> AsyncIterator[asyncio.Task[None]]:
        """A running writer, stopped at the end."""
        stop = Stop()
        async with self.broker() as (broker, database):
            store = PostgresWriteStore(database, topic=self.broker_settings.topic, layout=self.layout)
            upkeep = PostgresUpkeep(database, topic=self.broker_settings.topic, layout=self.layout)
            consumer = Consumer(
                settings=WriterSettings.model_validate({"name": name, "lease_ttl_s": 1.5, **settings}),
                broker=broker,
                store=store,
                upkeep=upkeep,
                clock=SystemClock(),
                stop=stop,
            )
            task = asyncio.create_task(consumer.run())
            try:
                yield task
            finally:
                stop.set()
                await task
                await store.close()

    def query(self, statement: str) -> list[tuple[object, ...]]:
        """Rows of a statement, outside every adapter."""
        with psycopg.connect(self.database_url) as connection:
            return connection.execute(statement.encode()).fetchall()


@pytest.fixture(params=["embedded", "full"])
def site(request: pytest.FixtureRequest) -> Site:
    """Both profiles."""
    topic = f"logs.{uuid.uuid4().hex[:8]}"
    if request.param == "embedded":
        url: str = request.getfixturevalue("native_url")
        return Site(url, Layout.NATIVE, BrokerSettings(kind="queue", topic=topic, partitions=3))
    bootstrap: str = request.getfixturevalue("kafka_bootstrap")
    url = request.getfixturevalue("timescale_url")
    return Site(url, Layout.TIMESCALE, BrokerSettings(kind="kafka", topic=topic, partitions=3, bootstrap=bootstrap))


def _now_logs(first: int, count: int) -> list[Log]:
    now_us = SystemClock().now_us()
    return [log(number, timestamp_us=now_us + number) for number in range(first, first + count)]


async def _publish(broker: Broker, frames: list[list[Log]], *, keys: list[str] | None = None) -> None:
    producer = await broker.producer()
    for index, logs in enumerate(frames):
        key = keys[index] if keys else None
        head = header(
            logs, frame_id=uuid.uuid4().int >> 64, key=key, body="body", received_ms=logs[0].timestamp // 1000
        )
        await producer.publish(Record(encode_lines(logs), encode_headers(head)), partition_key=head.key_hash)
    await producer.close()


async def _stored(site: Site, count: int) -> None:
    async def there() -> bool:
        return (await asyncio.to_thread(site.query, "SELECT count(*) FROM logs"))[0][0] == count

    await until(there, what=f"{count} rows are stored", timeout_s=30)


async def test_frames_are_stored_and_visible_through_moves_on(site: Site) -> None:
    async with site.broker() as (broker, _), site.writer("w"):
        await _publish(broker, [_now_logs(first, 10) for first in (1, 11, 21)])
        await _stored(site, 30)

        async def visible() -> bool:
            rows = await asyncio.to_thread(
                site.query, "SELECT min(stored_to) > clock_timestamp() - interval '1 second' FROM consumer_offsets"
            )
            return rows == [(True,)]

        await until(visible, what="idle partitions are marked as read to the end")
    assert site.query("SELECT sum(next_offset), count(owner) FROM consumer_offsets") == [(3, 0)]
    assert site.query("SELECT outcome, sum(count) FROM ledger GROUP BY 1 ORDER BY 1") == [
        ("received", 30),
        ("stored", 30),
    ]


async def test_what_a_database_has_no_more_is_read_again_by_a_writer_that_nothing_is_sent_to(site: Site) -> None:
    """A replica that was promoted behind: the same leases at older offsets, over connections that did not break."""
    async with site.broker() as (broker, _), site.writer("w"):
        await _publish(broker, [_now_logs(first, 5) for first in (1, 6, 11)])
        await _stored(site, 15)
        with psycopg.connect(site.database_url, autocommit=True) as connection:
            connection.execute(
                "CREATE TABLE before AS SELECT partition, next_offset, last_frame_id FROM consumer_offsets"
            )
            await _publish(broker, [_now_logs(first, 5) for first in (16, 21, 26)])
            await _stored(site, 30)
            with connection.transaction():
                connection.execute("DELETE FROM logs WHERE id > 15")
                connection.execute(
                    "UPDATE consumer_offsets AS o SET next_offset = b.next_offset, last_frame_id = b.last_frame_id"
                    " FROM before AS b WHERE o.partition = b.partition"
                )
        await _stored(site, 30)
    assert site.query("SELECT count(DISTINCT id), sum(id) FROM logs") == [(30, 465)]


async def test_same_key_twice_is_stored_once_over_a_restart(site: Site) -> None:
    async with site.broker() as (broker, _):
        logs = _now_logs(1, 5)
        async with site.writer("w"):
            await _publish(broker, [logs], keys=["k"])
            await _stored(site, 5)
        async with site.writer("w"):
            await _publish(broker, [logs, _now_logs(6, 1)], keys=["k", "other"])
            await _stored(site, 6)
    assert site.query("SELECT sum(count) FROM ledger WHERE outcome = 'duplicate'") == [(5,)]


async def test_two_writers_share_the_partitions_and_one_takes_all_when_the_other_stops(site: Site) -> None:
    async with site.broker() as (broker, _), site.writer("a"):
        async with site.writer("b"):

            async def shared() -> bool:
                owners = await asyncio.to_thread(
                    site.query, "SELECT owner, count(*) FROM consumer_offsets GROUP BY 1 ORDER BY 1"
                )
                return [owner for owner, _ in owners] == ["a", "b"]

            await until(shared, what="both have partitions", timeout_s=20)
            await _publish(broker, [_now_logs(first, 4) for first in range(1, 121, 4)])
            await _stored(site, 120)

        async def alone() -> bool:
            return await asyncio.to_thread(site.query, "SELECT DISTINCT owner FROM consumer_offsets") == [("a",)]

        await until(alone, what="the other took all", timeout_s=20)
        await _publish(broker, [_now_logs(first, 4) for first in range(121, 241, 4)])
        await _stored(site, 240)


async def test_broker_learns_how_far_is_stored(site: Site) -> None:
    async with site.broker() as (broker, _):
        async with site.writer("w"):
            await _publish(broker, [_now_logs(1, 3)], keys=["k"])
            await _stored(site, 3)
        assert sum((await broker.group_offsets(WRITER_GROUP)).values()) == 1


async def test_backlog_of_compressible_logs_is_stored_in_bounded_batches(site: Site) -> None:
    """What a poll decodes to says nothing of what it weighed: equal lines compress a hundredfold."""
    async with site.broker() as (broker, _):
        frames = [_now_logs(first, 2_000) for first in range(1, 60_001, 2_000)]
        for logs in frames:
            for one in logs:
                one.message = "Caused by: java.lang.IllegalStateException: pool exhausted\n" * 20
        await _publish(broker, frames)
        async with site.writer("w", batch_rows_max=5_000):
            await _stored(site, 60_000)
    largest = site.query("SELECT max(rows) FROM (SELECT count(*) AS rows FROM logs GROUP BY xmin) AS batches")
    assert largest[0][0] in range(1, 7_000)


async def test_broker_that_takes_no_group_commit_stops_nothing(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    async with site.broker() as (broker, _):
        await _publish(broker, [_now_logs(1, 10)])

        async def refuse(self: object, group: str, offsets: object) -> None:
            raise BrokerUnavailable("no coordinator")

        monkeypatch.setattr(type(broker), "commit_group", refuse)
        async with site.writer("w"):
            await _stored(site, 10)
