"""The sessions of a user as lists show them, and their end: for the user, and for who administers.

Nothing here opens anything: neither the number of a session, which stands in its tokens, nor a token.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from access.accounts import Accounts, UserInfo
from db.database import Database

LIST_MAX: Final = 1_000
_SESSIONS: Final = """
    SELECT began_at, refreshed_at, least(expires_at, refreshed_at + make_interval(secs => %s)) FROM sessions
    WHERE user_id = %s AND ended_at IS NULL AND expires_at > clock_timestamp()
        AND refreshed_at > clock_timestamp() - make_interval(secs => %s)
    ORDER BY refreshed_at DESC, session_id LIMIT %s"""
_END: Final = (
    "UPDATE sessions SET ended_at = clock_timestamp(), ended_why = 'logout' WHERE user_id = %s AND ended_at IS NULL"
)


@dataclass(frozen=True, slots=True)
class SessionInfo:
    """A login that goes on."""

    began_at: datetime
    refreshed_at: datetime
    """When its access token was made last."""
    ends_at: datetime
    """Unless it is refreshed before, or ended."""


class UserSessions:
    """The sessions of one database."""

    def __init__(self, database: Database) -> None:
        """database: opened and closed by the caller."""
        self._database = database
        self._accounts = Accounts(database)

    async def of(self, name: str, *, idle_s: int) -> tuple[UserInfo, list[SessionInfo]]:
        """The user and their sessions, LIST_MAX at most, the one that was used last first. idle_s: how long one lasts without
        a refresh. Raises AccountUnknown, DatabaseUnavailable."""
        user = await self._accounts.user(name)
        rows = await self._database.fetch_all(_SESSIONS, (idle_s, user.user_id, idle_s, LIST_MAX))
        return user, [SessionInfo(*row) for row in rows]

    async def end(self, name: str) -> UserInfo:
        """End all of them: everywhere within two seconds. Harmless without any. Raises AccountUnknown, DatabaseUnavailable."""
        user = await self._accounts.user(name)
        await self._database.execute(_END, (user.user_id,))
        return user
