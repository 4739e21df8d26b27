"""Errors as RFC 9457 problems: the one table from class to status."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import orjson
from fastapi import Response

from access.errors import Forbidden, Unauthenticated
from db.worker_ids import ClockSkewed
from ingest import metrics
from ingest.body import ENCODINGS
from ingest.errors import (
    BodyTooLarge,
    BodyTooSlow,
    ConnectionNotFound,
    InvalidFields,
    KeyReused,
    MalformedBody,
    NothingAccepted,
    NotPermitted,
    RateLimited,
    RetentionAtRisk,
    TextConflict,
    UnsupportedBody,
)
from ingest.receive import rejected_list
from schemas.errors import InvalidInput, LogfeedError, Overloaded, RecordTooLarge
from store.connections.texts import TooManyConnections

PROBLEM_JSON: Final = "application/problem+json"
_TABLE: Final[tuple[tuple[type[LogfeedError], int, str, str], ...]] = (
    (MalformedBody, 400, "malformed-body", "The body cannot be read"),
    (Unauthenticated, 401, "unauthenticated", "Who you are is not known"),
    (Forbidden, 403, "not-permitted", "Not permitted"),
    (NotPermitted, 403, "not-permitted", "Not permitted"),
    (ConnectionNotFound, 404, "not-found", "There is no such connection"),
    (BodyTooSlow, 408, "body-too-slow", "The body arrived too slowly"),
    (TextConflict, 409, "conflict", "Another text is stored"),
    (TooManyConnections, 409, "too-many-connections", "There are too many connections"),
    (BodyTooLarge, 413, "body-too-large", "The body is too large"),
    (RecordTooLarge, 413, "record-too-large", "The request makes too large a record"),
    (UnsupportedBody, 415, "unsupported-body", "The body's type or encoding is not supported"),
    (KeyReused, 422, "key-reused", "The Idempotency-Key was used with another body"),
    (NothingAccepted, 422, "nothing-accepted", "No log of the batch is valid"),
    (InvalidFields, 422, "invalid-fields", "Fields are not valid"),
    (InvalidInput, 422, "invalid-input", "The input is not valid"),
    (RateLimited, 429, "rate-limited", "A rate limit refuses the request"),
    (RetentionAtRisk, 503, "retention-at-risk", "Unstored logs are close to being lost"),
    (Overloaded, 503, "unavailable", "The request cannot be taken now"),
    (ClockSkewed, 503, "unavailable", "The request cannot be taken now"),
)
"""First match wins: subclasses stand before their bases. (class, status, slug, title)"""


def problem(
    *, status: int, slug: str, title: str, detail: str, headers: dict[str, str] | None = None, **members: Any
) -> Response:
    """A problem document. members: further fields of it, JSON values."""
    document = {"type": f"urn:logfeed:problem:{slug}", "title": title, "status": status, "detail": detail, **members}
    return Response(orjson.dumps(document), status_code=status, media_type=PROBLEM_JSON, headers=headers)


@dataclass(frozen=True, slots=True)
class Refusal:
    """What an error is to a client, in whatever form its protocol has for errors."""

    status: int
    slug: str
    title: str
    detail: str
    headers: dict[str, str]


_INTERNAL: Final = Refusal(
    500,
    "internal",
    "Something went wrong here",
    "The request failed for a reason that is not the caller's. It may have been stored.",
    {},
)


def refusal_of(error: Exception) -> Refusal:
    """The refusal of an error, counted. Unknown classes are 500 and say nothing of their inside."""
    for kind, status, slug, title in _TABLE:
        if isinstance(error, kind):
            metrics.REFUSALS.labels(reason=slug).inc()
            return Refusal(status, slug, title, str(error), _headers(error, status))
    metrics.REFUSALS.labels(reason=_INTERNAL.slug).inc()
    return _INTERNAL


def problem_of(error: Exception) -> Response:
    """The problem of an error."""
    refusal = refusal_of(error)
    return problem(
        status=refusal.status,
        slug=refusal.slug,
        title=refusal.title,
        detail=refusal.detail,
        headers=refusal.headers,
        **_members(error),
    )


def _headers(error: Exception, status: int) -> dict[str, str]:
    headers = {}
    if isinstance(error, Unauthenticated):
        headers["WWW-Authenticate"] = error.challenge
    if isinstance(error, Overloaded):
        headers["Retry-After"] = str(error.retry_after_s)
    if isinstance(error, UnsupportedBody):
        headers["Accept-Encoding"] = ", ".join(ENCODINGS)
    if status in (401, 403, 404, 408, 409, 413, 415):
        headers["Connection"] = "close"  # what is left of the body is not read
    return headers


def _members(error: Exception) -> dict[str, Any]:
    if isinstance(error, InvalidFields):
        return {"errors": [{"field": each.field, "message": each.message} for each in error.errors]}
    if isinstance(error, NothingAccepted):
        return {"rejected_count": len(error.rejected), "rejected": rejected_list(error.rejected)}
    return {}
