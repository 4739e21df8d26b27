"""When each API key was used last, written beside the requests: never in one's way.

Who is let in by a key leaves a time in memory; once a minute, and at the end, one statement writes the times of all keys that
were used since, unless another process has written a key's within that minute. So a key costs one small write a minute in all,
however many requests and processes there are, and what is shown is a minute old or two. Times wait while the database is away,
one for each key; what a killed process had not written is lost: a list shows this, nothing is decided by it.

Concurrency: one event loop. `note` is called by requests, `run` by one task.
"""

from __future__ import annotations

from typing import Final

import structlog

from db.database import Database, bounded
from runtime.clock import Clock
from runtime.sparing import SparingLog
from runtime.stopping import Stop

log = structlog.get_logger(__name__)

EVERY_S: Final = 60.0
_CALL_S: Final = 5.0
_APART_S: Final = 55
"""A little less than EVERY_S, so that a process which is alone writes each time."""
# Rows that somebody changes at this moment are passed over, so that nobody ever waits for this, nor this for anybody. A host
# whose clock is ahead shows nothing that is to come.
_WRITE: Final = f"""
    WITH used AS (
        SELECT prefix, least(to_timestamp(used_s), clock_timestamp()) AS at
        FROM unnest(%s::text[], %s::float8[]) AS u (prefix, used_s)
    ), due AS (
        SELECT k.prefix, used.at FROM api_keys k JOIN used USING (prefix)
        WHERE k.last_used_at IS NULL OR k.last_used_at < used.at - interval '{_APART_S} s'
        ORDER BY k.prefix FOR UPDATE OF k SKIP LOCKED
    )
    UPDATE api_keys k SET last_used_at = due.at FROM due WHERE k.prefix = due.prefix"""


class KeyUses:
    """Of one process."""

    def __init__(self, database: Database, clock: Clock) -> None:
        """database: opened and closed by the caller."""
        self._database = database
        self._clock = clock
        self._repeated = SparingLog(log)
        self._used_us: dict[str, int] = {}
        """By prefix, of keys that there are: KEYS_MAX at most."""

    def note(self, prefix: str) -> None:
        """Somebody was let in by this key now."""
        self._used_us[prefix] = self._clock.now_us()

    async def write(self) -> None:
        """Write what was noted. What cannot be written waits."""
        used_us, self._used_us = self._used_us, {}
        if not used_us:
            return
        seconds = [us / 1e6 for us in used_us.values()]
        try:
            async with bounded(_CALL_S):
                await self._database.execute(_WRITE, (list(used_us), seconds))
        except Exception as error:  # tables that are gone while a backup comes back, too
            self._used_us = used_us | self._used_us
            self._repeated.warning("when keys were used last is not written, trying again", error=str(error))

    async def run(self, stop: Stop) -> None:
        """Write each minute until the stop, then what is left."""
        while not await stop.wait(EVERY_S):
            await self.write()
        await self.write()
