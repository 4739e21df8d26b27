"""`application/x-protobuf`: an ExportLogsServiceRequest, read record by record: pure."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import chain
from operator import itemgetter
from typing import Any, Final

from google.protobuf.message import DecodeError

from ingest.errors import BodyTooLarge, MalformedBody
from ingest.parse import too_many
from ingest.wire.members import members_of, written
from ingest.wire.otlp import messages
from ingest.wire.otlp.records import (
    NOTHING_SHARED,
    Made,
    Shared,
    Unreadable,
    broken,
    bytes_of,
    double_of,
    json_of,
    of_resource,
    of_scope,
)
from ingest.wire.protobuf import group, parts, values_of, varint

ATTRIBUTES_BYTES_MAX: Final = 256 * 1024
"""Most bytes of a record beside the text of its body, and of a resource or a scope: four times what metadata may take. Parsed,
the smallest values become twenty times as large."""
_NO_TRACE: Final = bytes(16)
_NO_SPAN: Final = bytes(8)
_TEXT: Final = messages.STRING_VALUE << 3 | 2
_NUMBER: Final = messages.INT_VALUE << 3
"""How an AnyValue begins."""
_REMEMBERED_BYTES_MAX: Final = 1_000
_first_of: Final = itemgetter(0)
_log_record: Final = messages.LogRecord.FromString
_attribute: Final = messages.KeyValue.FromString
_any_value: Final = messages.AnyValue.FromString
_simple_values: Final = messages.SimpleValues.FromString


def read_protobuf(body: bytes, *, default_service: str | None, logs_max: int) -> Made:
    """The records of a body. Raises MalformedBody, BodyTooLarge."""
    made = Made(default_service)
    groups = 0
    try:
        for resource_logs in group(body)[0]:  # a request's resource logs are its field 1
            resources, scopes = group(resource_logs)
            groups += 1 + len(scopes)
            if groups > 2 * logs_max:
                raise BodyTooLarge(f"a request may have {logs_max} resources and scopes: send several requests")
            resource = b"".join(resources)
            for scope_logs in scopes:
                scope, records = group(scope_logs)
                if len(made.logs) + len(records) > logs_max:
                    raise too_many(len(made.logs) + len(records), logs_max)
                _read_records(made, _shared_by(resource, b"".join(scope)), records)
    except DecodeError as error:
        raise MalformedBody(f"the body is no ExportLogsServiceRequest in protobuf: {error}") from error
    return made


def _read_records(made: Made, shared: Shared, records: Sequence[bytes]) -> None:
    """All at once, or each by itself where one is out of the common. Half of the time is that of attributes, 0.7 µs each."""
    if shared.error is None and max(map(len, records), default=0) <= ATTRIBUTES_BYTES_MAX:
        try:
            found = [*map(_log_record, records)]
            members = _members([record.attributes[:] for record in found])
        except (DecodeError, Unreadable):
            members = None
        if members is not None:
            for record, own in zip(found, members, strict=True):
                _add(made, shared, record, own)
            return
    for raw in records:
        _read_record(made, shared, raw)


def _read_record(made: Made, shared: Shared, raw: bytes) -> None:
    """One by itself."""
    if shared.error is not None:
        made.add_broken(shared, shared.error)
        return
    try:
        if len(raw) > ATTRIBUTES_BYTES_MAX:
            bodies = parts(raw, messages.BODY)
            _check_size(raw, sum(len(text) for body in bodies for text in parts(body, messages.STRING_VALUE)))
        record = _log_record(raw)
        members = json_of({each.key: _value(each.value) for each in map(_attribute, record.attributes)})[1:-1]
    except DecodeError as error:
        made.add_broken(shared, _no("LogRecord", error).error)
    except Unreadable as error:
        made.add_broken(shared, error.error)
    else:
        _add(made, shared, record, members)


def _add(made: Made, shared: Shared, record: Any, members: bytes) -> None:  # a LogRecord
    """members: its attributes, see Made.add."""
    trace, span = record.trace_id, record.span_id
    try:
        made.add(
            shared,
            record.time_unix_nano or record.observed_time_unix_nano or None,
            record.severity_number,
            record.severity_text.decode(),
            _message(record.body),
            members,
            trace.hex() if len(trace) == 16 and trace != _NO_TRACE else None,
            span.hex() if len(span) == 8 and span != _NO_SPAN else None,
            record.event_name.decode(),
        )
    except (DecodeError, UnicodeDecodeError) as error:
        made.add_broken(shared, _no("LogRecord", error).error)
    except Unreadable as error:
        made.add_broken(shared, error.error)


def _members(attributes: Sequence[Sequence[bytes]]) -> list[bytes] | None:
    """Of many records their attributes as members of JSON objects, all of them read at once; None: one needs a closer look.
    Raises DecodeError, Unreadable: the same."""
    columns = values_of([*chain.from_iterable(attributes)])
    if columns is None:
        return None
    names, raws = columns
    try:
        kinds = bytes(map(_first_of, raws))
    except IndexError:  # one is nothing at all
        return None
    simple = _simple_values(b"".join(raws))
    texts, numbers = simple.texts[:], simple.numbers[:]
    if len(texts) != kinds.count(_TEXT) or len(numbers) != kinds.count(_NUMBER):
        return None  # one is both, or twice the same
    values: list[str | int | None] = texts
    others: list[tuple[int, bytes]] = []
    if len(texts) < len(raws):
        next_text, next_number = iter(texts).__next__, iter(numbers).__next__
        values = [next_text() if kind == _TEXT else next_number() if kind == _NUMBER else None for kind in kinds]
        if len(texts) + len(numbers) < len(raws):
            others = [
                (place, json_of(_value(_any_value(raws[place]))))
                for place, kind in enumerate(kinds)
                if kind not in (_TEXT, _NUMBER)
            ]
    json = written(values)
    for place, text in others:
        json[place] = text
    return members_of(names, json, [*map(len, attributes)])


def _shared_by(resource: bytes, scope: bytes) -> Shared:
    """What a program's records have in common is the same in each of its requests: remembered where it is small (4 MiB)."""
    if len(resource) + len(scope) <= _REMEMBERED_BYTES_MAX:
        return _known(resource, scope)
    return _scope(_resource(resource), scope)


@lru_cache(maxsize=1_000)
def _known(resource: bytes, scope: bytes) -> Shared:
    return _scope(_resource(resource), scope)


def _resource(raw: bytes) -> Shared:
    if not raw:
        return NOTHING_SHARED
    try:
        _check_size(raw, 0)
        return of_resource(_attributes(messages.Resource.FromString(raw)))
    except DecodeError as error:
        return broken(NOTHING_SHARED, _no("Resource", error))
    except Unreadable as error:
        return broken(NOTHING_SHARED, error)


def _scope(resource: Shared, raw: bytes) -> Shared:
    if not raw:
        return resource
    try:
        _check_size(raw, 0)
        scope = messages.Scope.FromString(raw)
        return of_scope(resource, scope.name, scope.version, _attributes(scope))
    except DecodeError as error:
        return broken(resource, _no("InstrumentationScope", error))
    except Unreadable as error:
        return broken(resource, error)


def _check_size(raw: bytes, text_bytes: int) -> None:
    """text_bytes: of its body. Raises Unreadable."""
    if len(raw) - text_bytes > ATTRIBUTES_BYTES_MAX:
        raise Unreadable(
            "metadata", f"attributes may take {ATTRIBUTES_BYTES_MAX} bytes, these take {len(raw) - text_bytes}"
        )


def _no(kind: str, error: DecodeError | UnicodeDecodeError) -> Unreadable:
    return Unreadable("protobuf", f"is no {kind} (its texts must be UTF-8): {error}")


def _message(raw: bytes) -> str:
    """Of a record's body, an AnyValue: its text, else its JSON."""
    if raw and raw[0] == _TEXT:
        size, at = (raw[1], 2) if len(raw) > 1 and raw[1] < 0x80 else varint(raw, 1)
        if at + size == len(raw):
            return raw[at:].decode()
    body = _any_value(raw)
    text: str = body.string_value
    if text:
        return text
    value = _value(body)
    return "" if value is None or value == "" else json_of(value).decode()


def _attributes(of: Any) -> dict[str, Any]:  # a message with attributes; JSON
    found: dict[str, Any] = {}
    for attribute in of.attributes:
        value = attribute.value
        found[attribute.key] = value.string_value or value.int_value or _value(value)
    return found


def _value(value: Any) -> Any:  # an AnyValue; JSON
    kind = value.WhichOneof("value")
    if kind is None:
        return None
    content = getattr(value, kind)
    match kind:
        case "double_value":
            return double_of(content)
        case "bytes_value":
            return bytes_of(content)
        case "array_value":
            return [_value(each) for each in content.values]
        case "kvlist_value":
            return {each.key: _value(each.value) for each in content.values}
        case _:
            return content
