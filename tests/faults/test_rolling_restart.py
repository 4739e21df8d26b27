"""A rolling restart in the order of docs/upgrading.md, under load: whoever asks the other process once notices nothing."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import httpx
import pytest

from infra.fleet import EMBEDDED, FULL, Fleet, Role, until
from tests.faults.conftest import MakeFleet
from tests.faults.producers import Producers, assert_exactly_once

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

HTTP_ROLES: Final = ("query-a", "query-b", "ingest-a", "ingest-b")
ONE_BY_ONE: Final = (
    *("query-a", "query-b", "alert-a", "mine-a", "route-a", "tier-a"),
    *("write-a", "write-b", "ingest-a", "ingest-b"),
)
"""As docs/upgrading.md has it."""
LOGS_PER_REQUEST: Final = 10
_AWAY: Final = (httpx.ConnectError, httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError)
"""Nobody there, or a connection that was closed before an answer: with a key, or for a question, safe to ask again."""


@dataclass
class Pair:
    """A client of two processes: what one refuses for now, the other gets, once. Anything else is its failure."""

    client: httpx.AsyncClient
    urls: tuple[str, str]
    retried: Counter[str] = field(default_factory=Counter)
    failed: list[str] = field(default_factory=list)
    _turn: itertools.cycle[int] = field(default_factory=lambda: itertools.cycle((0, 1)))

    async def ask(self, method: str, path: str, **more: Any) -> httpx.Response | None:
        """The answer; None where this counts as failed."""
        first = next(self._turn)
        why = ""
        for url in (self.urls[first], self.urls[1 - first]):
            try:
                answer = await self.client.request(method, f"{url}{path}", **more)
            except _AWAY as error:
                why = type(error).__name__
            else:
                if answer.status_code < 400:
                    return answer
                why = str(answer.status_code)
                if answer.status_code != 503:
                    break
                assert answer.headers["retry-after"], "503 says when to come again"
            self.retried[why] += 1
        self.failed.append(f"{method} {path[:60]}: {why}")
        return None


@asynccontextmanager
async def traffic(fleet: Fleet, producers: Producers, walks: list[int]) -> AsyncIterator[tuple[Pair, Pair]]:
    """Requests and questions that follow one another until the block is left, over pairs of processes."""
    stop = asyncio.Event()
    async with httpx.AsyncClient(trust_env=False, timeout=30) as client:
        sending = Pair(client, (fleet.url("ingest-a"), fleet.url("ingest-b")))
        asking = Pair(client, (fleet.url("query-a"), fleet.url("query-b")))
        tasks = [asyncio.create_task(_send(sending, producers, number, stop)) for number in range(3)]
        tasks.append(asyncio.create_task(_walk(asking, walks, stop)))
        try:
            yield sending, asking
        finally:
            stop.set()
            await asyncio.gather(*tasks)


async def _send(pair: Pair, producers: Producers, producer: int, stop: asyncio.Event) -> None:
    for request in itertools.count():
        if stop.is_set():
            return
        numbers = range(request * LOGS_PER_REQUEST, (request + 1) * LOGS_PER_REQUEST)
        lines = [
            json.dumps(
                {
                    "service_name": f"shop-{producer}",
                    "level": "ERROR" if number % 10 == 0 else "INFO",
                    "message": f"order {number} of {producer}",
                    "metadata": {"producer": producer, "number": number},
                }
            )
            for number in numbers
        ]
        producers.sent.update((producer, number) for number in numbers)
        headers = {"content-type": "application/x-ndjson", "idempotency-key": f"{producer}-{request}"}
        answer = await pair.ask("POST", "/api/v1/logs/batch", content="\n".join(lines), headers=headers)
        if answer is not None:
            producers.acked.update((producer, number) for number in numbers)


async def _walk(pair: Pair, walks: list[int], stop: asyncio.Event) -> None:
    """Pages along cursors, each of whichever process is asked."""
    while not stop.is_set():
        seen: list[str] = []
        cursor: str | None = None
        while not stop.is_set() and len(seen) < 2_000:
            query = {"limit": "200", **({"cursor": cursor} if cursor else {})}
            answer = await pair.ask("GET", "/api/v1/logs", params=query)
            if answer is None:
                break
            seen += [log["id"] for log in answer.json()["logs"]]
            cursor = answer.json()["next_cursor"]
            if cursor is None:
                break
        assert len(seen) == len(set(seen)), "a walk over two processes shows nothing twice"
        walks.append(len(seen))


def started(fleet: Fleet) -> dict[str, Role]:
    """Label -> role, all running."""
    return {label: fleet.role(label.partition("-")[0], label=label) for label in sorted({*ONE_BY_ONE})}


@pytest.mark.parametrize(
    "profile", [EMBEDDED, pytest.param(FULL, marks=[pytest.mark.long, pytest.mark.kafka, pytest.mark.timescale])]
)
def test_each_role_is_restarted_under_load_and_no_request_fails(make_fleet: MakeFleet, profile: str) -> None:
    fleet = make_fleet(
        profile,
        writers_listen=True,
    )
    fleet.extra["LOGFEED_TIERS__DIRECTORY"] = str(fleet.directory / "segments")
    roles = started(fleet)
    asyncio.run(_rolled(fleet, roles))


async def _rolled(fleet: Fleet, roles: dict[str, Role]) -> None:
    await fleet.ready(*HTTP_ROLES, "write-a", "write-b", timeout_s=120)
    producers, walks = Producers(lambda: fleet.url("ingest-a")), list[int]()
    async with traffic(fleet, producers, walks) as (sending, asking):
        await _goes_on(producers, walks)
        for label in ONE_BY_ONE:
            code = await asyncio.to_thread(roles[label].stop)
            assert code == 0, f"{label} ended with {code}: {roles[label].log_text()[-2000:]}"
            await asyncio.to_thread(roles[label].start)
            if label in fleet.ports:
                await fleet.ready(label, timeout_s=120)
            await _goes_on(producers, walks)
    print(f"{len(producers.acked)} logs; retried: {dict(sending.retried)} {dict(asking.retried)}; {len(walks)} walks")
    assert (sending.failed, asking.failed) == ([], [])
    assert producers.acked == producers.sent
    assert all(role.alive for role in roles.values()), fleet.failures()
    await assert_exactly_once(fleet.url("query-a"), producers)


async def _goes_on(producers: Producers, walks: list[int]) -> None:
    """Some hundred logs more are acknowledged, and walks end, with everything that was restarted so far in place."""
    acked, walked = len(producers.acked), len(walks)

    async def did() -> bool:
        return len(producers.acked) >= acked + 300 and len(walks) >= walked + 2

    await until(did, what="requests and questions are answered", timeout_s=120)
