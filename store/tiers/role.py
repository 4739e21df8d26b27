"""Tiering by one process at a time: whoever holds the lease `tier` goes through all steps, round after round.

Every step is safe to repeat and to kill, so a failure of any kind is logged and counted, and the next round tries again. Two
processes that lead for a moment do no harm: what they change is fenced by the lease's epoch.

Concurrency: two tasks, one holds the lease, the other works; what takes long runs in threads. At the stop a piece of work is
given up at its next rest, which is a second away or so, and cancelled where it is not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

import structlog

from db.database import Database
from db.leases import Lease
from runtime.clock import Clock
from runtime.stopping import Stop
from schemas.errors import Overloaded
from store.tiers.installation import WrongPlace
from store.tiers.metrics import LEADING, STEP_FAILURES, STEP_SECONDS
from store.tiers.pace import Interrupted
from store.tiers.tiering import Tiering
from store.tiers.timing import ClocksDisagree, now_for

log = structlog.get_logger(__name__)

_CLASH: Final = "two processes of the same tiers.name take the lead from each other: give each a name of its own"

LEASE_TTL_S: Final = 30.0
_RENEW_S: Final = 2.0
_STOP_S: Final = 10.0
_CLASH_AT: Final = 3
"""So often in a row somebody of the same name has taken the lease: a command that leads for a moment does it once."""


class TierRole:
    """Runs rounds while it holds the lease."""

    def __init__(
        self, database: Database, lease: Lease, tiering: Tiering, *, round_s: float, clock: Clock, stop: Stop
    ) -> None:
        """lease: the one that `tiering` has. round_s: seconds between the beginnings of two rounds, at least."""
        self._database = database
        self._lease = lease
        self._tiering = tiering
        self._round_s = round_s
        self._clock = clock
        self._stop = stop
        self._held = asyncio.Event()
        self._retaken = 0
        self._problem: str | None = "tiering is starting"

    @property
    def problem(self) -> str | None:
        """What keeps rows from moving, for people; looked at every round, also while standing by."""
        if self._retaken >= _CLASH_AT:
            return _CLASH
        return self._problem

    async def run(self) -> None:
        """Until the stop; returns soon after it, though the database or a disk hangs."""
        tasks = [asyncio.create_task(self._hold()), asyncio.create_task(self._work())]
        try:
            await self._stop.wait()
            await asyncio.wait(tasks, timeout=_STOP_S)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._quietly("release", self._lease.release)
            LEADING.set(0)

    async def _hold(self) -> None:
        while not self._stop.is_set:
            if await self._quietly("lease", self._acquire) is None:
                self._held.clear()
            LEADING.set(self._held.is_set())
            await self._stop.wait(_RENEW_S)

    async def _acquire(self) -> bool:
        before = self._lease.epoch
        held = await self._lease.acquire()
        self._retaken = self._retaken + 1 if held and before not in (None, self._lease.epoch) else 0
        if self._retaken == _CLASH_AT:
            log.error(_CLASH)
        if held != self._held.is_set():
            log.info("leading" if held else "standing by: another process moves rows")
        (self._held.set if held else self._held.clear)()
        return held

    async def _work(self) -> None:
        standby_until_s = 0.0
        while not self._stop.is_set:
            began_s = self._clock.monotonic_s()
            if not self._held.is_set() and began_s < standby_until_s:
                await self._stop.wait(0.1)
                continue
            leads = self._held.is_set()
            standby_until_s = began_s + self._round_s
            is_prepared = await self._quietly("prepare", partial(self._prepare, leads))
            for name, step in self._tiering.steps.items():
                if not is_prepared or not leads or not self._may_work():
                    break
                step_began_s = self._clock.monotonic_s()
                await self._quietly(name, partial(self._do, name, step))
                STEP_SECONDS.labels(name).inc(self._clock.monotonic_s() - step_began_s)
            if not leads or not self._held.is_set():
                continue
            await self._stop.wait(max(0.1, self._round_s - (self._clock.monotonic_s() - began_s)))

    async def _prepare(self, leads: bool) -> bool:
        try:
            await self._tiering.prepare(leads=leads)
        except (WrongPlace, OSError) as error:
            self._problem = f"tiering waits: {error}"
            raise
        self._problem = None
        return True

    def _may_work(self) -> bool:
        return self._held.is_set() and not self._stop.is_set

    async def _do(self, name: str, step: Callable[[int], Awaitable[int]]) -> int:
        return await step(await now_for(name, self._database, self._clock))

    async def _quietly(self, name: str, action: Callable[[], Awaitable[object]]) -> object:
        """What the action says; None when it failed."""
        try:
            return await action()
        except Interrupted:
            return None
        except (ClocksDisagree, WrongPlace) as error:
            STEP_FAILURES.labels(name).inc()
            log.error("tiering refused", step=name, error=str(error))
        except Overloaded as error:
            STEP_FAILURES.labels(name).inc()
            log.warning("tiering not done, the next round tries again", step=name, error=str(error))
        except Exception as error:
            # Whatever it is, the other steps go on, and this one too once its cause is gone.
            STEP_FAILURES.labels(name).inc()
            log.error("tiering failed, the next round tries again", step=name, error=str(error), exc_info=True)
        return None
