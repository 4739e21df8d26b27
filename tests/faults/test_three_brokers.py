"""Three real brokers, three copies of each partition, two of them needed: what single brokers cannot show.

Leaders are killed, brokers are restarted one after the other, two are dead at once; producers go on and retry with keys.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from infra.fleet import FULL, Fleet, Servers, until
from infra.native import KafkaCluster, KafkaNode
from tests.faults.producers import Producers, assert_exactly_once

pytestmark = [pytest.mark.kafka, pytest.mark.timescale, pytest.mark.long, pytest.mark.timeout(600)]

GROWTH = 2_000
"""Logs that are acknowledged before the next fault."""


@pytest.fixture(scope="module")
def cluster(kafka_bootstrap: str) -> Iterator[KafkaCluster]:
    # The shared broker skips, with the reason, where there can be none.
    with tempfile.TemporaryDirectory(prefix="logfeed-brokers-") as directory:
        Path(directory).chmod(0o711)
        made = KafkaCluster(Path(directory))
        try:
            made.start()
            yield made
        finally:
            made.remove()


@pytest.fixture
def fleet(cluster: KafkaCluster, timescale_url: str, tmp_path: Path) -> Iterator[Fleet]:
    """Roles over the cluster and the shared database."""
    cluster.start()
    made = Fleet(
        FULL,
        tmp_path / "fleet",
        shared=Servers(FULL, tmp_path / "servers"),
        database_url=timescale_url,
        extra={
            "LOGFEED_BROKER__BOOTSTRAP": cluster.bootstrap,
            "LOGFEED_BROKER__REPLICATION_FACTOR": "3",
            "LOGFEED_BROKER__REQUEST_TIMEOUT_MS": "4000",
        },
    )
    made.role("serve")
    for name in ("write-a", "write-b"):
        made.role("write", label=name, LOGFEED_WRITER__LEASE_TTL_S="2")
    try:
        yield made
    finally:
        made.stop_everything()


@asynccontextmanager
async def flowing(fleet: Fleet, first_seed: int) -> AsyncIterator[Producers]:
    """Producers send until the block ends, and until all they sent was acknowledged."""
    producers = Producers(lambda: fleet.url("serve"), seed=first_seed)
    ended = asyncio.Event()

    async def send() -> None:
        while not ended.is_set():
            await producers.run(producers=4, requests=4, logs_per_request=50)
            producers.seed += 1

    sending = asyncio.create_task(send())
    try:
        yield producers
    finally:
        ended.set()
        await sending


async def partitions_of(cluster: KafkaCluster, topic: str) -> list[dict[str, Any]]:
    """As the cluster describes them; empty while nobody can say."""
    admin = AIOKafkaAdminClient(bootstrap_servers=cluster.bootstrap, request_timeout_ms=4_000)
    try:
        await admin.start()
        (description,) = await admin.describe_topics([topic])
    except KafkaError:
        return []
    finally:
        await admin.close()
    return list(description["partitions"])


async def all_in_sync(cluster: KafkaCluster, topic: str) -> None:
    """Wait until each partition has a leader and three copies that follow it."""

    async def in_sync() -> bool:
        found = await partitions_of(cluster, topic)
        return bool(found) and all(len(each["isr"]) == 3 and each["leader"] > 0 for each in found)

    await until(in_sync, what="every copy is in sync", timeout_s=90)


async def leader_of(cluster: KafkaCluster, topic: str, partition: int) -> KafkaNode:
    """The node that leads it."""
    found = await partitions_of(cluster, topic)
    return cluster.node(next(each["leader"] for each in found if each["partition"] == partition))


async def bring_back(node: KafkaNode) -> None:
    """Started by this thread, which outlives it."""
    node.spawn()
    await asyncio.to_thread(node.wait_ready)


async def test_leaders_killed_one_after_the_other_cost_time_and_no_log(cluster: KafkaCluster, fleet: Fleet) -> None:
    await fleet.ready("serve")
    await all_in_sync(cluster, fleet.topic)
    killed = []
    async with flowing(fleet, 1) as producers:
        for partition in range(4):
            await producers.acknowledged(len(producers.acked) + GROWTH)
            leader = await leader_of(cluster, fleet.topic, partition)
            await asyncio.to_thread(leader.kill)
            killed.append(leader.node_id)
            # The two that are left take logs before it is back.
            await producers.acknowledged(len(producers.acked) + GROWTH)
            successor = await leader_of(cluster, fleet.topic, partition)
            assert successor.node_id != leader.node_id
            await bring_back(leader)
            await all_in_sync(cluster, fleet.topic)
    assert len(killed) == 4
    logs = await assert_exactly_once(fleet.url("serve"), producers)
    assert len(logs) == len(producers.acked)


async def test_brokers_restarted_one_by_one_cost_no_log(cluster: KafkaCluster, fleet: Fleet) -> None:
    await fleet.ready("serve")
    await all_in_sync(cluster, fleet.topic)
    async with flowing(fleet, 1_000) as producers:
        for node in cluster.nodes:
            await producers.acknowledged(len(producers.acked) + GROWTH)
            await asyncio.to_thread(node.stop)
            await bring_back(node)
            await all_in_sync(cluster, fleet.topic)
        await producers.acknowledged(len(producers.acked) + GROWTH)
    await assert_exactly_once(fleet.url("serve"), producers)


async def test_with_two_dead_nothing_is_acknowledged_and_all_goes_on_when_one_is_back(
    cluster: KafkaCluster, fleet: Fleet
) -> None:
    await fleet.ready("serve")
    await all_in_sync(cluster, fleet.topic)
    async with flowing(fleet, 2_000) as producers:
        await producers.acknowledged(GROWTH)
        dead = cluster.nodes[:2]
        for node in dead:
            await asyncio.to_thread(node.kill)
        async with httpx.AsyncClient(trust_env=False, base_url=fleet.url("serve"), timeout=60) as client:

            async def is_refused() -> bool:
                log = {"service_name": "shop", "message": "nobody takes it", "metadata": {"producer": 0, "number": 0}}
                producers.sent.add((0, 0))  # it may be stored for all that: nobody was told
                answer = await client.post("/api/v1/logs", json=log, headers={"Idempotency-Key": "with two dead"})
                assert answer.status_code in (201, 503), answer.text
                if answer.status_code == 201:
                    producers.acked.add((0, 0))
                    return False
                assert int(answer.headers["retry-after"]) >= 1
                return True

            async def is_not_ready() -> bool:
                return (await client.get("/readyz")).status_code == 503

            await until(is_refused, what="ingest says 503", timeout_s=60)
            so_far = len(producers.acked)
            await until(is_not_ready, what="/readyz says so", timeout_s=60)
            assert await is_refused()
            assert len(producers.acked) == so_far, "a single copy has acknowledged logs"
        await bring_back(dead[0])
        await fleet.ready("serve")
        await producers.acknowledged(so_far + GROWTH)
    await bring_back(dead[1])
    await all_in_sync(cluster, fleet.topic)
    await assert_exactly_once(fleet.url("serve"), producers)
