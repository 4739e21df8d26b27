"""`application/json`: an ExportLogsServiceRequest as OTLP writes it in JSON: pure.

That is not protobuf's own JSON: trace and span ids are hex, enumerations numbers, 64-bit integers text or numbers, and
fields that nobody knows are passed over. A record whose types are wrong costs only itself.
"""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

from ingest.errors import MalformedBody
from ingest.parse import BOM, UNREADABLE, too_many
from ingest.records import check_brackets, check_commas
from ingest.wire.otlp.records import (
    NOTHING_SHARED,
    Made,
    Shared,
    Unreadable,
    broken,
    double_of,
    json_of,
    of_resource,
    of_scope,
)
from ingest.wire.surrogates import mended

_INTEGER: Final = re.compile(r"-?[0-9]{1,20}", re.ASCII)
_WHOLE_CHARS_MAX: Final = 20
_NON_FINITE: Final = ("NaN", "Infinity", "-Infinity")
_TRACE_ID: Final = re.compile(r"(?!0{32})[0-9a-fA-F]{32}")
_SPAN_ID: Final = re.compile(r"(?!0{16})[0-9a-fA-F]{16}")


class _Any(msgspec.Struct, rename="camel", gc=False):
    """AnyValue; a value that is not there is None."""

    string_value: str | None = None
    int_value: int | str | None = None
    bool_value: bool | None = None
    double_value: float | str | None = None
    array_value: _Array | None = None
    kvlist_value: _KeyValues | None = None
    bytes_value: str | None = None


class _Array(msgspec.Struct, gc=False):
    values: list[_Any] | None = None


class _KeyValue(msgspec.Struct, gc=False):
    key: str = ""
    value: _Any | None = None


class _KeyValues(msgspec.Struct, gc=False):
    values: list[_KeyValue] | None = None


class _Record(msgspec.Struct, rename="camel", gc=False):
    """LogRecord."""

    time_unix_nano: int | str | None = None
    observed_time_unix_nano: int | str | None = None
    severity_number: int | None = None
    severity_text: str | None = None
    body: _Any | None = None
    attributes: list[_KeyValue] | None = None
    trace_id: str | None = None
    span_id: str | None = None
    event_name: str | None = None


class _Scope(msgspec.Struct, gc=False):
    name: str | None = None
    version: str | None = None
    attributes: list[_KeyValue] | None = None


class _Resource(msgspec.Struct, gc=False):
    attributes: list[_KeyValue] | None = None


class _ScopeLogs(msgspec.Struct, rename="camel", gc=False):
    scope: _Scope | None = None
    log_records: list[_Record] | None = None


class _ResourceLogs(msgspec.Struct, rename="camel", gc=False):
    resource: _Resource | None = None
    scope_logs: list[_ScopeLogs] | None = None


class _Request(msgspec.Struct, rename="camel", gc=False):
    resource_logs: list[_ResourceLogs] | None = None


class _RawScopeLogs(msgspec.Struct, rename="camel", gc=False):
    """The same, read one by one."""

    scope: msgspec.Raw = msgspec.Raw(b"null")
    log_records: list[msgspec.Raw] | None = None


class _RawResourceLogs(msgspec.Struct, rename="camel", gc=False):
    resource: msgspec.Raw = msgspec.Raw(b"null")
    scope_logs: list[_RawScopeLogs] | None = None


class _RawRequest(msgspec.Struct, rename="camel", gc=False):
    resource_logs: list[_RawResourceLogs] | None = None


_request: Final = msgspec.json.Decoder(_Request)
_raw_request: Final = msgspec.json.Decoder(_RawRequest)
_record: Final = msgspec.json.Decoder(_Record)
_resource: Final = msgspec.json.Decoder(_Resource | None)
_scope: Final = msgspec.json.Decoder(_Scope | None)


def read_json(body: bytes, *, default_service: str | None, logs_max: int) -> Made:
    """The records of a body. Raises MalformedBody, BodyTooLarge."""
    check_brackets(body)
    made = Made(default_service)
    for resource_logs in _decoded(body.removeprefix(BOM)).resource_logs or ():
        resource = _of_resource(resource_logs.resource)
        for scope_logs in resource_logs.scope_logs or ():
            shared = _of_scope(resource, scope_logs.scope)
            records = scope_logs.log_records or ()
            if len(made.logs) + len(records) > logs_max:
                raise too_many(len(made.logs) + len(records), logs_max)
            for record in records:
                _add(made, shared, record)
    return made


def _decoded(body: bytes) -> _Request | _RawRequest:
    try:
        return _request.decode(body)
    except UNREADABLE:
        check_commas(body)
        body = mended(body) or body
    try:
        return _raw_request.decode(body)
    except UNREADABLE as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise MalformedBody(f"the body is no ExportLogsServiceRequest in JSON: {reason}") from error


def _read(decoder: msgspec.json.Decoder[Any], raw: msgspec.Raw, kind: str) -> Any:  # what the decoder is of
    try:
        return decoder.decode(raw)
    except UNREADABLE as error:
        reason = "is nested too deeply" if isinstance(error, RecursionError) else f"is no {kind}: {error}"
        raise Unreadable("json", reason) from None


def _of_resource(sent: _Resource | msgspec.Raw | None) -> Shared:
    try:
        resource: _Resource | None = _read(_resource, sent, "Resource") if isinstance(sent, msgspec.Raw) else sent
        return NOTHING_SHARED if resource is None else of_resource(_attributes(resource.attributes))
    except Unreadable as error:
        return broken(NOTHING_SHARED, error)


def _of_scope(resource: Shared, sent: _Scope | msgspec.Raw | None) -> Shared:
    try:
        scope: _Scope | None = _read(_scope, sent, "InstrumentationScope") if isinstance(sent, msgspec.Raw) else sent
        if scope is None:
            return resource
        return of_scope(resource, scope.name or "", scope.version or "", _attributes(scope.attributes))
    except Unreadable as error:
        return broken(resource, error)


def _add(made: Made, shared: Shared, sent: _Record | msgspec.Raw) -> None:
    if shared.error is not None:
        made.add_broken(shared, shared.error)
        return
    try:
        record: _Record = _read(_record, sent, "LogRecord") if isinstance(sent, msgspec.Raw) else sent
        trace, span, body = record.trace_id, record.span_id, record.body
        made.add(
            shared,
            _time(record.time_unix_nano) or _time(record.observed_time_unix_nano) or None,
            record.severity_number or 0,
            record.severity_text or "",
            "" if body is None else body.string_value or _message(body),
            _members(record.attributes),
            trace.lower() if trace and _TRACE_ID.fullmatch(trace) else None,
            span.lower() if span and _SPAN_ID.fullmatch(span) else None,
            record.event_name or "",
        )
    except Unreadable as error:
        made.add_broken(shared, error.error)


def _time(value: int | str | None) -> int:
    """0: none."""
    if isinstance(value, str):
        return _whole("timestamp", "nanoseconds since 1970", value)
    return value or 0


def _whole(field: str, expected: str, text: str) -> int:
    if text.isdecimal() and text.isascii() and len(text) <= _WHOLE_CHARS_MAX:
        return int(text)
    if _INTEGER.fullmatch(text) is None:
        raise Unreadable(field, f"expected {expected}, got {text[:60]!r}")
    return int(text)


def _message(body: _Any) -> str:
    value = _value(body)
    return "" if value is None or value == "" else json_of(value).decode()


def _members(sent: list[_KeyValue] | None) -> bytes:
    return json_of(_attributes(sent))[1:-1] if sent else b""


def _attributes(sent: list[_KeyValue] | None) -> dict[str, Any]:  # JSON
    if not sent:
        return {}
    return {
        each.key: _value(value) if (value := each.value) is None else value.string_value or _value(value)
        for each in sent
    }


def _value(value: _Any | None) -> Any:  # JSON
    if value is None:
        return None
    if value.string_value is not None:
        return value.string_value
    if value.int_value is not None:
        number = value.int_value
        return _whole("metadata", "intValue of 64 bits", number) if isinstance(number, str) else number
    if value.bool_value is not None:
        return value.bool_value
    if value.double_value is not None:
        return _double(value.double_value)
    if value.array_value is not None:
        return [_value(each) for each in value.array_value.values or ()]
    if value.kvlist_value is not None:
        return {each.key: _value(each.value) for each in value.kvlist_value.values or ()}
    return value.bytes_value


def _double(value: float | str) -> float | str:
    if isinstance(value, str):
        if value in _NON_FINITE:
            return value
        try:
            return double_of(float(value))
        except ValueError:
            raise Unreadable("metadata", f"doubleValue: expected a number, got {value[:60]!r}") from None
    return double_of(value)
