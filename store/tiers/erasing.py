"""Removes all logs that match a query, wherever they lie, and says so in writing.

A request stands in the database before anything goes, with its time. Once everything that was acknowledged by then is stored,
rows go from dead letters and tables (erasing_rows.py) and from files (erasing_files.py). What is killed half-way is begun again
with the same query. Whoever erases leads tiering meanwhile, so that no row changes its place.

Logs that match and come later are not erased. Where copies remain for a while, and for how long, is in the certificate.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Iterator, Sequence
from typing import Final

import msgspec
import structlog

from db.database import Database
from schemas.errors import InvalidInput, LogfeedError
from schemas.times import time_text
from search.language import QueryError, parse
from search.match import compile_match
from search.predicate import EVERYTHING, Predicate
from store.segments.settings import SegmentSettings
from store.steps import US, clock_us
from store.tiers.erasing_files import FileRows
from store.tiers.erasing_rows import Removed, TableRows, delete_letters
from store.tiers.progress import Progress
from store.tiers.segments import SegmentState
from store.tiers.tiering import Tiering
from store.upkeep import DROP_DELAY_S

log = structlog.get_logger(__name__)

_LOOK_EVERY_S: Final = 0.5
_COLLECT_EVERY_S: Final = 5.0
_REQUEST: Final = f"""
    INSERT INTO erasures (requested_by, query) VALUES (%s, %s) RETURNING id, {US.format("requested_at")}"""
_FINISH: Final = f"""
    UPDATE erasures SET finished_at = clock_timestamp() WHERE id = %s RETURNING {US.format("finished_at")}"""
_CERTIFY: Final = "UPDATE erasures SET certificate = %s::jsonb WHERE id = %s"
_BEHIND: Final = """
    SELECT array_agg(partition ORDER BY partition) FROM consumer_offsets
    WHERE topic = %s AND stored_to - interval '1 second' < (SELECT requested_at FROM erasures WHERE id = %s)"""


class NotYet(LogfeedError):
    """What was acknowledged before the request is not stored yet."""


class Erased(msgspec.Struct, frozen=True):
    """Logs of one service and day."""

    service_name: str
    day: str
    """UTC, ISO 8601."""
    rows: int


class Remaining(msgspec.Struct, frozen=True):
    """A copy that goes by itself."""

    what: str
    until: str


class Certificate(msgspec.Struct, frozen=True):
    """What an erasure did."""

    id: int
    """Of the row in `erasures`."""
    query: str
    requested_by: str
    requested_at: str
    finished_at: str
    rows: int
    erased: tuple[Erased, ...]
    dead_letters: int
    """Deleted."""
    dead_letters_unreadable: int
    """Letters that are no log, so that nobody can say whether they match: see `logfeed dead list`."""
    files_replaced: tuple[str, ...]
    remaining: tuple[Remaining, ...]


def predicate_of(query: str) -> Predicate:
    """What is to be erased. Raises InvalidInput, also for a query that everything matches."""
    try:
        predicate = parse(query)
    except QueryError as error:
        raise InvalidInput(f"--where: {error}") from error
    if predicate == EVERYTHING:
        raise InvalidInput("--where must say which logs: an empty query matches all")
    return predicate


class Eraser:
    """One erasure."""

    def __init__(
        self,
        database: Database,
        tiering: Tiering,
        settings: SegmentSettings,
        *,
        topic: str,
        query: str,
        requested_by: str,
        copies: Sequence[Remaining],
        progress: Progress,
        patience_s: float = 600.0,
    ) -> None:
        """tiering: leads. topic: whose partitions say what is stored. copies: what others keep, and how long.
        patience_s: seconds that may be waited for writers and for the sealer. Raises InvalidInput."""
        self._predicate = predicate_of(query)
        self._database = database
        self._tiering = tiering
        self._settings = settings
        self._topic = topic
        self._query = query
        self._requested_by = requested_by
        self._copies = copies
        self._progress = progress
        self._patience_s = patience_s
        self._retired = frozenset[str]()

    async def erase(self) -> Certificate:
        """Do it. Raises NotYet, StaleEpoch, DatabaseUnavailable, and as FileRows.remove; then it is to be begun again."""
        await self._check_places()
        row = await self._database.fetch_one(_REQUEST, (self._requested_by, self._query))
        assert row is not None, "an INSERT returns its row"
        number, requested_us = row
        await self._until_stored(number)
        # Letters first: one whose replay is under way is waited for, and its row is in a table before tables are looked at.
        letters, unreadable = await delete_letters(self._database, compile_match(self._predicate))
        tables = TableRows(self._database, self._tiering.catalogue, self._predicate)
        removed = await self._from_tables(tables)
        locked = await tables.delete_copies()
        tiering = self._tiering
        files = FileRows(
            tiering.catalogue, tiering.places, tiering.objects, self._settings, tiering.pace, self._predicate
        )
        from_files, replaced = await files.remove(lambda *done: self._progress("files", *done))
        removed += from_files
        # Those of tables that lost rows, too, and what was merged or was past its age a moment ago.
        self._retired = frozenset(each.name for each in await tiering.catalogue.segments(SegmentState.RETIRED))
        has_parts = await tables.has_parts_left()
        row = await self._database.fetch_one(_FINISH, (number,))
        assert row is not None, "the request stands there"
        certificate = Certificate(
            id=number,
            query=self._query,
            requested_by=self._requested_by,
            requested_at=time_text(requested_us),
            finished_at=time_text(row[0]),
            rows=removed.total(),
            erased=tuple(Erased(service, day, rows) for (service, day), rows in sorted(removed.items())),
            dead_letters=letters,
            dead_letters_unreadable=unreadable,
            files_replaced=tuple(replaced),
            remaining=(*self._remaining(row[0], locked, has_parts=has_parts),),
        )
        await self._database.execute(_CERTIFY, (msgspec.json.encode(certificate).decode(), number))
        log.info("logs erased", erasure=number, rows=certificate.rows, by=self._requested_by)
        return certificate

    async def until_files_are_gone(self) -> None:
        """After `erase`: wait until all files that nobody asked any more by then are removed, ten minutes, and remove them.
        Raises StaleEpoch, DatabaseUnavailable, and as the object storage does."""
        while self._retired:
            async with self._database.connection() as connection:
                now_us = await clock_us(connection)
            await self._tiering.collect(now_us)
            self._retired &= await self._tiering.catalogue.names()
            if self._retired:
                await asyncio.sleep(_COLLECT_EVERY_S)

    async def _check_places(self) -> None:
        """Before anything is removed. Objects can be neither read nor removed without the object storage."""
        if self._tiering.objects is None and await self._tiering.catalogue.has_objects():
            raise InvalidInput("some files are in object storage, and objects.url names none: nothing was erased")

    async def _until_stored(self, number: int) -> None:
        deadline_s = time.monotonic() + self._patience_s
        while True:
            row = await self._database.fetch_one(_BEHIND, (self._topic, number))
            if row is None or not row[0]:
                return
            if time.monotonic() > deadline_s:
                behind = ", ".join(map(str, row[0]))
                raise NotYet(
                    f"partitions {behind} of {self._topic} are behind the request after {self._patience_s:.0f} s: does a"
                    " writer run, is a partition halted (logfeed db status)? Nothing was erased"
                )
            await asyncio.sleep(_LOOK_EVERY_S)

    async def _from_tables(self, tables: TableRows) -> Removed:
        deadline_s = time.monotonic() + self._patience_s
        removed, left = Removed(), None
        while True:
            found, left = await tables.delete(lambda *done: self._progress("tables", *done), only=left)
            removed += found
            if not left:
                return removed
            if time.monotonic() > deadline_s:
                raise NotYet(f"{', '.join(left)} closed and not finished: does a writer run? Begin again when one does")
            await asyncio.sleep(_LOOK_EVERY_S)

    def _remaining(self, finished_us: int, locked: Collection[str], *, has_parts: bool) -> Iterator[Remaining]:
        gone = time_text(finished_us + DROP_DELAY_S * 1_000_000)
        for table in locked:
            yield Remaining(
                f"table {table}, which has left the catalogue and was locked", f"dropped by the sealer after {gone}"
            )
        if has_parts:
            yield Remaining("what indexed open tables beside them", f"dropped by the sealer after {gone}")
        if self._retired:
            yield Remaining(
                "replaced files and objects, which nobody asks any more", f"removed by `logfeed tier` after {gone}"
            )
            yield Remaining(
                "copies of objects in the caches of query processes (objects.cache_dir)",
                "deleted by each within seconds, at most a minute after the last question that reads them; by one that does"
                " not run, when it starts again",
            )
        yield Remaining(
            "files and objects that processes left when they were killed, unknown to the database (logfeed tier status)",
            "removed by `logfeed tier` as tiers.strays_kept_days says",
        )
        yield from self._copies
        yield Remaining("the database's write-ahead log, freed pages and replicas", "as they are reused and recycled")
        yield Remaining(
            "your backups of the database, files and objects", "as you keep them; erase again after a restore"
        )
        yield Remaining(
            "counts per service and minute in the ledger, which hold no text", "with the ledger's retention"
        )
