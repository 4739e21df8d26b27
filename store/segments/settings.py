"""Settings of segments: how large files and row groups are, and what readers may use."""

from __future__ import annotations

from pydantic import Field

from runtime.settings import Section

_MIB = 1024 * 1024


class SegmentSettings(Section):
    """How segments are written and read."""

    rows_max: int = Field(default=2_097_152, ge=1, le=100_000_000)
    """Most rows of one file. Its correlation ids are held in memory while it is written (about 40 bytes a row, twice when it
    is closed)."""
    bytes_max: int = Field(default=256 * _MIB, ge=_MIB, le=16_384 * _MIB)
    """Bytes of a file after which the next one begins; a file passes it by one row group at most."""
    row_group_rows: int = Field(default=196_608, ge=1_024, le=4_194_304)
    """Rows of a row group: what a page reads at least. Larger ones make a page of files dearer as they grow; they save disk
    where the same lines come again and again (docs/performance.md)."""
    row_group_bytes: int = Field(default=96 * _MIB, ge=_MIB, le=1_024 * _MIB)
    """Bytes of values of a row group, about, where rows are large. Readers hold one row group at least."""
    gathered_bytes_max: int = Field(default=256 * _MIB, ge=_MIB, le=16_384 * _MIB)
    """Bytes of values that one writer gathers for all retention classes together; past it the largest class writes a row group
    early."""
    readers: int = Field(default=2, ge=1, le=64)
    """Reader processes of each process that answers questions. Each works on one scan at a time; with two, a search that is
    long in one row group keeps nobody out. They hold at most readers * (2 * reader_memory_mib + 256) MiB: 1.5 GiB."""
    reader_threads: int = Field(default=2, ge=1, le=64)
    """Threads of one reader process."""
    reader_memory_mib: int = Field(default=256, ge=128, le=65_536)
    """Memory that a reader may use for a scan, in MiB. The process is ended when it holds twice as much and 256 MiB."""
    scans_waiting_max: int = Field(default=64, ge=0, le=10_000)
    """Scans that may wait for a reader; further ones are refused at once."""
    metadata_filters: bool = True
    """Keep filters of the texts in metadata beside each file, so that a search for a value that few logs have reads no row
    group without it. They take 1 to 2 bytes a row on the local disk and 1.5 µs of one core a row to make. Files that were
    written without are searched whole."""
    filters_open_max: int = Field(default=4_096, ge=16, le=1_000_000)
    """Correlation filters kept open: one file descriptor for each segment that was asked for lately."""
