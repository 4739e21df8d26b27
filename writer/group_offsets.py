"""Tells the broker how far the writers' group has stored, for lag displays and the retention guard.

Positions never come from there, so trouble with it stops nothing, and nothing waits for it: one commit at a time runs beside
the loop (a broker that has lost the group's coordinator answers nothing for a long while, though the partitions are fine).
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from typing import Final

import structlog

from broker.port import Broker
from runtime.clock import Clock
from runtime.sparing import SparingLog
from schemas.errors import Overloaded
from schemas.topics import WRITER_GROUP
from writer import metrics

log = structlog.get_logger(__name__)

_EVERY_S: Final = 1.0
_EVERY_IDLE_S: Final = 60.0
_FINISH_S: Final = 2.0
"""How long the last commit of a session may take."""


class GroupOffsets:
    """Commits what one writer has stored. `cancel` comes last."""

    def __init__(self, broker: Broker, clock: Clock) -> None:
        """Nothing was told yet."""
        self._broker = broker
        self._clock = clock
        self._told: dict[int, int] = {}
        self._told_s = -math.inf
        self._telling: asyncio.Task[None] | None = None
        self._repeated = SparingLog(log)

    def tell(self, stored: Mapping[int, int]) -> None:
        """Begin a commit when one is due and none is under way. stored: partition -> next offset."""
        if self._telling is not None:
            if not self._telling.done():
                return
            self._telling.result()
            self._telling = None
        now_s = self._clock.monotonic_s()
        if stored and now_s - self._told_s >= (_EVERY_S if stored != self._told else _EVERY_IDLE_S):
            self._told_s = now_s
            self._telling = asyncio.create_task(self._commit(dict(stored)))

    async def finish(self, stored: Mapping[int, int]) -> None:
        """At the end of a session: tell what is stored by then, for a bounded time."""
        try:
            async with asyncio.timeout(_FINISH_S):
                if self._telling is not None:
                    await asyncio.wait({self._telling})
                if stored and stored != self._told:
                    await self._commit(dict(stored))
        except TimeoutError:
            metrics.GROUP_COMMITS_FAILED.inc()
            self._repeated.warning("the broker was not told how far is stored", error=f"no answer in {_FINISH_S:g} s")

    async def cancel(self) -> None:
        """End the commit under way, whatever becomes of it."""
        telling, self._telling = self._telling, None
        if telling is not None:
            telling.cancel()
            await asyncio.wait({telling})

    async def _commit(self, stored: dict[int, int]) -> None:
        try:
            await self._broker.commit_group(WRITER_GROUP, stored)
        except Overloaded as error:
            metrics.GROUP_COMMITS_FAILED.inc()
            self._repeated.warning("the broker was not told how far is stored", error=str(error))
            return
        self._told = stored
