"""A document as shippers of Elasticsearch send it (Elastic Common Schema), as a log: pure.

What a field of the record says is taken out of the document, whether it is written nested (`{"log": {"level": …}}`) or
dotted (`{"log.level": …}`); all the rest is the log's metadata, as it came. What cannot be read as a level stays where it
is, and the log is INFO: shippers pass on what programs of any kind write, and a word of theirs costs no log.

Measured (bench/wire_formats.py): 1.5 µs a document of nine fields.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, Final

import msgspec
from msgspec import Raw

from ingest.errors import FieldError
from ingest.parse import Incoming, Malformed
from ingest.quick import PlainLog
from ingest.timestamps import parse_timestamp
from schemas.levels import parse_level
from schemas.record import CORRELATION_ID_CHARS_MAX, SERVICE_NAME_CHARS_MAX

UNKNOWN_SERVICE: Final = "unknown_service"
"""Of documents that name none, where the key does not decide."""
INDEX_KEY: Final = "_index"
"""Metadata: the index of a document that names no service."""
ID_KEY: Final = "_id"
"""Metadata: the id that the client gave."""
SERVICE_KEYS: Final = ("service_name", "service", "app", "application")
"""After `service.name`."""
LEVEL_KEYS: Final = ("level", "severity", "lvl", "loglevel", "SeverityText")
"""After `log.level`."""
MESSAGE_KEYS: Final = ("message", "msg", "log")
"""The first that is text. Without any the message is the document's JSON."""
STORY_KEYS: Final = ("trace_id", "correlation_id")
"""After `trace.id`."""
_LEVEL_CHARS_MAX: Final = 40
_TIMES: Final = (str, int, float)
_no_service: Final = re.compile(r"[^A-Za-z0-9._/-]")
_encode: Final = msgspec.json.Encoder().encode

Document = dict[str, Any]
"""The client's own JSON."""


def log_of(
    document: Document, index: str | None, document_id: str | None, default_service: str | None
) -> PlainLog | Malformed:
    """The log that a document is; takes fields out of it and writes what is left as its metadata. Raises nothing.

    index, document_id: of its action. default_service: of documents that name none; None leaves that to the key.
    """
    message: Any = document.get("message")
    if type(message) is str:
        del document["message"]
    else:
        try:
            message = _other_message(document)
        except RecursionError:
            return _too_deep(default_service)
    timestamp: Any = document.get("@timestamp")
    if timestamp is None:
        timestamp = _other_time(document)
    elif type(timestamp) in _TIMES:
        del document["@timestamp"]
    else:
        problem = "expected text (ISO 8601) or a number since 1970"
        return Malformed("timestamp", [FieldError("@timestamp", problem)], Incoming("", default_service))
    # Nested is how nearly all write them, and calls cost more than what they do.
    inside: Any = document.get("log")
    level = _severity(inside.get("level")) if type(inside) is dict else None
    if level is None:
        level = _other_level(document)
    elif len(inside) == 1:
        del document["log"]
    else:
        del inside["level"]
    inside = document.get("trace")
    story = inside.get("id") if type(inside) is dict else None
    if type(story) is not str or not 0 < len(story) <= CORRELATION_ID_CHARS_MAX:
        story = _other_story(document)
    elif len(inside) == 1:
        del document["trace"]
    else:
        del inside["id"]
    inside = document.get("service")
    name = inside.get("name") if type(inside) is dict else None
    if type(name) is not str or not name:
        name = _other_service(document)
    elif len(inside) == 1:
        del document["service"]
    else:
        del inside["name"]
    if name is None:
        service = default_service
        if index is not None:
            document[INDEX_KEY] = index
    else:
        service = _as_service(name)
        if service != name:
            document["service.name"] = name
    if document_id is not None:
        document[ID_KEY] = document_id
    if not document:
        return PlainLog(message, service, timestamp, level, story)
    try:
        return PlainLog(message, service, timestamp, level, story, Raw(_encode(document)))
    except RecursionError:
        return _too_deep(service)


def _too_deep(service: str | None) -> Malformed:
    return Malformed("metadata", [FieldError("", "nested too deeply")], Incoming("", service))


def _other_message(document: Document) -> str:
    for key in MESSAGE_KEYS:
        text = document.get(key)
        if type(text) is str:
            del document[key]
            return text
        if text is not None and key == "message":
            del document[key]
            return _encode(text).decode()
    return _encode(document).decode()


def _other_time(document: Document) -> str | int | float | None:
    """`timestamp`, as Vector calls it, where it is a time: nobody promised that."""
    time: Any = document.get("timestamp")
    if type(time) not in _TIMES:
        return None
    try:
        parse_timestamp(time)
    except (ValueError, OverflowError):
        return None
    del document["timestamp"]
    found: str | int | float = time
    return found


def _other_service(document: Document) -> str | None:
    for key in ("service.name", *SERVICE_KEYS):
        name = document.get(key)
        if name and type(name) is str:
            del document[key]
            return name
    return None


def _other_level(document: Document) -> int | None:
    for key in ("log.level", *LEVEL_KEYS):
        severity = _severity(document.get(key))
        if severity is not None:
            del document[key]
            return severity
    return None


def _other_story(document: Document) -> str | None:
    for key in ("trace.id", *STORY_KEYS):
        story = document.get(key)
        if story and type(story) is str and len(story) <= CORRELATION_ID_CHARS_MAX:
            del document[key]
            return story
    return None


def _severity(text: object) -> int | None:
    return _severity_of(text) if type(text) is str and len(text) <= _LEVEL_CHARS_MAX else None


@lru_cache(maxsize=1024)
def _severity_of(text: str) -> int | None:
    try:
        return parse_level(text)
    except ValueError:
        return None


def _as_service(name: str) -> str:
    """The nearest name that a service may have: what is no letter, digit or `. _ - /` becomes `_`."""
    return _known_name(name) if len(name) <= SERVICE_NAME_CHARS_MAX else _known_name(name[:SERVICE_NAME_CHARS_MAX])


@lru_cache(maxsize=4096)
def _known_name(name: str) -> str:
    return _no_service.sub("_", name)
