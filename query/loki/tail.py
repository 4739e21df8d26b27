"""`/loki/api/v1/tail`: a tail (query/tail) in Loki's messages, over a WebSocket, as logcli and Grafana's live mode open it.

It begins with the newest logs since `start`, as Loki does, of those that may be read as well, then goes on from that page's
moment: nothing is missing between the two and nothing comes twice. Credentials come in `Authorization`; tickets are for our own
page. Nothing may be sent.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable
from contextlib import AsyncExitStack, aclosing
from functools import partial
from typing import Any, Final

import msgspec
from fastapi import APIRouter, Response, WebSocket

from access.principal import Authenticate, Principal
from query.answers import Answers, Asked
from query.loki import parameters, shapes
from query.loki.api import PREFIX, is_categorized, read_selector, sentence_of
from query.loki.pipeline import Labelled, Plan
from query.loki.service import LokiAnswers
from query.page import Question
from query.params import TailQuestion, tail_canonical
from query.problems import internal, problem_of
from query.tail.connection import OpenTail, check_length, check_origin, look_of, question_of, serve
from query.tail.service import Tails
from query.tail.session import FrameKind, TailSession
from runtime.origins import Origins
from schemas.errors import LogfeedError
from schemas.record import Log
from search.params import parse_time
from search.predicate import all_of, within
from store.port import Order

PATH: Final = f"{PREFIX}/tail"
_HOUR_US: Final = 3_600_000_000


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
        await serve(socket, partial(_opened, socket, tails, answers, loki, authenticate, origins), _denial)

    return router


def _denial(error: LogfeedError | None) -> Response:
    return sentence_of(internal() if error is None else problem_of(error))


class _Told:
    """A tail as Loki says it."""

    def __init__(self, session: TailSession, plan: Plan, first: list[Log], *, is_categorized: bool) -> None:
        self._session = session
        self._plan = plan
        self._first = first
        self._is_categorized = is_categorized

    async def messages(self) -> AsyncGenerator[bytes, None]:
        """What there was before, the oldest first; then what comes."""
        if (first := self._message(reversed(self._first), 0)) is not None:
            yield first
        async with aclosing(self._session.frames()) as frames:
            async for frame in frames:
                if frame.kind not in (FrameKind.LOGS, FrameKind.SKIPPED):
                    continue
                page = _page.decode(frame.body)
                if (message := self._message(map(_log, page.logs), page.skipped)) is not None:
                    yield message

    def _message(self, logs: Iterable[Log], skipped: int) -> bytes | None:
        """None where there is nothing to say."""
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
) -> OpenTail:
    """The session of a WebSocket that was not accepted yet. Raises LogfeedError."""
    check_origin(socket, origins)
    principal = await authenticate(socket)
    tails.check(principal)
    check_length(socket)
    items = socket.query_params.multi_items()
    now_us = tails.clock.now_us()
    # Expressions over services are of those that may be tailed, which need not be those that may be read.
    tailed = msgspec.structs.replace(principal, may_read=principal.may_tail)
    plan = await loki.planned(read_selector(parameters.query_of(items)), tailed)
    start = parameters.one(items, "start")
    start_us = now_us - _HOUR_US if start is None else parameters.time_us(start, "start")
    first, token = await _past(answers, plan, principal, start_us=start_us, limit=parameters.limit(items))
    question = TailQuestion(plan.predicate, tail_canonical(plan.predicate, None), None, token, ())
    where = msgspec.structs.replace(look_of(socket, PATH, question_of(socket)), rows=len(first))
    session = await stack.enter_async_context(
        tails.session(
            question,
            principal,
            lambda: authenticate(socket),
            transport="loki",
            where=where,
        )
    )
    told = _Told(session, plan, first, is_categorized=is_categorized(socket))
    return OpenTail(session, told.messages)


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
