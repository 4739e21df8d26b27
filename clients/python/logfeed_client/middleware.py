"""Correlation ids of HTTP requests, for ASGI and WSGI applications: from the request's headers, into its logs, and back.

Each request runs with the id that it brings (`logfeed_client.headers` says which), or a new one; its answer says it in
`X-Correlation-ID`, unless the application has set that header itself. Neither reads nor changes a body.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, MutableMapping
from contextvars import Context, copy_context
from typing import Any, Final

from logfeed_client.context import enter, using
from logfeed_client.headers import CORRELATION_HEADER, STATE_HEADER, Incoming, incoming

# ASGI and WSGI have messages and environments of any values.
Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
AsgiApp = Callable[[Scope, Receive, Send], Awaitable[None]]
WsgiApp = Callable[..., Iterable[bytes]]

_ASGI_NAME: Final = CORRELATION_HEADER.lower().encode()
_ASGI_ANSWERS: Final = frozenset({"http.response.start", "websocket.accept"})
_JOINED: Final = frozenset({STATE_HEADER})
"""Headers that may come several times and are one list."""


class CorrelationMiddleware:
    """For ASGI: `app.add_middleware(CorrelationMiddleware)` of Starlette and FastAPI, or `CorrelationMiddleware(app)`."""

    def __init__(self, app: AsgiApp) -> None:
        """app: what answers."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request or WebSocket."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        found = incoming(lambda name: _asgi_header(scope, name))

        async def answer(message: Message) -> None:
            if message["type"] in _ASGI_ANSWERS:
                headers = list(message.get("headers") or [])
                if not any(bytes(name).lower() == _ASGI_NAME for name, _ in headers):
                    headers.append((_ASGI_NAME, found.correlation_id.encode()))
                message = {**message, "headers": headers}
            await send(message)

        with using(found):
            await self._app(scope, receive, answer)


class WsgiCorrelationMiddleware:
    """For WSGI: `app.wsgi_app = WsgiCorrelationMiddleware(app.wsgi_app)` of Flask, or around Django's application."""

    def __init__(self, app: WsgiApp) -> None:
        """app: what answers."""
        self._app = app

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """One request, run with its body's iteration in a context of its own: threads of a server serve many requests."""
        found = incoming(lambda name: environ.get(f"HTTP_{name.upper().replace('-', '_')}"))

        def start(status: str, headers: list[tuple[str, str]], *more: Any) -> Any:
            if not any(name.lower() == CORRELATION_HEADER.lower() for name, _ in headers):
                headers = [*headers, (CORRELATION_HEADER, found.correlation_id)]
            return start_response(status, headers, *more)

        context = copy_context()
        return _Body(context, context.run(self._run, found, environ, start))

    def _run(self, found: Incoming, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        enter(found)
        return self._app(environ, start)


class _Body:
    """An answer's pieces, each made in the request's context."""

    def __init__(self, context: Context, pieces: Iterable[bytes]) -> None:
        self._context = context
        self._pieces = pieces
        self._iterator: Iterator[bytes] | None = None

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if self._iterator is None:
            self._iterator = self._context.run(iter, self._pieces)
        return self._context.run(next, self._iterator)

    def close(self) -> None:
        """As PEP 3333 has it: the server calls it, whatever happened."""
        close = getattr(self._pieces, "close", None)
        if close is not None:
            self._context.run(close)


def _asgi_header(scope: Scope, name: str) -> str | None:
    wanted = name.encode()
    values = [bytes(value).decode("latin-1") for each, value in scope["headers"] if bytes(each).lower() == wanted]
    # Of a header that may come once only, several are none: nobody can tell which is meant.
    return ",".join(values) if len(values) == 1 or (values and name in _JOINED) else None
