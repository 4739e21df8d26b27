"""Readers while what they read goes: tables dropped, files collected, retention, object storage away (FAULTS 15, 16)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

import cli.pages
from cli.exporting.output import Compression, Format
from cli.exporting.run import Export
from cli.exporting.state import ExportState
from db.migrations import Layout
from runtime.clock import SystemClock
from schemas.errors import Overloaded
from schemas.scope import ALL_SERVICES
from search.predicate import EVERYTHING
from store.objects.local_store import LocalObjectStore
from store.objects.port import ObjectStoreUnavailable
from store.port import Order, Position, Scan, SnapshotLost
from store.postgres_read import PostgresReadStore
from store.tiers import cold, collecting
from tests.store_sites import now_us
from tests.tier_life import DROP, Ages, World, all_again, all_of, lived
from tests.tier_sites import DAY_US

AGES = Ages(lived=24, hot=3, cold=16, debug=12, kept=28)


@pytest.fixture(params=[Layout.NATIVE.value, pytest.param(Layout.TIMESCALE.value, marks=pytest.mark.timescale)])
def place(request: pytest.FixtureRequest) -> tuple[str, Layout]:
    """URL and layout of a fresh database."""
    return request.getfixturevalue(f"{request.param}_url"), Layout(request.param)


@pytest.fixture
async def world(place: tuple[str, Layout], tmp_path: Path) -> AsyncIterator[World]:
    """Rows in all tiers, also late ones."""
    async with lived(*place, tmp_path, AGES) as made:
        assert all((await made.life.homes()).values())
        yield made


# --- what goes under an old page ----------------------------------------------------------------------------------------


async def test_whatever_moves_an_old_page_keeps_all_its_rows_for_ten_minutes(world: World) -> None:
    """Tables leave, files are merged, moved and expire under it; and everything is tidied up, by the clock of this minute."""
    life = world.life
    visible = await life.visible()
    tables, files = await life.tables(), life.site.files()
    async with world.reading.snapshot() as old:
        for _ in range(AGES.kept - AGES.lived + 3):
            for name in life.steps:
                await life.step(name, now_us=now_us() if name in (DROP, collecting.STEP) else None)
        assert life.tiering.failures == 0
        assert await life.visible() != visible
        for order in Order:
            assert sorted(await all_of(old, order)) == visible
    await life.pass_day()
    assert len(tables - await life.tables()) >= AGES.hot, "there were tables to drop"
    assert len({*files} - {*life.site.files()}) >= AGES.hot, "there were files to remove"
    assert await all_again(world.reading) == await life.visible()


@pytest.mark.parametrize("has_looked", [False, True], ids=["untouched", "in-the-middle"])
async def test_an_old_page_whose_rows_are_gone_gets_one_clear_error(world: World, has_looked: bool) -> None:
    """Its tables are dropped and its files collected; whoever asks anew has everything."""
    life = world.life
    visible = await life.visible()
    tables = await life.tables()
    for order in Order:
        with pytest.raises((SnapshotLost, Overloaded)):
            await page_whose_rows_go(world, order, has_looked=has_looked)
    await life.step(DROP)
    assert life.tiering.failures == 0
    assert len(tables - await life.tables()) >= AGES.hot
    anew = await all_again(world.reading)
    assert anew == await life.visible()
    assert {*life.lasting(visible)} <= {*anew}


async def page_whose_rows_go(world: World, order: Order, *, has_looked: bool) -> list[Position]:
    """All that its snapshot shows after the hot days, and tidying up ten minutes ahead."""
    async with world.reading.snapshot() as old:
        if has_looked:
            # It keeps the table that it has read from being dropped until it ends, and nothing else.
            await old.scan(Scan(EVERYTHING, order, limit=2), allowed=ALL_SERVICES)
        for _ in range(AGES.hot + 1):
            for name in world.life.steps:
                if name != DROP:
                    await world.life.step(name)
        await world.life.step(DROP)
        return await all_of(old, order)


# --- retention ----------------------------------------------------------------------------------------------------------


async def test_a_page_whose_rows_expire_under_it_has_what_is_left(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between a request's snapshot and its scan half of everything comes of age and is gone."""
    life = world.life
    visible = await life.visible()
    take, races = PostgresReadStore._taken, 0

    async def taken(self: PostgresReadStore, connection: Any) -> Any:
        nonlocal races
        snapshot = await take(self, connection)
        if not races:
            races += 1
            life.clock.advance(AGES.kept // 2 * DAY_US / 1_000_000)
            for name in ("expire", collecting.STEP, DROP):
                await life.step(name, now_us=life.clock.wall_us)
        return snapshot

    monkeypatch.setattr(PostgresReadStore, "_taken", taken)
    shown = world.shown(await world.get("logs", limit=1_000, order="asc"))
    assert races == 1
    assert shown == life.lasting(visible) == await life.visible()
    assert 0 < len(shown) < len(visible)


async def test_an_export_that_races_with_retention_is_whole(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A day ends before each page: what was there and has not expired by the end is in the file once, in order."""
    life = world.life
    visible = await life.visible()
    monkeypatch.setattr(cli.pages, "PAGE_LOGS_MAX", 8)
    path = tmp_path / "a.ndjson"
    state = ExportState("http://test", [("order", "desc")], Format.NDJSON, Compression.NONE)
    pages = 0

    async def a_day_ends(request: httpx.Request) -> None:
        nonlocal pages
        pages += 1
        if pages > 1:
            await life.pass_day()

    world.client.event_hooks["request"] = [a_day_ends]
    await Export(state, path).run(
        world.client,
        clock=SystemClock(),
        give_up_after_s=20,
        on_wait=lambda reason, pause_s: None,
        on_page=lambda state, written: None,
    )
    ids = [int(orjson.loads(line)["id"]) for line in path.read_bytes().splitlines()]
    exported = [(life.stored[log_id].timestamp_us, log_id) for log_id in ids]
    lasting = life.lasting(visible)
    assert exported == sorted({*exported}, reverse=True)
    assert {*lasting} <= {*exported} <= {*visible}
    assert len(lasting) < len(visible) - 8, "more than a page of them expired"


# --- object storage -----------------------------------------------------------------------------------------------------


async def test_object_storage_that_is_away_hides_nothing_and_is_gone_on_with_when_it_is_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pages are given up to the first cold file, which is named; files that are due wait; then everything goes on."""
    life = world.life
    visible = await life.visible()
    cold_ids = (await life.homes())["cold"]

    async def away(*arguments: object, **options: object) -> None:
        raise ObjectStoreUnavailable("no connection to object storage")

    with monkeypatch.context() as patch:
        for call in ("get", "put"):
            patch.setattr(LocalObjectStore, call, away)
        shown: list[Position] = []
        cursor: dict[str, str] = {}
        while (response := await world.client.get("/api/v1/logs", params={"limit": 20, **cursor})).status_code == 200:
            shown += world.shown(response.json())
            cursor = {"cursor": response.json()["next_cursor"]}
        assert response.status_code == 503, response.text
        assert "object storage" in response.json()["detail"]
        assert not cold_ids & {log_id for _, log_id in shown}
        for _ in range(2):
            for name in life.steps:
                await life.step(name)
        assert life.tiering.failures >= 2
        patch.undo()
        assert {*life.lasting(visible)} <= {*await life.visible()}
    moved = life.done[cold.STEP]
    await life.step(cold.STEP)
    assert life.done[cold.STEP] >= moved + 2
    while cursor["cursor"]:
        page = await world.get("logs", limit=20, **cursor)
        shown += world.shown(page)
        cursor = {"cursor": page["next_cursor"] or ""}
    assert shown == sorted({*shown}, reverse=True)
    assert {*life.lasting(visible)} <= {*shown} <= {*visible}
