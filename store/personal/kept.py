"""Bookmarks and saved views in the database, each of one subject and seen by nobody else.

Bounded in number per subject: counting and adding are one step under a lock of the subject's. What is there already can be
written over at the bound. They go when their user is disabled or their key is revoked (db/migrations/0016_personal.sql).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from db.database import Database
from schemas.errors import LogfeedError

_LOCK: Final = 7416
"""Advisory, with a number for the subject."""
_BOOKMARKS: Final = """
    SELECT kind, target_id, note, created_at FROM bookmarks WHERE subject = %s AND (%s::text IS NULL OR kind = %s)
    ORDER BY created_at DESC, kind, target_id"""
_KEEP_BOOKMARK: Final = """
    INSERT INTO bookmarks (subject, kind, target_id, note)
    SELECT %(subject)s, %(kind)s, %(target_id)s, %(note)s
    WHERE (SELECT count(*) FROM bookmarks WHERE subject = %(subject)s) < %(most)s
        OR EXISTS (SELECT FROM bookmarks WHERE (subject, kind, target_id) = (%(subject)s, %(kind)s, %(target_id)s))
    ON CONFLICT (subject, kind, target_id) DO UPDATE SET note = excluded.note
    RETURNING kind, target_id, note, created_at"""
_DROP_BOOKMARK: Final = "DELETE FROM bookmarks WHERE (subject, kind, target_id) = (%s, %s, %s)"
_VIEWS: Final = "SELECT name, address, created_at, changed_at FROM saved_views WHERE subject = %s ORDER BY name"
_KEEP_VIEW: Final = """
    INSERT INTO saved_views (subject, name, address)
    SELECT %(subject)s, %(name)s, %(address)s
    WHERE (SELECT count(*) FROM saved_views WHERE subject = %(subject)s) < %(most)s
        OR EXISTS (SELECT FROM saved_views WHERE (subject, name) = (%(subject)s, %(name)s))
    ON CONFLICT (subject, name) DO UPDATE SET address = excluded.address, changed_at = clock_timestamp()
    RETURNING name, address, created_at, changed_at"""
_DROP_VIEW: Final = "DELETE FROM saved_views WHERE (subject, name) = (%s, %s)"


class BookmarkKind(StrEnum):
    """What a bookmark is of."""

    LOG = "log"
    CONNECTION = "connection"
    EXPERIMENT = "experiment"


class NoRoom(LogfeedError):
    """There are as many as one may keep: remove one."""


@dataclass(frozen=True, slots=True)
class Bookmark:
    """One bookmark."""

    kind: BookmarkKind
    target_id: str
    note: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class SavedView:
    """One view of the page."""

    name: str
    address: str
    created_at: datetime
    changed_at: datetime


class PersonalStore:
    """Of one database. Texts have no NUL and no halves of surrogate pairs."""

    def __init__(self, database: Database) -> None:
        """database: opened and closed by the caller."""
        self._database = database

    async def bookmarks(self, subject: str, *, kind: BookmarkKind | None = None) -> list[Bookmark]:
        """The subject's, newest first. Raises DatabaseUnavailable."""
        return [
            Bookmark(BookmarkKind(found), *rest)
            for found, *rest in await self._database.fetch_all(_BOOKMARKS, (subject, kind, kind))
        ]

    async def keep_bookmark(
        self, subject: str, kind: BookmarkKind, target_id: str, note: str, *, most: int
    ) -> Bookmark:
        """Make it, or change its note. most: of the subject's. Raises NoRoom, DatabaseUnavailable."""
        values = {"subject": subject, "kind": kind, "target_id": target_id, "note": note, "most": most}
        row = await self._kept(_KEEP_BOOKMARK, values)
        if row is None:
            raise NoRoom(f"you have {most} bookmarks, as many as one may have: remove one")
        return Bookmark(BookmarkKind(row[0]), *row[1:])

    async def drop_bookmark(self, subject: str, kind: BookmarkKind, target_id: str) -> None:
        """Harmless where there is none. Raises DatabaseUnavailable."""
        await self._database.execute(_DROP_BOOKMARK, (subject, kind, target_id))

    async def views(self, subject: str) -> list[SavedView]:
        """The subject's, by name. Raises DatabaseUnavailable."""
        return [SavedView(*row) for row in await self._database.fetch_all(_VIEWS, (subject,))]

    async def keep_view(self, subject: str, name: str, address: str, *, most: int) -> SavedView:
        """Make it, or change where it leads. most: of the subject's. Raises NoRoom, DatabaseUnavailable."""
        row = await self._kept(_KEEP_VIEW, {"subject": subject, "name": name, "address": address, "most": most})
        if row is None:
            raise NoRoom(f"you have {most} saved views, as many as one may have: remove one")
        return SavedView(*row)

    async def drop_view(self, subject: str, name: str) -> None:
        """Harmless where there is none. Raises DatabaseUnavailable."""
        await self._database.execute(_DROP_VIEW, (subject, name))

    async def _kept(self, query: str, values: dict[str, Any]) -> Any:  # a row, or None where there is no room
        async with self._database.transaction() as connection:
            await connection.execute("SELECT pg_advisory_xact_lock(%s, hashtext(%s))", (_LOCK, values["subject"]))
            return await (await connection.execute(query.encode(), values)).fetchone()
