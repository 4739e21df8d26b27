"""The HTTP edge of connections' texts: `PUT /api/v1/connections/{id}` and `PUT /api/v1/connections/{id}/logs/{side}`."""

from __future__ import annotations

import re
from typing import Annotated, Final

import orjson
from fastapi import APIRouter, Path, Request, Response
from pydantic import ValidationError

from access.errors import Forbidden
from access.principal import Principal
from connections.metrics import Side
from ingest import openapi
from ingest.api import TakesLogs, answered, check_query
from ingest.body import read_body
from ingest.connections.intake import Intake, Taken
from ingest.connections.spool import Spool
from ingest.errors import FieldError, InvalidFields, MalformedBody, UnsupportedBody
from ingest.problems import problem
from schemas.connections import ID_PATTERN, RESERVED_IDS, ConnectionIn
from search.params import ParameterError, parse_time
from store.connections.texts import ConnectionDetails

BODY_BYTES_MAX: Final = 16 * 1024
_BODY_S_MAX: Final = 10.0
_JSON: Final = "application/json"
_ID: Final = re.compile(ID_PATTERN.removeprefix("^").removesuffix("$"))
ConnectionId = Annotated[
    str,
    Path(
        description=f"The connection's id: {ID_PATTERN}, but not `statistics`.",
        examples=["1001"],
    ),
]
SidePath = Annotated[str, Path(description="Whose log it is: `server` or `client`.", examples=["server"])]


def make_connections_router(intake: Intake, service: TakesLogs) -> APIRouter:
    """service: whose authentication is asked."""
    router = APIRouter(prefix="/api/v1/connections", tags=["connections"])

    @router.put("/statistics", include_in_schema=False)
    async def no_such_connection() -> Response:
        """No connection is called so: the path takes GET alone."""
        return problem(
            status=405,
            slug="method-not-allowed",
            title="The path does not take this method",
            detail="/api/v1/connections/statistics takes GET",
            headers={"Allow": "GET"},
        )

    @router.put(
        "/{connection_id}",
        summary="Make or change a connection",
        response_class=Response,
        response_model=None,
        responses=openapi.CONNECTION_RESPONSES,
        openapi_extra=openapi.CONNECTION_REQUEST,
    )
    async def put_connection(connection_id: ConnectionId, request: Request) -> Response:
        """Who was connected: put before its logs. Needs `write` for the service of either side."""

        async def handle(request: Request, principal: Principal) -> Response:
            check_query(request, known=())
            _check_id(connection_id)
            services = map(intake.settings.service_of, Side)
            if not any(map(principal.may_write.permits, services)):
                raise Forbidden("you may not write the logs of either side of connections")
            details = await _details(request, now_us=intake.clock.now_us())
            is_new = await intake.put(connection_id, details, principal.subject)
            return Response(orjson.dumps({"id": connection_id}), 201 if is_new else 200, None, _JSON)

        return await answered("/api/v1/connections/{connection_id}", handle, service, request)

    @router.put(
        "/{connection_id}/logs/{side}",
        summary="Send a log of a connection",
        response_class=Response,
        response_model=None,
        responses=openapi.TEXT_RESPONSES,
        openapi_extra=openapi.TEXT_REQUEST,
    )
    async def put_connection_log(connection_id: ConnectionId, side: SidePath, request: Request) -> Response:
        """The whole text, as often as you like: what is stored of it is not stored again, what is new is added, another text is
        refused (409). A text that was interrupted goes on when it is sent again. 250,000 lines and 64 MiB at most."""

        async def handle(request: Request, principal: Principal) -> Response:
            check_query(request, known=("time",))
            _check_id(connection_id)
            whose, shifts = _side(side), _shifts(request)
            service_name = intake.settings.service_of(whose)
            if not principal.may_write.permits(service_name):
                raise Forbidden(f"you may not write the logs of {service_name}")
            _check_text_type(request)
            settings = intake.settings
            with intake.room(principal.subject), Spool() as spool:
                await spool.receive(
                    request.stream(),
                    bytes_max=settings.text_bytes_max,
                    lines_max=settings.lines_max,
                    deadline_s=settings.text_deadline_s,
                )
                taken = await intake.take(connection_id, whose, spool, principal, shifts=shifts)
            return _text_answer(connection_id, whose, taken)

        return await answered("/api/v1/connections/{connection_id}/logs/{side}", handle, service, request)

    return router


def _text_answer(connection_id: str, side: Side, taken: Taken) -> Response:
    document = {
        "id": connection_id,
        "side": side,
        "lines": taken.lines,
        "added": taken.added,
        "filtered": taken.filtered,
        "rejected": taken.rejected,
        "shift_s": taken.shift_us / 1e6,
    }
    return Response(orjson.dumps(document), 201 if taken.added else 200, None, _JSON)


def _check_id(connection_id: str) -> None:
    if _ID.fullmatch(connection_id) is None or connection_id in RESERVED_IDS:
        expected = "1 to 128 of A-Z a-z 0-9 . _ : -, a letter or digit first, and not `statistics`"
        raise InvalidFields([FieldError("connection_id", f"expected {expected}, got {connection_id[:60]!r}")])


def _side(text: str) -> Side:
    if text not in list(Side):
        raise InvalidFields([FieldError("side", f"expected server or client, got {text[:60]!r}")])
    return Side(text)


def _shifts(request: Request) -> bool:
    values = request.query_params.getlist("time")
    if len(values) > 1 or not set(values) <= {"keep", "shift"}:
        raise InvalidFields([FieldError("time", "expected keep or shift, once")])
    return values == ["shift"]


def _check_text_type(request: Request) -> None:
    kind, _, parameters = request.headers.get("content-type", "").lower().partition(";")
    if kind.strip() not in ("", "text/plain", "application/octet-stream"):
        raise UnsupportedBody(f"Content-Type {kind.strip()[:60]!r} is not supported: send text/plain")
    charset = parameters.partition("charset=")[2].strip(' "')
    if charset not in ("", "utf-8", "utf8", "us-ascii"):
        raise UnsupportedBody(f"charset {charset[:60]!r} is not supported: send UTF-8")
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        raise UnsupportedBody(f"Content-Encoding {encoding[:60]!r} is not supported here: send the text as it is")


async def _details(request: Request, *, now_us: int) -> ConnectionDetails:
    """Raises InvalidFields, and what reading raises."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != _JSON:
        raise UnsupportedBody(f"Content-Type {kind[:60]!r} is not supported: send application/json")
    body = await read_body(
        request.stream(),
        content_encoding=request.headers.get("content-encoding", ""),
        content_length=None,
        bytes_max=BODY_BYTES_MAX,
        deadline_s=_BODY_S_MAX,
        grow=lambda _: None,
    )
    try:
        content = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise MalformedBody(f"the body is no JSON: {error}") from error
    try:
        document = ConnectionIn.model_validate(content)
        last_updated_us = parse_time(document.last_updated, now_us, parameter="last_updated")
    except ValidationError as error:
        problems = error.errors(include_url=False, include_input=False)[:20]
        raise InvalidFields([FieldError(_place(each["loc"]), each["msg"]) for each in problems]) from error
    except ParameterError as error:
        raise InvalidFields([FieldError(error.parameter, error.message)]) from error
    for field in ("username", "ip", "version"):
        if "\0" in getattr(document, field):
            raise InvalidFields([FieldError(field, "cannot have U+0000 in it")])
    return ConnectionDetails(document.username, document.ip, document.version, last_updated_us)


def _place(location: tuple[int | str, ...]) -> str:
    return ".".join(map(str, location))[:100].encode("utf-8", "replace").decode() or "body"
