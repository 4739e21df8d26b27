"""What the query API answers: the shapes, for the OpenAPI document, and the one way a log is written as JSON.

The models document and test the answers; at run time bodies are written directly by orjson (measured: validating a page of
1,000 logs would cost ten times its encoding). Ids are decimal strings, because they pass 2^53; times are ISO 8601 in UTC
with microseconds. Metadata goes out through msgspec, which keeps integers of any size.
"""

from __future__ import annotations

from typing import Any

import msgspec
import orjson
from pydantic import BaseModel, ConfigDict, Field

from schemas.ids import received_ms
from schemas.levels import level_name
from schemas.record import Log
from schemas.times import time_text

_metadata = msgspec.json.Encoder()


def log_json(log: Log) -> dict[str, Any]:
    """A log as orjson writes it; see LogModel."""
    return {
        "id": str(log.id),
        "timestamp": time_text(log.timestamp),
        "received_at": time_text(received_ms(log.id) * 1000),
        "level": level_name(log.level),
        "severity": log.level,
        "service_name": log.service_name,
        "message": log.message,
        "correlation_id": log.correlation_id,
        "metadata": orjson.Fragment(_metadata.encode(log.metadata)),
    }


class Answer(BaseModel):
    """Base of every answer."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)


class LogModel(Answer):
    """One log."""

    id: str = Field(pattern=r"^\d{1,19}$", examples=["382110771345817600"])
    """Decimal text: it can be larger than a JavaScript number holds."""
    timestamp: str = Field(examples=["2026-11-22T12:34:56.123456Z"])
    """When it happened, as the producer said."""
    received_at: str = Field(examples=["2026-11-22T12:34:56.300000Z"])
    """When Logfeed took it, in milliseconds."""
    level: str = Field(examples=["ERROR"])
    """TRACE, DEBUG, INFO, WARN, ERROR or FATAL."""
    severity: int = Field(ge=1, le=24, examples=[17])
    """OpenTelemetry severity number."""
    service_name: str = Field(examples=["checkout"])
    message: str = Field(examples=["payment refused after 3 attempts"])
    correlation_id: str | None = Field(examples=["4bf92f3577b34da6a3ce929d0e0e4736"])
    metadata: dict[str, Any] = Field(examples=[{"customer": "c-17", "attempts": 3}])


class LogPage(Answer):
    """A page of logs, in the order asked for."""

    logs: list[LogModel]
    count: int = Field(ge=0, examples=[1])
    """Logs in this page."""
    next_cursor: str | None
    """Goes on with the next page; null when nothing follows. Only null means the end, however few logs this page has."""
    prev_cursor: str | None
    """Leads back to the page before this one; null when no log of the walk comes before it."""
    scanned_to: str | None
    """Set when the page's time budget (or size) ended the search: it came this far, `next_cursor` goes on."""
    visible_through: str | None
    """Everything acknowledged before this time could be in this page; null when nothing was stored yet."""
    tail: str | None
    """`from` of the tail that shows exactly what comes after this page's moment; null where the question has an end, and on
    later pages."""


class OneLog(Answer):
    """A log asked for by its id."""

    log: LogModel


class LogContext(Answer):
    """A log and its neighbours in the same service, all in order of time."""

    before: list[LogModel]
    log: LogModel
    after: list[LogModel]
    complete: bool
    """False: the time budget ended before the neighbours asked for were found; there may be more."""


class CorrelationPage(Answer):
    """Logs with one correlation id, oldest first, over all services and all time."""

    logs: list[LogModel]
    next_cursor: str | None
    """Goes on; null when nothing follows. Only null means the end."""
    withheld: bool
    """The story has more logs, of services that you may not read."""


class ServiceModel(Answer):
    """One service."""

    service_name: str = Field(examples=["checkout"])
    last_seen: str = Field(examples=["2026-11-22T12:34:00.000000Z"])
    """Minute in which the last stored log was received."""
    counts: dict[str, int] = Field(examples=[{"INFO": 1200, "ERROR": 3}])
    """Logs ever stored, by level."""


class ServiceList(Answer):
    """Every service that may be read, by name."""

    services: list[ServiceModel]


class LedgerSums(Answer):
    """What became of logs that were received. Balanced: received = stored + filtered + rejected + duplicate + dead."""

    received: int
    stored: dict[str, int]
    """By level."""
    filtered: dict[str, int]
    """By rule."""
    rejected: dict[str, int]
    """By reason."""
    duplicate: int
    dead_lettered: dict[str, int]
    """By reason."""
    balanced: bool


class LedgerMinute(LedgerSums):
    """One service in one minute of reception. Service '': lines whose service could not be read."""

    minute: str
    service_name: str


class LedgerAnswer(Answer):
    """The ledger of a stretch of time."""

    rows: list[LedgerMinute]
    totals: LedgerSums
    unread: dict[str, int] | None
    """Partition -> records that are accepted and not stored yet; null when the broker does not answer now."""


class InvalidParameter(BaseModel):
    """One parameter that is not valid."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    field: str = Field(examples=["limit"])
    message: str = Field(examples=["expected 1..1000, got 5000"])
    column: int | None = None
    """1-based place in the value, where one is meant."""


class Problem(BaseModel):
    """A problem (RFC 9457)."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    type: str = Field(examples=["urn:logfeed:problem:invalid-parameter"])
    """Names the kind of problem; stable."""
    title: str = Field(examples=["A parameter is not valid"])
    """The kind, for people."""
    status: int = Field(examples=[422])
    detail: str = Field(examples=["limit: expected 1..1000, got 5000"])
    """What happened, what was expected, what to do."""
    errors: list[InvalidParameter] | None = None
    """The parameter that is not valid (422)."""
