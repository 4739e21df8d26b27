"""What tails share at their edges, whatever form their messages have: the question as it came, who looked at what, and a
WebSocket from its handshake to its end.

Nothing may be sent by a client: who does is cut off. Two tasks belong to a socket, one that sends and one that hears; whichever
ends first ends the other.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, aclosing, suppress
from dataclasses import dataclass
from typing import Final

import structlog
from fastapi import Response, WebSocket
from starlette.requests import HTTPConnection
from starlette.websockets import WebSocketDisconnect, WebSocketState

from access.audit import QUESTION_CHARS_MAX, Look
from access.errors import Forbidden
from query.tail.session import EndReason, TailSession
from runtime.origins import Origins
from schemas.errors import LogfeedError
from search.params import ParameterError

log = structlog.get_logger(__name__)

REASONS: Final = {
    EndReason.CREDENTIALS: "your credentials have expired or were revoked",
    EndReason.PERMISSIONS: "what you may tail has changed: connect again",
    EndReason.UNKNOWN: "who may what cannot be told now: try again later",
    EndReason.STOPPING: "the server stops: connect again",
}
_POLICY_VIOLATION: Final = 1008
_CODES: Final = {EndReason.STOPPING: 1012, EndReason.UNKNOWN: 1013}
"""Of RFC 6455's registry: Service Restart, Try Again Later."""
_UNSUPPORTED_DATA: Final = 1003
_INTERNAL_ERROR: Final = 1011
_CLOSE_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class OpenTail:
    """What a socket is sent."""

    session: TailSession
    messages: Callable[[], AsyncGenerator[bytes, None]]
    """Texts, until the session ends."""


def question_of(connection: HTTPConnection) -> str:
    """Of the request line alone: a URL is put together with what the Host header says."""
    query_string: bytes = connection.scope["query_string"]
    return query_string.decode("latin-1")


def check_length(connection: HTTPConnection) -> None:
    """Raises ParameterError for a question that is longer than the audit log keeps."""
    if len(question_of(connection)) > QUESTION_CHARS_MAX:
        raise ParameterError("query string", f"expected at most {QUESTION_CHARS_MAX} characters")


def check_origin(socket: WebSocket, origins: Origins) -> None:
    """Raises Forbidden for a page that may not open sockets here; before its credentials are looked at."""
    if not origins.admit(socket):
        raise Forbidden("pages of this origin may not open a WebSocket here")


def look_of(connection: HTTPConnection, path: str, question: str) -> Look:
    """A tail as the audit log has it."""
    address = connection.client.host if connection.client else ""
    return Look(path=path, question=question, rows=0, status=200, address=address)


async def serve(
    socket: WebSocket,
    open_tail: Callable[[AsyncExitStack], Awaitable[OpenTail]],
    denial: Callable[[LogfeedError | None], Response],
) -> None:
    """From the handshake to the end of either side. open_tail: before it is accepted; raises LogfeedError. denial: what a
    handshake is answered instead; None: a defect."""
    try:
        async with AsyncExitStack() as stack:
            opened = await open_tail(stack)
            await socket.accept()
            await _send_all(socket, opened)
    except LogfeedError as error:
        await _deny(socket, denial(error))
    except Exception:
        log.exception("tail failed")
        await _deny(socket, denial(None))


async def _send_all(socket: WebSocket, opened: OpenTail) -> None:
    sending = asyncio.create_task(_send(socket, opened), name="tail sends")
    hearing = asyncio.create_task(_hear(socket), name="tail hears")
    await asyncio.wait({sending, hearing}, return_when=asyncio.FIRST_COMPLETED)
    is_talkative = hearing.done() and hearing.exception() is None and hearing.result()
    for task in (sending, hearing):
        task.cancel()
    results = await asyncio.gather(sending, hearing, return_exceptions=True)
    if is_talkative:
        await _close(socket, _UNSUPPORTED_DATA, "nothing may be sent on this connection")
    elif (reason := opened.session.end) is not None:
        await _close(socket, _CODES.get(reason, _POLICY_VIOLATION), REASONS[reason])
    expected = (asyncio.CancelledError, WebSocketDisconnect, TimeoutError, OSError)
    for result in results:
        if isinstance(result, BaseException) and not isinstance(result, expected):
            raise result


async def _send(socket: WebSocket, opened: OpenTail) -> None:
    async with aclosing(opened.messages()) as messages:
        async for message in messages:
            await socket.send({"type": "websocket.send", "text": message.decode()})


async def _hear(socket: WebSocket) -> bool:
    """Wait for the client to go (False) or to say something (True)."""
    message = await socket.receive()
    return bool(message["type"] == "websocket.receive")


async def _close(socket: WebSocket, code: int, reason: str) -> None:
    with suppress(RuntimeError, OSError, TimeoutError, WebSocketDisconnect):
        async with asyncio.timeout(_CLOSE_S):
            await socket.close(code, reason)


async def _deny(socket: WebSocket, response: Response) -> None:
    if socket.application_state is WebSocketState.CONNECTING:
        await socket.send_denial_response(response)
    else:
        await _close(socket, _INTERNAL_ERROR, "something went wrong here")
