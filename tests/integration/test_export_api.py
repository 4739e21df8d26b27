"""Exports over HTTP: the whole result and nothing else, over all tiers, or a connection that ends without its end."""

from __future__ import annotations

import asyncio
import csv
import io
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from access.audit import AuditLog, Look
from access.errors import Unauthenticated
from access.principal import ANYONE, Principal
from cli.http_app import build_app
from db.migrations import Layout
from query.main import QueryService
from query.settings import QuerySettings
from runtime.http import HttpSettings
from runtime.telemetry import REGISTRY
from schemas.errors import DatabaseUnavailable
from schemas.export_lines import COLUMNS
from schemas.scope import ALL_SERVICES, NO_SERVICES, ServiceScope
from store.memory import CHUNK_US
from store.postgres_read import PostgresReadStore
from store.segments.settings import SegmentSettings
from store.tiers.access import SegmentAccess
from tests.app_server import serving
from tests.integration.test_query_api import check_problem
from tests.reading_subjects import HOUR, T0, TieredSubject, a_log, moment
from tests.tiered_rows import READER

MANY = 50_000


async def nothing_unread() -> dict[int, int]:
    return {}


class Noted(AuditLog):
    """What it was told."""

    def __init__(self) -> None:
        self.looks: list[Look] = []

    def check(self) -> None:
        """There is room."""

    def note(self, principal: Principal, look: Look) -> None:
        """Keep it."""
        self.looks.append(look)


@dataclass
class Served:
    """A query service on a socket."""

    subject: TieredSubject
    client: httpx.AsyncClient
    service: QueryService
    audit: Noted
    rights: dict[str, Principal] = field(default_factory=dict)
    """Subject -> what it may now; who is not named may what it might at first."""

    def act_as(self, principal: Principal) -> None:
        async def authenticate(_: Any) -> Principal:
            return principal

        self.service.authenticate = authenticate

    async def lines(self, **parameters: Any) -> list[dict[str, Any]]:
        response = await self.client.get("/api/v1/export", params=parameters)
        assert response.status_code == 200, response.text
        return [json.loads(line) for line in response.text.splitlines()]

    async def paged(self, **parameters: Any) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        cursor: dict[str, str] = {}
        while True:
            page = (await self.client.get("/api/v1/logs", params={**parameters, "limit": 1_000, **cursor})).json()
            found += page["logs"]
            if page["next_cursor"] is None:
                return found
            cursor = {"cursor": page["next_cursor"]}


@asynccontextmanager
async def served(subject: TieredSubject, http: HttpSettings | None = None, **settings: Any) -> AsyncIterator[Served]:
    audit = Noted()
    rights: dict[str, Principal] = {}

    def current(principal: Principal) -> Principal:
        now = rights.get(principal.subject, principal)
        if now.may_export.is_empty:
            raise Unauthenticated("this key was revoked")
        return now

    service = QueryService(
        QuerySettings(**settings),
        database=subject.database,
        layout=subject.layout,
        unread=nothing_unread,
        segments=SegmentAccess(subject.directory, READER),
        audit=audit,
        current=current,
    )
    await service.start()
    async with (
        serving(build_app([service]), http) as port,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60) as client,
    ):
        yield Served(subject, client, service, audit, rights)
    await service.stop()


@pytest.fixture
async def subject(native_url: str, tmp_path: Path) -> AsyncIterator[TieredSubject]:
    made = await TieredSubject(native_url, Layout.NATIVE, tmp_path / "segments").open()
    yield made
    await made.close()


async def with_many_rows(subject: TieredSubject) -> None:
    """Of three chunks: one in files alone, one in files and its table, one open; and late ones."""
    subject.HOMES = (("serving", True), ("written", False))
    subject.USING = SegmentSettings(row_group_rows=4_096)
    await subject.open_chunks(T0 + n * CHUNK_US for n in range(3))
    insert = """
        INSERT INTO {} (timestamp, id, level, service_name, correlation_id, message, metadata)
        SELECT %s + n * interval '1 microsecond' * %s, %s + n, 1 + n %% 24, (ARRAY['shop', 'pay', 'pay/cards'])[1 + n %% 3],
               NULL, 'message ' || n, jsonb_build_object('n', n)
        FROM generate_series(1, %s) AS n"""
    rows = MANY - 1_000
    first = a_log(0, at=0).id
    await subject.run(insert.format("logs"), moment(T0), 3 * CHUNK_US // MANY, first, rows)
    await subject.close_before(T0 + 2 * CHUNK_US)
    await subject.finish()
    await subject.run(insert.format("logs_late_1"), moment(T0), 1_000_000, first + MANY, 1_000)


@pytest.mark.timeout(240)
async def test_an_export_is_what_paging_gives_over_all_tiers(subject: TieredSubject) -> None:
    await with_many_rows(subject)
    async with served(subject) as api:
        for parameters in ({"order": "asc"}, {"service_name": "pay*", "min_level": "error"}):
            found = await api.lines(**parameters)
            assert found == await api.paged(**parameters)
            assert len(found) == (MANY if "order" in parameters else len(found))
        assert len(found) > MANY // 10
        ends = [look.rows for look in api.audit.looks if look.phase == "end"]
        assert ends == [MANY, len(found)]
        assert [look.phase for look in api.audit.looks if look.path == "/api/v1/export"] == ["begin", "end"] * 2


async def test_a_csv_has_the_columns_of_files_and_no_formula(subject: TieredSubject) -> None:
    await subject.open_chunks([T0])
    evil = ["=1+1", "+1", "-1", "@a", "\tx", "\rx", 'a,"b"\nc', "plain"]
    await subject.put(a_log(n, at=n, message=text, correlation_id=text) for n, text in enumerate(evil))
    async with served(subject) as api:
        response = await api.client.get(
            "/api/v1/export", params={"format": "csv", "order": "asc", "service_name": "shop"}
        )
        name = response.headers["content-disposition"]
        assert name.startswith('attachment; filename="logfeed-shop-2')
        assert name.endswith('Z.csv"')
        assert response.headers["content-type"].startswith("text/csv")
        assert response.headers["cache-control"] == "no-store"
        head, *records = csv.reader(io.StringIO(response.text, newline=""))
        assert head == list(COLUMNS)
        expected = [f"'{text}" if text[0] in "=+-@\t\r" else text for text in evil]
        assert [record[head.index("message")] for record in records] == expected
        assert [record[head.index("correlation_id")] for record in records] == expected
        assert [json.loads(record[head.index("metadata")]) for record in records] == [
            {"n": n} for n in range(len(evil))
        ]
        empty = await api.client.get("/api/v1/export", params={"format": "csv", "q": "nowhere"})
        assert empty.text == ",".join(COLUMNS) + "\r\n"
        none = await api.client.get("/api/v1/export", params={"q": "nowhere"})
        assert (none.status_code, none.text) == (200, "")
        assert '"logfeed-logs-' in none.headers["content-disposition"]


async def test_what_comes_meanwhile_is_not_in_it(subject: TieredSubject) -> None:
    await subject.open_chunks([T0])
    await subject.put(a_log(n, at=n) for n in range(3_000))
    async with served(subject) as api, api.client.stream("GET", "/api/v1/export?order=asc") as response:
        lines = response.aiter_lines()
        found = [await anext(lines)]
        await subject.put(a_log(3_000 + n, at=3_000 + n) for n in range(10))
        found += [line async for line in lines]
    assert [json.loads(line)["metadata"]["n"] for line in found] == list(range(3_000))


async def test_only_services_that_may_be_exported_are(subject: TieredSubject) -> None:
    await subject.open_chunks([T0])
    await subject.put(a_log(n, at=n, service_name=("shop", "pay", "mail")[n % 3]) for n in range(9))
    async with served(subject) as api:
        ann = Principal(
            "ann", may_write=NO_SERVICES, may_read=ALL_SERVICES, may_export=ServiceScope(prefixes=frozenset({"pa"}))
        )
        api.act_as(ann)
        assert {line["service_name"] for line in await api.lines()} == {"pay"}
        assert await api.lines(service_name="shop") == []
        api.act_as(Principal("bob", may_write=NO_SERVICES, may_read=ALL_SERVICES))
        problem = check_problem(await api.client.get("/api/v1/export"), 403)
        assert problem["detail"] == "you may not export the logs of any service"


@pytest.mark.parametrize(
    "parameters, named",
    [
        ({"format": "xml"}, "format"),
        ({"limit": "5"}, "limit"),
        ({"order": "up"}, "order"),
        ({"start_time": "x"}, "start_time"),
    ],
)
async def test_mistakes_are_problems_before_the_first_byte(
    subject: TieredSubject, parameters: dict[str, str], named: str
) -> None:
    async with served(subject) as api:
        problem = check_problem(await api.client.get("/api/v1/export", params=parameters), 422)
        assert problem["errors"][0]["field"] == named


async def with_large_rows(subject: TieredSubject) -> None:
    """Thirty pages of a megabyte: more than sockets hold."""
    await subject.open_chunks([T0])
    await subject.run(
        "INSERT INTO logs SELECT %s + n * interval '1 ms', %s + n, 9, 'shop', NULL, repeat('x', 60000) || n, '{}'"
        " FROM generate_series(1, 600) AS n",
        moment(T0),
        a_log(0, at=0).id,
    )


async def until(condition: Any, what: str) -> None:
    async with asyncio.timeout(30) as limit:
        while not condition():
            assert not limit.expired(), what
            await asyncio.sleep(0.02)


def running() -> float | None:
    return REGISTRY.get_sample_value("logfeed_query_exports_running")


async def test_a_reader_who_stops_holds_one_page_and_who_leaves_ends_it(subject: TieredSubject) -> None:
    await with_large_rows(subject)
    async with served(subject, page_bytes_max=1 << 20, cache_bytes_max=0) as api:
        async with api.client.stream("GET", "/api/v1/export") as response:
            assert response.status_code == 200
            assert running() == 1
            shown = REGISTRY.get_sample_value("logfeed_query_logs_shown_total")
            await until(lambda: REGISTRY.get_sample_value("logfeed_query_scans_running") == 0, "it holds no place")
            assert shown is not None
        await until(lambda: running() == 0, "the export ends with its reader")
        end = next(look for look in api.audit.looks if look.phase == "end")
        assert 0 < end.rows < 600
        assert len(await api.lines()) == 600


async def test_an_export_that_cannot_go_on_ends_without_its_end(
    subject: TieredSubject, monkeypatch: pytest.MonkeyPatch
) -> None:
    await subject.open_chunks([T0])
    await subject.put(a_log(n, at=n) for n in range(2_500))
    snapshot = PostgresReadStore.snapshot
    calls = 0

    def failing(self: PostgresReadStore) -> Any:
        nonlocal calls
        calls += 1
        if calls > 2:
            raise DatabaseUnavailable("away")
        return snapshot(self)

    async with served(subject, export_patience_s=0) as api:
        with monkeypatch.context() as patch:
            patch.setattr(PostgresReadStore, "snapshot", failing)
            with pytest.raises(httpx.RemoteProtocolError, match="incomplete"):
                await api.client.get("/api/v1/export")
        await until(lambda: running() == 0, "it is over")
        assert [look.rows for look in api.audit.looks if look.phase == "end"] == [2_000]
    calls = 0
    async with served(subject, export_patience_s=30) as api:

        def failing_once(self: PostgresReadStore) -> Any:
            nonlocal calls
            calls += 1
            if calls == 2:
                raise DatabaseUnavailable("away")
            return snapshot(self)

        with monkeypatch.context() as patch:
            patch.setattr(PostgresReadStore, "snapshot", failing_once)
            assert len(await api.lines()) == 2_500


async def test_a_right_that_is_taken_away_ends_an_export(subject: TieredSubject) -> None:
    await with_large_rows(subject)
    async with served(subject, page_bytes_max=1 << 20, cache_bytes_max=0) as api:
        async with api.client.stream("GET", "/api/v1/export") as response:
            api.rights[ANYONE.subject] = Principal(
                ANYONE.subject, may_write=NO_SERVICES, may_read=ALL_SERVICES, may_export=NO_SERVICES
            )
            with pytest.raises(httpx.RemoteProtocolError, match="incomplete"):
                await response.aread()
        del api.rights[ANYONE.subject]
        await until(lambda: running() == 0, "it is over")


async def test_exports_of_one_subject_and_of_all_are_bounded(subject: TieredSubject) -> None:
    await with_large_rows(subject)
    small: dict[str, Any] = {
        "page_bytes_max": 1 << 20,
        "cache_bytes_max": 0,
        "exports_per_subject_max": 1,
        "exports_max": 1,
    }
    async with served(subject, **small) as api:
        async with api.client.stream("GET", "/api/v1/export"):
            problem = check_problem(await api.client.get("/api/v1/export"), 429)
            assert problem["type"].endswith("too-many-exports")
            api.act_as(Principal("bob", may_write=NO_SERVICES, may_read=NO_SERVICES, may_export=ALL_SERVICES))
            check_problem(await api.client.get("/api/v1/export"), 503)
        await until(lambda: running() == 0, "the first has ended")
        assert len(await api.lines(start_time="2026-01-01")) == 600


async def test_a_head_asks_for_the_headers_alone(subject: TieredSubject) -> None:
    await with_large_rows(subject)
    async with served(subject) as api:
        response = await api.client.head("/api/v1/export")
        assert response.status_code == 200
        assert "attachment" in response.headers["content-disposition"]
        await until(lambda: running() == 0, "it is over")


async def test_an_hour_is_asked_for_as_pages_ask(subject: TieredSubject) -> None:
    await subject.open_chunks([T0])
    await subject.put(a_log(n, at=n * HOUR // 4) for n in range(20))
    async with served(subject) as api:
        parameters = {"start_time": "2026-01-01T01:00:00Z", "end_time": "2026-01-01T02:00:00Z"}
        assert await api.lines(**parameters) == await api.paged(**parameters)
        assert len(await api.lines(**parameters)) == 4
