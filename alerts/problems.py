"""From errors to answers: the only place of alerting that knows status codes. Problems are RFC 9457."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from http import HTTPStatus
from typing import Any, Final

import orjson
import structlog
from fastapi import Request, Response
from fastapi.exceptions import HTTPException
from fastapi.routing import APIRoute

from access.errors import Forbidden, Unauthenticated
from alerts.errors import NoSuchRule, NoSuchSilence, RuleConflict, RuleInvalid
from schemas.errors import InvalidInput, LogfeedError, Overloaded, TooManyQuestions

log = structlog.get_logger(__name__)

PROBLEM_TYPE: Final = "application/problem+json"
_TABLE: Final[tuple[tuple[type[LogfeedError], HTTPStatus, str, str], ...]] = (
    (Unauthenticated, HTTPStatus.UNAUTHORIZED, "unauthenticated", "Who you are is not known"),
    (Forbidden, HTTPStatus.FORBIDDEN, "not-permitted", "Not permitted"),
    (NoSuchRule, HTTPStatus.NOT_FOUND, "not-found", "There is no such rule"),
    (NoSuchSilence, HTTPStatus.NOT_FOUND, "not-found", "There is no such silence"),
    (RuleConflict, HTTPStatus.CONFLICT, "conflict", "It is otherwise by now"),
    (InvalidInput, HTTPStatus.UNPROCESSABLE_ENTITY, "invalid-input", "The input is not valid"),
    (TooManyQuestions, HTTPStatus.TOO_MANY_REQUESTS, "too-many-questions", "Too many of your questions at once"),
    (Overloaded, HTTPStatus.SERVICE_UNAVAILABLE, "unavailable", "The question cannot be answered now"),
)
"""First match wins. (class, status, slug, title). Others are our defects: 500."""
_DESCRIPTIONS: Final = {
    401: "No credentials came, or they are not valid (any more).",
    403: "You may not do this: `detail` says what is missing.",
    404: "There is none of this name, or it is not yours.",
    409: "There is one of this name already, or it was changed meanwhile.",
    422: "Something is not valid; `errors` says what was expected where.",
    429: "As many of your questions as may be are being answered, or a rule of yours is being tried: `Retry-After`.",
    503: "The database is away, behind or busy: the same request may work after `Retry-After` seconds.",
}
_SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "title": "Problem (RFC 9457)",
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"field": {"type": "string"}, "message": {"type": "string"}},
                "required": ["field", "message"],
            },
        },
    },
    "required": ["type", "title", "status", "detail"],
}


def problem_of(error: LogfeedError) -> Response:
    """The answer for an error. Unknown classes are 500 and say nothing of their inside."""
    row = next((row for row in _TABLE if isinstance(error, row[0])), None)
    if row is None:
        return _internal()
    _, status, slug, title = row
    document: dict[str, Any] = _document(slug, title, status, str(error))
    if isinstance(error, RuleInvalid):
        document["errors"] = [{"field": field, "message": message} for field, message in error.problems]
    headers = {"Retry-After": str(error.retry_after_s)} if isinstance(error, Overloaded) else {}
    if isinstance(error, Unauthenticated):
        headers["WWW-Authenticate"] = error.challenge
    return Response(orjson.dumps(document), status.value, headers, PROBLEM_TYPE)


def problem_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """OpenAPI's description of the problems that a route answers with."""
    return {
        status: {"description": _DESCRIPTIONS[status], "content": {PROBLEM_TYPE: {"schema": _SCHEMA}}}
        for status in statuses
    }


class AlertRoute(APIRoute):
    """A route whose errors are answered as problems."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Wrap FastAPI's handler."""
        handle = super().get_route_handler()

        async def handle_with_problems(request: Request) -> Response:
            try:
                return await handle(request)
            except LogfeedError as error:
                return problem_of(error)
            except HTTPException:
                raise
            except Exception:
                log.exception("a question about alerts failed", route=self.path_format)
                return _internal()

        return handle_with_problems


def _document(slug: str, title: str, status: HTTPStatus, detail: str) -> dict[str, Any]:
    return {"type": f"urn:logfeed:problem:{slug}", "title": title, "status": status.value, "detail": detail}


def _internal() -> Response:
    document = _document(
        "internal",
        "Something went wrong here",
        HTTPStatus.INTERNAL_SERVER_ERROR,
        "The question could not be answered for a reason that is not the asker's.",
    )
    return Response(orjson.dumps(document), HTTPStatus.INTERNAL_SERVER_ERROR.value, None, PROBLEM_TYPE)
