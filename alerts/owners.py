"""What the owner of a rule may see at this moment: a rule sees no more, whatever its query says (INV-5)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from access.directory import Directory
from alerts.rules import FILE_OWNER
from runtime.clock import Clock
from schemas.scope import ALL_SERVICES, NO_SERVICES, RESERVED_SERVICES, ServiceScope

ScopeOf = Callable[[str], ServiceScope]
"""Owner -> the services whose logs its rules see. Raises AccessUnknown."""

_FILE_SCOPE: Final = ServiceScope(everything=True, excluded=RESERVED_SERVICES)


def scope_of(directory: Directory | None, clock: Clock) -> ScopeOf:
    """directory: None where access control is off."""

    def scope(owner: str) -> ServiceScope:
        if owner == FILE_OWNER:
            return _FILE_SCOPE
        if directory is None:
            return ALL_SERVICES
        kind, _, name = owner.partition(":")
        if kind == "user" and name.isascii() and name.isdigit():
            principal = directory.user(int(name))
            return NO_SERVICES if principal is None else principal.may_alert
        if kind == "key":
            key = directory.key(name)
            is_good = key is not None and (key.expires_us is None or key.expires_us > clock.now_us())
            return key.principal.may_alert if key is not None and is_good else NO_SERVICES
        return NO_SERVICES

    return scope
