"""Answers are read as types, or refused: shapes as the server writes them, and anything else."""

from __future__ import annotations

import json
from contextlib import aclosing
from datetime import UTC, datetime, timedelta, timezone
from itertools import pairwise
from typing import Any

import httpx
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from logfeed_client import (
    AsyncClient,
    Client,
    Forbidden,
    InvalidQuestion,
    NotFound,
    NotLogfeed,
    ProblemError,
    TailGapError,
    Unauthenticated,
    Unreachable,
)
from logfeed_client.querying.events import EventReader, frame_of
from logfeed_client.querying.questions import parameters_of
from logfeed_client.querying.results import log_of

from schemas.pages import log_json
from schemas.record import Log

LOG = Log(382110771345817600, 1_795_687_200_123_456, 17, "shop", "refused", "order-1", {"n": 10**30, "a": [1]})
DOCUMENT = json.loads(orjson.dumps(log_json(LOG)))
PAGE = {"logs": [DOCUMENT], "count": 1, "next_cursor": None, "prev_cursor": None, "scanned_to": None}


def client(answer: Any, **options: Any) -> Client:
    """Of a server that answers so. answer: of the request, or always the same."""
    transport = httpx.MockTransport(answer if callable(answer) else lambda _: answer)
    return Client("http://logs", client=httpx.Client(transport=transport), **{"patience_s": 0.0, **options})


def test_a_log_is_read_as_the_server_writes_it() -> None:
    log = log_of(DOCUMENT)
    assert (log.id, log.level, log.severity, log.service_name) == (str(LOG.id), "ERROR", 17, "shop")
    assert log.timestamp == datetime(2026, 11, 26, 10, 0, 0, 123456, tzinfo=UTC)
    assert (log.message, log.correlation_id, log.metadata) == ("refused", "order-1", LOG.metadata)
    newer = log_of({**DOCUMENT, "what_comes": 1})
    assert newer == log


@pytest.mark.parametrize(
    "body",
    [b"<html>", b"[]", b"{}", b'{"logs":{},"next_cursor":null}', b'{"logs":[1],"next_cursor":null}', b"[" * 100_000]
    + [json.dumps({**PAGE, "logs": [{**DOCUMENT, name: value}]}).encode() for name, value in (
        ("id", 7), ("timestamp", "noon"), ("timestamp", "2026-01-01T00:00:00"), ("metadata", []), ("severity", True),
    )]
    + [json.dumps({**PAGE, "next_cursor": 7}).encode()],
)  # fmt: skip
def test_what_is_no_answer_is_refused(body: bytes) -> None:
    with client(httpx.Response(200, content=body)) as logfeed, pytest.raises(NotLogfeed):
        next(logfeed.pages())


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, InvalidQuestion),
        (401, Unauthenticated),
        (403, Forbidden),
        (404, NotFound),
        (409, ProblemError),
        (422, InvalidQuestion),
        (500, ProblemError),
    ],
)
def test_refusals_carry_the_problem(status: int, kind: type[ProblemError]) -> None:
    document = {
        "type": "urn:logfeed:problem:invalid-parameter", "title": "T", "status": status, "detail": "why",
        "errors": [{"field": "limit", "message": "no", "column": 1}],
    }  # fmt: skip
    with client(httpx.Response(status, json=document)) as logfeed, pytest.raises(kind) as raised:
        logfeed.get(1)
    error = raised.value
    assert (error.status, error.type, error.title, error.detail) == (status, document["type"], "T", "why")
    assert error.errors == document["errors"]
    assert error.document == document
    with client(httpx.Response(status, content=b"<html>no</html>")) as logfeed, pytest.raises(kind, match="no"):
        logfeed.get(1)


def test_redirects_are_no_answers() -> None:
    with client(httpx.Response(302, headers={"Location": "/login"})) as logfeed, pytest.raises(NotLogfeed):
        logfeed.get(1)


def test_a_server_that_is_busy_is_asked_again_and_not_for_ever() -> None:
    asked = 0

    def answer(_: httpx.Request) -> httpx.Response:
        nonlocal asked
        asked += 1
        if asked == 1:
            raise httpx.ConnectError("away")
        if asked < 4:
            return httpx.Response(503, headers={"Retry-After": "0"})
        return httpx.Response(200, json={"log": DOCUMENT})

    with client(answer, patience_s=30.0) as logfeed:
        assert logfeed.get(1).message == "refused"
        assert asked == 4
    with client(httpx.Response(503, headers={"Retry-After": "60"})) as logfeed:
        with pytest.raises(Unreachable, match="503"):
            logfeed.get(1)


def test_answers_without_end_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("logfeed_client.querying.asking.ANSWER_BYTES_MAX", 1_000)
    with client(httpx.Response(200, content=b" " * 5_000)) as logfeed, pytest.raises(NotLogfeed, match="1000 bytes"):
        logfeed.get(1)


def test_walks_follow_cursors_to_their_end_with_the_same_question() -> None:
    asked: list[httpx.QueryParams] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.params)
        number = len(asked)
        logs = [] if number == 2 else [{**DOCUMENT, "id": str(number)}]
        return httpx.Response(200, json={**PAGE, "logs": logs, "next_cursor": None if number == 3 else f"c{number}"})

    with client(answer) as logfeed:
        found = list(logfeed.logs(query="level:error", service_name=["a", "b*"], metadata={"ok": True, "n": 7}))
    assert [log.id for log in found] == ["1", "3"]
    assert [params.get("cursor") for params in asked] == [None, "c1", "c2"]
    for params in asked:
        assert params["query"] == "level:error"
        assert params.get_list("service_name") == ["a", "b*"]
        assert (params["metadata.ok"], params["metadata.n"], params["order"]) == ("true", "7", "desc")


def test_a_limit_ends_a_walk() -> None:
    with client(httpx.Response(200, json={**PAGE, "logs": [DOCUMENT] * 3, "next_cursor": "more"})) as logfeed:
        assert len(list(logfeed.logs(limit=7))) == 7
        assert list(logfeed.logs(limit=0)) == []


def test_filters_are_written_as_the_api_takes_them() -> None:
    zone = timezone(timedelta(hours=2))
    found = parameters_of({"start_time": datetime(2026, 1, 1, 12, tzinfo=zone), "end_time": "-1h"})
    assert found == [("start_time", "2026-01-01T10:00:00+00:00"), ("end_time", "-1h")]
    ((_, text),) = parameters_of({"start_time": timedelta(minutes=5)})
    age = datetime.now(UTC) - datetime.fromisoformat(text)
    assert timedelta(minutes=4) < age < timedelta(minutes=10)
    with pytest.raises(TypeError, match="no filter 'levle'"):
        parameters_of({"levle": "error"})  # type: ignore[typeddict-unknown-key]
    with pytest.raises(TypeError, match="q: expected"):
        parameters_of({"q": 7})  # type: ignore[typeddict-item]


# --- events


def event(**message: Any) -> bytes:
    return b"event: logs\nid: x\ndata: " + json.dumps(message).encode() + b"\n\n"


@settings(max_examples=40, deadline=None)
@given(cuts=st.lists(st.integers(0, 400), max_size=20))
def test_events_are_found_however_they_are_cut(cuts: list[int]) -> None:
    stream = event(logs=[], token="a") + b": nothing\n\n" + event(skipped=3, token="b") + event(logs=[DOCUMENT])[:-1]
    places = sorted({0, *(min(cut, len(stream)) for cut in cuts), len(stream)})
    reader = EventReader()
    found = [frame_of(data) for begin, end in pairwise(places) for data in reader.feed(stream[begin:end])]
    assert [(frame.token, frame.skipped) for frame in found] == [("a", 0), ("b", 3)], (
        "an event that was cut off is none"
    )


def test_events_without_end_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("logfeed_client.querying.events.EVENT_BYTES_MAX", 1_000)
    with pytest.raises(NotLogfeed, match="longer than 1000"):
        EventReader().feed(b"data: " + b"x" * 2_000)


def tail_of(*connections: bytes) -> tuple[Any, list[httpx.Request]]:
    """A server whose connections bring these, one after the other, and then refuses."""
    asked: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        if len(asked) > len(connections):
            return httpx.Response(401, json={"detail": "revoked"})
        return httpx.Response(200, content=connections[len(asked) - 1])

    return answer, asked


def numbered(*numbers: int) -> list[dict[str, Any]]:
    return [{**DOCUMENT, "id": str(number)} for number in numbers]


def test_a_tail_goes_on_where_it_stood_and_shows_nothing_twice() -> None:
    skipped: list[int] = []
    answer, asked = tail_of(
        event(logs=[], token="t0") + event(logs=numbered(1, 2), token="t1") + event(logs=numbered(3))[:-2],
        event(skipped=5, token="t1") + event(logs=numbered(2, 3), token="t2") + event(end="stopping", detail="bye"),
        event(logs=numbered(4), token="t3"),
    )
    with client(answer, patience_s=30.0) as logfeed:
        tail = logfeed.tail(query="level:error", on_skipped=skipped.append)
        found: list[str] = []

        def follow() -> None:
            for log in tail:
                found.append(log.id)  # noqa: PERF401  # what came before the error counts

        with pytest.raises(Unauthenticated):
            follow()
    assert found == ["1", "2", "3", "4"]
    assert tail.token == "t3"
    assert skipped == [5]
    assert [request.headers.get("Last-Event-ID") for request in asked] == [None, "t1", "t2", "t3"]
    assert [request.url.params.get("from") for request in asked] == ["now", None, None, None]
    assert {request.url.params["query"] for request in asked} == {"level:error"}


def test_a_tail_that_was_left_in_the_middle_of_a_message_goes_on_behind_the_last_log() -> None:
    message = event(logs=numbered(1, 2, 3), token="t1")
    answer, asked = tail_of(message, message + event(logs=numbered(4), token="t2"))
    with client(answer) as logfeed:
        tail = logfeed.tail()
        assert next(iter(tail)).id == "1"
        rest = iter(tail)
        assert [next(rest).id for _ in range(3)] == ["2", "3", "4"]
    assert [request.headers.get("Last-Event-ID") for request in asked] == [None, None]


async def test_a_tail_of_asyncio_that_was_left_goes_on_behind_the_last_log() -> None:
    message = event(logs=numbered(1, 2, 3), token="t1")
    answer, _ = tail_of(message, message)
    transport = httpx.MockTransport(answer)
    async with AsyncClient("http://logs", client=httpx.AsyncClient(transport=transport)) as logfeed:
        tail = logfeed.tail()
        found: list[str] = []
        for count in (1, 2):
            async with aclosing(aiter(tail)) as logs:
                found += [(await anext(logs)).id for _ in range(count)]
    assert found == ["1", "2", "3"]


def test_an_answer_that_was_spoiled_on_its_way_is_asked_for_again() -> None:
    def spoiled() -> httpx.Response:
        return httpx.Response(200, stream=httpx.ByteStream(b"no gzip"), headers={"Content-Encoding": "gzip"})

    answers = iter([spoiled(), httpx.Response(200, json=PAGE)])
    asked: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return next(answers)

    with client(answer, patience_s=30.0) as logfeed:
        assert [log.id for log in logfeed.logs()] == [str(LOG.id)]
    assert len(asked) == 2
    with client(lambda _: spoiled()) as logfeed:
        with pytest.raises(Unreachable):
            next(logfeed.logs())


def test_a_gap_is_told_or_raised_with_where_to_go_on() -> None:
    gap = event(gap={"reason": "expired", "query": "start_time=x"}, token="t1")
    answer, _ = tail_of(gap + event(logs=numbered(1), token="t2"))
    told: list[Any] = []
    with client(answer) as logfeed:
        tail = logfeed.tail(from_token="t0", on_gap=told.append)
        assert next(iter(tail)).id == "1"
    assert told[0].query == "start_time=x"
    answer, _ = tail_of(gap)
    with client(answer) as logfeed, pytest.raises(TailGapError, match="start_time=x") as raised:
        next(iter(logfeed.tail(from_token="t0")))
    assert raised.value.token == "t1"


def test_a_tail_whose_credentials_end_is_not_asked_again() -> None:
    answer, asked = tail_of(event(end="credentials", detail="revoked"))
    with client(answer, patience_s=30.0) as logfeed, pytest.raises(Unauthenticated, match="revoked"):
        next(iter(logfeed.tail()))
    assert len(asked) == 1


async def test_the_client_for_asyncio_does_the_same() -> None:
    answer, asked = tail_of(event(logs=numbered(1, 2), token="t1"), event(logs=numbered(2, 3), token="t2"))
    transport = httpx.MockTransport(answer)
    async with AsyncClient("http://logs", client=httpx.AsyncClient(transport=transport), patience_s=30.0) as logfeed:
        tail = logfeed.tail()
        found: list[str] = []

        async def follow() -> None:
            async for log in tail:
                found.append(log.id)  # noqa: PERF401  # what came before the error counts

        with pytest.raises(Unauthenticated):
            await follow()
    assert found == ["1", "2", "3"]
    assert [request.headers.get("Last-Event-ID") for request in asked] == [None, "t1", "t2"]
    pages = [{**PAGE, "logs": [DOCUMENT] * 3, "next_cursor": "more"}, {**PAGE, "logs": [DOCUMENT], "next_cursor": None}]

    def page(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json=pages[request.url.params.get("cursor") is not None])

    transport = httpx.MockTransport(page)
    async with AsyncClient("http://logs", client=httpx.AsyncClient(transport=transport)) as logfeed:
        assert len([log async for log in logfeed.logs()]) == 4
        assert len([log async for log in logfeed.logs(limit=2)]) == 2
        assert len([log async for log in logfeed.correlation("order/1")]) == 4
