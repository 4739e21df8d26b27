"""A hundred days of logs, lived day after day: INV-6 over all tiers while logs come and days go on between pages."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from db.migrations import Layout
from store.port import Position
from tests.store_sites import HOUR_US
from tests.tier_life import Ages, Life, World, lived
from tests.tier_sites import DAY_US

AGES = Ages(lived=100, hot=7, cold=90, debug=40, kept=400)
STORY = "c0"
COMING = ("new", "cold", "warm", "hot")


# The layouts differ in how tables are made and dropped under readers, which test_tier_readers.py shows for both.
@pytest.fixture(
    params=[
        Layout.NATIVE.value,
        pytest.param(Layout.TIMESCALE.value, marks=[pytest.mark.timescale, pytest.mark.long]),
    ]
)
def place(request: pytest.FixtureRequest) -> tuple[str, Layout]:
    """URL and layout of a fresh database."""
    return request.getfixturevalue(f"{request.param}_url"), Layout(request.param)


@pytest.fixture
async def world(place: tuple[str, Layout], tmp_path: Path) -> AsyncIterator[World]:
    async with lived(*place, tmp_path, AGES) as made:
        yield made


@pytest.mark.slow
async def test_a_hundred_days_are_walked_while_days_go_on(world: World) -> None:
    """Page by page, newest first, then a story, oldest first, and by id: each log that was visible at the first page and has
    not expired comes once and in order; what came during the walk at most once, nothing newer than the first page."""
    life = world.life
    homes = await life.homes()
    assert all(len(ids) >= 20 for ids in homes.values()), {home: len(ids) for home, ids in homes.items()}
    before = life.done.copy()

    shown = await judged_walk(world, homes, "logs", limit=8, newest_first=True)
    assert all(ids & {log_id for _, log_id in shown} for ids in homes.values())
    shown = await judged_walk(world, homes, f"correlations/{STORY}/logs", limit=2, newest_first=False, story=STORY)
    assert len({timestamp_us // DAY_US for timestamp_us, _ in shown}) > AGES.lived // 2, "it crosses days"

    now = await life.homes()
    moved = {(old, new) for old, ids in homes.items() for new, others in now.items() if ids & others}
    assert {("hot", "warm"), ("warm", "cold")} <= moved, "rows changed their home under the walks"
    idle = {*life.steps} - {*(life.done - before)} - {"measure"}
    assert idle == set(), "every step had something to do under the walks"


async def judged_walk(
    world: World, homes: dict[str, set[int]], path: str, *, limit: int, newest_first: bool, story: str | None = None
) -> list[Position]:
    """A walk that keeps the promise. homes: from which late logs take their days."""
    life = world.life
    everything = await life.visible()
    first = [place for place in everything if story in (None, life.stored[place[1]].story)]
    known = life.positions
    shown = await walked(world, homes, path, limit=limit)
    came = life.positions - known

    assert shown == sorted({*shown}, reverse=newest_first), "each once, in order"
    assert {*shown} <= {*first} | came, "nothing but what was there or came"
    lasting = life.lasting(first)
    assert len(lasting) < len(first) or newest_first, "some come of age under the walk"
    assert [place for place in shown if place in {*lasting}] == sorted(lasting, reverse=newest_first)
    assert max(shown) <= everything[-1] < max(came), "nothing newer than the first page"
    late = {place for place in came if place < everything[-1]}
    assert 0 < len({*shown} & late) < len(late), "late logs came before the cursor, and behind it"
    return shown


async def walked(world: World, homes: dict[str, set[int]], path: str, *, limit: int) -> list[Position]:
    """Positions of all logs along next_cursor; between two pages a log comes, a step is done, and one log is sought by id."""
    life = world.life
    sought = [next(log_id for log_id in sorted(ids) if not life.stored[log_id].is_debug) for ids in homes.values()]
    closed = {home: sorted(days_of(life, ids)) for home, ids in homes.items()}
    shown: list[Position] = []
    page = await world.get(path, limit=limit)
    for turn in range(1_000):
        shown += world.shown(page)
        if page["next_cursor"] is None:
            return shown
        coming = COMING[turn % len(COMING)]
        day = life.day if coming == "new" else closed[coming][turn * 7 % len(closed[coming])]
        await life.put(day, 1, at_us=2 * HOUR_US + turn)
        await life.step(life.steps[turn % len(life.steps)])
        assert life.tiering.failures == 0
        life.clock.advance(2)
        log_id = sought[turn % len(sought)]
        assert (await world.get(f"logs/{log_id}"))["log"]["id"] == str(log_id)
        page = await world.get(path, limit=limit, cursor=page["next_cursor"])
    raise TimeoutError("the walk has no end")


def days_of(life: Life, ids: set[int]) -> set[int]:
    """Closed days that these logs are of."""
    return {(life.stored[log_id].timestamp_us - life.start_us) // DAY_US for log_id in ids} - {
        *range(life.day, life.day + 2)
    }
