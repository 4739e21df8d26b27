"""Waits until topics have more: one task asks for the ends of all topics that somebody waits for, as long as somebody does.

So a thousand who wait cost one question in a fifth of a second, and none of them holds a reader meanwhile.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from typing import Final

import structlog

from broker.topics import Extent, Topics
from runtime.sparing import SparingLog
from schemas.errors import Overloaded

log = structlog.get_logger(__name__)

_LOOK_S: Final = 0.2


class Ends:
    """Of one process. One event loop."""

    def __init__(self, topics: Topics) -> None:
        """topics: closed by the caller."""
        self._topics = topics
        self._wanted: Counter[str] = Counter()
        self._known: Mapping[str, Mapping[int, Extent]] = {}
        self._looked = asyncio.Event()
        self._looking: asyncio.Task[None] | None = None
        self._repeated = SparingLog(log)

    async def beyond(self, name: str, positions: Mapping[int, int], wait_s: float) -> bool:
        """Whether the topic has something behind the positions within the time."""
        self._wanted[name] += 1
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look(), name="ends of derived topics")
        try:
            async with asyncio.timeout(wait_s):
                while True:
                    # Not what was known before: who waits begins with a look of its own time.
                    await self._looked.wait()
                    if has_more(self._known.get(name, {}), positions):
                        return True
        except TimeoutError:
            return False
        finally:
            self._wanted[name] -= 1
            if not self._wanted[name]:
                del self._wanted[name]

    async def _look(self) -> None:
        while self._wanted:
            try:
                self._known = await self._topics.extents(list(self._wanted))
            except Overloaded as error:
                self._repeated.warning("the ends of derived topics cannot be asked now", error=str(error))
            self._looked.set()
            self._looked = asyncio.Event()
            await asyncio.sleep(_LOOK_S)

    async def stop(self) -> None:
        """Ask no more."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)


def has_more(extents: Mapping[int, Extent], positions: Mapping[int, int]) -> bool:
    """Whether there is a record behind one of the positions. Partitions without one count from their oldest record."""
    return any(positions.get(partition, extent.first) < extent.next for partition, extent in extents.items())
