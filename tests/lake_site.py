"""A store whose segments a test writes, and the lake over them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import duckdb
import msgspec
from pyiceberg.table import Table

from db.database import Database
from schemas.record import Log
from store.lake.catalog import LakeCatalog
from store.lake.locations import Locations
from store.lake.publishing import Lake
from store.lake.settings import LakeSettings
from store.objects.factory import make_object_store
from store.objects.settings import ObjectSettings
from store.segments.format import SCHEMA
from store.tiers.places import key_of
from store.tiers.segments import SEGMENTS, Segment, SegmentState, Tier, segments_of
from tests.segment_rows import in_order, logs_of, write

_TABLE = """
    INSERT INTO catalogue (table_name, kind, state, segmented_at)
    VALUES (%s, 'chunk', 'finished', CASE WHEN %s THEN clock_timestamp() END)
    ON CONFLICT (table_name) DO UPDATE SET segmented_at = excluded.segmented_at"""
_SEGMENT = """
    INSERT INTO segments (name, state, tier, retention_class, sources, range_start, range_end, rows, bytes, info, epoch)
    VALUES (%s, %s, 'warm', %s, %s, timestamptz 'epoch' + %s * interval '1 microsecond',
        timestamptz 'epoch' + (%s + 1) * interval '1 microsecond', %s, %s, %s::jsonb, 1)"""


class LakeSite:
    """One database with one lake."""

    def __init__(
        self,
        database: Database,
        directory: Path,
        *,
        settings: LakeSettings | None = None,
        objects: ObjectSettings | None = None,
    ) -> None:
        """directory: of segments."""
        directory.mkdir(exist_ok=True)
        self.database, self.directory = database, directory
        self.settings, self.objects = settings or LakeSettings(), objects or ObjectSettings()
        self.locations = Locations.of(self.settings, self.objects, directory)
        self.lake = Lake(database, self.settings, self.objects, self.locations)

    async def add(
        self,
        name: str,
        of: Sequence[Log],
        *,
        state: SegmentState = SegmentState.SERVING,
        sources: Sequence[str] = (),
        segmented: bool = True,
    ) -> list[str]:
        """Write segments of these logs, which are in order, and enter them. Returns their names.

        sources: default: a table of the segment's name. segmented: whether these tables' rows are all in segments.
        """
        sources = list(sources) or [f"chunk_{name}"]
        if state is SegmentState.WRITTEN:
            for source in sources:
                await self.database.execute(_TABLE, (source, segmented))
        written = write(self.directory, of, name)
        for one in written:
            info = one.info
            await self.database.execute(
                _SEGMENT,
                (
                    one.name,
                    state,
                    one.retention_class,
                    sources,
                    info.first_us,
                    info.last_us,
                    info.rows,
                    info.bytes,
                    msgspec.json.encode(info).decode(),
                ),
            )
        return [one.name for one in written]

    async def set(self, names: Iterable[str], state: SegmentState) -> None:
        """As whoever moves segments does it."""
        await self.database.execute("UPDATE segments SET state = %s WHERE name = ANY(%s)", (state, list(names)))

    async def make_cold(self, names: Sequence[str]) -> None:
        """Put the files into object storage and take them from the directory."""
        rows = await self.database.fetch_all(SEGMENTS.format("name = ANY(%s)"), (list(names),))
        store = make_object_store(self.objects)
        for segment in segments_of(rows):
            await store.put(key_of(segment), self.directory / segment.name)
            (self.directory / segment.name).unlink()
        await store.close()
        await self.database.execute("UPDATE segments SET tier = %s WHERE name = ANY(%s)", (Tier.COLD, list(names)))

    async def segments(self) -> list[Segment]:
        """All that there are."""
        return list(segments_of(await self.database.fetch_all(SEGMENTS.format("TRUE"))))

    def table(self) -> Table:
        """The table as another program finds it."""
        warehouse = self.locations.warehouse
        table = LakeCatalog(self.database.url, self.settings, self.objects, warehouse=warehouse).find()
        assert table is not None
        return table

    def logs(self, row_filter: str | None = None) -> list[Log]:
        """All rows of the table, in order."""
        table = self.table()
        scan = table.scan() if row_filter is None else table.scan(row_filter=row_filter)
        return in_order(logs_of(scan.to_arrow().select(SCHEMA.names)))

    def planned(self) -> list[str]:
        """URLs of the files that a question about everything reads."""
        return sorted(task.file.file_path for task in self.table().scan().plan_files())

    def logs_by_duckdb(self) -> list[Log]:
        """As DuckDB reads the files that the plan names."""
        paths = [url.removeprefix("file://") for url in self.planned()]
        columns = ", ".join(SCHEMA.names)
        rows = duckdb.read_parquet(paths).select(columns).to_arrow_table()
        return in_order(logs_of(rows))
