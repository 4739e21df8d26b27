"""Upkeep of the store by one writer at a time: whoever holds the `sealer` lease makes chunks, summarises, closes, drops.

Every action is safe to repeat and to kill, so a failure of any kind is logged and counted, and the next round tries again.
Losing the lease stops the actions; two sealers for a moment do no harm.

Concurrency: two tasks. One holds the lease and does what is quick; the other does what may take minutes (indexes,
drops), so that summaries and the broker's upkeep never wait for it. At the stop both get a few seconds, then they are
cancelled. What cannot be taken back is not done while this host's clock and the store's disagree.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import structlog
from prometheus_client import Counter

from db.leases import Lease
from runtime.clock import CLOCKS_APART_US_MAX, Clock
from runtime.stopping import Stop
from runtime.telemetry import REGISTRY
from schemas.errors import Overloaded
from store.port import OpenIndex, Upkeep

log = structlog.get_logger(__name__)

SEALER: Final = "sealer"
UPKEEP_FAILURES: Final = Counter(
    "logfeed_upkeep_failures_total", "Upkeep that failed and is tried again", ["chore"], registry=REGISTRY
)
_ROUND_S: Final = 2.0
_SLOW_ROUND_S: Final = 0.5
_STOP_S: Final = 10.0
"""How long a chore under way may take at the stop before it is cancelled."""
_INDEX_SHARE: Final = {OpenIndex.CORRELATION: 0.1, OpenIndex.METADATA: 0.5}
"""Of one core at most, for each index of what is still written: enough for 50,000 rows a second by correlation id, and for
200,000 by a key of metadata that was asked for. Where more come, the newest are sought more slowly; all are indexed once their
chunk is closed. The store rests longer still (store/parts.py) while writers are short of processors, and while nobody asks."""
_SUM_SHARE: Final = 0.1
"""Of one core at most, for sums of what is still written; what came since the last one is counted row by row."""


@dataclass(slots=True)
class _Chore:
    name: str
    every_s: float
    action: Callable[[], Awaitable[object]]
    is_final: bool = False
    """What it does cannot be taken back."""
    share: float = 1.0
    """It works for this share of the time at most: after a second of work at a tenth it rests for nine."""
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
        self._upkeep = upkeep
        self._clock = clock
        self._stop = stop
        self._is_held = False
        now_us = clock.now_us
        self._quick = [
            _Chore("ensure chunks", 60.0, lambda: upkeep.ensure_chunks(now_us=now_us())),
            _Chore("summarise", 2.0, upkeep.summarise),
            _Chore("close", 15.0, lambda: upkeep.close_due(now_us=now_us()), is_final=True),
            _Chore("roll up ledger", 60.0, lambda: upkeep.roll_up_ledger(now_us=now_us()), is_final=True),
        ]
        if broker_upkeep is not None:
            self._quick.append(_Chore("broker", 5.0, broker_upkeep))
        self._slow = [
            _Chore("finish closed", 15.0, upkeep.finish_closed),
            *(
                _Chore(f"index open by {by}", 1.0, partial(upkeep.index_open, by), share=_INDEX_SHARE[by])
                for by in OpenIndex
            ),
            _Chore("sum open", 5.0, upkeep.sum_open, share=_SUM_SHARE),
            _Chore(
                "drop expired",
                300.0,
                lambda: upkeep.drop_expired(now_us=now_us(), retention_us=retention_us),
                is_final=True,
            ),
        ]

    async def run(self) -> None:
        """Until the stop; returns soon after it, though a chore or the database hangs."""
        tasks = [asyncio.create_task(self._hold_and_do_quick()), asyncio.create_task(self._do_slow())]
        try:
            await self._stop.wait()
            await asyncio.wait(tasks, timeout=_STOP_S)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._quietly("release", self._lease.release)

    async def _hold_and_do_quick(self) -> None:
        while not self._stop.is_set:
            await self._quietly("lease", self._hold)
            await self._do_due(self._quick)
            await self._stop.wait(_ROUND_S)

    async def _do_slow(self) -> None:
        while not self._stop.is_set:
            await self._do_due(self._slow)
            await self._stop.wait(_SLOW_ROUND_S)

    async def _hold(self) -> None:
        held = False
        try:
            held = await self._lease.acquire()
        finally:
            self._is_held = held

    async def _do_due(self, chores: Sequence[_Chore]) -> None:
        for chore in chores:
            now_s = self._clock.monotonic_s()
            if now_s >= chore.due_s and self._is_held and not self._stop.is_set:
                await self._quietly(chore.name, partial(self._do, chore))
                took_s = self._clock.monotonic_s() - now_s
                chore.due_s = now_s + max(chore.every_s, took_s / chore.share)

    async def _do(self, chore: _Chore) -> None:
        if not chore.is_final or await self._clocks_agree(chore.name):
            await chore.action()

    async def _clocks_agree(self, chore: str) -> bool:
        apart_us = self._clock.now_us() - await self._upkeep.clock_us()
        agree = abs(apart_us) <= CLOCKS_APART_US_MAX
        if not agree:
            UPKEEP_FAILURES.labels(chore).inc()
            log.error(
                "upkeep refused: the clocks of this host and of the database disagree",
                chore=chore,
                apart_s=apart_us / 1e6,
            )
        return agree

    async def _quietly(self, name: str, action: Callable[[], Awaitable[object]]) -> None:
        try:
            await action()
        except Overloaded as error:
            UPKEEP_FAILURES.labels(name).inc()
            log.warning("upkeep not done, the next round tries again", chore=name, error=str(error))
        except Exception as error:
            # Whatever it is, the other chores go on, and this one too once its cause is gone.
            UPKEEP_FAILURES.labels(name).inc()
            log.error("upkeep failed, the next round tries again", chore=name, error=str(error), exc_info=True)
