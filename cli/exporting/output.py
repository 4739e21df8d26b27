"""Where the logs of an export go: text into a file or a pipe, plain or compressed, or a Parquet file.

A text can be settled: all of it is in the file, durable, and what comes next can be appended by another process. So compressed
text is settled by ending its gzip member or zstd frame, and a file of several is one to every reader. A Parquet file cannot:
what makes it a file comes last.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Sequence
from contextlib import suppress
from enum import StrEnum
from typing import TYPE_CHECKING, BinaryIO, Final, Protocol

import zstandard

from schemas.export_lines import Lines, PageLog, csv_header, csv_records, ndjson

if TYPE_CHECKING:
    from store.export_file import ParquetExport

_GZIP: Final = 16 + zlib.MAX_WBITS
_GZIP_LEVEL: Final = 4
_ZSTD_LEVEL: Final = 3


class Format(StrEnum):
    """What is written."""

    NDJSON = "ndjson"
    CSV = "csv"
    PARQUET = "parquet"


class Compression(StrEnum):
    """How text is compressed; Parquet is by itself."""

    NONE = "none"
    GZIP = "gzip"
    ZSTD = "zstd"


class Output(Protocol):
    """One output. Methods may raise OSError."""

    def add(self, logs: Sequence[PageLog]) -> None:
        """Further logs."""

    def settle(self) -> int | None:
        """Make what came so far durable; its bytes, after which another output may go on. None: there is no going on."""

    def finish(self) -> None:
        """The end: nothing is missing after it."""

    def abandon(self) -> None:
        """Nothing more comes, and what is not settled is lost."""

    @property
    def written(self) -> int:
        """Bytes so far, about."""


def open_output(file: BinaryIO, format: Format, compression: Compression, *, written: int) -> Output:
    """file: stands where to go on; the caller closes it. written: bytes that are there already, 0 at the beginning."""
    match format:
        case Format.PARQUET:
            return _Parquet(file)
        case Format.CSV:
            return _Text(file, csv_records, compression, written=written, header=b"" if written else csv_header())
        case Format.NDJSON:
            return _Text(file, ndjson, compression, written=written, header=b"")


class _Compressor(Protocol):
    """As zlib and zstandard have it."""

    def compress(self, data: bytes, /) -> bytes: ...

    def flush(self) -> bytes: ...


class _Text:
    def __init__(self, file: BinaryIO, lines: Lines, compression: Compression, *, written: int, header: bytes) -> None:
        self._file, self._lines, self._compression = file, lines, compression
        self._compressor: _Compressor | None = None
        self._written = written
        self._put(header)

    @property
    def written(self) -> int:
        return self._written

    def add(self, logs: Sequence[PageLog]) -> None:
        self._put(self._lines(logs))

    def settle(self) -> int | None:
        if self._compressor is not None:
            self._write(self._compressor.flush())
            self._compressor = None
        self._file.flush()
        if self._file.seekable():
            os.fsync(self._file.fileno())
        return self._written

    def finish(self) -> None:
        if self._written == 0 and self._compression is not Compression.NONE and self._compressor is None:
            self._compressor = self._new_compressor()  # no logs: still a file of its kind
        self.settle()

    def abandon(self) -> None:
        self._compressor = None

    def _put(self, text: bytes) -> None:
        if not text:
            return
        if self._compression is Compression.NONE:
            self._write(text)
            return
        self._compressor = self._compressor or self._new_compressor()
        self._write(self._compressor.compress(text))

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self._written += len(data)

    def _new_compressor(self) -> _Compressor:
        if self._compression is Compression.GZIP:
            return zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, _GZIP)
        return zstandard.ZstdCompressor(level=_ZSTD_LEVEL).compressobj()


class _Counting:
    """A file that pyarrow may write to, and that counts; pyarrow must not close it."""

    closed = False

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.written = 0
        self.is_abandoned = False

    def write(self, data: bytes) -> int:
        if not self.is_abandoned:
            self._file.write(data)
            self.written += len(data)
        return len(data)

    def tell(self) -> int:
        return self.written

    def flush(self) -> None:
        self._file.flush()

    def writable(self) -> bool:
        return True

    def readable(self) -> bool:
        return False

    def seekable(self) -> bool:
        return False

    def close(self) -> None:
        """The caller does."""


class _Parquet:
    def __init__(self, file: BinaryIO) -> None:
        from store.export_file import ParquetExport

        self._file = file
        self._counting = _Counting(file)
        self._export: ParquetExport = ParquetExport(self._counting)  # type: ignore[arg-type]  # all that is asked of it

    @property
    def written(self) -> int:
        return self._counting.written

    def add(self, logs: Sequence[PageLog]) -> None:
        self._export.add(logs, [bytes(log.metadata).decode() for log in logs])

    def settle(self) -> int | None:
        return None

    def abandon(self) -> None:
        self._counting.is_abandoned = (
            True  # pyarrow's writer writes a footer whatever happens, at the latest when it is freed
        )
        with suppress(Exception):  # whatever pyarrow says of a file that could not be written before: it is given up
            self._export.close()

    def finish(self) -> None:
        self._export.close()
        self._file.flush()
        if self._file.seekable():
            os.fsync(self._file.fileno())
