"""Protobuf read so that what is broken costs only itself, and that what repeats is read at once.

Messages are declared field by field as far as they are read, and made by Google's library, whose work in C costs next to
nothing: what costs is each object that crosses over to Python. So two properties of the encoding are used. A text, or a message
inside of another, may be declared as bytes, which are the same on the wire: it is handed over as it is, and checked where it is
read. And messages one after the other are one message with all of their fields: a thousand attributes are read as one message
with two columns, keys and values, which become two lists.

Sources: protobuf.dev, "Encoding"; measured by bench/wire_ratios.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
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
FIELDS_MAX: Final = 200_000
"""Most fields of a message that are walked: 0.1 s. A request may have 100,000 records at most."""
_AT_ONCE_BYTES_MAX: Final = 1024 * 1024
"""Largest message whose fields the library counts: each may be two bytes there and takes 24 in its memory."""
_VARINT_BYTES_MAX: Final = 10
_VARINT: Final = 0
_LENGTH_DELIMITED: Final = 2
_FIXED_BYTES: Final = {1: 8, 5: 4}
"""Wire type -> size."""


def message_classes(package: str, messages: Mapping[str, Sequence[str]]) -> dict[str, Any]:  # made at run time
    """Classes of messages. messages: name -> fields as `number type name`; `*type`: many, `|type`: one of those."""
    file = descriptor_pb2.FileDescriptorProto(
        name=f"logfeed/{package}.proto", package=f"logfeed.{package}", syntax="proto3"
    )
    for name, fields in messages.items():
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
                field.type, field.type_name = _Field.TYPE_MESSAGE, f".logfeed.{package}.{kind}"
    pool = DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"logfeed.{package}.{name}"))
        for name in messages
    }


_classes: Final = message_classes(
    "columns",
    {
        "Group": ("1 *bytes ones", "2 *bytes twos"),
        "Texts": ("1 *string keys", "2 *string values"),
        "Values": ("1 *string keys", "2 *bytes values"),
    },
)
_group: Final = _classes["Group"].FromString
_texts: Final = _classes["Texts"].FromString
_values: Final = _classes["Values"].FromString


def group(message: bytes) -> tuple[list[bytes], list[bytes]]:
    """The contents of fields 1 and 2 of a message, both length-delimited, in order. 0.3 µs a field; 1 in messages of more
    than a MiB. Raises DecodeError, there also past FIELDS_MAX."""
    if len(message) <= _AT_ONCE_BYTES_MAX:
        found = _group(message)
        return found.ones[:], found.twos[:]
    ones: list[bytes] = []
    twos: list[bytes] = []
    for number, content in _fields(message):
        if number == 1:
            ones.append(content)
        elif number == 2:
            twos.append(content)
    return ones, twos


def parts(message: bytes, number: int) -> list[bytes]:
    """The length-delimited fields of a message with this number, in order. Raises DecodeError, also past FIELDS_MAX."""
    return [content for found, content in _fields(message) if found == number]


def texts_of(pairs: Sequence[bytes]) -> tuple[list[str], list[str]] | None:
    """Keys and values (fields 1 and 2), both texts, of pairs; None: one of them is broken, or has not one of each."""
    found = _columns(_texts, pairs)
    return None if found is None else (found.keys[:], found.values[:])


def values_of(pairs: Sequence[bytes]) -> tuple[list[str], list[bytes]] | None:
    """As `texts_of`, the values unread."""
    found = _columns(_values, pairs)
    return None if found is None else (found.keys[:], found.values[:])


def _columns(
    read: Any, pairs: Sequence[bytes]
) -> Any:  # the parser of a class with keys and values; one of these, or None
    try:
        found = read(b"".join(pairs))
    except DecodeError:
        return None
    return found if len(found.keys) == len(found.values) == len(pairs) else None


def _fields(message: bytes) -> Iterator[tuple[int, bytes]]:
    """(number, content) of the length-delimited fields. Raises DecodeError."""
    at, end = 0, len(message)
    for _ in range(FIELDS_MAX):
        if at == end:
            return
        tag, at = (message[at], at + 1) if message[at] < 0x80 else varint(message, at)
        wire_type = tag & 7
        if wire_type == _LENGTH_DELIMITED:
            size, at = (message[at], at + 1) if at < end and message[at] < 0x80 else varint(message, at)
        elif wire_type == _VARINT:
            _, at = varint(message, at)
            size = 0
        elif wire_type in _FIXED_BYTES:
            size = _FIXED_BYTES[wire_type]
        else:
            raise DecodeError(f"wire type {wire_type} is not in use")
        if at + size > end:
            raise DecodeError("it is cut off")
        if wire_type == _LENGTH_DELIMITED:
            yield tag >> 3, message[at : at + size]
        at += size
    if at < end:
        raise DecodeError(f"it has more than {FIELDS_MAX} fields")


def varint(message: bytes, at: int) -> tuple[int, int]:
    """(value, place after it). Raises DecodeError."""
    value = shift = 0
    for byte in message[at : at + _VARINT_BYTES_MAX]:
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise DecodeError("it is cut off")
