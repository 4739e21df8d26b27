"""Drops logs of services that are denied, or that are not among those allowed."""

from __future__ import annotations

from ingest.filters.verdicts import PASS, Drop, Occasion, Verdict
from schemas.record import Log
from schemas.scope import ServiceScope


class Service:
    """Allowed and denied services. Denying wins."""

    def __init__(self, name: str, *, allow: ServiceScope, deny: ServiceScope) -> None:
        """allow, deny: exact names and prefixes; a log passes when allowed and not denied."""
        self.name = name
        self._allow = allow
        self._deny = deny
        self._drop = Drop(name)

    def judge(self, log: Log, occasion: Occasion) -> Verdict:
        """Drop what is denied or not allowed."""
        service_name = log.service_name
        if self._deny.permits(service_name) or not self._allow.permits(service_name):
            return self._drop
        return PASS


def scope_of(patterns: tuple[str, ...]) -> ServiceScope:
    """`*` is every service, `name*` a prefix, anything else one name."""
    return ServiceScope(
        everything="*" in patterns,
        names=frozenset(pattern for pattern in patterns if not pattern.endswith("*")),
        prefixes=frozenset(pattern[:-1] for pattern in patterns if pattern.endswith("*") and pattern != "*"),
    )
