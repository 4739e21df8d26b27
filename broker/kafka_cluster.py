"""Questions to a Kafka cluster and commits, through one client that is made when needed and dropped when it fails.

Each call is bounded by `request_timeout_ms`. A client that failed is thrown away, so that the next call starts from the
bootstrap addresses, and ended when the last call that uses it has: a group without a coordinator fails alone. A partition
without a leader is left out of an answer, so that it holds no other up.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Final, TypeVar

from aiokafka import TopicPartition
from aiokafka.admin.config_resource import ConfigResourceType
from aiokafka.client import AIOKafkaClient, ConnectionGroup, CoordinationType
from aiokafka.errors import KafkaConnectionError, KafkaError, for_code
from aiokafka.protocol.admin import DescribeConfigsRequest
from aiokafka.protocol.commit import OffsetCommitRequest, OffsetFetchRequest
from aiokafka.protocol.offset import OffsetRequest

from broker.kafka_clients import BACKOFF_S, Endings, connection, start_whole
from broker.settings import BrokerSettings
from schemas.errors import BrokerUnavailable

T = TypeVar("T")

EARLIEST: Final = -2
LATEST: Final = -1
_LEADER_S: Final = 2.0
"""How long one partition leader may take to say its offsets before it counts as away."""
_METADATA_S: Final = 1.0
"""How long a look for new leaders may take while others could be asked."""


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

    async def list_offsets(self, times: Mapping[int, int], *, timeout_s: float | None = None) -> dict[int, int]:
        """Partition -> first offset at or after the time (Unix ms; -2 first, -1 end), -1 when there is none.

        A partition whose leader is away is absent. While that is so of all, they are asked again, until the time is up.
        """
        if not times:
            return {}

        async def ask(client: AIOKafkaClient) -> dict[int, int]:
            silent: set[int] = set()
            offsets = await self._ask_leaders(client, times, silent)
            if len(offsets) < len(times):
                # An update that goes on by itself: nothing of it is lost by not waiting.
                await asyncio.wait({client.force_metadata_update()}, timeout=_METADATA_S)
                missing = {partition: time_ms for partition, time_ms in times.items() if partition not in offsets}
                offsets |= await self._ask_leaders(client, missing, silent)
            if not offsets:
                raise KafkaConnectionError(f"no leader of partitions {sorted(times)} answers")
            return offsets

        return await self._ask(ask, timeout_s)

    async def _ask_leaders(self, client: AIOKafkaClient, times: Mapping[int, int], silent: set[int]) -> dict[int, int]:
        """What the leaders say, but for the silent ones; notes who was silent this time."""
        by_leader: defaultdict[int, list[tuple[int, int]]] = defaultdict(list)
        for partition, time_ms in times.items():
            leader = client.cluster.leader_for_partition(TopicPartition(self._topic, partition))
            if leader is not None and leader != -1 and leader not in silent:
                by_leader[leader].append((partition, time_ms))
        # One after the other: the client connects to one broker at a time.
        offsets: dict[int, int] = {}
        for leader, wanted in by_leader.items():
            offsets |= await self._ask_leader(client, leader, wanted, silent)
        return offsets

    async def _ask_leader(
        self, client: AIOKafkaClient, leader: int, wanted: list[tuple[int, int]], silent: set[int]
    ) -> dict[int, int]:
        try:
            async with asyncio.timeout(_LEADER_S):
                response = await client.send(leader, OffsetRequest(-1, 0, [(self._topic, wanted)]))
        except TimeoutError:
            silent.add(leader)
            return {}
        except (KafkaError, OSError) as error:
            if isinstance(error, KafkaError) and not error.retriable:
                raise
            return {}
        offsets: dict[int, int] = {}
        for _, answers in response.topics:
            for partition, code, _time_ms, offset in answers:
                if not code:
                    offsets[partition] = offset
                elif not for_code(code).retriable:
                    raise for_code(code)()
        return offsets

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
        used, self._client = self._client, None
        if used is not None:
            await self._endings.run(used.client.close(), "client")

    async def _ask(self, ask: Callable[[AIOKafkaClient], Awaitable[T]], timeout_s: float | None = None) -> T:
        """Ask, again while the error passes by itself, within the time. Raises BrokerUnavailable."""
        used: _Client | None = None
        try:
            async with asyncio.timeout(self._timeout_s if timeout_s is None else timeout_s):
                used = await self._connected()
                used.users += 1
                while True:
                    try:
                        return await ask(used.client)
                    except KafkaError as error:
                        if not error.retriable:
                            raise
                        await asyncio.sleep(BACKOFF_S)
                        await used.client.force_metadata_update()
        except (KafkaError, OSError, TimeoutError) as error:
            if used is not None:
                used.is_dropped = True
                if used is self._client:
                    self._client = None
            raise BrokerUnavailable(f"Kafka does not answer: {error!r}") from error
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


def _raise_for(code: int) -> None:
    if code:
        raise for_code(code)()
