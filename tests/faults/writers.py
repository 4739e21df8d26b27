"""Writers in the test's own process over real brokers and databases, and a broker that can be meddled with.

For faults that no signal or proxy brings about: a leader that shows the wrong log once, a broker that one writer alone has
lost, a consumer that hangs.
"""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import psycopg

from broker.factory import make_broker
from broker.intake import partition_of
from broker.port import Broker, Delivered, Producer, Reader, Record
from broker.settings import BrokerSettings
from db.database import Database
from db.migrations import Layout
from infra.fleet import until
from runtime.clock import SystemClock
from runtime.stopping import Stop
from schemas.frames import encode_headers, encode_lines
from store.postgres_write import PostgresWriteStore
from store.upkeep import PostgresUpkeep
from tests.unit.writer.builders import header, log
from writer.consume import Consumer
from writer.settings import WriterSettings

Poll = Callable[[], Awaitable[list[Delivered]]]


class Meddler:
    """A broker whose readers can be meddled with; everything else is the real one's."""

    def __init__(self, real: Broker) -> None:
        self._real = real
        self.sessions = 0
        """Readers made so far."""
        self.on_poll: Callable[[Meddler, Poll], Awaitable[list[Delivered]]] | None = None
        """Asked instead of the reader, with the reader's poll; may raise."""
        self.away: Exception | None = None
        """Raised by everything a reader is asked, while it is set."""

    @property
    def topic(self) -> str:
        return self._real.topic

    @property
    def partitions(self) -> int:
        return self._real.partitions

    async def open(self) -> None:
        await self._real.open()

    async def look_again(self) -> list[str]:
        return await self._real.look_again()

    async def close(self) -> None:
        await self._real.close()

    async def producer(self) -> Producer:
        return await self._real.producer()

    async def reader(self, *, group: str) -> Reader:
        self.sessions += 1
        return _MeddledReader(await self._real.reader(group=group), self)

    async def commit_group(self, group: str, offsets: Mapping[int, int]) -> None:
        await self._real.commit_group(group, offsets)

    async def group_offsets(self, group: str) -> dict[int, int]:
        return await self._real.group_offsets(group)

    async def retention_risk(self, group: str) -> float:
        return await self._real.retention_risk(group)


class _MeddledReader:
    def __init__(self, real: Reader, meddler: Meddler) -> None:
        self._real = real
        self._meddler = meddler

    async def seek(self, positions: Mapping[int, int]) -> None:
        await self._real.seek(positions)

    async def poll(self, *, max_bytes: int, wait_ms: int) -> list[Delivered]:
        self._check()

        async def poll() -> list[Delivered]:
            return await self._real.poll(max_bytes=max_bytes, wait_ms=wait_ms)

        return await (poll() if self._meddler.on_poll is None else self._meddler.on_poll(self._meddler, poll))

    async def first_offsets(self, partitions: Iterable[int]) -> dict[int, int]:
        self._check()
        return await self._real.first_offsets(partitions)

    async def end_offsets(self, partitions: Iterable[int]) -> dict[int, int]:
        self._check()
        return await self._real.end_offsets(partitions)

    async def close(self) -> None:
        await self._real.close()

    def _check(self) -> None:
        if self._meddler.away is not None:
            raise self._meddler.away


@dataclass
class Place:
    """One broker and one database, seen by every process of a test."""

    database_url: str
    layout: Layout
    settings: BrokerSettings
    stack: AsyncExitStack
    sent: Counter[int] = field(default_factory=Counter)
    """partition -> logs published"""
    numbers: int = 0

    async def database(self) -> Database:
        database = Database(self.database_url, application_name="test")
        await database.open()
        self.stack.push_async_callback(database.close)
        return database

    async def broker(self) -> Broker:
        """An opened broker of one more process."""
        broker = make_broker(self.settings, await self.database() if self.settings.kind == "queue" else None)
        self.stack.push_async_callback(broker.close)
        await broker.open()
        return broker

    @asynccontextmanager
    async def writer(
        self,
        name: str,
        broker: Broker,
        *,
        store_class: type[PostgresWriteStore] = PostgresWriteStore,
        **settings: Any,
    ) -> AsyncIterator[asyncio.Task[None]]:
        """A running writer, stopped at the end; one that ended before is the test's business. settings: of the writer."""
        stop = Stop()
        database = await self.database()
        store = store_class(database, topic=self.settings.topic, layout=self.layout)
        self.stack.push_async_callback(store.close)
        consumer = Consumer(
            settings=WriterSettings.model_validate({"name": name, "lease_ttl_s": 1.5, **settings}),
            broker=broker,
            store=store,
            upkeep=PostgresUpkeep(database, topic=self.settings.topic, layout=self.layout),
            clock=SystemClock(),
            stop=stop,
        )
        task = asyncio.create_task(consumer.run())
        try:
            yield task
        finally:
            ended_before = task.done()
            stop.set()
            await asyncio.wait({task})
        if not ended_before:
            task.result()

    async def publish(self, producer: Producer, partition: int, *, frames: int = 1, logs: int = 5) -> None:
        """Frames of new logs into one partition."""
        key = key_of(partition, producer_partitions(producer))
        for _ in range(frames):
            now_us = SystemClock().now_us()
            lines = [log(self.numbers + n + 1, timestamp_us=now_us + n) for n in range(logs)]
            self.numbers += logs
            head = header(lines, frame_id=uuid.uuid4().int >> 64, received_ms=now_us // 1000)
            where, _ = await producer.publish(Record(encode_lines(lines), encode_headers(head)), partition_key=key)
            assert where == partition
            self.sent[partition] += logs

    def query(self, statement: str) -> list[tuple[Any, ...]]:
        """Rows of a statement, outside every adapter. Any: whatever the statement names."""
        with psycopg.connect(self.database_url) as connection:
            return connection.execute(statement.encode()).fetchall()

    async def ask(self, statement: str) -> list[tuple[Any, ...]]:
        return await asyncio.to_thread(self.query, statement)

    async def stores(self, count: int, *, timeout_s: float = 60.0) -> None:
        """Wait until exactly so many rows are there."""

        async def there() -> bool:
            ((stored,),) = await self.ask("SELECT count(*) FROM logs")
            return int(stored) >= count

        await until(there, what=f"{count} rows are stored", timeout_s=timeout_s)
        assert await self.ask("SELECT count(*), count(DISTINCT id) FROM logs") == [(count, count)]

    async def stores_everything(self, *, timeout_s: float = 60.0) -> None:
        """Wait until all that was published is stored, once; the ledger adds up."""
        await self.stores(self.numbers, timeout_s=timeout_s)
        sums = dict(await self.ask("SELECT outcome, sum(count)::bigint FROM ledger GROUP BY 1"))
        assert sums == {"received": self.numbers, "stored": self.numbers}

    async def halted(self) -> dict[int, str]:
        """partition -> why it is halted"""
        return dict(await self.ask("SELECT partition, halted FROM consumer_offsets WHERE halted IS NOT NULL"))

    async def owners(self) -> dict[int, str | None]:
        return dict(await self.ask("SELECT partition, owner FROM consumer_offsets"))


def producer_partitions(producer: Producer) -> int:
    """Partitions that a producer of either broker divides its records among."""
    partitions: int = producer._intake._partitions  # type: ignore[attr-defined]  # both have one
    return partitions


def key_of(partition: int, partitions: int) -> bytes:
    """A key that comes to this partition."""
    return next(key for key in (b"%d" % n for n in range(10_000)) if partition_of(key, partitions) == partition)
