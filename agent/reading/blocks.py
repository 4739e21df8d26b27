"""A file in blocks of whole lines, from its end or from its beginning, in constant memory.

A block is a piece of the text that begins where a line begins and ends where one ends (or where the file does). Backwards the
first piece is small, so that the last line of a file of any size costs one read; pieces grow from there. Of a line longer than
LINE_BYTES_MAX only its beginning is kept, in either direction, and the block says so: such a line is the last of its block.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple, Protocol

import zstandard

from agent.errors import ReadFailed
from agent.reading.zstd_frames import ZstdFrames

LINE_BYTES_MAX: Final = 256 * 1024
_FIRST_BYTES: Final = 64 * 1024
_BLOCK_BYTES: Final = 1024 * 1024
_PACKED_BYTES: Final = 128 * 1024
"""Of a compressed file that are read at a time."""
_WINDOW_BYTES_MAX: Final = 8 * 1024 * 1024
"""Of zstd: what the decompressor may hold."""

MAGIC_BYTES: Final = 4
"""That say how a file is compressed."""
GZIP: Final = "gzip"
ZSTD: Final = "zstd"


class Block(NamedTuple):
    """Whole lines. start: bytes before them in the text. text: with line ends. is_cut: of the last line the rest is missing."""

    start: int
    text: bytes
    is_cut: bool = False


class Stream(Protocol):
    """Bytes of a text in order."""

    def read(self, size: int, /) -> bytes:
        """At most so many; b"" at the end. Raises ReadFailed."""


def packing_of(descriptor: int) -> str | None:
    """`gzip`, `zstd` or None, by the file's first bytes. Raises OSError."""
    magic = os.pread(descriptor, MAGIC_BYTES, 0)
    if magic[:2] == b"\x1f\x8b":
        return GZIP
    return ZSTD if magic == b"\x28\xb5\x2f\xfd" else None


def backwards(descriptor: int, end: int) -> Iterator[Block]:
    """The blocks of the bytes before `end`, the last first. An empty block says that a piece had no line's beginning.

    Raises ReadFailed when the file has become shorter, OSError.
    """
    position, step = end, _FIRST_BYTES
    tail, is_cut = b"", False
    """Of a line whose beginning lies before `position`."""
    while position > 0:
        size = min(step, position)
        piece = os.pread(descriptor, size, position - size)
        if len(piece) < size:
            raise ReadFailed("the file became shorter while it was read")
        position -= size
        step = min(step * 2, _BLOCK_BYTES)
        first = piece.find(b"\n") + 1
        if first == 0:
            tail, is_cut = _shortened(piece + tail, is_cut)
            yield Block(position, b"")
            continue
        yield Block(position + first, piece[first:] + tail, is_cut)
        tail, is_cut = piece[:first], False
    yield Block(0, tail, is_cut)


def _shortened(text: bytes, is_cut: bool) -> tuple[bytes, bool]:
    return (text[:LINE_BYTES_MAX], True) if len(text) > LINE_BYTES_MAX else (text, is_cut)


def forwards(stream: Stream, *, start: int = 0) -> Iterator[Block]:
    """The blocks of a stream whose next byte is number `start` of the text. Raises ReadFailed, OSError."""
    carry = b""
    while piece := stream.read(_BLOCK_BYTES // 4):
        text = carry + piece
        end = text.rfind(b"\n") + 1
        if end:
            yield Block(start, text[:end])
            start += end
            carry = text[end:]
        elif len(text) > LINE_BYTES_MAX:
            yield Block(start, text[:LINE_BYTES_MAX], is_cut=True)
            skipped, carry = _rest_of_line(stream)
            start += len(text) + skipped
        else:
            carry = text
    if carry:
        yield Block(start, carry)


def _rest_of_line(stream: Stream) -> tuple[int, bytes]:
    """(bytes up to the line's end, what was read behind it)."""
    skipped = 0
    while piece := stream.read(_BLOCK_BYTES // 4):
        end = piece.find(b"\n") + 1
        if end:
            return skipped + end, piece[end:]
        skipped += len(piece)
    return skipped, b""


class PlainStream:
    """A file as it lies there, from an offset."""

    def __init__(self, descriptor: int, offset: int = 0) -> None:
        """The descriptor stays the caller's."""
        self._descriptor, self.offset = descriptor, offset

    def read(self, size: int, /) -> bytes:
        """See Stream."""
        piece = os.pread(self._descriptor, size, self.offset)
        self.offset += len(piece)
        return piece


class GzipStream:
    """What gzip members, one after the other, hold. Zeros after the last are padding."""

    def __init__(self, descriptor: int) -> None:
        """The descriptor stays the caller's."""
        self._packed = PlainStream(descriptor)
        self._member: zlib._Decompress | None = None
        self._input = b""

    def read(self, size: int, /) -> bytes:
        """See Stream."""
        try:
            return self._read(size)
        except zlib.error as error:
            raise ReadFailed(f"the gzip data is damaged: {error}") from error

    def _read(self, size: int) -> bytes:
        while True:
            if not self._input:
                self._input = self._packed.read(_PACKED_BYTES)
            if self._member is None:
                self._input = self._input.lstrip(b"\0")
                if not self._input:
                    more = self._packed.read(_PACKED_BYTES)
                    if not more:
                        return b""
                    self._input = more
                    continue
                self._member = zlib.decompressobj(wbits=31)
            if not self._input and not self._member.unconsumed_tail:
                raise ReadFailed("the gzip data ends too early")
            text = self._member.decompress(self._input, size)
            self._input = self._member.unconsumed_tail
            if self._member.eof:
                self._input = self._member.unused_data
                self._member = None
            if text:
                return text


class ZstdStream:
    """What zstd frames, one after the other, hold."""

    def __init__(self, descriptor: int) -> None:
        """The descriptor stays the caller's."""
        decompressor = zstandard.ZstdDecompressor(max_window_size=_WINDOW_BYTES_MAX)
        self._frames = ZstdFrames()
        packed = PlainStream(descriptor)

        def read(size: int) -> bytes:
            piece = packed.read(size)
            self._frames.feed(piece)
            return piece

        self._reader = decompressor.stream_reader(
            _Readable(read),  # type: ignore[arg-type]  # it reads, and nothing else
            read_size=_PACKED_BYTES,
            read_across_frames=True,
        )

    def read(self, size: int, /) -> bytes:
        """See Stream."""
        try:
            text = self._reader.read(size)
        except zstandard.ZstdError as error:
            raise ReadFailed(f"the zstd data is damaged: {error}") from error
        if not text and self._frames.is_within:
            raise ReadFailed("the zstd data ends too early")
        return text


class _Readable:
    """What zstandard reads from."""

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self.read = read


def open_stream(descriptor: int, packing: str | None) -> Stream:
    """The text of a file, from its beginning."""
    if packing == GZIP:
        return GzipStream(descriptor)
    return ZstdStream(descriptor) if packing == ZSTD else PlainStream(descriptor)
