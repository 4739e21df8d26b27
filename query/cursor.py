"""Cursors: where a walk stands, as an opaque token (seal.py). What the first page froze travels in it, so that no server
remembers walks."""

from __future__ import annotations

from typing import Final

import msgspec

from query.seal import TOKEN_CHARS_MAX, Seal
from store.port import Position

__all__ = ["TOKEN_CHARS_MAX", "VERSION", "Cursor", "CursorSeal"]

VERSION: Final = 4


class Cursor(msgspec.Struct, frozen=True, array_like=True):
    """Where to go on, and what the first page froze."""

    after: Position
    """Exclusive, in the direction of travel."""
    is_back: bool
    """Travels against the question's order: towards the page before."""
    start_us: int | None
    end_us: int | None
    last: Position | None
    """Inclusive upper bound, frozen when the question had no end."""
    offsets: dict[int, int]
    """Partition -> next offset in the first page's snapshot."""
    can_turn: bool
    """Logs lie behind `after`, against the direction of travel, or may lie there: the page has a way back."""


class CursorSeal(Seal[Cursor]):
    """Seals and opens cursors."""

    def __init__(self, secret: bytes) -> None:
        """secret: 32 random bytes (ReadStore.cursor_secret)."""
        super().__init__(secret, Cursor, version=VERSION, name="cursor")
