"""What the application answers by itself: problems where no route does, HEAD, health."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from fastapi import APIRouter
from fastapi.responses import StreamingResponse
from starlette.types import Message

from cli.http_app import build_app


class Service:
    """One route of two methods, and another."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self.waiting, self.end = asyncio.Event(), asyncio.Event()
        self.router = APIRouter()

        @self.router.get("/things")
        async def things() -> dict[str, str]:
            """All things."""
            return {"thing": "first"}

        @self.router.get("/endless", include_in_schema=False)
        async def endless() -> StreamingResponse:
            return StreamingResponse(self.body(), headers={"X-Of": "endless"})

        @self.router.get("/slow", include_in_schema=False)
        async def slow() -> dict[str, str]:
            await self.wait()
            return {}

        @self.router.post("/things")
        async def new_thing() -> dict[str, str]:
            """Another thing."""
            return {}

    async def body(self) -> AsyncIterator[bytes]:
        yield b"first"
        await asyncio.Event().wait()

    async def wait(self) -> None:
        self.waiting.set()
        try:
            await self.end.wait()
        finally:
            self.waiting.clear()

    def ready(self) -> list[str]:
        return self.problems


@pytest.fixture
def service() -> Service:
    return Service()


@pytest.fixture
async def http(service: Service) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(build_app([service]))
    async with httpx.AsyncClient(transport=transport, base_url="http://app") as client:
        yield client


def problem(response: httpx.Response, status: int, slug: str) -> dict[str, Any]:
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    document: dict[str, Any] = response.json()
    assert (document["status"], document["type"]) == (status, f"urn:logfeed:problem:{slug}")
    return document


async def test_path_that_does_not_exist_is_a_problem_that_leads_on(http: httpx.AsyncClient) -> None:
    for path in ("/nothing", "/api/v2/logs", "/things/1"):
        document = problem(await http.get(path), 404, "no-such-path")
        assert document["detail"] == f"there is no {path}: /docs lists what there is"
    assert len(problem(await http.get("/" + "x" * 5_000), 404, "no-such-path")["detail"]) < 300


async def test_wrong_method_is_a_problem_that_names_every_right_one(http: httpx.AsyncClient) -> None:
    response = await http.delete("/things")
    assert problem(response, 405, "method-not-allowed")["detail"] == "/things takes GET, POST, got DELETE"
    assert response.headers["allow"] == "GET, POST"


async def test_head_is_get_and_posts_alone_have_none(http: httpx.AsyncClient) -> None:
    for path in ("/things", "/readyz", "/livez", "/openapi.json", "/docs"):
        head, get = await http.head(path), await http.get(path)
        assert (head.status_code, head.headers["content-type"]) == (get.status_code, get.headers["content-type"]), path


async def test_readiness_says_why_not(http: httpx.AsyncClient, service: Service) -> None:
    assert (await http.get("/readyz")).json() == {"ready": True, "problems": []}
    service.problems = ["the moon is away"]
    response = await http.get("/readyz")
    assert (response.status_code, response.json()) == (503, {"ready": False, "problems": ["the moon is away"]})
    assert (await http.get("/livez")).text == "ok\n"


async def test_documentation_comes_from_here_alone(http: httpx.AsyncClient) -> None:
    page = (await http.get("/docs")).text
    assert "://" not in page.replace("http://app/", "").replace("http://www.w3.org/", "")
    assert (await http.get("/", follow_redirects=True)).url.path == "/docs"


def test_what_is_added_is_no_operation(service: Service) -> None:
    assert set(build_app([service]).openapi()["paths"]) == {"/things", "/livez", "/readyz", "/metrics"}


async def head(service: Service, path: str, sent: list[Message]) -> None:
    async def receive() -> Message:
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "HEAD", "path": path, "query_string": b"", "headers": [], "scheme": "http"}
    await build_app([service])({**scope, "http_version": "1.1", "asgi": {"version": "3.0"}}, receive, send)


async def test_head_of_a_body_without_an_end_ends_with_the_headers(service: Service) -> None:
    sent: list[Message] = []
    async with asyncio.timeout(30):
        await head(service, "/endless", sent)
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    assert (b"x-of", b"endless") in sent[0]["headers"]
    assert sent[1] == {"type": "http.response.body"}


async def test_head_of_what_fails_fails_as_get_does(http: httpx.AsyncClient) -> None:
    for path, status in (("/things", 200), ("/nothing", 404), ("/livez", 200)):
        head, get = await http.head(path), await http.get(path)
        assert (head.status_code, head.content) == (status, b"")
        assert head.headers == get.headers


async def test_head_that_still_waits_ends_when_the_server_does(service: Service) -> None:
    sent: list[Message] = []
    async with asyncio.timeout(30):
        asking = asyncio.create_task(head(service, "/slow", sent))
        await service.waiting.wait()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
    assert (service.waiting.is_set(), sent) == (False, [])
