"""`application/x-protobuf`: an ExportLogsServiceRequest, read record by record: pure."""

from __future__ import annotations

from typing import Any, Final

from google.protobuf.message import DecodeError

from ingest.errors import BodyTooLarge, MalformedBody
from ingest.parse import too_many
from ingest.wire.otlp import messages
from ingest.wire.otlp.messages import parts
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

ATTRIBUTES_BYTES_MAX: Final = 256 * 1024
"""Most bytes of a record beside the text of its body, and of a resource or a scope: four times what metadata may take. Parsed,
the smallest values become twenty times as large."""
_log_record: Final = messages.LogRecord.FromString


def read_protobuf(body: bytes, *, default_service: str | None, logs_max: int) -> Made:
    """The records of a body. Raises MalformedBody, BodyTooLarge."""
    made = Made(default_service)
    groups = 0
    try:
        for resource_logs in parts(body, messages.RESOURCE_LOGS):
            groups += 1
            resource = _resource(b"".join(parts(resource_logs, messages.RESOURCE)))
            for scope_logs in parts(resource_logs, messages.SCOPE_LOGS):
                groups += 1
                if groups > 2 * logs_max:
                    raise BodyTooLarge(f"a request may have {logs_max} resources and scopes: send several requests")
                shared = _scope(resource, b"".join(parts(scope_logs, messages.SCOPE)))
                for record in parts(scope_logs, messages.LOG_RECORDS):
                    if len(made.logs) == logs_max:
                        raise too_many(logs_max + 1, logs_max)
                    _add(made, shared, record)
    except DecodeError as error:
        raise MalformedBody(f"the body is no ExportLogsServiceRequest in protobuf: {error}") from error
    return made


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


def _add(made: Made, shared: Shared, raw: bytes) -> None:
    """Measured (bench/wire_ratios.py, seven attributes): 4 µs to parse and convert, 2 for the rest."""
    if shared.error is not None:
        made.add_broken(shared, shared.error)
        return
    try:
        if len(raw) > ATTRIBUTES_BYTES_MAX:
            texts = (text for body in parts(raw, messages.BODY) for text in parts(body, messages.STRING_VALUE))
            _check_size(raw, sum(map(len, texts)))
        record = _log_record(raw)
        trace, span = record.trace_id, record.span_id
        made.add(
            shared,
            record.time_unix_nano or record.observed_time_unix_nano or None,
            record.severity_number,
            record.severity_text,
            record.body.string_value or _message(record.body),
            _attributes(record),
            trace.hex() if len(trace) == 16 and any(trace) else None,
            span.hex() if len(span) == 8 and any(span) else None,
            record.event_name,
        )
    except DecodeError as error:
        made.add_broken(shared, _no("LogRecord", error).error)
    except Unreadable as error:
        made.add_broken(shared, error.error)


def _check_size(raw: bytes, text_bytes: int) -> None:
    """text_bytes: of its body. Raises Unreadable."""
    if len(raw) - text_bytes > ATTRIBUTES_BYTES_MAX:
        raise Unreadable(
            "metadata", f"attributes may take {ATTRIBUTES_BYTES_MAX} bytes, these take {len(raw) - text_bytes}"
        )


def _no(kind: str, error: DecodeError) -> Unreadable:
    return Unreadable("protobuf", f"is no {kind} (its texts must be UTF-8): {error}")


def _message(body: Any) -> str:  # an AnyValue that has no text
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
