"""Bodies of Loki's push API, written as its clients write them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import cramjam

Entry = tuple[int | None, str | bytes, Mapping[str, str] | None]
"""(time in ns, line, structured metadata)"""
Streams = Sequence[tuple[Mapping[str, str], Sequence[Entry]]]


def json_push(streams: Streams) -> bytes:
    """As the libraries do."""

    def value(entry: Entry) -> list[Any]:
        time_ns, line, own = entry
        return [str(time_ns), line, *([own] if own else [])]

    return json.dumps(
        {"streams": [{"stream": labels, "values": list(map(value, entries))} for labels, entries in streams]}
    ).encode()


def protobuf_push(streams: Streams) -> bytes:
    """As Promtail does, before snappy."""
    return b"".join(_field(1, _stream(labels, entries)) for labels, entries in streams)


def snappy(body: bytes) -> bytes:
    """A block."""
    return bytes(cramjam.snappy.compress_raw(body))


def _stream(labels: Mapping[str, str], entries: Sequence[Entry]) -> bytes:
    text = ", ".join(f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in sorted(labels.items()))
    return _field(1, f"{{{text}}}".encode()) + b"".join(_field(2, _entry(*entry)) for entry in entries)


def _entry(time_ns: int | None, line: str | bytes, own: Mapping[str, str] | None) -> bytes:
    time = b""
    if time_ns is not None:
        seconds, nanos = divmod(time_ns, 1_000_000_000)
        time = _field(1, b"\x08" + varint(seconds) + (b"\x10" + varint(nanos) if nanos else b""))
    pairs = (_field(1, name.encode()) + _field(2, value.encode()) for name, value in (own or {}).items())
    text = line if isinstance(line, bytes) else line.encode()
    return time + _field(2, text) + b"".join(_field(3, pair) for pair in pairs)


def _field(number: int, content: bytes) -> bytes:
    return bytes((number << 3 | 2,)) + varint(len(content)) + content


def varint(value: int) -> bytes:
    """Of an unsigned number."""
    parts = bytearray()
    while value > 127:
        parts.append(value & 127 | 128)
        value >>= 7
    parts.append(value)
    return bytes(parts)
