"""Files move to object storage and back, whole or not at all; what is damaged is named."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from db.migrations import Layout
from runtime.stopping import Stop
from store.disk_room import DiskFull
from store.objects.factory import make_object_store
from store.objects.port import ObjectStore
from store.objects.settings import ObjectSettings
from store.segments.format import SegmentDamaged
from store.tiers.installation import WrongPlace
from store.tiers.pace import Interrupted, Pace
from store.tiers.places import Places, key_of
from store.tiers.segments import Segment
from store.tiers.settings import TierSettings
from store.tiers.tiering import Tiering
from store.tiers.verifying import segments_to_verify, verified
from tests.s3_server import S3Server, s3_store
from tests.store_sites import TOPIC, row
from tests.tier_sites import CHUNK_US, DAY_US, TierSite, tier_site

MINUTE_US = 60_000_000
ROWS = 100


@pytest.fixture(params=["directory", "s3"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[ObjectStore]:
    """A directory, and a real S3 server."""
    if request.param == "s3":
        request.getfixturevalue("aws_credentials")
        server: S3Server = request.getfixturevalue("s3_server")
        made = s3_store(server.make_bucket(), server.endpoint)
    else:
        made = make_object_store(ObjectSettings(url=f"file://{tmp_path}/objects"))
    yield made
    await made.close()


@pytest.fixture
async def site(native_url: str, tmp_path: Path, store: ObjectStore) -> AsyncIterator[TierSite]:
    async with tier_site(native_url, Layout.NATIVE, tmp_path / "segments", store=store) as made:
        yield made


async def serving(site: TierSite) -> tuple[Tiering, Segment, int]:
    """A leader, a segment that serves, and its end."""
    start_us = await site.border_us()
    await site.store_rows([row(1 + n, start_us + n, f"m{n}", correlation_id=str(n)) for n in range(ROWS)])
    end_us = start_us + CHUNK_US
    await site.close_to(end_us)
    leader = await site.leader()
    await leader.write_due(end_us)
    await leader.switch_due(end_us + 7 * DAY_US)
    (segment,) = await site.all_segments()
    return leader, segment, end_us


async def test_old_files_are_served_from_object_storage_and_leave_the_disk_ten_minutes_later(site: TierSite) -> None:
    leader, segment, end_us = await serving(site)
    assert await leader.move_due(end_us + 89 * DAY_US) == 0
    assert await leader.move_due(end_us + 90 * DAY_US) == 1
    assert await site.states() == {("serving", "cold"): 1}
    assert await leader.move_due(end_us + 90 * DAY_US) == 0
    assert await site.ids() == [*range(1, ROWS + 1)]
    moved_us = time.time_ns() // 1000
    await leader.collect(moved_us + 9 * MINUTE_US)
    assert segment.name in site.files()
    await leader.collect(moved_us + 11 * MINUTE_US)
    assert site.files() == [f"{segment.name}.correlations"]
    assert await site.ids() == [*range(1, ROWS + 1)]


async def test_a_cold_file_comes_back_and_stays_as_long_as_was_asked(site: TierSite) -> None:
    leader, segment, end_us = await serving(site)
    now_us = end_us + 90 * DAY_US
    await leader.move_due(now_us)
    await leader.collect(now_us)
    (cold,) = await site.all_segments()
    assert leader.cold is not None
    assert await leader.cold.thaw(cold, warm_until_us=now_us + 7 * DAY_US)
    assert segment.name in site.files()
    assert await site.states() == {("serving", "warm"): 1}
    assert await site.ids() == [*range(1, ROWS + 1)]
    assert await leader.move_due(now_us + 6 * DAY_US) == 0
    assert await leader.move_due(now_us + 7 * DAY_US) == 1
    assert await site.ids() == [*range(1, ROWS + 1)]


async def test_an_expired_cold_file_leaves_nothing_behind(site: TierSite, store: ObjectStore) -> None:
    leader, _, end_us = await serving(site)
    await leader.move_due(end_us + 90 * DAY_US)
    assert [found async for found in store.list("segments")] != []
    await leader.expire_due(end_us + 400 * DAY_US)
    await leader.collect(end_us + 400 * DAY_US)
    assert site.files() == []
    assert await site.all_segments() == []
    assert [found async for found in store.list("segments")] == []


async def test_a_file_that_is_damaged_is_not_moved(site: TierSite) -> None:
    leader, segment, end_us = await serving(site)
    path = site.directory / segment.name
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert await leader.move_due(end_us + 90 * DAY_US) == 0
    assert leader.failures == 1
    assert await site.states() == {("serving", "warm"): 1}


async def test_an_object_that_was_changed_is_named_and_never_taken_for_the_segment(
    site: TierSite, store: ObjectStore, tmp_path: Path
) -> None:
    leader, segment, end_us = await serving(site)
    content = (site.directory / segment.name).read_bytes()
    await leader.move_due(end_us + 90 * DAY_US)
    await leader.collect(end_us + 90 * DAY_US)
    (cold,) = await site.all_segments()
    changed = tmp_path / "changed"
    changed.write_bytes(content[:-9] + b"x" + content[-8:])
    await store.put(key_of(cold), changed)
    places = Places(site.directory)
    segments = await segments_to_verify(site.database)
    (verdict,) = [found async for found in verified(segments, places, leader.objects, leader.pace)]
    assert verdict.problem is not None
    assert key_of(cold) in verdict.problem
    assert leader.cold is not None
    with pytest.raises(Exception, match="sha256") as error:
        await leader.cold.thaw(cold, warm_until_us=0)
    assert not isinstance(error.value, SegmentDamaged)
    assert segment.name not in site.files()
    assert await site.states() == {("serving", "cold"): 1}


async def test_every_changed_byte_of_a_file_and_its_filter_is_named(site: TierSite) -> None:
    leader, segment, _ = await serving(site)
    places = Places(site.directory)
    (good,) = [found async for found in verified([segment], places, None, leader.pace)]
    assert (good.problem, good.filter_problem) == (None, None)
    for path in (places.file_of(segment.name), places.filter_of(segment.name)):
        content = bytearray(path.read_bytes())
        content[len(content) // 3] ^= 1
        path.write_bytes(content)
    (bad,) = [found async for found in verified([segment], places, None, leader.pace)]
    assert bad.problem is not None
    assert "sha256" in bad.problem
    assert bad.filter_problem is not None


async def test_objects_that_nobody_names_are_kept_for_days(site: TierSite, store: ObjectStore, tmp_path: Path) -> None:
    leader, _, end_us = await serving(site)
    await leader.move_due(end_us + 90 * DAY_US)
    stray = tmp_path / "stray"
    stray.write_bytes(b"x")
    key = "segments/class=default/day=2026-01-01/gone.parquet"
    await store.put(key, stray)
    await store.put("lake/other.parquet", stray)

    async def keys() -> set[str]:
        return {found.key async for found in store.list()}

    everything = await keys()
    assert len(everything) == 4
    await leader.collect(end_us)
    book = site.directory / "strays" / "objects.json"
    (first_us,) = json.loads(book.read_text()).values()
    for days, is_kept in ((13.9, True), (14.1, False)):
        book.write_text(json.dumps({key: first_us - int(days * DAY_US)}))
        await (await site.leader()).collect(end_us)  # another process: the time is not its own
        assert (await keys() == everything) is is_kept
    assert await keys() == everything - {key}
    assert json.loads(book.read_text()) == {}


async def test_files_that_were_brought_back_are_not_merged_and_stay(site: TierSite) -> None:
    site.tiers = TierSettings(merge_files_min=0)
    start_us = await site.border_us()
    start_us += -start_us % DAY_US
    await site.hot.upkeep.ensure_chunks(now_us=start_us + DAY_US)
    for number in range(4):
        moment = start_us + number * CHUNK_US
        await site.store_rows([row(1 + n + number * ROWS, moment + n) for n in range(ROWS)])
    now_us = start_us + 100 * DAY_US
    await site.close_to(start_us + DAY_US)
    leader = await site.leader()
    for step in (leader.write_due, leader.switch_due, leader.move_due):
        await step(now_us)
    assert await site.states() == {("serving", "cold"): 4}
    site.tiers = TierSettings()
    leader = await site.leader()
    assert leader.cold is not None
    for cold in await site.all_segments():
        await leader.cold.thaw(cold, warm_until_us=now_us + 7 * DAY_US)
    for step in (leader.merge_due, leader.move_due):
        await step(now_us + DAY_US)
    assert await site.states() == {("serving", "warm"): 4}


@pytest.mark.parametrize("store", ["directory"], indirect=True)
async def test_a_directory_of_objects_that_is_not_mounted_any_more_takes_nothing(
    site: TierSite, store: ObjectStore, tmp_path: Path
) -> None:
    leader, _, end_us = await serving(site)
    await leader.move_due(end_us + 90 * DAY_US)
    await site.hot.upkeep.ensure_chunks(now_us=end_us + CHUNK_US)
    await site.store_rows([row(1_000 + n, end_us + n) for n in range(ROWS)])
    await site.close_to(end_us + CHUNK_US)
    now_us = end_us + 100 * DAY_US
    for step in (leader.write_due, leader.switch_due):
        await step(now_us)
    (tmp_path / "objects").rename(tmp_path / "elsewhere")
    with pytest.raises(WrongPlace):
        await leader.move_due(now_us)
    assert await site.states() == {("serving", "cold"): 1, ("serving", "warm"): 1}


async def test_files_come_back_only_where_there_is_room(site: TierSite) -> None:
    """What leaves the disk, and what is read to be verified, needs room for a moment only and is not held up."""
    site.tiers = TierSettings(disk_free_bytes_min=0)
    leader, _, end_us = await serving(site)
    site.tiers = TierSettings(disk_free_bytes_min=1 << 60)
    leader = await site.leader()
    assert await leader.move_due(end_us + 90 * DAY_US) == 1
    (segment,) = await site.all_segments()
    verdicts = [found async for found in verified([segment], Places(site.directory), leader.objects, leader.pace)]
    assert [each.problem for each in verdicts] == [None]
    (site.directory / segment.name).unlink()
    assert leader.cold is not None
    with pytest.raises(DiskFull, match=r"stay free \(tiers\.disk_free_bytes_min\): make room"):
        await leader.cold.thaw(segment, warm_until_us=0)
    assert segment.name not in site.files()
    assert await site.states() == {("serving", "cold"): 1}


async def test_verifying_rests_as_moving_rows_does(site: TierSite) -> None:
    leader, segment, _ = await serving(site)
    places, stop = Places(site.directory), Stop()
    stop.set()
    resting = Pace(site.database, TOPIC, share=0.5, stop=stop)
    verdicts = verified([segment, segment], places, leader.objects, resting)
    assert (await anext(verdicts)).problem is None
    with pytest.raises(Interrupted):
        await anext(verdicts)


async def test_what_comes_late_by_months_goes_to_object_storage_as_one_file(site: TierSite) -> None:
    """It waits a week for more of its day, whose files are merged then, however few they are."""
    now_us = await site.border_us()
    old_us = now_us - now_us % DAY_US - 120 * DAY_US
    leader = await site.leader()
    for number in range(2):
        await site.store_rows([], [row(1 + 10 * number + n, old_us + 10 * number + n, "m") for n in range(10)])
        await site.database.execute("ANALYZE")
        await site.hot.upkeep.close_due(now_us=now_us + (number + 1) * 2 * DAY_US)
        await site.hot.upkeep.finish_closed()
        assert await leader.write_due(now_us) == 1
        assert await leader.switch_due(now_us) >= 1
        assert await leader.move_due(time.time_ns() // 1000) == 0
    assert await site.states() == {("serving", "warm"): 1, ("retired", "warm"): 2}
    assert await leader.move_due(time.time_ns() // 1000 + 8 * DAY_US) == 1
    assert await site.states() == {("serving", "cold"): 1, ("retired", "warm"): 2}
    assert await site.ids() == [*range(1, 21)]
    assert leader.failures == 0
