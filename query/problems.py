"""From errors to answers: the only place of query that knows status codes. Problems are RFC 9457."""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine
from http import HTTPStatus
from typing import Any, Final

import orjson
import structlog
from fastapi import Request, Response
from fastapi.exceptions import HTTPException, RequestValidationError
from fastapi.routing import APIRoute

from query import metrics
from query.errors import CursorError, InvalidParameter, LogNotFound
from schemas.errors import InvalidInput, LogfeedError, Overloaded
from schemas.pages import Problem

log = structlog.get_logger(__name__)

PROBLEM_TYPE: Final = "application/problem+json"
STATUS: Final[dict[type[LogfeedError], HTTPStatus]] = {
    CursorError: HTTPStatus.BAD_REQUEST,
    InvalidInput: HTTPStatus.UNPROCESSABLE_ENTITY,
    LogNotFound: HTTPStatus.NOT_FOUND,
    Overloaded: HTTPStatus.SERVICE_UNAVAILABLE,
}
"""The nearest class in an error's ancestry decides; anything else is a defect of ours: 500."""

_DESCRIPTIONS: Final = {
    400: "The cursor was cut or changed, or belongs to another question or user: start again without it.",
    404: "There is no such log, or you may not read it.",
    422: "A parameter is unknown or not valid; `detail` says what was expected.",
    503: "The database is away, behind or busy: the same request may work after `Retry-After` seconds.",
}
_EXAMPLES: Final = {
    400: "cursor was cut or changed, or belongs to another store; start again without it",
    404: "there is no log 382110771345817600, or it may not be read",
    422: "there is no parameter `levle`: did you mean `level`?",
    503: "the database does not answer; try again shortly",
}


def status_of(error: LogfeedError) -> HTTPStatus:
    """The status code an error is answered with."""
    for ancestor in type(error).__mro__:
        if ancestor in STATUS:
            return STATUS[ancestor]
    return HTTPStatus.INTERNAL_SERVER_ERROR


def problem(error: LogfeedError) -> Response:
    """The answer for an error."""
    status = status_of(error)
    body: dict[str, Any] = {
        "type": "about:blank",
        "title": status.phrase,
        "status": status.value,
        "detail": str(error),
    }
    if isinstance(error, InvalidParameter):
        body["parameter"] = error.parameter
        if error.column is not None:
            body["column"] = error.column
    headers = {"Retry-After": str(error.retry_after_s)} if isinstance(error, Overloaded) else {}
    if status is HTTPStatus.INTERNAL_SERVER_ERROR:
        log.error("question failed", error=str(error), kind=type(error).__name__)
        body["detail"] = "the question could not be answered because of a defect on our side"
    return Response(orjson.dumps(body, option=orjson.OPT_NON_STR_KEYS), status, headers, PROBLEM_TYPE)


def problem_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """OpenAPI's description of the problems that a route answers with."""
    schema = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
    return {
        status: {
            "description": _DESCRIPTIONS[status],
            "content": {
                PROBLEM_TYPE: {
                    "schema": schema,
                    "example": {
                        "type": "about:blank",
                        "title": HTTPStatus(status).phrase,
                        "status": status,
                        "detail": _EXAMPLES[status],
                    },
                }
            },
            **(
                {"headers": {"Retry-After": {"description": "Whole seconds.", "schema": {"type": "integer"}}}}
                if status == HTTPStatus.SERVICE_UNAVAILABLE
                else {}
            ),
        }
        for status in statuses
    }


class ProblemRoute(APIRoute):
    """A route whose errors are answered as problems, and whose time is measured."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Wrap FastAPI's handler."""
        handle = super().get_route_handler()

        async def handle_with_problems(request: Request) -> Response:
            started_s = time.perf_counter()
            try:
                response = await handle(request)
            except LogfeedError as error:
                response = problem(error)
            except (HTTPException, RequestValidationError):
                raise
            except Exception:
                log.exception("question failed", route=self.path_format)
                response = problem(LogfeedError())
            labels = (self.path_format, str(response.status_code))
            metrics.REQUEST_SECONDS.labels(*labels).observe(time.perf_counter() - started_s)
            return response

        return handle_with_problems
