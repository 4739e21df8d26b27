"""`/loki/api/v1/tail`: a tail (query/tail) in Loki's messages, over a WebSocket, as logcli and Grafana's live mode open it.

It begins with the newest logs since `start`, as Loki does, of those that may be read as well, then goes on from that page's
moment: nothing is missing between the two and nothing comes twice. Credentials come in `Authorization`; tickets are for our own
page. Nothing may be sent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import AsyncExitStack, aclosing, suppress
from typing import Any, Final

import msgspec
import structlog
from fastapi import APIRouter, WebSocket
from starlette.websockets import WebSocketDisconnect, WebSocketState

from access.audit import QUESTION_CHARS_MAX, Look
from access.errors import Forbidden
from access.principal import Authenticate, Principal
from query.answers import Answers, Asked
from query.loki import parameters, shapes
from query.loki.api import PREFIX, is_categorized, read_selector, sentence_of
from query.loki.pipeline import Labelled, Plan
from query.loki.service import LokiAnswers
from query.page import Question
from query.params import TailQuestion, tail_canonical
from query.problems import internal, problem_of
from query.tail.api import close_code
from query.tail.service import Tails
from query.tail.session import FrameKind, TailSession
from runtime.origins import Origins
from schemas.errors import LogfeedError
from schemas.record import Log
from search.params import ParameterError, parse_time
from search.predicate import all_of, within
from store.port import Order

log = structlog.get_logger(__name__)

PATH: Final = f"{PREFIX}/tail"
_HOUR_US: Final = 3_600_000_000
_UNSUPPORTED_DATA: Final = 1003


class _Shown(msgspec.Struct, gc=False):
    """A log as pages and frames have it."""

    id: str
    timestamp: str
    severity: int
    service_name: str
    message: str
    correlation_id: str | None
    metadata: dict[str, Any]  # any JSON values


class _Page(msgspec.Struct, gc=False):
    logs: list[_Shown] = []
    tail: str | None = None
    skipped: int = 0


_page: Final = msgspec.json.Decoder(_Page)


def make_loki_tail_router(
    tails: Tails, answers: Answers, loki: LokiAnswers, authenticate: Authenticate, *, origins: Origins
) -> APIRouter:
    """The WebSocket. origins: whose pages may open it."""
    router = APIRouter()

    @router.websocket(PATH)
    async def loki_tail(socket: WebSocket) -> None:
        try:
            async with AsyncExitStack() as stack:
                opened = await _opened(socket, tails, answers, loki, authenticate, origins, stack)
                await socket.accept()
                await _send_all(socket, opened)
        except LogfeedError as error:
            await _deny(socket, error)
        except Exception:
            log.exception("tail failed")
            await _deny(socket, None)

    return router


class _Opened:
    """What a socket is sent."""

    def __init__(self, session: TailSession, plan: Plan, first: list[Log], *, is_categorized: bool) -> None:
        self.session = session
        self._plan = plan
        self._first = first
        self._is_categorized = is_categorized

    def first_message(self) -> bytes | None:
        """What there was before, the oldest first."""
        return self._message(reversed(self._first), 0) if self._first else None

    def message(self, body: bytes) -> bytes | None:
        """A frame as Loki says it; None: it says nothing."""
        page = _page.decode(body)
        return self._message(map(_log, page.logs), page.skipped)

    def _message(self, logs: Iterable[Log], skipped: int) -> bytes | None:
        shown: list[Labelled] = [each for log in logs if (each := self._plan.labelled(log)) is not None]
        if not shown and not skipped:
            return None
        return shapes.tail_message(shown, is_categorized=self._is_categorized, skipped=skipped)


async def _opened(
    socket: WebSocket,
    tails: Tails,
    answers: Answers,
    loki: LokiAnswers,
    authenticate: Authenticate,
    origins: Origins,
    stack: AsyncExitStack,
) -> _Opened:
    """The session of a WebSocket that was not accepted yet. Raises LogfeedError."""
    if not origins.admit(socket):
        raise Forbidden("pages of this origin may not open a WebSocket here")
    principal = await authenticate(socket)
    tails.check(principal)
    query_string: bytes = socket.scope["query_string"]
    if len(query_string) > QUESTION_CHARS_MAX:
        raise ParameterError("query string", f"expected at most {QUESTION_CHARS_MAX} characters")
    items = socket.query_params.multi_items()
    now_us = tails.clock.now_us()
    # Expressions over services are of those that may be tailed, which need not be those that may be read.
    tailed = msgspec.structs.replace(principal, may_read=principal.may_tail)
    plan = await loki.planned(read_selector(parameters.query_of(items)), tailed)
    start = parameters.one(items, "start")
    start_us = now_us - _HOUR_US if start is None else parameters.time_us(start, "start")
    first, token = await _past(answers, plan, principal, start_us=start_us, limit=parameters.limit(items))
    question = TailQuestion(plan.predicate, tail_canonical(plan.predicate, None), None, token, ())
    session = await stack.enter_async_context(
        tails.session(
            question,
            principal,
            lambda: authenticate(socket),
            transport="loki",
            where=_look(socket, query_string.decode("latin-1")),
        )
    )
    return _Opened(session, plan, first, is_categorized=is_categorized(socket))


async def _past(
    answers: Answers, plan: Plan, principal: Principal, *, start_us: int, limit: int
) -> tuple[list[Log], str | None]:
    """The newest logs, the newest first, and the token of the tail that goes on from them. Whoever may tail sees what comes:
    what was takes the right to read as well (INV-5)."""
    predicate = all_of(plan.predicate, within(principal.may_tail))
    canonical = tail_canonical(plan.predicate, None)
    question = Question(
        predicate=predicate,
        canonical=f"loki\n{tail_canonical(predicate, None)}",
        order=Order.NEWEST_FIRST,
        limit=limit,
        start_us=start_us,
        end_us=None,
        token=None,
        tail_canonical=canonical,
    )
    answer = await answers.find(question, principal, asked=Asked(is_fresh=True))
    assert answer.body is not None, "no tag was sent along"
    page = _page.decode(answer.body)
    return list(map(_log, page.logs)), page.tail


def _log(shown: _Shown) -> Log:
    us = parse_time(shown.timestamp, 0)
    return Log(
        int(shown.id), us, shown.severity, shown.service_name, shown.message, shown.correlation_id, shown.metadata
    )


async def _send_all(socket: WebSocket, opened: _Opened) -> None:
    """Messages until one side ends it."""
    sending = asyncio.create_task(_send(socket, opened), name="loki tail sends")
    hearing = asyncio.create_task(_hear(socket), name="loki tail hears")
    await asyncio.wait({sending, hearing}, return_when=asyncio.FIRST_COMPLETED)
    is_talkative = hearing.done() and hearing.exception() is None and hearing.result()
    for task in (sending, hearing):
        task.cancel()
    results = await asyncio.gather(sending, hearing, return_exceptions=True)
    if is_talkative:
        await _close(socket, _UNSUPPORTED_DATA, "nothing may be sent on this connection")
    elif opened.session.end is not None:
        await _close(socket, *close_code(opened.session.end))
    expected = (asyncio.CancelledError, WebSocketDisconnect, TimeoutError, OSError)
    for result in results:
        if isinstance(result, BaseException) and not isinstance(result, expected):
            raise result


async def _send(socket: WebSocket, opened: _Opened) -> None:
    first = opened.first_message()
    if first is not None:
        await socket.send({"type": "websocket.send", "text": first.decode()})
    async with aclosing(opened.session.frames()) as frames:
        async for frame in frames:
            if frame.kind not in (FrameKind.LOGS, FrameKind.SKIPPED):
                continue
            message = opened.message(frame.body)
            if message is not None:
                await socket.send({"type": "websocket.send", "text": message.decode()})


async def _hear(socket: WebSocket) -> bool:
    """Wait for the client to go (False) or to say something (True)."""
    message = await socket.receive()
    return bool(message["type"] == "websocket.receive")


async def _close(socket: WebSocket, code: int, reason: str) -> None:
    with suppress(RuntimeError, OSError, TimeoutError, WebSocketDisconnect):
        async with asyncio.timeout(1.0):
            await socket.close(code, reason)


async def _deny(socket: WebSocket, error: LogfeedError | None) -> None:
    """Answer the handshake with a sentence. None: a defect."""
    if socket.application_state is WebSocketState.CONNECTING:
        await socket.send_denial_response(sentence_of(internal() if error is None else problem_of(error)))
    else:
        await _close(socket, 1011, "something went wrong here")


def _look(socket: WebSocket, question: str) -> Look:
    address = socket.client.host if socket.client else ""
    return Look(path=PATH, question=question, rows=0, status=200, address=address)
