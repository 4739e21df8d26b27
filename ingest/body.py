"""Reads a request's body: limits while it streams in, so that no body, however packed, takes more than its share.

Content-Encoding identity, gzip (several members are one body), zstd (several frames), deflate (RFC 1950; without its
header, as some send it, RFC 1951) and snappy (a block, or frames, google/snappy `format_description.txt` and
`framing_format.txt`). What counts against `bytes_max` and against the bytes in flight is the decompressed size. A member
that holds nothing costs time all the same (8 MiB of them 3 to 7 s), so members are counted too. zstd has no bound on what
a slice may grow to but 32 KiB a byte; it is fed in slices of 1 KiB, so that a bomb takes 32 MiB for a moment, one request
at a time. A snappy block says its size first, and is kept until it is whole: that counts as bytes in flight as well.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator, Callable
from typing import Final, Protocol

import cramjam
import zstandard

from ingest.errors import BodyTooLarge, BodyTooSlow, MalformedBody, UnsupportedBody

ENCODINGS: Final = ("gzip", "zstd", "deflate", "snappy", "x-snappy-framed", "identity")
_ZSTD_SLICE_BYTES: Final = 1024
_ZSTD_WINDOW_BYTES_MAX: Final = 8 * 1024 * 1024
_GZIP_WBITS: Final = 31
_ZLIB_WBITS: Final = 15
_RAW_DEFLATE_WBITS: Final = -15
MEMBERS_MAX: Final = 1_000
"""Most gzip members or zstd frames of one body."""
CHUNKS_MAX: Final = 10_000
"""Most chunks of a framed snappy body: of 64 KiB each where they are full. They cost 3 µs each."""
_SNAPPY_BEGIN: Final = b"\xff\x06\x00\x00sNaPpY"
"""The first chunk of frames. No block begins like this: as one it would copy from before its beginning."""
_SNAPPY_CHUNK_BYTES_MAX: Final = 4 + 32 + 65_536 + 65_536 // 6
"""A checksum and what 64 KiB become at most."""
_SNAPPY_LENGTH_BYTES_MAX: Final = 5


class Decompressor(Protocol):
    """Gives the decompressed bytes of what it is fed."""

    @property
    def held_bytes(self) -> int:
        """What it keeps until the body ended."""

    def feed(self, chunk: bytes, room: int) -> bytes:
        """Decompressed bytes; a little more than `room` at most matters, further ones may be missing.

        Raises MalformedBody.
        """

    def finish(self, room: int) -> bytes:
        """The body ended: what is left of it, mostly nothing. Raises MalformedBody when it was cut off, and BodyTooLarge
        where what is left does not fit into `room`."""


class _Identity:
    held_bytes = 0

    def feed(self, chunk: bytes, room: int) -> bytes:
        return chunk

    def finish(self, room: int) -> bytes:
        return b""


class _Gzip:
    held_bytes = 0

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

    def finish(self, room: int) -> bytes:
        if self._fed and not self._member.eof:
            raise MalformedBody("the gzip body is cut off")
        return b""


class _Deflate:
    held_bytes = 0

    def __init__(self) -> None:
        self._head = b""
        self._stream: zlib._Decompress | None = None

    def feed(self, chunk: bytes, room: int) -> bytes:
        if self._stream is None:
            self._head += chunk
            if len(self._head) < 2:
                return b""
            chunk = self._head
            self._stream = zlib.decompressobj(_ZLIB_WBITS if _is_zlib(chunk) else _RAW_DEFLATE_WBITS)
        parts: list[bytes] = []
        left = room + 1
        while chunk and left > 0:
            if self._stream.eof:
                raise MalformedBody("the deflate body goes on after its end")
            try:
                part = self._stream.decompress(chunk, left)
            except zlib.error as error:
                raise MalformedBody(f"the body is not valid deflate: {error}") from error
            parts.append(part)
            left -= len(part)
            chunk = self._stream.unused_data or self._stream.unconsumed_tail
        return b"".join(parts)

    def finish(self, room: int) -> bytes:
        if self._head and (self._stream is None or not self._stream.eof):
            raise MalformedBody("the deflate body is cut off")
        return b""


def _is_zlib(head: bytes) -> bool:
    """Whether deflate has its header (RFC 1950): method 8, and a check of both bytes."""
    return head[0] & 0x0F == 8 and (head[0] << 8 | head[1]) % 31 == 0


class _Zstd:
    held_bytes = 0

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

    def finish(self, room: int) -> bytes:
        if self._fed and not self._frame.eof:
            raise MalformedBody("the zstd body is cut off")
        return b""


class _Snappy:
    """A block, as Prometheus and Loki send it, or frames under the same name, as older OpenTelemetry Collectors do."""

    def __init__(self) -> None:
        self._block = bytearray()
        self._frames: _SnappyFrames | None = None

    @property
    def held_bytes(self) -> int:
        return len(self._block)

    def feed(self, chunk: bytes, room: int) -> bytes:
        if self._frames is not None:
            return self._frames.feed(chunk, room)
        self._block += chunk
        if self._block.startswith(_SNAPPY_BEGIN):
            self._frames = _SnappyFrames()
            begun, self._block = bytes(self._block), bytearray()
            return self._frames.feed(begun, room)
        if len(self._block) >= _SNAPPY_LENGTH_BYTES_MAX:
            _block_length(self._block, room)
        return b""

    def finish(self, room: int) -> bytes:
        if self._frames is not None:
            return self._frames.finish(room)
        if not self._block:
            return b""
        length = _block_length(self._block, room)
        try:
            block = bytes(cramjam.snappy.decompress_raw(self._block))
        except cramjam.DecompressionError as error:
            raise MalformedBody(f"the body is no valid snappy block: {error}") from error
        if len(block) != length:
            raise MalformedBody(f"the snappy block holds {len(block)} bytes, it says {length}")
        return block


def _block_length(block: bytearray, room: int) -> int:
    """What a block says it holds. Raises BodyTooLarge, MalformedBody."""
    length = 0
    for place, byte in enumerate(block[:_SNAPPY_LENGTH_BYTES_MAX]):
        length |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            if length > room:
                raise BodyTooLarge(f"the snappy block holds {length} bytes, {room} are taken: send several requests")
            return length
    raise MalformedBody("the body is no valid snappy block: it does not begin with its length")


class _SnappyFrames:
    held_bytes = 0
    """A chunk at most."""

    def __init__(self) -> None:
        self._pending = bytearray()
        self._skipped = 0
        """Bytes to leave out of what comes."""
        self._chunks = 0

    def feed(self, chunk: bytes, room: int) -> bytes:
        self._pending += chunk
        parts: list[bytes] = []
        size = 0
        at = 0
        while size <= room:
            left = len(self._pending) - at
            if self._skipped:
                step = min(self._skipped, left)
                self._skipped -= step
                at += step
                left -= step
            if left < 4:
                break
            kind = self._pending[at]
            length = int.from_bytes(self._pending[at + 1 : at + 4], "little")
            if self._chunks == 0 and kind != 0xFF:
                raise MalformedBody("the body is no framed snappy: it does not begin with the stream's identifier")
            if kind < 0x80 and (kind > 1 or length > _SNAPPY_CHUNK_BYTES_MAX):
                raise MalformedBody(f"the body is no valid framed snappy: a chunk of type {kind} with {length} bytes")
            if 0x80 <= kind < 0xFF:  # padding, and what may be skipped
                self._skipped = length
                at += 4
            elif left - 4 < length:
                if length > _SNAPPY_CHUNK_BYTES_MAX:
                    raise MalformedBody("the body is no valid framed snappy: its identifier is too long")
                break
            else:
                parts.append(self._one(bytes(self._pending[at : at + 4 + length]), is_begin=kind == 0xFF))
                size += len(parts[-1])
                at += 4 + length
            self._chunks += 1
            if self._chunks > CHUNKS_MAX:
                raise MalformedBody(f"the body has more than {CHUNKS_MAX} snappy chunks: write larger ones")
        del self._pending[:at]
        return b"".join(parts)

    @staticmethod
    def _one(chunk: bytes, *, is_begin: bool) -> bytes:
        """What one chunk holds; its checksum is tested."""
        try:
            return bytes(cramjam.snappy.decompress(chunk if is_begin else _SNAPPY_BEGIN + chunk))
        except cramjam.DecompressionError as error:
            raise MalformedBody(f"the body is no valid framed snappy: {error}") from error

    def finish(self, room: int) -> bytes:
        if self._pending or self._skipped:
            raise MalformedBody("the framed snappy body is cut off")
        return b""


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
    "deflate": _Deflate,
    "snappy": _Snappy,
    "x-snappy-framed": _SnappyFrames,
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
    size = sent = held = 0
    try:
        async with asyncio.timeout(deadline_s):
            async for chunk in chunks:
                sent += len(chunk)
                part = source.feed(chunk, bytes_max - size)
                size += len(part)
                if size > bytes_max or sent > bytes_max:
                    raise _too_large(bytes_max)
                if part or source.held_bytes != held:
                    grow(len(part) + max(0, source.held_bytes - held))
                    held = source.held_bytes
                    parts.append(part)
    except TimeoutError:
        raise BodyTooSlow(f"the body did not arrive within {deadline_s:g} s") from None
    last = source.finish(bytes_max - size)
    if last:
        grow(len(last))
        parts.append(last)
    return b"".join(parts)


def _too_large(bytes_max: int) -> BodyTooLarge:
    return BodyTooLarge(f"the body is larger than {bytes_max} bytes (decompressed): send several requests")
