"""One more connection that sees the same moment, for what a scan will ask next.

A search that no index shortens reads row after row on one core. Whoever waits for it has the others as well: the window after
the one that is being read is read at the same time (store/page_scan.py). The second connection is opened when a scan first
wants it, imports the first one's snapshot, and is never waited for: where none is free the scan goes on by itself. So is it
whenever anything goes wrong with it. Bounded: `places` of one process.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Final

import structlog

from db.database import Database, Error, undo
from schemas.errors import DatabaseUnavailable
from store.statements import OPENED, OPENING, StatementRunner

log = structlog.get_logger(__name__)

_OPEN_S: Final = 0.2
"""A connection that takes longer to open is done without."""


class SecondConnection:
    """Belongs to one snapshot; opened once, at most."""

    def __init__(self, database: Database, first: StatementRunner, places: asyncio.Semaphore) -> None:
        """first: of the snapshot. places: how many second connections the process may have."""
        self._database = database
        self._first = first
        self._places = places
        self._stack = AsyncExitStack()
        self._runner: StatementRunner | None = None
        self._was_tried = False

    async def runner(self) -> StatementRunner | None:
        """Runs statements in the snapshot, beside the first connection's; None where there is no connection for it. The first
        connection must be idle."""
        if not self._was_tried:
            self._was_tried = True
            if not self._places.locked() and self._database.has_room:
                await self._open()
        return self._runner

    async def give_up(self) -> None:
        """It is of no use any more: there is none from now on."""
        self._runner = None
        await self.close()

    async def close(self) -> None:
        """Give the connection back."""
        try:
            await self._stack.aclose()
        except DatabaseUnavailable as error:
            log.info("a second connection for a search ended", error=str(error))

    async def _open(self) -> None:
        await self._places.acquire()  # at once: it is not locked
        self._stack.callback(self._places.release)
        name = await self._first.export_snapshot()
        try:
            async with asyncio.timeout(_OPEN_S):
                connection = await self._stack.enter_async_context(self._database.connection())
                self._stack.push_async_callback(undo, connection)
                await connection.execute(_begin(name))
        except (Error, DatabaseUnavailable, OSError, TimeoutError) as error:
            # Whatever it is: a pooler before the database, say, knows nothing of the other session's snapshot.
            log.info("no second connection for a search", error=str(error))
            await self.close()
            return
        self._runner = StatementRunner(connection)


def _begin(snapshot: str) -> bytes:
    """One message. snapshot: as the server named it: hexadecimal digits and dashes."""
    if not snapshot.replace("-", "").isalnum():
        raise ValueError(f"no name of a snapshot: {snapshot[:80]!r}")
    settings = "".join(f" SET LOCAL {name} = {value};" for name, value in OPENING.items())
    return (
        f"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET TRANSACTION SNAPSHOT '{snapshot}';{settings} {OPENED}"
    ).encode()
