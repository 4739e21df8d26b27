"""Roles that are started before what they need: they listen, say what they wait for, and work once it is there."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from db.migrations import Layout, migrate, migrations
from infra.fleet import Role, free_port, until
from tests.databases import create_database, drop_database

MakeRole = Callable[..., tuple[Role, str]]
LOG = {"service_name": "shop", "message": "hello"}

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def empty_url(embedded_server: str) -> Iterator[str]:
    """A database without a table."""
    url = create_database(embedded_server)
    yield url
    drop_database(embedded_server, url)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[MakeRole]:
    """Starts roles: (role, base URL of what it listens on)."""
    roles: list[Role] = []

    def make(name: str, database_url: str) -> tuple[Role, str]:
        port = free_port()
        clean = {key: value for key, value in os.environ.items() if not key.startswith(("LOGFEED_", "PYTHONDONT"))}
        environment = {
            **clean,
            "LOGFEED_DATABASE__URL": database_url,
            "LOGFEED_HTTP__PORT": str(port),
            "LOGFEED_ACCESS__ENABLED": "false",
            "LOGFEED_WRITER__HEALTH_PORT": str(port),
        }
        role = Role([name], environment, tmp_path / f"{name}.log")
        role.start()
        roles.append(role)
        return role, f"http://127.0.0.1:{port}"

    yield make
    for role in roles:
        role.kill()


async def problems(http: httpx.AsyncClient, url: str) -> list[str] | None:
    """What /readyz says; None while nobody listens."""
    try:
        answer = await http.get(f"{url}/readyz")
    except httpx.TransportError:
        return None
    found: list[str] = answer.json()["problems"]
    assert (answer.status_code == 200) is (not found)
    return found


@asynccontextmanager
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(trust_env=False, timeout=30) as http:
        yield http


async def test_roles_wait_for_migrations_and_say_so(start: MakeRole, empty_url: str) -> None:
    serve, serve_url = start("serve", empty_url)
    write, write_url = start("write", empty_url)
    lacks = f"the database lacks {len(migrations(Layout.NATIVE))} migrations: run `logfeed db migrate`"
    async with client() as http:

        async def all_say_so() -> bool:
            said = [await problems(http, serve_url), await problems(http, write_url)]
            return said == [
                [f"{name} waits: {lacks}" for name in ("ingest", "query", "alerts")],
                [f"the writer waits: {lacks}"],
            ]

        await until(all_say_so, what="both say what they wait for")
        refused = await http.post(f"{serve_url}/api/v1/logs", json=LOG)
        assert refused.status_code == 503
        assert int(refused.headers["retry-after"]) > 0
        await migrate(empty_url, Layout.NATIVE)

        async def all_ready() -> bool:
            return await problems(http, serve_url) == [] == await problems(http, write_url)

        await until(all_ready, what="both are ready")
        assert (await http.post(f"{serve_url}/api/v1/logs", json=LOG)).status_code == 201

        async def is_shown() -> bool:
            return bool((await http.get(f"{serve_url}/api/v1/logs")).json()["count"] == 1)

        await until(is_shown, what="the log is stored and shown")
    assert "run `logfeed db migrate`" in serve.log_text()
    assert (serve.stop(), write.stop()) == (0, 0)


async def test_server_without_its_database_listens_refuses_and_works_on_its_return(
    start: MakeRole, native_url: str
) -> None:
    place = urlsplit(native_url)
    assert place.hostname is not None
    assert place.port is not None
    port = free_port()

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            writer.write(data)
        writer.close()

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_connection(place.hostname, place.port)
        await asyncio.gather(pump(reader, there_writer), pump(there_reader, writer), return_exceptions=True)

    away_url = native_url.replace(f":{place.port}/", f":{port}/")
    assert away_url != native_url
    serve, url = start("serve", away_url)
    async with client() as http:

        async def says_so() -> bool:
            said = await problems(http, url)
            return (
                said is not None and len(said) == 3 and all("cannot connect to the database" in each for each in said)
            )

        await until(says_so, what="it says that the database is away")
        for answer in (await http.post(f"{url}/api/v1/logs", json=LOG), await http.get(f"{url}/api/v1/logs")):
            assert answer.status_code == 503, answer.text
            assert "retry-after" in answer.headers
        assert (await http.get(f"{url}/livez")).status_code == 200
        async with await asyncio.start_server(forward, "127.0.0.1", port):

            async def is_ready() -> bool:
                return await problems(http, url) == []

            await until(is_ready, what="it is ready")
            assert (await http.post(f"{url}/api/v1/logs", json=LOG)).status_code == 201
            assert await asyncio.to_thread(serve.stop) == 0


async def test_stop_while_waiting_ends_at_once(start: MakeRole, empty_url: str) -> None:
    serve, url = start("serve", empty_url)
    async with client() as http:

        async def waits() -> bool:
            return bool(await problems(http, url))

        await until(waits, what="it waits")
    assert serve.stop(20) == 0
