"""Upkeep of the store by one writer at a time: whoever holds the `sealer` lease makes chunks, summarises, closes, drops.

Every action is safe to repeat and to kill, so a failure is logged and the next round tries again. Losing the lease stops
the actions; two sealers for a moment do no harm.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

import structlog

from db.leases import Lease
from runtime.clock import Clock
from runtime.stopping import Stop
from schemas.errors import LogfeedError
from store.port import Upkeep

log = structlog.get_logger(__name__)

SEALER: Final = "sealer"
_ROUND_S: Final = 2.0


@dataclass(slots=True)
class _Chore:
    name: str
    every_s: float
    action: Callable[[], Awaitable[object]]
    due_s: float = 0.0


class Sealer:
    """Runs the chores while it holds the lease."""

    def __init__(
        self,
        *,
        lease: Lease,
        upkeep: Upkeep,
        broker_upkeep: Callable[[], Awaitable[None]] | None,
        retention_us: int,
        clock: Clock,
        stop: Stop,
    ) -> None:
        """broker_upkeep: what the broker's adapter wants done every few seconds, or None."""
        self._lease = lease
        self._clock = clock
        self._stop = stop
        now_us = clock.now_us
        self._chores = [
            _Chore("ensure chunks", 60.0, lambda: upkeep.ensure_chunks(now_us=now_us())),
            _Chore("summarise", 2.0, upkeep.summarise),
            _Chore("close", 15.0, lambda: upkeep.close_due(now_us=now_us())),
            _Chore("finish closed", 15.0, upkeep.finish_closed),
            _Chore("drop expired", 300.0, lambda: upkeep.drop_expired(now_us=now_us(), retention_us=retention_us)),
            _Chore("roll up ledger", 60.0, lambda: upkeep.roll_up_ledger(now_us=now_us())),
        ]
        if broker_upkeep is not None:
            self._chores.append(_Chore("broker", 5.0, broker_upkeep))

    async def run(self) -> None:
        """Until the stop."""
        try:
            while not self._stop.is_set:
                await self._round()
                await self._stop.wait(_ROUND_S)
        finally:
            await self._quietly("release", self._lease.release)

    async def _round(self) -> None:
        try:
            if not await self._lease.acquire():
                return
        except LogfeedError as error:
            log.warning("sealer lease not held", error=str(error))
            return
        for chore in self._chores:
            now_s = self._clock.monotonic_s()
            if now_s >= chore.due_s and not self._stop.is_set:
                chore.due_s = now_s + chore.every_s
                await self._quietly(chore.name, chore.action)

    async def _quietly(self, name: str, action: Callable[[], Awaitable[object]]) -> None:
        try:
            await action()
        except LogfeedError as error:
            log.warning("upkeep not done, next round tries again", chore=name, error=str(error))
