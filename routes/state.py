"""How far the router came, as one row, moved only by who holds the lease at its epoch: who was thought dead and goes on is
refused, and has published at worst what comes again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from db.database import Database, bounded
from db.leases import Lease
from schemas.errors import Overloaded

ROUTES: Final = "routes"
"""Name of the lease."""
_SAVE_S: Final = 10.0
_LOAD: Final = "SELECT positions FROM route_positions WHERE topic = %s"
_SAVE: Final = """
    WITH held AS (SELECT epoch FROM leases WHERE name = 'routes' AND epoch = %s FOR SHARE)
    INSERT INTO route_positions (topic, epoch, positions) SELECT %s, held.epoch, %s::jsonb FROM held
    ON CONFLICT (topic) DO UPDATE
        SET epoch = excluded.epoch, positions = excluded.positions, saved_at = clock_timestamp()"""


class StaleEpoch(Overloaded):
    """Another process fills derived topics now."""


class RouteState:
    """The router's row for one topic of logs."""

    def __init__(self, database: Database, lease: Lease, topic: str) -> None:
        """lease: of the name ROUTES, on the same database."""
        self._database = database
        self._lease = lease
        self._topic = topic
        self._epoch: int | None = None
        """Of the lease when positions were read. One that was lost and taken back since is another's word: positions may have
        moved on meanwhile."""

    async def load(self) -> dict[int, int] | None:
        """partition -> next offset; None where nobody has routed yet. Comes before `save`. Raises DatabaseUnavailable."""
        self._epoch = self._lease.epoch
        async with bounded(_SAVE_S):
            row = await self._database.fetch_one(_LOAD, (self._topic,))
        return None if row is None else {int(partition): offset for partition, offset in row[0].items()}

    async def save(self, positions: Mapping[int, int]) -> None:
        """Everything before these is in its topics. Raises StaleEpoch, DatabaseUnavailable."""
        document = msgspec.json.encode(positions).decode()
        async with bounded(_SAVE_S):
            saved = await self._database.execute(_SAVE, (self._epoch, self._topic, document))
        if not saved:
            raise StaleEpoch
