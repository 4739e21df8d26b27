"""A read ends with a record that says how, whoever ends it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

import httpx
import msgspec
import pytest

from access.errors import AccessUnknown, Unauthenticated
from access.principal import ANYONE, Principal
from query.hosts.records import Form
from query.hosts.service import FileQuestion, FileRead
from query.hosts.settings import HostSettings
from runtime.clock import ManualClock
from runtime.stopping import Stop
from schemas.scope import ServiceScope
from store.hosts import Host

HOST = Host("web-1", "key:a", "http://10.0.0.5:8085", "t" * 43, "0.1.0", ("nginx",), 0, 0.0)
LINE = b'{"line":"a","offset":0}\n'
END = b'{"end":{"status":"complete","lines":1,"scanned_bytes":5,"error":null}}\n'
SETTINGS = HostSettings(check_s=0.01, answer_bytes_max=1024 * 1024)
Pieces = AsyncGenerator[bytes, None]


async def saying(*pieces: bytes) -> Pieces:
    for piece in pieces:
        yield piece


async def going_on(ended: asyncio.Event | None = None) -> Pieces:
    """One line, then silence."""
    try:
        yield LINE
        await asyncio.Event().wait()
    finally:
        if ended is not None:
            ended.set()


def unchanged(principal: Principal) -> Principal:
    return principal


def later(current: Callable[[Principal], Principal]) -> Callable[[Principal], Principal]:
    """From the second look on."""
    looks = iter([unchanged])
    return lambda principal: next(looks, current)(principal)


def read_of(
    pieces: Pieces,
    *,
    current: Callable[[Principal], Principal] = unchanged,
    clock: ManualClock | None = None,
    stop: Stop | None = None,
    form: Form = Form.NDJSON,
) -> FileRead:
    question = FileQuestion("nginx/access.log", (), form, seconds_max=60)
    return FileRead(HOST, question, ANYONE, SETTINGS, pieces, current, clock or ManualClock(0), stop or Stop())


async def told(read: FileRead) -> list[dict[str, object]]:
    async with aclosing(read.pieces()) as pieces:
        return [json.loads(line) for piece in [each async for each in pieces] for line in piece.splitlines()]


def ending(status: str, lines: int, error: str | None) -> dict[str, object]:
    return {"end": {"status": status, "lines": lines, "scanned_bytes": None, "error": error}}


async def test_an_answer_ends_as_the_agent_says() -> None:
    read = read_of(saying(LINE[:5], LINE[5:] + END[:9], END[9:]))
    assert await told(read) == [json.loads(LINE), json.loads(END)]
    assert read.lines == 1


async def test_an_answer_that_is_cut_says_so_and_shows_no_part_of_a_record() -> None:
    cut = ending("error", 1, "the agent's answer was cut")
    for pieces in (saying(LINE, LINE[:9]), saying(LINE), saying(LINE, b"<html>\n", LINE, END)):
        assert await told(read_of(pieces)) == [json.loads(LINE), cut]

    async def broken() -> Pieces:
        yield LINE
        raise httpx.RemoteProtocolError("peer closed connection without sending complete message body")

    assert await told(read_of(broken())) == [json.loads(LINE), cut]


async def test_a_reader_who_may_no_longer_is_told_and_the_agents_answer_ends() -> None:
    narrower = msgspec.structs.replace(ANYONE, may_read=ServiceScope(names=frozenset({"other"})))

    def is_gone(_: Principal) -> Principal:
        raise Unauthenticated

    def is_unknown(_: Principal) -> Principal:
        raise AccessUnknown("the database has not confirmed who may what")

    for current, error in (
        (is_gone, "your key was revoked or has expired, your session ended, or you are disabled"),
        (is_unknown, "the database has not confirmed who may what"),
        (lambda _: narrower, "what you may read has changed"),
    ):
        ended = asyncio.Event()
        read = read_of(going_on(ended), current=later(current))
        async with aclosing(read.pieces()) as pieces:
            assert await anext(pieces) == LINE
            assert json.loads(await anext(pieces)) == ending("error", 1, error)
            assert ended.is_set()


async def test_a_line_that_comes_when_the_reader_may_no_longer_is_not_shown() -> None:
    def is_gone(_: Principal) -> Principal:
        raise Unauthenticated

    assert [next(iter(record)) for record in await told(read_of(saying(LINE, END), current=is_gone))] == ["end"]


async def test_a_read_has_a_deadline_of_its_own_and_ends_with_the_server() -> None:
    clock, stop = ManualClock(0), Stop()
    read = read_of(going_on(), clock=clock)
    async with aclosing(read.pieces()) as pieces:
        assert await anext(pieces) == LINE
        clock.advance(66)
        assert json.loads(await anext(pieces)) == ending("deadline", 1, None)
    read = read_of(going_on(), stop=stop)
    async with aclosing(read.pieces()) as pieces:
        assert await anext(pieces) == LINE
        stop.set()
        assert json.loads(await anext(pieces)) == ending("error", 1, "the server is stopping")


async def test_no_more_is_passed_on_than_the_settings_say() -> None:
    line = json.dumps({"line": "x" * 1000, "offset": 0}).encode() + b"\n"

    async def endless() -> Pieces:
        while True:
            yield line * 50

    *lines, end = await told(read_of(endless()))
    assert 1000 <= len(lines) <= 1100
    assert end == ending("limit", len(lines), "more than 1048576 bytes (hosts.answer_bytes_max)")


async def test_a_reader_who_leaves_ends_the_agents_answer() -> None:
    ended = asyncio.Event()
    read = read_of(going_on(ended))
    async with aclosing(read.pieces()) as pieces:
        assert await anext(pieces) == LINE
        waiting = asyncio.ensure_future(anext(pieces))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    assert ended.is_set()
    assert read.end is None
