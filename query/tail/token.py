"""Where a tail stands, as an opaque token (query/seal.py): what a page, and each frame, gives to go on from."""

from __future__ import annotations

from typing import Final

import msgspec

from query.seal import Seal

VERSION: Final = 102


class TailPlace(msgspec.Struct, frozen=True, array_like=True):
    """What comes next."""

    offsets: dict[int, int]
    """Partition -> next offset in the broker."""
    at_ms: int
    """Unix milliseconds when these offsets were the newest: pages find what came since then, should the broker forget it."""


class TailSeal(Seal[TailPlace]):
    """Seals and opens tokens of tails."""

    def __init__(self, secret: bytes) -> None:
        """secret: 32 random bytes (ReadStore.cursor_secret)."""
        super().__init__(secret, TailPlace, version=VERSION, name="from")
