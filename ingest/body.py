"""Reads a request's body: limits while it streams in, so that no body, however packed, takes more than its share.

Content-Encoding identity, gzip (several members are one body) and zstd (several frames). What counts against
`bytes_max` and against the bytes in flight is the decompressed size. A member that holds nothing costs time all the same
(8 MiB of them 3 to 7 s), so members are counted too. zstd has no bound on what a slice may grow to but
32 KiB a byte; it is fed in slices of 1 KiB, so that a bomb takes 32 MiB for a moment, one request at a time.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator, Callable
from typing import Final, Protocol

import zstandard

from ingest.errors import BodyTooLarge, BodyTooSlow, MalformedBody, UnsupportedBody

ENCODINGS: Final = ("gzip", "zstd", "identity")
_ZSTD_SLICE_BYTES: Final = 1024
_ZSTD_WINDOW_BYTES_MAX: Final = 8 * 1024 * 1024
_GZIP_WBITS: Final = 31
MEMBERS_MAX: Final = 1_000
"""Most gzip members or zstd frames of one body."""


class Decompressor(Protocol):
    """Gives the decompressed bytes of what it is fed."""

    def feed(self, chunk: bytes, room: int) -> bytes:
        """Decompressed bytes; a little more than `room` at most matters, further ones may be missing.

        Raises MalformedBody.
        """

    def finish(self) -> None:
        """The body ended. Raises MalformedBody when it was cut off."""


class _Identity:
    def feed(self, chunk: bytes, room: int) -> bytes:
        return chunk

    def finish(self) -> None:
        return


class _Gzip:
    def __init__(self) -> None:
        self._member = zlib.decompressobj(_GZIP_WBITS)
        self._members = 1
        self._fed = False

    def feed(self, chunk: bytes, room: int) -> bytes:
        parts: list[bytes] = []
        left = room + 1
        while chunk and left > 0:
            if self._member.eof:
                self._members = _one_more(self._members, "gzip members")
                self._member = zlib.decompressobj(_GZIP_WBITS)
            try:
                part = self._member.decompress(chunk, left)
            except zlib.error as error:
                raise MalformedBody(f"the body is not valid gzip: {error}") from error
            self._fed = True
            parts.append(part)
            left -= len(part)
            chunk = self._member.unused_data if self._member.eof else self._member.unconsumed_tail
        return b"".join(parts)

    def finish(self) -> None:
        if self._fed and not self._member.eof:
            raise MalformedBody("the gzip body is cut off")


class _Zstd:
    def __init__(self) -> None:
        self._decompressor = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW_BYTES_MAX)
        self._frame = self._decompressor.decompressobj()
        self._frames = 1
        self._fed = False

    def feed(self, chunk: bytes, room: int) -> bytes:
        parts: list[bytes] = []
        size = 0
        pending = memoryview(chunk)
        while pending and size <= room:
            if self._frame.eof:
                self._frames = _one_more(self._frames, "zstd frames")
                self._frame = self._decompressor.decompressobj()
            slice_, pending = pending[:_ZSTD_SLICE_BYTES], pending[_ZSTD_SLICE_BYTES:]
            try:
                part = self._frame.decompress(slice_)
            except zstandard.ZstdError as error:
                raise MalformedBody(f"the body is not valid zstd: {error}") from error
            self._fed = True
            parts.append(part)
            size += len(part)
            if self._frame.eof and self._frame.unused_data:
                pending = memoryview(self._frame.unused_data + bytes(pending))
        return b"".join(parts)

    def finish(self) -> None:
        if self._fed and not self._frame.eof:
            raise MalformedBody("the zstd body is cut off")


def _one_more(members: int, kind: str) -> int:
    if members == MEMBERS_MAX:
        raise MalformedBody(f"the body has more than {MEMBERS_MAX} {kind}: compress it as one")
    return members + 1


_DECOMPRESSORS: Final[dict[str, Callable[[], Decompressor]]] = {
    "": _Identity,
    "identity": _Identity,
    "gzip": _Gzip,
    "x-gzip": _Gzip,
    "zstd": _Zstd,
}


def decompressor(content_encoding: str) -> Decompressor:
    """For a Content-Encoding header. Raises UnsupportedBody."""
    make = _DECOMPRESSORS.get(content_encoding.strip().lower())
    if make is None:
        raise UnsupportedBody(
            f"Content-Encoding {content_encoding[:60]!r} is not supported (one of {', '.join(ENCODINGS)})"
        )
    return make()


async def read_body(
    chunks: AsyncIterator[bytes],
    *,
    content_encoding: str,
    content_length: int | None,
    bytes_max: int,
    deadline_s: float,
    grow: Callable[[int], None],
) -> bytes:
    """The decompressed body. grow: told each number of bytes before they are kept; may refuse by raising.

    Raises BodyTooLarge, BodyTooSlow, MalformedBody, UnsupportedBody, and what `grow` raises.
    """
    source = decompressor(content_encoding)
    if content_length is not None and content_length > bytes_max:
        raise _too_large(bytes_max)
    parts: list[bytes] = []
    size = 0
    sent = 0
    try:
        async with asyncio.timeout(deadline_s):
            async for chunk in chunks:
                sent += len(chunk)
                part = source.feed(chunk, bytes_max - size)
                size += len(part)
                if size > bytes_max or sent > bytes_max:
                    raise _too_large(bytes_max)
                if part:
                    grow(len(part))
                    parts.append(part)
    except TimeoutError:
        raise BodyTooSlow(f"the body did not arrive within {deadline_s:g} s") from None
    source.finish()
    return b"".join(parts)


def _too_large(bytes_max: int) -> BodyTooLarge:
    return BodyTooLarge(f"the body is larger than {bytes_max} bytes (decompressed): send several requests")
