"""The subject of a request and its rights, as every handler receives it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import msgspec
from starlette.requests import HTTPConnection

from schemas.scope import ALL_SERVICES, ServiceScope


class Principal(msgspec.Struct, frozen=True):
    """Who asks. `subject` is stable: idempotency keys and cursors are bound to it."""

    subject: str
    may_write: ServiceScope
    may_read: ServiceScope


ANYONE: Final = Principal(subject="anyone", may_write=ALL_SERVICES, may_read=ALL_SERVICES)
"""Used while access control is off: everyone is one subject that may read and write every service."""

Authenticate = Callable[[HTTPConnection], Awaitable[Principal]]
"""Says who sent a request. Every service gets the same one from whoever composes them."""


async def anyone(_: HTTPConnection) -> Principal:
    """Authenticates nobody: everyone is `ANYONE`."""
    return ANYONE
