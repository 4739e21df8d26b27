"""The agent's own API: only with its token, only what the scope permits, always an end that says how it ended."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from agent.api import AgentApi
from agent.health import health_app
from agent.reading.pool import ReaderPool
from agent.roots import Root
from runtime.clock import SystemClock
from runtime.http import HttpSettings
from tests.app_server import serving

TOKEN = "t" * 43
EVERYTHING = {"scope": '{"all": true}'}
SHOP = {"scope": '{"names": ["shop"]}'}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("shop", "mail"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.log").write_text("".join(f"{name} line {number}\n" for number in range(5)))
    (tmp_path / "shop" / "b.log.1.gz").write_bytes(b"\x1f\x8b")
    return tmp_path


def api_of(folder: Path, **options: Any) -> tuple[AgentApi, ReaderPool]:
    pool = ReaderPool(threads=2, readers_max=options.pop("readers_max", 4))
    roots = [Root(name, folder / name, name, ("**",)) for name in ("shop", "mail")]
    limits = {"read_s_max": 30.0, "follow_s_max": 30.0, **options}
    return AgentApi(roots, pool, SystemClock(), token=TOKEN, ready=list, **limits), pool


def client_of(api: AgentApi, token: str | None = TOKEN, address: str = "10.0.0.1") -> httpx.AsyncClient:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    transport = httpx.ASGITransport(app=api, client=(address, 1))
    return httpx.AsyncClient(transport=transport, base_url="http://agent.test", headers=headers)


@pytest.fixture
async def client(folder: Path) -> AsyncIterator[httpx.AsyncClient]:
    api, pool = api_of(folder)
    async with client_of(api) as client:
        yield client
    pool.stop()


def records(response: httpx.Response) -> list[dict[str, Any]]:
    assert response.status_code == 200, response.text
    return [json.loads(line) for line in response.text.splitlines()]


async def answered(client: httpx.AsyncClient, path: str) -> None:
    """Ask until there is a place again."""
    async with asyncio.timeout(20):
        status = 0
        while status != 200:
            status = (await client.get(path, params=SHOP)).status_code
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("token", [None, "", "x", TOKEN[:-1], TOKEN + "t", "é"])
async def test_nobody_gets_in_without_the_token(folder: Path, token: str | None) -> None:
    api, pool = api_of(folder)
    async with client_of(api, None) as client:
        headers = {} if token is None else {"Authorization": f"Bearer {token}".encode()}
        for path in ("/files", "/files/shop/a.log", "/nowhere", "/metrics", "/readyz"):
            response = await client.get(path, params=EVERYTHING, headers=headers)  # type: ignore[arg-type]  # bytes
            assert response.status_code == 401
            assert response.headers["content-type"] == "application/problem+json"
            assert response.headers["www-authenticate"] == "Bearer"
    async with client_of(api, None, "127.0.0.1") as local:
        assert (await local.get("/readyz")).json() == {"ready": True, "problems": []}
        assert b"logfeed_agent_readers" in (await local.get("/metrics")).content
        assert (await local.get("/files")).status_code == 401
    pool.stop()


async def test_files_are_listed_in_pages_of_what_the_scope_permits(client: httpx.AsyncClient) -> None:
    answer = (await client.get("/files", params=SHOP)).json()
    assert [(file["name"], file["compressed"], file["rotated"]) for file in answer["files"]] == [
        ("shop/a.log", None, False),
        ("shop/b.log.1.gz", "gzip", True),
    ]
    assert answer["files"][0]["bytes"] == 60
    assert answer["files"][0]["service_name"] == "shop"
    assert answer["errors"] == []
    found, cursor = [], None
    while True:
        page = {"limit": "1", **({} if cursor is None else {"cursor": cursor})}
        answer = (await client.get("/files", params={**EVERYTHING, **page})).json()
        found += [file["name"] for file in answer["files"]]
        if (cursor := answer["next_cursor"]) is None:
            break
    assert found == ["mail/a.log", "shop/a.log", "shop/b.log.1.gz"]
    assert (await client.get("/files", params={"scope": "{}"})).json()["files"] == []


@pytest.mark.parametrize(
    "path",
    ["mail/a.log", "shop/none.log", "none/a.log", "shop", "shop/", "shop/../mail/a.log", "shop/%2e%2e/mail/a.log"],
)
async def test_what_the_scope_does_not_permit_is_not_there(client: httpx.AsyncClient, path: str) -> None:
    response = await client.get(f"/files/{path}", params=SHOP)
    assert response.status_code == 404
    assert response.json()["type"] == "urn:logfeed:problem:no-such-file"


async def test_lines_come_newest_first_and_end_with_how_it_ended(client: httpx.AsyncClient) -> None:
    response = await client.get("/files/shop/a.log", params={**SHOP, "n": "2"})
    assert response.headers["content-type"] == "application/x-ndjson"
    found = records(response)
    assert [record.get("line") for record in found] == ["shop line 4", "shop line 3", None]
    assert found[-1] == {"end": {"status": "limit", "lines": 2, "scanned_bytes": 48, "error": None}}
    found = records(await client.get("/files/shop/a.log", params={**SHOP, "keyword": ["LINE", "2"], "case": "false"}))
    assert [record.get("line") for record in found] == ["shop line 2", None]
    text = await client.get("/files/shop/a.log", params={**SHOP, "format": "text", "regex": "[13]$"})
    assert text.text == "shop line 3\nshop line 1\n#logfeed end status=complete lines=2\n"


async def test_what_breaks_in_mid_stream_is_told_at_the_end(client: httpx.AsyncClient) -> None:
    (end,) = records(await client.get("/files/shop/b.log.1.gz", params=SHOP))
    assert end["end"]["status"] == "error"
    assert "too early" in end["end"]["error"]


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"scope": "all"},
        {"scope": '{"all": 1}'},
        {"scope": '{"every": true}'},
        {**SHOP, "n": "0"},
        {**SHOP, "n": "-1"},
        {**SHOP, "n": "²"},
        {**SHOP, "n": ["1", "2"]},
        {**SHOP, "regex": "("},
        {**SHOP, "follow": "yes"},
        {**SHOP, "format": "xml"},
        {**SHOP, "max_s": "0"},
        {**SHOP, "keywords": "x"},
        {**SHOP, "cursor": "x"},
    ],
)
async def test_parameters_that_are_not_valid_are_refused(client: httpx.AsyncClient, params: Any) -> None:
    response = await client.get("/files/shop/a.log", params=params)
    assert response.status_code == 422
    assert response.json()["errors"][0]["error"]


@pytest.mark.parametrize("cursor", ["%", "a", "_w", "é", "x" * 9_000])
async def test_cursors_that_no_list_gave_are_refused(client: httpx.AsyncClient, cursor: str) -> None:
    assert (await client.get("/files", params={**SHOP, "cursor": cursor})).status_code in (200, 422)
    assert (await client.get("/files", params={**SHOP, "limit": "1001"})).status_code == 422


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "HEAD", "OPTIONS"])
async def test_only_get_is_answered(client: httpx.AsyncClient, method: str) -> None:
    response = await client.request(method, "/files", params=EVERYTHING)
    assert response.status_code == 405
    assert response.headers["allow"] == "GET"


async def test_following_goes_on_over_a_real_connection_and_gives_its_place_back(folder: Path) -> None:
    api, pool = api_of(folder, readers_max=1)
    log = folder / "shop" / "a.log"
    async with serving(api, HttpSettings()) as port:
        headers = {"Authorization": f"Bearer {TOKEN}"}
        base = f"http://127.0.0.1:{port}"
        async with httpx.AsyncClient(base_url=base, headers=headers, trust_env=False, timeout=30) as client:
            question = {**SHOP, "follow": "true", "n": "1"}
            async with client.stream("GET", "/files/shop/a.log", params=question) as response:
                lines = response.aiter_lines()
                assert json.loads(await anext(lines))["line"] == "shop line 4"
                with log.open("a") as file:
                    file.write("one more\n")
                assert json.loads(await anext(lines))["line"] == "one more"
                refused = await client.get("/files", params=SHOP)
                assert refused.status_code == 503
                assert int(refused.headers["retry-after"]) >= 1
            await answered(client, "/files")
    pool.stop()


async def test_an_answer_ends_at_its_deadline(folder: Path) -> None:
    api, pool = api_of(folder, follow_s_max=1.0)
    async with client_of(api) as client:
        found = records(await client.get("/files/shop/a.log", params={**SHOP, "follow": "true", "n": "0"}))
    assert found == [{"end": {"status": "deadline", "lines": 0, "scanned_bytes": 0, "error": None}}]
    pool.stop()


async def test_a_file_system_that_hangs_holds_threads_and_nobody_else(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hangs, released = threading.Event(), threading.Event()
    read = os.pread

    def hang(descriptor: int, size: int, offset: int) -> bytes:
        hangs.set()
        released.wait(30)
        return read(descriptor, size, offset)

    api, pool = api_of(folder, readers_max=1)
    monkeypatch.setattr("agent.api._STEP_S", 0.2)
    monkeypatch.setattr(os, "pread", hang)
    async with client_of(api) as client:
        stuck = await client.get("/files/shop/a.log", params=SHOP)
        assert stuck.status_code == 503
        assert hangs.is_set()
        assert (
            (await client.get("/files/shop/a.log", params=SHOP)).json()["detail"].startswith("1 files are being read")
        )
        released.set()
        monkeypatch.setattr(os, "pread", read)
        await answered(client, "/files/shop/a.log")
    pool.stop()


async def test_any_name_that_a_file_may_have_is_asked_for(client: httpx.AsyncClient, folder: Path) -> None:
    for name in ("a#1.log", "a?b.log", "a b%2F.log", "é.log"):
        (folder / "shop" / name).write_text(f"in {name}\n")
        found = records(await client.get(f"/files/shop/{quote(name)}", params=SHOP))
        assert found[0]["line"] == f"in {name}"


async def test_probes_and_prometheus_are_answered_by_a_listener_of_its_own_and_nothing_else_is() -> None:
    problems: list[str] = []
    transport = httpx.ASGITransport(app=health_app(lambda: problems), client=("10.0.0.1", 1))
    async with httpx.AsyncClient(transport=transport, base_url="http://agent.test") as client:
        assert (await client.get("/livez")).text == "ok\n"
        assert (await client.get("/readyz")).json() == {"ready": True, "problems": []}
        problems.append("the server is away")
        assert (await client.get("/readyz")).status_code == 503
        assert "logfeed_agent_lag_bytes" in (await client.get("/metrics")).text
        for path in ("/files", "/files/shop/a.log", "/", "/metrics/"):
            assert (await client.get(path, params=EVERYTHING)).status_code == 404
        assert (await client.post("/livez")).status_code == 404
