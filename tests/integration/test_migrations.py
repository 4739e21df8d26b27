"""Migrations: applied once, from any number of processes, and never over what does not belong together."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Iterator

import psycopg
import pytest

from db.migrations import Layout, Migration, migrate, migrations, pending
from schemas.errors import ConfigurationError, DatabaseUnavailable
from tests.databases import create_database, drop_database

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
