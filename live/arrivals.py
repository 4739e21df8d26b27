"""Events of a subscription with a deadline that loses none: what comes too late is the next one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from live.events import Event


class Arrivals:
    """One task."""

    def __init__(self, events: AsyncIterator[Event]) -> None:
        self._events = events
        self._pending: asyncio.Task[Event] | None = None

    async def next(self, wait_s: float) -> Event | None:
        """The next event; None where none came in time. Raises what the subscription raises."""
        if self._pending is None:
            self._pending = asyncio.create_task(_next(self._events))
        await asyncio.wait({self._pending}, timeout=wait_s)
        if not self._pending.done():
            return None
        event, self._pending = self._pending.result(), None
        return event

    async def end(self) -> None:
        """Nothing is read any more."""
        if self._pending is not None:
            self._pending.cancel()
            await asyncio.gather(self._pending, return_exceptions=True)
            self._pending = None


async def _next(events: AsyncIterator[Event]) -> Event:
    return await anext(events)
