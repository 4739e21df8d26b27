"""Where a run keeps its files: servers' data, `tmp_path`, directories of fleets.

In memory where there is room: a fresh database is some 700 files, and making and removing them costs a disk's file system
seven times the CPU, and its fsync the waiting. What tests prove stays what it was: they kill processes, and what a
process wrote outlives it in memory as it does in a page cache. TMPDIR names another place, which is then left as it is.

A run holds a lock on its directory; the next one removes those of runs that were killed.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

import psutil

MEMORY: Final = Path("/dev/shm")
BYTES_FREE_MIN: Final = 6 * 1024**3
"""Of the file system and of the machine's memory. Shared servers and one module's files held 0.7 GiB; fleets hold their WAL."""
_PREFIX: Final = "logfeed-tests-"


def use_scratch() -> Callable[[], None]:
    """Point TMPDIR of this process and its children at a directory in memory, if there is room and nobody chose another
    place. Returns what removes it."""
    if os.environ.get("TMPDIR") or not _roomy():
        return lambda: None
    for left in MEMORY.glob(f"{_PREFIX}*"):
        _remove_if_left(left)
    directory = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=MEMORY))
    lock = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    fcntl.flock(lock, fcntl.LOCK_EX)
    directory.chmod(0o711)  # under root the servers run as another account and must pass through
    os.environ["TMPDIR"] = str(directory)
    tempfile.tempdir = None  # asked anew

    def remove() -> None:
        shutil.rmtree(directory, ignore_errors=True)
        os.close(lock)
        del os.environ["TMPDIR"]
        tempfile.tempdir = None

    return remove


def _roomy() -> bool:
    if not (MEMORY.is_dir() and os.access(MEMORY, os.W_OK)):
        return False
    return min(shutil.disk_usage(MEMORY).free, psutil.virtual_memory().available) >= BYTES_FREE_MIN


def _remove_if_left(directory: Path) -> None:
    try:
        lock = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:  # another account's, or just removed
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(directory, ignore_errors=True)
    except BlockingIOError:
        pass  # its run goes on
    finally:
        os.close(lock)
