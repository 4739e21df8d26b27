"""Questions to a Kafka cluster and commits, through one client that is made when needed and dropped when it fails.

Each call is bounded by `request_timeout_ms`. A client that failed is thrown away, so that the next call starts from the
bootstrap addresses, and ended when the last call that uses it has: a group without a coordinator fails alone.

A partition without a leader is left out of an answer, so that it holds no other up, and so is one whose leader does not say
anything (it hangs, or is cut off, and is listed all the same). Who did not answer in time is passed over until it does: one
task beside the calls asks it, over a new connection each time, since the old one may be dead. Only where no other leader
could answer is a silent one waited for.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Container, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Final, TypeVar

import structlog
from aiokafka import TopicPartition
from aiokafka.admin.config_resource import ConfigResourceType
from aiokafka.client import AIOKafkaClient, ConnectionGroup, CoordinationType
from aiokafka.errors import KafkaConnectionError, KafkaError, for_code
from aiokafka.protocol.admin import DescribeConfigsRequest
from aiokafka.protocol.commit import OffsetCommitRequest, OffsetFetchRequest
from aiokafka.protocol.offset import OffsetRequest

from broker.kafka_clients import BACKOFF_S, Endings, connection, start_whole
from broker.settings import BrokerSettings
from runtime.sparing import SparingLog
from schemas.errors import BrokerUnavailable

log = structlog.get_logger(__name__)

T = TypeVar("T")

EARLIEST: Final = -2
LATEST: Final = -1
_LEADER_S: Final = 2.0
"""How long one partition leader may take to say its offsets before it counts as away."""
_METADATA_S: Final = 1.0
"""How long a look for new leaders may take while others could be asked."""
_PROMPT_S: Final = 0.25
"""A leader that fails after longer than this is silent: asking it holds others up."""
_ASK_SILENT_EVERY_S: Final = 1.0
"""Pause between two questions to leaders that did not answer the last one."""


class _Client:
    """A client and how many calls use it."""

    def __init__(self, client: AIOKafkaClient) -> None:
        self.client = client
        self.users = 0
        self.is_dropped = False


class Cluster:
    """Questions and commits, through one client that is made when needed and dropped when it fails."""

    def __init__(self, settings: BrokerSettings, endings: Endings) -> None:
        self._settings = settings
        self._endings = endings
        self._topic = settings.topic
        self._timeout_s = settings.request_timeout_ms / 1000
        self._client: _Client | None = None
        self._connecting = asyncio.Lock()
        self._silent: set[int] = set()
        """Nodes that did not answer their last question."""
        self._missing: set[int] = set()
        """Partitions that the last answers lacked: the metadata is renewed for them, and not waited for."""
        self._asking_silent: asyncio.Task[None] | None = None
        self._repeated = SparingLog(log)

    async def list_offsets(self, times: Mapping[int, int], *, timeout_s: float | None = None) -> dict[int, int]:
        """Partition -> first offset at or after the time (Unix ms; -2 first, -1 end), -1 when there is none.

        A partition whose leader is away or silent is absent. While that is so of all, they are asked again, until the time
        is up.
        """
        if not times:
            return {}

        async def ask(client: AIOKafkaClient) -> dict[int, int]:
            silent_before = set(self._silent)
            offsets = await self._ask_leaders(client, times, self._silent)
            missing = times.keys() - offsets.keys()
            if missing:
                # An update that goes on by itself: nothing of it is lost by not waiting.
                update = client.force_metadata_update()
                if missing - self._missing:
                    await asyncio.wait({update}, timeout=_METADATA_S)
                    offsets |= await self._ask_leaders(client, _only(times, missing), self._silent)
            if not offsets:
                # Nobody else is held up by waiting for those that were silent before.
                offsets = await self._ask_leaders(client, times, self._silent - silent_before)
            self._missing = (self._missing | times.keys()) - offsets.keys()
            if not offsets:
                raise KafkaConnectionError(f"no leader of partitions {sorted(times)} answers")
            return offsets

        return await self._ask(ask, timeout_s)

    async def _ask_leaders(
        self, client: AIOKafkaClient, times: Mapping[int, int], passed_over: Container[int]
    ) -> dict[int, int]:
        """What the leaders say, but for those passed over."""
        by_leader: defaultdict[int, list[tuple[int, int]]] = defaultdict(list)
        for partition, time_ms in times.items():
            leader = client.cluster.leader_for_partition(TopicPartition(self._topic, partition))
            if leader is not None and leader != -1:
                by_leader[leader].append((partition, time_ms))
        # One after the other: the client connects to one broker at a time.
        offsets: dict[int, int] = {}
        for leader, wanted in by_leader.items():
            if leader not in passed_over:
                offsets |= await self._ask_leader(client, leader, wanted)
        return offsets

    async def _ask_leader(self, client: AIOKafkaClient, leader: int, wanted: list[tuple[int, int]]) -> dict[int, int]:
        """What one leader says; notes whether it does."""
        loop = asyncio.get_running_loop()
        begun_s = loop.time()
        try:
            async with asyncio.timeout(_LEADER_S):
                response = await client.send(leader, OffsetRequest(-1, 0, [(self._topic, wanted)]))
        except (KafkaError, OSError, TimeoutError) as error:
            if isinstance(error, KafkaError) and not error.retriable:
                raise
            if loop.time() - begun_s > _PROMPT_S:
                self._note_silence(client, leader)
            else:
                self._silent.discard(leader)  # away, and it takes no time to find out
            return {}
        self._silent.discard(leader)
        offsets: dict[int, int] = {}
        for _, answers in response.topics:
            for partition, code, _time_ms, offset in answers:
                if not code:
                    offsets[partition] = offset
                elif not for_code(code).retriable:
                    raise for_code(code)()
        return offsets

    def _note_silence(self, client: AIOKafkaClient, leader: int) -> None:
        connection = client._conns.pop((leader, ConnectionGroup.DEFAULT), None)
        if connection is not None:
            connection.close()
        self._repeated.warning(
            "a kafka broker does not answer, its partitions are passed over until it does", error=f"broker {leader}"
        )
        self._silent.add(leader)
        if self._asking_silent is None or self._asking_silent.done():
            self._asking_silent = asyncio.create_task(self._ask_silent())

    async def _ask_silent(self) -> None:
        """Ask silent leaders until each has answered, or leads nothing any more."""
        while self._silent:
            await asyncio.sleep(_ASK_SILENT_EVERY_S)
            for leader in list(self._silent):
                with contextlib.suppress(KafkaError, OSError, TimeoutError):
                    async with self._using(self._timeout_s) as client:
                        led = client.cluster.partitions_for_broker(leader) or ()
                        wanted = [(each.partition, LATEST) for each in led if each.topic == self._topic]
                        if wanted:
                            await self._ask_leader(client, leader, wanted)
                        else:
                            self._silent.discard(leader)

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
        """Close the client; calls under way fail."""
        if self._asking_silent is not None:
            self._asking_silent.cancel()
            await asyncio.wait({self._asking_silent})
        used, self._client = self._client, None
        if used is not None:
            await self._endings.run(used.client.close(), "client")

    async def _ask(self, ask: Callable[[AIOKafkaClient], Awaitable[T]], timeout_s: float | None = None) -> T:
        """Ask, again while the error passes by itself, within the time. Raises BrokerUnavailable."""
        try:
            async with self._using(self._timeout_s if timeout_s is None else timeout_s) as client:
                while True:
                    try:
                        return await ask(client)
                    except KafkaError as error:
                        if not error.retriable:
                            raise
                        await asyncio.sleep(BACKOFF_S)
                        await client.force_metadata_update()
        except (KafkaError, OSError, TimeoutError) as error:
            raise BrokerUnavailable(f"Kafka does not answer: {error!r}") from error

    @asynccontextmanager
    async def _using(self, timeout_s: float) -> AsyncIterator[AIOKafkaClient]:
        """The client for so long; whatever fails or takes longer drops it. Raises KafkaError, OSError, TimeoutError."""
        used: _Client | None = None
        try:
            async with asyncio.timeout(timeout_s):
                used = await self._connected()
                used.users += 1
                yield used.client
        except (KafkaError, OSError, TimeoutError):
            if used is not None:
                used.is_dropped = True
                if used is self._client:
                    self._client = None
            raise
        finally:
            if used is not None:
                used.users -= 1
                if used.is_dropped and not used.users:
                    await self._endings.run(used.client.close(), "client")

    async def _connected(self) -> _Client:
        async with self._connecting:
            if self._client is None:
                client = AIOKafkaClient(**connection(self._settings, "logfeed-broker"))

                async def start() -> None:
                    await client.bootstrap()
                    await client.set_topics([self._topic])

                await start_whole(start(), client.close, self._endings, "client", self._timeout_s)
                self._client = _Client(client)
            return self._client


def _only(times: Mapping[int, int], partitions: Iterable[int]) -> dict[int, int]:
    return {partition: times[partition] for partition in partitions}


def _raise_for(code: int) -> None:
    if code:
        raise for_code(code)()
