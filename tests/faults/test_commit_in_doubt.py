"""A COMMIT whose client is cut off may still succeed, seconds later: whatever the catalogue names then is there."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from db.database import Database
from db.leases import Lease
from db.migrations import Layout
from runtime.stopping import Stop
from schemas.errors import DatabaseUnavailable
from store.tiers.catalogue import TIER
from store.tiers.erasing import predicate_of
from store.tiers.erasing_files import FileRows
from store.tiers.progress import unwatched
from store.tiers.settings import TierSettings
from store.tiers.tiering import Tiering
from tests.faults.proxy import DatabaseProxy
from tests.faults.relay import Passing
from tests.store_sites import TOPIC, row
from tests.tier_sites import CHUNK_US, DAY_US, TierSite, tier_site

ROWS = 20
DEADLINE_S = 30.0
_WAITING = """
    SELECT FROM pg_stat_activity
    WHERE datname = current_database() AND application_name = 'cut' AND wait_event_type = 'Lock' AND query ~* %s"""


async def write(leader: Tiering, now_us: int) -> None:
    await leader.write_due(now_us)


async def merge(leader: Tiering, now_us: int) -> None:
    await leader.merge_due(now_us)


async def erase(leader: Tiering, now_us: int) -> None:
    predicate = predicate_of("secret")
    files = FileRows(leader.catalogue, leader.places, None, leader._segment_settings, leader.pace, predicate)
    await files.remove(lambda *_: None)


@pytest.mark.parametrize("work", [write, merge, erase])
async def test_files_of_a_commit_that_succeeds_after_its_client_was_cut_off_are_there(
    native_url: str, tmp_path: Path, work: Callable[[Tiering, int], Awaitable[None]]
) -> None:
    async with (
        tier_site(native_url, Layout.NATIVE, tmp_path / "segments", tiers=TierSettings(merge_files_min=2)) as site,
        DatabaseProxy(native_url, application=b"cut") as proxy,
    ):
        now_us = await filled(site, switched=work is not write)
        database = Database(proxy.url, application_name="cut")
        await database.open()
        leader = await behind(database, site)
        before = {each.name for each in await site.all_segments()}
        async with site.database.transaction() as other:
            await other.execute("UPDATE catalogue_version SET version = version + 1")
            working = asyncio.ensure_future(work(leader, now_us))
            await until(site, working, "^COMMIT")
            proxy.turn(Passing.CUT)
            proxy.turn(Passing.PASS)
            await until(site, working, "leases.*FOR UPDATE")
        with pytest.raises(DatabaseUnavailable):
            await working
        after = await site.all_segments()
        assert {each.name for each in after} > before
        assert {each.name for each in after} <= {*site.files()}
        left = {*range(1, 2 * ROWS + 1)}
        if work is erase:  # the first file is done, then the connection was gone
            left -= {*range(1, ROWS, 2)}
        assert {*await site.ids()} == left
        await database.close()


async def filled(site: TierSite, *, switched: bool) -> int:
    """Two chunks of one day, each second row a secret, in tables or in files; returns a time past the hot window."""
    start_us = await site.border_us()
    start_us += -start_us % DAY_US
    await site.hot.upkeep.ensure_chunks(now_us=start_us + DAY_US)
    for number in range(2):
        await site.store_rows(
            [
                row(1 + n + number * ROWS, start_us + number * CHUNK_US + n, "plain" if n % 2 else "secret")
                for n in range(ROWS)
            ]
        )
    await site.close_to(start_us + 2 * CHUNK_US)
    now_us = start_us + 9 * DAY_US
    if switched:
        leader = await site.leader()
        await leader.write_due(now_us)
        await leader.switch_due(now_us)
    return now_us


async def behind(database: Database, site: TierSite) -> Tiering:
    """A leader that reaches the database through the proxy."""
    lease = Lease(database, TIER, "behind", ttl_s=60)
    await lease.take_over()
    leader = Tiering(
        database,
        lease,
        site.directory,
        topic=TOPIC,
        tiers=site.tiers,
        segments=site.segments,
        policy=site.policy,
        store=None,
        stop=Stop(),
        share=1.0,
        progress=unwatched,
    )
    await leader.prepare()
    return leader


async def until(site: TierSite, working: asyncio.Future[None], query: str) -> None:
    """A statement like this waits for a lock, or the work has ended."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            if working.done() or await site.database.fetch_all(_WAITING, (query,)):
                return
            await asyncio.sleep(0.02)
