"""A directory or an object storage that is not this database's is told, and nothing moves or goes there."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx
import pytest

from db.migrations import Layout
from infra.fleet import free_port
from runtime.clock import SystemClock
from runtime.stopping import Stop
from store.objects.factory import make_object_store
from store.objects.settings import ObjectSettings
from store.tiers.installation import WrongPlace
from store.tiers.places import MARKER
from store.tiers.role import TierRole
from store.tiers.settings import TierSettings
from store.tiers.tiering import Tiering
from tests.integration.test_tier_commands import logfeed, running
from tests.store_sites import row
from tests.tier_sites import CHUNK_US, DAY_US, TierSite, tier_site


@pytest.fixture
async def site(native_url: str, tmp_path: Path) -> AsyncIterator[TierSite]:
    store = make_object_store(ObjectSettings(url=f"file://{tmp_path}/objects"))
    tiers = TierSettings(hot_days=0, merge_files_min=0)
    async with tier_site(native_url, Layout.NATIVE, tmp_path / "segments", store=store, tiers=tiers) as made:
        yield made


async def served(site: TierSite, leader: Tiering, first: int = 1) -> int:
    """Ten rows in a file of their own; returns its end."""
    start_us = await site.border_us()
    await site.hot.upkeep.ensure_chunks(now_us=start_us + 2 * CHUNK_US)
    await site.store_rows([row(first + n, start_us + n, f"m{n}") for n in range(10)])
    await site.close_to(start_us + CHUNK_US)
    await leader.write_due(start_us + CHUNK_US)
    await leader.switch_due(start_us + CHUNK_US)
    return start_us + CHUNK_US


async def until(condition: Callable[[], bool], what: str) -> None:
    deadline_s = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline_s, what
        await asyncio.sleep(0.02)


async def test_a_directory_that_is_not_mounted_is_told_and_nothing_moves(site: TierSite) -> None:
    await served(site, await site.leader())
    mounted = site.directory.parent / "mounted"
    site.directory.rename(mounted)
    with pytest.raises(WrongPlace, match="is not there"):
        await site.leader()
    site.directory.mkdir()  # the empty mount point
    with pytest.raises(WrongPlace, match="lacks 1 of 1 files"):
        await site.leader()
    assert site.files() == []
    site.directory.rmdir()
    mounted.rename(site.directory)
    await served(site, await site.leader(), first=101)
    assert await site.ids() == [*range(1, 11), *range(101, 111)]


async def test_a_mount_point_is_no_directory_of_a_database_whose_files_are_all_cold(site: TierSite) -> None:
    leader = await site.leader()
    end_us = await served(site, leader)
    await leader.move_due(end_us + 90 * DAY_US)
    site.directory.rename(site.directory.parent / "mounted")
    site.directory.mkdir()
    with pytest.raises(WrongPlace, match="has nothing of the files"):
        await site.leader()


async def test_a_standby_with_a_disk_of_its_own_does_not_write_there(site: TierSite) -> None:
    own = site.directory.parent / "own"
    theirs, site.directory = site.directory, own
    standby = await site.leader("standby")  # it led while there was nothing yet, and has a marker
    site.directory = theirs
    await served(site, await site.leader())
    with pytest.raises(WrongPlace, match="none of the 1 files"):
        await standby.prepare()
    identity = await standby.installation.identity()
    (own / MARKER).write_text(f"{identity} lost")
    await standby.prepare(leads=False)  # people say so
    (own / MARKER).unlink()
    with pytest.raises(WrongPlace, match="lacks 1 of 1"):
        await standby.prepare(leads=False)


async def test_files_from_before_there_were_markers_stand_for_one(site: TierSite) -> None:
    await served(site, await site.leader())
    (site.directory / MARKER).unlink()
    await site.database.execute("DELETE FROM secrets")
    await (await site.leader()).prepare(leads=False)
    assert (site.directory / MARKER).exists()


async def test_a_fresh_database_does_not_take_an_old_directory(site: TierSite) -> None:
    leader = await site.leader()
    end_us = await served(site, leader)
    await leader.move_due(end_us + 90 * DAY_US)
    await site.database.execute("DELETE FROM secrets")
    await site.database.execute("DELETE FROM segments")
    with pytest.raises(WrongPlace, match="belongs to another installation") as error:
        await site.leader()
    marker = site.directory / MARKER
    identity = await leader.installation.identity()
    assert f"write {identity} into {marker}" in str(error.value)
    marker.unlink()
    with pytest.raises(WrongPlace, match="has files, and the database knows none"):
        await site.leader()
    marker.write_text(identity)
    other = await site.leader()
    with pytest.raises(WrongPlace, match=r"objects\.url belongs to another installation"):
        await other.installation.check_objects()


async def test_objects_of_a_database_from_before_there_were_markers(site: TierSite) -> None:
    leader = await site.leader()
    end_us = await served(site, leader)
    await leader.move_due(end_us + 90 * DAY_US)
    assert site.store is not None
    await site.store.delete(MARKER)
    await (await site.leader()).installation.check_objects()
    assert await site.store.size(MARKER) is not None
    await site.store.delete(MARKER)
    await site.database.execute("DELETE FROM segments")
    with pytest.raises(WrongPlace, match="none of which the database knows"):
        await (await site.leader()).installation.check_objects()


async def test_the_role_says_what_it_waits_for_and_goes_on_once_the_disk_is_there(site: TierSite) -> None:
    leader = await site.leader()
    await served(site, leader)
    mounted = site.directory.parent / "mounted"
    site.directory.rename(mounted)
    stop = Stop()
    role = TierRole(site.database, leader.catalogue.lease, leader, round_s=0.1, clock=SystemClock(), stop=stop)
    running = asyncio.create_task(role.run())
    await until(lambda: "is not there" in (role.problem or ""), "the role tells it")
    assert not site.directory.exists()
    mounted.rename(site.directory)
    await until(lambda: role.problem is None, "the role goes on")
    stop.set()
    await running


@pytest.mark.slow
async def test_two_of_one_name_are_told(site: TierSite) -> None:
    stop = Stop()
    leaders = [await site.leader("same") for _ in range(2)]
    roles = [
        TierRole(site.database, each.catalogue.lease, each, round_s=0.1, clock=SystemClock(), stop=stop)
        for each in leaders
    ]
    running = [asyncio.create_task(role.run()) for role in roles]
    await until(lambda: all("same tiers.name" in (role.problem or "") for role in roles), "both tell it")
    stop.set()
    await asyncio.gather(*running)


async def test_people_see_it_in_readyz_and_in_exit_codes(site: TierSite, tmp_path: Path) -> None:
    await served(site, await site.leader())
    site.directory.rename(site.directory.parent / "mounted")
    for command in (("run", "--now"), ("restore", "2026-01-31")):
        ended = logfeed(site, *command)
        assert ended.returncode == 1
        assert "is the disk mounted" in ended.stderr
        assert "Traceback" not in ended.stderr
    port = free_port()
    often = {"LOGFEED_TIERS__ROUND_S": "0.2", "LOGFEED_TIERS__HEALTH_PORT": str(port)}
    role = running(site, tmp_path / "role.log", **often)

    def ready() -> str:
        try:
            return httpx.get(f"http://127.0.0.1:{port}/readyz", trust_env=False).text
        except httpx.HTTPError:
            assert role.alive, role.log_text()
            return ""

    try:
        await until(lambda: "is the disk mounted" in ready(), "the role tells it")
        os.rename(site.directory.parent / "mounted", site.directory)
        await until(lambda: "is the disk mounted" not in ready() and "ready" in ready(), "the role is ready")
    finally:
        role.kill()
