"""Which services something is about: the right of a principal, spelled so that every layer can hold it.

Every store, search and cache call takes a `ServiceScope` called `allowed`, without default, so that forgetting it is a
type error and not a leak (INV-5).
"""

from __future__ import annotations

from typing import Final

import msgspec


class ServiceScope(msgspec.Struct, frozen=True):
    """A set of services: all of them, or those named exactly or by prefix."""

    everything: bool = False
    names: frozenset[str] = frozenset()
    prefixes: frozenset[str] = frozenset()

    def permits(self, service_name: str) -> bool:
        """True when the service is in the set."""
        return self.everything or service_name in self.names or any(map(service_name.startswith, self.prefixes))

    @property
    def is_empty(self) -> bool:
        """True when no service can be in the set."""
        return not (self.everything or self.names or self.prefixes)


ALL_SERVICES: Final = ServiceScope(everything=True)
NO_SERVICES: Final = ServiceScope()
