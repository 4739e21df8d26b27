"""PushRequest of Loki's protobuf, read by hand: three messages, five fields, no copy of what is skipped. Pure.

    PushRequest { repeated Stream streams = 1 }
    Stream      { string labels = 1; repeated Entry entries = 2 }
    Entry       { Timestamp timestamp = 1; string line = 2; repeated Pair structuredMetadata = 3 }
    Timestamp   { int64 seconds = 1; int32 nanos = 2 }      Pair { string name = 1; string value = 2 }

Unknown fields are passed over, as protobuf wants it. Texts stay bytes here: whether they are UTF-8 is asked of each log by
itself. By hand, because a library's objects cost more than the reading: 0.9 µs an entry (bench/wire_formats.py).
Source: grafana/loki, pkg/push/push.proto; the encoding: protobuf.dev, "Encoding".
"""

from __future__ import annotations

from typing import Final

import msgspec

from ingest.errors import BodyTooLarge, MalformedBody

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_LABELS: Final = 1 << 3 | _BYTES
_SECOND_BYTES: Final = 2 << 3 | _BYTES
_THIRD_BYTES: Final = 3 << 3 | _BYTES
_FIRST_VARINT: Final = 1 << 3 | _VARINT
_SECOND_VARINT: Final = 2 << 3 | _VARINT


class RawEntry(msgspec.Struct, gc=False):
    """One entry."""

    time_ns: int | None
    """Since the Unix epoch; None: it says none."""
    line: bytes
    pairs: list[tuple[bytes, bytes]] | None
    """Structured metadata."""


class RawStream(msgspec.Struct, gc=False):
    """One stream."""

    labels: bytes
    entries: list[RawEntry]


def read_push(body: bytes, *, entries_max: int) -> list[RawStream]:
    """The streams. Raises MalformedBody, BodyTooLarge past entries_max entries or as many streams."""
    try:
        return _read_push(body, entries_max)
    except IndexError as error:
        raise MalformedBody("the protobuf body is cut off") from error


def _read_push(body: bytes, entries_max: int) -> list[RawStream]:
    streams: list[RawStream] = []
    room = entries_max
    at, end = 0, len(body)
    while at < end:
        key, at = _varint(body, at)
        if key != _LABELS:  # the same number: field 1, bytes
            at = _skip(body, at, end, key)
            continue
        length, at = _varint(body, at)
        stop = _within(at + length, end)
        stream = _read_stream(body, at, stop, room)
        room -= len(stream.entries)
        streams.append(stream)
        if len(streams) > entries_max:
            raise BodyTooLarge(f"a request may hold {entries_max} streams: send several")
        at = stop
    return streams


def _read_stream(body: bytes, at: int, end: int, room: int) -> RawStream:
    labels = b""
    entries: list[RawEntry] = []
    while at < end:
        key, at = _varint(body, at)
        if key == _SECOND_BYTES:
            length, at = _varint(body, at)
            stop = _within(at + length, end)
            if len(entries) >= room:
                raise BodyTooLarge("a request may hold no more logs than that: send several")
            entries.append(_read_entry(body, at, stop))
            at = stop
        elif key == _LABELS:
            length, at = _varint(body, at)
            stop = _within(at + length, end)
            labels = body[at:stop]
            at = stop
        else:
            at = _skip(body, at, end, key)
    return RawStream(labels, entries)


def _read_entry(body: bytes, at: int, end: int) -> RawEntry:
    time_ns: int | None = None
    line = b""
    pairs: list[tuple[bytes, bytes]] | None = None
    while at < end:
        key = body[at]
        at += 1
        if key == _SECOND_BYTES:
            length = body[at]
            at += 1
            if length > 127:
                length, at = _varint(body, at - 1)
            stop = _within(at + length, end)
            line = body[at:stop]
        elif key == _LABELS:
            length, at = _varint(body, at)
            stop = _within(at + length, end)
            time_ns = _read_time(body, at, stop)
        elif key == _THIRD_BYTES:
            length, at = _varint(body, at)
            stop = _within(at + length, end)
            if pairs is None:
                pairs = []
            pairs.append(_read_pair(body, at, stop))
        else:
            key, at = _varint(body, at - 1)
            stop = _skip(body, at, end, key)
        at = stop
    return RawEntry(time_ns, line, pairs)


def _read_time(body: bytes, at: int, end: int) -> int:
    seconds = nanos = 0
    while at < end:
        key, at = _varint(body, at)
        if key == _FIRST_VARINT:
            seconds, at = _varint(body, at)
        elif key == _SECOND_VARINT:
            nanos, at = _varint(body, at)
        else:
            at = _skip(body, at, end, key)
    _within(at, end)
    return _signed(seconds) * 1_000_000_000 + _signed(nanos)


def _read_pair(body: bytes, at: int, end: int) -> tuple[bytes, bytes]:
    name = value = b""
    while at < end:
        key, at = _varint(body, at)
        if key not in (_LABELS, _SECOND_BYTES):
            at = _skip(body, at, end, key)
            continue
        length, at = _varint(body, at)
        stop = _within(at + length, end)
        if key == _LABELS:
            name = body[at:stop]
        else:
            value = body[at:stop]
        at = stop
    return name, value


def _varint(body: bytes, at: int) -> tuple[int, int]:
    """(value, place behind it). Raises IndexError past the end, MalformedBody past 64 bits."""
    byte = body[at]
    at += 1
    if byte < 128:
        return byte, at
    value, shift = byte & 127, 7
    while True:
        byte = body[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value & 0xFFFF_FFFF_FFFF_FFFF, at
        shift += 7
        if shift > 63:
            raise MalformedBody("the protobuf body has a number of more than 64 bits")


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def _within(stop: int, end: int) -> int:
    if stop > end:
        raise MalformedBody("the protobuf body is cut off, or one of its lengths is wrong")
    return stop


def _skip(body: bytes, at: int, end: int, key: int) -> int:
    """The place behind a field that nobody asks for."""
    kind = key & 7
    if key >> 3 == 0:
        raise MalformedBody("the protobuf body has a field 0: it is no protobuf, or not snappy-compressed as it says")
    if kind == _VARINT:
        _, at = _varint(body, at)
    elif kind == _FIXED64:
        at += 8
    elif kind == _BYTES:
        length, at = _varint(body, at)
        at += length
    elif kind == _FIXED32:
        at += 4
    else:
        raise MalformedBody(f"the protobuf body has a field of kind {kind}, which nobody writes")
    return _within(at, end)
