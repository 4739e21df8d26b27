"""Sums of what is in chunks that are not finished, by minute, service and level: what a count would read row after row.

Like the parts that index these chunks (parts.py): a sum holds all rows that transactions in [from_xid, to_xid) brought, made
in one transaction whose snapshot says that all of these have ended. So it is exact, whatever comes later: a reader adds what
is in the sums of its snapshot, and counts what arrived since by a BRIN of arrivals. Writers do nothing for it.

Sums are rows, not tables, so that one that goes is there for whoever still reads it; few at a time (SUMS_MAX, the newest are
made into one), and only for open chunks: what is finished lies in files, which are counted faster than they are written.
In the WAL, for replicas, and known by their transactions as parts are: in another cluster there are none. An erasure lets
all of them go.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, Final

from db.database import Connection, undo
from store.catalogue import UNFINISHED, Catalogue, catalogued
from store.page_sql import to_datetime
from store.steps import AT, US, one

SUMS_MAX: Final = 16
"""With so many, those that are no larger than what has gathered are made into one with what has come."""
MINUTE_US: Final = 60_000_000

SUMS: Final = f"""
    SELECT number, from_xid, to_xid, entries, {US.format("open_from")},
        xmin::text::bigint = built_xid & 4294967295 AND to_xid <= txid_snapshot_xmin(txid_current_snapshot())
    FROM open_sums ORDER BY from_xid"""
# The lock comes before the snapshot: one sealer at a time, and an erasure that lets sums go waits for the one that is being
# made from rows which it has deleted since. Readers wait for nobody.
_BEGIN: Final = """
    BEGIN ISOLATION LEVEL REPEATABLE READ; LOCK TABLE open_sums IN SHARE ROW EXCLUSIVE MODE NOWAIT;
    SET LOCAL max_parallel_workers_per_gather = 0;
    SET LOCAL enable_seqscan = off; SET LOCAL enable_indexscan = off"""
_COMPLETE_TO: Final = f"""
    SELECT txid_snapshot_xmin(txid_current_snapshot()), {US.format("closed_before")} FROM border"""
_LET_GO: Final = "DELETE FROM open_sums WHERE number = ANY (%s)"
# Those of sums that an erasure let go as well.
_LET_ROWS_GO: Final = f"""
    DELETE FROM open_sum_rows WHERE number <> ALL (ARRAY(SELECT number FROM open_sums)) OR minute < {AT}"""
_NEW: Final = f"""
    INSERT INTO open_sums (from_xid, to_xid, open_from) VALUES (%s, %s, {AT}) RETURNING number"""
# Literals: chunks before it are neither planned for nor locked.
_SUM: Final = """
    INSERT INTO open_sum_rows (number, minute, service_name, level, rows)
    SELECT %s, minute, service_name, level, sum(rows) FROM (
        SELECT date_trunc('minute', timestamp) AS minute, service_name, level, count(*) AS rows FROM logs
        WHERE timestamp >= timestamptz '{open_from}' AND arrived >= {from_xid} AND arrived < {to_xid} GROUP BY 1, 2, 3
        UNION ALL
        SELECT minute, service_name, level, rows FROM open_sum_rows
        WHERE number = ANY (%s) AND minute >= timestamptz '{open_from}'
    ) AS every GROUP BY 1, 2, 3, 4"""
_SIZE: Final = "UPDATE open_sums SET entries = %s WHERE number = %s"


@dataclass(frozen=True, slots=True)
class Sum:
    """One row of open_sums."""

    number: int
    from_xid: int
    to_xid: int
    entries: int
    """Of open_sum_rows."""
    open_from_us: int
    """Where chunks that were not finished began when it was made: it has all rows from there on."""
    is_own: bool
    """Made in this cluster; the numbers of transactions mean something here."""


def sums_that_count(rows: Iterable[Sequence[Any]], open_from_us: int) -> list[Sum]:
    """From the rows of SUMS, those without a gap from the first transaction on where open chunks begin at open_from_us; oldest
    first. Any: what the database answers."""
    reached = 0

    def counts(each: Sum) -> bool:
        nonlocal reached
        follows = each.from_xid == reached and each.is_own and each.open_from_us <= open_from_us
        reached = each.to_xid
        return follows

    return list(takewhile(counts, (Sum(*row) for row in rows)))


def sums_to_merge(entries: Sequence[int]) -> int:
    """How many of the newest sums (entries of each, oldest first) the next one takes in."""
    if len(entries) < SUMS_MAX:
        return 0
    merged, gathered = 1, entries[-1]
    while merged < len(entries) and entries[-1 - merged] <= gathered:
        gathered += entries[-1 - merged]
        merged += 1
    return merged


async def sum_open(connection: Connection) -> int:
    """Sum what has come since the last time; returns how many numbers are new. Raises 55P03 where another one is at it."""
    try:
        await connection.execute(_BEGIN)
        entries = await _summed(connection)
        await connection.commit()
    except BaseException:  # a cancellation too: the session goes back to its pool, without a transaction
        await undo(connection)
        raise
    return entries


async def _summed(connection: Connection) -> int:
    to_xid, closed_before_us = await one(connection, _COMPLETE_TO)
    unfinished = Catalogue(None, catalogued(await (await connection.execute(UNFINISHED)).fetchall()))
    open_from_us = unfinished.open_from_us(closed_before_us)
    found = await (await connection.execute(SUMS)).fetchall()
    sums = sums_that_count(found, open_from_us)
    gone = [row[0] for row in found[len(sums) :]]
    from_xid = sums[-1].to_xid if sums else 0
    if to_xid <= from_xid:
        return 0
    taken = sums[len(sums) - sums_to_merge([each.entries for each in sums]) :] if sums else []
    gone += [each.number for each in taken]
    (number,) = await one(connection, _NEW, (taken[0].from_xid if taken else from_xid, to_xid, open_from_us))
    open_from = to_datetime(open_from_us).isoformat()
    text = _SUM.format(open_from=open_from, from_xid=from_xid, to_xid=to_xid)
    entries = (await connection.execute(text.encode(), (number, [each.number for each in taken]))).rowcount
    if not entries and not gone:  # nothing came: the next sum begins where this one would have
        await connection.rollback()
        return 0
    await connection.execute(_SIZE, (entries, number))
    await connection.execute(_LET_GO, (gone,))
    await connection.execute(_LET_ROWS_GO, (open_from_us,))
    return int(entries)
