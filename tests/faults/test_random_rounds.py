"""Random rounds: real processes over real servers, hurt by a schedule drawn from a seed, and the oracle after each.

Ten rounds run in CI (`make test-slow`), twenty in `make test-long`, as many as `LOGFEED_FAULT_ROUNDS` says in `make faults`. A
round that fails prints its schedule and the command that plays it again.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from db.migrations import migrate
from infra.fleet import EMBEDDED, FULL, Fleet, Servers
from tests.faults.conftest import MakeFleet
from tests.faults.rounds.play import play
from tests.faults.rounds.schedule import EVENTS_MAX, EVENTS_MIN, Fault, draw
from tests.faults.rounds.site import RelayedKafka, opened_site

FIRST_SEED = int(os.environ.get("LOGFEED_FAULT_SEED", "1"))
ROUNDS = int(os.environ.get("LOGFEED_FAULT_ROUNDS", "20"))
SEEDS = {
    profile: [seed for seed in range(FIRST_SEED, FIRST_SEED + ROUNDS) if (EMBEDDED, FULL)[seed % 2] == profile]
    for profile in (EMBEDDED, FULL)
}
"""Every other round is of each profile."""
ROUNDS_OF_A_SITE = 25
"""After so many a new database and new processes begin, so that no round waits for what others left."""


@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_ten_rounds_lose_nothing_and_repeat_nothing(make_fleet: MakeFleet) -> None:
    fleet = await asyncio.to_thread(make_fleet, EMBEDDED)
    async with opened_site(fleet) as site:
        for seed in range(1, 11):
            await play(site, draw(seed, EMBEDDED))


@pytest.mark.long
@pytest.mark.timeout(ROUNDS * 240 + 120)
@pytest.mark.parametrize("profile", [profile for profile, seeds in SEEDS.items() if seeds])
async def test_random_rounds_lose_nothing_and_repeat_nothing(
    tmp_path: Path, kafka_bootstrap: str, timescale_server: str, profile: str
) -> None:
    """The shared servers skip, with the reason, where there can be none of their own."""
    mine = SEEDS[profile]
    while mine:
        these, mine = mine[:ROUNDS_OF_A_SITE], mine[ROUNDS_OF_A_SITE:]
        async with _own_fleet(profile, tmp_path / str(these[0])) as fleet, opened_site(fleet) as site:
            for seed in these:
                schedule = draw(seed, profile)
                began_s = time.monotonic()
                try:
                    outcome = await play(site, schedule)
                except BaseException as error:
                    print(fleet.failures())
                    again = f"make faults-rounds SEED={seed} ROUNDS=1"
                    raise AssertionError(f"{profile}, {schedule}\nplay it again: {again}") from error
                took_s = time.monotonic() - began_s
                print(f"{profile}, {schedule} -- {outcome.logs} found once, {outcome.retries} retries, {took_s:.1f} s")
            assert site.files() > 0, "no round has moved rows: tiers were not tried"


@asynccontextmanager
async def _own_fleet(profile: str, directory: Path) -> AsyncIterator[Fleet]:
    """On servers of its own, which end with it; clients of its broker are sent through a relay."""
    await asyncio.to_thread(directory.mkdir, mode=0o711)
    kafka = RelayedKafka(directory / "kafka") if profile == FULL else None
    servers = Servers(profile, directory, kafka=kafka)
    try:
        await asyncio.to_thread(servers.start)
        await migrate(servers.url, servers.layout)
        fleet = Fleet(profile, directory / "fleet", shared=servers, database_url=servers.url)
        try:
            yield fleet
        finally:
            await asyncio.to_thread(fleet.stop_everything)
    finally:
        await asyncio.to_thread(servers.stop)


@pytest.mark.parametrize("profile", [EMBEDDED, FULL])
def test_a_seed_is_one_schedule_and_seeds_draw_every_fault(profile: str) -> None:
    drawn = [draw(seed, profile) for seed in range(300)]
    assert drawn == [draw(seed, profile) for seed in range(300)]
    events = [event for schedule in drawn for event in schedule.events]
    assert {event.fault for event in events} == set(Fault)
    servers = {event.target for event in events if event.fault is Fault.KILL}
    assert {"database", "broker"} & servers == ({"database", "broker"} if profile == FULL else {"database"})
    assert all(EVENTS_MIN <= len(schedule.events) <= EVENTS_MAX for schedule in drawn)
