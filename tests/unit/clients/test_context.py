"""What is bound to the work at hand, and where it goes: into logs, answers, and requests to others."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable
from contextvars import copy_context
from typing import Any

import httpx
import pytest
from logfeed_client import (
    CorrelationMiddleware,
    WsgiCorrelationMiddleware,
    bind,
    correlation,
    correlation_id,
    outgoing_headers,
    propagate,
    propagate_async,
)
from logfeed_client.context import current
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route
from starlette.websockets import WebSocket

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


def test_ids_and_fields_hold_within_and_no_longer() -> None:
    assert correlation_id() is None
    with correlation("order-1") as found, bind(user="u-1"):
        assert (found, correlation_id()) == ("order-1", "order-1")
        with bind(step=2), correlation() as inner:
            assert correlation_id() == inner != "order-1"
            assert current().bound == '"user":"u-1","step":2,'
        assert correlation_id() == "order-1"
        assert current().bound == '"user":"u-1",'
    assert correlation_id() is None
    assert current().bound == ""


def test_ids_that_are_too_long_are_cut_and_fields_bounded() -> None:
    with correlation("x" * 500) as found, bind(large="y" * 10**6):
        assert len(found) == 128
        assert len(current().bound) < 10_000


async def test_tasks_have_the_context_they_were_made_in() -> None:
    async def read() -> str | None:
        await asyncio.sleep(0)
        return correlation_id()

    with correlation("first"):
        first = asyncio.create_task(read())
    with correlation("second"):
        second = asyncio.create_task(read())
    assert (await first, await second) == ("first", "second")


def test_a_thread_has_it_where_it_is_handed_on() -> None:
    found: list[str | None] = []
    with correlation("first"):
        context = copy_context()
        for run in (
            lambda: context.run(lambda: found.append(correlation_id())),
            lambda: found.append(correlation_id()),
        ):
            thread = threading.Thread(target=run)
            thread.start()
            thread.join()
    assert found == ["first", None]


def test_requests_take_it_along() -> None:
    seen: list[httpx.Headers] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers)
        return httpx.Response(200)

    transport = httpx.MockTransport(answer)
    with httpx.Client(transport=transport, event_hooks={"request": [propagate]}) as client:
        client.get("http://other")
        with correlation(TRACE):
            client.get("http://other")
            client.get("http://other", headers={"X-Correlation-ID": "own"})

    async def ask() -> None:
        async with httpx.AsyncClient(transport=transport, event_hooks={"request": [propagate_async]}) as client:
            with correlation("order-1"):
                await client.get("http://other")

    asyncio.run(ask())
    assert [headers.get("X-Correlation-ID") for headers in seen] == [None, TRACE, "own", "order-1"]
    assert seen[1]["traceparent"].startswith(f"00-{TRACE}-")
    assert outgoing_headers() == {}


def test_requests_of_the_library_of_that_name_too() -> None:
    requests = pytest.importorskip("requests")
    with correlation("order-1"):
        prepared = requests.Request("GET", "http://other", auth=propagate).prepare()
    assert prepared.headers["X-Correlation-ID"] == "order-1"


# --- ASGI


async def show(request: Request) -> PlainTextResponse:
    headers = {"X-Correlation-ID": "own"} if request.url.path == "/own" else {}
    return PlainTextResponse(str(correlation_id()), headers=headers)


async def stream(_: Request) -> StreamingResponse:
    async def pieces() -> Any:
        for _ in range(2):
            yield f"{correlation_id()} "

    return StreamingResponse(pieces())


async def test_asgi_requests_have_the_id_that_they_bring() -> None:
    app = Starlette(routes=[Route("/", show), Route("/own", show), Route("/stream", stream)])
    app.add_middleware(CorrelationMiddleware)
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        answer = await client.get("/", headers={"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"})
        assert (answer.text, answer.headers["X-Correlation-ID"]) == (TRACE, TRACE)
        answer = await client.get("/stream", headers={"X-Request-ID": "r-1"})
        assert (answer.text, answer.headers["X-Correlation-ID"]) == ("r-1 r-1 ", "r-1")
        answer = await client.get("/own")
        assert answer.headers.get_list("X-Correlation-ID") == ["own"]
        made = [(await client.get("/")).text for _ in range(2)]
        assert len(set(made)) == 2
        twice = [("X-Correlation-ID", "one"), ("X-Correlation-ID", "two")]
        assert (await client.get("/", headers=twice)).text not in ("one", "two", "one,two")
        both = [("traceparent", f"00-{TRACE}-00f067aa0ba902b7-01"), ("tracestate", "a=1"), ("tracestate", "b=2")]
        assert (await client.get("/", headers=both)).text == TRACE
    assert correlation_id() is None


async def test_asgi_websockets_too_and_nothing_else() -> None:
    sent: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            await WebSocket(scope, receive, send).accept()
        sent.append(correlation_id())

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    wrapped = CorrelationMiddleware(app)
    await wrapped({"type": "websocket", "headers": [(b"x-correlation-id", b"w-1")]}, receive, send)
    await wrapped({"type": "lifespan"}, receive, send)
    assert (b"x-correlation-id", b"w-1") in sent[0]["headers"]
    assert sent[1:] == ["w-1", None]


# --- WSGI


def test_wsgi_requests_have_the_id_that_they_bring_to_the_end_of_their_body() -> None:
    closed: list[str | None] = []

    class Body:
        def __iter__(self) -> Any:
            for _ in range(2):
                yield f"{correlation_id()} ".encode()

        def close(self) -> None:
            closed.append(correlation_id())

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return Body()

    headers: list[tuple[str, str]] = []

    def start(status: str, given: list[tuple[str, str]]) -> None:
        assert status == "200 OK"
        headers.extend(given)

    body: Any = WsgiCorrelationMiddleware(app)({"HTTP_X_REQUEST_ID": "r-1"}, start)
    with correlation("the server's own"):
        pieces = list(body)
        body.close()
    assert pieces == [b"r-1 ", b"r-1 "]
    assert closed == ["r-1"]
    assert headers == [("Content-Type", "text/plain"), ("X-Correlation-ID", "r-1")]
    assert correlation_id() is None
