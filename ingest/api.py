"""The HTTP edge: `POST /api/v1/logs` and `POST /api/v1/logs/batch`.

A handler checks what needs no body, reads the body within its limits, and hands it on. Every outcome is JSON: an answer
or a problem (RFC 9457). Bodies are read raw, so that size, encoding and per-item errors are ours to judge.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from functools import lru_cache
from typing import Any, Final, Protocol

import orjson
import structlog
from fastapi import Request, Response
from prometheus_client import Histogram
from starlette.requests import ClientDisconnect

from access.errors import Forbidden
from access.principal import Authenticate, Principal
from ingest import metrics, openapi
from ingest.body import read_body
from ingest.errors import FieldError, InvalidFields, UnsupportedBody
from ingest.in_flight import Hold, InFlight
from ingest.problems import problem_of
from ingest.receive import Answer, Received
from ingest.records import Records
from ingest.settings import IngestSettings
from ingest.spelling import suggestion
from runtime.direct import DirectRouter
from schemas.errors import LogfeedError

log = structlog.get_logger(__name__)

_CLIENT_GONE: Final = 499
_JSON_TYPES: Final = frozenset({"", "application/json", "application/octet-stream"})
_LINE_TYPES: Final = frozenset(
    {"application/x-ndjson", "application/ndjson", "application/jsonl", "application/x-jsonlines"}
)


class TakesLogs(Protocol):
    """What the edge needs of the service behind it."""

    settings: IngestSettings
    in_flight: InFlight
    authenticate: Authenticate

    def check(self, principal: Principal) -> None:
        """Raises when a request of theirs would be refused whatever its body is."""

    async def take_one(self, body: bytes, hold: Hold, principal: Principal, key: str | None) -> Answer:
        """One log; closes the hold."""

    async def take_batch(
        self, body: bytes, hold: Hold, principal: Principal, key: str | None, *, return_ids: bool
    ) -> Answer:
        """A batch; closes the hold."""

    async def take_records(
        self,
        body: bytes,
        hold: Hold,
        principal: Principal,
        key: str | None,
        *,
        route: str,
        read: Callable[[bytes, Principal], Records],
        answer: Callable[[Received], Answer],
    ) -> Answer:
        """What `read` finds in a body of any format, maybe nothing; closes the hold. answer: also to nothing."""

    def ready(self) -> list[str]:
        """What keeps the service from taking logs, for people; empty when it is ready."""


Handler = Callable[[Request, Principal], Awaitable[Response]]


async def answered(
    path: str,
    handle: Handler,
    service: TakesLogs,
    request: Request,
    refuse: Callable[[Exception], Response] = problem_of,
) -> Response:
    """The handler's answer, or errors as `refuse` words them; measured."""
    started_s = time.perf_counter()
    try:
        principal = await service.authenticate(request)
        if principal.may_write.is_empty:
            raise Forbidden("you may not send logs of any service")
        response = await handle(request, principal)
    except ClientDisconnect:
        response = Response(status_code=_CLIENT_GONE)
    except Exception as error:
        if not isinstance(error, LogfeedError):
            log.exception("request failed", path=path)
        response = refuse(error)
    _seconds(path, response.status_code).observe(time.perf_counter() - started_s)
    return response


@lru_cache(maxsize=256)
def _seconds(path: str, status: int) -> Histogram:
    """The histogram of one route and status; paths and statuses are few."""
    return metrics.REQUEST_SECONDS.labels(route=path, status=str(status))


def make_router(service: TakesLogs) -> DirectRouter:
    """The routes of one service."""
    router = DirectRouter(tags=["ingest"])

    async def send_log(request: Request, principal: Principal) -> Response:
        check_query(request, known=())
        _check_content_type(request, lines=False)
        service.check(principal)
        body, hold = await read_held(service, request, principal)
        answer = await service.take_one(body, hold, principal, request.headers.get("idempotency-key"))
        headers = {}
        if answer.status == 201:
            headers["Location"] = f"/api/v1/logs/{orjson.loads(answer.body)['log_id']}"
        return _json(answer, headers)

    async def send_batch(request: Request, principal: Principal) -> Response:
        check_query(request, known=("return_ids",))
        _check_content_type(request, lines=True)
        return_ids = _flag(request, "return_ids")
        service.check(principal)
        body, hold = await read_held(service, request, principal)
        key = request.headers.get("idempotency-key")
        return _json(await service.take_batch(body, hold, principal, key, return_ids=return_ids))

    def add(path: str, handle: Handler, **documentation: Any) -> None:  # Any: FastAPI's arguments are of many types
        async def answer(request: Request) -> Response:
            return await answered(path, handle, service, request)

        router.add_direct("POST", path, answer, name=handle.__name__, status_code=201, **documentation)

    add(
        "/api/v1/logs",
        send_log,
        summary="Send one log",
        description=openapi.ONE_DESCRIPTION,
        responses=openapi.ONE_RESPONSES,
        openapi_extra=openapi.ONE_REQUEST,
    )
    add(
        "/api/v1/logs/batch",
        send_batch,
        summary="Send many logs",
        description=openapi.BATCH_DESCRIPTION,
        responses=openapi.BATCH_RESPONSES,
        openapi_extra=openapi.BATCH_REQUEST,
    )
    return router


async def read_held(
    service: TakesLogs, request: Request, principal: Principal, *, content_encoding: str | None = None
) -> tuple[bytes, Hold]:
    """The body, and the hold on its bytes, which whoever gets it closes. content_encoding: None: as the head says."""
    length = request.headers.get("content-length", "")
    hold = service.in_flight.hold(principal.subject)
    try:
        body = await read_body(
            request.stream(),
            content_encoding=request.headers.get("content-encoding", "")
            if content_encoding is None
            else content_encoding,
            content_length=int(length) if length.isdecimal() else None,
            bytes_max=service.settings.body_bytes_max,
            deadline_s=service.settings.body_deadline_s,
            grow=hold.grow,
        )
    except BaseException:
        hold.close()
        raise
    return body, hold


def _json(answer: Answer, headers: dict[str, str] | None = None) -> Response:
    return Response(answer.body, status_code=answer.status, media_type="application/json", headers=headers)


def check_query(request: Request, *, known: tuple[str, ...]) -> None:
    """Raises InvalidFields for parameters that there are not."""
    errors = [
        FieldError(name[:100], f"there is no such query parameter{suggestion(name[:100], known)}")
        for name in request.query_params
        if name not in known
    ]
    if errors:
        raise InvalidFields(errors)


def _flag(request: Request, name: str) -> bool:
    text = request.query_params.get(name, "false")
    if text not in ("true", "false"):
        raise InvalidFields([FieldError(name, f"expected true or false, got {text[:60]!r}")])
    return text == "true"


def _check_content_type(request: Request, *, lines: bool) -> None:
    kind, _, parameters = request.headers.get("content-type", "").lower().partition(";")
    kind = kind.strip()
    charset = parameters.partition("charset=")[2].strip(' "')
    if charset not in ("", "utf-8", "utf8", "us-ascii"):
        raise UnsupportedBody(f"charset {charset[:60]!r} is not supported: send UTF-8")
    taken = kind in _JSON_TYPES or kind.endswith("+json") or kind == "text/json"
    if lines and not taken:
        taken = kind in _LINE_TYPES or kind.startswith("text/")
    if not taken:
        expected = "application/json or application/x-ndjson" if lines else "application/json"
        raise UnsupportedBody(f"Content-Type {kind[:60]!r} is not supported: send {expected}")
