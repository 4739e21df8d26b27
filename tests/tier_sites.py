"""A store whose rows move between tiers, seen from outside: rows are counted from tables and files, by the catalogue's word."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from db.database import Database
from db.leases import Lease
from db.migrations import Layout
from runtime.stopping import Stop
from store.objects.port import ObjectStore
from store.port import EncodedRow, StorePlan
from store.segments.settings import SegmentSettings
from store.settings import StoreSettings
from store.tiers.catalogue import TIER
from store.tiers.places import MARKER, key_of
from store.tiers.retention import RetentionPolicy
from store.tiers.segments import SEGMENTS, Segment, Tier, segments_of
from store.tiers.settings import RetentionClass, RetentionSettings, TierSettings
from store.tiers.tiering import Tiering
from tests.store_sites import HOUR_US, TOPIC, PostgresSite, booked, postgres_site, prepared

DAY_US = 24 * HOUR_US
CHUNK_US = 6 * HOUR_US


def retention(*classes: dict[str, Any], default_days: int = 400) -> RetentionPolicy:
    """Any: fields of RetentionClass."""
    found = RetentionSettings(classes=tuple(RetentionClass(**each) for each in classes))
    return RetentionPolicy.of(found, default_days=default_days)


@dataclass
class TierSite:
    """A hot store with a directory of segments beside it."""

    hot: PostgresSite
    directory: Path
    store: ObjectStore | None = None
    tiers: TierSettings = field(default_factory=TierSettings)
    policy: RetentionPolicy = field(default_factory=retention)
    segments: SegmentSettings = field(default_factory=SegmentSettings)

    @property
    def database(self) -> Database:
        return self.hot.database

    async def leader(self, owner: str = "a") -> Tiering:
        """A process that has just got the lease, whoever had it."""
        lease = Lease(self.database, TIER, owner, ttl_s=60)
        await lease.take_over()
        tiering = Tiering(
            self.database,
            lease,
            self.directory,
            topic=TOPIC,
            tiers=self.tiers,
            segments=self.segments,
            policy=self.policy,
            store=self.store,
            stop=Stop(),
            share=1.0,
        )
        await tiering.prepare()
        return tiering

    async def store_rows(self, hot: Sequence[EncodedRow], late: Sequence[EncodedRow] = ()) -> None:
        async with self.hot.writer.begin() as batch:
            await batch.commit(StorePlan(hot=[*hot], late=[*late], ledger=booked(len(hot) + len(late))))

    async def close_to(self, end_us: int) -> None:
        """Chunks that end by then are finished."""
        await self.hot.process().claim("a", want=3, ttl_s=60)
        await self.hot.see(end_us + HOUR_US)
        await self.hot.upkeep.close_due(now_us=end_us + HOUR_US)
        await self.hot.upkeep.finish_closed()

    async def border_us(self) -> int:
        async with self.hot.writer.begin() as batch:
            return batch.border.closed_before_us

    async def all_segments(self) -> list[Segment]:
        return list(segments_of(await self.database.fetch_all(SEGMENTS.format("TRUE"))))

    async def states(self) -> Counter[tuple[str, str]]:
        """(state, tier) -> how many segments."""
        return Counter((str(each.state), str(each.tier)) for each in await self.all_segments())

    async def ids(self) -> list[int]:
        """Of all rows, by the catalogue's word: its tables, and files that serve; files where readers get them."""
        async with self.database.transaction(snapshot=True) as connection:
            tables = await (await connection.execute("SELECT table_name FROM catalogue")).fetchall()
            serving = await (await connection.execute(SEGMENTS.format("state = 'serving'").encode())).fetchall()
            found = []
            for (table,) in tables:
                rows = await (await connection.execute(f"SELECT id FROM {table}".encode())).fetchall()
                found += [log_id for (log_id,) in rows]
        for segment in segments_of(serving):
            found += await self.ids_in(segment)
        return sorted(found)

    async def ids_in(self, segment: Segment) -> list[int]:
        path = self.directory / segment.name
        if segment.tier is Tier.COLD:
            assert self.store is not None
            path = self.directory.parent / f"fetched-{segment.name}"
            await self.store.get(key_of(segment), path)
        ids: list[int] = pq.read_table(path).column("id").to_pylist()
        return ids

    def files(self) -> list[str]:
        """Names of everything in the directory of segments and in that of filters; the marker is left out."""
        return sorted(path.name for path in self.directory.rglob("*") if path.is_file() and path.name != MARKER)


@asynccontextmanager
async def tier_site(
    url: str, layout: Layout, directory: Path, settings: StoreSettings | None = None, **options: Any
) -> AsyncIterator[TierSite]:
    """On a migrated database, with chunks for now. options: fields of TierSite."""
    async with postgres_site(url, layout, settings) as hot:
        await prepared(hot)
        yield TierSite(hot, directory, **options)
