"""Lets people in: a password (or the word of a login provider, `oidc/`) for a short access token and a refresh token, a refresh
token for the next pair.

A session is a login and every refresh token that came of it. Only the newest is good: one that comes again was stolen, from
whoever holds the newer one or by them, and ends the session for both. Of refresh tokens (256 random bits) the database has
hashes. Access tokens are not stored; those of an ended session are refused everywhere within two seconds (`directory.py`).
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass
from typing import Final

import structlog

from access.directory import Directory
from access.errors import LoginDenied, Unauthenticated, WrongPassword
from access.metrics import LOGINS
from access.passwords import PASSWORD_BYTES_MAX, PasswordChecks
from access.settings import AccessSettings
from access.throttle import LoginThrottle
from access.tokens import Claims, new_access_token
from db.database import Database
from runtime.addresses import network_of
from runtime.clock import Clock
from runtime.turns import Turns
from schemas.errors import Overloaded

log = structlog.get_logger(__name__)

_PURGED_AT_ONCE: Final = 100
_REFRESHES_AT_ONCE: Final = 2
"""Connections to the database that refreshing and logging out take together: anybody may ask for these."""
_REFRESHES_WAITING_MAX: Final = 300
_REFRESH_WAIT_S: Final = 10.0
_BEGIN: Final = """
    INSERT INTO sessions (session_id, user_id, refresh_sha256, expires_at)
    SELECT %s, user_id, %s, clock_timestamp() + make_interval(secs => %s)
    FROM users WHERE user_id = %s AND disabled_at IS NULL AND password_hash = %s
    FOR SHARE RETURNING session_id"""
"""The lock waits for a change of the user that is under way, and the next one for it: no session of before outlives it."""
_BEGIN_FROM_ELSEWHERE: Final = """
    INSERT INTO sessions (session_id, user_id, refresh_sha256, expires_at)
    SELECT %s, user_id, %s, clock_timestamp() + make_interval(secs => %s)
    FROM users WHERE user_id = %s AND disabled_at IS NULL AND issuer IS NOT NULL
    FOR SHARE RETURNING session_id"""
_PURGE: Final = """
    DELETE FROM sessions WHERE session_id IN (
        SELECT session_id FROM sessions WHERE expires_at < clock_timestamp() - interval '1 day' LIMIT %s)"""
_FIND: Final = """
    SELECT s.user_id, s.refresh_sha256, s.ended_at IS NULL AND u.disabled_at IS NULL AND s.expires_at > clock_timestamp()
        AND s.refreshed_at > clock_timestamp() - make_interval(secs => %s),
        greatest(0, extract(epoch FROM s.expires_at - clock_timestamp()))::float8
    FROM sessions s JOIN users u USING (user_id) WHERE s.session_id = %s FOR UPDATE OF s"""
_TURN: Final = "UPDATE sessions SET refresh_sha256 = %s, refreshed_at = clock_timestamp() WHERE session_id = %s"
_END: Final = (
    "UPDATE sessions SET ended_at = clock_timestamp(), ended_why = %s WHERE session_id = %s AND ended_at IS NULL"
)


@dataclass(frozen=True, slots=True)
class Tokens:
    """What somebody was let in with."""

    access_token: str
    access_s: int
    """Seconds for which the access token is good."""
    refresh_token: str
    refresh_s: int
    """Seconds for which the refresh token is good, unless it is used before."""


class Sessions:
    """The sessions of one database."""

    def __init__(self, settings: AccessSettings, database: Database, directory: Directory, clock: Clock) -> None:
        """database, directory: opened and closed by the caller."""
        self.settings = settings
        self._database = database
        self._directory = directory
        self._clock = clock
        self._throttle = LoginThrottle()
        self._turns = Turns(at_once=_REFRESHES_AT_ONCE, waiting_max=_REFRESHES_WAITING_MAX, wait_s=_REFRESH_WAIT_S)
        self.passwords = PasswordChecks(at_once=settings.passwords_at_once)

    async def login(self, name: str, password: str, *, address: str) -> Tokens:
        """A new session. Raises Unauthenticated, TooManyLogins, DatabaseUnavailable, AccessUnknown."""
        secret = self._directory.token_secret
        self._throttle.begin(name, address, now_s=self._clock.monotonic_s())
        session_id, refresh_token = secrets.token_hex(16), secrets.token_urlsafe(32)
        try:
            user_id = await self._begin(name, password, session_id, refresh_token)
        except Overloaded:
            self._throttle.take_back(name, address)  # of which nobody can say that it failed
            raise
        if user_id is None:
            LOGINS.labels(outcome="refused").inc()
            log.warning("login refused", address=address)
            raise Unauthenticated("name or password is wrong", error="invalid_token")
        self._throttle.succeeded(name, address)
        LOGINS.labels(outcome="done").inc()
        await self._database.execute(_PURGE, (_PURGED_AT_ONCE,))
        await self._directory.refresh()  # a user who was just made is let in here at once
        return self._tokens(Claims(user_id, session_id), refresh_token, float(self.settings.session_s), secret)

    async def check_password(self, name: str, password: str, *, address: str) -> str:
        """What is stored of a user's password, for who gives it. Attempts are counted with those of logging in. Raises
        WrongPassword, TooManyLogins, DatabaseUnavailable."""
        self._throttle.begin(name, address, now_s=self._clock.monotonic_s())
        try:
            found = await self._found(name, password)
        except Overloaded:
            self._throttle.take_back(name, address)
            raise
        if found is None:
            raise WrongPassword
        self._throttle.succeeded(name, address)
        return found[1]

    async def know_changes(self) -> None:
        """Let what was changed of keys and users act here at once; elsewhere it does within two seconds. Raises
        DatabaseUnavailable."""
        await self._directory.refresh()

    async def _begin(self, name: str, password: str, session_id: str, refresh_token: str) -> int | None:
        """Whose session has begun; None: nobody's. Raises TooManyLogins, DatabaseUnavailable."""
        found = await self._found(name, password)
        if found is None:
            return None
        user_id, stored = found
        params = (session_id, _sha256(f"{session_id}.{refresh_token}"), self.settings.session_s, user_id, stored)
        return None if await self._database.fetch_one(_BEGIN, params) is None else user_id

    async def _found(self, name: str, password: str) -> tuple[int, str] | None:
        """Whose name and password these are, and what is stored of it; None: nobody's who is let in. Raises TooManyLogins,
        DatabaseUnavailable."""
        row = await self._database.fetch_one(
            "SELECT user_id, password_hash, disabled_at IS NULL FROM users WHERE name = %s", (_sound(name),)
        )
        user_id, stored, is_enabled = (0, None, False) if row is None else row
        is_short = len(password) <= PASSWORD_BYTES_MAX
        is_right = await self.passwords.check(stored if is_short else None, password[:PASSWORD_BYTES_MAX])
        if not (is_right and is_enabled):
            # Passwords are sometimes typed where the name belongs: only one that is a name is written down.
            log.warning("wrong password, or disabled", user=None if row is None else name)
            return None
        return user_id, stored

    async def begin(self, user_id: int, *, session_s: int) -> Tokens:
        """A new session of somebody whom a login provider knows. Raises LoginDenied, DatabaseUnavailable, AccessUnknown."""
        secret = self._directory.token_secret
        session_id, refresh_token = secrets.token_hex(16), secrets.token_urlsafe(32)
        params = (session_id, _sha256(f"{session_id}.{refresh_token}"), session_s, user_id)
        if await self._database.fetch_one(_BEGIN_FROM_ELSEWHERE, params) is None:
            raise LoginDenied("you are disabled here: ask who runs this")
        await self._database.execute(_PURGE, (_PURGED_AT_ONCE,))
        await self._directory.refresh()
        return self._tokens(Claims(user_id, session_id), refresh_token, float(session_s), secret)

    async def refresh(self, token: str, *, address: str) -> Tokens:
        """The next pair; this token is worth nothing from now on. Raises Unauthenticated, Overloaded, DatabaseUnavailable,
        AccessUnknown."""
        secret = self._directory.token_secret
        session_id, _, _ = token.partition(".")
        refresh_token = secrets.token_urlsafe(32)
        async with self._turns.turn(network_of(address)), self._database.transaction() as connection:
            cursor = await connection.execute(_FIND, (self.settings.session_idle_s, _sound(session_id)))
            user_id, stored, is_good, left_s = await cursor.fetchone() or (0, b"", False, 0.0)
            is_newest = hmac.compare_digest(bytes(stored), _sha256(token))
            if is_good and is_newest:
                await connection.execute(_TURN, (_sha256(f"{session_id}.{refresh_token}"), session_id))
            elif is_good:
                await connection.execute(_END, ("reuse", session_id))
        if is_good and is_newest:
            return self._tokens(Claims(user_id, session_id), refresh_token, left_s, secret)
        if is_good:
            LOGINS.labels(outcome="reuse").inc()
            log.warning("a refresh token came again: its session has ended", user_id=user_id)
            await self._directory.refresh()
        raise Unauthenticated("this session has ended: log in again", error="invalid_token")

    async def logout(self, token: str, *, address: str) -> None:
        """End the session of a refresh token, also of a used one. Harmless for any other text. Raises Overloaded,
        DatabaseUnavailable."""
        session_id, _, _ = token.partition(".")
        async with self._turns.turn(network_of(address)), self._database.transaction() as connection:
            cursor = await connection.execute(_FIND, (self.settings.session_idle_s, _sound(session_id)))
            row = await cursor.fetchone()
            if row is not None:
                is_newest = hmac.compare_digest(bytes(row[1]), _sha256(token))
                await connection.execute(_END, ("logout" if is_newest else "reuse", session_id))
        if row is not None:  # else nothing has changed
            await self._directory.refresh()

    def close(self) -> None:
        """End the threads that check passwords."""
        self.passwords.close()

    def _tokens(self, claims: Claims, refresh_token: str, left_s: float, secret: bytes) -> Tokens:
        lives_s = self.settings.access_token_s
        now_s = self._clock.now_us() // 1_000_000
        return Tokens(
            access_token=new_access_token(claims, secret, now_s=now_s, lives_s=lives_s),
            access_s=lives_s,
            refresh_token=f"{claims.session_id}.{refresh_token}",
            refresh_s=int(min(left_s, self.settings.session_idle_s)),
        )


def _sha256(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


def _sound(text: str) -> str:
    """What PostgreSQL takes as text; no name or number is like what is left out."""
    return text[:200].replace("\0", "\ufffd").encode("utf-8", "replace").decode()
