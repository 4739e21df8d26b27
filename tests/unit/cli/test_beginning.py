"""How a role begins: step by step, waiting for what waiting mends, and saying so."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from structlog.testing import capture_logs

from cli.beginning import Beginning, NotMigrated, side_by_side
from runtime.stopping import Stop
from schemas.errors import ConfigurationError, DatabaseUnavailable, LogfeedError


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cli.beginning._TRY_EVERY_S", 0.001)


class Steps:
    """Steps that fail a few times each, and what was told meanwhile."""

    def __init__(self, stop: Stop) -> None:
        self.beginning = Beginning("ingest", stop)
        self.taken: list[str] = []
        self.told: list[str | None] = []

    def step(self, name: str, *errors: LogfeedError) -> Callable[[], Awaitable[None]]:
        failures = list(errors)

        async def take() -> None:
            self.told.append(self.beginning.problem)
            if failures:
                raise failures.pop(0)
            self.taken.append(name)

        return take


async def test_steps_follow_one_another_and_each_waits_for_what_is_away() -> None:
    steps = Steps(Stop())
    away, unmigrated = DatabaseUnavailable("no answer"), NotMigrated("run it")
    with capture_logs() as logs:
        assert await steps.beginning.take([steps.step("a", away, away, unmigrated), steps.step("b", away)])
    assert steps.taken == ["a", "b"]
    assert steps.told[:4] == ["ingest is starting", *["ingest waits: no answer"] * 2, "ingest waits: run it"]
    assert steps.beginning.problem is None
    assert [entry["error"] for entry in logs] == ["no answer", "run it", "no answer"], "told once each, not each try"


async def test_what_waiting_does_not_mend_ends_it() -> None:
    steps = Steps(Stop())
    with pytest.raises(ConfigurationError, match="wrong topic"):
        await steps.beginning.take([steps.step("a", ConfigurationError("wrong topic")), steps.step("b")])
    assert steps.taken == []


async def test_a_stop_ends_the_waiting() -> None:
    stop = Stop()
    steps = Steps(stop)

    async def never() -> None:
        stop.set()
        raise DatabaseUnavailable

    assert not await steps.beginning.take([never, steps.step("b")])
    assert steps.taken == []
    assert steps.beginning.problem is not None


async def test_parts_side_by_side_end_together_and_the_first_error_is_told() -> None:
    stop = Stop()
    ended = []

    async def until_stop(name: str) -> None:
        await stop.wait()
        ended.append(name)

    async def fails() -> None:
        raise ConfigurationError("broken")

    async with asyncio.timeout(10):
        with pytest.raises(ConfigurationError, match="broken"):
            await side_by_side(stop, until_stop("a"), fails(), until_stop("b"))
        assert ended == ["a", "b"]
        stop = Stop()

        async def ends() -> None:
            return

        await side_by_side(stop, until_stop("c"), ends())
    assert ended == ["a", "b", "c"]
