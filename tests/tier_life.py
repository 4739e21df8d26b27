"""A store that lives day after day: logs come, in time and late, days end, and what tiering does is done a step at a time.

Time is a number that tests move, for those who store, tidy up and read alike. Only what stays for ten minutes after it was
retired goes by the machine's clock, as always; days later by the number it is gone at once.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import httpx

from cli.http_app import build_app
from db.migrations import Layout
from query.main import QueryService
from query.settings import QuerySettings
from runtime.clock import ManualClock
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

STORIES: Final = 5
END_OF_DAY, DROP = "end of day", "drop"
_SERVICES = ("shop", "pay", "pay/cards")
_LEVELS = (9, 5, 17, 9)
_DEBUG_MAX = 8


@dataclass(frozen=True)
class Ages:
    """How long a life is before anybody reads, and when its rows move and expire: in days."""

    lived: int
    hot: int
    cold: int
    debug: int
    """Of logs up to that level."""
    kept: int
    """Of all others."""


@dataclass
class Stored:
    """What a test asks of a log."""

    timestamp_us: int
    story: str
    is_debug: bool


@dataclass
class Life:
    """A store, the day it has come to, and every log that was ever stored."""

    site: TierSite
    tiering: Tiering
    ages: Ages
    clock: ManualClock
    start_us: int
    day: int = 0
    """Days before this one are closed."""
    stored: dict[int, Stored] = field(default_factory=dict)
    done: Counter[str] = field(default_factory=Counter)
    """Step -> pieces."""

    @property
    def now_us(self) -> int:
        return self.start_us + self.day * DAY_US + HOUR_US

    @property
    def positions(self) -> set[Position]:
        return {(log.timestamp_us, log_id) for log_id, log in self.stored.items()}

    def is_past_age(self, position: Position) -> bool:
        """Whether nobody finds it any more at this hour."""
        hour_us = self.clock.wall_us - self.clock.wall_us % HOUR_US
        days = self.ages.debug if self.stored[position[1]].is_debug else self.ages.kept
        return position[0] < hour_us - days * DAY_US

    async def put(self, day: int, count: int, *, at_us: int = 0) -> None:
        """Logs spread over the day, from `at_us` of it; in a late table when the day is closed."""
        rows = []
        for n in range(count):
            timestamp_us = self.start_us + day * DAY_US + at_us + n * (DAY_US - 2 * HOUR_US) // count
            place = len(self.stored)
            log_id = first_id_at(self.now_us // 1000) + place
            level, story = _LEVELS[place % len(_LEVELS)], f"c{place % STORIES}"
            self.stored[log_id] = Stored(timestamp_us, story, level <= _DEBUG_MAX)
            service = _SERVICES[place % len(_SERVICES)]
            rows.append(row(log_id, timestamp_us, level=level, service_name=service, correlation_id=story))
        await self.site.store_rows(*(([], rows) if day < self.day else (rows, [])))

    @property
    def steps(self) -> list[str]:
        """What a day's end brings, in this order."""
        return [END_OF_DAY, *self.tiering.steps, DROP]

    async def step(self, name: str, *, now_us: int | None = None) -> None:
        """One of them. now_us: other than this life's."""
        now_us = now_us or self.now_us
        if name == END_OF_DAY:
            self.done[name] += await self._end_day()
        elif name == DROP:
            self.done[name] += await self.site.hot.upkeep.drop_expired(
                now_us=now_us, retention_us=self.ages.kept * DAY_US
            )
        else:
            self.done[name] += await self.tiering.steps[name](now_us)

    async def pass_day(self) -> None:
        """All steps."""
        for name in self.steps:
            await self.step(name)
        assert self.tiering.failures == 0

    async def _end_day(self) -> int:
        """It is closed and finished."""
        self.day += 1
        self.clock.advance((self.now_us - self.clock.wall_us) / 1_000_000)
        upkeep = self.site.hot.upkeep
        await upkeep.ensure_chunks(now_us=self.now_us)
        await self.site.hot.see(self.now_us)
        await upkeep.close_due(now_us=self.now_us)
        assert await self.site.border_us() == self.start_us + self.day * DAY_US
        return await upkeep.finish_closed()

    async def homes(self) -> dict[str, set[int]]:
        """Where the rows are that readers get: tables, files on the disk, objects."""
        homes: dict[str, set[int]] = {"hot": set(), "warm": set(), "cold": set()}
        for segment in await self.site.all_segments():
            if segment.state is SegmentState.SERVING:
                homes["cold" if segment.tier is Tier.COLD else "warm"] |= {*await self.site.ids_in(segment)}
        homes["hot"] = {*await self.site.ids()} - homes["warm"] - homes["cold"]
        return homes

    async def visible(self) -> list[Position]:
        """Positions of all rows that are there, by the catalogue's word, and not past their age. Nothing is there twice."""
        ids = await self.site.ids()
        assert len(ids) == len({*ids})
        positions = sorted((self.stored[log_id].timestamp_us, log_id) for log_id in ids)
        return [position for position in positions if not self.is_past_age(position)]

    def lasting(self, positions: list[Position]) -> list[Position]:
        """Those that are still not past their age."""
        return [position for position in positions if not self.is_past_age(position)]

    async def tables(self) -> set[str]:
        """Names of tables of rows that exist."""
        found = await self.site.database.fetch_all(
            "SELECT table_name FROM (SELECT table_name FROM catalogue UNION SELECT table_name FROM expired_tables)"
            " AS known WHERE to_regclass(table_name) IS NOT NULL"
        )
        return {name for (name,) in found}


@dataclass
class World:
    """The life of a store and two ways to read it."""

    life: Life
    client: httpx.AsyncClient
    reading: PostgresReadStore

    async def get(self, path: str, **parameters: str | int) -> dict[str, Any]:
        """Asks again while the answer is 503: what a client does. Any: JSON."""
        deadline_s = time.monotonic() + 20
        while True:
            response = await self.client.get(f"/api/v1/{path}", params=parameters)
            if response.status_code != 503 or time.monotonic() > deadline_s:
                assert response.status_code == 200, response.text
                found: dict[str, Any] = response.json()
                return found
            await asyncio.sleep(0.02)

    def shown(self, page: dict[str, Any]) -> list[Position]:
        """Positions of the page's logs. Any: JSON."""
        return [(self.life.stored[int(log["id"])].timestamp_us, int(log["id"])) for log in page["logs"]]


@asynccontextmanager
async def lived(url: str, layout: Layout, directory: Path, ages: Ages) -> AsyncIterator[World]:
    """So many days, two late logs in every tenth, rows in all tiers."""
    settings = ObjectSettings(url=f"file://{directory / 'objects'}")
    async with tier_site(
        url,
        layout,
        directory / "segments",
        StoreSettings(chunk_hours=24, metadata_index=False),
        store=LocalObjectStore(directory / "objects", settings),
        tiers=TierSettings(merge_files_min=2, hot_days=ages.hot, cold_days=ages.cold),
        policy=retention({"name": "debug", "days": ages.debug, "max_level": "debug"}, default_days=ages.kept),
    ) as site:
        start_us = await _first_day_us(site)
        life = Life(site, await site.leader(), ages, ManualClock(start_us + HOUR_US), start_us)
        for day in range(ages.lived):
            await life.put(day, 4)
            if day % 10 == 9:
                await life.put(day - 3, 1, at_us=HOUR_US)
                await life.put(day - 9, 1, at_us=HOUR_US)
            await life.pass_day()
        await life.put(life.day, 4)
        async with _read(life, layout, directory) as world:
            yield world


async def _first_day_us(site: TierSite) -> int:
    """The border, moved on to the beginning of a day."""
    border_us = await site.border_us()
    start_us = border_us + -border_us % DAY_US
    await site.hot.process().claim("a", want=3, ttl_s=600)
    if border_us < start_us:
        await site.hot.upkeep.ensure_chunks(now_us=start_us + HOUR_US)
        await site.close_to(start_us)
    assert await site.border_us() == start_us
    return start_us


@asynccontextmanager
async def _read(life: Life, layout: Layout, directory: Path) -> AsyncIterator[World]:
    def access(name: str) -> SegmentAccess:
        settings = ObjectSettings(url=f"file://{directory / 'objects'}", cache_dir=directory / name)
        objects = LocalObjectStore(directory / "objects", settings)
        return SegmentAccess(life.site.directory, READER, objects=objects, object_settings=settings)

    async def nothing_unread() -> dict[int, int]:
        return {}

    database, policy, clock = life.site.database, life.site.policy, life.clock
    service = QueryService(
        QuerySettings(),
        database=database,
        layout=layout,
        unread=nothing_unread,
        topic=TOPIC,
        clock=clock,
        segments=access("a"),
        retention=policy,
    )
    own = access("b")
    await own.open()
    await service.start()
    transport = httpx.ASGITransport(app=build_app([service]))
    reading = PostgresReadStore(database, TOPIC, layout, clock=clock, segments=own, retention=policy)
    async with httpx.AsyncClient(transport=transport, base_url="http://test", timeout=60) as client:
        yield World(life, client, reading)
    await service.stop()
    await own.close()


async def all_of(snapshot: Snapshot, order: Order) -> list[Position]:
    """Positions of all rows of one snapshot, in small scans.."""
    shown: list[Position] = []
    after = None
    while True:
        result = await snapshot.scan(Scan(EVERYTHING, order, limit=50, after=after), allowed=ALL_SERVICES)
        shown += [(log.timestamp, log.id) for log in result.logs]
        if result.finished:
            reverse = order is Order.NEWEST_FIRST
            assert all(before > following if reverse else before < following for before, following in pairwise(shown))
            return shown
        after = result.scanned_to


async def all_again(reading: PostgresReadStore, order: Order = Order.OLDEST_FIRST) -> list[Position]:
    """The same with a new snapshot as long as files are on their way."""
    deadline_s = time.monotonic() + 20
    while True:
        try:
            async with reading.snapshot() as snapshot:
                return await all_of(snapshot, order)
        except (SnapshotLost, Overloaded):
            if time.monotonic() > deadline_s:
                raise
            await asyncio.sleep(0.02)
