"""Copies of objects on the local disk, within a limit of bytes.

One download per object, however many ask: it runs in a task of its own, and those who wait may be cancelled without harm
to it. A download that nobody waits for any more ends if it has not begun; one that has begun goes on (there are at most
`transfers_max` of them, each with a deadline), so that a question that ran out of time finds its files when it comes again.

A copy is verified, size and SHA-256, before it gets its name: when it was fetched, and again when it is first used after a
restart. Names hold key and content (`keys.py`), so that nothing but the directory needs to survive. Its order of use is kept
in the files' times.

A file stays while it is in use, and the limit holds all the same: whoever needs room that only files in use could give
waits for it, in order of arrival, at most `cache_wait_s`. Callers that hold several files at once may wait for each
other for as long. A place among the downloads comes when those before have ended: each has its deadline.

Used from one event loop; what touches the disk runs in threads. One process owns a directory (a lock says so).
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
from collections.abc import AsyncIterator, Callable, Container
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, TypeVar

import structlog

from runtime.clock import Clock, SystemClock
from schemas.errors import ConfigurationError, LogfeedError
from store.disk_room import DiskRoom, free_bytes
from store.objects import metrics
from store.objects.bounds import reason_of
from store.objects.cache_index import CacheIndex, Copy, State
from store.objects.files import (
    TEMPORARY_SUFFIX,
    Stop,
    cancelled_from_outside,
    disk_error,
    has_content,
    in_thread,
    make_directory,
    publish,
    regular_bytes,
)
from store.objects.keys import copy_name, read_copy_name
from store.objects.port import ObjectDamaged, ObjectStore, ObjectStoreUnavailable
from store.objects.settings import ObjectSettings

_LOCK: Final = ".lock"

T = TypeVar("T")
log = structlog.get_logger()


class ObjectTooLarge(LogfeedError):
    """The object is larger than the cache."""


class ObjectCache:
    """Gives files of objects; `open` first, `close` at the end."""

    def __init__(
        self,
        store: ObjectStore,
        settings: ObjectSettings,
        clock: Clock | None = None,
        *,
        look: Callable[[Path], int] = free_bytes,
    ) -> None:
        """store: must outlive the cache. clock: its wall time orders files by their use, across restarts. look: bytes that are
        free on a disk."""
        self._store = store
        self._clock = clock or SystemClock()
        self._directory = settings.cache_dir
        self._wait_s = settings.cache_wait_s
        self._index = CacheIndex(settings.cache_bytes_max)
        self._room = DiskRoom(
            settings.cache_dir, settings.cache_free_bytes_min, setting="objects.cache_free_bytes_min", look=look
        )
        self._places = asyncio.Semaphore(settings.transfers_max)
        self._admission = asyncio.Lock()
        """Whoever makes room: in order of arrival, and no file is fetched again before its old copy is deleted."""
        self._changed = asyncio.Event()
        """Something may go now that could not before."""
        self._work: dict[Copy, _Work] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._temporaries = 0
        self._lock: int | None = None

    @property
    def bytes(self) -> int:
        """Of all copies, those under way included; at most `cache_bytes_max`."""
        return self._index.bytes

    @property
    def pinned_bytes(self) -> int:
        """Of the copies in use."""
        return self._index.pinned_bytes

    async def open(self) -> None:
        """Take the directory and what is in it. ConfigurationError when another process has it or it cannot be used."""
        try:
            found = await in_thread(self._take_directory)
            for name, size in found:
                self._index.find(name, size)
            await in_thread(self._unlink, self._index.surplus())
        except OSError as error:
            self._give_back()
            self._index = CacheIndex(self._index.bytes_max)
            raise ConfigurationError(
                f"objects.cache_dir: {self._directory} cannot be used: {error.strerror}"
            ) from error
        self._show()

    async def close(self) -> None:
        """End what is under way and give the directory back. Files that are in use stay where they are."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        self._give_back()

    async def keep_only(self, names: Container[str]) -> None:
        """Delete all copies but those of these names (`copy_name`). Those in use, and all while somebody waits for room, stay
        until the next call. Raises ObjectStoreUnavailable, ObjectStoreRefused (the disk)."""
        if self._lock is None or self._admission.locked():
            return
        async with self._admission:
            going = self._index.others(names)
            if going:
                await self._disk("remove", "copies of objects that are gone", self._unlink, going)
                metrics.CACHE_EVICTIONS.inc(len(going))
        self._show()

    @asynccontextmanager
    async def file(self, key: str, *, bytes: int, sha256: str) -> AsyncIterator[Path]:
        """The object as a local file, which stays as it is until the block is left. Read it only.

        bytes, sha256: what the object must be. Raises ObjectMissing, ObjectDamaged (and keeps nothing), ObjectTooLarge,
        ObjectStoreUnavailable (the store, a full disk, or no room in time), ObjectStoreRefused.
        """
        name = copy_name(key, bytes=bytes, sha256=sha256)
        if self._lock is None:
            raise ObjectStoreUnavailable("the cache of objects is closed")
        if bytes > self._index.bytes_max:
            metrics.CACHE_FAILURES.labels("too_large").inc()
            raise ObjectTooLarge(
                f"object {key} has {bytes} bytes, the cache holds {self._index.bytes_max}: raise objects.cache_bytes_max"
            )
        copy = self._index.use(name, bytes)
        self._index.pin(copy)
        try:
            await self._have(copy, key, sha256)
            self._show()
            yield self._directory / name
        finally:
            self._index.unpin(copy)
            self._changed.set()
            self._show()

    async def _have(self, copy: Copy, key: str, sha256: str) -> None:
        while copy.state is State.WHOLE and not copy.busy:
            made = copy.times_made
            if await in_thread(_touch, self._directory / copy.name, copy.bytes, self._clock.now_us()):
                metrics.CACHE_REQUESTS.labels("hit").inc()
                return
            if copy.counted and copy.times_made == made:  # nobody has looked after it meanwhile
                self._spoiled(copy, key)
        work = self._work.get(copy)
        if work is None:
            work = self._begin(copy, key, sha256)
        else:
            metrics.CACHE_REQUESTS.labels("shared").inc()
        work.waiting += 1
        try:
            await asyncio.shield(work.task)
        except asyncio.CancelledError:
            if not work.task.cancelled() or cancelled_from_outside():
                raise
            raise ObjectStoreUnavailable("the cache of objects is closed") from None
        except LogfeedError as error:
            metrics.CACHE_FAILURES.labels(reason_of(error)).inc()
            raise
        finally:
            work.waiting -= 1
            if not work.waiting and not work.begun:
                self._drop(copy, work)

    def _begin(self, copy: Copy, key: str, sha256: str) -> _Work:
        copy.busy = True
        # A file that is there is verified to the end in any case: dropped half-way, it would not be counted any more.
        work = self._work[copy] = _Work(begun=copy.state is State.FOUND)
        work.task = asyncio.create_task(self._make_whole(copy, key, sha256, work))
        self._tasks.add(work.task)

        def ended(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            if self._work.get(copy) is work:
                del self._work[copy]
            copy.busy = False
            if task.cancelled() or task.exception() is not None:
                self._index.forget(copy)
            self._changed.set()
            self._show()

        work.task.add_done_callback(ended)
        return work

    def _drop(self, copy: Copy, work: _Work) -> None:
        """Nobody waits, nothing has begun: the next to ask starts afresh."""
        self._index.forget(copy)
        self._work.pop(copy, None)
        work.task.cancel()

    async def _make_whole(self, copy: Copy, key: str, sha256: str, work: _Work) -> None:
        if copy.state is State.FOUND:
            if await self._disk("verify", key, has_content, self._directory / copy.name, copy.bytes, sha256, Stop()):
                metrics.CACHE_REQUESTS.labels("hit").inc()
                self._is_whole(copy)
                return
            await self._disk("remove", key, self._unlink, [copy])
            self._spoiled(copy, key)
        metrics.CACHE_REQUESTS.labels("miss").inc()
        async with self._places:
            await self._make_room(copy, key)
            work.begun = True
            await self._fetch(copy, key, sha256)

    async def _make_room(self, copy: Copy, key: str) -> None:
        try:
            async with asyncio.timeout(self._wait_s) as waiting, self._admission:
                while (going := await self._admitted(copy, key)) is None:
                    self._changed.clear()
                    await self._changed.wait()
                waiting.reschedule(None)
                # Under the lock: before another admission, and before any of these is fetched again.
                await self._disk("make room for", key, self._unlink, going)
        except TimeoutError:
            raise ObjectStoreUnavailable(
                f"no room for object {key} of {copy.bytes} bytes within {self._wait_s:g} s: {self._index.pinned_bytes} of"
                f" {self._index.bytes_max} bytes (objects.cache_bytes_max) are in use"
            ) from None
        metrics.CACHE_EVICTIONS.inc(len(going))

    async def _admitted(self, copy: Copy, key: str) -> list[Copy] | None:
        """See CacheIndex.admit. Raises DiskFull where nothing that is in use will make room either."""
        room = await self._disk("look at the room for", key, self._room.left)
        going = self._index.admit(copy, room)
        if going is None and copy.bytes - room > self._index.bytes:
            await in_thread(self._room.check, copy.bytes, f"fetching object {key}")
        return going

    async def _fetch(self, copy: Copy, key: str, sha256: str) -> None:
        self._temporaries += 1
        temporary = self._directory / f"{copy.name}.{self._temporaries}{TEMPORARY_SUFFIX}"
        try:
            fetched = await self._store.get(key, temporary, bytes_expected=copy.bytes)
            if fetched.bytes != copy.bytes:
                raise ObjectDamaged(key, f"expected {copy.bytes} bytes, got {fetched.bytes}")
            if fetched.sha256 != sha256:
                raise ObjectDamaged(key, f"expected SHA-256 {sha256}, got {fetched.sha256}")
            await self._disk("keep", key, _keep, temporary, self._directory / copy.name, self._clock.now_us())
        except BaseException:
            with contextlib.suppress(OSError):
                await in_thread(temporary.unlink, missing_ok=True)
            raise
        self._is_whole(copy)

    def _is_whole(self, copy: Copy) -> None:
        copy.state = State.WHOLE
        copy.times_made += 1

    def _spoiled(self, copy: Copy, key: str) -> None:
        metrics.CACHE_SPOILED.inc()
        log.warning("cached object is gone or changed, fetching it anew", key=key)
        self._index.lose(copy)

    async def _disk(self, doing: str, key: str, work: Callable[..., T], *args: object) -> T:
        """Run it in a thread; what the disk says, in our errors. Callable[...]: of any arguments, passed on as they are."""
        try:
            return await in_thread(work, *args)
        except OSError as error:
            raise disk_error(error, doing=f"cache: {doing} {key}", setting="objects.cache_dir") from error

    def _unlink(self, copies: list[Copy]) -> None:
        for copy in copies:
            (self._directory / copy.name).unlink(missing_ok=True)

    def _take_directory(self) -> list[tuple[str, int]]:
        """Lock it, remove what is half or of the wrong size; (name, bytes) of the rest, least recently used first."""
        make_directory(self._directory)
        lock = os.open(self._directory / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            found = []
            for entry in os.scandir(self._directory):
                named = read_copy_name(entry.name)
                half = entry.name.endswith(TEMPORARY_SUFFIX) and read_copy_name(entry.name.partition(".")[0])
                if half or (named and regular_bytes(Path(entry.path)) != named.bytes):
                    Path(entry.path).unlink()
                elif named:
                    found.append((entry.stat().st_mtime_ns, entry.name, named.bytes))
        except BlockingIOError:
            os.close(lock)
            raise ConfigurationError(
                f"objects.cache_dir: {self._directory} is in use by another process: give each its own"
            ) from None
        except BaseException:
            os.close(lock)
            raise
        self._lock = lock
        return [(name, size) for _, name, size in sorted(found)]

    def _give_back(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _show(self) -> None:
        metrics.CACHE_BYTES.set(self._index.bytes)
        metrics.CACHE_PINNED_BYTES.set(self._index.pinned_bytes)
        metrics.CACHE_FILES.set(len(self._index))


class _Work:
    """A copy on its way: its task, and how many wait for it."""

    task: asyncio.Task[None]

    def __init__(self, *, begun: bool) -> None:
        self.waiting = 0
        self.begun = begun


def _touch(path: Path, bytes: int, now_us: int) -> bool:
    """Note that it is used; False when it is not there in its size."""
    try:
        _note_use(path, now_us)
    except OSError:
        return False
    return regular_bytes(path) == bytes


def _keep(temporary: Path, path: Path, now_us: int) -> None:
    _note_use(temporary, now_us)
    publish(temporary, path)


def _note_use(path: Path, now_us: int) -> None:
    # Not the kernel's own "now": it stands still for milliseconds at a time.
    os.utime(path, ns=(now_us * 1000, now_us * 1000))
