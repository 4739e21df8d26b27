"""Places for questions: bounded, and shared so that nobody's many questions are in the way of another's one."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter

import pytest

from query.errors import TooManyScans
from query.places import FairPlaces
from schemas.errors import TooManyQuestions


def places_of(places: int = 3, per_subject: int = 2, waiting: int = 10, waiting_per_subject: int = 4) -> FairPlaces:
    return FairPlaces(
        places=places,
        per_subject=per_subject,
        waiting_max=waiting,
        waiting_per_subject_max=waiting_per_subject,
    )


class Asker:
    """Questions that are answered when the test says so."""

    def __init__(self, places: FairPlaces) -> None:
        self._places = places
        self.begun: list[str] = []

    async def ask(self, subject: str, *, wait_s: float = 30.0) -> tuple[asyncio.Task[None], asyncio.Event]:
        """A question that has come as far as it can now."""
        done = asyncio.Event()

        async def question() -> None:
            async with self._places.place(subject, wait_s=wait_s):
                self.begun.append(subject)
                await done.wait()

        task = asyncio.create_task(question())
        await settled()
        return task, done


async def settled() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_one_subject_never_has_all_places_and_another_finds_one_at_once() -> None:
    asker = Asker(places_of())
    slow = [await asker.ask("slow") for _ in range(5)]
    assert asker.begun == ["slow", "slow"]
    quick, done = await asker.ask("quick")
    assert asker.begun == ["slow", "slow", "quick"]
    done.set()
    await quick
    for _, event in slow:
        event.set()
    await asyncio.gather(*(task for task, _ in slow))
    assert asker.begun.count("slow") == 5


async def test_a_free_place_goes_to_whoever_has_fewest_then_to_who_waited_longest() -> None:
    asker = Asker(places_of(places=3, per_subject=3))
    first = [await asker.ask("a") for _ in range(3)]
    for subject in ("a", "b", "c", "b"):
        await asker.ask(subject)
    for _, done in first:
        done.set()
        await settled()
    assert asker.begun == ["a", "a", "a", "b", "c", "a"], "of one each, a has waited for longest"


async def test_past_the_subjects_own_bounds_it_is_told_so_and_others_are_not() -> None:
    asker = Asker(places_of())
    for _ in range(6):
        await asker.ask("greedy")
    task, _ = await asker.ask("greedy")
    with pytest.raises(TooManyQuestions, match="2 of your questions"):
        await task
    await asker.ask("b")
    task, _ = await asker.ask("b", wait_s=0.01)
    with pytest.raises(TooManyScans):
        await task


async def test_those_who_wait_are_bounded_in_all() -> None:
    asker = Asker(places_of(places=1, per_subject=1, waiting=3))
    for subject in "abcd":
        await asker.ask(subject)
    task, _ = await asker.ask("e")
    with pytest.raises(TooManyScans):
        await task


async def test_who_waits_in_vain_is_told_whether_its_own_are_in_the_way() -> None:
    asker = Asker(places_of())
    for _ in range(2):
        await asker.ask("a")
    own, _ = await asker.ask("a", wait_s=0.01)
    with pytest.raises(TooManyQuestions):
        await own


async def test_nothing_is_lost_whoever_gives_up_when() -> None:
    """Many questions of many subjects, cancelled, timed out or answered at any moment: at the end all places are free."""
    chance = random.Random(7)
    places = places_of(places=4, per_subject=2, waiting=50, waiting_per_subject=10)
    running: Counter[str] = Counter()
    most = 0
    answered = 0

    async def question(subject: str) -> None:
        nonlocal most, answered
        with contextlib.suppress(TooManyQuestions, TooManyScans):
            async with places.place(subject, wait_s=chance.choice([0.0, 0.001, 0.01, 5.0])):
                running[subject] += 1
                most = max(most, running.total())
                assert running[subject] <= 2
                assert running.total() <= 4
                try:
                    await asyncio.sleep(chance.choice([0, 0, 0.001, 0.003]))
                finally:
                    running[subject] -= 1
                answered += 1

    tasks = []
    for number in range(3_000):
        tasks.append(asyncio.create_task(question(chance.choice("abcdef"))))
        if chance.random() < 0.3:
            chance.choice(tasks).cancel()
        if number % 7 == 0:
            await asyncio.sleep(0)
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(result is None or isinstance(result, asyncio.CancelledError) for result in results)
    assert most == 4
    assert answered > 100
    assert (places._free, dict(places._held), dict(places._queues), dict(places._order)) == (4, {}, {}, {})


async def test_one_who_is_cancelled_while_its_turn_comes_passes_it_on() -> None:
    asker = Asker(places_of(places=1, per_subject=1))
    _, done = await asker.ask("a")
    second, _ = await asker.ask("b")
    _, third_done = await asker.ask("c")
    done.set()
    second.cancel()
    await settled()
    assert asker.begun[-1] == "c"
    third_done.set()
