"""Turns: few at once, bounded in all, and room for others whoever asks without end."""

from __future__ import annotations

import asyncio

import pytest

from runtime.turns import Turns
from schemas.errors import Overloaded


async def held(turns: Turns, who: str, begun: list[str], end: asyncio.Event) -> None:
    async with turns.turn(who):
        begun.append(who)
        await end.wait()


async def settled() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_a_few_have_their_turn_at_once_and_the_others_in_order() -> None:
    turns, begun, end = Turns(at_once=2, waiting_max=10, wait_s=30), list[str](), asyncio.Event()
    tasks = [asyncio.create_task(held(turns, who, begun, end)) for who in "abcd"]
    await settled()
    assert begun == ["a", "b"]
    end.set()
    await asyncio.gather(*tasks)
    assert begun == ["a", "b", "c", "d"]


async def test_who_asks_without_end_leaves_room_for_others() -> None:
    turns, begun, end = Turns(at_once=1, waiting_max=9, wait_s=30), list[str](), asyncio.Event()
    noisy = [asyncio.create_task(held(turns, "noisy", begun, end)) for _ in range(50)]
    await settled()
    assert sum(task.done() for task in noisy) == 45
    quiet = asyncio.create_task(held(turns, "quiet", begun, end))
    await settled()
    assert not quiet.done()
    end.set()
    await quiet
    results = await asyncio.gather(*noisy, return_exceptions=True)
    assert sum(isinstance(result, Overloaded) for result in results) == 45
    async with turns.turn("noisy"):  # all of the room is back
        pass


async def test_who_waits_for_too_long_or_gives_up_leaves_nothing_behind() -> None:
    turns, end = Turns(at_once=1, waiting_max=1, wait_s=0.01), asyncio.Event()
    first = asyncio.create_task(held(turns, "first", [], end))
    await settled()
    with pytest.raises(Overloaded, match="no turn came"):
        await held(turns, "second", [], end)
    left = asyncio.create_task(held(turns, "second", [], end))
    await settled()
    left.cancel()
    await asyncio.gather(left, return_exceptions=True)
    end.set()
    await first
    await held(turns, "second", [], end)
