"""One round of tiering as a process of its own, killed where it is told to.

Every piece of work in a thread, every transaction (before its commit and after it) and every call of the object storage is a
point; at the one that is asked for the process ends as by kill -9.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from db.database import Connection, Database
from db.leases import Lease
from runtime.stopping import Stop
from store.objects.factory import make_object_store
from store.objects.settings import ObjectSettings
from store.segments.settings import SegmentSettings
from store.tiers import cold, collecting, discarding, erasing_files, installation, merging, tiering, writing
from store.tiers.catalogue import TIER, SegmentCatalogue
from store.tiers.erasing import Eraser, Remaining
from store.tiers.progress import unwatched
from store.tiers.settings import TierSettings
from store.tiers.tiering import Tiering
from tests.store_sites import TOPIC
from tests.tier_sites import retention

CLASSES = ({"name": "debug", "days": 200, "max_level": "debug"},)
DONE = "done"


class Points:
    """Counts, and ends the process."""

    def __init__(self, last: int) -> None:
        self._left = last

    def pass_one(self) -> None:
        self._left -= 1
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def around(self, work: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        """Any: whatever the work takes and says."""

        async def passed(*args: Any, **kwargs: Any) -> Any:
            self.pass_one()
            result = await work(*args, **kwargs)
            self.pass_one()
            return result

        return passed

    def put_everywhere(self) -> None:
        for module in (writing, merging, cold, collecting, discarding, tiering, erasing_files, installation):
            module.in_thread = self.around(module.in_thread)  # type: ignore[attr-defined]
        change = SegmentCatalogue.change

        @asynccontextmanager
        async def passed(catalogue: SegmentCatalogue, begun: int | None = None) -> AsyncIterator[Connection]:
            async with change(catalogue, begun) as connection:
                yield connection
                self.pass_one()
            self.pass_one()

        SegmentCatalogue.change = passed  # type: ignore[method-assign,assignment]


async def one_round(url: str, directory: Path, objects: str, now_us: int, points: Points, query: str) -> None:
    """All steps; with a query an erasure instead."""
    points.put_everywhere()
    database = Database(url, application_name="tier under test")
    await database.open()
    lease = Lease(database, TIER, "under test", ttl_s=60)
    await lease.take_over()
    store = make_object_store(ObjectSettings(url=objects))
    store.put = points.around(store.put)  # type: ignore[method-assign,assignment]
    tiers = Tiering(
        database,
        lease,
        directory,
        topic=TOPIC,
        tiers=TierSettings(merge_files_min=2),
        segments=SegmentSettings(),
        policy=retention(*CLASSES),
        store=store,
        stop=Stop(),
        share=1.0,
    )
    await tiers.prepare()
    if query:
        await Eraser(
            database,
            tiers,
            SegmentSettings(),
            topic=TOPIC,
            query=query,
            requested_by="the test",
            copies=[Remaining("the broker", "later")],
            progress=unwatched,
        ).erase()
    else:
        for step in tiers.steps.values():
            await step(now_us)
    assert tiers.failures == 0
    await store.close()
    await database.close()
    print(DONE)


def main() -> None:
    """Arguments: addresses and directories as below, the time, number of the last point, query."""
    url, directory, objects, now_us, last, query = sys.argv[1:]
    asyncio.run(one_round(url, Path(directory), objects, int(now_us), Points(int(last)), query))
