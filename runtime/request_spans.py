"""One span for each request of an HTTP application, below which its steps are.

It goes on with the trace that the request came with (`traceparent`, W3C Trace Context), and says the route, the method and
the status; neither path nor query, which hold ids and what somebody looked for. Probes and the page's files have none.
"""

from __future__ import annotations

from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from runtime.tracing import Kind, Traces, under

_UNTRACED: Final = ("/livez", "/readyz", "/metrics", "/assets/")
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_SERVER_ERRORS_FROM: Final = 500


class RequestSpans:
    """Runs an application's requests, each under its span."""

    def __init__(self, traces: Traces) -> None:
        """traces: closed by the caller."""
        self._traces = traces

    async def run(self, application: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request (ASGI, `http`)."""
        if scope["path"].startswith(_UNTRACED):
            await application(scope, receive, send)
            return
        method = scope["method"] if scope["method"] in _METHODS else "_OTHER"
        span = self._traces.begin(
            method, Kind.SERVER, parent=_traceparent(scope), values={"http.request.method": method}
        )
        if span is None:
            await application(scope, receive, send)
            return
        status = 0

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        with under(span):
            try:
                await application(scope, receive, noting)
            finally:
                route = getattr(scope.get("route"), "path_format", None)
                if route is not None:
                    span.rename(f"{method} {route}")
                    span.note(**{"http.route": route})
                if status:
                    span.note(**{"http.response.status_code": status})
            if status >= _SERVER_ERRORS_FROM:
                span.end(error=str(status))


def _traceparent(scope: Scope) -> str | None:
    """Of a request that has one, and only one."""
    found = [value for name, value in scope["headers"] if name == b"traceparent"]
    return found[0].decode("latin-1") if len(found) == 1 else None
