"""Indexes of open chunks: whatever parts there are, every row is found exactly once; killed anywhere, nothing is lost."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import pytest

import store.page_scan
import store.parts
from db.database import Connection, connect
from db.embedded import EmbeddedPostgres
from db.leases import Lease as RoleLease
from db.migrations import Layout, migrate
from runtime.clock import ManualClock
from runtime.stopping import Stop
from schemas.errors import DatabaseUnavailable
from schemas.scope import ALL_SERVICES
from search.predicate import CorrelationIs, MetaEquals, Predicate, ServiceIn, all_of
from store.asked_keys import KEYS_MAX, KEYS_NOTED_MAX, KeyNotes, asked_keys
from store.parts import METADATA_ROWS_MAX, PARTS_MAX, QUIET_ROWS_MIN, ROWS_MIN, SMALL_PARTS_MAX, parts_to_merge
from store.port import OpenIndex, Order, Position, Scan
from store.postgres_read import PostgresReadStore
from store.settings import StoreSettings
from store.statements import BY_PARTS, IN_ORDER, Settings, StatementRunner
from store.upkeep import PostgresUpkeep
from tests.integration.test_upkeep import DyingDatabase, Killed
from tests.store_sites import AHEAD_US, HOUR_US, TOPIC, PostgresSite, now_us, postgres_site, prepared
from writer import sealer as sealer_module
from writer.sealer import SEALER, Sealer

CHUNK_US = 6 * HOUR_US
COLOURS = ("red", "green", "blue")


@pytest.fixture(params=[Layout.NATIVE.value, pytest.param(Layout.TIMESCALE.value, marks=pytest.mark.timescale)])
def place(request: pytest.FixtureRequest) -> tuple[str, Layout]:
    """URL and layout of a fresh database."""
    return request.getfixturevalue(f"{request.param}_url"), Layout(request.param)


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any row makes a part, and any page that may ask an index does."""
    monkeypatch.setattr(store.parts, "ROWS_MIN", 1)
    monkeypatch.setattr(store.page_scan, "prefers_index", lambda *_, **__: True)
    monkeypatch.setattr(store.page_scan, "_INDEX_LOOK_ROWS", 1)


class Open:
    """A store with open chunks, and what a test knows of its rows."""

    def __init__(self, site: PostgresSite, start_us: int) -> None:
        self.site = site
        self.start_us = start_us
        self.store = PostgresReadStore(site.database, TOPIC, site.layout)
        self.rows: list[tuple[int, int, str, str]] = []
        """(timestamp, id, colour, service) of committed rows."""
        self._next = 0

    def some(self, count: int, *, chance: random.Random) -> list[tuple[int, int, str, str]]:
        """Rows that are new, with times and ids old and new."""
        made = []
        for _ in range(count):
            self._next += 1
            age = chance.choice((0, 0, 0, 5_000, 900_000))
            made.append(
                (
                    self.start_us + (self._next * 1_000_003 + age * 7) % (2 * CHUNK_US),
                    1 + self._next * 1_000 - (age and chance.randrange(1, 999)),
                    chance.choice(COLOURS),
                    chance.choice(("shop", "pay")),
                )
            )
        return made

    async def put(self, rows: list[tuple[int, int, str, str]]) -> None:
        async with self.site.database.transaction() as connection:
            await insert(connection, rows)
        self.rows += rows

    async def make_part(self, by: OpenIndex | None = None) -> int:
        """Make one of everything that is committed, by one thing or by all; for tests without open transactions. Those of
        other tests on the same server also count: transactions have one order in all of its databases."""
        if by is None:
            return max([await self.make_part(each) for each in OpenIndex])
        deadline = time.monotonic() + 30
        rows = await self.site.upkeep.index_open(by)
        while await self._rest(by):
            assert time.monotonic() < deadline
            await asyncio.sleep(0.02)
            rows += await self.site.upkeep.index_open(by)
        return rows

    async def _rest(self, by: OpenIndex) -> int:
        """How many rows are in no part."""
        async with self.store.snapshot() as snapshot:
            open_from_us = snapshot._catalogue.ground(snapshot.closed_before_us).open_from_us  # type: ignore[attr-defined]  # theirs
        row = await self.site.database.fetch_one(
            "SELECT count(*) FROM logs WHERE timestamp >= timestamptz 'epoch' + %s::bigint * interval '1 microsecond'"
            " AND arrived >= coalesce((SELECT max(to_xid) FROM open_parts WHERE kind = %s), 0)",
            (open_from_us, by),
        )
        assert row is not None
        return int(row[0])

    async def ask_by(self, *keys: str) -> None:
        """From now on they count as asked for."""
        note = "INSERT INTO asked_keys SELECT unnest(%s::text[]), clock_timestamp()"
        await self.site.database.execute(note, (list(keys),))

    async def parts(self, by: OpenIndex = OpenIndex.METADATA) -> list[int]:
        """Rows of each."""
        query = "SELECT rows FROM open_parts WHERE kind = %s ORDER BY from_xid"
        return [rows for (rows,) in await self.site.database.fetch_all(query, (by,))]

    async def check(self, *paths: tuple[str, ...], limit: int = 7) -> None:
        """Each row that is there is found once, in order, by pages in both directions. paths: of metadata; ("c",) if none."""
        paths = paths or (("c",),)
        for colour in COLOURS:
            expected = sorted((row[0], row[1]) for row in self.rows if row[2] == colour)
            paid = sorted((row[0], row[1]) for row in self.rows if row[2:] == (colour, "pay"))
            questions: list[Predicate] = [CorrelationIs(colour), *(MetaEquals(path, colour) for path in paths)]
            for question in questions:
                assert await self.walk(question, Order.OLDEST_FIRST, limit) == expected
                assert await self.walk(question, Order.NEWEST_FIRST, limit) == expected[::-1]
                narrower = all_of(question, ServiceIn(frozenset({"pay"})))
                assert await self.walk(narrower, Order.NEWEST_FIRST, 1000) == paid[::-1]

    async def walk(self, predicate: Predicate, order: Order, limit: int) -> list[Position]:
        found: list[Position] = []
        after: Position | None = None
        while True:
            async with self.store.snapshot() as snapshot:
                scan = Scan(predicate, order, limit, after=after, budget_ms=30_000, beyond_ms=30_000)
                result = await snapshot.scan(scan, allowed=ALL_SERVICES)
            found += [(log.timestamp, log.id) for log in result.logs]
            after = result.scanned_to
            if after is None:
                return found


async def insert(connection: Connection, rows: list[tuple[int, int, str, str]]) -> None:
    await connection.cursor().executemany(
        "INSERT INTO logs (timestamp, id, level, service_name, message, correlation_id, metadata)"
        " VALUES (timestamptz 'epoch' + %s::bigint * interval '1 microsecond', %s, 9, %s, 'm', %s, %s)",
        [
            (timestamp, log_id, service, colour, json.dumps({"c": colour, "d": {"e": colour}, "it's": colour}))
            for timestamp, log_id, colour, service in rows
        ],
    )


@asynccontextmanager
async def opened(url: str, layout: Layout) -> AsyncIterator[Open]:
    async with postgres_site(url, layout) as site:
        await prepared(site)
        row = await site.database.fetch_one("SELECT (extract(epoch FROM closed_before) * 1000000)::bigint FROM border")
        assert row is not None
        await site.see(now_us() + AHEAD_US)
        chunks = Open(site, row[0])
        await chunks.ask_by("c")
        yield chunks


@pytest.fixture
async def chunks(place: tuple[str, Layout]) -> AsyncIterator[Open]:
    async with opened(*place) as made:
        yield made


@pytest.fixture
async def native_chunks(native_url: str) -> AsyncIterator[Open]:
    async with opened(native_url, Layout.NATIVE) as made:
        yield made


@pytest.mark.parametrize("seed", range(5))
async def test_every_row_is_found_once_whatever_parts_there_are(
    chunks: Open, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Writers commit before, while and after parts are made, with ids and times old and new; parts are taken in by others;
    a chunk is closed and finished on the way."""
    monkeypatch.setattr(store.parts, "PARTS_MAX", 3)
    monkeypatch.setattr(store.parts, "SMALL_PARTS_MAX", 3)
    chance = random.Random(seed)
    writers: list[tuple[Connection, list[tuple[int, int, str, str]]]] = []
    for step in range(30):
        match chance.choice(("put", "begin", "end", "part", "part", "rollback", "check")):
            case "put":
                await chunks.put(chunks.some(chance.randrange(1, 20), chance=chance))
            case "begin" if len(writers) < 3:
                connection = await connect(chunks.site.database.url, application_name="writer")
                await connection.execute("BEGIN")
                rows = chunks.some(chance.randrange(1, 9), chance=chance)
                await insert(connection, rows)
                writers.append((connection, rows))
            case ("end" | "rollback") as how if writers:
                connection, rows = writers.pop(chance.randrange(len(writers)))
                await (connection.commit() if how == "end" else connection.rollback())
                await connection.close()
                chunks.rows += rows if how == "end" else []
            case "part":
                by = chance.choice(list(OpenIndex))
                await (chunks.site.upkeep.index_open(by) if writers else chunks.make_part(by))
                assert len(await chunks.parts()) <= 3
            case "check":
                await chunks.check()
        if step == 20:
            for connection, rows in writers:
                await connection.commit()
                await connection.close()
                chunks.rows += rows
            writers.clear()
            end_us = chunks.start_us + CHUNK_US
            await chunks.site.database.execute(
                "UPDATE border SET closed_before = timestamptz 'epoch' + %s::bigint * interval '1 microsecond'",
                (end_us,),
            )
            await chunks.site.database.execute(
                "UPDATE catalogue SET state = 'closed' WHERE kind = 'chunk' AND range_end <= (SELECT closed_before FROM border)"
            )
            await chunks.check()
            assert await chunks.site.upkeep.finish_closed() == 1
            chunks.start_us = end_us
    for connection, _ in writers:
        await connection.rollback()
        await connection.close()
    await chunks.put(chunks.some(3, chance=chance))
    await chunks.check()
    await chunks.make_part()
    await chunks.check()


async def test_a_row_that_commits_after_a_part_was_made_is_in_the_next(chunks: Open) -> None:
    """Its id and time are older than everything in the part."""
    await chunks.put([(chunks.start_us + 10 + n, 1_000 + n, "red", "shop") for n in range(5)])
    writer = await connect(chunks.site.database.url, application_name="writer")
    async with writer:
        await writer.execute("BEGIN")
        old = [(chunks.start_us, 1, "red", "shop")]
        await insert(writer, old)
        await chunks.put([(chunks.start_us + 99, 2_000, "red", "shop")])
        for by in OpenIndex:
            while await chunks.parts(by) != [5]:
                await chunks.site.upkeep.index_open(by)
        await chunks.check()
        await writer.commit()
        chunks.rows += old
    await chunks.check()
    assert await chunks.make_part() == 2
    await chunks.check()
    assert await chunks.make_part() == 0


async def test_a_page_keeps_to_the_parts_of_its_snapshot(chunks: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store.parts, "PARTS_MAX", 1)
    monkeypatch.setattr(store.parts, "SMALL_PARTS_MAX", 1)
    chance = random.Random(1)
    await chunks.put(chunks.some(20, chance=chance))
    await chunks.make_part()
    await chunks.check()
    before = [row for row in chunks.rows if row[2] == "red"]
    async with chunks.store.snapshot() as snapshot:
        await chunks.put(chunks.some(20, chance=chance))
        await chunks.make_part()
        assert len(await chunks.parts()) == 1
        # The part that was taken in is dropped ten minutes later, when this page is long over.
        await chunks.site.upkeep.drop_expired(now_us=now_us() + 599_000_000, retention_us=AHEAD_US)
        for question in (MetaEquals(("c",), "red"), CorrelationIs("red")):
            result = await snapshot.scan(Scan(question, Order.OLDEST_FIRST, 100), allowed=ALL_SERVICES)
            assert [(log.timestamp, log.id) for log in result.logs] == sorted(row[:2] for row in before)
    await chunks.check()
    assert len(await part_tables(chunks)) == 4
    await chunks.site.upkeep.drop_expired(now_us=now_us() + 601_000_000, retention_us=AHEAD_US)
    assert len(await part_tables(chunks)) == 2
    await chunks.check()


async def part_tables(chunks: Open) -> list[str]:
    found = await chunks.site.database.fetch_all(
        "SELECT relname FROM pg_class WHERE relname ~ '^open_(metadata|correlation)_[0-9a-f]+$'"
    )
    return [name for (name,) in found]


async def test_parts_go_when_their_chunk_is_finished(chunks: Open) -> None:
    site = chunks.site
    await chunks.put([(chunks.start_us + n, 1 + n, "red", "shop") for n in range(5)])
    await chunks.make_part()
    await chunks.put([(chunks.start_us + CHUNK_US + n, 10 + n, "red", "shop") for n in range(5)])
    await chunks.make_part()
    assert await chunks.parts() == [5, 5]
    await site.see(chunks.start_us + CHUNK_US + 1_000_000_000)
    assert await site.upkeep.close_due(now_us=now_us()) == 1
    await site.see(now_us() + AHEAD_US)
    await chunks.check()
    assert await site.upkeep.finish_closed() == 1
    await chunks.check()
    for by in OpenIndex:
        await site.upkeep.index_open(by)
        assert await chunks.parts(by) == [5]
    await chunks.check()
    assert len(await part_tables(chunks)) == 4
    await site.upkeep.drop_expired(now_us=now_us() + 700_000_000, retention_us=AHEAD_US)
    assert len(await part_tables(chunks)) == 2
    await chunks.check()


@pytest.mark.parametrize("by", list(OpenIndex))
async def test_killed_before_any_statement_parts_are_made_by_the_next_call(
    chunks: Open, monkeypatch: pytest.MonkeyPatch, by: OpenIndex
) -> None:
    monkeypatch.setattr(store.parts, "PARTS_MAX", 2)
    chance = random.Random(2)
    for _ in range(2):
        await chunks.put(chunks.some(10, chance=chance))
        await chunks.make_part()
    statements = 0
    async with asyncio.timeout(90):
        while True:
            await chunks.put(chunks.some(2, chance=chance))
            database = DyingDatabase(chunks.site.database.url, statements)
            await database.open()
            try:
                await PostgresUpkeep(database, TOPIC, chunks.site.layout, ahead_us_max=AHEAD_US).index_open(by)
                if sum(await chunks.parts(by)) == len(chunks.rows):
                    break
                # Transactions of other databases of the server go on: what they might have brought is in no part yet.
                await asyncio.sleep(0.05)
            except Killed:
                statements += 1
                await chunks.check()
                kept = await chunks.site.database.fetch_all(
                    "SELECT table_name FROM open_parts UNION SELECT table_name FROM expired_tables"
                )
                assert sorted(await part_tables(chunks)) == sorted(name for (name,) in kept)
            finally:
                await database.close()
    assert statements > 8
    await chunks.check()


async def test_two_sealers_at_once_make_disjoint_parts(chunks: Open) -> None:
    chance = random.Random(3)
    second = PostgresUpkeep(chunks.site.database, TOPIC, chunks.site.layout, ahead_us_max=AHEAD_US)
    for _ in range(5):
        await chunks.put(chunks.some(10, chance=chance))
        await asyncio.gather(*(upkeep.index_open(by) for by in OpenIndex for upkeep in (chunks.site.upkeep, second)))
        await chunks.check()
    await chunks.make_part()
    assert sum(await chunks.parts()) == len(chunks.rows)


@pytest.mark.parametrize("factor", [1, 1_000])
async def test_parts_that_a_dump_brought_do_not_count(native_chunks: Open, factor: int) -> None:
    """Its numbers of transactions mean nothing here: it is of another cluster, or of this one as it was or of a copy that has
    gone on by itself."""
    chunks = native_chunks
    await chunks.put(chunks.some(20, chance=random.Random(4)))
    await chunks.make_part()
    for table in await part_tables(chunks):
        await chunks.site.database.execute(f"DELETE FROM {table}")
    await chunks.site.database.execute("CREATE TABLE dump AS TABLE open_parts")
    await chunks.site.database.execute("DELETE FROM open_parts")
    await chunks.site.database.execute("UPDATE dump SET to_xid = to_xid * %s", (factor,))
    await chunks.site.database.execute("INSERT INTO open_parts SELECT * FROM dump")
    await chunks.check()
    assert await chunks.make_part() == 20
    assert await chunks.parts() == [20]
    await chunks.check()


async def test_a_part_counts_for_no_more_than_it_was_made_of(chunks: Open) -> None:
    """Where a chunk becomes known later that is older than the parts, what lies in it is asked of them no more."""
    database = chunks.site.database
    second_us = chunks.start_us + CHUNK_US
    await chunks.put([(chunks.start_us + n, 1 + n, "red", "shop") for n in range(5)])
    await chunks.put([(second_us + n, 10 + n, "red", "shop") for n in range(5)])
    await chunks.make_part()
    await chunks.put([(chunks.start_us + n, 30 + n, "red", "shop") for n in range(5)])
    await database.execute(
        "UPDATE border SET closed_before = timestamptz 'epoch' + %s::bigint * interval '1 microsecond'", (second_us,)
    )
    await database.execute(
        "CREATE TABLE unknown AS SELECT * FROM catalogue WHERE range_start < (SELECT closed_before FROM border)"
    )
    await database.execute("DELETE FROM catalogue WHERE table_name IN (SELECT table_name FROM unknown)")
    await chunks.put([(second_us + n, 20 + n, "red", "shop") for n in range(5)])
    assert await chunks.make_part() == 5
    await database.execute("INSERT INTO catalogue SELECT * FROM unknown")
    await chunks.check()
    assert await chunks.make_part() == 10
    assert await chunks.parts() == [10, 10]
    await chunks.check()


async def test_a_part_is_made_without_a_look_at_what_is_finished(chunks: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planning and locking each chunk there is would fill the server's table of locks."""
    site = chunks.site
    await chunks.put([(chunks.start_us + n, 1 + n, "red", "shop") for n in range(5)])
    await chunks.put([(chunks.start_us + CHUNK_US + n, 10 + n, "red", "shop") for n in range(5)])
    await site.see(chunks.start_us + CHUNK_US + 1_000_000_000)
    assert await site.upkeep.close_due(now_us=now_us()) == 1
    assert await site.upkeep.finish_closed() == 1
    await site.see(now_us() + AHEAD_US)
    make, locked = store.parts.OpenChunkIndexer._make, []

    async def noting(self: Any, connection: Connection, kind: OpenIndex) -> int:
        rows = await make(self, connection, kind)
        cursor = await connection.execute(
            "SELECT c.state FROM pg_locks AS l JOIN catalogue AS c ON l.relation = to_regclass(c.table_name)"
            " WHERE l.pid = pg_backend_pid()"
        )
        locked.extend([state for (state,) in await cursor.fetchall()])
        return rows

    monkeypatch.setattr(store.parts.OpenChunkIndexer, "_make", noting)
    assert await chunks.make_part() == 5
    assert set(locked) == {"open"}


async def test_making_a_part_can_be_cancelled_and_begun_anew(chunks: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the stop, say: the session goes back to its pool without the lock that keeps others from making parts."""
    database = chunks.site.database
    await chunks.put(chunks.some(20, chance=random.Random(8)))
    with monkeypatch.context() as patch:
        patch.setattr(store.parts, "_MAKE", f"SELECT pg_sleep(60); {store.parts._MAKE}")
        making = asyncio.create_task(chunks.make_part(OpenIndex.METADATA))
        while not await database.fetch_one("SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'"):
            await asyncio.wait({making}, timeout=0.02)
            assert not making.done()
        making.cancel()
        with pytest.raises(asyncio.CancelledError):
            await making
    held = "SELECT 1 FROM pg_locks AS l JOIN pg_database AS d ON d.oid = l.database WHERE l.locktype = 'advisory'"
    assert await database.fetch_one(f"{held} AND l.objid = 7402 AND d.datname = current_database()") is None
    assert await chunks.make_part() == 20


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[EmbeddedPostgres]:
    """A server that a test may crash."""
    for parent in (tmp_path, *tmp_path.parents):
        if parent.stat().st_uid == 0:
            parent.chmod(parent.stat().st_mode | 0o011)
    server = EmbeddedPostgres(tmp_path / "data")
    yield server
    server.kill()


async def test_a_crash_leaves_every_part_and_every_row(own_server: EmbeddedPostgres) -> None:
    """What was indexed is found by its index at once, and what comes then is in the next part."""
    url = own_server.start()
    await migrate(url, Layout.NATIVE)
    async with opened(url, Layout.NATIVE) as chunks:
        await chunks.put(chunks.some(20, chance=random.Random(5)))
        await chunks.make_part()
        await chunks.check()
        made = await chunks.parts()
        own_server.kill()
        own_server.start()
        await until_answered(chunks.check)
        assert await chunks.parts() == made
        await chunks.put(chunks.some(7, chance=random.Random(6)))
        assert await chunks.make_part() == 7
        await chunks.check()


async def test_a_crash_is_a_new_revision(own_server: EmbeddedPostgres) -> None:
    """Of the whole server or of one of its processes: what was committed last may be lost, and the numbers of its transactions
    are given out again, so that they no longer say what came after a page was made."""
    url = own_server.start()
    await migrate(url, Layout.NATIVE)
    async with opened(url, Layout.NATIVE) as chunks:

        async def revision() -> int:
            async with chunks.store.snapshot() as snapshot:
                return snapshot.revision

        seen = [await revision()]
        await chunks.put(chunks.some(20, chance=random.Random(9)))
        assert await revision() == seen[-1]
        async with await connect(url, application_name="victim") as victim:
            os.kill(victim.info.backend_pid, signal.SIGKILL)
        deadline = time.monotonic() + 30
        while (after := await until_answered(revision)) == seen[-1]:  # the server notices a moment later
            assert time.monotonic() < deadline
            await asyncio.sleep(0.02)
        seen.append(after)
        own_server.kill()
        own_server.start()
        seen.append(await until_answered(revision))
        assert len(set(seen)) == 3
        assert await until_answered(revision) == seen[-1]


T = TypeVar("T")


async def until_answered(question: Callable[[], Awaitable[T]]) -> T:
    """Connections from before a crash notice only when they are used."""
    deadline = time.monotonic() + 30
    while True:
        try:
            return await question()
        except DatabaseUnavailable:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)


async def test_writers_that_are_behind_have_the_machine_for_themselves(native_chunks: Open) -> None:
    chunks = native_chunks
    await chunks.put(chunks.some(5, chance=random.Random(6)))
    await chunks.site.see(now_us() - 60_000_000, but=1)
    for _ in range(3):
        assert await chunks.site.upkeep.index_open(OpenIndex.METADATA) == 0
    await chunks.site.database.execute("UPDATE consumer_offsets SET halted = 'here' WHERE partition <> 1")
    assert await chunks.make_part() == 5


async def test_parts_by_metadata_are_made_seldom_while_nobody_asks(
    native_chunks: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store.parts, "_REST_UNASKED", 1_000_000)
    chunks, chance = native_chunks, random.Random(13)
    await chunks.put(chunks.some(5, chance=chance))
    assert await chunks.make_part() == 5
    await chunks.put(chunks.some(5, chance=chance))
    await chunks.site.database.execute("UPDATE asked_keys SET asked_at = asked_at - interval '1 hour'")
    assert await chunks.site.upkeep.index_open(OpenIndex.METADATA) == 0
    assert await chunks.make_part(OpenIndex.CORRELATION) == 5
    await chunks.site.database.execute("UPDATE asked_keys SET asked_at = clock_timestamp()")
    assert await chunks.make_part(OpenIndex.METADATA) == 5


async def test_parts_are_made_seldom_while_writers_are_a_little_behind(
    native_chunks: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store.parts, "_REST_WHEN_SHORT", 1_000_000)
    chunks, chance = native_chunks, random.Random(12)
    await chunks.site.see(now_us() - 2_000_000)
    await chunks.put(chunks.some(5, chance=chance))
    assert await chunks.make_part() == 5
    await chunks.put(chunks.some(5, chance=chance))
    for by in OpenIndex:
        assert await chunks.site.upkeep.index_open(by) == 0
    await chunks.site.see(now_us() + AHEAD_US)
    assert await chunks.make_part() == 5


async def test_a_page_whose_time_the_first_look_took_still_gets_on(chunks: Open) -> None:
    """Else who follows its cursor would ask the same for ever."""
    await chunks.put(chunks.some(40, chance=random.Random(13)))
    await chunks.make_part()
    questions: list[Predicate] = [MetaEquals(("c",), "red"), CorrelationIs("red")]
    for question in questions:
        async with chunks.store.snapshot() as snapshot:
            first = max(chunks.rows)[:2]
            scan = Scan(question, Order.NEWEST_FIRST, 100, budget_ms=1)
            result = await snapshot.scan(scan, allowed=ALL_SERVICES)
        assert result.finished or (result.scanned_to is not None and result.scanned_to <= first)


async def test_a_value_of_a_rare_key_is_sought_without_a_look_and_a_common_one_is_found_all_the_same(
    native_chunks: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An index that does not answer a guess in its time is not asked again: the page is filled in the usual way."""
    chunks = native_chunks
    rows = [
        (chunks.start_us + number, 1 + number, "red" if number % 2 else f"c{number}", "s") for number in range(6_000)
    ]
    await chunks.put(rows)
    await chunks.make_part()
    asked: list[bool] = []
    run = StatementRunner.rows_within

    async def noted(
        runner: StatementRunner, timeout_ms: int, *query: Any, plans: Settings = IN_ORDER
    ) -> Any:  # Any: as theirs
        asked.append(plans is BY_PARTS)
        return await run(runner, timeout_ms, *query, plans=plans)

    monkeypatch.setattr(StatementRunner, "rows_within", noted)
    for number in range(4):
        asked.clear()
        assert await chunks.walk(MetaEquals(("c",), f"c{2 * number}"), Order.NEWEST_FIRST, 100) == [
            rows[2 * number][:2]
        ]
        assert asked[:2] == ([False, True] if number < 3 else [True, True]), number
    monkeypatch.setattr("store.page_scan._GUESS_MS", 1)
    expected = [row[:2] for row in rows if row[2] == "red"][::-1]
    asked.clear()
    assert await chunks.walk(MetaEquals(("c",), "red"), Order.NEWEST_FIRST, 1_000) == expected
    assert asked[:2] == [True, False]


async def test_no_parts_by_metadata_are_made_where_metadata_is_not_indexed(native_url: str) -> None:
    async with opened(native_url, Layout.NATIVE) as chunks:
        await chunks.put(chunks.some(5, chance=random.Random(7)))
        await chunks.make_part()
        assert await chunks.parts() == [5]
        settings = StoreSettings(metadata_index=False)
        upkeep = PostgresUpkeep(chunks.site.database, TOPIC, Layout.NATIVE, settings, ahead_us_max=AHEAD_US)
        assert await upkeep.index_open(OpenIndex.METADATA) == 0
        assert await chunks.parts() == []
        assert await chunks.parts(OpenIndex.CORRELATION) == [5]
        await chunks.check()


async def test_parts_and_what_came_after_them_are_asked_by_their_indexes(chunks: Open) -> None:
    database = chunks.site.database
    await database.execute(
        "INSERT INTO logs (timestamp, id, level, service_name, message, correlation_id, metadata)"
        " SELECT timestamptz 'epoch' + (%s + g) * interval '1 microsecond', g, 9, 'shop', 'm', g::text,"
        "  jsonb_build_object('c', g)"
        " FROM generate_series(1, 20000) AS g",
        (chunks.start_us,),
    )
    await chunks.make_part()
    await chunks.put([(chunks.start_us + n, 30_000 + n, "red", "shop") for n in range(3)])
    async with chunks.store.snapshot() as snapshot:
        runner = snapshot._runner  # type: ignore[attr-defined]  # the one place through which statements go
        run, plans = runner._run, []

        async def explained(before: Any, text: str, params: Any) -> Any:
            result = await run(before, text, params)
            if "recent" in text:
                plans.append("\n".join(line for (line,) in await run([], f"EXPLAIN {text}", params)))
            return result

        runner._run = explained
        for question in (MetaEquals(("c",), "77"), CorrelationIs("77")):
            result = await snapshot.scan(Scan(question, Order.NEWEST_FIRST, 10), allowed=ALL_SERVICES)
            assert [log.id for log in result.logs] == [77]
            part_index = "metadata_idx" if isinstance(question, MetaEquals) else "correlation_timestamp_id_idx"
            for index in ("_arrived", part_index, "timestamp_id"):
                assert any(index in plan for plan in plans), plans
            assert not any("Seq Scan" in plan or "Hash" in plan or "Merge Join" in plan for plan in plans), plans
            plans.clear()


async def test_new_chunks_find_what_has_arrived_without_waiting_for_a_writer(chunks: Open) -> None:
    database = chunks.site.database
    unindexed = (
        "SELECT count(*) FROM catalogue AS c WHERE kind = 'chunk' AND NOT EXISTS ("
        " SELECT FROM pg_index AS i JOIN pg_class AS x ON x.oid = i.indexrelid"
        " WHERE i.indrelid = to_regclass(c.table_name) AND x.relname ~ '_arrived_brin$')"
    )
    assert await database.fetch_one(unindexed) == (0,)
    names = await database.fetch_all(
        "SELECT format('%%I.%%I', n.nspname, x.relname) FROM pg_class AS x JOIN pg_namespace AS n ON n.oid = x.relnamespace"
        " WHERE x.relname ~ '_arrived_brin$' AND x.relkind = 'i'"
    )
    for (name,) in names:
        await database.execute(f"DROP INDEX {name}")
    async with database.transaction() as writer:
        await insert(writer, [(chunks.start_us, 1, "red", "shop")])
        await asyncio.wait_for(chunks.site.upkeep.ensure_chunks(now_us=now_us()), 1.0)
    await chunks.site.upkeep.ensure_chunks(now_us=now_us())
    assert await database.fetch_one(unindexed) == (0,)


@pytest.fixture
def nothing_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(KeyNotes, "due", lambda *_: [])


@pytest.mark.usefixtures("nothing_is_noted")
async def test_a_key_that_is_asked_for_later_is_in_all_parts_from_then_on(chunks: Open) -> None:
    chance = random.Random(8)
    for _ in range(3):
        await chunks.put(chunks.some(20, chance=chance))
        await chunks.make_part()
    await chunks.ask_by("d", "d.e", "it's")
    await chunks.put(chunks.some(20, chance=chance))
    await chunks.check(("c",), ("d", "e"), ("it's",))
    await chunks.make_part()
    assert await chunks.parts() == [80]
    assert await chunks.parts(OpenIndex.CORRELATION) == [20, 20, 20, 20]
    await chunks.put(chunks.some(20, chance=chance))
    await chunks.check(("c",), ("d", "e"), ("it's",))
    async with chunks.store.snapshot() as snapshot:
        catalogue = snapshot._catalogue  # type: ignore[attr-defined]  # theirs
    assert sorted(catalogue.known_keys) == ["c", "d", "d.e", "it's"]


@pytest.mark.usefixtures("nothing_is_noted")
async def test_a_key_that_only_the_newest_parts_know_hides_no_older_row(
    chunks: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store.parts, "REMADE_ROWS_MAX", 0)
    chance = random.Random(9)
    for keys in ((), ("d", "d.e"), ("it's",)):
        await chunks.ask_by(*keys)
        for _ in range(2):
            await chunks.put(chunks.some(20, chance=chance))
            await chunks.make_part()
        await chunks.put(chunks.some(5, chance=chance))
        await chunks.check(("c",), ("d", "e"), ("it's",))
    assert len(await chunks.parts()) == 6
    async with chunks.store.snapshot() as snapshot:
        catalogue = snapshot._catalogue  # type: ignore[attr-defined]  # theirs
    found = [catalogue.parts_by(OpenIndex.METADATA, keys) for keys in (["c"], ["d", "d.e"], ["c", "it's"], ["other"])]
    assert [parts and len(parts.tables()) for parts in found] == [6, 4, 2, None]


@pytest.mark.usefixtures("nothing_is_noted")
async def test_parts_of_different_keys_are_made_into_one_of_all_keys(
    chunks: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store.parts, "REMADE_ROWS_MAX", 0)
    monkeypatch.setattr(store.parts, "SMALL_PARTS_MAX", 3)
    chance = random.Random(10)
    for number in range(8):
        if number == 2:
            await chunks.ask_by("d", "d.e")
        await chunks.put(chunks.some(10, chance=chance))
        await chunks.make_part()
        assert len(await chunks.parts()) <= 3
        await chunks.check(("c",), ("d", "e"))
    assert sum(await chunks.parts()) == 80


async def test_what_is_sought_in_open_chunks_is_indexed_from_then_on(native_url: str) -> None:
    async with opened(native_url, Layout.NATIVE) as chunks:
        await chunks.site.database.execute("DELETE FROM asked_keys")
        chunks.store = PostgresReadStore(chunks.site.database, TOPIC, Layout.NATIVE)
        await chunks.put(chunks.some(30, chance=random.Random(11)))
        assert await chunks.site.upkeep.index_open(OpenIndex.METADATA) == 0
        await chunks.check(("c",))
        await chunks.make_part()
        assert await chunks.parts() == [30]
        await chunks.walk(MetaEquals(("x", "y"), "red"), Order.NEWEST_FIRST, 10)
        await chunks.walk(CorrelationIs("red"), Order.NEWEST_FIRST, 10)
        noted = await chunks.site.database.fetch_all("SELECT key FROM asked_keys ORDER BY 1")
        assert noted == [("c",), ("x",), ("x.y",)]


async def test_keys_are_few_and_those_that_parts_know_stay(native_url: str) -> None:
    async with opened(native_url, Layout.NATIVE) as chunks, chunks.site.database.connection() as connection:
        notes = KeyNotes(ManualClock(0))
        for number in range(KEYS_NOTED_MAX + 50):
            await notes.note(connection, notes.due([f"k{number:03}"]))
        ((count,),) = await chunks.site.database.fetch_all("SELECT count(*) FROM asked_keys")
        assert count == KEYS_NOTED_MAX
        ((newest,),) = await chunks.site.database.fetch_all("SELECT max(key) FROM asked_keys")
        assert newest == f"k{KEYS_NOTED_MAX + 49:03}", "the last that was asked for has its place"
        known = [f"k{number:03}" for number in range(50, 55)]
        await chunks.site.database.execute(
            "UPDATE asked_keys SET asked_at = asked_at - interval '1 day' WHERE key = ANY (%s)", (known,)
        )
        asked = await asked_keys(connection, known)
        assert len(asked) == KEYS_MAX
        assert set(known) <= set(asked)
        await chunks.site.database.execute("UPDATE asked_keys SET asked_at = asked_at - interval '8 days'")
        assert await asked_keys(connection, known) == {}
        await notes.note(connection, ["k000"])
        assert await chunks.site.database.fetch_all("SELECT key FROM asked_keys") == [("k000",)]


def test_a_key_is_noted_once_a_minute() -> None:
    clock = ManualClock(0)
    notes = KeyNotes(clock)
    assert notes.due(["b", "a", "x" * 300, "nul\0"]) == ["a", "b"]
    clock.advance(59)
    assert notes.due(["a", "c"]) == ["c"]
    clock.advance(1)
    assert notes.due(["a", "c"]) == ["a"]


# --- when ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def as_shipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store.parts, "ROWS_MIN", ROWS_MIN)


@pytest.mark.usefixtures("as_shipped")
def test_a_part_is_made_of_enough_rows_or_when_nothing_more_comes() -> None:
    assert parts_to_merge([], ROWS_MIN - 1, is_quiet=False) is None
    assert parts_to_merge([], ROWS_MIN, is_quiet=False) == 0
    assert parts_to_merge([], QUIET_ROWS_MIN - 1, is_quiet=True) is None
    assert parts_to_merge([ROWS_MIN], QUIET_ROWS_MIN, is_quiet=True) == 0


@pytest.mark.usefixtures("as_shipped")
@pytest.mark.parametrize("rows_of", [lambda n: ROWS_MIN, lambda n: QUIET_ROWS_MIN * (1 + n % 30)])
def test_parts_stay_few_and_rows_are_seldom_copied_again(rows_of: Callable[[int], int]) -> None:
    sizes: list[int] = []
    copied = total = 0
    for n in range(300):
        rows = rows_of(n)
        merged = parts_to_merge(sizes, rows, is_quiet=True)
        assert merged is not None
        taken = sum(sizes[len(sizes) - merged :])
        sizes[len(sizes) - merged :] = [rows + taken]
        total, copied = total + rows, copied + rows + taken
        assert sum(sizes) == total
        assert len(sizes) <= PARTS_MAX
    assert copied < 4 * total


@pytest.mark.usefixtures("as_shipped")
def test_parts_by_metadata_are_made_into_ones_of_bounded_size() -> None:
    sizes: list[int] = []
    copied = 0
    for _ in range(400):
        merged = parts_to_merge(sizes, ROWS_MIN, is_quiet=False, rows_max=METADATA_ROWS_MAX)
        assert merged is not None
        made = ROWS_MIN + sum(sizes[len(sizes) - merged :])
        sizes[len(sizes) - merged :] = [made]
        copied += made
        assert made <= METADATA_ROWS_MAX
    assert len(sizes) <= 2 * 400 * ROWS_MIN / METADATA_ROWS_MAX + SMALL_PARTS_MAX
    assert copied < 3 * sum(sizes)


async def test_the_sealer_rests_longer_than_it_indexes(native_chunks: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealer_module, "_ROUND_S", 0.005)
    monkeypatch.setattr(sealer_module, "_SLOW_ROUND_S", 0.005)
    clock = ManualClock(now_us())
    began_s: list[float] = []

    class Slow(PostgresUpkeep):
        async def index_open(self, by: OpenIndex) -> int:
            if by is OpenIndex.CORRELATION:
                return 0
            began_s.append(clock.monotonic_s())
            clock.advance(2.0)
            return 1

    stop = Stop()
    database = native_chunks.site.database
    sealer = Sealer(
        lease=RoleLease(database, SEALER, "a", ttl_s=600),
        upkeep=Slow(database, TOPIC, Layout.NATIVE),
        broker_upkeep=None,
        retention_us=AHEAD_US,
        clock=clock,
        stop=stop,
    )
    running = asyncio.create_task(sealer.run())
    async with asyncio.timeout(60):
        while len(began_s) < 4:
            clock.advance(0.5)
            await asyncio.sleep(0.01)
    stop.set()
    await running
    # Two seconds of work at half of the time.
    assert all(later - before >= 4.0 for before, later in pairwise(began_s))
