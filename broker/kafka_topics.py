"""Derived topics of Kafka: any number of them through one producer, one client that asks, and a reader for each who reads.

Records go out in batches of our own making (a record at a time costs five times as much), by the partitioner of Kafka's own
clients, so that a key's partition is the same for every producer. Any failure of a batch leaves a hole in the producer's
sequence: the producer is ended, everything counts as not sent, and the caller publishes all of it again through a new one.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Any, Final, TypeVar

import structlog
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, for_code
from aiokafka.partitioner import murmur2

from broker.kafka_clients import BACKOFF_S, END_S, Endings, connection, start_whole
from broker.kafka_cluster import Cluster
from broker.kafka_reader import KafkaReader
from broker.kafka_topic import derived_topic_settings, wrong_derived_settings
from broker.settings import BrokerSettings
from broker.topics import Extent, TopicRecord
from schemas.errors import BrokerUnavailable, ConfigurationError

log = structlog.get_logger(__name__)

T = TypeVar("T")

_BATCH_BYTES: Final = 512 * 1024
_REQUEST_BYTES_MAX: Final = 8 * 1024 * 1024
_DIRECTORY_S: Final = 1.0
"""How old the list of topics may be."""
_ASK_S: Final = 10.0


class KafkaTopics:
    """See `Topics`."""

    def __init__(self, settings: BrokerSettings) -> None:
        """settings: of the cluster; the topic in them is not touched."""
        self._settings = settings
        self._timeout_s = settings.request_timeout_ms / 1000
        self._endings = Endings()
        self._producer: AIOKafkaProducer | None = None
        self._asking = asyncio.Lock()
        self._client: AIOKafkaConsumer | None = None
        self._directory: tuple[float, dict[str, int]] | None = None

    async def ensure(self, names: Collection[str]) -> None:
        """See Topics."""
        if not names:
            return
        admin = AIOKafkaAdminClient(**connection(self._settings, "logfeed-topics-admin"))
        try:
            async with asyncio.timeout(self._timeout_s):
                await start_whole(admin.start(), admin.close, self._endings, "admin client", self._timeout_s)
                try:
                    await self._ensure(admin, sorted(names))
                finally:
                    await self._endings.run(admin.close(), "admin client")
        except TimeoutError as error:
            raise BrokerUnavailable("Kafka did not answer in time") from error
        except (KafkaError, OSError) as error:
            if isinstance(error, KafkaError) and not error.retriable:
                raise ConfigurationError(f"Kafka refused derived topics: {error!r}") from error
            raise BrokerUnavailable(f"Kafka does not answer: {error!r}") from error
        self._directory = None

    async def publish(self, records: Sequence[TopicRecord]) -> None:
        """See Topics."""
        if not records:
            return
        try:
            async with asyncio.timeout(self._timeout_s):
                producer = await self._started_producer()
                await self._send(producer, records)
        except TimeoutError as error:
            self._abandon()
            raise BrokerUnavailable(f"Kafka did not acknowledge within {self._timeout_s:g} s") from error
        except (KafkaError, OSError) as error:
            self._abandon()
            raise BrokerUnavailable(f"Kafka did not take the records: {error!r}") from error
        except BaseException:
            self._abandon()
            raise

    async def partitions(self, name: str) -> int:
        """See Topics."""
        return (await self._listed()).get(name, 0)

    async def names(self) -> set[str]:
        """See Topics."""
        return set(await self._listed())

    async def extents(self, names: Collection[str]) -> dict[str, dict[int, Extent]]:
        """See Topics. A partition without a leader is an error here: nobody knows where it ends."""
        listed = await self._listed()
        places = [TopicPartition(name, number) for name in sorted(names) for number in range(listed.get(name, 0))]
        if not places:
            return {}

        async def ask(client: AIOKafkaConsumer) -> dict[str, dict[int, Extent]]:
            firsts = await client.beginning_offsets(places)
            ends = await client.end_offsets(places)
            found: defaultdict[str, dict[int, Extent]] = defaultdict(dict)
            for place in places:
                found[place.topic][place.partition] = Extent(firsts[place], ends[place])
            return dict(found)

        return await self._ask(ask)

    async def reader(self, name: str) -> KafkaTopicReader:
        """See Topics."""
        settings = self._settings.model_copy(update={"topic": name})
        return KafkaTopicReader(settings, partitions=await self.partitions(name))

    async def upkeep(self) -> None:
        """See Topics. Kafka does it."""

    async def close(self) -> None:
        """See Topics."""
        self._abandon()
        self._drop_client()
        await self._endings.finish(END_S)

    async def _ensure(self, admin: AIOKafkaAdminClient, names: Sequence[str]) -> None:
        # All topics are asked for: asking for one may make it, as the cluster likes it.
        found = {each["topic"] for each in await admin.describe_topics(None) if each["partitions"]}
        missing = [name for name in names if name not in found]
        if missing and not self._settings.create_topic:
            raise ConfigurationError(f"topic {missing[0]} is missing, expected to exist: make it, or set create_topic")
        if missing:
            await self._make(admin, missing)
        for name in names:
            if problems := wrong_derived_settings(await _described(admin, name)):
                raise ConfigurationError(f"Kafka topic {name} cannot take every log: " + "; ".join(problems))

    async def _make(self, admin: AIOKafkaAdminClient, names: Sequence[str]) -> None:
        settings = self._settings
        configs = derived_topic_settings(settings.replication_factor, retention_h=settings.derived_retention_h)
        wanted = [
            NewTopic(name, settings.derived_partitions, settings.replication_factor, topic_configs=configs)
            for name in names
        ]
        response: Any = await admin.create_topics(wanted)  # of the protocol's tables, without types
        for name, code, message in response.topic_errors:
            error = for_code(code)
            if code and error is not TopicAlreadyExistsError:
                raise error(f"{name}: {message}")
        log.info("derived topics made", topics=list(names))
        while True:
            led = {
                each["topic"]
                for each in await admin.describe_topics(None)
                if each["partitions"] and all(partition["leader"] >= 0 for partition in each["partitions"])
            }
            if led.issuperset(names):
                return
            await asyncio.sleep(BACKOFF_S)

    async def _started_producer(self) -> AIOKafkaProducer:
        if self._producer is None:
            producer = AIOKafkaProducer(
                **connection(self._settings, "logfeed-router"),
                acks="all",
                enable_idempotence=True,
                linger_ms=0,
                max_batch_size=_BATCH_BYTES,
                max_request_size=_REQUEST_BYTES_MAX,
            )
            await start_whole(producer.start(), producer.stop, self._endings, "producer", self._timeout_s)
            self._producer = producer
        return self._producer

    async def _send(self, producer: AIOKafkaProducer, records: Sequence[TopicRecord]) -> None:
        numbers = {topic: sorted(await producer.partitions_for(topic)) for topic in {each.topic for each in records}}
        places: dict[tuple[str, bytes], TopicPartition] = {}
        batches: dict[TopicPartition, Any] = {}  # aiokafka's BatchBuilder
        sent = []
        for record in records:
            place = places.get((record.topic, record.key))
            if place is None:
                partitions = numbers[record.topic]
                partition = partitions[(murmur2(record.key) & 0x7FFFFFFF) % len(partitions)]
                place = places[record.topic, record.key] = TopicPartition(record.topic, partition)
            batch = batches.get(place)
            if batch is None:
                batch = batches[place] = producer.create_batch()
            while batch.append(timestamp=None, key=record.key, value=record.value, headers=record.headers) is None:
                sent.append(await producer.send_batch(batch, place.topic, partition=place.partition))
                batch = batches[place] = producer.create_batch()  # which takes any first record
        for place, batch in batches.items():
            batch.close()
            sent.append(await producer.send_batch(batch, place.topic, partition=place.partition))
        await asyncio.gather(*sent)

    def _abandon(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            self._endings.begin(_end_producer(producer), "producer", END_S)

    async def _listed(self) -> dict[str, int]:
        """Topic -> partitions."""
        if self._directory is not None and time.monotonic() - self._directory[0] < _DIRECTORY_S:
            return self._directory[1]

        async def ask(client: AIOKafkaConsumer) -> dict[str, int]:
            cluster = await client._client.fetch_all_metadata()
            return {name: len(cluster.partitions_for_topic(name) or ()) for name in cluster.topics()}

        found = await self._ask(ask)
        self._directory = (time.monotonic(), found)
        return found

    async def _ask(self, question: Callable[[AIOKafkaConsumer], Awaitable[T]]) -> T:
        """Through a client that is thrown away when it fails: the next one begins at the bootstrap addresses."""
        try:
            async with asyncio.timeout(min(_ASK_S, self._timeout_s)), self._asking:
                if self._client is None:
                    client = AIOKafkaConsumer(**connection(self._settings, "logfeed-topics"), group_id=None)
                    await start_whole(client.start(), client.stop, self._endings, "client", self._timeout_s)
                    self._client = client
                return await question(self._client)
        except (KafkaError, OSError, TimeoutError) as error:
            self._drop_client()
            raise BrokerUnavailable(f"Kafka does not answer: {error!r}") from error

    def _drop_client(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            self._endings.begin(client.stop(), "client", END_S)


class KafkaTopicReader(KafkaReader):
    """A reader of one topic with its own client for questions."""

    def __init__(self, settings: BrokerSettings, *, partitions: int) -> None:
        """settings: with the topic."""
        self._questions_endings = Endings()
        self._questions = Cluster(settings, self._questions_endings)
        super().__init__(settings, self._questions, partitions=partitions, group="topics")

    async def close(self) -> None:
        """See Reader."""
        await super().close()
        await self._questions.close()
        await self._questions_endings.finish(END_S)


async def _described(admin: AIOKafkaAdminClient, name: str) -> Mapping[str, str | None]:
    found: dict[str, str | None] = {}
    for response in await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name)]):
        for code, message, _, _, entries in response.resources:
            if code:
                raise for_code(code)(message)
            found.update({entry[0]: entry[1] for entry in entries})
    return found


async def _end_producer(producer: AIOKafkaProducer) -> None:
    """End a producer without delivering what it holds: all of it is published again, or was acknowledged."""
    sender = producer._sender.sender_task
    if sender is not None:
        sender.cancel()
        await asyncio.wait({sender}, timeout=END_S)
    producer._closed = True
    await producer.client.close()
