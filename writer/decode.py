"""From a delivered record to rows and counts. Pure; the only place that judges what a frame holds.

A line that cannot be stored becomes a dead letter, never an exception; a record of an unknown version is an exception,
because a newer program could read it (the partition waits for the upgrade).

Every log the headers count as kept is booked exactly once under the service the headers name: a line that cannot be read
is booked under a service whose count is still open, so that the ledger adds up per service (INV-1).

A line ends with a line feed and holds one log; blank ones hold none. So a log's text is always that of its line, whatever
another program wrote into the topic: several logs on a line, or one on several, cannot be read.

A frame that contradicts its own headers is not trusted, but its lines are put aside one by one, so that each can be replayed
or dropped. Lines beyond what the headers count raise what was received; what they count and the frame lacks is dead
without a line. Only a record that cannot be read as a frame at all is one letter, which nobody can replay.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Final

import msgspec

from broker.port import Delivered
from schemas.frames import (
    FrameError,
    FrameHeader,
    ServiceCounts,
    UnknownRecordVersion,
    decode_each,
    decode_headers,
    decode_line,
    decompress,
)
from schemas.ids import ID_MAX
from schemas.levels import SEVERITY_MAX
from schemas.lines import (
    FUTURE_US_MAX,
    LINES_MAX,
    RECEIVED_MS_APART_MAX,
    are_storable,
    line_problem,
    split_lines,
)
from schemas.record import LogLine
from store.port import MISMATCH, MISSING, NO_FRAME, DeadLetter, EncodedRow
from store.rows import encode_rows

MINUTE_US: Final = 60_000_000
_DETAIL_CHARS_MAX: Final = 500
_BANDS: Final = (0, *(((level - 1) & ~3) + 1 for level in range(1, SEVERITY_MAX + 1)))
"""Severity -> the first one of its band."""


@dataclass(slots=True)
class DecodedFrame:
    """One frame, ready to be planned. `rows[i]` came from line `line_indexes[i]` and is booked under `bookings[i]`."""

    partition: int
    offset: int
    append_ms: int
    frame_id: bytes
    key_hash: bytes | None
    body_sha256: bytes | None
    minute_us: int
    counts: dict[str, ServiceCounts]
    rows: list[EncodedRow]
    line_indexes: Sequence[int]
    bookings: list[tuple[str, int]]
    """(service, severity of the level's band) of each row."""
    dead: list[DeadLetter]
    dead_counts: dict[str, dict[str, int]]
    """reason -> service -> logs, of `dead`; a letter of a whole record, or of missing logs, stands for many."""
    ndjson: bytes
    traceparent: str | None = None
    """Of the span that published it, where its trace is kept."""


def decode_frame(record: Delivered) -> DecodedFrame:
    """Decode one record. Raises UnknownRecordVersion; everything else that is wrong becomes dead letters."""
    try:
        header = decode_headers(record.headers)
    except UnknownRecordVersion:
        raise
    except FrameError as error:
        return _unreadable(record, _header_of_unreadable(record), str(error))
    try:
        ndjson = decompress(record.value)
        raw = split_lines(ndjson)
        if len(raw) > LINES_MAX:
            raise FrameError(f"frame holds more than {LINES_MAX} lines, which is as many as are read")
    except FrameError as error:
        return _unreadable(record, _in_time(header, record), str(error))
    lines, indexes, undecodable = _decode(raw)
    if abs(header.received_ms - record.append_ms) > RECEIVED_MS_APART_MAX:
        detail = f"received at {header.received_ms} (Unix ms), appended at {record.append_ms}: more than a day apart"
        return _put_aside(record, _in_time(header, record), ndjson, lines, indexes, undecodable, detail)
    counted, found = _kept(header).total(), len(lines) + len(undecodable)
    if counted != found:
        detail = f"headers count {counted} kept logs, {found} are there"
        return _put_aside(record, header, ndjson, lines, indexes, undecodable, detail)
    return _book(record, header, ndjson, lines, indexes, undecodable)


def without_rows(frame: DecodedFrame, refused: dict[int, str]) -> DecodedFrame:
    """The frame with some rows (index in `rows` -> the database's error) turned into dead letters."""
    raw = split_lines(frame.ndjson)
    dead = list(frame.dead)
    dead_counts = {reason: dict(services) for reason, services in frame.dead_counts.items()}
    for index, detail in refused.items():
        service = frame.bookings[index][0]
        line_index = frame.line_indexes[index]
        dead.append(
            _dead_letter(frame, line_index, "refused", detail, service, raw[line_index], log_id=frame.rows[index].id)
        )
        _count(dead_counts, "refused", service, 1)
    keep = [index for index in range(len(frame.rows)) if index not in refused]
    return replace(
        frame,
        rows=[frame.rows[index] for index in keep],
        line_indexes=[frame.line_indexes[index] for index in keep],
        bookings=[frame.bookings[index] for index in keep],
        dead=dead,
        dead_counts=dead_counts,
    )


def all_dead(frame: DecodedFrame, reason: str, detail: str) -> tuple[list[DeadLetter], dict[str, dict[str, int]]]:
    """Dead letters (and their counts) for every row of a frame, beside those it has already."""
    raw = split_lines(frame.ndjson)
    dead = list(frame.dead)
    dead_counts = {reason: dict(services) for reason, services in frame.dead_counts.items()}
    for row, line_index, (service, _) in zip(frame.rows, frame.line_indexes, frame.bookings, strict=True):
        dead.append(_dead_letter(frame, line_index, reason, detail, service, raw[line_index], log_id=row.id))
        _count(dead_counts, reason, service, 1)
    return dead, dead_counts


def _decode(raw: list[bytes]) -> tuple[list[LogLine], Sequence[int], list[tuple[int, bytes, str]]]:
    """The good lines, their indexes, and (index, bytes, error) of the bad ones; one call when all are good."""
    try:
        return decode_each(raw), range(len(raw)), []
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        good: list[LogLine] = []
        indexes: list[int] = []
        bad: list[tuple[int, bytes, str]] = []
        for index, line in enumerate(raw):
            if not line or line.isspace():
                continue
            try:
                good.append(decode_line(line))
                indexes.append(index)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
                bad.append((index, line, str(error)))
        return good, indexes, bad


def _book(
    record: Delivered,
    header: FrameHeader,
    ndjson: bytes,
    lines: list[LogLine],
    indexes: Sequence[int],
    undecodable: list[tuple[int, bytes, str]],
) -> DecodedFrame:
    kept, found = _kept(header), Counter([line.service_name for line in lines])
    if not found <= kept:
        detail = "services of the lines are not those the headers count"
        return _put_aside(record, header, ndjson, lines, indexes, undecodable, detail)
    frame = _empty(record, header, ndjson)
    latest_us = record.append_ms * 1000 + FUTURE_US_MAX
    if not are_storable(lines, latest_us):
        lines, indexes = _without_problems(frame, lines, indexes, latest_us)
    frame.rows = encode_rows(lines)
    frame.line_indexes = indexes
    frame.bookings = [(line.service_name, _BANDS[line.level]) for line in lines]
    leftover = (kept - found).elements()
    for index, text, error in undecodable:
        service = next(leftover)
        frame.dead.append(_dead_letter(frame, index, "undecodable", error, service, text))
        _count(frame.dead_counts, "undecodable", service, 1)
    return frame


def _without_problems(
    frame: DecodedFrame, lines: list[LogLine], indexes: Sequence[int], latest_us: int
) -> tuple[list[LogLine], list[int]]:
    """The lines that can be rows, with their indexes; the others become dead letters of the frame."""
    raw = split_lines(frame.ndjson)
    storable: list[LogLine] = []
    stored_indexes: list[int] = []
    for index, line in zip(indexes, lines, strict=True):
        problem = line_problem(line, latest_us)
        if problem is None:
            storable.append(line)
            stored_indexes.append(index)
            continue
        reason, detail = problem
        frame.dead.append(_dead_letter(frame, index, reason, detail, line.service_name, raw[index], log_id=line.id))
        _count(frame.dead_counts, reason, line.service_name, 1)
    return storable, stored_indexes


def _empty(record: Delivered, header: FrameHeader, ndjson: bytes) -> DecodedFrame:
    return DecodedFrame(
        partition=record.partition,
        offset=record.offset,
        append_ms=record.append_ms,
        frame_id=header.frame_id,
        key_hash=header.key_hash,
        body_sha256=header.body_sha256,
        minute_us=header.received_ms * 1000 // MINUTE_US * MINUTE_US,
        counts=header.counts,
        rows=[],
        line_indexes=[],
        bookings=[],
        dead=[],
        dead_counts={},
        ndjson=ndjson,
        traceparent=header.traceparent,
    )


def _kept(header: FrameHeader) -> Counter[str]:
    """service -> logs that the headers say are in the frame"""
    return Counter({service: counts.kept for service, counts in header.counts.items()})


def _in_time(header: FrameHeader, record: Delivered) -> FrameHeader:
    """The header with a time of receipt that can be true."""
    if abs(header.received_ms - record.append_ms) <= RECEIVED_MS_APART_MAX:
        return header
    return msgspec.structs.replace(header, received_ms=record.append_ms)


def _unreadable(record: Delivered, header: FrameHeader, detail: str) -> DecodedFrame:
    """The record as one dead letter, its logs booked under their services as the headers count them."""
    frame = _empty(record, header, b"")
    frame.dead.append(_dead_letter(frame, 0, NO_FRAME, detail, "", record.value))
    for service, number in _kept(header).items():
        if number:
            _count(frame.dead_counts, NO_FRAME, service, number)
    return frame


def _put_aside(
    record: Delivered,
    header: FrameHeader,
    ndjson: bytes,
    lines: list[LogLine],
    indexes: Sequence[int],
    undecodable: list[tuple[int, bytes, str]],
    contradiction: str,
) -> DecodedFrame:
    """Every line as a dead letter of its own."""
    raw = split_lines(ndjson)
    found = Counter([line.service_name for line in lines])
    missing = _kept(header) - found
    unread_services = list(islice(missing.elements(), len(undecodable)))
    unread_services += [""] * (len(undecodable) - len(unread_services))
    found += Counter(unread_services)
    missing -= Counter(unread_services)
    frame = _empty(record, _raised(header, found - _kept(header)), ndjson)
    for index, line in zip(indexes, lines, strict=True):
        frame.dead.append(
            _dead_letter(frame, index, MISMATCH, contradiction, line.service_name, raw[index], log_id=line.id)
        )
        _count(frame.dead_counts, MISMATCH, line.service_name, 1)
    for (index, text, error), service in zip(undecodable, unread_services, strict=True):
        frame.dead.append(_dead_letter(frame, index, "undecodable", f"{error}; {contradiction}", service, text))
        _count(frame.dead_counts, "undecodable", service, 1)
    for service, number in sorted(missing.items()):
        detail = f"{number} logs are counted and not there; {contradiction}"
        frame.dead.append(_dead_letter(frame, len(raw), MISSING, detail, service, b""))
        _count(frame.dead_counts, MISSING, service, number)
    return frame


def _raised(header: FrameHeader, more: Counter[str]) -> FrameHeader:
    """The header as if these logs had been received as well."""
    counts = dict(header.counts)
    for service, number in more.items():
        one = counts.get(service, ServiceCounts())
        counts[service] = msgspec.structs.replace(one, received=one.received + number)
    return msgspec.structs.replace(header, counts=counts)


def _header_of_unreadable(record: Delivered) -> FrameHeader:
    """A record without readable headers counts as one log of no service."""
    frame_id = dict(record.headers).get("frame", b"")[:16].ljust(16, b"\0")
    return FrameHeader(frame_id=frame_id, received_ms=record.append_ms, counts={"": ServiceCounts(received=1)})


def _dead_letter(
    frame: DecodedFrame, line_index: int, reason: str, detail: str, service: str, line: bytes, log_id: int | None = None
) -> DeadLetter:
    return DeadLetter(
        partition=frame.partition,
        offset=frame.offset,
        line_index=line_index,
        reason=reason,
        detail=detail.replace("\0", "\ufffd")[:_DETAIL_CHARS_MAX],
        service_name=service.replace("\0", "\ufffd"),
        received_minute_us=frame.minute_us,
        line=line,
        log_id=log_id if log_id is not None and 0 < log_id <= ID_MAX else None,
    )


def _count(counts: dict[str, dict[str, int]], reason: str, service: str, number: int) -> None:
    services = counts.setdefault(reason, {})
    services[service] = services.get(service, 0) + number
