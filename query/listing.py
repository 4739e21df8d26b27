"""Where a list of things that are no logs stands, as an opaque token (seal.py): newest first, by a time and an id.

A list is of the moment of each page: what changes its place meanwhile may come twice or not at all.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import msgspec

from query.seal import Seal

VERSION: Final = 1
Secret = Callable[[], Awaitable[bytes]]
"""Of cursors (ReadStore.cursor_secret). Raises Overloaded while it cannot be had."""


class ListPlace(msgspec.Struct, frozen=True, array_like=True):
    """The last thing of a page."""

    at_us: int
    id: str
    offsets: dict[int, int] = {}
    """Of no meaning here."""


class ListSeal(Seal[ListPlace]):
    """Seals and opens cursors of one kind of list."""

    def __init__(self, secret: bytes, *, of: str) -> None:
        """secret: 32 random bytes (ReadStore.cursor_secret). of: what is listed."""
        super().__init__(secret, ListPlace, version=VERSION, name=f"cursor of {of}")
