"""Writes rows into segments: files of one retention class and UTC day each, a next one when it is full, each with its filter.

Files end at midnight so that a few old rows do not stretch one over all the time between: every page of that time would have
to ask it. Days that have many small files are merged (store/tiers/merging.py).

Rows come in the order of (timestamp, id) and are gathered into row groups; nothing else is held but the correlation ids of
files under way and the filters of their row groups. A file bears its name once it is whole and durable, its filter before it;
until then, and after any error, it is `<name>.tmp`, removed by `abort` or, after a kill, by `files.remove_unfinished`.
Repeating a write replaces what the first one left.

One thread, no locks; everything that takes time happens in C without the GIL: call it from a thread (asyncio.to_thread).
Measured (bench/segments.py): 1.7 to 2.0 µs of one core a row of 310 bytes, 0.6 of them Parquet, 0.2 content; and 1.5 for
the filters of metadata.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from store.port import Position
from store.segments.content import ContentHash, counts_of, value_bytes
from store.segments.files import fsync_directory, unfinished_path
from store.segments.filters import SUFFIX, texts_of, write_filter
from store.segments.format import SCHEMA, SORTED_BY, RowGroup, SegmentInfo, writer_options
from store.segments.settings import SegmentSettings

Classify = Callable[[pa.RecordBatch], pa.Array]
"""Rows -> the name of each one's retention class (lower-case letters, digits, _): an array of texts, as long as the batch."""

_CLASS_NAME: Final = re.compile(r"[a-z0-9_]{1,40}")
_DAY_US: Final = 86_400_000_000
_PIECES: Final = 8
"""A row group is gathered from pieces of at most so small a part of it, so that it passes its bytes by that."""


@dataclass(frozen=True, slots=True)
class WrittenSegment:
    """A file that is whole, with its filter."""

    retention_class: str
    name: str
    path: Path
    filter_path: Path
    info: SegmentInfo


class SegmentWriter:
    """Segments of one table. `write` batches, then `close`; on any error `abort`."""

    def __init__(
        self,
        directory: Path,
        name: str,
        *,
        settings: SegmentSettings,
        classify: Classify | None = None,
        filter_directory: Path | None = None,
    ) -> None:
        """Files are `<name>-<class>-<number>.parquet` in `directory` (it must exist), filters `<…>.parquet.correlations` in
        filter_directory or beside them. classify: all rows are of the class `default` when left out.
        """
        self._directory = directory
        self._filter_directory = filter_directory or directory
        self._name = name
        self._settings = settings
        self._classify = classify
        self._files: dict[str, _File] = {}
        self._numbers: Counter[str] = Counter()
        self._written: list[WrittenSegment] = []
        self._last: Position | None = None
        self._day: int | None = None

    def write(self, batch: pa.RecordBatch) -> None:
        """Rows of SCHEMA, all of them after the last ones in (timestamp, id). Raises ValueError where they are not; OSError."""
        if not batch.schema.equals(SCHEMA):
            raise ValueError(f"expected rows with the columns of a segment, got {batch.schema}")
        if len(batch) == 0:
            return
        self._check_order(batch)
        for day, rows_of_day in _by_day(batch):
            if day != self._day:
                self._finish_all()
                self._day = day
            for piece in _pieces(rows_of_day, self._settings.row_group_rows, self._settings.row_group_bytes // _PIECES):
                for retention_class, rows in self._split(piece):
                    self._add(retention_class, rows)

    def close(self) -> list[WrittenSegment]:
        """Finish all files; returns every segment of this writer, by class and number. Raises OSError."""
        self._finish_all()
        return sorted(self._written, key=lambda segment: segment.retention_class)

    def abort(self) -> None:
        """Remove all of this writer's files, those that are finished too: nobody knows of them, and of a table that spans a
        year there are hundreds."""
        for file in self._files.values():
            file.abort()
        self._files.clear()
        for segment in self._written:
            for path in (segment.path, segment.filter_path):
                with suppress(OSError):
                    path.unlink(missing_ok=True)
        self._written.clear()

    def _split(self, batch: pa.RecordBatch) -> Iterator[tuple[str, pa.RecordBatch]]:
        if self._classify is None:
            yield "default", batch
            return
        classes = self._classify(batch)
        names = pc.unique(classes).to_pylist()
        if len(names) == 1:
            yield names[0], batch
            return
        for name in names:
            yield name, batch.filter(pc.equal(classes, name))

    def _add(self, retention_class: str, rows: pa.RecordBatch) -> None:
        settings = self._settings
        while len(rows):
            file = self._files.get(retention_class) or self._begin(retention_class)
            room = min(settings.row_group_rows - file.gathered_rows, settings.rows_max - file.rows)
            file.gather(rows.slice(0, room))
            rows = rows.slice(room)
            if file.gathered_rows >= settings.row_group_rows or file.gathered_bytes >= settings.row_group_bytes:
                file.write_row_group()
            if file.rows >= settings.rows_max or file.bytes >= settings.bytes_max:
                self._finish(retention_class)
        if sum(file.gathered_bytes for file in self._files.values()) > settings.gathered_bytes_max:
            max(self._files.values(), key=lambda file: file.gathered_bytes).write_row_group()

    def _begin(self, retention_class: str) -> _File:
        if not _CLASS_NAME.fullmatch(retention_class):
            raise ValueError(f"a retention class must be lower-case letters, digits and _, got {retention_class!r}")
        name = f"{self._name}-{retention_class}-{self._numbers[retention_class]}.parquet"
        self._numbers[retention_class] += 1
        settings = self._settings
        file = _File(self._directory / name, settings.row_group_rows, settings.metadata_filters)
        self._files[retention_class] = file
        return file

    def _finish_all(self) -> None:
        for retention_class in list(self._files):
            self._finish(retention_class)

    def _finish(self, retention_class: str) -> None:
        file = self._files[retention_class]
        filter_path = self._filter_directory / (file.path.name + SUFFIX)
        info = file.finish(filter_path)
        del self._files[retention_class]
        self._written.append(WrittenSegment(retention_class, file.path.name, file.path, filter_path, info))

    def _check_order(self, batch: pa.RecordBatch) -> None:
        """Measured: 0.02 µs a row."""
        times, ids = batch.column(0).cast(pa.int64()), batch.column(1)
        first, last = (times[0].as_py(), ids[0].as_py()), (times[-1].as_py(), ids[-1].as_py())
        is_behind = self._last is not None and first <= self._last
        earlier, later = (times[:-1], ids[:-1]), (times[1:], ids[1:])
        grows = pc.or_(
            pc.less(earlier[0], later[0]),
            pc.and_(pc.equal(earlier[0], later[0]), pc.less(earlier[1], later[1])),
        )
        if is_behind or pc.all(grows, min_count=0).as_py() is False:
            raise ValueError("rows must come in the order of (timestamp, id), each once")
        self._last = last


@dataclass(slots=True)
class _File:
    """One segment under way."""

    path: Path
    row_group_rows: int
    has_metadata_filters: bool
    rows: int = 0
    """Gathered ones included."""
    gathered_rows: int = 0
    gathered_bytes: int = 0
    _gathered: list[pa.RecordBatch] = field(default_factory=list)
    _sink: _Sink | None = None
    _parquet: pq.ParquetWriter | None = None
    _content: ContentHash = field(default_factory=ContentHash)
    _row_groups: list[RowGroup] = field(default_factory=list)
    _services: Counter[str] = field(default_factory=Counter)
    _levels: Counter[int] = field(default_factory=Counter)
    _ids: list[int] = field(default_factory=list)
    _correlations: list[pa.Array] = field(default_factory=list)
    _texts: list[bytes | None] = field(default_factory=list)
    """Filters of the row groups' metadata."""

    @property
    def bytes(self) -> int:
        """Written so far."""
        return 0 if self._sink is None else self._sink.written

    def gather(self, rows: pa.RecordBatch) -> None:
        self._gathered.append(rows)
        self.rows += len(rows)
        self.gathered_rows += len(rows)
        self.gathered_bytes += rows.nbytes

    def write_row_group(self) -> None:
        """Of what is gathered. The order of (timestamp, id) is that of the content; in the file rows lie by service."""
        if not self._gathered:
            return
        rows = pa.concat_batches(self._gathered)
        self._gathered.clear()
        self._content.update(rows)
        services = rows.column("service_name").dictionary_encode()
        ids = pc.min_max(rows.column("id"))
        self._ids += [ids["min"].as_py(), ids["max"].as_py()]
        self._levels.update(counts_of(rows.column("level")))
        for code, count in counts_of(services.indices).items():
            self._services[services.dictionary[code].as_py()] += count
        self._correlations.append(pc.unique(rows.column("correlation_id")).drop_null())
        self._texts.append(texts_of(rows.column("metadata")) if self.has_metadata_filters else None)
        times = rows.column("timestamp").cast(pa.int64())
        self._row_groups.append(RowGroup(len(rows), times[0].as_py(), times[-1].as_py(), value_bytes(rows)))
        self._open().write_table(pa.Table.from_batches([_by_service(rows, services)]), row_group_size=len(rows))
        self.gathered_rows = self.gathered_bytes = 0

    def finish(self, filter_path: Path) -> SegmentInfo:
        """Durable under its name, the filter first."""
        self.write_row_group()
        assert self._sink is not None, "a file begins with its first row"
        assert self._parquet is not None
        self._parquet.close()
        write_filter(filter_path, self._correlations, self._texts)
        self._sink.finish()
        unfinished_path(self.path).rename(self.path)
        fsync_directory(self.path.parent)
        return SegmentInfo(
            rows=self.rows,
            bytes=self._sink.written,
            first_us=self._row_groups[0].first_us,
            last_us=self._row_groups[-1].last_us,
            id_min=min(self._ids),
            id_max=max(self._ids),
            services=dict(sorted(self._services.items())),
            levels=dict(sorted(self._levels.items())),
            row_groups=tuple(self._row_groups),
            content=self._content.hexdigest(),
            sha256=self._sink.sha256.hexdigest(),
        )

    def abort(self) -> None:
        if self._parquet is not None:
            with suppress(Exception):  # it wants to write its footer, and the disk may be full
                self._parquet.close()
        if self._sink is not None:
            self._sink.close()
            with suppress(OSError):
                unfinished_path(self.path).unlink(missing_ok=True)

    def _open(self) -> pq.ParquetWriter:
        if self._parquet is None:
            self._sink = _Sink(unfinished_path(self.path).open("wb"))
            options = writer_options(self.row_group_rows)
            columns = pq.SortingColumn.from_ordering(SCHEMA, list(SORTED_BY))
            self._parquet = pq.ParquetWriter(self._sink, SCHEMA, sorting_columns=columns, **options)
        return self._parquet


class _Sink(io.RawIOBase):
    """A file that knows the checksum of what was written to it."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__()
        self._file = file
        self.sha256 = hashlib.sha256()
        self.written = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:  # Any: whatever has a buffer
        self.sha256.update(data)
        size = self._file.write(data)
        self.written += size
        return size

    def tell(self) -> int:
        return self.written

    def finish(self) -> None:
        """Make it durable."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self.close()

    def close(self) -> None:
        """ParquetWriter does not close what it was given."""
        if not self.closed:
            self._file.close()
        super().close()


def _by_day(batch: pa.RecordBatch) -> Iterator[tuple[int, pa.RecordBatch]]:
    """(UTC day since the epoch, its rows). One day, as nearly always, costs nothing."""
    times = batch.column(0).cast(pa.int64())
    while len(batch):
        day = times[0].as_py() // _DAY_US
        count = len(batch)
        if times[-1].as_py() // _DAY_US != day:
            count = pc.sum(pc.less(times, (day + 1) * _DAY_US)).as_py()
        yield day, batch.slice(0, count)
        batch, times = batch.slice(count), times.slice(count)


def _pieces(batch: pa.RecordBatch, rows_max: int, bytes_max: int) -> Iterator[pa.RecordBatch]:
    """The batch in parts of bounded size; one row may pass it."""
    if len(batch) > 1 and (len(batch) > rows_max or batch.nbytes > bytes_max):
        half = len(batch) // 2
        yield from _pieces(batch.slice(0, half), rows_max, bytes_max)
        yield from _pieces(batch.slice(half), rows_max, bytes_max)
    else:
        yield batch


def _by_service(rows: pa.RecordBatch, services: pa.DictionaryArray) -> pa.RecordBatch:
    """By service_name; those of one service stay in their order. Sorting small integers costs a tenth of sorting texts."""
    if len(services.dictionary) < 2:
        return rows
    places = pc.array_sort_indices(pc.array_sort_indices(services.dictionary))
    return rows.take(pc.array_sort_indices(places.take(services.indices).cast(pa.int32())))
