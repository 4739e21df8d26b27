"""Topic and consumer group names, and the records of derived topics.

key      the log's service, UTF-8
value    the log as the API writes it (schemas/log.schema.json), UTF-8 JSON
headers  v: "1". id: the log's id. partition, offset: the record of the logs' topic it was in; index: its place among that
         record's logs, from 0. All decimal text

A record may come again, with the same id and the same place: who must not see it twice leaves out ids it has.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from schemas.frames import Headers

LOGS_TOPIC: Final = "logs.v1"
"""Frames (schemas/frames.py), the one input of the writers."""

WRITER_GROUP: Final = "logfeed-writer"
"""Group under which the writers' stored offsets are shown to the broker: for lag displays and the retention guard."""

RECORD_VERSION: Final = b"1"
"""Of a derived topic's records."""


class TopicKind(StrEnum):
    """What decides which logs a derived topic has."""

    ERRORS = "errors"
    SERVICE = "service"
    ROUTE = "route"


@dataclass(frozen=True, slots=True)
class TopicInfo:
    """A derived topic that the settings name."""

    name: str
    kind: TopicKind
    description: str
    """For people."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where in the logs' topic a log was read."""

    partition: int
    offset: int
    index: int


def record_headers(log_id: int, source: Source) -> Headers:
    """Headers of a log's record."""
    return [
        ("v", RECORD_VERSION),
        ("id", b"%d" % log_id),
        ("partition", b"%d" % source.partition),
        ("offset", b"%d" % source.offset),
        ("index", b"%d" % source.index),
    ]


def source_of(headers: Headers) -> Source | None:
    """Where the log of a record was read; None for what the router did not write."""
    found = dict(headers)
    if found.get("v") != RECORD_VERSION:
        return None
    try:
        return Source(*(int(found[name]) for name in ("partition", "offset", "index")))
    except (KeyError, ValueError):
        return None
