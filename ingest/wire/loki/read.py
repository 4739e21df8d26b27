"""Bodies of Loki's push API to records: pure.

JSON as /loki/api/v1/push has it (`values`: [time in ns, line, structured metadata]) and as the older /api/prom/push has it
(`entries`: {ts, line}, `labels` in one text); and protobuf. An entry that is not as it should be is `Malformed`, and costs
no other one; nor does a stream whose labels cannot be read.

Logs of a stream without structured metadata share one text of metadata, so that what is made here costs a microsecond a log;
any body with something out of the common is read entry by entry (`ingest/parse.py`), with the same outcome (a property test).
"""

from __future__ import annotations

from typing import Final, TypeVar

import msgspec

from ingest.errors import BodyTooLarge, FieldError, MalformedBody
from ingest.parse import UNREADABLE, Incoming, Malformed, too_many
from ingest.quick import PlainLog
from ingest.records import EXPANDED_BYTES_MAX, Records, check_brackets, check_commas
from ingest.wire.loki.labels import (
    NOTHING_SAID,
    InvalidLabels,
    Said,
    Stream,
    level_of_line,
    parse_labels,
    said_of,
    stream_of,
    stream_of_text,
)
from ingest.wire.loki.protobuf import read_push
from ingest.wire.surrogates import mended

_ENTRY: Final = "expected [time in nanoseconds as text, line, structured metadata of texts]"
_NO_TIME: Final = "expected nanoseconds since 1970 as text, got "
_TIME_CHARS_MAX: Final = 20


class _Value(msgspec.Struct, array_like=True, gc=False):
    """[time, line] or [time, line, structured metadata]."""

    time_ns: str
    line: str
    own: dict[str, str | None] | None = None


class _Old(msgspec.Struct, gc=False):
    """Of /api/prom/push."""

    ts: str
    line: str


class _Stream(msgspec.Struct, gc=False):
    stream: dict[str, str | None] | None = None
    values: list[_Value] | None = None
    labels: str = ""
    entries: list[_Old] | None = None


class _Push(msgspec.Struct, gc=False):
    streams: list[_Stream]


class _RawStream(msgspec.Struct, gc=False):
    """As _Stream, its inside unread."""

    stream: msgspec.Raw = msgspec.Raw(b"{}")
    values: list[msgspec.Raw] | None = None
    labels: msgspec.Raw = msgspec.Raw(b'""')
    entries: list[msgspec.Raw] | None = None


class _RawPush(msgspec.Struct, gc=False):
    streams: list[_RawStream]


_push: Final = msgspec.json.Decoder(_Push)
_raw_push: Final = msgspec.json.Decoder(_RawPush)
_labels: Final = msgspec.json.Decoder(dict[str, str | None] | None)
_text: Final = msgspec.json.Decoder(str)
_value: Final = msgspec.json.Decoder(_Value)
_old: Final = msgspec.json.Decoder(_Old)
_NOTHING: Final = stream_of({})
T = TypeVar("T")


class _Reading:
    """Logs of one body, as they are read."""

    def __init__(self, default_service: str | None, logs_max: int) -> None:
        self.default_service = default_service
        self.logs_max = logs_max
        self.logs: list[PlainLog | Malformed] = []
        self.have_own_times = True
        self.shared_bytes = 0
        """What texts of streams take in all of their logs."""

    def add(self, stream: Stream, time: str | int | None, line: str, said: Said = NOTHING_SAID) -> None:
        """A log. time: as `PlainLog.timestamp`. Raises BodyTooLarge."""
        level, correlation_id, raw = stream.level, stream.correlation_id, stream.raw
        self.shared_bytes += stream.shared_bytes
        if self.shared_bytes > EXPANDED_BYTES_MAX:
            raise BodyTooLarge(
                f"labels of streams, written into each of their logs, take more than {EXPANDED_BYTES_MAX} bytes: send several"
                " requests"
            )
        if said is not NOTHING_SAID:
            level = said[0] or level
            correlation_id = said[1] or correlation_id
            if said[2]:
                raw = msgspec.Raw(stream.begin + said[2] + b"}")
        if level is None:
            level = level_of_line(line)
        self.logs.append(PlainLog(line, stream.service or self.default_service, time, level, correlation_id, raw))

    def refuse(self, code: str, message: str, stream: Stream, field: str | None = None) -> None:
        """An entry that cannot be read. code: as the ledger counts it."""
        rest = Incoming("", service_name=stream.service or self.default_service)
        self.logs.append(Malformed(code, [FieldError(code if field is None else field, message)], rest))

    def check(self) -> None:
        """Raises BodyTooLarge past the most logs of a request."""
        if len(self.logs) > self.logs_max:
            raise too_many(len(self.logs), self.logs_max)

    def records(self) -> Records:
        """What was read."""
        return Records(self.logs, self.have_own_times, self.shared_bytes)


# --- JSON ---------------------------------------------------------------------------------------------------------


def read_json(body: bytes, *, default_service: str | None, logs_max: int) -> Records:
    """The records of a JSON body. default_service: of streams that name none. Raises MalformedBody, BodyTooLarge."""
    reading = _Reading(default_service, logs_max)
    check_brackets(body)
    try:
        push = _push.decode(body)
    except UNREADABLE:
        check_commas(body)
        _read_one_by_one(reading, mended(body) or body)
    else:
        for stream in push.streams:
            try:
                _read_stream(reading, stream)
            except InvalidLabels as error:
                for _ in range(len(stream.values or ()) + len(stream.entries or ())):
                    reading.refuse("metadata", str(error), _NOTHING, "labels")
            reading.check()
    return reading.records()


def _read_stream(reading: _Reading, found: _Stream) -> None:
    labels = {**parse_labels(found.labels), **(found.stream or {})} if found.labels else found.stream or {}
    stream = stream_of(labels)
    for value in found.values or ():
        _add(reading, stream, value)
    for entry in found.entries or ():
        reading.add(stream, entry.ts, entry.line)


def _add(reading: _Reading, stream: Stream, value: _Value) -> None:
    text = value.time_ns
    if text.isdecimal() and text.isascii() and len(text) <= _TIME_CHARS_MAX:
        reading.add(stream, int(text), value.line, said_of(value.own))
    else:
        reading.refuse("timestamp", _NO_TIME + repr(text[:60]), stream)


def _read_one_by_one(reading: _Reading, body: bytes) -> None:
    """Of a body with something wrong inside: which entries are right, and what is wrong with the others."""
    try:
        push = _raw_push.decode(body)
    except RecursionError as error:
        raise MalformedBody("the JSON body is nested too deeply") from error
    except UNREADABLE as error:
        raise MalformedBody(f'expected {{"streams": [{{"stream": {{…}}, "values": [[…]]}}]}}: {error}') from error
    for found in push.streams:
        stream, problem = _begin(reading, found)
        if problem is not None:
            for _ in range(len(found.values or ()) + len(found.entries or ())):
                reading.refuse("metadata", problem, _NOTHING, "labels")
        else:
            for raw in found.values or ():
                if (value := _decoded(reading, stream, raw, _value)) is not None:
                    _add(reading, stream, value)
            for raw in found.entries or ():
                if (entry := _decoded(reading, stream, raw, _old)) is not None:
                    reading.add(stream, entry.ts, entry.line)
        reading.check()


def _decoded(reading: _Reading, stream: Stream, raw: msgspec.Raw, decoder: msgspec.json.Decoder[T]) -> T | None:
    """The entry; None: it was refused."""
    try:
        return decoder.decode(raw)
    except UNREADABLE as error:
        reading.refuse("json", f"{_ENTRY}: {_reason(error)}", stream, "")
        return None


def _begin(reading: _Reading, found: _RawStream) -> tuple[Stream, str | None]:
    """The stream, or why its labels cannot be read."""
    try:
        labels = _labels.decode(found.stream)
        text = _text.decode(found.labels)
        return stream_of({**(parse_labels(text) if text else {}), **(labels or {})}), None
    except InvalidLabels as error:
        return _NOTHING, str(error)
    except UNREADABLE as error:
        return _NOTHING, f"expected names and texts: {_reason(error)}"


def _reason(error: Exception) -> str:
    return "nested too deeply" if isinstance(error, RecursionError) else str(error)


# --- protobuf -----------------------------------------------------------------------------------------------------


def read_protobuf(body: bytes, *, default_service: str | None, logs_max: int) -> Records:
    """The records of a decompressed PushRequest, as `read_json`."""
    reading = _Reading(default_service, logs_max)
    for labels, entries in read_push(body, entries_max=logs_max):
        try:
            stream = stream_of_text(labels)
        except (InvalidLabels, UnicodeDecodeError) as error:
            for _ in entries:
                reading.refuse("metadata", str(error), _NOTHING, "labels")
            continue
        for entry in entries:
            if isinstance(entry, str):
                reading.refuse("message", entry, stream, "entry")
                continue
            time_ns, line, said = entry
            if time_ns is None:
                reading.have_own_times = False
            reading.add(stream, time_ns, line, said)
    return reading.records()
