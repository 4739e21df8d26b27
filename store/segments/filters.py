"""Correlation filters: which segments may hold a correlation id, asked before any segment is touched.

One small file for each segment, kept on local disk however far away the segment is: a Bloom filter (bloom.py) over its
correlation ids, 15 to 30 bits an id, at most 0.2% false positives. The file is pages of 4,096 bytes, each whole in itself: 127
blocks, magic `LFCF`, version (4 bytes), number of the page (8), blocks of the whole filter (8), nothing (4), CRC-32 of all that
(4); little-endian. The last page is filled up with zeros; without ids there is one page and no block. How many blocks there are
follows from the size of a file of several pages, since it is a power of two. So asking is one read of one page, which is what
the disk reads anyway, and what was read is known to be what was written: a lost bit would be a log that is never found.

A filter that is missing, cut or damaged says "may hold" and is counted. Files are read, not mapped: one that is cut while it
is mapped ends the process. At most `files_open_max` stay open, and those that were just put out while somebody asks. Any thread
may ask.
"""

from __future__ import annotations

import asyncio
import os
import struct
import zlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Final

import pyarrow as pa
import structlog

from runtime.sparing import SparingLog
from store.segments.bloom import BLOCK_BYTES, block_holds, block_of, build, hash_of
from store.segments.files import written_whole
from store.segments.metrics import FILTERS_UNREADABLE

FALSE_POSITIVES: Final = 0.002
"""Of ids that are not there, at most."""
SUFFIX: Final = ".correlations"

_ASKED_OF_PARQUET: Final = 0.0008
"""Its formula is that of a filter that is not split into blocks: asked for 0.2%, it gave 0.26%."""
_PAGE: Final = 4_096
_PAGE_BLOCKS: Final = 127
_PLACE: Final = _PAGE_BLOCKS * BLOCK_BYTES
_FOOT: Final = struct.Struct("<4sIQQII")
_MAGIC: Final = b"LFCF"
_VERSION: Final = 1
_UNOPENED_PER_THREAD: Final = 100
_THREADS: Final = 4
log = SparingLog(structlog.get_logger(__name__))


InThread = Callable[[Callable[[], list[str]]], Awaitable[list[str]]]


class FilterUnreadable(Exception):
    """The filter is not what was written."""


def write_filter(path: Path, correlation_ids: Sequence[pa.Array]) -> None:
    """Write the filter of a segment whose correlation ids are these (arrays of texts, NULLs and repeats allowed).

    Whole or not at all, durable when this returns. Raises OSError.
    """
    content = build(correlation_ids, false_positives=_ASKED_OF_PARQUET)
    blocks = len(content) // BLOCK_BYTES
    with written_whole(path) as file:
        for number in range(_pages_of(blocks)):
            page = content[number * _PLACE : (number + 1) * _PLACE].ljust(_PLACE, b"\0")
            page += _FOOT.pack(_MAGIC, _VERSION, number, blocks, 0, 0)[:-4]
            file.write(page + struct.pack("<I", zlib.crc32(page)))


def verify_filter(path: Path) -> None:
    """Read all of it. Raises FilterUnreadable or OSError."""
    with path.open("rb") as file:
        blocks = _blocks_of(file.fileno())
        for number in range(_pages_of(blocks)):
            _checked(file.read(_PAGE), number, blocks)


class CorrelationFilters:
    """The filters in one directory, named as their segments are."""

    def __init__(self, directory: Path, *, files_open_max: int = 4_096) -> None:
        """files_open_max: descriptors held; more segments than that are opened anew each time (20 µs each)."""
        self._directory = directory
        self._files_open_max = files_open_max
        self._open: OrderedDict[str, tuple[int, int]] = OrderedDict()
        """name -> descriptor, blocks; least recently asked first."""
        self._put_out: list[int] = []
        """Descriptors that may still be read from."""
        self._asking = 0
        self._lock = Lock()
        """Of all the above; never held while a disk works on a page."""
        self.unreadable = 0
        """Questions that were answered with "may hold" because a filter could not be read."""

    def may_hold(self, name: str, correlation_id: str) -> bool:
        """False: no row of the segment has this correlation id. Reads one page."""
        return self._asked(name, hash_of(correlation_id))

    async def candidates(
        self, names: Iterable[str], correlation_id: str, *, in_thread: InThread = asyncio.to_thread
    ) -> list[str]:
        """Those of the segments that may hold the id, in their order. In threads: many where files are to be opened first,
        since a cold disk takes its time for each. in_thread: runs work in one; what it raises is raised.
        """
        asked = list(names)
        hash_value = hash_of(correlation_id)
        unopened = len(asked) - sum(name in self._open for name in asked)
        threads = min(_THREADS, 1 + unopened // _UNOPENED_PER_THREAD)
        size = -(-len(asked) // threads)
        parts = [asked[start : start + size] for start in range(0, len(asked), max(1, size))]
        found = await asyncio.gather(*(in_thread(partial(self._candidates, part, hash_value)) for part in parts))
        return [name for part in found for name in part]

    def path_of(self, name: str) -> Path:
        """Where the filter of a segment lies."""
        return self._directory / f"{name}{SUFFIX}"

    def forget(self, name: str) -> None:
        """The segment is no more: let its file go."""
        with self._lock:
            if opened := self._open.pop(name, None):
                self._put_out.append(opened[0])
            self._close_put_out()

    def close(self) -> None:
        """Close all files; asking opens them again."""
        with self._lock:
            self._put_out += [descriptor for descriptor, _ in self._open.values()]
            self._open.clear()
            self._close_put_out()

    def _candidates(self, names: Sequence[str], hash_value: int) -> list[str]:
        return [name for name in names if self._asked(name, hash_value)]

    def _asked(self, name: str, hash_value: int) -> bool:
        with self._lock:
            self._asking += 1
        try:
            descriptor, blocks = self._opened(name)
            if blocks == 0:
                return False
            number, place = divmod(block_of(hash_value, blocks), _PAGE_BLOCKS)
            page = _checked(os.pread(descriptor, _PAGE, number * _PAGE), number, blocks)
            return block_holds(page[place * BLOCK_BYTES : (place + 1) * BLOCK_BYTES], hash_value)
        except (OSError, FilterUnreadable) as error:
            self.unreadable += 1
            FILTERS_UNREADABLE.inc()
            log.warning("correlation filter unreadable", error=str(error), segment=name, kind=type(error).__name__)
            return True
        finally:
            with self._lock:
                self._asking -= 1
                self._close_put_out()

    def _opened(self, name: str) -> tuple[int, int]:
        with self._lock:
            if found := self._open.get(name):
                self._open.move_to_end(name)
                return found
        descriptor = os.open(self.path_of(name), os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)
            blocks = _blocks_of(descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        with self._lock:
            if other := self._open.pop(name, None):  # another thread was as fast
                self._put_out.append(other[0])
            self._open[name] = descriptor, blocks
            if len(self._open) > self._files_open_max:
                self._put_out.append(self._open.popitem(last=False)[1][0])
        return descriptor, blocks

    def _close_put_out(self) -> None:
        """Under the lock. Not while somebody may be reading: another file could get the descriptor's number."""
        if not self._asking:
            while self._put_out:
                os.close(self._put_out.pop())


def _pages_of(blocks: int) -> int:
    return max(1, -(-blocks // _PAGE_BLOCKS))


def _blocks_of(descriptor: int) -> int:
    """Blocks of the filter in an open file. Raises FilterUnreadable, OSError."""
    size = os.fstat(descriptor).st_size
    pages, rest = divmod(size, _PAGE)
    if pages == 1 and not rest:
        page = os.pread(descriptor, _PAGE, 0)
        blocks = _FOOT.unpack_from(page, _PLACE)[3] if len(page) == _PAGE else 0
        _checked(page, 0, blocks)
        return int(blocks)
    blocks = 1 << ((pages * _PAGE_BLOCKS).bit_length() - 1) if pages else 0
    if rest or not pages or _pages_of(blocks) != pages:
        raise FilterUnreadable(f"a filter does not have {size} bytes")
    return blocks


def _checked(page: bytes, number: int, blocks: int) -> bytes:
    """Raises FilterUnreadable."""
    if len(page) != _PAGE:
        raise FilterUnreadable("it is cut")
    magic, version, found_number, found_blocks, _, checksum = _FOOT.unpack_from(page, _PLACE)
    if magic != _MAGIC or version != _VERSION:
        raise FilterUnreadable(f"it is no correlation filter of version {_VERSION}")
    if checksum != zlib.crc32(memoryview(page)[:-4]):
        raise FilterUnreadable("a page's checksum is wrong")
    if found_number != number or found_blocks != blocks:
        raise FilterUnreadable("a page is not in its place")
    return page
