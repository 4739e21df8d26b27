"""From errors to answers: the only place of query that knows status codes. Problems are RFC 9457."""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine
from http import HTTPStatus
from typing import Any, Final

import orjson
import structlog
from fastapi import Request, Response
from fastapi.exceptions import HTTPException
from fastapi.routing import APIRoute
from pydantic import BaseModel

from access.errors import (
    AccountConflict,
    AccountUnknown,
    Forbidden,
    LoginDenied,
    LoginNotOffered,
    ProviderFaulty,
    ProviderUnavailable,
    TooManyLogins,
    Unauthenticated,
)
from query import metrics
from query.errors import (
    ConnectionNotFound,
    CursorError,
    ExperimentConflict,
    ExperimentNotFound,
    LogNotFound,
    PatternNotFound,
    SnapshotBehind,
    TooManyExports,
    TooManyScans,
    TooManyTails,
    TooManyTopicReads,
    TooManyWatchers,
    TopicGone,
    TopicNotFound,
)
from query.hosts.errors import (
    HostAway,
    HostBusy,
    HostFileNotFound,
    HostNotFound,
    HostSlow,
    HostUnreachable,
    TooManyHostReads,
)
from schemas.errors import InvalidInput, LogfeedError, Overloaded, TooManyQuestions
from schemas.pages import Problem
from search.params import ParameterError
from store.experiments import TooManyExperiments
from store.hosts import HostTaken, TooManyHosts
from store.objects.cache import ObjectTooLarge
from store.objects.port import ObjectStoreRefused
from store.personal.kept import NoRoom
from store.segments.format import SegmentDamaged

log = structlog.get_logger(__name__)

PROBLEM_TYPE: Final = "application/problem+json"
_TABLE: Final[tuple[tuple[type[LogfeedError], HTTPStatus, str, str], ...]] = (
    (CursorError, HTTPStatus.BAD_REQUEST, "cursor", "The cursor cannot be used"),
    (Unauthenticated, HTTPStatus.UNAUTHORIZED, "unauthenticated", "Who you are is not known"),
    (LoginDenied, HTTPStatus.FORBIDDEN, "login-denied", "You are not let in"),
    (LoginNotOffered, HTTPStatus.NOT_FOUND, "login-not-offered", "There is no such way in"),
    (ProviderFaulty, HTTPStatus.BAD_GATEWAY, "login-provider", "The login provider cannot be used"),
    (ProviderUnavailable, HTTPStatus.SERVICE_UNAVAILABLE, "login-provider-away", "The login provider does not answer"),
    (Forbidden, HTTPStatus.FORBIDDEN, "not-permitted", "Not permitted"),
    (LogNotFound, HTTPStatus.NOT_FOUND, "not-found", "There is no such log"),
    (PatternNotFound, HTTPStatus.NOT_FOUND, "not-found", "There is no such pattern"),
    (TopicNotFound, HTTPStatus.NOT_FOUND, "topic-not-found", "There is no such topic"),
    (TopicGone, HTTPStatus.GONE, "gap", "Records are not there any more"),
    (NoRoom, HTTPStatus.CONFLICT, "no-room", "You keep as many as you may"),
    (ExperimentNotFound, HTTPStatus.NOT_FOUND, "not-found", "There is no such experiment"),
    (ConnectionNotFound, HTTPStatus.NOT_FOUND, "not-found", "There is no such connection"),
    (ExperimentConflict, HTTPStatus.CONFLICT, "conflict", "It is otherwise by now"),
    (TooManyExperiments, HTTPStatus.CONFLICT, "too-many-experiments", "There are too many experiments"),
    (HostNotFound, HTTPStatus.NOT_FOUND, "not-found", "There is no such host"),
    (HostFileNotFound, HTTPStatus.NOT_FOUND, "not-found", "There is no such file"),
    (HostTaken, HTTPStatus.CONFLICT, "host-taken", "The host belongs to another key"),
    (TooManyHosts, HTTPStatus.CONFLICT, "too-many-hosts", "There are too many hosts"),
    (HostUnreachable, HTTPStatus.BAD_GATEWAY, "host-unreachable", "The host cannot be asked"),
    (HostSlow, HTTPStatus.GATEWAY_TIMEOUT, "host-slow", "The host does not answer in time"),
    (AccountUnknown, HTTPStatus.NOT_FOUND, "not-found", "There is no such key or user"),
    (AccountConflict, HTTPStatus.CONFLICT, "conflict", "It cannot be so"),
    (InvalidInput, HTTPStatus.UNPROCESSABLE_ENTITY, "invalid-parameter", "A parameter is not valid"),
    (SegmentDamaged, HTTPStatus.INTERNAL_SERVER_ERROR, "segment-damaged", "A file of logs is damaged"),
    (ObjectTooLarge, HTTPStatus.INTERNAL_SERVER_ERROR, "segment-unreadable", "A file of logs cannot be read here"),
    (ObjectStoreRefused, HTTPStatus.INTERNAL_SERVER_ERROR, "segment-unreadable", "A file of logs cannot be read here"),
    (TooManyLogins, HTTPStatus.TOO_MANY_REQUESTS, "too-many-logins", "Too many attempts to log in"),
    (TooManyTails, HTTPStatus.TOO_MANY_REQUESTS, "too-many-tails", "Too many tails of one subject"),
    (TooManyTopicReads, HTTPStatus.TOO_MANY_REQUESTS, "too-many-topic-reads", "Too many requests for records at once"),
    (TooManyWatchers, HTTPStatus.TOO_MANY_REQUESTS, "too-many-watchers", "Too many streams of changes of one subject"),
    (TooManyQuestions, HTTPStatus.TOO_MANY_REQUESTS, "too-many-questions", "Too many of your questions at once"),
    (TooManyExports, HTTPStatus.TOO_MANY_REQUESTS, "too-many-exports", "Too many exports of one subject"),
    (TooManyHostReads, HTTPStatus.TOO_MANY_REQUESTS, "too-many-host-reads", "Too many questions to hosts at once"),
    (HostAway, HTTPStatus.SERVICE_UNAVAILABLE, "host-away", "The host is away"),
    (HostBusy, HTTPStatus.SERVICE_UNAVAILABLE, "host-busy", "The host is busy"),
    (TooManyScans, HTTPStatus.SERVICE_UNAVAILABLE, "too-many-scans", "Too many questions at once"),
    (SnapshotBehind, HTTPStatus.SERVICE_UNAVAILABLE, "snapshot-behind", "The database is behind this walk"),
    (Overloaded, HTTPStatus.SERVICE_UNAVAILABLE, "unavailable", "The question cannot be answered now"),
)
"""First match wins: subclasses stand before their bases. (class, status, slug, title). Others are our defects: 500. What is
said of files is for those who can mend them: which one, and what to do."""

_DESCRIPTIONS: Final = {
    400: "The cursor was cut or changed, or belongs to another question or user: start again without it.",
    401: "No credentials came, or they are not valid (any more): `WWW-Authenticate` says what is expected.",
    403: "You may not do this: `detail` says what is missing.",
    404: "There is no such log, pattern, experiment, connection, host, file, key or user, or you may not read it.",
    409: "It is otherwise by now, or there is no room for another one: `detail` says which.",
    410: "Records behind this place are past their retention, or of a topic that was made again: go on from `next`.",
    422: "A parameter is unknown or not valid; `detail` says what was expected.",
    429: "Too many attempts to log in, or questions, tails, streams, reads, exports of yours at once: wait `Retry-After`.",
    500: "A file of logs is damaged or cannot be read: `detail` names it. Other times can be asked.",
    502: "The login provider, or a host's agent, cannot be reached or answers what it must not: `detail` says what to mend.",
    503: "The database is away, behind or busy: the same request may work after `Retry-After` seconds.",
    504: "A host's agent does not answer in time.",
}
_EXAMPLES: Final = {
    400: ("cursor", "The cursor cannot be used", "cursor was cut or changed, or belongs to another store"),
    401: ("unauthenticated", "Who you are is not known", "this API key is not known: it was mistyped or revoked"),
    403: ("not-permitted", "Not permitted", "you may not read the logs of any service"),
    404: ("not-found", "There is no such log", "there is no log 382110771345817600, or it may not be read"),
    409: (
        "conflict",
        "It is otherwise by now",
        "experiment exp-42 is one of training: an experiment keeps its service",
    ),
    410: (
        "gap",
        "Records are not there any more",
        "records of logs.errors behind this place are past their retention: go on from `next`",
    ),
    422: ("invalid-parameter", "A parameter is not valid", "levle: there is no such parameter: did you mean `level`?"),
    429: (
        "too-many-questions",
        "Too many of your questions at once",
        "4 of your questions are being answered, as many as one may ask at once; ask fewer at a time",
    ),
    500: (
        "segment-damaged",
        "A file of logs is damaged",
        "segment 20260105T0000-5f2a77c01d9be630-default-0.parquet is damaged: it cannot be decoded",
    ),
    502: (
        "login-provider",
        "The login provider cannot be used",
        "the login provider refuses this installation (invalid_client): check client_id and client_secret",
    ),
    503: ("unavailable", "The question cannot be answered now", "the database does not answer; try again shortly"),
    504: ("host-slow", "The host does not answer in time", "the agent of host web-1 does not answer in time"),
}
_LOGIN_EXAMPLES: Final = _EXAMPLES | {
    429: ("too-many-logins", "Too many attempts to log in", "too many failed attempts: wait 30 s")
}

_RETRY_AFTER: Final = {"Retry-After": {"description": "Whole seconds.", "schema": {"type": "integer"}}}
_HEADERS: Final = {
    401: {"WWW-Authenticate": {"description": "Bearer (RFC 6750).", "schema": {"type": "string"}}},
    429: _RETRY_AFTER,
    503: _RETRY_AFTER,
}


def problem_of(error: LogfeedError) -> Response:
    """The answer for an error. Unknown classes are 500 and say nothing of their inside."""
    row = next((row for row in _TABLE if isinstance(error, row[0])), None)
    if row is None:
        return internal()
    _, status, slug, title = row
    document: dict[str, Any] = {
        "type": f"urn:logfeed:problem:{slug}",
        "title": title,
        "status": status.value,
        "detail": str(error),
    }
    if isinstance(error, ParameterError):
        field: dict[str, Any] = {"field": error.parameter, "message": error.message}
        if error.column is not None:
            field["column"] = error.column
        document["errors"] = [field]
    if isinstance(error, TopicGone):
        document |= {"reason": error.reason, "next": error.following}
    headers = {"Retry-After": str(error.retry_after_s)} if isinstance(error, Overloaded) else {}
    if isinstance(error, Unauthenticated):
        headers["WWW-Authenticate"] = error.challenge
    return _response(document, headers)


def internal() -> Response:
    """The problem of a defect."""
    return _response(
        {
            "type": "urn:logfeed:problem:internal",
            "title": "Something went wrong here",
            "status": HTTPStatus.INTERNAL_SERVER_ERROR.value,
            "detail": "The question could not be answered for a reason that is not the asker's.",
        },
        {},
    )


def method_not_allowed(path: str) -> Response:
    """The problem of a change where things are only shown."""
    document = {
        "type": "urn:logfeed:problem:method-not-allowed",
        "title": "The path does not take this method",
        "status": HTTPStatus.METHOD_NOT_ALLOWED.value,
        "detail": f"{path} takes GET",
    }
    return _response(document, {"Allow": "GET"})


def _response(document: dict[str, Any], headers: dict[str, str]) -> Response:
    return Response(orjson.dumps(document), document["status"], headers, PROBLEM_TYPE)


def problem_responses(*statuses: int, is_login: bool = False) -> dict[int | str, dict[str, Any]]:
    """OpenAPI's description of the problems that a route answers with."""
    examples = _LOGIN_EXAMPLES if is_login else _EXAMPLES
    schema = without_references(Problem)
    return {
        status: {
            "description": _DESCRIPTIONS[status],
            "content": {
                PROBLEM_TYPE: {
                    "schema": schema,
                    "example": {
                        "type": f"urn:logfeed:problem:{examples[status][0]}",
                        "title": examples[status][1],
                        "status": status,
                        "detail": examples[status][2],
                    },
                }
            },
            **({"headers": _HEADERS[status]} if status in _HEADERS else {}),
        }
        for status in statuses
    }


def without_references(model: type[BaseModel]) -> dict[str, Any]:
    """The schema of a model in one piece: other services document a Problem of their own under the same name."""
    schema = model.model_json_schema()
    definitions = schema.pop("$defs", {})

    def resolved(node: Any) -> Any:  # any JSON value
        if isinstance(node, dict):
            if "$ref" in node:
                return resolved(definitions[node["$ref"].rpartition("/")[2]])
            return {key: resolved(value) for key, value in node.items()}
        return [resolved(each) for each in node] if isinstance(node, list) else node

    whole: dict[str, Any] = resolved(schema)
    return whole


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
                response = problem_of(error)
            except HTTPException:
                raise
            except Exception:
                log.exception("question failed", route=self.path_format)
                response = internal()
            labels = (self.path_format, str(response.status_code))
            metrics.REQUEST_SECONDS.labels(*labels).observe(time.perf_counter() - started_s)
            return response

        return handle_with_problems
