"""Messages on their way: what is due, and what came of each attempt.

Each call is one statement. A message is taken by nobody while it is sent: whoever is killed then leaves it waiting, and it goes
once more with the same id.
"""

from __future__ import annotations

import random
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Final

from db.database import Database, bounded

_CALL_S: Final = 10.0
_PROBLEM_CHARS_MAX: Final = 500
_DUE: Final = """
    SELECT notification_id, rule, body, attempts FROM alert_outbox
    WHERE channel = %s AND state = 'waiting' AND next_attempt_at <= clock_timestamp()
    ORDER BY next_attempt_at, created_at, notification_id LIMIT 1"""
_SENT: Final = """
    UPDATE alert_outbox SET state = 'sent', attempts = attempts + 1, ended_at = clock_timestamp(), problem = NULL
    WHERE notification_id = %s AND state = 'waiting'"""
_FAILED: Final = """
    UPDATE alert_outbox SET attempts = attempts + 1, problem = %s,
        next_attempt_at = clock_timestamp() + make_interval(secs => %s)
    WHERE notification_id = %s AND state = 'waiting'"""
_DEAD: Final = """
    UPDATE alert_outbox SET state = 'dead', attempts = attempts + 1, problem = %s, ended_at = clock_timestamp()
    WHERE notification_id = %s AND state = 'waiting'"""
_NO_CHANNEL: Final = """
    UPDATE alert_outbox SET state = 'dead', problem = 'there is no such channel', ended_at = clock_timestamp()
    WHERE state = 'waiting' AND NOT channel = ANY (%s)"""


@dataclass(frozen=True, slots=True)
class Waiting:
    """A message that is due."""

    notification_id: str
    rule: str
    document: dict[str, Any]  # JSON values
    attempts: int
    """Made so far."""


class Outbox:
    """The table `alert_outbox`."""

    def __init__(self, database: Database) -> None:
        """database: opened and closed by the caller."""
        self._database = database

    async def due(self, channel: str) -> Waiting | None:
        """The one of a channel that has waited longest. Raises DatabaseUnavailable, as all of these do."""
        async with bounded(_CALL_S):
            row = await self._database.fetch_one(_DUE, (channel,))
        return None if row is None else Waiting(*row)

    async def sent(self, notification_id: str) -> None:
        """It was taken."""
        async with bounded(_CALL_S):
            await self._database.execute(_SENT, (notification_id,))

    async def failed(self, notification_id: str, problem: str, *, again_in_s: float) -> None:
        """It was not; another attempt follows."""
        async with bounded(_CALL_S):
            await self._database.execute(_FAILED, (_sound(problem), again_in_s, notification_id))

    async def dead(self, notification_id: str, problem: str) -> None:
        """It never will be."""
        async with bounded(_CALL_S):
            await self._database.execute(_DEAD, (_sound(problem), notification_id))

    async def end_of_others(self, channels: Collection[str]) -> int:
        """Messages of channels that are not among these are dead; how many there were."""
        async with bounded(_CALL_S):
            return await self._database.execute(_NO_CHANNEL, ([*channels],))

    async def waiting(self) -> int:
        """How many wait."""
        async with bounded(_CALL_S):
            row = await self._database.fetch_one("SELECT count(*) FROM alert_outbox WHERE state = 'waiting'")
        return 0 if row is None else int(row[0])


def pause_s(attempts: int, *, longest_s: float, chance: float | None = None) -> float:
    """Seconds before the next attempt, after so many. chance: 0..1, spreads them; None draws it."""
    chance = random.random() if chance is None else chance
    return min(longest_s, 2.0 ** min(attempts - 1, 30)) * (0.5 + chance / 2)


def _sound(problem: str) -> str:
    return problem[:_PROBLEM_CHARS_MAX].replace("\0", "\ufffd").encode("utf-8", "replace").decode()
