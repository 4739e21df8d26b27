"""Messages on disk: files of logs as they are sent, which the shipper reads like any others and removes.

Each start begins a file of its own. A line that was being written when a process was killed lacks its end, and is
dropped. Calls block; one thread at a time, but for `is_closed`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from agent.metrics import SPOOL_BYTES

SEGMENT_BYTES: Final = 8 * 1024 * 1024
PATTERN: Final = "*.ndjson"
_LINE_BYTES_MAX: Final = 4 * 1024 * 1024
"""No message makes a longer one."""


class SpoolFull(Exception):
    """As many bytes wait as may."""


class Spool:
    """One directory of files with numbers for names."""

    def __init__(self, directory: Path, *, bytes_max: int, segment_bytes: int = SEGMENT_BYTES) -> None:
        """bytes_max: of all files. Raises OSError."""
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.directory = directory
        self._bytes_max, self._segment_bytes = bytes_max, min(segment_bytes, bytes_max // 2)
        self._number = max((int(path.stem) for path in self._files()), default=0)
        self._descriptor = -1
        self._size = 0
        for path in self._files():
            _end_whole(path)

    def append(self, lines: bytes) -> None:
        """Add whole lines, durably. Raises SpoolFull or OSError: none of them is there then, as far as readers see."""
        waiting = sum(map(_size, self._files()))
        SPOOL_BYTES.set(waiting)
        if waiting + len(lines) > self._bytes_max:
            self.close()  # so that the last file can be sent, and removed, too
            raise SpoolFull
        if self._descriptor < 0 or self._size >= self._segment_bytes:
            self._begin()
        try:
            self._write(lines)
        except OSError:
            os.ftruncate(self._descriptor, self._size)
            raise
        self._size += len(lines)
        SPOOL_BYTES.set(waiting + len(lines))

    def is_closed(self, name: str) -> bool:
        """Whether nothing is written to the file any more."""
        number = int(Path(name).stem)
        return number < self._number or (number == self._number and self._descriptor < 0)

    def close(self) -> None:
        """Write no more."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _begin(self) -> None:
        self.close()
        path = self.directory / f"{self._number + 1:012d}.ndjson"
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._number, self._size = self._number + 1, 0

    def _write(self, lines: bytes) -> None:
        view = memoryview(lines)
        while view:
            view = view[os.write(self._descriptor, view) :]
        os.fdatasync(self._descriptor)

    def _files(self) -> list[Path]:
        return [path for path in self.directory.glob(PATTERN) if path.stem.isdigit()]


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:  # it was sent meanwhile
        return 0


def _end_whole(path: Path) -> None:
    """Drop what comes after the last line end."""
    with path.open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        begin = max(0, size - _LINE_BYTES_MAX)
        file.seek(begin)
        end = begin + file.read().rfind(b"\n") + 1
        if end < size:
            file.truncate(end)
