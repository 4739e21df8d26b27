"""From a record to the logs in it that are stored, or will be: the writer's judgement (writer/decode.py) for who only reads.
Pure; a property test holds both to the same ids.

What the writer puts aside is left out here: a record that is no frame, a frame that contradicts its headers, a line that
cannot be a row. Whether a frame is the repeat of another is decided elsewhere (`keys.py`), before its value is opened.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Final

import msgspec

from broker.port import Delivered
from schemas.frames import FrameError, FrameHeader, decode_line, decompress, metadata_of
from schemas.lines import FUTURE_US_MAX, LINES_MAX, RECEIVED_MS_APART_MAX, are_storable, line_problem, split_lines
from schemas.record import Log

_decode: Final = msgspec.json.Decoder(Log).decode
_UNREADABLE: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


@dataclass(frozen=True, slots=True)
class Lines:
    """What a frame holds."""

    logs: list[Log]
    skipped: int
    """Lines that the writer puts aside."""
    size_bytes: int
    """Of the frame's text."""


def read_lines(record: Delivered, header: FrameHeader) -> Lines:
    """The logs of a frame. Raises FrameError when the writer stores none of it.

    1.1 µs a log of 270 bytes, half of it metadata.
    """
    ndjson = decompress(record.value)
    raw = split_lines(ndjson)
    if len(raw) > LINES_MAX:
        raise FrameError(f"frame holds more than {LINES_MAX} lines")
    logs, services, unread = _read(raw)
    if abs(header.received_ms - record.append_ms) > RECEIVED_MS_APART_MAX:
        raise FrameError("frame was received and appended more than a day apart")
    kept = Counter({service: counts.kept for service, counts in header.counts.items()})
    if kept.total() != services.total() + unread or not services <= kept:
        raise FrameError("frame holds other logs than its headers count")
    latest_us = record.append_ms * 1000 + FUTURE_US_MAX
    if not are_storable(logs, latest_us):
        logs = [log for log in logs if line_problem(log, latest_us) is None]
    return Lines(logs, kept.total() - len(logs), len(ndjson))


def _read(raw: list[bytes]) -> tuple[list[Log], Counter[str], int]:
    """The logs; service -> lines that the writer can read; how many it cannot."""
    try:
        logs = list(map(_decode, raw))
        return logs, Counter([log.service_name for log in logs]), 0
    except _UNREADABLE:
        pass
    logs = []
    services: Counter[str] = Counter()
    unread = 0
    for line in raw:
        if not line or line.isspace():
            continue
        try:
            read = decode_line(line)
        except _UNREADABLE:
            unread += 1
            continue
        services[read.service_name] += 1
        try:
            metadata = metadata_of(read)
        except _UNREADABLE:
            continue
        if isinstance(metadata, dict):
            logs.append(
                Log(
                    read.id,
                    read.timestamp,
                    read.level,
                    read.service_name,
                    read.message,
                    read.correlation_id,
                    metadata,
                )
            )
    return logs, services, unread
