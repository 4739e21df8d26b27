"""The messages of OTLP's logs as we read and write them: the protocol's own numbers and types, classes made here.

Only what we read is named, and groups of records are no messages here: `parts` walks them, which stops at a limit and hands out
one record at a time. So a record that is broken, or has a text that is no UTF-8, costs only itself, where protobuf would refuse
the whole body; and 8 MiB of empty groups do not become 300 MB.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from google.protobuf import descriptor_pb2, message_factory
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError

_Field = descriptor_pb2.FieldDescriptorProto
_TYPES: Final = {
    "string": _Field.TYPE_STRING,
    "bytes": _Field.TYPE_BYTES,
    "bool": _Field.TYPE_BOOL,
    "int32": _Field.TYPE_INT32,
    "int64": _Field.TYPE_INT64,
    "double": _Field.TYPE_DOUBLE,
    "fixed64": _Field.TYPE_FIXED64,
}
_MESSAGES: Final = {
    "LogRecord": (
        "1 fixed64 time_unix_nano",
        "2 int32 severity_number",
        "3 string severity_text",
        "5 AnyValue body",
        "6 *KeyValue attributes",
        "9 bytes trace_id",
        "10 bytes span_id",
        "11 fixed64 observed_time_unix_nano",
        "12 string event_name",
    ),
    "Resource": ("1 *KeyValue attributes",),
    "Scope": ("1 string name", "2 string version", "3 *KeyValue attributes"),
    "KeyValue": ("1 string key", "2 AnyValue value"),
    "AnyValue": (
        "1 |string string_value",
        "2 |bool bool_value",
        "3 |int64 int_value",
        "4 |double double_value",
        "5 |ArrayValue array_value",
        "6 |KeyValueList kvlist_value",
        "7 |bytes bytes_value",
    ),
    "ArrayValue": ("1 *AnyValue values",),
    "KeyValueList": ("1 *KeyValue values",),
    "Response": ("1 PartialSuccess partial_success",),
    "PartialSuccess": ("1 int64 rejected_log_records", "2 string error_message"),
    "Status": ("1 int32 code", "2 string message"),
}
"""Message -> its fields: number, type, name. `*`: many, `|`: one of those."""

RESOURCE_LOGS: Final = 1
"""Of a request."""
RESOURCE: Final = 1
SCOPE_LOGS: Final = 2
"""Of resource logs."""
SCOPE: Final = 1
LOG_RECORDS: Final = 2
"""Of scope logs."""
BODY: Final = 5
"""Of a record."""
STRING_VALUE: Final = 1
"""Of any value."""
FIELDS_MAX: Final = 200_000
"""Most fields of a message that are walked: 0.1 s. A request may have 100,000 records at most."""

_VARINT_BYTES_MAX: Final = 10
_FIXED_BYTES: Final = {1: 8, 5: 4}
"""Wire type -> size."""
_LENGTH_DELIMITED: Final = 2


def _classes() -> dict[str, Any]:  # protobuf makes them at run time
    file = descriptor_pb2.FileDescriptorProto(name="logfeed/otlp.proto", package="logfeed.otlp", syntax="proto3")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for number, kind, field_name in (field.split() for field in fields):
            field = message.field.add(name=field_name, number=int(number), label=_Field.LABEL_OPTIONAL)
            if kind.startswith("*"):
                field.label = _Field.LABEL_REPEATED
            elif kind.startswith("|"):
                if not message.oneof_decl:
                    message.oneof_decl.add(name="value")
                field.oneof_index = 0
            kind = kind.lstrip("*|")
            if kind in _TYPES:
                field.type = _TYPES[kind]
            else:
                field.type, field.type_name = _Field.TYPE_MESSAGE, f".logfeed.otlp.{kind}"
    pool = DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"logfeed.otlp.{name}")) for name in _MESSAGES
    }


_classes_of: Final = _classes()
LogRecord: Final = _classes_of["LogRecord"]
Resource: Final = _classes_of["Resource"]
Scope: Final = _classes_of["Scope"]
Response: Final = _classes_of["Response"]
Status: Final = _classes_of["Status"]


def parts(message: bytes, number: int) -> Iterator[bytes]:
    """The length-delimited fields of a message with this number, in order. Raises DecodeError, also past FIELDS_MAX."""
    at, end, wanted = 0, len(message), number << 3 | _LENGTH_DELIMITED
    for _ in range(FIELDS_MAX):
        if at == end:
            return
        tag, at = (message[at], at + 1) if message[at] < 0x80 else _varint(message, at)
        wire_type = tag & 7
        if wire_type == _LENGTH_DELIMITED:
            size, at = (message[at], at + 1) if at < end and message[at] < 0x80 else _varint(message, at)
        elif wire_type == 0:
            _, at = _varint(message, at)
            size = 0
        elif wire_type in _FIXED_BYTES:
            size = _FIXED_BYTES[wire_type]
        else:
            raise DecodeError(f"wire type {wire_type} is not in use")
        if at + size > end:
            raise DecodeError("it is cut off")
        if tag == wanted:
            yield message[at : at + size]
        at += size
    if at < end:
        raise DecodeError(f"it has more than {FIELDS_MAX} fields")


def _varint(message: bytes, at: int) -> tuple[int, int]:
    """(value, place after it)"""
    value = shift = 0
    for byte in message[at : at + _VARINT_BYTES_MAX]:
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise DecodeError("it is cut off")
