"""Limits as those meet them who pass them, and as the others do not: real databases, real queue."""

from __future__ import annotations

import asyncio
import json
import math
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import httpx
import pytest
from starlette.requests import HTTPConnection

from access.principal import Principal, RateLimits
from broker.factory import make_broker
from broker.port import Broker, Delivered
from broker.settings import BrokerSettings
from cli.http_app import build_app
from db.database import Database, connect
from ingest.main import IngestService
from ingest.settings import IngestSettings
from runtime.clock import ManualClock, SystemClock
from runtime.telemetry import REGISTRY
from schemas.frames import decode_lines, decompress
from schemas.scope import ALL_SERVICES
from tests.access_site import running, soon

KIB = 1024
SHOP: dict[str, Any] = {"service_name": "shop", "message": "paid"}


@dataclass
class Ingest:
    """One ingest on a real queue, whose clock the test moves. Who sends is said in a header."""

    http: httpx.AsyncClient
    service: IngestService
    broker: Broker
    database: Database
    clock: ManualClock
    subjects: dict[str, RateLimits | None]

    async def post(self, subject: str, logs: Any, *, key: str | None = None) -> httpx.Response:
        """A batch; bytes and iterators are sent as they are."""
        content = logs if isinstance(logs, (bytes, AsyncIterator)) else json.dumps(logs).encode()
        headers = {"content-type": "application/json", "x-subject": subject}
        headers |= {} if key is None else {"idempotency-key": key}
        return await self.http.post("/api/v1/logs/batch", content=content, headers=headers)

    async def published(self) -> list[str]:
        """Messages of all frames."""
        reader = await self.broker.reader(group="test")
        try:
            partitions = range(self.broker.partitions)
            first, end = await reader.first_offsets(partitions), await reader.end_offsets(partitions)
            await reader.seek(first)
            records: list[Delivered] = []
            async with asyncio.timeout(20):
                while len(records) < sum(end[p] - first[p] for p in partitions):
                    records += await reader.poll(max_bytes=16 * KIB * KIB, wait_ms=100)
            return [line.message for record in records for line in decode_lines(decompress(record.value))]
        finally:
            await reader.close()


@asynccontextmanager
async def ingesting(url: str, **settings: Any) -> AsyncIterator[Ingest]:
    database = Database(url, application_name="limits test")
    await database.open()
    broker = make_broker(BrokerSettings(kind="queue", topic=f"t-{uuid.uuid4().hex}", partitions=2), database)
    await broker.open()
    clock = ManualClock(SystemClock().now_us())
    subjects: dict[str, RateLimits | None] = {}

    async def authenticate(connection: HTTPConnection) -> Principal:
        subject = connection.headers["x-subject"]
        return Principal(subject, ALL_SERVICES, ALL_SERVICES, rates=subjects.get(subject))

    service = IngestService(
        IngestSettings(**settings),
        broker=broker,
        database=database,
        instance="test",
        clock=clock,
        authenticate=authenticate,
    )
    await service.start()
    transport = httpx.ASGITransport(build_app([service]))
    async with httpx.AsyncClient(transport=transport, base_url="http://ingest", timeout=60) as http:
        await until(lambda: not service.ready())
        yield Ingest(http, service, broker, database, clock, subjects)
        await service.stop()
    assert service.in_flight.bytes == 0
    await broker.close()
    await database.close()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110  # conditions of several parts
            await asyncio.sleep(0.01)


def limited(response: httpx.Response) -> int:
    """Retry-After of a refusal by a rate."""
    assert response.status_code == 429, response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["type"] == "urn:logfeed:problem:rate-limited"
    return int(response.headers["retry-after"])


def counted(limit: str) -> float:
    return REGISTRY.get_sample_value("logfeed_ingest_rate_limited_total", {"limit": limit}) or 0.0


# --- rates --------------------------------------------------------------------------------------------------------


async def test_a_key_over_its_rate_is_refused_whole_and_let_in_when_it_was_told(native_url: str) -> None:
    async with ingesting(native_url) as ingest:
        ingest.subjects["noisy"] = RateLimits(logs_per_s=10.0)
        assert (await ingest.post("noisy", [SHOP] * 30)).status_code == 201
        before = counted("key_logs")
        wait_s = limited(await ingest.post("noisy", [{**SHOP, "message": "refused"}] * 2))
        assert wait_s == 3, "20 are owed, and one must be there"
        assert counted("key_logs") == before + 1
        assert (await ingest.post("quiet", [SHOP] * 100)).status_code == 201
        ingest.clock.advance(wait_s - 1.5)
        limited(await ingest.post("noisy", [SHOP]))
        ingest.clock.advance(1.5)
        assert (await ingest.post("noisy", [SHOP])).status_code == 201
        assert "refused" not in await ingest.published()
        assert len(await ingest.published()) == 30 + 100 + 1


async def test_who_owes_is_refused_before_the_body_is_read(native_url: str) -> None:
    async with ingesting(native_url, key_rate={"bytes_per_s": 1_000}) as ingest:
        assert (await ingest.post("a", [{**SHOP, "message": "x" * 5_000}])).status_code == 201
        asked = False

        async def body() -> AsyncIterator[bytes]:
            nonlocal asked
            asked = True
            yield b"["

        assert limited(await ingest.post("a", body())) in (4, 5)
        assert not asked


async def test_of_many_at_once_only_as_many_are_let_in_as_the_rate_allows(native_url: str) -> None:
    """All of them see a token before any has taken it."""
    async with ingesting(native_url, key_rate={"logs_per_s": 10}) as ingest:
        answers = await asyncio.gather(*(ingest.post("a", [SHOP] * 4) for _ in range(20)))
        assert sorted(answer.status_code for answer in answers) == [201] * 3 + [429] * 17
        assert len(await ingest.published()) == 12


async def test_a_keyed_request_is_stored_once_however_often_it_is_limited(native_url: str) -> None:
    async with ingesting(native_url, key_rate={"logs_per_s": 10}) as ingest:
        first = await ingest.post("a", [SHOP] * 10, key="first")
        assert first.status_code == 201
        late = [{**SHOP, "message": "late"}] * 25
        for _ in range(3):
            wait_s = limited(await ingest.post("a", late, key="late"))
        assert await ingest.database.fetch_all("SELECT count(*) FROM id_reservations") == [(1,)]
        ingest.clock.advance(wait_s)
        accepted = await ingest.post("a", late, key="late")
        assert accepted.status_code == 201
        again_s = limited(await ingest.post("a", late, key="late"))
        ingest.clock.advance(again_s)
        for _ in range(3):
            again = await ingest.post("a", late, key="late")
            assert (again.status_code, again.content) == (201, accepted.content), "retries are not charged again"
        # Copies of one key are stored once: the writer's part, by the key in their headers.
        assert (await ingest.published()).count("late") == 4 * 25


async def test_a_service_over_its_rate_is_refused_with_all_its_request_and_takes_no_tokens(native_url: str) -> None:
    rates = {"logs_per_second": 100, "services": {"noisy": {"logs_per_second": 10}, "pay/*": {"logs_per_second": 20}}}
    async with ingesting(native_url, service_rates=rates, key_rate={"logs_per_s": 1_000}) as ingest:
        noisy = {**SHOP, "service_name": "noisy"}
        assert (await ingest.post("a", [noisy] * 10)).status_code == 201
        before = counted("service_rates")
        for _ in range(200):
            assert limited(await ingest.post("a", [SHOP] * 50 + [noisy])) == 1
        assert counted("service_rates") == before + 200
        assert (await ingest.post("a", [SHOP] * 100)).status_code == 201, "neither the key nor the service was charged"
        limited(await ingest.post("a", [SHOP]))
        assert (await ingest.post("a", [{**SHOP, "service_name": "pay/a"}] * 20)).status_code == 201
        limited(await ingest.post("a", [{**SHOP, "service_name": "pay/a"}]))


async def test_a_keys_rate_comes_with_the_key_and_changes_with_it(native_url: str) -> None:
    async with running(native_url) as site:
        slow = await site.key("write:*", rates=RateLimits(logs_per_s=0.001))
        free = await site.key("write:*", rates=RateLimits(logs_per_s=math.inf, bytes_per_s=math.inf))
        plain = await site.key("write:*")
        for key, second in ((slow, 429), (free, 201), (plain, 201)):
            for status in (201, second):
                answer = await site.ask(key.text, "POST", "/api/v1/logs", json=SHOP)
                assert answer.status_code == status, answer.text
        await site.database.execute("UPDATE api_keys SET logs_per_s = NULL WHERE prefix = %s", (slow.prefix,))

        async def is_let_in() -> bool:
            return (await site.ask(slow.text, "POST", "/api/v1/logs", json=SHOP)).status_code == 201

        await soon(is_let_in, "it has no limit any more")


# --- shares -------------------------------------------------------------------------------------------------------


async def test_a_key_that_fills_the_room_keeps_no_other_out_while_the_broker_is_held_back(native_url: str) -> None:
    async with ingesting(native_url, in_flight_bytes_max=KIB * KIB, body_bytes_max=256 * KIB) as ingest:
        big = json.dumps([{**SHOP, "message": "x" * 50_000}]).encode()
        statuses: list[int] = []
        is_over = False

        async def flood() -> None:
            while not is_over:
                statuses.append((await ingest.post("noisy", big)).status_code)
                await asyncio.sleep(0)

        async with await connect(native_url, application_name="holds the queue back") as hand:
            await hand.execute("BEGIN")
            await hand.execute("LOCK TABLE queue_partitions IN ACCESS EXCLUSIVE MODE")
            flooding = [asyncio.create_task(flood()) for _ in range(30)]
            await until(lambda: statuses.count(503) > 30)
            assert 201 not in statuses
            held = ingest.service.in_flight.bytes
            assert 400 * KIB < held <= 512 * KIB, "half of it"
            quiet = [asyncio.create_task(ingest.post("quiet", [SHOP])) for _ in range(5)]
            await until(lambda: ingest.service.in_flight.bytes > held)
            await hand.execute("ROLLBACK")
            assert [answer.status_code for answer in await asyncio.gather(*quiet)] == [201] * 5
            assert not any(task.done() for task in flooding), "the flood goes on"
        is_over = True
        await asyncio.gather(*flooding)
        assert statuses.count(201) > 0
        assert (await ingest.published()).count("paid") == 5


async def test_one_who_asks_slow_questions_without_end_keeps_no_other_waiting(native_url: str) -> None:
    """They meet a table of hours to come that somebody has locked. The other's page is answered while none of them is."""
    async with running(native_url, audit=False, query={"scan_budget_ms": 30_000}) as site:
        await site.put([{"service_name": "shop", "message": "here"}])
        greedy, modest = await site.key("read:*"), await site.key("read:*")
        rows = await site.database.fetch_all(
            "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'logs'::regclass ORDER BY 1"
        )
        *_, (locked,) = rows
        [(closed_before,)] = await site.database.fetch_all("SELECT closed_before FROM border")
        start = closed_before + timedelta(hours=12)
        slow = {
            "start_time": start.isoformat(),
            "end_time": (start + timedelta(hours=1)).isoformat(),
            "query": "nowhere",
        }

        async def ask(number: int) -> httpx.Response:
            return await site.ask(greedy.text, "GET", "/api/v1/logs", params={**slow, "limit": number + 1})

        async with await connect(native_url, application_name="locks") as hand:
            await hand.execute("BEGIN")
            await hand.execute(f"LOCK TABLE {locked} IN ACCESS EXCLUSIVE MODE".encode())
            asking = [asyncio.create_task(ask(number)) for number in range(30)]

            async def all_places_taken() -> bool:
                found = await hand.execute("SELECT count(*) FROM pg_locks WHERE NOT granted")
                row = await found.fetchone()
                assert row is not None
                return int(row[0]) >= 4

            await soon(all_places_taken, "the greedy one's questions are being answered")
            page = await site.ask(modest.text, "GET", "/api/v1/logs?start_time=-10m&end_time=-1s")
            assert [log["message"] for log in page.json()["logs"]] == ["here"]
            assert (await site.ask(modest.text, "GET", "/api/v1/services")).status_code == 200
            assert not any(task.done() for task in asking[:4]), "they are still being answered"
            await hand.execute("ROLLBACK")
        answers = await asyncio.gather(*asking)
        assert {answer.status_code for answer in answers} <= {200, 429, 503}
        assert [answer.status_code for answer in answers[:4]] == [200] * 4


async def test_questions_past_a_subjects_own_bounds_are_told_so(native_url: str) -> None:
    async with running(native_url, audit=False, query={"scan_budget_ms": 30_000}) as site:
        key = await site.key("read:*")
        async with await connect(native_url, application_name="locks") as hand:
            await hand.execute("BEGIN")
            await hand.execute("LOCK TABLE logs IN ACCESS EXCLUSIVE MODE")
            asking = [
                asyncio.create_task(site.ask(key.text, "GET", f"/api/v1/logs?limit={number + 1}"))
                for number in range(60)
            ]
            done, _ = await asyncio.wait(asking, return_when=asyncio.FIRST_COMPLETED, timeout=30)
            answer = (await asyncio.gather(*done))[0]
            await hand.execute("ROLLBACK")
        assert answer.status_code == 429
        assert answer.json()["type"] == "urn:logfeed:problem:too-many-questions"
        assert int(answer.headers["retry-after"]) >= 1
        statuses = [answer.status_code for answer in await asyncio.gather(*asking)]
        assert statuses.count(200) >= 4
        assert set(statuses) <= {200, 429}


@pytest.mark.parametrize(
    "rates", [RateLimits(logs_per_s=0.0), RateLimits(bytes_per_s=math.nan), RateLimits(burst_s=0.0)]
)
async def test_a_rate_that_means_nothing_is_not_stored(native_url: str, rates: RateLimits) -> None:
    async with running(native_url) as site:
        with pytest.raises(Exception, match="check"):
            await site.key("write:*", rates=rates)
        assert await site.accounts.keys() == []
