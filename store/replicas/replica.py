"""One replica: its pool, what is read of it, what was last seen of it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import Final

import structlog

from db.database import Database, Error
from db.replication import ReplicaPosition, replica_position
from schemas.errors import DatabaseUnavailable
from store.postgres_read import PostgresReadStore
from store.replicas import metrics
from store.replicas.choice import Verdict

log = structlog.get_logger(__name__)

LOOK_S_MAX: Final = 2.0
"""Seconds that a server may take to say where it is."""
_NOT_SEEN: Final = Verdict("it was not asked yet")


@dataclass(frozen=True, slots=True)
class ReplicaSource:
    """Where a replica is."""

    name: str
    """host:port, for people."""
    database: Database
    """Not opened."""


class Replica:
    """Looked at by one task; used by many. One event loop."""

    def __init__(self, number: int, source: ReplicaSource, store: PostgresReadStore) -> None:
        """number: in the settings, from 0 on. store: reads source.database."""
        self.number = number
        self.name = source.name
        self.database = source.database
        self.store = store
        self.open = 0
        """Snapshots on it now."""
        self._verdict = _NOT_SEEN
        self._label = str(number + 1)

    @property
    def verdict(self) -> Verdict:
        """What is known of it now."""
        return replace(self._verdict, open=self.open)

    async def position(self) -> ReplicaPosition | str:
        """Where it is, or why it does not say so. Takes LOOK_S_MAX at most."""
        try:
            async with asyncio.timeout(LOOK_S_MAX), self.database.connection() as connection:
                return await replica_position(connection)
        except TimeoutError:
            return f"it did not answer within {LOOK_S_MAX:g} s"
        except (DatabaseUnavailable, Error, OSError) as error:
            return " ".join(str(error).split())[:300]

    def judged(self, verdict: Verdict) -> None:
        """From now on this holds. A change is told."""
        before, self._verdict = self._verdict, verdict
        metrics.IS_USED.labels(self._label).set(verdict.problem is None)
        metrics.BEHIND_S.labels(self._label).set(float("nan") if verdict.behind_s is None else verdict.behind_s)
        if verdict.problem is None and before.problem is not None:
            log.info("a replica answers questions", replica=self.name)
        elif verdict.problem is not None and (before.problem is None or before is _NOT_SEEN):
            log.warning("a replica is left out", replica=self.name, reason=verdict.problem)

    def failed(self, reason: str) -> None:
        """It is left out until the next look finds it well."""
        self.judged(Verdict(reason))
