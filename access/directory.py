"""What the database says of keys, users and sessions, held in memory by every process.

Concurrency: one event loop; `watch` changes what is held, requests only read it. Each second one statement asks whether the
version has moved; if so, the rows changed since are read, in one snapshot; each minute, and after a restored database, all of
them. So a key that is revoked or changed counts everywhere within two seconds and a look-up costs no round trip. A key or user
that is not known may have been made since: they are looked for once more before they are refused, for all that wait by one
statement, ten a second at most. Bounds: KEYS_MAX, USERS_MAX (`accounts.py` refuses more).

While the database is away, what was known goes on for `offline_s` after it was last confirmed; then nothing is known. Who
is not known may come again until it is back: a shipper that is refused for good drops what it has.
"""

from __future__ import annotations

import asyncio
import ipaddress
import secrets
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
import structlog

from access.errors import AccessUnknown
from access.grants import principal_of
from access.metrics import CONFIRMED
from access.principal import Principal, RateLimits
from db.database import Database, bounded
from runtime.clock import Clock
from runtime.stopping import Stop
from schemas.errors import DatabaseUnavailable

log = structlog.get_logger(__name__)

KEYS_MAX: Final = 10_000
USERS_MAX: Final = 10_000

_ASK_EVERY_S: Final = 1.0
_ALL_EVERY_S: Final = 60.0
"""Rows that somebody deleted by hand go then."""
_ANSWER_S_MAX: Final = 10.0
_AGAIN_EVERY_S: Final = 0.1
"""How often who is not known is looked for: guessing keys costs the database no more than this."""
_AGAIN_S_MAX: Final = 3.0
_ENDED_KEPT: Final = "2 hours"
"""Longer than any access token lives."""
_SECRET: Final = "access_tokens"
_SECRET_BYTES: Final = 32

# Of a server: one that was promoted behind another counts again from where that one has counted on.
_VERSION: Final = "SELECT version, extract(epoch FROM pg_postmaster_start_time())::float8 FROM access_version"
_KEYS: Final = """
    SELECT prefix, name, secret_sha256, grants, networks, revoked_at IS NOT NULL,
        CASE WHEN isfinite(expires_at) THEN (extract(epoch FROM expires_at) * 1000000)::bigint
            WHEN expires_at < now() THEN 0 END,
        logs_per_s, bytes_per_s, burst_s
    FROM api_keys WHERE changed > %s"""
_USERS: Final = "SELECT user_id, name, grants, disabled_at IS NOT NULL FROM users WHERE changed > %s"
_ENDED: Final = f"""
    SELECT session_id FROM sessions
    WHERE changed > %s AND ended_at > clock_timestamp() - interval '{_ENDED_KEPT}'"""

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class KnownKey:
    """A key that was not revoked."""

    sha256: bytes
    principal: Principal
    networks: tuple[Network, ...]
    """Where requests may come from; empty: anywhere."""
    expires_us: int | None


@dataclass(slots=True)
class _Held:
    version: int
    server: float = 0.0
    """When the server that counts started."""
    keys: dict[str, KnownKey] = field(default_factory=dict)
    """By public prefix."""
    users: dict[int, Principal] = field(default_factory=dict)
    """Who is not disabled."""
    ended: set[str] = field(default_factory=set)
    """Sessions that were ended lately."""


class Directory:
    """Keys, users and ended sessions of one database."""

    def __init__(self, database: Database, clock: Clock, *, offline_s: float) -> None:
        """database: opened and closed by the caller. offline_s: seconds that what is known lasts without it."""
        self._database = database
        self._clock = clock
        self._offline_s = offline_s
        self._held: _Held | None = None
        self._confirmed_s = 0.0
        self._all_s = 0.0
        self._secret: bytes | None = None
        self._reading = asyncio.Lock()
        self._asked_s = 0.0
        """When the last look began that has come to its end."""

    def key(self, prefix: str) -> KnownKey | None:
        """The key, None when there is none or it was revoked. Raises AccessUnknown."""
        return self._known().keys.get(prefix)

    def user(self, user_id: int) -> Principal | None:
        """The user, None when there is none or they are disabled. Raises AccessUnknown."""
        return self._known().users.get(user_id)

    def is_ended(self, session_id: str) -> bool:
        """Whether the session was ended within the last two hours. Raises AccessUnknown."""
        return session_id in self._known().ended

    @property
    def token_secret(self) -> bytes:
        """The secret that signs access tokens, the same in all processes. Raises AccessUnknown."""
        self._known()
        assert self._secret is not None, "it was read with all else"
        return self._secret

    def problem(self) -> str | None:
        """Why nobody can be let in, for people; None when it can be told who may what."""
        try:
            self._known()
        except AccessUnknown as error:
            return str(error)
        return None

    async def load(self) -> None:
        """Read all of it. Raises DatabaseUnavailable."""
        async with bounded(_ANSWER_S_MAX), self._reading:
            await self._load()

    async def refresh(self) -> None:
        """Read what has changed. Raises DatabaseUnavailable."""
        async with bounded(_ANSWER_S_MAX), self._reading:
            await self._refresh()

    async def look_again(self) -> None:
        """Return when what was committed before the call is known here. Raises AccessUnknown while the database is away."""
        called_s = self._clock.monotonic_s()
        try:
            async with bounded(_AGAIN_S_MAX), self._reading:
                if self._asked_s > called_s:
                    return
                await asyncio.sleep(self._asked_s + _AGAIN_EVERY_S - self._clock.monotonic_s())
                await self._refresh()
        except DatabaseUnavailable as error:
            raise AccessUnknown(f"this key or user could not be looked for: {error}", retry_after_s=2) from error

    async def _load(self) -> None:
        asked_s = self._clock.monotonic_s()
        if self._secret is None:
            self._secret = await self._read_secret()
        self._held = await self._read(_Held(0))
        self._asked_s, self._all_s = asked_s, self._confirmed()

    async def _refresh(self) -> None:
        held, asked_s = self._held, self._clock.monotonic_s()
        if held is None or asked_s - self._all_s >= _ALL_EVERY_S:
            await self._load()
            return
        row = await self._database.fetch_one(_VERSION)
        version, server = row or (0, 0.0)
        is_same = version >= held.version and server == held.server
        if is_same and version > held.version:
            self._held = await self._read(held)
        if not is_same:  # a restored database, or another server
            await self._load()
        self._asked_s = asked_s
        self._confirmed()

    async def watch(self, stop: Stop) -> None:
        """Refresh each second until the stop."""
        is_away = False
        while not await stop.wait(_ASK_EVERY_S):
            try:
                await self.refresh()
            except (
                Exception
            ) as error:  # tables that are gone while a backup comes back, too: then revoking must act again
                if not is_away:
                    log.warning("who may what cannot be refreshed", error=str(error), known_for_s=self._offline_s)
                is_away = True
            else:
                is_away = False

    def _known(self) -> _Held:
        held = self._held
        if held is None:
            raise AccessUnknown("who may what was not read yet: the database has not answered", retry_after_s=2)
        if self._clock.monotonic_s() - self._confirmed_s > self._offline_s:
            raise AccessUnknown(
                f"the database has not confirmed for {self._offline_s:g} s who may what", retry_after_s=5
            )
        return held

    def _confirmed(self) -> float:
        self._confirmed_s = self._clock.monotonic_s()
        CONFIRMED.set(self._clock.now_us() / 1e6)
        return self._confirmed_s

    async def _read(self, since: _Held) -> _Held:
        """What is held, brought to the present; `since` stays as it is."""
        async with self._database.transaction(snapshot=True) as connection:
            row = await (await connection.execute(_VERSION)).fetchone()
            keys = await (await connection.execute(_KEYS, (since.version,))).fetchall()
            users = await (await connection.execute(_USERS, (since.version,))).fetchall()
            ended = await (await connection.execute(_ENDED.encode(), (since.version,))).fetchall()
        version, server = row or (0, 0.0)
        now = _Held(version, server, dict(since.keys), dict(since.users), set(since.ended))
        for prefix, name, sha256, grants, networks, is_revoked, expires_us, *rates in keys:
            now.keys.pop(prefix, None)
            if is_revoked:
                continue
            principal = principal_of(f"key:{prefix}", name, filter(None, grants))
            if rates[:2] != [None, None]:
                principal = msgspec.structs.replace(principal, rates=RateLimits(*rates))
            try:
                places = tuple(map(ipaddress.ip_network, networks))
            except ValueError as error:  # written by hand: one row must not keep all others from being read
                log.error("a key opens nothing: its networks cannot be read", prefix=prefix, error=str(error))
                continue
            now.keys[prefix] = KnownKey(bytes(sha256), principal, places, expires_us)
        for user_id, name, grants, is_disabled in users:
            if is_disabled:
                now.users.pop(user_id, None)
            else:
                now.users[user_id] = principal_of(f"user:{user_id}", name, filter(None, grants))
        now.ended.update(session_id for (session_id,) in ended)
        return now

    async def _read_secret(self) -> bytes:
        async with self._database.connection() as connection:
            await connection.execute(
                "INSERT INTO secrets (name, value) VALUES (%s, %s) ON CONFLICT DO NOTHING",
                (_SECRET, secrets.token_bytes(_SECRET_BYTES)),
            )
            row: Any = await (
                await connection.execute("SELECT value FROM secrets WHERE name = %s", (_SECRET,))
            ).fetchone()
        return bytes(row[0])
