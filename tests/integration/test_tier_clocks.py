"""Clocks that disagree: nothing goes for good by the word of one of them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from db.migrations import Layout
from runtime.clock import ManualClock, SystemClock
from runtime.stopping import Stop
from runtime.telemetry import REGISTRY
from store.tiers.role import TierRole
from store.tiers.settings import TierSettings
from store.tiers.timing import FINAL, ClocksDisagree, do_all, now_for
from tests.store_sites import now_us
from tests.tier_sites import DAY_US, TierSite, tier_site

YEARS_US = 4_000 * DAY_US


def refused() -> dict[str, float]:
    """Step -> failures so far."""
    return {
        step: REGISTRY.get_sample_value("logfeed_tier_failures_total", {"step": step}) or 0.0 for step in sorted(FINAL)
    }


@pytest.fixture
async def site(native_url: str, tmp_path: Path) -> AsyncIterator[TierSite]:
    async with tier_site(native_url, Layout.NATIVE, tmp_path / "segments", tiers=TierSettings(hot_days=0)) as made:
        yield made


async def test_the_earlier_clock_counts(site: TierSite) -> None:
    behind, ahead = ManualClock(now_us() - 60_000_000), ManualClock(now_us() + 60_000_000)
    assert await now_for("expire", site.database, behind) == behind.wall_us
    assert await now_for("expire", site.database, ahead) < ahead.wall_us


@pytest.mark.parametrize("apart_us", [-YEARS_US, YEARS_US])
async def test_what_cannot_be_taken_back_is_refused_while_clocks_disagree(site: TierSite, apart_us: int) -> None:
    """The same whichever of both has stepped: only the distance is known."""
    clock = ManualClock(now_us() + apart_us)
    for step in sorted(FINAL):
        with pytest.raises(ClocksDisagree, match="s from the database's"):
            await now_for(step, site.database, clock)
    assert await now_for("write", site.database, clock) <= now_us()
    leader = await site.leader()
    done, refused = await do_all(leader.steps, site.database, clock)
    assert refused == len(FINAL)
    assert FINAL.isdisjoint(done)
    assert (await do_all(leader.steps, site.database, SystemClock()))[1] == 0


async def test_the_role_refuses_too_and_counts_it(site: TierSite) -> None:
    stop, clock = Stop(), ManualClock(now_us() + YEARS_US)
    leader = await site.leader()
    lease = leader.catalogue.lease
    role = asyncio.create_task(TierRole(site.database, lease, leader, round_s=0.1, clock=clock, stop=stop).run())

    before = refused()
    deadline_s = time.monotonic() + 30
    while min(refused()[step] - before[step] for step in FINAL) < 1:
        assert time.monotonic() < deadline_s
        await asyncio.sleep(0.02)
    stop.set()
    await role
