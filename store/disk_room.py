"""How much room a disk has left, asked before something large is written: a disk that is full stops whoever else uses it, the
database first.

Looks and writing are two moments: others write as well, so what is kept free has to be more than what comes between. Whoever
finds the disk full all the same gets OSError, and leaves nothing half.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from schemas.errors import Overloaded

_MIB: Final = 1024 * 1024


class DiskFull(Overloaded):
    """There is too little room on the disk."""


def free_bytes(directory: Path) -> int:
    """What may still be written on the disk of this directory. Blocks. Raises OSError."""
    found = os.statvfs(directory)
    return found.f_bavail * found.f_frsize


class DiskRoom:
    """Of one directory."""

    def __init__(
        self, directory: Path, free_bytes_min: int, *, setting: str, look: Callable[[Path], int] = free_bytes
    ) -> None:
        """free_bytes_min: what is to stay free; setting: that says so, for people."""
        self._directory = directory
        self._free_bytes_min = free_bytes_min
        self._setting = setting
        self._look = look

    def left(self) -> int:
        """Bytes that may be written, what is to stay free taken off; less than 0: none. Blocks. Raises OSError."""
        return self._look(self._directory) - self._free_bytes_min

    def check(self, bytes: int, doing: str, *, to_the_last: bool = False) -> None:
        """Before so many bytes are written, about. to_the_last: what is to stay free may be used, as for what makes room in the
        end. Blocks. Raises DiskFull, OSError."""
        kept = 0 if to_the_last else self._free_bytes_min
        free = self._look(self._directory)
        if free - bytes < kept:
            raise DiskFull(
                f"{doing} needs {_mib(bytes)}, the disk of {self._directory} has {_mib(free)} left and {_mib(kept)}"
                f" stay free ({self._setting}): make room",
                retry_after_s=30,
            )


def _mib(bytes: int) -> str:
    return f"{bytes / _MIB:,.1f} MiB"
