"""What is where, what is due, and who leads: for people. One moment of the database."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec

from db.database import Database
from store.steps import US
from store.tiers.hot import HotWindows
from store.tiers.retention import RetentionPolicy
from store.tiers.segments import SEGMENTS, Segment, SegmentState, Tier, segments_of
from store.tiers.settings import TierSettings

_DAY_US: Final = 86_400_000_000
_TABLES: Final = f"""
    SELECT table_name, state, {US.format("range_start")}, {US.format("range_end")},
        coalesce(rows, greatest(0, (SELECT reltuples FROM pg_class WHERE oid = to_regclass(table_name)))::bigint),
        coalesce(pg_total_relation_size(to_regclass(table_name)), 0), segmented_at IS NOT NULL
    FROM catalogue ORDER BY range_start"""
_LEADER: Final = f"""
    SELECT owner, epoch, lease_until > clock_timestamp(), {US.format("clock_timestamp()")}
    FROM (SELECT FROM border) AS always LEFT JOIN leases ON name = 'tier'"""


class Stock(msgspec.Struct, frozen=True):
    """What one tier has of one retention class. Tables are hot and of all classes; segments that retired are in none."""

    tier: str
    retention_class: str
    pieces: int
    """Tables or files."""
    rows: int
    """Of tables that are still written: about."""
    bytes: int
    oldest_us: int | None
    newest_us: int | None
    """Inclusive."""


class TierStatus(msgspec.Struct, frozen=True):
    """All of it."""

    stocks: tuple[Stock, ...]
    leader: str | None
    """Name of the process that has the lease; None: nobody."""
    epoch: int
    tables_to_write: int
    rows_to_write: int
    tables_to_switch: int
    segments_to_cool: int
    segments_past_age: int
    segments_to_remove: int
    """Retired; their files go ten minutes after that."""


async def tier_status(
    database: Database, tiers: TierSettings, policy: RetentionPolicy, *, has_objects: bool
) -> TierStatus:
    """has_objects: whether there is object storage to move to. Raises DatabaseUnavailable."""
    async with database.transaction(snapshot=True) as connection:
        owner, epoch, is_held, now_us = (await (await connection.execute(_LEADER)).fetchall())[0]
        tables = await (await connection.execute(_TABLES)).fetchall()
        segments = [*segments_of(await (await connection.execute(SEGMENTS.format("TRUE").encode())).fetchall())]
    current = [each for each in segments if each.state is not SegmentState.RETIRED]
    to_write = [
        table
        for table in tables
        if table[1] == "finished" and not table[6] and table[4] and not _is_past(table[3], policy, now_us)
    ]
    here = {table[0] for table in tables}
    past = [
        each
        for each in current
        if each.end_us <= now_us - policy.age_us(each.retention_class)
        and (each.state is SegmentState.SERVING or here.isdisjoint(each.sources))
    ]
    cold_us = now_us - tiers.cold_days * _DAY_US
    return TierStatus(
        stocks=(*_hot(tables), *_files(current)),
        leader=owner if is_held else None,
        epoch=epoch or 0,
        tables_to_write=len(to_write),
        rows_to_write=sum(table[4] for table in to_write),
        tables_to_switch=_to_switch(tables, current, HotWindows(tiers), now_us),
        segments_to_cool=sum(
            has_objects and each.state is SegmentState.SERVING and each.tier is Tier.WARM and each.end_us <= cold_us
            for each in current
        ),
        segments_past_age=len(past),
        segments_to_remove=len(segments) - len(current),
    )


def _is_past(end_us: int, policy: RetentionPolicy, now_us: int) -> bool:
    return end_us <= now_us - policy.longest_us


def _hot(tables: Sequence[Sequence[Any]]) -> list[Stock]:  # Any: columns of _TABLES
    starts = [table[2] for table in tables if table[2] is not None and table[4]]
    ends = [table[3] for table in tables if table[3] is not None and table[4]]
    if not tables:
        return []
    return [
        Stock(
            "hot",
            "all",
            len(tables),
            sum(table[4] for table in tables),
            sum(table[5] for table in tables),
            min(starts, default=None),
            max(ends) - 1 if ends else None,
        )
    ]


def _files(segments: Iterable[Segment]) -> list[Stock]:
    """Warm ones before cold ones, then by class; those whose tables have the rows too are `copied`."""
    groups = defaultdict[tuple[int, str], list[Segment]](list)
    names = ("copied", Tier.WARM.value, Tier.COLD.value)
    for segment in segments:
        name = "copied" if segment.state is SegmentState.WRITTEN else segment.tier.value
        groups[names.index(name), segment.retention_class].append(segment)
    return [
        Stock(
            names[place],
            retention_class,
            len(of),
            sum(each.info.rows for each in of),
            sum(each.info.bytes for each in of),
            min(each.start_us for each in of),
            max(each.end_us for each in of) - 1,
        )
        for (place, retention_class), of in sorted(groups.items())
    ]


def _to_switch(
    tables: Sequence[Sequence[Any]], segments: Iterable[Segment], hot: HotWindows, now_us: int
) -> int:  # Any: columns of _TABLES
    services = defaultdict[str, set[str]](set)
    for segment in segments:
        for source in segment.sources:
            services[source].update(segment.info.services)
    return sum(
        table[1] == "finished"
        and (table[4] == 0 or (table[6] and table[3] + hot.longest_us(services[table[0]]) <= now_us))
        for table in tables
    )
