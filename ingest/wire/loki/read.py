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

from ingest.errors import FieldError, MalformedBody
from ingest.parse import UNREADABLE, Incoming, Item, Malformed, may_hold_nul, too_many
from ingest.quick import PlainLog, are_plain, opened
from ingest.wire.edge import Records
from ingest.wire.loki.labels import InvalidLabels, Stream, level_of_line, own_of, parse_labels, stream_of
from ingest.wire.loki.protobuf import read_entry, read_push

_ENTRY: Final = "expected [time in nanoseconds as text, line, structured metadata of texts]"
_NO_TIME: Final = "expected nanoseconds since 1970 as text, got "
_TIME_CHARS_MAX: Final = 20


class _Value(msgspec.Struct, array_like=True, gc=False):
    """[time, line] or [time, line, structured metadata]."""

    time_ns: str
    line: str
    own: dict[str, str | None] = {}


class _Old(msgspec.Struct, gc=False):
    """Of /api/prom/push."""

    ts: str
    line: str


class _Stream(msgspec.Struct, gc=False):
    stream: dict[str, str | None] = {}
    values: list[_Value] = []
    labels: str = ""
    entries: list[_Old] = []


class _Push(msgspec.Struct, gc=False):
    streams: list[_Stream]


class _RawStream(msgspec.Struct, gc=False):
    """As _Stream, its inside unread."""

    stream: msgspec.Raw = msgspec.Raw(b"{}")
    values: list[msgspec.Raw] = []
    labels: msgspec.Raw = msgspec.Raw(b'""')
    entries: list[msgspec.Raw] = []


class _RawPush(msgspec.Struct, gc=False):
    streams: list[_RawStream]


_push: Final = msgspec.json.Decoder(_Push)
_raw_push: Final = msgspec.json.Decoder(_RawPush)
_labels: Final = msgspec.json.Decoder(dict[str, str | None])
_text: Final = msgspec.json.Decoder(str)
_value: Final = msgspec.json.Decoder(_Value)
_old: Final = msgspec.json.Decoder(_Old)
_encode: Final = msgspec.json.Encoder().encode
_NOTHING: Final = stream_of({})
T = TypeVar("T")


class _Reading:
    """Logs of one body, as they are read."""

    def __init__(self, default_service: str | None, logs_max: int) -> None:
        self.default_service = default_service
        self.logs_max = logs_max
        self.items: list[Item | PlainLog] = []
        self.is_plain = True
        self.have_own_times = True
        self.raws: list[msgspec.Raw] = []
        """Texts of metadata, each once."""
        self.shared_bytes = 0
        """What texts of streams take in all of their logs."""

    def begin(self, labels: dict[str, str | None] | dict[str, str]) -> Stream:
        """A stream."""
        stream = stream_of(labels)
        if stream.service is None:
            stream.service = self.default_service
        self.raws.append(stream.raw)
        return stream

    def add(
        self, stream: Stream, time: str | int | None, line: str, own: dict[str, str | None] | dict[str, str] | None
    ) -> None:
        """A log. time: as `PlainLog.timestamp`."""
        level, correlation_id, raw = stream.level, stream.correlation_id, stream.raw
        self.shared_bytes += stream.shared_bytes
        if own:
            said = own_of(own)
            level = said.level or level
            correlation_id = said.correlation_id or correlation_id
            if said.metadata:
                raw = msgspec.Raw(_encode({**stream.metadata, **said.metadata} if stream.metadata else said.metadata))
                self.raws.append(raw)
        if level is None:
            level = level_of_line(line)
        self.items.append(PlainLog(line, stream.service, time, level, correlation_id, raw))

    def refuse(self, code: str, message: str, stream: Stream, field: str | None = None) -> None:
        """An entry that cannot be read. code: as the ledger counts it."""
        self.is_plain = False
        rest = Incoming("", service_name=stream.service or self.default_service)
        self.items.append(Malformed(code, [FieldError(code if field is None else field, message)], rest))

    def check(self) -> None:
        """Raises BodyTooLarge past the most logs of a request."""
        if len(self.items) > self.logs_max:
            raise too_many(len(self.items), self.logs_max)

    def records(self, *, has_nul: bool) -> Records:
        """What was read."""
        if self.is_plain and not has_nul and self.items and are_plain(self.raws):
            plain = [item for item in self.items if isinstance(item, PlainLog)]
            return Records((), self.have_own_times, plain, self.shared_bytes)
        items = [opened(item) if isinstance(item, PlainLog) else item for item in self.items]
        return Records(items, self.have_own_times, (), self.shared_bytes)


# --- JSON ---------------------------------------------------------------------------------------------------------


def read_json(body: bytes, *, default_service: str | None, logs_max: int) -> Records:
    """The records of a JSON body. default_service: of streams that name none. Raises MalformedBody, BodyTooLarge."""
    reading = _Reading(default_service, logs_max)
    try:
        push = _push.decode(body)
    except UNREADABLE:
        _read_one_by_one(reading, body)
    else:
        for stream in push.streams:
            try:
                _read_stream(reading, stream)
            except InvalidLabels as error:
                for _ in range(len(stream.values) + len(stream.entries)):
                    reading.refuse("metadata", str(error), _NOTHING, "labels")
            reading.check()
    return reading.records(has_nul=may_hold_nul(body))


def _read_stream(reading: _Reading, found: _Stream) -> None:
    labels = {**parse_labels(found.labels), **found.stream} if found.labels else found.stream
    stream = reading.begin(labels)
    for value in found.values:
        _add(reading, stream, value)
    for entry in found.entries:
        reading.add(stream, entry.ts, entry.line, None)


def _add(reading: _Reading, stream: Stream, value: _Value) -> None:
    text = value.time_ns
    if text.isdecimal() and text.isascii() and len(text) <= _TIME_CHARS_MAX:
        reading.add(stream, int(text), value.line, value.own)
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
            for _ in range(len(found.values) + len(found.entries)):
                reading.refuse("metadata", problem, _NOTHING, "labels")
        else:
            for raw in found.values:
                if (value := _decoded(reading, stream, raw, _value)) is not None:
                    _add(reading, stream, value)
            for raw in found.entries:
                if (entry := _decoded(reading, stream, raw, _old)) is not None:
                    reading.add(stream, entry.ts, entry.line, None)
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
        return reading.begin({**(parse_labels(text) if text else {}), **labels}), None
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
            stream = reading.begin(parse_labels(labels.decode()))
        except (InvalidLabels, UnicodeDecodeError) as error:
            for _ in entries:
                reading.refuse("metadata", str(error), _NOTHING, "labels")
            continue
        for content in entries:
            entry = read_entry(content)
            if isinstance(entry, str):
                reading.refuse("message", entry, stream, "entry")
                continue
            time_ns, line, own = entry
            if time_ns is None:
                reading.have_own_times = False
            reading.add(stream, time_ns, line, own)
    return reading.records(has_nul=b"\0" in body)
