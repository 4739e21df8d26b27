"""Upkeep of the hot store: nobody waits for it, nothing is lost to it, and it can be killed at any statement."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any, cast

import pytest
import structlog

from db.database import Connection, Database, connect
from db.leases import Lease as RoleLease
from db.migrations import Layout
from runtime.clock import Clock, ManualClock, SystemClock
from runtime.stopping import Stop
from store.batches import BORDER_LOCK
from store.chunks import Chunk, attach_partition, chunk_layout, missing_ranges
from store.port import Lease, LedgerRow, OpenIndex, Outcome, StoredKey, StorePlan
from store.rows import COLUMNS
from store.settings import StoreSettings
from store.upkeep import PostgresUpkeep
from tests.store_sites import AHEAD_US, HOUR_US, TOPIC, PostgresSite, booked, now_us, postgres_site, prepared, row
from writer import sealer as sealer_module
from writer.sealer import SEALER, UPKEEP_FAILURES, Sealer

DAY_US = 24 * HOUR_US
CHUNK_US = 6 * HOUR_US
SECOND_US = 1_000_000
RETENTION_US = 400 * DAY_US
LATE_ROWS_MAX = 40


@pytest.fixture(params=[Layout.NATIVE.value, pytest.param(Layout.TIMESCALE.value, marks=pytest.mark.timescale)])
def place(request: pytest.FixtureRequest) -> tuple[str, Layout]:
    """URL and layout of a fresh database."""
    return request.getfixturevalue(f"{request.param}_url"), Layout(request.param)


@pytest.fixture
async def site(place: tuple[str, Layout]) -> AsyncIterator[PostgresSite]:
    async with postgres_site(*place, StoreSettings(late_rows_max=LATE_ROWS_MAX)) as made:
        yield await prepared(made)


@pytest.fixture
async def native_site(native_url: str) -> AsyncIterator[PostgresSite]:
    async with postgres_site(native_url, Layout.NATIVE) as made:
        yield await prepared(made)


async def border_us(site: PostgresSite) -> int:
    async with site.writer.begin() as batch:
        return batch.border.closed_before_us


async def catalogue(site: PostgresSite, kind: str = "chunk") -> list[tuple[Any, ...]]:
    """(state, start, end, rows, id_min, id_max) by start; times in µs."""
    return await site.database.fetch_all(
        "SELECT state, (extract(epoch FROM range_start) * 1000000)::bigint, (extract(epoch FROM range_end) * 1000000)::bigint,"
        " rows, id_min, id_max FROM catalogue WHERE kind = %s ORDER BY range_start, generation",
        (kind,),
    )


async def store(site: PostgresSite, hot: list[tuple[int, int]], late: list[tuple[int, int]] | None = None) -> None:
    """Rows as (id, timestamp)."""
    plan = StorePlan(
        hot=[row(*position) for position in hot],
        late=[row(*position) for position in late or []],
        ledger=booked(len(hot) + len(late or [])),
    )
    async with site.writer.begin() as batch:
        await batch.commit(plan)


async def all_seen(site: PostgresSite, seen_us: int, *, but: int | None = None) -> list[Lease]:
    """Everything up to this time is visible, except in one partition."""
    leases = await site.process().claim("a", want=3, ttl_s=60)
    await site.see(seen_us, but=but)
    return leases


@asynccontextmanager
async def stopped_in_copy(site: PostgresSite, timestamp_us: int) -> AsyncIterator[Connection]:
    """A writer that was stopped after the server had begun its COPY and taken rows of two chunks."""
    connection = await connect(site.database.url, application_name="stopped")
    rows = [row(n, timestamp_us + n % 2 * CHUNK_US, "x" * 2_000) for n in range(200)]
    try:
        async with connection.cursor() as cursor:
            await connection.execute("BEGIN")
            async with cursor.copy(f"COPY logs ({COLUMNS}) FROM STDIN (FORMAT binary)".encode()) as copy:
                await copy.write(b"PGCOPY\n\xff\r\n\0" + bytes(8) + b"".join(found.copy_bytes for found in rows))
                # The server has the rows once it holds the lock on a chunk beside the one on logs.
                await until(
                    site, "SELECT 1 FROM pg_locks WHERE pid = %s AND mode = 'RowExclusiveLock' OFFSET 1", connection
                )
                yield connection
                await connection.close()
    except Exception:
        if not connection.closed:
            raise
    finally:
        await connection.close()


async def until(site: PostgresSite, query: str, connection: Connection) -> None:
    """Wait until the query, about the connection's backend, has a row."""
    deadline = time.monotonic() + 10
    while not await site.database.fetch_one(query, (connection.info.backend_pid,)):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


# --- chunks ----------------------------------------------------------------------------------------------------------


async def test_chunks_reach_from_the_border_to_two_ahead(site: PostgresSite) -> None:
    start_us = await border_us(site)
    later_us = now_us() + 2 * DAY_US
    await site.upkeep.ensure_chunks(now_us=later_us)
    await site.upkeep.ensure_chunks(now_us=later_us)
    chunks = await catalogue(site)
    assert {state for state, *_ in chunks} == {"open"}
    end_us = later_us - later_us % CHUNK_US + 3 * CHUNK_US
    assert [(found[1], found[2]) for found in chunks] == [
        (start, start + CHUNK_US) for start in range(start_us, end_us, CHUNK_US)
    ]
    assert await site.rows() == []
    await store(site, [(n, found[1]) for n, found in enumerate(chunks)])
    assert len(await site.rows()) == len(chunks)


async def test_new_chunks_have_the_indexes_of_open_chunks(site: PostgresSite) -> None:
    rows = await site.database.fetch_all(
        "SELECT c.table_name, count(*) FROM catalogue AS c JOIN pg_index AS i ON i.indrelid = to_regclass(c.table_name)"
        " WHERE c.kind = 'chunk' GROUP BY 1"
    )
    assert [count for _, count in rows] == [4, 4, 4]


async def test_key_tables_exist_for_today_and_tomorrow(native_site: PostgresSite) -> None:
    names = await native_site.database.fetch_all(
        "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'stored_keys'::regclass ORDER BY 1"
    )
    today = datetime.now(UTC)
    assert (f"stored_keys_{today + timedelta(days=1):%Y%m%d}",) in names
    assert len(names) == 2


async def test_chunks_of_another_length_fit_beside_the_old_ones(place: tuple[str, Layout]) -> None:
    async with postgres_site(*place) as site:
        await prepared(site)
    async with postgres_site(*place, StoreSettings(chunk_hours=12)) as site:
        await site.upkeep.ensure_chunks(now_us=now_us() + DAY_US)
        chunks = await catalogue(site)
        assert all(before[2] == after[1] for before, after in pairwise(chunks))
        assert chunks[-1][2] - chunks[-1][1] == 2 * CHUNK_US


def test_missing_ranges_are_slots_less_what_is_there() -> None:
    def missing(*chunks: tuple[int, int], start: int = 0, end: int = 30) -> list[tuple[int, int]]:
        there = [Chunk("t", *bounds) for bounds in chunks]
        return missing_ranges(there, start_us=start, end_us=end, chunk_us=10)

    assert missing() == [(0, 10), (10, 20), (20, 30)]
    assert missing((0, 10), (20, 30)) == [(10, 20)]
    assert missing((0, 15)) == [(15, 20), (20, 30)]
    assert missing((3, 5), start=7) == [(0, 3), (5, 10), (10, 20), (20, 30)]
    assert missing((-10, 40)) == []


async def test_stopped_copy_holds_nobody_up(site: PostgresSite) -> None:
    """A writer stopped in the middle of a COPY across a chunk boundary: chunks are made, others store."""
    start_us = await border_us(site)
    async with stopped_in_copy(site, start_us):
        started = time.monotonic()
        await site.upkeep.ensure_chunks(now_us=now_us() + DAY_US)
        await site.upkeep.summarise()
        chunks = await catalogue(site)
        assert len(chunks) >= 6
        await store(site, [(1_000 + n, found[1]) for n, found in enumerate(chunks)])
        assert time.monotonic() - started < 5
    assert len(await site.rows()) == len(chunks)


async def test_chunk_of_a_stopped_copy_is_finished_once_the_copy_ends(site: PostgresSite) -> None:
    start_us = await border_us(site)
    await store(site, [(1, start_us)])
    await all_seen(site, start_us + 2 * CHUNK_US)
    async with stopped_in_copy(site, start_us):
        assert await site.upkeep.close_due(now_us=start_us + CHUNK_US) == 1
        assert await site.upkeep.finish_closed() == 0
        await store(site, [(2, start_us + CHUNK_US)], [(3, start_us)])
    assert await site.upkeep.finish_closed() == 1
    assert (await catalogue(site))[0] == ("finished", start_us, start_us + CHUNK_US, 1, 1, 1)


# --- closing ---------------------------------------------------------------------------------------------------------


async def test_chunk_closes_when_all_partitions_have_passed_it_by_the_delay(site: PostgresSite) -> None:
    start_us = await border_us(site)
    due_us = start_us + CHUNK_US + 901 * SECOND_US
    await all_seen(site, due_us - 1)
    assert await site.upkeep.close_due(now_us=now_us() + 30 * DAY_US) == 0
    assert await border_us(site) == start_us
    await all_seen(site, due_us)
    assert await site.upkeep.close_due(now_us=start_us) == 1
    assert await border_us(site) == start_us + CHUNK_US
    assert [found[0] for found in await catalogue(site)] == ["closed", "open", "open"]
    assert await site.upkeep.close_due(now_us=start_us) == 0


async def test_backlog_keeps_chunks_open_however_long(site: PostgresSite) -> None:
    """FAULTS 10: what comes in after the database was away is not late."""
    start_us = await border_us(site)
    await all_seen(site, start_us + 10 * CHUNK_US, but=1)
    assert await site.upkeep.close_due(now_us=start_us + 30 * DAY_US) == 0


async def test_halted_partition_holds_chunks_open_for_six_hours_only(site: PostgresSite) -> None:
    start_us = await border_us(site)
    leases = await all_seen(site, start_us + CHUNK_US + HOUR_US, but=1)
    await site.process().halt(leases[1], "test")
    forced_us = start_us + CHUNK_US + 6 * HOUR_US
    assert await site.upkeep.close_due(now_us=forced_us - 1) == 0
    with structlog.testing.capture_logs() as logs:
        assert await site.upkeep.close_due(now_us=forced_us) == 1
    assert [entry["log_level"] for entry in logs] == ["error"]
    # The second chunk is over as well by then, but the running partitions have not passed it.
    assert await site.upkeep.close_due(now_us=forced_us + DAY_US) == 0


async def test_closing_gives_up_while_a_writer_holds_the_border(site: PostgresSite) -> None:
    start_us = await border_us(site)
    await all_seen(site, start_us + 2 * CHUNK_US)
    writer = await connect(site.database.url, application_name="writer")
    async with writer:
        await writer.execute("BEGIN")
        await writer.execute("SELECT pg_advisory_xact_lock_shared(%s)", (BORDER_LOCK,))
        started = time.monotonic()
        assert await site.upkeep.close_due(now_us=now_us()) == 0
        assert time.monotonic() - started < 5
        await store(site, [(1, start_us)])
        await writer.rollback()
    assert await site.upkeep.close_due(now_us=now_us()) == 1


async def test_finished_chunk_has_figures_statistics_and_indexes(site: PostgresSite) -> None:
    start_us = await border_us(site)
    await store(site, [(7, start_us), (9, start_us + 1), (8, start_us + CHUNK_US)])
    await all_seen(site, start_us + 2 * CHUNK_US)
    await site.upkeep.close_due(now_us=now_us())
    assert await site.upkeep.finish_closed() == 1
    assert await site.upkeep.finish_closed() == 0
    first, second, _ = await catalogue(site)
    assert first == ("finished", start_us, start_us + CHUNK_US, 2, 7, 9)
    assert second[0] == "open"
    table = await site.database.fetch_one("SELECT table_name FROM catalogue WHERE state = 'finished'")
    assert table is not None
    indexes = await site.database.fetch_all(
        "SELECT pg_get_indexdef(indexrelid) FROM pg_index WHERE indrelid = to_regclass(%s)", table
    )
    text = " ".join(definition for (definition,) in indexes)
    for columns in (
        '(correlation_id, "timestamp", id) WHERE (correlation_id IS NOT NULL)',
        '(service_name, "timestamp", id)',
        '("timestamp", id) WHERE (level >= 17)',
        "USING gin (metadata jsonb_path_ops)",
    ):
        assert columns in text
    assert await site.database.fetch_one("SELECT 1 FROM pg_class WHERE oid = to_regclass(%s) AND reltuples = 2", table)


async def test_finished_tables_get_the_index_on_metadata_one_after_the_other(place: tuple[str, Layout]) -> None:
    """Tables that were finished by an older program, or while the setting was off; the newest first."""
    async with postgres_site(*place, StoreSettings(metadata_index=False)) as site:
        await prepared(site)
        start_us = await closed_and_finished(site)
        await store(site, [(4, start_us + CHUNK_US)])
        await all_seen(site, start_us + 3 * CHUNK_US)
        assert await site.upkeep.close_due(now_us=start_us + 2 * CHUNK_US) == 1
        assert await site.upkeep.finish_closed() == 1

    async def indexed(site: PostgresSite) -> list[bool]:
        rows = await site.database.fetch_all(
            "SELECT metadata_indexed, EXISTS (SELECT FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid"
            "    WHERE i.indrelid = to_regclass(table_name) AND c.relname ~ '_metadata$')"
            " FROM catalogue WHERE state = 'finished' ORDER BY range_end"
        )
        assert all(said == there for said, there in rows)
        return [said for said, _ in rows]

    async with postgres_site(*place) as site:
        seen = [await indexed(site)]
        for _ in range(4):
            assert await site.upkeep.finish_closed() == 0
            seen.append(await indexed(site))
    assert seen == [[False] * 3, [False, False, True], [False, True, True], [True] * 3, [True] * 3]


async def test_catalogue_has_a_new_version_exactly_when_it_has_changed(site: PostgresSite) -> None:
    async def version() -> int:
        row = await site.database.fetch_one("SELECT version FROM catalogue_version")
        assert row is not None
        return int(row[0])

    start_us = await border_us(site)
    seen = [await version()]
    await all_seen(site, start_us + CHUNK_US)
    for _ in range(2):
        await site.upkeep.ensure_chunks(now_us=now_us())
        await site.upkeep.close_due(now_us=now_us())
        await site.upkeep.finish_closed()
    assert await version() == seen[-1]
    await all_seen(site, start_us + 2 * CHUNK_US)
    for step in (site.upkeep.close_due(now_us=now_us()), site.upkeep.finish_closed()):
        assert await step == 1
        seen.append(await version())
    assert seen == sorted(set(seen))


async def test_late_table_ends_after_a_day_if_it_has_rows(site: PostgresSite) -> None:
    start_us = await border_us(site)
    tomorrow_us = now_us() + DAY_US + SECOND_US
    assert await site.upkeep.close_due(now_us=tomorrow_us) == 0
    await store(site, [], [(5, start_us - 3), (4, start_us - 9)])
    assert await site.upkeep.close_due(now_us=now_us()) == 0
    assert await site.upkeep.close_due(now_us=tomorrow_us) == 1
    async with site.writer.begin() as batch:
        assert batch.border.late_generation == 2
    await store(site, [], [(6, start_us - 1)])
    assert await site.upkeep.finish_closed() == 1
    assert await catalogue(site, "late") == [
        ("finished", start_us - 9, start_us - 2, 2, 4, 5),
        ("open", None, None, None, None, None),
    ]
    assert [log_id for log_id, _ in await site.rows()] == [4, 5, 6]


async def test_late_table_ends_when_it_is_full(site: PostgresSite) -> None:
    start_us = await border_us(site)
    await store(site, [], [(n, start_us - 1) for n in range(LATE_ROWS_MAX)])
    deadline = time.monotonic() + 20
    while not await site.upkeep.close_due(now_us=now_us()):  # the server's statistics follow within a second
        assert time.monotonic() < deadline
        await store(site, [])
        await asyncio.sleep(0.1)
    assert [found[0] for found in await catalogue(site, "late")] == ["closed", "open"]


async def test_summarise_leaves_no_range_of_an_open_table_out(site: PostgresSite) -> None:
    start_us = await border_us(site)
    await store(site, [(n, start_us) for n in range(20_000)], [(n, start_us - 1) for n in range(20_000, 40_000)])
    await site.upkeep.summarise()
    left = await site.database.fetch_all(
        "SELECT brin_summarize_new_values(i.indexrelid) FROM catalogue AS t"
        " JOIN pg_index AS i ON i.indrelid = to_regclass(t.table_name) JOIN pg_class AS c ON c.oid = i.indexrelid"
        " JOIN pg_am AS m ON m.oid = c.relam WHERE m.amname = 'brin' AND c.relname !~ '_arrived_brin$'"
    )
    assert [ranges for (ranges,) in left] == [0] * 7


# --- expiry -----------------------------------------------------------------------------------------------------------


async def closed_and_finished(site: PostgresSite) -> int:
    """Two finished tables with a row each; the start of the chunk."""
    start_us = await border_us(site)
    await store(site, [(1, start_us)], [(2, start_us - 1)])
    await store(site, [(3, start_us + CHUNK_US)])
    await all_seen(site, start_us + 2 * CHUNK_US)
    assert await site.upkeep.close_due(now_us=now_us() + 2 * DAY_US) == 2
    assert await site.upkeep.finish_closed() == 2
    return start_us


async def test_expired_tables_leave_the_catalogue_first_and_are_dropped_later(site: PostgresSite) -> None:
    start_us = await closed_and_finished(site)
    expired_us = start_us + CHUNK_US + RETENTION_US
    assert await site.upkeep.drop_expired(now_us=expired_us - CHUNK_US - 1, retention_us=RETENTION_US) == 0
    assert len(await catalogue(site)) == 3
    assert await site.upkeep.drop_expired(now_us=expired_us, retention_us=RETENTION_US) == 0
    assert [found[0] for found in await catalogue(site)] == ["open", "open"]
    await site.upkeep.ensure_chunks(now_us=now_us())
    assert [found[0] for found in await catalogue(site)] == ["open", "open"]
    assert await site.upkeep.drop_expired(now_us=expired_us + 599 * SECOND_US, retention_us=RETENTION_US) == 0
    assert await site.upkeep.drop_expired(now_us=expired_us + 600 * SECOND_US, retention_us=RETENTION_US) == 2
    assert await site.rows() == [(3, "m")]
    assert await site.database.fetch_all("SELECT * FROM expired_tables") == []


async def _old_chunk(site: PostgresSite, start_us: int) -> str:
    """A finished chunk that is past retention by far; its name."""
    layout = chunk_layout(site.layout)
    async with site.database.connection() as connection:
        await layout.create(connection, start_us, start_us + CHUNK_US)
        (name,) = [chunk.table_name for chunk in await layout.chunks(connection) if chunk.start_us == start_us]
    assert await site.upkeep.finish_closed() == 1
    return name


async def _without_a_table(site: PostgresSite) -> list[tuple[Any, ...]]:
    return await site.database.fetch_all("SELECT * FROM catalogue WHERE to_regclass(table_name) IS NULL")


class _Meanwhile(Database):
    """A database to which something else happens before its n-th statement."""

    def __init__(self, url: str, statements: int, meanwhile: Callable[[], Awaitable[object]]) -> None:
        super().__init__(url, application_name="meanwhile")
        self.statements_left = statements
        self.meanwhile = meanwhile

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        async with super().connection() as connection:
            yield cast(Connection, _Interrupted(connection, self))


class _Interrupted:
    def __init__(self, connection: Connection, database: _Meanwhile) -> None:
        self._connection, self._database = connection, database

    def __getattr__(self, name: str) -> Any:  # everything that is no statement is the connection's own
        return getattr(self._connection, name)

    async def execute(self, *arguments: Any) -> Any:
        self._database.statements_left -= 1
        if self._database.statements_left == 0:
            await self._database.meanwhile()
        return await self._connection.execute(*arguments)


@pytest.mark.parametrize("step", ["ensure chunks", "close", "finish"])
async def test_chunk_that_is_dropped_meanwhile_does_not_come_back(site: PostgresSite, step: str) -> None:
    """Its row without a table would make readers hold all that is closed for open, and end upkeep for good."""
    start_us = await border_us(site) - 1_000 * CHUNK_US
    retention_us = now_us() - start_us - 500 * CHUNK_US
    await all_seen(site, now_us())

    async def drop() -> None:
        for delay_us in (0, 601 * SECOND_US):
            await site.upkeep.drop_expired(now_us=now_us() + delay_us, retention_us=retention_us)

    for statements in range(1, 60):
        name = await _old_chunk(site, start_us)
        database = _Meanwhile(site.database.url, statements, drop)
        await database.open()
        upkeep = PostgresUpkeep(database, TOPIC, site.layout, ahead_us_max=AHEAD_US)
        match step:
            case "ensure chunks":
                await upkeep.ensure_chunks(now_us=now_us())
            case "close":
                await upkeep.close_due(now_us=now_us())
            case "finish":
                await upkeep.finish_closed()
        await database.close()
        assert await _without_a_table(site) == []
        assert await site.upkeep.finish_closed() == 0
        if database.statements_left > 0:
            break
        assert await site.database.fetch_one("SELECT to_regclass(%s)", (name,)) == (None,)
    else:
        pytest.fail("the step never ended")
    assert statements > 3


async def test_chunk_that_leaves_the_catalogue_meanwhile_does_not_come_back(site: PostgresSite) -> None:
    """The step that notes new chunks has begun before, and would insert after."""
    name = await _old_chunk(site, await border_us(site) - 1_000 * CHUNK_US)
    leaving = await connect(site.database.url, application_name="leaving")
    async with leaving:
        await leaving.execute("BEGIN")
        await leaving.execute("DELETE FROM catalogue WHERE table_name = %s", (name,))
        await leaving.execute("INSERT INTO expired_tables VALUES (%s, 'chunk', clock_timestamp())", (name,))
        noting = asyncio.create_task(site.upkeep.finish_closed())
        while not noting.done() and not await site.database.fetch_one("SELECT 1 FROM pg_locks WHERE NOT granted"):
            await asyncio.wait({noting}, timeout=0.02)
        await leaving.commit()
        assert await noting == 0
    assert await site.database.fetch_one("SELECT 1 FROM catalogue WHERE table_name = %s", (name,)) is None


async def test_closed_table_that_is_gone_keeps_up_no_other(site: PostgresSite) -> None:
    start_us = await border_us(site)
    await store(site, [(1, start_us)])
    await all_seen(site, start_us + 2 * CHUNK_US)
    assert await site.upkeep.close_due(now_us=now_us()) == 1
    await site.database.execute(
        "INSERT INTO catalogue (table_name, kind, state, range_start, range_end, closed_at)"
        " VALUES ('logs_20200101t00', 'chunk', 'closed', '2020-01-01 00:00', '2020-01-01 06:00', '2020-01-01')"
    )
    with structlog.testing.capture_logs() as logs:
        assert await site.upkeep.finish_closed() == 1
    assert [(entry["table"], entry["log_level"]) for entry in logs] == [("logs_20200101t00", "error")]
    assert await _without_a_table(site) == []


async def test_drop_waits_for_no_reader_and_no_stopped_writer(site: PostgresSite) -> None:
    start_us = await closed_and_finished(site)
    expired_us = start_us + CHUNK_US + RETENTION_US
    await site.upkeep.drop_expired(now_us=expired_us, retention_us=RETENTION_US)
    reader = await connect(site.database.url, application_name="reader")
    async with reader:
        await reader.execute("BEGIN")
        await reader.execute("SELECT count(*) FROM logs")
        await reader.execute("SELECT count(*) FROM logs_late_1")
        dropped = asyncio.create_task(
            site.upkeep.drop_expired(now_us=expired_us + 600 * SECOND_US, retention_us=RETENTION_US)
        )
        while not dropped.done():
            await store(site, [(now_us(), start_us + CHUNK_US)])
        assert await dropped == 0
        await site.upkeep.ensure_chunks(now_us=now_us() + DAY_US)
        await reader.rollback()
    assert await site.upkeep.drop_expired(now_us=expired_us + 600 * SECOND_US, retention_us=RETENTION_US) == 2
    assert (1, "m") not in await site.rows()


async def test_keys_stay_until_everything_that_could_repeat_them_was_read(native_site: PostgresSite) -> None:
    site = native_site
    async with site.writer.begin() as batch:
        await batch.commit(StorePlan(keys=[StoredKey(b"today", b"body")]))
    midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    day = (midnight - timedelta(days=10)).date()
    async with site.database.connection() as connection:
        await attach_partition(
            connection, "stored_keys", "stored_keys_old", day.isoformat(), (day + timedelta(days=1)).isoformat()
        )
        await connection.execute("INSERT INTO stored_keys VALUES (%s, 'old', 'body')", (day,))
    over_us = int((midnight - timedelta(days=9)).timestamp()) * SECOND_US + 72 * HOUR_US + SECOND_US
    await all_seen(site, over_us - 1)
    assert await site.upkeep.drop_expired(now_us=now_us(), retention_us=RETENTION_US) == 0
    await all_seen(site, over_us)
    assert await site.upkeep.drop_expired(now_us=now_us(), retention_us=RETENTION_US) == 1
    async with site.writer.begin() as batch:
        assert await batch.known_keys([b"old", b"today"]) == {b"today": b"body"}


async def test_reservations_live_for_72_hours(native_site: PostgresSite) -> None:
    database = native_site.database
    await database.execute(
        "INSERT INTO id_reservations (key_hash, body_sha256, received_ms, first_id, answer, reserved_at)"
        " SELECT int4send(n), 'b', 1, 1, 'a', clock_timestamp() - n * interval '1 hour' FROM generate_series(1, 20100) AS n"
    )
    await native_site.upkeep.drop_expired(now_us=now_us(), retention_us=RETENTION_US)
    assert await database.fetch_one("SELECT count(*) FROM id_reservations") == (71,)


async def interrupted_detach(site: PostgresSite, parent: str, table: str) -> None:
    """Begin to detach the table, as somebody who is killed on the way."""
    reader = await connect(site.database.url, application_name="reader")
    killed = await connect(site.database.url, application_name="killed")
    async with reader, killed:
        await reader.execute("BEGIN")
        await reader.execute(f"SELECT count(*) FROM {parent}".encode())
        detach = asyncio.create_task(
            killed.execute(f"ALTER TABLE {parent} DETACH PARTITION {table} CONCURRENTLY".encode())
        )
        await until(site, "SELECT 1 FROM pg_inherits WHERE inhdetachpending AND %s > 0", killed)
        await site.database.execute("SELECT pg_terminate_backend(%s, 5000)", (killed.info.backend_pid,))
        await asyncio.wait([detach])
        assert detach.exception() is not None
        await reader.rollback()


async def test_interrupted_detach_of_keys_keeps_no_other_table_from_being_dropped(native_site: PostgresSite) -> None:
    site = native_site
    async with site.database.connection() as connection:
        for day in ("2026-01-01", "2026-01-02", "2026-01-03"):
            until_day = (datetime.fromisoformat(day) + timedelta(days=1)).date().isoformat()
            await attach_partition(connection, "stored_keys", f"stored_keys_{day.replace('-', '')}", day, until_day)
        await connection.execute("ALTER TABLE stored_keys DETACH PARTITION stored_keys_20260103 CONCURRENTLY")
    await interrupted_detach(site, "stored_keys", "stored_keys_20260101")
    await all_seen(site, now_us())
    assert await site.upkeep.drop_expired(now_us=now_us(), retention_us=RETENTION_US) == 3
    left = await site.database.fetch_all("SELECT 1 FROM pg_class WHERE relname ~ '^stored_keys_202601..$'")
    assert left == []


async def test_interrupted_detach_is_finished(native_site: PostgresSite) -> None:
    """Killed between the two halves of DETACH CONCURRENTLY."""
    site = native_site
    start_us = await closed_and_finished(site)
    expired_us = start_us + CHUNK_US + RETENTION_US
    await site.upkeep.drop_expired(now_us=expired_us, retention_us=RETENTION_US)
    table = await site.database.fetch_one("SELECT table_name FROM expired_tables WHERE kind = 'chunk'")
    assert table is not None
    await interrupted_detach(site, "logs", table[0])
    await site.upkeep.ensure_chunks(now_us=now_us() + DAY_US)
    assert await site.upkeep.drop_expired(now_us=expired_us + 600 * SECOND_US, retention_us=RETENTION_US) == 2
    assert await site.rows() == [(3, "m")]


async def test_clock_that_stepped_forward_closes_drops_and_sums_nothing(site: PostgresSite) -> None:
    await closed_and_finished(site)
    await store(site, [], [(4, await border_us(site) - 1)])
    upkeep = PostgresUpkeep(site.database, TOPIC, site.layout)
    before = await catalogue(site), await catalogue(site, "late")
    later_us = now_us() + 2 * RETENTION_US
    await upkeep.ensure_chunks(now_us=later_us)
    assert await upkeep.close_due(now_us=later_us) == 0
    for at_us in (later_us, later_us + DAY_US):
        assert await upkeep.drop_expired(now_us=at_us, retention_us=RETENTION_US) == 0
    await upkeep.roll_up_ledger(now_us=later_us)
    assert (await catalogue(site), await catalogue(site, "late")) == before
    assert [log_id for log_id, _ in await site.rows()] == [1, 2, 3, 4]
    assert await site.database.fetch_one("SELECT count(*) FROM ledger") == (3,)


async def test_clock_that_is_behind_leaves_the_present_with_chunks(site: PostgresSite) -> None:
    await site.upkeep.ensure_chunks(now_us=now_us() - 30 * DAY_US)
    assert (await catalogue(site))[-1][2] > now_us() + CHUNK_US


async def test_chunks_of_a_long_pause_are_made_some_at_a_time(native_site: PostgresSite) -> None:
    await native_site.database.execute("UPDATE border SET closed_before = closed_before - interval '30 days'")
    missing = []
    for _ in range(3):
        await native_site.upkeep.ensure_chunks(now_us=now_us())
        missing.append(123 - len(await catalogue(native_site)))
    assert missing == [20, 0, 0]


# --- ledger -----------------------------------------------------------------------------------------------------------


async def test_rolling_up_moves_settled_rows_and_keeps_the_sums(native_site: PostgresSite) -> None:
    site = native_site

    def ledger(*counts: int) -> StorePlan:
        return StorePlan(ledger=[LedgerRow(60_000_000, "api", 0, Outcome.FILTERED, "noise", n) for n in counts])

    async def append(*counts: int) -> None:
        async with site.writer.begin() as batch:
            await batch.commit(ledger(*counts))

    await append(1, 2)
    await append(3)
    await site.upkeep.roll_up_ledger(now_us=now_us())
    assert await site.database.fetch_one("SELECT count(*) FROM ledger") == (3,)
    await site.upkeep.roll_up_ledger(now_us=now_us() + 181 * SECOND_US)
    await append(4)
    await site.upkeep.roll_up_ledger(now_us=now_us() + 181 * SECOND_US)
    assert await site.database.fetch_one("SELECT count(*) FROM ledger") == (0,)
    assert await site.database.fetch_all("SELECT service_name, outcome, reason, count FROM ledger_minutes") == [
        ("api", "filtered", "noise", 10)
    ]


async def test_expired_minutes_go_and_what_services_ever_stored_stays(native_site: PostgresSite) -> None:
    site = native_site
    minute_us = now_us() // 60_000_000 * 60_000_000
    old_us = minute_us - RETENTION_US - 60_000_000

    async def summed(*rows: LedgerRow) -> list[tuple[Any, ...]]:
        await site.database.execute("DELETE FROM logs")
        stored = sum(found.count for found in rows if found.outcome is Outcome.STORED)
        async with site.writer.begin() as batch:
            await batch.commit(StorePlan(hot=[row(n, now_us()) for n in range(stored)], ledger=list(rows)))
        await site.upkeep.roll_up_ledger(now_us=now_us() + 181 * SECOND_US)
        await site.upkeep.drop_expired(now_us=now_us(), retention_us=RETENTION_US)
        return await site.database.fetch_all(
            "SELECT service_name, level, count, (extract(epoch FROM last_minute) * 1000000)::bigint FROM service_totals"
        )

    assert await summed(
        LedgerRow(old_us, "api", 9, Outcome.STORED, "", 2),
        LedgerRow(old_us, "api", 0, Outcome.DEAD, "refused", 1),
        LedgerRow(minute_us, "api", 9, Outcome.STORED, "", 3),
    ) == [("api", 9, 5, minute_us)]
    # A dead letter of an expired minute is replayed.
    assert await summed(
        LedgerRow(old_us, "api", 0, Outcome.DEAD, "refused", -1), LedgerRow(old_us, "api", 9, Outcome.STORED, "", 1)
    ) == [("api", 9, 6, minute_us)]
    assert await site.database.fetch_all("SELECT count FROM ledger_minutes") == [(3,)]


# --- killed anywhere ----------------------------------------------------------------------------------------------------


class Killed(Exception):
    """The process died here."""


class DyingDatabase(Database):
    """A database whose process dies before its n-th statement: the connection goes with it."""

    def __init__(self, url: str, statements_left: int) -> None:
        super().__init__(url, application_name="dying")
        self.statements_left = statements_left

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        async with super().connection() as connection:
            yield cast(Connection, _Dying(connection, self))


class _Dying:
    def __init__(self, connection: Connection, database: DyingDatabase) -> None:
        self._connection, self._database = connection, database

    def __getattr__(self, name: str) -> Any:  # everything that is no statement is the connection's own
        return getattr(self._connection, name)

    async def execute(self, *arguments: Any) -> Any:
        if self._database.statements_left == 0:
            await self._connection.close()
            raise Killed
        self._database.statements_left -= 1
        return await self._connection.execute(*arguments)


async def one_round(upkeep: PostgresUpkeep, at_us: int) -> None:
    """All of upkeep, at a time when everything is due."""
    await upkeep.ensure_chunks(now_us=now_us())
    for by in OpenIndex:
        await upkeep.index_open(by)
    await upkeep.close_due(now_us=now_us() + 2 * DAY_US)
    await upkeep.finish_closed()
    await upkeep.drop_expired(now_us=at_us, retention_us=RETENTION_US)
    await upkeep.drop_expired(now_us=at_us + 600 * SECOND_US, retention_us=RETENTION_US)
    await upkeep.roll_up_ledger(now_us=now_us() + 181 * SECOND_US)


async def test_upkeep_killed_before_any_statement_is_resumed(site: PostgresSite) -> None:
    """Each round dies one statement later than the last; the first to get through leaves what was promised."""
    start_us = await border_us(site)
    expired_us = start_us + CHUNK_US + RETENTION_US
    await store(site, [(1, start_us), (2, start_us + CHUNK_US)], [(3, start_us - 1)])
    await all_seen(site, start_us + 2 * CHUNK_US)
    for statements in range(200):
        database = DyingDatabase(site.database.url, statements)
        await database.open()
        try:
            await one_round(PostgresUpkeep(database, TOPIC, site.layout, ahead_us_max=AHEAD_US), expired_us)
            break
        except Killed:
            # Whatever was done so far, writers and readers find the store in order.
            await store(site, [(10 + statements, start_us + CHUNK_US)])
            assert (2, "m") in await site.rows()
        finally:
            await database.close()
    else:
        pytest.fail("upkeep never got through")
    assert statements > 20
    kept = [log_id for log_id, _ in await site.rows()]
    assert kept == [2, *range(10, 10 + statements)]
    assert [found[0] for found in await catalogue(site)] == ["open", "open"]
    assert [found[0] for found in await catalogue(site, "late")] == ["open"]
    assert await site.database.fetch_all("SELECT * FROM expired_tables") == []
    assert await site.database.fetch_one("SELECT sum(count)::bigint FROM ledger_minutes") == (3 + statements,)


# --- the sealer's lease ---------------------------------------------------------------------------------------------------


async def test_role_has_one_holder_and_passes_on_when_it_is_released_or_over(native_site: PostgresSite) -> None:
    database = native_site.database
    first = RoleLease(database, "sealer", "a", ttl_s=60)
    second = RoleLease(database, "sealer", "b", ttl_s=0)
    assert await first.acquire()
    assert not await second.acquire()
    assert await first.renew()
    assert await first.acquire()
    assert first.epoch == 1
    await first.release()
    assert not await first.renew()
    assert await second.acquire()
    assert await first.acquire()
    assert (first.epoch, second.epoch) == (3, 2)
    assert not await second.renew()
    assert second.epoch is None
    restarted = RoleLease(database, "sealer", "a", ttl_s=60)
    assert await restarted.acquire()
    assert not await first.renew()


# --- the sealer ---------------------------------------------------------------------------------------------------------


class WatchedUpkeep(PostgresUpkeep):
    """Upkeep with one chore that never ends and one that fails in a way nobody expected."""

    def __init__(self, site: PostgresSite) -> None:
        super().__init__(site.database, TOPIC, site.layout)
        self.done: list[str] = []
        self.cancelled = False

    async def finish_closed(self) -> int:
        self.done.append("finish closed")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        return 0

    async def summarise(self) -> None:
        raise ZeroDivisionError

    async def close_due(self, *, now_us: int) -> int:
        self.done.append("close")
        return 0

    async def roll_up_ledger(self, *, now_us: int) -> None:
        self.done.append("roll up ledger")


async def sealed_until(site: PostgresSite, upkeep: WatchedUpkeep, clock: Clock, chore: str) -> list[str]:
    """Run a sealer until the chore was done; what it logged as errors."""

    async def broker_upkeep() -> None:
        upkeep.done.append("broker")

    stop = Stop()
    sealer = Sealer(
        lease=RoleLease(site.database, SEALER, "a", ttl_s=60),
        upkeep=upkeep,
        broker_upkeep=broker_upkeep,
        retention_us=RETENTION_US,
        clock=clock,
        stop=stop,
    )
    with structlog.testing.capture_logs() as logs:
        running = asyncio.create_task(sealer.run())
        deadline = time.monotonic() + 60
        while not {chore, "finish closed"} <= set(upkeep.done):
            assert time.monotonic() < deadline
            await asyncio.sleep(0.02)
        stop.set()
        await asyncio.wait_for(running, 30)
    return [entry["chore"] for entry in logs if entry["log_level"] == "error"]


async def test_failing_and_endless_chores_hold_up_neither_the_others_nor_the_stop(
    native_site: PostgresSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sealer_module, "_STOP_S", 0.1)
    upkeep = WatchedUpkeep(native_site)
    before = UPKEEP_FAILURES.labels("summarise")._value.get()
    errors = await sealed_until(native_site, upkeep, SystemClock(), "broker")
    assert set(errors) == {"summarise"}
    assert UPKEEP_FAILURES.labels("summarise")._value.get() == before + len(errors)
    assert {"close", "roll up ledger", "broker"} <= set(upkeep.done)
    assert upkeep.cancelled
    assert await RoleLease(native_site.database, SEALER, "b", ttl_s=60).acquire()


@pytest.mark.parametrize("step_us", [-301 * SECOND_US, 301 * SECOND_US])
async def test_nothing_final_is_done_while_the_clocks_disagree(
    native_site: PostgresSite, monkeypatch: pytest.MonkeyPatch, step_us: int
) -> None:
    monkeypatch.setattr(sealer_module, "_STOP_S", 0.1)
    upkeep = WatchedUpkeep(native_site)
    errors = await sealed_until(native_site, upkeep, ManualClock(now_us() + step_us), "broker")
    assert {"close", "roll up ledger"} <= set(errors)
    assert {"close", "roll up ledger"}.isdisjoint(upkeep.done)
