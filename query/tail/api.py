"""The HTTP edge of tails: server-sent events, WebSocket, tickets. See docs/live.md.

Credentials come in `Authorization`, also for a WebSocket. A browser's script cannot send that with a WebSocket: it asks for a
ticket first. A WebSocket that a page of another origin opens is refused before its credentials are looked at.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, aclosing, suppress
from typing import Final
from urllib.parse import unquote_plus

import orjson
import structlog
from fastapi import APIRouter, Request, Response, WebSocket
from starlette.requests import HTTPConnection
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocketDisconnect, WebSocketState

from access.audit import QUESTION_CHARS_MAX, Look
from access.errors import Forbidden, Unauthenticated
from access.principal import Authenticate
from query import params
from query.errors import TooManyTails
from query.problems import ProblemRoute, internal, problem_of, problem_responses, without_references
from query.tail.service import Tails
from query.tail.session import EndReason, Frame, FrameKind, TailSession
from runtime.origins import Origins
from schemas.access import SECURITY
from schemas.errors import LogfeedError
from schemas.tail import TailFrame, TailTicket
from search.params import ParameterError

log = structlog.get_logger(__name__)

PATH: Final = "/api/v1/tail"
EVENT_STREAM: Final = "text/event-stream"
_REASONS: Final = {
    EndReason.CREDENTIALS: "your credentials have expired or were revoked",
    EndReason.PERMISSIONS: "what you may tail has changed: connect again",
    EndReason.UNKNOWN: "who may what cannot be told now: try again later",
    EndReason.STOPPING: "the server stops: connect again",
}
_POLICY_VIOLATION: Final = 1008
_CODES: Final = {EndReason.STOPPING: 1012, EndReason.UNKNOWN: 1013}
"""Of RFC 6455's registry: Service Restart, Try Again Later."""
_UNSUPPORTED_DATA: Final = 1003
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
        _check_length(request)
        items = request.query_params.multi_items()
        question = params.parse_tail(
            items,
            now_us=tails.clock.now_us(),
            last_event_id=request.headers.get("last-event-id"),
            template_text=await tails.pattern_texts.of(items, principal.may_tail),
        )
        stack = AsyncExitStack()
        session = await stack.enter_async_context(
            tails.session(
                question,
                principal,
                lambda: authenticate(request),
                transport="sse",
                where=_look(request, _question(request)),
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
        try:
            async with AsyncExitStack() as stack:
                session = await _opened(socket, tails, authenticate, origins, stack)
                await socket.accept()
                await _send_all(socket, session)
        except LogfeedError as error:
            await _deny(socket, problem_of(error))
        except Exception:
            log.exception("tail failed")
            await _deny(socket, internal())

    return router


async def _opened(
    socket: WebSocket,
    tails: Tails,
    authenticate: Authenticate,
    origins: Origins,
    stack: AsyncExitStack,
) -> TailSession:
    """The session of a WebSocket that was not accepted yet. Raises LogfeedError."""
    if not origins.admit(socket):
        raise Forbidden("pages of this origin may not open a WebSocket here")
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
    _check_length(socket)
    plain = [(name, value) for name, value in items if name != _TICKET]
    template_text = await tails.pattern_texts.of(plain, principal.may_tail)
    question = params.parse_tail(plain, now_us=tails.clock.now_us(), template_text=template_text)
    shown = "&".join(part for part in _question(socket).split("&") if unquote_plus(part.partition("=")[0]) != _TICKET)
    return await stack.enter_async_context(
        tails.session(
            question,
            principal,
            lambda: authenticate(asked),
            transport="websocket",
            where=_look(socket, shown),
        )
    )


async def _send_all(socket: WebSocket, session: TailSession) -> None:
    """Frames until one side ends it."""
    sending = asyncio.create_task(_send_frames(socket, session), name="tail sends")
    hearing = asyncio.create_task(_hear(socket), name="tail hears")
    await asyncio.wait({sending, hearing}, return_when=asyncio.FIRST_COMPLETED)
    is_talkative = hearing.done() and hearing.exception() is None and hearing.result()
    for task in (sending, hearing):
        task.cancel()
    results = await asyncio.gather(sending, hearing, return_exceptions=True)
    if is_talkative:
        await _close(socket, _UNSUPPORTED_DATA, "nothing may be sent on this connection")
    elif session.end is not None:
        await _close(socket, *close_code(session.end))
    expected = (asyncio.CancelledError, WebSocketDisconnect, TimeoutError, OSError)
    for result in results:
        if isinstance(result, BaseException) and not isinstance(result, expected):
            raise result


def close_code(reason: EndReason) -> tuple[int, str]:
    """What a WebSocket is closed with, and why, for people."""
    return _CODES.get(reason, _POLICY_VIOLATION), _REASONS[reason]


async def _send_frames(socket: WebSocket, session: TailSession) -> None:
    async with aclosing(session.frames()) as frames:
        async for frame in frames:
            if frame.kind is not FrameKind.END:
                await socket.send({"type": "websocket.send", "text": frame.body.decode()})


async def _hear(socket: WebSocket) -> bool:
    """Wait for the client to go (False) or to say something (True)."""
    message = await socket.receive()
    return bool(message["type"] == "websocket.receive")


async def _close(socket: WebSocket, code: int, reason: str) -> None:
    with suppress(RuntimeError, OSError, TimeoutError, WebSocketDisconnect):
        async with asyncio.timeout(1.0):
            await socket.close(code, reason)


async def _deny(socket: WebSocket, response: Response) -> None:
    """Answer the handshake with a problem."""
    if socket.application_state is WebSocketState.CONNECTING:
        await socket.send_denial_response(response)
    else:
        await _close(socket, 1011, "something went wrong here")


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
        body = orjson.dumps({"end": session.end, "detail": _REASONS[session.end]})
    return b"event: %b\nid: %b\ndata: %b\n\n" % (frame.kind.encode(), frame.token.encode(), body)


def _question(connection: HTTPConnection) -> str:
    """Of the request line alone: a URL is put together with what the Host header says."""
    query_string: bytes = connection.scope["query_string"]
    return query_string.decode("latin-1")


def _check_length(connection: HTTPConnection) -> None:
    if len(_question(connection)) > QUESTION_CHARS_MAX:
        raise ParameterError("query string", f"expected at most {QUESTION_CHARS_MAX} characters")


def _look(connection: HTTPConnection, question: str) -> Look:
    address = connection.client.host if connection.client else ""
    return Look(path=PATH, question=question, rows=0, status=200, address=address)
