"""Makes, lists and changes keys and users, in the database; every process knows of it within two seconds (`directory.py`).

Whoever runs the commands on the server may do everything. Over HTTP (`keeps_admin`) nobody takes the last one away who may
administer over HTTP: that is looked at under the lock that all changes take, so that two at once cannot.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import msgspec

from access.directory import KEYS_MAX, USERS_MAX
from access.errors import AccountConflict, AccountError, AccountUnknown
from access.grants import ADMIN_OF_ALL, check_grants
from access.keys import PREFIX_CHARS, NewKey, new_key
from access.principal import RateLimits
from db.database import Connection, Database

NAME_CHARS_MAX: Final = 100
NETWORKS_MAX: Final = 100

_USER_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._@+-]{0,99}")
_AS_SET: Final = RateLimits()
_LOCK: Final = 7408
"""Advisory: counting, then making one more, is one step."""
_MAKE_KEY: Final = (
    "INSERT INTO api_keys (prefix, name, secret_sha256, grants, networks, created_by, expires_at,"
    " logs_per_s, bytes_per_s, burst_s) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)"
)
_MAKE_USER: Final = (
    "INSERT INTO users (name, password_hash, grants) VALUES (%s, %s, %s)"
    " ON CONFLICT (name) DO NOTHING RETURNING user_id"
)
_KEY_COLUMNS: Final = (
    "prefix, name, grants, networks, created_at, created_by, expires_at, revoked_at, logs_per_s, bytes_per_s, burst_s,"
    " last_used_at"
)
_USER_COLUMNS: Final = "user_id, name, grants, created_at, disabled_at, issuer"
_KEY: Final = f"SELECT {_KEY_COLUMNS} FROM api_keys WHERE prefix = %s"
_USER: Final = f"SELECT {_USER_COLUMNS} FROM users WHERE name = %s"
_KEY_PAGE: Final = f"""
    SELECT {_KEY_COLUMNS} FROM api_keys
    WHERE (%(after_at)s::timestamptz IS NULL OR (created_at, prefix) < (%(after_at)s, %(after)s))
        AND (%(everything)s OR revoked_at IS NULL AND (expires_at IS NULL OR expires_at > clock_timestamp()))
        AND (strpos(lower(name), lower(%(part)s)) > 0 OR prefix = %(part)s)
    ORDER BY created_at DESC, prefix DESC LIMIT %(limit)s"""
_USER_PAGE: Final = f"""
    SELECT {_USER_COLUMNS} FROM users WHERE name > %(after)s AND strpos(name, lower(%(part)s)) > 0
    ORDER BY name LIMIT %(limit)s"""
_ADMINS: Final = "SELECT name FROM users WHERE disabled_at IS NULL AND %s = ANY(grants) LIMIT 2"
_ADMIN_KEYS: Final = """
    SELECT prefix FROM api_keys WHERE revoked_at IS NULL AND expires_at IS NULL AND %s = ANY(grants) LIMIT 2"""
"""Those that expire do not last."""
_REVOKE: Final = "UPDATE api_keys SET revoked_at = coalesce(revoked_at, clock_timestamp()) WHERE prefix = %s"
_CHANGE_USER: Final = f"""
    UPDATE users SET grants = coalesce(%s::text[], grants), disabled_at =
        CASE %s::boolean WHEN true THEN coalesce(disabled_at, clock_timestamp()) WHEN false THEN NULL ELSE disabled_at END
    WHERE user_id = %s RETURNING {_USER_COLUMNS}"""
_END_SESSIONS: Final = (
    "UPDATE sessions SET ended_at = clock_timestamp(), ended_why = %s WHERE user_id = %s AND ended_at IS NULL"
)


@dataclass(frozen=True, slots=True)
class KeyInfo:
    """A key as lists show it: nothing here opens anything."""

    prefix: str
    name: str
    grants: list[str]
    networks: list[str]
    created_at: datetime
    created_by: str
    expires_at: datetime | None
    revoked_at: datetime | None
    logs_per_s: float | None
    bytes_per_s: float | None
    burst_s: float
    """See RateLimits."""
    last_used_at: datetime | None
    """To the minute; None: never."""

    def state(self, now: datetime) -> str:
        """good, expired or revoked."""
        if self.revoked_at is not None:
            return "revoked"
        return "expired" if self.expires_at is not None and self.expires_at <= now else "good"


@dataclass(frozen=True, slots=True)
class UserInfo:
    """A user as lists show them."""

    user_id: int
    name: str
    grants: list[str]
    created_at: datetime
    disabled_at: datetime | None
    issuer: str | None
    """The login provider that they come from; None: they have a password here."""

    @property
    def state(self) -> str:
        """good or disabled."""
        return "good" if self.disabled_at is None else "disabled"


@dataclass(frozen=True, slots=True)
class MadeFirst:
    """What a first start made."""

    keys: bool
    user: bool


Check = Callable[[UserInfo], None]
"""Whether a user may be changed, as they are under the lock of the change: what it finds still holds when that is done. Raises
what its caller raises."""


class Accounts:
    """The keys and users of one database."""

    def __init__(self, database: Database) -> None:
        """database: opened and closed by the caller."""
        self._database = database

    # --- keys ---

    async def create_key(
        self,
        name: str,
        grants: Sequence[str],
        *,
        created_by: str,
        expires_at: datetime | None = None,
        networks: Sequence[str] = (),
        rates: RateLimits = _AS_SET,
    ) -> NewKey:
        """A new key; its text is nowhere else. networks: CIDR. Raises AccountError, DatabaseUnavailable."""
        _check_name(name)
        held, allowed = check_grants(grants), check_networks(networks)
        key = new_key()
        async with self._database.transaction() as connection:
            await check_room(connection, "api_keys", "revoked_at IS NULL", KEYS_MAX)
            limits = msgspec.structs.astuple(rates)
            await connection.execute(
                _MAKE_KEY, (key.prefix, name, key.sha256, held, allowed, created_by, expires_at, *limits)
            )
        return key

    async def make_first(
        self,
        keys: Iterable[tuple[str, Sequence[str], NewKey]],
        user: tuple[str, Sequence[str], str],
        *,
        created_by: str,
    ) -> MadeFirst:
        """All of these keys (name, grants, key) and the user (name, grants, password_hash), unless a key was ever made; a user
        of that name stays. Raises AccountError, DatabaseUnavailable."""
        async with self._database.transaction() as connection:
            await lock_accounts(connection)
            if await (await connection.execute("SELECT FROM api_keys LIMIT 1")).fetchone() is not None:
                return MadeFirst(keys=False, user=False)
            limits = msgspec.structs.astuple(_AS_SET)
            for name, grants, key in keys:
                await connection.execute(
                    _MAKE_KEY, (key.prefix, name, key.sha256, check_grants(grants), [], created_by, None, *limits)
                )
            name, grants, password_hash = user
            cursor = await connection.execute(_MAKE_USER, (name, password_hash, check_grants(grants)))
            return MadeFirst(keys=True, user=await cursor.fetchone() is not None)

    async def keys(self) -> list[KeyInfo]:
        """All of them, newest first, revoked ones too. Raises DatabaseUnavailable."""
        rows = await self._database.fetch_all(f"SELECT {_KEY_COLUMNS} FROM api_keys ORDER BY created_at DESC, prefix")
        return [KeyInfo(*row) for row in rows]

    async def key_page(
        self, *, part: str, everything: bool, after: tuple[datetime, str] | None, limit: int
    ) -> list[KeyInfo]:
        """Keys behind a place (created_at, prefix), newest first. part: of the name, in letters of either case, or a prefix.
        everything: revoked and expired ones too. Raises DatabaseUnavailable."""
        after_at, prefix = (None, "") if after is None else after
        params = {"part": part, "everything": everything, "after_at": after_at, "after": prefix, "limit": limit}
        return [KeyInfo(*row) for row in await self._database.fetch_all(_KEY_PAGE, params)]

    async def key(self, prefix: str) -> KeyInfo:
        """One key. Raises AccountUnknown, DatabaseUnavailable."""
        row = await self._database.fetch_one(_KEY, (_plain(prefix),))
        if row is None:
            raise _unknown_key(prefix)
        return KeyInfo(*row)

    async def has_keys(self) -> bool:
        """Whether a key was ever made. Raises DatabaseUnavailable."""
        return await self._database.fetch_one("SELECT FROM api_keys LIMIT 1") is not None

    async def revoke_key(self, prefix: str, *, keeps_admin: bool = False) -> KeyInfo:
        """The key as it was: no request with it is let in from two seconds later on. Harmless when repeated. keeps_admin:
        refuse where nobody with `admin` on all services would be left. Raises AccountUnknown, AccountConflict,
        DatabaseUnavailable."""
        async with self._database.transaction() as connection:
            await lock_accounts(connection)
            row: Any = await (await connection.execute(_KEY.encode(), (_plain(prefix),))).fetchone()
            if row is None:
                raise _unknown_key(prefix)
            key = KeyInfo(*row)
            is_last = keeps_admin and await _names(connection, _ADMIN_KEYS) == [prefix]
            if is_last and not await _names(connection, _ADMINS):
                raise AccountConflict(
                    f"{prefix} is the last key with `admin` on all services, and no user has it: make another first"
                )
            await connection.execute(_REVOKE, (prefix,))
        return key

    # --- users ---

    async def create_user(self, name: str, grants: Sequence[str], *, password_hash: str) -> int:
        """The new user's number. password_hash: of `Passwords.hash`. Raises AccountError, DatabaseUnavailable."""
        if not _USER_NAME.fullmatch(name):
            raise AccountError(
                f"expected a name of 1..100 lower-case letters, digits and . _ @ + -, got {name[:120]!r}"
            )
        held = check_grants(grants)
        async with self._database.transaction() as connection:
            await check_room(connection, "users", "true", USERS_MAX)
            cursor = await connection.execute(_MAKE_USER, (name, password_hash, held))
            row: Any = await cursor.fetchone()
        if row is None:
            raise AccountConflict(f"there is a user {name!r} already")
        return int(row[0])

    async def users(self) -> list[UserInfo]:
        """All of them by name, disabled ones too. Raises DatabaseUnavailable."""
        return [
            UserInfo(*row) for row in await self._database.fetch_all(f"SELECT {_USER_COLUMNS} FROM users ORDER BY name")
        ]

    async def user_page(self, *, part: str, after: str, limit: int) -> list[UserInfo]:
        """Users behind a name, by name, disabled ones too. part: of the name. Raises DatabaseUnavailable."""
        params = {"part": part, "after": after, "limit": limit}
        return [UserInfo(*row) for row in await self._database.fetch_all(_USER_PAGE, params)]

    async def user(self, name: str) -> UserInfo:
        """One user. Raises AccountUnknown, DatabaseUnavailable."""
        row = await self._database.fetch_one(_USER, (_plain(name),))
        if row is None:
            raise _unknown_user(name)
        return UserInfo(*row)

    async def set_password(
        self, name: str, password_hash: str, *, instead_of: str | None = None, check: Check | None = None
    ) -> UserInfo:
        """Change a password and end the user's sessions. instead_of: only where this is what is stored of the password still.
        check: see Check. Raises AccountError, DatabaseUnavailable, and what check raises."""
        async with self._database.transaction() as connection:
            user = await _locked_user(connection, name)
            if check is not None:
                check(user)
            if user.issuer is not None:
                raise AccountConflict(f"{name} has no password here: they come from {user.issuer}")
            changed = await connection.execute(
                "UPDATE users SET password_hash = %s WHERE user_id = %s AND password_hash = coalesce(%s, password_hash)",
                (password_hash, user.user_id, instead_of),
            )
            if not changed.rowcount:
                raise AccountConflict(f"the password of {name} was changed meanwhile")
            await connection.execute(_END_SESSIONS, ("password", user.user_id))
        return user

    async def disable_user(self, name: str) -> None:
        """Let a user in no more, and end their sessions. Harmless when repeated. Raises AccountError."""
        await self.change_user(name, is_disabled=True)

    async def change_user(
        self,
        name: str,
        *,
        grants: Sequence[str] | None = None,
        is_disabled: bool | None = None,
        keeps_admin: bool = False,
        check: Check | None = None,
    ) -> UserInfo:
        """The user as they are then. grants: instead of theirs. is_disabled: their sessions end, or they are let in again.
        None: as it is. keeps_admin: refuse to take the last user with `admin` on all services away, whose place no key takes:
        nobody may have it any more. check: see Check. Raises AccountError, DatabaseUnavailable, and what check raises."""
        held = None if grants is None else check_grants(grants)
        async with self._database.transaction() as connection:
            await lock_accounts(connection)
            user = await _locked_user(connection, name)
            if check is not None:
                check(user)
            if held is not None and held != sorted(user.grants) and user.issuer is not None:
                raise AccountConflict(f"what {name} may is decided by their groups at {user.issuer}, at each login")
            stays = not is_disabled and (held is None or ADMIN_OF_ALL in held)
            if keeps_admin and not stays and await _names(connection, _ADMINS) == [name]:
                raise AccountConflict(f"{name} is the last user with `admin` on all services: give it to another first")
            cursor = await connection.execute(_CHANGE_USER.encode(), (held, is_disabled, user.user_id))
            row: Any = await cursor.fetchone()
            if is_disabled:
                await connection.execute(_END_SESSIONS, ("disabled", user.user_id))
        return UserInfo(*row)


def check_networks(networks: Sequence[str]) -> list[str]:
    """The networks as they are stored. Raises AccountError."""
    if len(networks) > NETWORKS_MAX:
        raise AccountError(f"expected at most {NETWORKS_MAX} networks, got {len(networks)}")
    found = []
    for text in networks:
        try:
            found.append(str(ipaddress.ip_network(text)))
        except ValueError as error:
            raise AccountError(f"expected a network such as 10.0.0.0/8 or 2001:db8::/32: {error}") from error
    return found


async def _locked_user(connection: Connection, name: str) -> UserInfo:
    """Until the transaction ends. Raises AccountUnknown."""
    row: Any = await (await connection.execute(f"{_USER} FOR UPDATE".encode(), (_plain(name),))).fetchone()
    if row is None:
        raise _unknown_user(name)
    return UserInfo(*row)


async def _names(connection: Connection, query: str) -> list[str]:
    """Who may administer over HTTP, two at most. query: our own."""
    return [name for (name,) in await (await connection.execute(query.encode(), (ADMIN_OF_ALL,))).fetchall()]


def _plain(name: str) -> str:
    """What PostgreSQL takes as text; no name or prefix is like what is left out."""
    return name[:200].replace("\0", "\ufffd").encode("utf-8", "replace").decode()


def _unknown_key(prefix: str) -> AccountUnknown:
    return AccountUnknown(
        f"there is no key {prefix[:100]!r}: name it by its prefix, the {PREFIX_CHARS} characters after lf_"
    )


def _unknown_user(name: str) -> AccountUnknown:
    return AccountUnknown(f"there is no user {name[:100]!r}")


def _check_name(name: str) -> None:
    if not 1 <= len(name) <= NAME_CHARS_MAX or not name.isprintable():
        raise AccountError(f"expected a name of 1..{NAME_CHARS_MAX} printable characters, got {name[:120]!r}")


async def lock_accounts(connection: Connection) -> None:
    """Nobody else makes a key or user, or takes a name, before this transaction ends."""
    await connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))


async def check_room(connection: Connection, table: str, condition: str, most: int) -> None:
    """That one more fits, under the lock. table, condition: our own texts. Raises AccountError."""
    await lock_accounts(connection)
    query = f"SELECT count(*) FROM {table} WHERE {condition}"
    row: Any = await (await connection.execute(query.encode())).fetchone()
    if row[0] >= most:
        raise AccountConflict(
            f"there are {row[0]} already, at most {most} are possible: each process holds all of them"
        )
