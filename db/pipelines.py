"""Several statements in one round trip.

A process that is stopped between two round trips of a transaction keeps its locks until it goes on; one that sent its
COMMIT along does not.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, LiteralString

from psycopg import AsyncCursor
from psycopg.rows import TupleRow

from db.database import Connection, Error

Statement = tuple[LiteralString, Sequence[Any] | Mapping[str, Any]]  # parameters are whatever psycopg adapts
COMMIT: Final[Statement] = ("COMMIT", ())


async def in_one_go(connection: Connection, statements: Iterable[Statement]) -> list[AsyncCursor[TupleRow]]:
    """Statements in one round trip, one after the other until one fails; their cursors. Raises the first error.

    No sync lies between them: a statement that fails skips all behind it, a COMMIT too. Without a BEGIN of its own, and
    outside a transaction, all of it is one transaction.
    """
    failed: Error | None = None
    cursors = []
    try:
        async with connection.pipeline():
            try:
                for statement, parameters in statements:
                    cursors.append(await connection.execute(statement, parameters))
            except Error as error:
                # Leaving the pipeline with this error would log a second one, which only says that there was a first.
                failed = error
    except Error as error:
        raise failed or error from None
    if failed is not None:
        raise failed
    return cursors
