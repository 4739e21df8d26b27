"""How the children of `logfeed up` end."""

from __future__ import annotations

import asyncio

import pytest

from cli import up
from runtime.stopping import Stop


async def test_what_follows_the_flow_is_stopped_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four that hang take the time of one: what stops the whole family has to come to its end."""
    began: list[str] = []
    all_began = asyncio.Event()

    async def ends_with_the_others(child: up._Child) -> None:
        began.append(child.role)
        if len(began) == 6:
            all_began.set()
        if len(began) > 2:
            await all_began.wait()

    async def not_started(family: up.Family, child: up._Child) -> None:
        """No process."""

    monkeypatch.setattr(up, "_end", ends_with_the_others)
    monkeypatch.setattr(up.Family, "_keep_running", not_started)
    stop = Stop()
    stop.set()
    async with asyncio.timeout(30):
        await up.Family({}, stop).look_after()
    assert began[:2] == ["serve", "write"]
    assert set(began[2:]) == {"tier", "alert", "mine", "route"}
