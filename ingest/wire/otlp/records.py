"""What becomes of OTLP's records, whichever way they were written: pure.

| of OTLP | here |
|---|---|
| `time_unix_nano`, else `observed_time_unix_nano`, else now | `timestamp` |
| `severity_number`, else `severity_text`, else an attribute of `LEVEL_KEYS`, else INFO | `level` |
| resource `service.name` | `service_name` |
| `body`: its text, or its JSON; without one the `event_name` | `message` |
| `trace_id`, else the attribute `correlation_id` | `correlation_id` |
| attributes of record, scope and resource (of one name the first of these), `span_id`, scope | `metadata` |

Metadata are written as JSON here, what records share once for all of them, and not opened again where they are unremarkable
(`ingest/quick.py`).
"""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final

import msgspec
import orjson

from ingest.errors import BodyTooLarge, FieldError
from ingest.parse import Incoming, Malformed
from ingest.quick import NO_METADATA, PlainLog
from ingest.records import EXPANDED_BYTES_MAX
from schemas.levels import SEVERITY_MAX, parse_level
from schemas.record import CORRELATION_ID_CHARS_MAX, SERVICE_NAME_CHARS_MAX, is_service_name

UNKNOWN_SERVICE: Final = "unknown_service"
"""The service of records that name none; SDKs send it themselves, with `:` and a program's name."""
LEVEL_KEYS: Final = ("log.level", "level", "severity", "lvl", "loglevel")
"""Attributes that stand in for a severity, in this order."""
_LEVEL_TEXT_CHARS_MAX: Final = 40
_NO_SERVICE_CHARACTER: Final = re.compile(r"[^A-Za-z0-9._/-]")
_SERVICE_NAME: Final = "service.name"
_CORRELATION: Final = b'"correlation_id"'


class Unreadable(Exception):
    """A record, or what it shares with others, is not as it should be."""

    def __init__(self, field_name: str, message: str) -> None:
        """message: for people."""
        super().__init__(f"{field_name}: {message}")
        self.error = FieldError(field_name, message)


def json_of(value: Any) -> bytes:
    """JSON text of a value."""
    try:
        return orjson.dumps(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise Unreadable("metadata", f"cannot be written as JSON: {error}") from None


def double_of(value: float) -> float | str:
    """As JSON has it: what no JSON number is becomes its name, as in protobuf's own JSON."""
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def bytes_of(value: bytes) -> str:
    """In base64, as in protobuf's own JSON."""
    return base64.b64encode(value).decode()


@dataclass(frozen=True, slots=True)
class Shared:
    """What records have in common: of a resource, or of a resource and a scope."""

    service_name: str | None = None
    """None: the resource names none."""
    attributes: Mapping[str, Any] = field(default_factory=dict)  # JSON
    """As metadata have them."""
    error: FieldError | None = None
    """What is wrong with it, and so with each of its records."""
    raw: msgspec.Raw = field(default_factory=lambda: NO_METADATA)
    """The attributes."""
    begin: bytes = b"{"
    """Their JSON, to be followed by further members."""


NOTHING_SHARED: Final = Shared()


def of_resource(attributes: dict[str, Any]) -> Shared:
    """What a resource's records share. Raises Unreadable."""
    sent = attributes.get(_SERVICE_NAME)
    name = _service_of(sent) if isinstance(sent, str) else None
    if name is not None and name == sent:
        del attributes[_SERVICE_NAME]
    return _shared(name, attributes, None)


def of_scope(resource: Shared, name: str, version: str, attributes: dict[str, Any]) -> Shared:
    """What a scope's records share. Raises Unreadable."""
    if name:
        attributes["otel.scope.name"] = name
    if version:
        attributes["otel.scope.version"] = version
    together = {**resource.attributes, **attributes}
    return _shared(resource.service_name, together, resource.error)


def _shared(service_name: str | None, attributes: Mapping[str, Any], error: FieldError | None) -> Shared:
    if not attributes:
        return Shared(service_name, error=error)
    text = json_of(attributes)
    return Shared(service_name, attributes, error, msgspec.Raw(text), text[:-1] + b",")


def broken(shared: Shared, error: Unreadable) -> Shared:
    """What is shared where it cannot be read."""
    return Shared(shared.service_name, error=shared.error or error.error)


@dataclass(slots=True)
class Made:
    """The records of one request."""

    default_service: str | None
    """Of records that name none; None: whoever takes them knows."""
    logs: list[PlainLog | Malformed] = field(default_factory=list)
    have_own_times: bool = True
    metadata_bytes: int = 0

    def add(
        self,
        shared: Shared,
        timestamp_ns: int | None,
        severity: int,
        severity_text: str,
        message: str,
        members: bytes,
        correlation_id: str | None,
        span_id: str | None,
        event_name: str,
    ) -> None:
        """One more record. members: its own attributes alone, as of a JSON object that orjson wrote. Positional, since it is
        called for each record.

        Raises Unreadable, BodyTooLarge past EXPANDED_BYTES_MAX.
        """
        if len(severity_text) <= _LEVEL_TEXT_CHARS_MAX:
            level, has_own_text = _level_of(severity, severity_text)
        else:
            level, has_own_text = severity or None, True
        if level is None:
            level = _level_among(shared.attributes, orjson.loads(b"{%b}" % members))
        if correlation_id is None and _CORRELATION in members:
            correlation_id = _correlation(orjson.loads(b"{%b}" % members).get("correlation_id"))
        if has_own_text or span_id is not None or event_name:
            members = _with(members, severity_text if has_own_text else "", span_id, event_name)
            message = message or event_name
        metadata = shared.raw
        if members:
            metadata = msgspec.Raw(shared.begin + members + b"}")
        self.metadata_bytes += len(metadata)
        if self.metadata_bytes > EXPANDED_BYTES_MAX:
            raise BodyTooLarge(
                f"attributes of the records, those of their resources with each, take more than {EXPANDED_BYTES_MAX} bytes: "
                "send several requests"
            )
        if timestamp_ns is None:
            self.have_own_times = False
        service_name = shared.service_name or self.default_service
        self.logs.append(PlainLog(message, service_name, timestamp_ns, level, correlation_id, metadata))

    def add_broken(self, shared: Shared, error: FieldError) -> None:
        """One that cannot be read."""
        rest = Incoming("", service_name=shared.service_name or self.default_service)
        self.logs.append(Malformed(error.field, [error], rest))


def _with(members: bytes, severity_text: str, span_id: str | None, event_name: str) -> bytes:
    """Members, and those of these that there are."""
    more: dict[str, str] = {}
    if severity_text:
        more["severity_text"] = severity_text
    if span_id is not None:
        more["span_id"] = span_id
    if event_name:
        more["event_name"] = event_name
    written = json_of(more)[1:-1]
    return members + b"," + written if members else written


def _service_of(name: str) -> str | None:
    """A name that a service may have: other characters become `_`. None where an SDK was told none."""
    if not name or name == UNKNOWN_SERVICE or name.startswith(UNKNOWN_SERVICE + ":"):
        return None
    return name if is_service_name(name) else _NO_SERVICE_CHARACTER.sub("_", name[:SERVICE_NAME_CHARS_MAX])


@lru_cache(maxsize=1024)
def _level_of(severity: int, text: str) -> tuple[int | None, bool]:
    """(level, None where nothing says one; whether the text says more than the level does)"""
    if not text:
        return severity or None, False
    try:
        of_text = parse_level(text)
    except ValueError:
        return severity or None, True
    return severity or of_text, severity != 0 and (of_text - 1) // 4 != (severity - 1) // 4


def _level_among(shared: Mapping[str, Any], own: Mapping[str, Any]) -> int | None:
    for key in LEVEL_KEYS:
        value = own.get(key, shared.get(key))
        if isinstance(value, str):
            try:
                return parse_level(value)
            except ValueError:
                continue
        if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= SEVERITY_MAX:
            return value
    return None


def _correlation(value: object) -> str | None:
    return value if isinstance(value, str) and 0 < len(value) <= CORRELATION_ID_CHARS_MAX else None
