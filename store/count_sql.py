"""The statement of a count: numbers of rows by bucket and level, of some tables together."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final, NamedTuple

from search.predicate import Predicate
from search.sql import Columns, Sql
from search.sql_postgres import compile_postgres
from store.chunks import checked
from store.page_sql import Query, to_datetime
from store.steps import US

_ONE: Final = """
    SELECT date_bin(%s, timestamp, %s) AS bucket, level, count(*) AS rows FROM {table}
    WHERE timestamp >= %s AND timestamp < %s AND ({condition}) GROUP BY 1, 2"""
_ALL: Final = f"SELECT {US.format('bucket')}, level, rows FROM ({{every}}) AS every"


_SUMMED: Final = f"""
    SELECT {US.format("bucket")}, level, rows::bigint FROM (
        SELECT date_bin(%s, minute, %s) AS bucket, level, sum(rows) AS rows FROM open_sum_rows
        WHERE number = ANY (%s) AND minute >= %s AND minute < %s AND ({{condition}}) GROUP BY 1, 2) AS every"""
_MINUTES: Final = Columns(timestamp="minute")


class CountArm(NamedTuple):
    """Rows of this table with low_us <= timestamp < high_us that meet the condition."""

    table: str
    low_us: int
    high_us: int
    condition: Sql


def counted(arms: Sequence[CountArm], *, width_us: int, origin_us: int) -> Query:
    """(start of the bucket in µs, severity number, rows), a pair of the first two once for each table. At least one arm."""
    params: list[Any] = []
    parts = []
    for arm in arms:
        parts.append(_ONE.format(table=checked(arm.table), condition=arm.condition.text))
        params += [timedelta(microseconds=width_us), to_datetime(origin_us)]
        params += [to_datetime(arm.low_us), to_datetime(arm.high_us), *arm.condition.params]
    return _ALL.format(every=" UNION ALL ".join(parts)), params


def summed(
    numbers: Sequence[int], *, low_us: int, high_us: int, predicate: Predicate, width_us: int, origin_us: int
) -> Query:
    """As `counted`, of sums with these numbers (store/open_sums.py). Times are whole minutes; predicate: about services and
    levels alone."""
    condition = compile_postgres(predicate, _MINUTES)
    grid = [timedelta(microseconds=width_us), to_datetime(origin_us)]
    bounds = [[*numbers], to_datetime(low_us), to_datetime(high_us)]
    return _SUMMED.format(condition=condition.text), [*grid, *bounds, *condition.params]
