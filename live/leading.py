"""One process at a time that follows the broker and saves what it makes of it: who leads, who stands by, what follows trouble.

Whoever holds the lease leads: one session after another, each from what was saved. After any doubt a session ends and the next
one begins from the database. A lease is advice (db/leases.py): what a session saves must prove its epoch.

Concurrency: one event loop. One task holds the lease, one follows the broker, one leads.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import structlog
from prometheus_client import Counter, Gauge

from db.leases import Lease
from live.follow import Follower
from runtime.sparing import SparingLog
from runtime.stopping import Stop
from schemas.errors import ConfigurationError, Overloaded

log = structlog.get_logger(__name__)

LEASE_TTL_S: Final = 15.0
_RENEW_S: Final = 2.0
_BACKOFF_S_MAX: Final = 5.0
_STOP_S: Final = 10.0


class Leading:
    """Leads while it holds the lease."""

    def __init__(
        self,
        lease: Lease,
        follower: Follower,
        stop: Stop,
        *,
        what: str,
        session: Callable[[], Awaitable[None]],
        leads: Gauge,
        failures: Counter,
    ) -> None:
        """follower: run here. what: is done, as people call it (alerting). session: leads until `may_lead` is false of the
        lease's epoch that it began with; raises Overloaded after any doubt. leads, failures: metrics."""
        self._lease = lease
        self._follower = follower
        self._stop = stop
        self._what = what
        self._session = session
        self._leads = leads
        self._failures = failures
        self._held = asyncio.Event()
        self._repeated = SparingLog(log)
        self.problem: str | None = f"{what} is starting"
        """What keeps the work from being done here, for people; None also while another process leads. The session sets it
        back."""

    def may_lead(self, epoch: int | None) -> bool:
        """Whether a session that began with this epoch of the lease goes on."""
        return self._held.is_set() and self._lease.epoch == epoch and not self._stop.is_set

    async def run(self) -> None:
        """Until the stop; returns soon after it, though the database or the broker hangs."""
        tasks = [
            asyncio.create_task(self._hold(), name=f"{self._what}: lease"),
            asyncio.create_task(self._follower.run(self._stop), name=f"{self._what}: follower"),
            asyncio.create_task(self._work(), name=f"{self._what}: leader"),
        ]
        try:
            stopping = asyncio.create_task(self._stop.wait())
            await asyncio.wait({stopping, *tasks}, return_when=asyncio.FIRST_COMPLETED)
            if not self._stop.is_set:
                for task in tasks:
                    if task.done():
                        task.result()
            stopping.cancel()
            await asyncio.wait(tasks, timeout=_STOP_S)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._leads.set(0)
            try:
                await self._lease.release()
            except Overloaded as error:
                log.warning("the lease was not given up, it will run out", error=str(error))

    async def _hold(self) -> None:
        while not self._stop.is_set:
            try:
                held = await self._lease.acquire()
            except Overloaded as error:
                self._repeated.warning("the lease cannot be held now", error=str(error))
                self.problem = f"{self._what} waits: {error}"
                held = False
            else:
                if not held:
                    self.problem = None
            if held != self._held.is_set():
                log.info("leading" if held else "standing by: another process leads", what=self._what)
            (self._held.set if held else self._held.clear)()
            self._leads.set(held)
            await self._stop.wait(_RENEW_S)

    async def _work(self) -> None:
        backoff_s = 0.1
        while not self._stop.is_set:
            if not self._held.is_set():
                await self._stop.wait(0.1)
                continue
            try:
                await self._session()
                backoff_s = 0.1
                continue
            except Overloaded as error:
                self._repeated.warning("trying again", what=self._what, error=str(error))
                self.problem = f"{self._what} waits: {error}"
            except ConfigurationError as error:
                # A topic that is wrongly set, say: whoever owns it may put it right while we try.
                self._repeated.warning("cannot go on as it is set", what=self._what, error=str(error))
                self.problem = str(error)
                backoff_s = _BACKOFF_S_MAX
            except Exception as error:
                # Whatever it is, what was saved is whole: begin again from there.
                log.error("failed, trying again", what=self._what, error=repr(error), exc_info=True)
                self.problem = f"{self._what} fails: {error!r}"
            self._failures.inc()
            await self._stop.wait(backoff_s)
            backoff_s = min(backoff_s * 2, _BACKOFF_S_MAX)
