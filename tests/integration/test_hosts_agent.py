"""A real agent and a real server: heard of, listed, searched, followed; who may not read, who leaves, an agent begun anew."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from agent.main import Agent
from agent.metrics import LINES, READERS
from agent.settings import AgentSettings
from runtime.certificate import Certificate
from runtime.stopping import Stop
from tests.access_site import Site, running, soon
from tests.app_server import serving
from tests.certificates import make_pair

PATH: Final = "/api/v1/hosts"


@pytest.fixture
async def site(native_url: str) -> AsyncIterator[Site]:
    async with running(native_url, audit=False, hosts={"check_s": 0.2}) as site:
        yield site


@asynccontextmanager
async def agent(directory: Path, port: int, key: str, *, ship: bool = False, **more: Any) -> AsyncIterator[Agent]:
    """An agent of web-1 until the block ends. more: of its settings."""
    roots: dict[str, Any] = {
        name: {"path": str(directory / name), "service": name, "ship": ship} for name in ("nginx", "shop")
    }
    settings = AgentSettings.model_validate(
        {
            "name": "web-1",
            "url": f"http://127.0.0.1:{port}",
            "port": 0,
            "state_dir": str(directory / "state"),
            "roots": roots,
            **more,
        }
    )
    stop = Stop()
    made = Agent(settings, {"LOGFEED_API_KEY": key})
    work = asyncio.create_task(made.run(stop))
    try:
        yield made
    finally:
        stop.set()
        await work


async def test_files_of_a_real_agent_are_read_by_who_may_and_followed_until_they_leave(
    site: Site, tmp_path: Path
) -> None:
    for name in ("nginx", "shop", "state"):
        (tmp_path / name).mkdir()
    access = tmp_path / "nginx" / "access.log"
    access.write_text("".join(f"GET /{n} {200 + 300 * (n % 2)}\n" for n in range(10)))
    (tmp_path / "shop" / "app.log").write_text("paid\n")
    key = (await site.key("host:web-1", "write:nginx")).text
    nginx, every = (await site.key("read:nginx")).text, (await site.key("admin:*")).text
    async with serving(site.app) as port:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:

            async def get(token: str, path: str, status: int = 200, **parameters: Any) -> httpx.Response:
                answer = await client.get(PATH + path, params=parameters, headers={"Authorization": f"Bearer {token}"})
                assert answer.status_code == status, answer.text
                return answer

            async def is_readable() -> bool:
                headers = {"Authorization": f"Bearer {every}"}
                return (await client.get(f"{PATH}/web-1/files", headers=headers)).status_code == 200

            async with agent(tmp_path, port, key):
                await soon(is_readable, "the server hears of the host")
                [host] = (await get(nginx, "")).json()["hosts"]
                assert (host["host"], host["status"], host["services"]) == ("web-1", "up", ["nginx"])
                files = (await get(every, "/web-1/files", limit=1)).json()
                assert [file["name"] for file in files["files"]] == ["nginx/access.log"]
                rest = (await get(every, "/web-1/files", cursor=files["next_cursor"])).json()
                assert [file["name"] for file in rest["files"]] == ["shop/app.log"]
                assert [file["name"] for file in (await get(nginx, "/web-1/files")).json()["files"]] == [
                    "nginx/access.log"
                ]

                found = await get(nginx, "/web-1/files/nginx/access.log", keyword=" 500", n=2)
                *lines, end = map(json.loads, found.text.splitlines())
                assert [line["line"] for line in lines] == ["GET /9 500", "GET /7 500"]
                assert (end["end"]["status"], end["end"]["lines"]) == ("limit", 2)
                whole = await get(nginx, "/web-1/files/nginx/access.log", regex="^GET /[0-3] ", format="text")
                assert whole.text.endswith("#logfeed end status=complete lines=4\n")
                await get(nginx, "/web-1/files/shop/app.log", 404)
                await get(nginx, "/web-1/files/nginx/none.log", 404)
                assert "regex" in (await get(nginx, "/web-1/files/nginx/access.log", 422, regex="(")).json()["detail"]

                asked = client.stream(
                    "GET",
                    f"{PATH}/web-1/files/nginx/access.log",
                    params={"follow": "true", "n": 0},
                    headers={"Authorization": f"Bearer {nginx}"},
                )
                async with asked as answer:
                    assert answer.status_code == 200
                    coming = answer.aiter_lines()
                    with access.open("a") as file:
                        file.write("GET /new 200\n")
                    async with asyncio.timeout(30):
                        assert json.loads(await anext(coming))["line"] == "GET /new 200"
                    assert READERS._value.get() == 1

                async def has_ended() -> bool:
                    return bool(READERS._value.get() == 0)

                await soon(has_ended, "the agent goes on although nobody reads")
            # Another start has another token and another port; it is read as soon as it is heard of.
            async with agent(tmp_path, port, key):
                await soon(is_readable, "the server hears of the host again")


async def test_lines_and_questions_go_over_tls_and_to_nobody_whom_the_private_authorities_do_not_know(
    native_url: str, tmp_path: Path
) -> None:
    for name in ("nginx", "shop", "state"):
        (tmp_path / name).mkdir()
    (tmp_path / "nginx" / "access.log").write_text("GET /one 200\n")
    ours, theirs, others = (make_pair(tmp_path, name) for name in ("server", "agent", "other"))
    accepted = LINES.labels(outcome="accepted")._value
    before = accepted.get()
    shown: dict[str, Any] = {"tls_cert": str(theirs.cert), "tls_key": str(theirs.key)}
    async with (
        running(native_url, audit=False, hosts={"check_s": 0.2, "ca_file": str(theirs.cert)}) as site,
        serving(site.app, context=Certificate(*ours).shown()) as port,
        httpx.AsyncClient(
            base_url=f"https://127.0.0.1:{port}", trust_env=False, verify=ssl.create_default_context(cafile=ours.cert)
        ) as client,
    ):
        key = (await site.key("host:web-1", "write:*")).text
        headers = {"Authorization": f"Bearer {(await site.key('admin:*')).text}"}

        async def asked(path: str) -> httpx.Response:
            return await client.get(PATH + path, headers=headers)

        url = f"https://127.0.0.1:{port}"
        async with agent(tmp_path, port, key, ship=True, url=url, ca_file=str(others.cert), **shown) as stranger:

            async def has_given_up() -> bool:
                return any("certificate verify failed" in problem for problem in stranger.problems())

            await soon(has_given_up, "the agent sends to a server that it cannot believe")
        assert (await asked("")).json()["hosts"] == []
        assert accepted.get() == before

        async with agent(tmp_path, port, key, ship=True, url=url, ca_file=str(ours.cert), **shown):

            async def has_sent() -> bool:
                return bool(accepted.get() == before + 1)

            async def is_readable() -> bool:
                return (await asked("/web-1/files")).status_code == 200

            await soon(has_sent, "no line arrives")
            await soon(is_readable, "the server does not reach the agent")
            found = await asked("/web-1/files/nginx/access.log?n=1")
            assert json.loads(found.text.splitlines()[0])["line"] == "GET /one 200"

        shown = {"tls_cert": str(others.cert), "tls_key": str(others.key)}
        async with agent(tmp_path, port, key, url=url, ca_file=str(ours.cert), **shown):

            async def is_refused() -> bool:
                return (await asked("/web-1/files")).status_code == 502

            await soon(is_refused, "the server believes an agent that its authorities do not know")
