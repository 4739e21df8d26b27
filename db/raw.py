"""Values as PostgreSQL sends them, for those who take a whole column at once: nothing is made of each of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from db.database import Connection


async def raw_row(connection: Connection, query: str, params: Sequence[Any]) -> list[bytes | None]:
    """The one row of a statement, each value in PostgreSQL's binary format, None for NULL. `query` is our own text.

    Any: whatever psycopg adapts. Raises the database's errors as `Connection.execute` does.
    """
    cursor = connection.cursor(binary=True)
    await cursor.execute(query.encode(), params)
    result = cursor.pgresult
    assert result is not None, "the statement returns rows"
    assert result.ntuples == 1, f"one row was expected, the statement returned {result.ntuples}"
    return [result.get_value(0, column) for column in range(result.nfields)]
