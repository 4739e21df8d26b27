"""Whether the bytes of a zstd file end where a frame does. The library decompresses what there is of a frame that was cut and
says nothing; so the lengths in the frames are followed beside it (RFC 8878, 3.1). Pure; costs a few steps for each block of
128 KiB.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import Final

_MAGIC: Final = b"\x28\xb5\x2f\xfd"
_DICTIONARY_BYTES: Final = (0, 1, 2, 4)
_CONTENT_SIZE_BYTES: Final = (0, 2, 4, 8)
_CHECKSUM_BYTES: Final = 4
_RLE: Final = 1
"""Type of a block that is one byte, repeated."""


class _Next(Enum):
    MAGIC = auto()
    SKIPPED_SIZE = auto()
    DESCRIPTOR = auto()
    BLOCK = auto()


_BYTES: Final = {_Next.MAGIC: 4, _Next.SKIPPED_SIZE: 4, _Next.DESCRIPTOR: 1, _Next.BLOCK: 3}


class ZstdFrames:
    """Follows frames, one after the other, in pieces of any size."""

    def __init__(self) -> None:
        self._next, self._head = _Next.MAGIC, b""
        self._left = 0
        """Bytes that are passed over before it."""
        self._checksum_bytes = 0

    @property
    def is_within(self) -> bool:
        """Whether more bytes must come."""
        return self._left > 0 or bool(self._head) or self._next is not _Next.MAGIC

    def feed(self, data: bytes) -> None:
        """The next bytes. Of what is no zstd it knows nothing: the library does."""
        place = 0
        while place < len(data):
            if self._left:
                passed = min(self._left, len(data) - place)
                self._left -= passed
                place += passed
                continue
            wanted = _BYTES[self._next] - len(self._head)
            self._head += data[place : place + wanted]
            place += wanted
            if len(self._head) == _BYTES[self._next]:
                head, self._head = self._head, b""
                self._next = self._after(head)

    def _after(self, head: bytes) -> _Next:
        number = int.from_bytes(head, "little")
        match self._next:
            case _Next.MAGIC:
                return _Next.DESCRIPTOR if head == _MAGIC else _Next.SKIPPED_SIZE
            case _Next.SKIPPED_SIZE:
                self._left = number
                return _Next.MAGIC
            case _Next.DESCRIPTOR:
                is_single = bool(number & 0x20)
                self._checksum_bytes = _CHECKSUM_BYTES if number & 0x04 else 0
                content_size = _CONTENT_SIZE_BYTES[number >> 6] or (1 if is_single else 0)
                self._left = (not is_single) + _DICTIONARY_BYTES[number & 0x03] + content_size
                return _Next.BLOCK
            case _Next.BLOCK:
                is_last, kind, size = number & 1, number >> 1 & 3, number >> 3
                self._left = 1 if kind == _RLE else size
                if not is_last:
                    return _Next.BLOCK
                self._left += self._checksum_bytes
                return _Next.MAGIC
