"""Publishes into the queue: one task per producer gathers what waits and appends it in one fsynced commit.

While one commit is under way, what arrives shares the next one, so that the cost of the fsync is divided under load and
nobody waits without load. The append is one call of a server-side function: no lock is held across a round trip.

A commit whose answer is lost may have happened: its records fail with BrokerUnavailable and are never sent again from
here, since that could store them twice. A caller that is cancelled, or whose time is up, leaves its record to the task;
a record whose time was up before its commit began is not sent any more.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import Final

import msgspec
import structlog

from broker.intake import Intake
from broker.port import Record
from broker.settings import BrokerSettings
from db.database import Database
from runtime.sparing import SparingLog
from schemas.errors import BrokerUnavailable, DatabaseUnavailable, RecordNotSent
from schemas.frames import FRAME_BYTES_MAX

log = structlog.get_logger(__name__)

GROUP_BYTES_MAX: Final = FRAME_BYTES_MAX
"""Bytes in one commit (one record may fill it alone): bounds the statement's memory and how long the locks are held."""
GROUP_RECORDS_MAX: Final = 256

_APPEND: Final = "SELECT logfeed_queue_append(%s, %b::integer[], %b::integer[], %b::bytea[], %b::bytea[])"
_headers_encoder: Final = msgspec.msgpack.Encoder()


@dataclass(frozen=True, slots=True, eq=False)
class _Waiting:
    record: Record
    partition: int
    deadline_s: float
    done: asyncio.Future[tuple[int, int]]


class QueueProducer:
    """See `Producer`. Made on a running loop; close it there."""

    def __init__(self, database: Database, settings: BrokerSettings, *, partitions: int, first_partition: int) -> None:
        """Starts the task that commits."""
        self._database = database
        self._topic = settings.topic
        self._timeout_s = settings.request_timeout_ms / 1000
        self._linger_s = settings.queue_linger_ms / 1000
        self._intake = Intake(
            partitions=partitions, bytes_max=settings.in_flight_bytes_max, first_partition=first_partition
        )
        self._waiting: deque[_Waiting] = deque()
        self._unsettled: set[asyncio.Future[tuple[int, int]]] = set()
        self._arrived = asyncio.Event()
        self._closed = False
        self._repeated = SparingLog(log)
        self._task = asyncio.create_task(self._run(), name=f"queue producer {self._topic}")

    @property
    def bytes_in_flight(self) -> int:
        """See Producer."""
        return self._intake.bytes_in_flight

    async def publish(self, record: Record, *, partition_key: bytes | None) -> tuple[int, int]:
        """See Producer."""
        if self._closed:
            raise RecordNotSent("the producer is closed")
        partition = self._intake.admit(record, partition_key)
        loop = asyncio.get_running_loop()
        waiting = _Waiting(record, partition, loop.time() + self._timeout_s, loop.create_future())
        self._unsettled.add(waiting.done)
        self._waiting.append(waiting)
        self._arrived.set()
        try:
            async with asyncio.timeout(self._timeout_s):
                return await asyncio.shield(waiting.done)
        except TimeoutError as error:
            raise BrokerUnavailable(f"no commit after {self._timeout_s:g} s; it may still happen") from error

    async def close(self) -> None:
        """See Producer."""
        self._closed = True
        if self._unsettled:
            await asyncio.wait(set(self._unsettled), timeout=self._timeout_s)
        self._task.cancel()
        await asyncio.wait({self._task})
        self._fail(list(self._waiting), RecordNotSent("the producer was closed before the record was sent"))
        self._waiting.clear()

    async def _run(self) -> None:
        while True:
            await self._arrived.wait()
            if self._linger_s:
                await asyncio.sleep(self._linger_s)
            group = self._take_group()
            if group:
                await self._append(group)

    def _take_group(self) -> list[_Waiting]:
        now_s = asyncio.get_running_loop().time()
        group: list[_Waiting] = []
        group_bytes = 0
        while self._waiting and len(group) < GROUP_RECORDS_MAX:
            waiting = self._waiting[0]
            if group and group_bytes + waiting.record.size_bytes > GROUP_BYTES_MAX:
                break
            self._waiting.popleft()
            if waiting.deadline_s <= now_s:
                self._fail([waiting], RecordNotSent("the record's turn did not come in time; it was not sent"))
                continue
            group.append(waiting)
            group_bytes += waiting.record.size_bytes
        if not self._waiting:
            self._arrived.clear()
        return sorted(group, key=lambda each: each.partition)

    async def _append(self, group: list[_Waiting]) -> None:
        try:
            async with asyncio.timeout(self._timeout_s):
                offsets = await self._commit(group)
        except (DatabaseUnavailable, TimeoutError) as error:
            self._fail(group, BrokerUnavailable(f"the queue's database does not answer: {error}"))
        except asyncio.CancelledError:
            self._fail(group, BrokerUnavailable("the producer was closed while the record was sent"))
            raise
        except Exception as error:
            self._repeated.exception("queue append failed", error, topic=self._topic, records=len(group))
            self._fail(group, BrokerUnavailable(f"the queue took no records: {error}"))
        else:
            for waiting, offset in zip(group, offsets, strict=True):
                waiting.done.set_result((waiting.partition, offset))
                self._settle(waiting)

    async def _commit(self, group: list[_Waiting]) -> list[int]:
        """One statement in autocommit: when it returns, the transaction is committed and fsynced."""
        async with self._database.connection() as connection:
            cursor = await connection.execute(
                _APPEND,
                (
                    self._topic,
                    [waiting.partition for waiting in group],
                    [waiting.record.size_bytes for waiting in group],
                    [_headers_encoder.encode(waiting.record.headers) for waiting in group],
                    [waiting.record.value for waiting in group],
                ),
            )
            row = await cursor.fetchone()
        assert row is not None
        offsets: list[int] = row[0]
        return offsets

    def _fail(self, group: list[_Waiting], error: BrokerUnavailable) -> None:
        for waiting in group:
            waiting.done.set_exception(type(error)(str(error)))
            waiting.done.exception()  # seen: its caller may be gone
            self._settle(waiting)

    def _settle(self, waiting: _Waiting) -> None:
        self._unsettled.discard(waiting.done)
        self._intake.settle(waiting.record)
