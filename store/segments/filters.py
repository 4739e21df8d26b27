"""Filters of a segment: may it hold a correlation id, which row groups may hold a text of metadata; no row is read for that.

One small file for each segment, kept on local disk however far away the segment is. A Bloom filter (bloom.py) over its
correlation ids, 15 to 30 bits an id, at most 0.2% false positives; then one for each row group over the texts that stand
between quotes in its metadata (`texts_of`), 8 to 16 bits for each different one, about 2%: whoever looks for a value that few
logs have reads none of the others' row groups. Values are asked for without their names, numbers not at all: what JSON text
says as it stands is the cheapest there is to gather (0.8 µs a row, where reading JSON costs more).

The file is pages of 4,096 bytes, each whole in itself: 127 blocks, magic `LFCF`, version (4 bytes), number of the page (8),
blocks of its filter (8), nothing (4), CRC-32 of all that (4); little-endian. A filter's last page is filled up with zeros. The
last pages are a table, one byte for each filter: 0 for one without a block, else the power of two of its blocks and 1; the
last 8 bytes of its last page say how many. A row group with too many texts has 255 there and no filter: it may hold anything.
Files of version 1 end before the filters of row groups and have no table: there is one page at least, and how many blocks
there are follows from the size of a file of several pages. So asking is one read of one page, which is what the disk reads
anyway, and what was read is known to be what was written: a lost bit would be a log that is never found.

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
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from pathlib import Path
from threading import Lock
from typing import Final, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
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
_VERSION: Final = 2
_FIRST_VERSION: Final = 1
_COUNT: Final = struct.Struct("<Q")
_UNFILTERED: Final = 255
_NOT_KNOWN: Final[tuple[tuple[int, ...], bool]] = ((), False)
_BETWEEN: Final = ',"'
_BETWEEN_SPACED: Final = ', "'
"""What stands between two fields, as JSON is written by most and by Python. A guess by one text: another only costs more."""
_TEXT_FALSE_POSITIVES: Final = 0.02
_TEXT_BYTES_MAX: Final = 128
"""Longer texts are in no filter, and not asked for."""
_TEXTS_MAX: Final = 16
"""Different texts a row of a row group, on average, past which it has no filter: it would cost more than it saves."""
_UNOPENED_PER_THREAD: Final = 100
_THREADS: Final = 4
log = SparingLog(structlog.get_logger(__name__))


T = TypeVar("T")
Skipped = dict[str, tuple[int, ...]]
"""Name of a segment -> numbers of the row groups that hold no match."""
InThread = Callable[[Callable[[], Skipped]], Awaitable[Skipped]]


class FilterUnreadable(Exception):
    """The filter is not what was written."""


@dataclass(frozen=True, slots=True)
class _Section:
    """One filter in a file."""

    first_page: int
    blocks: int | None
    """None: it holds everything."""


def texts_of(metadata: pa.Array) -> bytes | None:
    """The filter over the texts between quotes in a row group's metadata (JSON texts); None: there are too many.

    All pieces between two quotes, so that an escaped one among them leaves none out. Fields that come again, with their names,
    are put aside before they are taken apart, which is half the price; a text that ends like what stands between fields
    loses that (see `is_asked`). Memory: the texts once more.
    """
    has_spaces = len(metadata) > 0 and _BETWEEN_SPACED in str(metadata[0])
    between = _BETWEEN_SPACED if has_spaces else _BETWEEN
    fields = pc.unique(pc.split_pattern(metadata, between).values)
    pieces = pc.unique(pc.split_pattern(fields, '"').values)
    pieces = pieces.filter(pc.less_equal(pc.binary_length(pieces), _TEXT_BYTES_MAX))
    if len(pieces) > _TEXTS_MAX * len(metadata):
        return None
    return build([pieces], false_positives=_TEXT_FALSE_POSITIVES)


def is_asked(text: str) -> bool:
    """Whether filters of row groups know of such a text: it stands in JSON as it is, ends unlike what stands between fields,
    and is not too long."""
    is_as_written = not any(char in '"\\' or char < " " for char in text) and not text.rstrip(" ").endswith(",")
    return is_as_written and len(text.encode()) <= _TEXT_BYTES_MAX


def write_filter(path: Path, correlation_ids: Sequence[pa.Array], metadata: Sequence[bytes | None] = ()) -> None:
    """Write the filters of a segment whose correlation ids are these (arrays of texts, NULLs and repeats allowed), and whose
    row groups have these filters of metadata (`texts_of`), in their order.

    Whole or not at all, durable when this returns. Raises OSError.
    """
    filters = [build(correlation_ids, false_positives=_ASKED_OF_PARQUET), *metadata]
    table = bytes(_UNFILTERED if each is None else (len(each) // BLOCK_BYTES).bit_length() for each in filters)
    number = 0
    with written_whole(path) as file:
        for content in filters:
            blocks = len(content or b"") // BLOCK_BYTES
            for start in range(0, blocks * BLOCK_BYTES, _PLACE):
                file.write(_page((content or b"")[start : start + _PLACE].ljust(_PLACE, b"\0"), number, blocks))
                number += 1
        pages = _table_pages(len(table))
        table = table.ljust(pages * _PLACE - _COUNT.size, b"\0") + _COUNT.pack(len(table))
        for start in range(0, len(table), _PLACE):
            file.write(_page(table[start : start + _PLACE], number, 0))
            number += 1


def verify_filter(path: Path) -> None:
    """Read all of it. Raises FilterUnreadable or OSError."""
    with path.open("rb") as file:
        for section in _sections_of(file.fileno()):
            for number in range(_pages_of(section.blocks or 0)):
                _read(file.fileno(), section.first_page + number, section.blocks or 0)


class CorrelationFilters:
    """The filters in one directory, named as their segments are."""

    def __init__(self, directory: Path, *, files_open_max: int = 4_096) -> None:
        """files_open_max: descriptors held; more segments than that are opened anew each time (20 µs each)."""
        self._directory = directory
        self._files_open_max = files_open_max
        self._open: OrderedDict[str, tuple[int, Sequence[_Section]]] = OrderedDict()
        """name -> descriptor, filters; least recently asked first."""
        self._put_out: list[int] = []
        """Descriptors that may still be read from."""
        self._asking = 0
        self._lock = Lock()
        """Of all the above; never held while a disk works on a page."""
        self.unreadable = 0
        """Questions that were answered with "may hold" because a filter could not be read."""

    def may_hold(self, name: str, correlation_id: str) -> bool:
        """False: no row of the segment has this correlation id. Reads one page."""
        return self._asked(name, partial(_holds, number=0, hash_value=hash_of(correlation_id)), unknown=True)

    def row_groups_without(self, name: str, texts: Iterable[str]) -> tuple[tuple[int, ...], bool]:
        """Row groups of which no row has all these texts (`is_asked` of each) between quotes in its metadata, and whether those
        are all. Reads a page for each row group and text, less where one rules it out."""
        return self._asked(name, partial(_without, hashes=[hash_of(text) for text in texts]), unknown=_NOT_KNOWN)

    async def candidates(
        self,
        names: Iterable[str],
        correlation_id: str | None,
        texts: Iterable[str] = (),
        *,
        in_thread: InThread = asyncio.to_thread,
    ) -> Skipped:
        """Those of the segments that may hold a row with the id, if there is one, and these texts, in their order; with the row
        groups that hold none. In threads: many where files are to be opened first, since a cold disk takes its time for each.
        in_thread: runs work in one; what it raises is raised.
        """
        asked = list(names)
        hash_value = None if correlation_id is None else hash_of(correlation_id)
        hashes = [hash_of(text) for text in texts]
        unopened = len(asked) - sum(name in self._open for name in asked)
        threads = min(_THREADS, 1 + unopened // _UNOPENED_PER_THREAD)
        size = -(-len(asked) // threads)
        parts = [asked[start : start + size] for start in range(0, len(asked), max(1, size))]
        found = await asyncio.gather(
            *(in_thread(partial(self._candidates, part, hash_value, hashes)) for part in parts)
        )
        return {name: skipped for part in found for name, skipped in part.items()}

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

    def _candidates(self, names: Sequence[str], hash_value: int | None, hashes: Sequence[int]) -> Skipped:
        found: Skipped = {}
        for name in names:
            if hash_value is not None and not self._asked(
                name, partial(_holds, number=0, hash_value=hash_value), unknown=True
            ):
                continue
            skipped, is_all = _NOT_KNOWN
            if hashes:
                skipped, is_all = self._asked(name, partial(_without, hashes=hashes), unknown=_NOT_KNOWN)
            if not is_all:
                found[name] = skipped
        return found

    def _asked(self, name: str, ask: Callable[[int, Sequence[_Section]], T], *, unknown: T) -> T:
        """What the segment's filters say; unknown: where they cannot be read."""
        with self._lock:
            self._asking += 1
        try:
            return ask(*self._opened(name))
        except (OSError, FilterUnreadable) as error:
            self.unreadable += 1
            FILTERS_UNREADABLE.inc()
            log.warning("correlation filter unreadable", error=str(error), segment=name, kind=type(error).__name__)
            return unknown
        finally:
            with self._lock:
                self._asking -= 1
                self._close_put_out()

    def _opened(self, name: str) -> tuple[int, Sequence[_Section]]:
        with self._lock:
            if found := self._open.get(name):
                self._open.move_to_end(name)
                return found
        descriptor = os.open(self.path_of(name), os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)
            sections = _sections_of(descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        with self._lock:
            if other := self._open.pop(name, None):  # another thread was as fast
                self._put_out.append(other[0])
            self._open[name] = descriptor, sections
            if len(self._open) > self._files_open_max:
                self._put_out.append(self._open.popitem(last=False)[1][0])
        return descriptor, sections

    def _close_put_out(self) -> None:
        """Under the lock. Not while somebody may be reading: another file could get the descriptor's number."""
        if not self._asking:
            while self._put_out:
                os.close(self._put_out.pop())


def _holds(descriptor: int, sections: Sequence[_Section], *, number: int, hash_value: int) -> bool:
    """Whether the filter of this number may hold the value. Raises FilterUnreadable, OSError."""
    section = sections[number]
    if section.blocks is None:
        return True
    if section.blocks == 0:
        return False
    page, place = divmod(block_of(hash_value, section.blocks), _PAGE_BLOCKS)
    content = _read(descriptor, section.first_page + page, section.blocks)
    return block_holds(content[place * BLOCK_BYTES : (place + 1) * BLOCK_BYTES], hash_value)


def _without(descriptor: int, sections: Sequence[_Section], *, hashes: Sequence[int]) -> tuple[tuple[int, ...], bool]:
    """See row_groups_without. Files of the first version know of no row group. Raises FilterUnreadable, OSError."""
    row_groups = range(len(sections) - 1)
    skipped = tuple(
        number
        for number in row_groups
        if not all(_holds(descriptor, sections, number=number + 1, hash_value=each) for each in hashes)
    )
    return skipped, len(row_groups) > 0 and len(skipped) == len(row_groups)


def _page(content: bytes, number: int, blocks: int) -> bytes:
    page = content + _FOOT.pack(_MAGIC, _VERSION, number, blocks, 0, 0)[:-4]
    return page + struct.pack("<I", zlib.crc32(page))


def _pages_of(blocks: int) -> int:
    return -(-blocks // _PAGE_BLOCKS)


def _table_pages(filters: int) -> int:
    return -(-(filters + _COUNT.size) // _PLACE)


def _sections_of(descriptor: int) -> Sequence[_Section]:
    """The filters in an open file: correlation ids, then row groups. Raises FilterUnreadable, OSError."""
    size = os.fstat(descriptor).st_size
    pages, rest = divmod(size, _PAGE)
    if rest or not pages:
        raise FilterUnreadable(f"filters do not have {size} bytes")
    last = os.pread(descriptor, _PAGE, size - _PAGE)
    if len(last) == _PAGE and _FOOT.unpack_from(last, _PLACE)[1] == _FIRST_VERSION:
        return (_Section(0, _blocks_of(last, pages)),)
    (count,) = _COUNT.unpack_from(_checked(last, pages - 1, 0), _PLACE - _COUNT.size)
    first = pages - _table_pages(count)
    if first < 0:
        raise FilterUnreadable("its table does not fit into it")
    table = b"".join(_read(descriptor, number, 0)[:_PLACE] for number in range(first, pages))[:count]
    blocks = [None if each == _UNFILTERED else (1 << each) >> 1 for each in table]
    starts = [*accumulate((_pages_of(each or 0) for each in blocks), initial=0)]
    if starts[-1] != first or not blocks:
        raise FilterUnreadable(f"filters do not have {size} bytes")
    return tuple(_Section(start, each) for start, each in zip(starts, blocks, strict=False))


def _blocks_of(last: bytes, pages: int) -> int:
    """Blocks of the one filter in a file of the first version. Raises FilterUnreadable."""
    if pages == 1:
        blocks = int(_FOOT.unpack_from(last, _PLACE)[3])
        _checked(last, 0, blocks)
        return blocks
    blocks = 1 << ((pages * _PAGE_BLOCKS).bit_length() - 1)
    if _pages_of(blocks) != pages:
        raise FilterUnreadable(f"a filter does not have {pages} pages")
    return blocks


def _read(descriptor: int, number: int, blocks: int) -> bytes:
    """A page of a file. Raises FilterUnreadable, OSError."""
    return _checked(os.pread(descriptor, _PAGE, number * _PAGE), number, blocks)


def _checked(page: bytes, number: int, blocks: int) -> bytes:
    """Raises FilterUnreadable."""
    if len(page) != _PAGE:
        raise FilterUnreadable("it is cut")
    magic, version, found_number, found_blocks, _, checksum = _FOOT.unpack_from(page, _PLACE)
    if magic != _MAGIC or version not in (_FIRST_VERSION, _VERSION):
        raise FilterUnreadable(f"it is no correlation filter of version {_FIRST_VERSION} or {_VERSION}")
    if checksum != zlib.crc32(memoryview(page)[:-4]):
        raise FilterUnreadable("a page's checksum is wrong")
    if found_number != number or found_blocks != blocks:
        raise FilterUnreadable("a page is not in its place")
    return page
