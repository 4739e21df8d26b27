"""How a role begins: it waits for what it needs, and says so.

A supervised process that ends because its database, its broker or a free worker number is not there yet is only started again,
and nobody can ask it why. So a role listens at once and begins step by step; what it waits for is in its log and in /readyz.
Only what waiting cannot mend (a configuration) ends it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any, Final

import structlog

from cli.settings import Settings
from db.migrations import pending
from runtime.stopping import Stop
from schemas.errors import ConfigurationError, Overloaded

log = structlog.get_logger(__name__)

Step = Callable[[], Awaitable[None]]

_TRY_EVERY_S: Final = 1.0
_TELL_EVERY_S: Final = 60.0


class NotMigrated(ConfigurationError):
    """The database lacks tables that this program needs: run `logfeed db migrate`."""


async def check_migrated(settings: Settings) -> None:
    """Raises NotMigrated, DatabaseUnavailable."""
    if missing := await pending(settings.database_url(), settings.layout):
        raise NotMigrated(f"the database lacks {len(missing)} migrations: run `logfeed db migrate`")


class Beginning:
    """The steps that lead one role to its work."""

    def __init__(self, role: str, stop: Stop) -> None:
        """role: as people call it."""
        self._role = role
        self._stop = stop
        self.problem: str | None = f"{role} is starting"
        """What it waits for, for people; None once all steps are done."""

    async def take(self, steps: Iterable[Step]) -> bool:
        """One step after the other, each until it succeeds. False: the stop came first. Raises what waiting does not mend."""
        for step in steps:
            if not await self._until_done(step):
                return False
        self.problem = None
        return True

    async def _until_done(self, step: Step) -> bool:
        told, told_s = "", 0.0
        while not self._stop.is_set:
            try:
                await step()
            except (Overloaded, NotMigrated) as error:
                self.problem = f"{self._role} waits: {error}"
                now_s = asyncio.get_running_loop().time()
                if str(error) != told or now_s >= told_s + _TELL_EVERY_S:
                    told, told_s = str(error), now_s
                    log.warning("waiting to start", what=self._role, error=told)
                await self._stop.wait(_TRY_EVERY_S)
            else:
                return True
        return False


async def side_by_side(stop: Stop, *parts: Coroutine[Any, Any, None]) -> None:
    """Run the parts until one ends or fails; then stop the others, and raise the first error."""
    tasks = [asyncio.create_task(part) for part in parts]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        stop.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
