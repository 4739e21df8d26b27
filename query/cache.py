"""Answers kept for a short time: logs by id, pages of closed ranges, the list of services. Bounded in bytes, oldest use goes
first.

An answer belongs to who may read what (INV-5): the right is part of every key and has no default. Whether it is still true is
the asker's to say: with it is kept what the store was at when it was made. One event loop, no locks.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from runtime.clock import Clock
from schemas.scope import ServiceScope

_ENTRY_BYTES: Final = 512
"""What an entry takes beside its key's text and its body."""

Key = tuple[str, ...]
_FullKey = tuple[Key, ServiceScope]


@dataclass(frozen=True, slots=True)
class Kept:
    """An answer, and when it was true."""

    body: bytes
    revision: int
    """Of the snapshot (store.port.Snapshot) that it was made of; so is mark."""
    mark: int
    etag: str | None = None


@dataclass(frozen=True, slots=True)
class _Entry:
    kept: Kept
    until_s: float
    size_bytes: int


class ResultCache:
    """Answers by question and right."""

    def __init__(self, *, bytes_max: int, clock: Clock) -> None:
        """bytes_max: of keys and bodies together; 0 keeps nothing."""
        self._bytes_max = bytes_max
        self._clock = clock
        self._entries: OrderedDict[_FullKey, _Entry] = OrderedDict()
        self.size_bytes = 0

    def get(self, key: Key, *, allowed: ServiceScope) -> Kept | None:
        """The answer, or None when it was not kept or is too old."""
        full = _full(key, allowed)
        entry = self._entries.get(full)
        if entry is None:
            return None
        if entry.until_s <= self._clock.monotonic_s():
            self._remove(full)
            return None
        self._entries.move_to_end(full)
        return entry.kept

    def put(self, key: Key, kept: Kept, *, allowed: ServiceScope, ttl_s: float) -> None:
        """Keep an answer for ttl_s; it is left out when it alone is larger than the cache."""
        full = _full(key, allowed)
        if full in self._entries:
            self._remove(full)
        size = _ENTRY_BYTES + len(kept.body) + sum(map(len, key)) + sum(map(len, allowed.names | allowed.prefixes))
        if size > self._bytes_max or ttl_s <= 0:
            return
        while self.size_bytes + size > self._bytes_max:
            self._remove(next(iter(self._entries)))
        self._entries[full] = _Entry(kept, self._clock.monotonic_s() + ttl_s, size)
        self.size_bytes += size

    def _remove(self, full: _FullKey) -> None:
        self.size_bytes -= self._entries.pop(full).size_bytes


def _full(key: Key, allowed: ServiceScope) -> _FullKey:
    return key, allowed
