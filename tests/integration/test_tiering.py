"""Rows move from tables to files and on to object storage: each is there once at every moment, and until its time is up."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from db.migrations import Layout
from runtime.telemetry import REGISTRY
from schemas.errors import Overloaded
from store.port import EncodedRow
from store.segments.settings import SegmentSettings
from store.segments.writing import WrittenSegment
from store.settings import StoreSettings
from store.tiers import merging, writing
from store.tiers.catalogue import StaleEpoch
from store.tiers.installation import WrongPlace
from store.tiers.pace import Pace
from store.tiers.settings import TierSettings
from tests.s3_server import s3_store
from tests.store_sites import row
from tests.tier_sites import CHUNK_US, DAY_US, TierSite, retention, tier_site

MINUTE_US = 60_000_000
SMALL = SegmentSettings(rows_max=1_000, row_group_rows=1_024)


@pytest.fixture(params=[Layout.NATIVE.value, pytest.param(Layout.TIMESCALE.value, marks=pytest.mark.timescale)])
def place(request: pytest.FixtureRequest) -> tuple[str, Layout]:
    """URL and layout of a fresh database."""
    return request.getfixturevalue(f"{request.param}_url"), Layout(request.param)


@pytest.fixture
async def site(place: tuple[str, Layout], tmp_path: Path) -> AsyncIterator[TierSite]:
    async with tier_site(*place, tmp_path / "segments", StoreSettings(late_rows_max=20)) as made:
        yield made


@pytest.fixture
async def native(native_url: str, tmp_path: Path) -> AsyncIterator[TierSite]:
    async with tier_site(native_url, Layout.NATIVE, tmp_path / "segments", StoreSettings(late_rows_max=20)) as made:
        yield made


def spread(start_us: int, count: int, *, first: int = 1, within_us: int = CHUNK_US, **fields: Any) -> list[EncodedRow]:
    """So many rows evenly over the time. Any: fields of a line."""
    return [row(first + n, start_us + n * within_us // count, f"m{n}", **fields) for n in range(count)]


async def filled(site: TierSite, rows: int = 100, **fields: Any) -> int:
    """One finished chunk of so many rows; returns its end. Any: fields of a line."""
    start_us = await site.border_us()
    await site.store_rows(spread(start_us, rows, **fields))
    await site.close_to(start_us + CHUNK_US)
    return start_us + CHUNK_US


async def test_rows_of_a_finished_table_are_written_then_served_by_files_then_dropped(site: TierSite) -> None:
    end_us = await filled(site)
    leader = await site.leader()
    assert await leader.write_due(end_us) == 1
    assert await site.states() == {("written", "warm"): 1}
    assert await leader.write_due(end_us) == 0
    assert await leader.switch_due(end_us + 7 * DAY_US - 1) == 0
    assert await site.ids() == [*range(1, 101)]
    assert await leader.switch_due(end_us + 7 * DAY_US) == 1
    assert await site.states() == {("serving", "warm"): 1}
    assert await site.ids() == [*range(1, 101)]
    tables = await site.database.fetch_all("SELECT table_name FROM expired_tables")
    assert len(tables) == 1
    await site.hot.upkeep.drop_expired(now_us=end_us + 8 * DAY_US, retention_us=400 * DAY_US)
    assert await site.database.fetch_all("SELECT to_regclass(%s)", tables[0]) == [(None,)]
    assert await site.ids() == [*range(1, 101)]
    assert leader.failures == 0


async def test_each_class_has_files_of_its_own_and_expires_by_itself(site: TierSite) -> None:
    site.policy = retention(
        {"name": "debug", "days": 3, "max_level": "debug"}, {"name": "audit", "days": 900, "services": ("audit*",)}
    )
    start_us = await site.border_us()
    await site.store_rows(
        [
            *spread(start_us, 10, level=5),
            *spread(start_us, 10, first=101, level=9),
            *spread(start_us, 10, first=201, service_name="audit/log"),
        ]
    )
    end_us = start_us + CHUNK_US
    await site.close_to(end_us)
    leader = await site.leader()
    await leader.write_due(end_us)
    assert {(each.retention_class, each.info.rows) for each in await site.all_segments()} == {
        ("debug", 10),
        ("default", 10),
        ("audit", 10),
    }
    assert await leader.expire_due(end_us + 3 * DAY_US) == 0  # their table has the rows of all classes
    await leader.switch_due(end_us + 7 * DAY_US)
    assert await leader.expire_due(end_us + 7 * DAY_US) == 1
    assert await site.ids() == [*range(101, 111), *range(201, 211)]
    assert await leader.expire_due(end_us + 400 * DAY_US) == 1
    assert await site.ids() == [*range(201, 211)]
    assert await leader.collect(end_us + 400 * DAY_US) == 4
    assert [each.retention_class for each in await site.all_segments()] == ["audit"]
    assert len(site.files()) == 2


async def test_a_class_that_is_made_longer_before_the_switch_loses_nothing(native: TierSite) -> None:
    native.policy = retention({"name": "debug", "days": 3, "max_level": "debug"})
    start_us = await native.border_us()
    await native.store_rows([*spread(start_us, 10, level=5), *spread(start_us, 10, first=101, level=9)])
    end_us = start_us + CHUNK_US
    await native.close_to(end_us)
    leader = await native.leader()
    await leader.write_due(end_us)
    await leader.expire_due(end_us + 3 * DAY_US)
    native.policy = retention({"name": "debug", "days": 30, "max_level": "debug"})
    leader = await native.leader()
    now_us = end_us + 7 * DAY_US
    for step in (leader.write_due, leader.switch_due, leader.expire_due):
        await step(now_us)
    assert await native.states() == {("serving", "warm"): 2}
    assert await native.ids() == [*range(1, 11), *range(101, 111)]


async def test_a_table_whose_files_lack_rows_is_written_anew(native: TierSite) -> None:
    native.policy = retention({"name": "debug", "days": 3, "max_level": "debug"})
    start_us = await native.border_us()
    await native.store_rows([*spread(start_us, 10, level=5), *spread(start_us, 10, first=101, level=9)])
    end_us = start_us + CHUNK_US
    await native.close_to(end_us)
    leader = await native.leader()
    await leader.write_due(end_us)
    await native.database.execute("UPDATE segments SET state = 'retired' WHERE retention_class = 'debug'")
    now_us = end_us + 7 * DAY_US
    assert await leader.switch_due(now_us) == 0
    assert await native.ids() == [*range(1, 11), *range(101, 111)]
    assert await leader.write_due(now_us) == 1
    assert await leader.switch_due(now_us) == 1
    assert await native.ids() == [*range(1, 11), *range(101, 111)]


async def test_a_table_without_files_stays_hot_as_long_as_others(native: TierSite) -> None:
    end_us = await filled(native)
    leader = await native.leader()
    await leader.write_due(end_us)
    await native.database.execute("UPDATE segments SET state = 'retired', retired_at = now()")
    assert await leader.switch_due(end_us + 7 * DAY_US - 1) == 0
    assert await native.database.fetch_one("SELECT count(*) FROM catalogue WHERE segmented_at IS NOT NULL") == (1,)
    assert await leader.switch_due(end_us + 7 * DAY_US) == 0
    assert await leader.write_due(end_us + 7 * DAY_US) == 1
    assert await native.ids() == [*range(1, 101)]


async def test_files_of_a_table_that_the_sealer_dropped_expire(native: TierSite) -> None:
    end_us = await filled(native)
    leader = await native.leader()
    await leader.write_due(end_us)
    now_us = end_us + 400 * DAY_US
    assert await leader.expire_due(now_us) == 0
    await native.hot.upkeep.drop_expired(now_us=now_us, retention_us=400 * DAY_US)
    assert await leader.expire_due(now_us) == 1


async def test_files_of_retired_segments_stay_ten_minutes(native: TierSite) -> None:
    end_us = await filled(native)
    leader = await native.leader()
    await leader.write_due(end_us)
    await leader.switch_due(end_us + 7 * DAY_US)
    await leader.expire_due(end_us + 400 * DAY_US)
    retired_us = time.time_ns() // 1000
    assert await leader.collect(retired_us + 9 * MINUTE_US) == 0
    assert len(native.files()) == 2
    assert await leader.collect(retired_us + 11 * MINUTE_US) == 2
    assert native.files() == []
    assert await native.all_segments() == []


async def test_files_on_the_disk_do_not_wait_for_object_storage(site: TierSite, aws_credentials: None) -> None:
    end_us = await filled(site)
    site.store = s3_store("nobody", "http://127.0.0.1:1", call_deadline_s=1.0, retries_max=0)
    leader = await site.leader()
    await leader.write_due(end_us)
    await leader.switch_due(end_us + 7 * DAY_US)
    assert await leader.move_due(end_us + 90 * DAY_US) == 0
    assert leader.failures == 1
    assert await site.ids() == [*range(1, 101)]
    await leader.expire_due(end_us + 400 * DAY_US)
    with pytest.raises(Overloaded):
        await leader.collect(end_us + 400 * DAY_US)
    assert site.files() == []
    await site.store.close()


async def test_late_tables_are_drained_into_files_that_overlap_others(site: TierSite) -> None:
    end_us = await filled(site)
    start_us = end_us - CHUNK_US
    await site.store_rows([], spread(start_us - 40 * DAY_US, 30, first=1_001, within_us=41 * DAY_US))
    await site.database.execute("ANALYZE")
    await site.hot.upkeep.close_due(now_us=end_us + 2 * DAY_US)
    await site.hot.upkeep.finish_closed()
    assert len(await site.database.fetch_all("SELECT FROM catalogue WHERE kind = 'late' AND state = 'finished'")) == 1
    leader = await site.leader()
    assert await leader.write_due(end_us) == 2
    await leader.switch_due(end_us + 7 * DAY_US)
    assert (await site.states()).keys() == {("serving", "warm")}
    assert await site.ids() == [*range(1, 101), *range(1_001, 1_031)]
    await site.hot.upkeep.drop_expired(now_us=end_us + 8 * DAY_US, retention_us=400 * DAY_US)
    assert await site.ids() == [*range(1, 101), *range(1_001, 1_031)]


async def test_late_rows_lie_in_files_of_their_days_and_merge_with_those(native: TierSite) -> None:
    native.tiers = TierSettings(merge_files_min=2)
    now_us = await native.border_us()
    first_us = now_us - now_us % DAY_US - 40 * DAY_US
    leader = await native.leader()
    for number in range(2):
        late = spread(first_us + number, 80, first=1 + 80 * number, within_us=40 * DAY_US)
        await native.store_rows([], late)
        await native.database.execute("ANALYZE")
        await native.hot.upkeep.close_due(now_us=now_us + (number + 1) * 2 * DAY_US)
        await native.hot.upkeep.finish_closed()
        assert await leader.write_due(now_us) == 1
    written = await native.all_segments()
    assert len(written) == 80
    assert all(each.start_us // DAY_US == (each.end_us - 1) // DAY_US for each in written)
    assert await leader.switch_due(now_us + 9 * DAY_US) >= 2
    assert await leader.merge_due(now_us + 9 * DAY_US) == 40
    assert await native.states() == {("serving", "warm"): 40, ("retired", "warm"): 80}
    assert await native.ids() == [*range(1, 161)]
    assert leader.failures == 0


async def test_a_table_stays_hot_as_long_as_the_longest_window_of_its_services(native: TierSite) -> None:
    native.tiers = TierSettings(hot_days=1, hot_days_by_service={"pay*": 30, "debug": 0})
    end_us = await filled(native, service_name="payments")
    leader = await native.leader()
    await leader.write_due(end_us)
    assert await leader.switch_due(end_us + 29 * DAY_US) == 0
    assert await leader.switch_due(end_us + 30 * DAY_US) == 1


async def test_an_empty_table_just_goes(site: TierSite) -> None:
    start_us = await site.border_us()
    await site.close_to(start_us + CHUNK_US)
    leader = await site.leader()
    assert await leader.write_due(start_us + CHUNK_US) == 0
    assert await leader.switch_due(start_us + CHUNK_US) == 1
    assert await site.database.fetch_all("SELECT FROM catalogue WHERE state = 'finished'") == []
    assert await site.ids() == []


async def test_small_files_of_a_day_become_one(native: TierSite) -> None:
    native.tiers = TierSettings(merge_files_min=2)
    first_us = await native.border_us()
    first_us += -first_us % DAY_US
    await native.hot.upkeep.ensure_chunks(now_us=first_us + DAY_US)
    for number in range(4):
        await native.store_rows(spread(first_us + number * CHUNK_US, 50, first=1 + 50 * number))
    await native.close_to(first_us + DAY_US)
    leader = await native.leader()
    now_us = first_us + 9 * DAY_US
    assert await leader.write_due(now_us) == 4
    assert await leader.merge_due(now_us) == 0
    await leader.switch_due(now_us)
    assert await leader.merge_due(now_us) == 1
    assert await native.states() == {("serving", "warm"): 1, ("retired", "warm"): 4}
    assert await native.ids() == [*range(1, 201)]
    assert await leader.merge_due(now_us) == 0
    (merged,) = [each for each in await native.all_segments() if each.state == "serving"]
    assert len(merged.sources) == 4
    await leader.collect(now_us)
    assert len(native.files()) == 2
    assert await native.ids() == [*range(1, 201)]


@pytest.mark.parametrize("step", ["write", "merge"])
async def test_what_was_begun_before_another_led_is_not_recorded(
    native: TierSite, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """A process that was stopped for hours between its files and their record, and leads again by then."""
    native.tiers = TierSettings(merge_files_min=2)
    first_us = await native.border_us()
    first_us += -first_us % DAY_US
    await native.hot.upkeep.ensure_chunks(now_us=first_us + DAY_US)
    for number in range(4):
        await native.store_rows(spread(first_us + number * CHUNK_US, 50, first=1 + 50 * number))
    await native.close_to(first_us + DAY_US)
    leader = await native.leader("a")
    now_us = first_us + 9 * DAY_US
    if step == "merge":
        await leader.write_due(now_us)
        await leader.switch_due(now_us)
    named = {*native.files()}
    module = {"write": writing, "merge": merging}[step]
    read_back = module.read_back

    async def stopped(written: Sequence[WrittenSegment], pace: Pace) -> None:
        await read_back(written, pace)
        for path in native.directory.rglob("*"):
            if path.is_file():
                os.utime(path, (time.time() - 7_200, time.time() - 7_200))
        other = await native.leader("b")
        await other.collect(now_us)
        await other.catalogue.lease.release()
        assert await leader.catalogue.lease.acquire()
        assert {*native.files()} - {path.name for path in (native.directory / "strays").iterdir()} == named

    monkeypatch.setattr(module, "read_back", stopped)
    with pytest.raises(StaleEpoch):
        await {"write": leader.write_due, "merge": leader.merge_due}[step](now_us)
    assert await native.ids() == [*range(1, 201)]


async def test_one_whose_lease_went_to_another_changes_nothing(site: TierSite) -> None:
    end_us = await filled(site)
    first = await site.leader("a")
    second = await site.leader("b")
    with pytest.raises(StaleEpoch):
        await first.write_due(end_us)
    assert site.files() == []
    assert await second.write_due(end_us) == 1
    now_us = end_us + 401 * DAY_US
    for step in (first.expire_due, first.collect):
        with pytest.raises(StaleEpoch):
            await step(now_us)
    with pytest.raises(StaleEpoch):
        await first.switch_due(now_us)
    assert await site.states() == {("written", "warm"): 1}
    assert issubclass(StaleEpoch, Overloaded)


async def test_two_that_write_the_same_table_leave_one_set_of_files(native: TierSite) -> None:
    end_us = await filled(native)
    leader = await native.leader()
    (table,) = [each for each in await leader.catalogue.tables() if each.rows]
    assert await leader._writer.write(table)
    assert not await leader._writer.write(table)
    assert len(native.files()) == 2
    assert await native.states() == {("written", "warm"): 1}
    assert await leader.write_due(end_us) == 0


async def test_a_file_that_was_damaged_before_the_switch_is_written_anew(native: TierSite) -> None:
    end_us = await filled(native)
    leader = await native.leader()
    await leader.write_due(end_us)
    (segment,) = await native.all_segments()
    path = native.directory / segment.name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    now_us = end_us + 7 * DAY_US
    assert await leader.switch_due(now_us) == 0
    assert await native.ids() == [*range(1, 101)]
    assert await leader.write_due(now_us) == 1
    assert await leader.switch_due(now_us) == 1
    assert await native.states() == {("serving", "warm"): 1, ("retired", "warm"): 1}
    assert await native.ids() == [*range(1, 101)]


async def test_what_nobody_names_is_put_aside_after_an_hour(native: TierSite) -> None:
    end_us = await filled(native)
    leader = await native.leader()
    await leader.write_due(end_us)
    kept = native.files()
    old = [
        native.directory / "x-default-0.parquet",
        native.directory / "y.parquet.tmp",
        native.directory / "filters" / "x.correlations",
    ]
    young = native.directory / "z-default-0.parquet"
    foreign = native.directory / "notes.txt"
    for path in (*old, young, foreign):
        path.write_bytes(b"x")
    for path in (*old, foreign, *(native.directory / name for name in kept if name.endswith(".parquet"))):
        os.utime(path, (time.time() - 3_700,) * 2)
    assert await leader.collect(end_us) == 3
    strays = native.directory / "strays"
    assert {path.name for path in strays.iterdir()} == {old[0].name, old[2].name}
    assert native.files() == sorted([*kept, young.name, foreign.name, old[0].name, old[2].name])
    assert old[0].name not in {path.name for path in native.directory.iterdir()}
    os.utime(strays / old[0].name, (time.time() - 14 * 86_400 + 60,) * 2)
    os.utime(strays / old[2].name, (time.time() - 14 * 86_400 - 60,) * 2)
    assert await leader.collect(end_us) == 1
    assert [path.name for path in strays.iterdir()] == [old[0].name]
    assert REGISTRY.get_sample_value("logfeed_tier_strays", {"kind": "file"}) == 1


async def test_a_database_restored_to_before_a_merge_loses_no_file(native: TierSite) -> None:
    native.tiers = TierSettings(hot_days=0, merge_files_min=2)
    leader = await native.leader()
    start_us = await native.border_us()
    start_us += -start_us % DAY_US  # files of two days do not merge
    await native.hot.upkeep.ensure_chunks(now_us=start_us + DAY_US)
    for number in range(4):
        await native.store_rows(spread(start_us + number * CHUNK_US, 10, first=1 + 100 * number))
    end_us = start_us + 4 * CHUNK_US
    await native.close_to(end_us)
    await leader.write_due(end_us)
    await leader.switch_due(end_us)
    await native.database.execute("CREATE TABLE dump AS SELECT * FROM segments")
    kept = {path.name: path.read_bytes() for path in native.directory.glob("*.parquet")}
    assert await leader.merge_due(end_us) >= 1
    await leader.collect(end_us + DAY_US)
    merged = {path.name for path in native.directory.glob("*.parquet")} - set(kept)
    assert merged
    await native.database.execute("DELETE FROM segments")
    await native.database.execute("INSERT INTO segments SELECT * FROM dump")
    for path in native.directory.rglob("*.parquet*"):
        os.utime(path, (time.time() - 7_200,) * 2)
    with pytest.raises(WrongPlace, match="none of the 4 files"):
        await native.leader()
    for name, content in [*kept.items()][1:]:
        (native.directory / name).write_bytes(content)
    leader = await native.leader()
    await leader.collect(end_us + DAY_US)  # one that it names is missing: those it does not name stay where they are
    assert merged <= {path.name for path in native.directory.glob("*.parquet")}
    for name, content in kept.items():
        (native.directory / name).write_bytes(content)
    await leader.collect(end_us + DAY_US)
    assert merged <= {path.name for path in (native.directory / "strays").iterdir()}
    assert await native.ids() == sorted(1 + 100 * number + n for number in range(4) for n in range(10))


async def test_files_that_were_merged_stay_while_what_was_made_of_them_is_missing(native: TierSite) -> None:
    native.tiers = TierSettings(hot_days=0, merge_files_min=2)
    leader = await native.leader()
    start_us = await native.border_us()
    start_us += -start_us % DAY_US
    await native.hot.upkeep.ensure_chunks(now_us=start_us + 2 * DAY_US)
    for number in range(5):
        await native.store_rows(spread(start_us + number * CHUNK_US, 10, first=1 + 100 * number))
    end_us = start_us + 5 * CHUNK_US
    await native.close_to(end_us)
    await leader.write_due(end_us)
    await leader.switch_due(end_us)
    before = {path.name for path in native.directory.glob("*.parquet")}
    await leader.merge_due(end_us)
    (merged,) = [path for path in native.directory.glob("*.parquet") if path.name not in before]
    content = merged.read_bytes()
    merged.unlink()  # the disk is that of before the merge
    leader = await native.leader()
    await leader.collect(end_us + DAY_US)
    assert before == {path.name for path in native.directory.glob("*.parquet")}
    merged.write_bytes(content)
    await leader.collect(end_us + DAY_US)
    assert len([*native.directory.glob("*.parquet")]) == 2
    assert len(await native.ids()) == 50


async def test_a_directory_of_another_database_is_left_alone(native: TierSite) -> None:
    leader = await native.leader()
    for number in range(200):
        path = native.directory / f"x-{number}.parquet"
        path.write_bytes(b"x")
        os.utime(path, (time.time() - 3_700,) * 2)
    assert await leader.collect(0) == 0
    assert len(native.files()) == 200


async def test_the_sealer_leaves_tables_that_a_longer_class_keeps(native: TierSite) -> None:
    native.policy = retention({"name": "audit", "days": 900, "services": ("audit",)}, default_days=30)
    end_us = await filled(native, service_name="audit")
    await native.hot.upkeep.drop_expired(now_us=end_us + 100 * DAY_US, retention_us=native.policy.longest_us)
    assert await native.ids() == [*range(1, 101)]
    await native.hot.upkeep.drop_expired(now_us=end_us + 900 * DAY_US, retention_us=native.policy.longest_us)
    assert await native.ids() == []


async def test_a_disk_without_room_puts_off_writing_and_merging(native: TierSite) -> None:
    """Nothing half is left, it is told, and the next round goes on where there is room again."""
    native.tiers = full = TierSettings(hot_days=0, merge_files_min=2, disk_free_bytes_min=1 << 60)
    roomy = full.model_copy(update={"disk_free_bytes_min": 0})
    start_us = await native.border_us()
    start_us += -start_us % DAY_US
    await native.hot.upkeep.ensure_chunks(now_us=start_us + DAY_US)
    for number in range(2):
        await native.store_rows(spread(start_us + number * CHUNK_US, 10, first=1 + 10 * number))
    end_us = start_us + 2 * CHUNK_US
    await native.close_to(end_us)

    def put_off(step: str) -> float:
        return REGISTRY.get_sample_value("logfeed_tier_disk_full_total", {"step": step}) or 0.0

    before = {step: put_off(step) for step in (writing.STEP, merging.STEP)}
    leader = await native.leader()
    assert await leader.write_due(end_us) == 0
    assert put_off(writing.STEP) == before[writing.STEP] + 2
    assert native.files() == []
    native.tiers = roomy
    leader = await native.leader()
    assert await leader.write_due(end_us) == 2
    await leader.switch_due(end_us)
    files = native.files()
    native.tiers = full
    leader = await native.leader()
    assert await leader.merge_due(end_us) == 0
    assert put_off(merging.STEP) == before[merging.STEP] + 1
    assert native.files() == files
    native.tiers = roomy
    leader = await native.leader()
    assert await leader.merge_due(end_us) == 1
    assert await native.ids() == [*range(1, 21)]
