"""What a key or user may: texts as they are stored and typed, and the sets of services they mean. Pure.

A grant is `permission:service`, `permission:prefix*` or `permission:*`; of `host` the names are those of hosts that may be
registered, and no other permission holds it. `admin` holds `read`, `tail`, `export` and `alert` for
its services. The audit log is read by who has `admin` over it by name, and in nobody's `*`: it would fill every page with what
was asked before. Nothing but `write` lets anybody write, and nobody writes the audit log.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import StrEnum
from typing import Final

from access.errors import AccountError
from access.principal import Principal
from schemas.hosts import is_host_name
from schemas.record import SERVICE_NAME_PATTERN
from schemas.scope import NO_SERVICES, RESERVED_SERVICES, ServiceScope

ADMIN_OF_ALL: Final = "admin:*"
GRANTS_MAX: Final = 1_000
"""Of one key or user: each process holds all of them."""


class Permission(StrEnum):
    """What may be done with the logs of a service, and which hosts may be registered."""

    WRITE = "write"
    READ = "read"
    TAIL = "tail"
    EXPORT = "export"
    ALERT = "alert"
    ADMIN = "admin"
    HOST = "host"


_NAMES: Final = frozenset(map(str, Permission))
_PREFIX: Final = re.compile(r"[A-Za-z0-9._/-]{0,99}\*")
_HOST_PREFIX: Final = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]{0,98})?\*")


def grant(permission: Permission, services: str) -> str:
    """The text of one grant. services: a name, a prefix with * behind it, or *; of `host`: of hosts. Raises AccountError."""
    if permission is Permission.HOST:
        if not is_host_name(services) and not _HOST_PREFIX.fullmatch(services):
            raise AccountError(
                f"{permission}: expected a host's name, a prefix with * behind it, or *, got {services[:120]!r}"
            )
        return f"{permission}:{services}"
    if services in RESERVED_SERVICES and permission is not Permission.ADMIN:
        raise AccountError(f"{services} is Logfeed's own: nobody else writes it, and to read it takes `admin` over it")
    if not SERVICE_NAME_PATTERN.fullmatch(services) and not _PREFIX.fullmatch(services):
        raise AccountError(
            f"{permission}: expected a service's name, a prefix with * behind it, or *, got {services[:120]!r}"
        )
    return f"{permission}:{services}"


def check_grants(grants: Iterable[str]) -> list[str]:
    """The grants without repetitions, in order. Raises AccountError: none, too many, not readable."""
    found = sorted(set(grants))
    if not found:
        raise AccountError(
            "it may nothing: give it at least one permission, such as --write SERVICE or --read 'SERVICE*'"
        )
    if len(found) > GRANTS_MAX:
        raise AccountError(f"expected at most {GRANTS_MAX} grants, got {len(found)}: use prefixes")
    for text in found:
        name, _, services = text.partition(":")
        if name not in _NAMES:
            raise AccountError(f"there is no permission {name[:40]!r}: expected one of {', '.join(Permission)}")
        grant(Permission(name), services)
    return found


def services_of(grants: Iterable[str]) -> dict[str, list[str]]:
    """Permission -> services of these grants, in order."""
    found: dict[str, list[str]] = {}
    for text in grants:
        permission, _, services = text.partition(":")
        if services:
            found.setdefault(permission, []).append(services)
    return found


def principal_of(subject: str, name: str, grants: Iterable[str]) -> Principal:
    """The principal that these grants make. What this program does not know grants nothing."""
    by_permission = services_of(grants)
    admin = by_permission.get(Permission.ADMIN, [])
    hidden = RESERVED_SERVICES - set(admin)

    def scope(permission: Permission) -> ServiceScope:
        return _scope([*by_permission.get(permission, []), *admin], hidden)

    return Principal(
        subject=subject,
        may_write=_scope(by_permission.get(Permission.WRITE, []), RESERVED_SERVICES),
        may_read=scope(Permission.READ),
        may_tail=scope(Permission.TAIL),
        may_export=scope(Permission.EXPORT),
        may_alert=scope(Permission.ALERT),
        may_admin=_scope(admin, hidden),
        may_host=_scope(by_permission.get(Permission.HOST, []), frozenset()),
        name=name,
    )


def _scope(services: list[str], excluded: frozenset[str]) -> ServiceScope:
    if not services:
        return NO_SERVICES
    prefixes = frozenset(text[:-1] for text in services if text.endswith("*"))
    names = frozenset(text for text in services if not text.endswith("*"))
    everything = "" in prefixes
    if not everything and not any(name.startswith(tuple(prefixes)) for name in excluded):
        excluded = excluded & names
    return ServiceScope(
        everything=everything,
        names=frozenset() if everything else names,
        prefixes=frozenset() if everything else prefixes,
        excluded=excluded,
    )
