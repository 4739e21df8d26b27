"""The ingestion API on the real queue: what is answered, and what lies in the frames afterwards."""

from __future__ import annotations

import asyncio
import gzip
import json
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
import zstandard
from fastapi import FastAPI
from starlette.requests import HTTPConnection

from access.principal import Principal
from broker.factory import make_broker
from broker.port import Broker, Delivered, Producer, Record
from broker.settings import BrokerSettings
from cli.http_app import build_app
from db.database import Database
from db.migrations import Layout, migrate
from ingest import openapi, problems
from ingest.main import IngestService
from ingest.settings import IngestSettings
from runtime.clock import ManualClock, SystemClock
from schemas.errors import BrokerUnavailable
from schemas.frames import FrameHeader, decode_headers, decode_lines, decompress, metadata_of
from schemas.ids import received_ms
from schemas.record import LogLine
from schemas.scope import ALL_SERVICES, ServiceScope

SHOP = {"service_name": "shop", "message": "paid", "level": "ERROR"}
MiB = 1024 * 1024


@dataclass
class Edge:
    """One running service and what it has written."""

    http: httpx.AsyncClient
    app: FastAPI
    service: IngestService
    broker: Broker
    database: Database
    clock: ManualClock

    async def post(self, path: str, body: Any, **options: Any) -> httpx.Response:
        """POST JSON, or bytes as they are."""
        content = body if isinstance(body, (bytes, AsyncIterator)) else json.dumps(body).encode()
        headers = {"content-type": "application/json", **options.pop("headers", {})}
        return await self.http.post(path, content=content, headers=headers, **options)

    async def records(self) -> list[Delivered]:
        """Every record of the topic."""
        reader = await self.broker.reader(group="test")
        try:
            partitions = range(self.broker.partitions)
            first, end = await reader.first_offsets(partitions), await reader.end_offsets(partitions)
            await reader.seek(first)
            found: list[Delivered] = []
            async with asyncio.timeout(20):
                while len(found) < sum(end[p] - first[p] for p in partitions):
                    found.extend(await reader.poll(max_bytes=MiB, wait_ms=100))
            return found
        finally:
            await reader.close()

    def log_in(self, principal: Principal) -> None:
        """Whose the following requests are."""

        async def authenticate(_: HTTPConnection) -> Principal:
            return principal

        self.service.authenticate = authenticate

    async def frames(self) -> list[tuple[FrameHeader, list[LogLine]]]:
        """Every frame of the topic, decoded."""
        return [
            (decode_headers(record.headers), decode_lines(decompress(record.value))) for record in await self.records()
        ]

    async def lines(self) -> list[LogLine]:
        """Every line of every frame."""
        return [line for _, lines in await self.frames() for line in lines]


MakeEdge = Callable[..., Any]


@pytest.fixture(scope="module")
def migrated_url(postgres_url: str) -> str:
    """One migrated database for the module; each test has a topic of its own."""
    asyncio.run(migrate(postgres_url, Layout.NATIVE))
    return postgres_url


@pytest.fixture
async def database(migrated_url: str) -> AsyncIterator[Database]:
    """Its pool, with no keys reserved."""
    database = Database(migrated_url, application_name="test")
    await database.open()
    await database.execute("TRUNCATE id_reservations, worker_ids")
    yield database
    await database.close()


async def new_broker(database: Database) -> Broker:
    """The real queue, with a new topic."""
    broker = make_broker(BrokerSettings(kind="queue", topic=f"t-{uuid.uuid4().hex}", partitions=3), database)
    await broker.open()
    return broker


@pytest.fixture
async def make_edge(database: Database) -> AsyncIterator[MakeEdge]:
    """Starts services on one database; stops them at the end."""
    edges: list[Edge] = []

    async def make(*, broker: Broker | None = None, offset_s: int = 0, is_ready: bool = True, **settings: Any) -> Edge:
        broker = broker or await new_broker(database)
        clock = ManualClock(SystemClock().now_us() + offset_s * 1_000_000)
        service = IngestService(
            IngestSettings(**settings), broker=broker, database=database, instance="test", clock=clock
        )
        await service.start()
        app = build_app([service])
        http = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://ingest")
        edge = Edge(http, app, service, broker, database, clock)
        edges.append(edge)
        async with asyncio.timeout(10):
            while is_ready and service.ready():  # noqa: ASYNC110  # readiness is asked for
                await asyncio.sleep(0.01)
        return edge

    yield make
    for edge in edges:
        await edge.http.aclose()
        await edge.service.stop()
        assert edge.service.in_flight.bytes == 0
        await edge.broker.close()


@pytest.fixture
async def edge(make_edge: MakeEdge) -> Edge:
    """A service without filters."""
    made: Edge = await make_edge()
    return made


def problem(response: httpx.Response, status: int, slug: str) -> dict[str, Any]:
    """The problem of a response, checked for its shape."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    document: dict[str, Any] = response.json()
    assert document["status"] == status
    assert document["type"] == f"urn:logfeed:problem:{slug}"
    assert document["title"]
    assert document["detail"]
    assert ("retry-after" in response.headers) is (status in (429, 503))
    return document


# --- one log ------------------------------------------------------------------------------------------------------


async def test_one_log_is_answered_with_its_id_and_lies_in_a_frame(edge: Edge) -> None:
    response = await edge.post("/api/v1/logs", {**SHOP, "metadata": {"experiment_id": "e1", "big": 2**70}})
    assert response.status_code == 201
    log_id = response.json()["log_id"]
    assert isinstance(log_id, str)
    assert response.headers["location"] == f"/api/v1/logs/{log_id}"
    ((header, (line,)),) = await edge.frames()
    assert str(line.id) == log_id
    assert (line.service_name, line.message, line.level, line.correlation_id) == ("shop", "paid", 17, "e1")
    assert metadata_of(line) == {"experiment_id": "e1", "big": 2**70}
    assert line.timestamp == received_ms(line.id) * 1000 == header.received_ms * 1000
    assert header.key_hash is None
    assert header.counts["shop"].received == header.counts["shop"].kept == 1


async def test_invalid_log_names_every_field(edge: Edge) -> None:
    response = await edge.post("/api/v1/logs", {"service_name": "a b", "level": "loud", "mesage": "x"})
    errors = {each["field"]: each["message"] for each in problem(response, 422, "invalid-fields")["errors"]}
    assert errors.keys() == {"service_name", "level", "message", "mesage"}
    assert "did you mean 'message'?" in errors["mesage"]


@pytest.mark.parametrize(
    ("body", "advice"),
    [
        (b"", "body: is empty: send one log as a JSON object"),
        (b" \n", "body: is empty: send one log as a JSON object"),
        (b"[" + json.dumps(SHOP).encode() + b"]", "got an array; several logs go to /api/v1/logs/batch"),
        (json.dumps(SHOP).encode() * 2, "body: not valid JSON"),
        (b"17", "body: expected a JSON object, got a number"),
    ],
)
async def test_body_that_is_no_log_is_refused_with_advice(edge: Edge, body: bytes, advice: str) -> None:
    document = problem(await edge.post("/api/v1/logs", body), 422, "invalid-fields")
    assert advice in document["detail"]
    assert document["errors"][0]["field"] == "body"


async def test_filtered_log_is_answered_with_the_filters_name(make_edge: MakeEdge) -> None:
    edge: Edge = await make_edge(filters=[{"type": "level", "name": "no-debug", "minimum": "INFO"}])
    response = await edge.post("/api/v1/logs", {**SHOP, "level": "debug"})
    assert response.status_code == 200
    assert response.json() == {"log_id": None, "filtered_by": "no-debug"}


async def test_limit_that_refuses_answers_429(make_edge: MakeEdge) -> None:
    limit = {"type": "rate_limit", "name": "slow", "logs_per_second": 0.5, "burst": 1, "on_exceed": "refuse"}
    edge: Edge = await make_edge(filters=[limit])
    assert (await edge.post("/api/v1/logs", SHOP)).status_code == 201
    response = await edge.post("/api/v1/logs", SHOP)
    problem(response, 429, "rate-limited")
    assert int(response.headers["retry-after"]) == 2
    edge.clock.advance(2)
    assert (await edge.post("/api/v1/logs", SHOP)).status_code == 201


# --- batches ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["array", "lines"])
@pytest.mark.parametrize("encoding", ["identity", "gzip", "zstd"])
async def test_batch_in_every_form_and_packing(edge: Edge, form: str, encoding: str) -> None:
    logs = [{**SHOP, "message": f"é {n}"} for n in range(50)]
    text = json.dumps(logs) if form == "array" else "\r\n".join(map(json.dumps, logs))
    packers: dict[str, Callable[[bytes], bytes]] = {
        "identity": bytes,
        "gzip": gzip.compress,
        "zstd": zstandard.compress,
    }
    packed = packers[encoding](text.encode())
    headers = {"content-type": "application/x-ndjson", "content-encoding": encoding}
    response = await edge.post("/api/v1/logs/batch", packed, headers=headers)
    assert response.status_code == 201, response.text
    answer = response.json()
    lines = await edge.lines()
    assert [line.message for line in lines] == [f"é {n}" for n in range(50)]
    assert (answer["accepted"], answer["filtered"], answer["rejected"]) == (50, {}, [])
    assert (answer["first_id"], answer["last_id"]) == (str(lines[0].id), str(lines[-1].id))
    assert "ids" not in answer


async def test_bad_items_are_named_and_the_rest_is_kept(make_edge: MakeEdge) -> None:
    edge: Edge = await make_edge(filters=[{"type": "level", "name": "no-debug", "minimum": "INFO"}])
    logs: list[Any] = [SHOP] * 1000
    logs[3], logs[5], logs[7] = {**SHOP, "timestamp": 0}, 17, {**SHOP, "level": "DEBUG"}
    response = await edge.post("/api/v1/logs/batch?return_ids=true", logs)
    assert response.status_code == 201
    answer = response.json()
    assert (answer["accepted"], answer["filtered"], answer["rejected_count"]) == (997, {"no-debug": 1}, 2)
    assert [(each["index"], each["code"]) for each in answer["rejected"]] == [(3, "timestamp"), (5, "json")]
    assert [n for n, each in enumerate(answer["ids"]) if each is None] == [3, 5, 7]
    ((header, lines),) = await edge.frames()
    assert [each for each in answer["ids"] if each] == [str(line.id) for line in lines]
    shop, unreadable = header.counts["shop"], header.counts[""]
    assert (shop.received, shop.kept, shop.filtered, shop.rejected) == (999, 997, {"no-debug": 1}, {"timestamp": 1})
    assert (unreadable.received, unreadable.kept, unreadable.rejected) == (1, 0, {"json": 1})


async def test_ten_thousand_logs_at_once_have_different_ids(edge: Edge) -> None:
    body = b"\n".join([json.dumps(SHOP).encode()] * 10_000)
    response = await edge.post("/api/v1/logs/batch", body)
    assert response.json()["accepted"] == 10_000
    ids = [line.id for line in await edge.lines()]
    assert len(set(ids)) == 10_000
    assert ids == sorted(ids)
    problem(await edge.post("/api/v1/logs/batch", body + b"\n" + json.dumps(SHOP).encode()), 413, "body-too-large")


async def test_batches_without_anything_to_keep_are_told_and_counted(make_edge: MakeEdge) -> None:
    edge: Edge = await make_edge(
        filters=[{"type": "level", "name": "no-debug", "minimum": "INFO"}], counts_flush_s=0.01
    )
    filtered = await edge.post("/api/v1/logs/batch", [{**SHOP, "level": "DEBUG"}] * 2)
    assert filtered.status_code == 200
    assert filtered.json()["accepted"] == 0
    assert filtered.json()["first_id"] is None
    document = problem(await edge.post("/api/v1/logs/batch", [{}, {**SHOP, "level": 99}]), 422, "nothing-accepted")
    assert [each["index"] for each in document["rejected"]] == [0, 1]
    problem(await edge.post("/api/v1/logs/batch", []), 422, "invalid-fields")
    problem(await edge.post("/api/v1/logs/batch", b""), 422, "invalid-fields")

    async def booked() -> dict[str, tuple[int, int]]:
        totals: dict[str, tuple[int, int]] = {}
        for header, lines in await edge.frames():
            assert lines == []
            for name, count in header.counts.items():
                received, kept = totals.get(name, (0, 0))
                totals[name] = (received + count.received, kept + count.kept)
        return totals

    async with asyncio.timeout(10):
        while await booked() != {"shop": (3, 0), "": (1, 0)}:  # noqa: ASYNC110  # reads the broker
            await asyncio.sleep(0.02)


async def test_rejected_logs_of_many_services_never_stop_ingest(make_edge: MakeEdge) -> None:
    edge: Edge = await make_edge(counts_flush_s=0.01)

    async def bad(services: range) -> httpx.Response:
        return await edge.post("/api/v1/logs/batch", [{"service_name": f"s{n}", "message": 1} for n in services])

    problem(await bad(range(1001)), 413, "body-too-large")
    answers = await asyncio.gather(*(bad(range(n * 1000, (n + 1) * 1000)) for n in range(24)))
    statuses = [response.status_code for response in answers]
    assert set(statuses) <= {422, 503}
    assert (await edge.post("/api/v1/logs", SHOP)).status_code == 201
    await wait_for(lambda: not edge.service.ready())
    assert (await bad(range(1000))).status_code == 422
    await edge.service.stop()
    counts = [count for header, _ in await edge.frames() for name, count in header.counts.items() if name != "shop"]
    assert sum(count.received for count in counts) == 1000 * (statuses.count(422) + 1), "refused ones are not counted"


async def test_only_services_of_the_token_are_taken(edge: Edge) -> None:
    scope = ServiceScope(names=frozenset({"shop"}))
    edge.log_in(Principal("limited", scope, ALL_SERVICES))
    other = {**SHOP, "service_name": "other"}
    response = await edge.post("/api/v1/logs/batch", [SHOP, other])
    assert response.json()["accepted"] == 1
    assert response.json()["rejected"][0]["code"] == "not_permitted"
    problem(await edge.post("/api/v1/logs", other), 403, "not-permitted")
    problem(await edge.post("/api/v1/logs/batch", [other]), 403, "not-permitted")
    assert {line.service_name for line in await edge.lines()} == {"shop"}


# --- requests that are refused ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "headers", "body", "status", "slug"),
    [
        ("/api/v1/logs?pretty=1", {}, b"{}", 422, "invalid-fields"),
        ("/api/v1/logs/batch?return_id=true", {}, b"[]", 422, "invalid-fields"),
        ("/api/v1/logs/batch?return_ids=yes", {}, b"[]", 422, "invalid-fields"),
        ("/api/v1/logs", {"content-type": "application/x-www-form-urlencoded"}, b"{}", 415, "unsupported-body"),
        ("/api/v1/logs", {"content-type": "application/x-ndjson"}, b"{}", 415, "unsupported-body"),
        ("/api/v1/logs", {"content-type": "application/json; charset=utf-16"}, b"{}", 415, "unsupported-body"),
        ("/api/v1/logs/batch", {"content-type": "multipart/form-data"}, b"[]", 415, "unsupported-body"),
        ("/api/v1/logs/batch", {"content-encoding": "br"}, b"[]", 415, "unsupported-body"),
        ("/api/v1/logs/batch", {"content-encoding": "gzip"}, b"[]", 400, "malformed-body"),
        (
            "/api/v1/logs/batch",
            {"content-encoding": "gzip"},
            gzip.compress(bytes(9 * MiB), mtime=0),
            413,
            "body-too-large",
        ),
        ("/api/v1/logs/batch", {"content-encoding": "zstd"}, zstandard.compress(bytes(9 * MiB)), 413, "body-too-large"),
        ("/api/v1/logs/batch", {}, bytes(8 * MiB + 1), 413, "body-too-large"),
        ("/api/v1/logs/batch", {}, b'[{"service_name":"a"', 400, "malformed-body"),
        ("/api/v1/logs", {}, b"not json", 422, "invalid-fields"),
        ("/api/v1/logs", {"idempotency-key": "k" * 256}, json.dumps(SHOP).encode(), 422, "invalid-fields"),
    ],
    ids=lambda value: str(value)[:40],
)
async def test_refusals_are_problems(
    edge: Edge, path: str, headers: dict[str, str], body: bytes, status: int, slug: str
) -> None:
    document = problem(await edge.post(path, body, headers=headers), status, slug)
    if "return_id=" in path:
        assert "did you mean 'return_ids'?" in document["errors"][0]["message"]
    assert await edge.records() == []


async def test_body_without_length_is_bounded_and_slow_one_is_ended(make_edge: MakeEdge) -> None:
    bounded: Edge = await make_edge(body_bytes_max=100_000)
    impatient: Edge = await make_edge(body_deadline_s=0.1)

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b" " * 10_000
            await asyncio.sleep(0)

    async def slow() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.Event().wait()

    problem(await bounded.post("/api/v1/logs", endless()), 413, "body-too-large")
    problem(await impatient.post("/api/v1/logs", slow()), 408, "body-too-slow")


ATTACKS = (
    "'; DROP TABLE queue_0; --",
    "\\'; DELETE FROM id_reservations; --",
    "%s %(x)s {} {0} %%",
    "$1 $$x$$ 1) OR (1=1",
)


@pytest.mark.parametrize("attack", ATTACKS)
async def test_sql_in_every_field_and_header_is_only_text(edge: Edge, attack: str) -> None:
    log = {**SHOP, "message": attack, "correlation_id": attack, "metadata": {attack: attack}}
    for _ in range(2):
        response = await edge.post("/api/v1/logs", log, headers={"idempotency-key": attack})
        assert response.status_code == 201, response.text
    assert {(line.message, line.correlation_id) for line in await edge.lines()} == {(attack, attack)}
    assert [metadata_of(line) for line in await edge.lines()] == [{attack: attack}] * 2
    for refused in ({**log, "service_name": attack}, {**log, "timestamp": attack}, {**log, "level": attack}):
        problem(await edge.post("/api/v1/logs", refused), 422, "invalid-fields")
    problem(await edge.post("/api/v1/logs/batch", [log], params={"return_ids": attack}), 422, "invalid-fields")
    problem(await edge.post("/api/v1/logs/batch", [log], params={attack: attack}), 422, "invalid-fields")


async def test_record_larger_than_the_broker_takes_is_refused_before_it_is_sent(
    edge: Edge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ingest.receive.FRAME_BYTES_MAX", 2_000)
    incompressible = [{**SHOP, "message": uuid.uuid4().hex} for _ in range(200)]
    for options in ({}, {"headers": KEY}):
        problem(await edge.post("/api/v1/logs/batch", incompressible, **options), 413, "record-too-large")
    assert await edge.records() == []
    assert await edge.database.fetch_all("SELECT key_hash FROM id_reservations") == []
    assert (await edge.post("/api/v1/logs/batch", [SHOP], headers=KEY)).status_code == 201


# --- Idempotency-Key ----------------------------------------------------------------------------------------------

KEY = {"idempotency-key": "order-17"}


async def test_retry_with_the_same_key_gets_the_same_answer_and_publishes_the_same_ids(make_edge: MakeEdge) -> None:
    filters = [
        {"type": "sampling", "name": "half", "rate": 0.5},
        {"type": "rate_limit", "name": "limit", "logs_per_second": 1, "burst": 1, "on_exceed": "drop"},
    ]
    edge: Edge = await make_edge(filters=filters)
    logs = [{**SHOP, "message": str(n)} for n in range(200)]
    first = await edge.post("/api/v1/logs/batch?return_ids=true", logs, headers=KEY)
    assert first.status_code == 201
    edge.clock.advance(0.2)
    packed = gzip.compress(json.dumps(logs).encode())
    second = await edge.post("/api/v1/logs/batch?return_ids=true", packed, headers={**KEY, "content-encoding": "gzip"})
    assert (second.status_code, second.content) == (first.status_code, first.content)
    (one, two) = await edge.records()
    assert one.value == two.value
    assert one.partition == two.partition
    headers = [decode_headers(record.headers) for record in (one, two)]
    assert headers[0].key_hash == headers[1].key_hash is not None
    assert headers[0].body_sha256 == headers[1].body_sha256 is not None
    assert headers[0].counts == headers[1].counts
    assert headers[0].frame_id != headers[1].frame_id
    problem(await edge.post("/api/v1/logs/batch", [SHOP], headers={"idempotency-key": "other"}), 429, "rate-limited")


async def test_retry_of_one_log_gets_the_same_id_from_another_process(make_edge: MakeEdge) -> None:
    one: Edge = await make_edge()
    two: Edge = await make_edge(broker=one.broker)
    first = await one.post("/api/v1/logs", SHOP, headers=KEY)
    second = await two.post("/api/v1/logs", SHOP, headers=KEY)
    assert first.json() == second.json()
    assert first.headers["location"] == second.headers["location"]
    assert len({line.id for line in await one.lines()}) == 1


async def test_same_key_with_another_body_or_route_is_refused(edge: Edge) -> None:
    assert (await edge.post("/api/v1/logs", SHOP, headers=KEY)).status_code == 201
    problem(await edge.post("/api/v1/logs", {**SHOP, "message": "x"}, headers=KEY), 422, "key-reused")
    problem(await edge.post("/api/v1/logs/batch", SHOP, headers=KEY), 422, "key-reused")
    assert len(await edge.lines()) == 1


async def test_two_principals_may_use_the_same_key(edge: Edge) -> None:
    assert (await edge.post("/api/v1/logs", SHOP, headers=KEY)).status_code == 201
    edge.log_in(Principal("other", ALL_SERVICES, ALL_SERVICES))
    assert (await edge.post("/api/v1/logs", {**SHOP, "message": "x"}, headers=KEY)).status_code == 201
    assert len({header.key_hash for header, _ in await edge.frames()}) == 2


async def test_concurrent_requests_with_one_key_get_one_id(edge: Edge) -> None:
    responses = await asyncio.gather(*(edge.post("/api/v1/logs", SHOP, headers=KEY) for _ in range(8)))
    assert {response.status_code for response in responses} == {201}
    assert len({response.json()["log_id"] for response in responses}) == 1
    assert len({line.id for line in await edge.lines()}) == 1


async def test_refused_keyed_request_reserves_nothing(make_edge: MakeEdge) -> None:
    limit = {"type": "rate_limit", "name": "slow", "logs_per_second": 1, "burst": 1, "on_exceed": "drop"}
    edge: Edge = await make_edge(filters=[limit])
    assert (await edge.post("/api/v1/logs", SHOP)).status_code == 201
    problem(await edge.post("/api/v1/logs", SHOP, headers=KEY), 429, "rate-limited")
    problem(await edge.post("/api/v1/logs", {**SHOP, "level": 99}, headers=KEY), 422, "invalid-fields")
    assert await edge.database.fetch_all("SELECT key_hash FROM id_reservations") == []
    edge.clock.advance(1)
    assert (await edge.post("/api/v1/logs", SHOP, headers=KEY)).status_code == 201


async def test_lost_reservations_do_not_stop_keyed_requests(edge: Edge) -> None:
    assert (await edge.post("/api/v1/logs", SHOP, headers=KEY)).status_code == 201
    await edge.database.execute("TRUNCATE id_reservations")
    assert (await edge.post("/api/v1/logs", SHOP, headers=KEY)).status_code == 201
    async with edge.database.transaction() as connection:
        await connection.execute("LOCK TABLE id_reservations IN ACCESS EXCLUSIVE MODE")
        assert (await edge.post("/api/v1/logs", SHOP, headers=KEY)).status_code == 201
    headers = [header for header, _ in await edge.frames()]
    assert len(headers) == 3
    assert len({header.key_hash for header in headers}) == 1
    assert len({header.body_sha256 for header in headers}) == 1


# --- broker -------------------------------------------------------------------------------------------------------


class Interrupted:
    """The real broker behind a switch."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self.away = False
        self.risk: float | None = None
        self.hold = asyncio.Event()
        self.hold.set()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._broker, name)

    async def producer(self) -> Producer:
        if self.away:
            raise BrokerUnavailable("gone", retry_after_s=3)
        return InterruptedProducer(self, await self._broker.producer())

    async def retention_risk(self, group: str) -> float:
        if self.away:
            raise BrokerUnavailable("gone", retry_after_s=3)
        return await self._broker.retention_risk(group) if self.risk is None else self.risk


class InterruptedProducer:
    """Its producer."""

    def __init__(self, broker: Interrupted, producer: Producer) -> None:
        self._broker = broker
        self._producer = producer

    @property
    def bytes_in_flight(self) -> int:
        return self._producer.bytes_in_flight

    async def publish(self, record: Record, *, partition_key: bytes | None) -> tuple[int, int]:
        await self._broker.hold.wait()
        if self._broker.away:
            raise BrokerUnavailable("gone", retry_after_s=3)
        return await self._producer.publish(record, partition_key=partition_key)

    async def close(self) -> None:
        await self._producer.close()


@pytest.fixture
async def interrupted(make_edge: MakeEdge, database: Database) -> AsyncIterator[tuple[Edge, Interrupted]]:
    """A service on a broker that can go away."""
    broker = Interrupted(await new_broker(database))
    edge = await make_edge(broker=broker, retention_poll_s=0.02, in_flight_bytes_max=MiB, body_bytes_max=MiB // 2)
    yield edge, broker
    broker.away = False
    broker.hold.set()


async def wait_for(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110  # a condition of several parts
            await asyncio.sleep(0.01)


async def test_broker_away_is_503_and_not_ready_and_works_again_on_return(
    interrupted: tuple[Edge, Interrupted],
) -> None:
    edge, broker = interrupted
    broker.away = True
    response = await edge.post("/api/v1/logs", SHOP, headers=KEY)
    problem(response, 503, "unavailable")
    assert response.headers["retry-after"] == "3"
    assert edge.service.ready() == ["gone"]
    broker.away = False
    await wait_for(lambda: not edge.service.ready())
    assert (await edge.post("/api/v1/logs", SHOP, headers=KEY)).status_code == 201
    assert len(await edge.lines()) == 1


async def test_unstored_logs_close_to_deletion_are_503(interrupted: tuple[Edge, Interrupted]) -> None:
    edge, broker = interrupted
    broker.risk = 0.8
    await wait_for(lambda: bool(edge.service.ready()))
    problem(await edge.post("/api/v1/logs", SHOP), 503, "retention-at-risk")
    broker.risk = 0.1
    await wait_for(lambda: not edge.service.ready())
    assert (await edge.post("/api/v1/logs", SHOP)).status_code == 201


async def test_bytes_under_way_are_bounded_and_given_back(interrupted: tuple[Edge, Interrupted]) -> None:
    edge, broker = interrupted
    broker.hold.clear()
    body = [{**SHOP, "message": "x" * 120_000}] * 2
    waiting = [asyncio.create_task(edge.post("/api/v1/logs/batch", body)) for _ in range(2)]
    await wait_for(lambda: edge.service.in_flight.bytes > 480_000)
    problem(await edge.post("/api/v1/logs/batch", body), 503, "unavailable")
    broker.hold.set()
    assert [response.status_code for response in await asyncio.gather(*waiting)] == [201, 201]
    assert edge.service.in_flight.bytes == 0
    assert len(await edge.lines()) == 4


async def test_send_goes_on_when_the_client_goes_away(interrupted: tuple[Edge, Interrupted]) -> None:
    edge, broker = interrupted
    broker.hold.clear()
    request = asyncio.create_task(edge.post("/api/v1/logs", SHOP))
    await wait_for(lambda: edge.service.in_flight.bytes > 0)
    request.cancel()
    await asyncio.wait([request])
    assert request.cancelled()
    assert edge.service.in_flight.bytes > 0
    broker.hold.set()
    await wait_for(lambda: edge.service.in_flight.bytes == 0)
    assert len(await edge.lines()) == 1


async def test_stop_waits_for_requests_under_way_and_refuses_new_ones(interrupted: tuple[Edge, Interrupted]) -> None:
    edge, broker = interrupted
    broker.hold.clear()
    request = asyncio.create_task(edge.post("/api/v1/logs", SHOP))
    await wait_for(lambda: edge.service.in_flight.bytes > 0)
    stopping = asyncio.create_task(edge.service.stop())
    await wait_for(lambda: "ingest is stopping" in edge.service.ready())
    problem(await edge.post("/api/v1/logs", SHOP), 503, "unavailable")
    assert not stopping.done()
    broker.hold.set()
    assert (await request).status_code == 201
    await stopping
    rows = await edge.database.fetch_all("SELECT lease_until <= clock_timestamp() FROM worker_ids")
    assert rows == [(True,)]


# --- clocks -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step_s", [-3600, 365 * 86_400])
async def test_clock_that_jumps_is_503_and_no_id_is_given_twice(edge: Edge, step_s: int) -> None:
    first = (await edge.post("/api/v1/logs", SHOP)).json()["log_id"]
    edge.clock.wall_us += step_s * 1_000_000
    assert any("the clock" in each for each in edge.service.ready())
    problem(await edge.post("/api/v1/logs", SHOP), 503, "unavailable")
    edge.clock.wall_us -= step_s * 1_000_000
    assert int((await edge.post("/api/v1/logs", SHOP)).json()["log_id"]) > int(first)


@pytest.mark.parametrize("offset_s", [-400, 400])
async def test_start_with_a_wrong_clock_waits_says_so_and_gives_ids_once_it_is_right(
    make_edge: MakeEdge, database: Database, monkeypatch: pytest.MonkeyPatch, offset_s: int
) -> None:
    monkeypatch.setattr("db.worker_ids.RETRY_S", 0.01)
    other: Edge = await make_edge()
    ids = {(await other.post("/api/v1/logs", SHOP)).json()["log_id"] for _ in range(5)}
    edge: Edge = await make_edge(offset_s=offset_s, is_ready=False)
    await wait_for(lambda: any("correct the clock" in each for each in edge.service.ready()))
    assert (await edge.http.get("/readyz")).status_code == 503
    assert "correct the clock" in problem(await edge.post("/api/v1/logs", SHOP), 503, "unavailable")["detail"]
    edge.clock.wall_us -= offset_s * 1_000_000
    await wait_for(lambda: not edge.service.ready())
    ids |= {(await edge.post("/api/v1/logs", SHOP)).json()["log_id"] for _ in range(5)}
    assert len(ids) == 10


@pytest.mark.parametrize("step_ms", [5, 5_000])
async def test_small_step_back_is_ridden_out(edge: Edge, step_ms: int) -> None:
    first = (await edge.post("/api/v1/logs", SHOP)).json()["log_id"]
    edge.clock.wall_us -= step_ms * 1000
    assert int((await edge.post("/api/v1/logs", SHOP)).json()["log_id"]) > int(first)


# --- documentation ------------------------------------------------------------------------------------------------


async def test_openapi_document_shows_models_statuses_and_examples(edge: Edge) -> None:
    document = edge.app.openapi()
    for path, ok in (("/api/v1/logs", "LogAnswer"), ("/api/v1/logs/batch", "BatchAnswer")):
        operation = document["paths"][path]["post"]
        assert {"200", "201", "400", "413", "415", "422", "429", "503"} <= operation["responses"].keys()
        schema = operation["responses"]["201"]["content"]["application/json"]["schema"]
        assert schema == {"$ref": f"#/components/schemas/{ok}"}
        assert "Retry-After" in operation["responses"]["503"]["headers"]
        assert list(operation["responses"]["422"]["content"]) == ["application/problem+json"]
        assert "errors" in operation["responses"]["422"]["content"]["application/problem+json"]["schema"]["properties"]
        assert "Idempotency-Key" in [each["name"] for each in operation["parameters"]]
        assert "example" in operation["requestBody"]["content"]["application/json"]
        getattr(openapi, ok).model_validate(operation["responses"]["201"]["content"]["application/json"]["example"])
        for status in {"400", "403", "408", "413", "415", "422", "429", "503"}:
            example = operation["responses"][status]["content"]["application/problem+json"]["example"]
            openapi.Problem.model_validate(example)
            known = {(row[1], f"urn:logfeed:problem:{row[2]}", row[3]) for row in problems._TABLE}
            assert (int(status), example["type"], example["title"]) in known
            assert example["status"] == int(status)
    assert {"LogAnswer", "BatchAnswer", "RejectedItem"} <= document["components"]["schemas"].keys()


async def test_of_many_keys_at_once_each_repeated_one_gets_one_answer(edge: Edge) -> None:
    """Requests under way share statements: the repeated ones among them are still told apart."""

    def send(number: int, message: str) -> Awaitable[httpx.Response]:
        return edge.post("/api/v1/logs", {**SHOP, "message": message}, headers={"Idempotency-Key": f"k-{number}"})

    for round_number in range(3):
        first = round_number * 100
        sends = [send(first + number, "same") for number in range(40)]
        repeated = [send(first + number, "same") for number in range(0, 40, 2)]
        reused = [send(first + number, "other") for number in range(1, 40, 2)]
        answers = [response.json() for response in await asyncio.gather(*sends, *repeated, *reused)]
        for number in range(20):
            assert answers[2 * number]["log_id"] == answers[40 + number]["log_id"]
            both = [answers[2 * number + 1], answers[60 + number]]
            assert sorted("log_id" in answer for answer in both) == [False, True], "one body wins, the other is refused"
            assert next(answer for answer in both if "log_id" not in answer)["type"] == "urn:logfeed:problem:key-reused"
