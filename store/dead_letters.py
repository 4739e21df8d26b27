"""Lines that could not be stored: look at them, store them after all, or drop them.

Replay is one transaction of the store and never goes through the broker: the letter is deleted, the line copied by the
writers' own path, the ledger booked from dead to stored (INV-1). A line that is still refused stays a letter. Dropping
leaves the ledger as it is: the line did die. A letter that holds no line (a record that is no frame, logs that a frame
counts and lacks) can only be dropped. Every call names the services that the asker may see (INV-5); what
is not allowed looks like what is not there. Pages are ordered newest first and bounded; lines come one at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, LiteralString

import msgspec

from db.database import Connection, Database
from db.migrations import Layout
from schemas.errors import InvalidInput
from schemas.frames import decode_line
from schemas.levels import SEVERITY_MAX
from schemas.record import LogLine
from schemas.scope import ServiceScope
from store.batches import Batch, store_errors
from store.port import MISSING, NO_FRAME, BorderMoved, ChunkMissing, LedgerRow, Outcome, RowsRefused, StorePlan
from store.rows import encode_row

PAGE_MAX: Final = 1_000
PREVIEW_BYTES: Final = 200

_BORDER_ATTEMPTS: Final = 3
_COLUMNS: Final[LiteralString] = """id, topic, partition, "offset", line_index, log_id, service_name,
    (extract(epoch FROM received_minute) * 1000000)::bigint, reason, detail, octet_length(line),
    (extract(epoch FROM died_at) * 1000000)::bigint"""
_ALLOWED: Final[LiteralString] = """(%(everything)s OR service_name = ANY(%(names)s::text[]) OR EXISTS (
    SELECT FROM unnest(%(prefixes)s::text[]) AS prefix WHERE starts_with(service_name, prefix)))
    AND service_name <> ALL(%(excluded)s::text[])"""
_LIST: Final[LiteralString] = f"""
    SELECT {_COLUMNS}, substring(line FROM 1 FOR %(preview)s) FROM dead_letters
    WHERE {_ALLOWED} AND id < coalesce(%(before)s, 9223372036854775807)
      AND service_name = coalesce(%(service_name)s, service_name) AND reason = coalesce(%(reason)s, reason)
    ORDER BY id DESC LIMIT %(limit)s"""
_SHOW: Final[LiteralString] = f"SELECT {_COLUMNS}, line FROM dead_letters WHERE id = %(id)s AND {_ALLOWED}"
_TAKE: Final[LiteralString] = f"DELETE FROM dead_letters WHERE id = %(id)s AND {_ALLOWED} RETURNING {_COLUMNS}, line"


class DeadLetterMissing(InvalidInput):
    """There is no such dead letter."""


class ReplayRefused(InvalidInput):
    """The dead letter's line cannot be stored; it stays."""


@dataclass(frozen=True, slots=True)
class StoredDeadLetter:
    """A dead letter as it lies in the store."""

    id: int
    topic: str
    partition: int
    offset: int
    line_index: int
    log_id: int | None
    service_name: str
    received_minute_us: int
    reason: str
    detail: str
    line_bytes: int
    """Length of the whole line."""
    died_at_us: int
    line: bytes
    """The whole line from `show`, its first PREVIEW_BYTES from `page`."""


class DeadLetters:
    """The dead letters of one store."""

    def __init__(self, database: Database, layout: Layout) -> None:
        """database: open."""
        self._database = database
        self._layout = layout

    async def page(
        self,
        *,
        allowed: ServiceScope,
        before_id: int | None = None,
        service_name: str | None = None,
        reason: str | None = None,
        limit: int = 100,
    ) -> list[StoredDeadLetter]:
        """Up to `limit` (1..PAGE_MAX) letters, newest first, older than before_id. Raises InvalidInput."""
        if not 1 <= limit <= PAGE_MAX:
            raise InvalidInput(f"limit must be 1..{PAGE_MAX}, got {limit}")
        asked = {"before": before_id, "service_name": service_name, "reason": reason, "limit": limit}
        async with self._database.connection() as connection:
            cursor = await connection.execute(_LIST, {**asked, **_scope(allowed), "preview": PREVIEW_BYTES})
            return [StoredDeadLetter(*row) for row in await cursor.fetchall()]

    async def show(self, letter_id: int, *, allowed: ServiceScope) -> StoredDeadLetter:
        """One letter with its whole line. Raises DeadLetterMissing."""
        async with self._database.connection() as connection:
            return await _fetch(connection, _SHOW, letter_id, allowed)

    async def replay(self, letter_id: int, *, allowed: ServiceScope) -> int:
        """Store the letter's line; returns its log id. Raises DeadLetterMissing, ReplayRefused (nothing changed),
        DatabaseUnavailable."""
        for _ in range(_BORDER_ATTEMPTS):
            try:
                return await self._replay(letter_id, allowed)
            except BorderMoved:
                continue
        raise ReplayRefused("the border of open storage keeps moving: try again")

    async def drop(self, letter_id: int, *, allowed: ServiceScope) -> None:
        """Delete the letter; the ledger keeps counting it as dead. Raises DeadLetterMissing."""
        async with self._database.connection() as connection:
            await _fetch(connection, _TAKE, letter_id, allowed)

    async def _replay(self, letter_id: int, allowed: ServiceScope) -> int:
        async with self._database.connection() as connection:
            batch = Batch(connection, topic="", layout=self._layout)
            await batch.start()
            try:
                with store_errors():
                    letter = await _fetch(connection, _TAKE, letter_id, allowed)
                _check_replayable(letter)
                with _refusals(letter_id):
                    line = _decoded(letter)
                    row = encode_row(line)
                    recent = row.timestamp_us >= batch.border.closed_before_us
                    plan = StorePlan(
                        hot=[row] if recent else [],
                        late=[] if recent else [row],
                        ledger=[
                            _booked(letter, Outcome.DEAD, level=0, reason=letter.reason, count=-1),
                            _booked(
                                letter, Outcome.STORED, level=line.level - (line.level - 1) % 4, reason="", count=1
                            ),
                        ],
                    )
                    await batch.commit(plan)
            finally:
                await connection.rollback()
        return line.id


def _check_replayable(letter: StoredDeadLetter) -> None:
    """Raises ReplayRefused for a letter that is no line."""
    why = {
        NO_FRAME: "is a whole record that could not be read as a frame",
        MISSING: "stands for logs that a frame counted and did not hold",
    }.get(letter.reason)
    if why is not None:
        raise ReplayRefused(
            f"dead letter {letter.id} {why}: there is no line to store, look at it and drop it ({letter.detail})"
        )


def _decoded(letter: StoredDeadLetter) -> LogLine:
    """The line as a log. Raises ValueError with the reason when it is none that the ledger can book."""
    line = decode_line(letter.line)
    if line.service_name != letter.service_name:
        raise ValueError(f"the line is of service {line.service_name!r}, it was counted as {letter.service_name!r}")
    if not 1 <= line.level <= SEVERITY_MAX:
        raise ValueError(f"level must be 1..{SEVERITY_MAX}, got {line.level}")
    return line


def _booked(letter: StoredDeadLetter, outcome: Outcome, *, level: int, reason: str, count: int) -> LedgerRow:
    return LedgerRow(letter.received_minute_us, letter.service_name, level, outcome, reason, count)


@contextmanager
def _refusals(letter_id: int) -> Iterator[None]:
    try:
        yield
    except (RowsRefused, ChunkMissing) as error:
        cause = str(error.__cause__ or error).strip().splitlines()[0]
        raise ReplayRefused(f"dead letter {letter_id} cannot be stored and stays: {cause}") from error
    except (ValueError, msgspec.MsgspecError) as error:
        raise ReplayRefused(f"dead letter {letter_id} is no line that can be stored and stays: {error}") from error


async def _fetch(
    connection: Connection, statement: LiteralString, letter_id: int, allowed: ServiceScope
) -> StoredDeadLetter:
    row = await (await connection.execute(statement, {"id": letter_id, **_scope(allowed)})).fetchone()
    if row is None:
        raise DeadLetterMissing(f"there is no dead letter {letter_id}")
    return StoredDeadLetter(*row)


def _scope(allowed: ServiceScope) -> dict[str, Any]:
    return {
        "everything": allowed.everything,
        "names": sorted(allowed.names),
        "prefixes": sorted(allowed.prefixes),
        "excluded": sorted(allowed.excluded),
    }
