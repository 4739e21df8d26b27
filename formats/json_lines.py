"""JSON lines: one object a line, under the names that loggers give to the same things.

A line of `logfeed export` (or of the API) is the log it was; its id and its time of receiving are left behind, since they are
given anew. Of other lines a field that is not the time, level, message, service or correlation id keeps its name and goes to
metadata; so does the loser when two fields could be the same thing. A line that is no JSON object is left to the plain parser.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final, TypeVar

import orjson

from formats.entry import Entry, read_level
from formats.times import TimeReader
from schemas.export_lines import COLUMNS
from schemas.levels import LEVELS, SEVERITY_MAX
from schemas.record import CORRELATION_ID_CHARS_MAX

_NAMES: Final = {
    "time": "timestamp @timestamp time ts datetime date eventtime @t asctime t",
    "level": "level severity severitytext severity_text loglevel log_level lvl log.level levelname priority @l severitynumber"
    " severity_number",
    "message": "message msg body @m @mt event log text short_message",
    "service": "service_name service.name service servicename app application",
    "correlation": "correlation_id correlationid correlation-id trace_id traceid trace.id request_id requestid x-request-id"
    " x_request_id req_id reqid",
}
"""Role -> lower-case names, the more telling first."""

_ROLES: Final = {name: (role, rank) for role, names in _NAMES.items() for rank, name in enumerate(names.split())}
_NESTED: Final = {("log", "level"): "log.level", ("service", "name"): "service.name", ("trace", "id"): "trace.id"}
"""Elastic's common schema, written as objects."""

_OUTER: Final = frozenset(outer for outer, _ in _NESTED)

_SHORT_CHARS: Final = 4_096
_OWN: Final = frozenset(COLUMNS)
"""Names of the fields of our own lines."""
_BUNYAN: Final = dict(zip((10, 20, 30, 40, 50, 60), LEVELS.values(), strict=True))
"""The numbers of bunyan and pino: trace 10 to fatal 60."""


Value = TypeVar("Value")


def parse_json(text: str, times: TimeReader) -> Entry | None:
    """What the line says; None when it is no JSON object."""
    try:
        fields = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(fields, dict):
        return None
    if fields.keys() == _OWN and (entry := _own(fields, times)) is not None:
        return entry
    return _Reading(fields, times, is_short=len(text) <= _SHORT_CHARS).entry(text)


def _own(fields: dict[str, Any], times: TimeReader) -> Entry | None:
    """Of a line that this program wrote; None when its values are not of the kinds that it writes."""
    texts = (fields["timestamp"], fields["service_name"], fields["message"])
    if not all(isinstance(text, str) for text in texts) or not isinstance(fields["metadata"], dict):
        return None
    severity, correlation_id = _read_severity("severity", fields["severity"]), fields["correlation_id"]
    time_us = times.any(fields["timestamp"])
    if severity is None or time_us is None or not isinstance(correlation_id, str | None):
        return None
    return Entry(
        message=fields["message"],
        time_us=time_us,
        severity=severity,
        correlation_id=correlation_id,
        service_name=fields["service_name"],
        metadata=fields["metadata"],
        is_complete=True,
    )


class _Reading:
    """One object being read: the fields by role, what is left becomes metadata."""

    def __init__(self, fields: dict[str, Any], times: TimeReader, *, is_short: bool) -> None:
        """is_short: its names may be remembered."""
        self.fields, self.times = fields if _OUTER.isdisjoint(fields) else _flatten(fields), times
        self.candidates = (_remembered if is_short else _candidates)(tuple(self.fields))

    def entry(self, text: str) -> Entry:
        time_us = self.take("time", self.read_time)
        severity = self.take("level", _read_severity)
        correlation_id = self.take("correlation", _read_correlation)
        service_name = self.take("service", _read_text) or None
        message = self.take("message", _read_text)
        return Entry(
            message=text if message is None else message.rstrip("\r\n"),
            time_us=time_us,
            severity=severity,
            correlation_id=correlation_id,
            service_name=service_name,
            metadata=self.fields,
        )

    def take(self, role: str, read: Callable[[str, Any], Value | None]) -> Value | None:
        """Move the first field that can play the role out of the fields. read: (lower-case name, JSON value) -> value."""
        for name, lower in self.candidates.get(role, ()):
            value = read(lower, self.fields[name])
            if value is not None:
                del self.fields[name]
                return value
        return None

    def read_time(self, _name: str, value: Any) -> int | None:
        if isinstance(value, str):
            return self.times.any(value)
        return self.times.epoch(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _candidates(names: tuple[str, ...]) -> dict[str, list[tuple[str, str]]]:
    """Role -> the names that can play it, also in lower case, the most telling first. Not to be changed."""
    ranked: dict[str, list[tuple[int, str]]] = {}
    for name in names:
        if role := _ROLES.get(name.lower()):
            ranked.setdefault(role[0], []).append((role[1], name))
    return {role: [(name, name.lower()) for _, name in sorted(found)] for role, found in ranked.items()}


_remembered: Final = lru_cache(maxsize=256)(_candidates)
"""Lines of one program have the same names."""


def _flatten(fields: dict[str, Any]) -> dict[str, Any]:
    """Lifts the few nested names that say a role out of their objects; the rest of those objects stays."""
    for (outer, inner), name in _NESTED.items():
        nested = fields.get(outer)
        if isinstance(nested, dict) and isinstance(nested.get(inner), str) and name not in fields:
            fields[name] = nested.pop(inner)
            if not nested:
                del fields[outer]
    return fields


def _read_text(_name: str, value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _read_severity(name: str, value: Any) -> int | None:
    if isinstance(value, str):
        return read_level(value)
    if not isinstance(value, int) or isinstance(value, bool):
        return None
    if name.startswith("severity"):
        return value if 1 <= value <= SEVERITY_MAX else None
    return _BUNYAN.get(value)


def _read_correlation(_name: str, value: Any) -> str | None:
    text = str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""
    return text if 0 < len(text) <= CORRELATION_ID_CHARS_MAX else None
