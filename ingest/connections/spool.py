"""A text in a temporary file: received whole, and looked at whole, before any of it is stored."""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
from collections.abc import AsyncIterator
from types import TracebackType
from typing import IO, Final

from starlette.requests import ClientDisconnect

from connections.lines import ReadLine
from ingest.errors import BodyTooLarge, BodyTooSlow, MalformedBody

_READ_BYTES: Final = 1 << 20
_WRITE_BYTES: Final = 1 << 18


class Spool:
    """One text. Used by one task; `sha256_to` and reading block for a disk."""

    def __init__(self) -> None:
        self._file: IO[bytes] = tempfile.TemporaryFile(prefix="logfeed-text-")  # noqa: SIM115  # closed by __exit__
        self.size = 0
        self._hashed = 0
        self._hash = hashlib.sha256()

    def __enter__(self) -> Spool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    async def receive(self, chunks: AsyncIterator[bytes], *, bytes_max: int, lines_max: int, deadline_s: float) -> None:
        """Take the body. Raises BodyTooLarge, BodyTooSlow, MalformedBody."""
        line_ends = 0
        waiting = bytearray()
        try:
            async with asyncio.timeout(deadline_s):
                async for chunk in chunks:
                    self.size += len(chunk)
                    if self.size > bytes_max:
                        raise BodyTooLarge(f"the text has more than {bytes_max} bytes (connections.text_bytes_max)")
                    line_ends += chunk.count(b"\n")
                    if line_ends > lines_max:
                        raise BodyTooLarge(f"the text has more than {lines_max} lines (connections.lines_max)")
                    waiting += chunk
                    if len(waiting) >= _WRITE_BYTES:
                        await asyncio.to_thread(self._file.write, bytes(waiting))
                        waiting.clear()
        except TimeoutError as error:
            raise BodyTooSlow(f"the text did not arrive within {deadline_s:g} s") from error
        except ClientDisconnect as error:
            raise MalformedBody("the text was cut off") from error
        await asyncio.to_thread(self._file.write, bytes(waiting))

    def sha256_to(self, end: int) -> bytes:
        """Of the first `end` bytes, which there are. Cheap where it goes on from the last one."""
        if end < self._hashed:
            self._hashed, self._hash = 0, hashlib.sha256()
        self._file.seek(self._hashed)
        while self._hashed < end:
            piece = self._file.read(min(_READ_BYTES, end - self._hashed))
            self._hash.update(piece)
            self._hashed += len(piece)
        return self._hash.digest()

    def line_ends_between(self, start: int, end: int) -> int:
        """Ends of lines in a part of the text."""
        self._file.seek(start)
        found = 0
        while start < end:
            piece = self._file.read(min(_READ_BYTES, end - start))
            found += piece.count(b"\n")
            start += len(piece)
        return found

    def is_within_line(self, offset: int) -> bool:
        """Whether the byte before is not a line's end."""
        if not offset:
            return False
        self._file.seek(offset - 1)
        return self._file.read(1) != b"\n"

    def reading(self, start: int, end: int) -> ReadLine:
        """Reads lines from `start`, as if the text ended at `end`. Nothing else may use the file meanwhile."""
        self._file.seek(start)
        left = end - start

        def read_line(most: int) -> bytes:
            nonlocal left
            line = self._file.readline(min(most, left)) if left else b""
            left -= len(line)
            return line

        return read_line
