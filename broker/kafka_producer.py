"""Publishes to Kafka: one idempotent aiokafka producer at a time (a session), acks=all.

aiokafka retries for ever and has no limit of bytes, so `Intake` counts bytes until the acknowledgement and every record has
a deadline. Any failure of a send leaves a hole in the session's sequence numbers, and a missed deadline leaves records that
would be delivered long after their callers were told 503; in both cases the session is abandoned: what it held fails with
BrokerUnavailable (outcome unknown), its sender is ended, a new one is made in the background, and
`logfeed_producer_restarts_total` says so.

A partition known to have no leader must not bring that about: records without a key pass it over, those with one wait for its
leader here and are handed to aiokafka only then, so that their deadline abandons nothing. While other partitions have
leaders they wait for a moment only (an election), in a part of the bytes only, and fail with PartitionUnavailable: what a lost
partition holds must not keep the others' records out. Who learns of it by a failure of a send abandons one session.

Each send is a task. It is settled by the task's callback, never by its coroutine, which does not run at all when the session
is abandoned in the turn of the loop that made the task.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass
from functools import partial
from typing import Final

import structlog
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError
from prometheus_client import Counter

from broker.intake import Intake
from broker.kafka_clients import BACKOFF_S, END_S, Endings, connection, start_whole
from broker.kafka_topic import BATCH_BYTES_MAX
from broker.port import Record
from broker.settings import BrokerSettings
from runtime.sparing import SparingLog
from runtime.telemetry import REGISTRY
from schemas.errors import BrokerUnavailable, PartitionUnavailable, RecordNotSent

log = structlog.get_logger(__name__)

PRODUCER_RESTARTS: Final = Counter(
    "logfeed_producer_restarts_total",
    "Kafka producers abandoned and made anew, by what happened",
    ["reason"],
    registry=REGISTRY,
)

_RECONNECT_BACKOFF_MAX_S: Final = 2.0
_BATCH_BYTES: Final = 1024 * 1024
"""Frames that arrive during a request share the next one up to here per partition; a larger frame goes alone."""
_LEADER_EVERY_S: Final = 0.2
"""How often the cluster is asked for a leader that a partition lacks."""
_LEADERLESS_S: Final = 2.0
"""How long a record waits for its partition's leader while other partitions have theirs: an election takes less."""
_CLOSE_RESERVE_S: Final = 2.0
"""The part of a producer's closing that is kept for ending its connections, once records were waited for."""


@dataclass(slots=True)
class _Send:
    """One record on its way."""

    record: Record
    partition: int
    is_handed_over: bool = False
    """False: aiokafka has not seen it, so nobody ever will."""


class _Session:
    """One aiokafka producer and the sends it holds."""

    def __init__(self, client: AIOKafkaProducer, topic: str, partitions: int) -> None:
        self.client = client
        self.sends: set[asyncio.Task[tuple[int, int]]] = set()
        self._topic = topic
        self._partitions = partitions
        self._asked_s = 0.0

    def has_leader(self, partition: int) -> bool:
        """False while the cluster says that the partition has none; then it is asked again, now and then."""
        client = self.client.client
        if client.cluster.leader_for_partition(TopicPartition(self._topic, partition)) != -1:
            return True
        now_s = asyncio.get_running_loop().time()
        if now_s - self._asked_s >= _LEADER_EVERY_S:
            self._asked_s = now_s
            client.force_metadata_update()
        return False

    def has_any_leader(self) -> bool:
        """False while the cluster says that no partition has one."""
        return any(self.has_leader(partition) for partition in range(self._partitions))

    async def look(self) -> None:
        """Ask the cluster for leaders, and give it a moment."""
        update = self.client.client.force_metadata_update()
        await asyncio.wait({update}, timeout=_LEADER_EVERY_S)
        await asyncio.sleep(_LEADER_EVERY_S)


class KafkaProducer:
    """See `Producer`."""

    def __init__(self, settings: BrokerSettings, *, partitions: int) -> None:
        """Connects in `start`."""
        self._settings = settings
        self._endings = Endings()
        self._partitions = partitions
        self._timeout_s = settings.request_timeout_ms / 1000
        self._intake = Intake(
            partitions=partitions,
            bytes_max=settings.in_flight_bytes_max,
            first_partition=random.randrange(partitions),
        )
        self._session: _Session | None = None
        self._reconnecting: asyncio.Task[None] | None = None
        self._closed = False
        self._repeated = SparingLog(log)

    @property
    def bytes_in_flight(self) -> int:
        """See Producer."""
        return self._intake.bytes_in_flight

    async def start(self) -> None:
        """Connect. Raises BrokerUnavailable."""
        self._session = await self._connect()

    async def publish(self, record: Record, *, partition_key: bytes | None) -> tuple[int, int]:
        """See Producer."""
        session = self._session
        if self._closed or session is None:
            raise RecordNotSent("the producer is closed" if self._closed else "Kafka does not answer; connecting")
        partition = self._intake.admit(record, partition_key, has_leader=session.has_leader)
        send = _Send(record, partition)
        # A task of its own: the caller's cancellation ends the waiting, not the send nor its bookkeeping.
        task = asyncio.create_task(self._send(session, send))
        session.sends.add(task)
        task.add_done_callback(partial(self._settle, session, record))
        await asyncio.wait({task})
        if task.cancelled():
            if not send.is_handed_over:
                raise RecordNotSent("the Kafka producer was abandoned; the record was not sent")
            raise BrokerUnavailable("the Kafka producer was abandoned; the record may have been taken")
        return task.result()

    async def close(self) -> None:
        """See Producer. Takes request_timeout_ms at most; what is not acknowledged by then fails."""
        self._closed = True
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + self._timeout_s
        session, self._session = self._session, None
        if self._reconnecting is not None:
            self._reconnecting.cancel()
        if session is not None:
            if session.sends:
                reserve_s = min(_CLOSE_RESERVE_S, self._timeout_s / 4)
                await asyncio.wait(set(session.sends), timeout=self._timeout_s - reserve_s)
            self._retire(session, max(0.0, deadline_s - loop.time()))
        if self._reconnecting is not None:
            await asyncio.wait({self._reconnecting}, timeout=max(0.0, deadline_s - loop.time()))
        await self._endings.finish(max(0.0, deadline_s - loop.time()))

    async def _send(self, session: _Session, send: _Send) -> tuple[int, int]:
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._until_led(session, send)
                send.is_handed_over = True
                acknowledged = await session.client.send(
                    self._settings.topic, send.record.value, partition=send.partition, headers=send.record.headers
                )
                metadata = await acknowledged
        except PartitionUnavailable:
            raise
        except TimeoutError as error:
            if not send.is_handed_over:
                raise RecordNotSent("no partition has a leader; the record was not sent") from error
            self._abandon(session, "timeout")
            raise BrokerUnavailable(f"Kafka did not acknowledge within {self._timeout_s:g} s") from error
        except Exception as error:
            self._abandon(session, type(error).__name__)
            raise BrokerUnavailable(f"Kafka did not take the record: {error!r}") from error
        return send.partition, int(metadata.offset)

    async def _until_led(self, session: _Session, send: _Send) -> None:
        """Wait for the partition's leader; where no partition has one, for as long as a send may take.

        Raises PartitionUnavailable.
        """
        while not session.has_leader(send.partition) and not session.has_any_leader():
            await session.look()
        if session.has_leader(send.partition):
            return
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + _LEADERLESS_S
        with self._intake.waiting(send.record, send.partition):
            while not session.has_leader(send.partition):
                if loop.time() >= deadline_s:
                    raise PartitionUnavailable(
                        f"partition {send.partition} has no leader; the record was not sent", retry_after_s=2
                    )
                await session.look()

    def _settle(self, session: _Session, record: Record, task: asyncio.Task[tuple[int, int]]) -> None:
        """A send is over, however it ended, and whether it ever began."""
        session.sends.discard(task)
        self._intake.settle(record)
        if not task.cancelled():
            task.exception()  # seen: its caller may be gone
        elif not self._closed:
            self._abandon(session, "cancelled")  # unless that is what cancelled it

    def _abandon(self, session: _Session, reason: str) -> None:
        if self._session is not session:
            return
        self._session = None
        PRODUCER_RESTARTS.labels(reason=reason).inc()
        # A cluster that refuses every record brings this about as often as records come.
        self._repeated.warning("kafka producer abandoned", error=reason, held=len(session.sends))
        self._retire(session, self._timeout_s)
        self._reconnecting = asyncio.create_task(self._reconnect())

    async def _reconnect(self) -> None:
        backoff_s = BACKOFF_S
        while not self._closed:
            try:
                session = await self._connect()
            except BrokerUnavailable:
                await asyncio.sleep(backoff_s * random.uniform(0.5, 1.5))
                backoff_s = min(backoff_s * 2, _RECONNECT_BACKOFF_MAX_S)
            else:
                self._session = session
                self._repeated.info("kafka producer made anew")
                return

    async def _connect(self) -> _Session:
        client = AIOKafkaProducer(
            **connection(self._settings, "logfeed-producer"),
            acks="all",
            enable_idempotence=True,
            compression_type=None,  # values are zstd already
            linger_ms=0,  # what arrives during a request shares the next one; alone, nobody waits
            max_batch_size=_BATCH_BYTES,
            max_request_size=BATCH_BYTES_MAX,
        )

        async def start() -> None:
            await client.start()
            await client.partitions_for(self._settings.topic)

        async def end() -> None:
            await _end_producer(client, self._timeout_s)

        try:
            await start_whole(start(), end, self._endings, "producer", self._timeout_s)
        except (KafkaError, OSError, TimeoutError) as error:
            raise BrokerUnavailable(f"Kafka does not answer: {error!r}") from error
        return _Session(client, self._settings.topic, self._partitions)

    def _retire(self, session: _Session, timeout_s: float) -> None:
        """End a session in the background; what it holds fails at once."""
        for send in session.sends - {asyncio.current_task()}:
            send.cancel()
        self._endings.begin(_end_producer(session.client, timeout_s), "producer", timeout_s + END_S)


async def _end_producer(client: AIOKafkaProducer, timeout_s: float) -> None:
    """End a producer without delivering what it holds: its own `stop` waits for that, for ever when the broker is away.

    The sender ends when the request under way has ended; only then are connections closed, since it would reopen them.
    """
    sender = client._sender.sender_task
    if sender is not None:
        sender.cancel()
        _, running = await asyncio.wait({sender}, timeout=timeout_s)
        if running:
            sender.cancel()
    client._closed = True
    await client.client.close()
