"""The subject of a request and its rights, as every handler receives it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import msgspec
from starlette.requests import HTTPConnection

from schemas.scope import ALL_SERVICES, NO_SERVICES, ServiceScope


class RateLimits(msgspec.Struct, frozen=True):
    """What a subject may send, each rate by itself. None: as the settings say; infinite: as much as it likes."""

    logs_per_s: float | None = None
    bytes_per_s: float | None = None
    """Of bodies, decompressed."""
    burst_s: float = 1.0
    """After a pause so many seconds' worth may come at once."""


class Principal(msgspec.Struct, frozen=True):
    """Who asks. `subject` is stable: idempotency keys and cursors are bound to it."""

    subject: str
    may_write: ServiceScope
    may_read: ServiceScope
    may_tail: ServiceScope = NO_SERVICES
    may_export: ServiceScope = NO_SERVICES
    may_alert: ServiceScope = NO_SERVICES
    may_admin: ServiceScope = NO_SERVICES
    may_host: ServiceScope = NO_SERVICES
    """Names of hosts, not of services: those that it may register."""
    name: str = ""
    """For people: of the key or user."""
    rates: RateLimits | None = None
    """Of a key that has its own; None: as the settings say."""
    session_id: str = ""
    """Of a user's login, that what is begun with it ends with it; empty: of no login. Never shown."""


ANYONE: Final = Principal(
    subject="anyone",
    may_write=ALL_SERVICES,
    may_read=ALL_SERVICES,
    may_tail=ALL_SERVICES,
    may_export=ALL_SERVICES,
    may_alert=ALL_SERVICES,
    may_admin=ALL_SERVICES,
    may_host=ALL_SERVICES,
    name="anyone",
)
"""Used while access control is off: everyone is one subject that may everything."""

Authenticate = Callable[[HTTPConnection], Awaitable[Principal]]
"""Says who sent a request. Every service gets the same one from whoever composes them. Raises access.errors."""


Current = Callable[[Principal], Principal]
"""A principal that was let in before, with what it may now. Raises Unauthenticated, AccessUnknown."""


def unchanging(principal: Principal) -> Principal:
    """While access control is off, rights do not change."""
    return principal


async def anyone(_: HTTPConnection) -> Principal:
    """Authenticates nobody: everyone is `ANYONE`."""
    return ANYONE
