"""kill -9 at every step of tiering: whatever was half done, each row is there once, in a table or in a file (FAULTS 15)."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from db.migrations import Layout
from infra import warm
from store.objects.factory import make_object_store
from store.objects.settings import ObjectSettings
from tests.faults import tier_process
from tests.faults.tier_process import CLASSES, DONE
from tests.store_sites import row
from tests.tier_sites import CHUNK_US, DAY_US, retention, tier_site

ROWS = 40


@pytest.fixture
def place(request: pytest.FixtureRequest, profile: str) -> tuple[str, Layout]:
    """URL and layout of a fresh database of this profile."""
    return request.getfixturevalue(f"{profile}_url"), Layout(profile)


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "profile, stride",
    [
        (Layout.NATIVE.value, 1),
        pytest.param(Layout.NATIVE.value, 3, marks=pytest.mark.long),
        pytest.param(Layout.TIMESCALE.value, 3, marks=pytest.mark.timescale),
    ],
)
async def test_each_row_is_there_once_wherever_tiering_is_killed(
    place: tuple[str, Layout], tmp_path: Path, stride: int
) -> None:
    """stride 1: killed at the first point of the first round, the second of the second … so that all points of what is left are
    met; 3: further in each round."""
    url, layout = place
    objects = f"file://{tmp_path}/objects"
    store = make_object_store(ObjectSettings(url=objects))
    async with tier_site(url, layout, tmp_path / "segments", store=store, policy=retention(*CLASSES)) as site:
        day_us = await site.border_us()
        day_us += -day_us % DAY_US
        await site.hot.upkeep.ensure_chunks(now_us=day_us + DAY_US)
        for number in range(2):
            start_us = day_us + number * CHUNK_US
            await site.store_rows(
                [row(1 + n + number * ROWS, start_us + n, f"m{n}", level=5 if n % 2 else 9) for n in range(ROWS)]
            )
        await site.close_to(day_us + 2 * CHUNK_US)
        every = [*range(1, 2 * ROWS + 1)]
        assert await site.ids() == every
        for killed in range(1, 200):
            ended = run(url, site.directory, objects, day_us + 100 * DAY_US, killed * stride)
            assert await site.ids() == every, f"after {killed} kills"
            if ended.returncode == 0:
                assert ended.stdout.strip() == DONE
                break
            assert ended.returncode == -9, ended.stderr
        assert killed > 5
        assert await site.states() == {("serving", "cold"): 2}
    await store.close()


@pytest.mark.timeout(600)
async def test_an_erasure_that_is_killed_and_begun_again_erases_all_and_nothing_else(
    native_url: str, tmp_path: Path
) -> None:
    objects = f"file://{tmp_path}/objects"
    store = make_object_store(ObjectSettings(url=objects))
    async with tier_site(native_url, Layout.NATIVE, tmp_path / "segments", store=store) as site:
        start_us = await site.border_us()
        for number in range(3):
            await site.store_rows(
                [
                    row(1 + n + number * ROWS, start_us + number * CHUNK_US + n, "secret" if n % 2 else "plain")
                    for n in range(ROWS)
                ]
            )
        leader = await site.leader()
        for number, now_us in enumerate((start_us + 100 * DAY_US, start_us + 2 * CHUNK_US), 1):
            await site.close_to(start_us + number * CHUNK_US)
            await leader.write_due(now_us)
            await leader.switch_due(now_us)
            await leader.move_due(now_us)
        await site.hot.see(start_us + 1_000 * DAY_US)
        assert await site.states() == {("serving", "cold"): 1, ("written", "warm"): 1}
        every, plain = {*range(1, 3 * ROWS + 1)}, {*range(1, 3 * ROWS + 1, 2)}
        for last in range(1, 200, 2):
            ended = run(native_url, site.directory, objects, start_us, last, query="secret")
            left = await site.ids()
            assert len(left) == len({*left})
            assert plain <= {*left} <= every
            if ended.returncode == 0:
                break
            assert ended.returncode == -9, ended.stderr
        assert last > 5
        assert {*left} == plain
    await store.close()


def run(
    url: str, directory: Path, objects: str, now_us: int, last: int, *, query: str = ""
) -> subprocess.CompletedProcess[str]:
    arguments = (url, str(directory), objects, str(now_us), str(last), query)
    return warm.run(*arguments, environment={**os.environ}, program=tier_process.__name__)
