"""Which files are read on, through rotation. Blocks; one thread.

A file is known by device and inode whatever its name, and stays open while it is written to, so that one that was renamed or
removed is read to its end. A name that leads to another file is a new file. What has another inode and yet the same beginning,
under the name of a rotated one, is a copy (copytruncate) or an archive (gzip): it stands by until the original was truncated or
is gone, and is then read from the place that the original was read to, so that nothing of both is sent twice. What is in a
copy is compared at that place too before it is believed.

A file that became shorter, or has another beginning, was truncated: it begins anew, and what it was is remembered as missing
until a copy of it is found. Only what has no copy is lost, and counted where it can be.

At the first look at a root its archives are left alone. Later ones that nobody knows are read when they were written to
after the last look: the agent was away while they were rotated.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

import structlog

from agent.errors import NoSuchFile, ReadFailed
from agent.metrics import FILES, FILES_LOST, LAG_BYTES, UNREADABLE
from agent.reading.blocks import MAGIC_BYTES, open_stream, packing_of
from agent.roots import Found, Unlisted
from agent.rotation import is_packed, is_rotated
from agent.shipping.checkpoint import Place, State
from agent.shipping.identity import HEAD_BYTES, TAIL_BYTES, fingerprint, head_of, tail_before
from agent.shipping.tailed import ShippedRoot, Tailed

log = structlog.get_logger(__name__)

ENTRIES_MAX: Final = 100_000
"""Names below one root that are looked at."""
_SLEEPS_AFTER_S: Final = 60.0
"""A rotated file that has not grown for so long is closed; it is opened again should it grow."""
_MISSING_US: Final = 600 * 1_000_000
"""How long a copy of a file that is missing is waited for."""
_REMEMBERED_US: Final = 24 * 3600 * 1_000_000
"""How long a file without a name is remembered."""
_WRITTEN_US: Final = 5 * 1_000_000
"""For so long nobody has written to an archive that had no end: it is looked at again."""


class FileSet:
    """All files of the roots."""

    def __init__(self, roots: Sequence[ShippedRoot], state: State, *, files_max: int) -> None:
        """state: what is remembered; its places are kept up to date, and `places` has them all."""
        self._roots = {each.root.name: each for each in roots}
        self._state = state
        self._files_max = files_max
        self._ghosts = max((-place.inode for place in state.places if place.inode < 0), default=0)
        self._told: set[str] = set()
        self._unreadable = 0
        self.files: list[Tailed] = []
        for place in state.places:
            if place.root in self._roots:
                tailed = Tailed(place, self._roots[place.root], is_gone=True)
                self.files.append(tailed)
        # What belongs to roots that the settings name no more is kept: they may come back.
        self._others = [place for place in state.places if place.root not in self._roots]

    def places(self) -> list[Place]:
        """What is to be remembered."""
        # A copy that stands by is found anew, with its original, by whoever begins from these.
        return [*self._others, *(each.place for each in self.files if each.copy_of is None)]

    def scan(self, now_us: int, now_s: float) -> None:
        """Look at all names. now_us: since the Unix epoch; now_s: monotonic."""
        self._unreadable = 0
        for shipped in self._roots.values():
            self._scan(shipped, now_us, now_s)
        self._forget(now_us)
        FILES.set(sum(each.is_read for each in self.files))
        LAG_BYTES.set(sum(each.lag_bytes for each in self.files if each.is_read))
        UNREADABLE.set(self._unreadable)

    def families(self) -> list[list[Tailed]]:
        """Files to read, those of one log together, the oldest first."""
        found: dict[str, list[Tailed]] = {}
        for each in self.files:
            if each.is_read:
                found.setdefault(each.family, []).append(each)
        for members in found.values():
            # The one that has the log's own name is the newest, whatever the clocks of a copy say.
            members.sort(key=lambda each: (not each.is_gone and not is_rotated(each.place.name), each.modified_ns))
        return list(found.values())

    def truncated(self, tailed: Tailed) -> None:
        """Its beginning is another one now: it begins anew, its copies go on from where it was."""
        place = tailed.place
        self._ghosts += 1
        was = Place(**{name: getattr(place, name) for name in Place.__struct_fields__})
        was.device, was.inode = -1, -self._ghosts
        ghost = Tailed(was, tailed.shipped, is_gone=True)
        head = head_of(tailed.descriptor)
        tailed.place = Place(place.root, place.name, place.device, place.inode, len(head), fingerprint(head))
        tailed.parser, tailed.size, tailed.tail_data, tailed.lines_seen = None, 0, b"", 0
        copies = [each for each in self.files if each.copy_of is tailed]
        log.info("a file was truncated", root=place.root, file=place.name, read_bytes=place.offset, copies=len(copies))
        if copies:
            for copy in copies:
                self._go_on(copy, was)
        elif was.offset:
            self.files.append(ghost)

    def done(self, tailed: Tailed, now_us: int) -> None:
        """Nothing more is read of it."""
        place = tailed.place
        place.is_done, place.is_cut = True, tailed.is_broken
        if tailed.is_broken:
            tailed.size = os.fstat(tailed.descriptor).st_size
        tailed.close()
        if tailed.is_gone:
            place.gone_us = now_us
        for copy in [each for each in self.files if each.copy_of is tailed]:
            self._go_on(copy, place)

    def sleep(self, tailed: Tailed, now_s: float) -> None:
        """Close one that was rotated and is quiet; a look finds it again when it grows."""
        if is_rotated(tailed.place.name) and not tailed.is_gone and now_s - tailed.grown_s > _SLEEPS_AFTER_S:
            tailed.close()
            tailed.is_asleep = True

    def close(self) -> None:
        """All files."""
        for each in self.files:
            each.close()

    def _scan(self, shipped: ShippedRoot, now_us: int, now_s: float) -> None:
        root = shipped.root
        seen: dict[tuple[int, int], Found] = {}
        unseen: list[str] = []
        """Folders whose files may be there or not."""
        for found in root.walk(entries_max=ENTRIES_MAX):
            if isinstance(found, Unlisted):
                self._tell("a folder cannot be looked at", found.text)
                if found.below is not None:
                    unseen.append(found.below)
            elif (found.device, found.inode) not in seen or not found.is_link:
                seen[found.device, found.inode] = found
        for tailed in [each for each in self.files if each.shipped is shipped]:
            identity = (tailed.place.device, tailed.place.inode)
            known = seen.get(identity)
            if known is not None:
                if self._seen(tailed, known, now_us, now_s):
                    del seen[identity]
            elif not tailed.is_gone and not tailed.place.name.startswith(tuple(unseen)):
                tailed.is_gone = True
                if tailed.is_asleep:
                    self.done(tailed, now_us)
                elif tailed.place.is_done:
                    tailed.place.gone_us = now_us
        if seen:
            # What a new file is a copy of must be known as it is now.
            for tailed in [each for each in self.files if each.shipped is shipped and each.is_read]:
                if tailed.place.packing is None:
                    with suppress(OSError):  # reading it will say so
                        self._look_again(tailed)
        looked_us = self._state.looked_us.get(root.name)
        if looked_us is not None:
            looked_us = min(looked_us, now_us)  # a clock that was set back says nothing of what came since
        for found in sorted(seen.values(), key=lambda each: each.modified_ns):
            if sum(each.descriptor >= 0 for each in self.files) >= self._files_max:
                self._tell("more files than agent.files_max", f"{root.name}/{found.name}")
                break
            try:
                self._admit(shipped, found, looked_us, now_s)
            except (NoSuchFile, OSError):  # gone or changed meanwhile: the next look sees what it is
                if (reason := root.why_not(found.name)) is not None:
                    self._unreadable += 1
                    self._tell("a file cannot be opened", f"{root.name}/{found.name}: {reason}")
        self._state.looked_us[root.name] = now_us

    def _look_again(self, tailed: Tailed) -> None:
        """At an open plain file: whether it was truncated, and by what it is known. Raises OSError."""
        if not is_same(tailed, os.fstat(tailed.descriptor).st_size):
            self.truncated(tailed)
        elif tailed.place.head_bytes < HEAD_BYTES:
            head = head_of(tailed.descriptor)
            tailed.place.head, tailed.place.head_bytes = fingerprint(head), len(head)

    def _seen(self, tailed: Tailed, found: Found, now_us: int, now_s: float) -> bool:
        """Under which name it is now. False: device and inode are those of another file by now."""
        place = tailed.place
        has_changed = (found.bytes, found.modified_ns) != (tailed.size, tailed.modified_ns)
        tailed.listed_bytes = found.bytes
        is_written = place.is_cut and now_us - found.modified_ns // 1000 < _WRITTEN_US
        if tailed.descriptor < 0 and has_changed and not is_written:
            try:
                descriptor = tailed.shipped.root.open(found.name)
            except NoSuchFile:
                return True  # gone or changed meanwhile: the next look sees what it is
            try:
                info = os.fstat(descriptor)
                if (info.st_dev, info.st_ino) != (place.device, place.inode):
                    os.close(descriptor)
                    return True
                if not _is_still(place, descriptor, info.st_size):
                    os.close(descriptor)
                    self._is_another(tailed, now_us)
                    return False
            except (OSError, ReadFailed):
                os.close(descriptor)
                return True
            may_go_on = place.is_cut if place.packing is not None else info.st_size > place.offset
            if place.is_done and not may_go_on:
                os.close(descriptor)
            else:
                place.is_done = place.is_cut = tailed.is_asleep = False
                tailed.descriptor, tailed.grown_s, tailed.tail_data = descriptor, now_s, None
            tailed.size = info.st_size
        place.name = found.name
        if not is_written:
            tailed.modified_ns = found.modified_ns
        tailed.is_gone, place.gone_us = False, None
        return True

    def _is_another(self, tailed: Tailed, now_us: int) -> None:
        """The file of this place is gone, and what has its inode is a new one."""
        place = tailed.place
        if not place.offset:
            self.files.remove(tailed)
            return
        self._ghosts += 1
        place.device, place.inode, place.gone_us = -1, -self._ghosts, now_us
        tailed.is_gone, tailed.is_asleep = True, False

    def _admit(self, shipped: ShippedRoot, found: Found, looked_us: int | None, now_s: float) -> None:
        descriptor = shipped.root.open(found.name)
        place = Place(shipped.root.name, found.name, found.device, found.inode)
        tailed = Tailed(place, shipped, descriptor, modified_ns=found.modified_ns, grown_s=now_s)
        tailed.listed_bytes = found.bytes
        try:
            info = os.fstat(descriptor)
            if (info.st_dev, info.st_ino) != (found.device, found.inode):
                raise NoSuchFile
            if info.st_size < MAGIC_BYTES and is_packed(found.name):
                tailed.close()
                return  # it is begun, and what it is cannot be seen yet
            place.packing = packing_of(descriptor)
            head = _head(descriptor, place.packing)
        except (OSError, NoSuchFile):
            tailed.close()
            raise
        except ReadFailed:  # it may still be written
            tailed.close()
            return
        place.head, place.head_bytes = fingerprint(head), len(head)
        self.files.append(tailed)
        original = self._original(tailed, head) if is_rotated(found.name) else None
        if original is not None:
            place.head, place.head_bytes = original.place.head, original.place.head_bytes
            if original.is_missing or original.place.is_done:
                self._go_on(tailed, original.place)
                if original.is_missing:
                    self.files.remove(original)
            else:
                tailed.copy_of = original
        elif place.packing is not None and (looked_us is None or found.modified_ns // 1000 < looked_us - 1_000_000):
            place.is_done = True
            tailed.close()
        elif looked_us is None and shipped.begin_at_end:
            place.offset = info.st_size
            place.is_skipping = place.offset > 0 and os.pread(descriptor, 1, place.offset - 1) != b"\n"
            remember(tailed, b"", 0)

    def _original(self, tailed: Tailed, head: bytes) -> Tailed | None:
        """What this one has the beginning of, in its own log; the one that was read furthest."""
        found = [
            each
            for each in self.files
            if each is not tailed
            and each.shipped is tailed.shipped
            and each.copy_of is None
            and each.place.head_bytes
            and each.family == tailed.family
            and fingerprint(head[: each.place.head_bytes]) == each.place.head
        ]
        return max(found, key=lambda each: each.place.offset, default=None)

    def _go_on(self, copy: Tailed, original: Place) -> None:
        """Read a copy from where the original was read to, if it is one at that place too."""
        copy.copy_of = None
        place = copy.place
        place.offset, place.tail, place.is_skipping = original.offset, original.tail, original.is_skipping
        place.head, place.head_bytes, place.last_us = original.head, original.head_bytes, original.last_us
        if place.packing is None and copy.descriptor >= 0 and not is_same(copy, os.fstat(copy.descriptor).st_size):
            log.warning("no copy of the file that it seemed to be: read from its beginning", file=place.name)
            place.offset, place.tail, place.is_skipping, place.head, place.head_bytes = 0, "", False, "", 0

    def _forget(self, now_us: int) -> None:
        kept: list[Tailed] = []
        for each in self.files:
            place = each.place
            if each.is_missing:
                # Since its agent's start, or since it was truncated: it is not there to be asked.
                place.gone_us = place.gone_us or now_us
                if now_us - place.gone_us > _MISSING_US:
                    log.warning("a file is gone before its end was seen", root=place.root, file=place.name)
                    FILES_LOST.inc()
                    place.is_done = True
            if each.is_gone and place.is_done and each.shipped.is_ready:
                continue
            if each.is_gone and place.is_done and place.gone_us is not None and now_us - place.gone_us > _REMEMBERED_US:
                continue
            kept.append(each)
        self.files = kept

    def _tell(self, event: str, what: str) -> None:
        """Once for each."""
        if (told := f"{event}: {what}") not in self._told and len(self._told) < 1_000:
            self._told.add(told)
            log.warning(event, what=what)


def is_same(tailed: Tailed, size: int) -> bool:
    """Whether an open plain file is still the one that was read to its place: beginning and the KiB before it. Raises
    OSError."""
    return _is_same(tailed.place, tailed.descriptor, size)


def _is_still(place: Place, descriptor: int, size: int) -> bool:
    """Whether a file that was opened again is the one that was read. Raises OSError, ReadFailed."""
    if packing_of(descriptor) != place.packing or not place.head_bytes:
        return False  # of a file that was empty nothing is known but numbers, which are given anew
    if place.packing is not None:
        return fingerprint(_head(descriptor, place.packing)[: place.head_bytes]) == place.head
    return _is_same(place, descriptor, size)


def _is_same(place: Place, descriptor: int, size: int) -> bool:
    if size < place.offset or fingerprint(head_of(descriptor, place.head_bytes)) != place.head:
        return False
    return not place.tail or fingerprint(tail_before(descriptor, place.offset)) == place.tail


def remember(tailed: Tailed, piece: bytes, taken: int) -> None:
    """Move the place behind what was taken of a piece that begins there, and take down what the file is known by then:
    from what was read, since the file may be another one by now. Raises OSError."""
    place = tailed.place
    before = tail_before(tailed.descriptor, place.offset) if tailed.tail_data is None else tailed.tail_data
    if place.head_bytes < HEAD_BYTES:
        head = (before + piece)[:HEAD_BYTES] if place.offset <= len(before) else head_of(tailed.descriptor)
        place.head, place.head_bytes = fingerprint(head), len(head)
    place.offset += taken
    tailed.tail_data = (
        (before + piece[:taken])[-TAIL_BYTES:] if taken < TAIL_BYTES else piece[taken - TAIL_BYTES : taken]
    )
    place.tail = fingerprint(tailed.tail_data)


def _head(descriptor: int, packing: str | None) -> bytes:
    if packing is None:
        return head_of(descriptor)
    stream = open_stream(descriptor, packing)
    head = b""
    while len(head) < HEAD_BYTES and (piece := stream.read(HEAD_BYTES - len(head))):
        head += piece
    return head
