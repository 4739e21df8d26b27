"""A text that grows, comes again, comes in parts, beside itself, and through crashes: each of its lines is published once.

The intake runs over what the database promises (tests/integration/test_connections.py holds the real one to it), and over a
broker that keeps the first body of each key.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any, cast

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from access.principal import ANYONE, Principal
from connections.figures import Figures
from connections.metrics import Side
from connections.settings import ConnectionSettings
from ingest.connections import chunks
from ingest.connections.intake import Intake, Taken
from ingest.connections.spool import Spool
from ingest.errors import BodyTooLarge, ConnectionNotFound, InvalidFields, TextConflict
from runtime.clock import ManualClock
from schemas.errors import Overloaded
from schemas.times import time_text
from store.connections.texts import ConnectionDetails, ConnectionTexts, Pending, TextState

NOW_US = 1_800_000_000_000_000
DAY_US = 86_400_000_000


class Texts:
    """One text's row."""

    def __init__(self) -> None:
        self.row: TextState | None = TextState(NOW_US, None)

    async def put(self, connection_id: str, details: ConnectionDetails, *, now_us: int) -> bool:
        raise AssertionError("nothing puts here")

    async def state(self, connection_id: str, side: Side) -> TextState | None:
        await asyncio.sleep(0)
        return self.row

    async def begin(self, connection_id: str, side: Side, *, service_name: str, shift_us: int) -> None:
        assert self.row is not None
        if self.row.shift_us in (None, shift_us) and not self.row.is_begun:
            self.row = replace(self.row, is_begun=True, shift_us=shift_us)

    async def intend(self, connection_id: str, side: Side, stored_bytes: int, pending: Pending) -> bool:
        await asyncio.sleep(0)
        assert self.row is not None
        if self.row.stored_bytes != stored_bytes or self.row.pending is not None:
            return False
        self.row = replace(self.row, pending=pending)
        return True

    async def advance(
        self,
        connection_id: str,
        side: Side,
        stored_bytes: int,
        end: int,
        *,
        line_ends: int,
        carried_us: int | None,
        figures: Figures,
        filtered: int,
        rejected: int,
        is_whole: bool,
    ) -> bool:
        await asyncio.sleep(0)
        row = self.row
        if row is None or row.stored_bytes != stored_bytes or row.pending is None or row.pending.end != end:
            return False
        self.row = replace(
            row,
            stored_bytes=end,
            sha256=row.pending.sha256,
            line_ends=line_ends,
            carried_us=carried_us,
            pending=None,
            lines=row.lines + figures.lines,
        )
        return True


class Crash(Exception):
    """The process is no more."""


class Site:
    """An intake and what it published."""

    def __init__(self) -> None:
        self.table = Texts()
        self.bodies: dict[str, bytes] = {}
        self.crashes: list[str] = []
        """Of the coming publications: before, after or none."""
        self.clock = ManualClock(NOW_US)
        self.intake = Intake(
            ConnectionSettings(), cast(ConnectionTexts, self.table), self.publish, retention_days=400, clock=self.clock
        )

    async def publish(self, body: bytes, principal: Principal, key: str) -> dict[str, Any]:
        crash = self.crashes.pop(0) if self.crashes else ""
        if crash == "before":
            raise Crash()
        await asyncio.sleep(0)
        assert self.bodies.setdefault(key, body) == body, "a key has one body"
        assert len(body) < 8 * 1024 * 1024
        if crash == "after":
            raise Crash()
        return {"accepted": body.count(b"\n"), "filtered": {}, "rejected_count": 0}

    async def send(self, text: bytes, *, shifts: bool = False) -> Taken:
        with Spool() as spool:
            await spool.receive(_pieces(text), bytes_max=1 << 26, lines_max=10**6, deadline_s=30)
            return await self.intake.take("c", Side.SERVER, spool, ANYONE, shifts=shifts)

    @property
    def logs(self) -> list[dict[str, Any]]:
        """All that is published, in order of their lines."""
        found = [orjson.loads(line) for body in self.bodies.values() for line in body.splitlines()]
        return sorted(found, key=lambda log: log["metadata"]["line"])


async def _pieces(text: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(text), 50_000):
        yield text[start : start + 50_000]


def line(number: int, at_us: int = NOW_US) -> str:
    return f"{time_text(at_us + number * 1_000).replace('T', ' ').removesuffix('Z')} | INFO | line {number}\n"


def text_of(count: int) -> bytes:
    return "".join(map(line, range(count))).encode()


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "LINES_MAX", 4)
    monkeypatch.setattr(chunks, "TEXT_BYTES_MAX", 400)


async def test_the_same_again_is_nothing_and_what_extends_it_adds_its_lines() -> None:
    site = Site()
    assert (await site.send(text_of(10))).added == 10
    published = dict(site.bodies)
    again = await site.send(text_of(10))
    assert (again.lines, again.added, site.bodies) == (10, 0, published)
    more = await site.send(text_of(13))
    assert (more.lines, more.added) == (13, 3)
    assert [log["message"] for log in site.logs] == [f"line {number}" for number in range(13)]
    for other in (text_of(12), text_of(10), b"", text_of(13)[:-1], b"x" + text_of(13), text_of(13)[:-2] + b"x\nmore\n"):
        with pytest.raises(TextConflict):
            await site.send(other)
    assert (await site.send(text_of(13))).added == 0


CRASHES = st.lists(st.sampled_from(["before", "after", ""]), max_size=12)
PARTS = st.lists(st.sampled_from(["", "  trace\n", "\n", "\n  trace\n  more\n"]), max_size=14)


def whole_of(parts: list[str]) -> list[str]:
    """The lines of a text."""
    return [each for number, part in enumerate(parts) for each in (line(number) + part).splitlines(keepends=True)]


@settings(max_examples=60, deadline=None)
@given(parts=PARTS, cuts=st.lists(st.integers(0, 2_000), max_size=4), crashes=CRASHES)
def test_crashes_change_nothing_of_what_is_stored(parts: list[str], cuts: list[int], crashes: list[str]) -> None:
    """The text grows, by parts of lines too; each of its states is sent until it is taken."""
    whole = "".join(whole_of(parts)).encode()
    ends = sorted({min(len(whole), cut) for cut in cuts} | {len(whole)})

    async def run(crashes: list[str]) -> list[dict[str, Any]]:
        site = Site()
        site.crashes = list(crashes)
        for end in ends:
            while True:
                try:
                    await site.send(whole[:end])
                    break
                except Crash:
                    site.clock.wall_us += 60_000_000
            assert (await site.send(whole[:end])).added == 0
        return site.logs

    assert asyncio.run(run(crashes)) == asyncio.run(run([]))


@settings(max_examples=60, deadline=None)
@given(parts=PARTS, cuts=st.lists(st.integers(0, 40), max_size=6), crashes=CRASHES)
def test_a_text_that_has_grown_since_the_crash_is_stored_once_as_well(
    parts: list[str], cuts: list[int], crashes: list[str]
) -> None:
    """The text grows by whole lines; a state that was not taken is not sent again."""
    lines = whole_of(parts)

    async def run() -> list[dict[str, Any]]:
        site = Site()
        site.crashes = list(crashes)
        for end in sorted(min(cut, len(lines)) for cut in cuts):
            with contextlib.suppress(Crash):
                await site.send("".join(lines[:end]).encode())
        site.crashes = []
        await site.send("".join(lines).encode())
        return site.logs

    logs = asyncio.run(run())
    shown = [part for log in logs for part in log["message"].split("\n") if part.strip()]
    assert shown == [each.rpartition(" | ")[2].rstrip("\n") for each in lines if each.strip()]
    numbers = [log["metadata"]["line"] for log in logs]
    assert numbers == sorted(set(numbers))


async def test_two_requests_with_one_text_publish_it_once() -> None:
    site = Site()
    taken = await asyncio.gather(*(site.send(text_of(count)) for count in (40, 40, 40)))
    assert sum(each.added for each in taken) == 40
    assert [log["message"] for log in site.logs] == [f"line {number}" for number in range(40)]


async def test_old_lines_are_refused_before_anything_is_stored_or_moved_for_good() -> None:
    site = Site()
    old = "".join(line(number, NOW_US - 2_000 * DAY_US) for number in range(10)).encode()
    with pytest.raises(InvalidFields, match=r"line 1 is of .* older than the 400 days .*time=shift"):
        await site.send(old)
    assert not site.bodies
    assert site.table.row is not None
    site.table.row = replace(site.table.row, last_updated_us=NOW_US - 2_000 * DAY_US + 60_000_000)
    taken = await site.send(old, shifts=True)
    assert (taken.added, taken.shift_us) == (10, 2_000 * DAY_US - 60_000_000)
    assert site.logs[0]["timestamp"] == "2027-01-15T07:59:00.000000Z"
    assert site.logs[0]["metadata"]["time"] == "2021-07-25T08:00:00.000000Z"
    site.clock.wall_us += DAY_US
    assert (await site.send(old + line(11, NOW_US - 2_000 * DAY_US).encode())).shift_us == taken.shift_us


async def test_a_line_without_a_usable_time_has_that_of_the_line_before() -> None:
    site = Site()
    far = line(1, NOW_US + DAY_US).encode()
    await site.send(b"begin\n" + line(0).encode() + far + line(2).encode() + b"\n trace")
    times = [(log["timestamp"][-10:], log["metadata"].get("time")) for log in site.logs]
    assert times == [
        ("00.000000Z", None),
        ("00.000000Z", None),
        ("00.000000Z", "2027-01-16T08:00:00.001000Z"),
        ("00.002000Z", None),
    ]
    await site.send(b"begin\n" + line(0).encode() + far + line(2).encode() + b"\n trace more\nand more")
    assert [log["message"] for log in site.logs][-2:] == ["line 2\n\n trace", " more\nand more"]
    assert site.logs[-1]["timestamp"].endswith("00.002000Z")


async def test_what_is_too_large_is_refused_before_anything_is_stored() -> None:
    for limits in ({"bytes_max": 100, "lines_max": 1000}, {"bytes_max": 10**6, "lines_max": 9}):
        with Spool() as spool, pytest.raises(BodyTooLarge):
            await spool.receive(_pieces(text_of(10)), deadline_s=30, **limits)


async def test_texts_at_once_are_bounded() -> None:
    intake = Site().intake
    with contextlib.ExitStack() as mine, contextlib.ExitStack() as others:
        for _ in range(intake.settings.texts_max - 1):
            mine.enter_context(intake.room("me"))
        with pytest.raises(Overloaded, match="3 of them yours"):
            mine.enter_context(intake.room("me"))
        others.enter_context(intake.room("another"))
        with pytest.raises(Overloaded, match="0 of them yours"):
            others.enter_context(intake.room("a third"))
        others.close()
        others.enter_context(intake.room("a third"))


async def test_an_empty_text_is_a_text_and_no_connection_is_none() -> None:
    site = Site()
    assert (await site.send(b"")).lines == 0
    assert (await site.send(b"\n\n")).lines == 0
    assert (await site.send(b"\n\n" + text_of(1))).added == 1
    site.table.row = None
    with pytest.raises(ConnectionNotFound):
        await site.send(text_of(1))


async def test_another_text_that_comes_to_the_same_id_later_has_keys_of_its_own() -> None:
    """Connections go with age, which may be less than keys live."""
    site = Site()
    await site.send(text_of(10))
    before = dict(site.bodies)
    for text, shifts in ((text_of(10).replace(b"line", b"next"), False), (text_of(10), True)):
        site.clock.wall_us += 1
        site.table.row = TextState(NOW_US - 60_000_000, None)
        assert (await site.send(text, shifts=shifts)).added == 10
    assert len(site.bodies) == 3 * len(before)
