"""A hundred days of logs, lived day after day: INV-6 over all tiers while logs come and days go on between pages."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest

from cli.http_app import build_app
from db.migrations import Layout
from query.main import QueryService
from query.settings import QuerySettings
from schemas.errors import Overloaded
from schemas.ids import first_id_at
from schemas.scope import ALL_SERVICES
from search.predicate import EVERYTHING
from store.objects.local_store import LocalObjectStore
from store.objects.settings import ObjectSettings
from store.port import Order, Position, Scan, Snapshot, SnapshotLost
from store.postgres_read import PostgresReadStore
from store.settings import StoreSettings
from store.tiers.access import SegmentAccess
from store.tiers.segments import SegmentState, Tier
from store.tiers.settings import TierSettings
from store.tiers.tiering import Tiering
from tests.store_sites import HOUR_US, TOPIC, row
from tests.tier_sites import DAY_US, TierSite, retention, tier_site
from tests.tiered_rows import READER

DAYS = 100
SERVICES = ("shop", "pay", "pay/cards")
LEVELS = (9, 5, 17, 9)
STORY = "c0"
DEBUG = {"name": "debug", "days": 40, "max_level": "debug"}


@dataclass
class Life:
    """A store, the day it has come to, and every log that was ever stored."""

    site: TierSite
    tiering: Tiering
    start_us: int
    day: int = 0
    """Days before this one are closed."""
    stored: dict[int, tuple[int, str, int]] = field(default_factory=dict)
    """id -> timestamp, correlation id, level."""

    @property
    def now_us(self) -> int:
        return self.start_us + self.day * DAY_US + HOUR_US

    async def put(self, day: int, count: int, *, at_us: int = 0) -> None:
        """Logs spread over the day, from `at_us` of it; in a late table when the day is closed."""
        rows = []
        for n in range(count):
            timestamp_us = self.start_us + day * DAY_US + at_us + n * (DAY_US - 2 * HOUR_US) // count
            place = len(self.stored)
            log_id = first_id_at(self.now_us // 1000) + place
            level, correlation_id = LEVELS[place % len(LEVELS)], f"c{place % 5}"
            self.stored[log_id] = timestamp_us, correlation_id, level
            service = SERVICES[place % len(SERVICES)]
            rows.append(row(log_id, timestamp_us, level=level, service_name=service, correlation_id=correlation_id))
        await self.site.store_rows(*(([], rows) if day < self.day else (rows, [])))

    async def pass_day(self) -> None:
        """The day ends: it is closed and finished, and everything that is due by then moves, expires, goes."""
        self.day += 1
        upkeep = self.site.hot.upkeep
        await upkeep.ensure_chunks(now_us=self.now_us)
        await self.site.hot.see(self.now_us)
        await upkeep.close_due(now_us=self.now_us)
        await upkeep.finish_closed()
        for step in self.tiering.steps.values():
            await step(self.now_us)
        await upkeep.drop_expired(now_us=self.now_us, retention_us=400 * DAY_US)
        assert self.tiering.failures == 0
        assert await self.site.border_us() == self.start_us + self.day * DAY_US

    async def go_on(self, step: int) -> None:
        """What happens between two pages: a log from now, a late one, or the end of a day."""
        match step % 3:
            case 0:
                await self.put(self.day, 1, at_us=2 * HOUR_US + step)
            case 1:
                await self.put(step * 7 % self.day, 1, at_us=HOUR_US + step)
            case _:
                await self.pass_day()

    async def homes(self) -> dict[str, set[int]]:
        """Where the rows are that readers get: tables, files on the disk, objects."""
        homes: dict[str, set[int]] = {"hot": set(), "warm": set(), "cold": set()}
        for segment in await self.site.all_segments():
            if segment.state is SegmentState.SERVING:
                home = "cold" if segment.tier is Tier.COLD else "warm"
                homes[home] |= {*await self.site.ids_in(segment)}
        homes["hot"] = {*await self.site.ids()} - homes["warm"] - homes["cold"]
        return homes

    async def visible(self) -> list[Position]:
        """Positions of all rows that are there, by the catalogue's word. Nothing is there twice."""
        ids = await self.site.ids()
        assert len(ids) == len({*ids})
        return sorted((self.stored[log_id][0], log_id) for log_id in ids)

    def lasting(self, positions: list[Position]) -> list[Position]:
        """Without those that may come of age meanwhile."""
        return [position for position in positions if self.stored[position[1]][2] > 8]


@dataclass
class World:
    """The life of a store and two ways to read it."""

    life: Life
    client: httpx.AsyncClient
    reading: PostgresReadStore

    async def get(self, path: str, **parameters: str | int) -> dict[str, Any]:
        """Asks again while the answer is 503: what a client does."""
        deadline_s = time.monotonic() + 20
        while True:
            response = await self.client.get(f"/api/v1/{path}", params=parameters)
            if response.status_code != 503 or time.monotonic() > deadline_s:
                assert response.status_code == 200, response.text
                found: dict[str, Any] = response.json()
                return found
            await asyncio.sleep(0.02)


@pytest.fixture(params=[Layout.NATIVE.value, pytest.param(Layout.TIMESCALE.value, marks=pytest.mark.timescale)])
def place(request: pytest.FixtureRequest) -> tuple[str, Layout]:
    """URL and layout of a fresh database."""
    return request.getfixturevalue(f"{request.param}_url"), Layout(request.param)


@pytest.fixture
async def world(place: tuple[str, Layout], tmp_path: Path) -> AsyncIterator[World]:
    """A hundred days, two late logs in every tenth, rows in all tiers."""
    url, layout = place
    directory, settings = tmp_path / "segments", ObjectSettings(url=f"file://{tmp_path / 'objects'}")
    async with tier_site(
        url,
        layout,
        directory,
        StoreSettings(chunk_hours=24, metadata_index=False),
        store=LocalObjectStore(tmp_path / "objects", settings),
        tiers=TierSettings(merge_files_min=2),
        policy=retention(DEBUG),
    ) as site:
        await site.hot.process().claim("a", want=3, ttl_s=600)
        life = Life(site, await site.leader(), await first_day_us(site))
        for day in range(DAYS):
            await life.put(day, 4)
            if day % 10 == 9:
                await life.put(day - 3, 1, at_us=HOUR_US)
                await life.put(day - 9, 1, at_us=HOUR_US)
            await life.pass_day()
        await life.put(life.day, 4)
        async with reading_world(life, layout, tmp_path) as made:
            yield made


async def first_day_us(site: TierSite) -> int:
    """The border, at the beginning of a day: what shorter chunks there were before is closed."""
    border_us = await site.border_us()
    assert border_us % DAY_US == 0
    return border_us


@asynccontextmanager
async def reading_world(life: Life, layout: Layout, tmp_path: Path) -> AsyncIterator[World]:
    def access(name: str) -> SegmentAccess:
        settings = ObjectSettings(url=f"file://{tmp_path / 'objects'}", cache_dir=tmp_path / name)
        objects = LocalObjectStore(tmp_path / "objects", settings)
        return SegmentAccess(life.site.directory, READER, objects=objects, object_settings=settings)

    async def nothing_unread() -> dict[int, int]:
        return {}

    database = life.site.database
    service = QueryService(
        QuerySettings(), database=database, layout=layout, unread=nothing_unread, topic=TOPIC, segments=access("a")
    )
    own = access("b")
    await own.open()
    await service.start()
    transport = httpx.ASGITransport(app=build_app([service]))
    async with httpx.AsyncClient(transport=transport, base_url="http://test", timeout=60) as client:
        yield World(life, client, PostgresReadStore(database, TOPIC, layout, segments=own))
    await service.stop()
    await own.close()


async def test_a_hundred_days_are_walked_while_days_go_on(world: World) -> None:
    """Page by page, newest first, then a story, oldest first, then by id: each log that was visible at the first page and has
    not expired comes once and in order; what came during the walk at most once, nothing newer than the first page."""
    life = world.life
    homes = await life.homes()
    assert all(len(ids) >= 10 for ids in homes.values()), {home: len(ids) for home, ids in homes.items()}
    by_id = [next(iter(ids & {i for i in ids if life.stored[i][2] > 8})) for ids in homes.values()]

    visible = await life.visible()
    shown = await walked(world, "logs", limit=12, by_id=by_id)
    assert shown == sorted({*shown}, reverse=True)
    assert {*life.lasting(visible)} <= {*shown}
    assert shown[0] == visible[-1]

    told = [position for position in await life.visible() if life.stored[position[1]][1] == STORY]
    shown = await walked(world, f"correlations/{STORY}/logs", limit=6, by_id=by_id)
    assert shown == sorted({*shown})
    assert {*life.lasting(told)} <= {*shown}
    assert {life.stored[log_id][1] for _, log_id in shown} == {STORY}
    # The bound is the newest log of all in the first page's snapshot.
    assert shown[-1] == told[-1]
    assert len({(timestamp_us // DAY_US) for timestamp_us, _ in shown}) > DAYS // 2, "it crosses days"

    now = await life.homes()
    moved = {(old, new) for old, ids in homes.items() for new, others in now.items() if ids & others}
    assert {("hot", "warm"), ("warm", "cold")} <= moved, "rows changed their home under the walks"


async def walked(world: World, path: str, *, limit: int, by_id: list[int]) -> list[Position]:
    """Positions of all logs along next_cursor; between two pages the days go on, and single logs are looked for."""
    shown: list[Position] = []
    page = await world.get(path, limit=limit)
    for step in range(1_000):
        shown += [(world.life.stored[int(log["id"])][0], int(log["id"])) for log in page["logs"]]
        if page["next_cursor"] is None:
            return shown
        await world.life.go_on(step)
        log_id = by_id[step % len(by_id)]
        assert (await world.get(f"logs/{log_id}"))["log"]["id"] == str(log_id)
        page = await world.get(path, limit=limit, cursor=page["next_cursor"])
    raise TimeoutError("the walk has no end")


@pytest.mark.parametrize("looks_first", [True, False], ids=["in-the-middle", "untouched"])
async def test_an_old_page_has_its_rows_or_says_that_it_is_lost(world: World, looks_first: bool) -> None:
    """Its tables are dropped and its files merged, moved and collected under it; whoever asks anew has everything."""
    life = world.life
    visible = await life.visible()
    tables = await table_names(life)
    async with world.reading.snapshot() as old:
        if looks_first:
            # One that has read its tables keeps them from being dropped until it ends; nothing else waits for it.
            await old.scan(Scan(EVERYTHING, Order.NEWEST_FIRST, limit=20), allowed=ALL_SERVICES)
        for _ in range(9):
            await life.pass_day()
        gone = tables - await table_names(life)
        assert looks_first or len(gone) >= 5, "tables were dropped"
        for order in Order:
            try:
                shown = await all_of(old, order)
            except (SnapshotLost, Overloaded):
                continue
            assert sorted(shown) == visible
            assert shown == sorted(shown, reverse=order is Order.NEWEST_FIRST)
    await life.pass_day()
    assert len(tables - await table_names(life)) >= 5
    anew = await all_again(world.reading)
    assert anew == await life.visible()
    assert {*life.lasting(visible)} <= {*anew}


async def table_names(life: Life) -> set[str]:
    """Of tables of rows that exist."""
    found = await life.site.database.fetch_all(
        "SELECT table_name FROM (SELECT table_name FROM catalogue UNION SELECT table_name FROM expired_tables) AS known"
        " WHERE to_regclass(table_name) IS NOT NULL"
    )
    return {name for (name,) in found}


async def all_of(snapshot: Snapshot, order: Order) -> list[Position]:
    """Positions of all rows of one snapshot, in small scans."""
    shown: list[Position] = []
    after = None
    while True:
        result = await snapshot.scan(Scan(EVERYTHING, order, limit=50, after=after), allowed=ALL_SERVICES)
        shown += [(log.timestamp, log.id) for log in result.logs]
        if result.finished:
            assert all(before != following for before, following in pairwise(shown))
            return shown
        after = result.scanned_to


async def all_again(reading: PostgresReadStore) -> list[Position]:
    """Oldest first, with a new snapshot as long as files are on their way."""
    deadline_s = time.monotonic() + 20
    while True:
        try:
            async with reading.snapshot() as snapshot:
                return await all_of(snapshot, Order.OLDEST_FIRST)
        except (SnapshotLost, Overloaded):
            if time.monotonic() > deadline_s:
                raise
