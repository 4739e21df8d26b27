"""The query API as its users meet it, on a real PostgreSQL."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import re
import signal
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import msgspec
import pytest
from pydantic import BaseModel
from starlette.requests import HTTPConnection

import db.database
import query.main
import store.postgres_read
from access.principal import Principal
from cli.http_app import build_app
from db.database import Connection, Database, connect
from db.migrations import Layout
from query.main import QueryService
from query.settings import QuerySettings
from runtime.telemetry import REGISTRY
from schemas.errors import BrokerUnavailable, DatabaseUnavailable
from schemas.ids import first_id_at
from schemas.pages import CorrelationPage, LedgerAnswer, LogContext, LogModel, LogPage, OneLog, Problem, ServiceList
from schemas.record import LogLine
from schemas.scope import NO_SERVICES, ServiceScope
from schemas.topics import LOGS_TOPIC
from store.chunks import chunk_layout
from store.dead_letters import DeadLetters
from store.postgres_read import PostgresReadStore
from tests.access_site import soon

Parameter = tuple[str, str | int | float | bool | None]
MINUTE = timedelta(minutes=1)
FIRST_ID = 1 << 60
SEQUENCE = itertools.count()
ATTACKS = (
    "' OR 1=1 --",
    "'; DROP TABLE logs; --",
    "\\'; DELETE FROM logs; --",
    '" UNION SELECT value FROM secrets --',
    "%s %(x)s {} {0} %%",
    "$1 $$x$$",
    "1) OR (1=1",
    "\ud7ff\u202e\u0000",
    "../../etc/passwd",
    "(a+)+$",
    "((((((((((",
    "%",
    "_",
    "*",
    "x" * 5_000,
)


class Api:
    """One query service on a fresh database, and its client."""

    def __init__(
        self, client: httpx.AsyncClient, connection: Connection, database: Database, service: QueryService
    ) -> None:
        self.client = client
        self.connection = connection
        self.database = database
        self.service = service
        self.unread: dict[int, int] | None = {0: 3, 1: 0}

    async def unread_records(self) -> dict[int, int]:
        if self.unread is None:
            raise BrokerUnavailable
        return self.unread

    async def get(self, path: str, model: type[BaseModel] | None = None, **parameters: Any) -> dict[str, Any]:
        response = await self.client.get(f"/api/v1/{path}", params=parameters)
        assert response.status_code == 200, response.text
        assert response.headers["content-type"] == "application/json"
        body: dict[str, Any] = response.json()
        if model is not None:
            model.model_validate(body)
        return body

    async def problem(self, path: str, status: int, **parameters: Any) -> dict[str, Any]:
        response = await self.client.get(f"/api/v1/{path}", params=parameters)
        return check_problem(response, status)

    async def put(self, *rows: dict[str, Any]) -> None:
        for row in rows:
            full = {"level": 9, "service_name": "shop", "correlation_id": None, "message": "m", "metadata": {}, **row}
            await self.connection.execute(
                b"INSERT INTO logs VALUES (%(timestamp)s, %(id)s, %(level)s, %(service_name)s, %(correlation_id)s,"
                b" %(message)s, %(metadata)s)",
                {**full, "metadata": json.dumps(full["metadata"])},
            )

    def act_as(self, principal: Principal) -> None:
        async def authenticate(_: HTTPConnection) -> Principal:
            return principal

        self.service.authenticate = authenticate


def check_problem(response: httpx.Response, status: int) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = response.json()
    assert Problem.model_validate(body).status == status
    assert ("retry-after" in response.headers) == (status in (429, 503))
    return body


@asynccontextmanager
async def running(url: str, *, settings: QuerySettings | None = None) -> AsyncIterator[Api]:
    async with AsyncExitStack() as stack:
        database = Database(url, application_name="query test", connections_max=8, wait_s=2)
        stack.push_async_callback(database.close)
        await database.open()
        connection = await connect(url, application_name="query test's hand")
        stack.push_async_callback(connection.close)
        api: Api

        async def unread() -> dict[int, int]:
            return await api.unread_records()

        service = QueryService(settings or QuerySettings(), database=database, layout=Layout.NATIVE, unread=unread)
        app = build_app([service])
        transport = httpx.ASGITransport(app=app)
        client = await stack.enter_async_context(httpx.AsyncClient(transport=transport, base_url="http://test"))
        api = Api(client, connection, database, service)
        stack.push_async_callback(service.stop)
        await service.start()

        async def is_ready() -> bool:
            if service.ready():  # a busy machine, and a test may have put off all other looks
                await service._look()
            return not service.ready()

        await soon(is_ready, "query is ready")
        yield api
        await service.stop()
        assert service.ready() == ["query is stopping"]


@pytest.fixture
async def api(native_url: str) -> AsyncIterator[Api]:
    async with running(native_url) as api:
        await open_chunks(api.connection)
        yield api


async def open_chunks(connection: Connection) -> None:
    chunk = timedelta(hours=6)
    first = datetime.fromtimestamp(time.time() // chunk.total_seconds() * chunk.total_seconds(), UTC) - chunk
    await connection.execute("UPDATE border SET closed_before = %s", (first,))
    for number in range(3):
        start_us, length_us = ((first + number * chunk).timestamp() * 1_000_000, chunk.total_seconds() * 1_000_000)
        await chunk_layout(Layout.NATIVE).create(connection, int(start_us), int(start_us + length_us))


def now() -> datetime:
    return datetime.now(UTC)


def rows(count: int, **changes: Any) -> list[dict[str, Any]]:
    moment = now()
    first = first_id_at(int(moment.timestamp() * 1000))
    return [
        {
            "id": first + next(SEQUENCE),
            # Before the moment at which they are stored: none of a later call lies among them.
            "timestamp": moment + n * timedelta(microseconds=1),
            "message": f"message {n}",
            **changes,
        }
        for n in range(count)
    ]


def ids(logs: Sequence[dict[str, Any]]) -> list[int]:
    return [int(log["id"]) for log in logs]


async def test_a_log_is_shown_in_all_its_fields(api: Api) -> None:
    [row] = rows(
        1,
        level=18,
        message="<script>alert(1)</script>\u202e\x1b[31m =1+1 'quoted' \"too\" \u2028",
        correlation_id="a/b c",
        metadata={"big": 2**70, "f": 1.5, "deep": [{"x": None}], "html": "<b>"},
    )
    await api.put(row)
    page = await api.get("logs", LogPage)
    moment = row["timestamp"]
    received = datetime.fromtimestamp(((row["id"] >> 22) + 1_704_067_200_000) / 1000, UTC)
    assert page["logs"] == [
        {
            "id": str(row["id"]),
            "timestamp": moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "received_at": received.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "level": "ERROR",
            "severity": 18,
            "service_name": "shop",
            "message": row["message"],
            "correlation_id": "a/b c",
            "metadata": row["metadata"],
        }
    ]
    assert (page["count"], page["next_cursor"], page["prev_cursor"], page["scanned_to"]) == (1, None, None, None)
    one = await api.get(f"logs/{row['id']}", OneLog)
    assert one == {"log": page["logs"][0]}
    assert await api.get("correlations/a%2Fb%20c/logs", CorrelationPage) == {
        "logs": page["logs"],
        "next_cursor": None,
        "withheld": False,
    }


@pytest.mark.parametrize("order", ["asc", "desc"])
async def test_a_walk_shows_every_log_once_while_others_arrive(api: Api, order: str) -> None:
    stored = rows(25)
    await api.put(*stored)
    page = await api.get("logs", order=order, limit=10)
    shown = ids(page["logs"])
    while page["next_cursor"] is not None:
        await api.put(*rows(3))
        page = await api.get("logs", LogPage, order=order, limit=10, cursor=page["next_cursor"])
        shown += ids(page["logs"])
    expected = [row["id"] for row in stored]
    assert shown == (expected if order == "asc" else expected[::-1])
    back = await api.get("logs", LogPage, order=order, limit=10, cursor=page["prev_cursor"])
    assert ids(back["logs"]) == shown[10:20]


@pytest.mark.parametrize("order", ["asc", "desc"])
async def test_cursors_end_where_the_logs_do_in_both_directions(api: Api, order: str) -> None:
    await api.put(*rows(20), *rows(5, service_name="pay", timestamp=now() - 20 * MINUTE))
    question: dict[str, Any] = {"service_name": "shop", "order": order, "limit": 10}
    first = await api.get("logs", LogPage, **question)
    second = await api.get("logs", LogPage, **question, cursor=first["next_cursor"])
    assert (first["count"], second["count"], second["next_cursor"]) == (10, 10, None)
    back = await api.get("logs", LogPage, **question, cursor=second["prev_cursor"])
    assert (ids(back["logs"]), back["prev_cursor"]) == (ids(first["logs"]), None)
    again = await api.get("logs", LogPage, **question, cursor=back["next_cursor"])
    assert (ids(again["logs"]), again["next_cursor"]) == (ids(second["logs"]), None)


async def test_a_story_that_grows_ends_where_it_did_at_its_first_page(api: Api) -> None:
    await api.put(*rows(10, correlation_id="story"))
    first = await api.get("correlations/story/logs", CorrelationPage, limit=5)
    await api.put(*rows(3, correlation_id="story"))
    second = await api.get("correlations/story/logs", CorrelationPage, limit=5, cursor=first["next_cursor"])
    assert (len(second["logs"]), second["next_cursor"]) == (5, None)


async def test_every_filter_selects(api: Api) -> None:
    await api.put(
        *rows(1, level=17, message="Connection refused", metadata={"user": {"id": 7}}, correlation_id="c-1"),
        *rows(1, level=9, message="100% of_it", service_name="pay", metadata={"user": "ann"}),
        *rows(1, level=13, message="C:\\temp\\x", service_name="pay/cards"),
        *rows(1, level=9, message="older", timestamp=now() - 20 * MINUTE),
    )
    questions: list[tuple[list[Parameter], set[str]]] = [
        ([("service_name", "pay"), ("service_name", "shop")], {"Connection refused", "100% of_it", "older"}),
        ([("service_name", "pay*")], {"100% of_it", "C:\\temp\\x"}),
        ([("level", "error"), ("level", "warning")], {"Connection refused", "C:\\temp\\x"}),
        ([("min_level", "warn")], {"Connection refused", "C:\\temp\\x"}),
        ([("q", "REFUSED")], {"Connection refused"}),
        ([("q", "%")], {"100% of_it"}),
        ([("q", "_")], {"100% of_it"}),
        ([("q", "\\")], {"C:\\temp\\x"}),
        ([("q", "1_0")], set()),
        ([("regex", "^C.*(d|x)$")], {"Connection refused", "C:\\temp\\x"}),
        ([("query", "refused OR level:warn")], {"Connection refused", "C:\\temp\\x"}),
        ([("correlation_id", "c-1")], {"Connection refused"}),
        ([("metadata.user.id", "7")], {"Connection refused"}),
        ([("metadata.user", "ann")], {"100% of_it"}),
        ([("start_time", "-10m")], {"Connection refused", "100% of_it", "C:\\temp\\x"}),
        ([("start_time", "-30m"), ("end_time", "-10m")], {"older"}),
        ([("q", "refused"), ("level", "info")], set()),
    ]
    for parameters, expected in questions:
        response = await api.client.get("/api/v1/logs", params=parameters)
        assert response.status_code == 200, response.text
        assert {log["message"] for log in response.json()["logs"]} == expected, parameters


async def test_sql_in_any_parameter_is_only_text(api: Api) -> None:
    await api.put(*rows(3))
    names = [
        *("service_name", "level", "min_level", "start_time", "end_time", "correlation_id", "q", "regex", "query"),
        *("metadata.user", "order", "limit", "cursor", "metadata.' OR 1=1 --", "'; DROP TABLE logs; --"),
    ]
    requests = [("logs", {name: attack}) for name in names for attack in ATTACKS]
    for attack in ATTACKS:
        quoted = httpx.QueryParams({"x": attack}).__str__()[2:].replace("+", "%20")
        requests += [(f"logs/{quoted}", {}), (f"logs/{quoted}/context", {}), (f"correlations/{quoted}/logs", {})]
        requests += [("ledger", {name: attack}) for name in ("service_name", "start_time", "end_time", attack)]
        requests += [(f"logs/{FIRST_ID}/context", {name: attack}) for name in ("before", "after", attack)]
        requests += [("correlations/x/logs", {name: attack}) for name in ("limit", "cursor", attack)]
        requests += [("services", {attack: attack}), (f"logs/{FIRST_ID}", {attack: attack})]
    for path, parameters in requests:
        response = await api.client.get(f"/api/v1/{path}", params=parameters or None)
        assert response.status_code in (200, 400, 404, 422), (path, parameters, response.text)
        if response.status_code != 200 and response.headers["content-type"] != "application/json":
            check_problem(response, response.status_code)
        assert "syntax" not in response.text
    assert len((await api.get("logs"))["logs"]) == 3


async def test_an_expression_that_ruins_others_is_answered_in_time(api: Api) -> None:
    await api.put(*rows(5, message="a" * 60_000 + "b"), *rows(1, message="aaa"))
    for expression in ("(a+)+$", "(a|a)*$", "(a|aa)+$", "^(([a-z])+.)+[A-Z]([a-z])+$"):
        started_s = time.monotonic()
        response = await api.client.get("/api/v1/logs", params={"regex": expression})
        assert response.status_code in (200, 422, 503), response.text
        assert time.monotonic() - started_s < 15
    assert [log["message"] for log in (await api.get("logs", regex="^(a+)+$"))["logs"]] == ["aaa"]


async def test_a_mistaken_parameter_is_named_with_the_one_that_was_meant(api: Api) -> None:
    body = await api.problem("logs", 422, levle="ERROR")
    assert "levle" in body["detail"]
    assert "did you mean `level`?" in body["detail"]
    assert body["errors"][0]["field"] == "levle"
    assert "1..1000" in (await api.problem("logs", 422, limit=5000))["detail"]
    assert (await api.problem("logs", 422, query="a AND (b"))["errors"][0]["column"] >= 1
    for path in ("services", f"logs/{FIRST_ID}"):
        await api.problem(path, 422, limit=5)
    await api.problem(f"logs/{FIRST_ID}/context", 422, before=101)
    await api.problem("correlations/x/logs", 422, order="asc")


async def test_a_cursor_that_is_not_this_walks_own_is_refused(api: Api) -> None:
    await api.put(*rows(5, correlation_id="story"))
    cursor = (await api.get("logs", limit=2))["next_cursor"]
    story = (await api.get("correlations/story/logs", limit=2))["next_cursor"]
    await api.problem("logs", 400, cursor=cursor[:-1])
    await api.problem("logs", 400, cursor=("B" if cursor[9] != "B" else "C").join((cursor[:9], cursor[10:])))
    await api.problem("logs", 400, cursor=cursor, q="x")
    await api.problem("logs", 400, cursor=cursor, order="asc")
    await api.problem("logs", 400, cursor=story)
    await api.problem("correlations/story/logs", 400, cursor=cursor)
    await api.problem("correlations/other/logs", 400, cursor=story)
    api.act_as(Principal("somebody else", NO_SERVICES, ServiceScope(everything=True)))
    await api.problem("logs", 400, cursor=cursor)


async def test_an_id_that_is_not_there_is_404_and_no_number_422(api: Api) -> None:
    for path in (f"logs/{FIRST_ID}", "logs/0", f"logs/{FIRST_ID}/context"):
        assert "no log" in (await api.problem(path, 404))["detail"]
    for text in ("abc", "-1", "1.5", "9" * 19 + "9", "0x10"):
        await api.problem(f"logs/{text}", 422)


async def test_context_is_the_neighbours_of_the_same_service(api: Api) -> None:
    stored = rows(21)
    for number, row in enumerate(stored):
        row["service_name"] = "shop" if number % 2 == 0 else "pay"
    await api.put(*stored)
    middle = stored[10]["id"]
    context = await api.get(f"logs/{middle}/context", LogContext, before=2, after=3)
    expected = [row["id"] for row in stored[6:17:2]]
    assert [*ids(context["before"]), int(context["log"]["id"]), *ids(context["after"])] == expected
    whole = await api.get(f"logs/{middle}/context", LogContext)
    assert (len(whole["before"]), len(whole["after"]), whole["complete"]) == (5, 5, True)
    none = await api.get(f"logs/{middle}/context", LogContext, before=0, after=0)
    assert (none["before"], none["after"]) == ([], [])


async def test_a_story_is_whole_oldest_first_and_paged(api: Api) -> None:
    stored = rows(12, correlation_id="story")
    for number, row in enumerate(stored):
        row["service_name"] = f"service-{number % 3}"
    await api.put(*stored, *rows(3, correlation_id="other"))
    shown: list[int] = []
    cursor = None
    while True:
        parameters = {"limit": 5} | ({"cursor": cursor} if cursor else {})
        page = await api.get("correlations/story/logs", CorrelationPage, **parameters)
        shown += ids(page["logs"])
        cursor = page["next_cursor"]
        if cursor is None:
            break
        await api.put(*rows(1, correlation_id="story"))
    assert shown == [row["id"] for row in stored]
    assert await api.get("correlations/nobody/logs") == {"logs": [], "next_cursor": None, "withheld": False}


async def test_nobody_reads_a_service_that_is_not_theirs(api: Api) -> None:
    mine, theirs = rows(4, correlation_id="story"), rows(4, correlation_id="story", service_name="pay")
    await api.put(*mine, *theirs)
    await book(api, "shop", received=1, stored=1)
    await book(api, "pay", received=1, stored=1)
    api.act_as(Principal("ann", NO_SERVICES, ServiceScope(names=frozenset({"shop"}))))
    texts = [
        (await api.client.get(f"/api/v1/{path}")).text
        for path in ("logs", "logs?service_name=pay", "logs?query=service:pay OR refused", "services", "ledger")
    ]
    texts.append((await api.client.get("/api/v1/correlations/story/logs")).text)
    assert not any('"pay"' in text for text in texts)
    assert len((await api.get("logs"))["logs"]) == 4
    await api.problem(f"logs/{theirs[0]['id']}", 404)
    await api.problem(f"logs/{theirs[0]['id']}/context", 404)
    api.act_as(Principal("nobody", NO_SERVICES, NO_SERVICES))
    for path in ("logs", f"logs/{mine[0]['id']}", "services", "ledger", "correlations/story/logs"):
        await api.problem(path, 403)


async def book(api: Api, service: str, *, minute: datetime | None = None, **counts: int) -> None:
    minute = (minute or now()).replace(second=0, microsecond=0)
    details = {"stored": (9, ""), "filtered": (0, "no-debug"), "rejected": (0, "json"), "dead": (0, "refused")}
    for outcome, count in counts.items():
        level, reason = details.get(outcome, (0, ""))
        await api.connection.execute(
            "INSERT INTO ledger (minute, service_name, level, outcome, reason, count) VALUES (%s, %s, %s, %s, %s, %s)",
            (minute, service, level, outcome, reason, count),
        )


async def test_the_ledger_adds_up_and_says_where_it_does_not(api: Api) -> None:
    await book(api, "shop", received=10, stored=5, filtered=2, rejected=1, duplicate=1, dead=1)
    await book(api, "pay", received=3, stored=2)
    ledger = await api.get("ledger", LedgerAnswer, start_time="-10m")
    pay, shop = ledger["rows"]
    assert (pay["service_name"], pay["received"], pay["balanced"]) == ("pay", 3, False)
    assert shop == {
        "minute": shop["minute"],
        "service_name": "shop",
        "received": 10,
        "stored": {"INFO": 5},
        "filtered": {"no-debug": 2},
        "rejected": {"json": 1},
        "duplicate": 1,
        "dead_lettered": {"refused": 1},
        "balanced": True,
    }
    assert (ledger["totals"]["received"], ledger["totals"]["balanced"]) == (13, False)
    assert ledger["unread"] == {"0": 3, "1": 0}
    only = await api.get("ledger", LedgerAnswer, service_name="shop")
    assert [row["service_name"] for row in only["rows"]] == ["shop"]
    assert only["totals"]["balanced"]
    api.unread = None
    assert (await api.get("ledger", LedgerAnswer))["unread"] is None
    await api.problem("ledger", 422, start_time="-1000d")


async def test_services_are_listed_with_their_counts(api: Api) -> None:
    await book(api, "shop", received=5, stored=5, minute=now() - 90 * MINUTE)
    await book(api, "shop", stored=2)
    body = await api.get("services", ServiceList)
    [service] = body["services"]
    assert (service["service_name"], service["counts"]) == ("shop", {"INFO": 7})
    assert service["last_seen"] > (now() - 2 * MINUTE).isoformat()


async def test_a_database_behind_the_first_page_is_503_until_it_caught_up(api: Api) -> None:
    await api.connection.execute(
        "INSERT INTO consumer_offsets (topic, partition, next_offset, stored_to) VALUES (%s, 0, 10, now())",
        (LOGS_TOPIC,),
    )
    await api.put(*rows(3))
    page = await api.get("logs", LogPage, limit=1)
    assert page["visible_through"] is not None
    await api.connection.execute("UPDATE consumer_offsets SET next_offset = 9")
    response = await api.client.get("/api/v1/logs", params={"limit": 1, "cursor": page["next_cursor"]})
    assert "behind" in check_problem(response, 503)["detail"]
    await api.connection.execute("UPDATE consumer_offsets SET next_offset = 11")
    assert (await api.get("logs", LogPage, limit=1, cursor=page["next_cursor"]))["count"] == 1


async def test_a_page_of_large_logs_is_cut_and_goes_on(native_url: str) -> None:
    async with running(native_url, settings=QuerySettings(page_bytes_max=1_000_000)) as api:
        await open_chunks(api.connection)
        await api.put(*rows(12, message="x" * 250_000))
        page = await api.get("logs", limit=1000)
        assert 4 <= page["count"] <= 5
        shown = ids(page["logs"])
        while page["next_cursor"] is not None:
            page = await api.get("logs", limit=1000, cursor=page["next_cursor"])
            shown += ids(page["logs"])
        assert len(shown) == len(set(shown)) == 12


async def test_with_the_database_away_every_question_is_503() -> None:
    database = Database("postgresql://nobody@127.0.0.1:1/none", application_name="away", wait_s=0.2)
    await database.open()

    async def unread() -> dict[int, int]:
        return {}

    service = QueryService(QuerySettings(), database=database, layout=Layout.NATIVE, unread=unread)
    await service.start()
    assert service.ready() == ["the database does not answer questions"]
    transport = httpx.ASGITransport(app=build_app([service]))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        for path in ("logs", "logs/1", "logs/1/context", "correlations/x/logs", "services", "ledger"):
            check_problem(await client.get(f"/api/v1/{path}"), 503)
        check_problem(await client.get("/api/v1/logs?limit=0"), 422)
    await service.stop()
    await database.close()


@contextmanager
def stopped(pids: Sequence[int]) -> Iterator[None]:
    """Processes of the server, which go on afterwards whatever comes: one that was left would hold up all that ends it."""
    with ExitStack() as going_on:
        for pid in pids:
            with suppress(ProcessLookupError):  # a connection that was closed meanwhile
                os.kill(pid, signal.SIGSTOP)
                going_on.callback(_go_on, pid)
        yield


def _go_on(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)


@pytest.mark.parametrize("path", ["logs", "services"])
async def test_a_server_that_hangs_is_503_and_gives_the_place_back(
    native_url: str, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    """Nothing is closed, nobody answers: only we know what time it is."""
    monkeypatch.setattr(db.database, "_RESTED_S", 1e9)
    monkeypatch.setattr(query.main, "_LOOK_S", 1e9)
    monkeypatch.setattr(query.main, "_BESIDE_S", 0.3)
    one_place = QuerySettings(scan_budget_ms=50, scans_max=1, scans_waiting_max=0, services_ttl_s=0)
    async with running(native_url, settings=one_place) as api:
        monkeypatch.setattr(store.postgres_read, "_SERVICES_MS_MAX", 300)
        monkeypatch.setattr(store.postgres_read, "_SLACK_S", 0.1)
        await open_chunks(api.connection)
        found = await api.connection.execute("SELECT pid FROM pg_stat_activity WHERE application_name = 'query test'")
        pids = [pid for (pid,) in await found.fetchall()]
        assert pids
        with stopped(pids):
            await api.problem(path, 503)
        answer = await api.client.get(f"/api/v1/{path}")
        assert answer.status_code == 200


async def test_a_snapshot_ends_in_time_though_the_server_hangs_between_its_statements(
    native_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No statement is under way that could be cancelled; its end is the first that hears nothing."""
    monkeypatch.setattr(db.database, "_CHECK_S", 0.2)
    database = Database(native_url, application_name="query test")
    await database.open()
    reading = PostgresReadStore(database, LOGS_TOPIC, Layout.NATIVE, snapshot_s_max=0.5)
    async with await connect(native_url, application_name="query test's hand") as hand:

        async def held() -> None:
            async with reading.snapshot():
                cursor = await hand.execute("SELECT pid FROM pg_stat_activity WHERE application_name = 'query test'")
                pids.enter_context(stopped([pid for (pid,) in await cursor.fetchall()]))
                await asyncio.Event().wait()

        with ExitStack() as pids:
            async with asyncio.timeout(30):
                with pytest.raises(DatabaseUnavailable):
                    await held()
    async with reading.snapshot() as snapshot:
        assert snapshot.offsets == {}
    await database.close()


async def test_a_page_that_the_asker_has_is_answered_304(api: Api) -> None:
    await api.put(*rows(3))
    await api.connection.execute(
        b"INSERT INTO consumer_offsets (topic, partition, next_offset) VALUES (%s, 0, 5)", (LOGS_TOPIC,)
    )
    for path in ("/api/v1/logs?limit=2", "/api/v1/correlations/c/logs"):
        first = await api.client.get(path)
        tag = first.headers["etag"]
        assert (first.status_code, first.headers["cache-control"]) == (200, "private, no-cache")
        for tags in (tag, f'"other", {tag}', tag.removeprefix("W/")):
            again = await api.client.get(path, headers={"If-None-Match": tags, "Cache-Control": "no-cache"})
            assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
            assert "content-type" not in again.headers
        for tags in ("*", '"', "W/", f"{tag[:-2]}", '"0123456789abcdef"', "x" * 7_000):
            assert (await api.client.get(path, headers={"If-None-Match": tags})).json() == first.json()
        await api.connection.execute(b"UPDATE consumer_offsets SET next_offset = next_offset + 1")
        assert (await api.client.get(path, headers={"If-None-Match": tag})).status_code == 200
    assert "etag" not in (await api.client.get("/api/v1/services")).headers
    assert (await api.client.get("/api/v1/services")).headers["cache-control"] == "no-store"


async def test_a_kept_page_is_given_until_something_late_changes_it(api: Api) -> None:
    """A row that comes late, whose transaction may have been under way already; a dead letter that is stored after all."""
    row = await (await api.connection.execute("SELECT closed_before FROM border")).fetchone()
    assert row is not None
    closed = {"end_time": row[0].isoformat()}
    old = row[0] - timedelta(hours=1)
    late = await connect(api.database.url, application_name="late writer")

    async def put_late(connection: Connection, log_id: int) -> None:
        await connection.execute(
            "INSERT INTO logs_late_1 (timestamp, id, level, service_name, message, metadata)"
            " VALUES (%s, %s, 9, 'shop', 'm', '{}')",
            (old, log_id),
        )

    async def shown() -> tuple[list[int], int]:
        """The page as it is answered twice, and how often rows were read for that."""
        misses = REGISTRY.get_sample_value("logfeed_query_cache_misses_total") or 0.0
        first = await api.client.get("/api/v1/logs", params=closed)
        assert (await api.client.get("/api/v1/logs", params=closed)).json() == first.json()
        read = (REGISTRY.get_sample_value("logfeed_query_cache_misses_total") or 0.0) - misses
        return ids(first.json()["logs"]), int(read)

    async with late:
        await put_late(api.connection, 1)
        await late.execute("BEGIN")
        await put_late(late, 2)
        assert (await shown())[0] == [1]
        await late.commit()
    assert (await shown())[0] == [2, 1]
    # Transactions of other tests on this server may be under way: until they end, what is kept may be older than a row.
    deadline = time.monotonic() + 30
    while (await shown())[1] > 0:
        assert time.monotonic() < deadline
    assert (await shown()) == ([2, 1], 0)
    tagged = {"If-None-Match": (await api.client.get("/api/v1/logs", params=closed)).headers["etag"]}
    assert (await api.client.get("/api/v1/logs", params=closed, headers=tagged)).status_code == 304
    line = LogLine(3, int(old.timestamp() * 1_000_000), 9, "shop", "m", None, msgspec.Raw(b"{}"))
    found = await api.connection.execute(
        b'INSERT INTO dead_letters (topic, partition, "offset", line_index, service_name, received_minute, reason, detail,'
        b" line) VALUES (%s, 0, 0, 0, 'shop', now(), 'refused', '', %s) RETURNING id",
        (LOGS_TOPIC, msgspec.json.encode(line)),
    )
    letter = await found.fetchone()
    assert letter is not None
    assert (await shown()) == ([2, 1], 0)
    await DeadLetters(api.database, Layout.NATIVE).replay(letter[0], allowed=ServiceScope(everything=True))
    assert (await shown())[0] == [3, 2, 1]
    assert (await api.client.get("/api/v1/logs", params=closed, headers=tagged)).status_code == 200


async def test_the_document_names_every_parameter_answer_and_problem(api: Api) -> None:
    document = (await api.client.get("/openapi.json")).json()
    paths = {path: methods for path, methods in document["paths"].items() if path.startswith("/api/")}
    assert set(paths) == {
        "/api/v1/logs",
        "/api/v1/logs/{log_id}",
        "/api/v1/logs/{log_id}/context",
        "/api/v1/correlations/{correlation_id}/logs",
        "/api/v1/histogram",
        "/api/v1/facets",
        "/api/v1/export",
        "/api/v1/bookmarks",
        "/api/v1/bookmarks/{kind}/{target_id}",
        "/api/v1/views",
        "/api/v1/views/{name}",
        "/api/v1/services",
        "/api/v1/ledger",
        "/api/v1/patterns",
        "/api/v1/patterns/{pattern_id}",
    }
    for path, verb, operation in ((path, verb, each) for path, verbs in paths.items() for verb, each in verbs.items()):
        assert operation["description"], path
        if verb == "get":
            kinds = set(operation["responses"]["200"]["content"])
            assert kinds == ({"application/x-ndjson", "text/csv"} if "export" in path else {"application/json"}), path
        answers = ("200", "204", "304")
        problems = {status: body for status, body in operation["responses"].items() if status not in answers}
        assert {"422", "503"} <= set(problems)
        for body in problems.values():
            Problem.model_validate(body["content"]["application/problem+json"]["example"])
        for parameter in operation.get("parameters", []):
            assert parameter["description"], (path, parameter)
    for path in ("/api/v1/logs", "/api/v1/correlations/{correlation_id}/logs"):
        get = paths[path]["get"]
        assert get["responses"]["200"]["headers"]["ETag"]["description"]
        assert get["responses"]["304"]["description"]
        assert "If-None-Match" in {parameter["name"] for parameter in get["parameters"] if parameter["in"] == "header"}
    names = {parameter["name"] for parameter in paths["/api/v1/logs"]["get"]["parameters"]}
    assert {
        "service_name",
        "level",
        "min_level",
        "start_time",
        "q",
        "regex",
        "query",
        "order",
        "limit",
        "cursor",
    } <= names
    schemas = document["components"]["schemas"]
    assert LogModel.__name__ in schemas
    references = set(re.findall(r'"\$ref": ?"([^"]+)"', json.dumps(document)))
    assert references <= {f"#/components/schemas/{name}" for name in schemas}


@pytest.mark.parametrize("order", ["desc", "asc"])
@pytest.mark.parametrize("by", ["log", "time"])
async def test_a_walk_that_begins_in_the_midst_shows_each_log_once_both_ways(api: Api, order: str, by: str) -> None:
    stored = rows(50)
    await api.put(*stored)
    middle = stored[20]
    around = str(middle["id"]) if by == "log" else middle["timestamp"].isoformat().replace("+00:00", "Z")
    question = {"order": order, "limit": 7, "q": "message", "around": around}
    first = await api.get("logs", LogPage, **question)
    assert ids(first["logs"])[0] == middle["id"]
    assert first["tail"] is None
    await api.put(*rows(5))
    onward, back = ids(first["logs"]), list[int]()
    page = first
    while page["next_cursor"] is not None:
        page = await api.get("logs", LogPage, **question, cursor=page["next_cursor"])
        onward += ids(page["logs"])
    page = first
    while page["prev_cursor"] is not None:
        page = await api.get("logs", LogPage, **question, cursor=page["prev_cursor"])
        back = ids(page["logs"]) + back
    expected = [row["id"] for row in stored]
    assert back + onward == (expected if order == "asc" else expected[::-1])


async def test_a_place_that_cannot_be_read_is_not_found(api: Api) -> None:
    await api.put(*rows(3, service_name="other/secret"))
    api.act_as(Principal("ann", may_write=NO_SERVICES, may_read=ServiceScope(names=frozenset({"shop"}))))
    hidden = await api.connection.execute(b"SELECT id FROM logs LIMIT 1")
    (log_id,) = await hidden.fetchone() or (0,)
    await api.problem("logs", 404, around=str(log_id))
    await api.problem("logs", 404, around="17")
    for wrong in ("", "yesterday", str(2**63)):
        problem = await api.problem("logs", 422, around=wrong)
        assert problem["errors"][0]["field"] == "around"
    page = await api.get("logs", LogPage, around="-1h")
    assert (page["logs"], page["next_cursor"]) == ([], None)
