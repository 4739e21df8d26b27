"""Files that are whole or absent: written under another name, made durable, renamed, and the name made durable too."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Final

UNFINISHED: Final = ".tmp"
"""Behind the name of what is being written."""


@contextmanager
def written_whole(path: Path) -> Iterator[BinaryIO]:
    """A file that is at `path`, durable, once the block has ended well; another one there is replaced. Raises OSError."""
    unfinished = unfinished_path(path)
    try:
        with unfinished.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        unfinished.rename(path)
    except BaseException:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)
        raise
    fsync_directory(path.parent)


def unfinished_path(path: Path) -> Path:
    """Where a file is written before it bears its name."""
    return path.with_name(path.name + UNFINISHED)


def remove_unfinished(directory: Path) -> int:
    """Remove what killed writers left behind; nobody may be writing there. Returns how many files."""
    found = list(directory.glob(f"*{UNFINISHED}"))
    for path in found:
        path.unlink(missing_ok=True)
    return len(found)


def fsync_directory(directory: Path) -> None:
    """Make new names in it durable."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
