"""One leader at a time: reads the broker, counts, saves.

Whoever leads (live/leading.py) reads on from the saved positions with the saved miner, or from the oldest record where nobody
ever saved. Every few seconds counts, what became of patterns, and the positions they belong to are one transaction
(store/patterns/state.py). After any doubt, a refused or unknown save above all, nothing in memory counts: the session ends and
the next one begins from the database. So each log is counted once, whatever is killed.

Nothing is sampled: who cannot keep up lags, and says how far counts go. Records that the broker deletes meanwhile are a gap,
which is saved and told with every figure about its time.

Concurrency: one event loop; one task leads, and alone touches the tally. While the database is away nothing is read: it is read
later, while the broker keeps it.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from typing import Final

import structlog

from broker.port import Broker, Reader
from db.database import Database
from db.leases import Lease
from live.events import Event, Gap
from live.follow import Follower
from live.leading import LEASE_TTL_S, Leading
from live.reading import Reading
from mining import metrics
from mining.settings import MiningSettings
from mining.tally import Tally
from patterns.miner import InvalidSnapshot
from runtime.clock import Clock
from runtime.stopping import Stop
from schemas.errors import Overloaded
from store.patterns.state import PATTERNS, GapInCounts, PatternState, Saved

log = structlog.get_logger(__name__)

GROUP: Final = "logfeed-patterns"
_STEP_S: Final = 0.25
_LOOK_S: Final = 1.0
_PURGE_S: Final = 600.0
_PICTURE_S: Final = 600.0
"""How old a saved snapshot may become though nothing was learnt: which patterns were used lately decides which ones go."""


class MiningRole:
    """Leads while it holds the lease."""

    def __init__(
        self,
        settings: MiningSettings,
        *,
        topic: str,
        database: Database,
        broker: Broker,
        follower: Follower,
        clock: Clock,
        stop: Stop,
    ) -> None:
        """database, broker: opened and closed by the caller. follower: run here."""
        self._settings = settings
        self._topic = topic
        self._database = database
        self._broker = broker
        self._follower = follower
        self._clock = clock
        self._lease = Lease(database, PATTERNS, settings.name, ttl_s=LEASE_TTL_S)
        self._leading = Leading(
            self._lease,
            follower,
            stop,
            what="counting patterns",
            session=self._lead,
            leads=metrics.LEADS,
            failures=metrics.FAILURES,
        )

    @property
    def problem(self) -> str | None:
        """What keeps patterns from being counted here, for people; None also while another process leads."""
        return self._leading.problem

    async def run(self) -> None:
        """Until the stop; returns soon after it, though the database or the broker hangs."""
        await self._leading.run()

    async def _lead(self) -> None:
        """Until the lease is lost, or the stop. Raises Overloaded after any doubt."""
        epoch = self._lease.epoch
        reader = await self._broker.reader(group=GROUP)
        try:
            state = PatternState(self._database, self._lease, self._topic)
            session = _Session(self._settings, state, await state.load(), self._broker, reader, self._clock)
            async with self._follower.subscribe(session.reading.positions) as events:
                try:
                    while self._leading.may_lead(epoch):
                        await session.step(aiter(events))
                        self._leading.problem = None
                finally:
                    await session.reading.end()
            await session.save()
        except TimeoutError as error:
            raise Overloaded("the broker or the database did not answer in time") from error
        finally:
            await reader.close()


class _Session:
    """What one leader holds from its beginning to its end."""

    def __init__(
        self,
        settings: MiningSettings,
        state: PatternState,
        saved: Saved,
        broker: Broker,
        reader: Reader,
        clock: Clock,
    ) -> None:
        self._settings = settings
        self._state = state
        self._clock = clock
        try:
            self._tally = Tally(saved.snapshot)
        except InvalidSnapshot as error:
            log.warning("what was learnt cannot be read, learning anew", error=str(error))
            self._tally = Tally()
        self.reading = Reading(
            broker,
            reader,
            clock,
            positions=saved.positions,
            read_us=saved.read_us,
            stall_s=settings.stall_s,
            on_gap=self._note_gap,
        )
        self._from_us = 0
        """When what was read first was appended, or looked for in vain; 0: nothing was read yet."""
        self._gaps: list[GapInCounts] = []
        self._looked_s = self._purged_s = -math.inf
        self._saved_s = self._pictured_s = clock.monotonic_s()
        self._is_ahead = False
        """More was read than was saved."""
        log.info("counting patterns", known=self._known(), positions=saved.positions)

    async def step(self, events: AsyncIterator[Event]) -> None:
        """Take the next record, if one comes soon; save when it is time. Raises Overloaded."""
        logs = await self.reading.next(events, wait_s=_STEP_S)
        if logs is not None:
            self._is_ahead = True
            metrics.LOGS.inc(self._tally.take(logs))
        if not self._from_us:
            self._from_us = min(self.reading.read_us.values(), default=0)
        now_s = self._clock.monotonic_s()
        if now_s - self._looked_s >= _LOOK_S:
            self._looked_s = now_s
            await self.reading.look()
            if watermark_us := self.reading.watermark_us:
                metrics.BEHIND.set(max(0.0, (self._clock.now_us() - watermark_us) / 1e6))
        if self._tally.is_full or now_s - self._saved_s >= self._settings.save_s:
            await self.save()
        if now_s - self._purged_s >= _PURGE_S or self._state.added > self._settings.templates_max // 2:
            await self._state.purge(
                self._clock.now_us(),
                minutes_days=self._settings.minutes_days,
                retention_days=self._settings.retention_days,
                rows_max=self._settings.rows_max,
                templates_max=self._settings.templates_max,
            )
            self._purged_s = self._clock.monotonic_s()

    async def save(self) -> None:
        """Save all that was read, so that nobody counts it again. Raises Overloaded."""
        now_s = self._clock.monotonic_s()
        is_old = self._is_ahead and now_s - self._pictured_s >= _PICTURE_S
        counted = self._tally.drain(with_snapshot=is_old)
        await self._state.save(
            counted,
            positions=self.reading.positions,
            read_us=self.reading.read_us,
            counted_from_us=self._from_us,
            counted_through_us=self.reading.watermark_us,
            gaps=self._gaps,
        )
        if counted.snapshot is not None:
            self._pictured_s = now_s
        self._saved_s, self._is_ahead, self._gaps = now_s, False, []
        metrics.KNOWN.set(self._known())
        metrics.EVICTED.set(self._tally.miner.evicted_templates)

    def _known(self) -> int:
        return sum(1 for _ in self._tally.miner.templates())

    def _note_gap(self, gap: Gap) -> None:
        metrics.GAPS.inc()
        log.warning("records were gone before they were counted", partition=gap.partition, reason=str(gap.reason))
        # What the partition was read to is the only thing that is known of their time.
        from_us = self.reading.read_us.get(gap.partition, 0)
        if from_us:
            self._gaps.append(GapInCounts(from_us, self._clock.now_us(), str(gap.reason)))
