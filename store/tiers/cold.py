"""Moves files to object storage and back.

A file is cold once its object has been read back, whole, and found to be what was written. Its local file stays for ten minutes
more (collecting.py), its filter for ever. Repeating a move puts the same object again.
"""

from __future__ import annotations

from pathlib import Path

import structlog

from store.disk_room import DiskRoom
from store.objects.files import in_thread
from store.objects.port import ObjectDamaged, ObjectStore
from store.segments.files import UNFINISHED
from store.segments.format import SegmentDamaged, SegmentInfo, SegmentMissing
from store.segments.verification import verify, verify_file
from store.tiers.catalogue import SegmentCatalogue
from store.tiers.installation import Installation, WrongPlace
from store.tiers.metrics import MOVED_BYTES
from store.tiers.places import Places, key_of
from store.tiers.segments import Segment, Tier

log = structlog.get_logger(__name__)

STEP = "cold"


class ObjectFiles:
    """Segments as objects."""

    def __init__(self, places: Places, store: ObjectStore, installation: Installation | None, room: DiskRoom) -> None:
        """places: prepared; objects come there to be read, where there is room. installation: without it nothing is put."""
        self._places = places
        self._store = store
        self._installation = installation
        self._room = room

    async def put(self, segment: Segment) -> None:
        """Store its file, and read the object back. Raises as the store does, WrongPlace, SegmentDamaged, SegmentMissing,
        OSError."""
        if self._installation is None:
            raise WrongPlace
        await self._installation.check_objects()
        path = self._places.file_of(segment.name)
        await in_thread(verify_file, path, segment.info)
        try:
            await self._store.put(key_of(segment), path)
        except FileNotFoundError as error:
            raise SegmentMissing(str(path)) from error
        await self.check(segment)

    async def check(self, segment: Segment, *, every_value: bool = False) -> None:
        """Read the object back. every_value: decode it, too. Raises ObjectMissing, ObjectDamaged, SegmentDamaged, and as the
        store does."""
        temporary = self._places.directory / f"{segment.name}.check{UNFINISHED}"
        try:
            await self.fetch(segment, temporary, to_the_last=True)  # it goes again
            if every_value:
                await in_thread(verify, temporary, segment.info)
        finally:
            await in_thread(temporary.unlink, missing_ok=True)

    async def fetch(self, segment: Segment, path: Path, *, to_the_last: bool = False) -> None:
        """The object as a file, whole or not at all. to_the_last: see DiskRoom. Raises ObjectMissing, ObjectDamaged, DiskFull,
        and as the store does."""
        key, info = key_of(segment), segment.info
        doing = f"fetching {segment.name} from object storage"
        await in_thread(self._room.check, info.bytes, doing, to_the_last=to_the_last)
        fetched = await self._store.get(key, path, bytes_expected=info.bytes)
        if fetched.sha256 != info.sha256:
            await in_thread(path.unlink, missing_ok=True)
            raise ObjectDamaged(key, f"sha256: expected {info.sha256}, got {fetched.sha256}")


class ColdMover:
    """Between the directory of segments and object storage, for whoever has the lease."""

    def __init__(self, catalogue: SegmentCatalogue, places: Places, objects: ObjectFiles) -> None:
        """places: prepared."""
        self._catalogue = catalogue
        self._places = places
        self._objects = objects

    async def freeze(self, segment: Segment) -> bool:
        """Readers get it from object storage. False: it does not serve any more, or is cold already. Raises as
        ObjectFiles.put, StaleEpoch, DatabaseUnavailable."""
        await self._objects.put(segment)
        moved = await self._catalogue.move(segment.name, Tier.COLD)
        if moved:
            MOVED_BYTES.labels(Tier.COLD.value).inc(segment.info.bytes)
            log.info("segment is cold", segment=segment.name, key=key_of(segment), bytes=segment.info.bytes)
        return moved

    async def thaw(self, segment: Segment, *, warm_until_us: int) -> bool:
        """Readers get it from the local disk, at least until then. False: it does not serve any more, or is warm. Raises as
        ObjectFiles.fetch, StaleEpoch, DatabaseUnavailable."""
        path = self._places.file_of(segment.name)
        if not await in_thread(_is_there, path, segment.info):
            await self._objects.fetch(segment, path)
        moved = await self._catalogue.move(segment.name, Tier.WARM, warm_until_us=warm_until_us)
        if moved:
            MOVED_BYTES.labels(Tier.WARM.value).inc(segment.info.bytes)
            log.info("segment is warm again", segment=segment.name, bytes=segment.info.bytes)
        return moved


def _is_there(path: Path, info: SegmentInfo) -> bool:
    """A file that was moved lately may still be here."""
    try:
        verify_file(path, info)
    except (SegmentDamaged, SegmentMissing, OSError):  # fetch it
        return False
    return True
