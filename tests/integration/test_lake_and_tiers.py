"""The lake follows rows through their tiers as they are really moved: after each move the table has what is in files."""

from __future__ import annotations

from pathlib import Path

import pytest

from db.migrations import Layout
from store.lake.locations import Locations
from store.lake.settings import LakeSettings
from store.objects.factory import make_object_store
from store.objects.settings import ObjectSettings
from store.settings import StoreSettings
from store.tiers.settings import TierSettings
from tests.lake_site import LakeSite
from tests.s3_server import S3Server
from tests.store_sites import row
from tests.tier_sites import CHUNK_US, DAY_US, tier_site


@pytest.mark.timeout(240)
async def test_table_has_each_row_once_whatever_tier_it_is_in(
    native_url: str, tmp_path: Path, s3_server: S3Server, aws_credentials: None
) -> None:
    objects = ObjectSettings(url=f"s3://{s3_server.make_bucket()}/p", endpoint=s3_server.endpoint, region="us-east-1")
    store = make_object_store(objects)
    directory = tmp_path / "segments"
    settings = StoreSettings(late_rows_max=20)
    tiers = TierSettings(merge_files_min=2)
    async with tier_site(native_url, Layout.NATIVE, directory, settings, store=store, tiers=tiers) as tiered:
        lake = LakeSite(tiered.database, directory, objects=objects)
        begin_us = await tiered.border_us()
        if begin_us // DAY_US != (begin_us + CHUNK_US) // DAY_US:
            begin_us += CHUNK_US  # files are merged by day: both chunks are of one
        for chunk in range(2):
            start_us = begin_us + chunk * CHUNK_US
            await tiered.store_rows([row(100 * chunk + n + 1, start_us + n) for n in range(50)])
            await tiered.close_to(start_us + CHUNK_US)
        end_us = begin_us + 2 * CHUNK_US
        await tiered.store_rows([], [row(1_000 + n, begin_us - (40 - n) * DAY_US) for n in range(30)])
        await tiered.database.execute("ANALYZE")
        await tiered.hot.upkeep.close_due(now_us=end_us + 2 * DAY_US)
        await tiered.hot.upkeep.finish_closed()
        rows = [*range(1, 51), *range(101, 151), *range(1_000, 1_030)]
        leader = await tiered.leader()

        def published() -> list[int]:
            return sorted(log.id for log in lake.logs())

        await lake.lake.publish()
        assert published() == []
        await leader.write_due(end_us)
        await lake.lake.publish()
        assert published() == rows, "written"
        now_us = end_us + 7 * DAY_US
        await leader.switch_due(now_us)
        assert (await lake.lake.publish()).added == 0, "serving: the same files"
        assert await leader.merge_due(now_us) >= 1
        merged = await lake.lake.publish()
        assert (merged.added >= 1, merged.removed >= 2) == (True, True)
        assert published() == rows, "merged"
        now_us = end_us + 91 * DAY_US
        assert await leader.move_due(now_us) >= 1
        await lake.lake.publish()
        assert published() == rows, "cold"
        assert {url.partition(":")[0] for url in lake.planned()} == {"s3"}
        await leader.collect(now_us + DAY_US)
        assert published() == rows, "the local files are gone"
        await leader.expire_due(end_us + 401 * DAY_US)
        await lake.lake.publish()
        assert published() == [], "expired"
        assert leader.failures == 0
    await store.close()


async def test_directory_that_would_need_escapes_is_refused() -> None:
    from schemas.errors import ConfigurationError

    with pytest.raises(ConfigurationError, match=r"lake\.segments|lake\.warehouse"):
        Locations.of(LakeSettings(), ObjectSettings(), Path("/data/my segments"))
    named = LakeSettings(segments="file:///mnt/segments", warehouse="s3://bucket/lake")
    assert Locations.of(named, ObjectSettings(), Path("/data/my segments")).warm == "file:///mnt/segments"
