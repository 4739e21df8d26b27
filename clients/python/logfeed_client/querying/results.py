"""What the server answers, as types: pure. What does not have the documented shape raises NotLogfeed; unknown members are
left out, so that a newer server can be asked."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, TypeVar

from logfeed_client.errors import NotLogfeed

Json = Mapping[str, Any]
"""An object of JSON: values of any kind."""
Kind = TypeVar("Kind")
_SHOWN_CHARS: Final = 200


@dataclass(frozen=True, slots=True)
class Log:
    """One log."""

    id: str
    """Decimal digits."""
    timestamp: datetime
    """When it happened, as the producer said; with a zone, in microseconds."""
    received_at: datetime
    """When Logfeed took it, in milliseconds."""
    level: str
    """TRACE, DEBUG, INFO, WARN, ERROR or FATAL."""
    severity: int
    """OpenTelemetry severity number, 1..24."""
    service_name: str
    message: str
    correlation_id: str | None
    metadata: Mapping[str, Any]
    """The producer's own: values of JSON."""


@dataclass(frozen=True, slots=True)
class Page:
    """Some logs of a walk, in its order."""

    logs: list[Log]
    next_cursor: str | None
    """Goes on; None is the end, however few logs this page has."""
    prev_cursor: str | None = None
    scanned_to: datetime | None = None
    """How far the page came where its time ended it."""
    visible_through: datetime | None = None
    """Everything acknowledged before could be in this page."""
    tail: str | None = None
    """`from_token` of the tail that goes on behind a walk's first page."""
    withheld: bool = False
    """Of a correlation id: it has more logs, of services that you may not read."""


@dataclass(frozen=True, slots=True)
class LogContext:
    """A log and its neighbours in its service, in order of time."""

    before: list[Log]
    log: Log
    after: list[Log]
    complete: bool
    """False: the server's time ended before all neighbours were found."""


@dataclass(frozen=True, slots=True)
class Bucket:
    """Logs of a stretch of time."""

    start_time: datetime
    counts: Mapping[str, int]
    """By level; levels without logs are left out."""


@dataclass(frozen=True, slots=True)
class Histogram:
    """How many logs match, over time."""

    start_time: datetime
    end_time: datetime
    """Exclusive."""
    bucket_s: int
    """Width of each bucket."""
    buckets: list[Bucket]
    """Ascending; empty ones are left out."""
    total: int
    counted_from: datetime | None
    """Earlier logs are not counted: the server's time ended. None: all are."""
    is_estimated: bool


@dataclass(frozen=True, slots=True)
class TailGap:
    """Logs that a tail cannot show any more: find them by pages with this query string."""

    reason: str
    """`expired`, `remade`, `newer`."""
    query: str


def read(body: bytes, build: Callable[[Json], Kind]) -> Kind:
    """An answer's body, as one of the types here. Raises NotLogfeed."""
    try:
        document = json.loads(body)
        if not isinstance(document, dict):
            raise TypeError("no object")
        return build(document)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        shown = body[:_SHOWN_CHARS].decode("utf-8", "replace")
        raise NotLogfeed(f"the answer is none of Logfeed's ({type(error).__name__}): {shown!r}") from error


def log_of(document: Json) -> Log:
    """Raises ValueError, KeyError, TypeError."""
    correlation_id, metadata = document["correlation_id"], document["metadata"]
    if not isinstance(metadata, dict):
        raise TypeError("metadata")
    return Log(
        _text(document["id"]),
        _time(document["timestamp"]),
        _time(document["received_at"]),
        _text(document["level"]),
        _whole(document["severity"]),
        _text(document["service_name"]),
        _text(document["message"]),
        None if correlation_id is None else _text(correlation_id),
        metadata,
    )


def logs_of(documents: Any) -> list[Log]:
    """documents: a list. Raises as `log_of`."""
    if not isinstance(documents, list):
        raise TypeError("logs")
    return [log_of(document) for document in documents]


def page_of(document: Json) -> Page:
    """Of `/logs` and of a correlation id. Raises as `log_of`."""
    return Page(
        logs_of(document["logs"]),
        _maybe(_text, document["next_cursor"]),
        _maybe(_text, document.get("prev_cursor")),
        _maybe(_time, document.get("scanned_to")),
        _maybe(_time, document.get("visible_through")),
        _maybe(_text, document.get("tail")),
        document.get("withheld") is True,
    )


def one_of(document: Json) -> Log:
    """Of `/logs/{id}`. Raises as `log_of`."""
    return log_of(document["log"])


def context_of(document: Json) -> LogContext:
    """Raises as `log_of`."""
    return LogContext(
        logs_of(document["before"]),
        log_of(document["log"]),
        logs_of(document["after"]),
        document["complete"] is True,
    )


def histogram_of(document: Json) -> Histogram:
    """Raises as `log_of`."""
    return Histogram(
        _time(document["start_time"]),
        _time(document["end_time"]),
        _whole(document["bucket_s"]),
        [
            Bucket(_time(each["start_time"]), {_text(level): _whole(n) for level, n in each["counts"].items()})
            for each in document["buckets"]
        ],
        _whole(document["total"]),
        _maybe(_time, document["counted_from"]),
        document["is_estimated"] is True,
    )


def _time(value: Any) -> datetime:
    found = datetime.fromisoformat(_text(value))
    if found.tzinfo is None:
        raise ValueError("a time without a zone")
    return found


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("expected a text")
    return value


def _whole(value: Any) -> int:
    if type(value) is not int:
        raise TypeError("expected a whole number")
    return value


def _maybe(build: Callable[[Any], Kind], value: Any) -> Kind | None:
    return None if value is None else build(value)
