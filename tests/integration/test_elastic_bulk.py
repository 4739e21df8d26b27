"""`_bulk` on the real queue: what is answered, and what lies in the frames afterwards."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from access.principal import Principal
from cli.http_app import build_app
from db.database import Database
from db.migrations import Layout, migrate
from ingest.main import IngestService
from ingest.settings import IngestSettings
from runtime.clock import ManualClock, SystemClock
from schemas.errors import BrokerUnavailable
from schemas.frames import metadata_of
from schemas.scope import NO_SERVICES, ServiceScope
from tests.integration.test_ingest_api import Edge, MakeEdge, new_broker

COMPACT = "filter_path=errors,items.*.error,items.*.status"
Json = dict[str, Any]


@pytest.fixture(scope="module")
def migrated_url(postgres_url: str) -> str:
    asyncio.run(migrate(postgres_url, Layout.NATIVE))
    return postgres_url


@pytest.fixture
async def database(migrated_url: str) -> AsyncIterator[Database]:
    database = Database(migrated_url, application_name="test")
    await database.open()
    await database.execute("TRUNCATE id_reservations, worker_ids")
    yield database
    await database.close()


@pytest.fixture
async def make_edge(database: Database) -> AsyncIterator[MakeEdge]:
    edges: list[Edge] = []

    async def make(**settings: Any) -> Edge:
        broker = await new_broker(database)
        clock = ManualClock(SystemClock().now_us())
        service = IngestService(
            IngestSettings(**settings), broker=broker, database=database, instance="test", clock=clock
        )
        await service.start()
        app = build_app([service])
        http = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://ingest")
        edges.append(Edge(http, app, service, broker, database, clock))
        async with asyncio.timeout(10):
            while service.ready():  # noqa: ASYNC110  # readiness is asked for
                await asyncio.sleep(0.01)
        return edges[-1]

    yield make
    for edge in edges:
        await edge.http.aclose()
        await edge.service.stop()
        assert edge.service.in_flight.bytes == 0
        await edge.broker.close()


@pytest.fixture
async def edge(make_edge: MakeEdge) -> Edge:
    made: Edge = await make_edge()
    return made


def now(seconds: float = 0) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()


def body_of(documents: Sequence[Json], ids: Sequence[str] | None = None, action: str = "create") -> bytes:
    heads = [{action: {"_index": "logs"} | ({} if ids is None else {"_id": ids[n]})} for n in range(len(documents))]
    return "".join(
        f"{json.dumps(head)}\n{json.dumps(each)}\n" for head, each in zip(heads, documents, strict=True)
    ).encode()


async def send(edge: Edge, body: bytes, path: str = "/_bulk", **headers: str) -> httpx.Response:
    return await edge.http.post(path, content=body, headers={"Content-Type": "application/x-ndjson", **headers})


def _writer(name: str, scope: ServiceScope) -> Principal:
    return Principal(f"key:{name}", may_write=scope, may_read=NO_SERVICES)


def statuses(answer: httpx.Response) -> list[int]:
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-elastic-product"] == "Elasticsearch"
    return [result["status"] for item in answer.json()["items"] for result in item.values()]


@pytest.mark.parametrize("path", ["/_bulk", "/elastic/_bulk", "/web/_bulk", "/elastic/web/_bulk"])
@pytest.mark.parametrize("method", ["POST", "PUT"])
async def test_documents_are_logs_on_every_path(edge: Edge, method: str, path: str) -> None:
    body = body_of([{"@timestamp": now(), "message": f"m{n}", "service": {"name": "shop"}} for n in range(3)])
    body += b'{"index":{}}\n{"message":"last","log.level":"error"}\n'
    answer = await edge.http.request(method, path, content=body)
    assert statuses(answer) == [201] * 4
    assert answer.json()["errors"] is False
    lines = await edge.lines()
    assert [line.message for line in lines] == ["m0", "m1", "m2", "last"]
    assert [line.service_name for line in lines] == ["shop"] * 3 + ["unknown_service"]
    assert lines[3].level == 17
    assert metadata_of(lines[3]) == ({"_index": "web"} if "web" in path else {})
    assert [item["create"]["_id"] for item in answer.json()["items"][:3]] == [str(line.id) for line in lines[:3]]


async def test_gzip_and_the_types_of_official_clients(edge: Edge) -> None:
    body = gzip.compress(body_of([{"message": "packed"}]))
    kind = "application/vnd.elasticsearch+x-ndjson; compatible-with=9"
    answer = await send(edge, body, **{"Content-Encoding": "gzip", "Content-Type": kind})
    assert statuses(answer) == [201]
    assert answer.headers["content-type"] == "application/json"


async def test_each_item_has_its_own_status_and_the_ledger_its_reason(make_edge: MakeEdge) -> None:
    edge: Edge = await make_edge(filters=[{"type": "level", "name": "no-debug", "minimum": "INFO"}])
    body = body_of([{"message": "kept", "app": "shop"}, {"message": "dropped", "level": "debug", "app": "shop"}])
    body += b'{"delete":{"_id":"1"}}\n{"create":{}}\n{"cut\n'
    body += body_of([{"message": "old", "@timestamp": "1999-01-01", "app": "shop"}, {"message": "last", "app": "shop"}])
    answer = await send(edge, body)
    assert statuses(answer) == [201, 200, 400, 400, 400, 201]
    assert answer.json()["errors"] is True
    assert [list(item) for item in answer.json()["items"]] == [
        ["create"], ["create"], ["delete"], ["create"], ["create"], ["create"],
    ]  # fmt: skip
    ((header, lines),) = await edge.frames()
    assert [line.message for line in lines] == ["kept", "last"]
    shop = header.counts["shop"]
    assert (shop.received, shop.filtered, shop.rejected) == (4, {"no-debug": 1}, {"timestamp": 1})
    others = [counts.rejected for name, counts in header.counts.items() if name != "shop"]
    assert {reason: n for rejected in others for reason, n in rejected.items()} == {"action": 1, "json": 1}


async def test_compact_answers_are_as_filebeat_reads_them(edge: Edge) -> None:
    answer = await send(edge, body_of([{"message": "m"}] * 2), f"/_bulk?{COMPACT}")
    assert answer.content == b'{"errors":false,"items":[{"create":{"status":201}},{"create":{"status":201}}]}'


async def test_a_key_writes_its_own_services_alone(edge: Edge) -> None:
    edge.log_in(_writer("one", ServiceScope(prefixes=frozenset({"pay/"}))))
    answer = await send(edge, body_of([{"message": "mine", "app": "pay/a"}, {"message": "theirs", "app": "shop"}]))
    assert statuses(answer) == [201, 400]
    error = answer.json()["items"][1]["create"]["error"]
    assert error["type"] == "security_exception"
    assert "shop" in error["reason"]
    edge.log_in(_writer("two", ServiceScope(names=frozenset({"shop"}))))
    assert statuses(await send(edge, body_of([{"message": "default"}]))) == [201]
    assert {line.message: line.service_name for line in await edge.lines()} == {"mine": "pay/a", "default": "shop"}
    edge.log_in(_writer("three", NO_SERVICES))
    refused = await send(edge, body_of([{"message": "m"}]))
    assert refused.status_code == 403
    assert refused.json()["error"]["type"] == "security_exception"


async def test_a_body_whose_documents_have_ids_is_its_own_key(edge: Edge) -> None:
    body = body_of([{"message": "a"}, {"message": "b"}], ["id-a", "id-b"])
    first, again = await send(edge, body), await send(edge, body)
    assert first.content == again.content
    assert [item["create"]["_id"] for item in first.json()["items"]] == ["id-a", "id-b"]
    frames = await edge.frames()
    assert len(frames) == 2, "the writer stores one of them"
    assert frames[0][0].key_hash == frames[1][0].key_hash is not None
    assert [line.id for line in frames[0][1]] == [line.id for line in frames[1][1]]
    assert [metadata_of(line)["_id"] for line in frames[0][1]] == ["id-a", "id-b"]
    compact = await send(edge, body, f"/_bulk?{COMPACT}")
    assert compact.json() == {"errors": False, "items": [{"create": {"status": 201}}] * 2}


async def test_the_same_body_for_another_index_is_another_one(edge: Edge) -> None:
    """As Elasticsearch has a document with the same id in each index."""
    body = b"".join(b'{"create":{"_id":"%d"}}\n{"message":"m%d"}\n' % (number, number) for number in range(3))
    for index in ("web", "shop", "web", "shop"):
        assert statuses(await send(edge, body, f"/{index}/_bulk")) == [201] * 3
    frames = await edge.frames()
    assert len({header.key_hash for header, _ in frames}) == 2
    named = {metadata_of(line)["_index"] for _, lines in frames for line in lines}
    assert named == {"web", "shop"}
    key = {"Idempotency-Key": "mine"}
    assert (await send(edge, body, "/web/_bulk", **key)).status_code == 200
    assert (await send(edge, body, "/shop/_bulk", **key)).status_code == 422


async def test_a_body_without_ids_may_mean_other_documents_each_time(edge: Edge) -> None:
    """Lines that look alike, of one second: none of them may be lost."""
    body = body_of([{"@timestamp": now(), "message": "tick"}])
    some = body + body_of([{"message": "tock"}], ["id"])
    for each in (body, body, some, some):
        assert set(statuses(await send(edge, each))) == {201}
    frames = await edge.frames()
    assert [header.key_hash for header, _ in frames] == [None] * 4
    assert len({line.id for _, lines in frames for line in lines}) == 6


async def test_ids_imply_no_key_where_the_operator_says_so(make_edge: MakeEdge) -> None:
    edge: Edge = await make_edge(implied_keys=False)
    await send(edge, body_of([{"message": "a"}], ["id-a"]))
    assert [header.key_hash for header, _ in await edge.frames()] == [None]


async def test_an_idempotency_key_holds_for_any_body(edge: Edge) -> None:
    body = body_of([{"message": "a"}, {"message": "b", "@timestamp": []}])
    first, again = [await send(edge, body, **{"Idempotency-Key": "k"}) for _ in range(2)]
    assert first.content == again.content
    assert statuses(first) == [201, 400]
    other = await send(edge, body_of([{"message": "other"}]), **{"Idempotency-Key": "k"})
    assert other.status_code == 422
    assert other.json()["error"]["type"] == "illegal_argument_exception"


async def test_a_rate_limit_refuses_the_whole_request_and_leaves_nothing_behind(make_edge: MakeEdge) -> None:
    limit = {"type": "rate_limit", "name": "slow", "logs_per_second": 1, "burst": 2, "on_exceed": "refuse"}
    edge: Edge = await make_edge(filters=[limit])
    assert statuses(await send(edge, body_of([{"message": "m"}] * 2))) == [201, 201]
    refused = await send(edge, body_of([{"message": "m"}] * 2))
    assert refused.status_code == 429
    assert int(refused.headers["retry-after"]) >= 1
    assert refused.json()["error"]["type"] == "es_rejected_execution_exception"
    assert refused.json()["status"] == 429
    edge.clock.advance(2)
    assert statuses(await send(edge, body_of([{"message": "m"}] * 2))) == [201, 201]
    assert len(await edge.lines()) == 4


async def test_a_broker_that_is_away_is_503_and_clients_send_again(edge: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    async def away(*_: object) -> None:
        raise BrokerUnavailable("the broker does not answer")

    with monkeypatch.context() as patch:
        patch.setattr(edge.service._publisher, "publish", away)
        refused = await send(edge, body_of([{"message": "m"}]))
    assert refused.status_code == 503
    assert int(refused.headers["retry-after"]) >= 1
    assert refused.json()["error"]["type"] == "unavailable_shards_exception"


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"", {}, 400),
        (b"\n", {}, 400),
        (b"no gzip", {"Content-Encoding": "gzip"}, 400),
        (b"x", {"Content-Encoding": "br"}, 415),
        (b'{"create":{}}\n{"message":"%b"}\n' % (b"x" * 9_000_000), {}, 413),
        (b'{"create":{}}\n{"message":"m"}\n' * 10_001, {}, 413),
        (b'{"delete":{}}\n' * 10_001, {}, 413),
        (b'{"create":{}}\n{"message":"m"}\n', {"Idempotency-Key": "k" * 256}, 422),
    ],
)
async def test_what_is_refused_whole_has_the_shape_of_elasticsearchs_errors(
    edge: Edge, body: bytes, headers: dict[str, str], status: int
) -> None:
    answer = await send(edge, body, **headers)
    assert answer.status_code == status, answer.text
    document = answer.json()
    assert document["status"] == status
    assert document["error"]["root_cause"] == [{name: document["error"][name] for name in ("type", "reason")}]
    assert answer.headers["x-elastic-product"] == "Elasticsearch"
    assert await edge.lines() == []


async def test_services_without_end_are_refused_as_everywhere(edge: Edge) -> None:
    body = body_of([{"message": "m", "app": f"s{n}"} for n in range(1_001)])
    assert (await send(edge, body)).status_code == 413


async def test_many_items_all_bad_are_answered_one_by_one(edge: Edge) -> None:
    answer = await send(edge, b'{"create":{}}\n{"message"\n' * 10_000)
    assert statuses(answer) == [400] * 10_000
    assert await edge.lines() == []
