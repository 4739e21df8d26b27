"""INV-2 through the loss of the primary: a replica that is behind is promoted, and every role goes on with the same settings.

What the replica had not received is lost with the primary, rows together with offsets, and is read again from Kafka."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import httpx
import psycopg
import pytest

from infra.fleet import FULL, Fleet, until
from infra.native.replica import TimescaleReplica
from tests.faults.producers import Producers, assert_exactly_once

pytestmark = [pytest.mark.long, pytest.mark.kafka, pytest.mark.timescale, pytest.mark.timeout(600)]

_OFFSETS = "SELECT coalesce(sum(next_offset), 0)::bigint FROM consumer_offsets"
_ROWS = "SELECT count(*) FROM logs"


class Site:
    """A fleet over a primary and its replica."""

    def __init__(self, fleet: Fleet, replica: TimescaleReplica) -> None:
        assert fleet.timescale is not None
        self.fleet = fleet
        self.primary = fleet.timescale
        self.replica = replica
        self.producers = Producers(lambda: fleet.url("ingest"))

    async def send(self, *, requests: int, seed: int) -> None:
        self.producers.seed = seed
        await self.producers.run(producers=4, requests=requests, logs_per_request=50)

    async def stored(self) -> None:
        """Wait until the primary has everything that was acknowledged."""

        async def has_all() -> bool:
            return await self.ask(self.primary.url, _ROWS) >= len(self.producers.acked)

        await until(has_all, what="everything is stored on the primary")

    async def cut_off(self) -> None:
        """From now on the replica receives nothing."""
        with psycopg.connect(self.replica.url, autocommit=True) as connection:
            connection.execute("ALTER SYSTEM SET primary_conninfo = ''")
            connection.execute("SELECT pg_reload_conf()")

        async def is_alone() -> bool:
            return await self.ask(self.primary.url, "SELECT count(*) FROM pg_stat_replication") == 0

        await until(is_alone, what="the replica receives nothing more")

    async def fail_over(self) -> int:
        """Kill the primary, promote the replica; how many records the new primary lacks that the old one had stored."""
        had = await self.ask(self.primary.url, _OFFSETS)
        await asyncio.to_thread(self.fleet.servers.kill_database)
        await asyncio.to_thread(self.replica.promote)
        return had - await self.ask(self.replica.url, _OFFSETS)

    @staticmethod
    async def ask(url: str, query: str) -> int:
        async with await psycopg.AsyncConnection.connect(url) as connection:
            row = await (await connection.execute(query.encode())).fetchone()
        assert row is not None
        return int(row[0])


@pytest.fixture
async def site(
    kafka_bootstrap: str, timescale_server: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Site]:
    """kafka_bootstrap, timescale_server: where there can be none, this is skipped too."""
    directory = tmp_path_factory.mktemp("failover")
    directory.chmod(0o711)
    fleet = Fleet(FULL, directory)
    assert fleet.timescale is not None
    replica = TimescaleReplica(directory / "replica", die_with_parent=False)
    try:
        await asyncio.to_thread(fleet.start_servers)
        replica.follow(fleet.timescale)
        await asyncio.to_thread(replica.start)
        first, second = urlsplit(fleet.timescale.url), urlsplit(replica.url)
        hosts = f"{first.username}:{first.password}@{first.hostname}:{first.port},{second.hostname}:{second.port}"
        fleet.database_url = f"postgresql://{hosts}/logfeed?target_session_attrs=read-write"
        fleet.extra |= {
            "LOGFEED_DATABASE__REPLICAS": json.dumps([replica.url]),
            "LOGFEED_WRITER__LEASE_TTL_S": "3",
        }
        fleet.role("ingest")
        fleet.role("query")
        fleet.role("write", label="one")
        fleet.role("write", label="two")
        await fleet.ready("ingest", "query")
        yield Site(fleet, replica)
    except BaseException:
        print(fleet.failures())
        raise
    finally:
        await asyncio.to_thread(fleet.stop_everything)
        await asyncio.to_thread(replica.remove)


@asynccontextmanager
async def under_load(site: Site) -> AsyncIterator[None]:
    """Producers that send until the block is over, and a little longer."""
    is_over = asyncio.Event()

    async def load() -> None:
        seed = 10
        while not is_over.is_set():
            seed += 1
            await site.send(requests=4, seed=seed)
        await site.send(requests=4, seed=seed + 1)

    loading = asyncio.create_task(load())
    try:
        yield
    finally:
        is_over.set()
        await loading


async def test_a_replica_that_is_behind_is_promoted_under_load_and_nothing_is_lost_or_repeated(site: Site) -> None:
    await site.send(requests=5, seed=1)
    await site.stored()
    seen, cursor = await _page(site, None)
    async with under_load(site):
        await site.producers.acknowledged(3_000)
        await site.cut_off()
        await site.producers.acknowledged(len(site.producers.acked) + 3_000)

        async def is_ahead() -> bool:
            ahead = await site.ask(site.primary.url, _OFFSETS) - await site.ask(site.replica.url, _OFFSETS)
            return ahead >= 20

        await until(is_ahead, what="the primary has stored what the replica lacks")
        assert await site.fail_over() >= 20
        await site.producers.acknowledged(len(site.producers.acked) + 2_000)
    await assert_exactly_once(site.fleet.url("query"), site.producers)
    while cursor is not None:  # a walk that began before goes on to its own end
        more, cursor = await _page(site, cursor)
        seen += more
    assert len(seen) == len(set(seen)) == 1_000

    # Who starts on the new timeline takes no number that a process of the old one may have.
    site.fleet.role("ingest", label="later")
    await site.fleet.ready("later")
    assert await site.ask(site.replica.url, "SELECT count(*) FROM worker_ids WHERE worker >= 256") == 1
    later = Producers(lambda: site.fleet.url("later"), seed=90, sent=site.producers.sent, acked=site.producers.acked)
    await later.run(producers=2, requests=2, logs_per_request=50)
    await assert_exactly_once(site.fleet.url("query"), later)


async def test_what_idle_writers_had_stored_on_the_old_primary_is_read_again(site: Site) -> None:
    await site.send(requests=5, seed=1)
    await site.stored()
    await site.cut_off()
    await site.send(requests=5, seed=2)
    await site.stored()
    assert await site.fail_over() >= 15
    await assert_exactly_once(site.fleet.url("query"), site.producers)
    assert len(site.producers.acked) == 2_000


async def test_pages_go_on_while_no_primary_is_there(site: Site) -> None:
    await site.send(requests=5, seed=1)
    await site.stored()

    async def replayed() -> bool:
        return await site.ask(site.replica.url, _ROWS) == 1_000

    await until(replayed, what="the replica has everything")
    await asyncio.to_thread(site.fleet.servers.kill_database)
    async with httpx.AsyncClient(trust_env=False, timeout=30) as client:

        async def answered() -> bool:
            answer = await client.get(f"{site.fleet.url('query')}/api/v1/logs", params={"limit": 1000})
            return answer.status_code == 200 and len(answer.json()["logs"]) == 1_000

        await until(answered, what="the replica answers")
        assert (await client.get(f"{site.fleet.url('query')}/readyz")).status_code == 200


async def _page(site: Site, cursor: str | None) -> tuple[list[str], str | None]:
    """Ids of a page of logs, and what leads to the next."""
    query = {"limit": "100", **({} if cursor is None else {"cursor": cursor})}
    async with httpx.AsyncClient(trust_env=False, timeout=30) as client:
        while True:
            answer = await client.get(f"{site.fleet.url('query')}/api/v1/logs", params=query)
            if answer.status_code == 200:
                content = answer.json()
                return [log["id"] for log in content["logs"]], content["next_cursor"]
            assert answer.status_code == 503, answer.text
            await asyncio.sleep(0.2)
