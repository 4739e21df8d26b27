"""Objects in a local directory: each a file whose path below the directory is its key.

obstore has a store of this kind, but one that does not sync: what it had stored could be gone, or empty, after a power
cut, while our catalogue holds that it is there. So this one is ours. A put copies to `.incoming/`, syncs, renames and
syncs the directory; what a killed process left in `.incoming/` is removed by the next put after an hour without a write.
Several processes may share a directory. Directories that become empty stay: removing them would race with puts.
"""

from __future__ import annotations

import contextlib
import os
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Final, TypeVar

from store.objects.bounds import Bounds, Operation
from store.objects.files import (
    TEMPORARY_SUFFIX,
    Stop,
    copy,
    disk_error,
    in_thread,
    make_directory,
    regular_bytes,
    sync_directory,
)
from store.objects.keys import check_key, check_prefix
from store.objects.metrics import MOVED_BYTES
from store.objects.port import (
    Fetched,
    ObjectDamaged,
    ObjectMissing,
    ObjectStoreRefused,
    ObjectStoreUnavailable,
    StoredObject,
)
from store.objects.settings import ObjectSettings

_INCOMING: Final = ".incoming"
"""Begins with a dot, as no key does."""
_LEFT_BEHIND_S: Final = 3600.0
_LIST_STEP: Final = 1000

T = TypeVar("T")


class LocalObjectStore:
    """See ObjectStore."""

    def __init__(self, directory: Path, settings: ObjectSettings) -> None:
        """directory: made by the first put when it is missing."""
        self._directory = directory
        self._place = f"file://{directory}"
        self._bounds = Bounds(settings, self._place)
        self._tidied = False
        self._closed = False

    async def check(self) -> None:
        """See ObjectStore."""
        async with self._bounds.call("check", "the directory"):
            await self._disk("check", "the directory", make_directory, self._directory)
            if not await self._disk("check", "the directory", os.access, self._directory, os.R_OK | os.W_OK | os.X_OK):
                raise ObjectStoreRefused(f"{self._place} may not be read and written; mend what objects.url names")

    async def put(self, key: str, path: Path) -> None:
        """See ObjectStore."""
        target = self._path(key)
        source_bytes = (await in_thread(path.stat)).st_size
        async with self._bounds.transfer("put", key) as deadline:
            deadline.allow(source_bytes)
            temporary = self._directory / _INCOMING / f"{uuid.uuid4().hex}{TEMPORARY_SUFFIX}"
            await self._disk("put", key, self._make_ready, target.parent)
            stored = await self._disk("put", key, copy, path, temporary, target, Stop())
            MOVED_BYTES.labels("put").inc(stored.bytes)

    async def get(self, key: str, path: Path, *, bytes_expected: int | None = None) -> Fetched:
        """See ObjectStore."""
        source = self._path(key)
        async with self._bounds.transfer("get", key) as deadline:
            source_bytes = await self._disk("get", key, regular_bytes, source)
            if source_bytes is None:
                raise ObjectMissing(key, self._place)
            if bytes_expected not in (None, source_bytes):
                raise ObjectDamaged(key, f"expected {bytes_expected} bytes, {self._place} has {source_bytes}")
            deadline.allow(source_bytes)
            temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}{TEMPORARY_SUFFIX}")
            try:
                fetched = await self._disk("get", key, copy, source, temporary, path, Stop(), setting=str(path.parent))
            except ObjectStoreUnavailable:
                if await in_thread(regular_bytes, source) is None:  # deleted since it was looked at
                    raise ObjectMissing(key, self._place) from None
                raise
            MOVED_BYTES.labels("get").inc(fetched.bytes)
            return fetched

    async def size(self, key: str) -> int | None:
        """See ObjectStore."""
        path = self._path(key)
        async with self._bounds.call("size", key):
            return await self._disk("size", key, regular_bytes, path)

    async def delete(self, key: str) -> None:
        """See ObjectStore."""
        await self.delete_many([key])

    async def delete_many(self, keys: Iterable[str]) -> None:
        """See ObjectStore."""
        paths = [self._path(key) for key in keys]
        for first in range(0, len(paths), _LIST_STEP):
            step = paths[first : first + _LIST_STEP]
            what = f"{len(step)} objects" if len(step) > 1 else step[0].name
            async with self._bounds.call("delete", what):
                await self._disk("delete", what, _delete, step)

    async def list(self, prefix: str = "") -> AsyncIterator[StoredObject]:
        """See ObjectStore."""
        top = self._directory / check_prefix(prefix)
        walk = _walk(top, f"{prefix}/" if prefix else "")
        while True:
            async with self._bounds.call("list", prefix or "everything"):
                step = await self._disk("list", prefix, _take, walk)
            for stored in step:
                yield stored
            if len(step) < _LIST_STEP:
                return

    async def close(self) -> None:
        """See ObjectStore."""
        self._closed = True

    def _path(self, key: str) -> Path:
        return self._directory / check_key(key)

    async def _disk(
        self, operation: Operation, what: str, work: Callable[..., T], *args: object, setting: str = "objects.url"
    ) -> T:
        """Run it in a thread; what the disk says, in our errors. Callable[...]: of any arguments, passed on as they are."""
        if self._closed:
            raise ObjectStoreUnavailable(f"{self._place} is closed")
        try:
            return await in_thread(work, *args)
        except OSError as error:
            raise disk_error(error, doing=f"{self._place}: {operation} {what}", setting=setting) from error

    def _make_ready(self, directory: Path) -> None:
        incoming = self._directory / _INCOMING
        make_directory(incoming)
        make_directory(directory)
        if not self._tidied:
            self._tidied = True
            remove_left_behind(incoming, written_before_s=time.time() - _LEFT_BEHIND_S)


def remove_left_behind(incoming: Path, *, written_before_s: float) -> None:
    """Remove files that nobody has written to since then (seconds of the wall clock)."""
    for entry in os.scandir(incoming):
        with contextlib.suppress(FileNotFoundError):
            if entry.stat(follow_symlinks=False).st_mtime < written_before_s:
                Path(entry.path).unlink()


def _delete(paths: Iterable[Path]) -> None:
    changed = set()
    for path in paths:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            path.unlink()
            changed.add(path.parent)
    for directory in changed:
        sync_directory(directory)


def _take(walk: Iterator[StoredObject]) -> tuple[StoredObject, ...]:
    return tuple(islice(walk, _LIST_STEP))


def _walk(directory: Path, prefix: str) -> Iterator[StoredObject]:
    """Files below a directory in order of key. Holds the names of the directories on the way, not of all."""
    try:
        with os.scandir(directory) as entries:
            # A directory sorts as its keys do: with the slash.
            found = sorted(
                (entry.name + "/" * entry.is_dir(follow_symlinks=False), entry.is_file(follow_symlinks=False))
                for entry in entries
                if not entry.name.startswith(".")
            )
    except (FileNotFoundError, NotADirectoryError):
        return
    for name, is_object in found:
        if name.endswith("/"):
            yield from _walk(directory / name, prefix + name)
        elif is_object and (size := regular_bytes(directory / name)) is not None:
            yield StoredObject(prefix + name, size)
