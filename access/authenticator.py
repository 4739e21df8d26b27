"""Says who sent a request, by its `Authorization` alone: an API key or an access token. Nothing else gives a right.

Both come as `Bearer`. Shippers that know no such header send their API key as the password of `Basic`, whoever the user,
or as Elasticsearch's `ApiKey`. Only Bearer is ever asked for, so that no browser shows a prompt and keeps what is typed there.

A key costs one SHA-256 and one comparison in constant time (4 µs, tests/unit/access/test_authenticator.py); an access token
one HMAC. Wrong, unknown and revoked ones are answered alike; that one has expired is told to whoever has it.
"""

from __future__ import annotations

import asyncio
import base64
import hmac
import ipaddress
from typing import Final

import msgspec
import structlog
from starlette.requests import HTTPConnection

from access.directory import Directory, KnownKey, Network
from access.errors import Forbidden, Unauthenticated
from access.key_uses import KeyUses
from access.keys import KEY_START, key_prefix, key_sha256
from access.metrics import REFUSALS
from access.oidc.login import OidcLogin
from access.oidc.settings import is_offered
from access.principal import Principal
from access.sessions import Sessions
from access.settings import AccessSettings
from access.tokens import read_access_token
from db.database import Database
from runtime.clock import Clock
from runtime.stopping import Stop

log = structlog.get_logger(__name__)

_HEADER: Final = b"authorization"
_TOKEN_CHARS_MAX: Final = 4_096
_NO_KEY: Final = bytes(32)


class AccessControl:
    """Authenticates for all services of one process."""

    def __init__(
        self, settings: AccessSettings, database: Database, clock: Clock, *, public_url: str | None = None
    ) -> None:
        """database: opened and closed by the caller. public_url: where browsers find this installation; a login provider needs
        it. Raises ConfigurationError."""
        self.settings = settings
        self.directory = Directory(database, clock, offline_s=settings.offline_s)
        self.sessions = Sessions(settings, database, self.directory, clock)
        self.oidc: OidcLogin | None = None
        if is_offered(settings.oidc, public_url) and public_url is not None:
            self.oidc = OidcLogin(
                settings.oidc,
                public_url=public_url,
                database=database,
                directory=self.directory,
                sessions=self.sessions,
                clock=clock,
            )
        self.uses = KeyUses(database, clock)
        self._clock = clock
        self._stop = Stop()
        self._watching: asyncio.Task[None] | None = None
        self._writing: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Learn who may what, then keep it fresh. Safe to call again. Raises DatabaseUnavailable."""
        if self._watching is not None:
            return
        await self.directory.load()
        self._watching = asyncio.create_task(self.directory.watch(self._stop), name="access")
        self._writing = asyncio.create_task(self.uses.run(self._stop), name="uses of keys")

    async def close(self) -> None:
        """End what `open` began. Harmless without it."""
        self._stop.set()
        self.sessions.close()
        if self.oidc is not None:
            await self.oidc.close()
        if self._watching is not None:
            await self._watching
            self._watching = None
        if self._writing is not None:
            await self._writing
            self._writing = None

    async def authenticate(self, connection: HTTPConnection) -> Principal:
        """See Authenticate. Raises Unauthenticated, Forbidden, AccessUnknown."""
        token = _token(connection)
        if not token.startswith(KEY_START):
            return await self._by_access_token(token)
        prefix = key_prefix(token)
        known = None if prefix is None else await self._key(prefix)
        is_right = hmac.compare_digest(key_sha256(token), _NO_KEY if known is None else known.sha256)
        if prefix is None or known is None or not is_right:
            raise _refused("key", "this API key is not known: it was mistyped or revoked")
        if known.expires_us is not None and known.expires_us <= self._clock.now_us():
            raise _refused("expired", "this API key has expired: `logfeed keys create` makes another")
        if known.networks and not _is_within(connection, known.networks):
            REFUSALS.labels(reason="network").inc()
            raise Forbidden("this API key may not be used from this address")
        self.uses.note(prefix)
        return known.principal

    async def _key(self, prefix: str) -> KnownKey | None:
        known = self.directory.key(prefix)
        if known is None:  # made a moment ago, maybe
            await self.directory.look_again()
            known = self.directory.key(prefix)
        return known

    def current(self, principal: Principal) -> Principal:
        """See Current. A token that has expired since takes nothing away: what was begun with it goes on, as long as the key or
        user is good, and the session goes on that it is of."""
        if principal.session_id and self.directory.is_ended(principal.session_id):
            raise _refused("session", "this session has ended: log in again")
        kind, _, name = principal.subject.partition(":")
        now: Principal | None = None
        if kind == "user" and name.isascii() and name.isdigit():
            now = self.directory.user(int(name))
        elif kind == "key" and (key := self.directory.key(name)) is not None:
            is_good = key.expires_us is None or key.expires_us > self._clock.now_us()
            now = key.principal if is_good else None
        if now is None:
            raise _refused("gone", "this key was revoked or has expired, or this user is disabled")
        return now

    async def _by_access_token(self, token: str) -> Principal:
        claims = read_access_token(token, self.directory.token_secret, now_s=self._clock.now_us() // 1_000_000)
        if claims is None:
            raise _refused("token", "this access token is not valid, or has expired: log in again or refresh it")
        if self.directory.is_ended(claims.session_id):
            raise _refused("session", "this session has ended: log in again")
        principal = self.directory.user(claims.user_id)
        if principal is None:  # made a moment ago, maybe, where the token comes from
            await self.directory.look_again()
            principal = self.directory.user(claims.user_id)
        if principal is None:
            raise _refused("user", "this user is disabled")
        return msgspec.structs.replace(principal, session_id=claims.session_id)


def _token(connection: HTTPConnection) -> str:
    """The one token. Read from the raw head: cheaper than a mapping, and a second header is seen."""
    found: list[bytes] = [value for name, value in connection.scope["headers"] if name == _HEADER]
    if not found:
        REFUSALS.labels(reason="none").inc()
        raise Unauthenticated
    scheme, _, token = found[0].decode("latin-1").partition(" ")
    scheme, token = scheme.lower(), token.strip(" ")
    if len(found) == 1 and 0 < len(token) <= _TOKEN_CHARS_MAX:
        if scheme == "bearer":
            return token
        key = _packed_key(scheme, token)
        if key.startswith(KEY_START):
            return key
    raise _refused("malformed", "expected one header `Authorization: Bearer` with an API key or an access token")


def _packed_key(scheme: str, token: str) -> str:
    """The API key of `Basic` (RFC 7617) and of Elasticsearch's `ApiKey`, base64 of two texts and a colon; else anything."""
    if scheme not in ("basic", "apikey") or token.startswith(KEY_START):
        return token if scheme == "apikey" else ""
    try:
        return base64.b64decode(token, validate=True).decode("latin-1").partition(":")[2]
    except ValueError:
        return ""


def _refused(reason: str, message: str) -> Unauthenticated:
    REFUSALS.labels(reason=reason).inc()
    return Unauthenticated(message, error="invalid_token")


def _is_within(connection: HTTPConnection, networks: tuple[Network, ...]) -> bool:
    """Whether the connection comes from one of them. An address that nobody knows comes from none."""
    try:
        address = ipaddress.ip_address(connection.client.host if connection.client else "")
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return any(address in network for network in networks)
