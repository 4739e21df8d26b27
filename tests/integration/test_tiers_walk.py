"""INV-6 while the real tier role moves rows: a walk shows each row once, whatever became of its home between two pages, and
counts are those of all rows."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import cycle
from pathlib import Path

import pytest

from db.migrations import Layout
from schemas.errors import Overloaded
from schemas.record import Log
from schemas.scope import ALL_SERVICES
from search.predicate import EVERYTHING, Contains, CorrelationIs, Predicate
from store.objects.local_store import LocalObjectStore
from store.objects.settings import ObjectSettings
from store.port import Count, Order, Scan, Snapshot
from store.postgres_read import PostgresReadStore
from store.segments.settings import SegmentSettings
from store.settings import StoreSettings
from store.tiers.access import SegmentAccess
from store.tiers.settings import TierSettings
from tests.store_sites import TOPIC, row
from tests.tier_sites import CHUNK_US, DAY_US, TierSite, tier_site
from tests.tiered_rows import READER

MINUTE_US = 60_000_000
SMALL = SegmentSettings(rows_max=60, row_group_rows=1_024)
Step = Callable[[], Awaitable[object]]


@pytest.mark.parametrize(
    "predicate, is_wanted, order",
    [
        (EVERYTHING, lambda log_id: True, Order.NEWEST_FIRST),
        (Contains("m1"), lambda log_id: str(log_id % 1_000).startswith("1"), Order.NEWEST_FIRST),
        (CorrelationIs("c3"), lambda log_id: log_id % 9 == 3, Order.OLDEST_FIRST),
    ],
    ids=["all", "text", "story"],
)
async def test_a_walk_shows_each_row_once_while_rows_move_through_all_tiers(
    native_url: str, tmp_path: Path, predicate: Predicate, is_wanted: Callable[[int], bool], order: Order
) -> None:
    async with read_site(native_url, tmp_path) as (site, reading, _):
        expected = await filled(site)
        shown = await walked(reading, predicate, order, cycle(await moves(site)))
    of_all = sorted(expected.items(), key=lambda item: (item[1], item[0]), reverse=order is Order.NEWEST_FIRST)
    assert [log.id for log in shown] == [log_id for log_id, _ in of_all if is_wanted(log_id)]


async def test_counts_are_exact_while_rows_move_through_all_tiers(native_url: str, tmp_path: Path) -> None:
    """By times alone, which sums and the catalogue answer, and by text, for which rows are read; in a snapshot from before
    each move, and in one from after it."""
    async with read_site(native_url, tmp_path) as (site, reading, access):
        expected = await filled(site)
        await access.start_readers()
        begin_us = min(expected.values()) // MINUTE_US * MINUTE_US
        grid = {
            "start_us": begin_us,
            "end_us": begin_us + 2 * DAY_US,
            "width_us": 30 * MINUTE_US,
            "origin_us": begin_us,
        }

        def wanted(text: str) -> dict[int, int]:
            times = (us for log_id, us in expected.items() if text in f"m{log_id % 1_000}")
            return dict(Counter(us - (us - begin_us) % grid["width_us"] for us in times))

        async def counted(snapshot: Snapshot, predicate: Predicate, *, is_again: bool = False) -> dict[int, int] | None:
            """None: not all of it can be had now."""
            asked = Count(predicate, **grid, budget_ms=20_000, is_again=is_again)
            try:
                found = await snapshot.count(asked, allowed=ALL_SERVICES)
            except Overloaded:
                return None
            if found.counted_from_us is not None:
                return None
            by_bucket: Counter[int] = Counter()
            for (bucket_us, _), number in found.rows.items():
                by_bucket[bucket_us] += number
            return dict(by_bucket)

        async def exact(predicate: Predicate, text: str) -> None:
            async with asyncio.timeout(60):
                found = None
                while found is None:
                    async with reading.snapshot() as snapshot:
                        found = await counted(snapshot, predicate, is_again=True)
            assert found == wanted(text)

        assert await site.hot.upkeep.sum_open() > 0
        for number, step in enumerate(2 * await moves(site)):
            for predicate, text in ((EVERYTHING, ""), (Contains("m1"), "m1")):
                async with reading.snapshot() as before:
                    assert await counted(before, predicate) in (None, wanted(text))
                    if predicate == EVERYTHING:
                        await step()
                    assert await counted(before, predicate) in (None, wanted(text)), number
                await exact(predicate, text)
        assert ("serving", "cold") in await site.states()


@asynccontextmanager
async def read_site(url: str, tmp_path: Path) -> AsyncIterator[tuple[TierSite, PostgresReadStore, SegmentAccess]]:
    """A store whose rows move, and who reads it."""
    objects = ObjectSettings(url=f"file://{tmp_path / 'objects'}", cache_dir=tmp_path / "cache")
    directory = tmp_path / "segments"
    async with tier_site(
        url,
        Layout.NATIVE,
        directory,
        StoreSettings(late_rows_max=20),
        store=LocalObjectStore(tmp_path / "objects", objects),
        tiers=TierSettings(merge_files_min=2),
        segments=SMALL,
    ) as site:
        access = SegmentAccess(
            directory, READER, objects=LocalObjectStore(tmp_path / "objects", objects), object_settings=objects
        )
        await access.open()
        reading = PostgresReadStore(site.database, TOPIC, Layout.NATIVE, segments=access)
        yield site, reading, access
        await access.close()


async def filled(site: TierSite) -> dict[int, int]:
    """Two finished chunks, an open one, late rows over all in a finished table and in an open one. id -> timestamp."""
    start_us = await site.border_us()
    times: dict[int, int] = {}

    async def put(first: int, count: int, from_us: int, within_us: int, *, late: bool = False) -> None:
        rows = []
        for n in range(count):
            log_id, at_us = first + n, from_us + n * within_us // count
            times[log_id] = at_us
            rows.append(row(log_id, at_us, f"m{log_id % 1_000}", correlation_id=f"c{log_id % 9}"))
        await site.store_rows([] if late else rows, rows if late else [])

    await put(1_000, 120, start_us, 2 * CHUNK_US)
    await site.close_to(start_us + 2 * CHUNK_US)
    await put(2_000, 30, start_us - CHUNK_US, 3 * CHUNK_US - MINUTE_US, late=True)
    await site.database.execute("ANALYZE")
    await site.hot.upkeep.close_due(now_us=start_us + 2 * CHUNK_US)
    await site.hot.upkeep.finish_closed()
    await put(3_000, 20, start_us, 2 * CHUNK_US - MINUTE_US, late=True)
    await put(4_000, 40, start_us + 2 * CHUNK_US, CHUNK_US // 2)
    return times


async def moves(site: TierSite) -> list[Step]:
    """What the tier role and upkeep do, a step at a time, days ahead."""
    leader = await site.leader()
    upkeep = site.hot.upkeep
    end_us = time.time_ns() // 1000

    async def drop() -> None:
        await upkeep.drop_expired(now_us=end_us + 9 * DAY_US, retention_us=400 * DAY_US)

    async def collect() -> None:
        await leader.collect(time.time_ns() // 1000 + 20 * MINUTE_US)

    return [
        lambda: leader.write_due(end_us + DAY_US),
        lambda: leader.switch_due(end_us + 8 * DAY_US),
        lambda: leader.merge_due(end_us + 9 * DAY_US),
        drop,
        lambda: leader.move_due(end_us + 99 * DAY_US),
        collect,
    ]


async def walked(reading: PostgresReadStore, predicate: Predicate, order: Order, steps: cycle[Step]) -> list[Log]:
    """All rows that match, in small pages, with a step between any two; a page that cannot be had now is asked for again."""
    shown: list[Log] = []
    after = None
    deadline_s = time.monotonic() + 60
    while time.monotonic() < deadline_s:
        try:
            async with reading.snapshot() as snapshot:
                question = Scan(predicate, order, limit=4 if predicate != EVERYTHING else 12, after=after)
                result = await snapshot.scan(question, allowed=ALL_SERVICES)
        except Overloaded:
            continue
        shown += result.logs
        if result.finished:
            return shown
        after = result.scanned_to
        await next(steps)()
    raise TimeoutError("the walk has no end")
