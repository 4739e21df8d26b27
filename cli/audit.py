"""The audit log's way to the broker: an ingest service of its own that no route leads to, without the filters and rates that
people configure, so that nothing switches it off but `access.audit`."""

from __future__ import annotations

import asyncio
from typing import Final

import orjson

from access.audit import AUDITOR, AuditLog
from broker.port import Broker
from cli.settings import Settings
from db.database import Database
from ingest.filters.config import ServiceRates
from ingest.main import IngestService
from ingest.settings import KeyRate
from runtime.clock import SystemClock
from runtime.stopping import Stop

_UNLIMITED: Final = {"filters": (), "service_rates": ServiceRates(), "key_rate": KeyRate()}


class AuditTrail:
    """The audit log of one process, with what publishes it. Before its start entries wait."""

    def __init__(self, settings: Settings, broker: Broker, database: Database, *, instance: str) -> None:
        """broker, database: opened and closed by the caller. instance: stable name of this process."""
        clock = SystemClock()
        self._ingest = IngestService(
            settings.ingest.model_copy(update=_UNLIMITED),
            broker=broker,
            database=database,
            instance=f"{instance}:audit",
            clock=clock,
        )
        self.log = AuditLog(self._publish, clock)
        self._stop = Stop()
        self._running: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to publish; the broker is open."""
        await self._ingest.start()
        self._running = asyncio.create_task(self.log.run(self._stop), name="audit log")

    async def stop(self) -> None:
        """Publish what waits, then end. Harmless without a start."""
        self._stop.set()
        if self._running is not None:
            await self._running
            self._running = None
        await self._ingest.stop()

    async def _publish(self, lines: bytes, key: str) -> int:
        self._ingest.check(AUDITOR)
        hold = self._ingest.in_flight.hold(AUDITOR.subject)
        hold.grow(len(lines))
        answer = await self._ingest.take_batch(lines, hold, AUDITOR, key, return_ids=False)
        rejected: int = orjson.loads(answer.body)["rejected_count"]
        return rejected
