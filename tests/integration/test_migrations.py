"""Migrations: applied once, from any number of processes, and never over what does not belong together."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Iterator

import psycopg
import pytest

import store.page_scan
import store.parts
from db.migrations import Layout, Migration, migrate, migrations, pending
from schemas.errors import ConfigurationError, DatabaseUnavailable
from schemas.scope import ALL_SERVICES
from search.predicate import CorrelationIs, MetaEquals, Predicate
from store.chunks import chunk_layout
from store.port import OpenIndex, Order, Scan
from store.postgres_read import PostgresReadStore
from tests.databases import create_database, drop_database
from tests.store_sites import AHEAD_US, HOUR_US, TOPIC, PostgresSite, now_us, postgres_site, prepared

CHUNK_US = 6 * HOUR_US
OTHER = {Layout.NATIVE: Layout.TIMESCALE, Layout.TIMESCALE: Layout.NATIVE}


@pytest.fixture(params=[Layout.NATIVE.value, pytest.param(Layout.TIMESCALE.value, marks=pytest.mark.timescale)])
def layout(request: pytest.FixtureRequest) -> Layout:
    return Layout(request.param)


@pytest.fixture
def empty_url(request: pytest.FixtureRequest, layout: Layout) -> Iterator[str]:
    """A database that was never migrated."""
    server: str = request.getfixturevalue("embedded_server" if layout is Layout.NATIVE else "timescale_server")
    url = create_database(server)
    yield url
    drop_database(server, url)


@pytest.fixture
def url(request: pytest.FixtureRequest, layout: Layout) -> str:
    """A migrated database."""
    made: str = request.getfixturevalue(f"{layout.value}_url")
    return made


def applied(url: str) -> list[tuple[object, ...]]:
    with psycopg.connect(url) as connection:
        return connection.execute("SELECT version, layout FROM schema_migrations ORDER BY 1").fetchall()


async def test_first_run_applies_all_and_the_second_nothing(empty_url: str, layout: Layout) -> None:
    known = migrations(layout)
    assert await pending(empty_url, layout) == known
    assert await migrate(empty_url, layout) == known
    assert await pending(empty_url, layout) == []
    assert await migrate(empty_url, layout) == []
    assert applied(empty_url) == [(migration.version, layout.value) for migration in known]


async def test_two_processes_at_once_apply_each_file_once(empty_url: str, layout: Layout) -> None:
    runs = await asyncio.gather(*(migrate(empty_url, layout) for _ in range(3)))
    assert sorted(len(run) for run in runs) == [0, 0, len(migrations(layout))]
    assert len(applied(empty_url)) == len(migrations(layout))


async def test_file_that_was_changed_after_it_was_applied_is_refused(url: str, layout: Layout) -> None:
    known = migrations(layout)
    changed = [*known[:-1], dataclasses.replace(known[-1], text=known[-1].text + "\n-- later thought\n")]
    with pytest.raises(ConfigurationError, match=rf"migration {known[-1].version:04} was changed after it was applied"):
        await migrate(url, layout, known=changed)
    assert await migrate(url, layout) == []


async def test_database_of_the_other_layout_is_refused(url: str, layout: Layout) -> None:
    with pytest.raises(ConfigurationError, match=f"made with the {layout.value} layout"):
        await migrate(url, OTHER[layout])
    assert await migrate(url, layout) == []


async def test_file_that_fails_leaves_nothing_and_can_be_mended(url: str, layout: Layout) -> None:
    known = migrations(layout)
    number = known[-1].version + 1
    broken = Migration(number, "next", "CREATE TABLE half (a int); SELECT 1 / 0;")
    with pytest.raises(psycopg.errors.DivisionByZero):
        await migrate(url, layout, known=[*known, broken])
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT to_regclass('half')").fetchone() == (None,)
    mended = Migration(number, "next", "CREATE TABLE half (a int);")
    assert await migrate(url, layout, known=[*known, mended]) == [mended]


async def test_program_one_version_older_accepts_the_database(url: str, layout: Layout) -> None:
    known = migrations(layout)
    newer = Migration(known[-1].version + 1, "next", "CREATE TABLE newer (a int)")
    await migrate(url, layout, known=[*known, newer])
    assert await migrate(url, layout) == []
    assert await pending(url, layout) == []


async def test_database_that_is_away_is_said_to_be_away() -> None:
    nowhere = "postgresql://nobody@127.0.0.1:1/nothing"
    for call in (migrate, pending):
        with pytest.raises(DatabaseUnavailable, match="cannot connect to the database"):
            await call(nowhere, Layout.NATIVE)


async def test_rows_and_writers_from_before_the_reading_migration_are_found_with_parts_beside_them(
    empty_url: str, layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    """0005 on a store that is in use: its rows say that they arrived before everything; a writer that began before goes on,
    and waits for nothing but the moment of the change."""
    monkeypatch.setattr(store.parts, "ROWS_MIN", 1)
    monkeypatch.setattr(store.page_scan, "prefers_index", lambda *_, **__: True)
    monkeypatch.setattr(store.page_scan, "_INDEX_LOOK_ROWS", 1)
    known = migrations(layout)
    await migrate(empty_url, layout, known=[migration for migration in known if migration.version < 5])
    async with postgres_site(empty_url, layout) as site:
        row = await site.database.fetch_one("SELECT (extract(epoch FROM closed_before) * 1000000)::bigint FROM border")
        assert row is not None
        (start_us,) = row
        chunks = chunk_layout(layout)
        async with site.database.connection() as connection:
            for number in range(3):
                await chunks.create(connection, start_us + number * CHUNK_US, start_us + (number + 1) * CHUNK_US)
        await _insert(site, "logs", start_us, 1)
        await _insert(site, "logs_late_1", start_us - HOUR_US, 2)
        writer = await psycopg.AsyncConnection.connect(empty_url)
        await writer.execute(_INSERT.format(table="logs").encode(), (start_us + 1, 3))
        migrating = asyncio.create_task(migrate(empty_url, layout))
        while not await site.database.fetch_one("SELECT 1 FROM pg_locks WHERE NOT granted"):
            await asyncio.wait({migrating}, timeout=0.02)
            assert not migrating.done()
        await writer.commit()
        assert [migration.version for migration in await migrating] == [each.version for each in known[4:]]
        await writer.execute(_INSERT.format(table="logs").encode(), (start_us + 2, 4))  # as the older program does
        await prepared(site)
        await site.see(now_us() + AHEAD_US)
        for by in OpenIndex:
            await site.upkeep.index_open(by)
        await writer.commit()
        await writer.close()
        await _insert(site, "logs_late_1", start_us - HOUR_US + 1, 5)
        for look in range(2):
            for question in (MetaEquals(("c",), "red"), CorrelationIs("red")):
                assert await _found(site, question) == [2, 5, 1, 3, 4]
            for by in OpenIndex:
                deadline = time.monotonic() + 30
                while not look and await site.upkeep.index_open(by) == 0:
                    assert time.monotonic() < deadline


_INSERT = """
    INSERT INTO {table} (timestamp, id, level, service_name, message, correlation_id, metadata)
    VALUES (timestamptz 'epoch' + %s::bigint * interval '1 microsecond', %s, 9, 'shop', 'm', 'red', '{{"c": "red"}}')"""


async def _insert(site: PostgresSite, table: str, timestamp_us: int, log_id: int) -> None:
    await site.database.execute(_INSERT.format(table=table), (timestamp_us, log_id))


async def _found(site: PostgresSite, question: Predicate) -> list[int]:
    async with PostgresReadStore(site.database, TOPIC, site.layout).snapshot() as snapshot:
        result = await snapshot.scan(Scan(question, Order.OLDEST_FIRST, 100), allowed=ALL_SERVICES)
    return [log.id for log in result.logs]
