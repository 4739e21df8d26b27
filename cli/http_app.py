"""The HTTP application: the routers of the services it was given, health, metrics, and one merged OpenAPI document.

What no route answers is a problem document as well. What changes something is refused to pages of other origins, but for
the two sending routes: those take no cookie, only keys and tokens that no browser sends by itself. HEAD is answered as GET
without its body, wherever there is a GET, and ends with the headers. A WebSocket at a path that takes none is a problem too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from http import HTTPStatus
from importlib.metadata import version
from typing import Any, Final, Protocol

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from cli.api_docs import docs_router
from runtime.answer_headers import AnswerHeaders
from runtime.direct import DirectApplication
from runtime.origins import Origins
from runtime.request_spans import RequestSpans
from runtime.telemetry import render_metrics
from runtime.tracing import Traces
from schemas.access import SCHEMES

_DESCRIPTION = """\
Keeps every accepted log exactly once and finds any of them again.

Errors are problem documents (RFC 9457). Only 429 and 503 are worth retrying, after `Retry-After` seconds.
Ids are decimal strings: they pass 2^53. Times are ISO 8601, UTC.
"""

_TAGS: Final = [
    {"name": "ingest", "description": "Send logs. 2xx means durable; keyed requests may be repeated safely."},
    {"name": "auth", "description": "Log in for an access token, stay logged in, log out."},
    {"name": "query", "description": "Find logs: pages along `next_cursor`, look-ups, correlations, the ledger."},
    {"name": "personal", "description": "What you keep for yourself: bookmarks, saved views."},
    {
        "name": "accounts",
        "description": "Keys and users, for who has `admin` on all services; everybody's own password.",
    },
    {"name": "tail", "description": "Logs as they come: server-sent events, WebSocket."},
    {"name": "topics", "description": "Derived topics: one log per record, for subscribers."},
    {"name": "experiments", "description": "What runs, how it stands, its logs, every change as it comes."},
    {"name": "connections", "description": "The logs of both sides of a connection: sent, shown, figures."},
    {"name": "hosts", "description": "Hosts whose agent is heard of, and the files there."},
    {"name": "loki", "description": "Loki's push API, and a subset of its query API for Grafana and logcli."},
    {"name": "alerts", "description": "Rules, what fires, silences, circuit breakers, messages."},
    {"name": "health", "description": "For probes and monitoring."},
]
_READINESS: Final[dict[str, Any]] = {
    "application/json": {
        "schema": {
            "type": "object",
            "required": ["ready", "problems"],
            "properties": {
                "ready": {"type": "boolean"},
                "problems": {
                    "type": "array",
                    "items": {"type": "string"},
                    "description": "What keeps it from working, one sentence each.",
                },
            },
        }
    }
}
_SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_METRICS: Final[dict[str, Any]] = {"text/plain": {"schema": {"type": "string"}}}


class HttpService(Protocol):
    """One service of the application."""

    @property
    def router(self) -> APIRouter:
        """Its routes."""

    def ready(self) -> list[str]:
        """What keeps the service from doing its work, one sentence each; empty when ready."""


class RunningService(HttpService, Protocol):
    """One that works beside its requests. Those that come before its start, or after its stop, are refused with 503."""

    async def start(self) -> None:
        """Begin. Raises Overloaded (retriable) while what it cannot start without is away."""

    async def stop(self) -> None:
        """Finish what was taken, then free everything. Harmless without a start."""


def build_app(
    services: Sequence[HttpService], *, origins: Origins | None = None, hsts_s: int = 0, traces: Traces | None = None
) -> FastAPI:
    """The application over services that the caller starts and stops.

    origins: whose pages may log in; None: its own alone. hsts_s: see AnswerHeaders. traces: closed by the caller; None traces
    nothing.
    """
    app = DirectApplication(
        AnswerHeaders(hsts_s=hsts_s),
        None if traces is None else RequestSpans(traces),
        title="Logfeed",
        version=version("logfeed"),
        description=_DESCRIPTION,
        openapi_tags=_TAGS,
        generate_unique_id_function=_operation_id,
        docs_url=None,
        redoc_url=None,
        swagger_ui_oauth2_redirect_url=None,
    )
    routers = [*(service.router for service in services), _health(services)]
    for router in routers:
        app.include_router(router)
    _document_credentials(app)
    app.include_router(docs_router("Logfeed API"))
    app.add_api_websocket_route("/{path:path}", no_such_socket)
    app.add_middleware(_HeadAsGet)
    app.add_middleware(_OwnPagesOnly, origins=origins or Origins())
    app.add_exception_handler(HTTPException, _unrouted([route for router in routers for route in router.routes]))
    return app


def _document_credentials(app: FastAPI) -> None:
    """FastAPI writes schemes into its document only for its own dependencies, whose cost a single log would pay."""
    make = app.openapi

    def openapi() -> dict[str, Any]:
        document = make()
        document.setdefault("components", {})["securitySchemes"] = SCHEMES
        return document

    app.openapi = openapi  # type: ignore[method-assign]  # as FastAPI's documentation extends it


class _HeadAsGet:
    """The server leaves out the body of what answers a HEAD; here it finds its route."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] == "http" and scope["method"] == "HEAD":
            await self._head({**scope, "method": "GET"}, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)

    async def _head(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Ends with the headers: some bodies, a tail's, have no end."""
        is_answered = asyncio.Event()

        async def send_head(message: Message) -> None:
            if is_answered.is_set():
                return
            await send(message)
            if message["type"] == "http.response.start":
                await send({"type": "http.response.body"})
                is_answered.set()

        answering = asyncio.ensure_future(self._answer(scope, receive, send_head))
        answered = asyncio.create_task(is_answered.wait())
        try:
            await asyncio.wait({answering, answered}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            answered.cancel()
            answering.cancel()  # also where we are cancelled: what it waits for, a server that ends does not wait for
            await asyncio.wait({answering, answered})
        if not answering.cancelled():
            answering.result()


class _OwnPagesOnly:
    """Refuses what changes something where a page of another origin sends it: cookies come along by themselves."""

    def __init__(self, app: ASGIApp, origins: Origins) -> None:
        self._app = app
        self._origins = origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        is_change = scope["type"] == "http" and scope["method"] not in _SAFE_METHODS
        if is_change and not self._origins.admit(HTTPConnection(scope)):
            document = {
                "type": "urn:logfeed:problem:foreign-origin",
                "title": "A page of another origin may not do this",
                "status": 403,
                "detail": "the browser says that a page of another origin sent this: http.allowed_origins names those that may",
            }
            response = JSONResponse(document, 403, {"Connection": "close"}, "application/problem+json")
            await response(scope, receive, send)
            return
        await self._app(scope, receive, send)


def _unrouted(routes: Sequence[BaseRoute]) -> Callable[[Request, Exception], Awaitable[Response]]:
    """Answers where no route does, or none for the method. routes: all there are."""

    async def answer(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        path, headers = request.url.path[:200], dict(error.headers or {})
        slug, title, detail = "http", "The request cannot be answered", error.detail
        if error.status_code == HTTPStatus.NOT_FOUND:
            slug, title = "no-such-path", "There is no such path"
            detail = f"there is no {path}: /docs lists what there is"
        elif error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            here = [route for route in routes if route.matches(request.scope)[0] is not Match.NONE]
            headers["Allow"] = ", ".join(sorted({method for route in here for method in getattr(route, "methods", ())}))
            slug, title = "method-not-allowed", "The path does not take this method"
            detail = f"{path} takes {headers['Allow'] or 'GET'}, got {request.method[:20]}"
        document = {
            "type": f"urn:logfeed:problem:{slug}",
            "title": title,
            "status": error.status_code,
            "detail": detail,
        }
        return JSONResponse(document, error.status_code, headers, "application/problem+json")

    return answer


async def no_such_socket(socket: WebSocket) -> None:
    """Otherwise the server would deny it by itself, without the headers of all answers."""
    document = {
        "type": "urn:logfeed:problem:no-such-path",
        "title": "There is no such path",
        "status": 404,
        "detail": f"there is no WebSocket at {socket.url.path[:200]}: /docs lists what there is",
    }
    await socket.send_denial_response(JSONResponse(document, 404, media_type="application/problem+json"))


def _operation_id(route: APIRoute) -> str:
    """The handler's name: what generated clients call the operation."""
    return route.name


def _health(services: Sequence[HttpService]) -> APIRouter:
    router = APIRouter(tags=["health"])

    @router.get(
        "/livez",
        summary="Does the process live?",
        response_class=PlainTextResponse,
        response_description="It answers.",
    )
    async def livez() -> str:
        """Says nothing of broker and database: a restart would not mend those."""
        return "ok\n"

    @router.get(
        "/readyz",
        summary="Can it do its work now?",
        response_class=JSONResponse,
        responses={
            200: {"description": "It can.", "content": _READINESS},
            503: {"description": "Not now; `problems` says why.", "content": _READINESS},
        },
    )
    async def readyz() -> JSONResponse:
        """For load balancers: send no requests while it answers 503."""
        problems = [problem for service in services for problem in service.ready()]
        content: dict[str, Any] = {"ready": not problems, "problems": problems}
        return JSONResponse(content, status_code=503 if problems else 200)

    @router.get(
        "/metrics",
        summary="Prometheus metrics",
        response_class=Response,
        responses={200: {"description": "Prometheus text format.", "content": _METRICS}},
    )
    async def metrics() -> Response:
        """Names start with `logfeed_` and end in a unit."""
        body, content_type = render_metrics()
        return Response(body, media_type=content_type)

    return router
