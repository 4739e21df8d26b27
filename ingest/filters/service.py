"""Drops logs of services that are denied, or that are not among those allowed."""

from __future__ import annotations

from ingest.filters.verdicts import PASS, AnyLog, Drop, Gist, Occasion, Verdict
from schemas.scope import ServiceScope


class Service:
    """Allowed and denied services. Denying wins."""

    reads_metadata = False

    def __init__(self, name: str, *, allow: ServiceScope, deny: ServiceScope) -> None:
        """allow, deny: exact names and prefixes; a log passes when allowed and not denied."""
        self.name = name
        self._allow = allow
        self._deny = deny
        self._drop = Drop(name)

    def judge(self, log: AnyLog, occasion: Occasion) -> Verdict:
        """Drop what is denied or not allowed."""
        return PASS if self._passes(log.service_name) else self._drop

    def passes_all(self, gist: Gist, occasion: Occasion) -> bool:
        """Whether every service passes."""
        return all(map(self._passes, gist.services))

    def _passes(self, service_name: str) -> bool:
        return self._allow.permits(service_name) and not self._deny.permits(service_name)


def scope_of(patterns: tuple[str, ...]) -> ServiceScope:
    """`*` is every service, `name*` a prefix, anything else one name."""
    return ServiceScope(
        everything="*" in patterns,
        names=frozenset(pattern for pattern in patterns if not pattern.endswith("*")),
        prefixes=frozenset(pattern[:-1] for pattern in patterns if pattern.endswith("*") and pattern != "*"),
    )
