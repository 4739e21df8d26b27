"""Questions together: one statement at a time, everyone gets their own answer."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from db.gathering import Gathering


class Asked:
    """Doubles numbers, when let; remembers what came together."""

    def __init__(self) -> None:
        self.together: list[list[int]] = []
        self.running = 0
        self.gate = asyncio.Event()

    async def __call__(self, questions: Sequence[int]) -> list[int]:
        assert self.running == 0, "one statement at a time"
        self.running += 1
        self.together.append(list(questions))
        try:
            await self.gate.wait()
            if -1 in questions:
                raise ValueError("no")
            return [question * 2 for question in questions]
        finally:
            self.running -= 1


async def until_running(asked: Asked) -> None:
    async with asyncio.timeout(5):
        while not asked.running:  # noqa: ASYNC110  # the statement says itself that it runs
            await asyncio.sleep(0)


async def test_what_arrives_meanwhile_shares_the_next_statement() -> None:
    asked = Asked()
    gathering = Gathering(asked, most=3)
    first = asyncio.create_task(gathering.ask(1))
    await until_running(asked)
    others = [asyncio.create_task(gathering.ask(number)) for number in range(2, 7)]
    await asyncio.sleep(0)
    asked.gate.set()
    assert await asyncio.gather(first, *others) == [2, 4, 6, 8, 10, 12]
    assert asked.together == [[1], [2, 3, 4], [5, 6]]
    assert await gathering.ask(9) == 18, "it starts again after a rest"


async def test_failure_and_cancelling_reach_only_those_concerned() -> None:
    asked = Asked()
    gathering = Gathering(asked, most=2)
    failing, beside, impatient, after = (asyncio.create_task(gathering.ask(number)) for number in (-1, 5, 6, 7))
    await until_running(asked)
    impatient.cancel()
    await asyncio.sleep(0)
    asked.gate.set()
    for task in (failing, beside):
        with pytest.raises(ValueError, match="no"):
            await task
    assert await after == 14
    assert asked.together == [[-1, 5], [7]], "nobody waits for the answer to a question withdrawn"


async def test_while_a_statement_hangs_only_callers_who_wait_are_kept() -> None:
    asked = Asked()
    gathering = Gathering(asked, most=10)
    hanging = asyncio.create_task(gathering.ask(1))
    await until_running(asked)
    for _ in range(3):
        impatient = [asyncio.create_task(gathering.ask(number)) for number in range(100)]
        await asyncio.sleep(0)
        for task in impatient:
            task.cancel()
        await asyncio.gather(*impatient, return_exceptions=True)
    patient = asyncio.create_task(gathering.ask(7))
    asked.gate.set()
    assert await patient == 14
    assert await hanging == 2
    assert asked.together == [[1], [7]]
