"""Removes files that nobody reads any more: of retired segments, of cold ones, and what killed processes left behind.

A file goes ten minutes after readers were told to leave it, at the earliest. What no row of the catalogue names is left over
from a process that was killed between writing a file and recording it, or the catalogue is that of a database which was
restored. What was never finished goes when it is older than an hour; whole files, and objects, are kept for days (strays.py).
While a file that the catalogue names is missing, or more is unnamed than named, the two do not belong together: nothing that is
whole is touched then, and the log says so; nor is what the missing one was made of, whose rows may be nowhere else.
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Final

import structlog

from store.objects.files import in_thread
from store.objects.port import ObjectStore
from store.segments.files import UNFINISHED
from store.segments.filters import SUFFIX
from store.tiers.catalogue import SegmentCatalogue
from store.tiers.installation import Installation
from store.tiers.metrics import STRAYS
from store.tiers.places import FILE_SUFFIX, OBJECT_PREFIX, Places, key_of, name_of
from store.tiers.segments import Segment
from store.tiers.strays import Strays
from store.upkeep import DROP_DELAY_S

log = structlog.get_logger(__name__)

STEP = "collect"
STRAY_S: Final = 3_600.0
"""Files that nobody names are younger than this while they are being written, and recorded a moment later."""

_UNNAMED_MAX: Final = 100
_OBJECTS_EVERY_S: Final = 6 * 3_600.0
"""Listing a bucket costs money."""


class Collector:
    """Of one directory, and one object storage if there is any."""

    def __init__(
        self,
        catalogue: SegmentCatalogue,
        places: Places,
        store: ObjectStore | None,
        installation: Installation,
        *,
        strays_kept_us: int,
    ) -> None:
        """places: prepared, by the installation. strays_kept_us: how long what nobody names is kept."""
        self._kept_us = strays_kept_us
        self._strays = Strays(places)
        self._installation = installation
        self._catalogue = catalogue
        self._places = places
        self._store = store
        self._listed_s: float | None = None

    async def collect(self, *, now_us: int) -> int:
        """Remove what is due, put strays aside; returns how many files and objects. Raises StaleEpoch, WrongPlace,
        DatabaseUnavailable, OSError, and as the store does."""
        before_us = now_us - DROP_DELAY_S * 1_000_000
        host_us = time.time_ns() // 1000
        removed = await self._moved(before_us)
        missing = await self._missing()
        belongs = await self._put_strays_aside(host_us, missing)
        if belongs is not None:
            removed += belongs + await in_thread(self._strays.remove_kept_before, host_us - self._kept_us)
        removed += await self._retired(before_us, missing)
        if belongs is not None:
            removed += await self._stray_objects(host_us)
        count = await in_thread(self._strays.count)
        STRAYS.labels("file").set(count.files)
        STRAYS.labels("object").set(count.objects)
        return removed

    async def _missing(self) -> set[str]:
        """Segments whose file should be here. Their names first: the file of each is there before."""
        warm = await self._catalogue.warm_names()
        return warm - {path.name for path in await in_thread(_segments_in, self._places.directory)}

    async def _retired(self, before_us: int, missing: Collection[str]) -> int:
        """The rows go last: what is killed half-way is found again. An object of one that never became cold, put by a process
        that was killed before it said so, is one that nobody names. Files that need no object storage do not wait for it."""
        files = await self._catalogue.retired(before_us=before_us, were_cold=False, missing=missing)
        removed = await self._remove(files)
        cold = await self._catalogue.retired(before_us=before_us, were_cold=True, missing=missing)
        if cold and self._store is None:
            log.error("cold segments have retired, but objects.url names no storage", segments=len(cold))
        elif cold and self._store is not None:
            await self._installation.check_objects()
            await self._store.delete_many([key_of(segment) for segment in cold])
            removed += await self._remove(cold)
        return removed

    async def _remove(self, segments: Sequence[Segment]) -> int:
        if not segments:
            return 0
        removed = await in_thread(_remove, [path for segment in segments for path in self._files_of(segment)])
        await self._catalogue.forget([segment.name for segment in segments])
        return removed

    async def _moved(self, before_us: int) -> int:
        """In one transaction with the look at them: nobody brings one back to the local disk meanwhile."""
        here = [path.name for path in await in_thread(_segments_in, self._places.directory)]
        async with self._catalogue.change() as connection:
            names = await self._catalogue.moved(connection, here, before_us=before_us)
            return await in_thread(_remove, [self._places.file_of(name) for name in names])

    async def _put_strays_aside(self, host_us: int, missing: Collection[str]) -> int | None:
        """Listed before the names are read: what is recorded in between has its name. None: what is here and what is named
        do not belong together."""
        listed = await in_thread(_listed, self._places, host_us / 1e6 - STRAY_S)
        names = await self._catalogue.names()
        unfinished = [path for path, name in listed if name is None]
        strays = [path for path, name in listed if name is not None and name not in names]
        removed = await in_thread(_remove, unfinished)
        if missing:
            log.error(
                "files that the database names are missing: what it does not name stays untouched",
                missing=len(missing),
                files=sorted(missing)[:_UNNAMED_MAX],
            )
            return None
        if not strays:
            return removed
        if _is_wrong_place(len(strays), len(listed) - len(unfinished) - len(strays), str(self._places.directory)):
            return None
        log.warning(
            "files that nobody names are put aside",
            files=[path.name for path in strays][:_UNNAMED_MAX],
            directory=str(self._places.strays),
            kept_days=self._kept_us / 86_400_000_000,
        )
        async with self._catalogue.change():
            return removed + await in_thread(partial(self._strays.keep, strays, now_us=host_us))

    async def _stray_objects(self, host_us: int) -> int:
        """Listings do not say how old an object is: the time is counted from when it was first seen to be unnamed."""
        now_s = time.monotonic()
        if self._store is None or (self._listed_s is not None and now_s - self._listed_s < _OBJECTS_EVERY_S):
            return 0
        listed = [found.key async for found in self._store.list(OBJECT_PREFIX)]
        names = await self._catalogue.names()
        unnamed = [key for key in listed if name_of(key) not in names]
        since_us = await in_thread(partial(self._strays.note_objects, unnamed, now_us=host_us))
        self._listed_s = now_s
        if not unnamed or _is_wrong_place(len(unnamed), len(listed) - len(unnamed), "object storage"):
            return 0
        log.warning("there are objects that nobody names", objects=len(unnamed), some=unnamed[:_UNNAMED_MAX])
        due = [key for key in unnamed if since_us[key] <= host_us - self._kept_us]
        if due:
            await self._installation.check_objects()
            log.warning("removing objects that nobody names", objects=due[:_UNNAMED_MAX])
            await self._store.delete_many(due)
            await in_thread(partial(self._strays.note_objects, set(unnamed) - set(due), now_us=host_us))
        return len(due)

    def _files_of(self, segment: Segment) -> tuple[Path, Path]:
        return self._places.file_of(segment.name), self._places.filter_of(segment.name)


def _segments_in(directory: Path) -> list[Path]:
    return [*directory.glob(f"*{FILE_SUFFIX}")]


def _listed(places: Places, written_before_s: float) -> list[tuple[Path, str | None]]:
    """Files of ours that are old enough, and the segment each belongs to; None: to none, it was never finished."""
    found: list[tuple[Path, str | None]] = []
    for directory, suffix in ((places.directory, FILE_SUFFIX), (places.filters, SUFFIX)):
        with os.scandir(directory) as entries:
            for entry in entries:
                unfinished = entry.name.endswith(UNFINISHED)
                if not (unfinished or entry.name.endswith(suffix)) or not entry.is_file(follow_symlinks=False):
                    continue
                if entry.stat(follow_symlinks=False).st_mtime < written_before_s:
                    name = None if unfinished else entry.name.removesuffix(SUFFIX)
                    found.append((Path(entry.path), name))
    return found


def _remove(paths: Iterable[Path]) -> int:
    """Not synced: what comes back after a power cut is removed again."""
    removed = 0
    for path in paths:
        try:
            path.unlink()
            removed += 1
        except FileNotFoundError:
            continue
    return removed


def _is_wrong_place(unnamed: int, named: int, place: str) -> bool:
    wrong = unnamed > max(named, _UNNAMED_MAX)
    if wrong:
        log.error(
            "more files there are unknown than known: is it another database's place?", place=place, unknown=unnamed
        )
    return wrong
