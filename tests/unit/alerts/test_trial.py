"""A trial decides as the backtest does and keeps its bounds: logs, time, decisions, one of a subject."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import pytest

from access.errors import Forbidden
from access.principal import Principal
from alerts import trial
from alerts.notify import Pace
from alerts.rules import RuleDocument
from alerts.trial import Trials
from runtime.clock import ManualClock
from schemas.errors import Overloaded
from schemas.record import Log
from schemas.scope import ALL_SERVICES, NO_SERVICES
from schemas.times import time_text
from search.predicate import Predicate

S = 1_000_000
START_US = 1_767_225_600 * S
END_US = START_US + 3_600 * S
ANN = Principal("user:1", may_write=NO_SERVICES, may_read=ALL_SERVICES, may_alert=ALL_SERVICES)


def rule(**fields: Any) -> RuleDocument:
    base = {"name": "r", "window": 60, "every": 10, "condition": {"count": {"at_least": 2}}}
    return RuleDocument.model_validate(base | fields)


class Stored:
    """Pieces of logs, by the second of each."""

    def __init__(self, *pieces: Sequence[int], clock: ManualClock | None = None) -> None:
        self.pieces = pieces
        self.clock = clock
        self.given = 0
        self.gate: asyncio.Event | None = None

    async def __call__(
        self, predicate: Predicate, principal: Principal, *, start_us: int, end_us: int
    ) -> AsyncGenerator[tuple[Sequence[Log], int], None]:
        for index, piece in enumerate(self.pieces):
            if self.gate is not None:
                await self.gate.wait()
            self.given += 1
            logs = [Log(at_s, START_US + at_s * S, 17, "a", "m", None, {}) for at_s in piece]
            is_last = index == len(self.pieces) - 1
            yield logs, end_us if is_last else logs[-1].timestamp
            if self.clock is not None:
                self.clock.monotonic += trial.BUDGET_S


def trials(stored: Stored) -> Trials:
    return Trials(stored, Pace(), stored.clock or ManualClock(END_US))


async def run(tested: Trials, document: RuleDocument, principal: Principal = ANN) -> dict[str, Any]:
    return await tested.run(principal, document, start_us=START_US, end_us=END_US)


async def test_says_when_it_would_have_fired_and_how_often_told() -> None:
    found = await run(trials(Stored([100, 101], [2_000, 2_001, 2_002])), rule())
    assert [each["state"] for each in found["decisions"]] == ["firing", "resolved"] * 2
    assert found["decisions"][0]["at"] == time_text(START_US + 110 * S)
    assert (found["logs"], found["fired"], found["resolved"], found["is_complete"]) == (5, 2, 2, True)
    assert found["messages"] >= 2
    assert found["tried_through"] == found["end_time"] == time_text(END_US)


async def test_a_group_is_named_by_its_labels() -> None:
    found = await run(trials(Stored([100, 101])), rule(group_by=["service"]))
    assert {tuple(each["labels"].items()) for each in found["decisions"]} == {(("service", "a"),)}


async def test_ends_with_its_time_and_says_how_far_it_came() -> None:
    stored = Stored([100, 101], [2_000, 2_001], [3_000], clock=ManualClock(END_US))
    found = await run(trials(stored), rule())
    assert not found["is_complete"]
    assert found["tried_through"] < time_text(START_US + 2_000 * S)
    assert stored.given == 2, "nothing is read any more then"


async def test_ends_with_its_logs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "LOGS_MAX", 3)
    found = await run(trials(Stored([100, 101, 500, 2_000], [3_000])), rule())
    assert (found["logs"], found["is_complete"]) == (3, False)


async def test_tells_of_so_many_decisions_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "DECISIONS_MAX", 1)
    found = await run(trials(Stored([100, 101, 2_000, 2_001])), rule())
    assert (len(found["decisions"]), found["decisions_left_out"], found["fired"]) == (1, 3, 2)


async def test_one_of_a_subject_at_once_and_a_few_in_all() -> None:
    stored = Stored([100])
    stored.gate = asyncio.Event()
    tested = trials(stored)
    bob, eve = (Principal(f"user:{n}", NO_SERVICES, ALL_SERVICES, may_alert=ALL_SERVICES) for n in (2, 3))
    running = [asyncio.create_task(run(tested, rule(), who)) for who in (ANN, bob)]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded, match="yours"):
        await run(tested, rule())
    with pytest.raises(Overloaded, match="other rules"):
        await run(tested, rule(), eve)
    stored.gate.set()
    await asyncio.gather(*running)
    assert (await run(tested, rule()))["logs"] == 1


async def test_who_may_not_read_tries_nothing() -> None:
    with pytest.raises(Forbidden):
        await run(trials(Stored([1])), rule(), Principal("key:a", NO_SERVICES, NO_SERVICES, may_alert=ALL_SERVICES))
