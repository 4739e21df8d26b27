"""Makes, lists and revokes keys and users, in the database; every process knows of it within two seconds (`directory.py`)."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import msgspec

from access.directory import KEYS_MAX, USERS_MAX
from access.errors import AccountError
from access.grants import check_grants
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
    "prefix, name, grants, networks, created_at, created_by, expires_at, revoked_at, logs_per_s, bytes_per_s, burst_s"
)
_USER_COLUMNS: Final = "user_id, name, grants, created_at, disabled_at, issuer"


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


@dataclass(frozen=True, slots=True)
class MadeFirst:
    """What a first start made."""

    keys: bool
    user: bool


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

    async def has_keys(self) -> bool:
        """Whether a key was ever made. Raises DatabaseUnavailable."""
        return await self._database.fetch_one("SELECT FROM api_keys LIMIT 1") is not None

    async def revoke_key(self, prefix: str) -> None:
        """No request with it is let in from two seconds later on. Harmless when repeated. Raises AccountError."""
        found = await self._database.execute(
            "UPDATE api_keys SET revoked_at = coalesce(revoked_at, clock_timestamp()) WHERE prefix = %s", (prefix,)
        )
        if not found:
            raise AccountError(
                f"there is no key {prefix[:100]!r}: name it by its prefix, the {PREFIX_CHARS} characters after lf_"
            )

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
            raise AccountError(f"there is a user {name!r} already")
        return int(row[0])

    async def users(self) -> list[UserInfo]:
        """All of them by name, disabled ones too. Raises DatabaseUnavailable."""
        return [
            UserInfo(*row) for row in await self._database.fetch_all(f"SELECT {_USER_COLUMNS} FROM users ORDER BY name")
        ]

    async def set_password(self, name: str, password_hash: str) -> None:
        """Change a password and end the user's sessions. Raises AccountError, DatabaseUnavailable."""
        row = await self._database.fetch_one("SELECT issuer FROM users WHERE name = %s AND issuer IS NOT NULL", (name,))
        if row is not None:
            raise AccountError(f"{name} has no password here: they come from {row[0]}")
        await self._change(name, "password_hash = %s", (password_hash,), ended_why="password")

    async def disable_user(self, name: str) -> None:
        """Let a user in no more, and end their sessions. Harmless when repeated. Raises AccountError."""
        changes = "disabled_at = coalesce(disabled_at, clock_timestamp())"
        await self._change(name, changes, (), ended_why="disabled")

    async def _change(self, name: str, changes: str, params: tuple[Any, ...], *, ended_why: str) -> None:
        """changes: our own text."""
        async with self._database.transaction() as connection:
            query = f"UPDATE users SET {changes} WHERE name = %s RETURNING user_id"
            row: Any = await (await connection.execute(query.encode(), (*params, name))).fetchone()
            if row is None:
                raise AccountError(f"there is no user {name[:100]!r}")
            await connection.execute(
                "UPDATE sessions SET ended_at = clock_timestamp(), ended_why = %s"
                " WHERE user_id = %s AND ended_at IS NULL",
                (ended_why, row[0]),
            )


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
        raise AccountError(f"there are {row[0]} already, at most {most} are possible: each process holds all of them")
