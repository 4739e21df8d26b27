"""One router at a time: follows the broker, publishes each log to its topics, saves how far it came.

Whoever holds the lease `routes` reads on from the saved positions. Positions are saved once everything before them was
acknowledged, so a router that is killed, or in any doubt, publishes what was not saved once more: at least once, and with the
same ids. The order of a source partition is kept within each key.

Concurrency: one event loop, and the tasks of live/leading.py. Memory: what the follower holds for
one subscriber, and one piece of records. While the broker or the database is away nothing is read on; nothing is lost while the
broker keeps it, and what it did not keep is counted and said.
"""

from __future__ import annotations

import asyncio
import math
from typing import Final

import structlog

from broker.port import Broker
from broker.topic_names import SERVICE_TOPICS
from broker.topics import TopicRecord, Topics
from db.database import Database
from db.leases import Lease
from live.arrivals import Arrivals
from live.events import Batch, Event, Gap
from live.follow import Follower
from live.leading import LEASE_TTL_S, Leading
from routes import metrics
from routes.settings import RouteSettings, RoutingSettings
from routes.state import ROUTES, RouteState
from routes.table import RouteTable
from runtime.clock import Clock
from runtime.sparing import SparingLog
from runtime.stopping import Stop
from schemas.errors import Overloaded

log = structlog.get_logger(__name__)

GROUP: Final = "logfeed-routes"
_LINGER_S: Final = 0.02
"""How long a piece waits for more."""
_IDLE_S: Final = 0.25
_TURN_LOGS: Final = 500
"""After so many the event loop serves others: 5 ms."""
_UPKEEP_S: Final = 60.0
_BEGIN_S: Final = 60.0


class RouteRole:
    """Leads while it holds the lease."""

    def __init__(
        self,
        routes: dict[str, RouteSettings],
        settings: RoutingSettings,
        *,
        database: Database,
        broker: Broker,
        follower: Follower,
        topics: Topics,
        clock: Clock,
        stop: Stop,
    ) -> None:
        """database, broker: opened and closed by the caller. topics: closed by the caller. follower: run here."""
        self._routes = routes
        self._settings = settings
        self._broker = broker
        self._follower = follower
        self._topics = topics
        self._clock = clock
        self._lease = Lease(database, ROUTES, settings.name, ttl_s=LEASE_TTL_S)
        self._state = RouteState(database, self._lease, broker.topic)
        self._leading = Leading(
            self._lease,
            follower,
            stop,
            what="routing",
            session=self._lead,
            leads=metrics.LEADS,
            failures=metrics.FAILURES,
        )

    @property
    def problem(self) -> str | None:
        """What keeps derived topics from being filled here, for people; None also while another process leads."""
        return self._leading.problem

    async def run(self) -> None:
        """Until the stop; returns soon after it, though the database or the broker hangs."""
        await self._leading.run()

    async def _lead(self) -> None:
        """Until the lease is lost, or the stop. Raises Overloaded after any doubt."""
        epoch = self._lease.epoch
        try:
            async with asyncio.timeout(_BEGIN_S):
                session = await self._begin()
        except TimeoutError as error:
            raise Overloaded("the broker or the database did not answer in time") from error
        log.info("filling derived topics", positions=session.positions)
        self._leading.problem = None
        async with self._follower.subscribe(session.positions) as events:
            arrivals = Arrivals(aiter(events))
            try:
                while self._leading.may_lead(epoch):
                    await session.step(arrivals)
                    self._leading.problem = None
            finally:
                await arrivals.end()
        await session.finish()

    async def _begin(self) -> _Session:
        positions = await self._state.load()
        if positions is None:
            positions = {}
            if self._settings.begin == "now":
                reader = await self._broker.reader(group=GROUP)
                try:
                    positions = await reader.end_offsets(range(self._broker.partitions))
                finally:
                    await reader.close()
            await self._state.save(positions)
        there = [name for name in await self._topics.names() if name.startswith(SERVICE_TOPICS)]
        table = RouteTable(self._routes, self._settings, known=there)
        session = _Session(self._settings, table, self._topics, self._state, self._clock, positions)
        await session.ensure(table.fixed)
        return session


class _Session:
    """What one leader holds from its beginning to its end."""

    def __init__(
        self,
        settings: RoutingSettings,
        table: RouteTable,
        topics: Topics,
        state: RouteState,
        clock: Clock,
        positions: dict[int, int],
    ) -> None:
        self._settings = settings
        self._table = table
        self._topics = topics
        self._state = state
        self._clock = clock
        self.positions = positions
        self._ensured: set[str] = set()
        self._piece: list[TopicRecord] = []
        self._piece_bytes = 0
        self._is_ahead = False
        """More was read than was saved."""
        self._saved_s = clock.monotonic_s()
        self._kept_up_s = -math.inf
        self._repeated = SparingLog(log)

    async def ensure(self, names: list[str]) -> None:
        """The topics are there. Raises ConfigurationError, BrokerUnavailable."""
        if missing := set(names) - self._ensured:
            await self._topics.ensure(missing)
            self._ensured |= missing

    async def step(self, arrivals: Arrivals) -> None:
        """Take the next record if one comes soon, publish and save when that is due. Raises Overloaded."""
        event = await arrivals.next(_LINGER_S if self._piece else _IDLE_S)
        if event is not None:
            await self._take(event)
        now_s = self._clock.monotonic_s()
        is_due = self._is_ahead and now_s - self._saved_s >= self._settings.save_s
        if is_due or (self._piece and (event is None or self._piece_bytes >= self._settings.piece_bytes_max)):
            await self.finish()
        if now_s - self._kept_up_s >= _UPKEEP_S:
            self._kept_up_s = now_s
            await self._topics.upkeep()

    async def finish(self) -> None:
        """Publish what there is, then save how far that is."""
        await self._publish()
        if self._is_ahead:
            await self._state.save(self.positions)
            self._is_ahead = False
        self._saved_s = self._clock.monotonic_s()

    async def _take(self, event: Event) -> None:
        if isinstance(event, Gap):
            metrics.GAPS.inc()
            log.warning(
                "records were gone before they were routed", partition=event.partition, reason=str(event.reason)
            )
        else:
            await self._route(event)
        self.positions[event.partition] = event.next_offset
        self._is_ahead = True

    async def _route(self, batch: Batch) -> None:
        unrouted = self._table.unrouted
        for number, records in enumerate(self._table.records(batch), start=1):
            self._piece += records
            self._piece_bytes += sum(record.size_bytes for record in records)
            if self._piece_bytes >= self._settings.piece_bytes_max:
                await self._publish()  # not saved: the batch is not whole yet
            elif number % _TURN_LOGS == 0:
                await asyncio.sleep(0)
        metrics.LOGS.inc(len(batch.logs))
        metrics.BEHIND.set(max(0.0, self._clock.now_us() / 1e6 - batch.append_ms / 1e3))
        if more := self._table.unrouted - unrouted:
            metrics.UNROUTED.inc(more)
            self._repeated.warning(
                "services go without a topic",
                error="there are as many topics of services as there may be",
                service_topics_max=self._settings.service_topics_max,
            )

    async def _publish(self) -> None:
        if not self._piece:
            return
        await self.ensure([record.topic for record in self._piece])
        await self._topics.publish(self._piece)
        metrics.RECORDS.inc(len(self._piece))
        self._piece, self._piece_bytes = [], 0
