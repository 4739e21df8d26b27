"""How hard tiering works: so that those who store and those who ask do not notice.

After each piece of work it rests in proportion; while writers are behind it works a thirtieth of the time, and not at all while
they are far behind. Only partitions that a living writer has count: nobody is helped by resting while none runs.
"""

from __future__ import annotations

import time
from typing import Final

from db.database import Database
from runtime.stopping import Stop
from store.parts import LAG_S_EASY, LAG_S_MAX

_LOOK_EVERY_S: Final = 5.0
_SLICE_S: Final = 0.2
_SHARE_WHEN_SHORT: Final = 1 / 30
_LAG: Final = """
    SELECT coalesce(extract(epoch FROM clock_timestamp() - min(stored_to)
        FILTER (WHERE halted IS NULL AND lease_until > clock_timestamp())), 0)::float8
    FROM consumer_offsets WHERE topic = %s"""


class Interrupted(Exception):
    """The stop came."""


class Pace:
    """Of one process."""

    def __init__(self, database: Database, topic: str, *, share: float, stop: Stop) -> None:
        """share: of the time that may be worked, 0..1; 1 never rests, whatever writers do."""
        self._database = database
        self._topic = topic
        self._share = share
        self._stop = stop
        self._lag_s = 0.0
        self._looked_s = -_LOOK_EVERY_S

    async def rest(self, worked_s: float) -> None:
        """Call after every second of work or so. Raises Interrupted at the stop, DatabaseUnavailable."""
        while not self._stop.is_set:
            await self._look()
            if self._lag_s <= LAG_S_MAX or self._share == 1:
                await self._stop.wait(self._rest_s(worked_s))
                break
            await self._stop.wait(_LOOK_EVERY_S)
        self.check()

    def check(self) -> None:
        """Raises Interrupted at the stop."""
        if self._stop.is_set:
            raise Interrupted

    def rest_in_thread(self, worked_s: float) -> bool:
        """As `rest`, for work in a thread, by what was last known of writers; True at the stop."""
        ends_s = time.monotonic() + self._rest_s(worked_s)
        while not self._stop.is_set and (left_s := ends_s - time.monotonic()) > 0:
            time.sleep(min(left_s, _SLICE_S))
        return self._stop.is_set

    def _rest_s(self, worked_s: float) -> float:
        if self._share == 1:
            return 0.0
        share = self._share if self._lag_s <= LAG_S_EASY else min(self._share, _SHARE_WHEN_SHORT)
        return worked_s * (1 / share - 1)

    async def _look(self) -> None:
        if self._share == 1 or time.monotonic() - self._looked_s < _LOOK_EVERY_S:
            return
        row = await self._database.fetch_one(_LAG, (self._topic,))
        self._lag_s = row[0] if row is not None else 0.0
        self._looked_s = time.monotonic()
