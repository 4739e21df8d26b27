"""A subscriber takes answers of Logfeed's and nothing else: each is refused with a reason, none is taken for a success."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import httpx
import pytest
from logfeed_client import AsyncSubscriber, Gap, Subscriber, SubscriptionError, subscriber

RECORD = b'{"partition":0,"offset":1,"key":"shop","log":{"id":"1"}}'


@contextmanager
def answering(status: int, body: bytes) -> Iterator[str]:
    """A server that says this to whatever is asked; its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: Any) -> None:
            """Nothing."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize(
    "body",
    [
        b"<html>log in</html>",
        b"[]",
        b"{}",
        b'{"records":{},"next":"0:1"}',
        b'{"records":[1],"next":"0:1"}',
        b'{"records":[{"partition":"0","offset":1,"key":"shop","log":{"id":"1"}}],"next":"0:1"}',
        b'{"records":[{"partition":0,"offset":1,"key":"shop","log":{}}],"next":"0:1"}',
        b'{"records":[' + RECORD + b'],"next":"nowhere"}',
        b'{"records":[],"next":"0:' + b"9" * 5_000 + b'"}',
        b"[" * 100_000,
        b"\xff",
    ],
)
def test_what_is_no_answer_is_refused(body: bytes) -> None:
    with answering(200, body) as url, Subscriber(url, "t") as records, pytest.raises(SubscriptionError) as raised:
        next(iter(records))
    assert raised.value.status == 200
    assert "is the address right" in raised.value.detail


@pytest.mark.parametrize("body", [b"{}", b"gone", b'{"next":"x"}', b'{"next":"0:1","reason":"expired","detail":""}'])
def test_a_gap_that_leads_nowhere_is_refused_and_not_asked_for_ever(body: bytes) -> None:
    gaps: list[Gap] = []
    with answering(410, body) as url, Subscriber(url, "t", after="0:1", on_gap=gaps.append) as records:
        with pytest.raises(SubscriptionError):
            next(iter(records))
    assert gaps == []


def test_an_answer_without_end_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subscriber, "ANSWER_BYTES_MAX", 1_000)
    with answering(200, b" " * 5_000) as url, Subscriber(url, "t") as records:
        with pytest.raises(SubscriptionError, match="more than 1000 bytes"):
            next(iter(records))


async def test_the_one_for_asyncio_judges_the_same() -> None:
    async def first(status: int, body: bytes) -> str:
        with answering(status, body) as url:
            async with AsyncSubscriber(url, "t", after="0:1") as records:
                async for record in records:
                    return record.id
        raise AssertionError("it ended")

    assert await first(200, b'{"records":[' + RECORD + b'],"next":"0:2"}') == "1"
    for status, body in ((200, b"{}"), (410, b"{}"), (401, b"{}"), (404, b"no")):
        with pytest.raises(SubscriptionError) as raised:
            await first(status, body)
        assert raised.value.status == status


def test_an_answer_is_taken() -> None:
    with answering(200, b'{"records":[' + RECORD + b'],"next":"0:2"}') as url, Subscriber(url, "t") as records:
        assert next(iter(records)).id == "1"


def test_who_begins_now_has_a_place_from_the_first_record_on() -> None:
    """Saved after the first of two records, it leads to the second: `now` would lead past it."""
    other = RECORD.replace(b'"offset":1', b'"offset":7').replace(b'"id":"1"', b'"id":"2"')
    with answering(200, b'{"records":[' + RECORD + b"," + other + b'],"next":"0:8,1:5"}') as url:
        with Subscriber(url, "t", after="now") as records:
            assert next(iter(records)).id == "1"
            assert records.after == "0:2,1:5"


def test_a_client_that_was_closed_is_not_asked_for_ever() -> None:
    closed = httpx.Client()
    closed.close()
    with Subscriber("http://127.0.0.1:9", "t", client=closed) as records, pytest.raises(RuntimeError, match="closed"):
        next(iter(records))


async def test_a_client_of_asyncio_that_was_closed_is_not_asked_for_ever() -> None:
    closed = httpx.AsyncClient()
    await closed.aclose()
    async with AsyncSubscriber("http://127.0.0.1:9", "t", client=closed) as records:
        with pytest.raises(RuntimeError, match="closed"):
            await anext(aiter(records))


def test_its_key_comes_from_the_environment_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGFEED_API_KEY", "lf_from_environment")
    seen: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers["Authorization"])
        return httpx.Response(200, content=b'{"records":[' + RECORD + b'],"next":"0:2"}')

    with Subscriber("http://logs", "t", client=httpx.Client(transport=httpx.MockTransport(answer))) as records:
        next(iter(records))
    assert seen == ["Bearer lf_from_environment"]
