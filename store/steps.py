"""How one step of upkeep runs: tried for a bounded time, left to the next call where somebody else is in the way."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, LiteralString

import structlog

from db.database import Connection, Error, sqlstate
from db.pipelines import COMMIT, Statement, in_one_go
from store.batches import BORDER_LOCK
from store.chunks import BUSY, DETACHING, EXISTS_ALREADY, retried

log = structlog.get_logger(__name__)

AT: Final = "(timestamptz 'epoch' + %s::bigint * interval '1 microsecond')"
US: Final = "(extract(epoch FROM {}) * 1000000)::bigint"
_ROWS_A_BATCH: Final = 10_000
_BATCHES_MAX: Final = 100
_CLOCK: Final = f"SELECT {US.format('clock_timestamp()')}"


async def under_border(connection: Connection, *statements: Statement) -> int:
    """Run statements alone with the border, in one round trip; rows touched by the last, 0 when writers were busy."""
    alone = ("SELECT pg_advisory_xact_lock(%s)", (BORDER_LOCK,))

    async def once() -> int:
        try:
            cursors = await in_one_go(connection, [("BEGIN", ()), alone, *statements, COMMIT])
        except Error:
            await connection.rollback()
            raise
        return cursors[-2].rowcount

    try:
        return await retried(once)
    except Error as error:
        if sqlstate(error) not in BUSY:
            raise
        log.warning("the border was not moved: a writer holds it", reason=str(error))
        return 0


async def tried(
    step: str, table: object, action: Callable[[], Awaitable[object]], *, again_on: Sequence[str] = BUSY
) -> bool:
    """Do the step; False when somebody else holds the table, or has done the same: the next call sees to it."""
    try:
        await retried(action, again_on=again_on)
    except Error as error:
        if sqlstate(error) not in (*BUSY, DETACHING, *EXISTS_ALREADY):
            raise
        log.warning("upkeep step put off", step=step, table=table, reason=str(error).strip())
        return False
    return True


async def in_batches(connection: Connection, statement: LiteralString, before_us: int) -> None:
    """Run a statement that deletes up to so many rows until it finds fewer; the rest is left for the next call."""
    for _ in range(_BATCHES_MAX):
        if (await connection.execute(statement, (before_us, _ROWS_A_BATCH))).rowcount < _ROWS_A_BATCH:
            break


async def clock_us(connection: Connection) -> int:
    """The time by the database's clock."""
    (now_us,) = await one(connection, _CLOCK)
    return int(now_us)


async def one(connection: Connection, statement: LiteralString, parameters: tuple[Any, ...] = ()) -> tuple[Any, ...]:
    """The row of a statement that always has one."""
    row = await (await connection.execute(statement, parameters)).fetchone()
    assert row is not None, statement
    return row
