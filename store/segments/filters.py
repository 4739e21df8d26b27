"""Correlation filters: which segments may hold a correlation id, asked before any segment is touched.

One small file for each segment, kept on local disk however far away the segment is: a Bloom filter (bloom.py) over its
correlation ids, 15 to 30 bits an id, at most 0.2% false positives. The file is pages of 4,096 bytes: a header, then
blocks, 127 a page; the last 4 bytes of every page are its CRC-32, little-endian. So asking is one read of one page, which is
what the disk reads anyway, and what was read is known to be what was written: a lost bit would be a log that is never found.

Header: magic `LFCF`, version (2 bytes), nothing (2 bytes), number of blocks (8 bytes), number of ids (8 bytes), little-endian.

A filter that is missing, cut or damaged says "may hold" and is counted. Files are read, not mapped: one that is cut while it
is mapped ends the process. At most `files_open_max` stay open. Any thread may ask; questions take turns.
"""

from __future__ import annotations

import asyncio
import os
import struct
import zlib
from collections import OrderedDict
from collections.abc import Iterable, Sequence
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
_PAGE_BLOCKS: Final = (_PAGE - 4) // BLOCK_BYTES
_MAGIC: Final = b"LFCF"
_VERSION: Final = 1
_HEADER: Final = struct.Struct("<4sHHQQ")
_CRC: Final = struct.Struct("<I")
log = SparingLog(structlog.get_logger(__name__))


class FilterUnreadable(Exception):
    """The filter is not what was written."""


def write_filter(path: Path, correlation_ids: Sequence[pa.Array]) -> None:
    """Write the filter of a segment whose correlation ids are these (arrays of texts, NULLs and repeats allowed).

    Whole or not at all, durable when this returns. Raises OSError.
    """
    blocks = build(correlation_ids, false_positives=_ASKED_OF_PARQUET)
    ids = sum(len(array) - array.null_count for array in correlation_ids)
    with written_whole(path) as file:
        file.write(_page(_HEADER.pack(_MAGIC, _VERSION, 0, len(blocks) // BLOCK_BYTES, ids)))
        step = _PAGE_BLOCKS * BLOCK_BYTES
        for start in range(0, len(blocks), step):
            file.write(_page(blocks[start : start + step]))


def verify_filter(path: Path) -> None:
    """Read all of it. Raises FilterUnreadable or OSError."""
    with path.open("rb") as file:
        blocks = _blocks_of(file.read(_PAGE))
        pages = -(-blocks // _PAGE_BLOCKS)
        for _ in range(pages):
            _checked(file.read(_PAGE))
        if file.read(1):
            raise FilterUnreadable("bytes follow its last page")


class CorrelationFilters:
    """The filters in one directory, named as their segments are."""

    def __init__(self, directory: Path, *, files_open_max: int = 4_096) -> None:
        """files_open_max: descriptors held; more segments than that are opened anew each time (about 15 µs each)."""
        self._directory = directory
        self._files_open_max = files_open_max
        self._open: OrderedDict[str, tuple[int, int]] = OrderedDict()
        """name -> descriptor, blocks; least recently asked first."""
        self._lock = Lock()
        self.unreadable = 0
        """Questions that were answered with "may hold" because a filter could not be read."""

    def may_hold(self, name: str, correlation_id: str) -> bool:
        """False: no row of the segment has this correlation id. May read the disk once or twice."""
        return self._asked(name, hash_of(correlation_id))

    async def candidates(self, names: Iterable[str], correlation_id: str) -> list[str]:
        """Those of the segments that may hold the id, in their order. In a thread: 2,000 files of a cold disk take a while."""
        return await asyncio.to_thread(self._candidates, list(names), correlation_id)

    def path_of(self, name: str) -> Path:
        """Where the filter of a segment lies."""
        return self._directory / f"{name}{SUFFIX}"

    def forget(self, name: str) -> None:
        """The segment is no more: let its file go."""
        with self._lock:
            if opened := self._open.pop(name, None):
                os.close(opened[0])

    def close(self) -> None:
        """Close all files; asking opens them again."""
        with self._lock:
            while self._open:
                os.close(self._open.popitem()[1][0])

    def _candidates(self, names: list[str], correlation_id: str) -> list[str]:
        hash_value = hash_of(correlation_id)
        return [name for name in names if self._asked(name, hash_value)]

    def _asked(self, name: str, hash_value: int) -> bool:
        try:
            with self._lock:
                descriptor, blocks = self._opened(name)
                if blocks == 0:
                    return False
                page, place = divmod(block_of(hash_value, blocks), _PAGE_BLOCKS)
                content = _checked(os.pread(descriptor, _PAGE, (1 + page) * _PAGE))
            start = place * BLOCK_BYTES
            return block_holds(content[start : start + BLOCK_BYTES], hash_value)
        except (OSError, FilterUnreadable) as error:
            self.unreadable += 1
            FILTERS_UNREADABLE.inc()
            log.warning("correlation filter unreadable", error=str(error), segment=name, kind=type(error).__name__)
            return True

    def _opened(self, name: str) -> tuple[int, int]:
        if found := self._open.get(name):
            self._open.move_to_end(name)
            return found
        descriptor = os.open(self.path_of(name), os.O_RDONLY | os.O_CLOEXEC)
        try:
            blocks = _blocks_of(os.pread(descriptor, _PAGE, 0))
        except BaseException:
            os.close(descriptor)
            raise
        self._open[name] = descriptor, blocks
        if len(self._open) > self._files_open_max:
            os.close(self._open.popitem(last=False)[1][0])
        return descriptor, blocks


def _page(content: bytes) -> bytes:
    padded = content.ljust(_PAGE - _CRC.size, b"\0")
    return padded + _CRC.pack(zlib.crc32(padded))


def _checked(page: bytes) -> bytes:
    """Raises FilterUnreadable."""
    if len(page) != _PAGE:
        raise FilterUnreadable("it is cut")
    if _CRC.unpack_from(page, _PAGE - _CRC.size)[0] != zlib.crc32(memoryview(page)[: -_CRC.size]):
        raise FilterUnreadable("a page's checksum is wrong")
    return page


def _blocks_of(header: bytes) -> int:
    """Raises FilterUnreadable."""
    magic, version, _, blocks, _ = _HEADER.unpack_from(_checked(header))
    if magic != _MAGIC or version != _VERSION:
        raise FilterUnreadable(f"it is no correlation filter of version {_VERSION}")
    return int(blocks)
