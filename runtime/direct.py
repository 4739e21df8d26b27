"""Routes that answer before FastAPI's layers do.

FastAPI's middlewares, its routing and its solving of dependencies cost some 130 µs a request (Python 3.11, one core of
2025), more than all else that becomes of a single log. A `DirectRouter` documents a route through FastAPI and gives the
same handler as a bare ASGI application; `DirectApplication` asks those first. A handler turns every error into a response
itself, since no middleware does.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import APIRouter, FastAPI, Request, Response
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from runtime.answer_headers import AnswerHeaders
from runtime.request_spans import RequestSpans

Handler = Callable[[Request], Awaitable[Response]]


class DirectRouter(APIRouter):
    """A router that has direct routes, each with a fixed path, beside its others."""

    def __init__(self, **options: Any) -> None:
        """options: APIRouter's, of many types; no prefix."""
        super().__init__(**options)
        self.direct: dict[tuple[str, str], ASGIApp] = {}
        """(method, path) -> application."""
        self.documented: dict[tuple[str, str], BaseRoute] = {}
        """(method, path) -> the same as FastAPI's route."""

    def add_direct(self, method: str, path: str, handler: Handler, **documentation: Any) -> None:
        """Add a route. handler must not raise. documentation: as for `add_api_route`."""

        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            response = await handler(Request(scope, receive))
            await response(scope, receive, send)

        self.add_api_route(path, handler, methods=[method], **documentation)
        self.direct[method, path] = application
        self.documented[method, path] = self.routes[-1]


class DirectApplication(FastAPI):
    """A FastAPI application that asks its routers' direct routes first. Whatever it answers has the headers of all answers."""

    def __init__(self, answer_headers: AnswerHeaders, spans: RequestSpans | None = None, **options: Any) -> None:
        """spans: None traces nothing. options: FastAPI's, of many types."""
        super().__init__(**options)
        self._direct: dict[tuple[str, str], ASGIApp] = {}
        self._documented: dict[tuple[str, str], BaseRoute] = {}
        self._answer_headers = answer_headers
        self._spans = spans

    def include_router(self, router: APIRouter, **options: Any) -> None:
        """See FastAPI."""
        super().include_router(router, **options)
        if isinstance(router, DirectRouter):
            self._direct |= router.direct
            self._documented |= router.documented

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See FastAPI."""
        if scope["type"] in ("http", "websocket"):
            send = self._answer_headers.guard(scope, send)
        if scope["type"] == "http" and self._spans is not None:
            await self._spans.run(self._answer, scope, receive, send)
        else:
            await self._answer(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            place = scope["method"], scope["path"]
            application = self._direct.get(place)
            if application is not None:
                scope["route"] = self._documented[place]
                await application(scope, receive, send)
                return
        await super().__call__(scope, receive, send)
