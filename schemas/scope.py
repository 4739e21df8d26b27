"""Which services something is about: the right of a principal, spelled so that every layer can hold it.

Every store, search and cache call takes a `ServiceScope` called `allowed`, without default, so that forgetting it is a
type error and not a leak (INV-5).
"""

from __future__ import annotations

from typing import Final

import msgspec

AUDIT_SERVICE: Final = "logfeed/audit"
"""Our own service: who looked at what. Nobody's key writes it, and only who may by its name reads it."""
RESERVED_SERVICES: Final = frozenset({AUDIT_SERVICE})


class ServiceScope(msgspec.Struct, frozen=True):
    """A set of services: all of them, or those named exactly or by prefix, without those excluded."""

    everything: bool = False
    names: frozenset[str] = frozenset()
    prefixes: frozenset[str] = frozenset()
    excluded: frozenset[str] = frozenset()
    """Exact names that are never in the set."""

    def permits(self, service_name: str) -> bool:
        """True when the service is in the set."""
        if service_name in self.excluded:
            return False
        return self.everything or service_name in self.names or any(map(service_name.startswith, self.prefixes))

    @property
    def is_all(self) -> bool:
        """True when every service is in the set."""
        return self.everything and not self.excluded

    @property
    def is_empty(self) -> bool:
        """True when no service can be in the set."""
        return not (self.everything or self.prefixes or self.names - self.excluded)

    @property
    def only_name(self) -> str | None:
        """The service, when the set is of exactly one."""
        if self.everything or self.prefixes or len(self.names) != 1:
            return None
        (name,) = self.names
        return name if name not in self.excluded else None


ALL_SERVICES: Final = ServiceScope(everything=True)
NO_SERVICES: Final = ServiceScope()
