"""Places and deadlines around calls."""

from __future__ import annotations

import asyncio

import pytest

from infra.fleet import until
from store.objects.bounds import Bounds
from store.objects.port import ObjectStoreUnavailable
from store.objects.settings import ObjectSettings


async def is_true(condition: bool) -> bool:
    return condition


async def test_no_more_transfers_at_once_than_set() -> None:
    bounds = Bounds(ObjectSettings(transfers_max=2), "the store")
    running, ended, most = 0, 0, 0
    go = asyncio.Semaphore(0)

    async def move() -> None:
        nonlocal running, ended, most
        async with bounds.transfer("put", "k"):
            running += 1
            most = max(most, running)
            await go.acquire()
            running -= 1
        ended += 1

    moving = [asyncio.create_task(move()) for _ in range(6)]
    for number in range(6):
        await until(lambda: is_true(running == 2 or ended > 3), what="two are under way")
        go.release()
        await until(lambda number=number: is_true(ended > number), what="one has ended")  # type: ignore[misc]  # bound now
    await asyncio.gather(*moving)
    assert most == 2


async def test_waiting_for_a_place_counts_in_the_deadline() -> None:
    bounds = Bounds(ObjectSettings(transfers_max=1, call_deadline_s=0.05), "the store")
    async with bounds.transfer("get", "slow") as deadline:
        deadline.allow(1 << 40)
        with pytest.raises(ObjectStoreUnavailable, match="the store: get k did not end within its deadline"):
            async with bounds.transfer("get", "k"):
                pytest.fail("there was no place")


async def test_others_timeouts_are_not_ours() -> None:
    bounds = Bounds(ObjectSettings(), "the store")
    with pytest.raises(TimeoutError, match="of somebody else"):
        async with bounds.call("size", "k"):
            raise TimeoutError("of somebody else")
