"""Files that are whole or not there: written beside their place, synced, renamed, and the directory synced.

All functions block and belong in a thread; `in_thread` runs one, and does not return before it has ended, so that a
cancelled call leaves no thread behind that still writes. Long ones look at a `Stop` between pieces of 1 MiB. A disk that
hangs inside one system call hangs its caller: that cannot be interrupted (network file systems: mount them soft).
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final, ParamSpec, TypeVar

from schemas.errors import LogfeedError
from store.objects.port import Fetched, ObjectStoreRefused, ObjectStoreUnavailable

PIECE_BYTES: Final = 1024 * 1024
TEMPORARY_SUFFIX: Final = ".tmp"

_FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FORBIDDEN: Final = (
    *(errno.EACCES, errno.EPERM, errno.EROFS),
    *(errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENOTEMPTY, errno.ELOOP, errno.ENAMETOOLONG),
)

P = ParamSpec("P")
T = TypeVar("T")


class Stopped(Exception):
    """Nobody waits for the work any more."""


class Stop:
    """Tells work in a thread that nobody waits for it any more."""

    def __init__(self) -> None:
        """Not told yet."""
        self._told = threading.Event()

    def tell(self) -> None:
        """Nobody waits any more."""
        self._told.set()

    def check(self) -> None:
        """Raises Stopped when told."""
        if self._told.is_set():
            raise Stopped


async def in_thread(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run it in a thread; when cancelled, tell the `Stop` among its arguments, wait for its end, and be cancelled then."""
    running = asyncio.ensure_future(asyncio.to_thread(work, *args, **kwargs))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        for argument in args:
            if isinstance(argument, Stop):
                argument.tell()
        while not running.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([running])
        if not running.cancelled():
            running.exception()  # looked at: nobody else will
        raise


def cancelled_from_outside() -> bool:
    """In the handler of a CancelledError: true when somebody cancelled this task, not only what it waited for."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


class NewFile:
    """A file that is being written under a temporary name. Use from one thread at a time."""

    def __init__(self, temporary: Path) -> None:
        """Makes the file; it must not exist."""
        self._temporary = temporary
        self._digest = hashlib.sha256()
        self.bytes = 0
        """Written so far."""
        self._open = True
        self._descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)

    def write(self, piece: bytes | memoryview) -> None:
        """Append, all of it."""
        self._digest.update(piece)
        self.bytes += len(piece)
        left = memoryview(piece)
        while left:
            left = left[os.write(self._descriptor, left) :]

    def publish(self, path: Path) -> Fetched:
        """Make it the file of that name, durably. The temporary name is gone then."""
        os.fsync(self._descriptor)
        self._close()
        publish(self._temporary, path)
        return Fetched(self.bytes, self._digest.hexdigest())

    def discard(self) -> None:
        """Remove what is left under the temporary name. After `publish`, nothing."""
        self._close()
        self._temporary.unlink(missing_ok=True)

    def _close(self) -> None:
        if self._open:
            self._open = False
            os.close(self._descriptor)


def copy(source: Path, temporary: Path, path: Path, stop: Stop) -> Fetched:
    """Copy a file to `path`, by way of `temporary` in the same file system, durably. Raises Stopped when told."""
    with source.open("rb", buffering=0) as reading:
        new = NewFile(temporary)
        try:
            buffer = bytearray(PIECE_BYTES)
            while count := reading.readinto(buffer):
                stop.check()
                new.write(memoryview(buffer)[:count])
            return new.publish(path)
        finally:
            new.discard()


def publish(temporary: Path, path: Path) -> None:
    """Rename a synced file to its name, durably; a file of that name is replaced."""
    temporary.replace(path)
    sync_directory(path.parent)


def sync_directory(directory: Path) -> None:
    """What was renamed, made or deleted in it stays so after a power cut."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_directory(directory: Path) -> None:
    """Make it and those above it, durably. One that is there is left as it is."""
    missing = []
    while not directory.is_dir():
        missing.append(directory)
        directory = directory.parent
    for each in reversed(missing):
        each.mkdir(mode=0o750, exist_ok=True)
        sync_directory(each.parent)


def regular_bytes(path: Path) -> int | None:
    """Bytes of a regular file; None when there is none of that name."""
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_size if stat.S_ISREG(found.st_mode) else None


def has_content(path: Path, bytes: int, sha256: str, stop: Stop) -> bool:
    """True when the file is there with just this content. Reads all of it. Raises Stopped when told."""
    if regular_bytes(path) != bytes:
        return False
    digest = hashlib.sha256()
    buffer = bytearray(PIECE_BYTES)
    try:
        with path.open("rb", buffering=0) as reading:
            while count := reading.readinto(buffer):
                stop.check()
                digest.update(memoryview(buffer)[:count])
    except OSError:  # it cannot be read: it is not that content
        return False
    return digest.hexdigest() == sha256


def disk_error(error: OSError, *, doing: str, setting: str) -> LogfeedError:
    """A failure of the local file system in our errors. doing: what failed; setting: what an operator would change."""
    reason = error.strerror or type(error).__name__
    if error.errno in _FULL:
        return ObjectStoreUnavailable(
            f"{doing} failed: the disk is full ({reason}); make room for {setting}", retry_after_s=30
        )
    if error.errno in _FORBIDDEN:
        return ObjectStoreRefused(f"{doing} failed: {reason}; mend what {setting} names")
    return ObjectStoreUnavailable(f"{doing} failed: {reason}")
