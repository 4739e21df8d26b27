"""What one client is told, in which order, with which token, and why it ends."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any
from urllib.parse import parse_qs

import msgspec
import pytest

from access.errors import AccessUnknown, Forbidden, Unauthenticated
from access.principal import ANYONE, Principal
from live.events import Batch, Event, Gap, GapReason, Place
from query.params import parse_tail
from query.tail.hub import Hub
from query.tail.session import Frame, FrameKind, TailSession
from query.tail.settings import TailSettings
from query.tail.token import TailPlace, TailSeal
from runtime.clock import SystemClock
from runtime.stopping import Stop
from schemas.ids import first_id_at
from schemas.record import Log
from schemas.scope import ServiceScope

SEAL = TailSeal(b"s" * 32)
ITEMS = [("service_name", "shop"), ("query", "a OR b")]


class Follows:
    """A live end that is moved by hand, behind which nothing was."""

    def __init__(self) -> None:
        self.positions: dict[int, int] = {0: 0}
        self.sink: Callable[[Event], None] | None = None
        self.joined = asyncio.Event()

    @asynccontextmanager
    async def using(self) -> AsyncIterator[None]:
        yield

    async def live(self) -> dict[int, int]:
        return dict(self.positions)

    async def catch_up(self, place: Place, join: Callable[[], None]) -> AsyncGenerator[Event, None]:
        join()
        self.joined.set()
        for event in list[Event]():
            yield event

    def attach(self, sink: Callable[[Event], None]) -> None:
        self.sink = sink

    def detach(self, sink: Callable[[Event], None]) -> None:
        self.sink = None

    def give(self, event: Event) -> None:
        assert self.sink is not None
        self.positions[event.partition] = event.next_offset
        self.sink(event)


class Rig:
    """A session whose subject may change."""

    def __init__(self, begins: TailPlace | None = None, **settings: Any) -> None:
        self.follows = Follows()
        chosen = TailSettings(**{"frame_every_ms": 10, "check_s": 0.01, "heartbeat_s": 600, **settings})
        self.error: Exception | None = None
        self.principal: Principal = ANYONE
        self.stop = Stop()
        self.question = parse_tail(ITEMS, now_us=0)
        follower: Any = self.follows
        self.session = TailSession(
            self.question,
            ANYONE,
            begins,
            recheck=self.recheck,
            seal=SEAL,
            hub=Hub(follower, chosen),
            follower=follower,
            settings=chosen,
            clock=SystemClock(),
            stop=self.stop,
        )

    async def recheck(self) -> Principal:
        if self.error is not None:
            raise self.error
        return self.principal

    def place(self, frame: Frame) -> TailPlace:
        return SEAL.open(frame.token, subject=ANYONE.subject, question=self.question.canonical)


def batch(offset: int, *ids: int, text: str = "a") -> Batch:
    return Batch(0, offset, offset + 1, 0, [Log(number, 1, 9, "shop", text, None, {}) for number in ids])


async def test_the_first_frame_says_where_it_begins_and_each_where_to_go_on() -> None:
    rig = Rig()
    async with aclosing(rig.session.frames()) as frames:
        first = await anext(frames)
        assert json.loads(first.body) == {"logs": [], "token": first.token}
        assert rig.place(first).offsets == {0: 0}
        rig.follows.give(batch(0, 1, 2))
        rig.follows.give(batch(1, 3))
        second = await anext(frames)
        assert [log["id"] for log in json.loads(second.body)["logs"]] == ["1", "2", "3"]
        assert rig.place(second).offsets == {0: 2}
        assert rig.session.logs_sent == 3


async def test_what_is_missing_is_told_first_with_the_token_before_it() -> None:
    rig = Rig(TailPlace({0: 0}, 1_767_268_800_000), client_bytes_max=64 * 1024)
    async with aclosing(rig.session.frames()) as frames:
        async with asyncio.timeout(30):
            first = await anext(frames)
            rig.follows.give(Gap(0, 0, 5, GapReason.EXPIRED))
            for number in range(30):
                rig.follows.give(batch(5 + number, number + 1, text="a" * 4_000))
            gap, skipped, logs = [await anext(frames) for _ in range(3)]
    assert [frame.kind for frame in (gap, skipped, logs)] == [FrameKind.GAP, FrameKind.SKIPPED, FrameKind.LOGS]
    assert gap.token == skipped.token == first.token
    assert rig.place(logs).offsets == {0: 35}
    shown = json.loads(logs.body)["logs"]
    assert json.loads(skipped.body)["skipped"] + len(shown) == 30
    told = json.loads(gap.body)["gap"]
    assert told["reason"] == "expired"
    parameters = parse_qs(told["query"])
    assert parameters["service_name"] == ["shop"]
    assert parameters["query"][0].startswith("(a OR b) id>=")
    first_id = int(parameters["query"][0].partition("id>=")[2].split()[0])
    assert first_id <= first_id_at(rig.place(first).at_ms)
    assert set(parameters) == {"service_name", "query", "order"}


@pytest.mark.parametrize(
    ("error", "principal", "reason"),
    [
        (Unauthenticated("revoked"), None, "credentials"),
        (Forbidden("from here"), None, "credentials"),
        (AccessUnknown(), None, "unknown"),
        (None, msgspec.structs.replace(ANYONE, may_tail=ServiceScope(names=frozenset({"mail"}))), "permissions"),
        (None, msgspec.structs.replace(ANYONE, subject="another"), "permissions"),
    ],
)
async def test_a_tail_ends_with_its_right(error: Exception | None, principal: Principal | None, reason: str) -> None:
    rig = Rig()
    async with aclosing(rig.session.frames()) as frames:
        await anext(frames)
        rig.error, rig.principal = error, principal or ANYONE
        async with asyncio.timeout(30):
            last = await anext(frames)
            assert [frame async for frame in frames] == []
    assert (last.kind, json.loads(last.body)) == (FrameKind.END, {"end": reason})
    assert rig.session.end == reason


async def test_a_tail_ends_with_the_server() -> None:
    rig = Rig()
    async with aclosing(rig.session.frames()) as frames:
        await anext(frames)
        rig.stop.set()
        async with asyncio.timeout(30):
            last = await anext(frames)
    assert json.loads(last.body) == {"end": "stopping"}


async def test_an_empty_frame_now_and_then_shows_that_it_lives() -> None:
    rig = Rig(heartbeat_s=0.02)
    async with aclosing(rig.session.frames()) as frames:
        async with asyncio.timeout(30):
            await anext(frames)
            # Of another service: nothing to show, but the token moves on.
            rig.follows.give(Batch(0, 0, 1, 0, [Log(1, 1, 9, "mail", "a", None, {})]))
            beat = await anext(frames)
    assert json.loads(beat.body)["logs"] == []
    assert rig.place(beat).offsets == {0: 1}
