"""The HTTP edge of hosts: /api/v1/hosts. See docs/hosts.md.

What comes before the first byte of a file is a problem; what comes later is said by its last record.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Annotated, Any, Final

import structlog
from fastapi import APIRouter, Path, Request, Response
from starlette.responses import StreamingResponse

from access.audit import QUESTION_CHARS_MAX, AuditLog, Change
from access.errors import Forbidden
from access.principal import Authenticate, Principal
from query import params
from query.api import documented
from query.audit import look_of
from query.hosts.parameters import FILES, HOSTS, READ, parse_files, parse_hosts, parse_read
from query.hosts.records import Form
from query.hosts.service import Hosts
from query.json_body import read_json
from query.long_answer import LongAnswer
from query.problems import ProblemRoute, problem_responses, without_references
from runtime.path_text import any_text
from runtime.traceparent import traceparent_of
from runtime.tracing import current, traceparent_of_span
from schemas.access import SECURITY
from schemas.hosts import HOST_PATTERN, HostFileList, HostHeartbeat, HostList, HostRegistered
from search.params import ParameterError

log = structlog.get_logger(__name__)

_JSON: Final = "application/json"
_HEADERS: Final = {"Cache-Control": "no-store"}
_STREAM_HEADERS: Final = {
    **_HEADERS,
    "X-Accel-Buffering": "no",  # proxies that gather answers would keep lines back
}
HostName = Annotated[str, Path(description=f"The host's name: {HOST_PATTERN}.", examples=["web-1"])]
FileName = Annotated[
    str,
    Path(description="The file's name as the list of files has it; it has `/` in it.", examples=["nginx/access.log"]),
]
_READ: Final = """Lines of a file as it lies on the host, rotated and compressed ones too: the newest that match, newest first,
or, with `follow`, as they are written. The agent there looks for them; they pass through as they are read.

The last record is `{"end": {"status": …, "lines": …, "error": …}}`: `complete`, `limit`, `deadline` or `error`. An answer
without it was cut on its way."""


def make_hosts_router(hosts: Hosts, authenticate: Authenticate, audit: AuditLog | None) -> APIRouter:
    """The routes under /api/v1/hosts. audit: None writes nothing down."""
    router = APIRouter(prefix="/api/v1/hosts", tags=["hosts"], route_class=ProblemRoute)
    text: dict[str, Any] = {"schema": {"type": "string"}}

    async def reader(request: Request) -> Principal:
        principal = await authenticate(request)
        if principal.may_read.is_empty:
            raise Forbidden("you may not read the logs of any service")
        if len(request.scope["query_string"]) > QUESTION_CHARS_MAX:
            raise ParameterError("query string", f"expected at most {QUESTION_CHARS_MAX} characters")
        if audit is not None:
            audit.check()
        return principal

    @router.get("", summary="Hosts", **documented(HostList, HOSTS, 400, 422, 503))
    async def list_hosts(request: Request) -> Response:
        """Hosts whose agent is, or was, heard of, and that have files of services that you may read; by name."""
        principal = await reader(request)
        limit, cursor = parse_hosts(request.query_params.multi_items())
        body, shown = await hosts.find(principal, cursor=cursor, limit=limit)
        if audit is not None:
            audit.note(principal, look_of(request, rows=shown))
        return Response(body, 200, _HEADERS, _JSON)

    @router.put(
        "/{host}",
        summary="Register a host",
        response_class=Response,
        response_model=None,
        responses={
            200: {"model": HostRegistered, "description": "It is heard."},
            **problem_responses(401, 403, 409, 422, 503),
        },
        openapi_extra={
            "security": SECURITY,
            "requestBody": {"required": True, "content": {_JSON: {"schema": without_references(HostHeartbeat)}}},
        },
    )
    async def put_host(host: HostName, request: Request) -> Response:
        """What the agent of a host sends at its start and every ten seconds. Needs a key with the host's name (`logfeed keys
        create … --host NAME`). The name belongs to the key that registered it first (409), until it is forgotten."""
        principal = await authenticate(request)
        if principal.may_host.is_empty:
            raise Forbidden("this key may not register hosts: `logfeed keys create … --host NAME` makes one that may")
        params.parse_none(request.query_params.multi_items())
        body = await hosts.beat(host, await read_json(request, HostHeartbeat), principal)
        return Response(body, 200, _HEADERS, _JSON)

    @router.delete(
        "/{host}",
        summary="Forget a host",
        status_code=204,
        response_class=Response,
        response_model=None,
        responses={
            204: {"description": "There is no host of this name, or none any more."},
            **problem_responses(401, 403, 422, 503),
        },
        openapi_extra={"security": SECURITY},
    )
    async def delete_host(host: HostName, request: Request) -> Response:
        """Its name is free for another key. An agent that goes on registers it anew. Needs `admin` on all services."""
        principal = await authenticate(request)
        params.parse_none(request.query_params.multi_items())
        if audit is not None:
            audit.check()
        if await hosts.forget(host, principal) and audit is not None:
            where = look_of(request, rows=0)
            audit.note_change(
                principal, Change(f"forgot the host {host}", f"host:{host}", None, where.path, where.address)
            )
        return Response(status_code=204, headers=_HEADERS)

    @router.get("/{host}/files", summary="Files of a host", **documented(HostFileList, FILES, 404, 422, 502, 503, 504))
    async def host_files(host: HostName, request: Request) -> Response:
        """Files of services that you may read, as the host's agent finds them now."""
        principal = await reader(request)
        asked = parse_files(request.query_params.multi_items())
        body, shown = await hosts.files(host, asked, principal, _traceparent(request))
        if audit is not None:
            audit.note(principal, look_of(request, rows=shown))
        return Response(body, 200, _HEADERS, _JSON)

    @router.get(
        f"/{{host}}/files/{any_text('name')}",
        summary="Lines of a file of a host",
        description=_READ,
        response_class=StreamingResponse,
        response_model=None,
        responses={
            200: {
                "description": "Lines, and as the last record how it ended.",
                "content": {form.media_type.partition(";")[0]: text for form in Form},
            },
            **problem_responses(401, 403, 404, 422, 429, 502, 503, 504),
        },
        openapi_extra={"parameters": [each.openapi() for each in READ], "security": SECURITY},
    )
    async def host_file(host: HostName, name: FileName, request: Request) -> Response:
        principal = await reader(request)
        question = parse_read(name, request.query_params.multi_items(), hosts.settings)
        stack = AsyncExitStack()
        read = await stack.enter_async_context(
            hosts.reading(host, question, principal, _traceparent(request), look_of(request, rows=0))
        )

        def cut(error: Exception) -> None:
            log.info("the reader of a host's file has gone", reason=str(error))

        media_type = read.question.form.media_type
        return LongAnswer(read.pieces, stack, media_type=media_type, headers=_STREAM_HEADERS, cut=cut)

    return router


def _traceparent(request: Request) -> str:
    own = traceparent_of_span(current())
    found = request.headers.getlist("traceparent")
    return own or traceparent_of(found[0] if len(found) == 1 else None)
