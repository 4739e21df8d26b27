"""Connections and transactions; what went wrong, in our own errors.

A `Database` is one pool, used by many tasks of one event loop. Statements are never prepared on the server
(`prepare_threshold=None`): generic plans lose the exclusion of chunks. Sessions speak UTC.
Connection trouble of any kind is `DatabaseUnavailable`; data errors keep psycopg's classes, asked by `sqlstate`.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import psycopg
from psycopg import AsyncConnection, AsyncPipeline, sql
from psycopg.rows import TupleRow
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from schemas.errors import DatabaseUnavailable

__all__ = [
    "DATA_ERRORS",
    "AsyncPipeline",
    "Connection",
    "Database",
    "Error",
    "bounded",
    "connect",
    "is_unavailable",
    "sql",
    "sqlstate",
    "undo",
]

Connection = AsyncConnection[TupleRow]
Error = psycopg.Error
DATA_ERRORS: Final = (psycopg.DataError, psycopg.errors.ProgramLimitExceeded)
"""The database refuses a value (class 22, 54): never a reason to retry the same row."""

_CHECK_S: Final = 5.0
"""How long a pooled connection may take to prove that it works, or to roll back."""
_RESTED_S: Final = 1.0
"""A connection that was used less long ago, and since any other was found broken, is taken to work: proving it costs a
round trip."""
_PARAMETERS: Final[dict[str, Any]] = {
    "autocommit": True,
    "prepare_threshold": None,
    "connect_timeout": 10,
    "options": "-c timezone=UTC -c jit=off",
    # A host that is gone says nothing: 11 s while the connection is silent, 20 s while something is under way.
    "keepalives": 1,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}
"""Of every connection. Any: they are psycopg's own and libpq's, of many types."""
_RETRIABLE_CLASSES: Final = ("08", "53", "57", "58")
"""Connection, resources, operator intervention, system error."""
_RETRIABLE_STATES: Final = ("40001", "40P01", "55P03", "25P04")
"""Serialization, deadlock, lock timeout, transaction timeout."""


def sqlstate(error: BaseException) -> str | None:
    """The five-character SQLSTATE of a database error, None for others and for broken connections."""
    return error.sqlstate if isinstance(error, psycopg.Error) else None


def is_unavailable(error: BaseException) -> bool:
    """True when trying the same again later may work: the server is away, restarting, full or busy."""
    if isinstance(error, (DatabaseUnavailable, PoolTimeout, OSError)):
        return True
    if not isinstance(error, psycopg.Error):
        return False
    state = error.sqlstate
    if state is None:
        return isinstance(error, (psycopg.OperationalError, psycopg.InterfaceError))
    return state[:2] in _RETRIABLE_CLASSES or state in _RETRIABLE_STATES


async def connect(url: str, *, application_name: str) -> Connection:
    """A connection of one's own, autocommit. Raises DatabaseUnavailable."""
    try:
        return await AsyncConnection.connect(url, application_name=application_name, **_PARAMETERS)
    except (psycopg.OperationalError, OSError) as error:
        raise DatabaseUnavailable(f"cannot connect to the database: {error}") from error


@asynccontextmanager
async def bounded(seconds: float) -> AsyncIterator[None]:
    """Raise DatabaseUnavailable when the block takes longer: a database may hang without closing anything.

    The statement under way is cancelled; psycopg gives the server 10 s for that, then closes the connection.
    """
    try:
        async with asyncio.timeout(seconds) as limit:
            yield
    except TimeoutError as error:
        if not limit.expired():
            raise
        raise DatabaseUnavailable(f"the database did not answer within {seconds:g} s") from error


async def undo(connection: Connection) -> None:
    """Roll back, for a bounded time: a connection that does not answer is closed, and whoever holds it goes on. Other trouble
    is raised."""
    if connection.closed:
        return
    try:
        async with bounded(_CHECK_S):
            await connection.rollback()
    except DatabaseUnavailable:
        await connection.close()


class _PooledConnection(AsyncConnection[TupleRow]):
    used_s: float = -math.inf
    """Monotonic time at which it was last used without an error."""


class Database:
    """A bounded pool of autocommit connections to one database."""

    def __init__(self, url: str, *, application_name: str, connections_max: int = 10, wait_s: float = 10.0) -> None:
        """url: postgresql://…; wait_s: how long `connection` waits for a free one before DatabaseUnavailable."""
        self.url = url
        self.application_name = application_name
        self._failed_s = -math.inf
        """Monotonic time at which a connection was last found broken: those used before are suspect."""
        self._pool = AsyncConnectionPool(
            url,
            connection_class=_PooledConnection,
            min_size=0,
            max_size=connections_max,
            timeout=wait_s,
            max_lifetime=1800.0,
            reconnect_timeout=5.0,
            open=False,
            check=self._check,
            kwargs={"application_name": application_name, **_PARAMETERS},
        )

    async def open(self) -> None:
        """Start the pool; connects lazily, so it succeeds with the database away."""
        await self._pool.open()

    async def close(self) -> None:
        """Close every connection."""
        await self._pool.close()

    @property
    def has_room(self) -> bool:
        """Whether a connection can be had now without waiting for somebody else's."""
        figures = self._pool.get_stats()
        return figures["pool_available"] > 0 or figures["pool_size"] < figures["pool_max"]

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """One autocommit connection. Raises DatabaseUnavailable, also for connection trouble inside the block."""
        try:
            async with self._pool.connection() as connection:
                yield connection
                connection.used_s = time.monotonic()
        except DatabaseUnavailable:
            raise
        except (psycopg.Error, PoolTimeout, OSError) as error:
            if is_unavailable(error):
                self._failed_s = time.monotonic()
                raise DatabaseUnavailable(f"the database does not answer: {error}") from error
            raise

    @asynccontextmanager
    async def transaction(self, *, snapshot: bool = False) -> AsyncIterator[Connection]:
        """One transaction, committed at the end. snapshot: REPEATABLE READ, READ ONLY: one moment for all of it."""
        async with self.connection() as connection:
            begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY" if snapshot else "BEGIN"
            await connection.execute(begin)
            try:
                yield connection
            except BaseException:
                await undo(connection)
                raise
            await connection.commit()

    async def fetch_all(self, query: str, params: tuple[Any, ...] | dict[str, Any] = ()) -> list[TupleRow]:
        """Rows of one statement. `query` is our own constant text (psycopg placeholders), never user input."""
        async with self.connection() as connection:
            cursor = await connection.execute(query.encode(), params)
            return await cursor.fetchall()

    async def fetch_one(self, query: str, params: tuple[Any, ...] = ()) -> TupleRow | None:
        """First row of one statement, or None."""
        async with self.connection() as connection:
            cursor = await connection.execute(query.encode(), params)
            return await cursor.fetchone()

    async def execute(self, query: str, params: tuple[Any, ...] = ()) -> int:
        """Run one statement; returns the number of rows it touched."""
        async with self.connection() as connection:
            cursor = await connection.execute(query.encode(), params)
            return cursor.rowcount

    async def _check(self, connection: _PooledConnection) -> None:
        is_fresh = time.monotonic() - connection.used_s < _RESTED_S
        if is_fresh and connection.used_s > self._failed_s:
            return
        async with bounded(_CHECK_S):
            await AsyncConnectionPool.check_connection(connection)
