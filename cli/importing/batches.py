"""Which logs are one request: the same bytes of the file are always the same request.

A region (bytes that the server has not acknowledged) is cut from its start into ranges, each as many logs as fit the limits.
Cutting looks at nothing but the region's bytes, the options and what the state file carries over from before it, so a
resumed import makes the same ranges with the same bodies, and the key of a range stands for its body: the server
stores a range once, however often it is sent. Holds one batch at a time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import msgspec
import orjson
import zstandard

from cli.importing.records import LineSource, Record, read_records
from cli.importing.timeline import Times, moment
from formats.entry import LEVEL_DEFAULT, Entry
from formats.lines import LineParser
from schemas.record import MESSAGE_BYTES_MAX, TRUNCATED_KEY

CUT_VERSION: Final = 1
"""Part of every key. Whatever changes the cutting or the body of the same bytes (formats included) must raise it."""

LOGS_MAX: Final = 5_000
SOURCE_BYTES_MAX: Final = 4 * 1024 * 1024
BODY_BYTES_MAX: Final = 6 * 1024 * 1024
"""Before compression. Escapes and metadata make a body longer than its lines; the server's default limit is 8 MiB."""

_ZSTD_LEVEL: Final = 3
_WRITE: Final = orjson.OPT_NAIVE_UTC | orjson.OPT_UTC_Z | orjson.OPT_APPEND_NEWLINE


class Region(NamedTuple):
    """Bytes start..end-1 of one run. lines_before: lines of the file before start. last_us: the last time a line before start
    said (not shifted). now_us: the moment of the run that first saw these bytes."""

    start: int
    end: int
    lines_before: int
    last_us: int | None
    now_us: int


class Batch(NamedTuple):
    """One request. body: NDJSON, zstd (b"" when the range has no logs). lines: number of the first line of each log.

    lines_before, lines_end: lines of the file before start and before end. last_us: as in Region, before `end`.
    """

    start: int
    end: int
    body: bytes
    lines: list[int]
    lines_before: int
    lines_end: int
    last_us: int | None


class Rules(msgspec.Struct, frozen=True):
    """What makes a log of a line besides its text. metadata: added to each log; a line's own field of that name wins."""

    service: str | None
    metadata: dict[str, str]
    join: bool


def cut(source: LineSource, region: Region, *, parser: LineParser, times: Times, rules: Rules) -> Iterator[Batch]:
    """The batches of a region, in order; together they cover it. The source stands at region.start."""
    open_batch = _OpenBatch(region.start, region.lines_before, region.last_us)
    records = read_records(
        source,
        start=region.start,
        end=region.end,
        lines_before=region.lines_before,
        continues=parser.continues if rules.join else None,
    )
    for record in records:
        if not record.text:
            open_batch.skip(record)
            continue
        entry = parser.parse(record.text)
        time_us = times.place(entry.time_us, last_us=open_batch.last_us, line=record.line)
        log = encode_log(entry, time_us, cut=record.cut, rules=rules)
        if not open_batch.has_room(record, len(log)):
            yield open_batch.close()
            open_batch = _OpenBatch(open_batch.end, open_batch.lines_end, open_batch.last_us)
        open_batch.add(record, log, entry.time_us)
    if open_batch.end > region.start:
        yield open_batch.close()


def encode_log(entry: Entry, time_us: int, *, cut: bool, rules: Rules) -> bytes:
    """One line of NDJSON as the server takes it. About 5 µs."""
    message, metadata = entry.message, entry.metadata
    if len(message) > MESSAGE_BYTES_MAX // 4 and len(encoded := message.encode()) > MESSAGE_BYTES_MAX:
        message, cut = encoded[:MESSAGE_BYTES_MAX].decode(errors="ignore"), True
    if cut:
        metadata = {**metadata, TRUNCATED_KEY: True}
    log: dict[str, Any] = {  # JSON values
        "timestamp": moment(time_us),
        "level": entry.severity or LEVEL_DEFAULT,
        "service_name": entry.service_name or rules.service or "",
        "message": message,
    }
    if entry.correlation_id is not None:
        log["correlation_id"] = entry.correlation_id
    if metadata or rules.metadata:
        log["metadata"] = {**rules.metadata, **metadata}
    return orjson.dumps(log, option=_WRITE)


def key_of(identity: bytes, batch: Batch) -> str:
    """The Idempotency-Key of a range. identity: of the file, the options and the run (`ImportState.identity`)."""
    return hashlib.sha256(identity + b"%d-%d" % (batch.start, batch.end)).hexdigest()


def compress(body: bytes) -> bytes:
    """Zstandard, as the body is sent."""
    return zstandard.ZstdCompressor(level=_ZSTD_LEVEL).compress(body)


def logs_of(batch: Batch) -> list[bytes]:
    """The batch's logs as sent, one JSON object each."""
    if not batch.body:
        return []
    return zstandard.ZstdDecompressor().decompress(batch.body, max_output_size=2 * BODY_BYTES_MAX).splitlines()


class _OpenBatch:
    """A batch that may still get logs."""

    def __init__(self, start: int, lines_before: int, last_us: int | None) -> None:
        self.start = self.end = start
        self.lines_before = self.lines_end = lines_before
        self.last_us = last_us
        self.logs: list[bytes] = []
        self.lines: list[int] = []
        self.body_bytes = 0

    def has_room(self, record: Record, log_bytes: int) -> bool:
        return not self.logs or (
            len(self.logs) < LOGS_MAX
            and record.end - self.start <= SOURCE_BYTES_MAX
            and self.body_bytes + log_bytes <= BODY_BYTES_MAX
        )

    def add(self, record: Record, log: bytes, own_us: int | None) -> None:
        self.logs.append(log)
        self.lines.append(record.line)
        self.body_bytes += len(log)
        self.end, self.lines_end = record.end, record.last_line
        if own_us is not None:
            self.last_us = own_us

    def skip(self, record: Record) -> None:
        self.end, self.lines_end = record.end, record.last_line

    def close(self) -> Batch:
        body = compress(b"".join(self.logs)) if self.logs else b""
        return Batch(self.start, self.end, body, self.lines, self.lines_before, self.lines_end, self.last_us)
