"""Turns at what is scarce: a few at once, a bounded number wait, and nobody's requests take all the room.

Whoever has requests here, under way or waiting, may have as many as they leave free: alone half of the room, two that ask
without end a third each (the rule of ingest/in_flight.py). So one who asks without end is refused while others find room.
Turns come in the order of asking. Who waits for too long is refused, so that a database that hangs gathers nobody. For what
takes no place among questions (query/places.py): what comes before anybody is known, and small writes. One event loop.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from schemas.errors import Overloaded


class Turns:
    """The turns at one thing, in one process."""

    def __init__(self, *, at_once: int, waiting_max: int, wait_s: float) -> None:
        """at_once: how many have their turn together. waiting_max: who waits beside them. wait_s: for how long."""
        self._turns = asyncio.Semaphore(at_once)
        self._room = at_once + waiting_max
        self._wait_s = wait_s
        self._of: Counter[str] = Counter()
        """Who is here -> requests of theirs."""

    @asynccontextmanager
    async def turn(self, who: str) -> AsyncIterator[None]:
        """Have a turn. who: a subject, or an address where there is none yet. Raises Overloaded."""
        if self._of[who] >= self._room - self._of.total():
            raise Overloaded("too many of these requests wait here: try again shortly", retry_after_s=2)
        self._of[who] += 1
        try:
            try:
                async with asyncio.timeout(self._wait_s):
                    await self._turns.acquire()
            except TimeoutError as error:
                raise Overloaded(
                    f"no turn came within {self._wait_s:g} s: try again shortly", retry_after_s=2
                ) from error
            try:
                yield
            finally:
                self._turns.release()
        finally:
            self._of[who] -= 1
            if not self._of[who]:
                del self._of[who]
