"""What the broker holds and nobody has stored yet: shown beside the ledger (INV-1)."""

from __future__ import annotations

import asyncio

from broker.factory import make_broker
from broker.port import Broker, Reader
from broker.settings import BrokerSettings
from db.database import Database
from schemas.errors import BrokerUnavailable
from schemas.topics import WRITER_GROUP

_STORED = "SELECT partition, next_offset FROM consumer_offsets WHERE topic = %s"


class UnreadRecords:
    """Partition -> records. Connects at the first call and again after trouble. Safe for many tasks."""

    def __init__(self, settings: BrokerSettings, database: Database) -> None:
        """database: opened and closed by the caller."""
        self._settings = settings
        self._database = database
        self._lock = asyncio.Lock()
        self._broker: Broker | None = None
        self._reader: Reader | None = None

    async def __call__(self) -> dict[int, int]:
        """End offsets less stored offsets. Raises Overloaded while broker or database is away."""
        # Ends first: a record between the two questions counts as stored, so that 0 means everything was.
        ends, partitions = await self._asked()
        unknown = sorted(set(range(partitions)) - ends.keys())
        if unknown:
            raise BrokerUnavailable(f"partitions {unknown} have no leader: what is unread there is not known")
        stored: dict[int, int] = dict(await self._database.fetch_all(_STORED, (self._settings.topic,)))
        return {partition: max(end - stored.get(partition, 0), 0) for partition, end in ends.items()}

    async def ends(self) -> dict[int, int]:
        """End offsets of the partitions that have a leader. Raises Overloaded while the broker is away."""
        return (await self._asked())[0]

    async def _asked(self) -> tuple[dict[int, int], int]:
        """End offsets, and how many partitions there are."""
        async with self._lock:
            if self._broker is None or self._reader is None:
                broker = make_broker(self._settings, self._database)
                await broker.open()
                self._broker, self._reader = broker, await broker.reader(group=WRITER_GROUP)
            return await self._reader.end_offsets(range(self._broker.partitions)), self._broker.partitions

    async def close(self) -> None:
        """Free the connections."""
        if self._reader is not None:
            await self._reader.close()
        if self._broker is not None:
            await self._broker.close()
