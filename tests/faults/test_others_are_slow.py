"""Ingest takes logs as ever while the database is slow for writers, and while somebody asks wild questions."""

from __future__ import annotations

import asyncio
from urllib.parse import urlsplit

import httpx
import pytest

from infra.fleet import EMBEDDED, FULL, until
from tests.faults.conftest import MakeFleet
from tests.faults.producers import Producers, assert_exactly_once, ledger_settled
from tests.faults.relay import Passing, Relay

DELAY_S = 0.15
"""Of each piece, both ways: a batch of ten round trips takes seconds instead of milliseconds."""
WILD = (
    {"regex": r"(\w+\s+)+zebra$", "start_time": "-3650d"},
    {"query": 'NOT "request" OR message:/(a|b|ab)*c$/', "start_time": "-3650d"},
    {"q": "a word that nobody ever logged", "start_time": "-3650d", "order": "asc"},
)


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_a_database_slow_for_writers_costs_ingest_nothing(make_fleet: MakeFleet) -> None:
    fleet = await asyncio.to_thread(make_fleet, FULL)
    address = urlsplit(fleet.database_url)
    assert address.hostname
    assert address.port
    async with Relay(address.hostname, address.port) as relay:
        fleet.role("serve")
        writer = fleet.role("write", LOGFEED_DATABASE__URL=relay.url_of(fleet.database_url))
        await fleet.ready("serve")
        producers = Producers(lambda: fleet.url("serve"), seed=130)
        await producers.run(producers=1, requests=2, logs_per_request=10)
        await assert_exactly_once(fleet.url("serve"), producers)
        relay.turn(Passing.SLOW, delay_s=DELAY_S)
        producers.seed += 1
        await producers.run(producers=4, requests=15, logs_per_request=100)
        assert producers.retries == 0, "ingest has refused logs that the broker could take"

        async def writer_is_behind() -> bool:
            ledger = await ledger_settled(fleet.url("serve"))
            return bool(ledger) and any(ledger["unread"].values())

        assert await writer_is_behind(), "the database was not slow enough to show anything"
        relay.turn(Passing.PASS)
        await assert_exactly_once(fleet.url("serve"), producers)
        assert writer.alive


@pytest.mark.parametrize("profile", [EMBEDDED, pytest.param(FULL, marks=pytest.mark.long)])
async def test_wild_questions_make_ingest_refuse_nothing(make_fleet: MakeFleet, profile: str) -> None:
    fleet = await asyncio.to_thread(make_fleet, profile)
    for name in ("ingest", "query", "write"):
        fleet.role(name)
    await fleet.ready("ingest", "query")
    producers = Producers(lambda: fleet.url("ingest"), seed=140)
    await producers.run(producers=4, requests=4, logs_per_request=500)
    await assert_exactly_once(fleet.url("query"), producers)
    answers: list[int] = []
    is_over = asyncio.Event()

    async def ask(client: httpx.AsyncClient, parameters: dict[str, str]) -> None:
        while not is_over.is_set():
            answer = await client.get("/api/v1/logs", params={**parameters, "limit": "1000"})
            answers.append(answer.status_code)

    async with httpx.AsyncClient(trust_env=False, base_url=fleet.url("query"), timeout=60) as client:
        asking = [asyncio.create_task(ask(client, parameters)) for parameters in WILD * 2]
        try:

            async def each_was_asked() -> bool:
                return len(answers) >= len(asking)

            await until(each_was_asked, what="questions are asked")
            producers.seed += 1
            asked = len(answers)
            await producers.run(producers=4, requests=15, logs_per_request=50)
            assert len(answers) > asked, "nobody has asked anything meanwhile"
            assert not any(task.done() for task in asking)
        finally:
            is_over.set()
            await asyncio.gather(*asking)
    assert producers.retries == 0, "ingest has refused logs, or somebody else had its connection"
    assert set(answers) <= {200, 429, 503}
    assert 200 in answers
    await assert_exactly_once(fleet.url("query"), producers)
