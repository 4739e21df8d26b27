"""kill -9 at every step of tiering: whatever was half done, each row is there once, in a table or in a file (FAULTS 15)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from db.migrations import Layout
from infra.fleet import REPOSITORY
from store.objects.factory import make_object_store
from store.objects.settings import ObjectSettings
from tests.faults.tier_process import CLASSES, DONE
from tests.store_sites import row
from tests.tier_sites import CHUNK_US, DAY_US, retention, tier_site

ROWS = 40


@pytest.mark.timeout(600)
@pytest.mark.parametrize("stride", [1, 3])
async def test_each_row_is_there_once_wherever_tiering_is_killed(native_url: str, tmp_path: Path, stride: int) -> None:
    """stride 1: killed at the first point of the first round, the second of the second … so that all points of what is left are
    met; 3: further in each round."""
    objects = f"file://{tmp_path}/objects"
    store = make_object_store(ObjectSettings(url=objects))
    async with tier_site(
        native_url, Layout.NATIVE, tmp_path / "segments", store=store, policy=retention(*CLASSES)
    ) as site:
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
            ended = run(native_url, site.directory, objects, day_us + 100 * DAY_US, killed * stride)
            assert await site.ids() == every, f"after {killed} kills"
            if ended.returncode == 0:
                assert ended.stdout.strip() == DONE
                break
            assert ended.returncode == -9, ended.stderr
        assert killed > 5
        assert await site.states() == {("serving", "cold"): 2}
    await store.close()


def run(url: str, directory: Path, objects: str, now_us: int, last: int) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.faults.tier_process", url, str(directory), objects, str(now_us), str(last)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=120,
    )
