"""Pages across tables, warm files and cold ones: real databases, files and reader processes, and what happens without one."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import store.tiers.stretches
import store.tiers.tiered_scan
from cli.http_app import build_app
from db.migrations import Layout
from query.main import QueryService
from query.settings import QuerySettings
from runtime.clock import ManualClock
from runtime.tracing import under
from schemas.errors import Overloaded
from schemas.record import Log
from schemas.scope import ALL_SERVICES, ServiceScope
from schemas.topics import LOGS_TOPIC
from search.match import compile_match
from search.predicate import (
    EVERYTHING,
    Contains,
    CorrelationIs,
    IdRange,
    Matches,
    MetaEquals,
    MinLevel,
    Not,
    Predicate,
    ServiceIn,
    TimeRange,
    all_of,
    any_of,
)
from search.regex import parse_pattern
from store.memory import CHUNK_US
from store.objects.local_store import LocalObjectStore
from store.objects.settings import ObjectSettings
from store.port import Order, Scan, SnapshotLost
from store.postgres_read import PostgresReadStore
from store.segments.format import SegmentDamaged, SegmentReaderUnavailable
from store.tiers.access import SegmentAccess, SegmentOnItsWay, SegmentsUnreachable
from store.tiers.disk_looks import DiskHangs
from store.tiers.places import Places, key_of, name_of
from store.tiers.retention import RetentionPolicy
from store.tiers.segments import SEGMENTS, Segment, segments_of
from store.tiers.settings import RetentionClass, RetentionSettings
from store.tiers.stretches import Stretch
from store.tiers.tiered_scan import TieredScan
from tests.access_site import soon
from tests.noted_spans import Noted
from tests.reading_subjects import (
    HOUR,
    SECOND,
    T0,
    TieredSubject,
    a_log,
    ids,
    in_order,
    scan,
    walk,
    with_many_places,
)
from tests.tiered_rows import READER

DAY = 24 * HOUR
ALONE = (("serving", True),)
"""Files alone have what is finished."""


@pytest.fixture(params=list(Layout))
def place(request: pytest.FixtureRequest) -> tuple[str, Layout]:
    """URL and layout of a fresh database."""
    return request.getfixturevalue(f"{request.param.value}_url"), request.param


@pytest.fixture
async def subject(place: tuple[str, Layout], tmp_path: Path) -> AsyncIterator[TieredSubject]:
    made = await TieredSubject(*place, tmp_path / "segments").open()
    yield made
    await made.close()


@pytest.fixture
async def native(native_url: str, tmp_path: Path) -> AsyncIterator[TieredSubject]:
    made = await TieredSubject(native_url, Layout.NATIVE, tmp_path / "segments").open()
    yield made
    await made.close()


async def with_files(subject: TieredSubject, homes: tuple[tuple[str, bool], ...] = ALONE) -> list[Log]:
    """Three chunks of 60 rows: two finished and moved as `homes` says, one open; late rows in a table over both."""
    subject.HOMES = homes
    await subject.open_chunks(T0 + n * CHUNK_US for n in range(3))
    logs = [
        a_log(
            n,
            at=n * 6 * 60 * SECOND,
            service_name=("shop", "pay")[n % 2],
            level=(9, 17)[n // 2 % 2],
            correlation_id=f"story-{n % 7}",
        )
        for n in range(180)
    ]
    await subject.put(logs)
    await subject.close_before(T0 + 2 * CHUNK_US)
    await subject.finish()
    late = [a_log(1_000 + n, at=n * 20 * 60 * SECOND, correlation_id="story-late") for n in range(30)]
    await subject.put(late)
    return logs + late


async def test_a_traced_question_says_how_many_files_it_asked(native: TieredSubject) -> None:
    logs = await with_files(native)
    top = Noted("GET /api/v1/logs")
    with under(top):
        found = await walk(native.store)
    assert ids(found) == ids(in_order(logs, Order.NEWEST_FIRST))
    steps = top.all_below()
    assert {"snapshot", "scan", "statement", "ask files"} == {step.name for step in steps}
    asked = [step for step in steps if step.name == "ask files"]
    assert sum(int(step.values["files"]) for step in asked) >= 2, "one of each finished chunk"
    assert all(step.above is not None and step.above.name == "scan" for step in asked)
    assert sum(int(step.values["logs"]) for step in steps if step.name == "scan") == len(logs)
    assert all(step.is_over and step.error is None for step in steps)


def files_of(subject: TieredSubject) -> list[Path]:
    return sorted(path for path in subject.directory.iterdir() if path.is_file())


# --- one walk -----------------------------------------------------------------------------------------------------------

WORDS = ("paid", "refused", "order")
LEAVES: st.SearchStrategy[Predicate] = st.one_of(
    st.just(EVERYTHING),
    st.builds(ServiceIn, st.frozensets(st.sampled_from(["shop", "pay", "pay/cards", "mail"]), max_size=2)),
    st.builds(lambda prefix: ServiceIn(prefixes=frozenset({prefix})), st.sampled_from(["pa", "m", "x"])),
    st.builds(MinLevel, st.sampled_from([1, 13, 17, 21, 24])),
    st.builds(CorrelationIs, st.sampled_from(["story-0", "story-3", "nowhere"])),
    st.builds(Contains, st.sampled_from([*WORDS, "ORDER 1", "7 ", "nowhere"])),
    st.builds(lambda text: Matches(parse_pattern(text)), st.sampled_from(["paid$", "[0-9]9 was", "(?i)REFUSED"])),
    st.builds(lambda n: MetaEquals(("n",), str(n)), st.integers(0, 300)),
    st.builds(
        lambda start, length: TimeRange(T0 + start * HOUR, T0 + (start + length) * HOUR),
        st.integers(-2, 24),
        st.integers(0, 12),
    ),
    st.builds(
        lambda n, more: IdRange(a_log(n, at=0).id, a_log(n + more, at=0).id), st.integers(0, 300), st.integers(0, 99)
    ),
)
PREDICATES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.builds(Not, inner), st.builds(all_of, inner, inner), st.builds(any_of, inner, inner), inner
    ),
    max_leaves=4,
)
QUESTIONS = st.lists(
    st.tuples(
        PREDICATES,
        st.sampled_from(list(Order)),
        st.sampled_from([1, 3, 10, 50, 1_000]),
        st.sampled_from([200, 3_000, 8 << 20]),
        st.sampled_from([1, 30, 2_000]),
        st.booleans(),
    ),
    min_size=10,
    max_size=10,
)


@pytest.mark.slow
@given(st.permutations([("serving", False), ("written", False), ("serving", True), ("written", True)]), QUESTIONS)
@pytest.mark.timeout(400)
@settings(max_examples=5, deadline=None, suppress_health_check=list(HealthCheck))
def test_a_walk_over_all_homes_is_what_matches_in_order(
    embedded_server: str,
    tmp_path_factory: pytest.TempPathFactory,
    homes: list[tuple[str, bool]],
    questions: list[tuple[Predicate, Order, int, int, int, bool]],
) -> None:
    """Random rows, homes and questions; budgets and results so small that pages end anywhere. `written` and emptied: only a
    search that asks files instead may go there, so those rows count for it alone."""
    from tests.conftest import RUN_VARIABLE
    from tests.databases import create_migrated_database, drop_database

    url = create_migrated_database(embedded_server, Layout.NATIVE, run=os.environ[RUN_VARIABLE])

    async def run() -> None:
        subject = await TieredSubject(url, Layout.NATIVE, tmp_path_factory.mktemp("segments")).open()
        subject.HOMES = tuple((state, is_dropped and state == "serving") for state, is_dropped in homes)
        try:
            logs = await with_many_places(subject)
            await subject.access.start_readers()  # which the shortest budgets would not wait for
            for predicate, order, limit, bytes_max, budget_ms, at_once in questions:
                reading = PostgresReadStore(
                    subject.database, LOGS_TOPIC, Layout.NATIVE, page_bytes_max=bytes_max, segments=subject.access
                )
                with pytest.MonkeyPatch.context() as patch:
                    if at_once:
                        patch.setattr(store.tiers.tiered_scan, "LOOK_MS", 0)
                    allowed = ServiceScope(names=frozenset({"shop", "pay"})) if limit == 3 else ALL_SERVICES
                    found = await walk(
                        reading, predicate, allowed=allowed, order=order, limit=limit, budget_ms=budget_ms
                    )
                matches = compile_match(predicate)
                expected = [log for log in in_order(logs, order) if matches(log) and allowed.permits(log.service_name)]
                assert found == expected, (predicate, order, limit, bytes_max, budget_ms)
        finally:
            await subject.close()

    try:
        asyncio.run(run())
    finally:
        drop_database(embedded_server, url)


async def test_a_text_is_sought_in_files_instead_of_their_tables(
    subject: TieredSubject, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tables were emptied by hand: whoever finds the rows has asked the files."""
    logs = await with_files(subject, (("written", True),))
    for order in Order:
        with monkeypatch.context() as patch:
            patch.setattr(store.tiers.tiered_scan, "LOOK_MS", 0)
            found = await walk(subject.store, Contains("message 1"), order=order, limit=10)
        expected = [log for log in in_order(logs, order) if "message 1" in log.message]
        assert ids(found) == ids(expected)
    for indexed in (EVERYTHING, ServiceIn(frozenset({"pay"})), CorrelationIs("story-1")):
        rows = await walk(subject.store, indexed)
        assert all(log.timestamp >= T0 + 2 * CHUNK_US or log.id > logs[179].id for log in rows), "tables were asked"


@pytest.mark.parametrize("how", ["damaged", "missing"])
async def test_a_text_in_a_bad_file_is_sought_in_its_table(
    native: TieredSubject, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    logs = await with_files(native, (("written", False),))
    bad, *_ = files_of(native)
    bad.unlink()
    if how == "damaged":
        bad.write_bytes(b"PAR1 and no more")
    monkeypatch.setattr(store.tiers.tiered_scan, "LOOK_MS", 0)
    for order in Order:
        found = await walk(native.store, Contains("message 1"), order=order, limit=10, is_again=True)
        assert ids(found) == ids([log for log in in_order(logs, order) if "message 1" in log.message])


async def test_files_that_overlap_are_asked_in_groups_and_merged(
    native: TieredSubject, monkeypatch: pytest.MonkeyPatch
) -> None:
    logs = await overlapping(native)
    monkeypatch.setattr(store.tiers.stretches, "FILES", 1)
    groups: list[int] = []
    of_files = TieredScan._of_files

    async def counted(self: TieredScan, access: Any, stretch: Stretch, *arguments: Any) -> Any:
        groups.append(len(list(stretch.groups())))
        return await of_files(self, access, stretch, *arguments)

    monkeypatch.setattr(TieredScan, "_of_files", counted)
    await native.access.start_readers()
    for order in Order:
        for limit, predicate in ((50, EVERYTHING), (1_000, Contains("message 1"))):
            matches = compile_match(predicate)
            expected = [log for log in in_order(logs, order) if matches(log)]
            assert ids(await walk(native.store, predicate, order=order, limit=limit)) == ids(expected)
    reading = PostgresReadStore(
        native.database, LOGS_TOPIC, Layout.NATIVE, page_bytes_max=1_500, segments=native.access
    )
    assert ids(await walk(reading, limit=1_000)) == ids(in_order(logs, Order.NEWEST_FIRST))
    assert max(groups) >= 3


async def test_a_page_that_looked_at_tables_first_holds_no_more_bytes(native: TieredSubject) -> None:
    await with_files(native, (("written", False),))
    bytes_max = 300
    reading = PostgresReadStore(
        native.database, LOGS_TOPIC, Layout.NATIVE, page_bytes_max=bytes_max, segments=native.access
    )
    page = await scan(reading, Contains("message"), limit=1_000)
    sizes = [len(log.message) + len(f"{log.metadata}") for log in page.logs]
    assert bytes_max <= sum(sizes) < bytes_max + max(sizes)


async def test_the_newest_page_asks_no_file(subject: TieredSubject) -> None:
    logs = await with_files(subject)
    for path in files_of(subject):
        path.unlink()
    newest = await scan(subject.store, limit=20, beyond_ms=1_000)
    assert ids(newest.logs) == ids(in_order(logs, Order.NEWEST_FIRST)[:20])
    with pytest.raises(SnapshotLost, match=r"moved_\d.*is not in"):
        await walk(subject.store, limit=50)


# --- retention ----------------------------------------------------------------------------------------------------------


async def test_rows_past_the_age_of_their_class_are_hidden_in_every_home(native_url: str, tmp_path: Path) -> None:
    classes = (
        RetentionClass(name="pay", days=2, services=("pay",), min_level="ERROR"),
        RetentionClass(name="short", days=1, services=("pay*",)),
    )
    policy = RetentionPolicy.of(RetentionSettings(classes=classes), default_days=4)
    clock = ManualClock(T0 + DAY)
    subject = await TieredSubject(native_url, Layout.NATIVE, tmp_path, retention=policy, clock=clock).open()
    logs = await with_files(subject, (("serving", False), ("written", False)))
    try:
        for hours in (24, 25, 24 + 9, 24 + 18, 48 + 1, 48 + 7, 48 + 18, 96 + 5, 96 + 11, 96 + 19):
            clock.wall_us = T0 + hours * HOUR + 17 * SECOND
            shown = compile_match(Not(policy.hidden(T0 + hours * HOUR)))
            for order in Order:
                for predicate in (EVERYTHING, Contains("message 1"), CorrelationIs("story-3")):
                    matches = compile_match(predicate)
                    expected = [log for log in in_order(logs, order) if shown(log) and matches(log)]
                    found = await walk(subject.store, predicate, order=order, limit=25)
                    assert ids(found) == ids(expected), (hours, order, predicate)
            async with subject.store.snapshot() as snapshot:
                for log in logs[::11]:
                    assert await snapshot.by_id(log.id, allowed=ALL_SERVICES) == (log if shown(log) else None)
                newest = max(((log.timestamp, log.id) for log in logs if shown(log)), default=None)
                assert await snapshot.newest() == newest
    finally:
        await subject.close()


async def test_an_answer_is_another_one_when_rows_have_come_of_age(native_url: str, tmp_path: Path) -> None:
    policy = RetentionPolicy.of(RetentionSettings(), default_days=2)
    clock = ManualClock(T0 + 2 * DAY)
    subject = await TieredSubject(native_url, Layout.NATIVE, tmp_path, retention=policy, clock=clock).open()
    await with_files(subject)
    revisions = []
    for minutes in (0, 59, 60):
        clock.wall_us = T0 + 2 * DAY + minutes * 60 * SECOND
        async with subject.store.snapshot() as snapshot:
            revisions.append(snapshot.revision)
    await subject.close()
    assert revisions[0] == revisions[1] != revisions[2]


# --- files that are gone, damaged, elsewhere ----------------------------------------------------------------------------


async def test_files_collected_under_a_page_mean_a_new_snapshot_once(native: TieredSubject) -> None:
    """A page knows files that were merged into others since, and are gone: the next snapshot knows the others."""
    logs = await with_files(native)
    async with serving(native) as client:
        first = (await client.get("/api/v1/logs", params={"limit": 100})).json()
        old = await native.run("SELECT name FROM segments")
        async with native.store.snapshot() as snapshot:
            await move_files(native)
            with pytest.raises(SnapshotLost, match="is not in"):
                await snapshot.scan(Scan(EVERYTHING, Order.OLDEST_FIRST, 10), allowed=ALL_SERVICES)
        assert not set(old) & set(await native.run("SELECT name FROM segments"))
        shown = [int(log["id"]) for log in first["logs"]]
        cursor = first["next_cursor"]
        while cursor is not None:
            page = (await client.get("/api/v1/logs", params={"limit": 100, "cursor": cursor})).json()
            shown += [int(log["id"]) for log in page["logs"]]
            cursor = page["next_cursor"]
    assert shown == ids(in_order(logs, Order.NEWEST_FIRST))


async def test_a_question_whose_snapshot_is_lost_is_asked_again(native: TieredSubject) -> None:
    """Files are moved between the snapshot and the scan of one request; the asker sees nothing of it."""
    logs = await with_files(native)
    async with serving(native) as client:
        scanned, moved = PostgresReadStore._taken, 0

        async def taken(self: PostgresReadStore, connection: Any) -> Any:
            nonlocal moved
            snapshot = await scanned(self, connection)
            if moved < 1:
                moved += 1
                await move_files(native)
            return snapshot

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(PostgresReadStore, "_taken", taken)
            response = await client.get("/api/v1/logs", params={"limit": 1000, "order": "asc"})
    assert response.status_code == 200
    assert [int(log["id"]) for log in response.json()["logs"]] == ids(in_order(logs, Order.OLDEST_FIRST))


async def test_a_missing_file_is_named_and_other_pages_go_on(subject: TieredSubject) -> None:
    logs = await with_files(subject)
    missing, *_ = files_of(subject)
    missing.unlink()
    async with serving(subject) as client:
        response = await client.get("/api/v1/logs", params={"order": "asc"})
        assert response.status_code == 503
        assert missing.name in response.json()["detail"]
        assert "tiers.directory" in response.json()["detail"]
        newest = await client.get("/api/v1/logs", params={"limit": 80})
        assert [int(log["id"]) for log in newest.json()["logs"]] == ids(in_order(logs, Order.NEWEST_FIRST)[:80])


async def test_a_damaged_file_is_named_and_other_pages_go_on(subject: TieredSubject) -> None:
    await with_files(subject)
    damaged, *_ = files_of(subject)
    content = bytearray(damaged.read_bytes())
    content[4 : len(content) // 2] = bytes(len(content) // 2 - 4)
    damaged.write_bytes(content)
    with pytest.raises(SegmentDamaged, match=damaged.name):
        await scan(subject.store, order=Order.OLDEST_FIRST)
    async with serving(subject) as client:
        response = await client.get("/api/v1/logs", params={"order": "asc"})
        assert response.status_code == 500
        assert response.json()["type"] == "urn:logfeed:problem:segment-damaged"
        assert damaged.name in response.json()["detail"]
        assert (await client.get("/api/v1/logs", params={"limit": 80})).status_code == 200


async def pages_until_a_problem(native: TieredSubject) -> tuple[list[int], httpx.Response]:
    """Newest first: ids of all pages that are given, and what the one after them says."""
    async with serving(native) as client:
        shown: list[int] = []
        cursor: dict[str, str] = {}
        while True:
            response = await client.get("/api/v1/logs", params={"limit": 100, **cursor})
            if response.status_code != 200:
                return shown, response
            page = response.json()
            shown += [int(log["id"]) for log in page["logs"]]
            cursor = {"cursor": page["next_cursor"]}


@pytest.mark.parametrize("how", ["damaged", "missing"])
async def test_what_was_found_before_a_bad_file_is_given_and_then_why_there_is_no_more(
    native: TieredSubject, how: str
) -> None:
    logs = in_order(await with_files(native), Order.NEWEST_FIRST)
    oldest, *_ = files_of(native)
    oldest.unlink()
    if how == "damaged":
        oldest.write_bytes(b"PAR1 and no more")
    [(end_us,)] = await native.run(
        "SELECT (extract(epoch FROM range_end) * 1000000)::bigint FROM segments WHERE name = %s", oldest.name
    )
    shown, response = await pages_until_a_problem(native)
    assert response.status_code == (500 if how == "damaged" else 503)
    assert oldest.name in response.json()["detail"]
    assert shown == ids(logs)[: len(shown)]
    assert len(shown) >= sum(log.timestamp >= end_us for log in logs) > 100, "all rows newer than the file's"


async def test_a_reader_killed_during_a_scan_says_503_and_the_next_page_goes_on(native: TieredSubject) -> None:
    logs = await with_files(native)
    await native.access.start_readers()
    (process,) = native.access._reader._processes
    assert process.pid is not None
    os.kill(process.pid, signal.SIGSTOP)  # in the middle of whatever it is asked
    asking = asyncio.create_task(scan(native.store, order=Order.OLDEST_FIRST))
    async with asyncio.timeout(30):
        while native.access._reader._idle:  # noqa: ASYNC110  # until it was asked
            await asyncio.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    with pytest.raises(SegmentReaderUnavailable):
        await asking
    found = await patiently(lambda: walk(native.store, order=Order.OLDEST_FIRST))
    assert ids(found) == ids(in_order(logs, Order.OLDEST_FIRST))


async def test_a_question_that_nobody_waits_for_any_more_leaves_its_reader(native: TieredSubject) -> None:
    logs = await with_files(native)
    await native.access.start_readers()
    (process,) = native.access._reader._processes
    assert process.pid is not None
    os.kill(process.pid, signal.SIGSTOP)  # it answers nothing
    asking = asyncio.create_task(scan(native.store, order=Order.OLDEST_FIRST, budget_ms=30_000))
    async with asyncio.timeout(30):
        while native.access._reader._idle:  # noqa: ASYNC110  # until it was asked
            await asyncio.sleep(0.01)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    os.kill(process.pid, signal.SIGCONT)
    assert ids(await walk(native.store, order=Order.OLDEST_FIRST)) == ids(in_order(logs, Order.OLDEST_FIRST))
    assert native.access._reader._processes[0].pid == process.pid


async def test_a_page_that_has_got_on_is_given_when_files_cannot_be_asked(native: TieredSubject) -> None:
    """Its cursor leads to where the next one says 503."""
    logs = await with_files(native)
    await native.access.close()
    page = await scan(native.store, limit=1_000)
    assert not page.finished
    assert ids(page.logs) == ids(in_order(logs, Order.NEWEST_FIRST)[: len(page.logs)])
    assert len(page.logs) == 60
    with pytest.raises(SegmentReaderUnavailable):
        await scan(native.store, after=page.scanned_to)


async def test_a_page_that_has_found_something_outlives_filters_that_cannot_be_read(
    native: TieredSubject, monkeypatch: pytest.MonkeyPatch
) -> None:
    logs = await with_files(native)
    story = [log for log in logs if log.correlation_id == "story-1"]

    async def hangs(*arguments: Any) -> list[Segment]:
        raise DiskHangs

    monkeypatch.setattr(native.access, "candidates", hangs)
    found = await scan(native.store, CorrelationIs("story-1"))
    newest = in_order([log for log in story if log.timestamp >= T0 + 2 * CHUNK_US], Order.NEWEST_FIRST)
    assert ids(found.logs) == ids(newest)
    assert found.scanned_to is not None
    with pytest.raises(DiskHangs):
        await scan(native.store, CorrelationIs("story-1"), after=found.scanned_to)


async def test_a_host_without_the_directory_says_what_is_missing(native: TieredSubject) -> None:
    await with_files(native)
    blind = PostgresReadStore(native.database, LOGS_TOPIC, Layout.NATIVE)
    assert len((await scan(blind, limit=50)).logs) == 50
    with pytest.raises(SegmentsUnreachable, match=r"tiers\.directory"):
        await scan(blind, order=Order.OLDEST_FIRST)
    await blind.look_at_files()
    assert "tiers.directory" in (blind.problem() or "")
    elsewhere = SegmentAccess(native.directory.parent / "nowhere", READER)
    reading = PostgresReadStore(native.database, LOGS_TOPIC, Layout.NATIVE, segments=elsewhere)
    with pytest.raises(Overloaded, match="nowhere"):
        await scan(reading, order=Order.OLDEST_FIRST)
    await reading.look_at_files()
    assert "nowhere" in (reading.problem() or "")
    await elsewhere.close()
    assert isinstance(native.store, PostgresReadStore)
    await native.store.look_at_files()
    assert native.store.problem() is None
    service = QueryService(QuerySettings(), database=native.database, layout=Layout.NATIVE, unread=nothing_unread)
    await service.start()
    assert "tiers.directory" in service.ready()[0]
    await service.stop()


async def _is_ready(service: QueryService) -> bool:
    return not service.ready()


async def test_files_whose_tables_are_there_need_no_directory_yet(
    native: TieredSubject, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither to be ready nor to seek a text."""
    logs = await with_files(native, (("written", False),))
    service = QueryService(QuerySettings(), database=native.database, layout=Layout.NATIVE, unread=nothing_unread)
    await service.start()
    await soon(partial(_is_ready, service), "query is ready")
    await service.stop()
    elsewhere = SegmentAccess(native.directory.parent / "nowhere", READER)
    reading = PostgresReadStore(native.database, LOGS_TOPIC, Layout.NATIVE, segments=elsewhere)
    await scan(reading, limit=1)
    await reading.look_at_files()
    assert reading.problem() is None
    monkeypatch.setattr(store.tiers.tiered_scan, "LOOK_MS", 0)
    expected = [log for log in in_order(logs, Order.NEWEST_FIRST) if "message 1" in log.message]
    assert ids(await walk(reading, Contains("message 1"))) == ids(expected)
    await elsewhere.close()


async def test_a_store_without_files_needs_no_directory(native: TieredSubject) -> None:
    service = QueryService(QuerySettings(), database=native.database, layout=Layout.NATIVE, unread=nothing_unread)
    await service.start()
    await soon(partial(_is_ready, service), "query is ready")
    await service.stop()


# --- object storage -----------------------------------------------------------------------------------------------------


@asynccontextmanager
async def cold(
    native: TieredSubject, tmp_path: Path, *, all_of_them: bool = False, **settings: Any
) -> AsyncIterator[tuple[PostgresReadStore, LocalObjectStore]]:
    """The older half of the files lies in object storage alone. settings: of the cache. Any: their types."""
    segments = list(segments_of(await native.run(SEGMENTS.format("TRUE"))))
    if settings.pop("room_for_one_file", False):
        settings["cache_bytes_max"] = max(segment.info.bytes for segment in segments)
    object_settings = ObjectSettings(url=f"file://{tmp_path / 'objects'}", cache_dir=tmp_path / "cache", **settings)
    objects = LocalObjectStore(tmp_path / "objects", object_settings)
    for segment in segments if all_of_them else segments[: len(segments) // 2]:
        path = native.directory / segment.name
        await objects.put(key_of(segment), path)
        path.unlink()
        await native.run("UPDATE segments SET tier = 'cold' WHERE name = %s", segment.name)
    access = SegmentAccess(native.directory, READER, objects=objects, object_settings=object_settings)
    await access.open()
    try:
        yield PostgresReadStore(native.database, LOGS_TOPIC, native.layout, segments=access), objects
    finally:
        await access.close()


async def test_cold_files_are_fetched_and_read_as_warm_ones_are(native: TieredSubject, tmp_path: Path) -> None:
    logs = await with_files(native)
    async with cold(native, tmp_path) as (reading, _):
        for order in Order:
            assert ids(await walk(reading, order=order, limit=23, budget_ms=30_000)) == ids(in_order(logs, order))
        story = await walk(reading, CorrelationIs("story-3"), order=Order.OLDEST_FIRST)
        assert ids(story) == [log.id for log in logs if log.correlation_id == "story-3"]
        async with reading.snapshot() as snapshot:
            for log in logs[::13]:
                assert await snapshot.by_id(log.id, allowed=ALL_SERVICES) == log


async def overlapping(native: TieredSubject) -> list[Log]:
    """Files of which several have rows at every moment."""
    logs = await with_files(native)
    for generation in range(1, 4):
        await native.end_late()
        await native.finish()
        more = [a_log(2_000 * generation + n, at=n * 17 * 60 * SECOND, message="message 1") for n in range(30)]
        await native.put(more)
        logs += more
    return logs


async def test_a_cache_of_one_file_gets_through_files_that_overlap(native: TieredSubject, tmp_path: Path) -> None:
    """They are asked one after the other; waiting for room together they would wait for each other."""
    logs = await overlapping(native)
    async with cold(native, tmp_path, all_of_them=True, room_for_one_file=True, cache_wait_s=0.5) as (reading, _):
        found = await patiently(lambda: walk(reading, limit=50, budget_ms=30_000))
        assert ids(found) == ids(in_order(logs, Order.NEWEST_FIRST))


async def test_a_cache_too_small_for_files_that_overlap_says_what_to_change(
    native: TieredSubject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where their time is over before all were asked: it would be the next time, too."""
    await overlapping(native)
    async with cold(native, tmp_path, all_of_them=True, room_for_one_file=True) as (reading, objects):
        get, fetched = objects.get, set[str]()

        async def two(key: str, *arguments: Any, **options: Any) -> Any:
            if len(fetched) == 2:
                await asyncio.Event().wait()
            fetched.add(key)
            return await get(key, *arguments, **options)

        monkeypatch.setattr(objects, "get", two)
        with pytest.raises(Overloaded, match=r"raise objects\.cache_bytes_max"):
            await walk(reading, order=Order.OLDEST_FIRST, limit=1_000, budget_ms=5_000)


async def test_an_id_that_no_filter_knows_fetches_nothing(native: TieredSubject, tmp_path: Path) -> None:
    await with_files(native)
    async with cold(native, tmp_path) as (reading, _):
        assert await walk(reading, CorrelationIs("story-nowhere"), order=Order.OLDEST_FIRST) == []
        assert [path for path in (tmp_path / "cache").iterdir() if path.name != ".lock"] == []


async def test_an_object_that_is_gone_or_damaged_is_named(subject: TieredSubject, tmp_path: Path) -> None:
    await with_files(subject)
    async with cold(subject, tmp_path) as (reading, objects):
        keys = sorted([found.key async for found in objects.list()], key=name_of)
        first, second = tmp_path / "objects" / keys[0], tmp_path / "objects" / keys[1]
        await objects.delete(keys[0])
        with pytest.raises(SnapshotLost, match=first.name):
            await scan(reading, order=Order.OLDEST_FIRST)
        second.write_bytes(bytes(second.stat().st_size))
        with pytest.raises(SegmentDamaged, match=second.name):
            await walk(reading, EVERYTHING, limit=1_000)


async def test_a_question_that_cannot_wait_for_an_object_says_so(
    native: TieredSubject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The download goes on: asked again, the file is there."""
    logs = await with_files(native)
    async with cold(native, tmp_path) as (reading, objects):
        let, get = asyncio.Event(), objects.get

        async def slowly(*arguments: Any, **options: Any) -> Any:
            await let.wait()
            return await get(*arguments, **options)

        monkeypatch.setattr(objects, "get", slowly)
        with pytest.raises(SegmentOnItsWay, match="is being fetched"):
            await scan(reading, order=Order.OLDEST_FIRST, budget_ms=100)
        let.set()
        found = await patiently(lambda: walk(reading, order=Order.OLDEST_FIRST))
        assert ids(found) == ids(in_order(logs, Order.OLDEST_FIRST))


async def test_a_full_page_fetches_nothing_to_learn_whether_anything_lies_beyond(
    native: TieredSubject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logs = in_order(await with_files(native), Order.NEWEST_FIRST)
    async with cold(native, tmp_path) as (reading, objects):
        [(cold_end_us,)] = await native.run(
            "SELECT max(extract(epoch FROM range_end) * 1000000)::bigint FROM segments WHERE tier = 'cold'"
        )
        near = sum(log.timestamp >= cold_end_us for log in logs)
        got = asyncio.Event()
        get = objects.get

        async def noted(*arguments: Any, **options: Any) -> Any:
            got.set()
            return await get(*arguments, **options)

        monkeypatch.setattr(objects, "get", noted)
        page = await scan(reading, limit=near, beyond_ms=1_000, budget_ms=30_000)
        assert ids(page.logs) == ids(logs)[:near]
        assert not page.finished
        assert not got.is_set()
        assert ids(await walk(reading, after=page.scanned_to, budget_ms=30_000)) == ids(logs)[near:]


async def test_a_cache_that_cannot_be_used_refuses_cold_files_alone(native: TieredSubject, tmp_path: Path) -> None:
    logs = in_order(await with_files(native), Order.NEWEST_FIRST)
    object_settings = ObjectSettings(url=f"file://{tmp_path / 'objects'}", cache_dir=tmp_path / "cache")
    async with cold(native, tmp_path):
        objects = LocalObjectStore(tmp_path / "objects", object_settings)
        second = SegmentAccess(native.directory, READER, objects=objects, object_settings=object_settings)
        await second.open()
        reading = PostgresReadStore(native.database, LOGS_TOPIC, Layout.NATIVE, segments=second)
        page = await scan(reading, limit=1_000, budget_ms=30_000)
        assert ids(page.logs) == ids(logs)[: len(page.logs)]
        assert len(page.logs) > 100, "warm files are read"
        with pytest.raises(SegmentsUnreachable, match=r"objects\.cache_dir.*another process"):
            await scan(reading, after=page.scanned_to)
        await reading.look_at_files()
        assert "objects.cache_dir" in (reading.problem() or "")
    await reading.look_at_files()  # the other process has ended
    assert reading.problem() is None
    assert ids(await walk(reading, budget_ms=30_000)) == ids(logs)
    await second.close()


async def test_copies_of_objects_go_with_their_segments(native: TieredSubject, tmp_path: Path) -> None:
    await with_files(native)
    async with cold(native, tmp_path) as (reading, objects):
        await walk(reading, budget_ms=30_000)

        def copies() -> int:
            return sum(path.name != ".lock" for path in (tmp_path / "cache").iterdir())

        count = len([found async for found in objects.list()])
        await reading.look_at_files()
        assert copies() == count > 1
        await native.run(
            "UPDATE segments SET state = 'retired', retired_at = clock_timestamp()"
            " WHERE name = (SELECT min(name) FROM segments WHERE tier = 'cold')"
        )
        await scan(reading, limit=1)
        await reading.look_at_files()
        assert copies() == count - 1


# --- many files ---------------------------------------------------------------------------------------------------------


async def test_two_thousand_files_cost_a_page_and_a_story_little(native: TieredSubject) -> None:
    """All have the rows and the filter of a few; each stands for another day."""
    await with_files(native)
    [(template,)] = await native.run("SELECT name FROM segments ORDER BY range_start LIMIT 1")
    for number in range(2_000):
        name = f"many_{number:04}.parquet"
        (native.directory / name).hardlink_to(native.directory / template)
        filters = Places(native.directory).filters
        (filters / f"{name}.correlations").hardlink_to(filters / f"{template}.correlations")
    await native.run(
        "INSERT INTO segments (name, state, tier, retention_class, sources, range_start, range_end, rows, bytes, info, epoch)"
        " SELECT 'many_' || lpad(n::text, 4, '0') || '.parquet', 'serving', 'warm', 'default', '{}',"
        " range_start - (n + 1) * interval '1 day', range_start - n * interval '1 day', rows, bytes, info, 1"
        " FROM segments, generate_series(0, 1999) AS n WHERE name = %s",
        template,
    )

    # Were all files opened for it, neither would end in a page's time: that is some ms a file.
    page = await scan(native.store, EVERYTHING, order=Order.NEWEST_FIRST, limit=50)
    assert len(page.logs) == 50
    story = await scan(native.store, CorrelationIs("nowhere"), order=Order.OLDEST_FIRST, limit=50)
    assert story.finished
    assert not story.logs


# --- what the tests above need ------------------------------------------------------------------------------------------


async def nothing_unread() -> dict[int, int]:
    return {}


@asynccontextmanager
async def serving(native: TieredSubject) -> AsyncIterator[httpx.AsyncClient]:
    """The query API over the same rows."""
    service = QueryService(
        QuerySettings(),
        database=native.database,
        layout=native.layout,
        unread=nothing_unread,
        segments=SegmentAccess(native.directory, READER),
    )
    await service.start()
    transport = httpx.ASGITransport(app=build_app([service]))
    async with httpx.AsyncClient(transport=transport, base_url="http://test", timeout=60) as client:
        yield client
    await service.stop()


async def move_files(native: TieredSubject) -> None:
    """Give every file another name in the catalogue and on the disk, as merging does in the end."""
    async with native.connection.transaction():
        await native.run("UPDATE segments SET name = 'other_' || name")
        await native.run("UPDATE segments SET state = state")  # names alone never change, and tell no reader
    for path in files_of(native):
        path.rename(path.with_name(f"other_{path.name}"))
    for path in (Places(native.directory).filters).iterdir():
        path.rename(path.with_name(f"other_{path.name}"))


async def patiently(ask: Callable[[], Any]) -> Any:
    """The answer, asked again while it cannot be had, as a client does."""
    async with asyncio.timeout(60):
        while True:
            try:
                return await ask()
            except Overloaded:
                await asyncio.sleep(0.05)
