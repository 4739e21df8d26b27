"""Whether a directory, and an object storage, are this database's: both have a marker with the id of the installation.

A disk that is not mounted, another machine's disk and another database's directory look like an empty or a strange directory,
and rows would go there, or files be taken for left-overs. So nothing moves and nothing is removed without the right marker.
Whoever leads makes it while the database knows no files; files from before there were markers stand for it where they are.

The id is in the table `secrets`: a copy of the database has it too, and must be given places of its own, and another id.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path
from typing import Final, NamedTuple

import structlog

from db.database import Database
from schemas.errors import LogfeedError
from store.objects.files import in_thread
from store.objects.port import ObjectMissing, ObjectStore
from store.segments.files import UNFINISHED, written_whole
from store.tiers.catalogue import SegmentCatalogue
from store.tiers.places import FILE_SUFFIX, MARKER, OBJECT_PREFIX, Places, name_of

log = structlog.get_logger(__name__)

_SECRET: Final = "installation"
_LOST: Final = "lost"
"""Written behind the id by people who know that all files are gone."""
_MARKER_BYTES_MAX: Final = 100


class WrongPlace(LogfeedError):
    """The directory of files, or the object storage, is not this database's."""


class _Found(NamedTuple):
    """What is in a directory."""

    is_there: bool
    marker: str | None
    files: frozenset[str]
    filters: frozenset[str]
    """Segments that have one."""


class Installation:
    """Of one database, one directory, and one object storage if there is any."""

    def __init__(
        self, database: Database, catalogue: SegmentCatalogue, places: Places, store: ObjectStore | None
    ) -> None:
        """Looks at nothing yet."""
        self._database = database
        self._catalogue = catalogue
        self._places = places
        self._store = store

    async def identity(self) -> str:
        """The id, 32 hexadecimal digits, made at first use. Raises DatabaseUnavailable."""
        async with self._database.connection() as connection:
            await connection.execute(
                "INSERT INTO secrets (name, value) VALUES (%s, %s) ON CONFLICT DO NOTHING",
                (_SECRET, secrets.token_bytes(16)),
            )
            row = await (await connection.execute("SELECT value FROM secrets WHERE name = %s", (_SECRET,))).fetchone()
        assert row is not None
        return bytes(row[0]).hex()

    async def check_directory(self, *, make: bool) -> None:
        """Hold the directory to the database. make: directories and marker where they may be; only who leads does so.

        Raises WrongPlace, DatabaseUnavailable, StaleEpoch, OSError.
        """
        identity = await self.identity()
        names, warm = await self._catalogue.names(), await self._catalogue.warm_names()
        found = await in_thread(_look, self._places)
        if found.marker is None:
            if names:
                self._hold_to(found, names, warm, identity)
            elif found.files:
                raise self._wrong("has files, and the database knows none", identity)
            if make:
                await self._mark(identity)
        elif found.marker.split()[:1] != [identity]:
            raise self._wrong(f"belongs to another installation ({found.marker!r:.100})", identity)
        elif warm and not warm & found.files and found.marker != f"{identity} {_LOST}":
            raise WrongPlace(
                f"tiers.directory {self._places.directory} has none of the {len(warm)} files that should be there, and "
                f"nothing moves: put them back, or, if they are lost, write {identity} {_LOST} into {self._places.marker}"
            )
        elif make:
            await in_thread(self._places.prepare)

    async def check_objects(self) -> None:
        """Hold the object storage to the database. Call each time before anything is put or removed there: a directory of
        objects may be on a disk that is not mounted any more.

        Raises WrongPlace, DatabaseUnavailable, OSError, and as the store does.
        """
        if self._store is None:
            return
        identity = await self.identity()
        marker = await self._object_marker(self._store)
        if marker is None:
            await self._hold_objects_to(self._store, identity)
            await self._store.put(MARKER, self._places.marker)
        elif marker.split()[:1] != [identity]:
            raise WrongPlace(
                f"objects.url belongs to another installation ({marker!r:.100}), this one is {identity}: "
                "give each database a place of its own"
            )

    def _hold_to(self, found: _Found, names: set[str], warm: set[str], identity: str) -> None:
        """Without a marker: all warm files are there, and where there is none, what else only the right directory has."""
        if not found.is_there:
            raise self._wrong("is not there", identity)
        if missing := warm - found.files:
            raise self._wrong(f"lacks {len(missing)} of {len(warm)} files", identity)
        if not names & (found.files | found.filters):
            raise self._wrong("has nothing of the files that the database knows", identity)

    async def _hold_objects_to(self, store: ObjectStore, identity: str) -> None:
        names = await self._catalogue.names()
        unknown = 0
        async for found in store.list(OBJECT_PREFIX):
            if name_of(found.key) in names:
                return
            unknown += 1
        if unknown or await self._catalogue.has_cold():
            raise WrongPlace(
                f"objects.url has no marker {MARKER} and {unknown} objects, none of which the database knows: is it "
                f"another one's? If it is the right one, put an object {MARKER} with the text {identity} there"
            )

    async def _object_marker(self, store: ObjectStore) -> str | None:
        if await store.size(MARKER) is None:
            return None
        path = self._places.directory / f"{MARKER}.object{UNFINISHED}"
        try:
            await store.get(MARKER, path)
            return await in_thread(_text_of, path)
        except ObjectMissing:
            return None
        finally:
            await in_thread(path.unlink, missing_ok=True)

    async def _mark(self, identity: str) -> None:
        """While nobody else can begin to lead: of two machines one makes its directory the one."""
        async with self._catalogue.change():
            await in_thread(self._places.prepare)
            await in_thread(_write, self._places.marker, identity)
        log.info("files lie here", directory=str(self._places.directory), installation=identity)

    def _wrong(self, what: str, identity: str) -> WrongPlace:
        return WrongPlace(
            f"tiers.directory {self._places.directory} {what}, and nothing moves: is the disk mounted, is this the right "
            f"machine and database? If it is the right directory, write {identity} into {self._places.marker}"
        )


def _look(places: Places) -> _Found:
    """Raises OSError."""
    files, filters = frozenset[str](), frozenset[str]()
    is_there = places.directory.is_dir()
    if is_there:
        files = frozenset(name for name in os.listdir(places.directory) if name.endswith(FILE_SUFFIX))
        with contextlib.suppress(FileNotFoundError):
            filters = frozenset(Path(name).stem for name in os.listdir(places.filters))
    return _Found(is_there, _text_of(places.marker), files, filters)


def _text_of(path: Path) -> str | None:
    """What the marker says; None where there is none."""
    try:
        with path.open("rb") as file:
            return file.read(_MARKER_BYTES_MAX).decode(errors="replace").strip()
    except (FileNotFoundError, NotADirectoryError):
        return None


def _write(path: Path, identity: str) -> None:
    with written_whole(path) as file:
        file.write(f"{identity}\n".encode())
