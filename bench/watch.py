"""What happens while a load runs, sampled twice a second: how much is stored, how much waits, what each role uses.

Stored logs come from the store itself: `consumer_offsets`, which moves in the transaction of the rows. One request is one
frame, and all requests of a load have the same number of logs. What waits is what the broker has and the store has not.
One task; sampling costs some 5 ms of CPU each time, which counts as the harness's, not as a role's.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from typing import Final

import msgspec

from bench.processes import Roles, usage_of
from bench.quantiles import at
from broker.settings import BrokerSettings
from cli.unread import UnreadRecords
from db.database import Database
from infra.fleet import FULL, Fleet
from schemas.scope import RESERVED_SERVICES

_EVERY_S: Final = 0.5
_STORED: Final = "SELECT coalesce(sum(next_offset), 0)::bigint FROM consumer_offsets WHERE topic = %s"
_BOOKED: Final = """
    SELECT coalesce(sum(count), 0)::bigint FROM (
        SELECT service_name, count FROM ledger WHERE outcome = 'stored'
        UNION ALL SELECT service_name, count FROM ledger_minutes WHERE outcome = 'stored') AS booked
    WHERE service_name <> ALL(%s)"""

Points = list[tuple[float, float]]


class Sample(msgspec.Struct):
    """One moment."""

    at_s: float
    """Of the machine's monotonic clock."""
    stored_frames: int
    unread_frames: int
    cpu_s: dict[str, float]
    """By role, since its processes began."""
    memory_mib: dict[str, float]
    peak_mib: dict[str, float]


class Store:
    """The store's own figures of one fleet."""

    def __init__(self, fleet: Fleet, database: Database) -> None:
        """database: opened and closed by the caller."""
        broker = BrokerSettings(
            kind="kafka" if fleet.profile == FULL else "queue", topic=fleet.topic, partitions=fleet.partitions
        )
        if fleet.kafka is not None:
            broker = broker.model_copy(update={"bootstrap": fleet.kafka.bootstrap})
        self._database = database
        self._topic = fleet.topic
        self._unread = UnreadRecords(broker, database)

    async def stored_frames(self) -> int:
        """Frames whose rows are stored, ever."""
        return await self.number(_STORED, (self._topic,))

    async def booked_logs(self) -> int:
        """Logs that the ledger has as stored, ever; not what Logfeed itself writes down of questions."""
        return await self.number(_BOOKED, (sorted(RESERVED_SERVICES),))

    async def unread_frames(self) -> int:
        """Frames that are acknowledged and not stored."""
        return sum((await self._unread()).values())

    async def close(self) -> None:
        """Free the broker's connections."""
        await self._unread.close()

    async def number(self, statement: str, params: tuple[object, ...] = ()) -> int:
        """The only value of a statement's only row."""
        row = await self._database.fetch_one(statement, params)
        assert row is not None
        return int(row[0])


@contextlib.asynccontextmanager
async def opened_store(fleet: Fleet) -> AsyncIterator[Store]:
    """The store of a running fleet."""
    database = Database(fleet.database_url, application_name="bench watch", connections_max=2)
    await database.open()
    store = Store(fleet, database)
    try:
        yield store
    finally:
        await store.close()
        await database.close()


class Watch:
    """Samples until it is closed."""

    on_sample: Callable[[Sample], None] | None = None
    """Told of each sample at once."""

    def __init__(self, store: Store, roles: Roles) -> None:
        """roles: whose CPU time and memory is sampled."""
        self.samples: list[Sample] = []
        self._store = store
        self._roles = roles
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Watch:
        await self.sample()
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def sample(self) -> Sample:
        """Look now. The order is that a frame is rather counted as waiting than missed."""
        unread, stored = await self._store.unread_frames(), await self._store.stored_frames()
        used = usage_of(self._roles)
        sample = Sample(
            at_s=time.monotonic(),
            stored_frames=stored,
            unread_frames=unread,
            cpu_s={role: each.cpu_s for role, each in used.items()},
            memory_mib={role: each.memory_mib for role, each in used.items()},
            peak_mib={role: each.peak_mib for role, each in used.items()},
        )
        self.samples.append(sample)
        if self.on_sample is not None:
            self.on_sample(sample)
        return sample

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(_EVERY_S)
            await self.sample()


def stored_points(samples: list[Sample]) -> Points:
    """(time, frames stored since the first sample)."""
    first = samples[0].stored_frames
    return [(sample.at_s, float(sample.stored_frames - first)) for sample in samples]


def cpu_between(samples: list[Sample], role: str, start_s: float, end_s: float) -> float:
    """CPU seconds that a role used between two times."""
    points = [(sample.at_s, sample.cpu_s[role]) for sample in samples if role in sample.cpu_s]
    return at(points, end_s) - at(points, start_s)


def peaks_mib(samples: list[Sample]) -> dict[str, float]:
    """Greatest memory of each role."""
    peaks: dict[str, float] = {}
    for sample in samples:
        for role, peak in sample.peak_mib.items():
            peaks[role] = max(peaks.get(role, 0.0), peak)
    return peaks
