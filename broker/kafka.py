"""Kafka behind the port: one topic of a cluster. Opens it, makes producers (kafka_producer.py) and readers
(kafka_reader.py), and answers through one client (kafka_cluster.py). Only these files import aiokafka.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, TypeVar

import structlog
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, for_code

from broker.kafka_clients import BACKOFF_S, END_S, Endings, connection, start_whole
from broker.kafka_cluster import EARLIEST, LATEST, Cluster
from broker.kafka_producer import KafkaProducer
from broker.kafka_reader import KafkaReader
from broker.kafka_topic import topic_settings, wrong_broker_settings, wrong_topic_settings
from broker.settings import BrokerSettings
from runtime.sparing import SparingLog
from schemas.errors import BrokerUnavailable, ConfigurationError

log = structlog.get_logger(__name__)

T = TypeVar("T")

_RETENTION_CACHE_S: Final = 60.0
_RISK_STEPS: Final = 7
"""Bisections of the retention risk: 1/128 of the retention."""


class KafkaBroker:
    """One topic of a Kafka cluster. See `Broker`."""

    def __init__(self, settings: BrokerSettings) -> None:
        """Connects in `open`."""
        self._settings = settings
        self._partitions: int | None = None
        self._endings = Endings()
        self._cluster = Cluster(settings, self._endings)
        self._repeated = SparingLog(log)
        self._retention: tuple[float, int] | None = None
        self._known_risks: dict[int, tuple[float, float]] = {}
        """partition -> (time of asking, risk by then)."""

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

        async def settle(admin: AIOKafkaAdminClient) -> int:
            replicas = await self._find_topic(admin) or await self._make_topic(admin)
            problems = await self._wrong_settings(admin, len(replicas[0]))
            if problems:
                raise ConfigurationError(f"Kafka topic {self.topic} is not safe to use: " + "; ".join(problems))
            return len(replicas)

        self._partitions = await self._ask_admin(settle)

    async def look_again(self) -> list[str]:
        """See Broker."""
        before = self.partitions

        async def look(admin: AIOKafkaAdminClient) -> tuple[int, list[str]]:
            replicas = await self._find_topic(admin)
            if replicas is None:
                return 0, [f"topic {self.topic} is gone"]
            return len(replicas), await self._wrong_settings(admin, len(replicas[0]))

        try:
            found, problems = await self._ask_admin(look)
        except ConfigurationError as error:
            return [str(error)]
        if 0 < found < before:
            problems.append(f"topic {self.topic} has {found} partitions and had {before}: it was made again")
        self._partitions = max(found, before)
        return problems

    async def _ask_admin(self, ask: Callable[[AIOKafkaAdminClient], Awaitable[T]]) -> T:
        """Ask through an admin client of its own, again while an error passes by itself: each question goes to any broker
        that the cluster still lists. Raises BrokerUnavailable, ConfigurationError."""
        admin = AIOKafkaAdminClient(**connection(self._settings, "logfeed-admin"))
        timeout_s = self._settings.request_timeout_ms / 1000
        try:
            async with asyncio.timeout(timeout_s):
                await start_whole(admin.start(), admin.close, self._endings, "admin client", timeout_s)
                try:
                    while True:
                        try:
                            return await ask(admin)
                        except KafkaError as error:
                            if not error.retriable:
                                raise
                            self._repeated.warning("asking Kafka again", error=repr(error))
                            await asyncio.sleep(BACKOFF_S)
                finally:
                    await self._endings.run(admin.close(), "admin client")
        except TimeoutError as error:
            raise BrokerUnavailable("Kafka did not answer in time") from error
        except (KafkaError, OSError) as error:
            if isinstance(error, KafkaError) and not error.retriable:
                raise ConfigurationError(f"Kafka refused questions about topic {self.topic}: {error!r}") from error
            raise BrokerUnavailable(f"Kafka does not answer: {error!r}") from error

    async def close(self) -> None:
        """See Broker. Bounded."""
        await self._cluster.close()
        await self._endings.finish(END_S)

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

        Three requests when there is no lag, ten otherwise. 1.0 is the most it says; precision 1/128. A partition without a
        leader counts with what was known of it last, grown by the time since then.
        """
        retention_ms = await self._retention_ms()
        if retention_ms < 0:
            return 0.0
        everything = range(self.partitions)
        committed = await self.group_offsets(group)
        end = await self._cluster.list_offsets(dict.fromkeys(everything, LATEST))
        first = await self._cluster.list_offsets(dict.fromkeys(everything, EARLIEST))
        known = end.keys() & first.keys()
        unread = {
            partition: committed.get(partition, first[partition])
            for partition in known
            if committed.get(partition, first[partition]) < end[partition]
        }
        risk = await self._risk_of(unread, first, retention_ms) if unread else 0.0
        now_s = time.monotonic()
        for partition in everything:
            if partition in known:
                self._known_risks[partition] = (now_s, risk if partition in unread else 0.0)
            else:
                asked_s, last = self._known_risks.setdefault(partition, (now_s, 0.0))
                risk = max(risk, last + (now_s - asked_s) * 1000 / max(retention_ms, 1))
        return min(risk, 1.0)

    async def _risk_of(self, unread: Mapping[int, int], first: Mapping[int, int], retention_ms: int) -> float:
        """The greatest risk of the partitions' oldest unread offsets."""
        if any(offset < first[partition] for partition, offset in unread.items()):
            return 1.0
        now_ms = time.time_ns() // 1_000_000

        async def older_than(share: float) -> bool:
            since = await self._cluster.list_offsets(dict.fromkeys(unread, max(0, now_ms - int(share * retention_ms))))
            return any(found < 0 or found > unread[partition] for partition, found in since.items())

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
            await asyncio.sleep(BACKOFF_S)

    async def _wrong_settings(self, admin: AIOKafkaAdminClient, replicas: int) -> list[str]:
        found = await self._describe(admin, ConfigResource(ConfigResourceType.TOPIC, self.topic))
        problems = wrong_topic_settings(found, replicas=replicas)
        for node in (await admin.describe_cluster())["brokers"]:
            try:
                found = await self._describe(admin, ConfigResource(ConfigResourceType.BROKER, str(node["node_id"])))
            except KafkaError as error:
                if not error.retriable:
                    raise
                # It has just gone, and the cluster has not noticed: it is not asked either once it has.
                self._repeated.warning(
                    "a broker was not asked for its settings", error=repr(error), broker=node["node_id"]
                )
                continue
            problems += wrong_broker_settings(found, in_flight_bytes_max=self._settings.in_flight_bytes_max)
        return list(dict.fromkeys(problems))

    @staticmethod
    async def _describe(admin: AIOKafkaAdminClient, resource: ConfigResource) -> dict[str, str | None]:
        found: dict[str, str | None] = {}
        for response in await admin.describe_configs([resource]):
            for code, message, _, _, entries in response.resources:
                if code:
                    raise for_code(code)(message)
                found.update({entry[0]: entry[1] for entry in entries})
        return found
