"""The statements of pages and look-ups: text and parameters, nothing of when they run.

Values are always parameters of statements that are planned anew; identifiers come from our catalogue only. Bounds of time
stand on their own beside comparisons of positions, which exclude no chunk at planning. Every statement that returns logs
is bounded in rows and in bytes, by the server, so that nothing larger ever reaches us.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec

from schemas.record import Log
from search.sql import Sql
from store.catalogue import Parts
from store.chunks import checked
from store.scan_windows import BEYOND, GREATEST_US, LEAST, LEAST_US, Arm

Query = tuple[str, list[Any]]
"""Text with placeholders, and values of every type that psycopg adapts."""
BYTES: Final = 7
"""Place of a row's size; messages and metadata."""
TOTAL: Final = 8
"""Place of the number of rows found, those left out for their bytes included."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_POSITION: Final = "timestamp, id"
_COLUMNS: Final = "timestamp, id, level, service_name, correlation_id, message, metadata"
_BOUNDED: Final = f"""
SELECT {_COLUMNS}, bytes, total FROM (
    SELECT *, count(*) OVER () AS total,
           sum(bytes) OVER (ORDER BY {{order}} ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS bytes_before
    FROM (
        SELECT *, octet_length(message) + octet_length(metadata) AS bytes FROM (
            SELECT {_COLUMNS}::text AS metadata FROM ({{found}}) AS found
            WHERE {{condition}} ORDER BY {{order}} LIMIT %s
        ) AS wanted
    ) AS sized
) AS bounded WHERE bytes_before IS NULL OR bytes_before < %s ORDER BY {{order}}"""
_NO_CANDIDATES: Final = "SELECT NULL::timestamptz AS timestamp, NULL::bigint AS id WHERE FALSE"
_EVERY: Final = Sql("TRUE")


def ordered(
    arms: Sequence[Arm], condition: Sql, *, wanted: int, bytes_max: int, newest_first: bool, rows: int | None = None
) -> Query:
    """Rows that match, in order: at most `wanted`, and none after bytes_max were passed. rows: of the first so many rows
    only, whether they match or not."""
    if rows is None:
        found, params = _merged(arms, _COLUMNS, condition, wanted, newest_first=newest_first)
        condition = _EVERY
    else:
        found, params = _merged(arms, _COLUMNS, _EVERY, rows, newest_first=newest_first)
    text = _BOUNDED.format(found=found, condition=condition.text, order=_order(newest_first))
    return text, [*params, *condition.params, wanted, bytes_max]


def by_parts(
    arms: Sequence[Arm],
    parts: Parts,
    chunk: str | None,
    terms: Sql,
    condition: Sql,
    *,
    open_from_us: int,
    wanted: int,
    bytes_max: int,
    newest_first: bool,
) -> Query:
    """As `ordered`, of an open window: rows that are in the parts and meet `terms` there, and all that are in no part yet.

    arms: `logs` first. chunk: the one that has all rows of the parts, if it is one: that finds a row three times as fast.
    What parts hold is put in order before its rows are read, so that none is read that the page has no room for.
    What is in no part is found by its arrival alone: the inner bound says which chunks there are, the outer ones come behind a
    fence (OFFSET 0), so that no index of times takes its place.
    """
    logs, *others = arms
    params: list[Any] = []
    parts_params: list[Any] = []
    candidates = []
    for table in parts.tables(logs.low[0], logs.high[0]):
        bounds = _bounds(logs, parts_params)
        parts_params += terms.params
        candidates.append(f"SELECT timestamp, id FROM {checked(table)} WHERE {bounds} AND {terms.text}")
    table, known_in = checked(logs.table), checked(chunk or logs.table)
    params += [to_datetime(open_from_us), parts.to_xid]
    is_all = logs.low <= (open_from_us, 0) and logs.high == BEYOND  # the inner bound says it: every row is tested here
    bounds = _EVERY.text if is_all else _bounds(logs, params)
    params += [*condition.params, *parts_params]
    known_bounds = _bounds(logs, params)
    params += [parts.to_xid, *condition.params, wanted]
    found = (
        f"SELECT {_COLUMNS} FROM (SELECT {_COLUMNS} FROM {table} WHERE timestamp >= %s AND arrived >= %s OFFSET 0) AS recent"
        f" WHERE {bounds} AND ({condition.text})"
        f" UNION ALL (SELECT known.* FROM (SELECT * FROM ({' UNION ALL '.join(candidates) or _NO_CANDIDATES}) AS every"
        f" ORDER BY {_order(newest_first)}) AS part CROSS JOIN LATERAL ("
        f"SELECT {_COLUMNS} FROM {known_in} AS l WHERE l.timestamp = part.timestamp AND l.id = part.id AND {known_bounds}"
        f" AND arrived < %s AND ({condition.text}) OFFSET 0) AS known ORDER BY {_order(newest_first, 'part.')} LIMIT %s)"
    )
    if others:
        merged, others_params = _merged(others, _COLUMNS, condition, wanted, newest_first=newest_first)
        found += f" UNION ALL ({merged})"
        params += others_params
    text = _BOUNDED.format(found=found, condition=_EVERY.text, order=_order(newest_first))
    return text, [*params, wanted, bytes_max]


def open_bytes(chunks: Sequence[str]) -> Query:
    """What each of these chunks has."""
    return (
        "SELECT name, coalesce(pg_relation_size(to_regclass(name)), 0)::bigint FROM unnest(%s::text[]) AS name",
        [list(chunks)],
    )


def arrived_since(tables: Sequence[str], xid: int) -> Query:
    """Whether a row of these tables was brought by this transaction, a later one, or none that is known."""
    parts = [
        f"EXISTS (SELECT FROM {checked(table)} WHERE arrived {test})"
        for table in tables
        for test in (">= %s::bigint", "IS NULL")
    ]
    return f"SELECT {' OR '.join(parts)}", [xid] * len(tables)


def edges(arms: Sequence[Arm], rows: int, *, newest_first: bool) -> Query:
    """The timestamp of the first row and the position of the row with this number, each NULL where there is none."""
    first, first_params = _merged(arms, _POSITION, _EVERY, 1, newest_first=newest_first)
    last, last_params = _merged(arms, _POSITION, _EVERY, rows, newest_first=newest_first)
    text = (
        "SELECT first.timestamp, last.timestamp, last.id FROM (SELECT) AS one"
        f" LEFT JOIN ({first}) AS first ON TRUE LEFT JOIN (SELECT {_POSITION} FROM ({last}) AS looked_at"
        f" ORDER BY {_order(newest_first)} OFFSET %s LIMIT 1) AS last ON TRUE"
    )
    return text, [*first_params, *last_params, rows - 1]


def by_id(places: Sequence[Arm], log_id: int, scope: Sql) -> Query:
    """The log with this id."""
    params: list[Any] = []
    arms = []
    for place in places:
        is_whole = (place.low, place.high) == (LEAST, BEYOND)
        bounds = "" if is_whole else f"{_bounds(place, params)} AND "
        params += [log_id, *scope.params]
        arms.append(
            f"SELECT {_COLUMNS}::text FROM {checked(place.table)} WHERE {bounds}id = %s::bigint AND ({scope.text})"
        )
    return f"{' UNION ALL '.join(arms)} LIMIT 1", params


def log_of(row: Sequence[Any]) -> Log:
    """The log in a row of any of these statements."""
    timestamp, log_id, level, service_name, correlation_id, message, metadata = row[:BYTES]
    return Log(log_id, to_us(timestamp), level, service_name, message, correlation_id, msgspec.json.decode(metadata))


def to_datetime(us: int) -> datetime:
    """Exact: no floating point."""
    return _EPOCH + timedelta(microseconds=min(max(us, LEAST_US), GREATEST_US))


def to_us(moment: datetime) -> int:
    """Microseconds since the Unix epoch."""
    return (moment - _EPOCH) // _MICROSECOND


def _merged(
    arms: Sequence[Arm], columns: str, condition: Sql, limit: int, *, newest_first: bool
) -> tuple[str, list[Any]]:
    """The first rows of all arms that match, in order."""
    params: list[Any] = []
    order = _order(newest_first)
    parts = []
    for arm in arms:
        where = f"{_bounds(arm, params)} AND ({condition.text})"
        params += [*condition.params, limit]
        parts.append(f"SELECT {columns} FROM {checked(arm.table)} WHERE {where} ORDER BY {order} LIMIT %s")
    if len(parts) == 1:
        return parts[0], params
    union = " UNION ALL ".join(f"({part})" for part in parts)
    return f"SELECT {columns} FROM ({union}) AS every ORDER BY {order} LIMIT %s", [*params, limit]


def _bounds(arm: Arm, params: list[Any]) -> str:
    """low <= (timestamp, id) < high."""
    low, high = arm.low, arm.high
    parts = ["timestamp >= %s"]
    params.append(to_datetime(low[0]))
    if low[1] > 0:
        parts.append("(timestamp, id) >= (%s, %s)")
        params += [to_datetime(low[0]), low[1]]
    if high[1] > 0:
        parts.append("timestamp <= %s AND (timestamp, id) < (%s, %s)")
        params += [to_datetime(high[0]), to_datetime(high[0]), high[1]]
    else:
        parts.append("timestamp < %s")
        params.append(to_datetime(high[0]))
    return " AND ".join(parts)


def _order(newest_first: bool, of: str = "") -> str:
    """of: the alias with its dot, where columns of others bear the same names."""
    return f"{of}timestamp DESC, {of}id DESC" if newest_first else f"{of}timestamp, {of}id"
