"""The agent's HTTP API: lists of files, and lines of one, for the server that was told this start's token.

    GET /files             what there is of the services in `scope`
    GET /files/{name}      its lines: newest first, or as they come
    GET /livez /readyz /metrics   for this machine without a token

Only GET. Every answer is bounded: readers by the pool's places, an answer by its deadline, its memory by the reader; a
client that does not read holds its place no longer than the connection's write deadline. What goes wrong once an answer
has begun is told in its closing record.

One event loop; whatever may block runs in the pool.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack
from typing import Final

import orjson
import structlog
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from agent.errors import NoSuchFile, QuestionInvalid
from agent.health import PATHS, health_answer
from agent.listing import list_files
from agent.questions import FileQuestion, parse_file, parse_list
from agent.reading.pool import ReaderPlace, ReaderPool
from agent.reading.reader import FileReader, Question
from agent.reading.records import MEDIA_TYPES, Status
from agent.roots import Root
from runtime.addresses import is_loopback
from runtime.answer_headers import AnswerHeaders
from runtime.clock import Clock
from schemas.errors import LogfeedError, Overloaded
from schemas.scope import ServiceScope

log = structlog.get_logger(__name__)

POLL_S: Final = 0.25
"""Seconds between two looks at a file that is followed."""
_STEP_S: Final = 15.0
"""What one step may take: longer, and the file system is taken to hang."""
_HEADER_CHARS_MAX: Final = 200
_PROBLEMS: Final[dict[type[LogfeedError], tuple[int, str, str]]] = {
    NoSuchFile: (404, "no-such-file", "There is no such file"),
    QuestionInvalid: (422, "invalid-parameter", "A parameter is not valid"),
    Overloaded: (503, "unavailable", "The request cannot be taken now"),
}


class AgentApi:
    """An ASGI application."""

    def __init__(
        self,
        roots: Sequence[Root],
        pool: ReaderPool,
        clock: Clock,
        *,
        token: str,
        read_s_max: float,
        follow_s_max: float,
        ready: Callable[[], list[str]],
    ) -> None:
        """token: of this start. read_s_max, follow_s_max: most seconds of an answer. ready: what keeps the agent from
        its work."""
        self._roots = {root.name: root for root in roots}
        self._pool, self._clock = pool, clock
        self._token = token.encode()
        self._read_s_max, self._follow_s_max = read_s_max, follow_s_max
        self._ready = ready
        self._headers = AnswerHeaders()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            return
        request = Request(scope, receive)
        response = await self._answer(request)
        await response(scope, receive, self._headers.guard(scope, send))

    async def _answer(self, request: Request) -> ASGIApp:
        path: str = request.scope["path"]  # request.url ends it at `?` and `#`, which names of files may have
        if request.method != "GET":
            headers = {"Allow": "GET"}
            return _problem(405, "method-not-allowed", "Only GET is answered", f"got {request.method:.20}", headers)
        is_known = self._is_known(request)
        if path in PATHS and (is_known or _is_local(request)):
            return health_answer(path, self._ready)
        if not is_known:
            return _problem(
                401,
                "unauthenticated",
                "Who you are is not known",
                "send Authorization: Bearer and the token that this agent told its server",
                {"WWW-Authenticate": "Bearer"},
            )
        try:
            if path == "/files":
                return await self._list(request)
            if path.startswith("/files/"):
                return await self._read(request, path.removeprefix("/files/"))
        except (NoSuchFile, QuestionInvalid, Overloaded) as error:
            return _problem_of(error)
        except TimeoutError:
            return _problem_of(Overloaded("the file system does not answer", retry_after_s=5))
        except OSError as error:
            log.warning("a file cannot be read", path=path[:_HEADER_CHARS_MAX], reason=error.strerror)
            return _problem_of(NoSuchFile())
        return _problem(404, "no-such-path", "There is no such path", "there are /files and /files/{name}")

    def _is_known(self, request: Request) -> bool:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        return hmac.compare_digest(token.strip().encode(), self._token) and scheme.lower() == "bearer"

    async def _list(self, request: Request) -> Response:
        question = parse_list(request.query_params.multi_items())
        async with self._pool.place() as place:
            roots = tuple(self._roots.values())
            document = await place.call(lambda: list_files(roots, question), timeout_s=_STEP_S)
        log.info("files listed", **_who(request))
        return Response(orjson.dumps(document), media_type="application/json")

    async def _read(self, request: Request, name: str) -> Response:
        question = parse_file(
            request.query_params.multi_items(), read_s_max=self._read_s_max, follow_s_max=self._follow_s_max
        )
        root, below = self._named(name, question.scope)
        async with AsyncExitStack() as stack:
            place = await stack.enter_async_context(self._pool.place())
            reader = await place.call(lambda: _opened(place, root, below, question.question), timeout_s=_STEP_S)
            taken = stack.pop_all()
        pieces = self._pieces(reader, place, taken, question, {"file": name, **_who(request)})
        return _Streaming(pieces, taken, media_type=MEDIA_TYPES[question.question.form])

    def _named(self, name: str, scope: ServiceScope) -> tuple[Root, str]:
        root_name, _, below = name.partition("/")
        root = self._roots.get(root_name)
        if root is None or not scope.permits(root.service):
            raise NoSuchFile
        return root, below

    async def _pieces(
        self, reader: FileReader, place: ReaderPlace, taken: AsyncExitStack, question: FileQuestion, who: dict[str, str]
    ) -> AsyncIterator[bytes]:
        begun_s = self._clock.monotonic_s()
        ends_s = begun_s + question.max_s
        how = "left"
        try:
            while True:
                left_s = ends_s - self._clock.monotonic_s()
                if left_s <= 0:
                    how = Status.DEADLINE
                    yield reader.end(Status.DEADLINE)
                    return
                try:
                    piece = await place.call(reader.step, timeout_s=min(left_s + 1, _STEP_S))
                except TimeoutError:
                    how = Status.ERROR
                    yield reader.end(Status.ERROR, "the file system does not answer")
                    return
                if piece is None:
                    how = "told"
                    return
                if piece:
                    yield piece
                if reader.is_idle:
                    await asyncio.sleep(min(POLL_S, max(0.0, ends_s - self._clock.monotonic_s())))
        finally:
            took_s = round(self._clock.monotonic_s() - begun_s, 3)
            log.info("file read", **who, lines=reader.lines, scanned_bytes=reader.scanned_bytes, how=how, took_s=took_s)
            await taken.aclose()


def _opened(place: ReaderPlace, root: Root, name: str, question: Question) -> FileReader:
    """In a thread: what is opened is closed, also where nobody waits for it any more."""
    reader = FileReader(root, name, question)
    place.at_end(reader.close)
    return reader


class _Streaming(StreamingResponse):
    """Gives its place back also when it is never sent."""

    def __init__(self, pieces: AsyncIterator[bytes], taken: AsyncExitStack, *, media_type: str) -> None:
        super().__init__(pieces, media_type=media_type)
        self._taken = taken

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._taken.aclose()


def _is_local(request: Request) -> bool:
    return request.client is not None and is_loopback(request.client.host)


def _who(request: Request) -> dict[str, str]:
    """Who asks, as the server says, and the trace of the question."""
    return {
        name: request.headers.get(header, "")[:_HEADER_CHARS_MAX]
        for name, header in (("subject", "x-logfeed-subject"), ("traceparent", "traceparent"))
    }


def _problem_of(error: LogfeedError) -> Response:
    for kind, (status, slug, title) in _PROBLEMS.items():
        if isinstance(error, kind):
            headers = {"Retry-After": str(error.retry_after_s)} if isinstance(error, Overloaded) else {}
            members = (
                {"errors": [{"parameter": error.parameter, "error": error.problem}]}
                if isinstance(error, QuestionInvalid)
                else {}
            )
            return _problem(status, slug, title, str(error), headers, **members)
    raise error


def _problem(
    status: int, slug: str, title: str, detail: str, headers: dict[str, str] | None = None, **members: object
) -> Response:
    document = {"type": f"urn:logfeed:problem:{slug}", "title": title, "status": status, "detail": detail, **members}
    return Response(orjson.dumps(document), status, headers, "application/problem+json")
