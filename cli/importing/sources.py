"""Where lines come from: files, plain or compressed by gzip or zstd (told by their first bytes), and standard input.

A source is known again by the SHA-256 of its first 64 KiB (of the file as it lies on disk) and its size, wherever it lies: a
plain file may have grown since, a compressed one may not. Standard input is not known again.
Blocking: used from one thread at a time.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import zlib
from enum import StrEnum
from pathlib import Path
from typing import Final, Protocol

import msgspec
import zstandard

from cli.importing.records import LINE_BYTES_MAX, decode
from schemas.errors import LogfeedError

HEAD_BYTES: Final = 64 * 1024
STANDARD_INPUT: Final = "-"
_SKIP_BYTES: Final = 1024 * 1024


class SourceError(LogfeedError):
    """The file cannot be read."""


class Kind(StrEnum):
    """How the bytes lie."""

    FILE = "file"
    GZIP = "gzip"
    ZSTD = "zstd"
    STDIN = "stdin"


class Fingerprint(msgspec.Struct, frozen=True):
    """What a file is known by. sha256: hex, of its first `head_bytes` bytes. size: bytes on disk when first seen."""

    sha256: str
    head_bytes: int
    size: int


class _Stream(Protocol):
    """What a Reader needs of a stream; seek and tell only of a plain file."""

    def readline(self, limit: int, /) -> bytes: ...

    def seek(self, offset: int, /) -> int: ...

    def tell(self) -> int: ...

    def close(self) -> None: ...


class Reader:
    """An open source: lines from the offset it stands at. Offsets count decompressed bytes."""

    def __init__(self, name: str, stream: _Stream, disk: _Stream, *, seekable: bool, is_pipe: bool = False) -> None:
        """disk: what lies under the stream, for `disk_position`. seekable: offsets of the stream are those on disk.
        is_pipe: neither can be told."""
        self._name, self._stream, self._disk = name, stream, disk
        self._seekable, self._is_pipe = seekable, is_pipe
        self.offset = 0

    def readline(self, limit: int, /) -> bytes:
        """See LineSource. Raises SourceError when the file is damaged or unreadable."""
        try:
            line = self._stream.readline(limit)
        except (OSError, EOFError, zlib.error, zstandard.ZstdError) as error:
            raise SourceError(f"{self._name}: cannot be read past byte {self.offset}: {error}") from error
        self.offset += len(line)
        return line

    def go_to(self, offset: int) -> None:
        """Stand at an offset; a stream goes forward only."""
        if self._seekable:
            self._stream.seek(offset)
            self.offset = offset
            return
        if offset < self.offset:
            raise ValueError(f"a stream goes forward only: it stands at {self.offset}, {offset} was asked for")
        while self.offset < offset and self.readline(min(_SKIP_BYTES, offset - self.offset)):
            pass

    def disk_position(self) -> int:
        """Bytes on disk read so far: for progress (of standard input, bytes taken)."""
        return self.offset if self._seekable or self._is_pipe else self._disk.tell()

    def close(self) -> None:
        """Close what lies under it."""
        self._stream.close()
        self._disk.close()


class Source:
    """One file argument. `path` is None for standard input; `size` its bytes on disk now (0 for standard input)."""

    def __init__(self, argument: str) -> None:
        """Raises SourceError when there is no such file, or it is a directory, or not readable, or UTF-16."""
        self.name = "standard input" if argument == STANDARD_INPUT else argument
        self.path = None if argument == STANDARD_INPUT else Path(argument)
        self._stdin_head = b""
        self._stdin: io.BufferedReader[io.FileIO] | None = None
        if self.path is None:
            self.kind, self.size = Kind.STDIN, 0
            self._read_stdin_head()
        else:
            self.kind, self.size = self._look(self.path)
        if self.head()[:2] in (b"\xff\xfe", b"\xfe\xff"):
            raise SourceError(f"{self.name}: is UTF-16; convert it first: iconv -f UTF-16 -t UTF-8 {self.name}")

    @property
    def resumable(self) -> bool:
        """Whether the same bytes can be read again."""
        return self.path is not None

    def head(self) -> bytes:
        """The first 64 KiB, decompressed (less from standard input)."""
        if self.path is None:
            return self._stdin_head
        with _closing(self.open()) as reader:
            pieces: list[bytes] = []
            while reader.offset < HEAD_BYTES and (piece := reader.readline(HEAD_BYTES - reader.offset)):
                pieces.append(piece)
        return b"".join(pieces)

    def fingerprint(self, head_bytes: int = HEAD_BYTES) -> Fingerprint:
        """What the file is known by, over at most its first head_bytes bytes on disk."""
        if self.path is None:
            raise ValueError("standard input is not known again")
        with self.path.open("rb") as file:
            head = file.read(head_bytes)
        return Fingerprint(hashlib.sha256(head).hexdigest(), len(head), self.size)

    def open(self) -> Reader:
        """A reader at offset 0; of standard input, the only one."""
        if self.path is None:
            assert self._stdin is not None
            return Reader(
                self.name, _Prefixed(self._stdin_head, self._stdin), self._stdin, seekable=False, is_pipe=True
            )
        try:
            disk = self.path.open("rb", buffering=_SKIP_BYTES)
        except OSError as error:
            raise SourceError(f"{self.name}: {error.strerror}") from error
        if self.kind is Kind.GZIP:
            return Reader(self.name, gzip.GzipFile(fileobj=disk, mode="rb"), disk, seekable=False)
        if self.kind is Kind.ZSTD:
            frames = zstandard.ZstdDecompressor().stream_reader(disk, read_across_frames=True)
            return Reader(self.name, io.BufferedReader(frames, _SKIP_BYTES), disk, seekable=False)
        return Reader(self.name, disk, disk, seekable=True)

    def samples(self, spots: int) -> list[tuple[int, bytes]]:
        """(line number, line) of the head's lines, then (0, line) from evenly spaced spots of a plain file and its end."""
        found = list(enumerate(_whole_lines(self.head()), start=1))
        if self.kind is Kind.FILE and self.path is not None and self.size > 2 * HEAD_BYTES:
            with self.path.open("rb") as file:
                for spot in range(1, spots + 1):
                    file.seek((self.size - HEAD_BYTES // 8) * spot // spots)
                    found += [(0, line) for line in _whole_lines(file.read(HEAD_BYTES // 8))[1:]]
        return found

    def _look(self, path: Path) -> tuple[Kind, int]:
        if path.is_dir():
            raise SourceError(f"{path}: is a directory; name its files, for example {path}/*.log")
        try:
            with path.open("rb") as file:
                magic, size = file.read(4), os.fstat(file.fileno()).st_size
        except OSError as error:
            raise SourceError(f"{path}: {error.strerror}") from error
        if not path.is_file():
            raise SourceError(f"{path}: is no regular file; to read a pipe, use - (standard input)")
        if magic[:2] == b"\x1f\x8b":
            return Kind.GZIP, size
        return (Kind.ZSTD if magic == b"\x28\xb5\x2f\xfd" else Kind.FILE), size

    def _read_stdin_head(self) -> None:
        stream = io.BufferedReader(io.FileIO(0, closefd=False), _SKIP_BYTES)
        while b"\n" not in self._stdin_head and len(self._stdin_head) < LINE_BYTES_MAX:
            piece = stream.read1(HEAD_BYTES)
            if not piece:
                break
            self._stdin_head += piece
        self._stdin = stream


def texts(lines: list[tuple[int, bytes]]) -> list[tuple[int, str]]:
    """(line number, text) without blank lines."""
    return [(number, text) for number, raw in lines if (text := decode(raw)).strip()]


class _Prefixed:
    """Bytes already read from a stream, then the stream."""

    def __init__(self, head: bytes, stream: io.BufferedReader[io.FileIO]) -> None:
        self._head, self._stream = io.BytesIO(head), stream

    def readline(self, limit: int, /) -> bytes:
        line = self._head.readline(limit)
        return line if line.endswith(b"\n") or len(line) == limit else line + self._stream.readline(limit - len(line))

    def seek(self, offset: int, /) -> int:
        raise io.UnsupportedOperation("standard input goes forward only")

    def tell(self) -> int:
        raise io.UnsupportedOperation("standard input has no position")

    def close(self) -> None:
        self._stream.close()


class _closing:
    """Closes a reader at the end of a block."""

    def __init__(self, reader: Reader) -> None:
        self.reader = reader

    def __enter__(self) -> Reader:
        return self.reader

    def __exit__(self, *_: object) -> None:
        self.reader.close()


def _whole_lines(data: bytes) -> list[bytes]:
    """The lines of a piece of a file; the last one only when it is whole or the only one."""
    lines = data.split(b"\n")
    return lines[:-1] if len(lines) > 1 and (not lines[-1] or len(data) >= HEAD_BYTES // 8) else lines
