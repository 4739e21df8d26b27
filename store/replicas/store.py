"""Implements `store.port.ReadStore` over a primary and its replicas: who answers is decided for each snapshot.

A replica's snapshot is the primary's of some moments ago: offsets, `visible_through`, catalogue and rows of one moment, so a
page never claims what the replica has not replayed. What must have been reached (a cursor's first page) is compared when the
snapshot is open; a replica that is behind it is passed over, for the next one, at last for the primary. A question that a
replica cannot finish, because replaying ended it or the server went, is lost like one whose table was dropped, and asked again
of the primary.

Concurrency: one event loop. One task looks at all servers each second and judges (choice.py); questions read what it found.
Bounded: a look by LOOK_S_MAX, an opening by OPEN_S_MAX, each question by one attempt at each replica.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

import structlog

from db.database import Database, Error, sqlstate
from db.replication import PrimaryPosition, primary_position
from runtime.stopping import Stop, every
from schemas.errors import DatabaseUnavailable
from schemas.scope import ServiceScope
from store.port import LedgerRow, ServiceSummary, Snapshot, SnapshotLost
from store.postgres_read import PostgresReadStore
from store.replicas import metrics
from store.replicas.choice import Freshness, in_turn
from store.replicas.replica import LOOK_S_MAX, Replica, ReplicaSource

log = structlog.get_logger(__name__)

LOOK_EVERY_S: Final = 1.0
OPEN_S_MAX: Final = 2.0
"""Seconds that a replica may take to open a snapshot before another server is asked."""
_OWN_END: Final = "57014"
"""A statement ran out of the time that we gave it: it would elsewhere too."""


@dataclass(frozen=True, slots=True)
class ReplicaState:
    """Of one replica, as this process sees it."""

    name: str
    problem: str | None
    """Why it is left out; None: it answers questions."""
    behind_s: float | None
    """None: not known."""


class ReplicatedReadStore:
    """Reads where it can be read, and goes on reading while the primary is away."""

    def __init__(
        self,
        database: Database,
        replicas: Sequence[ReplicaSource],
        store_on: Callable[[Database, bool], PostgresReadStore],
        *,
        lag_s_max: float,
    ) -> None:
        """database: the primary's, opened and closed by the caller. replicas: opened and closed here. store_on: reads a
        database; True: it is a replica. lag_s_max: seconds that a replica may be behind."""
        # A connection of its own: a pool that is full of questions says nothing of the server.
        self._looks = Database(database.url, application_name="logfeed query looks", connections_max=1)
        self._primary = store_on(database, False)
        self._replicas = [
            Replica(number, source, store_on(source.database, True)) for number, source in enumerate(replicas)
        ]
        self._freshness = Freshness(lag_s_max=lag_s_max)
        self._last = self._primary
        """What was read last: it knows the files of now."""
        self._stop = Stop()
        self._looking: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Begin to look at the servers. Succeeds while they are away."""
        if self._replicas:
            await self._looks.open()
            for replica in self._replicas:
                await replica.database.open()
            await self.look()
            self._looking = asyncio.create_task(every(LOOK_EVERY_S, self.look, self._stop), name="replicas looks")

    async def close(self) -> None:
        """End what `open` began. Safe to call twice."""
        self._stop.set()
        if self._looking is not None:
            await self._looking
            self._looking = None
        if self._replicas:
            await self._looks.close()
        for replica in self._replicas:
            await replica.database.close()

    def states(self) -> list[ReplicaState]:
        """Of each replica, in the order of the settings."""
        seen = [(replica.name, replica.verdict) for replica in self._replicas]
        return [ReplicaState(name, verdict.problem, verdict.behind_s) for name, verdict in seen]

    async def look(self) -> None:
        """Ask all servers where they are. Replicas first: what they have replayed by then the primary has written."""
        positions = await asyncio.gather(*(replica.position() for replica in self._replicas))
        asked_s = time.monotonic()
        self._freshness.note_primary(await self._primary_position(), asked_s)
        for replica, position in zip(self._replicas, positions, strict=True):
            if isinstance(position, str):
                replica.failed(position)
            else:
                replica.judged(self._freshness.judge(replica.number, position, time.monotonic()))

    async def _primary_position(self) -> PrimaryPosition | None:
        try:
            async with asyncio.timeout(LOOK_S_MAX), self._looks.connection() as connection:
                return await primary_position(connection)
        except (DatabaseUnavailable, Error, OSError, TimeoutError):
            return None

    # --- store.port.ReadStore ---------------------------------------------------------------------------------------

    @asynccontextmanager
    async def snapshot(
        self, *, at_least: Mapping[int, int] | None = None, is_again: bool = False
    ) -> AsyncIterator[Snapshot]:
        """See ReadStore."""
        for replica in self._in_turn(is_again=is_again):
            is_open = False
            replica.open += 1
            try:
                async with replica.store.snapshot() as snapshot:
                    if not _has_reached(snapshot.offsets, at_least):
                        metrics.FALLBACKS.labels("behind").inc()
                        continue
                    is_open = True
                    self._last = replica.store
                    metrics.SNAPSHOTS.labels("replica").inc()
                    yield snapshot
                    return
            except SnapshotLost:
                if is_open:
                    raise
                metrics.FALLBACKS.labels("broken").inc()
            except (DatabaseUnavailable, Error) as error:
                if is_open and not _is_the_servers(error):
                    raise
                metrics.FALLBACKS.labels("broken" if is_open else "away").inc()
                # Replaying may have ended this question alone, with its session; whether the server is there shows the next
                # one that is opened. One that hangs would keep that for long.
                if not is_open or isinstance(error.__cause__, TimeoutError):
                    replica.failed(" ".join(str(error).split())[:300])
                if is_open:
                    raise SnapshotLost(f"the replica {replica.name} did not finish the question") from error
            finally:
                replica.open -= 1
        async with self._primary.snapshot() as snapshot:
            self._last = self._primary
            metrics.SNAPSHOTS.labels("primary").inc()
            yield snapshot

    async def services(self, *, allowed: ServiceScope) -> list[ServiceSummary]:
        """See ReadStore."""
        for replica in self._in_turn():
            try:
                return await replica.store.services(allowed=allowed)
            except (DatabaseUnavailable, Error) as error:
                metrics.FALLBACKS.labels("broken").inc()
                log.info("services were not read from a replica", replica=replica.name, error=str(error))
        return await self._primary.services(allowed=allowed)

    async def ledger(
        self,
        *,
        start_us: int,
        end_us: int,
        allowed: ServiceScope,
        service_names: Iterable[str] = (),
        rows_max: int,
        budget_ms: int,
    ) -> list[LedgerRow]:
        """See ReadStore. Of the primary: it is told beside what is not stored yet, and both have to add up."""
        return await self._primary.ledger(
            start_us=start_us,
            end_us=end_us,
            allowed=allowed,
            service_names=service_names,
            rows_max=rows_max,
            budget_ms=budget_ms,
        )

    async def cursor_secret(self) -> bytes:
        """See ReadStore. Of the primary, which makes it where there is none."""
        return await self._primary.cursor_secret()

    # --- files ------------------------------------------------------------------------------------------------------

    @property
    def has_segments(self) -> bool:
        """See PostgresReadStore."""
        return self._last.has_segments

    def problem(self) -> str | None:
        """See PostgresReadStore."""
        return self._last.problem()

    async def look_at_files(self) -> None:
        """See PostgresReadStore."""
        await self._last.look_at_files()

    def _in_turn(self, *, is_again: bool = False) -> list[Replica]:
        """Replicas that may answer now. A question that was lost on one goes to the primary where that answers."""
        is_away = self._freshness.is_away
        if is_again and not is_away:
            return []
        return [
            self._replicas[number]
            for number in in_turn([replica.verdict for replica in self._replicas], is_away=is_away)
        ]


def _has_reached(offsets: Mapping[int, int], at_least: Mapping[int, int] | None) -> bool:
    return all(offsets.get(partition, 0) >= offset for partition, offset in (at_least or {}).items())


def _is_the_servers(error: BaseException) -> bool:
    """Whether another server may answer what this one did not: connections that broke, servers that went or hang, questions
    that replaying ended. What our own code says has no cause."""
    cause = error.__cause__
    return isinstance(error, Error) or (cause is not None and sqlstate(cause) != _OWN_END)
