"""By which keys of metadata something rare is sought in open chunks: readers note them, the sealer makes parts of them
(store/parts.py).

Indexing every field of every row of open chunks costs as much as storing the rows does; nearly all of it would never be asked
for. So the first question by a key is answered row by row, and those after it, some seconds later, by an index.

Bounded: KEYS_MAX keys at a time, each for KEYS_KEPT_DAYS after it was last asked for; KEYS_NOTED_MAX are remembered, those
asked for last, so that whoever asks by many names that mean nothing keeps no other key from being noted.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterable, Sequence
from typing import Final

import structlog

from db.database import Connection, Error
from runtime.clock import Clock

log = structlog.get_logger(__name__)

KEYS_MAX: Final = 16
"""Keys by which open chunks are indexed at the same time."""
KEYS_KEPT_DAYS: Final = 7
"""Days for which a key counts as asked for."""
KEYS_NOTED_MAX: Final = 200

_KEY_CHARS_MAX: Final = 200
_NOTED_EVERY_S: Final = 60.0
_FORGET: Final = f"""
    DELETE FROM asked_keys WHERE asked_at < clock_timestamp() - interval '{KEYS_KEPT_DAYS} days'"""
_NOTE: Final = """
    INSERT INTO asked_keys (key, asked_at) SELECT key, clock_timestamp() FROM unnest(%s::text[]) AS key
    ON CONFLICT (key) DO UPDATE SET asked_at = excluded.asked_at"""
# What another process notes at this moment was asked for now.
_MAKE_ROOM: Final = f"""
    DELETE FROM asked_keys WHERE key IN (
        SELECT key FROM asked_keys ORDER BY asked_at DESC, key OFFSET {KEYS_NOTED_MAX} FOR UPDATE SKIP LOCKED)"""
# Those that parts know already first: were there more than KEYS_MAX, parts would be made to and fro.
_ASKED: Final = f"""
    SELECT key, quote_literal(key) FROM asked_keys WHERE asked_at > clock_timestamp() - interval '{KEYS_KEPT_DAYS} days'
    ORDER BY key = ANY (%s) DESC, asked_at DESC LIMIT {KEYS_MAX}"""


async def asked_keys(connection: Connection, known: Collection[str]) -> dict[str, str]:
    """Keys to index by -> the same as SQL has them between quotes; in an order of their own. known: those of parts."""
    found = await (await connection.execute(_ASKED, (list(known),))).fetchall()
    return dict(sorted(found))


class KeyNotes:
    """Notes keys for one process, each once a minute."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._noted_s: OrderedDict[str, float] = OrderedDict()
        """key -> when; the oldest first."""

    def due(self, keys: Iterable[str]) -> list[str]:
        """Those that are to be noted now. From now on they count as noted."""
        now_s = self._clock.monotonic_s()
        found = []
        for key in sorted(keys):
            noted_s = self._noted_s.get(key)
            if len(key) > _KEY_CHARS_MAX or "\0" in key or (noted_s is not None and now_s - noted_s < _NOTED_EVERY_S):
                continue
            self._noted_s[key] = now_s
            self._noted_s.move_to_end(key)
            found.append(key)
        while len(self._noted_s) > KEYS_NOTED_MAX:
            self._noted_s.popitem(last=False)
        return found

    async def note(self, connection: Connection, keys: Sequence[str]) -> None:
        """Write them down; connection: outside a transaction. What cannot be noted costs a question its speed, no more."""
        try:
            await connection.execute(_FORGET)
            await connection.execute(_NOTE, (list(keys),))
            await connection.execute(_MAKE_ROOM.encode())
        except Error as error:
            log.warning("keys that were asked for are not noted", keys=list(keys), reason=str(error).strip())
