"""What store/port.py promises to readers, held by every implementation: PostgreSQL, TimescaleDB, memory."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, get_origin

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import store.memory
import store.page_scan
import store.page_sql
import store.postgres_read
import store.second_connection
from db.database import Connection, connect
from db.migrations import Layout
from schemas.errors import DatabaseUnavailable
from schemas.ids import first_id_at
from schemas.record import Log
from schemas.scope import ALL_SERVICES, NO_SERVICES, ServiceScope
from schemas.topics import LOGS_TOPIC
from search.predicate import (
    EVERYTHING,
    Contains,
    CorrelationIs,
    Matches,
    MetaEquals,
    MinLevel,
    Predicate,
    ServiceIn,
    all_of,
    any_of,
)
from search.regex import parse_pattern
from store.memory import CHUNK_US
from store.port import Count, LedgerRow, Order, Outcome, Position, ReadStore, Scan, Snapshot
from store.postgres_read import PostgresReadStore, SnapshotLost
from tests.reading_subjects import (
    HOUR,
    SECOND,
    T0,
    MemorySubject,
    PostgresSubject,
    Subject,
    TieredSubject,
    a_log,
    counted,
    ids,
    in_order,
    moment,
    row,
    scan,
    walk,
    with_many_places,
)

Maker = Callable[..., Any]  # awaits to a Subject; page_bytes_max may be given


@dataclass(frozen=True)
class Place:
    """A fresh database."""

    layout: Layout
    url: str
    directory: Path | None
    """Of segments, where rows are to lie in some."""


@pytest.fixture(params=["memory", "native", "timescale", "tiers on native", "tiers on timescale"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place | None:
    """None: memory."""
    if request.param == "memory":
        return None
    *tiers, layout = request.param.split()
    return Place(Layout(layout), request.getfixturevalue(f"{layout}_url"), tmp_path / "segments" if tiers else None)


@pytest.fixture(params=list(Layout))
def database_place(request: pytest.FixtureRequest) -> tuple[Layout, str]:
    """Layout and URL of a fresh database."""
    return request.param, request.getfixturevalue(f"{request.param.value}_url")


@pytest.fixture
async def make(place: Place | None) -> AsyncIterator[Maker]:
    made: list[Subject] = []

    async def build(**options: Any) -> Subject:
        subject: Subject
        if place is None:
            subject = MemorySubject(**options)
        elif place.directory is not None:
            subject = await TieredSubject(place.url, place.layout, place.directory, **options).open()
        else:
            subject = await PostgresSubject(place.url, place.layout, **options).open()
        made.append(subject)
        return subject

    yield build
    for subject in made:
        await subject.close()


@pytest.fixture
async def subject(make: Maker) -> Subject:
    made: Subject = await make()
    return made


@pytest.mark.parametrize("order", list(Order))
@pytest.mark.parametrize("limit", [1, 7, 100, 1000])
async def test_a_walk_meets_every_row_of_every_table_once_in_order(subject: Subject, order: Order, limit: int) -> None:
    logs = await with_many_places(subject)
    if limit == 1:
        logs = [log for log in logs if log.service_name == "mail"]
    predicate = ServiceIn(frozenset({"mail"})) if limit == 1 else EVERYTHING
    found = await walk(subject.store, predicate, order=order, limit=limit)
    assert ids(found) == ids(in_order(logs, order))
    assert found == in_order(logs, order)


async def test_a_page_of_exactly_the_last_rows_is_finished(subject: Subject) -> None:
    await subject.open_chunks([T0])
    await subject.put(a_log(n, at=n) for n in range(5))
    result = await scan(subject.store, limit=5, beyond_ms=30_000)
    assert len(result.logs) == 5
    assert result.finished


@pytest.mark.parametrize("order", list(Order))
async def test_a_full_result_says_whether_anything_lies_beyond_it(subject: Subject, order: Order) -> None:
    """Whatever windows and tables lie between: results are full up to the last, and none is empty."""
    logs = await with_many_places(subject)
    questions: list[tuple[Predicate, Callable[[Log], bool]]] = [
        (EVERYTHING, lambda log: True),
        (ServiceIn(frozenset({"mail"})), lambda log: log.service_name == "mail"),
        (CorrelationIs("story-3"), lambda log: log.correlation_id == "story-3"),
        (Contains(" 299 "), lambda log: " 299 " in log.message),
    ]
    for predicate, matches in questions:
        expected = ids(in_order(filter(matches, logs), order))
        for limit in {len(expected), len(expected) // 2 or 1, len(expected) // 3 or 1, 25}:
            after, sizes = None, []
            while True:
                result = await scan(
                    subject.store, predicate, order=order, limit=limit, after=after, budget_ms=30_000, beyond_ms=30_000
                )
                sizes.append(len(result.logs))
                if result.finished:
                    break
                after = result.scanned_to
            full, rest = divmod(len(expected), limit)
            assert sizes == [limit] * full + [rest] * (rest > 0), (predicate, limit)


async def test_a_result_full_of_bytes_says_whether_anything_lies_beyond_it(make: Maker) -> None:
    subject = await make(page_bytes_max=1_000_000)
    await subject.open_chunks([T0])
    await subject.put(a_log(n, at=n * HOUR // 2, message="x" * 250_000) for n in range(4))
    await subject.put([a_log(5, at=5 * HOUR, service_name="pay")])
    shop = ServiceIn(frozenset({"shop"}))
    patient: dict[str, Any] = {"order": Order.OLDEST_FIRST, "budget_ms": 30_000, "beyond_ms": 30_000}
    full = await scan(subject.store, shop, **patient)
    assert (len(full.logs), full.finished, full.scanned_to) == (4, True, None)
    await subject.put([a_log(4, at=4 * HOUR)])
    result = await scan(subject.store, shop, **patient)
    assert (len(result.logs), result.finished) == (4, False)
    assert ids((await scan(subject.store, shop, after=result.scanned_to, **patient)).logs) == [a_log(4, at=0).id]


async def test_bounds_are_start_inclusive_end_exclusive_last_inclusive(subject: Subject) -> None:
    await subject.open_chunks([T0])
    logs = [a_log(n, at=n // 2 * SECOND) for n in range(20)]
    await subject.put(logs)
    for order in Order:
        found = await walk(subject.store, order=order, limit=3, start_us=T0 + 2 * SECOND, end_us=T0 + 7 * SECOND)
        assert ids(found) == ids(in_order(logs[4:14], order))
        last: Position = (logs[10].timestamp, logs[10].id)
        found = await walk(subject.store, order=order, limit=3, start_us=T0 + 2 * SECOND, last=last)
        assert ids(found) == ids(in_order(logs[4:11], order))
    nothing = await scan(subject.store, start_us=T0 + 5 * SECOND, end_us=T0 + 5 * SECOND)
    assert (nothing.logs, nothing.finished) == ([], True)
    assert (await scan(subject.store, start_us=10**30, end_us=-(10**30))).finished


async def test_predicates_select_the_same_rows_everywhere(subject: Subject) -> None:
    logs = await with_many_places(subject)
    questions: list[tuple[Predicate, Callable[[Log], bool]]] = [
        (ServiceIn(frozenset({"pay"}), frozenset({"ma"})), lambda log: log.service_name in ("pay", "mail")),
        (MinLevel(17), lambda log: log.level >= 17),
        (Contains("REFUSED"), lambda log: "refused" in log.message),
        (CorrelationIs("story-2"), lambda log: log.correlation_id == "story-2"),
        (
            all_of(MinLevel(21), CorrelationIs("story-1")),
            lambda log: log.level > 20 and log.correlation_id == "story-1",
        ),
        (Contains("no such text"), lambda log: False),
    ]
    for predicate, matches in questions:
        for order in Order:
            found = await walk(subject.store, predicate, order=order, limit=10)
            assert ids(found) == ids(in_order(filter(matches, logs), order)), predicate


async def test_counts_are_of_the_rows_that_a_walk_meets(subject: Subject) -> None:
    logs = await with_many_places(subject)
    minute = 60 * SECOND
    spans = [(T0 - HOUR, T0 + 30 * HOUR), (T0 + 17 * minute, T0 + 13 * HOUR + 1), (T0 + 5 * HOUR, T0 + 5 * HOUR + 1)]
    predicates = (
        EVERYTHING,
        MinLevel(17),
        ServiceIn(frozenset({"pay"}), frozenset({"ma"})),
        CorrelationIs("story-3"),
        Contains("paid"),
        MetaEquals(("n",), "42"),
        all_of(MinLevel(13), Matches(parse_pattern("[0-9]7 was"))),
    )
    scopes = (
        ALL_SERVICES,
        ServiceScope(names=frozenset({"shop"})),
        ServiceScope(everything=True, excluded=frozenset({"pay"})),
    )
    async with subject.store.snapshot() as snapshot:
        for start_us, end_us in spans:
            for width_us in (minute, 6 * HOUR, 7 * 24 * HOUR):
                for predicate, allowed in [
                    *((each, ALL_SERVICES) for each in predicates),
                    *((EVERYTHING, s) for s in scopes),
                ]:
                    bounds: dict[str, Any] = {
                        "start_us": start_us,
                        "end_us": end_us,
                        "width_us": width_us,
                        "origin_us": T0 - 3 * 24 * HOUR,
                    }
                    count = Count(predicate, **bounds, budget_ms=20_000)
                    result = await snapshot.count(count, allowed=allowed)
                    assert result.counted_from_us is None
                    assert result.rows == counted(logs, predicate, allowed=allowed, **bounds), (
                        predicate,
                        allowed,
                        bounds,
                    )
        assert (await snapshot.count(count, allowed=NO_SERVICES)).rows == {}


async def test_only_allowed_services_are_read(subject: Subject) -> None:
    logs = await with_many_places(subject)
    allowed = ServiceScope(names=frozenset({"pay"}), prefixes=frozenset({"ma"}))
    expected = [log for log in logs if log.service_name in ("pay", "mail")]
    assert ids(await walk(subject.store, allowed=allowed)) == ids(in_order(expected, Order.NEWEST_FIRST))
    wanted = ServiceIn(frozenset({"shop", "pay"}))
    assert {log.service_name for log in await walk(subject.store, wanted, allowed=allowed)} == {"pay"}
    assert await walk(subject.store, allowed=NO_SERVICES) == []
    async with subject.store.snapshot() as snapshot:
        for log in logs[::17]:
            permitted = allowed.permits(log.service_name)
            assert await snapshot.by_id(log.id, allowed=allowed) == (log if permitted else None)
            assert await snapshot.by_id(log.id, allowed=NO_SERVICES) is None
        scan_of_story = Scan(CorrelationIs("story-2"), Order.OLDEST_FIRST, 100)
        story = await snapshot.scan(scan_of_story, allowed=allowed)
        assert {log.service_name for log in story.logs} <= {"pay", "mail"}
        nothing = await snapshot.scan(scan_of_story, allowed=NO_SERVICES)
        assert (nothing.logs, nothing.finished) == ([], True)


async def test_every_row_is_found_by_its_id_wherever_it_lies(subject: Subject) -> None:
    logs = await with_many_places(subject)
    async with subject.store.snapshot() as snapshot:
        for log in logs:
            assert await snapshot.by_id(log.id, allowed=ALL_SERVICES) == log
        for absent in (0, 1, logs[0].id - 1, logs[-1].id + 1, (1 << 63) - 1):
            assert await snapshot.by_id(absent, allowed=ALL_SERVICES) is None


async def test_a_story_is_whole_and_oldest_first_over_all_time(subject: Subject) -> None:
    logs = await with_many_places(subject)
    expected = in_order((log for log in logs if log.correlation_id == "story-4"), Order.OLDEST_FIRST)
    assert ids(await walk(subject.store, CorrelationIs("story-4"), order=Order.OLDEST_FIRST, limit=7)) == ids(expected)


async def test_rows_a_year_apart_are_found_in_one_page(subject: Subject) -> None:
    year = 365 * 4
    starts = [T0, T0 + year * CHUNK_US, T0 + 2 * year * CHUNK_US, T0 + 3 * year * CHUNK_US]
    await subject.open_chunks(starts)
    logs = [a_log(n, at=start - T0 + HOUR) for n, start in enumerate(starts)]
    await subject.put(logs)
    await subject.close_before(starts[-1] + CHUNK_US)
    await subject.finish()
    for order in Order:
        result = await scan(subject.store, order=order, budget_ms=5_000)
        assert ids(result.logs) == ids(in_order(logs, order))
        assert result.finished


async def test_a_result_is_cut_by_bytes_and_goes_on(make: Maker) -> None:
    subject = await make(page_bytes_max=1_000_000)
    await subject.open_chunks([T0])
    logs = [a_log(n, at=n, message=f"{n:03}" + "x" * 200_000) for n in range(23)]
    await subject.put(logs)
    for order in Order:
        first = await scan(subject.store, order=order, limit=1000)
        assert len(first.logs) == 5
        assert not first.finished
        assert ids(await walk(subject.store, order=order, limit=1000)) == ids(in_order(logs, order))


async def test_a_log_larger_than_a_result_is_still_shown(make: Maker) -> None:
    subject = await make(page_bytes_max=10)
    await subject.open_chunks([T0])
    logs = [a_log(n, at=n) for n in range(3)]
    await subject.put(logs)
    assert ids(await walk(subject.store, order=Order.OLDEST_FIRST)) == ids(logs)


async def test_fields_come_back_exactly(subject: Subject) -> None:
    await subject.open_chunks([T0])
    deep = {"a": [1, 2.5, None, True, {"ü": "\u2028"}], "big": 10**25, "nested": {"x": {"y": "z"}}, "n": -(2**63)}
    strange = "NULL'; DROP TABLE logs; -- %s {} \\ \n\t\U0001f600 \u202e"
    log = a_log(1, at=123_457, message=strange, metadata=deep, correlation_id="%s", level=24, service_name="a/b._-Z")
    await subject.put([log])
    assert (await scan(subject.store)).logs == [log]
    assert (await scan(subject.store, Contains("drop table LOGS; -- %S {} \\"))).logs == [log]
    assert (await scan(subject.store, Contains("_ULL"))).logs == []


async def test_the_newest_position_is_over_all_tables(subject: Subject) -> None:
    async with subject.store.snapshot() as snapshot:
        assert await snapshot.newest() is None
    await subject.open_chunks([T0, T0 + CHUNK_US])
    late, hot, same = a_log(1, at=50), a_log(2, at=20), a_log(3, at=50)
    await subject.put([hot])
    await subject.close_before(T0 + CHUNK_US)
    async with subject.store.snapshot() as snapshot:
        assert await snapshot.newest() == (hot.timestamp, hot.id)
    await subject.put([same, late])
    async with subject.store.snapshot() as snapshot:
        assert await snapshot.newest() == (same.timestamp, same.id)


async def test_a_snapshot_is_one_moment(subject: Subject) -> None:
    await subject.open_chunks([T0])
    await subject.set_partitions({0: (7, T0 + 90 * SECOND), 1: (3, T0 + 60 * SECOND)})
    await subject.put([a_log(1, at=1)])
    async with subject.store.snapshot() as snapshot:
        await subject.put([a_log(2, at=2)])
        await subject.close_before(T0 + CHUNK_US)
        await subject.put([a_log(3, at=3)])
        result = await snapshot.scan(Scan(EVERYTHING, Order.NEWEST_FIRST, 10), allowed=ALL_SERVICES)
        assert ids(result.logs) == [a_log(1, at=1).id]
        assert snapshot.offsets == {0: 7, 1: 3}
    assert len((await scan(subject.store)).logs) == 3


async def settled_mark(store: ReadStore) -> int:
    """A mark that nothing late has come since. Other tests' transactions count on the same server."""
    async with asyncio.timeout(30):
        while True:
            async with store.snapshot() as snapshot:
                if not await snapshot.late_since(snapshot.mark):
                    return snapshot.mark
            await asyncio.sleep(0.02)


async def test_what_comes_late_is_told_from_any_earlier_mark(subject: Subject) -> None:
    await subject.open_chunks([T0, T0 + CHUNK_US])
    await subject.put([a_log(1, at=1), a_log(2, at=-HOUR)])
    mark = await settled_mark(subject.store)
    async with subject.store.snapshot() as snapshot:
        revision = snapshot.revision
        assert snapshot.closed_before_us == T0
    await subject.put([a_log(3, at=2)])
    async with subject.store.snapshot() as snapshot:
        assert not await snapshot.late_since(mark)
        assert snapshot.revision == revision
    await subject.put([a_log(4, at=-HOUR)])
    async with subject.store.snapshot() as snapshot:
        assert await snapshot.late_since(mark)
    assert await settled_mark(subject.store) != mark


async def test_a_revision_changes_with_what_is_closed_and_with_late_tables(subject: Subject) -> None:
    seen: list[int] = []

    async def look() -> None:
        async with subject.store.snapshot() as snapshot:
            seen.append(snapshot.revision)

    await look()
    await subject.open_chunks([T0, T0 + CHUNK_US])
    await look()
    await subject.close_before(T0 + CHUNK_US)
    await look()
    await subject.end_late()
    await look()
    assert len(set(seen)) == 4


async def test_visible_through_is_the_least_over_halted_partitions_too(subject: Subject) -> None:
    async with subject.store.snapshot() as snapshot:
        assert (snapshot.offsets, snapshot.visible_through_us) == ({}, 0)
    await subject.set_partitions({0: (7, T0 + 90 * SECOND), 1: (3, T0 + 60 * SECOND)})
    async with subject.store.snapshot() as snapshot:
        assert snapshot.visible_through_us == T0 + 59 * SECOND
    await subject.set_partitions({2: (0, None)})
    async with subject.store.snapshot() as snapshot:
        assert snapshot.visible_through_us == 0
        assert snapshot.offsets == {0: 7, 1: 3, 2: 0}


async def test_services_and_ledger_sum_what_is_rolled_up_and_what_is_not(subject: Subject) -> None:
    minute = T0 + 60 * SECOND
    old = [
        LedgerRow(T0, "shop", 0, Outcome.RECEIVED, "", 10),
        LedgerRow(T0, "shop", 9, Outcome.STORED, "", 6),
        LedgerRow(T0, "shop", 17, Outcome.STORED, "", 1),
        LedgerRow(T0, "shop", 0, Outcome.FILTERED, "no-debug", 2),
        LedgerRow(T0, "shop", 0, Outcome.DEAD, "refused", 1),
    ]
    new = [
        LedgerRow(T0, "shop", 0, Outcome.DEAD, "refused", -1),
        LedgerRow(T0, "shop", 9, Outcome.STORED, "", 1),
        LedgerRow(minute, "pay", 0, Outcome.RECEIVED, "", 2),
        LedgerRow(minute, "pay", 13, Outcome.STORED, "", 2),
        LedgerRow(minute, "", 0, Outcome.RECEIVED, "", 1),
        LedgerRow(minute, "", 0, Outcome.REJECTED, "json", 1),
    ]
    await subject.book(old, rolled_up=True)
    await subject.book(new, rolled_up=False)
    ledger = partial(subject.store.ledger, start_us=T0, budget_ms=10_000)
    rows = await ledger(end_us=minute, allowed=ALL_SERVICES, rows_max=100)
    first = await ledger(end_us=minute, allowed=ALL_SERVICES, rows_max=3)
    assert first == rows[:3]
    assert rows == [
        LedgerRow(T0, "shop", 0, Outcome.FILTERED, "no-debug", 2),
        LedgerRow(T0, "shop", 0, Outcome.RECEIVED, "", 10),
        LedgerRow(T0, "shop", 9, Outcome.STORED, "", 7),
        LedgerRow(T0, "shop", 17, Outcome.STORED, "", 1),
    ]
    pay = ServiceScope(names=frozenset({"pay"}))

    async def booked(allowed: ServiceScope, *names: str) -> set[str]:
        found = await ledger(end_us=minute + 1, allowed=allowed, service_names=names, rows_max=100)
        return {row.service_name for row in found}

    assert await booked(ALL_SERVICES) == {"", "pay", "shop"}
    assert await booked(pay) == {"pay"}
    assert await booked(pay, "shop") == set()
    assert await booked(ALL_SERVICES, "shop", "mail") == {"shop"}
    assert await booked(NO_SERVICES) == set()

    services = await subject.store.services(allowed=ALL_SERVICES)
    assert [(s.service_name, s.last_seen_us, s.counts_by_level) for s in services] == [
        ("pay", minute, {"WARN": 2}),
        ("shop", T0, {"INFO": 7, "ERROR": 1}),
    ]
    assert [s.service_name for s in await subject.store.services(allowed=pay)] == ["pay"]
    assert await subject.store.services(allowed=NO_SERVICES) == []


async def test_services_are_cut_at_a_number_of_names(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (store.memory, store.postgres_read):
        monkeypatch.setattr(module, "SERVICES_MAX", 2)
    levels = [(name, level) for name in ("mail", "pay", "shop") for level in (9, 17)]
    await subject.book([LedgerRow(T0, name, level, Outcome.STORED, "", 1) for name, level in levels], rolled_up=False)
    services = await subject.store.services(allowed=ALL_SERVICES)
    assert [(s.service_name, s.counts_by_level) for s in services] == [
        (name, {"INFO": 1, "ERROR": 1}) for name in ("mail", "pay")
    ]


async def test_the_cursor_secret_is_one_for_all_processes(subject: Subject) -> None:
    first, *others = await asyncio.gather(*(subject.store.cursor_secret() for _ in range(4)))
    assert len(first) == 32
    assert set(others) == {first}


# --- the walk while everything moves ----------------------------------------------------------------------------------

Step = tuple[str, int]
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.integers(0, 4 * 24 - 1)),
        st.tuples(st.sampled_from(["close", "finish", "end_late", "page"]), st.just(0)),
    ),
    max_size=25,
)


async def check_walk(subject: Subject, before: list[int], steps: list[Step], order: Order, limit: int) -> None:
    """INV-6 on a store that goes on: rows of the first snapshot once each, in order; others at most once."""
    numbers = iter(range(10_000))
    closed = 0

    def logs_at(quarters: Iterable[int]) -> list[Log]:
        return [a_log(next(numbers), at=quarter * 15 * 60 * SECOND) for quarter in quarters]

    await subject.reset()
    first = logs_at(before)
    await subject.put(first)
    async with subject.store.snapshot() as snapshot:
        last = await snapshot.newest()
    shown: list[Log] = []
    after: Position | None = None
    is_over = last is None

    async def page() -> None:
        nonlocal after, is_over
        result = await scan(subject.store, order=order, limit=limit, after=after, last=last)
        shown.extend(result.logs)
        after, is_over = result.scanned_to, result.finished

    for step, quarter in steps:
        if step == "put":
            await subject.put(logs_at([quarter]))
        elif step == "close" and closed < 3:
            closed += 1
            await subject.close_before(T0 + closed * CHUNK_US)
        elif step == "finish":
            await subject.finish()
        elif step == "end_late":
            await subject.end_late()
        elif step == "page" and not is_over:
            await page()
    while not is_over:
        await page()
    assert shown == in_order(shown, order)
    assert len(set(ids(shown))) == len(shown)
    assert set(ids(first)) <= set(ids(shown))


@given(st.lists(st.integers(0, 95), max_size=40), STEPS, st.sampled_from(list(Order)), st.integers(1, 9))
@settings(max_examples=150, deadline=None)
def test_a_walk_shows_each_row_once_in_memory(before: list[int], steps: list[Step], order: Order, limit: int) -> None:
    async def run() -> None:
        subject = MemorySubject()
        await subject.reset()
        await subject.open_chunks(T0 + n * CHUNK_US for n in range(4))

        async def reset() -> None:
            pass

        subject.reset = reset  # type: ignore[method-assign]  # fresh already, and its chunks are open
        await check_walk(subject, before, steps, order, limit)

    asyncio.run(run())


@pytest.mark.parametrize("has_tiers", [False, True])
def test_a_walk_shows_each_row_once_while_everything_moves(
    database_place: tuple[Layout, str], tmp_path: Path, has_tiers: bool
) -> None:
    layout, url = database_place

    @asynccontextmanager
    async def opened() -> AsyncIterator[PostgresSubject]:
        made = TieredSubject(url, layout, tmp_path) if has_tiers else PostgresSubject(url, layout)
        subject = await made.open()
        try:
            yield subject
        finally:
            await subject.close()

    async def prepare() -> None:
        async with opened() as subject:
            await subject.open_chunks(T0 + n * CHUNK_US for n in range(4))

    @given(st.lists(st.integers(0, 95), max_size=40), STEPS, st.sampled_from(list(Order)), st.integers(1, 9))
    @settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
    def holds(before: list[int], steps: list[Step], order: Order, limit: int) -> None:
        async def run() -> None:
            async with opened() as subject:
                await check_walk(subject, before, steps, order, limit)

        asyncio.run(run())

    asyncio.run(prepare())
    holds()


# --- what only a database does ----------------------------------------------------------------------------------------


@pytest.fixture
async def database_subject(database_place: tuple[Layout, str]) -> AsyncIterator[PostgresSubject]:
    layout, url = database_place
    subject = await PostgresSubject(url, layout).open()
    yield subject
    await subject.close()


async def make_expressions_slow(subject: PostgresSubject) -> None:
    """Connections made from now on find an operator `~` that takes a millisecond of each text with a 7 at its end."""
    [(database,)] = await subject.run("SELECT current_database()")
    for statement in (
        "CREATE SCHEMA slow",
        "CREATE FUNCTION slow.matches(text, text) RETURNS boolean LANGUAGE plpgsql AS"
        " $$ BEGIN IF $1 LIKE '%7' THEN PERFORM pg_sleep(0.001); END IF; RETURN $1 OPERATOR(pg_catalog.~) $2; END $$",
        "CREATE OPERATOR slow.~ (FUNCTION = slow.matches, LEFTARG = text, RIGHTARG = text)",
        f"ALTER DATABASE {database} SET search_path = slow, pg_catalog, public",
    ):
        await subject.run(statement)


async def test_a_slow_search_gets_on_page_by_page_and_misses_nothing(database_subject: PostgresSubject) -> None:
    """600 ms of work in pages of 400 ms, each window with a share of 100 ms at most: more than one page on any machine."""
    subject = database_subject
    await subject.open_chunks([T0])
    await subject.run(
        "INSERT INTO logs SELECT %s::timestamptz + g / 7 * interval '1 ms', %s + g, 9, 'shop', NULL,"
        " CASE WHEN g %% 900 = 5 THEN 'needle' ELSE 'hay ' || g END, '{}' FROM generate_series(0, 5999) g",
        moment(T0),
        first_id_at(T0 // 1000),
    )
    expected = await subject.run("SELECT id FROM logs WHERE message LIKE '%needle' ORDER BY timestamp DESC, id DESC")
    await make_expressions_slow(subject)
    slow = Matches(parse_pattern("[mn][ef]+[de][kl]"))
    found: list[Log] = []
    after: Position | None = None
    pages = 0
    while True:
        result = await scan(subject.store, slow, after=after, budget_ms=400)
        found += result.logs
        pages += 1
        if result.finished:
            break
        assert result.scanned_to != after
        after = result.scanned_to
        assert pages < 500
    assert pages > 1
    assert ids(found) == [log_id for (log_id,) in expected]


async def a_search_of_many_windows(subject: PostgresSubject, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The ids that match, oldest first. Each row takes a tenth of a millisecond: no window is wide."""
    monkeypatch.setattr(store.page_scan, "LOOK_ROWS", 20)
    await subject.open_chunks([T0])
    await subject.run(
        "INSERT INTO logs SELECT %s::timestamptz + g / 7 * interval '1 ms', %s + g, 9, 'shop', NULL,"
        " CASE WHEN g %% 90 = 5 THEN 'needle' ELSE 'hay ' || g END, '{}' FROM generate_series(0, 5999) g",
        moment(T0),
        first_id_at(T0 // 1000),
    )
    expected = await subject.run("SELECT id FROM logs WHERE message LIKE '%needle' ORDER BY timestamp, id")
    await make_expressions_slow(subject)
    return [log_id for (log_id,) in expected]


class Ahead:
    """Sees what is read by second connections."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.answers = 0
        self.failures = 0
        """Windows that were read, and that could not be."""
        before = store.page_scan.PageScan._read_ahead

        async def seen(page: Any, ahead: Any) -> Any:
            answer = await before(page, ahead)
            if answer is None:
                self.failures += 1
            else:
                self.answers += 1
            return answer

        monkeypatch.setattr(store.page_scan.PageScan, "_read_ahead", seen)


NEEDLE = Matches(parse_pattern("[mn][ef]+[de][kl]"))


@pytest.mark.parametrize("order", list(Order))
@pytest.mark.parametrize("page_bytes_max", [60, 8 << 20])
async def test_a_search_that_reads_two_windows_at_once_finds_the_same_in_the_same_order(
    database_subject: PostgresSubject, monkeypatch: pytest.MonkeyPatch, order: Order, page_bytes_max: int
) -> None:
    """Pages that end for each reason: bytes, limit, budget, the end."""
    subject, ahead = database_subject, Ahead(monkeypatch)
    expected = await a_search_of_many_windows(subject, monkeypatch)
    reading = PostgresReadStore(subject.database, LOGS_TOPIC, subject.layout, page_bytes_max=page_bytes_max)
    found = await walk(reading, NEEDLE, order=order, limit=30, budget_ms=500)
    assert ids(found) == (expected if order is Order.OLDEST_FIRST else expected[::-1])
    assert ahead.answers > 0
    assert ahead.failures == 0


async def test_a_search_goes_on_by_itself_when_its_second_connection_breaks(
    database_subject: PostgresSubject, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject, ahead = database_subject, Ahead(monkeypatch)
    expected = await a_search_of_many_windows(subject, monkeypatch)
    reading = store.page_scan.PageScan._reading
    broken = 0

    async def broken_in_the_middle(page: Any, runner: Any, window: Any, share_ms: int) -> Any:
        nonlocal broken
        broken += 1
        ((pid,),) = await runner.rows("SELECT pg_backend_pid()", ())
        asking = asyncio.ensure_future(reading(page, runner, window, share_ms))
        await subject.run("SELECT pg_terminate_backend(%s)", pid)
        return await asking

    monkeypatch.setattr(store.page_scan.PageScan, "_reading", broken_in_the_middle)
    alone = PostgresReadStore(subject.database, LOGS_TOPIC, subject.layout)
    found = await walk(alone, NEEDLE, limit=30, budget_ms=500)
    assert ids(found) == expected[::-1]
    assert broken == ahead.failures > 0


async def test_a_search_goes_on_by_itself_when_its_snapshot_cannot_be_imported(
    database_subject: PostgresSubject, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject, ahead = database_subject, Ahead(monkeypatch)
    expected = await a_search_of_many_windows(subject, monkeypatch)
    begin, tried = store.second_connection._begin, 0

    def of_no_snapshot(name: str) -> bytes:
        nonlocal tried
        tried += 1
        return begin("00000000-00000000-1")

    monkeypatch.setattr(store.second_connection, "_begin", of_no_snapshot)
    assert ids(await walk(subject.store, NEEDLE, limit=30, budget_ms=500)) == expected[::-1]
    assert tried > 0
    assert (ahead.answers, ahead.failures) == (0, 0)


async def test_a_search_waits_for_no_second_connection(
    database_subject: PostgresSubject, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither for its place in the process nor for the pool."""
    subject, ahead = database_subject, Ahead(monkeypatch)
    expected = await a_search_of_many_windows(subject, monkeypatch)
    none = PostgresReadStore(subject.database, LOGS_TOPIC, subject.layout, second_connections_max=0)
    assert ids(await walk(none, NEEDLE, limit=30, budget_ms=500)) == expected[::-1]
    async with AsyncExitStack() as stack:
        for _ in range(3):  # of four
            await stack.enter_async_context(subject.database.connection())
        assert ids(await walk(subject.store, NEEDLE, limit=30, budget_ms=500)) == expected[::-1]
    assert (ahead.answers, ahead.failures) == (0, 0)


async def test_a_late_row_that_was_on_its_way_is_told_from_the_mark(database_subject: PostgresSubject) -> None:
    """It was stored before the snapshot, which does not see it: its transaction had not ended."""
    subject = database_subject
    writer = await connect(subject._url, application_name="writer")
    async with writer:
        await writer.execute("BEGIN")
        await writer.execute("INSERT INTO logs_late_1 VALUES (%s, %s, %s, %s, %s, %s, %s)", row(a_log(1, at=-HOUR)))
        await subject.put([a_log(2, at=-HOUR)])
        async with subject.store.snapshot() as snapshot:
            mark = snapshot.mark
        await writer.commit()
    async with subject.store.snapshot() as snapshot:
        assert await snapshot.late_since(mark)


@pytest.mark.parametrize("made", ["(LIKE logs)", "(LIKE logs INCLUDING DEFAULTS)"])
async def test_a_late_table_of_an_older_program_may_always_have_new_rows(
    database_subject: PostgresSubject, made: str
) -> None:
    """It does not say what came when, or has no index that does: five million rows would be looked at for each kept page."""
    subject = database_subject
    async with subject.store.snapshot() as snapshot:
        assert not await snapshot.late_since(snapshot.mark)
    await subject.run(f"CREATE TABLE logs_late_2 {made}")
    await subject.run(
        "INSERT INTO catalogue (table_name, kind, generation, state) VALUES ('logs_late_2', 'late', 2, 'open')"
    )
    async with subject.store.snapshot() as snapshot:
        assert await snapshot.late_since(snapshot.mark)
    await subject.run("UPDATE catalogue SET state = 'finished', rows = 0 WHERE table_name = 'logs_late_2'")
    async with subject.store.snapshot() as snapshot:
        assert not await snapshot.late_since(snapshot.mark)


async def test_a_row_that_does_not_say_when_it_arrived_may_be_new(database_subject: PostgresSubject) -> None:
    subject = database_subject
    await subject.run("ALTER TABLE logs_late_1 ALTER COLUMN arrived DROP DEFAULT")
    await subject.put([a_log(1, at=-HOUR)])
    async with subject.store.snapshot() as snapshot:
        assert await snapshot.late_since(snapshot.mark)


async def test_a_late_generation_dropped_under_a_snapshot_asks_for_a_new_one(database_subject: PostgresSubject) -> None:
    subject = database_subject
    await subject.put([a_log(1, at=-HOUR)])

    async def scan_over_a_drop() -> None:
        async with subject.store.snapshot() as snapshot:
            await subject.end_late()
            await subject.put([a_log(2, at=-HOUR)])
            await subject.run("DROP TABLE logs_late_1")
            await subject.run("DELETE FROM catalogue WHERE generation = 1")
            await snapshot.scan(Scan(EVERYTHING, Order.NEWEST_FIRST, 10), allowed=ALL_SERVICES)

    with pytest.raises(SnapshotLost):
        await scan_over_a_drop()
    assert ids((await scan(subject.store)).logs) == [a_log(2, at=-HOUR).id]


async def round_trips(store: ReadStore, monkeypatch: pytest.MonkeyPatch, *asked: Scan | int) -> list[str]:
    """What goes to the server and is waited for, for one snapshot in which this is asked."""
    sent: list[str] = []

    def noted(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def noting(self: Connection, *arguments: Any, **options: Any) -> Any:
            is_idle = self.info.transaction_status.name == "IDLE"
            if not (self._pipeline if name == "execute" else is_idle and name in ("commit", "rollback")):
                sent.append(name)
            return call(self, *arguments, **options)

        return noting

    connection_class = get_origin(Connection)
    with monkeypatch.context() as patch:
        for name in ("execute", "pipeline", "rollback", "commit"):
            patch.setattr(connection_class, name, noted(name, getattr(connection_class, name)))
        async with store.snapshot() as snapshot:
            for question in asked:
                if isinstance(question, Scan):
                    await snapshot.scan(question, allowed=ALL_SERVICES)
                else:
                    await snapshot.by_id(question, allowed=ALL_SERVICES)
    return sent


@pytest.mark.parametrize("question", [EVERYTHING, MinLevel(17), MetaEquals(("k",), "v")])
async def test_a_first_window_too_has_its_share_of_the_budget_only(
    database_subject: PostgresSubject, question: Predicate
) -> None:
    """A server that is busy with something else: the asker waits for no statement's own ten seconds."""
    subject = database_subject
    await subject.open_chunks([T0])
    await subject.put([a_log(n, at=n) for n in range(10)])
    await subject.run("BEGIN; LOCK TABLE logs IN ACCESS EXCLUSIVE MODE")
    began_s = time.monotonic()
    with pytest.raises(DatabaseUnavailable, match="got nowhere in its time"):
        await scan(subject.store, question, budget_ms=200)
    assert time.monotonic() - began_s < 5
    await subject.run("ROLLBACK")
    assert len((await scan(subject.store, EVERYTHING)).logs) == 10


@pytest.mark.parametrize("order", list(Order))
async def test_a_walk_whose_ends_of_windows_are_not_found_in_time_misses_nothing(
    database_subject: PostgresSubject, monkeypatch: pytest.MonkeyPatch, order: Order
) -> None:
    """Only what it found says how far it came: it looks again, at less."""
    subject = database_subject
    monkeypatch.setattr(store.page_scan, "LOOK_ROWS", 20)
    await subject.open_chunks([T0])
    logs = [a_log(n, at=n, level=17 if n % 8 == 3 else 9) for n in range(100)]
    await subject.put(logs)
    edges, asked = store.page_sql.edges, 0

    def sometimes_slow(*arguments: Any, **options: Any) -> store.page_sql.Query:
        nonlocal asked
        asked += 1
        text, params = edges(*arguments, **options)
        return (f"{text} CROSS JOIN pg_sleep(10)", params) if asked % 2 else (text, params)

    monkeypatch.setattr(store.page_sql, "edges", sometimes_slow)
    found = await walk(subject.store, MinLevel(17), order=order, budget_ms=1_000)
    expected = [log.id for log in logs if log.level == 17]
    assert ids(found) == (expected if order is Order.OLDEST_FIRST else expected[::-1])
    assert asked > 2


async def test_a_ledger_that_is_not_read_in_its_time_is_refused(database_subject: PostgresSubject) -> None:
    subject = database_subject
    await subject.run("ALTER TABLE ledger RENAME TO booked")
    await subject.run("CREATE VIEW ledger AS SELECT b.* FROM booked AS b, pg_sleep(20)")
    began_s = time.monotonic()
    with pytest.raises(DatabaseUnavailable):
        await subject.store.ledger(start_us=T0, end_us=T0 + HOUR, allowed=ALL_SERVICES, rows_max=9, budget_ms=100)
    assert time.monotonic() - began_s < 10


async def test_a_page_is_three_round_trips(database_subject: PostgresSubject, monkeypatch: pytest.MonkeyPatch) -> None:
    subject = database_subject
    await subject.open_chunks([T0])
    logs = [a_log(n, at=n, level=9 + n % 10) for n in range(300)]
    await subject.put(logs)
    one_page = ["execute", "execute", "rollback"]
    for _ in range(2):  # the first one also reads the catalogue
        trips = await round_trips(subject.store, monkeypatch, Scan(EVERYTHING, Order.NEWEST_FIRST, 100))
    assert trips == one_page
    assert await round_trips(subject.store, monkeypatch, Scan(MinLevel(17), Order.NEWEST_FIRST, 20)) == one_page
    hurried = Scan(Contains("message 77"), Order.NEWEST_FIRST, 20, budget_ms=1_000)  # its share goes along
    assert (await round_trips(subject.store, monkeypatch, hurried))[:2] == ["execute", "pipeline"]
    assert await round_trips(subject.store, monkeypatch, logs[7].id) == ["execute", "pipeline", "rollback"]


async def explain(subject: PostgresSubject, snapshot: Snapshot, question: Scan) -> list[str]:
    """Plans of the statements that a scan runs."""
    plans: list[str] = []
    runner = snapshot._runner  # type: ignore[attr-defined]  # the one place through which statements go
    run = runner._run

    async def explained(before: Any, text: str, params: Sequence[Any]) -> Any:
        result = await run(before, text, params)
        plans.append("\n".join(line for (line,) in await run([], f"EXPLAIN {text}", params)))
        return result

    runner._run = explained
    await snapshot.scan(question, allowed=ALL_SERVICES)
    return plans


async def with_a_big_closed_chunk(subject: PostgresSubject) -> None:
    await subject.open_chunks(T0 + n * CHUNK_US for n in range(6))
    await subject.run(
        "INSERT INTO logs SELECT %s::timestamptz + g * interval '6 s', %s + g, (array[9,9,9,9,9,9,9,9,9,17])[1 + g %% 10],"
        " 'service-' || g * 7 %% 50, md5((g / 3)::text), 'message ' || g,"
        " jsonb_build_object('order', 'o-' || g, 'n', g %% 9) FROM generate_series(0, 20000) g",
        moment(T0),
        first_id_at(T0 // 1000),
    )
    await subject.close_before(T0 + 5 * CHUNK_US)
    await subject.finish()


async def test_closed_chunks_answer_rare_questions_from_their_indexes(database_subject: PostgresSubject) -> None:
    subject = database_subject
    await with_a_big_closed_chunk(subject)
    needle = Contains("no such text")
    questions: list[tuple[Predicate, str]] = [
        (all_of(ServiceIn(frozenset({"service-7"})), needle), "service_name"),
        (all_of(MinLevel(17), needle), "timestamp_id"),
        (CorrelationIs("c4ca4238a0b923820dcc509a6f75849b"), "correlation_id"),
    ]
    for predicate, index in questions:
        async with subject.store.snapshot() as snapshot:
            plans = await explain(subject, snapshot, Scan(predicate, Order.NEWEST_FIRST, 10))
        assert any(index in plan for plan in plans), plans
        assert not any("Seq Scan" in plan for plan in plans), plans


METADATA: tuple[dict[str, Any], ...] = (
    {"k": 7},
    {"k": "7"},
    {"k": 7.0},
    {"k": "8"},
    {"a": {"k": "x"}},
    {"a.k": "x"},
    {"a": ["x"]},
    {},
)
METADATA_QUESTIONS: list[tuple[Predicate, Callable[[Log], bool]]] = [
    (MetaEquals(("k",), "7"), lambda log: log.metadata.get("k") in (7, "7")),
    (MetaEquals(("a", "k"), "x"), lambda log: log.metadata in ({"a": {"k": "x"}}, {"a.k": "x"})),
    (
        all_of(MetaEquals(("k",), "8"), ServiceIn(frozenset({"pay"}))),
        lambda log: log.metadata == {"k": "8"} and log.service_name == "pay",
    ),
    (
        any_of(MetaEquals(("k",), "8"), MetaEquals(("a", "k"), "x")),
        lambda log: log.metadata in ({"k": "8"}, {"a": {"k": "x"}}, {"a.k": "x"}),
    ),
    (MetaEquals(("k",), "nowhere"), lambda log: False),
]


@pytest.mark.parametrize("by_index", [True, False])
@pytest.mark.parametrize("order", list(Order))
async def test_metadata_is_found_alike_by_index_and_in_order(
    database_subject: PostgresSubject, monkeypatch: pytest.MonkeyPatch, order: Order, by_index: bool
) -> None:
    monkeypatch.setattr(store.page_scan, "prefers_index", lambda *_, **__: by_index)
    monkeypatch.setattr(store.page_scan, "_INDEX_LOOK_ROWS", 1)
    subject = database_subject
    logs = await with_many_places(subject, metadata=METADATA)
    for predicate, matches in METADATA_QUESTIONS:
        for limit in (3, 100):
            found = await walk(subject.store, predicate, order=order, limit=limit)
            assert ids(found) == ids(in_order(filter(matches, logs), order)), (predicate, limit)


async def test_rare_metadata_of_closed_chunks_is_asked_of_their_index(database_subject: PostgresSubject) -> None:
    subject = database_subject
    await with_a_big_closed_chunk(subject)
    frequent, rare = MetaEquals(("n",), "3"), MetaEquals(("order",), "o-77")
    for predicate, is_indexed, limit in ((rare, True, 10), (frequent, False, 10), (rare, True, 1000)):
        async with subject.store.snapshot() as snapshot:
            plans = await explain(subject, snapshot, Scan(predicate, Order.NEWEST_FIRST, limit))
        assert any("_metadata" in plan for plan in plans) is is_indexed, plans
        assert not any("Seq Scan" in plan for plan in plans), plans
    found = await walk(subject.store, rare, limit=10)
    assert [log.metadata for log in found] == [{"n": 77 % 9, "order": "o-77"}]


async def test_chunks_without_an_index_on_metadata_are_walked(database_subject: PostgresSubject) -> None:
    subject = database_subject
    await with_a_big_closed_chunk(subject)
    await subject.run(
        "UPDATE catalogue SET metadata_indexed = range_start <> %s WHERE kind = 'chunk'", moment(T0 + CHUNK_US)
    )
    for number in (77, 4_000, 17_000):
        found = await walk(subject.store, MetaEquals(("order",), f"o-{number}"), limit=10)
        assert [log.message for log in found] == [f"message {number}"]


async def test_a_window_asks_no_chunk_outside_it(database_subject: PostgresSubject) -> None:
    subject = database_subject
    await with_a_big_closed_chunk(subject)
    start_us = T0 + CHUNK_US + HOUR
    question = Scan(EVERYTHING, Order.NEWEST_FIRST, 10, start_us=start_us, end_us=start_us + 2 * HOUR)
    async with subject.store.snapshot() as snapshot:
        plans = await explain(subject, snapshot, question)
    chunks = await subject.run("SELECT table_name FROM catalogue WHERE kind = 'chunk' ORDER BY range_start")
    for number, (name,) in enumerate(chunks):
        bare = name.rpartition(".")[2]
        assert any(f"on {bare}" in plan for plan in plans) == (number == 1), (bare, plans)
