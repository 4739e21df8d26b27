"""Kafka behind the port; the only importer of aiokafka.

Producing: one idempotent aiokafka producer at a time (a session), acks=all. aiokafka retries for ever and has no limit of
bytes, so `Intake` counts bytes until the acknowledgement and every record has a deadline. Any failure of a send leaves a
hole in the session's sequence numbers, and a missed deadline leaves records that would be delivered long after their
callers were told 503; in both cases the session is abandoned: what it held fails with BrokerUnavailable (outcome
unknown), its sender is ended, a new one is made in the background, and `logfeed_producer_restarts_total` says so.

Reading: `assign()` and `seek()`, no group membership. aiokafka prefetches, hides an absent broker and can hang, so each
record must continue its partition's position exactly, or the consumer is sought anew and bounds are asked; silence is
checked against the broker's end offsets each second, and a consumer that stands still before known records is replaced.

Everything else (offsets by time, group offsets) goes through one client of the broker object, each call bounded by
`request_timeout_ms`; a client that failed is thrown away, so that the next call starts from the bootstrap addresses.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Final, TypeVar

import structlog
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.client import AIOKafkaClient, ConnectionGroup, CoordinationType
from aiokafka.errors import KafkaConnectionError, KafkaError, OffsetOutOfRangeError, TopicAlreadyExistsError, for_code
from aiokafka.helpers import create_ssl_context
from aiokafka.protocol.admin import DescribeConfigsRequest
from aiokafka.protocol.commit import OffsetCommitRequest, OffsetFetchRequest
from aiokafka.protocol.offset import OffsetRequest
from prometheus_client import Counter

from broker.intake import Intake
from broker.kafka_topic import BATCH_BYTES_MAX, topic_settings, wrong_broker_settings, wrong_topic_settings
from broker.port import Delivered, Record
from broker.settings import BrokerSettings
from runtime.telemetry import REGISTRY
from schemas.errors import BrokerUnavailable, ConfigurationError, OffsetOutOfRange

log = structlog.get_logger(__name__)
T = TypeVar("T")

PRODUCER_RESTARTS: Final = Counter(
    "logfeed_producer_restarts_total",
    "Kafka producers abandoned and made anew, by what happened",
    ["reason"],
    registry=REGISTRY,
)

_EARLIEST: Final = -2
_LATEST: Final = -1
_BACKOFF_S: Final = 0.1
_RECONNECT_BACKOFF_MAX_S: Final = 2.0
_BATCH_BYTES: Final = 1024 * 1024
"""Frames that arrive during a request share the next one up to here per partition; a larger frame goes alone."""
_FETCH_BYTES_MAX: Final = 2 * BATCH_BYTES_MAX
"""One fetch of a reader; it holds at most one that is parsed and one that is prefetched."""
_FETCH_WAIT_MS: Final = 100
"""How long the broker holds an empty fetch. A fetch after a seek waits behind it on the same connection."""
_CHECK_S: Final = 1.0
_CHECK_BUSY_S: Final = 5.0
_CHECK_TIMEOUT_S: Final = 5.0
_RETENTION_CACHE_S: Final = 60.0
_RISK_STEPS: Final = 7
"""Bisections of the retention risk: 1/128 of the retention."""


class KafkaBroker:
    """One topic of a Kafka cluster. See `Broker`."""

    def __init__(self, settings: BrokerSettings) -> None:
        """Connects in `open`."""
        self._settings = settings
        self._partitions: int | None = None
        self._cluster = _Cluster(settings)
        self._retention: tuple[float, int] | None = None

    @property
    def topic(self) -> str:
        """See Broker."""
        return self._settings.topic

    @property
    def partitions(self) -> int:
        """See Broker."""
        if self._partitions is None:
            raise RuntimeError("the broker is not open")
        return self._partitions

    async def open(self) -> None:
        """See Broker."""
        admin = AIOKafkaAdminClient(**_connection(self._settings, "logfeed-admin"))
        try:
            async with asyncio.timeout(self._settings.request_timeout_ms / 1000):
                await admin.start()
                replicas = await self._find_topic(admin)
                if replicas is None:
                    replicas = await self._make_topic(admin)
                await self._assert_settings(admin, len(replicas[0]))
        except TimeoutError as error:
            raise BrokerUnavailable("Kafka did not answer in time") from error
        except (KafkaError, OSError) as error:
            if isinstance(error, KafkaError) and not error.retriable:
                raise ConfigurationError(f"Kafka refused to open topic {self.topic}: {error!r}") from error
            raise BrokerUnavailable(f"Kafka does not answer: {error!r}") from error
        finally:
            await _bounded_end(admin.close(), "admin client")
        self._partitions = len(replicas)

    async def close(self) -> None:
        """See Broker."""
        await self._cluster.close()

    async def producer(self) -> KafkaProducer:
        """See Broker."""
        producer = KafkaProducer(self._settings, partitions=self.partitions)
        await producer.start()
        return producer

    async def reader(self, *, group: str) -> KafkaReader:
        """See Broker."""
        return KafkaReader(self._settings, self._cluster, partitions=self.partitions, group=group)

    async def commit_group(self, group: str, offsets: Mapping[int, int]) -> None:
        """See Broker."""
        if offsets:
            await self._cluster.commit(group, offsets)

    async def group_offsets(self, group: str) -> dict[int, int]:
        """See Broker."""
        return await self._cluster.committed(group, range(self.partitions))

    async def retention_risk(self, group: str) -> float:
        """See Broker: the age of the oldest record the group has not committed, as a share of retention.ms.

        Three requests when there is no lag, ten otherwise. 1.0 is the most it says; precision 1/128.
        """
        retention_ms = await self._retention_ms()
        if retention_ms < 0:
            return 0.0
        everything = range(self.partitions)
        committed = await self.group_offsets(group)
        end = await self._cluster.list_offsets(dict.fromkeys(everything, _LATEST))
        first = await self._cluster.list_offsets(dict.fromkeys(everything, _EARLIEST))
        unread = {
            partition: committed.get(partition, first[partition])
            for partition in everything
            if committed.get(partition, first[partition]) < end[partition]
        }
        if not unread:
            return 0.0
        if any(offset < first[partition] for partition, offset in unread.items()):
            return 1.0
        now_ms = time.time_ns() // 1_000_000

        async def older_than(share: float) -> bool:
            since = await self._cluster.list_offsets(dict.fromkeys(unread, max(0, now_ms - int(share * retention_ms))))
            return any(since[partition] < 0 or since[partition] > offset for partition, offset in unread.items())

        low, high = 0.0, 1.0
        if await older_than(1.0):
            return 1.0
        for _ in range(_RISK_STEPS):
            middle = (low + high) / 2
            if await older_than(middle):
                low = middle
            else:
                high = middle
        return low

    async def _retention_ms(self) -> int:
        now_s = time.monotonic()
        if self._retention is None or now_s - self._retention[0] > _RETENTION_CACHE_S:
            text = (await self._cluster.topic_settings()).get("retention.ms")
            self._retention = (now_s, int(text) if text is not None else -1)
        return self._retention[1]

    async def _find_topic(self, admin: AIOKafkaAdminClient) -> list[list[int]] | None:
        """Replicas of each partition; None when there is no such topic. Asks for all topics: asking for one may make it."""
        for topic in await admin.describe_topics(None):
            if topic["topic"] == self.topic and topic["partitions"]:
                return [list(partition["replicas"]) for partition in topic["partitions"]]
        return None

    async def _make_topic(self, admin: AIOKafkaAdminClient) -> list[list[int]]:
        if not self._settings.create_topic:
            raise ConfigurationError(f"topic {self.topic} is missing, expected to exist: make it, or set create_topic")
        factor = self._settings.replication_factor
        wanted = NewTopic(self.topic, self._settings.partitions, factor, topic_configs=topic_settings(factor))
        response = await admin.create_topics([wanted])
        for _, code, message in response.topic_errors:
            error = for_code(code)
            if code and error is not TopicAlreadyExistsError:
                raise error(message)
        log.info("topic made", topic=self.topic, partitions=self._settings.partitions)
        while True:
            replicas = await self._find_topic(admin)
            if replicas is not None and all(replicas):
                return replicas
            await asyncio.sleep(_BACKOFF_S)

    async def _assert_settings(self, admin: AIOKafkaAdminClient, replicas: int) -> None:
        brokers = [str(node["node_id"]) for node in (await admin.describe_cluster())["brokers"]]
        resources = [ConfigResource(ConfigResourceType.TOPIC, self.topic)]
        resources += [ConfigResource(ConfigResourceType.BROKER, broker) for broker in brokers]
        problems: list[str] = []
        for response in await admin.describe_configs(resources):
            for code, message, kind, _, entries in response.resources:
                if code:
                    raise for_code(code)(message)
                found = {entry[0]: entry[1] for entry in entries}
                if kind == ConfigResourceType.TOPIC:
                    problems += wrong_topic_settings(found, replicas=replicas)
                else:
                    problems += wrong_broker_settings(found, in_flight_bytes_max=self._settings.in_flight_bytes_max)
        if problems:
            raise ConfigurationError(
                f"Kafka topic {self.topic} is not safe to use: " + "; ".join(dict.fromkeys(problems))
            )


class _Session:
    """One aiokafka producer and the sends it holds."""

    def __init__(self, client: AIOKafkaProducer) -> None:
        self.client = client
        self.sends: set[asyncio.Task[tuple[int, int]]] = set()


class KafkaProducer:
    """See `Producer`."""

    def __init__(self, settings: BrokerSettings, *, partitions: int) -> None:
        """Connects in `start`."""
        self._settings = settings
        self._timeout_s = settings.request_timeout_ms / 1000
        self._intake = Intake(
            partitions=partitions,
            bytes_max=settings.in_flight_bytes_max,
            first_partition=random.randrange(partitions),
        )
        self._session: _Session | None = None
        self._reconnecting: asyncio.Task[None] | None = None
        self._retiring: set[asyncio.Task[None]] = set()
        self._closed = False

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
            raise BrokerUnavailable("the producer is closed" if self._closed else "Kafka does not answer; connecting")
        partition = self._intake.admit(record, partition_key)
        # A task of its own: the caller's cancellation ends the waiting, not the send nor its bookkeeping.
        send = asyncio.create_task(self._send(session, record, partition))
        session.sends.add(send)
        send.add_done_callback(session.sends.discard)
        return await asyncio.shield(send)

    async def close(self) -> None:
        """See Producer."""
        self._closed = True
        session, self._session = self._session, None
        if session is not None:
            if session.sends:
                await asyncio.wait(set(session.sends), timeout=self._timeout_s)
            await self._retire(session)
        if self._reconnecting is not None:
            self._reconnecting.cancel()
            await asyncio.wait({self._reconnecting})
        if self._retiring:
            await asyncio.wait(set(self._retiring), timeout=self._timeout_s)

    async def _send(self, session: _Session, record: Record, partition: int) -> tuple[int, int]:
        try:
            async with asyncio.timeout(self._timeout_s):
                acknowledged = await session.client.send(
                    self._settings.topic, record.value, partition=partition, headers=record.headers
                )
                metadata = await acknowledged
        except TimeoutError as error:
            self._abandon(session, "timeout")
            raise BrokerUnavailable(f"Kafka did not acknowledge within {self._timeout_s:g} s") from error
        except asyncio.CancelledError as error:  # only _retire cancels this task
            raise BrokerUnavailable("the Kafka producer was abandoned; the record may have been taken") from error
        except Exception as error:
            self._abandon(session, type(error).__name__)
            raise BrokerUnavailable(f"Kafka did not take the record: {error!r}") from error
        else:
            return partition, int(metadata.offset)
        finally:
            self._intake.settle(record)

    def _abandon(self, session: _Session, reason: str) -> None:
        if self._session is not session:
            return
        self._session = None
        PRODUCER_RESTARTS.labels(reason=reason).inc()
        log.warning("kafka producer abandoned", reason=reason, held=len(session.sends))
        retiring = asyncio.create_task(self._retire(session))
        self._retiring.add(retiring)
        retiring.add_done_callback(self._retiring.discard)
        self._reconnecting = asyncio.create_task(self._reconnect())

    async def _reconnect(self) -> None:
        backoff_s = _BACKOFF_S
        while not self._closed:
            try:
                session = await self._connect()
            except BrokerUnavailable:
                await asyncio.sleep(backoff_s * random.uniform(0.5, 1.5))
                backoff_s = min(backoff_s * 2, _RECONNECT_BACKOFF_MAX_S)
            else:
                self._session = session
                log.info("kafka producer made anew")
                return

    async def _connect(self) -> _Session:
        client = AIOKafkaProducer(
            **_connection(self._settings, "logfeed-producer"),
            acks="all",
            enable_idempotence=True,
            compression_type=None,  # values are zstd already
            linger_ms=0,  # what arrives during a request shares the next one; alone, nobody waits
            max_batch_size=_BATCH_BYTES,
            max_request_size=BATCH_BYTES_MAX,
        )
        try:
            async with asyncio.timeout(self._timeout_s):
                await client.start()
                await client.partitions_for(self._settings.topic)
        except BaseException as error:
            await _bounded_end(_end_producer(client, self._timeout_s), "producer", self._timeout_s + _CHECK_TIMEOUT_S)
            if isinstance(error, (KafkaError, OSError, TimeoutError)):
                raise BrokerUnavailable(f"Kafka does not answer: {error!r}") from error
            raise
        return _Session(client)

    async def _retire(self, session: _Session) -> None:
        for send in list(session.sends):
            send.cancel()
        await _bounded_end(
            _end_producer(session.client, self._timeout_s), "producer", self._timeout_s + _CHECK_TIMEOUT_S
        )


class KafkaReader:
    """See `Reader`."""

    def __init__(self, settings: BrokerSettings, cluster: _Cluster, *, partitions: int, group: str) -> None:
        """Connects at the first poll."""
        self._settings = settings
        self._cluster = cluster
        self._partitions = partitions
        self._group = group
        self._timeout_s = settings.request_timeout_ms / 1000
        self._consumer: AIOKafkaConsumer | None = None
        self._positions: dict[int, int] = {}
        self._fetched: deque[Delivered] = deque()
        self._fetch_positions: dict[int, int] = {}
        self._sought = False
        self._gaps: dict[int, int] = {}
        self._standing: dict[int, tuple[int, float]] = {}
        self._checked_s = 0.0
        self._polled_s = 0.0

    async def seek(self, positions: Mapping[int, int]) -> None:
        """See Reader. Raises ValueError for a partition that the topic does not have."""
        unknown = [partition for partition in positions if not 0 <= partition < self._partitions]
        if unknown:
            raise ValueError(f"topic {self._settings.topic} has partitions 0..{self._partitions - 1}, got {unknown}")
        self._positions = dict(positions)
        self._gaps.clear()
        self._forget()

    async def poll(self, *, max_bytes: int, wait_ms: int) -> list[Delivered]:
        """See Reader. With the broker away it may take some 15 s longer to say so, and request_timeout_ms to connect."""
        loop = asyncio.get_running_loop()
        entered_s = loop.time()
        deadline_s = entered_s + wait_ms / 1000
        if not self._positions:
            await asyncio.sleep(wait_ms / 1000)
            return []
        if entered_s - self._polled_s > _CHECK_BUSY_S:
            self._standing.clear()  # nobody asked meanwhile: that nothing moved is no sign of anything
        while True:
            if not self._fetched:
                await self._fetch(deadline_s)
            records = self._take(max_bytes)
            self._polled_s = loop.time()
            if records or self._polled_s >= deadline_s:
                return records

    async def first_offsets(self, partitions: Iterable[int]) -> dict[int, int]:
        """See Reader."""
        return await self._cluster.list_offsets(dict.fromkeys(partitions, _EARLIEST))

    async def end_offsets(self, partitions: Iterable[int]) -> dict[int, int]:
        """See Reader."""
        return await self._cluster.list_offsets(dict.fromkeys(partitions, _LATEST))

    async def close(self) -> None:
        """See Reader."""
        self._positions = {}
        await self._drop_consumer()

    def _take(self, max_bytes: int) -> list[Delivered]:
        records: list[Delivered] = []
        taken_bytes = 0
        while self._fetched:
            size = _size_bytes(self._fetched[0])
            if records and taken_bytes + size > max_bytes:
                break
            record = self._fetched.popleft()
            taken_bytes += size
            self._positions[record.partition] = record.offset + 1
            records.append(record)
        return records

    async def _fetch(self, deadline_s: float) -> None:
        """Wait for records, at most until the deadline or the next check."""
        loop = asyncio.get_running_loop()
        try:
            consumer = await self._at_positions()
            wait_s = max(0.0, min(deadline_s - loop.time(), _CHECK_S))
            async with asyncio.timeout(wait_s + _CHECK_TIMEOUT_S):
                found = await consumer.getmany(timeout_ms=int(wait_s * 1000))
        except OffsetOutOfRangeError:
            # Raised for an earlier assignment too: the bounds tell. Asked before the consumer is sought again.
            self._forget()
            await self._check_bounds()
            return
        except (KafkaError, OSError, TimeoutError) as error:
            await self._drop_consumer()
            raise BrokerUnavailable(f"Kafka does not answer the reader: {error!r}") from error
        except BaseException:
            self._forget()  # cancelled: what getmany had taken out is lost to us, so begin again at our positions
            raise
        self._accept(found)
        since_check_s = loop.time() - self._checked_s
        if since_check_s > (_CHECK_BUSY_S if self._fetched else _CHECK_S):
            await self._check_bounds()

    def _accept(self, found: Mapping[Any, list[Any]]) -> None:
        """Buffer what continues the positions; anything else means to seek again, and the second time a real gap."""
        for where, records in found.items():
            partition = where.partition
            for record in records:
                expected = self._fetch_positions[partition]
                if record.offset != expected:
                    if record.offset > expected and self._gaps.get(partition) == expected:
                        raise OffsetOutOfRange(
                            partition=partition, wanted=expected, first=record.offset, end=record.offset + 1
                        )
                    self._forget()
                    self._gaps[partition] = expected
                    return
                self._fetch_positions[partition] = expected + 1
                self._fetched.append(
                    Delivered(partition, record.offset, record.timestamp, list(record.headers), record.value or b"")
                )

    def _forget(self) -> None:
        """Drop what was fetched and seek before the next fetch."""
        self._fetched.clear()
        self._sought = False
        self._standing.clear()

    async def _at_positions(self) -> AIOKafkaConsumer:
        """The consumer, assigned and sought."""
        if self._consumer is None:
            consumer = AIOKafkaConsumer(
                **_connection(self._settings, f"logfeed-reader-{self._group}"),
                group_id=None,
                enable_auto_commit=False,
                auto_offset_reset="none",
                fetch_max_wait_ms=_FETCH_WAIT_MS,
                fetch_max_bytes=_FETCH_BYTES_MAX,
                max_partition_fetch_bytes=BATCH_BYTES_MAX,
            )
            try:
                async with asyncio.timeout(self._timeout_s):
                    await consumer.start()
            except BaseException:
                await _bounded_end(_end_consumer(consumer), "consumer")
                raise
            self._consumer = consumer
        if not self._sought:
            await self._check_bounds()
            # No await from here on: a fetch between assign and the last seek would start nowhere.
            self._consumer.assign([TopicPartition(self._settings.topic, partition) for partition in self._positions])
            for partition, position in self._positions.items():
                self._consumer.seek(TopicPartition(self._settings.topic, partition), position)
            self._fetch_positions = dict(self._positions)
            self._sought = True
        return self._consumer

    async def _check_bounds(self) -> None:
        """Compare positions with what the broker has. Raises OffsetOutOfRange, or BrokerUnavailable for a stuck consumer."""
        timeout_s = min(self._timeout_s, _CHECK_TIMEOUT_S)
        end = await self._cluster.list_offsets(dict.fromkeys(self._positions, _LATEST), timeout_s=timeout_s)
        first = await self._cluster.list_offsets(dict.fromkeys(self._positions, _EARLIEST), timeout_s=timeout_s)
        now_s = asyncio.get_running_loop().time()
        self._checked_s = now_s
        for partition, position in self._positions.items():
            if not first[partition] <= position <= end[partition]:
                self._forget()
                raise OffsetOutOfRange(partition=partition, wanted=position, first=first[partition], end=end[partition])
        waiting = {record.partition for record in self._fetched}
        for partition, position in self._positions.items():
            stood_at, since_s = self._standing.get(partition, (-1, now_s))
            if position == end[partition] or partition in waiting:
                self._standing.pop(partition, None)
            elif stood_at != position:
                self._standing[partition] = (position, now_s)
            elif now_s - since_s > self._timeout_s:
                await self._drop_consumer()
                raise BrokerUnavailable(
                    f"partition {partition} has records from offset {position}, none came in {self._timeout_s:g} s"
                )

    async def _drop_consumer(self) -> None:
        self._forget()
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await _bounded_end(_end_consumer(consumer), "consumer")


class _Cluster:
    """Questions and commits, through one client that is made when needed and dropped when it fails."""

    def __init__(self, settings: BrokerSettings) -> None:
        self._settings = settings
        self._topic = settings.topic
        self._timeout_s = settings.request_timeout_ms / 1000
        self._client: AIOKafkaClient | None = None
        self._connecting = asyncio.Lock()

    async def list_offsets(self, times: Mapping[int, int], *, timeout_s: float | None = None) -> dict[int, int]:
        """Partition -> first offset at or after the time (Unix ms; -2 first, -1 end), -1 when there is none."""
        if not times:
            return {}

        async def ask(client: AIOKafkaClient) -> dict[int, int]:
            by_leader: defaultdict[int, list[tuple[int, int]]] = defaultdict(list)
            for partition, time_ms in times.items():
                leader = client.cluster.leader_for_partition(TopicPartition(self._topic, partition))
                if leader is None or leader == -1:
                    raise KafkaConnectionError(f"partition {partition} has no leader")
                by_leader[leader].append((partition, time_ms))
            offsets: dict[int, int] = {}
            for leader, wanted in by_leader.items():
                response = await client.send(leader, OffsetRequest(-1, 0, [(self._topic, wanted)]))
                for _, answers in response.topics:
                    for partition, code, _time_ms, offset in answers:
                        _raise_for(code)
                        offsets[partition] = offset
            return offsets

        return await self._ask(ask, timeout_s)

    async def commit(self, group: str, offsets: Mapping[int, int]) -> None:
        """Commit without being a member: generation -1, as every simple consumer does."""

        async def ask(client: AIOKafkaClient) -> None:
            node = await client.coordinator_lookup(CoordinationType.GROUP, group)
            commits = [(partition, offset, "") for partition, offset in offsets.items()]
            request = OffsetCommitRequest(
                group,
                OffsetCommitRequest.DEFAULT_GENERATION_ID,
                "",
                OffsetCommitRequest.DEFAULT_RETENTION_TIME,
                [(self._topic, commits)],
            )
            response = await client.send(node, request, group=ConnectionGroup.COORDINATION)
            for _, answers in response.topics:
                for _, code in answers:
                    _raise_for(code)

        await self._ask(ask)

    async def committed(self, group: str, partitions: Iterable[int]) -> dict[int, int]:
        """Partition -> committed offset, where there is one."""
        wanted = list(partitions)

        async def ask(client: AIOKafkaClient) -> dict[int, int]:
            node = await client.coordinator_lookup(CoordinationType.GROUP, group)
            request = OffsetFetchRequest(group, [(self._topic, wanted)])
            response = await client.send(node, request, group=ConnectionGroup.COORDINATION)
            offsets = {}
            for _, answers in response.topics:
                for partition, offset, _, code in answers:
                    _raise_for(code)
                    if offset >= 0:
                        offsets[partition] = offset
            return offsets

        return await self._ask(ask)

    async def topic_settings(self) -> dict[str, str | None]:
        """The topic's settings in force."""

        async def ask(client: AIOKafkaClient) -> dict[str, str | None]:
            request = DescribeConfigsRequest([(ConfigResourceType.TOPIC, self._topic, None)])
            response = await client.send(client.get_random_node(), request)
            found: dict[str, str | None] = {}
            for code, _, _, _, entries in response.resources:
                _raise_for(code)
                found.update({entry[0]: entry[1] for entry in entries})
            return found

        return await self._ask(ask)

    async def close(self) -> None:
        """Close the client."""
        client, self._client = self._client, None
        if client is not None:
            await _bounded_end(client.close(), "client")

    async def _ask(self, ask: Callable[[AIOKafkaClient], Awaitable[T]], timeout_s: float | None = None) -> T:
        """Ask, again while the error passes by itself, within the time. Raises BrokerUnavailable."""
        client: AIOKafkaClient | None = None
        try:
            async with asyncio.timeout(self._timeout_s if timeout_s is None else timeout_s):
                client = await self._connected()
                while True:
                    try:
                        return await ask(client)
                    except KafkaError as error:
                        if not error.retriable:
                            raise
                        await asyncio.sleep(_BACKOFF_S)
                        await client.force_metadata_update()
        except (KafkaError, OSError, TimeoutError) as error:
            if client is not None and client is self._client:
                await self.close()
            raise BrokerUnavailable(f"Kafka does not answer: {error!r}") from error

    async def _connected(self) -> AIOKafkaClient:
        async with self._connecting:
            if self._client is None:
                client = AIOKafkaClient(**_connection(self._settings, "logfeed-broker"))
                try:
                    await client.bootstrap()
                    await client.set_topics([self._topic])
                except BaseException:
                    await _bounded_end(client.close(), "client")
                    raise
                self._client = client
            return self._client


def _raise_for(code: int) -> None:
    if code:
        raise for_code(code)()


def _connection(settings: BrokerSettings, client_id: str) -> dict[str, Any]:
    """How every client connects. One request gets a third of the operation's time, so that a hung one can be repeated."""
    secure = settings.security_protocol.endswith("SSL")
    return {
        "bootstrap_servers": settings.bootstrap,
        "client_id": client_id,
        "request_timeout_ms": max(500, settings.request_timeout_ms // 3),
        "retry_backoff_ms": int(_BACKOFF_S * 1000),
        "security_protocol": settings.security_protocol,
        "ssl_context": create_ssl_context(cafile=settings.ssl_cafile) if secure else None,
        "sasl_mechanism": settings.sasl_mechanism,
        "sasl_plain_username": settings.sasl_username,
        "sasl_plain_password": settings.sasl_password.get_secret_value() if settings.sasl_password else None,
    }


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


async def _end_consumer(consumer: AIOKafkaConsumer) -> None:
    """End a consumer. Its `stop` may raise CancelledError of its own tasks and leave the connections open."""
    await asyncio.wait({asyncio.ensure_future(consumer.stop())})
    await consumer._client.close()


async def _bounded_end(ending: Awaitable[None], what: str, timeout_s: float = _CHECK_TIMEOUT_S) -> None:
    """Run an ending in a task of its own, for a bounded time: no caller hangs on a broker that does not answer."""
    task = asyncio.ensure_future(ending)
    await asyncio.wait({task}, timeout=timeout_s)
    if not task.done():
        task.cancel()
        log.warning("kafka client did not end in time", client=what, seconds=timeout_s)
    elif not task.cancelled() and task.exception() is not None:
        log.warning("kafka client ended with an error", client=what, error=repr(task.exception()))


def _size_bytes(record: Delivered) -> int:
    return len(record.value) + sum(len(name) + len(value) for name, value in record.headers)
