"""The HTTP edge of tails: server-sent events, WebSocket, tickets. See docs/live.md.

Credentials come in `Authorization`, also for a WebSocket. A browser's script cannot send that with a WebSocket: it asks for a
ticket first. A WebSocket that a page of another origin opens is refused before its credentials are looked at.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, aclosing
from functools import partial
from typing import Final
from urllib.parse import unquote_plus

import orjson
from fastapi import APIRouter, Request, Response, WebSocket
from starlette.requests import HTTPConnection
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from access.errors import Unauthenticated
from access.principal import Authenticate
from query import params
from query.errors import TooManyTails
from query.problems import ProblemRoute, internal, problem_of, problem_responses, without_references
from query.tail.connection import REASONS, OpenTail, check_length, check_origin, look_of, question_of, serve
from query.tail.service import Tails
from query.tail.session import Frame, FrameKind, TailSession
from runtime.origins import Origins
from schemas.access import SECURITY
from schemas.errors import LogfeedError
from schemas.tail import TailFrame, TailTicket
from search.params import ParameterError

PATH: Final = "/api/v1/tail"
EVENT_STREAM: Final = "text/event-stream"
_TICKET: Final = "ticket"
_STREAM_HEADERS: Final = {
    "X-Accel-Buffering": "no",  # proxies that gather answers would keep frames back
}
_DESCRIPTION: Final = """Logs that match, as they come in, over server-sent events or, at the same path, a WebSocket.

Each message is a JSON object with `token`, where to go on after a cut (`from`, or the header `Last-Event-ID`): nothing is
missed and nothing comes twice. `{"logs": […]}`: logs, in the order of each partition; empty ones show that the tail lives.
`{"skipped": n}`: so many logs were left out because this client did not take them in time. `{"gap": {"reason", "query"}}`: the
broker does not have them any more; `query` is the query string of the pages that do. An event's type is `logs`, `skipped`,
`gap` or, at last, `end`.

**WebSocket**: the same parameters and messages; nothing may be sent. Credentials in `Authorization`, or from a browser in
`ticket=` of `POST /api/v1/tail/tickets`. It is closed with 1008 when credentials or permissions end, with 1012 or 1013 when the
server stops or cannot tell who may what: connect again."""


def make_tail_router(tails: Tails, authenticate: Authenticate, *, origins: Origins) -> APIRouter:
    """The routes of tails under /api/v1. origins: whose pages may open WebSockets."""
    router = APIRouter(prefix="/api/v1", tags=["tail"], route_class=ProblemRoute)

    @router.get(
        "/tail",
        summary="Logs as they come",
        description=_DESCRIPTION,
        response_class=StreamingResponse,
        response_model=None,
        responses={
            200: {
                "description": "Frames until the client goes or the tail ends.",
                "content": {EVENT_STREAM: {"schema": without_references(TailFrame)}},
            },
            **problem_responses(400, 401, 403, 422, 429, 503),
        },
        openapi_extra={
            "parameters": [
                *(parameter.openapi() for parameter in params.TAIL),
                {
                    "name": "Last-Event-ID",
                    "in": "header",
                    "required": False,
                    "schema": {"type": "string"},
                    "description": "The id of the last event that came: goes on after it, whatever `from` says.",
                },
            ],
            "security": SECURITY,
        },
    )
    async def tail(request: Request) -> Response:
        principal = await authenticate(request)
        tails.check(principal)
        check_length(request)
        items = request.query_params.multi_items()
        question = params.parse_tail(
            items,
            now_us=tails.clock.now_us(),
            last_event_id=request.headers.get("last-event-id"),
            template_text=await tails.pattern_texts.of(items, principal, allowed=principal.may_tail),
        )
        stack = AsyncExitStack()
        session = await stack.enter_async_context(
            tails.session(
                question,
                principal,
                lambda: authenticate(request),
                transport="sse",
                where=look_of(request, PATH, question_of(request)),
            )
        )
        return _EventStream(session, stack)

    @router.post(
        "/tail/tickets",
        summary="A ticket for one WebSocket",
        status_code=201,
        response_class=Response,
        response_model=None,
        responses={
            201: {"model": TailTicket, "description": "The ticket."},
            **problem_responses(401, 403, 422, 429, 503),
        },
        openapi_extra={"security": SECURITY},
    )
    async def tail_ticket(request: Request) -> Response:
        """For browsers, whose scripts cannot send `Authorization` with a WebSocket: opens one tail, within seconds, at the
        process that gave it."""
        principal = await authenticate(request)
        tails.check(principal)
        params.parse_none(request.query_params.multi_items())
        ticket = tails.tickets.issue(principal.subject, request, now_s=tails.clock.monotonic_s())
        if ticket is None:
            raise TooManyTails("too many tickets wait to be used: use them, or wait", retry_after_s=5)
        body = orjson.dumps({"ticket": ticket, "expires_in": tails.settings.ticket_s})
        return Response(body, 201, {"Cache-Control": "no-store"}, "application/json")

    @router.websocket("/tail")
    async def tail_socket(socket: WebSocket) -> None:
        await serve(socket, partial(_opened, socket, tails, authenticate, origins), _denial)

    return router


def _denial(error: LogfeedError | None) -> Response:
    return internal() if error is None else problem_of(error)


async def _opened(
    socket: WebSocket, tails: Tails, authenticate: Authenticate, origins: Origins, stack: AsyncExitStack
) -> OpenTail:
    """The session of a WebSocket that was not accepted yet. Raises LogfeedError."""
    check_origin(socket, origins)
    items = socket.query_params.multi_items()
    tickets = [value for name, value in items if name == _TICKET]
    asked: HTTPConnection = socket
    if tickets:
        if len(tickets) > 1 or "authorization" in socket.headers:
            raise ParameterError(_TICKET, "expected one ticket, or credentials in `Authorization`, not both")
        redeemed = tails.tickets.redeem(tickets[0], now_s=tails.clock.monotonic_s())
        if redeemed is None:
            raise Unauthenticated(
                "this ticket is not known: it was used, has expired, or is another process's", error="invalid_token"
            )
        asked = redeemed
    principal = await authenticate(asked)
    tails.check(principal)
    check_length(socket)
    plain = [(name, value) for name, value in items if name != _TICKET]
    template_text = await tails.pattern_texts.of(plain, principal, allowed=principal.may_tail)
    question = params.parse_tail(plain, now_us=tails.clock.now_us(), template_text=template_text)
    shown = "&".join(part for part in question_of(socket).split("&") if unquote_plus(part.partition("=")[0]) != _TICKET)
    session = await stack.enter_async_context(
        tails.session(
            question,
            principal,
            lambda: authenticate(asked),
            transport="websocket",
            where=look_of(socket, PATH, shown),
        )
    )
    return OpenTail(session, partial(_messages, session))


async def _messages(session: TailSession) -> AsyncGenerator[bytes, None]:
    async with aclosing(session.frames()) as frames:
        async for frame in frames:
            if frame.kind is not FrameKind.END:
                yield frame.body


class _EventStream(StreamingResponse):
    """Server-sent events of a session. Closes it when the client has gone, whatever was sent until then."""

    def __init__(self, session: TailSession, stack: AsyncExitStack) -> None:
        super().__init__(_events(session), media_type=EVENT_STREAM, headers=_STREAM_HEADERS)
        self._stack = stack

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        async with self._stack:
            await super().__call__(scope, receive, send)


async def _events(session: TailSession) -> AsyncGenerator[bytes, None]:
    async with aclosing(session.frames()) as frames:
        async for frame in frames:
            yield _event(frame, session)


def _event(frame: Frame, session: TailSession) -> bytes:
    """One event. No line end stands in JSON or in a token."""
    body = frame.body
    if frame.kind is FrameKind.END and session.end is not None:
        body = orjson.dumps({"end": session.end, "detail": REASONS[session.end]})
    return b"event: %b\nid: %b\ndata: %b\n\n" % (frame.kind.encode(), frame.token.encode(), body)
