"""Routers as real processes, killed while logs flow, and without their broker or database for a while: each topic has every log
that matches at least once, and no other."""

from __future__ import annotations

import asyncio
import json
import signal
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from infra.fleet import EMBEDDED, FULL, Fleet, Role, until
from tests.faults.conftest import MakeFleet

pytestmark = pytest.mark.timeout(300)
ROUTES = {"LOGFEED_ROUTES": json.dumps({"cards": {"query": '"card"', "topic": "team.cards"}})}
TOPICS = {"logs.errors": 3, "team.cards": 5, "logs.service.pay-sapi": 2}
"""Topic -> a number is in it when this divides it."""


@dataclass
class Routing:
    """A fleet that routes, and logs that are sent until all were acknowledged."""

    fleet: Fleet
    sent: set[int] = field(default_factory=set)
    """Numbers that were acknowledged."""
    next: int = 0

    def router(self, label: str = "route") -> Role:
        return self.fleet.role("route", label=label, **ROUTES, LOGFEED_ROUTING__SERVICES='["pay/*"]')

    async def start(self) -> Role:
        self.fleet.role("serve", **ROUTES)
        self.fleet.role("write")
        await self.fleet.ready("serve")
        return self.router()

    @asynccontextmanager
    async def flowing(self) -> AsyncIterator[None]:
        """Logs are sent while inside; at the end all are acknowledged."""
        stopping = asyncio.Event()
        sending = asyncio.create_task(self._send_until(stopping))
        try:
            yield
        finally:
            stopping.set()
            await sending

    async def _send_until(self, stopping: asyncio.Event) -> None:
        async with httpx.AsyncClient(trust_env=False, base_url=self.fleet.url("serve"), timeout=30) as client:
            while not stopping.is_set():
                numbers = range(self.next, self.next + 50)
                self.next += 50
                headers = {"Idempotency-Key": f"batch-{numbers[0]}"}

                async def is_taken(numbers: range = numbers, headers: dict[str, str] = headers) -> bool:
                    try:
                        answer = await client.post(
                            "/api/v1/logs/batch", json=[log_of(number) for number in numbers], headers=headers
                        )
                    except httpx.HTTPError:
                        return False
                    assert answer.status_code in (200, 201, 409, 429, 500, 503), answer.text
                    return answer.status_code in (200, 201)

                await until(is_taken, what="a batch is taken", timeout_s=120)
                self.sent |= set(numbers)

    async def read(self, topic: str) -> list[dict[str, Any]]:
        """All records of a topic, as a subscriber reads them."""
        found: list[dict[str, Any]] = []
        after = ""
        async with httpx.AsyncClient(trust_env=False, base_url=self.fleet.url("serve"), timeout=60) as client:
            while True:
                answer = await client.get(
                    f"/api/v1/topics/{topic}/records", params={"after": after, "limit": 1_000, "wait": 0}
                )
                if answer.status_code in (404, 503):
                    return found
                assert answer.status_code == 200, answer.text
                page = answer.json()
                found += page["records"]
                after = page["next"]
                if not page["records"]:
                    return found

    async def errors(self) -> int:
        """Records of logs.errors so far; 0 while nobody can say."""
        async with httpx.AsyncClient(trust_env=False, base_url=self.fleet.url("serve"), timeout=60) as client:
            answer = await client.get("/api/v1/topics")
        topics = answer.json()["topics"] if answer.status_code == 200 else []
        return sum(
            part["next_offset"] for topic in topics if topic["name"] == "logs.errors" for part in topic["partitions"]
        )

    async def until_more_errors(self) -> None:
        """Wait until the router puts more there."""
        so_far = await self.errors()

        async def are_more() -> bool:
            return await self.errors() > so_far + 20

        await until(are_more, what="topics are filled", timeout_s=120)

    async def check(self) -> Counter[str]:
        """Every topic has what it must have and nothing else; how many records came more than once."""
        repeats: Counter[str] = Counter()
        for topic, divisor in TOPICS.items():
            wanted = {number for number in self.sent if number % divisor == 0}
            found: list[dict[str, Any]] = []

            async def is_complete(topic: str = topic, wanted: set[int] = wanted) -> bool:
                nonlocal found
                found = await self.read(topic)
                return {record["log"]["metadata"]["n"] for record in found} >= wanted

            await until(is_complete, what=f"{topic} has all {len(wanted)}", timeout_s=120)
            assert {record["log"]["metadata"]["n"] for record in found} == wanted, topic
            ids = Counter(record["log"]["id"] for record in found)
            assert len(ids) == len(wanted), "one log has one id, however often it comes"
            places = {record["log"]["id"]: tuple(record["source"].values()) for record in found}
            assert len(set(places.values())) == len(wanted)
            repeats[topic] = len(found) - len(wanted)
        return repeats


def log_of(number: int) -> dict[str, Any]:
    return {
        "service_name": "pay/api" if number % 2 == 0 else "shop",
        "level": "error" if number % 3 == 0 else "info",
        "message": f"card {number}" if number % 5 == 0 else f"cash {number}",
        "metadata": {"n": number},
    }


@pytest.mark.slow
async def test_killed_routers_lose_nothing_and_add_nothing(make_fleet: MakeFleet, profile: str) -> None:
    routing = Routing(await asyncio.to_thread(make_fleet, profile))
    router = await routing.start()
    async with routing.flowing():
        for _ in range(3):
            await routing.until_more_errors()
            await asyncio.to_thread(router.restart_killed)
    repeats = await routing.check()
    assert all(count <= 3 * 4_000 for count in repeats.values()), "what was not saved comes again, no more"
    assert router.stop() == 0


@pytest.mark.parametrize("profile", [EMBEDDED, pytest.param(FULL, marks=pytest.mark.long)])
async def test_a_router_without_broker_or_database_goes_on_by_itself(make_fleet: MakeFleet, profile: str) -> None:
    fleet = await asyncio.to_thread(make_fleet, profile)
    routing = Routing(fleet)
    router = await routing.start()
    async with routing.flowing():
        for restart in (
            [fleet.restart_database] if profile == EMBEDDED else [fleet.restart_broker, fleet.restart_database]
        ):
            so_far = len(routing.sent)

            async def flows(so_far: int = so_far) -> bool:
                return len(routing.sent) > so_far + 100

            await until(flows, what="logs flow", timeout_s=120)
            await asyncio.to_thread(restart)
            await until(flows, what="logs flow again", timeout_s=120)
    await routing.check()
    assert router.alive
    assert router.stop() == 0


@pytest.mark.long
async def test_a_stopped_router_is_followed_by_another(make_fleet: MakeFleet) -> None:
    routing = Routing(await asyncio.to_thread(make_fleet, EMBEDDED))
    first = await routing.start()
    async with routing.flowing():
        await routing.until_more_errors()
        first.signal(signal.SIGSTOP)
        routing.router("second")
        await routing.until_more_errors()
        first.signal(signal.SIGCONT)
    await routing.check()
    assert first.alive
    assert first.stop() == 0
