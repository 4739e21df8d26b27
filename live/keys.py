"""Which keyed frame is the first of its Idempotency-Key: the others are repeats, or contradict it, and are not shown.

The rule is the writer's (writer/plan.py): the first frame of a key in the order of its partition is stored, every later one
is not, whatever its body. All frames of a key lie in one partition. A frame is known by its place there, so that whoever
reads a stretch again judges as those did who read it first.

What was read lately is remembered; what was not is asked of the database where it is there (`stored_keys` says at which
place a key's frame was stored). Without it, a copy of what was read before may be shown again: clients drop it by its ids.
Bounded by number and age.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from db.database import Database, bounded

_ANSWER_S_MAX: Final = 2.0
_STORED: Final = """
    SELECT key_hash, partition, "offset" FROM stored_keys
    WHERE key_hash = ANY(%s) AND partition IS NOT NULL"""


class KeyPlace(NamedTuple):
    """Where a frame lies."""

    partition: int
    offset: int


StoredKeys = Callable[[Collection[bytes]], Awaitable[Mapping[bytes, KeyPlace]]]
"""key hash -> place of the frame that was stored under it; absent: none is known. Raises DatabaseUnavailable."""


@dataclass(slots=True)
class _Known:
    place: KeyPlace
    read_s: float


class FirstFrames:
    """The keys that were read. Pure; times are of one monotonic clock."""

    def __init__(self, *, keys_max: int, keys_s: float) -> None:
        """keys_max: most that are remembered. keys_s: for how long."""
        self._keys_max = keys_max
        self._keys_s = keys_s
        self._known: dict[bytes, _Known] = {}

    def knows(self, key_hash: bytes) -> bool:
        """Whether the database need not be asked."""
        return key_hash in self._known

    def learn(self, stored: Mapping[bytes, KeyPlace], now_s: float) -> None:
        """What the database says."""
        for key_hash, place in stored.items():
            self._known.setdefault(key_hash, _Known(place, now_s))

    def is_first(self, key_hash: bytes, place: KeyPlace, now_s: float) -> bool:
        """Whether the frame at this place is the one of its key that is stored. Remembers it."""
        known = self._known.pop(key_hash, None)
        is_first = known is None or place == known.place or self._is_earlier(place, known.place)
        self._known[key_hash] = _Known(place if is_first or known is None else known.place, now_s)
        self._forget(now_s)
        return is_first

    @staticmethod
    def _is_earlier(place: KeyPlace, other: KeyPlace) -> bool:
        return place.partition == other.partition and place.offset < other.offset

    def _forget(self, now_s: float) -> None:
        # In order of reading: the oldest stand first.
        while self._known:
            key_hash = next(iter(self._known))
            if len(self._known) <= self._keys_max and now_s - self._known[key_hash].read_s <= self._keys_s:
                return
            del self._known[key_hash]


def stored_keys_of(database: Database) -> StoredKeys:
    """Asks the rows' database. database: opened and closed by the caller."""

    async def stored(key_hashes: Collection[bytes]) -> dict[bytes, KeyPlace]:
        async with bounded(_ANSWER_S_MAX):
            rows = await database.fetch_all(_STORED, (list(key_hashes),))
        return {bytes(key_hash): KeyPlace(partition, offset) for key_hash, partition, offset in rows}

    return stored
