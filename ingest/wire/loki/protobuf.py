"""PushRequest of Loki's protobuf, its entries read one by one, and structured metadata of all of them at once.

    PushRequest { repeated Stream streams = 1 }
    Stream      { string labels = 1; repeated Entry entries = 2 }
    Entry       { Timestamp timestamp = 1; string line = 2; repeated Pair structuredMetadata = 3 }
    Timestamp   { int64 seconds = 1; int32 nanos = 2 }      Pair { string name = 1; string value = 2 }

Lines and pairs are declared as bytes. So an entry that is broken, or has a text that is no UTF-8, costs only itself, and
bodies of empty messages do not become many times as large. Unknown fields are passed over.
Source: grafana/loki, pkg/push/push.proto.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any, Final

from google.protobuf.message import DecodeError

from ingest.errors import BodyTooLarge, MalformedBody
from ingest.wire.loki.labels import Said, said_in, said_of
from ingest.wire.protobuf import group, message_classes, parts, texts_of

PAIRS_MAX: Final = 1_000
"""Structured metadata of one entry that is not small."""
_SMALL_BYTES: Final = 16 * 1024
"""An entry of less cannot become large."""
_PAIRS: Final = 3
_classes: Final = message_classes(
    "loki",
    {
        "Timestamp": ("1 int64 seconds", "2 int32 nanos"),
        "Entry": ("1 Timestamp timestamp", "2 bytes line", "3 *bytes pairs"),
        "Pair": ("1 string name", "2 string value"),
    },
)
_entry: Final = _classes["Entry"].FromString
_pair: Final = _classes["Pair"].FromString
_CANNOT_BE_READ: Final = "cannot be read: a text in it is not valid UTF-8, or it is cut off"


Entry = tuple[int | None, str, Said]
"""Nanoseconds since the Unix epoch, None where it says no time; line; what its structured metadata say."""


def read_push(body: bytes, *, entries_max: int) -> list[tuple[bytes, list[Entry | str]]]:
    """Of each stream the text of its labels, and its entries, or what is wrong with one.

    Raises MalformedBody, BodyTooLarge past entries_max entries or as many streams.
    """
    try:
        streams = [group(stream) for stream in _limited(group(body)[0], entries_max)]
    except DecodeError as error:
        raise MalformedBody(
            f"the body is no PushRequest in protobuf, or not snappy-compressed as it says: {error}"
        ) from error
    raws = _limited([raw for _, entries in streams for raw in entries], entries_max)
    read = iter(_read_entries(raws))
    return [(labels[-1] if labels else b"", [next(read) for _ in entries]) for labels, entries in streams]


def _limited(found: list[bytes], entries_max: int) -> list[bytes]:
    if len(found) > entries_max:
        raise BodyTooLarge(f"a request may hold {entries_max} logs, and as many streams: send several")
    return found


def _read_entries(raws: Sequence[bytes]) -> list[Entry | str]:
    """Each by itself where one of them is out of the common."""
    if max(map(len, raws), default=0) <= _SMALL_BYTES:
        try:
            entries = [*map(_entry, raws)]
            pairs = [entry.pairs[:] for entry in entries]
            columns = texts_of([*chain.from_iterable(pairs)])
            if columns is not None and all(columns[1]):
                said = said_in(*columns, [*map(len, pairs)])
                return [*map(_of, entries, said)]
        except (DecodeError, UnicodeDecodeError):
            pass
    return [*map(_read_entry, raws)]


def _read_entry(raw: bytes) -> Entry | str:
    try:
        if len(raw) > _SMALL_BYTES and len(parts(raw, _PAIRS)) > PAIRS_MAX:
            return f"may have {PAIRS_MAX} structured metadata"
        entry = _entry(raw)
        own = {pair.name: pair.value for pair in map(_pair, entry.pairs)}
        return _of(entry, said_of(own))
    except (DecodeError, UnicodeDecodeError):
        return _CANNOT_BE_READ


def _of(entry: Any, said: Said) -> Entry:  # an Entry of the protocol
    """Raises UnicodeDecodeError."""
    at = entry.timestamp
    seconds = at.seconds
    time_ns = seconds * 1_000_000_000 + at.nanos if seconds or entry.HasField("timestamp") else None
    return time_ns, entry.line.decode(), said
