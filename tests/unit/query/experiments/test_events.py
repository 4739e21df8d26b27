"""Whoever watches is offered every change that they may see, once, in order, and never too many."""

from __future__ import annotations

import asyncio
import re
from contextlib import aclosing
from typing import cast

import pytest

from access.principal import ANYONE, Principal
from query.answers import Answers
from query.experiments.events import WAITING_MAX, ChangeHub, Watcher
from query.experiments.service import Experiments
from query.experiments.settings import ExperimentSettings
from query.listing import ListPlace, ListSeal
from runtime.clock import SystemClock
from runtime.stopping import Stop
from schemas.errors import DatabaseUnavailable
from schemas.experiments import ExperimentStatus
from schemas.scope import ALL_SERVICES, ServiceScope
from store.experiments import Experiment, ExperimentStore
from tests.live_site import eventually


def one(number: int, change: int, service: str = "shop") -> Experiment:
    return Experiment(f"e{number}", "", service, ExperimentStatus.RUNNING, 0, change, None, None, b"{}", change)


class Table:
    """What the database would answer."""

    def __init__(self) -> None:
        self.rows: dict[str, Experiment] = {}
        self.number = 0
        self.looks = 0
        self.is_away = False

    def put(self, number: int, service: str = "shop") -> None:
        self.number += 1
        self.rows[f"e{number}"] = one(number, self.number, service)

    async def version(self) -> int:
        return self.number

    async def changed_since(self, version: int, *, limit: int) -> list[Experiment]:
        self.looks += 1
        if self.is_away:
            raise DatabaseUnavailable()
        newer = [row for row in self.rows.values() if row.change > version]
        return sorted(newer, key=lambda row: row.change)[:limit]


def changes(watcher: Watcher) -> list[int]:
    return [experiment.change for experiment in watcher.take()]


async def test_a_database_that_is_behind_the_one_before_makes_watchers_read_again() -> None:
    """A replica was promoted that did not have the last changes: it gives their numbers out again."""
    table, stop = Table(), Stop()
    hub = ChangeHub(table, poll_s=0.01)
    for number in range(5):
        table.put(number)
    watcher = Watcher(ALL_SERVICES, table.number)
    with hub.joined(watcher, table.number):
        running = asyncio.create_task(hub.run(stop))
        table.is_away = True
        looks = table.looks
        await eventually(lambda: table.looks > looks, lambda: "nobody looks")
        table.number = 3
        table.put(9)
        table.is_away = False
        await eventually(lambda: watcher.has_missed, lambda: "nobody is told")
        table.put(10)
        await eventually(
            lambda: 5 in [each.change for each in watcher._waiting.values()], lambda: "the new change is not offered"
        )
        stop.set()
        hub.look_now()
        await running


def test_the_newest_state_waits_and_what_may_not_be_seen_does_not() -> None:
    watcher = Watcher(ServiceScope(names=frozenset({"shop"})), 3)
    for experiment in (one(1, 3), one(1, 4), one(2, 5, "mail"), one(3, 6), one(1, 7), one(3, 6)):
        watcher.offer(experiment)
    assert changes(watcher) == [6, 7]
    watcher.offer(one(3, 6))
    assert changes(watcher) == [], "it was taken"


def test_who_does_not_take_is_told_to_read_again() -> None:
    watcher = Watcher(ALL_SERVICES, 0)
    for number in range(WAITING_MAX + 1):
        watcher.offer(one(number, number + 1))
    assert watcher.has_missed
    assert changes(watcher) == [WAITING_MAX + 1]


async def test_watchers_share_one_look_and_late_ones_catch_up() -> None:
    table, stop = Table(), Stop()
    hub = ChangeHub(table, poll_s=30)
    running = asyncio.create_task(hub.run(stop))
    table.put(1)
    first = Watcher(ALL_SERVICES, await table.version())
    with hub.joined(first, 1):
        table.put(2)
        hub.look_now()
        await eventually(lambda: first.has_some.is_set(), lambda: "it was offered")
        late = Watcher(ALL_SERVICES, 0)
        with hub.joined(late, 2):
            await hub.catch_up(late, 2)
            table.put(3)
            hub.look_now()
            seen: list[int] = []

            def is_seen() -> bool:
                seen.extend(changes(late))
                return 3 in seen

            await eventually(is_seen, lambda: f"{seen}")
            assert seen == [1, 2, 3]
            looks = table.looks
            table.put(4)
            hub.look_now()
            await eventually(lambda: late.has_some.is_set() and first.has_some.is_set(), lambda: "both have it")
            assert table.looks == looks + 1, "one look for both"
    assert changes(first) == [2, 3, 4]
    looks = table.looks
    stop.set()
    await running
    assert table.looks == looks


async def test_a_database_that_was_away_or_restored_loses_nobody_a_change() -> None:
    table, stop = Table(), Stop()
    hub = ChangeHub(table, poll_s=0.01)
    running = asyncio.create_task(hub.run(stop))
    watcher = Watcher(ALL_SERVICES, 0)
    with hub.joined(watcher, 0):
        table.is_away = True
        table.put(1)
        await eventually(lambda: table.looks > 2, lambda: "it tries again")
        table.is_away = False
        await eventually(lambda: watcher.has_some.is_set(), lambda: "it is offered then")
    assert changes(watcher) == [1]
    ahead = Watcher(ALL_SERVICES, 99)
    with hub.joined(ahead, 1):
        await hub.catch_up(ahead, 1)
        assert ahead.has_missed
        table.put(2)
        await eventually(lambda: changes(ahead) == [2], lambda: "it sees what comes")
    stop.set()
    await running


async def test_too_many_changes_at_once_are_a_gap() -> None:
    table = Table()
    for number in range(WAITING_MAX + 10):
        table.put(number)
    hub = ChangeHub(table, poll_s=1)
    watcher = Watcher(ALL_SERVICES, 0)
    with hub.joined(watcher, table.number):
        await hub.catch_up(watcher, table.number)
    assert watcher.has_missed


@pytest.mark.parametrize("stops_first", [True, False])
async def test_the_hub_ends_with_the_stop(stops_first: bool) -> None:
    stop = Stop()
    if stops_first:
        stop.set()
    running = asyncio.create_task(ChangeHub(Table(), poll_s=1).run(stop))
    stop.set()
    async with asyncio.timeout(5):
        await running


async def test_each_event_says_where_to_go_on_after_it_alone() -> None:
    """What is sent together may come in part: who reads the first of two events goes on before the second."""

    async def events(last_event_id: str | None) -> list[tuple[str, str]]:
        """(experiment, id) of all that wait at once."""
        async with experiments.stream(ANYONE, recheck, last_event_id=last_event_id) as stream:
            async with asyncio.timeout(30), aclosing(stream):
                await anext(stream)
                text = (await anext(stream)).decode()
        return re.findall(r"^event: experiment\nid: (\S+)\ndata: .*?\"id\":\"(e\d)\"", text, re.MULTILINE)

    async def recheck() -> Principal:
        return ANYONE

    async def secret() -> bytes:
        return bytes(32)

    table, stop = Table(), Stop()
    experiments = Experiments(
        ExperimentSettings(),
        cast(ExperimentStore, table),
        cast(Answers, None),
        secret=secret,
        clock=SystemClock(),
        stop=stop,
    )
    await experiments.start()
    seal = ListSeal(bytes(32), of="changes")
    begin = seal.bound(subject=ANYONE.subject, question="changes")(ListPlace(0, ""))
    for number in (1, 2, 3):
        table.put(number)
    first = await events(begin)
    assert [name for _, name in first] == ["e1", "e2", "e3"]
    assert [name for _, name in await events(first[0][0])] == ["e2", "e3"]
    await experiments.stop()
