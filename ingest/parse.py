"""Bytes to logs: pure. All lines in one msgspec call; only when that fails, one by one to name the bad ones.

Bodies are a JSON array of objects or NDJSON, told apart by the first byte that is no white space; blank lines, CRLF and
a UTF-8 byte order mark are accepted. Strings are UTF-8; NaN, lone surrogates and numbers beyond a double are no JSON.
Of repeated keys the last wins; integers of any size are kept exactly. An item's fields outside the record are errors,
not ignored: a misspelt field would be lost otherwise. Only as many bad items as an answer lists are explained at length;
the others get their code, so that 10,000 of them keep the event loop for half a second at most.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, Final

import msgspec

from ingest.errors import REJECTED_SHOWN_MAX, BodyTooLarge, FieldError, InvalidFields, ItemError, MalformedBody
from ingest.spelling import suggestion
from ingest.timestamps import parse_timestamp, show
from schemas.levels import SEVERITY_MAX, parse_level
from schemas.record import (
    CORRELATION_ID_CHARS_MAX,
    FUTURE_MS_MAX,
    MESSAGE_BYTES_MAX,
    METADATA_BYTES_MAX,
    METADATA_DEPTH_MAX,
    SERVICE_NAME_CHARS_MAX,
    TRUNCATED_KEY,
    Log,
    is_service_name,
)

DEFAULT_LEVEL: Final = parse_level("INFO")
BOM: Final = b"\xef\xbb\xbf"
_WHITESPACE: Final = b" \t\r\n"
_ESCAPED_NUL: Final = b"u0000"
"""Without its backslash: CPython seeks up to five bytes four times faster than six."""
STORY_KEYS: Final = ("experiment_id", "connection_id")
"""Metadata keys that stand in for a missing correlation id, in this order."""
_UNKNOWN_SHOWN_MAX: Final = 10
"""Most unknown fields of one log that are named."""
_TOKENS_MAX: Final = 2_000_000
"""Most tokens looked at to split an array that is not valid JSON as a whole (about 0.5 s)."""


class Incoming(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """One log as a producer sends it; types are right, values not yet checked."""

    message: str
    service_name: str | None = None
    timestamp: str | int | float | None = None
    level: str | int | None = None
    correlation_id: str | None = None
    metadata: dict[str, Any] | None = None  # the producer's own JSON


class Malformed(msgspec.Struct):
    """One log with errors found while decoding; the fields that were readable are in `rest`."""

    code: str
    errors: list[FieldError]
    rest: Incoming


Item = Incoming | Malformed
UNREADABLE: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What decoding raises for input that is not as it should be."""

_one: Final = msgspec.json.Decoder(Incoming)
_many: Final = msgspec.json.Decoder(list[Incoming])
_raw: Final = msgspec.json.Decoder(msgspec.Raw)
_raw_many: Final = msgspec.json.Decoder(list[msgspec.Raw])
_raw_fields: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_fields: Final[dict[str, tuple[msgspec.json.Decoder[Any], str]]] = {
    "service_name": (msgspec.json.Decoder(str | None), "text"),
    "message": (msgspec.json.Decoder(str), "text"),
    "timestamp": (msgspec.json.Decoder(str | int | float | None), "text (ISO 8601) or a number since 1970"),
    "level": (msgspec.json.Decoder(str | int | None), f"a name such as INFO or a whole number 1..{SEVERITY_MAX}"),
    "correlation_id": (msgspec.json.Decoder(str | None), "text"),
    "metadata": (msgspec.json.Decoder(dict[str, Any] | None), "an object"),
}
_metadata_encoder: Final = msgspec.json.Encoder()


# --- decoding -----------------------------------------------------------------------------------------------------


def decode_batch(body: bytes, *, logs_max: int) -> list[Item]:
    """The items of a batch in order; their place in the list is their index.

    Raises BodyTooLarge past logs_max items, MalformedBody when an array is broken beyond telling its items apart,
    InvalidFields when there is no item at all.
    """
    body = body.removeprefix(BOM)
    items = _decode_array(body) if is_array(body) else _decode_lines(body, logs_max)
    if not items:
        raise InvalidFields([FieldError("body", "expected at least one log, found none")])
    if len(items) > logs_max:
        raise too_many(len(items), logs_max)
    return items


def is_array(body: bytes) -> bool:
    """True for a JSON array, False for NDJSON."""
    return (body[:1].strip(_WHITESPACE) or body.lstrip(_WHITESPACE)[:1]) == b"["


def decode_one(body: bytes) -> Item:
    """The only log of a body; `Malformed` with code `json` when it is no JSON object."""
    return _decode_items([body.removeprefix(BOM)])[0]


def may_hold_nul(body: bytes) -> bool:
    """False: no string of the body can hold a NUL (raw ones are no JSON)."""
    return _ESCAPED_NUL in body


def _decode_array(body: bytes) -> list[Item]:
    try:
        items: list[Item] = [*_many.decode(body)]
    except UNREADABLE:
        return _decode_items(_split_array(body))
    return items


def _decode_lines(body: bytes, logs_max: int) -> list[Item]:
    if body.count(b"\n") >= logs_max:
        count = sum(1 for line in body.split(b"\n") if line.strip(_WHITESPACE))
        if count > logs_max:
            raise too_many(count, logs_max)
    try:
        items: list[Item] = [*_one.decode_lines(body)]
    except UNREADABLE:
        return _decode_items(_split_lines(body))
    return items


def _decode_items(raws: list[bytes]) -> list[Item]:
    items: list[Item] = []
    malformed = 0
    for raw in raws:
        item: Item
        try:
            item = _one.decode(raw)
        except UNREADABLE:
            item = _explain(raw, at_length=malformed < REJECTED_SHOWN_MAX)
            malformed += isinstance(item, Malformed)
        items.append(item)
    return items


def _split_lines(body: bytes) -> list[bytes]:
    """The lines that are not blank; one object written over several lines is one item."""
    lines = [line for line in body.split(b"\n") if line.strip(_WHITESPACE)]
    if len(lines) > 1:
        try:
            _raw.decode(body)
        except UNREADABLE:
            return lines
        return [body]
    return lines


def _split_array(body: bytes) -> list[bytes]:
    try:
        return [bytes(raw) for raw in _raw_many.decode(body)]
    except UNREADABLE:
        return list(_scan_array(body))


_token: Final = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|\[+|\]|\{|\}|,|"', re.DOTALL)


def _scan_array(body: bytes) -> Iterator[bytes]:
    """Items of an array whose inside is not valid JSON, told apart by brackets, commas and quotes alone."""
    depth, begin = 0, 0
    for tokens, found in enumerate(_token.finditer(body)):
        if tokens > _TOKENS_MAX:
            raise MalformedBody("the JSON array is not valid and too large to look for its items: send NDJSON")
        token = found.group()
        first = token[0]
        if first == 0x5B or first == 0x7B:  # [ {
            begin = begin or found.start() + 1
            depth += len(token)
        elif first == 0x5D or first == 0x7D:  # ] }
            depth -= 1
            if depth == 0:
                last = body[begin : found.start()]
                if last.strip(_WHITESPACE):
                    yield last
                if body[found.end() :].strip(_WHITESPACE):
                    break
                return
        elif first == 0x2C and depth == 1:  # ,
            yield body[begin : found.start()]
            begin = found.end()
        elif len(token) == 1 and first == 0x22:  # a quote that never ends
            break
    raise MalformedBody("the JSON array is cut off or its brackets do not match: nothing was taken")


def _explain(raw: bytes, *, at_length: bool) -> Item:
    """Every field that cannot be decoded, by name. at_length: whether unknown ones are all named, with suggestions."""
    try:
        fields = _raw_fields.decode(raw)
    except UNREADABLE as error:
        return unreadable(error, raw)
    errors: list[FieldError] = []
    values: dict[str, Any] = {"message": ""}
    for name in [name for name in fields if name not in _fields][: _UNKNOWN_SHOWN_MAX if at_length else 1]:
        shown = name[:100]
        near = suggestion(shown, _fields) if at_length else ""
        errors.append(FieldError(shown, f"there is no such field{near or '; own fields go into metadata'}"))
    code = "unknown_field" if errors else ""
    for name, (decoder, expected) in _fields.items():
        text = fields.get(name)
        try:
            if text is not None:
                values[name] = decoder.decode(text)
            elif name in values:
                errors.append(FieldError(name, "is missing"))
        except UNREADABLE as error:
            errors.append(FieldError(name, _field_reason(error, bytes(text or b""), expected)))
        if errors and not code:
            code = name
    rest = Incoming(**values)
    return Malformed(code, errors, rest) if errors else rest


def unreadable(error: Exception, raw: bytes) -> Malformed:
    """An item that is no JSON object. error: what decoding it raised, of `UNREADABLE`."""
    match error:
        case RecursionError():
            return _no_json("nested too deeply")
        case msgspec.ValidationError() if not str(error).startswith("Expected"):
            return _no_json("holds a number that is out of range")
        case msgspec.ValidationError():
            return _no_json(f"expected a JSON object, got {_kind(raw)}")
        case _:
            return _no_json(f"not valid JSON: {_reason(error, raw)}")


def _no_json(text: str) -> Malformed:
    return Malformed("json", [FieldError("", text)], Incoming(""))


def _field_reason(error: Exception, raw: bytes, expected: str) -> str:
    match error:
        case RecursionError():
            return "nested too deeply"
        case UnicodeDecodeError():
            return "is not valid UTF-8"
        case msgspec.ValidationError() if str(error).startswith("Expected"):
            return f"expected {expected}, got {_kind(raw)}"
        case msgspec.ValidationError():
            return "holds a number that is out of range"
        case _:
            return _reason(error, raw)


def _reason(error: Exception, raw: bytes) -> str:
    if isinstance(error, UnicodeDecodeError):
        return "a key is not valid UTF-8"
    if re.search(rb"\\u[dD][89a-fA-F]", raw):
        return "a \\ud800..\\udfff escape without its other half is no character"
    return str(error).removeprefix("JSON is malformed: ").removeprefix("Input data was ")


def _kind(raw: bytes) -> str:
    first = raw.lstrip(_WHITESPACE)[:1]
    kinds = {
        b'"': "text",
        b"[": "an array",
        b"{": "an object",
        b"t": "true",
        b"f": "false",
        b"n": "null",
        b"": "nothing",
    }
    return kinds.get(first, "a number")


def too_many(count: int, logs_max: int) -> BodyTooLarge:
    """What a request of more logs than one may hold is refused with."""
    return BodyTooLarge(f"a request may hold {logs_max} logs, this one has {count}: send several")


# --- values -------------------------------------------------------------------------------------------------------


class Window(msgspec.Struct, frozen=True):
    """When the request was received, and which event times are taken: microseconds since the Unix epoch."""

    received_us: int
    oldest_us: int
    newest_us: int

    @classmethod
    def at(cls, received_ms: int, retention_days: int) -> Window:
        """The window of a request received at this time."""
        received_us = received_ms * 1000
        return cls(received_us, received_us - retention_days * 86_400_000_000, received_us + FUTURE_MS_MAX * 1000)


def to_log(
    item: Item, log_id: int, window: Window, *, may_hold_nul: bool, default_service: str | None = None
) -> Log | ItemError:
    """The record, or every reason why it is none. May change the item's metadata in place.

    default_service: of an item that names none.
    """
    if isinstance(item, Malformed):
        return _item_error(item, window, default_service)
    if may_hold_nul:
        item = _without_nul(item)
    errors: list[FieldError] = []
    service_name = default_service if item.service_name is None else item.service_name
    is_named = service_name is not None
    service_name = service_name or ""
    if not is_named:
        errors.append(FieldError("service_name", "is missing"))
    timestamp = _timestamp(item, window, errors)
    level = _level(item, errors)
    if is_named and not _is_service(service_name):
        errors.append(_service_error(service_name))
    metadata = item.metadata or {}
    if metadata:
        _check_metadata(metadata, errors)
    correlation_id = item.correlation_id or _story(metadata)
    if correlation_id is not None and len(correlation_id) > CORRELATION_ID_CHARS_MAX:
        found = len(correlation_id)
        errors.append(
            FieldError("correlation_id", f"expected at most {CORRELATION_ID_CHARS_MAX} characters, got {found}")
        )
    if errors:
        return ItemError(errors[0].field, tuple(errors), service_name if _is_service(service_name) else "")
    message = item.message
    if may_hold_nul:
        metadata = _clean(metadata)
    if len(message) > MESSAGE_BYTES_MAX // 4:
        message, metadata = _cut(message, metadata)
    return Log(log_id, timestamp, level, service_name, message, correlation_id, metadata)


def _item_error(item: Malformed, window: Window, default_service: str | None) -> ItemError:
    """Errors of decoding, then those of the values that could be decoded."""
    errors = list(item.errors)
    service_name = item.rest.service_name or ""
    service_name = service_name if _is_service(service_name) else ""
    if item.code != "json":
        checked = to_log(item.rest, 0, window, may_hold_nul=True, default_service=default_service)
        named = {error.field for error in errors}
        if isinstance(checked, ItemError):
            errors.extend(error for error in checked.errors if error.field not in named)
    return ItemError(item.code, tuple(errors), service_name)


_is_known_service = lru_cache(maxsize=4096)(is_service_name)


def _is_service(name: str) -> bool:
    """As `is_service_name`, remembered; only short names are, so that the cache stays small."""
    return len(name) <= SERVICE_NAME_CHARS_MAX and _is_known_service(name)


def _service_error(found: str) -> FieldError:
    return FieldError(
        "service_name",
        f"expected 1..100 ASCII letters, digits and . _ - / , got {found[:100]!r} ({len(found)} characters)",
    )


def _timestamp(item: Incoming, window: Window, errors: list[FieldError]) -> int:
    if item.timestamp is None:
        return window.received_us
    try:
        timestamp = parse_timestamp(item.timestamp)
    except ValueError as error:
        errors.append(FieldError("timestamp", str(error)))
        return window.received_us
    if timestamp < window.oldest_us:
        days = (window.received_us - window.oldest_us) // 86_400_000_000
        errors.append(FieldError("timestamp", f"{show(timestamp)} is older than the retention of {days} days"))
    elif timestamp > window.newest_us:
        ahead = FUTURE_MS_MAX // 60_000
        errors.append(
            FieldError("timestamp", f"{show(timestamp)} is more than {ahead} minutes ahead of the server's clock")
        )
    return timestamp


def _level(item: Incoming, errors: list[FieldError]) -> int:
    level = item.level
    if level is None:
        return DEFAULT_LEVEL
    if isinstance(level, str):
        try:
            return parse_level(level)
        except ValueError:
            errors.append(FieldError("level", f"expected {_fields['level'][1]}, got {level[:60]!r}"))
    elif 1 <= level <= SEVERITY_MAX:
        return level
    else:
        errors.append(FieldError("level", f"expected 1..{SEVERITY_MAX}, got {str(level)[:60]}"))
    return DEFAULT_LEVEL


def _check_metadata(metadata: dict[str, Any], errors: list[FieldError]) -> None:
    try:
        encoded = _metadata_encoder.encode(metadata)
    except RecursionError:
        errors.append(FieldError("metadata", f"may be nested {METADATA_DEPTH_MAX} deep"))
        return
    if len(encoded) > METADATA_BYTES_MAX:
        errors.append(FieldError("metadata", f"may take {METADATA_BYTES_MAX} bytes of JSON, this takes {len(encoded)}"))
    brackets = encoded.count(b"{") + encoded.count(b"[")
    if brackets > METADATA_DEPTH_MAX and _depth(metadata, METADATA_DEPTH_MAX) > METADATA_DEPTH_MAX:
        errors.append(FieldError("metadata", f"may be nested {METADATA_DEPTH_MAX} deep"))


def _depth(value: Any, limit: int) -> int:
    """Depth of nesting, looked at down to one below the limit."""
    if not isinstance(value, (dict, list)) or limit < 0:
        return 0
    members = value.values() if isinstance(value, dict) else value
    return 1 + max((_depth(member, limit - 1) for member in members), default=0)


def _story(metadata: dict[str, Any]) -> str | None:
    for key in STORY_KEYS:
        value = metadata.get(key)
        if isinstance(value, (str, int)) and not isinstance(value, bool) and value != "":
            story = str(value)
            if len(story) <= CORRELATION_ID_CHARS_MAX:
                return story
    return None


def _cut(message: str, metadata: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    encoded = message.encode()
    if len(encoded) <= MESSAGE_BYTES_MAX:
        return message, metadata
    return encoded[:MESSAGE_BYTES_MAX].decode(errors="ignore"), {**metadata, TRUNCATED_KEY: True}


def _without_nul(item: Incoming) -> Incoming:
    """The item with its metadata still as it was: that is cleaned once its depth is known to be bounded."""
    return Incoming(
        service_name=_clean(item.service_name),
        message=_clean(item.message),
        timestamp=item.timestamp,
        level=item.level,
        correlation_id=_clean(item.correlation_id) or _clean(_story(item.metadata or {})),
        metadata=item.metadata,
    )


def _clean(value: Any) -> Any:
    """NUL, which PostgreSQL cannot hold, becomes U+FFFD."""
    if isinstance(value, str):
        return value.replace("\0", "\ufffd")
    if isinstance(value, dict):
        return {_clean(key): _clean(member) for key, member in value.items()}
    if isinstance(value, list):
        return [_clean(member) for member in value]
    return value
