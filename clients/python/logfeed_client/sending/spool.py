"""Logs on disk while the server is away. A segment is a batch: an NDJSON file whose name is its place and its key.

    BASE/            0700, named by the program
      0/ 1/ …        0700, one for each process at a time: whoever holds the lock (flock) on `lock` in it
        lock
        000000000007-5f2c….ndjson      0600: lines are appended while nobody has tried to send them
        000000000007.0-5f2c….0.ndjson  half of one that was too large

Promises. A line that was appended outlives the death of its process (kill -9), and the machine's once its segment was tried or
closed (fsync). A segment is sealed before it is tried: what was sent under its key never changes. What a crash cut off is cut
off the file too, up to the last whole line. A segment goes when the server has answered for each of its logs; one whose
answer was lost is sent again under its key, in the next process too. Halves are made whole before the segment they are of
goes, and tried after that: a start that finds both keeps the whole.

Two processes never share a directory: each takes the first that is free, with what a dead one left in it, and looks into the
others when its own is empty. One thread at a time, apart from the counts. Needs flock: no Windows.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from logfeed_client.sending.batch import Batch, new_key

try:
    import fcntl
except ImportError:  # pragma: no cover  # Windows
    fcntl = None  # type: ignore[assignment]

DIRECTORIES_MAX: Final = 256
"""Processes of one base at once."""
_SEGMENTS_MAX: Final = 100_000
"""Of one directory: that many more files than this nobody has written here."""
_NAME: Final = re.compile(r"([0-9]{12}(?:\.[01]){0,20})-([0-9a-f]{32}(?:\.[01]){0,20})\.ndjson", re.ASCII)
_DIRECTORY_MODE: Final = 0o700
_FILE_MODE: Final = 0o600
_LOCK: Final = "lock"
_PART: Final = ".part"

Place = tuple[int, ...]
"""Number of a segment, then which half of which half: compares as segments follow one another."""


class SpoolError(Exception):
    """The directory cannot be used as a spool."""


@dataclass(slots=True)
class _Segment:
    place: Place
    key: str
    path: Path
    bytes: int


def parse_name(name: str) -> tuple[Place, str] | None:
    """(place, key) of a segment's file name; None for any other."""
    match = _NAME.fullmatch(name)
    return None if match is None else (tuple(map(int, match[1].split("."))), match[2])


def whole_lines(content: bytes) -> bytes:
    """What a segment holds: everything up to its last line end. A line that was cut off by a crash is none."""
    return content[: content.rfind(b"\n") + 1]


class Spool:
    """One locked directory."""

    def __init__(self, directory: Path, lock: int, *, bytes_max: int, batch_logs: int, batch_bytes: int) -> None:
        """Use `claim`. lock: file descriptor that holds it; closed by `close`. bytes_max: of all segments. batch_logs,
        batch_bytes: of one. Raises OSError, SpoolError."""
        self.directory = directory
        self._lock = lock
        self._bytes_max = bytes_max
        self._batch_logs, self._batch_bytes = batch_logs, batch_bytes
        self._open: int | None = None
        self._open_logs = 0
        self._segments: list[_Segment] = self._found()
        self.bytes = sum(segment.bytes for segment in self._segments)
        self._next = max((segment.place[0] for segment in self._segments), default=0) + 1
        self._refused_at: int | None = None
        """Bytes that were there when something had no room."""

    @classmethod
    def claim(
        cls,
        base: Path,
        *,
        bytes_max: int,
        batch_logs: int,
        batch_bytes: int,
        left_by_others: Path | None = None,
    ) -> Spool | None:
        """The first directory that nobody has; None where all are taken. left_by_others: the caller's own directory, looks for
        another one that exists, is free, and has segments. Raises OSError, SpoolError."""
        if fcntl is None:  # pragma: no cover  # Windows
            raise SpoolError("a spool needs flock, which this system has not")
        _own_directory(base)
        for number in range(DIRECTORIES_MAX):
            directory = base / str(number)
            if left_by_others is not None:
                if not directory.exists():
                    return None
                if directory == left_by_others or not _has_segments(directory):
                    continue
            _own_directory(directory)
            lock = os.open(directory / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, _FILE_MODE)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                os.close(lock)
                continue
            try:
                return cls(directory, lock, bytes_max=bytes_max, batch_logs=batch_logs, batch_bytes=batch_bytes)
            except BaseException:
                os.close(lock)
                raise
        return None

    def __len__(self) -> int:
        """Segments."""
        return len(self._segments)

    def is_full(self) -> bool:
        """Something had no room, and no segment has gone since."""
        return self._refused_at is not None and self.bytes >= self._refused_at

    def append(self, lines: Sequence[bytes]) -> int:
        """Put lines with their ends behind everything that is there, as many as have room; how many these are. Trouble in the
        middle ends it after those that are there already. Raises OSError; then none of them is."""
        done = 0
        while done < len(lines) and self._has_room(len(lines[done])):
            try:
                done += self._append_some(lines[done:])
            except OSError:
                if done:
                    break
                raise
        return done

    def _append_some(self, lines: Sequence[bytes]) -> int:
        """As many as one segment takes."""
        if self._open is None or not self._fits(len(lines[0])):
            self._seal()
            self._begin()
        segment = self._segments[-1]
        count = self._fitting(segment, lines)
        self._write(segment, b"".join(lines[:count]))
        self._open_logs += count
        return count

    def put(self, batch: Batch) -> bool:
        """Keep a batch that was tried, behind everything that is there. False where it has no room. Raises OSError."""
        if not self._has_room(len(batch.body)):
            return False
        self._seal()
        self._whole(((self._next,), batch))
        self._next += 1
        return True

    def oldest(self) -> Batch | None:
        """The batch to send next, sealed; None where there is none. Raises OSError for one that cannot be read: see `drop`."""
        while self._segments:
            segment = self._segments[0]
            if len(self._segments) == 1:
                # Without a sync it outlives its process all the same; that is no reason not to send it.
                with contextlib.suppress(OSError):
                    self._seal()
            content = segment.path.read_bytes()
            body = whole_lines(content)
            if body:
                return Batch(segment.key, body, body.count(b"\n"))
            self._remove(segment)
        return None

    def done(self, batch: Batch) -> None:
        """The server has answered for all of it. Raises OSError."""
        if self._segments and self._segments[0].key == batch.key:
            self._remove(self._segments[0])

    def split(self, batch: Batch, halves: tuple[Batch, Batch]) -> None:
        """Two instead of the oldest one. Raises OSError."""
        whole = self._segments[0]
        assert whole.key == batch.key
        self._whole(*(((*whole.place, number), half) for number, half in enumerate(halves)))
        self._remove(whole)

    def skip(self) -> str | None:
        """The oldest segment cannot be read: it stays on disk, under a name that nobody looks for, and is told of. Raises
        OSError."""
        if not self._segments:
            return None
        segment = self._segments.pop(0)
        self.bytes -= segment.bytes
        kept = segment.path.with_suffix(".unreadable")
        segment.path.rename(kept)
        return str(kept)

    def close(self) -> None:
        """Safe on disk, and free for others."""
        with contextlib.suppress(OSError):
            self._seal()
        self.forget()

    def forget(self) -> None:
        """Close what is open without a word to the disk: in a child that a fork made, whose parent goes on with it."""
        for descriptor in (self._open, self._lock):
            if descriptor is not None:
                with contextlib.suppress(OSError):
                    os.close(descriptor)
        self._open = None
        self._segments = []

    def _has_room(self, size: int) -> bool:
        if self.bytes + size <= self._bytes_max:
            return True
        self._refused_at = self.bytes
        return False

    def _fits(self, size: int) -> bool:
        """Whether the open segment takes one more line."""
        segment = self._segments[-1]
        return self._open_logs < self._batch_logs and (not segment.bytes or segment.bytes + size <= self._batch_bytes)

    def _fitting(self, segment: _Segment, lines: Sequence[bytes]) -> int:
        """How many of these lines, the first of which fits, the open segment takes."""
        size = 0
        for count, line in enumerate(lines[: self._batch_logs - self._open_logs]):
            size += len(line)
            if count and (segment.bytes + size > self._batch_bytes or self.bytes + size > self._bytes_max):
                return count
        return min(len(lines), self._batch_logs - self._open_logs)

    # --- files

    def _found(self) -> list[_Segment]:
        """What a process before this one left."""
        segments: list[_Segment] = []
        for entry in os.scandir(self.directory):
            if entry.name.endswith(_PART):
                os.unlink(entry.path)
                continue
            parsed = parse_name(entry.name)
            if parsed is None or not entry.is_file(follow_symlinks=False):
                continue
            segments.append(_Segment(*parsed, Path(entry.path), entry.stat().st_size))
            if len(segments) > _SEGMENTS_MAX:
                raise SpoolError(f"{self.directory} has more than {_SEGMENTS_MAX} segments")
        places = {segment.place for segment in segments}
        kept: list[_Segment] = []
        for segment in sorted(segments, key=lambda segment: segment.place):
            if any(segment.place[:length] in places for length in range(1, len(segment.place))):
                segment.path.unlink()  # a half of one that is still whole: it was not tried
                continue
            kept.append(segment)
        if kept:
            self._cut(kept[-1])  # the others were sealed before it was begun
        return kept

    def _cut(self, segment: _Segment) -> None:
        """Take off what a crash cut off, and make sure of the rest before it is tried."""
        descriptor = os.open(segment.path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            end = _end_of_lines(descriptor, segment.bytes)
            if end < segment.bytes:
                os.ftruncate(descriptor, end)
                segment.bytes = end
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _begin(self) -> None:
        place = (self._next,)
        key = new_key()
        path = self.directory / _name(place, key)
        self._open = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, _FILE_MODE)
        self._open_logs = 0
        self._next += 1
        self._segments.append(_Segment(place, key, path, 0))

    def _write(self, segment: _Segment, content: bytes) -> None:
        assert self._open is not None
        try:
            _write_all(self._open, content)
        except OSError:
            # A part of it may be there.
            os.ftruncate(self._open, segment.bytes)
            raise
        segment.bytes += len(content)
        self.bytes += len(content)

    def _seal(self) -> None:
        if self._open is None:
            return
        descriptor, self._open = self._open, None
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        self._sync_directory()

    def _whole(self, *batches: tuple[Place, Batch]) -> None:
        """Write segments in one go, all or none."""
        made: list[_Segment] = []
        try:
            for place, batch in batches:
                path = self.directory / _name(place, batch.key)
                part = path.with_suffix(_PART)
                descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, _FILE_MODE)
                try:
                    _write_all(descriptor, batch.body)
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)
                part.rename(path)
                made.append(_Segment(place, batch.key, path, len(batch.body)))
        except OSError:
            for segment in made:
                with contextlib.suppress(OSError):
                    segment.path.unlink()
            raise
        self._sync_directory()
        self._segments.extend(made)
        self._segments.sort(key=lambda segment: segment.place)
        self.bytes += sum(segment.bytes for segment in made)

    def _remove(self, segment: _Segment) -> None:
        self._segments.remove(segment)
        self.bytes -= segment.bytes
        segment.path.unlink(missing_ok=True)

    def _sync_directory(self) -> None:
        descriptor = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _own_directory(path: Path) -> None:
    """It is there, it is ours, and nobody else gets into it. Raises OSError, SpoolError."""
    path.mkdir(mode=_DIRECTORY_MODE, parents=True, exist_ok=True)
    found = path.lstat()
    if not path.is_dir() or path.is_symlink():
        raise SpoolError(f"{path} is no directory")
    if found.st_uid != os.geteuid():
        raise SpoolError(f"{path} belongs to another user: name a directory of this program's own")
    if found.st_mode & 0o077:
        path.chmod(_DIRECTORY_MODE)


def _has_segments(directory: Path) -> bool:
    with contextlib.suppress(OSError), os.scandir(directory) as entries:
        return any(parse_name(entry.name) for entry in entries)
    return False


def _end_of_lines(descriptor: int, size: int) -> int:
    """Place behind the last line end."""
    step = 64 * 1024
    while size > 0:
        begin = max(0, size - step)
        found = os.pread(descriptor, size - begin, begin).rfind(b"\n")
        if found >= 0:
            return begin + found + 1
        size = begin
    return 0


def _name(place: Place, key: str) -> str:
    first, *halves = place
    return f"{first:012d}{''.join(f'.{half}' for half in halves)}-{key}.ndjson"


def _write_all(descriptor: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]
