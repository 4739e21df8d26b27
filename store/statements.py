"""Runs a snapshot's statements: with which plans allowed, for how long, and so that the snapshot outlives one that failed.

Every statement is one round trip. Settings that differ from the last ones go along in the same pipeline. One savepoint is set
when the snapshot is opened, and gone back to from every statement that ran out of time and is then tried in another way: so
that a first page pays nothing for it. One task, no locks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from db.database import Connection, Error, sqlstate
from runtime.tracing import step

Settings = Mapping[str, str]
"""Settings of the planner that differ from OPENING's."""

WINDOW_MS_MAX: Final = 900
"""Most that one statement of a scan may take: of a budget of two seconds a little less than half."""
OPENING: Final[dict[str, str]] = {
    "transaction_timeout": "60000",
    "statement_timeout": str(WINDOW_MS_MAX),
    "max_parallel_workers_per_gather": "0",
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
}
"""Of every snapshot. Rows are met in the order of an index: statistics of a chunk that grows are always old, and with them
the planner would now and then read all of a window where its first rows suffice."""
OPENED: Final = "SAVEPOINT statement"
"""Follows on OPENING, before the first statement."""
IN_ORDER: Final[Settings] = {}
BY_BITMAP: Final[Settings] = {"enable_bitmapscan": "on", "enable_indexscan": "off"}
"""For what BRIN answers, which the planner holds for worse than it is."""
BY_PARTS: Final[Settings] = {"enable_bitmapscan": "on", "enable_hashjoin": "off", "enable_mergejoin": "off"}
"""For few rows that are found in one table and read from another."""

_DEFAULTS: Final = {"enable_indexscan": "on", "enable_hashjoin": "on", "enable_mergejoin": "on"} | OPENING
_ENDS_ITSELF: Final = {"statement_timeout": "10000"}
_CANCELLED: Final = "57014"


class StatementRunner:
    """Statements of one transaction that began with OPENING and OPENED."""

    def __init__(self, connection: Connection) -> None:
        """connection: in the transaction."""
        self._connection = connection
        self._current = dict(_DEFAULTS)
        self._saved = self._current
        """As of the savepoint."""

    async def export_snapshot(self) -> str:
        """Its name, with which other transactions may see the same while this one lasts."""
        async with self._connection.pipeline():  # the server exports from no subtransaction
            await self._connection.execute("RELEASE SAVEPOINT statement")
            cursor = await self._connection.execute("SELECT pg_export_snapshot()")
            await self._connection.execute(OPENED)
        self._saved = dict(self._current)
        row = await cursor.fetchone()
        assert row is not None
        return str(row[0])

    async def rows(self, text: str, params: Sequence[Any], *, plans: Settings = IN_ORDER) -> list[tuple[Any, ...]]:
        """Rows of a statement that has its end in itself; when it runs out of time, the snapshot is lost. Any: values."""
        before = self._changes({**_DEFAULTS, **_ENDS_ITSELF, **plans})
        return await self._run(before, text, params)

    async def rows_within(
        self, timeout_ms: int, text: str, params: Sequence[Any], *, plans: Settings = IN_ORDER
    ) -> list[tuple[Any, ...]] | None:
        """Rows, or None when the statement did not end in its time; the snapshot goes on either way."""
        before = self._changes({**_DEFAULTS, **plans, "statement_timeout": str(timeout_ms)})
        try:
            return await self._run(before, text, params)
        except Error as error:
            if sqlstate(error) != _CANCELLED:
                raise
        await self._connection.execute("ROLLBACK TO SAVEPOINT statement")
        self._current = dict(self._saved)
        return None

    def _changes(self, wanted: dict[str, str]) -> list[tuple[str, list[str]]]:
        """The statement that makes the settings these, if any is another."""
        changed = {name: value for name, value in wanted.items() if self._current[name] != value}
        if not changed:
            return []
        self._current = wanted
        calls = ", ".join("set_config(%s, %s, true)" for _ in changed)
        return [(f"SELECT {calls}", [text for pair in changed.items() for text in pair])]

    async def _run(
        self, before: Sequence[tuple[str, list[str]]], text: str, params: Sequence[Any]
    ) -> list[tuple[Any, ...]]:
        with step("statement") as span:
            rows = await self._rows(before, text, params)
            if span is not None:
                span.note(rows=len(rows))
            return rows

    async def _rows(
        self, before: Sequence[tuple[str, list[str]]], text: str, params: Sequence[Any]
    ) -> list[tuple[Any, ...]]:
        if not before:
            return await (await self._connection.execute(text.encode(), params)).fetchall()
        failed: Error | None = None
        try:
            async with self._connection.pipeline():
                try:
                    for statement, values in before:
                        await self._connection.execute(statement.encode(), values or None)
                    cursor = await self._connection.execute(text.encode(), params)
                except Error as error:
                    failed = error
            if failed is None:
                return await cursor.fetchall()
        except Error as error:
            raise failed or error from None
        raise failed
