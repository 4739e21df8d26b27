"""Who came from a provider, as a user: known by (issuer, subject), named for people, with the grants that their groups mean."""

from __future__ import annotations

import hashlib
from typing import Any, Final, NamedTuple

from access.accounts import check_room, lock_accounts
from access.directory import USERS_MAX
from access.errors import AccountError, LoginDenied
from db.database import Connection, Database

_FIND: Final = "SELECT user_id, name, grants FROM users WHERE issuer = %s AND issuer_subject = %s"
_CHANGE: Final = "UPDATE users SET name = %s, grants = %s WHERE user_id = %s"
_MAKE: Final = "INSERT INTO users (name, grants, issuer, issuer_subject) VALUES (%s, %s, %s, %s) RETURNING user_id"
_IS_TAKEN: Final = (
    "SELECT EXISTS (SELECT FROM users WHERE name = %s AND (issuer, issuer_subject) IS DISTINCT FROM (%s, %s))"
)


async def remember_user(database: Database, issuer: str, subject: str, *, name: str, grants: list[str]) -> int | None:
    """The number of the user who is this subject, with these grants from now on; None when nobody is and nothing was granted.

    Whoever else has the name keeps it, and this one gets a few characters behind it. Raises LoginDenied when no more users
    are possible, DatabaseUnavailable.
    """
    names = (name, f"{name}+{hashlib.sha256(f'{issuer} {subject}'.encode()).hexdigest()[:8]}")
    async with database.transaction() as connection:
        known = await _find(connection, issuer, subject)
        if known is None and not grants:
            return None
        if known is not None and known.name in names and known.grants == grants:
            return known.user_id
        await lock_accounts(connection)
        known = await _find(
            connection, issuer, subject
        )  # of two first logins of one person the other may have been first
        free = await _free_name(connection, names, issuer, subject)
        if known is not None:
            await connection.execute(_CHANGE, (free or known.name, grants, known.user_id))
            return known.user_id
        if free is None:
            raise LoginDenied(f"the names {' and '.join(names)} belong to others here")
        try:
            await check_room(connection, "users", "true", USERS_MAX)
        except AccountError as error:
            raise LoginDenied(f"nobody new can be let in: {error}") from error
        made: Any = await (await connection.execute(_MAKE, (free, grants, issuer, subject))).fetchone()
        return int(made[0])


class _Known(NamedTuple):
    user_id: int
    name: str
    grants: list[str]


async def _find(connection: Connection, issuer: str, subject: str) -> _Known | None:
    row: Any = await (await connection.execute(_FIND, (issuer, subject))).fetchone()
    return None if row is None else _Known(*row)


async def _free_name(connection: Connection, names: tuple[str, ...], issuer: str, subject: str) -> str | None:
    """Under the lock, so that nobody takes it meanwhile."""
    for name in names:
        row: Any = await (await connection.execute(_IS_TAKEN, (name, issuer, subject))).fetchone()
        if not row[0]:
            return name
    return None
