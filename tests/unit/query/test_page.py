"""Walks over pages on the store in memory: both directions, frozen bounds, unfinished pages (INV-6)."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

import query.answers
from access.principal import ANYONE, Principal
from query.answers import Answer, Answers, Asked
from query.cache import ResultCache
from query.errors import CursorError, LogNotFound, SnapshotBehind, TooManyScans
from query.params import parse_find, parse_tail
from query.settings import QuerySettings
from runtime.clock import ManualClock
from runtime.telemetry import REGISTRY
from schemas.errors import Overloaded
from schemas.ids import first_id_at
from schemas.record import Log
from schemas.scope import ALL_SERVICES, NO_SERVICES, ServiceScope
from schemas.times import time_text
from search.params import ParameterError
from store.memory import CHUNK_US, MemoryDatabase, MemoryStore
from store.port import Border, LedgerRow, ScanResult, Snapshot
from store.postgres_read import SnapshotLost

T0 = 1_767_225_600_000_000
SECOND = 1_000_000


class CountedStore(MemoryStore):
    """Counts what reads rows."""

    scans = 0

    @asynccontextmanager
    async def snapshot(
        self, *, at_least: Mapping[int, int] | None = None, is_again: bool = False
    ) -> AsyncIterator[Snapshot]:
        async with super().snapshot(at_least=at_least, is_again=is_again) as snapshot:
            scan = snapshot.scan

            async def counted(*arguments: Any, **options: Any) -> ScanResult:
                self.scans += 1
                return await scan(*arguments, **options)

            snapshot.scan = counted  # type: ignore[method-assign]
            yield snapshot


class Rig:
    """Answers over one chunk in memory."""

    def __init__(self, *, rows_per_scan: int | None = None, page_bytes_max: int = 8 << 20, **options: Any) -> None:
        self.clock = ManualClock(T0 + 3_600 * SECOND)
        self.database = MemoryDatabase(clock=self.clock)
        self.database.chunks[T0 - T0 % CHUNK_US] = []
        self.store = CountedStore(self.database, rows_per_scan=rows_per_scan, page_bytes_max=page_bytes_max)
        self.answers = Answers(QuerySettings(**options), self.store, clock=self.clock, unread=no_unread)

    def put(self, *logs: Log) -> None:
        self.database.chunks[T0 - T0 % CHUNK_US] += logs

    async def partitions(self, *stored_us: int) -> None:
        await self.store.register_partitions("logs.v1", len(stored_us))
        for partition, at_us in zip(self.database.partitions.values(), stored_us, strict=True):
            partition.stored_to_us = at_us

    async def page(self, principal: Principal = ANYONE, *, fresh: bool = False, **parameters: Any) -> dict[str, Any]:
        answer = await self.answer(principal, asked=Asked(fresh), **parameters)
        assert answer.body is not None
        body: dict[str, Any] = orjson.loads(answer.body)
        assert body["count"] == len(body["logs"])
        return body

    async def answer(self, principal: Principal = ANYONE, *, asked: Asked | None = None, **parameters: Any) -> Answer:
        items = [(name, str(value)) for name, value in parameters.items() if value is not None]
        question = parse_find(items, now_us=self.clock.now_us())
        return await self.answers.find(question, principal, asked=asked or Asked())

    async def is_unchanged(self, tag: str | None, principal: Principal = ANYONE, **parameters: Any) -> bool:
        """Whether who has the page with this tag is told that it is still right, without a row being read."""
        assert tag is not None
        self.store.scans = 0
        answer = await self.answer(principal, asked=Asked(etags=frozenset((tag, "0" * 32))), **parameters)
        assert (answer.body is None) is (self.store.scans == 0)
        return answer.body is None

    def put_late(self, *logs: Log) -> None:
        self.database.late[self.database.border.late_generation].rows += logs


async def no_unread() -> dict[int, int]:
    return {}


def a_log(number: int, *, at: int | None = None, service: str = "shop", message: str = "") -> Log:
    timestamp = T0 + (number * SECOND if at is None else at)
    return Log(first_id_at(T0 // 1000) + number, timestamp, 9, service, message or f"m{number}", None, {})


def ids(page: dict[str, Any]) -> list[int]:
    return [int(log["id"]) - first_id_at(T0 // 1000) for log in page["logs"]]


async def test_the_first_page_has_no_way_back_and_the_last_no_way_on() -> None:
    rig = Rig()
    rig.put(*map(a_log, range(5)))
    first = await rig.page(limit=3)
    assert (ids(first), first["prev_cursor"], first["scanned_to"]) == ([4, 3, 2], None, None)
    second = await rig.page(limit=3, cursor=first["next_cursor"])
    assert (ids(second), second["next_cursor"]) == ([1, 0], None)
    back = await rig.page(limit=3, cursor=second["prev_cursor"])
    assert ids(back) == ids(first)
    assert back["prev_cursor"] is None
    assert ids(await rig.page(limit=3, cursor=back["next_cursor"])) == ids(second)


async def walk(
    rig: Rig, page: dict[str, Any], side: str, *, grows: bool = False, **question: Any
) -> list[dict[str, Any]]:
    """The pages that follow one, along `next_cursor` or `prev_cursor`. grows: a log arrives before each."""
    pages = []
    while (cursor := page[f"{side}_cursor"]) is not None:
        if grows:
            number = 100 + len(rig.database.rows())
            rig.put(a_log(number, at=number * SECOND))
        page = await rig.page(cursor=cursor, **question)
        pages.append(page)
    return pages


def shown(pages: list[dict[str, Any]]) -> list[int]:
    return [number for page in pages for number in ids(page)]


EQUAL_TIMES = st.lists(st.integers(0, 30), max_size=40)
ORDERS = st.sampled_from(["asc", "desc"])


@given(EQUAL_TIMES, st.integers(1, 12), ORDERS, st.booleans(), st.sampled_from(["", "m1"]), st.booleans())
@settings(max_examples=300, deadline=None)
def test_there_and_back_again(times: list[int], limit: int, order: str, grows: bool, text: str, ends: bool) -> None:
    """There, back and there again: every page but the last of a direction is full, none is empty, and cursors end exactly
    where logs do; also while others arrive."""

    async def run() -> None:
        rig = Rig()
        rig.put(*(a_log(number, at=at * SECOND) for number, at in enumerate(times)))
        question: dict[str, Any] = {"order": order, "limit": limit, "q": text or None}
        if ends:
            question |= {"start_time": "2026-01-01T00:00:02", "end_time": "2026-01-01T00:00:31"}
        expected = [
            number
            for at, number in sorted(((at, n) for n, at in enumerate(times)), reverse=order == "desc")
            if text in f"m{number}" and (at >= 2 or not ends)
        ]
        first = await rig.page(**question)
        pages = [first, *await walk(rig, first, "next", grows=grows, **question)]
        full, rest = divmod(len(expected), limit)
        assert [page["count"] for page in pages] == ([limit] * full + [rest] * (rest > 0) or [0])
        assert shown(pages) == expected
        assert [page["prev_cursor"] is None for page in pages] == [True] + [False] * (len(pages) - 1)

        back = await walk(rig, pages[-1], "prev", grows=grows, **question)
        assert [ids(page) for page in reversed(back)] == [ids(page) for page in pages[:-1]]
        assert all(page["next_cursor"] for page in back)

        again = await walk(rig, back[-1], "next", grows=grows, **question) if back else []
        assert [ids(page) for page in again] == [ids(page) for page in pages[1:]]

        for page in pages[1:-1]:
            [turned, *_] = await walk(rig, page, "prev", grows=grows, **question)
            assert ids(await rig.page(cursor=turned["next_cursor"], **question)) == ids(page)

    asyncio.run(run())


@given(EQUAL_TIMES, st.integers(1, 7), ORDERS, st.integers(1, 5), st.booleans())
@settings(max_examples=200, deadline=None)
def test_there_and_back_again_within_small_budgets(
    times: list[int], limit: int, order: str, rows_per_scan: int, grows: bool
) -> None:
    """Everything once in each direction; an empty page says how far it came, or follows one whose budget ended."""

    async def run() -> None:
        rig = Rig(rows_per_scan=rows_per_scan)
        rig.put(*(a_log(number, at=at * SECOND) for number, at in enumerate(times)))
        expected = [number for _, number in sorted(((at, n) for n, at in enumerate(times)), reverse=order == "desc")]
        question: dict[str, Any] = {"order": order, "limit": limit}
        first = await rig.page(**question)
        pages = [first, *await walk(rig, first, "next", grows=grows, **question)]
        assert shown(pages) == expected
        for number, page in enumerate(pages):
            assert (page["prev_cursor"] is None) is (not shown(pages[:number]))
        back = await walk(rig, pages[-1], "prev", grows=grows, **question)
        assert shown(back[::-1]) == expected[: len(expected) - len(ids(pages[-1]))]
        if back:
            again = await walk(rig, back[-1], "next", grows=grows, **question)
            assert shown([back[-1], *again]) == expected

    asyncio.run(run())


async def test_a_page_ended_by_its_budget_says_how_far_it_came_and_goes_on() -> None:
    rig = Rig(rows_per_scan=4)
    rig.put(*map(a_log, range(10)))
    first = await rig.page(q="m0")
    assert (first["logs"], first["scanned_to"]) == ([], "2026-01-01T00:00:06.000000Z")
    second = await rig.page(q="m0", cursor=first["next_cursor"])
    assert (second["logs"], second["scanned_to"]) == ([], "2026-01-01T00:00:02.000000Z")
    third = await rig.page(q="m0", cursor=second["next_cursor"])
    assert (ids(third), third["scanned_to"], third["next_cursor"]) == ([0], None, None)


async def test_relative_times_stay_what_they_were_on_the_first_page() -> None:
    rig = Rig()
    rig.put(*map(a_log, range(3_590, 3_600)))
    first = await rig.page(start_time="-10s", limit=4)
    rig.clock.advance(6)
    rest = await rig.page(start_time="-10s", limit=100, cursor=first["next_cursor"])
    assert ids(first) + ids(rest) == list(range(3_599, 3_589, -1))


@pytest.mark.parametrize("order", ["asc", "desc"])
async def test_without_an_end_the_newest_of_the_first_page_is_the_end(order: str) -> None:
    rig = Rig()
    rig.put(*map(a_log, range(4)))
    first = await rig.page(order=order, limit=2)
    rig.put(*map(a_log, range(4, 8)))
    second = await rig.page(order=order, limit=10, cursor=first["next_cursor"])
    assert sorted(ids(first) + ids(second)) == [0, 1, 2, 3]
    assert second["next_cursor"] is None
    back = await rig.page(order=order, limit=10, cursor=second["prev_cursor"])
    assert ids(back) == ids(first)


async def test_a_walk_over_an_empty_store_is_over_at_once() -> None:
    page = await Rig().page()
    assert page.pop("tail")
    assert page == {
        "logs": [],
        "count": 0,
        "next_cursor": None,
        "prev_cursor": None,
        "scanned_to": None,
        "visible_through": None,
    }


async def test_a_snapshot_behind_the_first_page_is_refused_until_it_caught_up() -> None:
    rig = Rig()
    await rig.partitions(T0, T0)
    rig.put(*map(a_log, range(5)))
    rig.database.partitions[1].next_offset = 9
    first = await rig.page(limit=2)
    rig.database.partitions[1].next_offset = 8
    with pytest.raises(SnapshotBehind, match="partitions 1"):
        await rig.page(limit=2, cursor=first["next_cursor"])
    del rig.database.partitions[1]
    with pytest.raises(SnapshotBehind):
        await rig.page(limit=2, cursor=first["next_cursor"])
    await rig.partitions(T0, T0)
    rig.database.partitions[1].next_offset = 10
    assert ids(await rig.page(limit=2, cursor=first["next_cursor"])) == [2, 1]


async def test_a_cursor_serves_its_own_subject_and_question_only() -> None:
    rig = Rig()
    rig.put(*map(a_log, range(5)))
    cursor = (await rig.page(limit=2, q="m"))["next_cursor"]
    assert ids(await rig.page(limit=1, q="M", cursor=cursor)) == [2]
    ann = Principal("ann", ALL_SERVICES, ALL_SERVICES)
    others: list[tuple[Principal, dict[str, Any]]] = [
        (ann, {"q": "m"}),
        (ANYONE, {"q": "x"}),
        (ANYONE, {}),
        (ANYONE, {"q": "m", "order": "asc"}),
    ]
    for principal, other in others:
        with pytest.raises(CursorError):
            await rig.page(principal, limit=2, cursor=cursor, **other)


async def test_a_right_that_was_taken_away_counts_on_the_next_page() -> None:
    rig = Rig()
    rig.put(*(a_log(n, service="shop" if n % 2 else "pay") for n in range(8)))
    ann = Principal("ann", NO_SERVICES, ALL_SERVICES)
    cursor = (await rig.page(ann, limit=2))["next_cursor"]
    ann = Principal("ann", NO_SERVICES, ServiceScope(names=frozenset({"pay"})))
    assert ids(await rig.page(ann, limit=9, cursor=cursor)) == [4, 2, 0]


CLOSED: dict[str, Any] = {"start_time": "2026-01-01", "end_time": "2026-01-01T00:01:00"}
CLOSED_PAGES: list[dict[str, Any]] = [CLOSED, {**CLOSED, "order": "asc"}, {**CLOSED, "limit": 3}, {**CLOSED, "q": "m"}]


def closed_rig() -> Rig:
    """Five logs in a chunk that is closed."""
    rig = Rig()
    rig.put(*map(a_log, range(5)))
    rig.database.border = Border(T0 - T0 % CHUNK_US + CHUNK_US, 1)
    return rig


@pytest.mark.parametrize("question", CLOSED_PAGES)
async def test_a_page_of_what_is_closed_is_read_once(question: dict[str, Any]) -> None:
    rig = closed_rig()
    await rig.partitions(T0)
    first = await rig.page(**question)
    for offset in range(3):
        rig.database.partitions[0].next_offset = offset  # more is stored, elsewhere
        assert await rig.page(**question) == first
    assert rig.store.scans == 1
    assert ids(await rig.page(fresh=True, **question)) == ids(first)
    assert rig.store.scans == 2
    rig.clock.advance(301)
    await rig.page(**question)
    assert rig.store.scans == 3


@pytest.mark.parametrize("question", CLOSED_PAGES)
async def test_what_comes_late_goes_or_is_erased_ends_a_kept_page_at_once(question: dict[str, Any]) -> None:
    rig = closed_rig()
    seen = [ids(await rig.page(**question))]
    rig.put_late(a_log(7))
    seen.append(ids(await rig.page(**question)))
    rig.database.border = Border(rig.database.border.closed_before_us, 2)
    rig.database.late[2] = rig.database.late.pop(1)
    rig.database.late[2].rows = []
    seen.append(ids(await rig.page(**question)))
    del rig.database.chunks[T0 - T0 % CHUNK_US]
    seen.append(ids(await rig.page(**question)))
    everything = [[0, 1, 2, 3, 4], [0, 1, 2, 3, 4, 7], [0, 1, 2, 3, 4], []]
    wanted = everything if question.get("order") == "asc" else [numbers[::-1] for numbers in everything]
    assert seen == [numbers[: question.get("limit", 100)] for numbers in wanted]


async def test_only_what_lies_before_the_border_is_kept() -> None:
    rig = closed_rig()
    open_us = rig.database.border.closed_before_us
    rig.database.chunks[open_us] = [a_log(100, at=open_us - T0 + SECOND)]
    closed_end = {"end_time": time_text(open_us)}
    first = await rig.page(order="asc", limit=3)
    kept: list[dict[str, Any]] = [
        closed_end,
        {"order": "asc", "limit": 3, **closed_end},
        {"order": "asc", "limit": 2, "cursor": first["next_cursor"]},
        {"limit": 3, "cursor": (await rig.page(limit=2))["next_cursor"]},
    ]
    not_kept: list[dict[str, Any]] = [
        {},
        {"start_time": "2026-01-01"},
        {"order": "asc"},
        {"order": "asc", "limit": 3},
        {"end_time": time_text(open_us + SECOND)},
        {"order": "asc", "limit": 100, "cursor": first["next_cursor"]},
    ]
    for questions, scans in ((kept, 1), (not_kept, 2)):
        for question in questions:
            order = {"order": "asc"} if "cursor" in question and "order" in question else {}
            rig.answers._cache = ResultCache(bytes_max=1 << 20, clock=rig.clock)
            rig.store.scans = 0
            for _ in range(2):
                await rig.page(**{**order, **question})
            assert rig.store.scans == scans, question


async def test_a_walk_ends_at_the_newest_log_of_its_own_first_page_however_often_that_was_asked_before() -> None:
    """Its first pages are alike, all of what is closed; what the cursor says of the end is not."""
    rig = closed_rig()
    open_us = rig.database.border.closed_before_us
    rig.database.chunks[open_us] = []
    for number in range(100, 103):
        rig.database.chunks[open_us].append(a_log(number, at=open_us - T0 + number * SECOND))
        first = await rig.page(order="asc", limit=3)
        pages = [first, *await walk(rig, first, "next", order="asc", limit=3)]
        assert shown(pages) == [0, 1, 2, 3, 4, *range(100, number + 1)]


async def test_a_story_ends_at_the_newest_log_of_its_own_first_page_however_often_that_was_asked_before() -> None:
    rig = closed_rig()
    rig.put(*(replace(a_log(number), correlation_id="c") for number in range(10, 14)))
    open_us = rig.database.border.closed_before_us
    rig.database.chunks[open_us] = []
    for count in range(1, 4):
        new = replace(a_log(100 + count, at=open_us - T0 + count * SECOND), correlation_id="c")
        rig.database.chunks[open_us].append(new)
        found, token = 0, None
        while found == 0 or token is not None:
            answer = await rig.answers.correlation("c", ANYONE, limit=3, token=token, asked=Asked())
            assert answer.body is not None
            page = orjson.loads(answer.body)
            found, token = found + len(page["logs"]), page["next_cursor"]
        assert found == 4 + count


async def test_a_page_ended_by_its_budget_is_neither_kept_nor_tagged() -> None:
    rig = Rig(rows_per_scan=4)
    rig.put(*map(a_log, range(10)))
    rig.database.border = Border(T0 - T0 % CHUNK_US + CHUNK_US, 1)
    for _ in range(2):
        assert (await rig.answer(q="m0", **CLOSED)).etag is None
    assert rig.store.scans == 2


@pytest.mark.parametrize("question", [{}, {"order": "asc", "limit": 2}, {"q": "m"}, CLOSED])
async def test_who_has_a_page_is_told_that_it_is_still_right(question: dict[str, Any]) -> None:
    rig = Rig()
    await rig.partitions(T0, T0)
    rig.put(*map(a_log, range(5)))
    tag = (await rig.answer(**question)).etag
    assert await rig.is_unchanged(tag, **question)
    rig.clock.advance(1_000)
    rig.database.partitions[0].stored_to_us += SECOND  # nothing was stored: only its time has passed
    assert await rig.is_unchanged(tag, **question)
    rig.put(a_log(6))
    rig.database.partitions[1].next_offset += 1
    assert not await rig.is_unchanged(tag, **question)
    tag = (await rig.answer(**question)).etag
    rig.database.chunks[T0 + CHUNK_US] = []
    assert not await rig.is_unchanged(tag, **question)


async def test_who_has_a_page_of_what_is_closed_keeps_it_while_more_is_stored() -> None:
    rig = closed_rig()
    await rig.partitions(T0)
    tag = (await rig.answer(**CLOSED)).etag
    rig.database.partitions[0].next_offset += 1
    assert await rig.is_unchanged(tag, **CLOSED)
    rig.put_late(a_log(8))
    assert not await rig.is_unchanged(tag, **CLOSED)


async def test_a_tag_says_nothing_to_another_right_subject_or_question() -> None:
    rig = Rig()
    rig.put(a_log(0), a_log(1, service="pay"))
    tag = (await rig.answer(limit=5)).etag
    shop = ServiceScope(names=frozenset({"shop"}))
    assert await rig.is_unchanged(tag, limit=5)
    assert not await rig.is_unchanged(tag, Principal(ANYONE.subject, ALL_SERVICES, shop), limit=5)
    assert not await rig.is_unchanged(tag, Principal("other", ALL_SERVICES, ALL_SERVICES), limit=5)
    for other in ({"limit": 6}, {"limit": 5, "q": "m"}, {"limit": 5, "order": "asc"}, {"limit": 5, **CLOSED}):
        assert not await rig.is_unchanged(tag, **other)


@pytest.mark.parametrize("changed", ["_BODY_FORMAT", "CURSOR_VERSION"])
async def test_a_tag_of_a_program_that_wrote_pages_in_another_way_is_none(
    monkeypatch: pytest.MonkeyPatch, changed: str
) -> None:
    """Its cursors would be refused by this one, or its fields missed."""
    for question in ({}, CLOSED):
        rig = closed_rig()
        tag = (await rig.answer(**question)).etag
        with monkeypatch.context() as patch:
            patch.setattr(query.answers, changed, 99)
            rig.answers = Answers(QuerySettings(), rig.store, clock=rig.clock, unread=no_unread)
            assert not await rig.is_unchanged(tag, **question)


async def test_only_what_was_given_from_memory_is_counted_so() -> None:
    def counted() -> tuple[float, float]:
        hits, misses = (REGISTRY.get_sample_value(f"logfeed_query_cache_{name}_total") for name in ("hits", "misses"))
        assert hits is not None
        assert misses is not None
        return hits, misses

    rig = closed_rig()
    hits, misses = counted()
    log_id = a_log(1).id
    await rig.page(**CLOSED)
    rig.put_late(a_log(9))
    await rig.page(**CLOSED)
    rig.database.chunks.clear()
    await rig.page(**CLOSED)
    assert counted() == (hits, misses + 3)
    rig = closed_rig()
    for _ in range(2):
        await rig.page(**CLOSED)
        await rig.answers.one(log_id, ANYONE, is_fresh=False)
    assert counted() == (hits + 2, misses + 5)
    rig.database.chunks[T0 + CHUNK_US] = []
    await rig.answers.one(log_id, ANYONE, is_fresh=False)
    assert counted() == (hits + 2, misses + 6)


async def test_a_story_has_a_tag_too() -> None:
    rig = Rig()
    await rig.partitions(T0)

    async def ask(*tags: str) -> Answer:
        asked = Asked(etags=frozenset(tags))
        return await rig.answers.correlation("c", ANYONE, limit=9, token=None, asked=asked)

    first = await ask()
    assert first.etag is not None
    assert (await ask(first.etag)).body is None
    rig.database.partitions[0].next_offset += 1
    assert (await ask(first.etag)).body is not None


async def test_a_kept_log_is_given_until_tables_come_or_go() -> None:
    rig = closed_rig()
    log_id = a_log(1).id
    body = await rig.answers.one(log_id, ANYONE, is_fresh=False)
    rig.put_late(a_log(9))
    assert await rig.answers.one(log_id, ANYONE, is_fresh=False) is body
    del rig.database.chunks[T0 - T0 % CHUNK_US]
    with pytest.raises(LogNotFound):
        await rig.answers.one(log_id, ANYONE, is_fresh=False)


async def test_kept_answers_are_not_shared_between_rights_or_subjects() -> None:
    rig = Rig()
    rig.database.border = Border(T0 - T0 % CHUNK_US + CHUNK_US, 1)
    rig.put(a_log(0), a_log(1, service="pay"), a_log(2))
    closed: dict[str, Any] = {"end_time": "2026-01-01T00:01:00", "limit": 1}
    shop = ServiceScope(names=frozenset({"shop"}))
    everything = await rig.page(**closed)
    scoped = Principal("anyone", ALL_SERVICES, shop)
    assert ids(await rig.page(scoped, **closed)) == [2]
    assert ids(await rig.page(scoped, cursor=everything["next_cursor"], **closed)) == [0]
    assert ids(await rig.page(cursor=everything["next_cursor"], **closed)) == [1]
    other = Principal("other", ALL_SERVICES, ALL_SERVICES)
    theirs = await rig.page(other, **closed)
    assert ids(await rig.page(other, cursor=theirs["next_cursor"], **closed)) == [1]
    log_id = a_log(1).id
    assert b'"pay"' in await rig.answers.one(log_id, ANYONE, is_fresh=False)
    with pytest.raises(LogNotFound):
        await rig.answers.one(log_id, scoped, is_fresh=False)


async def test_a_page_is_cut_at_its_bytes_and_goes_on() -> None:
    rig = Rig(page_bytes_max=1_000)
    rig.put(*(a_log(n, message="x" * 400) for n in range(7)))
    shown, cursor = [], None
    while True:
        page = await rig.page(limit=1000, cursor=cursor)
        assert len(page["logs"]) <= 3
        shown += ids(page)
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert shown == [6, 5, 4, 3, 2, 1, 0]


class BookedStore(MemoryStore):
    """Notes how many sums it gave, and takes its time for each question."""

    takes_s = 0.0
    given = 0
    asked = 0

    async def ledger(self, **question: Any) -> list[LedgerRow]:
        rows = await super().ledger(**question)
        self.given += len(rows)
        self.asked += 1
        assert question["budget_ms"] > 0
        clock = self.database.clock
        assert isinstance(clock, ManualClock)
        clock.advance(self.takes_s)
        return rows


def booked_rig(**options: Any) -> tuple[Rig, BookedStore]:
    """Ten sums in each of three hours."""
    rig = Rig()
    store = BookedStore(rig.database)
    rig.answers = Answers(QuerySettings(**options), store, clock=rig.clock, unread=no_unread)
    for hour in range(3):
        for name in range(10):
            rig.database.ledger[T0 + hour * 3_600 * SECOND, f"s{name}", 9, "stored", ""] = 1
    return rig, store


async def test_no_more_of_the_ledger_is_read_than_may_be_answered() -> None:
    three_hours: dict[str, Any] = {"start_us": T0, "end_us": T0 + 3 * 3_600 * SECOND, "service_names": ()}
    rig, store = booked_rig(ledger_rows_max=30)
    assert len(orjson.loads(await rig.answers.ledger(ANYONE, **three_hours))["rows"]) == 30
    for rows_max in (3, 14):
        rig, store = booked_rig(ledger_rows_max=rows_max)
        with pytest.raises(ParameterError, match=f"more than {rows_max} sums"):
            await rig.answers.ledger(ANYONE, **three_hours)
        assert store.given == rows_max + 1


async def test_all_hours_of_the_ledger_have_one_time_together() -> None:
    rig, store = booked_rig()
    store.takes_s = 15.0
    with pytest.raises(Overloaded, match="not read in 30 s"):
        await rig.answers.ledger(ANYONE, start_us=T0, end_us=T0 + 3 * 3_600 * SECOND, service_names=())
    assert store.asked == 2


class SilentStore(MemoryStore):
    """Does not say its secret."""

    async def cursor_secret(self) -> bytes:
        await asyncio.Event().wait()
        raise AssertionError


async def test_who_waits_for_the_first_answer_of_the_store_holds_a_place() -> None:
    rig = Rig()
    one_place = QuerySettings(scans_max=1, scans_waiting_max=0)
    rig.answers = Answers(one_place, SilentStore(rig.database), clock=rig.clock, unread=no_unread)
    waiting = asyncio.create_task(rig.page())
    await asyncio.sleep(0)
    with pytest.raises(TooManyScans):
        await rig.page()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


class DropsUnderneath(MemoryStore):
    """Retention drops a table under the first snapshots."""

    drops = 1

    @asynccontextmanager
    async def snapshot(
        self, *, at_least: Mapping[int, int] | None = None, is_again: bool = False
    ) -> AsyncIterator[Snapshot]:
        async with super().snapshot(at_least=at_least, is_again=is_again) as snapshot:
            if self.drops:
                self.drops -= 1
                raise SnapshotLost
            yield snapshot


async def test_a_table_dropped_under_a_question_means_a_new_snapshot_once() -> None:
    rig = Rig()
    rig.put(a_log(1))
    store = DropsUnderneath(rig.database)
    rig.answers = Answers(QuerySettings(), store, clock=rig.clock, unread=no_unread)
    assert ids(await rig.page()) == [1]
    store.drops = 2
    with pytest.raises(SnapshotLost):
        await rig.page()


async def test_questions_past_the_places_are_refused_and_places_are_given_back() -> None:
    rig = Rig(scans_max=1, scans_waiting_max=1, scan_wait_ms=50)
    async with rig.answers.place(ANYONE):
        waiting = asyncio.create_task(rig.page())
        await asyncio.sleep(0)
        assert rig.answers._places.waiting == 1
        with pytest.raises(TooManyScans):
            await rig.page()
        with pytest.raises(TooManyScans):
            await waiting
    assert (await rig.page())["count"] == 0


async def test_a_cancelled_question_gives_its_place_back() -> None:
    rig = Rig(scans_max=1)
    async with rig.answers.place(ANYONE):
        waiting = asyncio.create_task(rig.page())
        await asyncio.sleep(0)
        assert rig.answers._places.waiting == 1
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    assert rig.answers._places.waiting == 0
    assert (await rig.page())["count"] == 0


async def test_a_cursor_says_nothing_of_names_or_words() -> None:
    rig = Rig()
    rig.put(*(a_log(n, service="secret-service") for n in range(3)))
    cursor = (await rig.page(limit=1, service_name="secret-service", q="m"))["next_cursor"]
    assert b"secret" not in base64.urlsafe_b64decode(cursor + "==")


async def test_a_first_page_without_an_end_says_where_its_tail_begins() -> None:
    rig = Rig()
    rig.put(*map(a_log, range(3)))
    await rig.partitions(T0, T0 + SECOND)
    seal = await rig.answers.tail_seal()
    first = await rig.page(limit=2, min_level="info", start_time="-2h")
    question = parse_tail([("min_level", "info"), ("start_time", "-2h")], now_us=rig.clock.now_us())
    place = seal.open(first["tail"], subject=ANYONE.subject, question=question.canonical)
    assert place.offsets == {0: 0, 1: 0}
    later = await rig.page(limit=2, min_level="info", start_time="-2h", cursor=first["next_cursor"])
    assert later["tail"] is None
    assert (await rig.page(end_time="now"))["tail"] is None
    with pytest.raises(CursorError):
        seal.open(first["tail"], subject="another", question=question.canonical)
    with pytest.raises(CursorError):
        seal.open(first["tail"], subject=ANYONE.subject, question=parse_tail([], now_us=0).canonical)
    with pytest.raises(CursorError):
        seal.open(first["next_cursor"], subject=ANYONE.subject, question=question.canonical)
