"""What nobody names: kept for days before it goes, because the catalogue may be the one that is wrong.

A database that was restored to an older state does not know the files it wrote since, nor that it has merged others. So whole
files move to a directory beside the segments, and can be put back. Objects stay where they are; when each was first seen to
be unnamed is in a file there, and one that is named again is forgotten. A lost file of that kind only begins the time anew.

All functions block and belong in a thread. Times are microseconds since 1970, by this host's clock.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from store.segments.files import fsync_directory, written_whole
from store.tiers.places import Places

_BOOK: Final = "objects.json"
_book: Final = msgspec.json.Decoder(dict[str, int])


class StrayCount(NamedTuple):
    """How much there is that nobody names."""

    files: int
    file_bytes: int
    objects: int


class Strays:
    """Of one directory of segments."""

    def __init__(self, places: Places) -> None:
        """Made when there is something to keep."""
        self._directory = places.strays
        self._path = places.strays / _BOOK

    def keep(self, paths: Iterable[Path], *, now_us: int) -> int:
        """Move these here; their age begins now. Returns how many. Raises OSError."""
        self._make()
        kept, left = 0, set[Path]()
        for path in paths:
            try:
                os.utime(path, ns=(now_us * 1000, now_us * 1000))
                path.rename(self._directory / path.name)
            except FileNotFoundError:
                continue
            kept += 1
            left.add(path.parent)
        for directory in (self._directory, *left):
            fsync_directory(directory)
        return kept

    def remove_kept_before(self, before_us: int) -> int:
        """Remove files that came here before then; returns how many. Raises OSError."""
        due = [entry for entry in self._files() if entry.stat(follow_symlinks=False).st_mtime_ns < before_us * 1000]
        for entry in due:
            Path(entry.path).unlink(missing_ok=True)
        return len(due)

    def note_objects(self, unnamed: Iterable[str], *, now_us: int) -> dict[str, int]:
        """These keys, and no others, have no name now: key -> when it was first noted. Raises OSError."""
        before = self._first_seen()
        first_seen_us = {key: before.get(key, now_us) for key in unnamed}
        if first_seen_us != before:
            self._make()
            with written_whole(self._path) as file:
                file.write(msgspec.json.encode(first_seen_us))
        return first_seen_us

    def count(self) -> StrayCount:
        """Files that are here, and objects by the last look at these. Raises OSError."""
        sizes = [entry.stat(follow_symlinks=False).st_size for entry in self._files()]
        return StrayCount(len(sizes), sum(sizes), len(self._first_seen()))

    def _first_seen(self) -> dict[str, int]:
        try:
            return _book.decode(self._path.read_bytes())
        except (FileNotFoundError, NotADirectoryError, msgspec.DecodeError):  # the time begins anew
            return {}

    def _files(self) -> Iterator[os.DirEntry[str]]:
        try:
            entries = os.scandir(self._directory)
        except FileNotFoundError:
            return
        with entries:
            for entry in entries:
                if entry.is_file(follow_symlinks=False) and not entry.name.startswith(_BOOK):
                    yield entry

    def _make(self) -> None:
        if not self._directory.is_dir():
            self._directory.mkdir(exist_ok=True)
            fsync_directory(self._directory.parent)
